//! Getters and setters by PEFT's own field names, for callers that have no Rust types. A failed set changes nothing.

use serde_json::Value;

use super::fields::{FIELDS, Field, Kind, describe};
use super::values::real;
use super::{Config, Method};
use crate::error::{Code, Error, Result};
use crate::fail;

impl Config {
    /// The names of all known fields of both methods, sorted.
    pub fn field_names() -> impl Iterator<Item = &'static str> {
        FIELDS.iter().map(|field| field.name)
    }

    /// A field's value as JSON; unknown fields that were read from a file can be read here, too.
    pub fn get_json(&self, field: &str) -> Result<String> {
        Ok(self.value(field)?.to_string())
    }

    /// Sets a known field from JSON.
    pub fn set_json(&mut self, field: &str, text: &str) -> Result<()> {
        let value = serde_json::from_str(text)
            .map_err(|error| Error::new(Code::Config, format!("{field}: the value is not JSON: {error}")))?;
        self.set(field, value)
    }

    /// An integer field. A seed beyond 2⁶³ - 1 does not fit and is an error; `get_json` reads it.
    pub fn get_int(&self, field: &str) -> Result<i64> {
        self.get(field, Kind::Integer, "an integer of 64 bits", Value::as_i64)
    }

    /// Sets an integer field. A negative seed wraps, as PyTorch's do.
    pub fn set_int(&mut self, field: &str, value: i64) -> Result<()> {
        self.set(field, value.into())
    }

    pub fn get_real(&self, field: &str) -> Result<f64> {
        self.get(field, Kind::Real, "a number", Value::as_f64)
    }

    pub fn set_real(&mut self, field: &str, value: f64) -> Result<()> {
        if !value.is_finite() {
            known(field, self.method)?;
            fail!(Config, "{field} is {value}; wanted a finite number");
        }
        self.set(field, real(value))
    }

    pub fn get_bool(&self, field: &str) -> Result<bool> {
        self.get(field, Kind::Bool, "true or false", Value::as_bool)
    }

    pub fn set_bool(&mut self, field: &str, value: bool) -> Result<()> {
        self.set(field, value.into())
    }

    /// A text field; for `target_modules` and `layers_pattern` only where they hold a string.
    pub fn get_text(&self, field: &str) -> Result<String> {
        self.get(field, Kind::Text, "a string", |value| value.as_str().map(String::from))
    }

    pub fn set_text(&mut self, field: &str, value: &str) -> Result<()> {
        self.set(field, value.into())
    }

    fn value(&self, field: &str) -> Result<Value> {
        match (Field::find_of(field, self.method), self.extras.get(field)) {
            (Some(known), _) => Ok(known.write(self)),
            (None, Some(extra)) => Ok(extra.clone()),
            (None, None) => Err(unknown(field, self.method)),
        }
    }

    fn get<T>(&self, field: &str, kind: Kind, wanted: &str, convert: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let value = self.value(field)?;
        let has_kind =
            Field::find_of(field, self.method).is_none_or(|known| known.kind == kind || known.kind == Kind::Mixed);
        match convert(&value).filter(|_| has_kind) {
            Some(converted) => Ok(converted),
            None => fail!(Config, "{field} is {}; wanted {wanted}", describe(&value)),
        }
    }

    fn set(&mut self, field: &str, value: Value) -> Result<()> {
        let mut changed = self.clone();
        known(field, self.method)?.read(&mut changed, &value)?;
        self.check_nothing_is_dropped(&changed)?;
        changed.check_values()?;
        *self = changed;
        Ok(())
    }

    /// What only the method before has may be lost with it, unless somebody has set it.
    fn check_nothing_is_dropped(&self, changed: &Config) -> Result<()> {
        let default = Config { method: self.method, ..Config::default() };
        let is_dropped = |field: &&Field| field.is_of(self.method) && !field.is_of(changed.method);
        // Both have a dropout, each under its own name.
        let is_set =
            |field: &&Field| !field.name.ends_with("vera_dropout") && field.write(self) != field.write(&default);
        match FIELDS.iter().filter(is_dropped).find(is_set) {
            None => Ok(()),
            Some(field) => fail!(
                Config,
                "peft_type cannot become {:?}, which has no {}: that is {}; wanted {}, its default, first",
                changed.method.name(),
                field.name,
                describe(&field.write(self)),
                field.write(&default)
            ),
        }
    }
}

fn known(field: &str, method: Method) -> Result<&'static Field> {
    Field::find_of(field, method).ok_or_else(|| unknown(field, method))
}

fn unknown(field: &str, method: Method) -> Error {
    if Field::find(field).is_some() {
        return Error::new(Code::NotFound, format!("{field} is no field of {}, the peft_type", method.name()));
    }
    let names = Config::field_names().collect::<Vec<_>>().join(", ");
    let shown: String = field.chars().take(80).collect();
    Error::new(Code::NotFound, format!("no field is named {shown:?}; known are {names}"))
}
