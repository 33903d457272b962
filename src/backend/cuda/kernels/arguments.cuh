// What the host passes to kernels. src/backend/cuda/arguments.rs has the same structs; tests compare their fields and sizes.
//
// Every kernel takes one struct by value. Pointers are device addresses. A row of a call with several draws is `draw *
// rows.count + row`; whose row it is (term, identity, sample) is asked for `row`. Kernels whose grid has rows as its y
// go on from row to row + the grid's height, so that a grid of 65535 (the most there is) serves any number of rows; the
// grids of products can't be cut.
#pragma once

// The block of a kernel with a thread an element of a row.
#define ELEMENT_THREADS 256

typedef int i32;
typedef unsigned int u32;
typedef unsigned long long u64;

enum Dtype : u32 { DTYPE_F32 = 0, DTYPE_F16 = 1, DTYPE_BF16 = 2 };
enum Mode : u32 { MODE_MEAN = 0, MODE_SAMPLE = 1, MODE_FIXED = 2 };
enum Dropout : u32 { DROPOUT_NONE = 0, DROPOUT_KEYED = 1, DROPOUT_ALL = 2 };

// Rows of a matrix lie `stride` elements apart. Absent when data is 0.
struct Matrix {
    u64 data;
    u64 stride;
    u32 dtype;
    u32 reserved;
};

// A sum in parts: element (row, col) is the sum of data[part * part_stride + row * stride + col] over the parts,
// ascending.
struct Parts {
    const float *data;
    u64 stride;
    u64 part_stride;
    u32 count;
    u32 reserved;
};

// One adapter on one layer.
struct Term {
    const float *lambda_d;   // [2 rank]
    const float *lambda_b;   // [outputs]
    const float *bias;       // [outputs] a learned bias, or null
    u64 layer_hash;          // of the noise key
    u64 adapter_identity;    // of the noise key
    float scale;
    float bound;             // logvar = min(logvar, bound)
    u32 rank;
    u32 mode;
    u32 group;               // which pair of projections; rows of one group share products
    u32 p_column;            // where its [2 rank] columns of p begin
    u32 latent_column;       // where its [rank] columns of eps, mu and logvar begin
    u32 z_column;            // where its [rank] columns of z begin
    u32 delta_column;        // where its [outputs] columns of z Bᵀ begin
    u32 dropout;             // Dropout
    u32 drop_below;          // words below this drop their column
    float keep_scale;
};

// Whose rows these are.
struct Rows {
    const i32 *term;         // [count] the index of each row's one term, −1 for none; null: every row takes every term
    const u64 *identity;     // [count], or null: identity_base + row
    const u32 *sample;       // [count], or null: sample_base
    u64 identity_base;
    u32 sample_base;
    u32 count;
};

// Where the seed of the noise key is.
struct Seed {
    const u64 *at;           // or null: value
    u64 value;
};

// The first thing that went wrong while kernels ran; all zero until then. Written by one thread (claimed by
// compare-and-swap on `claimed`).
struct Fault {
    u32 claimed;
    u32 kind;                // FAULT_…
    u32 row;
    u32 latent;              // or the bad slot
    float logvar;
    u32 reserved;
};
enum FaultKind : u32 { FAULT_NONE = 0, FAULT_OVERFLOW_SIGMA = 1, FAULT_OVERFLOW_VARIANCE = 2, FAULT_SLOT = 3 };

// ---- lists.cu -------------------------------------------------------------------------------------------------------

// `put`: writes up to PUT_WORDS words that travel as an argument: ordered by the stream, captured by value, and never
// waited for. Grid (1), block (LIST_THREADS).
#define LIST_THREADS 256
#define PUT_WORDS 960
struct Put {
    u32 *to;
    u32 count;
    u32 reserved;
    u32 words[PUT_WORDS];
};

// `resolve`: term[row] = term_of_slot[slot[row]]; slot −1 gives −1; a slot outside [−1, slots), or one whose term is
// NO_ADAPTER, gives −1 and a fault (FAULT_SLOT, row, the slot). Grid (⌈rows/LIST_THREADS⌉), block
// (LIST_THREADS).
#define NO_ADAPTER -2
struct Resolve {
    const i32 *slot;
    const i32 *term_of_slot;
    i32 *term;
    Fault *fault;
    u32 rows;
    u32 slots;
};

// ---- product.cu -----------------------------------------------------------------------------------------------------

// x [rows, depth] times w: out(row, col) = Σ_k x(row, k) · w(col, k), in the library's order: k in blocks of 256; in a
// block one chain of fused multiply-adds from zero, ascending; the first block's sum as it is, then the next ones
// added, ascending.
//
// `product_split_k`, `product_split_j` (few rows): block b of 256 values of k is part b of out: grid
// (⌈outputs/SPLIT_COLS⌉, ⌈depth/256⌉, ⌈rows/SPLIT_ROWS⌉), block (SPLIT_THREADS). `product_tile_k`, `product_tile_j`
// (many rows): grid (⌈outputs/TILE_COLS⌉, ⌈rows/TILE_ROWS⌉, 1), block (TILE_THREADS): one part, the whole depth; or,
// for few tiles, grid z ⌈depth/256⌉ with the parts of a split. _k: the elements of one output lie side by side
// (w_input_stride is 1); _j: those of one input do (w_output_stride is 1). x, w and out don't overlap.
//
// With `term` (of Rows), only rows whose term is in `group` are computed and written; row r of x and of out has term[r
// mod rows_of_call].
#define SPLIT_COLS 32
#define SPLIT_ROWS 16
#define SPLIT_THREADS 256
#define TILE_COLS 64
#define TILE_ROWS 64
#define TILE_THREADS 128
struct Product {
    Matrix x;
    u64 w;
    u64 w_output_stride;
    u64 w_input_stride;
    u32 w_dtype;
    u32 square;              // take w² (rounded to f32) instead of w
    float *out;
    u64 out_stride;
    u64 part_stride;
    u32 rows;
    u32 outputs;
    u32 depth;
    u32 group;
    const i32 *term;
    const Term *terms;
    u32 rows_of_call;
    u32 reserved;
};

// `combine`: out(row, col) = the sum of the parts; rows as in Product. Grid (⌈cols/ELEMENT_THREADS⌉, rows), block
// (ELEMENT_THREADS).
struct Combine {
    Parts from;
    Matrix out;
    u32 rows;
    u32 cols;
    u32 group;
    u32 rows_of_call;
    const i32 *term;
    const Term *terms;
};

// ---- latent.cu ------------------------------------------------------------------------------------------------------

// `mask`: out(row, col) = x(row, col) · mask, out f32. The given mask (n × cols) where there is one, else each row's
// keyed mask: column c is column in_offset + c of the noise stream of (row identity, sample). A term without dropout
// passes its rows on. Rows of other groups are skipped when rows.term is given; otherwise the mask is that of term
// `index`. Grid (⌈cols/ELEMENT_THREADS⌉, rows), block (ELEMENT_THREADS).
struct Mask {
    Matrix x;
    Matrix given;
    float *out;
    u64 out_stride;
    const Term *terms;
    Rows rows;
    Seed seed;
    u64 in_offset;
    u32 cols;
    u32 group;
    u32 index;
    u32 reserved;
};

// `latent`: from p to what a product with B takes, or to the caller. Rows: each row's term where rows.term is given
// (rows of other groups than `group` are skipped, unless `group` is 0xffffffff), else term `index`. For each draw d and
// row:
//   LATENT_Z         z(d·n + row, z_column + k) = mu | fma(eps, exp(½ logvar), mu) | exp(½ logvar) + mu
//   LATENT_VARIANCE  z = exp(logvar)                                                (draws = 1)
//   LATENT_MOMENTS   mu(row, latent_column + k), logvar(row, latent_column + k)     (draws = 1)
// with mu = λ_d[k] · p[k], logvar = min(λ_d[r + k] · p[r + k], bound) (NaN passed on; ½ times the bounded one). eps:
// the given matrix at (d·n + row, latent_column + k), else drawn by key with sample + d (wrapping); antithetic: sample
// ≫ 1, the sign flipped for odd ones. LATENT_Z does not read the logvar half of p in mean mode. An infinite exponential
// is a fault (row is the row of the call, latent is k; logvar the bounded one). Grid (⌈⌈rank/16⌉ · rows · draws /
// LATENT_BLOCKS⌉), block (LATENT_THREADS): eight threads a block of 16 latents, and one more that draws its words; rank
// is the widest of the terms.
#define LATENT_BLOCKS 16
#define LATENT_THREADS 160
enum LatentKind : u32 { LATENT_Z = 0, LATENT_VARIANCE = 1, LATENT_MOMENTS = 2 };
struct Latent {
    Parts p;
    const Term *terms;
    Rows rows;
    Seed seed;
    Matrix eps;
    float *z;
    u64 z_stride;
    Matrix mu;
    Matrix logvar;
    Fault *fault;
    u32 kind;
    u32 draws;
    u32 rank;
    u32 group;
    u32 index;
    u32 antithetic;
};

// ---- finish.cu ------------------------------------------------------------------------------------------------------

// `finish`: y(d·n + row, col), rounded once to y's type, from
//   START_BASE  base(row, col), then + bias where there is one: the learned bias of a term of the row (of its one term;
//               of several the first that has one), else the layer's own
//   START_Y     y(d·n + row, col); with a learned bias, + (learned − own), own 0 where the layer has none (difference
//               rounded, then added)
//   START_ZERO  0
// then for each term of the row, ascending: sum = fma(c, delta(d·n + row, delta_column + col), sum) with c = scale ·
// λ_b[col], or its square (rounded) with `square`. Grid (⌈cols/ELEMENT_THREADS⌉, rows · draws), block
// (ELEMENT_THREADS).
enum Start : u32 { START_BASE = 0, START_Y = 1, START_ZERO = 2 };
struct Finish {
    Matrix y;
    Parts base;
    Parts delta;
    Matrix bias;             // [1, cols]
    const Term *terms;
    Rows rows;
    u32 term_count;
    u32 draws;
    u32 cols;
    u32 start;
    u32 square;
    u32 reserved;
};

// ---- gradients.cu ---------------------------------------------------------------------------------------------------

// `weigh`: out(row, col) = dy(row, col) · (scale · λ_b[col]) of the row's term (as in Latent: rows.term and group, else
// term `index`), f32. Grid (⌈cols/ELEMENT_THREADS⌉, rows), block (ELEMENT_THREADS).
struct Weigh {
    Matrix dy;
    float *out;
    u64 out_stride;
    const Term *terms;
    Rows rows;
    u32 cols;
    u32 group;
    u32 index;
    u32 reserved;
};

// `slopes`: from g = dL/dz to the latents' gradients of each row of a group (as in Latent), with s = exp(½ logvar), v =
// exp(logvar):
//   dmu = g;  dlogvar = 0 | (g · eps) · (0.5 · s) | g · (0.5 · s)  by mode
//   with kl: dlogvar = fma(0.5 · kl_each, v − 1, dlogvar);  dmu = fma(kl_each, mu, g)
//   priors: dmu += given dmu(row, latent_column + k);  dlogvar += given dlogvar(…)
//   where λ_d[r + k] · p[r + k] > bound (bound finite): dlogvar = 0
//   dm(row, 2 (latent_column − first_latent) + k) = dmu, and at + rank + k = dlogvar
//   dp(row, p_column + k) = fma(λ_d[k], dmu, dp), and the same for r + k with dlogvar
// Faults as in Latent, of v with kl. Grid and block as Latent, draws = 1.
struct Slopes {
    Matrix p;
    Parts g;                 // row r, column k of the row's own term
    const Term *terms;
    Rows rows;
    Seed seed;
    Matrix eps;
    Matrix prior_dmu;
    Matrix prior_dlogvar;
    float *dm;
    u64 dm_stride;
    float *dp;
    u64 dp_stride;
    Fault *fault;
    float kl_each;
    u32 has_kl;
    u32 first_latent;
    u32 rank;
    u32 group;
    u32 index;
    u32 antithetic;
    u32 reserved;
};

// `divergence`: kl[row] += Σ_k −½ (1 + logvar − mu² − v), in f64, for k ascending from 0: d −= 0.5 · (((1 + logvar) −
// mu · mu) − v), each operation rounded; rows of a group as in Latent. Grid (rows), block (DIVERGENCE_THREADS).
#define DIVERGENCE_THREADS 128
struct Divergence {
    Matrix p;
    const Term *terms;
    Rows rows;
    double *kl;
    u32 group;
    u32 index;
};

// `kl_total`: *out = (Σ kl[row], ascending from 0) / divisor. Grid (1), block (DIVERGENCE_THREADS).
struct KlTotal {
    const double *kl;
    double *out;
    double divisor;
    u32 rows;
    u32 reserved;
};

// `sums`: part b of out (one row): Σ over rows SUM_ROWS b … SUM_ROWS (b + 1) − 1 that take term `index` of (scale ·
// left(row, col)) · right(row, col), one chain of fused multiply-adds from zero, ascending (the scaled value rounded
// first; without right: 1). Grid (⌈cols/SUM_COLS⌉, ⌈rows/SUM_ROWS⌉), block (SUM_COLS).
#define SUM_COLS 128
#define SUM_ROWS 64
struct Sums {
    Matrix left;
    Matrix right;
    const i32 *term;         // null: every row
    float *out;
    u64 part_stride;
    float scale;
    u32 rows;
    u32 cols;
    u32 index;
};

// `deliver`: to[col] (+)= 0 + part 0 + part 1 + …, ascending. Grid (⌈cols/ELEMENT_THREADS⌉), block (ELEMENT_THREADS).
struct Deliver {
    const float *from;
    u64 part_stride;
    float *to;
    u32 parts;
    u32 cols;
    u32 overwrite;
    u32 reserved;
};

// `accumulate`: to(row, col) = from(row, col) (0 where absent) + add(row, col) · mask, rounded to to's type; the mask
// as in `mask`, left out when `masked` is 0. Rows of other groups, and all rows when add is absent, are copied (from →
// to). Grid (⌈cols/ELEMENT_THREADS⌉, rows), block (ELEMENT_THREADS).
struct Accumulate {
    Matrix from;
    Matrix to;
    Parts add;
    Matrix given;
    const Term *terms;
    Rows rows;
    Seed seed;
    u64 in_offset;
    u32 cols;
    u32 group;
    u32 index;
    u32 masked;
};
