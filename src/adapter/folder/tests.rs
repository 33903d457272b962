//! Tests of replacing folders.
