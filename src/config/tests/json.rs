//! Files that PEFT wrote, older files, and damaged ones.

use crate::config::{Bias, Config, LARGEST_FILE, OneOrMany, Sampling, Targets};
use crate::error::Code;

const PEFTS: [&str; 6] = [
    include_str!("../../../tests/data/adapter_config_default.json"),
    include_str!("../../../tests/data/adapter_config_every_field.json"),
    include_str!("../../../tests/data/adapter_config_all_bf16.json"),
    include_str!("../../../tests/data/adapter_config_bias_and_head.json"),
    include_str!("../../../tests/data/adapter_config_mixed_shapes.json"),
    include_str!("../../../tests/data/adapter_config_sample_at_inference.json"),
];

fn read(text: &str) -> Config {
    Config::from_json(text.as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn pefts_files_come_back_byte_for_byte() {
    for text in PEFTS {
        assert_eq!(read(text).to_json(), text);
        let fresh = Config { spelling: Default::default(), ..read(text) };
        assert_eq!(read(&fresh.to_json()), fresh);
    }
}

#[test]
fn the_defaults_are_pefts() {
    assert_eq!(Config::default().to_json(), PEFTS[0]);
    assert_eq!(read(PEFTS[0]), Config::default());
    assert_eq!(read("{}"), Config::default());
    Config::default().validate().unwrap();
}

#[test]
fn every_field_is_read() {
    let config = read(PEFTS[1]);
    assert_eq!(config.rank, 3);
    assert_eq!(config.target_modules, Targets::Pattern("größe\\.q\t\"😀\u{7f}\u{1}".into()));
    assert_eq!((config.projection_prng_key, config.generator_seed), (u64::MAX, Some(u64::MAX)));
    assert_eq!((config.pvera_dropout, config.d_initial), (1e-5, 1e16));
    assert_eq!(config.bias, Bias::All);
    assert_eq!(config.modules_to_save, Some(vec!["a".into(), "ü".into()]));
    assert_eq!(config.layers_to_transform, OneOrMany::List(vec![3, 1]));
    assert_eq!(config.layers_pattern, OneOrMany::List(vec!["h".into()]));
    assert_eq!(config.sample_at_inference, Sampling::Everywhere(true));
    assert_eq!(config.task_type.as_deref(), Some("SEQ_CLS"));
    assert_eq!(config.revision.as_deref(), Some("main"));
    assert_eq!(config.base_model_name_or_path.as_deref(), Some("x/y"));
    assert_eq!(config.auto_mapping.as_ref().map(|mapping| mapping.len()), Some(3));
    assert!(config.inference_mode && config.fan_in_fan_out && !config.init_weights && !config.save_projection);
    // Without the file's spelling, only the wrapped key reads differently.
    let fresh = Config { spelling: Default::default(), ..config };
    assert_eq!(
        fresh.to_json().replace("\"projection_prng_key\": 18446744073709551615", "\"projection_prng_key\": -1"),
        PEFTS[1]
    );
}

#[test]
fn older_files_sample_by_module_path() {
    let text = r#"{"peft_type": "PVERA", "r": 8, "sample_at_inference": {"a.q": true, "a.v": false}, "target_modules": ["q", "v"]}"#;
    let config = read(text);
    assert!(config.sample_at_inference_for("a.q"));
    assert!(!config.sample_at_inference_for("a.v") && !config.sample_at_inference_for("q"));
    assert_eq!(config.generator_seed, None);
    assert_eq!(config.peft_version.as_deref(), Some("0.21.2"));
    assert_eq!(read(&config.to_json()), config);
    assert!(config.to_json().contains("\"sample_at_inference\": {\n    \"a.q\": true,\n    \"a.v\": false\n  },"));
}

#[test]
fn unknown_fields_survive_exactly() {
    let number = "1234567890123456789012345678901234567890.5000E+0001";
    let config = read(&format!(r#"{{"zeta": [{number}, {{"ü": null}}], "runtime_config": {{}}, "Alpha": "\u00e9"}}"#));
    assert_eq!(config.get_json("zeta").unwrap(), format!(r#"[{number},{{"ü":null}}]"#).replace("E+", "e+"));
    let again = read(&config.to_json());
    assert_eq!((&again, again.extras.len()), (&config, 3));
    assert!(
        config.to_json().contains("\"\\u00fc\": null") && config.to_json().starts_with("{\n  \"Alpha\": \"\\u00e9\",")
    );
}

#[test]
fn a_field_that_nobody_changed_keeps_its_spelling() {
    let mut config = read(r#"{"projection_prng_key": -5, "pvera_dropout": 0, "d_initial": 1e-1, "r": 8}"#);
    assert!(
        config.to_json().contains("\"projection_prng_key\": -5,") && config.to_json().contains("\"pvera_dropout\": 0,")
    );
    assert!(config.to_json().contains("\"d_initial\": 1e-1,"));
    assert_eq!(config, Config { rank: 8, projection_prng_key: -5_i64 as u64, ..Config::default() });
    config.projection_prng_key = 7;
    config.pvera_dropout = 0.5;
    assert!(
        config.to_json().contains("\"projection_prng_key\": 7,")
            && config.to_json().contains("\"pvera_dropout\": 0.5,")
    );
}

#[test]
fn our_own_fields_are_written_only_where_they_matter() {
    let mut config = Config::default();
    assert!(!config.to_json().contains("alpha") && !config.to_json().contains("logvar_bound"));
    (config.alpha, config.logvar_bound) = (16.0, Some(20.0));
    let text = config.to_json();
    assert!(text.contains("\"alpha\": 16.0,") && text.contains("\"logvar_bound\": 20.0,"));
    assert_eq!(read(&text), config);
    assert_eq!(read(r#"{"alpha": 1, "logvar_bound": null}"#).alpha, 1.0);
}

#[test]
fn of_two_equal_keys_the_last_counts() {
    assert_eq!(read(r#"{"r": 4, "r": 8}"#).rank, 8);
}

#[test]
fn floats_are_written_as_python_writes_them() {
    let mut config = Config::default();
    for (number, wanted) in [
        (1e-5, "1e-05"),
        (1e-4, "0.0001"),
        (0.1, "0.1"),
        (1.0, "1.0"),
        (123456789.125, "123456789.125"),
        (1e15, "1000000000000000.0"),
        (1e16, "1e+16"),
        (1.5e300, "1.5e+300"),
        (-2.5e-7, "-2.5e-07"),
        (-0.0, "-0.0"),
        (5e-324, "5e-324"),
        (0.30000000000000004, "0.30000000000000004"),
    ] {
        config.d_initial = number;
        assert_eq!(config.get_json("d_initial").unwrap(), wanted);
        assert_eq!(read(&config.to_json()).d_initial.to_bits(), number.to_bits());
    }
}

#[test]
fn what_is_not_a_json_object_is_a_format_error() {
    let deep = "[".repeat(200_000);
    let large = format!("{{\"x\": \"{}\"}}", "a".repeat(LARGEST_FILE));
    for text in [
        "",
        "{",
        "[]",
        "1",
        "null",
        "{\"r\": NaN}",
        "{\"r\": 8,}",
        "\u{feff}{}",
        "{} {}",
        "{\"a\": \"\\ud800\"}",
        &deep,
        &large,
    ] {
        assert_eq!(Config::from_json(text.as_bytes()).unwrap_err().code(), Code::Format, "{:.20}", text);
    }
    assert_eq!(Config::from_json(b"{\"a\": \"\xff\"}").unwrap_err().code(), Code::Format);
    assert_eq!(Config::from_json(&PEFTS[0].as_bytes()[..300]).unwrap_err().code(), Code::Format);
}

#[test]
fn flipped_bits_and_truncations_never_panic_and_never_fail_to_come_back() {
    for text in PEFTS {
        for place in 0..text.len() * 8 {
            let mut bytes = text.as_bytes().to_vec();
            bytes[place / 8] ^= 1 << (place % 8);
            if let Ok(config) = Config::from_json(&bytes) {
                assert_eq!(read(&config.to_json()), config);
            }
        }
    }
}

#[test]
fn another_method_is_refused_by_name() {
    let error = Config::from_json(br#"{"peft_type": "LORA", "r": 8}"#).unwrap_err();
    assert_eq!(error.code(), Code::Config);
    assert_eq!(
        error.message(),
        r#"peft_type is "LORA" (a string); wanted "PVERA" or "VERA": this library runs no other method"#
    );
}
