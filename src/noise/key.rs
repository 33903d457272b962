//! What noise is keyed by: stable hashes of names, the 256-bit ChaCha8 key, and the stream of words behind it.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::NOISE_VERSION;

/// Words of one ChaCha block.
pub(super) const BLOCK: usize = 16;
/// Words that rand_chacha makes at a time: four blocks.
pub(super) const BATCH: usize = 4 * BLOCK;

/// What a stream of words is for, so that a dropout mask never shares words with the normals of its layer.
#[derive(Clone, Copy)]
pub(super) enum Domain {
    Eps = 1,
    Dropout = 2,
}

/// The 256 bits of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// Four little-endian u64: seed ‖ layer hash ‖ adapter identity ‖ domain + version·2³².
    pub(super) fn new(seed: u64, layer_hash: u64, adapter_identity: u64, domain: Domain) -> Self {
        let domain_and_version = domain as u64 | u64::from(NOISE_VERSION) << 32;
        let mut bytes = [0; 32];
        let fields = [seed, layer_hash, adapter_identity, domain_and_version];
        for (eight, field) in bytes.chunks_exact_mut(8).zip(fields) {
            eight.copy_from_slice(&field.to_le_bytes());
        }
        Self(bytes)
    }

    /// The words of (identity, sample) from block `first / 16` on.
    pub(super) fn words(&self, identity: u64, sample: u32, first: usize) -> Words {
        let counter = u64::from(sample) << 32 | u64::from((first / BLOCK) as u32);
        let mut generator = ChaCha8Rng::from_seed(self.0);
        generator.set_stream(identity);
        generator.set_word_pos(u128::from(counter) * BLOCK as u128);
        Words(generator)
    }
}

/// Consecutive ChaCha words, four blocks at a time.
pub(super) struct Words(ChaCha8Rng);

impl Words {
    pub(super) fn next_batch(&mut self) -> [u32; BATCH] {
        let mut words = [0; BATCH];
        self.0.fill_bytes(bytemuck::bytes_of_mut(&mut words));
        words.map(u32::from_le)
    }
}

/// The number that stands for a layer in a noise key: a hash of its name that never changes.
///
/// FNV-1a (64 bits) over the UTF-8 bytes, xor the ASCII bytes `layer` as a little-endian number, then SplitMix64's
/// finaliser. Not for keeping out an attacker: names can be made to collide on purpose.
pub fn layer_hash(name: &str) -> u64 {
    finalise(fnv1a(name.as_bytes()) ^ u64::from_le_bytes(*b"layer\0\0\0"))
}

/// The default identity of an adapter in a noise key: as [`layer_hash`], with the ASCII bytes `adapter` instead.
pub fn adapter_identity(name: &str) -> u64 {
    finalise(fnv1a(name.as_bytes()) ^ u64::from_le_bytes(*b"adapter\0"))
}

/// Fowler, Noll and Vo's hash, variant 1a; offset and prime from the authors' page (isthe.com/chongo/tech/comp/fnv).
fn fnv1a(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.iter().fold(OFFSET, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// The output function of SplitMix64 (Steele, Lea and Flood 2014, variant 13 of Stafford's mixers).
fn finalise(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}
