//! The layout of every struct of the ABI on machines of 64 bits, held at compile time. `tests/c/test_abi.c` holds C's side to the same
//! numbers, and a test here holds the two lists to each other.
#![cfg(target_pointer_width = "64")]

use std::mem::offset_of;

use super::adapter::{pvera_adapter_options, pvera_parameter_range};
use super::bank::{pvera_bank_options, pvera_bank_usage};
use super::bytes::pvera_bytes;
use super::compute::{pvera_active, pvera_noise, pvera_rows};
use super::context::{pvera_allocator, pvera_callbacks, pvera_context_options};
use super::interchange::{pvera_authors_options, pvera_files_options, pvera_gguf_name, pvera_gguf_options};
use super::linear::pvera_linear_vectors;
use super::matrix::{pvera_device, pvera_dtype, pvera_matrix, pvera_matrix_mut};
use super::model::{pvera_layer, pvera_model_options};
use super::optimizer::pvera_adamw;
use super::outline::pvera_outline_info;
use super::store::pvera_store_options;
use super::tensor::pvera_tensor;
use super::training::{pvera_gradients, pvera_slot_gradients};
use super::uncertainty::{pvera_bin, pvera_stopping};

macro_rules! layouts {
    ($($name:ident: $size:literal { $($field:ident: $at:literal),* })+) => {
        $(const _: () = {
            assert!(size_of::<$name>() == $size, concat!("the size of ", stringify!($name)));
            $(assert!(offset_of!($name, $field) == $at, concat!(stringify!($name), ".", stringify!($field)));)*
            // A field that the list does not have does not compile.
            #[allow(dead_code, reason = "for its pattern alone")]
            fn all_fields($name { $($field: _),* }: $name) {}
        };)+

        #[cfg(test)]
        const LAYOUTS: &[(&str, usize, &[(&str, usize)])] =
            &[$((stringify!($name), $size, &[$((stringify!($field), $at)),*])),+];
    };
}

layouts! {
    pvera_bytes: 16 { data: 0, size: 8 }
    pvera_dtype: 4 { code: 0, bits: 1, lanes: 2 }
    pvera_device: 8 { r#type: 0, id: 4 }
    pvera_matrix: 48 { data: 0, rows: 8, cols: 16, row_stride: 24, dtype: 32, device: 36 }
    pvera_matrix_mut: 48 { data: 0, rows: 8, cols: 16, row_stride: 24, dtype: 32, device: 36 }
    pvera_allocator: 24 { allocate: 0, release: 8, user: 16 }
    pvera_context_options: 80 {
        struct_size: 0, backend: 8, threads: 12, parallel_for: 16, parallel_for_user: 24, allocator: 32, device: 56,
        stream: 64, cpu_features_off: 72, products: 76
    }
    pvera_callbacks: 24 { warning: 0, progress: 8, user: 16 }
    pvera_store_options: 96 {
        struct_size: 0, rank: 8, in_max: 16, out_max: 24, base_dtype: 32, allocator: 40, grid: 64, reserved: 68,
        callbacks: 72
    }
    pvera_model_options: 56 { struct_size: 0, allocator: 8, callbacks: 32 }
    pvera_layer: 168 {
        struct_size: 0, name: 8, in_features: 16, out_features: 24, in_offset: 32, out_offset: 40, in_total: 48,
        out_total: 56, weight: 64, weight_layout: 112, output_head: 116, bias: 120
    }
    pvera_adapter_options: 40 {
        struct_size: 0, in_max: 8, out_max: 16, base_dtype: 24, ignore_undeclared: 28, map_file: 29, identity: 32
    }
    pvera_bank_options: 48 {
        struct_size: 0, access: 8, ignore_undeclared: 12, cache_bytes: 16, in_max: 24, out_max: 32, repair: 40,
        reserved: 44
    }
    pvera_bank_usage: 88 {
        struct_size: 0, adapters: 8, damaged: 16, file_bytes: 24, unused_bytes: 32, index_bytes: 40, cached: 48,
        cached_bytes: 56, hits: 64, misses: 72, families: 80
    }
    pvera_outline_info: 64 {
        struct_size: 0, modules: 8, adapters: 16, tensors: 24, in_max: 32, out_max: 40, holds_projections: 48,
        base_dtype: 52, grid: 56, reserved: 60
    }
    pvera_parameter_range: 48 {
        lambda_b: 0, lambda_b_count: 8, lambda_d: 16, lambda_d_count: 24, bias: 32, bias_count: 40
    }
    pvera_tensor: 56 { name: 0, name_size: 8, dtype: 16, dimensions: 24, shape: 32, data: 40, size: 48 }
    pvera_linear_vectors: 48 { struct_size: 0, lambda_b: 8, lambda_d: 16, bias: 24, identity: 32, device: 40 }
    pvera_active: 8 { slot: 0, scale: 4 }
    pvera_rows: 72 {
        struct_size: 0, slot: 8, active: 16, active_count: 24, identity: 32, identity_base: 40, sample: 48,
        sample_base: 56, reserved: 60, device: 64
    }
    pvera_noise: 128 { struct_size: 0, mode: 8, antithetic: 12, seed: 16, seed_at: 24, eps: 32, dropout_mask: 80 }
    pvera_slot_gradients: 32 { slot: 0, lambda_b: 8, lambda_d: 16, bias: 24 }
    pvera_gradients: 168 {
        struct_size: 0, overwrite: 8, kl_reduction: 12, slots: 16, slot_count: 24, kl_weight: 32, kl_value: 40, dmu:
        48, dlogvar: 96, variance: 144, variance_count: 152, variance_index: 160
    }
    pvera_stopping: 24 { struct_size: 0, error_level: 8, maximum_passes: 16 }
    pvera_bin: 24 { count: 0, confidence: 8, accuracy: 16 }
    pvera_files_options: 48 { struct_size: 0, flags: 8, dtype: 12, prefix: 16, callbacks: 24 }
    pvera_gguf_name: 16 { module: 0, tensor: 8 }
    pvera_gguf_options: 56 {
        struct_size: 0, architecture: 8, names: 16, name_count: 24, heads: 32, kv_heads: 40, rope: 48
    }
    pvera_authors_options: 40 { struct_size: 0, alpha: 8, head: 16, seed: 24, draws: 32 }
    pvera_adamw: 48 { struct_size: 0, learning_rate: 8, beta1: 16, beta2: 24, epsilon: 32, weight_decay: 40 }
}

#[cfg(test)]
mod tests {
    use super::LAYOUTS;

    #[test]
    fn the_c_side_has_the_same_numbers() {
        let asserts = include_str!("../../tests/c/test_abi.c").lines().map(str::trim);
        let in_c: Vec<&str> = asserts.filter(|line| line.starts_with("SIZE(") || line.starts_with("FIELD(")).collect();
        let mut own = Vec::new();
        for (name, size, fields) in LAYOUTS {
            own.push(format!("SIZE({name}, {size});"));
            let field =
                |(field, at): &(&str, usize)| format!("FIELD({name}, {}, {at});", field.trim_start_matches("r#"));
            own.extend(fields.iter().map(field));
        }
        assert_eq!(in_c, own);
    }
}
