// Products of rows with a weight, f32 sums in the library's order, and the sum of a product's parts.

#include "fours.cuh"
#include "rows.cuh"

// Length of one chain of fused multiply-adds.
#define DEPTH 256u

// Whether a row of x takes part.
INLINE bool takes_part(const Product &args, u32 row) {
    if (row >= args.rows) {
        return false;
    }
    return args.term == nullptr || term_of(args.term, args.terms, row % args.rows_of_call, args.group, 0) != nullptr;
}

INLINE Lines lines_of_x(const Product &args) {
    return lines_of(args.x.data, args.x.stride, args.x.dtype, args.rows, args.depth);
}

// Outputs along k, or values of k across it.
template <bool ALONG_K>
INLINE Lines lines_of_w(const Product &args) {
    if (ALONG_K) {
        return lines_of(args.w, args.w_output_stride, args.w_dtype, args.outputs, args.depth);
    }
    return lines_of(args.w, args.w_input_stride, args.w_dtype, args.depth, args.outputs);
}

// ---- Few rows: a block of threads has all of x and of w that its chains take, so that every load is under way at once ----

struct alignas(16) SplitTile {
    float x[SPLIT_ROWS * DEPTH];
    float w[SPLIT_COLS * DEPTH];
};

// Where a weight is. Across k, columns lie side by side. Along k, fours of k do, exchanged so that those of eight columns lie in
// different banks of shared memory.
template <bool ALONG_K>
INLINE u32 place_of_weight(u32 col, u32 k) {
    return ALONG_K ? col * DEPTH + (k ^ (col & 7u) * FOUR) : k * SPLIT_COLS + col;
}

// Which of the block's rows take part, a bit each; the same for all threads. The tile is only lent.
INLINE u32 rows_that_take_part(const Product &args, u32 first_row, SplitTile &tile) {
    if (args.term == nullptr) {
        return (1u << min(args.rows - first_row, SPLIT_ROWS)) - 1u;
    }
    if (threadIdx.x < SPLIT_ROWS) {
        tile.x[threadIdx.x] = takes_part(args, first_row + threadIdx.x) ? 1.0f : 0.0f;
    }
    __syncthreads();
    u32 taking = 0;
#pragma unroll
    for (u32 place = 0; place < SPLIT_ROWS; place++) {
        taking |= (tile.x[place] == 0.0f ? 0u : 1u) << place;
    }
    __syncthreads();
    return taking;
}

// The place whose row stands at a place of the tile: the place itself if its row takes part, else the first that does.
INLINE u32 place_taken(u32 taking, u32 place) {
    if (taking >> place & 1u) {
        return place;
    }
    u32 first = 0;
    for (u32 rest = taking; (rest & 1u) == 0u; rest >>= 1) {
        first++;
    }
    return first;
}

// `rows` of the tile's rows are wanted.
template <bool ALONG_K>
INLINE void fill_split_tile(const Product &args, u32 first_row, u32 taking, u32 rows, SplitTile &tile) {
    u32 first_col = blockIdx.x * SPLIT_COLS, first_k = blockIdx.y * DEPTH;
    Lines x_lines = lines_of_x(args), w_lines = lines_of_w<ALONG_K>(args);
    Rectangle<SPLIT_ROWS, DEPTH, SPLIT_THREADS> x;
    Rectangle<ALONG_K ? SPLIT_COLS : DEPTH, ALONG_K ? DEPTH : SPLIT_COLS, SPLIT_THREADS> w;
    auto x_line = [&](u32, u32 place) { return first_row + place_taken(taking, place); };
    auto w_line = [&](u32, u32 line) { return min((ALONG_K ? first_col : first_k) + line, w_lines.count - 1); };
    u32 first = ALONG_K ? first_k : first_col;
    const u32 rows_of_fours = SPLIT_ROWS / x.FOURS;
    u32 x_fours = (rows + rows_of_fours - 1) / rows_of_fours;
    w.load(w_lines, first, w_line);
    x.load(x_lines, first_k, x_line, x_fours);
    auto x_place = [&](u32 row, u32 k) { return tile.x + row * DEPTH + k; };
    x.template store<true>(x_lines, first_k, false, x_line, x_place, x_fours);
    w.template store<true>(w_lines, first, args.square != 0, w_line, [&](u32 line, u32 at) {
        return tile.w + place_of_weight<ALONG_K>(ALONG_K ? line : at, ALONG_K ? at : line);
    });
}

// The weights of four values of k of a column.
template <bool ALONG_K>
INLINE float4 weights_at(const SplitTile &tile, u32 col, u32 k) {
    const float *w = tile.w + place_of_weight<ALONG_K>(col, k);
    return ALONG_K ? *(const float4 *)w : float4{w[0], w[SPLIT_COLS], w[2 * SPLIT_COLS], w[3 * SPLIT_COLS]};
}

// Adds the first `count` of four products to a chain.
INLINE float add_products(float4 x, float4 w, u32 count, float chain) {
    chain = fmaf(x.x, w.x, chain);
    chain = count > 1 ? fmaf(x.y, w.y, chain) : chain;
    chain = count > 2 ? fmaf(x.z, w.z, chain) : chain;
    return count > 3 ? fmaf(x.w, w.w, chain) : chain;
}

// The chains of one thread of the first warp: ROWS side by side from `place` on, by COLS a few lanes apart. More chains a thread
// are fewer reads of shared memory in all, which is what bounds this.
template <bool ALONG_K, u32 ROWS, u32 COLS>
struct Chains {
    static constexpr u32 LANES = SPLIT_COLS / COLS;
    // Enough chains to hide the latency of a multiply-add and of shared memory.
    static constexpr u32 UNROLLED = 32 / (ROWS * COLS) > 8 ? 8 : 32 / (ROWS * COLS);
    float sums[ROWS][COLS];

    static INLINE u32 place() {
        return threadIdx.x / LANES * ROWS;
    }

    static INLINE u32 col_of(u32 col) {
        return threadIdx.x % LANES + col * LANES;
    }

    INLINE void add_four(const SplitTile &tile, u32 k, u32 count) {
        float4 w[COLS];
#pragma unroll
        for (u32 col = 0; col < COLS; col++) {
            w[col] = weights_at<ALONG_K>(tile, col_of(col), k);
        }
#pragma unroll
        for (u32 row = 0; row < ROWS; row++) {
            float4 x = *(const float4 *)(tile.x + (place() + row) * DEPTH + k);
#pragma unroll
            for (u32 col = 0; col < COLS; col++) {
                sums[row][col] = add_products(x, w[col], count, sums[row][col]);
            }
        }
    }

    INLINE void compute(const SplitTile &tile, u32 depth) {
#pragma unroll
        for (u32 row = 0; row < ROWS; row++) {
#pragma unroll
            for (u32 col = 0; col < COLS; col++) {
                sums[row][col] = 0.0f;
            }
        }
        u32 whole = depth - depth % FOUR;
#pragma unroll UNROLLED
        for (u32 k = 0; k < whole; k += FOUR) {
            add_four(tile, k, FOUR);
        }
        if (whole < depth) {
            add_four(tile, whole, depth - whole);
        }
    }

    INLINE void store(const Product &args, u32 first_row, u32 taking) const {
        float *out = args.out + blockIdx.y * args.part_stride;
#pragma unroll
        for (u32 row = 0; row < ROWS; row++) {
            float *out_row = out + (first_row + place() + row) * args.out_stride;
#pragma unroll
            for (u32 col = 0; col < COLS; col++) {
                u32 out_col = blockIdx.x * SPLIT_COLS + col_of(col);
                if ((taking >> (place() + row) & 1u) != 0u && out_col < args.outputs) {
                    out_row[out_col] = sums[row][col];
                }
            }
        }
    }
};

template <bool ALONG_K, u32 ROWS, u32 COLS>
INLINE void compute_chains(const Product &args, const SplitTile &tile, u32 first_row, u32 taking) {
    Chains<ALONG_K, ROWS, COLS> chains;
    chains.compute(tile, min(DEPTH, args.depth - blockIdx.y * DEPTH));
    chains.store(args, first_row, taking);
}

template <bool ALONG_K>
INLINE void split(const Product &args) {
    __shared__ SplitTile tile;
    u32 first_row = blockIdx.z * SPLIT_ROWS;
    u32 taking = rows_that_take_part(args, first_row, tile);
    if (taking == 0) {
        return;
    }
    u32 rows = taking == 1 ? 1 : taking < 1u << 4 ? 4 : taking < 1u << 8 ? 8 : 16;
    fill_split_tile<ALONG_K>(args, first_row, taking, rows, tile);
    __syncthreads();
    if (threadIdx.x >= SPLIT_COLS) {
        return;
    }
    if (rows == 1) {
        compute_chains<ALONG_K, 1, 1>(args, tile, first_row, taking);
    } else if (rows == 4) {
        compute_chains<ALONG_K, 4, 1>(args, tile, first_row, taking);
    } else if (rows == 8) {
        compute_chains<ALONG_K, 4, 2>(args, tile, first_row, taking);
    } else {
        compute_chains<ALONG_K, 4, 4>(args, tile, first_row, taking);
    }
}

KERNEL(SPLIT_THREADS) product_split_k(Product args) {
    split<true>(args);
}

KERNEL(SPLIT_THREADS) product_split_j(Product args) {
    split<false>(args);
}

// ---- Many rows: a thread has a few rows and columns of a tile in registers, fed from shared memory stage by stage --------

#define MICRO_ROWS 8u
#define MICRO_COLS (TILE_ROWS * TILE_COLS / (MICRO_ROWS * TILE_THREADS))
#define THREADS_ACROSS (TILE_COLS / MICRO_COLS)

// A thread's rows come in fours, far apart, so that threads side by side read shared memory side by side; so do its columns.
#define ROW_FOURS (MICRO_ROWS / FOUR)
#define COL_FOURS (MICRO_COLS / FOUR)

// Values of k in a stage.
#define STAGE_DEPTH 16u

// By k. Lines are longer than needed by four, so that transposed stores meet in fewer banks.
struct alignas(16) Stage {
    float x[STAGE_DEPTH][TILE_ROWS + FOUR];
    float w[STAGE_DEPTH][TILE_COLS + FOUR];
};

// A tile of out, and the next stage on its way from memory.
template <bool ALONG_K>
struct Tile {
    Lines x_lines, w_lines;
    u32 first_col;
    Rectangle<TILE_ROWS, STAGE_DEPTH, TILE_THREADS> x;
    Rectangle<ALONG_K ? TILE_COLS : STAGE_DEPTH, ALONG_K ? STAGE_DEPTH : TILE_COLS, TILE_THREADS> w;
    u32 rows[Rectangle<TILE_ROWS, STAGE_DEPTH, TILE_THREADS>::FOURS];  // which the thread loads

    INLINE auto x_line() const {
        return [this](u32 four, u32) {
            u32 row = rows[0];
#pragma unroll
            for (u32 other = 1; other < x.FOURS; other++) {
                row = four == other ? rows[other] : row;
            }
            return row;
        };
    }

    INLINE auto w_line(u32 k) const {
        return [this, k](u32, u32 line) { return min((ALONG_K ? first_col : k) + line, w_lines.count - 1); };
    }

    INLINE void load(u32 k) {
        x.load(x_lines, k, x_line());
        w.load(w_lines, ALONG_K ? k : first_col, w_line(k));
    }

    INLINE void store(u32 k, bool square, Stage &stage) const {
        x.template store<false>(x_lines, k, false, x_line(), [&](u32 row, u32 at) { return &stage.x[at][row]; });
        w.template store<!ALONG_K>(w_lines, ALONG_K ? k : first_col, square, w_line(k), [&](u32 line, u32 at) {
            return ALONG_K ? &stage.w[at][line] : &stage.w[line][at];
        });
    }
};

// Finds which rows the thread loads: where one doesn't take part, another of the tile that does. False if none does; the same for
// all threads.
template <bool ALONG_K>
INLINE bool find_rows(const Product &args, u32 first_row, Tile<ALONG_K> &tile) {
    if (args.term == nullptr) {
#pragma unroll
        for (u32 four = 0; four < tile.x.FOURS; four++) {
            tile.rows[four] = min(first_row + tile.x.line_of(four), args.rows - 1);
        }
        return true;
    }
    const u32 none = ~0u;
    __shared__ u32 any;
    if (threadIdx.x == 0) {
        any = none;
    }
    __syncthreads();
#pragma unroll
    for (u32 four = 0; four < tile.x.FOURS; four++) {
        u32 row = first_row + tile.x.line_of(four);
        tile.rows[four] = takes_part(args, row) ? row : none;
        if (tile.rows[four] != none) {
            atomicCAS(&any, none, row);
        }
    }
    __syncthreads();
#pragma unroll
    for (u32 four = 0; four < tile.x.FOURS; four++) {
        tile.rows[four] = tile.rows[four] == none ? any : tile.rows[four];
    }
    return any != none;
}

INLINE u32 row_of_micro_tile(u32 row) {
    return row / FOUR * (TILE_ROWS / ROW_FOURS) + threadIdx.x / THREADS_ACROSS * FOUR + row % FOUR;
}

INLINE u32 col_of_micro_tile(u32 col) {
    return col / FOUR * (TILE_COLS / COL_FOURS) + threadIdx.x % THREADS_ACROSS * FOUR + col % FOUR;
}

typedef float MicroTile[MICRO_ROWS][MICRO_COLS];

// One value of k more for each chain.
INLINE void multiply(const Stage &stage, u32 k, MicroTile &chains) {
    float4 x[ROW_FOURS], w[COL_FOURS];
#pragma unroll
    for (u32 four = 0; four < ROW_FOURS; four++) {
        x[four] = *(const float4 *)&stage.x[k][row_of_micro_tile(four * FOUR)];
    }
#pragma unroll
    for (u32 four = 0; four < COL_FOURS; four++) {
        w[four] = *(const float4 *)&stage.w[k][col_of_micro_tile(four * FOUR)];
    }
#pragma unroll
    for (u32 row = 0; row < MICRO_ROWS; row++) {
        float4 four = x[row / FOUR];
        float value = row % 4 == 0 ? four.x : row % 4 == 1 ? four.y : row % 4 == 2 ? four.z : four.w;
#pragma unroll
        for (u32 col = 0; col < MICRO_COLS; col += FOUR) {
            chains[row][col] = fmaf(value, w[col / FOUR].x, chains[row][col]);
            chains[row][col + 1] = fmaf(value, w[col / FOUR].y, chains[row][col + 1]);
            chains[row][col + 2] = fmaf(value, w[col / FOUR].z, chains[row][col + 2]);
            chains[row][col + 3] = fmaf(value, w[col / FOUR].w, chains[row][col + 3]);
        }
    }
}

INLINE void multiply_stage(const Stage &stage, u32 depth, MicroTile &chains) {
    if (depth >= STAGE_DEPTH) {
#pragma unroll
        for (u32 k = 0; k < STAGE_DEPTH; k++) {
            multiply(stage, k, chains);
        }
        return;
    }
    // Zeros would do for what is missing, but for the sign of a zero.
#pragma unroll 1
    for (u32 k = 0; k < depth; k++) {
        multiply(stage, k, chains);
    }
}

// A block's sums join those of the blocks before, which wait in out: registers are dearer. The first are taken as they are.
INLINE float joined(bool first, float total, float sum) {
    return first ? sum : total + sum;
}

INLINE void join_four(const Product &args, float *out, u32 col, const float *sums, bool first, bool aligned) {
    if (aligned && col + FOUR <= args.outputs) {
        float4 totals = first ? float4{} : *(const float4 *)out;
        *(float4 *)out = {joined(first, totals.x, sums[0]), joined(first, totals.y, sums[1]),
                          joined(first, totals.z, sums[2]), joined(first, totals.w, sums[3])};
        return;
    }
#pragma unroll
    for (u32 place = 0; place < FOUR; place++) {
        if (col + place < args.outputs) {
            out[place] = joined(first, first ? 0.0f : out[place], sums[place]);
        }
    }
}

// Which rows of the micro-tile take part, a bit each.
INLINE u32 micro_rows_that_take_part(const Product &args, u32 first_row) {
    u32 taking = 0;
#pragma unroll
    for (u32 row = 0; row < MICRO_ROWS; row++) {
        taking |= (u32)takes_part(args, first_row + row_of_micro_tile(row)) << row;
    }
    return taking;
}

// Ends a block: its sums go to out, and the chains begin anew.
INLINE void end_block(const Product &args, float *out, u32 first_row, u32 first_col, u32 taking, bool first,
                      MicroTile &chains) {
    bool aligned = (u64)out % sizeof(float4) == 0 && args.out_stride % FOUR == 0;
    first_row = opaque(first_row);
    first_col = opaque(first_col);
#pragma unroll
    for (u32 row = 0; row < MICRO_ROWS; row++) {
        if (taking >> row & 1u) {
            float *out_row = out + (first_row + row_of_micro_tile(row)) * args.out_stride;
#pragma unroll
            for (u32 four = 0; four < COL_FOURS; four++) {
                u32 col = first_col + col_of_micro_tile(four * FOUR);
                join_four(args, out_row + col, col, &chains[row][four * FOUR], first, aligned);
            }
        }
#pragma unroll
        for (u32 col = 0; col < MICRO_COLS; col++) {
            chains[row][col] = 0.0f;
        }
    }
}

template <bool ALONG_K>
INLINE void tile(const Product &args) {
    __shared__ Stage stages[2];
    Tile<ALONG_K> tile;
    tile.x_lines = lines_of_x(args);
    tile.w_lines = lines_of_w<ALONG_K>(args);
    tile.first_col = blockIdx.x * TILE_COLS;
    u32 first_row = blockIdx.y * TILE_ROWS;
    if (!find_rows(args, first_row, tile)) {
        return;
    }
    u32 taking = micro_rows_that_take_part(args, first_row);
    // One block of k of many, or all of them.
    u32 begin = blockIdx.z * DEPTH;
    u32 end = gridDim.z > 1 ? min(begin + DEPTH, args.depth) : args.depth;
    float *out = args.out + blockIdx.z * args.part_stride;
    bool square = args.square != 0;
    MicroTile chains = {};
    tile.load(begin);
    tile.store(begin, square, stages[0]);
    __syncthreads();
    u32 now = 0;
    for (u32 k = begin; k < end; k += STAGE_DEPTH) {
        u32 next = k + STAGE_DEPTH;
        bool last = next >= end;
        if (!last) {
            tile.load(next);
        }
        multiply_stage(stages[now], end - k, chains);
        now = 1 - now;
        if (!last) {
            tile.store(next, square, stages[now]);
        }
        // After the store, when the registers that it empties are free.
        if (last || next % DEPTH == 0) {
            end_block(args, out, first_row, tile.first_col, taking, k - begin < DEPTH, chains);
        }
        __syncthreads();
    }
}

KERNEL(TILE_THREADS) product_tile_k(Product args) {
    tile<true>(args);
}

KERNEL(TILE_THREADS) product_tile_j(Product args) {
    tile<false>(args);
}

// ---- Parts ---------------------------------------------------------------------------------------------------------------

KERNEL(256) combine(Combine args) {
    u32 col = blockIdx.x * blockDim.x + threadIdx.x;
    if (col >= args.cols) {
        return;
    }
    for (u32 row = blockIdx.y; row < args.rows; row += gridDim.y) {
        if (args.term == nullptr ||
            term_of(args.term, args.terms, row % args.rows_of_call, args.group, 0) != nullptr) {
            store(args.out, row, col, load(args.from, row, col));
        }
    }
}
