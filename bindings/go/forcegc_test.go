//go:build forcegc

// Under the tag forcegc all tests run while the collector never rests: what C keeps of Go, and Go forgets, would be found.

package pvera_test

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(1)
	go func() {
		for {
			runtime.GC()
		}
	}()
	os.Exit(m.Run())
}
