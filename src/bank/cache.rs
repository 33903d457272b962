//! The adapters that a bank has read, as far as a budget of bytes goes; the least recently used one goes first.

use std::hash::RandomState;
use std::sync::Arc;

use lru::LruCache;

use super::index::Vectors;
use crate::adapter::Adapter;

/// What a cached adapter takes beside its vectors: the struct, the counts, the list's node.
const OVERHEAD: usize = size_of::<Adapter>() + 128;

/// Which file, and what lies where in it: whether a name has another adapter by now.
pub type Version = (u32, Vectors);

/// Adapters by their number in the index.
#[derive(Debug)]
pub struct Cache {
    adapters: LruCache<u32, Cached, RandomState>,
    budget: usize,
    bytes: usize,
    pub hits: u64,
    pub misses: u64,
}

#[derive(Debug)]
struct Cached {
    adapter: Arc<Adapter>,
    version: Version,
}

impl Cache {
    pub fn new(budget: usize) -> Self {
        Self { adapters: empty(), budget, bytes: 0, hits: 0, misses: 0 }
    }

    pub fn len(&self) -> usize {
        self.adapters.len()
    }

    /// Bytes that the cached adapters take. Those that somebody still uses live on when they go from here.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The adapter of this version, if it is there.
    pub fn get(&mut self, number: u32, version: Version) -> Option<Arc<Adapter>> {
        let found = self.adapters.get(&number).filter(|cached| cached.version == version);
        let found = found.map(|cached| cached.adapter.clone());
        *(if found.is_some() { &mut self.hits } else { &mut self.misses }) += 1;
        found
    }

    /// Keeps an adapter. Returns those that go for it, to be dropped when nobody waits.
    pub fn put(&mut self, number: u32, version: Version, adapter: Arc<Adapter>) -> Vec<Arc<Adapter>> {
        if cost(&adapter) > self.budget {
            return Vec::new();
        }
        self.bytes += cost(&adapter);
        let mut goes = self.adapters.put(number, Cached { adapter, version });
        let mut gone = Vec::new();
        loop {
            if let Some(cached) = goes {
                self.bytes -= cost(&cached.adapter);
                gone.push(cached.adapter);
            }
            if self.bytes <= self.budget {
                return gone;
            }
            goes = self.adapters.pop_lru().map(|(_, cached)| cached);
        }
    }

    /// Gives each adapter another number. Returns those that have none, to be dropped when nobody waits.
    pub fn renumber(&mut self, numbers: &[Option<u32>]) -> Vec<Arc<Adapter>> {
        let (mut old, mut gone) = (std::mem::replace(&mut self.adapters, empty()), Vec::new());
        while let Some((number, cached)) = old.pop_lru() {
            match numbers.get(number as usize).copied().flatten() {
                Some(number) => {
                    self.adapters.put(number, cached);
                }
                None => {
                    self.bytes -= cost(&cached.adapter);
                    gone.push(cached.adapter);
                }
            }
        }
        gone
    }

    /// Forgets everything, as when the numbers change.
    pub fn clear(&mut self) {
        self.adapters.clear();
        self.bytes = 0;
    }
}

fn empty() -> LruCache<u32, Cached, RandomState> {
    LruCache::unbounded_with_hasher(RandomState::new())
}

fn cost(adapter: &Adapter) -> usize {
    adapter.bytes() + OVERHEAD
}
