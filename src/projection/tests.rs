//! Tests of the store.

use std::sync::Arc;

use super::*;
use crate::config::Method;
use crate::error::Code;

fn drawn(key: u64, round_to: Dtype) -> Store {
    Store::from_key(
        &Allocator::default(),
        key,
        Size { method: Method::Pvera, rank: 3, in_max: 7, out_max: 5 },
        round_to,
    )
    .unwrap()
}

#[test]
fn one_stream_gives_a_then_b() {
    let small = drawn(7, Dtype::F32);
    let wide = Store::from_key(
        &Allocator::default(),
        7,
        Size { method: Method::Pvera, rank: 3, in_max: 8, out_max: 5 },
        Dtype::F32,
    )
    .unwrap();
    assert_eq!((small.rank(), small.in_max(), small.out_max()), (3, 7, 5));
    assert_ne!(small.b().weight().at(0, 0), wide.b().weight().at(0, 0), "B's place in the stream depends on in_max");
    assert!(small.same_values(&drawn(7, Dtype::F32)));
    assert!(!small.same_values(&drawn(8, Dtype::F32)));
}

#[test]
fn rounded_values_are_kept_in_sixteen_bits() {
    assert_eq!(drawn(7, Dtype::F32).a().dtype(), Dtype::F32);
    let rounded = drawn(7, Dtype::Bf16);
    assert_eq!(rounded.a().dtype(), Dtype::Bf16);
    assert_eq!(drawn(7, Dtype::F16).b().dtype(), Dtype::F16);
    let exact = drawn(7, Dtype::F32);
    assert_eq!(rounded.a().weight().at(2, 3), Dtype::Bf16.rounded(exact.a().weight().at(2, 3)));
}

#[test]
fn equal_values_meet_whatever_their_storage() {
    let interned = Interned::default();
    let first = interned.share(Arc::new(drawn(1, Dtype::F32)));
    let again = interned.share(Arc::new(drawn(1, Dtype::F32)));
    let other = interned.share(Arc::new(drawn(2, Dtype::F32)));
    assert!(Arc::ptr_eq(&first, &again));
    assert!(!Arc::ptr_eq(&first, &other));
}

#[test]
fn a_mapped_store_is_not_handed_to_who_asked_for_a_copy() {
    let path = std::env::temp_dir().join(format!("pvera-mapped-{}", std::process::id()));
    std::fs::write(&path, [1.0f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat()).unwrap();
    // SAFETY: the file stays as it is until the map is dropped.
    let map = Arc::new(unsafe { memmap2::Mmap::map(&std::fs::File::open(&path).unwrap()) }.unwrap());
    let allocator = Allocator::default();
    let mapped = |start, rows, cols| Frozen::from_map(&allocator, &map, start, Dtype::F32, rows, cols).unwrap();
    let copied = |values: &[f32], rows, cols| Frozen::from_f32(&allocator, values, rows, cols).unwrap();
    let lent = Arc::new(Store::new(mapped(0, 2, 1), mapped(8, 2, 1), Dtype::F32).unwrap());
    let owned = Arc::new(Store::new(copied(&[1.0, 2.0], 2, 1), copied(&[3.0, 4.0], 2, 1), Dtype::F32).unwrap());
    assert!(lent.is_mapped() && !owned.is_mapped() && lent.same_values(&owned));
    let interned = Interned::default();
    assert!(Arc::ptr_eq(&interned.share(lent.clone()), &lent));
    assert!(Arc::ptr_eq(&interned.share(owned.clone()), &owned));
    assert!(Arc::ptr_eq(&interned.share(owned.clone()), &owned), "the owned one is found behind the mapped one");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn bad_sizes_are_errors() {
    let allocator = Allocator::default();
    let code = |rank, in_max, out_max| {
        Store::from_key(&allocator, 0, Size { method: Method::Pvera, rank, in_max, out_max }, Dtype::F32)
            .unwrap_err()
            .code()
    };
    assert_eq!(code(0, 1, 1), Code::Argument);
    assert_eq!(code(usize::MAX, 1, 1), Code::Argument);
    assert_eq!(code(1 << 40, 1 << 40, 1), Code::Shape);
    assert_eq!(code(1 << 30, 1 << 20, 1), Code::Memory);
    let none = Frozen::from_bytes(&allocator, &[], Dtype::F32, 2, 0).unwrap();
    let b = Frozen::from_f32(&allocator, &[1.0; 2], 2, 1).unwrap();
    assert_eq!(Store::new(none, b, Dtype::F32).unwrap_err().code(), Code::Projection, "no columns");
    let a = Frozen::from_f32(&allocator, &[1.0; 6], 3, 2).unwrap();
    let b = Frozen::from_f32(&allocator, &[1.0; 2], 2, 1).unwrap();
    assert_eq!(Store::new(a, b, Dtype::F32).unwrap_err().code(), Code::Projection);
}
