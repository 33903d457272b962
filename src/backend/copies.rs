//! Copies that a backend keeps, on its device, of host memory that never changes: a store's A and B, an adapter's vectors.

/// The copies of one piece of memory; they go when it goes.
#[derive(Debug, Default)]
pub struct Copies {
    #[cfg(feature = "cuda")]
    on_cuda: super::cuda::Residents,
}

/// A piece of host memory with its copies.
#[derive(Clone, Copy, Debug)]
pub struct Original<'a> {
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "only CUDA keeps copies"))]
    copies: &'a Copies,
    bytes: &'a [u8],
}

impl Copies {
    pub fn of<'a>(&'a self, bytes: &'a [u8]) -> Original<'a> {
        Original { copies: self, bytes }
    }
}

impl<'a> Original<'a> {
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    #[cfg(feature = "cuda")]
    pub(super) fn on_cuda(&self) -> &'a super::cuda::Residents {
        &self.copies.on_cuda
    }
}
