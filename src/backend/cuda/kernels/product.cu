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

// ---- Few rows: a block of threads has all that its chains take of x and w, so that every load is under way at once 

// Blocks of threads that a multiprocessor should have room for.
#define SPLIT_BLOCKS 4

struct alignas(16) SplitTile {
    float x[SPLIT_ROWS * DEPTH];
    float w[SPLIT_COLS * DEPTH];
};

// Where a weight is. Across k, columns lie side by side. Along k, fours of k do; within each eight they are
// exchanged, so that those of eight columns lie in different banks of shared memory.
#define EIGHT_FOURS (8u * FOUR)

template <bool ALONG_K>
INLINE u32 place_of_weight(u32 col, u32 k) {
    if (!ALONG_K) {
        return k * SPLIT_COLS + col;
    }
    return col * DEPTH + k / EIGHT_FOURS * EIGHT_FOURS + (k % EIGHT_FOURS ^ col % 8u * FOUR);
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

// The rows of x, while the loads of w are under way: few at a time, since registers are full of those. Behind the
// last that takes part, only as many as are read.
INLINE void fill_rows_of_split_tile(const Product &args, u32 first_row, u32 taking, SplitTile &tile) {
    const u32 at_a_time = SPLIT_THREADS * FOUR / DEPTH;
    Lines lines = lines_of_x(args);
    u32 first_k = blockIdx.y * DEPTH;
#pragma unroll 1
    for (u32 first = 0; first < SPLIT_ROWS && taking >> first != 0; first += at_a_time) {
        Rectangle<at_a_time, DEPTH, SPLIT_THREADS> x;
        auto line_at = [&](u32 line) { return first_row + place_taken(taking, first + line); };
        x.load(lines, first_k, line_at);
        x.template store<true>(lines, first_k, false, line_at,
                               [&](u32 line, u32 k) { return tile.x + (first + line) * DEPTH + k; });
    }
}

template <bool ALONG_K>
INLINE void fill_split_tile(const Product &args, u32 first_row, u32 taking, SplitTile &tile) {
    u32 first_col = blockIdx.x * SPLIT_COLS, first_k = blockIdx.y * DEPTH;
    u32 first_line = ALONG_K ? first_col : first_k, first = ALONG_K ? first_k : first_col;
    Lines lines = lines_of_w<ALONG_K>(args);
    Rectangle<ALONG_K ? SPLIT_COLS : DEPTH, ALONG_K ? DEPTH : SPLIT_COLS, SPLIT_THREADS> w;
    auto line_at = [&](u32 line) { return min(first_line + line, lines.count - 1); };
    w.load(lines, first, line_at);
    fill_rows_of_split_tile(args, first_row, taking, tile);
    w.template store<true>(lines, first, args.square != 0, line_at, [&](u32 line, u32 at) {
        return tile.w + place_of_weight<ALONG_K>(ALONG_K ? line : at, ALONG_K ? at : line);
    });
}

// The weights of four values of k of a column: k is a multiple of eight fours, and so many fours further.
template <bool ALONG_K>
INLINE float4 weights_at(const SplitTile &tile, u32 col, u32 k, u32 four) {
    const float *w = tile.w + place_of_weight<ALONG_K>(col, four * FOUR) + k * (ALONG_K ? 1 : SPLIT_COLS);
    return ALONG_K ? *(const float4 *)w : float4{w[0], w[SPLIT_COLS], w[2 * SPLIT_COLS], w[3 * SPLIT_COLS]};
}

// Adds the first `count` of four products to a chain.
INLINE float add_products(float4 x, float4 w, u32 count, float chain) {
    chain = fmaf(x.x, w.x, chain);
    chain = count > 1 ? fmaf(x.y, w.y, chain) : chain;
    chain = count > 2 ? fmaf(x.z, w.z, chain) : chain;
    return count > 3 ? fmaf(x.w, w.w, chain) : chain;
}

// The chains of one thread: ROWS rows of one column. More of them a thread are fewer reads of shared memory in all,
// which bound this, and hide each other's latency.
template <bool ALONG_K, u32 ROWS>
struct Chains {
    float sums[ROWS];

    static INLINE u32 place() {
        return threadIdx.x / SPLIT_COLS * ROWS;
    }

    static INLINE u32 col() {
        return threadIdx.x % SPLIT_COLS;
    }

    // From k (a multiple of eight fours) and so many fours on; at most four products a chain.
    INLINE void add_four(const SplitTile &tile, u32 k, u32 four, u32 count) {
        float4 w = weights_at<ALONG_K>(tile, col(), k, four);
#pragma unroll
        for (u32 row = 0; row < ROWS; row++) {
            float4 x = *(const float4 *)(tile.x + (place() + row) * DEPTH + k + four * FOUR);
            sums[row] = add_products(x, w, count, sums[row]);
        }
    }

    INLINE void compute(const SplitTile &tile, u32 depth) {
#pragma unroll
        for (u32 row = 0; row < ROWS; row++) {
            sums[row] = 0.0f;
        }
        u32 k = 0;
        for (; k + EIGHT_FOURS <= depth; k += EIGHT_FOURS) {
#pragma unroll 4
            for (u32 four = 0; four < 8; four++) {
                add_four(tile, k, four, FOUR);
            }
        }
#pragma unroll 1
        for (u32 four = 0; k + four * FOUR < depth; four++) {
            add_four(tile, k, four, depth - k - four * FOUR);
        }
    }

    INLINE void store(const Product &args, u32 first_row, u32 taking) const {
        u32 out_col = blockIdx.x * SPLIT_COLS + col();
        if (out_col >= args.outputs) {
            return;
        }
        float *out = args.out + blockIdx.y * args.part_stride + out_col;
#pragma unroll
        for (u32 row = 0; row < ROWS; row++) {
            if (taking >> (place() + row) & 1u) {
                out[(first_row + place() + row) * args.out_stride] = sums[row];
            }
        }
    }
};

template <bool ALONG_K, u32 ROWS>
INLINE void compute_chains(const Product &args, const SplitTile &tile, u32 first_row, u32 taking) {
    Chains<ALONG_K, ROWS> chains;
    if (chains.place() < SPLIT_ROWS && taking >> chains.place() != 0) {
        chains.compute(tile, min(DEPTH, args.depth - blockIdx.y * DEPTH));
        chains.store(args, first_row, taking);
    }
}

template <bool ALONG_K>
INLINE void split(const Product &args) {
    __shared__ SplitTile tile;
    u32 first_row = blockIdx.z * SPLIT_ROWS;
    u32 taking = rows_that_take_part(args, first_row, tile);
    if (taking == 0) {
        return;
    }
    fill_split_tile<ALONG_K>(args, first_row, taking, tile);
    __syncthreads();
    if (taking == 1) {
        compute_chains<ALONG_K, 1>(args, tile, first_row, taking);
    } else {
        compute_chains<ALONG_K, 4>(args, tile, first_row, taking);
    }
}

KERNEL_ON(SPLIT_THREADS, SPLIT_BLOCKS) product_split_k(Product args) {
    split<true>(args);
}

KERNEL_ON(SPLIT_THREADS, SPLIT_BLOCKS) product_split_j(Product args) {
    split<false>(args);
}

// ---- Many rows: a thread has a few rows and columns of a tile in registers, fed from shared memory stage by stage -

#define MICRO_ROWS 8u
#define MICRO_COLS (TILE_ROWS * TILE_COLS / (MICRO_ROWS * TILE_THREADS))
#define MICRO_TILES_ACROSS (TILE_COLS / MICRO_COLS)

// A thread's rows come in fours, far apart, so that threads side by side read shared memory side by side; so do its
// columns.
#define ROW_FOURS (MICRO_ROWS / FOUR)
#define COL_FOURS (MICRO_COLS / FOUR)

// Blocks of threads that a multiprocessor should have room for.
#define TILE_BLOCKS 4

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
    const u32 *rows;  // which row of x stands in each of the tile's

    INLINE auto x_line() const {
        return [this](u32 line) { return rows[line]; };
    }

    INLINE auto w_line(u32 k) const {
        return [this, k](u32 line) { return min((ALONG_K ? first_col : k) + line, w_lines.count - 1); };
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

// Finds which row of x stands in each of the tile's: its own if it takes part, else another that does. False if none
// does; the same for all threads.
INLINE bool find_rows(const Product &args, u32 first_row, u32 *rows) {
    const u32 none = ~0u;
    __shared__ u32 any;
    if (threadIdx.x == 0) {
        any = none;
    }
    __syncthreads();
    for (u32 place = threadIdx.x; place < TILE_ROWS; place += TILE_THREADS) {
        bool takes = takes_part(args, first_row + place);
        rows[place] = takes ? first_row + place : none;
        if (takes) {
            atomicCAS(&any, none, first_row + place);
        }
    }
    __syncthreads();
    u32 other = any;
    for (u32 place = threadIdx.x; place < TILE_ROWS; place += TILE_THREADS) {
        rows[place] = rows[place] == none ? other : rows[place];
    }
    __syncthreads();
    return other != none;
}

INLINE u32 row_of_micro_tile(u32 row) {
    return row / FOUR * (TILE_ROWS / ROW_FOURS) + threadIdx.x / MICRO_TILES_ACROSS * FOUR + row % FOUR;
}

INLINE u32 col_of_micro_tile(u32 col) {
    return col / FOUR * (TILE_COLS / COL_FOURS) + threadIdx.x % MICRO_TILES_ACROSS * FOUR + col % FOUR;
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

// Sums of a block join those of the blocks before, which wait in out, since registers are dearer. Added to −0, the
// first stay as they are. Columns before `in_fours` may be written in fours.
INLINE void join_four(float *out, u32 col, u32 outputs, u32 in_fours, bool first, float4 sums) {
    float4 totals = {-0.0f, -0.0f, -0.0f, -0.0f};
    if (col + FOUR <= in_fours) {
        if (!first) {
            totals = *(const float4 *)out;
        }
        *(float4 *)out = {totals.x + sums.x, totals.y + sums.y, totals.z + sums.z, totals.w + sums.w};
        return;
    }
#pragma unroll 1
    for (u32 place = 0; place < FOUR && col + place < outputs; place++) {
        float sum = place == 0 ? sums.x : place == 1 ? sums.y : place == 2 ? sums.z : sums.w;
        out[place] = (first ? -0.0f : out[place]) + sum;
    }
}

// Ends a block of k: the sums go to out, and the chains begin anew.
INLINE void end_block(const Product &args, float *out, u32 first_row, u32 first_col, const u32 *rows, bool first,
                      MicroTile &chains) {
    bool aligned = (u64)out % sizeof(float4) == 0 && args.out_stride % FOUR == 0;
    u32 in_fours = opaque(aligned ? args.outputs : 0);
    first_row = opaque(first_row);
    first_col = opaque(first_col);
#pragma unroll
    for (u32 row = 0; row < MICRO_ROWS; row++) {
        u32 place = row_of_micro_tile(row);
        bool takes_part = rows[place] == first_row + place;
        float *out_row = out + (first_row + place) * args.out_stride;
#pragma unroll
        for (u32 col = 0; col < MICRO_COLS; col += FOUR) {
            float *chain = chains[row] + col;
            u32 out_col = first_col + col_of_micro_tile(col);
            if (takes_part) {
                float4 sums = {chain[0], chain[1], chain[2], chain[3]};
                join_four(out_row + out_col, out_col, args.outputs, in_fours, first, sums);
            }
            chain[0] = chain[1] = chain[2] = chain[3] = 0.0f;
        }
    }
}

template <bool ALONG_K>
INLINE void tile(const Product &args) {
    __shared__ Stage stages[2];
    __shared__ u32 rows[TILE_ROWS];
    u32 first_row = blockIdx.y * TILE_ROWS;
    if (!find_rows(args, first_row, rows)) {
        return;
    }
    Tile<ALONG_K> tile;
    tile.x_lines = lines_of_x(args);
    tile.w_lines = lines_of_w<ALONG_K>(args);
    tile.rows = rows;
    tile.first_col = blockIdx.x * TILE_COLS;
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
            end_block(args, out, first_row, tile.first_col, rows, k - begin < DEPTH, chains);
        }
        __syncthreads();
    }
}

KERNEL_ON(TILE_THREADS, TILE_BLOCKS) product_tile_k(Product args) {
    tile<true>(args);
}

KERNEL_ON(TILE_THREADS, TILE_BLOCKS) product_tile_j(Product args) {
    tile<false>(args);
}

// ---- Parts --------------------------------------------------------------------------------------------------------

KERNEL(ELEMENT_THREADS) combine(Combine args) {
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
