//! Tests of the configuration room.

mod fields;
mod json;
mod patterns;
mod targeting;
