//! A lock for work out of which the host's callbacks are called: a callback that would wait for its own thread is refused.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
pub struct Turns<T> {
    value: Mutex<T>,
    /// The thread whose turn it is; 0 for none.
    holder: AtomicUsize,
}

/// A thread's turn, until it is dropped.
pub struct Turn<'t, T> {
    value: MutexGuard<'t, T>,
    holder: &'t AtomicUsize,
}

thread_local! {
    /// Its address is the thread's name. (A handle of std's would keep the library from being unloaded.)
    static HERE: u8 = const { 0 };
}

impl<T> Turns<T> {
    /// Waits for other threads; None where this very thread has its turn already.
    pub fn take(&self) -> Option<Turn<'_, T>> {
        let here = HERE.with(|place| std::ptr::from_ref(place).addr());
        // Only this thread writes this value, so that no order is needed to read it.
        if self.holder.load(Ordering::Relaxed) == here {
            return None;
        }
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        self.holder.store(here, Ordering::Relaxed);
        Some(Turn { value, holder: &self.holder })
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        self.holder.store(0, Ordering::Relaxed);
    }
}

impl<T> Deref for Turn<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Turn<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}
