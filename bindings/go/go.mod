// The binding has no home on the network yet, so its path ends in .invalid, a domain that nobody can ever own (RFC 6761): the go
// command cannot fetch something else under this name. A program names the folder that it is installed in:
//
//	require pvera.invalid/pvera v0.0.0
//	replace pvera.invalid/pvera => PREFIX/share/pvera/go
module pvera.invalid/pvera

go 1.25
