//! The driver's state, and how every exported function gets at it.

use crate::clock::Clock;
use crate::codes::{Code, NOT_INITIALIZED, Outcome, UNKNOWN};
use crate::context::Context;
use crate::graph::{Capture, Graph};
use crate::memory::Arena;
use crate::module::{Function, Loaded, Module};
use crate::report::Report;
use crate::settings::Settings;
use crate::stream::{Event, Stream};
use crate::work::Record;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Page-locked memory of the host.
pub struct Host {
    pub bytes: usize,
    pub context: u64,
}

pub struct Driver {
    pub settings: Settings,
    pub report: Report,
    pub initialised: bool,
    pub arena: Arena,
    pub contexts: HashMap<u64, Context>,
    pub contexts_made: u64,
    /// The primary context of each device that has one.
    pub primaries: HashMap<u64, u64>,
    pub streams: HashMap<u64, Stream>,
    pub streams_made: u32,
    pub events: HashMap<u64, Event>,
    pub modules: HashMap<u64, Module>,
    pub functions: HashMap<u64, Function>,
    pub loaded: Vec<Loaded>,
    pub captures: HashMap<u64, Capture>,
    pub graphs: HashMap<u64, Graph>,
    pub executables: HashMap<u64, Graph>,
    pub hosts: BTreeMap<u64, Host>,
    pub allocations: u64,
    /// Those of cuMemAllocAsync.
    pub pooled: u64,
    /// How far each stream has come, by its number.
    pub done: HashMap<u32, u64>,
    /// What the host knows to be over.
    pub host_clock: Clock,
    /// Executions that are not known to be before all that comes, and how many there were in all.
    pub records: BTreeMap<u32, Record>,
    pub epochs: u32,
    pub random: u64,
    handles: u64,
}

static DRIVER: LazyLock<Mutex<Driver>> = LazyLock::new(|| {
    let settings = Settings::from_environment();
    let random = settings.seed;
    Mutex::new(Driver {
        settings,
        report: Report::default(),
        initialised: false,
        arena: Arena::new(),
        contexts: HashMap::new(),
        contexts_made: 0,
        primaries: HashMap::new(),
        streams: HashMap::new(),
        streams_made: 0,
        events: HashMap::new(),
        modules: HashMap::new(),
        functions: HashMap::new(),
        loaded: Vec::new(),
        captures: HashMap::new(),
        graphs: HashMap::new(),
        executables: HashMap::new(),
        hosts: BTreeMap::new(),
        allocations: 0,
        pooled: 0,
        done: HashMap::new(),
        host_clock: Clock::default(),
        records: BTreeMap::new(),
        epochs: 0,
        random,
        handles: 0,
    })
});

impl Driver {
    /// A handle that no object had before; not an address of anything.
    pub fn handle(&mut self) -> u64 {
        self.handles += 1;
        0x7e57_0000_0000 + self.handles * 16
    }

    pub fn ready(&self) -> Outcome {
        if self.initialised { Ok(()) } else { Err(NOT_INITIALIZED) }
    }

    pub fn fault(&mut self, text: &str) {
        self.report.add(self.settings.log.as_deref(), text);
    }
}

/// Works on the driver's state outside of a driver function.
pub fn with<T>(body: impl FnOnce(&mut Driver) -> T) -> T {
    body(&mut DRIVER.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The body of an exported driver function: gives the code that a scenario wants of it, or what the body comes to.
pub fn call(name: &str, body: impl FnOnce(&mut Driver) -> Outcome) -> i32 {
    let work = || {
        with(|driver| {
            if let Some((_, code)) = driver.settings.code.as_ref().filter(|(function, _)| function == name) {
                return *code;
            }
            match body(driver) {
                Ok(()) => 0,
                Err(Code(code)) => code,
            }
        })
    };
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        with(|driver| driver.fault(&format!("the double itself panicked in {name}")));
        UNKNOWN.0
    })
}
