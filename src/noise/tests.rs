//! Tests of the noise: the definition, its statistics, and PyTorch's numbers.

mod definition;
mod parity;
mod sets;
mod statistics;
