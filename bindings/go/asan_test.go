//go:build asan

// Proof that AddressSanitizer is on: in a process of its own, a use after free and a leak are found.

package pvera_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"pvera.invalid/pvera/internal/testhost"
)

func TestSanitizerIsOn(t *testing.T) {
	bugs := map[string]func(){
		"heap-use-after-free": func() { os.Stdout.Write([]byte{*testhost.Freed()}) },
		"4321 byte(s)":        testhost.Leak,
	}
	if name := os.Getenv("PVERA_TEST_BUG"); name != "" {
		bugs[name]()
		return
	}
	for name := range bugs {
		command := exec.Command(os.Args[0], "-test.run=^TestSanitizerIsOn$")
		command.Env = append(os.Environ(), "PVERA_TEST_BUG="+name)
		output, err := command.CombinedOutput()
		if err == nil || !strings.Contains(string(output), "Sanitizer") || !strings.Contains(string(output), name) {
			t.Errorf("%s was not found: %v\n%s", name, err, output)
		}
	}
}
