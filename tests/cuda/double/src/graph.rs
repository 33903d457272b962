//! Capture of streams into graphs, and what must not happen meanwhile.

use crate::codes::{
    CAPTURE_IMPLICIT, CAPTURE_INVALIDATED, CAPTURE_ISOLATION, CAPTURE_MERGE, CAPTURE_UNJOINED, CAPTURE_UNMATCHED,
    CAPTURE_UNSUPPORTED, CAPTURE_WRONG_THREAD, CAPTURED_EVENT, ILLEGAL_STATE, INVALID_VALUE, Outcome,
};
use crate::driver::Driver;
use crate::work::Action;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::thread::ThreadId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Global,
    ThreadLocal,
    Relaxed,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub action: Action,
    /// The nodes that come before it.
    pub after: Vec<usize>,
}

pub struct Capture {
    pub context: u64,
    origin: u64,
    mode: Mode,
    thread: ThreadId,
    nodes: Vec<Node>,
    /// The streams that take part, each with the nodes that its next one comes after.
    ends: HashMap<u64, Vec<usize>>,
    /// The code of the call that made it worthless.
    invalid: bool,
}

pub struct Graph {
    pub context: u64,
    pub nodes: Arc<Vec<Node>>,
}

impl Mode {
    fn of(code: i32) -> Outcome<Self> {
        match code {
            0 => Ok(Self::Global),
            1 => Ok(Self::ThreadLocal),
            2 => Ok(Self::Relaxed),
            _ => Err(INVALID_VALUE),
        }
    }
}

thread_local! {
    /// What captures, this thread's and others', do not allow to it.
    static MODE: Cell<Mode> = const { Cell::new(Mode::Global) };
}

/// Sets the mode of this thread, and gives the one before.
pub fn exchange_mode(wanted: i32) -> Outcome<i32> {
    Ok(MODE.replace(Mode::of(wanted)?) as i32)
}

impl Driver {
    pub fn begin_capture(&mut self, stream: u64, mode: i32) -> Outcome {
        let mode = Mode::of(mode)?;
        if self.is_legacy(stream) {
            return Err(CAPTURE_UNSUPPORTED);
        }
        if self.streams[&stream].capture.is_some() {
            return Err(ILLEGAL_STATE);
        }
        let id = self.handle();
        let context = self.streams[&stream].context;
        let capture = Capture {
            context,
            origin: stream,
            mode,
            thread: std::thread::current().id(),
            nodes: Vec::new(),
            ends: HashMap::from([(stream, Vec::new())]),
            invalid: false,
        };
        self.captures.insert(id, capture);
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.capture = Some(id);
        }
        Ok(())
    }

    pub fn end_capture(&mut self, stream: u64) -> Outcome<Graph> {
        let Some(id) = self.streams[&stream].capture else {
            return Err(ILLEGAL_STATE);
        };
        let capture = &self.captures[&id];
        if capture.origin != stream {
            self.invalidate(id);
            return Err(CAPTURE_UNMATCHED);
        }
        if capture.mode != Mode::Relaxed && capture.thread != std::thread::current().id() {
            return Err(CAPTURE_WRONG_THREAD);
        }
        // The ends of joined streams must come before the origin's end.
        let mut reached = vec![false; capture.nodes.len()];
        let mut work = capture.ends[&stream].clone();
        while let Some(node) = work.pop() {
            if !std::mem::replace(&mut reached[node], true) {
                work.extend(&capture.nodes[node].after);
            }
        }
        let joined = capture.ends.values().flatten().all(|&node| reached[node]);
        let invalid = capture.invalid;
        let Some(capture) = self.captures.remove(&id) else {
            return Err(ILLEGAL_STATE);
        };
        for other in capture.ends.keys() {
            if let Some(stream) = self.streams.get_mut(other) {
                stream.capture = None;
            }
        }
        if invalid {
            return Err(CAPTURE_INVALIDATED);
        }
        if !joined {
            self.fault("the capture ends while a stream that it forked into was not joined");
            return Err(CAPTURE_UNJOINED);
        }
        Ok(Graph { context: capture.context, nodes: Arc::new(capture.nodes) })
    }

    pub fn invalidate(&mut self, id: u64) {
        if let Some(capture) = self.captures.get_mut(&id) {
            capture.invalid = true;
        }
    }

    /// 0 none, 1 active, 2 invalidated.
    pub fn capture_status(&self, stream: u64) -> i32 {
        match self.streams.get(&stream).and_then(|stream| stream.capture).and_then(|id| self.captures.get(&id)) {
            None => 0,
            Some(capture) if capture.invalid => 2,
            Some(_) => 1,
        }
    }

    pub fn capture_node(&mut self, id: u64, stream: u64, action: Action) -> Outcome {
        let Some(capture) = self.captures.get_mut(&id) else {
            return Err(CAPTURE_INVALIDATED);
        };
        if capture.invalid {
            return Err(CAPTURE_INVALIDATED);
        }
        let refused = match &action {
            Action::Open { .. } => Some("cuMemAllocAsync: memory of a graph is not what a step may take"),
            Action::Close { .. } => Some("cuMemFreeAsync"),
            Action::FromHost { .. } => Some("a copy from pageable host memory"),
            Action::ToHost { pinned: false, .. } => Some("a copy to pageable host memory"),
            Action::Graph { .. } => Some("the launch of a graph"),
            _ => None,
        };
        if let Some(what) = refused {
            capture.invalid = true;
            self.fault(&format!("during capture: {what}"));
            return Err(CAPTURE_UNSUPPORTED);
        }
        let end = capture.ends.entry(stream).or_default();
        capture.nodes.push(Node { action, after: std::mem::take(end) });
        end.push(capture.nodes.len() - 1);
        Ok(())
    }

    /// The nodes that an event recorded in a capturing stream stands for.
    pub fn capture_end(&self, stream: u64) -> Option<(u64, Vec<usize>)> {
        let id = self.streams.get(&stream)?.capture?;
        let capture = self.captures.get(&id)?;
        Some((id, capture.ends.get(&stream).cloned().unwrap_or_default()))
    }

    /// A stream waits for an event recorded in a capture, and so takes part in it.
    pub fn join_capture(&mut self, stream: u64, id: u64, nodes: &[usize]) -> Outcome {
        let mine = self.streams[&stream].capture;
        if mine.is_some_and(|mine| mine != id) {
            self.invalidate(id);
            mine.into_iter().for_each(|mine| self.invalidate(mine));
            return Err(CAPTURE_MERGE);
        }
        if mine.is_none() && (self.is_legacy(stream) || !self.captures.contains_key(&id)) {
            return Err(if self.is_legacy(stream) { CAPTURE_IMPLICIT } else { CAPTURED_EVENT });
        }
        if let Some(capture) = self.captures.get_mut(&id) {
            if capture.invalid {
                return Err(CAPTURE_INVALIDATED);
            }
            let end = capture.ends.entry(stream).or_default();
            end.extend(nodes);
            end.sort_unstable();
            end.dedup();
        }
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.capture = Some(id);
        }
        Ok(())
    }

    /// A capturing stream may not wait for what was not captured.
    pub fn refuse_uncaptured(&mut self, stream: u64) -> Outcome {
        match self.streams[&stream].capture {
            None => Ok(()),
            Some(id) => {
                self.invalidate(id);
                self.fault("during capture: a wait for an event that was recorded outside of the capture");
                Err(CAPTURE_ISOLATION)
            }
        }
    }

    /// The captures that blocking streams of a stream's context take part in.
    pub fn blocking_captures(&self, stream: u64) -> impl Iterator<Item = u64> + '_ {
        let context = self.streams[&stream].context;
        self.streams
            .values()
            .filter(move |other| other.context == context && other.blocking)
            .filter_map(|other| other.capture)
    }

    /// The legacy stream waits for every blocking stream of its context, which one that captures does not allow.
    pub fn refuse_implicit(&mut self, stream: u64) -> Outcome {
        if !self.is_legacy(stream) {
            return Ok(());
        }
        let hit: Vec<u64> = self.blocking_captures(stream).collect();
        if hit.is_empty() {
            return Ok(());
        }
        hit.into_iter().for_each(|id| self.invalidate(id));
        self.fault("during capture: use of the legacy stream, which would wait for the capturing one");
        Err(CAPTURE_IMPLICIT)
    }

    /// Calls that the driver does not allow to a thread while streams are captured (unless in relaxed mode).
    pub fn refuse_while_capturing(&mut self, what: &str) -> Outcome {
        let (thread, own) = (std::thread::current().id(), MODE.get());
        let hit: Vec<u64> = self
            .captures
            .iter()
            .filter(|(_, capture)| match own {
                Mode::Global => {
                    capture.mode == Mode::Global || (capture.mode == Mode::ThreadLocal && capture.thread == thread)
                }
                Mode::ThreadLocal => capture.mode != Mode::Relaxed && capture.thread == thread,
                Mode::Relaxed => false,
            })
            .map(|(&id, _)| id)
            .collect();
        self.refuse(&hit, what)
    }

    /// Waiting for a stream that is captured is never allowed.
    pub fn refuse_captured(&mut self, stream: u64, what: &str) -> Outcome {
        let hit: Vec<u64> = self.streams.get(&stream).and_then(|stream| stream.capture).into_iter().collect();
        self.refuse(&hit, what)
    }

    pub fn refuse(&mut self, hit: &[u64], what: &str) -> Outcome {
        if hit.is_empty() {
            return Ok(());
        }
        hit.iter().for_each(|&id| self.invalidate(id));
        self.fault(&format!("during capture: {what}"));
        Err(CAPTURE_UNSUPPORTED)
    }

    /// The captures that streams of a context take part in.
    pub fn captures_of(&self, context: u64) -> Vec<u64> {
        self.captures.iter().filter(|(_, capture)| capture.context == context).map(|(&id, _)| id).collect()
    }
}
