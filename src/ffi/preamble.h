/** @file
 * pvera: probabilistic vector-based random matrix adaptation (PVeRA) adapters.
 *
 * Generated from src/ffi by `cargo test --test header`; do not edit.
 * SPDX-License-Identifier: Apache-2.0 OR MIT
 *
 * The method. One frozen random pair A [2r, in_max], B [out_max, r] serves every layer; a layer learns two vectors:
 *
 *     p            = dropout(x) A^T                    [n, 2r]
 *     (mu, logvar) = split(lambda_d * p)               [n, r] each
 *     z            = mu  |  mu + eps * exp(logvar/2)   mean | sample
 *     y            = x W^T + bias + lambda_b * (z B^T) [n, out]
 *
 * VeRA (peft_type VERA) is the same without the logvar half, and goes wherever a PVeRA adapter does on the CPU, also into
 * the same batch: A is [r, in_max], lambda_d [r], p [n, r], and z = mu in every mode. Its variances are 0 and its logvar is
 * -infinity; a KL divergence is infinite, and refused. A CUDA context does not run it, so far.
 *
 * The usual way. Declare layers on a pvera_model, load a PEFT checkpoint as a pvera_adapter, publish it, take a
 * pvera_snapshot for a pass, and run its pvera_linear layers on your own matrices with a pvera_context.
 *
 * Errors. Every call that can fail returns a pvera_error that the caller frees; NULL is success. Outputs come last and are
 * written only on success. Nothing is thread-local, nothing is printed, the process is never aborted.
 *
 * Ownership. Handles come from _new, _load, _from_..., _clone, or a function that says so, and go with _free, which takes
 * NULL. What a const pointer lends (pvera_snapshot_linear, pvera_store_matrices) belongs to its lender.
 *
 * Threads. A const pointer may be used by many threads at a time, any other by one, unless its type says more. There is
 * no global pool and no environment variable; a context without threads works on the calling thread alone. After fork,
 * a child must not use contexts that have threads of their own. The library may be unloaded when all contexts are freed.
 *
 * Memory. Matrices are the host's and lent for the call, but for what a layer or a tape says to borrow. Every allocation
 * whose size comes from a caller or a file can fail with PVERA_ERROR_MEMORY.
 *
 * Texts are NUL-terminated UTF-8, names and paths alike; a path of other bytes is refused. In messages and warnings control
 * characters are written as escapes.
 *
 * Structs that begin with struct_size are set to zero and then get sizeof(struct): zero is the default where there is
 * one (pvera_store_options, pvera_stopping and pvera_adamw have fields that must be given), and a program and a library
 * of different age understand each other. pvera_matrix is frozen instead.
 *
 * Numbers. f32 arithmetic whatever the element types, in a fixed order: a row has the same bits in any batch, on any
 * number of threads, in any split into parts. Rounding mode and subnormal handling of the host are set aside for a call
 * and put back. A finite result that is too large for f16 is stored as infinity, as a conversion does.
 *
 * Stability. Before 1.0 another minor version is another ABI, under another soname, in which the codes, the constants and
 * pvera_matrix alone are sure to be the same. Within one, functions are only added, and structs that begin with struct_size
 * grow at their end.
 */
