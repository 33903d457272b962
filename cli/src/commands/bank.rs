//! `pvera bank`: thousands of adapters in one file.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use pvera::bank::{Access, Bank as File, FamilyOutline, Held, Options};
use pvera::error::Code;
use pvera::interchange::Outline;
use pvera::model::Listener;
use serde_json::json;

use super::inspect::open_bank;
use crate::adapters::{CONFIG_FILE, Host, Need, Sizes, folder_of};
use crate::args::{Element, LayerArgs};
use crate::fresh::fresh_file;
use crate::listener::Ear;
use crate::outcome::{Failure, Report, Result, shown};

/// Pack thousands of adapters into one file
#[derive(Debug, Subcommand)]
pub enum Bank {
    Create(Create),
    Add(Add),
    Remove(Remove),
    List(List),
    Compact(Compact),
}

/// Make a new bank, of these checkpoints: all of them or none
#[derive(Args, Debug)]
pub struct Create {
    bank: PathBuf,
    #[command(flatten)]
    adapters: Adapters,
    /// Replace the file
    #[arg(long)]
    force: bool,
}

/// Add checkpoints to a bank: all of them or none
#[derive(Args, Debug)]
pub struct Add {
    bank: PathBuf,
    #[command(flatten)]
    adapters: Adapters,
    /// Put them in the place of adapters of the same names
    #[arg(long)]
    force: bool,
}

/// Remove adapters from a bank: all of them or none
#[derive(Args, Debug)]
pub struct Remove {
    bank: PathBuf,
    #[arg(required = true)]
    names: Vec<String>,
}

/// Print the names of a bank's adapters, in the order in which they were first added
#[derive(Args, Debug)]
pub struct List {
    bank: PathBuf,
}

/// Write a bank anew without what nobody uses
#[derive(Args, Debug)]
pub struct Compact {
    bank: PathBuf,
    /// Also where something is damaged, which is then gone for good
    #[arg(long)]
    repair: bool,
}

#[derive(Args, Debug)]
struct Adapters {
    /// NAME=FOLDER; FOLDER alone, named as it is; or a folder of checkpoint folders
    #[arg(value_name = "[NAME=]FOLDER")]
    adapters: Vec<String>,
    /// More of them, one a line; - is stdin
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Element type of the vectors in the bank
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    dtype: Element,
    #[command(flatten)]
    layers: LayerArgs,
}

impl Bank {
    pub fn name(&self) -> &'static str {
        match self {
            Bank::Create(_) => "bank create",
            Bank::Add(_) => "bank add",
            Bank::Remove(_) => "bank remove",
            Bank::List(_) => "bank list",
            Bank::Compact(_) => "bank compact",
        }
    }

    pub fn run(&self, ear: &Ear) -> Result<Report> {
        match self {
            Bank::Create(create) => create.run(ear),
            Bank::Add(add) => add.run(ear),
            Bank::Remove(remove) => remove.run(ear),
            Bank::List(list) => list.run(ear),
            Bank::Compact(compact) => compact.run(ear),
        }
    }
}

impl Create {
    fn run(&self, ear: &Ear) -> Result<Report> {
        let mut told = None;
        // Whoever writes the bank that is to be replaced would go on in a file without a name.
        let _held = if self.force { Held::of(&self.bank)? } else { None };
        fresh_file(&self.bank, self.force, |fresh| {
            let bank = self.adapters.append(fresh, Access::Create, &[], ear, false, |_| Ok(()))?;
            told = Some(bank.usage());
            Ok(())
        })?;
        Ok(report(&self.bank, told.unwrap_or_default()))
    }
}

impl Add {
    fn run(&self, ear: &Ear) -> Result<Report> {
        let (known, families) = open_bank(&self.bank, &Options::default(), ear)?;
        let bank = self.adapters.append(&self.bank, Access::Write, &families, ear, self.force, |names| match names
            .iter()
            .find(|name| known.contains(name))
        {
            Some(name) if !self.force => {
                let message = format!("'{}' holds an adapter of the name '{name}' already", self.bank.display());
                Err(Failure::new(Code::Exists, message).hint("--force replaces it"))
            }
            _ => Ok(()),
        })?;
        Ok(report(&self.bank, bank.usage()))
    }
}

impl Remove {
    fn run(&self, ear: &Ear) -> Result<Report> {
        let options = Options { access: Access::Write, ..Options::default() };
        let (bank, _) = open_bank(&self.bank, &options, ear)?;
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        bank.remove(&names)?;
        Ok(report(&self.bank, bank.usage()))
    }
}

impl List {
    fn run(&self, ear: &Ear) -> Result<Report> {
        let (bank, _) = open_bank(&self.bank, &Options::default(), ear)?;
        let names = (0..bank.len()).map(|place| bank.name(place)).collect::<pvera::error::Result<Vec<_>>>()?;
        let text = names.iter().map(|name| format!("{name}\n")).collect::<String>();
        Ok(Report::new(text, json!({"path": shown(&self.bank), "adapters": names})))
    }
}

impl Compact {
    fn run(&self, ear: &Ear) -> Result<Report> {
        let options = Options { access: Access::Write, repair: self.repair, ..Options::default() };
        let (bank, _) = open_bank(&self.bank, &options, ear)?;
        let before = bank.usage().file_bytes;
        ear.take_signals();
        bank.compact()?;
        let usage = bank.usage();
        let (path, bytes) = (self.bank.display(), usage.file_bytes);
        let text = format!("{path}: {} adapters, {before} to {bytes} bytes\n", usage.adapters);
        let json =
            json!({"path": shown(&self.bank), "adapters": usage.adapters, "bytes_before": before, "bytes": bytes});
        Ok(Report::new(text, json))
    }
}

impl Adapters {
    /// Opens a bank for all layers of its families and of these checkpoints, and appends them at once.
    fn append(
        &self,
        path: &Path,
        access: Access,
        families: &[FamilyOutline],
        ear: &Ear,
        force: bool,
        check: impl FnOnce(&[&str]) -> Result<()>,
    ) -> Result<File> {
        let given = self.given()?;
        ear.take_signals();
        let names: Vec<&str> = given.iter().map(|(name, _)| name.as_str()).collect();
        check(&names)?;
        let mut sizes = Sizes::new(&self.layers)?;
        let mut dtypes = Vec::new();
        for (_, folder) in &given {
            dtypes.push(sizes.add(folder, &Outline::read(folder)?, Need::Largest, ear)?);
        }
        families.iter().try_for_each(|family| sizes.add_family(family))?;
        let host = Host::with(&sizes, &dtypes, None, ear)?;
        let (inputs, outputs) = sizes.largest();
        let largest = |size: fn(&FamilyOutline) -> usize, own| families.iter().map(size).chain([own]).max();
        let options = Options {
            access,
            in_max: largest(|family| family.in_max, inputs),
            out_max: largest(|family| family.out_max, outputs),
            ..Options::default()
        };
        let bank = File::open(&host.model, path, &options)?;
        // Under the writer's lock: `check` looked before it, and others may have added since.
        let mut appending = bank.appending(self.dtype.into())?;
        for (done, (name, folder)) in given.iter().enumerate() {
            if !ear.progress("read checkpoints", done as u64, given.len() as u64) {
                return Err(Failure::stopped());
            }
            let adapter = &host.load(folder, None)?;
            let pushed = if force { appending.push(name, adapter) } else { appending.push_new(name, adapter) };
            pushed.map_err(|error| match error.code() {
                Code::Exists => Failure::from(error).hint("--force replaces it"),
                _ => error.into(),
            })?;
        }
        appending.finish()?;
        Ok(bank)
    }

    /// Names and folders, those of a folder of folders by their names.
    fn given(&self) -> Result<Vec<(String, PathBuf)>> {
        let mut words = self.adapters.clone();
        if let Some(list) = &self.list {
            let text = if list == Path::new("-") {
                std::io::read_to_string(std::io::stdin())
            } else {
                fs::read_to_string(list)
            };
            let text = text.map_err(|error| Failure::io(list, "read", &error))?;
            words.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
        }
        let mut given = Vec::new();
        for word in words {
            // A folder may have = in its name.
            match word.split_once('=').filter(|_| !Path::new(&word).exists()) {
                Some((name, folder)) => given.push((name.to_owned(), folder_of(Path::new(folder)))),
                None => given.extend(named(&folder_of(Path::new(&word)))?),
            }
        }
        if given.is_empty() {
            return Err(Failure::usage("there is no checkpoint folder to add"));
        }
        Ok(given)
    }
}

fn named(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let name = |folder: &Path| {
        let real = fs::canonicalize(folder).map_err(|error| Failure::io(folder, "open", &error))?;
        Ok::<_, Failure>(real.file_name().unwrap_or_default().to_string_lossy().into_owned())
    };
    if !folder.is_dir() || folder.join(CONFIG_FILE).exists() {
        return Ok(vec![(name(folder)?, folder.to_owned())]);
    }
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = entries.map_err(|error| Failure::io(folder, "read", &error))?;
    let mut found: Vec<PathBuf> =
        entries.into_iter().map(|entry| entry.path()).filter(|path| path.join(CONFIG_FILE).is_file()).collect();
    found.sort();
    if found.is_empty() {
        let message = format!("'{}' holds no {CONFIG_FILE}, and no folder with one", folder.display());
        return Err(Failure::new(Code::NotFound, message));
    }
    found.into_iter().map(|path| Ok((name(&path)?, path))).collect()
}

fn report(path: &Path, usage: pvera::bank::Usage) -> Report {
    let text = format!("{}: {} adapters, {} bytes\n", path.display(), usage.adapters, usage.file_bytes);
    Report::new(text, json!({"path": shown(path), "adapters": usage.adapters, "bytes": usage.file_bytes}))
}
