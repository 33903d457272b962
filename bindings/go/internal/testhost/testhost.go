// Package testhost is what the tests need of C: cgo is not allowed in test files.
package testhost

/*
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct memory { atomic_long blocks, bytes, calls; };

static void *allocate(void *user, size_t size, size_t alignment) {
    struct memory *memory = user;
    void *block = NULL;
    if (posix_memalign(&block, alignment < sizeof(void *) ? sizeof(void *) : alignment, size)) return NULL;
    atomic_fetch_add(&memory->blocks, 1), atomic_fetch_add(&memory->bytes, (long)size), atomic_fetch_add(&memory->calls, 1);
    return block;
}

static void release(void *user, void *block, size_t size, size_t alignment) {
    struct memory *memory = user;
    (void)alignment;
    atomic_fetch_sub(&memory->blocks, 1), atomic_fetch_sub(&memory->bytes, (long)size);
    free(block);
}

static void *allocate_at(void) { return (void *)allocate; }
static void *release_at(void) { return (void *)release; }

static unsigned char *freed(void) {
    unsigned char *block = malloc(64);
    memset(block, 7, 64);
    free(block);
    return block;
}

static void leak(void) {
    void *volatile block = malloc(4321);
    memset(block, 1, 4321);
    block = NULL;
}

// The report of glibc's allocator on all its arenas; freed by the caller.
static char *heap_report(void) {
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    malloc_info(0, stream);
    fclose(stream);
    return text;
}
*/
import "C"

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"unsafe"
)

// WithoutCaches runs a test again in a process whose C allocator keeps nothing back for each thread, so that [HeapInUse] is
// exact; it is true there, and false where the test is to end.
func WithoutCaches(t *testing.T) bool {
	const without = "glibc.malloc.tcache_count=0"
	if os.Getenv("GLIBC_TUNABLES") == without {
		return true
	}
	command := exec.Command(os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$", "-test.short="+strconv.FormatBool(testing.Short()))
	command.Env = append(os.Environ(), "GLIBC_TUNABLES="+without)
	output, err := command.CombinedOutput()
	t.Logf("%s", output)
	if err != nil {
		t.Error(err)
	}
	return false
}

// Memory is an allocator that counts.
type Memory struct{ counts *C.struct_memory }

// NewMemory is an allocator with nothing allocated.
func NewMemory() Memory {
	return Memory{(*C.struct_memory)(C.calloc(1, C.sizeof_struct_memory))}
}

// Functions are pvera_allocator's allocate, release and user.
func (m Memory) Functions() (allocate, release, user unsafe.Pointer) {
	return C.allocate_at(), C.release_at(), unsafe.Pointer(m.counts)
}

// Counts are the blocks and bytes that are out, and how often any were asked for.
func (m Memory) Counts() (blocks, bytes, calls int) {
	counts := (*[3]C.long)(unsafe.Pointer(m.counts))
	return int(counts[0]), int(counts[1]), int(counts[2])
}

// Close ends the counting.
func (m Memory) Close() { C.free(unsafe.Pointer(m.counts)) }

// Freed is C memory that was freed: a bug on purpose.
func Freed() *byte { return (*byte)(C.freed()) }

// Leak forgets C memory: a bug on purpose.
func Leak() { C.leak() }

var totals = regexp.MustCompile(`<(?:total type="(?:fast|rest)" count="\d+"|system type="current") size="(\d+)"`)

// HeapInUse is how many bytes of glibc's heap are in use, all arenas together, and without blocks mapped on their own.
func HeapInUse() int {
	text := C.heap_report()
	defer C.free(unsafe.Pointer(text))
	found := totals.FindAllStringSubmatch(C.GoString(text), -1)
	last := found[len(found)-3:] // those of all arenas: fast, rest, system
	size := func(which int) int {
		value, _ := strconv.Atoi(last[which][1])
		return value
	}
	return size(2) - size(1) - size(0)
}
