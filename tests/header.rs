//! `include/pvera.h` is what `src/ffi` says. `PVERA_BLESS=1 cargo test --test header` writes it anew.

use std::fmt::Write;
use std::path::Path;

/// Sections of the header, in the order in which a newcomer reads them.
const SECTIONS: [(&str, &str); 22] = [
    ("error", "Errors"),
    ("version", "Version"),
    ("bytes", "Texts and bytes that the library gives away"),
    ("matrix", "Matrices"),
    ("context", "Contexts: where work runs, and what the host gives"),
    ("config", "Configs: the hyper-parameters of an adapter"),
    ("store", "Stores: the frozen pair A and B"),
    ("model", "Models: declared layers and published adapters"),
    ("adapter", "Adapters: load, create, train, save"),
    ("tensor", "Tensors that an adapter carries"),
    ("snapshot", "Snapshots: the adapters of a model for one pass"),
    ("bank", "Banks: thousands of adapters in one file"),
    ("linear", "Linears: adapted layers"),
    ("compute", "Computing without a tape"),
    ("training", "Forward and backward"),
    ("merge", "Merging into a weight"),
    ("interchange", "Other programs' files: exports, merges on disk, imports"),
    ("outline", "Outlines: checkpoints and banks without a model"),
    ("statistics", "Statistics over Monte Carlo passes"),
    ("uncertainty", "Early stopping and calibration"),
    ("noise", "Noise"),
    ("optimizer", "Optimiser"),
];

fn generated() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join("src/ffi").join(name)).expect(name);
    let mut header = read("preamble.h");
    let (major, minor, patch) =
        (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"), env!("CARGO_PKG_VERSION_PATCH"));
    write!(
        header,
        "#ifndef PVERA_H\n#define PVERA_H\n\n#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n\n\
         /** The version that this header is of; pvera_version() is the one that runs. */\n\
         #define PVERA_VERSION_MAJOR {major}\n\
         /** Before 1.0 another minor version is another ABI. */\n\
         #define PVERA_VERSION_MINOR {minor}\n\
         /** Corrections. */\n\
         #define PVERA_VERSION_PATCH {patch}\n\
         /** The three as one number, as pvera_version() gives it. */\n\
         #define PVERA_VERSION (PVERA_VERSION_MAJOR * 1000000 + PVERA_VERSION_MINOR * 1000 + PVERA_VERSION_PATCH)\n\
         /** And as a text. */\n\
         #define PVERA_VERSION_TEXT \"{major}.{minor}.{patch}\"\n\n\
         #ifdef __cplusplus\nextern \"C\" {{\n#endif\n\n"
    )
    .expect("a String grows");
    let sections: Vec<Section> = SECTIONS.iter().map(|(file, title)| Section::new(root, file, title)).collect();
    header += "/* ---- Handles ---- */\n";
    sections.iter().for_each(|section| header += &section.handles);
    for Section { title, body, .. } in &sections {
        write!(header, "\n/* ---- {title} ---- */\n\n{body}").expect("a String grows");
    }
    header + "\n#ifdef __cplusplus\n}\n#endif\n\n" + &read("conveniences.h") + "\n#endif\n"
}

/// What one file of `src/ffi` gives to the header.
struct Section {
    title: &'static str,
    /// Opaque types with their comments: they come first in the header, since sections name each other's.
    handles: String,
    body: String,
}

impl Section {
    fn new(root: &Path, file: &str, title: &'static str) -> Self {
        let source = root.join(format!("src/ffi/{file}.rs"));
        let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
        let text = std::fs::read_to_string(&source).expect(file);
        // Types that no function of the same file takes are wanted all the same.
        let types = text.lines().filter_map(|line| line.strip_prefix("pub struct ").or(line.strip_prefix("pub type ")));
        let name = |line: &str| line.split(|end: char| !end.is_alphanumeric() && end != '_').next().map(str::to_owned);
        config.export.include = types.filter_map(name).collect();
        let bindings =
            cbindgen::Builder::new().with_src(source).with_config(config).generate().expect("src/ffi parses");
        let mut text = Vec::new();
        bindings.write(&mut text);
        let (mut handles, mut body) = (String::new(), String::new());
        for item in as_c(&String::from_utf8(text).expect("UTF-8")).split("\n\n/**") {
            let item = item.trim();
            let item =
                if item.starts_with("/**") || item.is_empty() { item.to_owned() } else { format!("/**\n {item}") };
            let is_handle =
                item.lines().last().is_some_and(|line| line.starts_with("typedef struct") && !line.contains('('));
            let target = if is_handle { &mut handles } else { &mut body };
            writeln!(target, "{}{item}", if is_handle || !target.is_empty() { "\n" } else { "" })
                .expect("a String grows");
        }
        Self { title, handles, body }
    }
}

/// Rust's words in C's: what Rust calls safety is, for a C reader, what the pointers are.
fn as_c(text: &str) -> String {
    let plain = text.replace(" * # Safety\n", " * Pointers:\n").replace('`', "");
    let line = |line: &str| {
        if line.starts_with("typedef struct") { line.to_owned() } else { line.replace("struct pvera_", "pvera_") }
    };
    plain.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_committed_header_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/pvera.h");
    let header = generated();
    if std::env::var_os("PVERA_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("include/")).expect("include/");
        std::fs::write(&path, &header).expect("include/pvera.h is written");
    }
    let committed = std::fs::read_to_string(&path).expect("include/pvera.h");
    assert!(committed == header, "include/pvera.h differs from src/ffi; run PVERA_BLESS=1 cargo test --test header");
}
