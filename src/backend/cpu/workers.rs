//! Where CPU work runs: the caller's thread, workers of the context's own, or the host's parallel-for. No global pool.

use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use super::float_mode::FloatMode;
use super::scratch::{Lent, Scratch, Sizes};
use super::team::Own;
use crate::backend::lock::lock;
use crate::error::{Error, Result};
use crate::memory::{Allocator, Buffer};
use crate::quiet;

/// The host's own parallel-for: calls `run(task, index)` once for each index below `count`, on any threads, and returns when
/// all have returned.
#[derive(Clone, Copy, Debug)]
pub struct ParallelFor {
    pub call: unsafe extern "C" fn(
        user: *mut c_void,
        count: usize,
        run: Option<unsafe extern "C" fn(*mut c_void, usize)>,
        task: *mut c_void,
    ),
    pub user: *mut c_void,
}

// SAFETY: the host promises that its function may be called from any thread that uses the context.
unsafe impl Send for ParallelFor {}
// SAFETY: as above.
unsafe impl Sync for ParallelFor {}

/// Threads and scratch memory of one context.
#[derive(Debug)]
pub struct Workers {
    allocator: Allocator,
    lanes: usize,
    team: Team,
    scratch: Mutex<Vec<Scratch>>,
    /// Empty lists of sessions that ended, for those to come.
    lists: Mutex<Vec<Vec<Scratch>>>,
    idle: Mutex<Vec<Buffer<f32>>>,
}

#[derive(Debug)]
enum Team {
    Caller,
    Own(Own),
    Host(ParallelFor),
}

impl Workers {
    /// `threads` beside the caller's own; with a parallel-for, how many tasks it gets at a time.
    pub fn new(allocator: Allocator, threads: usize, host: Option<ParallelFor>) -> Result<Self> {
        let team = match host {
            Some(host) => Team::Host(host),
            None if threads == 0 => Team::Caller,
            None => Team::Own(Own::start(threads)?),
        };
        Ok(Self {
            allocator,
            lanes: threads + 1,
            team,
            scratch: Mutex::default(),
            lists: Mutex::default(),
            idle: Mutex::default(),
        })
    }

    /// How many tasks run at the same time.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    pub fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// Runs `task(index, scratch)` for each index below `count`; returns the error of the lowest index.
    pub fn run(
        &self,
        count: usize,
        sizes: Sizes,
        task: impl Fn(usize, &mut Scratch) -> Result<()> + Sync,
    ) -> Result<()> {
        self.session(count, sizes)?.run(count, task)
    }

    /// Scratch of these sizes for up to `count` tasks at a time, held until the session ends: what is written after this
    /// cannot fail for want of memory, unless a host's parallel-for runs more tasks at a time than it said.
    pub fn session(&self, count: usize, sizes: Sizes) -> Result<Session<'_>> {
        let lanes = count.min(self.lanes);
        let mut own = lock(&self.lists).pop().unwrap_or_default();
        own.try_reserve_exact(lanes).map_err(|_| Error::out_of_memory())?;
        let mut idle = lock(&self.scratch);
        let from = idle.len().saturating_sub(lanes);
        own.extend(idle.drain(from..));
        drop(idle);
        own.resize_with(lanes, Scratch::default);
        let mut session = Session { workers: self, sizes, scratch: Mutex::new(own) };
        let own = session.scratch.get_mut().unwrap_or_else(PoisonError::into_inner);
        own.iter_mut().try_for_each(|scratch| scratch.reserve(&self.allocator, &sizes))?;
        Ok(session)
    }

    /// Lends `length` f32: the smallest idle buffer that suffices, else the largest one, grown. So what is held idle does
    /// not exceed what was once lent at the same time.
    pub fn lend(&self, length: usize) -> Result<Lent<'_>> {
        let mut idle = lock(&self.idle);
        let fits = (0..idle.len()).filter(|place| idle[*place].len() >= length).min_by_key(|place| idle[*place].len());
        let place = fits.or_else(|| (0..idle.len()).max_by_key(|place| idle[*place].len()));
        let mut buffer = place.map_or_else(Buffer::empty, |place| idle.swap_remove(place));
        drop(idle);
        buffer.reserve(&self.allocator, length)?;
        Ok(Lent { buffer, length, home: &self.idle })
    }

    /// Lends zeros.
    pub fn lend_zeroed(&self, length: usize) -> Result<Lent<'_>> {
        let mut lent = self.lend(length)?;
        lent.fill(0.0);
        Ok(lent)
    }

    /// Bytes of scratch memory held between calls.
    pub fn scratch_bytes(&self) -> usize {
        let idle: usize = lock(&self.idle).iter().map(|buffer| buffer.len() * size_of::<f32>()).sum();
        idle + lock(&self.scratch).iter().map(Scratch::bytes).sum::<usize>()
    }
}

/// Scratch that belongs to one call.
#[derive(Debug)]
pub struct Session<'a> {
    workers: &'a Workers,
    sizes: Sizes,
    scratch: Mutex<Vec<Scratch>>,
}

impl Session<'_> {
    /// As [`Workers::run`], with the session's scratch.
    pub fn run(&self, count: usize, task: impl Fn(usize, &mut Scratch) -> Result<()> + Sync) -> Result<()> {
        let failed: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        let fail = |index: usize, error: Error| {
            let mut first = lock(&failed);
            if first.as_ref().is_none_or(|(earlier, _)| index < *earlier) {
                *first = Some((index, error));
            }
        };
        if count <= 1 || matches!(self.workers.team, Team::Caller) {
            return self.run_here(count, task);
        }
        let body = |index: usize| {
            let _mode = FloatMode::enter();
            let outcome = quiet::catch(|| {
                // A host that runs more tasks at a time than it said gets scratch of its own for them.
                let taken = lock(&self.scratch).pop();
                let mut scratch = taken.unwrap_or_default();
                scratch.reserve(&self.workers.allocator, &self.sizes)?;
                let outcome = task(index, &mut scratch);
                let mut own = lock(&self.scratch);
                if own.try_reserve(1).is_ok() {
                    own.push(scratch);
                }
                outcome
            });
            outcome.unwrap_or_else(|error| fail(index, error));
        };
        match &self.workers.team {
            Team::Caller => {}
            Team::Own(own) => own.run(count, &body),
            Team::Host(host) => run_on_host(host, count, &body),
        }
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), |(_, error)| Err(error))
    }
}

impl Session<'_> {
    /// All tasks on the calling thread, which has the session's one scratch and the library's rounding mode.
    fn run_here(&self, count: usize, task: impl Fn(usize, &mut Scratch) -> Result<()>) -> Result<()> {
        let _mode = FloatMode::enter();
        let mut own = lock(&self.scratch);
        let Some(scratch) = own.last_mut() else { return Ok(()) };
        let mut outcome = Ok(());
        for index in 0..count {
            let this = quiet::catch(|| task(index, scratch));
            outcome = outcome.and(this);
        }
        outcome
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let mut own = std::mem::take(self.scratch.get_mut().unwrap_or_else(PoisonError::into_inner));
        let mut idle = lock(&self.workers.scratch);
        for scratch in own.drain(..) {
            // As many are kept as once worked at the same time; without room for it, one is freed.
            if idle.try_reserve(1).is_ok() {
                idle.push(scratch);
            }
        }
        drop(idle);
        let mut lists = lock(&self.workers.lists);
        if lists.try_reserve(1).is_ok() {
            lists.push(own);
        }
    }
}

fn run_on_host<F: Fn(usize) + Sync>(host: &ParallelFor, count: usize, body: &F) {
    unsafe extern "C" fn call<F: Fn(usize) + Sync>(task: *mut c_void, index: usize) {
        // SAFETY: `task` is the `body` below, which outlives the host's call. The body catches panics.
        unsafe { (*task.cast::<F>())(index) }
    }
    // SAFETY: the host's promise in `ParallelFor`.
    unsafe { (host.call)(host.user, count, Some(call::<F>), std::ptr::from_ref(body).cast_mut().cast()) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::error::Code;
    use crate::fail;

    #[test]
    fn every_task_runs_once_and_the_lowest_error_wins() {
        for threads in [0, 1, 3] {
            let workers = Workers::new(Allocator::default(), threads, None).unwrap();
            for count in [0, 1, 2, 7, 100] {
                let counts: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                let run = |index: usize, _: &mut Scratch| {
                    counts[index].fetch_add(1, Ordering::Relaxed);
                    if index % 5 == 3 {
                        fail!(Argument, "task {index}");
                    }
                    Ok(())
                };
                let outcome = workers.run(count, Sizes::default(), run);
                assert!(
                    counts.iter().all(|seen| seen.load(Ordering::Relaxed) == 1),
                    "{threads} threads, {count} tasks"
                );
                assert_eq!(outcome.is_err(), count > 3);
                if let Err(error) = outcome {
                    assert_eq!(error.message(), "task 3");
                }
            }
        }
    }

    #[test]
    fn a_panic_in_a_worker_is_an_error() {
        let workers = Workers::new(Allocator::default(), 2, None).unwrap();
        let error = workers.run(4, Sizes::default(), |_, _| panic!("deliberate")).unwrap_err();
        assert_eq!(error.code(), Code::Panic);
        assert!(error.message().contains("deliberate"));
        assert!(workers.run(4, Sizes::default(), |_, _| Ok(())).is_ok(), "the team survives");
    }

    #[test]
    fn what_is_kept_idle_is_what_was_lent_at_the_same_time() {
        let workers = Workers::new(Allocator::default(), 0, None).unwrap();
        for length in 1..1000 {
            drop(workers.lend(128 * length).unwrap());
        }
        assert_eq!(workers.scratch_bytes(), 128 * 999 * size_of::<f32>());
        drop((workers.lend(10).unwrap(), workers.lend(20).unwrap()));
        assert_eq!(workers.scratch_bytes(), (128 * 999 + 20) * size_of::<f32>());
        let sizes = Sizes { x: 100, ..Sizes::default() };
        let before = workers.scratch_bytes();
        for _ in 0..5 {
            workers.run(7, sizes, |_, _| Ok(())).unwrap();
        }
        assert_eq!(workers.scratch_bytes() - before, 100 * size_of::<f32>(), "one lane, one scratch");
    }
}
