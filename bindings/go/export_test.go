// What tests outside the package cannot bring about otherwise.

package pvera

// KeepPanic leaves a panic for the next call of this thread on the context, as its ParallelFor does in that call.
func KeepPanic(c *Context, value any) { c.host.keep(value) }
