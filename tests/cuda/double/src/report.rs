//! Faults as text, and the counters: what tests ask the double for.

use std::ffi::CString;
use std::io::Write;

#[derive(Default)]
pub struct Report {
    text: String,
    /// What `pvera_double_report` handed out last.
    handed: CString,
    pub launches: u64,
    pub instructions: u64,
}

impl Report {
    /// Adds one fault.
    pub fn add(&mut self, log: Option<&std::path::Path>, fault: &str) {
        self.text.push_str(fault);
        self.text.push('\n');
        if let Some(path) = log {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            // A log that cannot be written must not hide the fault itself, which the report keeps.
            let _ = file.and_then(|mut file| writeln!(file, "{fault}"));
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The reports as a C string that stays valid until the next call.
    pub fn hand_out(&mut self) -> *const std::ffi::c_char {
        self.handed = CString::new(self.text.replace('\0', " ")).unwrap_or_default();
        self.handed.as_ptr()
    }
}
