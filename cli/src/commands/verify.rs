//! `pvera verify`: everything is read and held to what it ought to be.

use std::path::{Path, PathBuf};

use clap::Args;
use pvera::bank::Options as BankOptions;
use pvera::error::{Code, Error};
use pvera::interchange::{ModelFiles, Options, TensorFile, check_projections};
use pvera::model::Listener;
use serde_json::json;

use super::inspect::{Kind, open_bank, rounded};
use crate::adapters::{Host, Need, TENSOR_FILE};
use crate::args::LayerArgs;
use crate::listener::Ear;
use crate::matrices::first_not_finite;
use crate::outcome::{Failure, Report, Result, name_of, on_a_line, shown};

/// Read all of a checkpoint, bank or safetensors model, and name what is damaged
///
/// Of a checkpoint: that it loads, its numbers are finite, and saved projections are those that its key draws, bit for bit; with
/// --model, that it fits. Of a bank: every index entry, vector and projection that it holds against its checksum. Of a model: that headers and
/// shards agree, and every number is finite. Findings go to stdout, and the exit code is then 1.
#[derive(Args, Debug)]
pub struct Verify {
    /// Checkpoint folder, bank, safetensors file, or model folder
    path: PathBuf,
    #[command(flatten)]
    layers: LayerArgs,
}

/// Bytes read at a time.
const BLOCK: usize = 8 << 20;

/// What was found, and what was looked at.
#[derive(Default)]
struct Findings {
    found: Vec<(Code, String)>,
    checked: Vec<String>,
}

impl Verify {
    pub fn run(&self, ear: &Ear) -> Result<Report> {
        let kind = Kind::of(&self.path)?;
        let mut findings = Findings::default();
        if !matches!(kind, Kind::Adapter(_)) {
            self.layers.refuse(match kind {
                Kind::Bank => "a bank",
                Kind::Model => "a model",
                _ => "another method's",
            })?;
        }
        match &kind {
            Kind::Adapter(folder) => self.adapter(folder, &mut findings, ear)?,
            Kind::OtherAdapter(folder, _) => files(&folder.join(TENSOR_FILE), &mut findings, ear)?,
            Kind::Bank => self.bank(&mut findings, ear)?,
            Kind::Model => files(&self.path, &mut findings, ear)?,
        }
        let mut text = String::new();
        for (_, message) in &findings.found {
            text.push_str(&format!("found: {}\n", on_a_line(message)));
        }
        let count = findings.found.len();
        let verdict = match count {
            0 => "sound".to_owned(),
            1 => "1 finding".to_owned(),
            _ => format!("{count} findings"),
        };
        let looked_at = [&[kind.name().to_owned()][..], &findings.checked].concat().join(", ");
        text.push_str(&format!("{}: {looked_at}: {verdict}\n", self.path.display()));
        let found: Vec<_> =
            findings.found.iter().map(|(code, message)| json!({"code": name_of(*code), "message": message})).collect();
        let json = json!({
            "path": shown(&self.path), "kind": kind.name(), "sound": count == 0, "findings": found, "checked": findings.checked,
        });
        Ok(Report::new(text, json).found(count > 0))
    }

    fn adapter(&self, folder: &Path, findings: &mut Findings, ear: &Ear) -> Result<()> {
        let loaded = Host::of(&self.layers, &[folder], Need::None, ear).and_then(|host| host.load(folder, None));
        if let Some(adapter) = findings.or_found_by(loaded)? {
            findings.checked.push(format!("{} parameters", adapter.parameters().len()));
        }
        let options = Options { listener: ear, ..Options::default() };
        match findings.or_found(check_projections(folder, &options))? {
            Some(Some(rounding)) => findings.checked.push(format!("projections of the key{}", rounded(rounding))),
            Some(None) => findings.checked.push("no projections saved".into()),
            None => {}
        }
        Ok(())
    }

    fn bank(&self, findings: &mut Findings, ear: &Ear) -> Result<()> {
        let ear = &ear.silent();
        let opened = open_bank(&self.path, &BankOptions::default(), ear);
        findings.found.extend(ear.take_warnings().into_iter().map(|warning| (Code::Format, warning)));
        let Some((bank, _)) = findings.or_found_by(opened)? else { return Ok(()) };
        let verified = bank.verify();
        findings.found.extend(ear.take_warnings().into_iter().map(|warning| (Code::Format, warning)));
        findings.or_found(verified)?;
        findings.checked.push(format!("{} adapters", bank.len()));
        Ok(())
    }
}

/// Files of a model, or the tensors of another method's adapter.
fn files(path: &Path, findings: &mut Findings, ear: &Ear) -> Result<()> {
    let Some(files) = findings.or_found(ModelFiles::open(path))? else { return Ok(()) };
    let total = files.files().iter().map(TensorFile::length).sum();
    let (mut done, mut tensors) = (0, 0);
    for file in files.files() {
        let reader = file.reader()?;
        for name in file.names() {
            let Some(info) = file.info(&name) else { continue };
            let (start, end) = info.data_offsets;
            let mut block = vec![0; BLOCK.min(end - start)];
            for first in (start..end).step_by(BLOCK) {
                let part = &mut block[..BLOCK.min(end - first)];
                reader.read(first, part)?;
                if let Some((place, value)) = first_not_finite(info.dtype, part) {
                    let place = (first - start) * 8 / info.dtype.bitsize() + place;
                    let message = format!("'{}': tensor '{name}' holds {value} at {place}", file.path().display());
                    findings.found.push((Code::Format, message));
                    break;
                }
                done += part.len() as u64;
                if !ear.progress("verify", done, total) {
                    return Err(Failure::stopped());
                }
            }
            tensors += 1;
        }
    }
    findings.checked.push(format!("{tensors} tensors"));
    Ok(())
}

impl Findings {
    /// What a damaged file causes is a finding; what hinders the reading is a failure.
    fn or_found<T>(&mut self, outcome: std::result::Result<T, Error>) -> Result<Option<T>> {
        self.or_found_by(outcome.map_err(Failure::from))
    }

    fn or_found_by<T>(&mut self, outcome: Result<T>) -> Result<Option<T>> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(failure) => {
                let (code, message) = failure.finding()?;
                if self.found.iter().all(|(_, known)| *known != message) {
                    self.found.push((code, message));
                }
                Ok(None)
            }
        }
    }
}
