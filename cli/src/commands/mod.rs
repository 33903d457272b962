//! One file a command.

pub mod bank;
pub mod combine;
pub mod completions;
pub mod export;
pub mod grow;
pub mod import;
pub mod inspect;
pub mod merge;
pub mod replay;
pub mod shrink;
pub mod verify;

use crate::args::{Cli, Command};
use crate::listener::Ear;
use crate::outcome::{Report, Result};

/// Commands that may read stdin take signals when they have it.
pub fn run(cli: &Cli, ear: &Ear) -> Result<Report> {
    if !matches!(cli.command, Command::Replay(_) | Command::Bank(_)) {
        ear.take_signals();
    }
    match &cli.command {
        Command::Inspect(command) => command.run(ear),
        Command::Verify(command) => command.run(ear),
        Command::Merge(command) => command.run(ear),
        Command::Export(command) => command.run(ear),
        Command::Shrink(command) => command.run(ear),
        Command::Grow(command) => command.run(ear),
        Command::Import(command) => command.run(ear),
        Command::Combine(command) => command.run(ear),
        Command::Bank(command) => command.run(ear),
        Command::Replay(command) => command.run(ear),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    }
}
