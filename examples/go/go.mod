// The examples in Go. The replace line is what a program has that uses the binding where it lies; see ../../bindings/go/go.mod.
// In an installed copy the binding lies elsewhere: go mod edit -replace pvera.invalid/pvera=PREFIX/share/pvera/go
module pvera.invalid/pvera/examples

go 1.25

require pvera.invalid/pvera v0.0.0

replace pvera.invalid/pvera => ../../bindings/go
