//! What is written is no more public than what it is made of, and than what it replaces.

use std::fs::{Permissions, metadata, read_dir, set_permissions};
use std::os::unix::fs::PermissionsExt;

use crate::support::*;

fn mode(path: &str) -> u32 {
    metadata(path).unwrap().permissions().mode() & 0o777
}

fn chmod(path: &str, mode: u32) {
    set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The modes of a file, or of the files in a folder.
fn modes(path: &str) -> Vec<u32> {
    if metadata(path).unwrap().is_file() {
        return vec![mode(path)];
    }
    read_dir(path).unwrap().map(|entry| mode(entry.unwrap().path().to_str().unwrap())).collect()
}

/// Every command that makes a file of a checkpoint, a model and a bank: its arguments, and what it writes.
fn commands(scratch: &Scratch, folder: &str, model: &str) -> Vec<(Vec<String>, String)> {
    let (small, bank) = (scratch.join("small"), scratch.join("bank"));
    let lines = [
        format!("merge {folder} {model} {{}}"),
        format!("export lora {folder} {{}} --model {model}"),
        format!("export gguf {folder} {{}} --model {model} --architecture x --tensor q_proj=q --tensor v_proj=v"),
        format!("shrink {folder} {{}}"),
        format!("grow {small} {{}} --model {model}"),
        format!("combine {folder} {{}} --model {model}"),
        format!("bank create {{}} a={folder}"),
        format!("bank extract {bank} a {{}}"),
        format!("replay {folder} --layer q_proj --input {} --out {{}}", scratch.join("x.json")),
    ];
    let made = |(number, line): (usize, String)| {
        let out = scratch.join(&format!("out-{number}"));
        (line.replace("{}", &out).split(' ').map(str::to_owned).collect(), out)
    };
    lines.into_iter().enumerate().map(made).collect()
}

fn arguments(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// The tests' own umask may be narrower.
fn with_a_common_umask() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
}

#[test]
fn secrets_stay_secret() {
    with_a_common_umask();
    let scratch = Scratch::new();
    let folder = scratch.copy("train_step");
    let (model, small, bank) = (scratch.join("m.safetensors"), scratch.join("small"), scratch.join("bank"));
    std::fs::copy(golden("train_step/base.safetensors"), &model).unwrap();
    let row = format!("[[{}]]", ["1"; 40].join(","));
    let x = scratch.write("x.json", row);
    run(&["shrink", &folder, &small]).ok();
    run(&["bank", "create", &bank, &format!("a={folder}")]).ok();
    for (words, out) in commands(&scratch, &folder, &model) {
        run(&arguments(&words)).ok();
        assert!(modes(&out).iter().all(|mode| mode & 0o044 == 0o044), "public: {words:?} {:?}", modes(&out));
        if metadata(&out).unwrap().is_dir() { std::fs::remove_dir_all(&out) } else { std::fs::remove_file(&out) }
            .unwrap();
    }
    chmod(&format!("{folder}/{TENSORS}"), 0o600);
    chmod(&format!("{small}/{TENSORS}"), 0o640);
    chmod(&bank, 0o600);
    for (words, out) in commands(&scratch, &folder, &model) {
        run(&arguments(&words)).ok();
        let open = modes(&out).into_iter().chain([mode(&out)]).fold(0, |all, mode| all | mode & 0o077);
        assert_eq!(open, if words[0] == "grow" { open & 0o070 } else { 0 }, "{words:?} {:?}", modes(&out));
    }
    // Of a model that is private, the merged one is.
    chmod(&model, 0o600);
    chmod(&format!("{folder}/{TENSORS}"), 0o644);
    let merged = scratch.join("merged");
    run(&["merge", &folder, &model, &merged]).ok();
    assert_eq!((modes(&merged), mode(&merged)), (vec![0o600], 0o700));
    chmod(&x, 0o600);
    let out = scratch.join("y");
    run(&["replay", &folder, "--layer", "q_proj", "--input", &x, "--out", &out]).ok();
    assert_eq!(mode(&out), 0o600);
}

#[test]
fn what_is_replaced_leaves_its_mode() {
    with_a_common_umask();
    let scratch = Scratch::new();
    let (folder, model) = (golden("train_step"), golden("train_step/base.safetensors"));
    let x = scratch.write("x.json", format!("[[{}]]", ["1"; 40].join(",")));
    run(&["shrink", &folder, &scratch.join("small")]).ok();
    run(&["bank", "create", &scratch.join("bank"), &format!("a={folder}")]).ok();
    assert_eq!(mode(&x), 0o644);
    for (words, out) in commands(&scratch, &folder, &model) {
        run(&arguments(&words)).ok();
        let is_folder = metadata(&out).unwrap().is_dir();
        let files: Vec<String> = match is_folder {
            true => [CONFIG, TENSORS].iter().map(|name| format!("{out}/{name}")).collect(),
            false => vec![out.clone()],
        };
        if words[0] == "merge" {
            chmod(&out, 0o711);
        } else {
            files.iter().for_each(|file| chmod(file, 0o604));
        }
        run(&[&arguments(&words)[..], &["--force"]].concat()).ok();
        match &*words[0] {
            "merge" => assert_eq!(mode(&out), 0o711),
            _ => files.iter().for_each(|file| assert_eq!(mode(file), 0o604, "{words:?}")),
        }
    }
}
