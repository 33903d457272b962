//! What the library tells while it works, and an interrupt's way back: warnings, a progress bar, SIGINT and SIGTERM.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};
use pvera::model::Listener;
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

use crate::args::Output;
use crate::outcome::{Exit, on_a_line};

/// A handle on one listener.
#[derive(Clone)]
pub struct Ear {
    inner: Arc<Inner>,
    /// Whether warnings are printed when they come.
    prints: bool,
}

struct Inner {
    quiet: bool,
    interrupted: Arc<AtomicBool>,
    /// The bar of the stage that runs.
    bar: Mutex<Option<(String, ProgressBar)>>,
    warnings: Mutex<Vec<String>>,
}

impl Ear {
    pub fn new(output: &Output) -> Self {
        let interrupted = Arc::default();
        let inner = Inner { quiet: output.quiet, interrupted, bar: Mutex::default(), warnings: Mutex::default() };
        Self { inner: Arc::new(inner), prints: !output.quiet && !output.json }
    }

    /// A file that grows beyond `ulimit -f` is an error as a full disk is, which leaves nothing half-written.
    pub fn outlive_limits() {
        let _ = flag::register(SIGXFSZ, Arc::default());
    }

    /// From now on the first SIGINT or SIGTERM asks the library to stop, which leaves nothing half-written; a second one ends the
    /// program at once. Until now, while it waits for input, a first one does.
    pub fn take_signals(&self) {
        for signal in [SIGINT, SIGTERM] {
            // Where a handler cannot be had, the signal ends the program, as it does without one.
            let _ = flag::register_conditional_shutdown(signal, Exit::Cancelled as i32, self.inner.interrupted.clone())
                .and_then(|_| flag::register(signal, self.inner.interrupted.clone()));
        }
    }

    /// The same, which only collects warnings.
    pub fn silent(&self) -> Self {
        Self { prints: false, ..self.clone() }
    }

    /// The warnings so far.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.inner.warnings))
    }

    /// A line on stderr, beside the bar.
    pub fn print(&self, line: &str) {
        let write = || {
            let _ = writeln!(std::io::stderr(), "{line}");
        };
        match &*lock(&self.inner.bar) {
            Some((_, bar)) => bar.suspend(write),
            None => write(),
        }
    }

    pub fn finish(&self) {
        if let Some((_, bar)) = lock(&self.inner.bar).take() {
            bar.finish_and_clear();
        }
    }
}

impl Listener for Ear {
    fn warning(&self, message: &str) {
        let mut known = lock(&self.inner.warnings);
        // A bank that is opened twice says the same twice.
        if known.iter().any(|known| known == message) {
            return;
        }
        known.push(message.to_owned());
        drop(known);
        if self.prints {
            self.print(&format!("warning: {}", on_a_line(message)));
        }
    }

    fn progress(&self, stage: &str, done: u64, total: u64) -> bool {
        if !self.inner.quiet {
            let mut shown = lock(&self.inner.bar);
            if shown.as_ref().is_none_or(|(known, _)| known != stage) {
                if let Some((_, old)) = shown.take() {
                    old.finish_and_clear();
                }
                // It draws only where stderr is a terminal.
                let style = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3} %  {eta}");
                let bar = ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.set_message(stage.to_owned());
                *shown = Some((stage.to_owned(), bar));
            }
            if let Some((_, bar)) = &*shown {
                bar.set_length(total);
                bar.set_position(done);
            }
        }
        !self.inner.interrupted.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
