//! Tests of what only this room sees; whole checkpoints are in tests/checkpoints.rs.

mod combine;

use std::sync::Arc;

use super::*;
use crate::config::Method;
use crate::error::Code;
use crate::memory::Buffer;
use crate::model::Layer;
use crate::projection::Size;
use crate::tensor::Device;

fn layer() -> Layer {
    Layer::whole("q", 4, 3)
}

fn store(rank: usize) -> Arc<Store> {
    let size = Size { method: Method::Pvera, rank, in_max: 4, out_max: 3 };
    Arc::new(Store::from_key(&Allocator::default(), 1, size, Dtype::F32).unwrap())
}

fn apart(lambda_b: &[f32; 3], lambda_d: &[f32; 4]) -> Apart {
    Apart {
        lambda_b: lambda_b.as_ptr(),
        lambda_d: lambda_d.as_ptr(),
        bias: std::ptr::null(),
        identity: None,
        device: Device::Host,
    }
}

#[test]
fn vectors_that_lie_apart_are_read_in_place_and_copied_whole() {
    let (lambda_b, lambda_d) = ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]);
    let config = Config { rank: 2, ..Config::default() };
    // SAFETY: the vectors outlive the adapter.
    let mut own = unsafe { Adapter::standalone(layer(), &config, store(2), &apart(&lambda_b, &lambda_d)) }.unwrap();
    assert_eq!(own.vectors(0).unwrap().lambda_b.as_ptr(), lambda_b.as_ptr());
    assert_eq!(own.parameters_mut().unwrap_err().code(), Code::State, "they are const, and the caller's to write");
    let allocator = Allocator::default();
    let mut memory = [0f32; 7];
    // SAFETY: `memory` outlives the copy.
    let lent = unsafe { own.trainable_in(memory.as_mut_ptr(), 7) }.unwrap();
    for copy in [own.frozen(&allocator).unwrap(), own.trainable(&allocator).unwrap(), lent] {
        let vectors = copy.vectors(0).unwrap();
        assert_eq!((&*vectors.lambda_b, &*vectors.lambda_d), (&lambda_b[..], &lambda_d[..]));
        assert_eq!(copy.parameters().all(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    }
    assert!(own.checkpoint().is_ok());
}

#[test]
fn a_standalone_layer_is_checked() {
    let (lambda_b, lambda_d) = ([0.0; 3], [0.0; 4]);
    let config = Config { rank: 2, ..Config::default() };
    // SAFETY: refused before any access.
    let code = |layer, config: &Config, vectors: &Apart| unsafe {
        Adapter::standalone(layer, config, store(2), vectors).unwrap_err().code()
    };
    let good = apart(&lambda_b, &lambda_d);
    assert_eq!(code(layer(), &config, &Apart { lambda_b: std::ptr::null(), ..good }), Code::Null);
    assert_eq!(code(layer(), &config, &Apart { bias: lambda_b.as_ptr(), ..good }), Code::State);
    assert_eq!(code(layer(), &Config { rank: 3, ..Config::default() }, &good), Code::Projection);
    assert_eq!(code(Layer { in_total: 5, ..layer() }, &config, &good), Code::Projection);
    assert_eq!(code(layer(), &Config { d_initial: 1e39, ..config.clone() }, &good), Code::Config);
}

#[test]
fn parameters_are_one_piece_with_a_span_for_each_vector() {
    let mut parameters = Parameters::from(Buffer::copied(&Allocator::default(), &[1.0, 2.0, 3.0]).unwrap());
    parameters.get_mut(&Span { start: 1, count: 2 }).fill(9.0);
    assert_eq!(parameters.get(&Span { start: 0, count: 2 }), [1.0, 9.0]);
    assert_eq!((parameters.len(), parameters.is_empty(), parameters.is_borrowed()), (3, false, false));
}

#[test]
fn element_types_are_dlpacks() {
    for (code, bits) in [(0, 8), (1, 64), (2, 16), (2, 32), (4, 16), (5, 64), (6, 8)] {
        assert_eq!(ElementType::from_dlpack(code, bits).unwrap().dlpack(), Some((code, bits)));
    }
    assert_eq!(ElementType::from_dlpack(2, 8), None);
    assert_eq!(ElementType(safetensors::Dtype::F4).dlpack(), None);
    let odd = Tensor::copied("x", ElementType(safetensors::Dtype::F4), &[3], &[0]).unwrap_err();
    assert_eq!(odd.message(), "tensor 'x' of shape [3] in F4 is given 1 bytes; wanted 12 bits");
}
