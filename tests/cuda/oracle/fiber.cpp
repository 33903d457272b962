// Switches between stacks: by hand on x86-64, where thousands of them are a few microseconds, and by ucontext
// elsewhere.
#include "fiber.hpp"

#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace oracle {

namespace {

// Frames grow several times larger with redzones.
constexpr size_t STACK = 256 * 1024;
constexpr size_t GUARD = 64 * 1024;

// The main stack while a fiber runs, and the fiber that is about to begin.
void *main_place = nullptr;
const void *main_stack = nullptr;
size_t main_bytes = 0;
Fiber *beginning = nullptr;

#if defined(__SANITIZE_ADDRESS__)
void start_switch(void **fake_stack, const void *stack, size_t bytes) {
    __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
}
void finish_switch(void *fake_stack, const void **stack, size_t *bytes) {
    __sanitizer_finish_switch_fiber(fake_stack, stack, bytes);
}
void clean(const char *stack) { ASAN_UNPOISON_MEMORY_REGION(stack, STACK); }
#else
void start_switch(void **, const void *, size_t) {}
void finish_switch(void *, const void **, size_t *) {}
void clean(const char *) {}
#endif

} // namespace

#if defined(__x86_64__)

// Keeps the callee-saved registers on the stack that is left, and takes up those of the other.
extern "C" void oracle_switch(void **left, void *taken);
asm(R"(
    .text
    .hidden oracle_switch
    .globl oracle_switch
    .type oracle_switch, @function
oracle_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size oracle_switch, .-oracle_switch
)");

namespace {

void *prepare(char *stack, void (*begin)()) {
    constexpr int SAVED = 6;
    // A function begins with the stack 8 off a multiple of 16, as a call leaves it.
    void **top = reinterpret_cast<void **>(stack + STACK) - 2;
    *top = reinterpret_cast<void *>(begin);
    return top - SAVED;
}

void swap(void **left, void *taken) { oracle_switch(left, taken); }

} // namespace

#else

namespace {

void *prepare(char *stack, void (*begin)()) {
    auto *context = reinterpret_cast<ucontext_t *>(stack);
    getcontext(context);
    context->uc_stack.ss_sp = stack + sizeof(ucontext_t);
    context->uc_stack.ss_size = STACK - sizeof(ucontext_t);
    context->uc_link = nullptr;
    makecontext(context, begin, 0);
    return context;
}

void swap(void **left, void *taken) {
    ucontext_t here;
    *left = &here;
    swapcontext(&here, static_cast<ucontext_t *>(taken));
}

} // namespace

#endif

Fiber::Fiber(void (*loop)()) : loop(loop) {
    void *pages =
        mmap(nullptr, GUARD + STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    // An overrun of a stack meets the guard.
    if (pages == MAP_FAILED || mprotect(pages, GUARD, PROT_NONE) != 0) {
        std::perror("oracle: a fiber's stack");
        std::abort();
    }
    memory = static_cast<char *>(pages);
    stack = memory + GUARD;
    restart();
}

Fiber::~Fiber() {
    clean(stack);
    munmap(memory, GUARD + STACK);
}

void Fiber::restart() {
    clean(stack);
    fake_stack = nullptr;
    place = prepare(stack, begin);
}

void Fiber::begin() {
    finish_switch(nullptr, &main_stack, &main_bytes);
    beginning->loop();
    std::abort();
}

void Fiber::enter() {
    beginning = this;
    void *fake = nullptr;
    start_switch(&fake, stack, STACK);
    swap(&main_place, place);
    finish_switch(fake, nullptr, nullptr);
}

void Fiber::leave() {
    start_switch(&fake_stack, main_stack, main_bytes);
    swap(&place, main_place);
    finish_switch(fake_stack, &main_stack, &main_bytes);
}

} // namespace oracle
