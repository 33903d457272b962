// Kernels that do wrong, each in one way, and two that do right.
#pragma once

struct Target {
    float *data;
    unsigned count;
};

extern "C" {
void barriers_hold(Target target);
void divergence_by_end(Target target);
void divergence_by_line(Target target);
void fresh_shared_memory(Target target);
void missing_barrier(Target target);
void order(Target target);
void device_overrun(Target target);
void shared_overrun(Target target);
void shared_index(Target target);
void misaligned_vector(Target target);
}
