//! Stores of equal values are kept once: a second checkpoint that carries the same projections shares the first one's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Store;

/// The stores that somebody still uses, by digest. Equality is decided by the values, never by the digest alone.
#[derive(Debug, Default)]
pub struct Interned {
    stores: Mutex<HashMap<u64, Vec<Weak<Store>>>>,
}

impl Interned {
    /// The store that stands for these values: an older equal one, or this one. A mapped store is never handed to a caller
    /// who asked for a copy: that one does not know that a file must stay whole.
    pub fn share(&self, store: Arc<Store>) -> Arc<Store> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.retain(|_, same| {
            same.retain(|weak| weak.strong_count() > 0);
            !same.is_empty()
        });
        let same = stores.entry(store.digest()).or_default();
        if let Some(known) = same
            .iter()
            .filter_map(Weak::upgrade)
            .find(|known| (store.is_mapped() || !known.is_mapped()) && known.same_values(&store))
        {
            return known;
        }
        same.push(Arc::downgrade(&store));
        store
    }
}
