//go:build !pvera_static

// How the shared library is found.

package pvera

// #cgo pkg-config: pvera
import "C"
