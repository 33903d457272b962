//! Running the tool, folders that clean up, and safetensors files by hand.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pvera"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn run(arguments: &[&str]) -> Run {
    finished(command(arguments).spawn().unwrap())
}

pub fn run_with_input(arguments: &[&str], input: &str) -> Run {
    let mut child = command(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    finished(child)
}

pub fn finished(child: Child) -> Run {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

impl Run {
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Failed with these words on stderr, and nothing on stdout.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.out, "");
        words.iter().for_each(|word| assert!(self.err.contains(word), "'{word}' in {self:?}"));
        self
    }

    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        words.iter().for_each(|word| assert!(self.out.contains(word), "'{word}' in {self:?}"));
        self
    }
}

/// The object that a command prints with --json, and its exit code.
#[track_caller]
pub fn json(arguments: &[&str]) -> (Value, i32) {
    let run = run(&[arguments, &["--json"]].concat());
    assert_eq!(run.err, "", "nothing is on stderr with --json");
    (serde_json::from_str(&run.out).unwrap_or_else(|error| panic!("{error}: {run:?}")), run.code)
}

/// The code of the error that a command prints with --json.
#[track_caller]
pub fn error_code(arguments: &[&str], exit: i32) -> String {
    let (value, code) = json(arguments);
    assert_eq!(code, exit, "{value}");
    assert!(!value["error"]["message"].as_str().unwrap().is_empty());
    value["error"]["code"].as_str().unwrap().to_owned()
}

pub fn golden(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name);
    root.to_str().unwrap().to_owned()
}

/// A folder that is removed with all that is in it.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("pvera-cli-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn join(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Everything in it, hidden files too.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A copy of a golden checkpoint, to be damaged.
    pub fn copy(&self, from: &str) -> String {
        let folder = self.join("copy");
        std::fs::create_dir(&folder).unwrap();
        for name in [CONFIG, TENSORS] {
            std::fs::copy(Path::new(&golden(from)).join(name), Path::new(&folder).join(name)).unwrap();
        }
        folder
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.join(name), bytes).unwrap();
        self.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub const CONFIG: &str = "adapter_config.json";
pub const TENSORS: &str = "adapter_model.safetensors";

pub type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

pub fn tensors_of(path: impl AsRef<Path>) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let raw = |view: &TensorView<'_>| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    file.tensors().iter().map(|(name, view)| (name.clone(), raw(view))).collect()
}

pub fn write_tensors(path: impl AsRef<Path>, tensors: &Tensors) {
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Changes one tensor of a checkpoint's file.
pub fn change(folder: &str, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = Path::new(folder).join(TENSORS);
    let mut tensors = tensors_of(&path);
    change(&mut tensors.get_mut(name).unwrap().2);
    write_tensors(path, &tensors);
}

pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

pub fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Sends a signal as soon as the tool takes it, which it does before any work.
pub fn interrupt(child: &Child, signal: i32) {
    let status = format!("/proc/{}/status", child.id());
    loop {
        let text = std::fs::read_to_string(&status).unwrap();
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        if u64::from_str_radix(caught, 16).unwrap() & (1 << (signal - 1)) != 0 {
            break;
        }
        std::thread::yield_now();
    }
    send(child, signal);
}

pub fn send(child: &Child, signal: i32) {
    let sent = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}
