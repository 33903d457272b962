//! `pvera`: what people do with adapters as files. A thin layer over the library: it reads arguments, calls, and reports.
#![forbid(unsafe_code)]

mod adapters;
mod args;
mod commands;
mod listener;
mod matrices;
mod outcome;
mod privacy;

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use args::Cli;
use listener::Ear;
use outcome::{Exit, Failure, printable};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let ear = Ear::new(&cli.output);
    Ear::outlive_limits();
    let (text, exit) = match commands::run(&cli, &ear) {
        Ok(report) => {
            let exit = report.exit;
            (
                if cli.output.json {
                    report.into_json(cli.command.name(), &ear.take_warnings())
                } else {
                    printable(&report.text)
                },
                exit,
            )
        }
        Err(failure) => {
            let exit = failure.exit();
            let json = cli.output.json.then(|| failure.to_json(cli.command.name(), &ear.take_warnings()));
            if json.is_none() {
                ear.print(&failure.to_string());
            }
            (json.unwrap_or_default(), exit)
        }
    };
    ear.finish();
    print(&text).unwrap_or(exit).into()
}

/// Help and version go to stdout, a mistake to stderr; with --json it is an object as every other error.
fn refuse(error: &clap::Error) -> ExitCode {
    let asks_json = std::env::args_os().any(|argument| argument == "--json");
    if error.use_stderr() && asks_json {
        let failure = Failure::usage(error.to_string());
        let exit = failure.exit();
        return print(&failure.to_json(&asked(), &[])).unwrap_or(exit).into();
    }
    if error.kind() == ErrorKind::DisplayVersion && asks_json {
        let version = serde_json::json!({"version": env!("CARGO_PKG_VERSION")});
        return print(&format!("{version:#}\n")).unwrap_or(Exit::Done).into();
    }
    if error.use_stderr() {
        let _ = error.print();
        return Exit::Usage.into();
    }
    print(&error.render().to_string()).unwrap_or(Exit::Done).into()
}

/// The command that the arguments begin with, as far as they are one: "bank create".
fn asked() -> String {
    let (mut command, mut names) = (Cli::command(), Vec::new());
    for word in std::env::args_os().skip(1).filter_map(|word| word.into_string().ok()) {
        if let Some(found) = command.find_subcommand(&word).cloned() {
            command = found;
            names.push(word);
        }
    }
    names.join(" ")
}

/// Writes the results. A reader that has left wants no more of them, which is no error; any other failure is.
fn print(text: &str) -> Option<Exit> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let _ = writeln!(std::io::stderr(), "error: could not write to stdout: {error}");
            Some(Exit::Failed)
        }
        _ => None,
    }
}
