//! The table of known fields: JSON name, kind, and how each is read from and written to a JSON value.

use serde_json::Value;

use super::values::{FieldValue, wanted_by};
use super::{Bias, Config, Method};
use crate::error::Result;
use crate::fail;

/// Which typed getter and setter a field answers to; every field also speaks JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Integer,
    Real,
    Bool,
    Text,
    /// Null, a list, or one of several kinds: whichever the value is.
    Mixed,
}

pub(super) struct Field {
    pub name: &'static str,
    pub kind: Kind,
    /// PEFT does not know it, so it is written only where it differs from the default.
    pub ours: bool,
    /// The method whose field it is; None: of both.
    of: Option<Method>,
    wanted: fn(&Config) -> &'static str,
    read: fn(&mut Config, &Value) -> Option<()>,
    write: fn(&Config) -> Value,
}

macro_rules! field {
    ($name:literal, $member:ident, $kind:ident) => {
        field!($name, $member, $kind, false, None)
    };
    ($name:literal, $member:ident, $kind:ident, $ours:literal, $of:expr) => {
        Field {
            name: $name,
            kind: Kind::$kind,
            ours: $ours,
            of: $of,
            wanted: |config| wanted_by(&config.$member),
            read: |config, value| {
                config.$member = FieldValue::read(value)?;
                Some(())
            },
            write: |config| config.$member.write(),
        }
    };
}

pub(super) static FIELDS: [Field; 24] = [
    field!("alpha", alpha, Real, true, None),
    field!("auto_mapping", auto_mapping, Mixed),
    field!("base_model_name_or_path", base_model_name_or_path, Text),
    Field {
        name: "bias",
        kind: Kind::Text,
        ours: false,
        of: None,
        wanted: |config| Bias::wanted(config.method),
        read: |config, value| {
            config.bias = Bias::read(value, config.method)?;
            Some(())
        },
        write: |config| config.bias.write(config.method),
    },
    field!("d_initial", d_initial, Real),
    field!("fan_in_fan_out", fan_in_fan_out, Bool),
    field!("generator_seed", generator_seed, Integer, false, Some(Method::Pvera)),
    field!("inference_mode", inference_mode, Bool),
    field!("init_weights", init_weights, Bool),
    field!("layers_pattern", layers_pattern, Mixed),
    field!("layers_to_transform", layers_to_transform, Mixed),
    field!("logvar_bound", logvar_bound, Real, true, Some(Method::Pvera)),
    field!("modules_to_save", modules_to_save, Mixed),
    field!("peft_type", method, Text),
    field!("peft_version", peft_version, Text),
    field!("projection_prng_key", projection_prng_key, Integer),
    field!("pvera_dropout", pvera_dropout, Real, false, Some(Method::Pvera)),
    field!("r", rank, Integer),
    field!("revision", revision, Text),
    field!("sample_at_inference", sample_at_inference, Mixed, false, Some(Method::Pvera)),
    field!("save_projection", save_projection, Bool),
    field!("target_modules", target_modules, Mixed),
    field!("task_type", task_type, Text),
    field!("vera_dropout", pvera_dropout, Real, false, Some(Method::Vera)),
];

impl Field {
    pub fn find(name: &str) -> Option<&'static Field> {
        FIELDS.iter().find(|field| field.name == name)
    }

    /// The same, where the method has such a field.
    pub fn find_of(name: &str, method: Method) -> Option<&'static Field> {
        Self::find(name).filter(|field| field.is_of(method))
    }

    pub fn is_of(&self, method: Method) -> bool {
        self.of.is_none_or(|of| of == method)
    }

    pub fn read(&self, config: &mut Config, value: &Value) -> Result<()> {
        if (self.read)(config, value).is_none() {
            fail!(Config, "{} is {}; wanted {}", self.name, describe(value), (self.wanted)(config));
        }
        config.spelling.0.insert(self.name.into(), value.clone());
        Ok(())
    }

    /// The value as it was spelled, unless it has been changed since.
    pub fn write(&self, config: &Config) -> Value {
        let value = (self.write)(config);
        if let Some(spelled) = config.spelling.0.get(self.name) {
            let mut reread = Config { method: config.method, ..Config::default() };
            if (self.read)(&mut reread, spelled).is_some() && (self.write)(&reread) == value {
                return spelled.clone();
            }
        }
        value
    }
}

/// A value for an error message: what it is, and the value itself if it is short.
pub(super) fn describe(value: &Value) -> String {
    const LONGEST: usize = 80;
    let kind = match value {
        Value::Null => return "null".into(),
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    let text = value.to_string();
    if text.len() <= LONGEST { format!("{text} ({kind})") } else { format!("{kind} of {} bytes", text.len()) }
}
