//! Contexts, and which one is current to a thread.

use crate::codes::{CONTEXT_IS_DESTROYED, Code, INVALID_CONTEXT, Outcome};
use crate::driver::Driver;
use std::cell::RefCell;
use std::collections::HashMap;
use std::thread::ThreadId;

pub struct Context {
    pub device: u64,
    /// What cuCtxGetId tells: never used again.
    pub id: u64,
    /// Marks the bytes of its memory.
    pub owner: u8,
    pub primary: bool,
    /// How often the primary context was retained; 1 for others.
    pub retained: u64,
    /// The first fault of a kernel: every later call gives it.
    pub error: Option<Code>,
    pub legacy: u64,
    pub per_thread: HashMap<ThreadId, u64>,
}

thread_local! {
    /// The thread's contexts, the current one last; 0 where cuCtxSetCurrent(NULL) put none.
    static STACK: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// The handle on top of the thread's stack, 0 for none.
pub fn current_handle() -> u64 {
    // A thread that is ending may call from destructors that run after this one's.
    STACK.try_with(|stack| stack.borrow().last().copied()).ok().flatten().unwrap_or(0)
}

pub fn set_current(handle: u64) {
    let _ = STACK.try_with(|stack| {
        let mut stack = stack.borrow_mut();
        stack.pop();
        if handle != 0 {
            stack.push(handle);
        }
    });
}

pub fn push_current(handle: u64) {
    let _ = STACK.try_with(|stack| stack.borrow_mut().push(handle));
}

pub fn pop_current() -> Option<u64> {
    STACK.try_with(|stack| stack.borrow_mut().pop()).ok().flatten()
}

impl Driver {
    /// The current context, which must be there and unbroken.
    pub fn context(&self) -> Outcome<u64> {
        self.ready()?;
        let handle = self.current()?;
        match self.contexts.get(&handle).and_then(|context| context.error) {
            Some(error) => Err(error),
            None => Ok(handle),
        }
    }

    /// The current context, broken or not.
    pub fn current(&self) -> Outcome<u64> {
        match current_handle() {
            0 => Err(INVALID_CONTEXT),
            handle if self.contexts.contains_key(&handle) => Ok(handle),
            _ => Err(CONTEXT_IS_DESTROYED),
        }
    }

    pub fn owner(&self, context: u64) -> u8 {
        self.contexts.get(&context).map_or(0, |context| context.owner)
    }

    pub fn new_context(&mut self, device: u64, primary: bool) -> u64 {
        let handle = self.handle();
        let used: Vec<u8> = self.contexts.values().map(|context| context.owner).collect();
        let owner = (1..=127).find(|owner| !used.contains(owner)).expect("fewer than 127 contexts live at once");
        self.contexts_made += 1;
        let context = Context {
            device,
            id: self.contexts_made,
            owner,
            primary,
            retained: 1,
            error: None,
            legacy: 0,
            per_thread: HashMap::new(),
        };
        self.contexts.insert(handle, context);
        let legacy = self.new_stream(handle, true, false);
        if let Some(context) = self.contexts.get_mut(&handle) {
            context.legacy = legacy;
        }
        handle
    }

    /// Ends a context with all that it holds; what the caller should have freed is a leak.
    pub fn destroy_context(&mut self, handle: u64) {
        self.finish_context(handle);
        let mut left: Vec<String> = Vec::new();
        let mut count = |what: &str, many: usize| {
            if many > 0 {
                left.push(format!("{many} {what}"));
            }
        };
        let memory: Vec<u64> = self.arena.of_context(handle);
        count(
            "allocations",
            memory
                .iter()
                .filter(|&&at| {
                    self.arena.get(at).is_some_and(|a| !a.freed && a.origin != crate::memory::Origin::Module)
                })
                .count(),
        );
        count(
            "streams",
            self.streams.values().filter(|stream| stream.context == handle && stream.made && !stream.destroyed).count(),
        );
        count("events", self.events.values().filter(|event| event.context == handle).count());
        count("modules", self.modules.values().filter(|module| module.context == handle).count());
        count("host allocations", self.hosts.values().filter(|host| host.context == handle).count());
        // A broken context does not let its things be freed.
        let broken = self.contexts.get(&handle).is_some_and(|context| context.error.is_some());
        if !left.is_empty() && !broken {
            self.fault(&format!("leak: the context ends and still holds {}", left.join(", ")));
        }
        memory.into_iter().for_each(|start| self.arena.close(start));
        self.streams.retain(|_, stream| stream.context != handle);
        self.events.retain(|_, event| event.context != handle);
        self.modules.retain(|_, module| module.context != handle);
        self.functions.retain(|_, function| self.modules.contains_key(&function.module));
        self.captures.retain(|_, capture| capture.context != handle);
        self.contexts.remove(&handle);
    }
}
