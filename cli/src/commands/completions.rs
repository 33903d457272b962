//! `pvera completions`: the shells' files; and the manual pages, for packages.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde_json::json;

use crate::args::Cli;
use crate::outcome::{Failure, Report, Result, shown};

/// Print completions for a shell
///
/// For example: pvera completions bash > /etc/bash_completion.d/pvera
#[derive(Args, Debug)]
pub struct Completions {
    shell: Shell,
}

/// Write the manual pages into a folder
#[derive(Args, Debug)]
pub struct Man {
    folder: PathBuf,
}

impl Completions {
    pub fn run(&self) -> Result<Report> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "pvera", &mut script);
        let script = String::from_utf8_lossy(&script).into_owned();
        let json = json!({"shell": self.shell.to_string(), "script": script});
        Ok(Report::new(script, json))
    }
}

impl Man {
    pub fn run(&self) -> Result<Report> {
        let written =
            std::fs::create_dir_all(&self.folder).and_then(|()| clap_mangen::generate_to(Cli::command(), &self.folder));
        written.map_err(|error| Failure::io(&self.folder, "write", &error))?;
        Ok(Report::new("", json!({"out": shown(&self.folder)})))
    }
}
