// What tests outside the package cannot bring about otherwise.

package pvera

// KeepPanic leaves a panic for the next call on the context, as its ParallelFor does in a call at the same time.
func KeepPanic(c *Context, value any) { c.host.panicked = value }
