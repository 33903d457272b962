// The built server stopped by a signal; and the largest pass.

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What has begun when the signal comes is answered, and the server ends without an error. (Service managers send SIGTERM.)
func TestSignals(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "server")
	if printed, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, printed)
	}
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) { stopBy(t, binary, signal) })
	}
}

func stopBy(t *testing.T, binary string, signal os.Signal) {
	server := exec.Command(binary, "-listen", "127.0.0.1:0", "-base", basePath)
	log := bufio.NewReader(must(server.StderrPipe())(t))
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer server.Process.Kill() // does nothing when it has ended
	line := must(log.ReadString('\n'))(t)
	_, address, found := strings.Cut(strings.TrimSpace(line), "listening on ")
	if !found {
		t.Fatalf("the server says %q; wanted its address", line)
	}
	connection := must(net.Dial("tcp", address))(t)
	defer connection.Close()
	answers := bufio.NewReader(connection)
	body := `{"rows": [[` + strings.Repeat("0,", 63) + `0]]}`
	// The server says "100 Continue" when it has begun with the request and waits for the body.
	const head = "POST /predict HTTP/1.1\r\nHost: server\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
	fmt.Fprintf(connection, head, len(body))
	if begun := must(http.ReadResponse(answers, nil))(t); begun.StatusCode != http.StatusContinue {
		t.Fatalf("status %s before the body", begun.Status)
	}
	if err := server.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	io.WriteString(connection, body)
	if answer, err := http.ReadResponse(answers, nil); err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("the request that had begun: %v, %v", answer, err)
	}
	connection.Close()
	said, _ := io.ReadAll(log)
	if err := server.Wait(); err != nil {
		t.Errorf("the server ended with %v and said %q", err, said)
	}
}

// No pass has more rows than the largest one; what does not fit begins the next.
func TestLargestPass(t *testing.T) {
	b := &batcher{jobs: make(chan *job, 3)}
	draws := func(samples int) *job { return &job{rows: make([][]float32, 1), samples: samples} }
	first, fits, tooLarge, later := draws(largestPass-3), draws(2), draws(2), draws(1)
	b.jobs <- fits
	b.jobs <- tooLarge
	b.jobs <- later
	batch, next := b.collect(first)
	if len(batch) != 2 || batch[0] != first || batch[1] != fits || next != tooLarge {
		t.Fatalf("the batch has %d jobs, and the next begins with %+v; wanted 2, and the one that does not fit", len(batch), next)
	}
	if batch, next = b.collect(next); len(batch) != 2 || batch[0] != tooLarge || batch[1] != later || next != nil {
		t.Errorf("the next batch has %d jobs, and after it comes %+v; wanted 2 and nothing", len(batch), next)
	}
}
