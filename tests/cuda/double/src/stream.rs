//! Streams and events: queues of work that runs only when somebody waits for it.

use crate::clock::Clock;
use crate::codes::{INVALID_HANDLE, Outcome};
use crate::driver::Driver;
use crate::run::block::random;
use crate::work::{Action, Work};
use std::collections::VecDeque;

pub const LEGACY: u64 = 1;
pub const PER_THREAD: u64 = 2;

pub struct Stream {
    pub context: u64,
    /// Never used again, unlike a place in a table.
    pub number: u32,
    /// Ordered with the legacy stream.
    pub blocking: bool,
    /// Made by cuStreamCreate.
    pub made: bool,
    pub destroyed: bool,
    pub enqueued: u64,
    /// What comes before the next operation, the last one included.
    pub clock: Clock,
    pub queue: VecDeque<Work>,
    /// The capture it takes part in.
    pub capture: Option<u64>,
}

pub struct Event {
    pub context: u64,
    pub timing: bool,
    /// What was in the stream when it was recorded, and when that was.
    pub recorded: Option<(Clock, u64)>,
    /// The capture and its nodes, where it was last recorded in one.
    pub captured: Option<(u64, Vec<usize>)>,
}

impl Driver {
    pub fn new_stream(&mut self, context: u64, blocking: bool, made: bool) -> u64 {
        let handle = self.handle();
        self.streams_made += 1;
        let stream = Stream {
            context,
            number: self.streams_made,
            blocking,
            made,
            destroyed: false,
            enqueued: 0,
            clock: Clock::default(),
            queue: VecDeque::new(),
            capture: None,
        };
        self.streams.insert(handle, stream);
        handle
    }

    /// The stream that a caller's handle means, in the current context.
    pub fn stream(&mut self, given: u64) -> Outcome<u64> {
        let context = self.context()?;
        let handle = self.resolve(context, given);
        match self.streams.get(&handle) {
            Some(stream) if !stream.destroyed && stream.context == context => Ok(handle),
            Some(stream) if !stream.destroyed => {
                self.fault(&format!("the stream {given:#x} is of another context than the current one"));
                Err(INVALID_HANDLE)
            }
            _ => {
                self.fault(&format!("{given:#x} is no stream, or one that was destroyed"));
                Err(INVALID_HANDLE)
            }
        }
    }

    fn resolve(&mut self, context: u64, given: u64) -> u64 {
        match given {
            0 | LEGACY => self.contexts[&context].legacy,
            PER_THREAD => {
                let thread = std::thread::current().id();
                if let Some(&handle) = self.contexts[&context].per_thread.get(&thread) {
                    return handle;
                }
                let handle = self.new_stream(context, true, false);
                if let Some(context) = self.contexts.get_mut(&context) {
                    context.per_thread.insert(thread, handle);
                }
                handle
            }
            given => given,
        }
    }

    pub fn is_legacy(&self, stream: u64) -> bool {
        self.streams
            .get(&stream)
            .and_then(|known| self.contexts.get(&known.context))
            .is_some_and(|context| context.legacy == stream)
    }

    /// Puts work into a stream, or into the capture that the stream takes part in.
    pub fn enqueue(&mut self, handle: u64, action: Action) -> Outcome {
        self.refuse_implicit(handle)?;
        if let Some(capture) = self.streams[&handle].capture {
            return self.capture_node(capture, handle, action);
        }
        let (context, blocking) = (self.streams[&handle].context, self.streams[&handle].blocking);
        let legacy = self.contexts[&context].legacy;
        let mut clock = self.streams[&handle].clock.clone();
        clock.join(&self.host_clock);
        if handle == legacy {
            for other in self.streams.values().filter(|other| other.context == context && other.blocking) {
                clock.join(&other.clock);
            }
        } else if blocking {
            clock.join(&self.streams[&legacy].clock);
        }
        if let Some(stream) = self.streams.get_mut(&handle) {
            stream.enqueued += 1;
            stream.queue.push_back(Work { operation: stream.enqueued, clock: clock.clone(), action });
            clock.raise(stream.number, stream.enqueued);
            stream.clock = clock;
        }
        Ok(())
    }

    fn over(&self, clock: &Clock) -> bool {
        clock.iter().all(|(stream, operation)| self.done.get(&stream).copied().unwrap_or(0) >= operation)
    }

    /// Runs work of any streams, in an order that the seed shuffles, until `target` is over.
    pub fn run_until(&mut self, target: &Clock) {
        while !self.over(target) && self.run_one() {}
        self.settle();
    }

    /// Runs the first operation of some stream that may go on; whether there was one.
    pub fn run_one(&mut self) -> bool {
        let mut ready: Vec<(u32, u64)> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.queue.front().is_some_and(|work| self.over(&work.clock)))
            .map(|(&handle, stream)| (stream.number, handle))
            .collect();
        if ready.is_empty() {
            return false;
        }
        ready.sort_unstable();
        let (number, handle) = ready[(random(&mut self.random) % ready.len() as u64) as usize];
        let Some(work) = self.streams.get_mut(&handle).and_then(|stream| stream.queue.pop_front()) else {
            return false;
        };
        let context = self.streams[&handle].context;
        self.done.insert(number, work.operation);
        if let Err(error) = self.execute(handle, context, work) {
            self.break_context(context, error);
        }
        true
    }

    /// A fault ends all that is queued in a context, and every later call in it.
    fn break_context(&mut self, context: u64, error: crate::codes::Code) {
        if let Some(context) = self.contexts.get_mut(&context) {
            context.error = Some(error);
        }
        for stream in self.streams.values_mut().filter(|stream| stream.context == context) {
            stream.queue.clear();
            self.done.insert(stream.number, stream.enqueued);
        }
    }

    /// Forgets streams that were destroyed and are done, and executions that come before all that may run yet.
    fn settle(&mut self) {
        self.streams.retain(|_, stream| !stream.destroyed || !stream.queue.is_empty());
        let queued: Vec<(u32, &Clock)> = self
            .streams
            .values()
            .flat_map(|stream| stream.queue.iter().map(|work| (stream.number, &work.clock)))
            .collect();
        let (host, mut last) = (&self.host_clock, (0, 0));
        self.records.retain(|_, record| {
            if last.0 != record.stream {
                last = (record.stream, host.get(record.stream));
            }
            let known = last.1 >= record.operation;
            let waited_for = |&(number, clock): &(u32, &Clock)| {
                number == record.stream || clock.get(record.stream) >= record.operation
            };
            !known || !queued.iter().all(waited_for)
        });
        if self.arena.shadow.split_epochs().iter().all(|epoch| !self.records.contains_key(epoch)) {
            self.arena.shadow.forget_split();
        }
    }

    /// Waits for `target`: the host knows it to be over afterwards.
    pub fn wait_for(&mut self, target: &Clock) {
        self.run_until(target);
        self.host_clock.join(target);
        self.settle();
    }

    pub fn wait_for_stream(&mut self, handle: u64) {
        if let Some(clock) = self.streams.get(&handle).map(|stream| stream.clock.clone()) {
            self.wait_for(&clock);
        }
    }

    /// Waits for all that is queued in a context.
    pub fn finish_context(&mut self, context: u64) {
        let mut target = Clock::default();
        for stream in self.streams.values().filter(|stream| stream.context == context) {
            target.join(&stream.clock);
            target.raise(stream.number, stream.enqueued);
        }
        self.wait_for(&target);
    }

    /// What a call that waited gives: the context's fault, if it has one.
    pub fn after_waiting(&self, context: u64) -> Outcome {
        self.contexts.get(&context).and_then(|context| context.error).map_or(Ok(()), Err)
    }
}
