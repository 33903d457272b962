//! Mutations of PTX: that each class is found in its place, that one is applied when a module is loaded, and that it then shows.

mod support;

use cuda::ptx::mutate::{Class, mutants};
use cuda::ptx::parser::parse;
use support::*;

/// a[thread] = fma(thread, 2, 1) + words[thread] after a barrier; line 10 of the PTX.
const BODY: &str = "mov.u32 %r2, words; shl.b32 %r3, %r1, 2; add.s32 %r4, %r2, %r3; st.shared.u32 [%r4], %r1; bar.sync 0; \
                    ld.shared.u32 %r5, [%r4]; cvt.rn.f32.u32 %f1, %r5; mov.f32 %f2, 0f40000000; mov.f32 %f3, 0f3F800000; \
                    fma.rn.f32 %f4, %f1, %f2, %f3; add.rn.f32 %f4, %f4, %f1; setp.lt.u32 %p1, %r1, 7; @!%p1 mov.f32 %f4, 0f00000000; \
                    mul.wide.u32 %rd4, %r1, 4; add.s64 %rd5, %rd1, %rd4; st.global.f32 [%rd5], %f4;";

fn source() -> String {
    kernel(".shared .align 4 .b8 words[32];", BODY)
}

fn listed() -> Vec<(Class, String)> {
    let module = parse(&source()).unwrap();
    mutants(&module.entries[0])
        .iter()
        .map(|mutant| (mutant.class, format!("{} => {}", mutant.original, mutant.text())))
        .collect()
}

fn outcome() -> Result<Vec<f32>, i32> {
    let memory = upload(&[-1f32; 8]);
    let code = run(&source(), 1, 8, [memory, 0, 0]);
    if code == 0 { download(memory, 8) } else { Err(code) }
}

#[test]
fn every_class_is_listed() {
    let listed = listed();
    for (class, text) in [
        (Class::Arithmetic, "add.s32 %r4, %r2, %r3; => sub.s32 %r4, %r2, %r3;"),
        (Class::Arithmetic, "add.rn.f32 %f4, %f4, %f1; => mul.rn.f32 %f4, %f4, %f1;"),
        (Class::Arithmetic, "fma.rn.f32 %f4, %f1, %f2, %f3; => fma.rn.f32 %f4, %f1, %f2, 0f00000000;"),
        (Class::Arithmetic, "fma.rn.f32 %f4, %f1, %f2, %f3; => fma.rn.f32 %f4, %f1, %f3, %f2;"),
        (
            Class::Arithmetic,
            "fma.rn.f32 %f4, %f1, %f2, %f3; => neg.f32 %mutant_f32, %f1; fma.rn.f32 %f4, %mutant_f32, %f2, %f3;",
        ),
        (Class::Comparison, "setp.lt.u32 %p1, %r1, 7; => setp.le.u32 %p1, %r1, 7;"),
        (Class::Address, "st.global.f32 [%rd5], %f4; => st.global.f32 [%rd5+4], %f4;"),
        (Class::Address, "st.global.f32 [%rd5], %f4; => st.global.f32 [%rd5+-4], %f4;"),
        (Class::Barrier, "bar.sync 0; => (removed)"),
        (Class::Rounding, "fma.rn.f32 %f4, %f1, %f2, %f3; => fma.rz.f32 %f4, %f1, %f2, %f3;"),
        (Class::Rounding, "cvt.rn.f32.u32 %f1, %r5; => cvt.rz.f32.u32 %f1, %r5;"),
        (Class::Constant, "setp.lt.u32 %p1, %r1, 7; => setp.lt.u32 %p1, %r1, 8;"),
        (Class::Constant, "mov.f32 %f2, 0f40000000; => mov.f32 %f2, 0f40000001;"),
        (Class::Branch, "@!%p1 mov.f32 %f4, 0f00000000; => @%p1 mov.f32 %f4, 0f00000000;"),
        (Class::Effect, "st.global.f32 [%rd5], %f4; => (removed)"),
    ] {
        assert!(listed.contains(&(class, text.to_string())), "{class:?} {text}");
    }
}

#[test]
fn mutants_run_and_most_of_them_show() {
    let expected = {
        let _device = Device::new();
        outcome().unwrap()
    };
    assert_eq!(expected, [1.0, 4.0, 7.0, 10.0, 13.0, 16.0, 19.0, 0.0]);
    let listed = listed();
    let mut survivors = Vec::new();
    for (index, (class, text)) in listed.iter().enumerate() {
        let _device = Device::new();
        set("PVERA_DOUBLE_MUTANT=test", index as u64);
        set("PVERA_DOUBLE_STEPS", 10_000);
        let result = outcome();
        assert_ne!(result, Err(218), "{text}: {}", report());
        if result.as_ref() == Ok(&expected) {
            survivors.push((*class, text));
        }
    }
    // Small whole numbers do not show how they are rounded; a barrier that only orders a thread with itself can go; so can changes of
    // what is not read.
    let telling: Vec<_> =
        survivors.iter().filter(|(class, _)| !matches!(class, Class::Rounding | Class::Barrier)).collect();
    assert!(telling.len() <= listed.len() / 8, "{telling:?}");
}

#[test]
fn a_mutation_that_is_not_there_is_a_fault() {
    let _device = Device::new();
    set("PVERA_DOUBLE_MUTANT=test", 100_000);
    assert!(outcome().is_ok());
    assert_reported(&["there is no such mutation"]);
    // Modules without the entry are left alone.
    pvera_reset();
    set("PVERA_DOUBLE_MUTANT=other", 0);
    assert!(outcome().is_ok());
    assert_eq!(report(), "");
    set("PVERA_DOUBLE_MUTANT=*", 0);
    outcome().ok();
}

#[test]
fn the_program_lists_them() {
    let path = std::env::temp_dir().join(format!("pvera-double-{}.ptx", std::process::id()));
    std::fs::write(&path, source()).unwrap();
    let program = || std::process::Command::new(env!("CARGO_BIN_EXE_mutants"));
    let output = program().arg(&path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    let fields: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(fields.len(), listed().len());
    assert!(
        fields
            .iter()
            .enumerate()
            .all(|(at, fields)| fields.len() == 8 && fields[1] == "test" && fields[2] == at.to_string())
    );
    assert!(program().arg("--check").arg(&path).status().unwrap().success());
    std::fs::remove_file(&path).unwrap();
}
