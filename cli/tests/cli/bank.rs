//! `pvera bank`.

use serde_json::{Value, json};

use crate::support::*;

fn names(bank: &str) -> Value {
    json(&["bank", "list", bank]).0["adapters"].clone()
}

#[test]
fn a_folder_of_folders() {
    let scratch = Scratch::new();
    let bank = scratch.join("bank");
    let (value, code) = json(&["bank", "create", &bank, &golden("two_adapters")]);
    assert_eq!((code, &value["adapters"], &value["command"]), (0, &json!(2), &json!("bank create")), "{value}");
    assert_eq!(value["bytes"], std::fs::metadata(&bank).unwrap().len());
    assert_eq!(names(&bank), json!(["first", "second"]));
    run(&["bank", "list", &bank]).ok().says(&["first\nsecond\n"]);
    assert_eq!(scratch.names(), ["bank"]);
}

#[test]
fn thousands_by_name_from_a_list() {
    let scratch = Scratch::new();
    let bank = scratch.join("bank");
    let list: String = (0..3000).map(|number| format!("user/{number}={}\n\n", golden("two_adapters/first"))).collect();
    let run = run_with_input(&["bank", "create", &bank, "--list", "-", "--dtype", "bf16", "--json"], &list).ok();
    assert_eq!(serde_json::from_str::<Value>(&run.out).unwrap()["adapters"], 3000);
    let names = names(&bank);
    assert_eq!([&names[0], &names[2999]], [&json!("user/0"), &json!("user/2999")]);
    let value = json(&["inspect", &bank]).0;
    assert_eq!([&value["families"][0]["adapters"], &value["families"][0]["rank"]], [&json!(3000), &json!(8)]);
    // 56 numbers of 16 bits, and what finds them; A and B once.
    assert!(value["bytes"].as_u64().unwrap() < 3000 * 260, "{value}");
    assert_eq!(json(&["verify", &bank]).1, 0);
}

#[test]
fn how_projections_are_drawn_is_told() {
    let scratch = Scratch::new();
    let bank = scratch.join("bank");
    let rounding = ["--inputs", "40", "--base-dtype", "bf16"];
    run(&[&["bank", "create", &bank, &golden("seed_only")], &rounding[..]].concat()).ok();
    let drawn = &json(&["inspect", &bank]).0["families"][0]["projections"];
    assert_eq!(
        [&drawn["saved"], &drawn["base_dtype"], &drawn["int8_grid"]],
        [&json!(false), &json!("bf16"), &json!(false)]
    );
    run(&["inspect", &bank]).ok().says(&["drawn from the key, rounded to bf16"]);
}

#[test]
fn adapters_come_and_go() {
    let scratch = Scratch::new();
    let bank = scratch.join("bank");
    let small = scratch.join("small");
    run(&["shrink", &golden("train_step"), &small]).ok();
    run(&["bank", "create", &bank, &format!("a={}", golden("train_step"))]).ok();
    run(&["bank", "add", &bank, &small]).fails(3, &["does not say how many inputs"]);
    run(&["bank", "add", &bank, &small, "--model", &golden("train_step/base.safetensors")]).ok();
    run(&["bank", "add", &bank, &golden("seed_only"), "--inputs", "40"])
        .fails(3, &["48 outputs in one adapter and 56 in another", "of one network"]);
    let value = json(&["inspect", &bank]).0;
    let stores: Vec<&Value> =
        value["families"].as_array().unwrap().iter().map(|family| &family["projections"]["store"]).collect();
    assert_eq!(stores, [&json!(0), &json!(0)], "drawn and saved ones are the same");
    assert_eq!(names(&bank), json!(["a", "small"]));
    run(&["bank", "remove", &bank, "a"]).ok();
    assert_eq!(names(&bank), json!(["small"]));
    let before = std::fs::metadata(&bank).unwrap().len();
    let (value, _) = json(&["bank", "compact", &bank]);
    assert_eq!([&value["bytes_before"], &value["adapters"]], [&json!(before), &json!(1)]);
    assert!(value["bytes"].as_u64().unwrap() < before, "{value}");
    assert_eq!(scratch.names(), ["bank", "small"]);
}

#[test]
fn names_that_are_taken_and_names_that_are_none() {
    let scratch = Scratch::new();
    let bank = scratch.join("bank");
    let (first, second) = (golden("two_adapters/first"), golden("two_adapters/second"));
    run(&["bank", "create", &bank, &format!("a={first}")]).ok();
    run(&["bank", "add", &bank, &format!("a={second}")]).fails(3, &["of the name 'a' already", "--force"]);
    run(&["bank", "add", &bank, &format!("a={second}"), "--force"]).ok();
    assert_eq!(names(&bank), json!(["a"]));
    assert_eq!(error_code(&["bank", "remove", &bank, "a", "b"], 3), "PVERA_ERROR_NOT_FOUND");
    assert_eq!(names(&bank), json!(["a"]), "all or none");
    assert_eq!(
        error_code(&["bank", "add", &bank, &format!("x={first}"), &format!("x={second}")], 3),
        "PVERA_ERROR_ARGUMENT"
    );
    run(&["bank", "add", &bank]).fails(2, &["no checkpoint folder to add"]);
    run(&["bank", "create", &scratch.join("new"), &scratch.join("")]).fails(3, &["no folder with one"]);
    assert_eq!(scratch.names(), ["bank"]);
}

#[test]
fn a_file_that_is_there_needs_force_and_one_that_fails_leaves_none() {
    let scratch = Scratch::new();
    let file = scratch.write("file", "mine");
    let folder = golden("two_adapters/first");
    run(&["bank", "create", &file, &folder]).fails(3, &["exists", "--force replaces it"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    run(&["bank", "create", &file, &golden("bias_and_head"), "--force"]).fails(3, &["a bank holds vectors only"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    run(&["bank", "create", &file, &folder, "--force"]).ok();
    assert_eq!(names(&file), json!(["first"]));
    run(&["bank", "create", &scratch.join("new"), &folder, &scratch.join("nothing")]).fails(3, &["could not open"]);
    assert_eq!(scratch.names(), ["file"]);
}

#[test]
fn files_that_are_no_banks() {
    let scratch = Scratch::new();
    run(&["bank", "list", &scratch.join("nothing")]).fails(3, &["could not open"]);
    assert_eq!(error_code(&["bank", "list", &scratch.write("text", "x")], 3), "PVERA_ERROR_FORMAT");
    let bank = scratch.join("bank");
    run(&["bank", "create", &bank, &golden("two_adapters")]).ok();
    let bytes = std::fs::read(&bank).unwrap();
    std::fs::write(&bank, &bytes[..bytes.len() - 1]).unwrap();
    assert!(run(&["bank", "list", &bank]).ok().err.contains("it was cut short"));
    assert_eq!(json(&["verify", &bank]).1, 1);
    std::fs::write(&bank, &bytes[..4095]).unwrap();
    run(&["bank", "list", &bank]).fails(3, &["has 4095 bytes; wanted a bank"]);
}

#[test]
fn only_one_program_writes() {
    let scratch = Scratch::new();
    let path = scratch.join("bank");
    run(&["bank", "create", &path, &golden("two_adapters")]).ok();
    let held = std::fs::File::open(&path).unwrap();
    held.lock().unwrap();
    assert_eq!(error_code(&["bank", "remove", &path, "first"], 3), "PVERA_ERROR_STATE");
    run(&["bank", "list", &path]).ok();
    drop(held);
    run(&["bank", "remove", &path, "first"]).ok();
}

#[test]
fn a_folder_is_named_as_it_is_really_called() {
    let scratch = Scratch::new();
    let copy = scratch.copy("two_adapters/first");
    let child = command(&["bank", "create", "../bank", "."]).current_dir(&copy).spawn().unwrap();
    finished(child).ok();
    assert_eq!(names(&scratch.join("bank")), json!(["copy"]));
}

#[test]
fn what_goes_in_comes_out() {
    let scratch = Scratch::new();
    let (bank, out) = (scratch.join("bank"), scratch.join("out"));
    run(&["bank", "create", &bank, &golden("two_adapters"), &format!("bf16={}", golden("base_bf16"))])
        .fails(3, &["one network"]);
    run(&["bank", "create", &bank, &golden("two_adapters")]).ok();
    let (value, code) = json(&["bank", "extract", &bank, "second", &out]);
    assert_eq!((code, &value["name"], &value["layers"]), (0, &json!("second"), &json!(1)), "{value}");
    assert_eq!(tensors_of(format!("{out}/{TENSORS}")), tensors_of(golden("two_adapters/second") + "/" + TENSORS));
    let config = |folder: &str| serde_json::from_slice::<Value>(&std::fs::read(format!("{folder}/{CONFIG}")).unwrap());
    assert_eq!(config(&out).unwrap(), config(&golden("two_adapters/second")).unwrap());
    run(&["bank", "extract", &bank, "first", &out]).fails(3, &["exists", "--force"]);
    run(&["bank", "extract", &bank, "first", &out, "--force"]).ok();
    assert_eq!(tensors_of(format!("{out}/{TENSORS}")), tensors_of(golden("two_adapters/first") + "/" + TENSORS));
    assert_eq!(error_code(&["bank", "extract", &bank, "third", &scratch.join("new")], 3), "PVERA_ERROR_NOT_FOUND");
    run(&["bank", "extract", &golden("two_adapters/first"), "first", &scratch.join("new")])
        .fails(3, &["is not a file"]);
    assert_eq!(scratch.names(), ["bank", "out"]);
}

#[test]
fn what_a_folder_does_not_hold_is_told() {
    let scratch = Scratch::new();
    let (bank, out) = (scratch.join("bank"), scratch.join("out"));
    run(&["bank", "create", &bank, &golden("seed_only"), "--inputs", "48", "--base-dtype", "bf16"]).ok();
    let (value, _) = json(&["bank", "extract", &bank, "seed_only", &out]);
    assert_eq!((&value["base_dtype"], &value["in_max"]), (&json!("bf16"), &json!(48)), "{value}");
    let told = run(&["bank", "extract", &bank, "seed_only", &out, "--force"]).ok();
    assert!(told.out.contains("; its load is to be told base_dtype bf16, in_max 48, out_max "), "{told:?}");
    run(&["bank", "create", &bank, &golden("train_step"), "--force"]).ok();
    assert_eq!(json(&["bank", "extract", &bank, "train_step", &out, "--force"]).0["base_dtype"], Value::Null);
}

#[test]
fn damage_brings_nothing_back() {
    let scratch = Scratch::new();
    let bank = scratch.join("bank");
    let (first, second) = (golden("two_adapters/first"), golden("two_adapters/second"));
    let others: Vec<String> = (0..20).map(|number| format!("n{number}={first}")).collect();
    let create: Vec<&str> = others.iter().map(String::as_str).collect();
    run(&[&["bank", "create", &bank, &format!("X={first}"), &format!("GONE={first}")], &create[..]].concat()).ok();
    run(&["bank", "add", &bank, &format!("X={second}"), "--force"]).ok();
    run(&["bank", "remove", &bank, "GONE"]).ok();
    // The newest segment: two items of 40 bytes and their names, at the end.
    let mut bytes = std::fs::read(&bank).unwrap();
    let items = bytes.len() - 2 * 40 - "XGONE".len();
    for item in [items, items + 40] {
        bytes[item + 9] ^= 4;
    }
    std::fs::write(&bank, bytes).unwrap();
    let listed = run(&["bank", "list", &bank]).ok();
    assert!(
        listed.err.contains("'X' is damaged and left out") && listed.err.contains("'GONE' is damaged"),
        "{listed:?}"
    );
    assert_eq!(listed.out.lines().count(), 20, "{listed:?}");
    for name in ["X", "GONE"] {
        run(&["bank", "extract", &bank, name, &scratch.join("out")]).fails(3, &["holds no adapter of the name"]);
    }
    run(&["bank", "compact", &bank]).fails(3, &["damaged"]);
    run(&["bank", "compact", &bank, "--repair"]).ok();
    assert_eq!(names(&bank).as_array().unwrap().len(), 20);
    assert_eq!(json(&["verify", &bank]).1, 0);
}

#[test]
fn what_wants_a_checkpoint_says_that_it_got_a_bank() {
    let scratch = Scratch::new();
    let (bank, out) = (scratch.join("bank"), scratch.join("out"));
    run(&["bank", "create", &bank, &golden("two_adapters")]).ok();
    let base = golden("train_step/base.safetensors");
    for arguments in [
        &["merge", &bank, &base, &out][..],
        &["export", "lora", &bank, &out],
        &["export", "gguf", &bank, &out, "--architecture", "llama"],
        &["shrink", &bank, &out],
        &["grow", &bank, &out, "--in-max", "40"],
        &["combine", &golden("two_adapters/first"), &bank, &out],
        &["bank", "create", &out, &bank],
        &["bank", "add", &bank, &format!("a={bank}")],
    ] {
        run(arguments).fails(3, &["is a bank of adapters; wanted a checkpoint folder", "pvera bank extract"]);
    }
    assert_eq!(scratch.names(), ["bank"]);
}

#[test]
fn a_bank_does_not_replace_what_it_is_made_of() {
    let scratch = Scratch::new();
    let folder = scratch.copy("two_adapters/first");
    let file = format!("{folder}/{TENSORS}");
    run(&["bank", "create", &file, &folder, "--force"]).fails(3, &["another OUT is wanted"]);
    assert!(tensors_of(&file).len() > 2);
}

#[test]
fn folders_need_not_be_utf_8_where_they_are_named() {
    use std::os::unix::ffi::OsStrExt;
    let scratch = Scratch::new();
    let folder = std::path::Path::new(&scratch.join("")).join(std::ffi::OsStr::from_bytes(b"x\xff"));
    std::os::unix::fs::symlink(golden("two_adapters/first"), &folder).unwrap();
    let copy = folder.with_file_name(std::ffi::OsStr::from_bytes(b"y\xff"));
    std::fs::create_dir(&copy).unwrap();
    for name in [CONFIG, TENSORS] {
        std::fs::copy(folder.join(name), copy.join(name)).unwrap();
    }
    let mut word = std::ffi::OsString::from("a=");
    word.push(&folder);
    let bank = scratch.join("bank");
    finished(command(&["bank", "create", &bank]).arg(&word).spawn().unwrap()).ok();
    let list = scratch.join("list");
    std::fs::write(&list, [b"b=", folder.as_os_str().as_bytes(), b"\n"].concat()).unwrap();
    run(&["bank", "add", &bank, "--list", &list]).ok();
    assert_eq!(names(&bank), json!(["a", "b"]));
    let unnamed = finished(command(&["bank", "add", &bank]).arg(&copy).spawn().unwrap());
    unnamed.fails(3, &["is not UTF-8", "NAME=FOLDER gives another"]);
    finished(command(&["bank", "add", &bank]).arg(std::ffi::OsStr::from_bytes(b"\xff=x")).spawn().unwrap())
        .fails(2, &["the name before = is not UTF-8"]);
}
