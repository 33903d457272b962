//! Lists the mutations of PTX files, one a line: file, entry, number in the entry, number in the file (for `*`), class, line, the
//! instruction, what it becomes; fields are separated by tabs. PVERA_DOUBLE_MUTANT=entry:number applies one.
//!
//! With --check, each one is lowered instead, and those that do not lower are listed; with --registers, those that some path may read
//! before they are written.

use cuda::ptx::lower::{Globals, lower};
use cuda::ptx::parser::parse;
use cuda::ptx::syntax::{Entry, Module, Space};
use cuda::ptx::{instruction::Code, mutate};
use std::process::ExitCode;

fn main() -> ExitCode {
    let (options, files): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let has = |name: &str| options.iter().any(|option| option == name);
    if files.is_empty() || options.iter().any(|option| !matches!(option.as_str(), "--check" | "--registers")) {
        eprintln!("usage: mutants [--check | --registers] file.ptx …");
        return ExitCode::FAILURE;
    }
    let mut bad = false;
    for file in files {
        let parsed = std::fs::read_to_string(&file).map_err(|error| error.to_string());
        let parsed =
            parsed.and_then(|source| parse(&source).map_err(|error| format!("line {}: {}", error.line, error.message)));
        match parsed {
            Err(error) => {
                eprintln!("{file}: {error}");
                bad = true;
            }
            Ok(module) if has("--check") => bad |= check(&file, &module),
            Ok(module) if has("--registers") => module.entries.iter().for_each(|entry| registers(&module, entry)),
            Ok(module) => list(&file, &module),
        }
    }
    if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn list(file: &str, module: &Module) {
    let mut in_file = 0;
    for entry in &module.entries {
        for (index, mutant) in mutate::mutants(entry).iter().enumerate() {
            let (name, class, line, text) = (&entry.name, mutant.class, mutant.line, mutant.text());
            println!("{file}\t{name}\t{index}\t{in_file}\t{class}\t{line}\t{}\t{text}", mutant.original);
            in_file += 1;
        }
    }
}

/// Lowers an entry with its module's variables at made-up addresses.
fn lowered(module: &Module, entry: &Entry) -> Result<Code, String> {
    let globals: Globals = module
        .variables
        .iter()
        .filter(|variable| variable.space != Space::Shared)
        .enumerate()
        .map(|(index, variable)| (variable.name.clone(), (variable.space, (index as u64 + 1) << 32)))
        .collect();
    let shared: Vec<_> = module.variables.iter().filter(|variable| variable.space == Space::Shared).cloned().collect();
    lower(entry, &globals, &shared).map_err(|error| format!("line {}: {}", error.line, error.message))
}

fn check(file: &str, module: &Module) -> bool {
    let mut bad = false;
    for (at, entry) in module.entries.iter().enumerate() {
        for index in 0..mutate::mutants(entry).len() {
            // One entry is enough to lower, and quicker.
            let mut changed = Module { entries: vec![module.entries[at].clone()], ..module.clone() };
            mutate::apply(&mut changed, &entry.name, index);
            if let Err(error) = lowered(module, &changed.entries[0]) {
                println!("{file}: {} {index}: {error}", entry.name);
                bad = true;
            }
        }
    }
    bad
}

fn registers(module: &Module, entry: &Entry) {
    match lowered(module, entry) {
        Ok(code) => println!(
            "{}: {} instructions, {} places, checked at run time: {:?}",
            entry.name,
            code.instructions.len(),
            code.places,
            code.checked
        ),
        Err(error) => println!("{}: {error}", entry.name),
    }
}
