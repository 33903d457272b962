//! `pvera bank`: thousands of adapters in one file.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use pvera::adapter::{Adapter, replace_file};
use pvera::bank::{Access, Bank as File, FamilyOutline, Held, Options};
use pvera::error::Code;
use pvera::interchange::{Options as FileOptions, Outline};
use pvera::model::Listener;
use pvera::noise::adapter_identity;
use pvera::projection::{Origin, Rounding};
use serde_json::json;

use super::inspect::{open_bank, open_whole};
use crate::adapters::{CONFIG_FILE, Host, Need, Sizes, checkpoint_of, guard_inputs};
use crate::args::{DrawArgs, Element, LayerArgs};
use crate::listener::Ear;
use crate::outcome::{Failure, Report, Result, on_a_line, shown};

/// Pack thousands of adapters into one file
#[derive(Debug, Subcommand)]
pub enum Bank {
    Create(Create),
    Add(Add),
    Remove(Remove),
    Extract(Extract),
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

/// Write one of a bank's adapters as a checkpoint folder
#[derive(Args, Debug)]
pub struct Extract {
    bank: PathBuf,
    name: String,
    /// The folder that is written
    out: PathBuf,
    #[command(flatten)]
    draws: DrawArgs,
    /// Replace the checkpoint that OUT holds
    #[arg(long)]
    force: bool,
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
    adapters: Vec<OsString>,
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
            Bank::Extract(_) => "bank extract",
            Bank::List(_) => "bank list",
            Bank::Compact(_) => "bank compact",
        }
    }

    pub fn run(&self, ear: &Ear) -> Result<Report> {
        match self {
            Bank::Create(create) => create.run(ear),
            Bank::Add(add) => add.run(ear),
            Bank::Remove(remove) => remove.run(ear),
            Bank::Extract(extract) => extract.run(ear),
            Bank::List(list) => list.run(ear),
            Bank::Compact(compact) => compact.run(ear),
        }
    }
}

impl Create {
    fn run(&self, ear: &Ear) -> Result<Report> {
        let given = self.adapters.given()?;
        let folders: Vec<&Path> = given.iter().map(|(_, folder)| folder.as_path()).collect();
        guard_inputs(&self.bank, &folders)?;
        let mut told = None;
        // Whoever writes the bank that is to be replaced would go on in a file without a name.
        let _held = if self.force { Held::of(&self.bank)? } else { None };
        replace_file(&self.bank, self.force, |fresh| {
            let bank = self.adapters.append(given, fresh, Access::Create, &[], ear, false)?;
            told = Some(bank.usage());
            Ok::<_, Failure>(())
        })?;
        Ok(report(&self.bank, told.unwrap_or_default()))
    }
}

impl Add {
    fn run(&self, ear: &Ear) -> Result<Report> {
        let (known, families) = open_bank(&self.bank, &Options::default(), ear)?;
        let given = self.adapters.given()?;
        // Before checkpoints are read; others may add some meanwhile.
        if let Some((name, _)) = given.iter().find(|(name, _)| !self.force && known.contains(name)) {
            let message = format!("'{}' holds an adapter of the name '{name}' already", self.bank.display());
            return Err(Failure::new(Code::Exists, message).hint("--force replaces it"));
        }
        let bank = self.adapters.append(given, &self.bank, Access::Write, &families, ear, self.force)?;
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

impl Extract {
    fn run(&self, ear: &Ear) -> Result<Report> {
        ear.take_signals();
        guard_inputs(&self.out, &[&self.bank])?;
        FileOptions { replace: self.force, ..FileOptions::default() }.refuse_existing(&self.out)?;
        let adapter = open_whole(&self.bank, &self.draws, None, ear)?.adapter(&self.name)?;
        let save = if self.force { Adapter::save } else { Adapter::save_new };
        save(&adapter, &self.out)?;
        let number = adapter.identity();
        if let Some(number) = number.filter(|number| *number != adapter_identity(&self.name)) {
            ear.warning(&format!(
                "the adapter draws by the number {number}, not by its name's, and a checkpoint does not hold it: \
                 its load is to be told (identity; replay's --adapter-identity)"
            ));
        }
        let layers = adapter.adapted_layers().count();
        let mut text = format!("{}: adapter '{}', {layers} layers", self.out.display(), on_a_line(&self.name));
        let mut json = json!({
            "path": shown(&self.bank), "name": self.name, "out": shown(&self.out), "layers": layers,
            "adapter_identity": number.map(|number| number.to_string()),
        });
        // What the folder does not say of projections that it does not hold.
        let (store, saves) = (adapter.store(), adapter.config().save_projection);
        if let Some(Origin { rounding: Rounding::To(dtype), .. }) = store.origin().filter(|_| !saves) {
            let (dtype, in_max, out_max) = (dtype.name(), store.in_max(), store.out_max());
            text.push_str(&format!("; its load is to be told base_dtype {dtype}, in_max {in_max}, out_max {out_max}"));
            (json["base_dtype"], json["in_max"], json["out_max"]) = (dtype.into(), in_max.into(), out_max.into());
        }
        Ok(Report::new(text + "\n", json))
    }
}

impl List {
    fn run(&self, ear: &Ear) -> Result<Report> {
        let (bank, _) = open_bank(&self.bank, &Options::default(), ear)?;
        let names = (0..bank.len()).map(|place| bank.name(place)).collect::<pvera::error::Result<Vec<_>>>()?;
        let text = names.iter().map(|name| format!("{}\n", on_a_line(name))).collect::<String>();
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
        given: Vec<(String, PathBuf)>,
        path: &Path,
        access: Access,
        families: &[FamilyOutline],
        ear: &Ear,
        force: bool,
    ) -> Result<File> {
        ear.take_signals();
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
            let mut bytes = Vec::new();
            let read = if list == Path::new("-") {
                std::io::stdin().lock().read_to_end(&mut bytes)
            } else {
                fs::File::open(list).and_then(|mut file| file.read_to_end(&mut bytes))
            };
            read.map_err(|error| Failure::io(list, "read", &error))?;
            let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
            words.extend(lines.map(|line| OsStr::from_bytes(line).to_owned()));
        }
        let mut given = Vec::new();
        for word in &words {
            // A folder may have = in its name.
            let equals = word.as_bytes().iter().position(|byte| *byte == b'=').filter(|_| !Path::new(word).exists());
            let Some(equals) = equals else {
                given.extend(named(&checkpoint_of(Path::new(word))?)?);
                continue;
            };
            let (name, folder) = word.as_bytes().split_at(equals);
            let name = str::from_utf8(name)
                .map_err(|_| Failure::usage(format!("'{}': the name before = is not UTF-8", word.display())))?;
            given.push((name.to_owned(), checkpoint_of(Path::new(OsStr::from_bytes(&folder[1..])))?));
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
        let name = real.file_name().unwrap_or_default();
        name.to_str().map(str::to_owned).ok_or_else(|| {
            let message = format!("the name of folder '{}' is not UTF-8", folder.display());
            Failure::new(Code::Argument, message).hint("NAME=FOLDER gives another")
        })
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
