//go:build race

package pvera_test

const raced = true
