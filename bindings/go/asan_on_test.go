//go:build asan

package pvera_test

const sanitized = true
