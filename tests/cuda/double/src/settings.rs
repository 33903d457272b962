//! What scenario the double plays: from the environment at first use, changed by `pvera_double_set`.

pub struct Settings {
    /// PVERA_DOUBLE_SEED: orders of streams, blocks and threads.
    pub seed: u64,
    /// PVERA_DOUBLE_DEVICES
    pub devices: u64,
    /// PVERA_DOUBLE_DRIVER: 12080 is CUDA 12.8.
    pub driver: u64,
    /// PVERA_DOUBLE_MEMORY: bytes of each device.
    pub memory: u64,
    /// PVERA_DOUBLE_FAIL_ALLOCATION: the allocation that fails, counted from 1 since it was set; 0 for none.
    pub fail_allocation: u64,
    /// PVERA_DOUBLE_FAIL_POOLED: the same among those of cuMemAllocAsync alone.
    pub fail_pooled: u64,
    /// PVERA_DOUBLE_PAGEABLE: 1 for copies that read pageable memory only when they run, as a driver may.
    pub pageable: u64,
    /// PVERA_DOUBLE_POOLS: 0 for a device without memory pools.
    pub pools: u64,
    /// PVERA_DOUBLE_STEPS: instructions that a launch may take.
    pub steps: u64,
    /// PVERA_DOUBLE_CAPABILITY: 75 is 7.5.
    pub capability: u64,
    /// PVERA_DOUBLE_CODE: a function and what it returns instead of doing anything.
    pub code: Option<(String, i32)>,
    /// PVERA_DOUBLE_MUTANT: an entry (or `*`) and which of its mutations to apply to modules that are loaded.
    pub mutant: Option<(String, usize)>,
    /// PVERA_DOUBLE_TRACE: 1 to write every operation that runs to standard error.
    pub trace: u64,
    /// PVERA_DOUBLE_LOG: a file that reports are appended to.
    pub log: Option<std::path::PathBuf>,
}

fn text(name: &str) -> Option<String> {
    std::env::var(format!("PVERA_DOUBLE_{name}")).ok().filter(|value| !value.is_empty())
}

fn number(name: &str, default: u64) -> u64 {
    match text(name) {
        None => default,
        Some(value) => value.parse().unwrap_or_else(|_| panic!("PVERA_DOUBLE_{name}={value} is not a number")),
    }
}

fn pair(name: &str) -> Option<(String, u64)> {
    let value = text(name)?;
    let parsed = value.rsplit_once(':').and_then(|(name, number)| Some((name.to_string(), number.parse().ok()?)));
    Some(parsed.unwrap_or_else(|| panic!("PVERA_DOUBLE_{name}={value} is not name:number")))
}

impl Settings {
    pub fn from_environment() -> Settings {
        Settings {
            seed: number("SEED", 1),
            devices: number("DEVICES", 1),
            driver: number("DRIVER", 12_080),
            memory: number("MEMORY", 8 << 30),
            fail_allocation: number("FAIL_ALLOCATION", 0),
            fail_pooled: number("FAIL_POOLED", 0),
            pageable: number("PAGEABLE", 0),
            pools: number("POOLS", 1),
            steps: number("STEPS", 1_000_000_000),
            capability: number("CAPABILITY", 75),
            code: pair("CODE").map(|(name, code)| (name, code as i32)),
            mutant: pair("MUTANT").map(|(name, index)| (name, index as usize)),
            trace: number("TRACE", 0),
            log: text("LOG").map(Into::into),
        }
    }

    /// Sets the number of that name; whether there is one.
    pub fn set(&mut self, name: &str, value: u64) -> bool {
        let place = match name {
            "PVERA_DOUBLE_SEED" => &mut self.seed,
            "PVERA_DOUBLE_DEVICES" => &mut self.devices,
            "PVERA_DOUBLE_DRIVER" => &mut self.driver,
            "PVERA_DOUBLE_MEMORY" => &mut self.memory,
            "PVERA_DOUBLE_FAIL_ALLOCATION" => &mut self.fail_allocation,
            "PVERA_DOUBLE_FAIL_POOLED" => &mut self.fail_pooled,
            "PVERA_DOUBLE_PAGEABLE" => &mut self.pageable,
            "PVERA_DOUBLE_POOLS" => &mut self.pools,
            "PVERA_DOUBLE_STEPS" => &mut self.steps,
            "PVERA_DOUBLE_TRACE" => &mut self.trace,
            "PVERA_DOUBLE_CAPABILITY" => &mut self.capability,
            _ => return self.set_text(name, value),
        };
        *place = value;
        true
    }

    /// `PVERA_DOUBLE_CODE=cuMemAlloc_v2` sets that function's code, `PVERA_DOUBLE_MUTANT=entry` that entry's mutation.
    fn set_text(&mut self, name: &str, value: u64) -> bool {
        if let Some(function) = name.strip_prefix("PVERA_DOUBLE_CODE=") {
            self.code = (!function.is_empty()).then(|| (function.to_string(), value as i32));
        } else if let Some(entry) = name.strip_prefix("PVERA_DOUBLE_MUTANT=") {
            self.mutant = (!entry.is_empty()).then(|| (entry.to_string(), value as usize));
        } else {
            return false;
        }
        true
    }
}
