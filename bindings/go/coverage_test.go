// Every function of the header is called by the binding.

package pvera_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Functions that the binding does not call, each with its reason.
var unused = map[string]string{
	"pvera_f32":     "a convenience of the header for C; Dense is Go's",
	"pvera_f32_mut": "a convenience of the header for C; Dense is Go's",
}

func TestWholeHeaderIsBound(t *testing.T) {
	declared := regexp.MustCompile(`(?m)^(?:static inline )?[a-z][a-z0-9_ ]*[ *](pvera_[a-z0-9_]+)\(`).
		FindAllStringSubmatch(string(must(os.ReadFile("../../include/pvera.h"))(t)), -1)
	if len(declared) < 120 {
		t.Fatalf("only %d functions were found in the header", len(declared))
	}
	var text strings.Builder
	for _, pattern := range []string{"*.go", "shim.c"} {
		for _, file := range must(filepath.Glob(pattern))(t) {
			if !strings.HasSuffix(file, "_test.go") {
				text.Write(must(os.ReadFile(file))(t))
			}
		}
	}
	found := map[string]bool{}
	for _, function := range declared {
		name := function[1]
		found[name] = true
		called := regexp.MustCompile(`\b` + name + `\(`).MatchString(text.String())
		if _, excused := unused[name]; called == excused {
			t.Errorf("%s: called by the binding is %t, in the list of unused ones is %t", name, called, excused)
		}
	}
	for name := range unused {
		if !found[name] {
			t.Errorf("%s is in the list of unused ones, but not in the header", name)
		}
	}
}
