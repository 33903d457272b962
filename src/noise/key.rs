//! What noise is keyed by: stable hashes of names, and the 256-bit ChaCha8 key.

use super::NOISE_VERSION;

/// Words of one ChaCha block.
pub(super) const BLOCK: usize = 16;

/// What a stream of words is for, so that a dropout mask never shares words with the normals of its layer.
#[derive(Clone, Copy)]
pub(super) enum Domain {
    Eps = 1,
    Dropout = 2,
}

/// The 256 bits of a key, as the cipher's words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key([u32; 8]);

impl Key {
    /// Four u64, low word first: seed ‖ layer hash ‖ adapter identity ‖ domain + version·2³².
    pub(super) fn new(seed: u64, layer_hash: u64, adapter_identity: u64, domain: Domain) -> Self {
        let domain_and_version = domain as u64 | u64::from(NOISE_VERSION) << 32;
        let mut words = [0; 8];
        for (two, field) in words.chunks_exact_mut(2).zip([seed, layer_hash, adapter_identity, domain_and_version]) {
            two.copy_from_slice(&[field as u32, (field >> 32) as u32]);
        }
        Self(words)
    }

    pub(super) fn words(&self) -> &[u32; 8] {
        &self.0
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
