//! A context's own threads, which sleep between calls.

use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::thread::Thread;
use crate::backend::lock::lock;
use crate::error::{Code, Error, Result};

/// Threads that sleep between calls.
#[derive(Debug)]
pub struct Own {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    /// One job at a time; a second caller waits its turn.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    done: Condvar,
}

#[derive(Debug)]
struct State {
    job: Option<Job>,
    next: usize,
    running: usize,
    stop: bool,
}

#[derive(Clone, Copy, Debug)]
struct Job {
    body: *const c_void,
    call: unsafe fn(*const c_void, usize),
    count: usize,
}

// SAFETY: the body is Sync and outlives the job (`run` returns only when no worker holds it).
unsafe impl Send for Job {}

impl Own {
    pub fn start(count: usize) -> Result<Self> {
        let state = State { job: None, next: 0, running: 0, stop: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new(), done: Condvar::new() });
        let mut own = Self { shared, threads: Vec::new(), turn: Mutex::new(()) };
        for _ in 0..count {
            let shared = own.shared.clone();
            let thread = Thread::start(move || shared.work());
            own.threads.push(
                thread
                    .map_err(|error| Error::new(Code::Memory, format!("could not start a worker thread: {error}")))?,
            );
        }
        Ok(own)
    }

    /// Runs `body(index)` for each index below `count`, on the team and the calling thread.
    pub fn run<F: Fn(usize) + Sync>(&self, count: usize, body: &F) {
        unsafe fn call<F: Fn(usize)>(body: *const c_void, index: usize) {
            // SAFETY: `body` is an F that lives until the job is done.
            unsafe { (*body.cast::<F>())(index) }
        }
        let _turn = lock(&self.turn);
        let job = Job { body: std::ptr::from_ref(body).cast(), call: call::<F>, count };
        let mut state = lock(&self.shared.state);
        (state.job, state.next) = (Some(job), 0);
        self.shared.wake.notify_all();
        state = self.shared.take_tasks(state, job);
        state.job = None;
        while state.running > 0 {
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    fn work(&self) {
        let mut state = lock(&self.state);
        while !state.stop {
            match state.job {
                Some(job) if state.next < job.count => state = self.take_tasks(state, job),
                _ => state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Runs tasks of the job until none is left to start.
    fn take_tasks<'a>(&'a self, mut state: MutexGuard<'a, State>, job: Job) -> MutexGuard<'a, State> {
        while state.next < job.count {
            let index = state.next;
            state.next += 1;
            state.running += 1;
            drop(state);
            // SAFETY: `Own::run` keeps the body alive until `running` is zero again. The body catches panics.
            unsafe { (job.call)(job.body, index) };
            state = lock(&self.state);
            state.running -= 1;
            if state.running == 0 {
                self.done.notify_all();
            }
        }
        state
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        self.shared.wake.notify_all();
        self.threads.clear();
    }
}
