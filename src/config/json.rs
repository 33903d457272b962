//! `adapter_config.json`: reading it with PEFT's defaults, and writing it as PEFT's `save_pretrained` lays it out.

use serde_json::{Map, Value};

use super::Config;
use super::fields::{FIELDS, Field, describe};
use crate::error::{Code, Error, Result};
use crate::fail;

/// The largest file that is read, in bytes. PEFT's are 0.6 kB; ten thousand listed module paths make 0.6 MB. JSON
/// takes up to about fifty times its size once read, and this bounds that.
pub const LARGEST_FILE: usize = 4 << 20;

impl Config {
    /// Reads the text of an `adapter_config.json` and validates it. A field that is missing has PEFT's default; one
    /// that nobody here knows is kept in [`Config::extras`]. Where a key occurs twice the last one counts, as in Python.
    ///
    /// Errors: `Format` where the text is not JSON or larger than [`LARGEST_FILE`], `Config` where a value is wrong.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        if text.len() > LARGEST_FILE {
            fail!(Format, "the configuration has {} bytes; wanted at most {LARGEST_FILE}", text.len());
        }
        let value: Value = serde_json::from_slice(text)
            .map_err(|error| Error::new(Code::Format, format!("the configuration is not JSON: {error}")))?;
        let Value::Object(object) = value else {
            fail!(Format, "the configuration is {}; wanted a JSON object", describe(&value));
        };
        let mut config = Self::default();
        // First, since it decides what the others are.
        if let (Some(field), Some(value)) = (Field::find("peft_type"), object.get("peft_type")) {
            field.read(&mut config, value)?;
        }
        for (name, value) in object {
            match Field::find_of(&name, config.method) {
                Some(field) => field.read(&mut config, &value)?,
                None => drop(config.extras.insert(name, value)),
            }
        }
        config.validate()?;
        Ok(config)
    }

    /// The text that PEFT would write: sorted keys, two spaces, ASCII. `alpha` and `logvar_bound` appear only where
    /// they are not the default: PEFT ignores them, with a warning.
    pub fn to_json(&self) -> String {
        let defaults = Self::default();
        // A field's own value wins over an extra of the same name, which only a caller could have put there.
        let mut object: Map<String, Value> = self.extras.clone();
        for field in FIELDS.iter().filter(|field| field.is_of(self.method)) {
            let value = field.write(self);
            if field.ours && value == field.write(&defaults) {
                object.remove(field.name);
            } else {
                object.insert(field.name.into(), value);
            }
        }
        as_python_writes(&Value::Object(object))
    }
}

/// `json.dumps(value, indent=2, sort_keys=True)`. serde_json's map is sorted, its pretty layout is Python's, and only
/// strings can hold what is not printable ASCII.
pub(crate) fn as_python_writes(value: &Value) -> String {
    let mut ascii = String::new();
    for character in format!("{value:#}").chars() {
        if character.is_ascii() && character != '\u{7f}' {
            ascii.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    ascii
}
