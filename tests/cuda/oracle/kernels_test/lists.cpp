// put and resolve.
#include "cases.hpp"
#include "terms.hpp"

static void one_put(Random &random, size_t count) {
    begin_case("put of " + std::to_string(count));
    List<u32> to;
    for (size_t word = 0; word < count + 3; word++)
        to.host.push_back(static_cast<u32>(random.word()));
    Put put{to.upload() + 1, static_cast<u32>(count), 0, {}};
    for (size_t word = 0; word < PUT_WORDS; word++)
        put.words[word] = static_cast<u32>(random.word());
    Device::launch("put", 1, 1, 1, LIST_THREADS, put);
    for (size_t word = 0; word < count; word++)
        to.host[1 + word] = put.words[word];
    to.compare("to");
}

static void one_resolve(Random &random, size_t rows, size_t slots, bool bad) {
    begin_case("resolve " + std::to_string(rows) + " rows, " + std::to_string(slots) + " slots" +
               (bad ? ", some of them bad" : ""));
    List<i32> slot, term_of_slot, term;
    Faults faults;
    for (size_t place = 0; place < slots; place++)
        term_of_slot.host.push_back(static_cast<i32>(random.below(100)) - 1);
    // A slot that no adapter has now.
    if (bad && random.chance(2)) term_of_slot.host[random.below(slots)] = NO_ADAPTER;
    for (size_t row = 0; row < rows; row++) {
        slot.host.push_back(static_cast<i32>(random.below(slots + 1)) - 1);
        if (bad && random.chance(5))
            slot.host.back() = random.of<i32>({-2, static_cast<i32>(slots), INT32_MIN, INT32_MAX});
    }
    term.host.assign(rows, 0x7ff57ff5);
    const Resolve resolve{slot.upload(),   term_of_slot.upload(),  term.upload(),
                          faults.upload(), static_cast<u32>(rows), static_cast<u32>(slots)};
    Device::launch("resolve", divided(rows, LIST_THREADS), 1, 1, LIST_THREADS, resolve);
    for (size_t row = 0; row < rows; row++) {
        const i32 own = slot.host[row];
        const bool names_one = own >= 0 && static_cast<size_t>(own) < slots;
        const i32 named = names_one ? term_of_slot.host[static_cast<size_t>(own)] : own == -1 ? -1 : NO_ADAPTER;
        term.host[row] = named == NO_ADAPTER ? -1 : named;
        if (named == NO_ADAPTER) faults.expect(FAULT_SLOT, row, static_cast<u32>(own), 0.0f);
    }
    term.compare("term");
    faults.compare();
}

void test_put() {
    Random random(1);
    for (size_t count : {0, 1, 2, 255, 256, 257, 511, 959, 960})
        one_put(random, count);
}

void test_resolve() {
    Random random(13);
    for (size_t rows : {1, 255, 256, 257, 512, 513}) {
        for (size_t slots : {1, 7}) {
            for (bool bad : {false, true, true, true})
                one_resolve(random, rows, slots, bad);
        }
    }
}
