//! The types that a known field can have, each read from and written to a JSON value.

use std::str::FromStr;

use serde_json::{Map, Number, Value};

use super::{Bias, Method, OneOrMany, Sampling, Targets};

/// A type that a known field can have. `read` returns nothing where the JSON value is not one of `WANTED`.
pub(super) trait FieldValue: Sized {
    const WANTED: &'static str;
    fn read(value: &Value) -> Option<Self>;
    fn write(&self) -> Value;
}

pub(super) fn wanted_by<T: FieldValue>(_: &T) -> &'static str {
    T::WANTED
}

impl FieldValue for bool {
    const WANTED: &'static str = "true or false";

    fn read(value: &Value) -> Option<Self> {
        value.as_bool()
    }

    fn write(&self) -> Value {
        (*self).into()
    }
}

impl FieldValue for usize {
    const WANTED: &'static str = "a positive integer";

    fn read(value: &Value) -> Option<Self> {
        value.as_u64().and_then(|number| usize::try_from(number).ok()).filter(|number| *number > 0)
    }

    fn write(&self) -> Value {
        (*self).into()
    }
}

/// A seed. PyTorch's `manual_seed` takes -2⁶³ … 2⁶⁴-1, and negative ones wrap.
impl FieldValue for u64 {
    const WANTED: &'static str = "an integer from -2^63 to 2^64-1";

    fn read(value: &Value) -> Option<Self> {
        value.as_i64().map(|number| number as u64).or_else(|| value.as_u64())
    }

    fn write(&self) -> Value {
        (*self).into()
    }
}

impl FieldValue for Option<u64> {
    const WANTED: &'static str = "null or an integer from -2^63 to 2^64-1";

    fn read(value: &Value) -> Option<Self> {
        if value.is_null() { Some(None) } else { u64::read(value).map(Some) }
    }

    fn write(&self) -> Value {
        (*self).into()
    }
}

impl FieldValue for f64 {
    const WANTED: &'static str = "a finite number";

    fn read(value: &Value) -> Option<Self> {
        value.as_f64().filter(|number| number.is_finite())
    }

    fn write(&self) -> Value {
        real(*self)
    }
}

impl FieldValue for Option<f64> {
    const WANTED: &'static str = "null or a finite number";

    fn read(value: &Value) -> Option<Self> {
        if value.is_null() { Some(None) } else { f64::read(value).map(Some) }
    }

    fn write(&self) -> Value {
        self.map_or(Value::Null, real)
    }
}

impl FieldValue for Option<String> {
    const WANTED: &'static str = "null or a string";

    fn read(value: &Value) -> Option<Self> {
        if value.is_null() { Some(None) } else { value.as_str().map(|text| Some(text.into())) }
    }

    fn write(&self) -> Value {
        self.clone().into()
    }
}

impl FieldValue for Option<Map<String, Value>> {
    const WANTED: &'static str = "null or an object";

    fn read(value: &Value) -> Option<Self> {
        if value.is_null() { Some(None) } else { value.as_object().map(|object| Some(object.clone())) }
    }

    fn write(&self) -> Value {
        self.clone().map_or(Value::Null, Value::Object)
    }
}

impl FieldValue for Option<Vec<String>> {
    const WANTED: &'static str = "null or a list of strings";

    fn read(value: &Value) -> Option<Self> {
        if value.is_null() { Some(None) } else { strings(value).map(Some) }
    }

    fn write(&self) -> Value {
        self.clone().into()
    }
}

/// The methods spell one of its values differently.
impl Bias {
    pub(super) fn wanted(method: Method) -> &'static str {
        match method {
            Method::Pvera => "\"none\", \"pvera_only\" or \"all\"",
            Method::Vera => "\"none\", \"vera_only\" or \"all\", since peft_type is VERA",
        }
    }

    pub(super) fn read(value: &Value, method: Method) -> Option<Self> {
        match (value.as_str()?, method) {
            ("none", _) => Some(Self::None),
            ("pvera_only", Method::Pvera) | ("vera_only", Method::Vera) => Some(Self::PveraOnly),
            ("all", _) => Some(Self::All),
            _ => None,
        }
    }

    pub(super) fn write(self, method: Method) -> Value {
        match (self, method) {
            (Self::None, _) => "none".into(),
            (Self::PveraOnly, Method::Pvera) => "pvera_only".into(),
            (Self::PveraOnly, Method::Vera) => "vera_only".into(),
            (Self::All, _) => "all".into(),
        }
    }
}

impl FieldValue for Method {
    const WANTED: &'static str = "\"PVERA\" or \"VERA\": this library runs no other method";

    fn read(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "PVERA" => Some(Self::Pvera),
            "VERA" => Some(Self::Vera),
            _ => None,
        }
    }

    fn write(&self) -> Value {
        self.name().into()
    }
}

impl FieldValue for Sampling {
    const WANTED: &'static str = "true, false, or an object of module paths with true or false";

    fn read(value: &Value) -> Option<Self> {
        if let Some(sample) = value.as_bool() {
            return Some(Self::Everywhere(sample));
        }
        let modules = value.as_object()?.iter();
        modules
            .map(|(path, sample)| Some((path.clone(), sample.as_bool()?)))
            .collect::<Option<_>>()
            .map(Self::PerModule)
    }

    fn write(&self) -> Value {
        match self {
            Self::Everywhere(sample) => (*sample).into(),
            Self::PerModule(modules) => {
                Value::Object(modules.iter().map(|(path, sample)| (path.clone(), (*sample).into())).collect())
            }
        }
    }
}

impl FieldValue for Targets {
    const WANTED: &'static str = "null, a string or a list of strings";

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(Self::None),
            Value::String(pattern) => Some(Self::Pattern(pattern.clone())),
            _ => strings(value).map(Self::List),
        }
    }

    fn write(&self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Pattern(pattern) => pattern.clone().into(),
            Self::List(names) => names.clone().into(),
        }
    }
}

impl FieldValue for OneOrMany<String> {
    const WANTED: &'static str = "null, a string or a list of strings";

    fn read(value: &Value) -> Option<Self> {
        Some(match Targets::read(value)? {
            Targets::None => Self::None,
            Targets::Pattern(text) => Self::One(text),
            Targets::List(texts) => Self::List(texts),
        })
    }

    fn write(&self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::One(text) => text.clone().into(),
            Self::List(texts) => texts.clone().into(),
        }
    }
}

impl FieldValue for OneOrMany<i64> {
    const WANTED: &'static str = "null, an integer or a list of integers (of 64 bits)";

    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(Self::None),
            Value::Array(values) => values.iter().map(Value::as_i64).collect::<Option<_>>().map(Self::List),
            _ => value.as_i64().map(Self::One),
        }
    }

    fn write(&self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::One(number) => (*number).into(),
            Self::List(numbers) => numbers.clone().into(),
        }
    }
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|entry| entry.as_str().map(String::from)).collect()
}

/// A number as Python's `repr` writes a float: the shortest digits that read back, an exponent outside [1e-4, 1e16).
/// What is not finite has no JSON and becomes null; `validate` refuses it.
pub(super) fn real(number: f64) -> Value {
    let scientific = format!("{number:e}");
    let exponent = scientific.split_once('e').and_then(|(digits, exponent)| Some((digits, exponent.parse().ok()?)));
    let text = match exponent {
        Some((digits, exponent @ (..=-5 | 16..))) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", i32::abs(exponent))
        }
        _ => format!("{number:?}"),
    };
    Number::from_str(&text).map_or(Value::Null, Value::Number)
}
