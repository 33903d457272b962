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
#ifndef PVERA_H
#define PVERA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** The version that this header is of; pvera_version() is the one that runs. */
#define PVERA_VERSION_MAJOR 0
/** Before 1.0 another minor version is another ABI. */
#define PVERA_VERSION_MINOR 1
/** Corrections. */
#define PVERA_VERSION_PATCH 0
/** The three as one number, as pvera_version() gives it. */
#define PVERA_VERSION (PVERA_VERSION_MAJOR * 1000000 + PVERA_VERSION_MINOR * 1000 + PVERA_VERSION_PATCH)
/** And as a text. */
#define PVERA_VERSION_TEXT "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Handles ---- */

/**
 * Why a call failed. Owned by the caller, who frees it; safe to read and free on any thread.
 */
typedef struct pvera_error pvera_error;

/**
 * Where work runs: a backend, its threads, its scratch memory.
 *
 * Calls on one context from several threads at a time are allowed, and each borrows scratch of its own; threads of the
 * context's own serve one call after the other. The results have the same bits whatever the threads.
 */
typedef struct pvera_context pvera_context;

/**
 * The hyper-parameters of an adapter, under PEFT's names and with PEFT's defaults.
 *
 * Fields: auto_mapping, base_model_name_or_path, bias ("none", "pvera_only" or "vera_only", "all"), d_initial
 * (0.1), fan_in_fan_out, generator_seed, inference_mode, init_weights, layers_pattern,
 * layers_to_transform, modules_to_save, peft_type ("PVERA" or "VERA"), peft_version, projection_prng_key
 * (0), pvera_dropout (0), r (256), revision, sample_at_inference, save_projection (true), target_modules,
 * task_type; and two of ours: alpha (1), the factor of the delta, and logvar_bound (null, off):
 * logvar = min(logvar, bound).
 *
 * With peft_type VERA, the dropout is vera_dropout, and there is no generator_seed, logvar_bound and
 * sample_at_inference: set peft_type first. A change of it that would lose one of these that is set is refused.
 */
typedef struct pvera_config pvera_config;

/**
 * The pair A [2r, in_max] and B [out_max, r] that all layers share: a layer uses A[:, :in] and B[:out, :].
 * That of VeRA adapters has A [r, in_max]; shapes tell the two apart. Immutable and reference counted: a clone is
 * the same store. May be used by many threads.
 */
typedef struct pvera_store pvera_store;

/**
 * The layers of one network and the adapters published for it. May be used by many threads; publishing never waits for a
 * running pass, because a pass holds a snapshot.
 */
typedef struct pvera_model pvera_model;

/**
 * One adapter: config, store, and two vectors for every layer that it adapts.
 *
 * Immutable and usable by many threads, unless it is trainable (made by pvera_adapter_new or pvera_adapter_trainable):
 * then its parameters are written by its owner, between calls.
 */
typedef struct pvera_adapter pvera_adapter;

/**
 * An immutable view of a model's adapters. May be used by many threads.
 */
typedef struct pvera_snapshot pvera_snapshot;

/**
 * Many adapters of one network in one file: thousands to hundreds of thousands. Names are known when a bank is open,
 * vectors are read when an adapter is first used, and kept as long as a budget allows. May be used by many threads; no
 * reader waits for a writer's disk. It keeps its model alive.
 *
 * A bank holds each adapter's vectors and noise number, its config once for all that share it, and projections once (or
 * their key, where they were drawn from it). An adapter that carries tensors is refused.
 *
 * The model's callbacks may call the bank that they come out of. What would wait for the very call that they come out of
 * (projections that it is drawing, a write within a write) is PVERA_ERROR_STATE.
 *
 * What a kill at any moment leaves is the bank before or after the call that it fell into. A reader sees the bank as it was
 * when it was opened or last refreshed; within one handle, calls see what was written through it before.
 */
typedef struct pvera_bank pvera_bank;

/**
 * A layer and the adapters that may run on it. Immutable; may be used by many threads, as far as the parameters behind it
 * are not written meanwhile.
 */
typedef struct pvera_linear pvera_linear;

/**
 * What a training forward leaves for backward. Reusable: its memory grows to the largest call and stays. One thread at a
 * time. It keeps the adapters of its forward alive, but borrows noise.eps, noise.dropout_mask, base weights and (under
 * RECOMPUTE) x until the last backward; of a CUDA context also noise.seed_at, rows.identity and rows.sample where
 * they are in device memory, and it belongs to that context. rows.slot and rows.active it copies, so that backward knows
 * which adapter each row had: slots in device memory are refused (PVERA_ERROR_UNSUPPORTED).
 */
typedef struct pvera_tape pvera_tape;

/**
 * The bits that a merge replaced.
 */
typedef struct pvera_undo pvera_undo;

/**
 * What a checkpoint is, or the adapters of a bank that have one config, layers and projections (a family of them): read without a
 * model, for whoever has yet to declare its layers. It never changes, and holds nothing open.
 */
typedef struct pvera_outline pvera_outline;

/**
 * Statistics of rows × outputs values over any number of passes, in memory that does not grow. One thread at a time. The
 * order of passes decides the last bits.
 */
typedef struct pvera_statistics pvera_statistics;

/**
 * PyTorch's CPU generator: consecutive tensors continue one stream, as torch.randn does.
 */
typedef struct pvera_torch_generator pvera_torch_generator;

/* ---- Errors ---- */

/**
 * No error.
 */
#define PVERA_OK 0

/**
 * A required pointer is NULL.
 */
#define PVERA_ERROR_NULL 1

/**
 * A value is outside its range.
 */
#define PVERA_ERROR_ARGUMENT 2

/**
 * A matrix or array has the wrong shape.
 */
#define PVERA_ERROR_SHAPE 3

/**
 * An element type that the call does not take.
 */
#define PVERA_ERROR_DTYPE 4

/**
 * A row stride shorter than a row.
 */
#define PVERA_ERROR_STRIDE 5

/**
 * An output overlaps an input or another output.
 */
#define PVERA_ERROR_OVERLAP 6

/**
 * A matrix lives on another device than the context.
 */
#define PVERA_ERROR_DEVICE 7

/**
 * No layer, adapter, slot, field or tensor of that name or number.
 */
#define PVERA_ERROR_NOT_FOUND 8

/**
 * The name is taken.
 */
#define PVERA_ERROR_EXISTS 9

/**
 * The call is right, but not now: no forward on the tape, a parameter changed between forward and backward, a merge of
 * an adapter that samples.
 */
#define PVERA_ERROR_STATE 10

/**
 * The operating system refused a file operation.
 */
#define PVERA_ERROR_IO 11

/**
 * A file is damaged, lies, or is of another format.
 */
#define PVERA_ERROR_FORMAT 12

/**
 * A configuration is invalid or contradicts itself.
 */
#define PVERA_ERROR_CONFIG 13

/**
 * Projections are missing or do not fit.
 */
#define PVERA_ERROR_PROJECTION 14

/**
 * Memory could not be had.
 */
#define PVERA_ERROR_MEMORY 15

/**
 * Valid, but not supported by this build or backend.
 */
#define PVERA_ERROR_UNSUPPORTED 16

/**
 * A result is not a finite number, though the inputs allow the call. Outputs may be partly written. Of the matrix
 * computations only exp(½ logvar), and exp(logvar) where KL or moments need it, are checked: NaN in x and products that
 * overflow go into the outputs, as in any matrix library.
 */
#define PVERA_ERROR_OVERFLOW 17

/**
 * The host's progress callback asked to stop.
 */
#define PVERA_ERROR_CANCELLED 18

/**
 * A bug in the library, caught at the boundary. Outputs may be partly written; the library goes on working.
 */
#define PVERA_ERROR_PANIC 19

/**
 * The CUDA driver refused or failed a call, or a device gives other results than the CPU.
 */
#define PVERA_ERROR_CUDA 20

/**
 * The code of an error, one of PVERA_ERROR_…; PVERA_OK for NULL.
 *
 * Pointers:
 * error is NULL or was returned by this library and not freed.
 */
int32_t pvera_error_code(const pvera_error *error);

/**
 * The sentence of an error: it names the argument, what was given and what was wanted. UTF-8; lives as long as the
 * error. For NULL the text "no error".
 *
 * Pointers:
 * error is NULL or was returned by this library and not freed.
 */
const char *pvera_error_message(const pvera_error *error);

/**
 * Frees an error; NULL is nothing.
 *
 * Pointers:
 * error is NULL or was returned by this library, and is not used again.
 */
void pvera_error_free(pvera_error *error);

/* ---- Version ---- */

/**
 * The version of the library that runs, as major·10⁶ + minor·10³ + patch. Compare with PVERA_VERSION of the header
 * that a program was compiled with.
 */
uint32_t pvera_version(void);

/**
 * The version as a text, "0.1.0". Static.
 */
const char *pvera_version_text(void);

/**
 * Panics inside the library on purpose, with this message. A host calls it in its tests to see that a bug of the library
 * would come back as PVERA_ERROR_PANIC in its build, with nothing printed and nothing aborted.
 *
 * Pointers:
 * message is a NUL-terminated text.
 */
pvera_error *pvera_test_panic(const char *message);

/* ---- Texts and bytes that the library gives away ---- */

/**
 * Bytes owned by the caller, who frees them with pvera_bytes_free.
 */
typedef struct pvera_bytes {
    /**
     * [size]; NULL when cleared.
     */
    uint8_t *data;
    /**
     * How many bytes.
     */
    size_t size;
} pvera_bytes;

/**
 * Frees bytes that the library gave, and clears them; NULL and cleared ones are nothing.
 *
 * Pointers:
 * bytes is NULL or points to bytes filled by this library (or cleared), which are not used again.
 */
void pvera_bytes_free(pvera_bytes *bytes);

/**
 * Frees a text that the library gave; NULL is nothing.
 *
 * Pointers:
 * text is NULL or was given by this library, and is not used again.
 */
void pvera_text_free(char *text);

/* ---- Matrices ---- */

/**
 * DLPack's kDLInt; of carried tensors alone, as all but FLOAT and BFLOAT.
 */
#define PVERA_DTYPE_INT 0

/**
 * DLPack's kDLUInt.
 */
#define PVERA_DTYPE_UINT 1

/**
 * DLPack's kDLFloat: f32 and f16 by their bits.
 */
#define PVERA_DTYPE_FLOAT 2

/**
 * DLPack's kDLBfloat: bf16.
 */
#define PVERA_DTYPE_BFLOAT 4

/**
 * DLPack's kDLComplex.
 */
#define PVERA_DTYPE_COMPLEX 5

/**
 * DLPack's kDLBool.
 */
#define PVERA_DTYPE_BOOL 6

/**
 * DLPack's kDLCPU: memory of the host.
 */
#define PVERA_DEVICE_CPU 1

/**
 * DLPack's kDLCUDA: memory of a CUDA device.
 */
#define PVERA_DEVICE_CUDA 2

/**
 * DLPack's kDLCUDAHost: pinned memory, taken as the host's.
 */
#define PVERA_DEVICE_CUDA_HOST 3

/**
 * An element type, laid out as DLPack's DLDataType. lanes is 1 (0 is read as 1).
 */
typedef struct pvera_dtype {
    /**
     * PVERA_DTYPE_….
     */
    uint8_t code;
    /**
     * Bits of one element.
     */
    uint8_t bits;
    /**
     * 1, or 0 for the same.
     */
    uint16_t lanes;
} pvera_dtype;

/**
 * A device, laid out as DLPack's DLDevice. Type 0 is read as the CPU.
 */
typedef struct pvera_device {
    /**
     * PVERA_DEVICE_…; 0 is the CPU.
     */
    int32_t type;
    /**
     * Which device of that type.
     */
    int32_t id;
} pvera_device;

/**
 * A matrix that is read: rows × cols elements, those of a row side by side. Frozen: this struct never changes.
 *
 * row_stride is the distance between the starts of two rows, in elements, at least cols; it does not matter when
 * there is one row. data is aligned for its element type and may be NULL when the matrix has no elements.
 */
typedef struct pvera_matrix {
    /**
     * The first element of the first row.
     */
    const void *data;
    /**
     * How many rows.
     */
    size_t rows;
    /**
     * Elements of a row.
     */
    size_t cols;
    /**
     * From one row's start to the next's, in elements.
     */
    size_t row_stride;
    /**
     * The element type.
     */
    pvera_dtype dtype;
    /**
     * Where data lies.
     */
    pvera_device device;
} pvera_matrix;

/**
 * A matrix that is written; fields as in pvera_matrix.
 */
typedef struct pvera_matrix_mut {
    /**
     * As in pvera_matrix, but written.
     */
    void *data;
    /**
     * How many rows.
     */
    size_t rows;
    /**
     * Elements of a row.
     */
    size_t cols;
    /**
     * From one row's start to the next's, in elements.
     */
    size_t row_stride;
    /**
     * The element type.
     */
    pvera_dtype dtype;
    /**
     * Where data lies.
     */
    pvera_device device;
} pvera_matrix_mut;

/* ---- Contexts: where work runs, and what the host gives ---- */

/**
 * f32 kernels on the CPU; the default.
 */
#define PVERA_BACKEND_CPU 0

/**
 * Plain f64 code that reads like the method; for checking, not for speed.
 */
#define PVERA_BACKEND_REFERENCE 1

/**
 * A CUDA stream: every matrix of a call lies on its device, and work is queued, not waited for. See pvera_context_new.
 */
#define PVERA_BACKEND_CUDA 2

/**
 * CPU features that kernels are chosen by, as bits: AVX2 with FMA and F16C.
 */
#define PVERA_CPU_AVX2 1

/**
 * AVX-512 F, BW, DQ and VL; on top of AVX2.
 */
#define PVERA_CPU_AVX512 2

/**
 * AVX-512 BF16; on top of AVX512.
 */
#define PVERA_CPU_AVX512_BF16 4

/**
 * Advanced SIMD of 64-bit Arm.
 */
#define PVERA_CPU_NEON 8

/**
 * Products in f32, whatever the storage; the default. The same bits on every CPU.
 */
#define PVERA_PRODUCTS_F32 0

/**
 * Where x (or dy) and the base weight are both bf16, their product is made in bf16 arithmetic: twice as fast where the CPU
 * has it, emulated where not. For pairs of k, odd then even, each a fused multiply-add into f32, subnormals flushed to
 * zero. The same bits on x86-64 and 64-bit Arm; elsewhere they may differ where a result is next to a subnormal.
 */
#define PVERA_PRODUCTS_BF16 1

/**
 * One task of a parallel-for: to be called once for each index below the count.
 */
typedef void (*pvera_task)(void *task, size_t index);

/**
 * The host's own parallel-for: calls run(task, index) once for each index below count, on threads of its choice, and
 * returns when all have returned.
 */
typedef void (*pvera_parallel_for)(void *user, size_t count, pvera_task run, void *task);

/**
 * The host's memory, for everything whose size depends on shapes and files. All zero: the process's allocator.
 *
 * allocate returns size bytes aligned to alignment (a power of two), or NULL when there are none; release gets
 * the same size and alignment back. Both may be called from any thread that uses the object.
 */
typedef struct pvera_allocator {
    /**
     * NULL: there is no memory.
     */
    void *(*allocate)(void *user, size_t size, size_t alignment);
    /**
     * Never called with a NULL memory.
     */
    void (*release)(void *user, void *memory, size_t size, size_t alignment);
    /**
     * Given to both.
     */
    void *user;
} pvera_allocator;

/**
 * How a context works. Zero is the default: the CPU, on the calling thread alone.
 */
typedef struct pvera_context_options {
    /**
     * sizeof(pvera_context_options).
     */
    size_t struct_size;
    /**
     * PVERA_BACKEND_….
     */
    int32_t backend;
    /**
     * Threads of the context's own, beside the calling one, at most 1024; they sleep between calls. With a parallel_for: how many tasks
     * it gets at a time, less one.
     */
    uint32_t threads;
    /**
     * The host's threads instead.
     */
    pvera_parallel_for parallel_for;
    /**
     * Given to parallel_for.
     */
    void *parallel_for_user;
    /**
     * For scratch memory.
     */
    pvera_allocator allocator;
    /**
     * For CUDA alone: which device, {PVERA_DEVICE_CUDA, ordinal}; zero: that of the stream, or device 0.
     */
    pvera_device device;
    /**
     * For CUDA alone: a CUstream (or cudaStream_t), which outlives the context. NULL: the legacy default stream of the
     * device's primary context, which is the one that CUDA's runtime uses.
     */
    void *stream;
    /**
     * PVERA_CPU_… bits that are not to be used though the machine has them; a feature falls with those that it builds on.
     * The results are the same. Bits that are none of these are of features that are not used anyway.
     */
    uint32_t cpu_features_off;
    /**
     * PVERA_PRODUCTS_….
     */
    int32_t products;
} pvera_context_options;

/**
 * How the library speaks to its host. Any of them may be NULL. They are called on the thread that called the library.
 *
 * warning gets a sentence about something odd that is not an error. progress is called every million values or so while
 * projections are drawn from a key; a result other than 0 stops that with PVERA_ERROR_CANCELLED. The texts live as long as
 * the callback runs. Callbacks run in the library's rounding mode.
 */
typedef struct pvera_callbacks {
    /**
     * Something odd that is not an error.
     */
    void (*warning)(void *user, const char *message);
    /**
     * How far a long piece of work is; other than 0 stops it.
     */
    int32_t (*progress)(void *user, const char *stage, uint64_t done, uint64_t total);
    /**
     * Given to both.
     */
    void *user;
} pvera_callbacks;

/**
 * A context. options may be NULL.
 *
 * **CUDA.** With PVERA_BACKEND_CUDA the calls of the context are queued on options.stream and return before the work is
 * done; none waits. All their matrices, base weights and parameters lie on the stream's device (PVERA_ERROR_DEVICE names
 * what does not); so do the vectors of pvera_slot_gradients and kl_value. Stores and published adapters are the host's:
 * their copy on the device is made when a call first uses them, which waits once, and goes in the order of the streams that
 * used it. In f32 the results have the CPU's bits. What kernels find wrong is told by pvera_context_check. A call made
 * before at its size allocates nothing, so that it can be captured in a CUDA graph. A graph has the number of rows, the
 * layers and all that the host gave as they were at the capture; what lies in device memory is read at each replay. The
 * context, its stores, adapters and tapes outlive the graph; a tape that was captured neither grows nor moves to another
 * context. What is freed during a capture goes with the next call after it; no other thread may begin to capture the stream while
 * something is freed that it used. Parameters on the device are saved before or after a capture (else PVERA_ERROR_STATE).
 * Of device memory only the device is checked that it is said to be on: neither addresses and lengths nor what is in it.
 * pvera_scratch_bytes foretells the device memory that it holds between calls, beside what a captured graph uses. The
 * thread's current CUDA context is left as it was. Calls and replays share one workspace: they are on one stream, or the
 * host orders them.
 *
 * Making one needs the driver of CUDA 12.1 or newer and compute capability 7.5. The first in a CUDA context compiles the
 * kernels (the driver keeps them on disk) and compares layers of known answers with the CPU: a device that differs is
 * refused (PVERA_ERROR_CUDA). Without a driver or a device, or with an older one: PVERA_ERROR_UNSUPPORTED. Merges, parts,
 * first-order variance and VeRA adapters are the CPU's alone (PVERA_ERROR_UNSUPPORTED).
 *
 * Pointers:
 * options is NULL or sized options; context is a place for the result.
 */
pvera_error *pvera_context_new(const pvera_context_options *options,
                               pvera_context **context);

/**
 * An error that kernels found while they ran: exp(½ logvar) or exp(logvar) that does not fit (PVERA_ERROR_OVERFLOW), a bad
 * slot in device memory (PVERA_ERROR_NOT_FOUND), a failed launch (PVERA_ERROR_CUDA). The first since the last check, which
 * forgets it. Waits for the context's stream. On a CPU context there is never one: its calls return their errors.
 *
 * Pointers:
 * context is a context.
 */
pvera_error *pvera_context_check(const pvera_context *context);

/**
 * The PVERA_CPU_… features of this machine that this build has kernels for.
 *
 * Pointers:
 * features is a place for the result.
 */
pvera_error *pvera_cpu_features(uint32_t *features);

/**
 * The PVERA_CPU_… features that a context's kernels use.
 *
 * Pointers:
 * context is a context; features is a place for the result.
 */
pvera_error *pvera_context_cpu_features(const pvera_context *context, uint32_t *features);

/**
 * Bytes of scratch memory that the context holds between calls. Of a CUDA context: of device memory; its lists on the
 * host, a few KiB, are not counted.
 *
 * Pointers:
 * context is a context; bytes is a place for the result.
 */
pvera_error *pvera_context_scratch_bytes(const pvera_context *context, size_t *bytes);

/**
 * Frees a context, its threads and its scratch; NULL is nothing. No call may be running on it. A CUDA context waits for its
 * stream, which is not being captured and may go afterwards; tapes and parameters on its device may be freed later, while the CUDA context itself is
 * there.
 *
 * Pointers:
 * context is NULL or an owned context, not used again.
 */
void pvera_context_free(pvera_context *context);

/* ---- Configs: the hyper-parameters of an adapter ---- */

/**
 * A config with PEFT's defaults.
 *
 * Pointers:
 * config is a place for the result.
 */
pvera_error *pvera_config_new(pvera_config **config);

/**
 * A config from the text of an adapter_config.json of size bytes. Missing fields get PEFT's defaults, unknown ones
 * are kept and written back, older spellings are understood.
 *
 * Errors: PVERA_ERROR_FORMAT for a text that is not JSON, PVERA_ERROR_CONFIG for a field of the wrong type or range.
 *
 * Pointers:
 * json points to size bytes; config is a place for the result.
 */
pvera_error *pvera_config_from_json(const char *json,
                                    size_t size,
                                    pvera_config **config);

/**
 * The text of an adapter_config.json as PEFT lays it out; freed with pvera_text_free.
 *
 * Pointers:
 * config is a config; json is a place for the result.
 */
pvera_error *pvera_config_to_json(const pvera_config *config, char **json);

/**
 * A copy that shares nothing.
 *
 * Pointers:
 * config is a config; copy is a place for the result.
 */
pvera_error *pvera_config_clone(const pvera_config *config, pvera_config **copy);

/**
 * Frees a config; NULL is nothing.
 *
 * Pointers:
 * config is NULL or an owned config, not used again.
 */
void pvera_config_free(pvera_config *config);

/**
 * Whether the fields make sense, each and together; the error names the field, its value and what was wanted. Every call
 * that takes a config does this too.
 *
 * Pointers:
 * config is a config.
 */
pvera_error *pvera_config_validate(const pvera_config *config);

/**
 * Whether an adapter of this config targets a linear layer of this module path, by PEFT's rules. output_head says that
 * the layer is the model's head, which "all-linear" leaves out.
 *
 * Pointers:
 * config is a config, path a text, targeted a place for the result.
 */
pvera_error *pvera_config_targets(const pvera_config *config,
                                  const char *path,
                                  bool output_head,
                                  bool *targeted);

/**
 * Reads a whole-number field: r, projection_prng_key, generator_seed, layers_to_transform (of one value).
 *
 * Pointers:
 * config is a config, field a text, value a place for the result.
 */
pvera_error *pvera_config_get_int(const pvera_config *config, const char *field, int64_t *value);

/**
 * Sets a whole-number field. On an error the config is as before.
 *
 * Pointers:
 * config is a config that nobody else uses, field a text.
 */
pvera_error *pvera_config_set_int(pvera_config *config, const char *field, int64_t value);

/**
 * Reads a number: d_initial, pvera_dropout, alpha, logvar_bound.
 *
 * Pointers:
 * config is a config, field a text, value a place for the result.
 */
pvera_error *pvera_config_get_real(const pvera_config *config, const char *field, double *value);

/**
 * Sets a number. On an error the config is as before.
 *
 * Pointers:
 * config is a config that nobody else uses, field a text.
 */
pvera_error *pvera_config_set_real(pvera_config *config, const char *field, double value);

/**
 * Reads a truth value: fan_in_fan_out, inference_mode, init_weights, sample_at_inference, save_projection.
 *
 * Pointers:
 * config is a config, field a text, value a place for the result.
 */
pvera_error *pvera_config_get_bool(const pvera_config *config, const char *field, bool *value);

/**
 * Sets a truth value. On an error the config is as before.
 *
 * Pointers:
 * config is a config that nobody else uses, field a text.
 */
pvera_error *pvera_config_set_bool(pvera_config *config, const char *field, bool value);

/**
 * Reads a text field: bias, target_modules (of the pattern form), task_type, …; freed with pvera_text_free.
 *
 * Pointers:
 * config is a config, field a text, value a place for the result.
 */
pvera_error *pvera_config_get_text(const pvera_config *config, const char *field, char **value);

/**
 * Sets a text field. On an error the config is as before.
 *
 * Pointers:
 * config is a config that nobody else uses, field and value are texts.
 */
pvera_error *pvera_config_set_text(pvera_config *config, const char *field, const char *value);

/**
 * Reads any field, known or not, as JSON; freed with pvera_text_free.
 *
 * Pointers:
 * config is a config, field a text, value a place for the result.
 */
pvera_error *pvera_config_get_json(const pvera_config *config, const char *field, char **value);

/**
 * Sets any known field from JSON: pvera_config_set_json(config, "target_modules", "[\"q_proj\", \"v_proj\"]"). On an
 * error the config is as before.
 *
 * Pointers:
 * config is a config that nobody else uses, field and value are texts.
 */
pvera_error *pvera_config_set_json(pvera_config *config, const char *field, const char *value);

/* ---- Stores: the frozen pair A and B ---- */

/**
 * What packing is for, as bits: forward, sample, moments and latent.
 */
#define PVERA_PACK_FORWARD 1

/**
 * Backward, with the forward that it recomputes left to PVERA_PACK_FORWARD.
 */
#define PVERA_PACK_BACKWARD 2

/**
 * As PEFT draws them; the default.
 */
#define PVERA_GRID_NONE 0

/**
 * For new adapters: the draw rounded to integers from −127 to 127 times one factor for A and one for B. Packed, a value
 * takes one byte and loses nothing (but in stores of a few thousand values, which may miss the largest integer), so that A
 * and B of a wide model stay in caches. No key of PEFT draws such a
 * store: save_projection of its adapters is true, and PEFT reads A and B from the checkpoint.
 */
#define PVERA_GRID_INT8 1

/**
 * How large a store drawn from a key is.
 */
typedef struct pvera_store_options {
    /**
     * sizeof(pvera_store_options).
     */
    size_t struct_size;
    /**
     * Rank r of the pair.
     */
    size_t rank;
    /**
     * The largest in_features over all adapted layers of the whole model.
     */
    size_t in_max;
    /**
     * The same of out_features.
     */
    size_t out_max;
    /**
     * Element type of the base model: PEFT casts A and B to it first, and so does the draw. Zero: f32, no rounding.
     */
    pvera_dtype base_dtype;
    /**
     * For A and B.
     */
    pvera_allocator allocator;
    /**
     * PVERA_GRID_….
     */
    int32_t grid;
    /**
     * Zero, which is checked. (Fills the struct.)
     */
    uint32_t reserved;
    /**
     * Progress is told while the store is drawn (stage "draw projections"); a result other than 0 stops it with
     * PVERA_ERROR_CANCELLED. For the time of the call.
     */
    pvera_callbacks callbacks;
} pvera_store_options;

/**
 * Draws the store of a projection_prng_key, bit for bit what PEFT draws with PyTorch's CPU generator (with a grid:
 * that, rounded). It serves PVeRA adapters; pvera_adapter_new and a load draw VeRA's. options.callbacks may stop it.
 *
 * Pointers:
 * options is sized options; store is a place for the result.
 */
pvera_error *pvera_store_from_key(uint64_t key,
                                  const pvera_store_options *options,
                                  pvera_store **store);

/**
 * A store of given matrices a [2r, in_max] (for VeRA [r, in_max]) and b [out_max, r], which are copied.
 *
 * Pointers:
 * a and b are matrices, allocator is NULL or an allocator, store is a place for the result.
 */
pvera_error *pvera_store_from_matrices(const pvera_matrix *a,
                                       const pvera_matrix *b,
                                       const pvera_allocator *allocator,
                                       pvera_store **store);

/**
 * The projections of a safetensors file that holds base_model.pvera_A and base_model.pvera_B, or those of VeRA,
 * base_model.vera_A and base_model.vera_B. With map the file is mapped instead of read; it must then stay as it
 * is while the store lives. allocator (NULL: the library's own) gives what A and B take outside the map; it must
 * live as long as the store.
 *
 * Pointers:
 * path is a text; allocator is NULL or an allocator; store is a place for the result.
 */
pvera_error *pvera_store_from_file(const char *path,
                                   bool map,
                                   const pvera_allocator *allocator,
                                   pvera_store **store);

/**
 * The projections of a safetensors file in memory, size bytes, which are copied. allocator (NULL: the library's own)
 * is as for pvera_store_from_file.
 *
 * Pointers:
 * bytes points to size bytes; allocator is NULL or an allocator; store is a place for the result.
 */
pvera_error *pvera_store_from_memory(const uint8_t *bytes,
                                     size_t size,
                                     const pvera_allocator *allocator,
                                     pvera_store **store);

/**
 * Another handle on the same store.
 *
 * Pointers:
 * store is a store; clone is a place for the result.
 */
pvera_error *pvera_store_clone(const pvera_store *store, pvera_store **clone);

/**
 * Frees a handle; the store goes with its last one. NULL is nothing.
 *
 * Pointers:
 * store is NULL or an owned store, not used again.
 */
void pvera_store_free(pvera_store *store);

/**
 * A and B as they are held: read only, valid while a handle on the store lives. Both keep their values in 16 bits where
 * that loses nothing, so look at the dtype. Shapes give rank, in_max and out_max.
 *
 * Pointers:
 * store is a store; a and b are places for the results.
 */
pvera_error *pvera_store_matrices(const pvera_store *store, pvera_matrix *a, pvera_matrix *b);

/**
 * Whether two stores hold the same values, whatever their origin and element type.
 *
 * Pointers:
 * first and second are stores; equal is a place for the result.
 */
pvera_error *pvera_store_equal(const pvera_store *first, const pvera_store *second, bool *equal);

/**
 * Packs A and B now for the kernels, for uses (PVERA_PACK_…); otherwise each form is packed when a call first needs
 * it. All layers and adapters of the store share the packed forms, which hold their values in the fewest bits that lose
 * nothing (int8, f16, bf16 or f32).
 *
 * Pointers:
 * store is a store.
 */
pvera_error *pvera_store_pack(const pvera_store *store,
                              uint32_t uses);

/**
 * Bytes that the packed forms for uses take or would take. They are kept beside A and B as they were given.
 *
 * Pointers:
 * store is a store; bytes is a place for the result.
 */
pvera_error *pvera_store_packed_bytes(const pvera_store *store, uint32_t uses, size_t *bytes);

/**
 * Bytes that A and B take, packed forms included as far as they are made.
 *
 * Pointers:
 * store is a store; bytes is a place for the result.
 */
pvera_error *pvera_store_bytes(const pvera_store *store, size_t *bytes);

/* ---- Models: declared layers and published adapters ---- */

/**
 * [out_features, in_features], as torch.nn.Linear.
 */
#define PVERA_WEIGHT_OUT_IN 0

/**
 * [in_features, out_features], as GPT-2's Conv1D.
 */
#define PVERA_WEIGHT_IN_OUT 1

/**
 * What a model is given by its host. Zero: the process's memory, no callbacks.
 */
typedef struct pvera_model_options {
    /**
     * sizeof(pvera_model_options).
     */
    size_t struct_size;
    /**
     * For stores and adapters.
     */
    pvera_allocator allocator;
    /**
     * They hear of warnings and of progress wherever an adapter of the model is loaded or made.
     */
    pvera_callbacks callbacks;
} pvera_model_options;

/**
 * A linear layer of the host, or this program's shard of one.
 */
typedef struct pvera_layer {
    /**
     * sizeof(pvera_layer).
     */
    size_t struct_size;
    /**
     * Module path as in the checkpoint: "model.layers.0.self_attn.q_proj". Noise is keyed by it. Copied.
     */
    const char *name;
    /**
     * Columns of x, of this shard.
     *
     * Fewer than in_total make a part of p. Forwards in mean mode add up over the shards, and so do their tapes' gradients of
     * lambda_d (a bias goes to one shard). What needs the latents' variance cannot be had from a part and is
     * PVERA_ERROR_UNSUPPORTED: another mode, pvera_sample, pvera_moments, pvera_latent, the divergence, first-order
     * variance. Such forwards go by pvera_project, the sum of p over the shards, and pvera_expand.
     */
    size_t in_features;
    /**
     * Columns of y, of this shard.
     */
    size_t out_features;
    /**
     * Where the shard's inputs begin in the whole layer.
     */
    size_t in_offset;
    /**
     * Where its outputs begin.
     */
    size_t out_offset;
    /**
     * Inputs of the whole layer; 0: in_offset + in_features.
     */
    size_t in_total;
    /**
     * Outputs of the whole layer; 0: out_offset + out_features.
     */
    size_t out_total;
    /**
     * Optional base weight, borrowed: it stays alive and unchanged as long as the model (or standalone linear) and all
     * that was made from it. Without one, forward adds the delta to what y holds. A view of a fused weight is fine.
     */
    pvera_matrix weight;
    /**
     * PVERA_WEIGHT_….
     */
    int32_t weight_layout;
    /**
     * 0 or 1 (as any other number): whether this is the model's output head, which "all-linear" leaves out.
     */
    uint8_t output_head;
    /**
     * Optional base bias [1, out_features], borrowed like the weight. Needed beside a foreign base only where an adapter
     * learned a bias, which takes its place.
     */
    pvera_matrix bias;
} pvera_layer;

/**
 * A model without layers. options may be NULL.
 *
 * Pointers:
 * options is NULL or sized options; model is a place for the result.
 */
pvera_error *pvera_model_new(const pvera_model_options *options, pvera_model **model);

/**
 * Declares a layer. Layers are numbered in the order of declaration, from 0; number (may be NULL) gets this one's. All
 * are declared before the first adapter or snapshot is made.
 *
 * Pointers:
 * model is a model, layer a sized layer, number NULL or a place for the result.
 */
pvera_error *pvera_model_declare(const pvera_model *model,
                                 const pvera_layer *layer,
                                 size_t *number);

/**
 * The number of the layer of that name.
 *
 * Pointers:
 * model is a model, name a text, number a place for the result.
 */
pvera_error *pvera_model_find_layer(const pvera_model *model, const char *name, size_t *number);

/**
 * Publishes an adapter under a new name; slot (may be NULL) gets its number, which stays while the name is published.
 * The model holds a reference of its own. A trainable adapter is copied as it is now.
 *
 * Pointers:
 * model is a model, name a text, adapter an adapter made for this model, slot NULL or a place for the result.
 */
pvera_error *pvera_model_publish(const pvera_model *model,
                                 const char *name,
                                 const pvera_adapter *adapter,
                                 int32_t *slot);

/**
 * Puts an adapter in the place of the one published under that name; the slot stays. Snapshots taken before keep the old
 * one, whose memory goes with the last of them.
 *
 * Pointers:
 * As for pvera_model_publish.
 */
pvera_error *pvera_model_replace(const pvera_model *model,
                                 const char *name,
                                 const pvera_adapter *adapter,
                                 int32_t *slot);

/**
 * Takes an adapter out. Its slot is free for the next one published.
 *
 * Pointers:
 * model is a model, name a text.
 */
pvera_error *pvera_model_remove(const pvera_model *model, const char *name);

/**
 * A view of the adapters as they are now, for one pass over the network.
 *
 * Pointers:
 * model is a model; snapshot is a place for the result.
 */
pvera_error *pvera_model_snapshot(const pvera_model *model, pvera_snapshot **snapshot);

/**
 * Frees a model; NULL is nothing. Its adapters and snapshots live on.
 *
 * Pointers:
 * model is NULL or an owned model, not used again.
 */
void pvera_model_free(pvera_model *model);

/* ---- Adapters: load, create, train, save ---- */

/**
 * What a checkpoint's files do not say. Zero is the default.
 */
typedef struct pvera_adapter_options {
    /**
     * sizeof(pvera_adapter_options).
     */
    size_t struct_size;
    /**
     * The largest in_features over all adapted layers of the whole model: needed where this program
     * declares only some of them and the projections come from the key. 0: the largest declared ones.
     */
    size_t in_max;
    /**
     * The same of out_features.
     */
    size_t out_max;
    /**
     * Element type of the base model, to which projections from the key are rounded, as PEFT does. Zero: f32.
     */
    pvera_dtype base_dtype;
    /**
     * 0 or 1 (as any other number): carry the vectors of layers that are not declared here along, instead of refusing them.
     */
    uint8_t ignore_undeclared;
    /**
     * 0 or 1 (as any other number): map the tensor file instead of reading it; it must then stay as it is while the adapter
     * lives.
     */
    uint8_t map_file;
    /**
     * The number under which the adapter draws its noise; 0: a hash of the name it is published under ("default" while it
     * is not published). Checkpoints do not hold it: to draw the same noise again, publish under the same name or give the
     * same number.
     */
    uint64_t identity;
} pvera_adapter_options;

/**
 * Where one layer's vectors lie among an adapter's parameters: first element and count of each. Vectors are whole, also
 * where the layer is a shard. bias_count is 0 where no bias is learned.
 */
typedef struct pvera_parameter_range {
    /**
     * First element of [out_total].
     */
    size_t lambda_b;
    /**
     * out_total.
     */
    size_t lambda_b_count;
    /**
     * First element of [2r]; [r] for VeRA.
     */
    size_t lambda_d;
    /**
     * 2r, or r.
     */
    size_t lambda_d_count;
    /**
     * First element of [out_total], where a bias is learned.
     */
    size_t bias;
    /**
     * out_total, or 0.
     */
    size_t bias_count;
} pvera_parameter_range;

/**
 * Loads a PEFT checkpoint folder (adapter_config.json, adapter_model.safetensors) for the layers of a model. Stores of
 * equal values are shared inside the model.
 *
 * A layer whose vectors are in the file although the config does not target it is adapted, with a warning that names it.
 *
 * Errors name the file, the tensor, what it holds and what was wanted. A folder that pvera_adapter_save replaces
 * meanwhile gives the old adapter or the new one.
 *
 * Pointers:
 * model is a model, folder a text, options NULL or sized options, adapter a place for the result.
 */
pvera_error *pvera_adapter_load(const pvera_model *model,
                                const char *folder,
                                const pvera_adapter_options *options,
                                pvera_adapter **adapter);

/**
 * Loads a PEFT checkpoint from memory: the bytes of its two files, which are copied.
 *
 * Pointers:
 * config and tensors point to that many bytes; the rest is as for pvera_adapter_load.
 */
pvera_error *pvera_adapter_load_memory(const pvera_model *model,
                                       const uint8_t *config,
                                       size_t config_size,
                                       const uint8_t *tensors,
                                       size_t tensors_size,
                                       const pvera_adapter_options *options,
                                       pvera_adapter **adapter);

/**
 * A new trainable adapter for the declared layers that the config targets: λ_b = 0, λ_d = d_initial. Projections are
 * those of store, or drawn from the config's key when it is NULL.
 *
 * Pointers:
 * model is a model, config a config, store NULL or a store, options NULL or sized options, adapter a place for
 * the result.
 */
pvera_error *pvera_adapter_new(const pvera_model *model,
                               const pvera_config *config,
                               const pvera_store *store,
                               const pvera_adapter_options *options,
                               pvera_adapter **adapter);

/**
 * A trainable copy. With memory, its parameters live there from now on: count f32 (the adapter's number of
 * parameters), which get today's values and outlive the copy and every linear made from it. With NULL (count is then not
 * looked at) it has memory of its own.
 *
 * Pointers:
 * adapter is an adapter, memory NULL or count f32, copy a place for the result.
 */
pvera_error *pvera_adapter_trainable(const pvera_adapter *adapter,
                                     float *memory,
                                     size_t count,
                                     pvera_adapter **copy);

/**
 * A trainable copy whose parameters live in device memory of a CUDA context: count f32 at memory (the adapter's number
 * of parameters), which get today's values in the order of the context's stream, and outlive the copy and every linear made
 * from it. Waits for that. Calls on the context read them there when the work runs; a save or a publish reads them back,
 * and waits.
 *
 * Errors: PVERA_ERROR_UNSUPPORTED for a context of the CPU.
 *
 * Pointers:
 * adapter is an adapter, context a context, memory count f32 on its device, copy a place for the result.
 */
pvera_error *pvera_adapter_trainable_on(const pvera_adapter *adapter,
                                        const pvera_context *context,
                                        float *memory,
                                        size_t count,
                                        pvera_adapter **copy);

/**
 * One adapter in the place of a weighted sum of count adapters: the one whose mean delta is nearest to
 * Σ weights[i] · delta of adapters[i]. They are of one model and one store, adapt the same layers, and neither learned biases
 * nor carry other tensors; config and layers are those of the first, with alpha multiplied into λ_b.
 *
 * Of a layer, Σ wᵢ λ_bᵢ λ_dᵢᵀ (mu halves) is replaced by its largest singular pair. error (may be NULL) gets how far that
 * is: the largest, over layers, of the relative Frobenius norm of the rest. It is 0 where the adapters share λ_d, or λ_b,
 * up to a factor. The exact sum is run by pvera_rows.active, at the price of one latent for each adapter.
 *
 * **The variance** is not that of the sum. There, noises are independent and variances add, Σ wᵢ² Varᵢ. Here one latent is
 * drawn, with a logvar half that is the mean of the adapters' weighted by |wᵢ|: of equal adapters with weights that add up
 * to 1 it is the variance of one of them.
 *
 * Pointers:
 * adapters points to count adapters, not written meanwhile, weights to count numbers; error is NULL or a place, and
 * combined a place, for the results.
 */
pvera_error *pvera_adapter_combine(size_t count,
                                   const pvera_adapter *const *adapters,
                                   const double *weights,
                                   double *error,
                                   pvera_adapter **combined);

/**
 * Another handle on the same adapter.
 *
 * Pointers:
 * adapter is an adapter; clone is a place for the result.
 */
pvera_error *pvera_adapter_clone(const pvera_adapter *adapter, pvera_adapter **clone);

/**
 * Frees a handle; the adapter goes with its last one, the model's and the linears' included. NULL is nothing.
 *
 * Pointers:
 * adapter is NULL or an owned adapter, not used again.
 */
void pvera_adapter_free(pvera_adapter *adapter);

/**
 * The live parameters of a trainable adapter, to be written between calls: one flat array of every adapted layer's λ_b,
 * λ_d and learned bias (see pvera_adapter_range). Valid as long as the adapter. Of pvera_adapter_trainable_on it is the
 * caller's device memory.
 *
 * Error: PVERA_ERROR_STATE for an adapter that is not trainable.
 *
 * Pointers:
 * adapter is an adapter; parameters and count are places for the results.
 */
pvera_error *pvera_adapter_parameters(const pvera_adapter *adapter,
                                      float **parameters,
                                      size_t *count);

/**
 * The number of parameters, all layers together.
 *
 * Pointers:
 * adapter is an adapter; count is a place for the result.
 */
pvera_error *pvera_adapter_parameter_count(const pvera_adapter *adapter, size_t *count);

/**
 * Whether the adapter adapts the layer of that number.
 *
 * Pointers:
 * adapter is an adapter; adapts is a place for the result.
 */
pvera_error *pvera_adapter_adapts(const pvera_adapter *adapter, size_t layer, bool *adapts);

/**
 * Where a layer's vectors lie among the parameters (and, in the same layout, gradients and optimiser state).
 *
 * Pointers:
 * adapter is an adapter; range is a place for the result.
 */
pvera_error *pvera_adapter_range(const pvera_adapter *adapter,
                                 size_t layer,
                                 pvera_parameter_range *range);

/**
 * A copy of the adapter's config.
 *
 * Pointers:
 * adapter is an adapter; config is a place for the result.
 */
pvera_error *pvera_adapter_config(const pvera_adapter *adapter, pvera_config **config);

/**
 * A handle on the adapter's store.
 *
 * Pointers:
 * adapter is an adapter; store is a place for the result.
 */
pvera_error *pvera_adapter_store(const pvera_adapter *adapter, pvera_store **store);

/**
 * Writes a PEFT checkpoint folder, which PEFT loads with the same outputs. alpha is multiplied into λ_b, since PEFT has
 * none: it is 1 after a reload, and inference_mode is true. logvar_bound is written, but PEFT ignores it: where the
 * bound acts, PEFT's sampled outputs differ. A parameter (or its product with alpha) that is not finite is
 * PVERA_ERROR_OVERFLOW, and nothing is written.
 *
 * All or nothing: the files are written beside the folder and take its place in one step. Other files and folders in it
 * are kept. A folder in it that cannot be moved over at once stays beside it, in .NAME.pvera-…, and the next save moves it. If
 * the folder is the process's working directory, the process is moved into the new one.
 *
 * It calls no callback and cannot be stopped. The files are made in memory, A and B included where save_projection is true; most
 * of the time goes into writing them to the disk, for which the call waits.
 *
 * Pointers:
 * adapter is an adapter, not written meanwhile; folder is a text.
 */
pvera_error *pvera_adapter_save(const pvera_adapter *adapter,
                                const char *folder);

/**
 * The two files of a checkpoint in memory; both are freed with pvera_bytes_free. Like a save, it cannot be stopped.
 *
 * Pointers:
 * adapter is an adapter, not written meanwhile; config and tensors are places for the results.
 */
pvera_error *pvera_adapter_save_memory(const pvera_adapter *adapter, pvera_bytes *config, pvera_bytes *tensors);

/* ---- Tensors that an adapter carries ---- */

/**
 * A tensor that an adapter carries: a head of modules_to_save, a bias of another module. Read only, valid as long as the
 * adapter (and until it is set again).
 */
typedef struct pvera_tensor {
    /**
     * The whole key in the file, UTF-8, name_size bytes, not NUL-terminated.
     */
    const char *name;
    /**
     * Bytes of the name.
     */
    size_t name_size;
    /**
     * All zero for the narrow float types that DLPack's words here do not cover; the bytes are there all the same.
     */
    pvera_dtype dtype;
    /**
     * How many, 0 for a scalar.
     */
    size_t dimensions;
    /**
     * [dimensions].
     */
    const size_t *shape;
    /**
     * Row major, little endian, as in the file (perhaps not aligned for the type).
     */
    const void *data;
    /**
     * Bytes of data.
     */
    size_t size;
} pvera_tensor;

/**
 * How many such tensors the adapter carries.
 *
 * Pointers:
 * adapter is an adapter; count is a place for the result.
 */
pvera_error *pvera_adapter_tensor_count(const pvera_adapter *adapter, size_t *count);

/**
 * The carried tensor of that number, from 0, in the order of their names.
 *
 * Pointers:
 * adapter is an adapter; tensor is a place for the result.
 */
pvera_error *pvera_adapter_tensor_at(const pvera_adapter *adapter, size_t number, pvera_tensor *tensor);

/**
 * The carried tensor of that key, as in the file: "base_model.model.classifier.weight".
 *
 * Pointers:
 * adapter is an adapter, name a text, tensor a place for the result.
 */
pvera_error *pvera_adapter_find_tensor(const pvera_adapter *adapter, const char *name, pvera_tensor *tensor);

/**
 * Puts or replaces a tensor that the adapter carries into its checkpoint. The adapter is trainable, and nobody holds
 * another handle on it or a linear of it. Everything is copied.
 *
 * Pointers:
 * adapter is an adapter that nobody else uses; name is a text; shape points to dimensions sizes and data to
 * size bytes.
 */
pvera_error *pvera_adapter_set_tensor(pvera_adapter *adapter,
                                      const char *name,
                                      pvera_dtype dtype,
                                      const size_t *shape,
                                      size_t dimensions,
                                      const void *data,
                                      size_t size);

/* ---- Snapshots: the adapters of a model for one pass ---- */

/**
 * The slot of the adapter published under that name when the snapshot was taken.
 *
 * Pointers:
 * snapshot is a snapshot, name a text, slot a place for the result.
 */
pvera_error *pvera_snapshot_slot(const pvera_snapshot *snapshot, const char *name, int32_t *slot);

/**
 * The adapted layer of that number. It belongs to the snapshot: valid as long as it, never freed.
 *
 * Pointers:
 * snapshot is a snapshot; linear is a place for the result.
 */
pvera_error *pvera_snapshot_linear(const pvera_snapshot *snapshot, size_t layer, const pvera_linear **linear);

/**
 * Frees a snapshot and, with the last one that shows it, an adapter that was replaced or removed. NULL is nothing.
 *
 * Pointers:
 * snapshot is NULL or an owned snapshot, not used again; nor is any of its linears.
 */
void pvera_snapshot_free(pvera_snapshot *snapshot);

/* ---- Banks: thousands of adapters in one file ---- */

/**
 * Read; any number of handles and programs at a time, also beside one that writes.
 */
#define PVERA_BANK_READ 0

/**
 * Read and write; one handle at a time, of all programs.
 */
#define PVERA_BANK_WRITE 1

/**
 * A new bank, to be written; PVERA_ERROR_EXISTS where there is a file already.
 */
#define PVERA_BANK_CREATE 2

/**
 * How a bank is opened. Zero is the default: to read, with a cache that is never emptied.
 */
typedef struct pvera_bank_options {
    /**
     * sizeof(pvera_bank_options).
     */
    size_t struct_size;
    /**
     * PVERA_BANK_….
     */
    int32_t access;
    /**
     * 0 or 1 (as any other number): leave out vectors of layers that are not declared here, instead of refusing them.
     */
    uint8_t ignore_undeclared;
    /**
     * What adapters that were read may take, in bytes; the least recently used go first. 0: any amount. Adapters that
     * somebody holds live on when they go from here.
     */
    size_t cache_bytes;
    /**
     * The largest in_features over all adapted layers of the whole model: needed where this program declares only some of
     * them and the projections come from a key. 0: the largest declared ones.
     */
    size_t in_max;
    /**
     * The same of out_features.
     */
    size_t out_max;
    /**
     * 0 or 1, for a damaged bank that is to be written: go on from what is sound. A last commit that is damaged or cut off is
     * overwritten, and pvera_bank_compact leaves out damaged adapters, with a warning that names each. Without it, both are
     * PVERA_ERROR_FORMAT.
     */
    uint32_t repair;
    /**
     * Zero, which is checked. (Fills the struct.)
     */
    uint32_t reserved;
} pvera_bank_options;

/**
 * What a bank holds, in the file and in memory.
 */
typedef struct pvera_bank_usage {
    /**
     * sizeof(pvera_bank_usage), set by the caller.
     */
    size_t struct_size;
    /**
     * Adapters.
     */
    size_t adapters;
    /**
     * Entries that were damaged when the bank was opened or last refreshed, and are left out.
     */
    size_t damaged;
    /**
     * Bytes of the file that count.
     */
    uint64_t file_bytes;
    /**
     * Of these, what replaced and removed adapters and older indexes take: pvera_bank_compact gives them back.
     */
    uint64_t unused_bytes;
    /**
     * Bytes of memory that names and places take.
     */
    size_t index_bytes;
    /**
     * Adapters that are kept in memory.
     */
    size_t cached;
    /**
     * Bytes that they take.
     */
    size_t cached_bytes;
    /**
     * How often an adapter was found in memory.
     */
    uint64_t hits;
    /**
     * How often one had to be read.
     */
    uint64_t misses;
    /**
     * Families: how many configs, lists of layers and projections the adapters have, for pvera_outline_from_bank.
     */
    size_t families;
} pvera_bank_usage;

/**
 * Opens a bank for the layers of a model. Entries that are damaged are left out, with a warning that names each.
 * Of a bank that was cut short, or whose last commit record is damaged, the commit before it is read, with a warning; to
 * write such a bank is an error without options.repair.
 *
 * Errors: PVERA_ERROR_IO, PVERA_ERROR_FORMAT for another file or a damaged one, PVERA_ERROR_STATE for one that is
 * being written through another handle, PVERA_ERROR_EXISTS.
 *
 * Pointers:
 * model is a model, path a text, options NULL or sized options, bank a place for the result.
 */
pvera_error *pvera_bank_open(const pvera_model *model,
                             const char *path,
                             const pvera_bank_options *options,
                             pvera_bank **bank);

/**
 * Frees a bank; NULL is nothing. Its adapters and snapshots live on.
 *
 * Pointers:
 * bank is NULL or an owned bank, not used again.
 */
void pvera_bank_free(pvera_bank *bank);

/**
 * Adds count adapters under names, or puts them in the place of those of the same names: all of them or none. Vectors are
 * rounded once to dtype (f32, f16 or bf16; zero: f32). When it returns, they are on the disk. Many at a time cost less
 * than one at a time. A trainable adapter is written as it is now. Damaged entries stay in the file as they are.
 *
 * Pointers:
 * bank is a bank; names and adapters point to count texts and adapters made for the bank's model.
 */
pvera_error *pvera_bank_append(const pvera_bank *bank,
                               size_t count,
                               const char *const *names,
                               const pvera_adapter *const *adapters,
                               pvera_dtype dtype);

/**
 * Removes count adapters: all of them or none. Adapters and snapshots that somebody holds live on.
 *
 * Pointers:
 * bank is a bank; names points to count texts.
 */
pvera_error *pvera_bank_remove(const pvera_bank *bank, size_t count, const char *const *names);

/**
 * Writes the bank anew without what nobody uses, and puts it in the place of the old file at once; a symbolic link to it
 * stays. Damaged adapters are an error; if the bank was opened with options.repair, they are left out, with a warning that
 * names each. Other programs that have the bank open go on with the old file until they refresh it.
 *
 * Errors: PVERA_ERROR_FORMAT for damage, PVERA_ERROR_STATE where another file is in the bank's place, PVERA_ERROR_IO.
 *
 * Pointers:
 * bank is a bank.
 */
pvera_error *pvera_bank_compact(const pvera_bank *bank);

/**
 * Looks at the file at the path again and takes its newest commit, also where a compaction or a rename put another file there.
 * changed (may be NULL) gets whether there was one. It reads the names, or the first 4096 bytes alone where nothing changed.
 * Other threads use the bank meanwhile, and see all of it before or all of it after. Adapters and snapshots that were handed out
 * stay as they are. What is cached of unchanged adapters is kept, but not where another file took the place.
 *
 * Put a new file in the bank's place by a rename. One that is written over is damaged for whoever reads it. A relative path is looked
 * up anew, in the working directory of the moment.
 *
 * A handle that writes sees all there is, and never a change.
 *
 * Errors leave the handle as it was, to be refreshed again or opened anew: PVERA_ERROR_IO where no file can be read,
 * PVERA_ERROR_FORMAT for one that is no bank, was cut short, lost its last commit, or has more damaged entries than before;
 * PVERA_ERROR_STATE from a callback of this very call.
 *
 * Pointers:
 * bank is a bank; changed is NULL or a place for the result.
 */
pvera_error *pvera_bank_refresh(const pvera_bank *bank,
                                bool *changed);

/**
 * Reads everything that adapters use, warns of each adapter and each store (projections in the file) that is damaged, and goes
 * on. damaged gets how many they are, with the entries that were left out when the bank was opened or last refreshed: each
 * adapter and each store once. Adapters of a damaged store are counted only where their own vectors are damaged. Nothing is
 * drawn, and nothing is kept in memory. The progress callback may stop it.
 *
 * Pointers:
 * bank is a bank; damaged is a place for the result.
 */
pvera_error *pvera_bank_verify(const pvera_bank *bank,
                               size_t *damaged);

/**
 * What the bank holds. usage.struct_size is set by the caller.
 *
 * Pointers:
 * bank is a bank; usage is sized.
 */
pvera_error *pvera_bank_get_usage(const pvera_bank *bank, pvera_bank_usage *usage);

/**
 * Whether the bank holds an adapter of that name.
 *
 * Pointers:
 * bank is a bank, name a text, contains a place for the result.
 */
pvera_error *pvera_bank_contains(const pvera_bank *bank, const char *name, bool *contains);

/**
 * The name of the adapter of a number below usage.adapters, in the order in which names were first added (removing one
 * moves those after it); freed with pvera_text_free.
 *
 * Pointers:
 * bank is a bank; name is a place for the result.
 */
pvera_error *pvera_bank_name_at(const pvera_bank *bank,
                                size_t number,
                                char **name);

/**
 * The adapter of that name, from memory or read now: an adapter as any other, to be published, copied, saved, freed. Its
 * noise has the number that the bank holds: a hash of the name, where it was appended without one of its own. It does not
 * change when the bank does.
 *
 * Errors: PVERA_ERROR_NOT_FOUND; PVERA_ERROR_FORMAT where its vectors are damaged.
 *
 * Pointers:
 * bank is a bank, name a text, adapter a place for the result.
 */
pvera_error *pvera_bank_adapter(const pvera_bank *bank,
                                const char *name,
                                pvera_adapter **adapter);

/**
 * A snapshot of the adapters that the rows of a batch want, for one pass: names[i] is row i's, or NULL for the base alone.
 * slots[i] gets its slot in the snapshot, for pvera_rows.slot; rows of one name have one slot. What is published on the
 * model is not in it.
 *
 * Pointers:
 * bank is a bank; names points to count texts or NULLs, slots to count places; snapshot is a place for the result.
 */
pvera_error *pvera_bank_snapshot(const pvera_bank *bank,
                                 size_t count,
                                 const char *const *names,
                                 int32_t *slots,
                                 pvera_snapshot **snapshot);

/* ---- Linears: adapted layers ---- */

/**
 * The vectors of a standalone layer, borrowed: they are read at every call, where they lie, and stay as long as the linear.
 */
typedef struct pvera_linear_vectors {
    /**
     * sizeof(pvera_linear_vectors).
     */
    size_t struct_size;
    /**
     * [out_total] f32.
     */
    const float *lambda_b;
    /**
     * [2r] f32; [r] on a store of VeRA.
     */
    const float *lambda_d;
    /**
     * [out_total] f32, a learned bias that takes the place of the layer's; or NULL.
     */
    const float *bias;
    /**
     * The number under which noise is drawn; 0: a hash of "default".
     */
    uint64_t identity;
    /**
     * Where the vectors lie; zero: on the CPU.
     */
    pvera_device device;
} pvera_linear_vectors;

/**
 * A standalone layer on a store, for hosts that keep the vectors themselves (a tensor library's autograd function). Its
 * one adapter is slot 0. config gives alpha, dropout, logvar_bound and sample_at_inference; with NULL rank and peft_type
 * are the store's and the rest PEFT's defaults.
 *
 * Pointers:
 * layer and vectors are sized, with what they point to; store is a store, config NULL or a config, linear a
 * place for the result.
 */
pvera_error *pvera_linear_new(const pvera_layer *layer,
                              const pvera_store *store,
                              const pvera_config *config,
                              const pvera_linear_vectors *vectors,
                              pvera_linear **linear);

/**
 * One layer of one adapter, in slot 0, with the adapter's live parameters: for training. The adapter lives on in it.
 *
 * Pointers:
 * adapter is an adapter; linear is a place for the result.
 */
pvera_error *pvera_adapter_linear(const pvera_adapter *adapter, size_t layer, pvera_linear **linear);

/**
 * Packs the layer's base weight for uses (PVERA_PACK_…): its products are then faster, for one row by as much as two to
 * three times. Nothing else changes, no bit either. The packed form takes about as much memory as the weight, once for each use, lives
 * as long as the layer's declaration, serves every linear of the layer, and is not made anew when the weight changes. May
 * run beside other calls.
 *
 * Pointers:
 * linear is a linear.
 */
pvera_error *pvera_linear_pack_base(const pvera_linear *linear,
                                    uint32_t uses);

/**
 * Bytes that the base weight's packed forms for uses take or would take.
 *
 * Pointers:
 * linear is a linear; bytes is a place for the result.
 */
pvera_error *pvera_linear_packed_base_bytes(const pvera_linear *linear, uint32_t uses, size_t *bytes);

/**
 * Frees a linear made by pvera_linear_new or pvera_adapter_linear; NULL is nothing. Those of a snapshot are const and
 * not freed.
 *
 * Pointers:
 * linear is NULL or an owned linear, not used again.
 */
void pvera_linear_free(pvera_linear *linear);

/* ---- Computing without a tape ---- */

/**
 * As PEFT would: sampled in a training forward, otherwise what each adapter's sample_at_inference says.
 */
#define PVERA_MODE_AS_PEFT 0

/**
 * z = mu. Half the work with A.
 */
#define PVERA_MODE_MEAN 1

/**
 * z = mu + eps ∘ exp(½ logvar).
 */
#define PVERA_MODE_SAMPLE 2

/**
 * z = mu + exp(½ logvar): the authors' "fix".
 */
#define PVERA_MODE_FIXED 3

/**
 * One adapter of several that are summed.
 */
typedef struct pvera_active {
    /**
     * Which adapter.
     */
    int32_t slot;
    /**
     * Factor of its delta (a learned bias is not scaled).
     */
    float scale;
} pvera_active;

/**
 * Whose rows these are. NULL or zero: slot 0 on every row; row i has identity i and sample 0.
 *
 * Noise belongs to (seed, layer name, adapter, row identity, sample), never to a row's place. Identity =
 * hash(sequence, position) gives noise for each token; identity = sequence gives one coherent draw, the same in chunked
 * prefill and decode. S Monte Carlo passes of a network are S times as many rows, with samples 0 … S−1.
 */
typedef struct pvera_rows {
    /**
     * sizeof(pvera_rows).
     */
    size_t struct_size;
    /**
     * [n] one adapter a row, −1 for the base alone; or NULL.
     */
    const int32_t *slot;
    /**
     * [active_count] adapters that are summed on every row, each slot once; or NULL. Not together with slot. Not NULL
     * and a count of 0: the base alone.
     */
    const pvera_active *active;
    /**
     * How many are summed.
     */
    size_t active_count;
    /**
     * [n], or NULL: identity_base plus the row's number.
     */
    const uint64_t *identity;
    /**
     * The first row's identity where identity is NULL.
     */
    uint64_t identity_base;
    /**
     * [n], or NULL: sample_base on every row. Draws count on from it, up to 2³² − 1: beyond that is an error where it
     * lies on the host; in device memory the numbers go on from 0, and with them that sample's noise.
     */
    const uint32_t *sample;
    /**
     * Every row's sample where sample is NULL.
     */
    uint32_t sample_base;
    /**
     * Zero, which is checked. (Fills the struct.)
     */
    uint32_t reserved;
    /**
     * Where slot, identity and sample lie; zero: on the host, from which they are taken when the call is made. In device
     * memory they are read when the work runs, so that a captured CUDA graph is replayed with others; a slot that holds no
     * PVeRA adapter is then reported by pvera_context_check, and its row gets the base alone. A forward with a tape takes
     * slots from the host alone (PVERA_ERROR_UNSUPPORTED). As nobody knows which slots rows have there, each such call sends
     * the vectors' addresses of every published adapter along: one launch more for some 40 adapters (docs/cuda.md); with
     * slots on the host, those alone that rows have. How many rows there are is never read from device memory: a graph has
     * those of the capture, and rows that a replay leaves over get slot −1.
     */
    pvera_device device;
} pvera_rows;

/**
 * How latents are made and where their noise comes from. NULL or zero: PVERA_MODE_AS_PEFT, keyed by seed 0.
 */
typedef struct pvera_noise {
    /**
     * sizeof(pvera_noise).
     */
    size_t struct_size;
    /**
     * PVERA_MODE_….
     */
    int32_t mode;
    /**
     * 0 or 1 (as any other number): whether sample 2j + 1 takes the negated noise of sample 2j.
     */
    uint8_t antithetic;
    /**
     * The seed of keyed noise and keyed dropout.
     */
    uint64_t seed;
    /**
     * Where the seed is read instead; or NULL. On a CUDA context it lies in device memory and is read when the work runs.
     */
    const uint64_t *seed_at;
    /**
     * The caller's noise instead of keyed one: a row for each row of y, a column for each latent (layers of a group in
     * their order, in a layer the active adapters in theirs; with a slot per row, each row its adapter's first columns).
     * All zero when absent.
     */
    pvera_matrix eps;
    /**
     * The caller's dropout mask [n, in_features] on x, already scaled by 1/(1 − p), instead of keyed dropout. All zero
     * when absent.
     */
    pvera_matrix dropout_mask;
} pvera_noise;

/**
 * Exact mean and variance of y given x, without sampling:
 * E[y] = x Wᵀ + bias + λ_b ∘ (mu Bᵀ), Var[y_j] = λ_b[j]² Σ_k exp(logvar_k) B[j,k]²; variances of summed adapters add.
 *
 * x [n, in_features]; mean and variance [n, out_features], of any element type and stride, sharing no memory with x
 * or each other. A layer without a weight adds the mean delta to what mean holds; variance is set.
 *
 * Pointers:
 * The handles live, the matrices are lent for the call, rows is NULL or sized.
 */
pvera_error *pvera_moments(const pvera_context *context,
                           const pvera_linear *linear,
                           const pvera_matrix *x,
                           const pvera_rows *rows,
                           const pvera_matrix_mut *mean,
                           const pvera_matrix_mut *variance);

/**
 * The latent distribution of every row: (mu, logvar) = split(λ_d ∘ (x Aᵀ)), logvar bounded if the config says so,
 * and −∞ for a VeRA adapter.
 *
 * mu and logvar [n, latents], columns as those of pvera_noise.eps; sharing no memory with x or each other. Rows of the
 * base alone, and columns beyond the rank of a row's adapter, are left as they were.
 *
 * Pointers:
 * As for pvera_moments.
 */
pvera_error *pvera_latent(const pvera_context *context,
                          const pvera_linear *linear,
                          const pvera_matrix *x,
                          const pvera_rows *rows,
                          const pvera_matrix_mut *mu,
                          const pvera_matrix_mut *logvar);

/**
 * samples sampled forwards of every row, with sample numbers rows.sample + 0 … samples − 1; the base product and the
 * product with A are done once. Draw s of row i is row s·n + i of y [samples·n, out_features], bit for bit what
 * pvera_forward gives for that sample number.
 *
 * A layer without a weight adds each draw's delta to what y holds. The mode must be sample (or as PEFT).
 *
 * Pointers:
 * As for pvera_forward.
 */
pvera_error *pvera_sample(const pvera_context *context,
                          const pvera_linear *linear,
                          const pvera_matrix *x,
                          const pvera_rows *rows,
                          const pvera_noise *noise,
                          size_t samples,
                          const pvera_matrix_mut *y);

/**
 * How many columns p has for such rows, and how many latents (columns of eps, mu and logvar). n is the number of rows.
 *
 * Pointers:
 * linear is a linear, rows NULL or sized; width and latents are NULL or places for the results.
 */
pvera_error *pvera_project_width(const pvera_linear *linear,
                                 const pvera_rows *rows,
                                 size_t n,
                                 size_t *width,
                                 size_t *latents);

/**
 * Bytes of scratch that a context holds after its calls on count linears with one input (a group, or one) and n rows:
 * forward, sample with samples draws (1 otherwise), moments and latent; with training also a taped forward and a
 * backward that is asked for everything, dx included. Without a tape's own bytes (pvera_tape_bytes). An upper bound for
 * one calling thread; a context that serves other shapes too holds the largest of each. rows may be NULL. The first
 * question about a store packs its A and B, as the first call does.
 *
 * Of a CUDA context: bytes of device memory alone, as pvera_context_scratch_bytes, and nothing is packed or copied. Stores
 * and adapters are not scratch. A dropout mask of the caller's takes n · in_features f32 more for each pair of projections.
 *
 * Pointers:
 * context is a context; linears points to count linears; rows is NULL or sized; bytes is a place for the result.
 */
pvera_error *pvera_scratch_bytes(const pvera_context *context,
                                 size_t count,
                                 const pvera_linear *const *linears,
                                 size_t n,
                                 const pvera_rows *rows,
                                 size_t samples,
                                 bool training,
                                 size_t *bytes);

/**
 * The first half of a forward: p = x Aᵀ, linear in x, so that tensor-parallel ranks that hold a part of the inputs sum
 * their p before pvera_expand.
 *
 * p [n, width] f32 (see pvera_project_width), overwritten; its logvar half is left alone in mean mode. The dropout
 * mask of noise is honoured; keyed dropout belongs to training forwards.
 *
 * Pointers:
 * As for pvera_forward.
 */
pvera_error *pvera_project(const pvera_context *context,
                           const pvera_linear *linear,
                           const pvera_matrix *x,
                           const pvera_rows *rows,
                           const pvera_noise *noise,
                           const pvera_matrix_mut *p);

/**
 * Part index of count of pvera_project. The parts of one call may run on any threads at the same time, with one
 * context, and start none; each writes its own share of p.
 *
 * Pointers:
 * As for pvera_forward; concurrent calls are parts of one call, of the same count, with different indices.
 */
pvera_error *pvera_project_part(const pvera_context *context,
                                const pvera_linear *linear,
                                const pvera_matrix *x,
                                const pvera_rows *rows,
                                const pvera_noise *noise,
                                const pvera_matrix_mut *p,
                                size_t index,
                                size_t count);

/**
 * The second half of a forward: y += λ_b ∘ (z Bᵀ) with z made from p; the base weight is not used. A learned bias is
 * added less the declared one.
 *
 * p [n, width] f32 from pvera_project with the same rows and mode; y [n, out_features] of any element type and
 * stride, sharing no memory with p.
 *
 * Pointers:
 * As for pvera_forward.
 */
pvera_error *pvera_expand(const pvera_context *context,
                          const pvera_linear *linear,
                          const pvera_matrix *p,
                          const pvera_rows *rows,
                          const pvera_noise *noise,
                          const pvera_matrix_mut *y);

/**
 * Part index of count of pvera_expand; rules as for pvera_project_part. All parts of project come before any part
 * of expand.
 *
 * Pointers:
 * As for pvera_project_part.
 */
pvera_error *pvera_expand_part(const pvera_context *context,
                               const pvera_linear *linear,
                               const pvera_matrix *p,
                               const pvera_rows *rows,
                               const pvera_noise *noise,
                               const pvera_matrix_mut *y,
                               size_t index,
                               size_t count);

/* ---- Forward and backward ---- */

/**
 * Keep p: 2r floats a row for each distinct projection. The default.
 */
#define PVERA_TAPE_KEEP_LATENT 0

/**
 * Keep p and z Bᵀ: out_features floats a row more for each layer. The fastest backward.
 */
#define PVERA_TAPE_KEEP_DELTA 1

/**
 * Keep nothing but the keys; x stays borrowed until backward.
 */
#define PVERA_TAPE_RECOMPUTE 2

/**
 * Set dx instead of adding to it; it then need not be initialised. So for the other outputs.
 */
#define PVERA_OVERWRITE_DX 1

/**
 * Set the gradients of lambda_b.
 */
#define PVERA_OVERWRITE_LAMBDA_B 2

/**
 * Set the gradients of lambda_d.
 */
#define PVERA_OVERWRITE_LAMBDA_D 4

/**
 * Set the gradients of biases.
 */
#define PVERA_OVERWRITE_BIAS 8

/**
 * All of these.
 */
#define PVERA_OVERWRITE_ALL 15

/**
 * The KL divergence is averaged over the latent entries of the call, as the authors do: rows · rank, where a row counts the rank of
 * its own adapter (0 for the base alone), or those of all that are summed.
 */
#define PVERA_KL_MEAN 0

/**
 * It is summed.
 */
#define PVERA_KL_SUM 1

/**
 * Where one adapter's gradients go. Vectors are whole, in the layout of pvera_adapter_range; of a shard, its part is
 * written. NULL skips.
 *
 * Which adapter a row had is on the tape. With rows.slot an adapter's gradients are sums over the rows that had it, with
 * rows.active over all rows, its scale multiplied in; without either, slot 0 had all rows. Adapters that are not named get none,
 * but their rows count in dx and in the divergence as before. Rows of the base alone give dy W to dx, and nothing else.
 * Gradients are those of the values that the forward read. Linears of pvera_adapter_linear read an adapter's live parameters,
 * and have slot 0 alone; those of a snapshot, where a row has any slot, read copies as they were published: after each step on
 * the parameters, pvera_model_replace and take a new snapshot.
 */
typedef struct pvera_slot_gradients {
    /**
     * The adapter's slot: one that some row of the forward had and whose adapter adapts this layer (else PVERA_ERROR_NOT_FOUND),
     * named once.
     */
    int32_t slot;
    /**
     * [out_total].
     */
    float *lambda_b;
    /**
     * [2r]; [r] for VeRA.
     */
    float *lambda_d;
    /**
     * [out_total]; only for an adapter that learns this layer's bias.
     */
    float *bias;
} pvera_slot_gradients;

/**
 * What backward of one layer gives besides dx. Zero: nothing, added to nothing.
 */
typedef struct pvera_gradients {
    /**
     * sizeof(pvera_gradients).
     */
    size_t struct_size;
    /**
     * PVERA_OVERWRITE_…, or-ed. Of a group, the first layer's DX counts.
     */
    uint32_t overwrite;
    /**
     * PVERA_KL_….
     */
    int32_t kl_reduction;
    /**
     * [slot_count], in any order; each layer of a group has its own.
     */
    const pvera_slot_gradients *slots;
    /**
     * How many slots; 0: no vectors' gradients.
     */
    size_t slot_count;
    /**
     * What the KL divergence of the latents to the standard normal counts in the loss; 0 leaves it out, as it has to
     * be where a VeRA adapter takes part, whose latent has no variance.
     */
    double kl_weight;
    /**
     * Gets the divergence (before its weight); or NULL (with a VeRA adapter, always). In device memory on a CUDA
     * context.
     */
    double *kl_value;
    /**
     * The gradient of another prior, [n, latents], that is added to dL/dmu. All zero when absent.
     */
    pvera_matrix dmu;
    /**
     * The same of logvar; VeRA adapters pass it over.
     */
    pvera_matrix dlogvar;
    /**
     * First-order variance of f, when dy is df/dy of one number f a row (or a sequence): Σ over latents of (Σ over rows of
     * one identity and sample of g·σ)² with g = dL/dz is added to variance[variance_index[row]], whatever overwrite
     * says. For a network: a mean forward with a tape for each layer, then one backward with the same array for every
     * layer, zero before it. NULL leaves it out, as it has to be on a CUDA context.
     */
    double *variance;
    /**
     * How many values variance has.
     */
    size_t variance_count;
    /**
     * [n], which value each row belongs to; NULL: row i to value i.
     */
    const uint32_t *variance_index;
} pvera_gradients;

/**
 * A tape of a policy, PVERA_TAPE_…. allocator may be NULL.
 *
 * Pointers:
 * allocator is NULL or an allocator; tape is a place for the result.
 */
pvera_error *pvera_tape_new(int32_t policy, const pvera_allocator *allocator, pvera_tape **tape);

/**
 * Bytes that a tape holds.
 *
 * Pointers:
 * tape is a tape; bytes is a place for the result.
 */
pvera_error *pvera_tape_bytes(const pvera_tape *tape, size_t *bytes);

/**
 * Frees a tape; NULL is nothing.
 *
 * Pointers:
 * tape is NULL or an owned tape, not used again.
 */
void pvera_tape_free(pvera_tape *tape);

/**
 * y = x Wᵀ + bias + λ_b ∘ (z Bᵀ), with (mu, logvar) = split(λ_d ∘ (x Aᵀ)) and z by mode (PVeRA, arXiv 2512.07703).
 * A layer declared without a weight adds the delta to what y holds. A layer that the adapter does not adapt gets its base
 * alone.
 *
 * x [n, in_features], y [n, out_features]: any element type and row stride; computed in f32, rounded once. y shares no
 * memory with anything that the call reads: x, weights, biases, adapters' vectors, noise; it need not be initialised when
 * the layer has a weight.
 * rows and noise may be NULL. With a tape (may be NULL) this is a training forward: sampled unless the mode says
 * otherwise, with the adapter's dropout on x, and pvera_backward can follow.
 *
 * Errors before anything is written: NULL, wrong shape, dtype, stride, overlap, device, unknown slot. After it only
 * PVERA_ERROR_OVERFLOW (exp(½ logvar) does not fit; see logvar_bound) and PVERA_ERROR_PANIC. On a CUDA context an overflow
 * is told by pvera_context_check, and what the driver refuses while the call is queued leaves y written in part or not:
 * PVERA_ERROR_CUDA, PVERA_ERROR_MEMORY (device memory), PVERA_ERROR_STATE (memory to be had while the stream is captured).
 *
 * Pointers:
 * The handles live; x, y and the matrices of noise are lent for the call (for the tape: see pvera_tape); rows and
 * noise are NULL or sized.
 */
pvera_error *pvera_forward(const pvera_context *context,
                           const pvera_linear *linear,
                           const pvera_matrix *x,
                           const pvera_rows *rows,
                           const pvera_noise *noise,
                           pvera_tape *tape,
                           const pvera_matrix_mut *y);

/**
 * pvera_forward of count layers with one input (q, k and v): they share one product with A where their adapters share
 * a store. One matrix of y for each layer, views of one fused buffer if the host likes. A layer that the adapter does
 * not adapt gets its base alone.
 *
 * Pointers:
 * As for pvera_forward; linears and y point to count entries.
 */
pvera_error *pvera_forward_group(const pvera_context *context,
                                 size_t count,
                                 const pvera_linear *const *linears,
                                 const pvera_matrix *x,
                                 const pvera_rows *rows,
                                 const pvera_noise *noise,
                                 pvera_tape *tape,
                                 const pvera_matrix_mut *y);

/**
 * Gradients of the recorded forward for the output gradient dy [n, out_features], into gradients (may be NULL) and
 * dx [n, in_features] (NULL skips it). With g = (λ_b ∘ dy) B: dλ_b = Σ dy ∘ (z Bᵀ), dλ_d = Σ dm ∘ p,
 * dx += mask ∘ ((λ_d ∘ dm) A) + dy W, where dmu = g and dlogvar = ½ g ∘ eps ∘ exp(½ logvar), plus KL and priors. The noise
 * is drawn again from its key.
 *
 * No output shares memory with another (of any layer of a group) or with what the call reads: PVERA_ERROR_OVERLAP. Only
 * variance may be one array for several layers.
 *
 * The tape may be used for several backwards. Error PVERA_ERROR_STATE when a parameter changed since the forward (in
 * device memory that is not looked at). Sums over rows have the same bits for any number of threads. Nothing is written
 * before every check and every sum is done, but for dx after an overflow or a panic, and on a CUDA context, where errors
 * are those of pvera_forward and outputs may be written when one comes.
 *
 * Pointers:
 * As for pvera_forward; every pointer of gradients is NULL or lent for the call.
 */
pvera_error *pvera_backward(const pvera_context *context,
                            const pvera_tape *tape,
                            const pvera_matrix *dy,
                            const pvera_gradients *gradients,
                            const pvera_matrix_mut *dx);

/**
 * Backward of pvera_forward_group: one matrix of dy and one struct of gradients for each of the count layers (or
 * NULL for none), one dx for all.
 *
 * Pointers:
 * As for pvera_backward; dy and gradients point to count entries.
 */
pvera_error *pvera_backward_group(const pvera_context *context,
                                  const pvera_tape *tape,
                                  size_t count,
                                  const pvera_matrix *dy,
                                  const pvera_gradients *gradients,
                                  const pvera_matrix_mut *dx);

/* ---- Merging into a weight ---- */

/**
 * Merge the mean of an adapter that samples at inference, whose sampling is thereby lost.
 */
#define PVERA_MERGE_MEAN 1

/**
 * merged = weight + scale · diag(λ_b) B diag(λ_d[:r]) A[:r], summed over the adapters of rows (active, or slot 0; not
 * one a row): the mean of the layer as one weight. weight and merged are of one shape (by layout, PVERA_WEIGHT_…)
 * and element type, and the same memory or none in common; merged shares none with the adapters' vectors.
 *
 * Every element is checked before the first is written. undo (may be NULL) gets what undoes it bit for bit, which takes
 * as much memory as the weight. A learned bias is not merged: see the adapter's parameters.
 *
 * Error PVERA_ERROR_STATE for an adapter that samples at inference, unless flags has PVERA_MERGE_MEAN.
 *
 * Pointers:
 * The handles live, the matrices are lent for the call, rows is NULL or sized, undo NULL or a place for the result.
 */
pvera_error *pvera_merge(const pvera_context *context,
                         const pvera_linear *linear,
                         const pvera_rows *rows,
                         uint32_t flags,
                         int32_t layout,
                         const pvera_matrix *weight,
                         const pvera_matrix_mut *merged,
                         pvera_undo **undo);

/**
 * Puts back the bits that the merge replaced. weight must hold exactly what the merge wrote, else
 * PVERA_ERROR_STATE and nothing is written. The undo may be used again after another merge of the same.
 *
 * Pointers:
 * undo is an undo; weight is lent for the call.
 */
pvera_error *pvera_unmerge(const pvera_undo *undo, const pvera_matrix_mut *weight);

/**
 * Frees an undo; NULL is nothing.
 *
 * Pointers:
 * undo is NULL or an owned undo, not used again.
 */
void pvera_undo_free(pvera_undo *undo);

/* ---- Other programs' files: exports, merges on disk, imports ---- */

/**
 * The mean is meant, also of an adapter that samples at inference: its sampling is lost. As PVERA_MERGE_MEAN.
 */
#define PVERA_FILES_MEAN 1

/**
 * What the target cannot hold (a learned bias, a carried tensor) is left out with a warning, instead of being an error.
 */
#define PVERA_FILES_LEAVE_OUT 2

/**
 * What the target holds is replaced: the two files of a checkpoint or LoRA, a file by pvera_adapter_export_gguf, a whole
 * folder by pvera_merge_files. Without it, PVERA_ERROR_EXISTS names what is there.
 */
#define PVERA_FILES_REPLACE 4

/**
 * By the architecture, as llama.cpp's converter does.
 */
#define PVERA_ROPE_BY_ARCHITECTURE 0

/**
 * Rows of q and k stay as they are.
 */
#define PVERA_ROPE_KEEP 1

/**
 * Rows of q and k are permuted, from rotate-half pairs to neighbours.
 */
#define PVERA_ROPE_PERMUTE 2

/**
 * How files are read and written. Zero is the default.
 */
typedef struct pvera_files_options {
    /**
     * sizeof(pvera_files_options).
     */
    size_t struct_size;
    /**
     * PVERA_FILES_…, or-ed.
     */
    uint32_t flags;
    /**
     * Of exports: the element type that is written; zero: f32. Of shrinking and growing: the base model's, to which the
     * key's projections are rounded.
     */
    pvera_dtype dtype;
    /**
     * What stands before a module's path in the names of the model's tensors; NULL: nothing.
     */
    const char *prefix;
    /**
     * They hear of warnings and of progress: stages "export", "merge" and "compare projections". A result other than 0 stops
     * the work with PVERA_ERROR_CANCELLED, and nothing is left behind.
     */
    pvera_callbacks callbacks;
} pvera_files_options;

/**
 * A module and its tensor in llama.cpp.
 */
typedef struct pvera_gguf_name {
    /**
     * Module path: "model.layers.0.self_attn.q_proj".
     */
    const char *module;
    /**
     * Tensor name: "blk.0.attn_q.weight".
     */
    const char *tensor;
} pvera_gguf_name;

/**
 * What llama.cpp must be told of the model, and a checkpoint does not say.
 */
typedef struct pvera_gguf_options {
    /**
     * sizeof(pvera_gguf_options).
     */
    size_t struct_size;
    /**
     * The model's general.architecture: "llama", "qwen2", …
     */
    const char *architecture;
    /**
     * [name_count]: names of tensors, before those of the built-in table; NULL: that alone. It knows
     * model.layers.N.self_attn.{q,k,v,o}_proj, model.layers.N.mlp.{gate,up,down}_proj and lm_head of llama (which is
     * Mistral, too), granite, olmo, olmo2, qwen2, qwen3, gemma, gemma2 and gemma3 (these three without lm_head).
     */
    const pvera_gguf_name *names;
    /**
     * How many.
     */
    size_t name_count;
    /**
     * num_attention_heads of the model, where rows of q are permuted.
     */
    size_t heads;
    /**
     * num_key_value_heads, where rows of k are.
     */
    size_t kv_heads;
    /**
     * PVERA_ROPE_…. The table's llama, granite and olmo are permuted.
     */
    int32_t rope;
} pvera_gguf_options;

/**
 * What the files of the method's authors do not say. Zero is the default.
 */
typedef struct pvera_authors_options {
    /**
     * sizeof(pvera_authors_options).
     */
    size_t struct_size;
    /**
     * By which they multiply the delta; 0: 16, as in their configuration.
     */
    double alpha;
    /**
     * Which of the copies that were trained side by side in a grid search. Their last file holds the best one alone, which
     * keeps the projections of its number.
     */
    size_t head;
    /**
     * Where draws is set and the file holds no projections, these are drawn from this seed, as PyTorch does on the CPU.
     */
    uint64_t seed;
    /**
     * 0 or 1 (as any other number).
     */
    uint8_t draws;
} pvera_authors_options;

/**
 * Declares the layers that a checkpoint adapts, in the order of their names and without weights, with the sizes that they
 * have in a model's files. Only headers are read. All layers are declared, or none.
 *
 * files is a folder with model.safetensors or with model.safetensors.index.json and its shards, or one safetensors file.
 * count (may be NULL) gets how many layers these are, dtype (may be NULL) the element type of their weights: all zero
 * where they differ or are none that computing takes. Of the options, only the prefix matters.
 *
 * Errors name the tensor: PVERA_ERROR_NOT_FOUND for a layer without a weight, PVERA_ERROR_SHAPE for one of the wrong shape,
 * PVERA_ERROR_FORMAT for files that are damaged or lie, PVERA_ERROR_EXISTS for a layer that is declared already.
 *
 * Pointers:
 * model is a model; checkpoint and files are texts; options is NULL or sized options; count and dtype are NULL or
 * places for the results.
 */
pvera_error *pvera_model_declare_files(const pvera_model *model,
                                       const char *checkpoint,
                                       const char *files,
                                       const pvera_files_options *options,
                                       size_t *count,
                                       pvera_dtype *dtype);

/**
 * The layer of that number: its module path (freed with pvera_text_free), and the sizes of the whole layer. Each output may
 * be NULL. Error: PVERA_ERROR_NOT_FOUND for a number that is not declared.
 *
 * Pointers:
 * model is a model; the others are NULL or places for the results.
 */
pvera_error *pvera_model_layer(const pvera_model *model,
                               size_t number,
                               char **name,
                               size_t *in_total,
                               size_t *out_total);

/**
 * Writes the adapter's mean as a LoRA in PEFT's format, which every engine with LoRA runs:
 * A' = diag(λ_d[:r]) A[:r], B' = alpha · diag(λ_b) B, lora_alpha = r, so that its scaling is 1. An element is one
 * product, rounded once to options.dtype. Learned biases and carried tensors go along.
 *
 * All or nothing, as pvera_adapter_save. Errors: PVERA_ERROR_STATE for an adapter that samples at inference, unless
 * options.flags has PVERA_FILES_MEAN; PVERA_ERROR_EXISTS for a folder that holds a LoRA, unless it has PVERA_FILES_REPLACE,
 * or an adapter of another kind; PVERA_ERROR_OVERFLOW for an element that the type does not hold.
 *
 * Pointers:
 * adapter is an adapter, not written meanwhile; folder is a text; options is NULL or sized options.
 */
pvera_error *pvera_adapter_export_lora(const pvera_adapter *adapter,
                                       const char *folder,
                                       const pvera_files_options *options);

/**
 * Writes the same LoRA as a GGUF adapter, in the layout that llama.cpp documents (tested against the gguf package; llama.cpp
 * itself was not run): rows of q and k are permuted where its converter permutes the model's.
 * The file appears at once, or not at all.
 *
 * GGUF holds no learned bias and no carried tensor: PVERA_ERROR_UNSUPPORTED names the first, unless options.flags has
 * PVERA_FILES_LEAVE_OUT. PVERA_ERROR_EXISTS for a file that is there, unless it has PVERA_FILES_REPLACE;
 * PVERA_ERROR_NOT_FOUND for a module without a name, PVERA_ERROR_ARGUMENT for missing heads; the rest as for
 * pvera_adapter_export_lora.
 *
 * Pointers:
 * adapter is an adapter, not written meanwhile; path is a text; gguf is sized options; options is NULL or such.
 */
pvera_error *pvera_adapter_export_gguf(const pvera_adapter *adapter,
                                       const char *path,
                                       const pvera_gguf_options *gguf,
                                       const pvera_files_options *options);

/**
 * Writes a checkpoint without its projections (save_projection false), after checking that its key draws them bit for bit, as
 * f32 or rounded to bf16 or f16 (options.dtype: that alone). Everything else stays as it is. All or nothing, as
 * pvera_adapter_save; with PVERA_FILES_REPLACE, out may be folder.
 *
 * base_dtype and in_max (either may be NULL) get what the result's load is to be told: the element type that they were
 * rounded to, and the columns of A, where these are not the largest in_features of the adapted layers.
 *
 * Errors: PVERA_ERROR_PROJECTION says where they first differ from the key's, or that there are none; PVERA_ERROR_EXISTS for a
 * checkpoint in out, unless options.flags has PVERA_FILES_REPLACE.
 *
 * Pointers:
 * folder and out are texts; options is NULL or sized options; base_dtype and in_max are NULL or places for the
 * results.
 */
pvera_error *pvera_checkpoint_shrink(const char *folder,
                                     const char *out,
                                     const pvera_files_options *options,
                                     pvera_dtype *base_dtype,
                                     size_t *in_max);

/**
 * The reverse: writes the projections that the key draws into a checkpoint that has none, rounded to options.dtype. in_max
 * is the largest in_features over all adapted layers, which the checkpoint does not say; out_max is that of out_features,
 * or 0 for the longest λ_b. All or nothing, as pvera_adapter_save; with PVERA_FILES_REPLACE, out may be folder.
 *
 * Errors: PVERA_ERROR_EXISTS for a checkpoint that has projections, and for one in out, unless options.flags has
 * PVERA_FILES_REPLACE; PVERA_ERROR_ARGUMENT for an in_max of 0 or an out_max below the longest λ_b.
 *
 * Pointers:
 * folder and out are texts; options is NULL or sized options.
 */
pvera_error *pvera_checkpoint_grow(const char *folder,
                                   const char *out,
                                   size_t in_max,
                                   size_t out_max,
                                   const pvera_files_options *options);

/**
 * Checks that the projections that a checkpoint holds are those that its key draws, bit for bit. Nothing is written. Checkpoints of
 * VeRA, too. Of the options, only the callbacks matter.
 *
 * held (may be NULL) gets whether it holds any; base_dtype and grid (either may be NULL) how they were rounded, as
 * pvera_store_options has it: zero where there are none.
 *
 * Error PVERA_ERROR_PROJECTION says where they first differ from the key's: they are damaged, another's, or trained.
 *
 * Pointers:
 * folder is a text; options is NULL or sized options; the others are NULL or places for the results.
 */
pvera_error *pvera_checkpoint_check(const char *folder,
                                    const pvera_files_options *options,
                                    bool *held,
                                    pvera_dtype *base_dtype,
                                    int32_t *grid);

/**
 * Writes a model with the adapter's mean folded into it: the bits of pvera_merge in every adapted weight, a learned bias in
 * the place of the module's, a carried tensor (in the model's element type) in that of its namesake, everything else byte for
 * byte. Weights pass a block of rows at a time, so that the model need not fit in memory.
 *
 * files is as for pvera_model_declare_files; every layer that the adapter adapts is declared whole. out is a new or
 * empty folder; with PVERA_FILES_REPLACE, what it holds is replaced whole. It gets the files of the model, and of a folder
 * the other files in it, but no folder, and no weights in other formats, which are named in a warning.
 *
 * Everything is checked before anything is written. An error, a stop or a kill leaves out as it was. Errors name the
 * tensor: PVERA_ERROR_NOT_FOUND for a weight or bias that the files do not hold, PVERA_ERROR_DTYPE for one that is no f32, f16
 * or bf16, PVERA_ERROR_UNSUPPORTED for a carried tensor without a namesake, unless options.flags has
 * PVERA_FILES_LEAVE_OUT; PVERA_ERROR_STATE as for pvera_adapter_export_lora.
 *
 * Pointers:
 * context is a context of the CPU; adapter is an adapter, not written meanwhile; files and out are texts; options is
 * NULL or sized options.
 */
pvera_error *pvera_merge_files(const pvera_context *context,
                               const pvera_adapter *adapter,
                               const char *files,
                               const char *out,
                               const pvera_files_options *options);

/**
 * Writes a PEFT checkpoint of a state dictionary of the method's authors (github.com/leofillioux/pvera), given as safetensors:
 * MODULE.heads.adapter_qd, …_vd, …_qb, …_vb, or MODULE.heads.N.… of a grid search. They adapt q and v of a fused
 * qkv, each through projections of its own; one layer of twice the rank is exactly that, with zeros in B where q and v do not
 * meet. Alpha is multiplied into λ_b. options.prefix (theirs is "backbone.") is taken off the module paths.
 *
 * Their files hold no projections, unless they were added as q_downsample, v_downsample, q_upsample and v_upsample; see
 * pvera_authors_options. Errors: PVERA_ERROR_PROJECTION where there is neither; PVERA_ERROR_EXISTS for a checkpoint in out,
 * unless options.flags has PVERA_FILES_REPLACE.
 *
 * Pointers:
 * file and out are texts; authors and options are NULL or sized options.
 */
pvera_error *pvera_import_authors(const char *file,
                                  const char *out,
                                  const pvera_authors_options *authors,
                                  const pvera_files_options *options);

/* ---- Outlines: checkpoints and banks without a model ---- */

/**
 * The numbers of an outline.
 */
typedef struct pvera_outline_info {
    /**
     * sizeof(pvera_outline_info), set by the caller.
     */
    size_t struct_size;
    /**
     * Adapted modules.
     */
    size_t modules;
    /**
     * Adapters: 1 for a checkpoint; of a family, how many the bank holds.
     */
    size_t adapters;
    /**
     * Tensors that the checkpoint carries beside the adapter: heads of modules_to_save, other modules' biases.
     */
    size_t tensors;
    /**
     * Columns of A; 0 for a checkpoint that holds none: its load takes the largest in_features of the declared layers.
     */
    size_t in_max;
    /**
     * Rows of B; 0 for a checkpoint that holds none.
     */
    size_t out_max;
    /**
     * 0 or 1: A and B are in the file, and not drawn from the config's key.
     */
    uint32_t holds_projections;
    /**
     * Of a family whose A and B are drawn: how they are rounded, as in pvera_store_options. Zero for a checkpoint, whose files do not
     * say it, and where A and B are held.
     */
    pvera_dtype base_dtype;
    /**
     * PVERA_GRID_…, likewise.
     */
    int32_t grid;
    /**
     * Zero. (Fills the struct.)
     */
    uint32_t reserved;
} pvera_outline_info;

/**
 * Reads the config of a checkpoint folder and the header of its tensor file; no tensor is read. Checkpoints of VeRA, too.
 *
 * Errors: PVERA_ERROR_IO, PVERA_ERROR_FORMAT for a damaged file or one without an adapted module, PVERA_ERROR_CONFIG,
 * PVERA_ERROR_SHAPE for vectors and projections that are none.
 *
 * Pointers:
 * folder is a text; outline is a place for the result.
 */
pvera_error *pvera_outline_from_checkpoint(const char *folder,
                                           pvera_outline **outline);

/**
 * The family of a number below usage.families of a bank, whose model need not declare any layer. Numbers are those of the bank
 * as it is now. Error: PVERA_ERROR_NOT_FOUND beyond the last one.
 *
 * Pointers:
 * bank is a bank; outline is a place for the result.
 */
pvera_error *pvera_outline_from_bank(const pvera_bank *bank,
                                     size_t family,
                                     pvera_outline **outline);

/**
 * Frees an outline; NULL is nothing.
 *
 * Pointers:
 * outline is NULL or an owned outline, not used again.
 */
void pvera_outline_free(pvera_outline *outline);

/**
 * The numbers of an outline. info.struct_size is set by the caller.
 *
 * Pointers:
 * outline is an outline; info is sized.
 */
pvera_error *pvera_outline_get_info(const pvera_outline *outline, pvera_outline_info *info);

/**
 * A copy of the config.
 *
 * Pointers:
 * outline is an outline; config is a place for the result.
 */
pvera_error *pvera_outline_config(const pvera_outline *outline, pvera_config **config);

/**
 * An adapted module, by a number below info.modules: its path (freed with pvera_text_free), its out_features (of the whole
 * layer), and whether the adapter learned a bias for it. Each output may be NULL. Error: PVERA_ERROR_NOT_FOUND.
 *
 * Pointers:
 * outline is an outline; the others are NULL or places for the results.
 */
pvera_error *pvera_outline_module(const pvera_outline *outline,
                                  size_t number,
                                  char **path,
                                  size_t *out_features,
                                  bool *learns_bias);

/* ---- Statistics over Monte Carlo passes ---- */

/**
 * Statistics without a pass. allocator may be NULL.
 *
 * Pointers:
 * allocator is NULL or an allocator; statistics is a place for the result.
 */
pvera_error *pvera_statistics_new(size_t rows,
                                  size_t outputs,
                                  const pvera_allocator *allocator,
                                  pvera_statistics **statistics);

/**
 * Frees statistics; NULL is nothing.
 *
 * Pointers:
 * statistics is NULL or owned statistics, not used again.
 */
void pvera_statistics_free(pvera_statistics *statistics);

/**
 * Forgets all passes.
 *
 * Pointers:
 * statistics are statistics that nobody else uses.
 */
pvera_error *pvera_statistics_clear(pvera_statistics *statistics);

/**
 * Adds one pass over all rows: values [rows, outputs], logits where they are classes. A value that is not finite is
 * PVERA_ERROR_OVERFLOW, and nothing is added.
 *
 * Pointers:
 * statistics are statistics that nobody else uses; values is lent for the call.
 */
pvera_error *pvera_statistics_add(pvera_statistics *statistics, const pvera_matrix *values);

/**
 * Adds a pass over some rows, for those still undecided: row i of values [count, outputs] is a pass of row rows[i]. A
 * row named several times gets several passes, in that order.
 *
 * Pointers:
 * As for pvera_statistics_add; rows points to count numbers.
 */
pvera_error *pvera_statistics_add_rows(pvera_statistics *statistics,
                                       size_t count,
                                       const size_t *rows,
                                       const pvera_matrix *values);

/**
 * How many passes each row has had.
 *
 * Pointers:
 * statistics are statistics; passes points to count (= rows) places.
 */
pvera_error *pvera_statistics_passes(const pvera_statistics *statistics, size_t count, uint32_t *passes);

/**
 * How often each output was the largest of its row, [rows, outputs]; of equal ones the first counts.
 *
 * Pointers:
 * statistics are statistics; votes points to count (= rows · outputs) places.
 */
pvera_error *pvera_statistics_votes(const pvera_statistics *statistics, size_t count, uint32_t *votes);

/**
 * The mean of every value, [rows, outputs].
 *
 * Pointers:
 * statistics are statistics; mean points to count (= rows · outputs) places.
 */
pvera_error *pvera_statistics_mean(const pvera_statistics *statistics, size_t count, double *mean);

/**
 * The unbiased variance of every value, [rows, outputs]. Needs two passes of every row.
 *
 * Pointers:
 * statistics are statistics; variance points to count (= rows · outputs) places.
 */
pvera_error *pvera_statistics_variance(const pvera_statistics *statistics, size_t count, double *variance);

/**
 * Student's interval of the mean at level (0.95): how well S passes know the mean, mean ± t √(variance/S). Both arrays
 * [rows, outputs]. Needs two passes of every row.
 *
 * Pointers:
 * statistics are statistics; lower and upper point to count (= rows · outputs) places each.
 */
pvera_error *pvera_statistics_mean_interval(const pvera_statistics *statistics,
                                            double level,
                                            size_t count,
                                            double *lower,
                                            double *upper);

/**
 * Student's interval of one further draw at level: how far predictions scatter, mean ± t √(variance (1 + 1/S)). Both
 * arrays [rows, outputs]. Needs two passes of every row.
 *
 * Pointers:
 * As for pvera_statistics_mean_interval.
 */
pvera_error *pvera_statistics_predictive_interval(const pvera_statistics *statistics,
                                                  double level,
                                                  size_t count,
                                                  double *lower,
                                                  double *upper);

/**
 * The mean over passes of every class's softmax probability, [rows, outputs].
 *
 * Pointers:
 * statistics are statistics; probabilities points to count (= rows · outputs) places.
 */
pvera_error *pvera_statistics_mean_probabilities(const pvera_statistics *statistics,
                                                 size_t count,
                                                 double *probabilities);

/**
 * The class that most passes of a row chose, [rows]; of equal ones the first.
 *
 * Pointers:
 * statistics are statistics; classes points to count (= rows) places.
 */
pvera_error *pvera_statistics_most_voted(const pvera_statistics *statistics, size_t count, uint32_t *classes);

/**
 * The interval at level of the mean softmax probability of the most voted class, [rows], as PEFT's PVeRA example
 * computes it: Student's interval of that class's probabilities over the passes, cut to [0, 1]. At least two passes.
 *
 * Pointers:
 * statistics are statistics; lower and upper point to count (= rows) places each.
 */
pvera_error *pvera_statistics_most_voted_interval(const pvera_statistics *statistics,
                                                  double level,
                                                  size_t count,
                                                  double *lower,
                                                  double *upper);

/**
 * The entropy of the mean probabilities in nats, [rows]: all uncertainty of the prediction.
 *
 * Pointers:
 * statistics are statistics; entropy points to count (= rows) places.
 */
pvera_error *pvera_statistics_predictive_entropy(const pvera_statistics *statistics,
                                                 size_t count,
                                                 double *entropy);

/**
 * Predictive entropy less the mean entropy of a pass, in nats, [rows]: the part that comes from the adapter.
 *
 * Pointers:
 * statistics are statistics; information points to count (= rows) places.
 */
pvera_error *pvera_statistics_mutual_information(const pvera_statistics *statistics,
                                                 size_t count,
                                                 double *information);

/* ---- Early stopping and calibration ---- */

/**
 * When to stop drawing. Looks are at 8, 16, 32, … passes; the level is split over them (level/(j(j+1)) at look j), so that
 * the error holds however many looks there are.
 */
typedef struct pvera_stopping {
    /**
     * sizeof(pvera_stopping).
     */
    size_t struct_size;
    /**
     * Most that the chance of a wrong decision on a row may be, over all looks: 0.05.
     */
    double error_level;
    /**
     * Where drawing ends at the latest.
     */
    uint32_t maximum_passes;
} pvera_stopping;

/**
 * One bar of a reliability diagram.
 */
typedef struct pvera_bin {
    /**
     * How many predictions had a confidence in this bin.
     */
    uint64_t count;
    /**
     * Their mean confidence; 0 in an empty bin.
     */
    double confidence;
    /**
     * The share of them that was right; 0 in an empty bin.
     */
    double accuracy;
} pvera_bin;

/**
 * How many passes a row has at the look after passes; passes itself when no look is left.
 *
 * Pointers:
 * stopping is sized; look is a place for the result.
 */
pvera_error *pvera_stopping_next_look(const pvera_stopping *stopping, uint32_t passes, uint32_t *look);

/**
 * The rows whose most voted class is not settled: rows (of capacity = the statistics' rows) gets their numbers, count
 * how many. Settling a row on another class than the one it would choose most often in the long run happens with at most
 * the error level.
 *
 * Call it when every row has as many passes as a look (pvera_stopping_next_look), then draw on for the rows it returns
 * only (pvera_statistics_add_rows): settled ones stay at the look where they settled, and stay settled.
 *
 * Pointers:
 * stopping is sized, statistics are statistics, rows points to capacity places, count is a place for the result.
 */
pvera_error *pvera_stopping_undecided(const pvera_stopping *stopping,
                                      const pvera_statistics *statistics,
                                      size_t capacity,
                                      size_t *rows,
                                      size_t *count);

/**
 * The rows of which some output's mean is not yet known to ± tolerance; otherwise as pvera_stopping_undecided.
 *
 * Pointers:
 * As for pvera_stopping_undecided.
 */
pvera_error *pvera_stopping_imprecise(const pvera_stopping *stopping,
                                      const pvera_statistics *statistics,
                                      double tolerance,
                                      size_t capacity,
                                      size_t *rows,
                                      size_t *count);

/**
 * Calibration of count predictions: their confidence (0 to 1) and whether each was right (1) or wrong (0). bins gets
 * bin_count bars of equal width; expected_error and maximum_error (may be NULL) the mean and the largest gap between
 * confidence and accuracy (ECE and MCE, Guo et al. 2017).
 *
 * Pointers:
 * The arrays have that many entries; the error pointers are NULL or places for the results.
 */
pvera_error *pvera_calibration(size_t count,
                               const double *confidence,
                               const uint8_t *correct,
                               size_t bin_count,
                               pvera_bin *bins,
                               double *expected_error,
                               double *maximum_error);

/* ---- Noise ---- */

/**
 * torch.Generator().manual_seed(seed).
 *
 * Pointers:
 * generator is a place for the result.
 */
pvera_error *pvera_torch_generator_new(uint64_t seed, pvera_torch_generator **generator);

/**
 * Fills values [count] with the standard normals that PyTorch puts into a contiguous f32 CPU tensor of count elements:
 * what PEFT's generator_seed draws. The last place may differ, by the platform's logarithm and cosine.
 *
 * Pointers:
 * generator is a generator that nobody else uses; values points to count f32.
 */
pvera_error *pvera_torch_generator_normals(pvera_torch_generator *generator,
                                           size_t count,
                                           float *values);

/**
 * Frees a generator; NULL is nothing.
 *
 * Pointers:
 * generator is NULL or an owned generator, not used again.
 */
void pvera_torch_generator_free(pvera_torch_generator *generator);

/**
 * The number under which an adapter published as name draws its noise.
 *
 * Pointers:
 * name is a text; identity is a place for the result.
 */
pvera_error *pvera_adapter_identity(const char *name, uint64_t *identity);

/**
 * The keyed normals that a sampled forward uses: eps of latents 0 … count − 1 of one row, for this seed, layer name,
 * adapter number (pvera_adapter_identity), row identity and sample number. The same bits on every machine.
 *
 * Pointers:
 * layer is a text; values points to count f32.
 */
pvera_error *pvera_keyed_normals(uint64_t seed,
                                 const char *layer,
                                 uint64_t adapter,
                                 uint64_t identity,
                                 uint32_t sample,
                                 bool antithetic,
                                 size_t count,
                                 float *values);

/* ---- Optimiser ---- */

/**
 * AdamW (Loshchilov and Hutter 2019) with decoupled weight decay, as torch.optim.AdamW. Zero fields are zero, not
 * PyTorch's defaults: start from pvera_adamw_default.
 */
typedef struct pvera_adamw {
    /**
     * sizeof(pvera_adamw).
     */
    size_t struct_size;
    /**
     * Of this step; a schedule is the caller's.
     */
    double learning_rate;
    /**
     * Decay of the first moments.
     */
    double beta1;
    /**
     * Decay of the second moments.
     */
    double beta2;
    /**
     * Added to the root of the second moments.
     */
    double epsilon;
    /**
     * Times the learning rate: the share of a parameter that a step takes off it.
     */
    double weight_decay;
} pvera_adamw;

/**
 * PyTorch's defaults: learning rate 1e-3, betas 0.9 and 0.999, epsilon 1e-8, weight decay 1e-2.
 */
pvera_adamw pvera_adamw_default(void);

/**
 * One step on count parameters, in place, with their gradients and the two moment arrays (zero before the first step).
 * The arrays lie in host memory. step counts from 1. Nothing is written when an option, a gradient or a result is not
 * finite.
 *
 * Pointers:
 * options is sized options; the arrays have count f32 each, share no memory and are used by nobody else.
 */
pvera_error *pvera_adamw_step(const pvera_adamw *options,
                              uint64_t step,
                              size_t count,
                              float *parameters,
                              const float *gradients,
                              float *first_moments,
                              float *second_moments);

#ifdef __cplusplus
}
#endif

/* ---- Conveniences for C and C++, made of the above ---- */

/** How a value of a struct is written, in C and in C++. */
#ifdef __cplusplus
#define PVERA_LITERAL(type) type
#else
#define PVERA_LITERAL(type) (type)
#endif

/** IEEE single precision. */
#define PVERA_F32 (PVERA_LITERAL(pvera_dtype){PVERA_DTYPE_FLOAT, 32, 1})
/** IEEE half precision. */
#define PVERA_F16 (PVERA_LITERAL(pvera_dtype){PVERA_DTYPE_FLOAT, 16, 1})
/** The upper half of an f32. */
#define PVERA_BF16 (PVERA_LITERAL(pvera_dtype){PVERA_DTYPE_BFLOAT, 16, 1})

/** A dense f32 matrix on the CPU, to be read. */
static inline pvera_matrix pvera_f32(const float *data, size_t rows, size_t cols) {
    pvera_matrix matrix = {data, rows, cols, cols, {PVERA_DTYPE_FLOAT, 32, 1}, {PVERA_DEVICE_CPU, 0}};
    return matrix;
}

/** A dense f32 matrix on the CPU, to be written. */
static inline pvera_matrix_mut pvera_f32_mut(float *data, size_t rows, size_t cols) {
    pvera_matrix_mut matrix = {data, rows, cols, cols, {PVERA_DTYPE_FLOAT, 32, 1}, {PVERA_DEVICE_CPU, 0}};
    return matrix;
}

#endif
