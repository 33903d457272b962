//! What every command owes: exit codes, JSON, pipes that break, interrupts, completions.

use std::io::Read;

use serde_json::Value;

use crate::support::*;

#[test]
fn the_version_is_the_librarys() {
    run(&["--version"]).ok().says(&[&format!("pvera {}\n", pvera::VERSION)]);
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")).unwrap();
    assert!(manifest.contains(&format!("\nversion = \"{}\"\n", pvera::VERSION)));
}

#[test]
fn help_is_no_error() {
    run(&["--help"]).ok().says(&["Exit codes: 0 done; 1", "inspect", "docs/cli.md"]);
    run(&["bank", "create", "--help"]).ok().says(&["[NAME=]FOLDER"]);
}

#[test]
fn a_wrong_command_line() {
    run(&["inspekt"]).fails(2, &["unrecognized subcommand 'inspekt'", "'inspect'"]);
    run(&[]).fails(2, &["Usage: pvera"]);
    run(&["inspect"]).fails(2, &["<PATH>"]);
    assert_eq!(error_code(&["inspekt"], 2), "USAGE");
    assert_eq!(error_code(&["merge", "a"], 2), "USAGE");
    for (words, command) in [(&["inspekt"][..], ""), (&["merge", "a"], "merge"), (&["bank", "create"], "bank create")] {
        assert_eq!(json(words).0["command"], command);
    }
    assert!(json(&["--version"]).0["version"].is_string());
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).ok().out;
        assert!(script.contains("pvera") && script.contains("replay") && script.contains("compact"), "{shell}");
    }
    run(&["completions", "tcsh"]).fails(2, &["possible values"]);
    let bash = std::process::Command::new("bash").args(["-n", "-c"]).arg(run(&["completions", "bash"]).out).status();
    assert!(bash.is_ok_and(|status| status.success()));
}

#[test]
fn manual_pages() {
    let scratch = Scratch::new();
    run(&["man", &scratch.join("man1")]).ok();
    let page = std::fs::read_to_string(scratch.join("man1/pvera.1")).unwrap();
    assert!(page.contains(".TH pvera 1") && page.contains("130 stopped"), "{page}");
    assert!(std::fs::exists(scratch.join("man1/pvera-bank-create.1")).unwrap());
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let scratch = Scratch::new();
    let list: String = (0..20_000).map(|number| format!("{number:064}={}\n", golden("two_adapters/first"))).collect();
    let bank = scratch.join("bank");
    run_with_input(&["bank", "create", &bank, "--list", "-"], &list).ok();
    // More than a pipe holds.
    let mut child = command(&["bank", "list", &bank]).spawn().unwrap();
    let mut first = [0; 65];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"000"));
    let run = finished(child);
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{run:?}");
}

#[test]
fn a_full_disk_is_a_failure() {
    let full = std::fs::File::create("/dev/full").unwrap();
    let child = command(&["completions", "bash"]).stdout(full).spawn().unwrap();
    let run = finished(child);
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.err.contains("could not write to stdout"));
}

#[test]
fn a_file_that_grows_too_large_is_a_failure_and_leaves_nothing() {
    let scratch = Scratch::new();
    let limited = |command: &str| {
        let line = format!("ulimit -f 1; exec \"$0\" {command}");
        let mut shell = std::process::Command::new("sh");
        let pipes = (std::process::Stdio::piped(), std::process::Stdio::piped());
        let shell = shell.args(["-c", &line, env!("CARGO_BIN_EXE_pvera")]).stdout(pipes.0).stderr(pipes.1);
        finished(shell.spawn().unwrap()).fails(3, &["File too large"]);
        assert_eq!(scratch.names(), Vec::<String>::new(), "{command}");
    };
    let (folder, out) = (golden("train_step"), scratch.join("out"));
    limited(&format!("grow {} {out} --in-max 4000", golden("seed_only")));
    limited(&format!("export gguf {folder} {out} --inputs 40 --architecture x --tensor q_proj=q --tensor v_proj=v"));
    limited(&format!("export lora {folder} {out} --inputs 40"));
    limited(&format!("merge {folder} {folder}/base.safetensors {out}"));
    limited(&format!("bank create {out} {folder}"));
}

#[test]
fn what_a_kill_left_is_removed_by_the_next() {
    let scratch = Scratch::new();
    let (folder, out) = (golden("train_step"), scratch.join("out"));
    let told = ["--architecture", "x", "--tensor", "q_proj=q", "--tensor", "v_proj=v", "--inputs", "40"];
    for (left, arguments) in [
        (".out.pvera-whole-0", &["merge", &folder, &golden("train_step/base.safetensors"), &out][..]),
        (".out.pvera-7", &["shrink", &folder, &out, "--force"]),
        (".bank.pvera-whole-3", &["bank", "create", &scratch.join("bank"), &folder]),
        (".gguf.pvera-whole-0", &[&["export", "gguf", &folder, &scratch.join("gguf")], &told[..]].concat()),
    ] {
        std::fs::create_dir(scratch.join(left)).unwrap();
        std::fs::write(scratch.join(left) + "/" + TENSORS, "half").unwrap();
        run(arguments).ok();
        assert!(!scratch.names().iter().any(|name| name.starts_with('.')), "{arguments:?}: {:?}", scratch.names());
    }
}

#[test]
fn names_do_not_speak_to_the_terminal() {
    let scratch = Scratch::new();
    let name = "a\u{1b}[31m\nb\u{9b}2J";
    let bank = scratch.join("bank");
    run(&["bank", "create", &bank, &format!("{name}={}", golden("two_adapters/first"))]).ok();
    run(&["bank", "list", &bank]).ok().says(&["a\\u{1b}[31m\\nb\\u{9b}2J\n"]);
    assert_eq!(json(&["bank", "list", &bank]).0["adapters"][0], name);
    let failed = run(&["inspect", &scratch.join(name)]).fails(3, &["a\\u{1b}[31m"]);
    assert!(!failed.err.contains(['\u{1b}', '\u{9b}']), "{failed:?}");
    let warned = run(&["bank", "add", &bank, &format!("{name}={}", golden("two_adapters/first"))]);
    assert!(!warned.fails(3, &["already"]).err.contains('\u{1b}'));
}

#[test]
fn an_interrupted_draw_leaves_nothing() {
    let scratch = Scratch::new();
    for signal in [2, 15] {
        let (folder, out) = (golden("seed_only"), scratch.join("out"));
        for arguments in [
            &["grow", &folder, &out, "--in-max", "20000000"][..],
            &["bank", "create", &out, &folder, "--inputs", "20000000"],
            &["combine", &folder, &out, "--inputs", "20000000"],
        ] {
            let child = command(arguments).spawn().unwrap();
            interrupt(&child, signal);
            finished(child).fails(130, &["error: stopped; nothing was written"]);
            assert_eq!(scratch.names(), Vec::<String>::new());
        }
        let child = command(&["grow", &folder, &out, "--in-max", "20000000", "--json"]).spawn().unwrap();
        interrupt(&child, signal);
        let run = finished(child);
        assert_eq!(run.code, 130);
        let value: Value = serde_json::from_str(&run.out).unwrap();
        assert_eq!(value["error"]["code"], "PVERA_ERROR_CANCELLED");
    }
}

#[test]
fn an_interrupted_merge_leaves_what_was_there() {
    let scratch = Scratch::new();
    let (model, out) = (scratch.join("model.safetensors"), scratch.join("out"));
    // A hole of two gigabytes behind the weights.
    let mut tensors = tensors_of(golden("train_step/base.safetensors"));
    tensors.insert("z".into(), (safetensors::Dtype::U8, vec![0], Vec::new()));
    write_tensors(&model, &tensors);
    let bytes = std::fs::read(&model).unwrap();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let mut value: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let (end, hole) = (bytes.len() - 8 - header, 2_usize << 30);
    value["z"] = serde_json::json!({"dtype": "U8", "shape": [hole], "data_offsets": [end, end + hole]});
    let header = value.to_string();
    let head = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes[bytes.len() - end..]].concat();
    std::fs::write(&model, &head).unwrap();
    std::fs::File::options().write(true).open(&model).unwrap().set_len((head.len() + hole) as u64).unwrap();
    std::fs::create_dir(&out).unwrap();
    std::fs::write(format!("{out}/mine"), "kept").unwrap();
    let child = command(&["merge", &golden("train_step"), &model, &out, "--force"]).spawn().unwrap();
    while !std::fs::exists(scratch.join(".out.pvera-whole-0/model.safetensors")).unwrap() {
        std::thread::yield_now();
    }
    send(&child, 2);
    finished(child).fails(130, &["stopped"]);
    assert_eq!(scratch.names(), ["model.safetensors", "out"]);
    assert_eq!(std::fs::read_to_string(format!("{out}/mine")).unwrap(), "kept");
}

#[test]
fn waiting_for_input_ends_at_once() {
    let folder = golden("train_step");
    let mut command = command(&["replay", &folder, "--layer", "q_proj", "--input", "-"]);
    let child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    send(&child, 2);
    let mut child = child;
    assert_eq!(child.wait().unwrap().code(), None, "the signal ended it");
}

#[test]
fn paths_need_not_be_utf_8() {
    use std::os::unix::ffi::OsStrExt;
    let scratch = Scratch::new();
    let name = std::ffi::OsStr::from_bytes(b"out\xff");
    let out = std::path::Path::new(&scratch.join("")).join(name);
    let (folder, base) = (golden("train_step"), golden("train_step/base.safetensors"));
    let told = |arguments: &[&str], path: &std::path::Path| {
        let run = finished(command(arguments).arg(path).arg("--json").spawn().unwrap()).ok();
        assert!(run.out.contains("out\u{fffd}"), "{run:?}");
    };
    told(&["merge", &folder, &base], &out);
    told(&["inspect"], &out.join("base.safetensors"));
    let checkpoint = out.with_file_name(std::ffi::OsStr::from_bytes(b"out\xfe"));
    std::os::unix::fs::symlink(&folder, &checkpoint).unwrap();
    told(&["inspect"], &checkpoint);
    told(&["verify"], &checkpoint);
}
