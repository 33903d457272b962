// Package pvera runs, trains and serves PVeRA adapters (arXiv 2512.07703) through the C library of the same name.
//
// The usual way: declare layers on a [Model], load a PEFT checkpoint as an [Adapter], publish it, take a [Snapshot] for a
// pass over the network, and run its [Linear] layers on your own slices with a [Context]. The header pvera.h, which is
// installed with the library, says what every call computes; this documentation says what is different in Go.
//
// # Linking
//
// cgo asks pkg-config for the library (PKG_CONFIG_PATH=PREFIX/lib/pkgconfig). A program then needs libpvera.so when it runs:
// LD_LIBRARY_PATH, or CGO_LDFLAGS=-Wl,-rpath,PREFIX/lib when it is built. With the build tag pvera_static it holds libpvera.a
// instead.
//
// # Errors
//
// A call of the library that fails returns an [*Error], which [errors.Is] compares with a [Code]:
//
//	if errors.Is(err, pvera.ErrNotFound) { … }
//
// Work that a [context.Context] cancelled returns the context's own error.
//
// # Closing
//
// What has a Close method holds memory outside Go's heap. Close may be called again, from any goroutine, and while calls run:
// the memory goes when the last of them has ended. A call after Close returns [ErrClosed]. What was made from a closed object
// goes on working and keeps what it needs of it. A value that was forgotten is closed some time after the garbage collector
// finds it; that is a net, not a plan.
//
// # Memory
//
// A [Matrix] is a view of a slice; nothing is copied. Most calls borrow it until they return. What the library keeps for
// longer is pinned, and stays alive, until its keeper is closed: the base weights of a [Model], the vectors of [NewLinear],
// the memory of [Adapter.Trainable], and what a [Tape] needs for backward. The contents may be written between calls, as the
// header allows.
//
// # Goroutines
//
// Every handle may be used by many goroutines. Calls that need one to themselves (on one [Tape], one [Statistics], setters of
// one [Config]) wait for each other. What nobody can guard is the memory of slices: a matrix that one call writes is not to
// be used by another, nor are parameters to be stepped while a forward reads them.
package pvera
