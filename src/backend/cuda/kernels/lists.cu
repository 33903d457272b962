// Small lists on the device: words that the host sends along with a launch, and the terms that slots stand for.

#include "rows.cuh"

KERNEL(LIST_THREADS) put(Put args) {
    for (u32 word = threadIdx.x; word < args.count; word += blockDim.x) {
        args.to[word] = args.words[word];
    }
}

KERNEL(LIST_THREADS) resolve(Resolve args) {
    u64 row = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= args.rows) {
        return;
    }
    i32 slot = args.slot[row];
    i32 term = slot == -1 ? -1 : NO_ADAPTER;
    if (slot >= 0 && (u32)slot < args.slots) {
        term = args.term_of_slot[slot];
    }
    if (term == NO_ADAPTER) {
        report(args.fault, FAULT_SLOT, (u32)row, (u32)slot, 0.0f);
    }
    args.term[row] = term < 0 ? -1 : term;
}
