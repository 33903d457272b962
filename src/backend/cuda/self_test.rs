//! Known answers: before a device is used, its kernels are held to the CPU's bits on a small network.
