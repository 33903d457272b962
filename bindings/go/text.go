// Texts and bytes on their way to C and back.

package pvera

// #include "shim.h"
import "C"

import "unsafe"

// cText is a NUL-terminated copy of a Go string, in C's memory.
type cText struct{ c *C.char }

func newText(argument, text string) (cText, error) {
	if err := checkText(argument, text); err != nil {
		return cText{}, err
	}
	return cText{C.CString(text)}, nil
}

func (t cText) free() { C.free(unsafe.Pointer(t.c)) }

// takeText turns a text that the library gave into a Go string and frees it.
func takeText(text *C.char) string {
	defer C.pvera_text_free(text)
	return C.GoString(text)
}

// takeBytes copies bytes that the library gave and frees them.
func takeBytes(bytes *C.pvera_bytes) []byte {
	defer C.pvera_bytes_free(bytes)
	copied := make([]byte, int(bytes.size))
	copy(copied, unsafe.Slice((*byte)(bytes.data), int(bytes.size)))
	return copied
}
