//go:build pvera_static

// How the static library is found: the linker prefers libpvera.so of the same folder, so the archive is named outright, and
// the shared one that pkg-config names after it is then not needed.

package pvera

// #cgo pkg-config: --static pvera
// #cgo LDFLAGS: -Wl,--as-needed -l:libpvera.a
import "C"
