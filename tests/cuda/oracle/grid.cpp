// Runs grids: each block's threads on fibers from barrier to barrier, in shuffled order.
#include "grid.hpp"

#include <cstddef>
#include <cstring>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "fiber.hpp"
#include "shared_memory.hpp"

namespace oracle {

Size threadIdx, blockIdx, blockDim, gridDim;

namespace {

struct Site {
    const char *file;
    int line;
};

// A thread at a barrier, with the fiber that holds its stack.
struct Waiting {
    unsigned thread;
    Fiber *fiber;
    Site site;
};

// SplitMix64: small, and the same everywhere.
class Shuffle {
  public:
    explicit Shuffle(uint64_t seed) : state(seed) {}

    template <typename T> void operator()(std::vector<T> &values) {
        for (size_t left = values.size(); left > 1; left--)
            std::swap(values[left - 1], values[next() % left]);
    }

  private:
    uint64_t next() {
        uint64_t mixed = state += 0x9e3779b97f4a7c15;
        mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9;
        mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
        return mixed ^ mixed >> 31;
    }

    uint64_t state;
};

// The grid that runs now.
struct Running {
    Body body;
    const void *arguments;
    std::vector<unsigned> threads; // of the block, in the order in which they begin
    size_t begun;
    std::vector<Waiting> waiting;
    Fiber *fiber; // the one that runs, and whose thread it runs
    unsigned thread;
};

Running running;
std::vector<std::unique_ptr<Fiber>> fibers;

void become(unsigned thread) {
    running.thread = thread;
    threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y)};
}

// What a fiber does: threads that never wait follow each other without a switch.
void run_threads() {
    for (;;) {
        while (running.begun < running.threads.size()) {
            become(running.threads[running.begun++]);
            running.body(running.arguments);
        }
        running.fiber->leave();
    }
}

void enter(Fiber &fiber) {
    running.fiber = &fiber;
    fiber.enter();
}

std::string place(const Site &site) {
    const char *name = std::strrchr(site.file, '/');
    return std::string(name ? name + 1 : site.file) + ":" + std::to_string(site.line);
}

// Either every thread that was alive waits, all at one line, or none does.
std::string complaint(size_t alive) {
    if (running.waiting.empty()) return {};
    const std::string of_block = " in block (" + std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", " +
                                 std::to_string(blockIdx.z) + ")";
    const Waiting &first = running.waiting.front();
    if (running.waiting.size() != alive) {
        return "barrier divergence" + of_block + ": " + std::to_string(running.waiting.size()) + " of " +
               std::to_string(alive) + " threads wait at " + place(first.site) + ", the others ended";
    }
    for (const Waiting &waiting : running.waiting) {
        if (waiting.site.line == first.site.line && std::strcmp(waiting.site.file, first.site.file) == 0) continue;
        return "barrier divergence" + of_block + ": thread " + std::to_string(first.thread) + " waits at " +
               place(first.site) + ", thread " + std::to_string(waiting.thread) + " at " + place(waiting.site);
    }
    return {};
}

std::string run_block(Shuffle &shuffle) {
    fill_shared_memory(FRESH);
    shuffle(running.threads);
    running.begun = 0;
    running.waiting.clear();
    size_t alive = running.threads.size();
    while (running.begun < alive) {
        // Each waiting thread keeps a fiber; the next one is free.
        if (fibers.size() == running.waiting.size()) fibers.push_back(std::make_unique<Fiber>(run_threads));
        enter(*fibers[running.waiting.size()]);
    }
    std::vector<Waiting> resumed;
    for (;;) {
        std::string wrong = complaint(alive);
        if (!wrong.empty() || running.waiting.empty()) return wrong;
        alive = running.waiting.size();
        resumed.clear();
        resumed.swap(running.waiting);
        shuffle(resumed);
        for (const Waiting &thread : resumed) {
            become(thread.thread);
            enter(*thread.fiber);
        }
    }
}

} // namespace

void barrier(const char *file, int line) {
    running.waiting.push_back({running.thread, running.fiber, {file, line}});
    running.fiber->leave();
}

std::string run_grid(Size grid, Size block, Body body, const void *arguments, uint64_t seed) {
    Shuffle shuffle(seed);
    gridDim = grid;
    blockDim = block;
    running.body = body;
    running.arguments = arguments;
    running.threads.resize(block.count());
    std::iota(running.threads.begin(), running.threads.end(), 0);
    std::vector<uint64_t> blocks(grid.count());
    std::iota(blocks.begin(), blocks.end(), 0);
    shuffle(blocks);
    for (uint64_t number : blocks) {
        const uint64_t plane = static_cast<uint64_t>(grid.x) * grid.y;
        blockIdx = {static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number % plane / grid.x),
                    static_cast<unsigned>(number / plane)};
        std::string wrong = run_block(shuffle);
        if (wrong.empty()) continue;
        // Threads that still wait never go on.
        for (auto &fiber : fibers)
            fiber->restart();
        return wrong;
    }
    return {};
}

} // namespace oracle
