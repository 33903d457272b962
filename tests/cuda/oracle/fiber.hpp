// A fiber: a stack of its own, entered from the main stack and left to it. AddressSanitizer is told of every switch.
#pragma once

#include <cstddef>

namespace oracle {

class Fiber {
  public:
    // `loop` never returns; it leaves instead.
    explicit Fiber(void (*loop)());
    Fiber(const Fiber &) = delete;
    Fiber &operator=(const Fiber &) = delete;
    ~Fiber();

    // From the main stack: goes on where the fiber left, or at the beginning.
    void enter();
    // From the fiber: goes on where it was entered.
    void leave();
    // Forgets where the fiber left, so that it begins anew.
    void restart();

  private:
    static void begin();

    void (*loop)();
    char *memory;
    char *stack;
    void *place = nullptr;
    void *fake_stack = nullptr;
};

} // namespace oracle
