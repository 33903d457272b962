//! What comes before what: for each stream, how many of its operations are known to be over.

use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub struct Clock(BTreeMap<u32, u64>);

impl Clock {
    pub fn get(&self, stream: u32) -> u64 {
        self.0.get(&stream).copied().unwrap_or(0)
    }

    pub fn raise(&mut self, stream: u32, operation: u64) {
        let known = self.0.entry(stream).or_insert(0);
        *known = (*known).max(operation);
    }

    pub fn join(&mut self, other: &Clock) {
        for (&stream, &operation) in &other.0 {
            self.raise(stream, operation);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.0.iter().map(|(&stream, &operation)| (stream, operation))
    }
}
