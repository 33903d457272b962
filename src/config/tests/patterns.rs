//! Patterns that must neither hang, nor exhaust memory, nor mean something else than in Python.

use crate::config::Config;
use crate::config::pattern::Pattern;
use crate::config::python::{Fault, translate};
use crate::error::{Code, Result};

fn full(source: &str, path: &str) -> Result<bool> {
    Pattern::full("target_modules", source)?.matches(path)
}

#[test]
fn runaway_patterns_are_errors() {
    // Look-around keeps these from the engine that takes linear time.
    for source in
        [r"(?:(?=a)a+)+b", r"(?:(?:a|a(?=))*)*b", r"(?:(a+)\1?)+b", r"(?:(?!x).)*(?:(?!y).)*(?:(?!z).)*(?:(?!w).)*b"]
    {
        let error = full(source, &"a".repeat(300)).unwrap_err();
        assert_eq!(error.code(), Code::Config, "{source}");
        assert!(error.message().contains("steps back") && error.message().contains(&format!("{source:?}")), "{error}");
    }
    assert!(!full(r"(?:a+)+b", &"a".repeat(300)).unwrap());
}

#[test]
fn large_patterns_are_errors() {
    let long = "a".repeat(2_001);
    let deep = format!("{}{}", "(".repeat(41), ")".repeat(41));
    let repeated = r"\w{20001}";
    let nested = r"(?:(?:(?:a{100}){100}){100}){100}";
    let classes = r"\w{600}";
    let words = r"\b".repeat(900);
    let around = r"(?=\w{9}){999}".repeat(100);
    let empty = r"(?:(?:(?:){9999}){9999}){9999}";
    for source in
        [long.as_str(), &deep, repeated, nested, classes, &words, &around, empty, "(?i)(?:k{1000}){19}(?:k{1000}){2}"]
    {
        let error = full(source, "a").unwrap_err();
        assert_eq!(error.code(), Code::Config, "{source}");
        assert!(error.message().starts_with("target_modules"), "{error}");
        assert!(error.message().len() < 400, "{error}");
    }
}

#[test]
fn many_patterns_are_bounded_together() {
    let save = |entries: Vec<String>| Config { modules_to_save: Some(entries), ..Config::default() }.validate();
    save((0..500).map(|block| format!("base_model.model.model.layers.{block}.self_attn.q_proj")).collect()).unwrap();
    for entries in [vec![r"\w{99}".into(); 100_000], vec!["head".into(); 100_000]] {
        let error = save(entries).unwrap_err();
        assert!(error.code() == Code::Config && error.message().starts_with("modules_to_save: 100000"), "{error}");
    }
}

#[test]
fn what_only_python_has_is_named() {
    for (source, what) in [
        ("(a)?(?(1)b|c)", "conditional"),
        (r"\N{DIGIT ONE}", "named character"),
        ("(?x) a", "'x'"),
        ("(?m)^a$", "'m'"),
        (r"(?a:\w)", "'a'"),
    ] {
        let error = full(source, "a").unwrap_err();
        assert_eq!(error.code(), Code::Unsupported, "{source}");
        assert!(error.message().contains(what), "{error}");
    }
}

#[test]
fn what_the_engine_reads_otherwise_keeps_pythons_meaning() {
    for (source, path, wanted) in [
        (r"a\Z", "a\n", false),
        (r"a$", "a\n", false),
        (r"a$\n", "a\n", true),
        (r"a$\n.", "a\nb", false),
        (r"[a&&b]+", "&a", true),
        (r"[[a]+", "[a", true),
        (r"[]a]+", "]a", true),
        (r"[^]a]+", "b", true),
        (r"[a\-z]+", "-", true),
        (r"[a\-z]+", "b", false),
        (r"[+--]+", "+,-", true),
        (r"[a-]+", "-a", true),
        (r"[\b]", "\u{8}", true),
        (r"[\w-]+", "a-b", true),
        (r"[\101]", "A", true),
        (r"\101\x42\u0043\U00000044\0", "ABCD\0", true),
        (r"\w+", "ab²½_", true),
        (r"\s", "\u{1c}", true),
        (r"\S", "\u{1c}", false),
        (r"[^\S]", "\u{1c}", true),
        (r"(a)\1{2}", "aaa", true),
        (r"(a)(?:\1)0", "aa0", true),
        (r"a{,2}", "aa", true),
        (r"a{,}", "aaa", true),
        (r"a{2", "a{2", true),
        (r"{}", "{}", true),
        (r"a{1,2}{", "aa{", true),
        (r"a b#c", "a b#c", true),
        (r"(?P<x>a)|(?P<y>b)", "b", true),
        (r"(?P<x>a)(?P=x)", "aa", true),
        (r"a|ab", "ab", true),
        (r"a?+a", "a", false),
        (r"(?>a|ab)c", "abc", false),
        (r"(?s:.)", "\n", true),
        (r".", "\n", false),
        (r"(?iu)É", "é", true),
        (r"(?#()a(?#x)+", "aa", true),
        (r"\.\*\+\-\ ", ".*+- ", true),
        (r"\é", "é", true),
        (r"(?=a)*b", "b", true),
        (r"(?:)+(?=b){2}+(?!c)*?b", "b", true),
        (r"(?=a)+b", "b", false),
        (r"(?!)", "", false),
        (r"²\b", "²", true),
        (r"\B", "", false),
        (r"a\Ab", "ab", false),
    ] {
        assert_eq!(full(source, path).unwrap_or_else(|error| panic!("{error}")), wanted, "{source:?} on {path:?}");
    }
}

#[test]
fn what_python_refuses_is_invalid() {
    for source in [
        "(",
        ")",
        "(?",
        "(?<a>b)",
        "(?Px)",
        "(?P<",
        "(?P<a",
        "(?P<>a)",
        "(?P<a>b)(?P<a>c)",
        "(?P=a)",
        "(?#",
        "(?i",
        "(?-)",
        "(?i-:a)",
        "(?y)",
        "a(?i)b",
        "a**",
        "a{2}{2}",
        "a?*",
        "*",
        "+a",
        "|*",
        "(*a)",
        "^*",
        r"\b+",
        "{2}",
        "a{3,2}",
        "[",
        "[^",
        "[]",
        "[a",
        "[b-a]",
        r"[\d-a]",
        r"[a-\d]",
        r"\",
        r"[\",
        r"\1",
        r"(\1)",
        r"(a)\2",
        r"\400",
        r"\x4",
        r"\u004",
        r"\UFFFFFFFF",
        r"\y",
        r"[\y]",
        r"\8",
        r"[\8]",
        "(?<=a*)b",
        "(?<=a|bc)d",
        "(?<!a?)b",
        r"\p{L}",
        "(?~a)",
        r"\K",
    ] {
        assert!(matches!(translate(source), Err(Fault::Invalid(_))), "{source}: {:?}", translate(source));
    }
}

#[test]
fn no_text_makes_the_translator_or_the_engine_panic() {
    const PIECES: [&str; 28] = [
        "(", ")", "[", "]", "{", "}", "\\", "?", "*", "+", "|", "^", "$", ".", "a", "1", ",", "-", "P", "<", ">", "=",
        "!", ":", "é", "i", "#", "0",
    ];
    let mut state = 1_u64;
    let mut valid = 0;
    for _ in 0..4_000 {
        let mut source = String::new();
        for _ in 0..(state >> 33) % 9 + 1 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            source.push_str(PIECES[(state >> 33) as usize % PIECES.len()]);
        }
        state = state.wrapping_add(1);
        if let Ok(pattern) = Pattern::full("target_modules", &source) {
            valid += 1;
            let _ = pattern.matches("model.layers.1.é");
        } else if let Ok(translated) = translate(&source) {
            panic!("{source:?} is valid Python, but {:?} is refused: {:?}", translated.regex, full(&source, "a"));
        }
    }
    assert!(valid > 300, "{valid}");
}

#[test]
fn a_table_made_by_python_is_matched() {
    let table: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/data/patterns_python.json")).unwrap();
    let texts: Vec<_> = table["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let rows = table["rows"].as_array().unwrap();
    assert_eq!((texts.len(), rows.len()), (21, 2000));
    for row in rows {
        let source = row[0].as_str().unwrap();
        let ours = Pattern::full("target_modules", source).ok().map(|pattern| {
            let digits = texts.iter().map(|text| if pattern.matches(text).unwrap() { '1' } else { '0' });
            digits.collect::<String>()
        });
        assert_eq!(ours.as_deref(), row[1].as_str(), "{source}");
    }
}
