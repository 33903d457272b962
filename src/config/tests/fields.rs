//! Getters and setters by name, wrong values for every field, and validation.

use crate::config::{Bias, Config, Method, OneOrMany, Sampling, Targets};
use crate::error::Code;

/// For each field, JSON of the right kind that changes it, and what else it takes of [`ANYTHING`].
const FIELDS: [(&str, &str, &[&str]); 24] = [
    ("alpha", "16.5", &["99999999999999999999", "7", "0.5", "-1"]),
    ("auto_mapping", "{\"a\":1}", &["null", "{}"]),
    ("base_model_name_or_path", "\"x/y\"", &["null", "\"text\""]),
    ("bias", "\"all\"", &[]),
    ("d_initial", "0.25", &["99999999999999999999", "7", "0.5", "-1"]),
    ("fan_in_fan_out", "true", &["true"]),
    ("generator_seed", "3", &["null", "7", "-1"]),
    ("inference_mode", "true", &["true"]),
    ("init_weights", "false", &["true"]),
    ("layers_pattern", "\"h\"", &["null", "\"text\"", "[]", "[\"text\"]"]),
    ("layers_to_transform", "[3]", &["null", "7", "-1", "[]", "[7]"]),
    ("logvar_bound", "20.5", &["99999999999999999999", "null", "7", "0.5", "-1"]),
    ("modules_to_save", "[\"head\"]", &["null", "[]", "[\"text\"]"]),
    ("peft_type", "\"PVERA\"", &[]),
    ("peft_version", "\"0.17.0\"", &["null", "\"text\""]),
    ("projection_prng_key", "18446744073709551615", &["7", "-1"]),
    ("pvera_dropout", "0.125", &["0.5"]),
    ("r", "8", &["7"]),
    ("revision", "\"main\"", &["null", "\"text\""]),
    ("sample_at_inference", "{\"a\":true}", &["true", "{}"]),
    ("save_projection", "false", &["true"]),
    ("target_modules", "[\"q\"]", &["null", "\"text\"", "[]", "[\"text\"]"]),
    ("task_type", "\"CAUSAL_LM\"", &["null"]),
    ("vera_dropout", "0.125", &["0.5"]),
];

const ANYTHING: [&str; 17] = [
    "null",
    "true",
    "7",
    "0.5",
    "-1",
    "1e999",
    "99999999999999999999",
    "\"text\"",
    "\"8\"",
    "[]",
    "[7]",
    "[\"text\"]",
    "[null]",
    "[true]",
    "{}",
    "{\"a\":1}",
    "[[]]",
];

#[test]
fn every_field_has_a_row_here() {
    assert_eq!(Config::field_names().collect::<Vec<_>>(), FIELDS.map(|row| row.0));
}

/// A config of a method that has the field.
fn config_with(field: &str) -> Config {
    Config { method: if field == "vera_dropout" { Method::Vera } else { Method::Pvera }, ..Config::default() }
}

#[test]
fn every_field_is_set_and_read_as_json() {
    for (field, text, _) in FIELDS {
        let mut config = config_with(field);
        config.set_json(field, text).unwrap();
        assert_eq!(config.get_json(field).unwrap(), text);
        assert_eq!(config != config_with(field), field != "peft_type", "{field}");
        config.set_json("layers_to_transform", "1").unwrap();
        assert_eq!(Config::from_json(config.to_json().as_bytes()).unwrap(), config, "{field}");
    }
}

#[test]
fn a_wrong_type_is_an_error_that_names_field_value_and_wanted() {
    for (field, right, taken) in FIELDS {
        for text in ANYTHING {
            // Where strings are free text, so is "8"; where objects are, so is {"a": 1}.
            let free =
                (text == "\"8\"" && taken.contains(&"\"text\"")) || (text == "{\"a\":1}" && field == "auto_mapping");
            let mut config = config_with(field);
            let result = config.set_json(field, text);
            if taken.contains(&text) || free {
                result.unwrap_or_else(|error| panic!("{field} {text}: {error}"));
                assert_eq!(config.get_json(field).unwrap(), text);
                continue;
            }
            let error = result.expect_err(&format!("{field} {text}"));
            assert_eq!(error.code(), Code::Config);
            assert!(
                error.message().starts_with(&format!("{field} is ")) && error.message().contains("wanted"),
                "{error}"
            );
            assert_eq!(config, config_with(field));
            assert_eq!(config.to_json(), config_with(field).to_json());
            let method = if field == "peft_type" {
                String::new()
            } else {
                format!("\"peft_type\": \"{}\", ", config.method.name())
            };
            let read = Config::from_json(format!("{{{method}\"{field}\": {text}}}").as_bytes());
            assert_eq!(read.unwrap_err().message(), error.message(), "{field} {right}");
        }
    }
}

#[test]
fn typed_access_follows_the_kind() {
    let mut config = Config::default();
    config.set_int("r", 12).unwrap();
    config.set_int("projection_prng_key", -1).unwrap();
    config.set_real("pvera_dropout", 0.25).unwrap();
    config.set_int("alpha", 2).unwrap();
    config.set_bool("sample_at_inference", true).unwrap();
    config.set_text("target_modules", "all-linear").unwrap();
    config.set_int("layers_to_transform", 3).unwrap();
    assert_eq!(
        (config.rank, config.projection_prng_key, config.pvera_dropout, config.alpha),
        (12, u64::MAX, 0.25, 2.0)
    );
    assert_eq!(config.sample_at_inference, Sampling::Everywhere(true));
    assert_eq!(config.target_modules, Targets::Pattern("all-linear".into()));
    assert_eq!(config.layers_to_transform, OneOrMany::One(3));
    assert_eq!((config.get_int("r").unwrap(), config.get_int("projection_prng_key").unwrap()), (12, -1));
    assert_eq!((config.get_real("alpha").unwrap(), config.get_real("d_initial").unwrap()), (2.0, 0.1));
    assert!(config.get_bool("sample_at_inference").unwrap());
    assert_eq!(config.get_text("target_modules").unwrap(), "all-linear");
    assert_eq!(config.get_text("bias").unwrap(), "none");
    for error in [
        config.get_real("r").unwrap_err(),
        config.get_int("alpha").unwrap_err(),
        config.get_bool("r").unwrap_err(),
        config.get_text("revision").unwrap_err(),
        config.get_text("r").unwrap_err(),
        config.set_real("r", 8.0).unwrap_err(),
        config.set_real("alpha", f64::NAN).unwrap_err(),
        config.set_bool("bias", true).unwrap_err(),
        config.set_text("bias", "lora_only").unwrap_err(),
        config.set_int("r", 0).unwrap_err(),
        config.set_int("r", i64::from(i32::MAX)).unwrap_err(),
        config.set_real("pvera_dropout", 1.0).unwrap_err(),
        config.set_text("target_modules", "(").unwrap_err(),
        config.set_text("task_type", "CHAT").unwrap_err(),
        config.set_json("r", "8 8").unwrap_err(),
    ] {
        assert_eq!(error.code(), Code::Config, "{error}");
    }
    assert_eq!((config.rank, config.alpha), (12, 2.0));
}

#[test]
fn vera_has_its_own_names_and_fewer_fields() {
    let text = br#"{"bias": "vera_only", "peft_type": "VERA", "pvera_dropout": 0.5, "sample_at_inference": true,
        "vera_dropout": 0.25}"#;
    let mut config = Config::from_json(text).unwrap();
    assert_eq!((config.method, config.bias, config.pvera_dropout), (Method::Vera, Bias::PveraOnly, 0.25));
    assert!(!config.sample_at_inference_for("q"));
    assert_eq!(config.get_text("peft_type").unwrap(), "VERA");
    assert_eq!(
        config.get_json("pvera_dropout").unwrap(),
        "0.5",
        "kept as an unknown field, as PEFT's reader leaves it"
    );
    for field in ["generator_seed", "logvar_bound", "pvera_dropout"] {
        let error = config.set_json(field, "0.5").unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        assert_eq!(error.message(), format!("{field} is no field of VERA, the peft_type"));
    }
    let error = config.set_text("bias", "pvera_only").unwrap_err();
    assert_eq!(
        error.message(),
        r#"bias is "pvera_only" (a string); wanted "none", "vera_only" or "all", since peft_type is VERA"#
    );
    config.pvera_dropout = 2.0;
    assert!(config.validate().unwrap_err().message().starts_with("vera_dropout is 2;"));

    let mut config = Config::default();
    assert_eq!(config.set_real("vera_dropout", 0.5).unwrap_err().code(), Code::NotFound);
    config.set_text("bias", "pvera_only").unwrap();
    config.set_real("pvera_dropout", 0.5).unwrap();
    config.set_real("logvar_bound", 3.0).unwrap();
    let error = config.set_text("peft_type", "VERA").unwrap_err();
    assert_eq!(
        error.message(),
        "peft_type cannot become \"VERA\", which has no logvar_bound: that is 3.0 (a number); wanted null, its default, first"
    );
    assert_eq!(config.method, Method::Pvera, "nothing has changed");
    config.set_json("logvar_bound", "null").unwrap();
    config.set_text("peft_type", "VERA").unwrap();
    assert_eq!(config.get_real("vera_dropout").unwrap(), 0.5);
    assert_eq!(config.get_text("bias").unwrap(), "vera_only", "the same choice in the other method's words");
    assert!(!config.to_json().contains("logvar_bound") && !config.to_json().contains("pvera_"));
}

#[test]
fn a_seed_beyond_the_integers_is_read_as_json() {
    let config = Config { projection_prng_key: 1 << 63, ..Config::default() };
    assert!(config.get_int("projection_prng_key").unwrap_err().message().contains("9223372036854775808"));
    assert_eq!(config.get_json("projection_prng_key").unwrap(), "9223372036854775808");
}

#[test]
fn an_unknown_name_lists_the_known_ones() {
    let mut config = Config::from_json(br#"{"future": 7}"#).unwrap();
    for error in [
        config.get_json("rank").unwrap_err(),
        config.set_int("rank", 8).unwrap_err(),
        config.set_real("rank", f64::NAN).unwrap_err(),
        config.set_int("future", 8).unwrap_err(),
    ] {
        assert_eq!(error.code(), Code::NotFound);
        assert!(error.message().contains("pvera_dropout, r, revision"), "{error}");
    }
    assert_eq!(config.get_int("future").unwrap(), 7);
}

#[test]
fn validation_covers_what_was_written_directly() {
    type Change = fn(&mut Config);
    let wrong: [(&str, Change); 9] = [
        ("r", |config| config.rank = 0),
        ("r", |config| config.rank = usize::MAX),
        ("pvera_dropout", |config| config.pvera_dropout = -0.1),
        ("pvera_dropout", |config| config.pvera_dropout = f64::NAN),
        ("d_initial", |config| config.d_initial = f64::INFINITY),
        ("alpha", |config| config.alpha = f64::NAN),
        ("logvar_bound", |config| config.logvar_bound = Some(f64::INFINITY)),
        ("modules_to_save", |config| config.modules_to_save = Some(vec!["[".into()])),
        ("layers_pattern", |config| config.layers_pattern = OneOrMany::One("h".into())),
    ];
    for (field, change) in wrong {
        let mut config = Config::default();
        change(&mut config);
        let error = config.validate().unwrap_err();
        assert!(error.code() == Code::Config && error.message().starts_with(field), "{error}");
    }
}
