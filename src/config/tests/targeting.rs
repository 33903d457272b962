//! Module targeting against two tables that PEFT 0.21.2 made.

use serde_json::Value;

use crate::config::{Config, OneOrMany, Targeting, Targets, model_types};
use crate::error::Result;

struct Module<'table> {
    path: &'table str,
    linear: bool,
    output_head: bool,
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// The targeted modules by way of the JSON; a module that is not linear is PEFT's error.
fn targeted<'table>(row: &Value, modules: &[Module<'table>]) -> std::result::Result<Vec<&'table str>, String> {
    let run = || -> Result<Vec<&Module<'table>>> {
        let config = Config::from_json(row["config"].to_string().as_bytes())?;
        let targeting = Targeting::new(&config, row["model_type"].as_str())?;
        let mut found = Vec::new();
        for module in modules {
            if targeting.matches(module.path, module.linear, module.output_head)? {
                found.push(module);
            }
        }
        Ok(found)
    };
    let found = run().map_err(|error| format!("{:?}: {error}", error.code()))?;
    match found.iter().find(|module| !module.linear) {
        Some(module) => Err(format!("{} is not linear", module.path)),
        None => Ok(found.iter().map(|module| module.path).collect()),
    }
}

#[test]
fn the_reference_table_is_matched() {
    let table = parse(include_str!("../../../tests/golden/targeting.json"));
    let paths = texts(&table["paths"]);
    let modules: Vec<_> = paths.iter().map(|path| Module { path, linear: true, output_head: false }).collect();
    let cases = table["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 20);
    for case in cases {
        assert_eq!(targeted(case, &modules).unwrap(), texts(&case["targeted"]), "{}", case["config"]);
    }
}

#[test]
fn a_table_made_by_peft_is_matched() {
    let table = parse(include_str!("../../../tests/data/targeting_peft.json"));
    let cases = table["cases"].as_array().unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let modules: Vec<_> = table["models"][case["model"].as_str().unwrap()]
            .as_array()
            .unwrap()
            .iter()
            .map(|module| Module {
                path: module["path"].as_str().unwrap(),
                linear: module["linear"].as_bool().unwrap(),
                output_head: module["output_head"].as_bool().unwrap(),
            })
            .collect();
        match (targeted(case, &modules), case.get("targeted")) {
            (Ok(found), Some(wanted)) if found == texts(wanted) => {}
            (Err(_), None) => {}
            (found, _) => wrong.push(format!("{case}\n    ours: {found:?}")),
        }
    }
    assert!(cases.len() > 400 && wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn the_table_of_model_types_is_pefts() {
    let table = parse(include_str!("../../../tests/data/targeting_peft.json"));
    let types = table["model_types"].as_object().unwrap();
    assert_eq!(types.len(), 41);
    for (model_type, wanted) in types {
        let wanted = match wanted.as_str() {
            Some(pattern) => Targets::Pattern(pattern.into()),
            None => Targets::List(texts(wanted).into_iter().map(String::from).collect()),
        };
        assert_eq!(model_types::targets(model_type), Some(wanted), "{model_type}");
    }
    assert_eq!(model_types::targets("vit"), None);
}

#[test]
fn a_list_of_twenty_thousand_paths_is_one_look_up_per_dot() {
    let names = (0..20_000).map(|block| format!("layers.{block}.q_proj")).collect();
    let config = Config { target_modules: Targets::List(names), ..Config::default() };
    let targeting = Targeting::new(&config, None).unwrap();
    assert!(targeting.matches("model.layers.19999.q_proj", true, false).unwrap());
    assert!(!targeting.matches("model.layers.20000.q_proj", true, false).unwrap());
    assert!(!targeting.matches("", true, false).unwrap());
}

#[test]
fn all_linear_leaves_out_the_head_and_what_is_not_linear() {
    let mut config = Config { target_modules: Targets::Pattern("ALL-linear".into()), ..Config::default() };
    assert!(config.targets("model.layers.1.q_proj", true, false).unwrap());
    assert!(!config.targets("model.norm", false, false).unwrap());
    assert!(!config.targets("lm_head", true, true).unwrap());
    config.layers_to_transform = OneOrMany::One(1);
    assert!(config.targets("model.layers.1.q_proj", true, false).unwrap());
    assert!(!config.targets("model.layers.2.q_proj", true, false).unwrap());
    assert!(config.targets("score", true, false).unwrap());
}
