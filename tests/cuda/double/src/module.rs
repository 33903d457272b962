//! Modules: PTX that was loaded, its variables in device memory, its entries ready to run.

use crate::codes::{
    Code, INVALID_IMAGE, INVALID_PTX, NO_BINARY_FOR_GPU, OUT_OF_MEMORY, Outcome, UNSUPPORTED_PTX_VERSION,
};
use crate::driver::Driver;
use crate::memory::Origin;
use crate::ptx::instruction::Code as Entry;
use crate::ptx::lower::{Globals, lower};
use crate::ptx::parser::parse;
use crate::ptx::syntax::Space;
use crate::ptx::{mutate, syntax};
use crate::run::block::random;
use std::sync::Arc;

#[derive(Debug)]
pub struct Image {
    pub entries: Vec<Entry>,
    lines: Vec<String>,
}

impl Image {
    /// A line of the PTX as reports quote it.
    pub fn quote(&self, line: u32) -> String {
        let text = self.lines.get((line as usize).wrapping_sub(1)).map_or("", |line| line.trim());
        format!("PTX line {line} `{}`", text.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

/// PTX that was loaded before: tests load the same again and again.
pub struct Loaded {
    source: String,
    /// Driver, device and mutation.
    scenario: (u64, u64, Option<(String, usize)>),
    image: Arc<Image>,
}

/// How much of it is kept.
const LOADED: usize = 64;

pub struct Module {
    pub context: u64,
    pub image: Arc<Image>,
    /// Where its variables lie.
    pub variables: Vec<u64>,
}

pub struct Function {
    pub module: u64,
    pub entry: usize,
}

/// The PTX version that came with a driver.
fn newest_ptx(driver: u64) -> (u32, u32) {
    let minor = (driver % 1000 / 10) as usize;
    match driver / 1000 {
        0..=10 => (6, 0),
        11 => (7, minor as u32),
        12 => {
            const MINORS: [u32; 10] = [0, 1, 2, 3, 4, 5, 5, 6, 7, 8];
            (8, MINORS[minor.min(9)])
        }
        major => ((major - 4) as u32, minor as u32),
    }
}

impl Driver {
    pub fn load_module(&mut self, context: u64, source: &str) -> Outcome<u64> {
        let scenario = (self.settings.driver, self.settings.capability, self.settings.mutant.clone());
        if let Some(known) = self.loaded.iter().find(|known| known.scenario == scenario && known.source == source) {
            let module = Module { context, image: known.image.clone(), variables: Vec::new() };
            return Ok(self.add_module(module));
        }
        let mut module = match parse(source) {
            Ok(module) => module,
            Err(error) => return Err(self.refuse_ptx(source, &error)),
        };
        if module.version > newest_ptx(self.settings.driver) {
            return Err(UNSUPPORTED_PTX_VERSION);
        }
        let target = module.target.trim_start_matches("sm_").trim_end_matches(char::is_alphabetic).parse::<u64>();
        match target {
            Ok(target) if target <= self.settings.capability => {}
            Ok(_) => return Err(NO_BINARY_FOR_GPU),
            Err(_) => return Err(INVALID_IMAGE),
        }
        let mut keeps = true;
        if let Some((entry, index)) = self.settings.mutant.clone()
            && mutate::apply(&mut module, &entry, index) == Some(false)
        {
            keeps = false;
            self.fault(&format!("PVERA_DOUBLE_MUTANT={entry}:{index}: there is no such mutation"));
        }
        let (globals, variables) = self.place_variables(context, &module)?;
        let shared: Vec<syntax::Variable> =
            module.variables.iter().filter(|variable| variable.space == Space::Shared).cloned().collect();
        let mut entries = Vec::new();
        for entry in &module.entries {
            match lower(entry, &globals, &shared) {
                Ok(code) => entries.push(code),
                Err(error) => {
                    variables.into_iter().for_each(|start| self.arena.close(start));
                    return Err(self.refuse_ptx(source, &error));
                }
            }
        }
        let image = Arc::new(Image { entries, lines: source.lines().map(str::to_string).collect() });
        // Code with variables has their addresses in it.
        if variables.is_empty() && keeps && self.loaded.len() < LOADED {
            self.loaded.push(Loaded { source: source.to_string(), scenario, image: image.clone() });
        }
        Ok(self.add_module(Module { context, image, variables }))
    }

    fn add_module(&mut self, module: Module) -> u64 {
        let handle = self.handle();
        self.modules.insert(handle, module);
        handle
    }

    fn refuse_ptx(&mut self, source: &str, error: &syntax::Error) -> Code {
        let text = source.lines().nth((error.line as usize).wrapping_sub(1)).unwrap_or("").trim();
        self.fault(&format!("PTX line {} `{text}`: {}", error.line, error.message));
        INVALID_PTX
    }

    fn place_variables(&mut self, context: u64, module: &syntax::Module) -> Outcome<(Globals, Vec<u64>)> {
        let (mut globals, mut placed) = (Globals::new(), Vec::new());
        let owner = self.owner(context);
        let device = self.contexts[&context].device;
        for variable in module.variables.iter().filter(|variable| variable.space != Space::Shared) {
            let at = random(&mut self.random);
            let start =
                self.arena.reserve(variable.size.max(1), context, device, Origin::Module, at).ok_or(OUT_OF_MEMORY)?;
            self.arena.open(start, owner);
            self.arena.bytes_of_mut(start, variable.size).copy_from_slice(&variable.bytes);
            self.arena.states_of_mut(start, variable.size).fill(owner << 1 | 1);
            globals.insert(variable.name.clone(), (variable.space, start));
            placed.push(start);
        }
        Ok((globals, placed))
    }

    pub fn unload_module(&mut self, handle: u64) {
        if let Some(module) = self.modules.remove(&handle) {
            module.variables.into_iter().for_each(|start| self.arena.close(start));
            self.functions.retain(|_, function| function.module != handle);
        }
    }
}
