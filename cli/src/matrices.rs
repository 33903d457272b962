//! Rows of numbers in files of other programs: JSON, NumPy's .npy, safetensors; and back.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use half::{bf16, f16};
use pvera::adapter::replace_file;
use pvera::error::Code;
use pvera::interchange::TensorFile;
use safetensors::tensor::TensorView;
use safetensors::{Dtype as Stored, SafeTensors};
use serde_json::{Number, Value};

use crate::outcome::{Failure, Result};

/// Rows of f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    pub cols: usize,
    pub values: Vec<f32>,
}

impl Rows {
    pub fn count(&self) -> usize {
        self.values.len() / self.cols.max(1)
    }

    /// From a file, or from stdin for `-`. Of a safetensors file, the tensor of this name, which `option` gave, or the only one.
    pub fn read(path: &Path, option: &str, tensor: Option<&str>) -> Result<Self> {
        let mut bytes = Vec::new();
        let read = if path == Path::new("-") {
            std::io::stdin().lock().read_to_end(&mut bytes)
        } else {
            std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes))
        };
        read.map_err(|error| Failure::io(path, "read", &error))?;
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        let parsed = if bytes.starts_with(NPY) {
            of_npy(&bytes)
        } else if bytes.get(8) == Some(&b'{') && bytes[7] == 0 {
            of_safetensors(&bytes, option, tensor)
        } else if matches!(first, Some(b'[' | b'{')) {
            of_json(&bytes, option, tensor)
        } else {
            Err("wanted rows as JSON, .npy or safetensors".into())
        };
        parsed.map_err(|what| Failure::new(Code::Format, format!("'{}': {what}", path.display())))
    }

    /// A tensor of a model's file.
    pub fn of_tensor(file: &TensorFile, name: &str) -> Result<Self> {
        let wrong =
            |what: String| Failure::new(Code::Format, format!("'{}': tensor '{name}': {what}", file.path().display()));
        let Some(info) = file.info(name) else { return Err(wrong("it is not there".into())) };
        let bytes = file.reader()?.tensor(info)?;
        let values = values_of(info.dtype, &bytes).map_err(&wrong)?;
        rows_of(&info.shape, values).map_err(wrong)
    }

    /// The rows as JSON, each number in the fewest digits that give its bits again.
    pub fn json(&self) -> Value {
        let number = |value: &f32| {
            let text = format!("{value:?}");
            serde_json::from_str::<Number>(&text).map_or(Value::String(text), Value::Number)
        };
        self.values.chunks(self.cols.max(1)).map(|row| row.iter().map(number).collect::<Value>()).collect()
    }

    pub fn text(&self) -> String {
        let row = |row: &[f32]| row.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(" ");
        self.values.chunks(self.cols.max(1)).map(|values| row(values) + "\n").collect()
    }

    /// Writes a safetensors file of one tensor.
    pub fn write(&self, path: &Path, name: &str, force: bool) -> Result<()> {
        let bytes: Vec<u8> = self.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let unwritable = |error: safetensors::SafeTensorError| Failure::new(Code::Format, error.to_string());
        let view = TensorView::new(Stored::F32, vec![self.count(), self.cols], &bytes).map_err(unwritable)?;
        let file = safetensors::serialize([(name, view)], None).map_err(unwritable)?;
        replace_file(path, force, |fresh| {
            let written = std::fs::File::create_new(fresh).and_then(|mut target| {
                target.write_all(&file)?;
                target.sync_all()
            });
            written.map_err(|error| Failure::io(path, "write", &error))
        })
    }
}

type Parsed = std::result::Result<Rows, String>;

fn of_json(bytes: &[u8], option: &str, name: Option<&str>) -> Parsed {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| format!("not JSON: {error}"))?;
    let value = match &value {
        Value::Object(object) => match name {
            Some(name) => object.get(name).ok_or_else(|| format!("there is no member '{name}'"))?,
            None => {
                let known = object.get("y").or_else(|| object.get("x"));
                known.ok_or_else(|| format!("wanted a member 'x' or 'y', or {option} NAME"))?
            }
        },
        value => value,
    };
    let wanted = "wanted rows of numbers, as [[1, 2], [3, 4]]";
    let rows = value.as_array().filter(|rows| !rows.is_empty()).ok_or(wanted)?;
    let one = [value.clone()];
    let rows = if rows[0].is_array() { &rows[..] } else { &one[..] };
    let mut values = Vec::new();
    let mut cols = None;
    for (number, row) in rows.iter().enumerate() {
        let row = row.as_array().filter(|row| !row.is_empty()).ok_or(wanted)?;
        if *cols.get_or_insert(row.len()) != row.len() {
            return Err(format!("row {number} has {} numbers; row 0 has {}", row.len(), cols.unwrap_or(0)));
        }
        for value in row {
            let number = value.as_number().and_then(|number| number.to_string().parse::<f32>().ok());
            let number = number.ok_or_else(|| format!("{value} is no number; {wanted}"))?;
            if number.is_infinite() {
                return Err(format!("{value} is beyond the range of f32"));
            }
            values.push(number);
        }
    }
    Ok(Rows { cols: cols.unwrap_or(0), values })
}

fn of_safetensors(bytes: &[u8], option: &str, name: Option<&str>) -> Parsed {
    let file = SafeTensors::deserialize(bytes).map_err(|error| format!("not a valid safetensors file: {error}"))?;
    let names: BTreeMap<String, TensorView<'_>> = file.tensors().into_iter().collect();
    let list = || names.keys().take(20).cloned().collect::<Vec<_>>().join(", ");
    let view = match (name, names.len()) {
        (Some(name), _) => {
            names.get(name).ok_or_else(|| format!("there is no tensor '{name}'; there are {}", list()))?
        }
        (None, 1) => names.values().next().ok_or("it holds no tensor")?,
        (None, _) => return Err(format!("it holds {}; say which with {option}", list())),
    };
    rows_of(view.shape(), values_of(view.dtype(), view.data())?)
}

fn values_of(dtype: Stored, bytes: &[u8]) -> std::result::Result<Vec<f32>, String> {
    Ok(match dtype {
        Stored::F32 => bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect(),
        Stored::F64 => {
            let wide = bytes.as_chunks().0.iter().map(|eight| f64::from_le_bytes(*eight));
            wide.map(narrowed).collect::<std::result::Result<_, _>>()?
        }
        Stored::F16 => bytes.as_chunks().0.iter().map(|two| f16::from_le_bytes(*two).to_f32()).collect(),
        Stored::BF16 => bytes.as_chunks().0.iter().map(|two| bf16::from_le_bytes(*two).to_f32()).collect(),
        other => return Err(format!("it holds {other:?}; wanted floats")),
    })
}

fn narrowed(value: f64) -> std::result::Result<f32, String> {
    let narrow = value as f32;
    if value.is_finite() && narrow.is_infinite() {
        Err(format!("{value} is beyond the range of f32"))
    } else {
        Ok(narrow)
    }
}

fn rows_of(shape: &[usize], values: Vec<f32>) -> Parsed {
    let cols = match shape {
        [cols] | [.., cols] if *cols > 0 && !values.is_empty() => *cols,
        _ => return Err(format!("it has shape {shape:?}; wanted rows")),
    };
    Ok(Rows { cols, values })
}

const NPY: &[u8] = b"\x93NUMPY";

/// Versions 1 to 3 of the format, which differ in how the header's length is written (numpy.lib.format).
fn of_npy(bytes: &[u8]) -> Parsed {
    let cut = "the .npy file is cut short";
    let (start, length) = match bytes.get(6).ok_or(cut)? {
        1 => (10, usize::from(u16::from_le_bytes([*bytes.get(8).ok_or(cut)?, *bytes.get(9).ok_or(cut)?]))),
        _ => (12, u32::from_le_bytes(*bytes.get(8..).and_then(|rest| rest.first_chunk()).ok_or(cut)?) as usize),
    };
    let header = bytes.get(start..).and_then(|rest| rest.get(..length)).ok_or(cut)?;
    let header = String::from_utf8_lossy(header);
    let after = |key: &str| header.split_once(key).map(|(_, rest)| rest.trim_start_matches([':', ' ']));
    if after("'fortran_order'").is_none_or(|rest| !rest.starts_with("False")) {
        return Err("the array is not in C order; numpy.ascontiguousarray makes it so".into());
    }
    let shape = after("'shape'").and_then(|rest| rest.strip_prefix('(')?.split_once(')')).ok_or(cut)?.0;
    let shape: Vec<usize> = shape.split(',').filter_map(|size| size.trim().parse().ok()).collect();
    let dtype = after("'descr'").ok_or(cut)?;
    let (size, stored) = [("'<f4'", 4, Stored::F32), ("'<f2'", 2, Stored::F16), ("'<f8'", 8, Stored::F64)]
        .into_iter()
        .find_map(|(name, size, stored)| dtype.starts_with(name).then_some((size, stored)))
        .ok_or_else(|| format!("the array's type is {}; wanted f4, f2 or f8", dtype.split(',').next().unwrap_or("")))?;
    let count = shape.iter().try_fold(size, |bytes: usize, size| bytes.checked_mul(*size)).ok_or(cut)?;
    let data = bytes.get(start + length..).and_then(|rest| rest.get(..count)).ok_or(cut)?;
    rows_of(&shape, values_of(stored, data)?)
}

/// The first element that is infinite or none, of a type that holds such: its place, and what it is.
pub fn first_not_finite(dtype: Stored, bytes: &[u8]) -> Option<(usize, String)> {
    let byte = |is: fn(u8) -> bool| {
        let place = bytes.iter().position(|byte| is(*byte))?;
        Some((place, format!("{:#04x}", bytes[place])))
    };
    match dtype {
        Stored::F64 => {
            let mut values = bytes.as_chunks().0.iter().map(|eight| f64::from_le_bytes(*eight)).enumerate();
            values.find(|(_, value)| !value.is_finite()).map(|(place, value)| (place, value.to_string()))
        }
        Stored::C64 => first_not_finite(Stored::F32, bytes).map(|(place, value)| (place / 2, value)),
        Stored::F8_E4M3 => byte(|byte| byte & 0x7f == 0x7f),
        Stored::F8_E5M2 => byte(|byte| byte & 0x7c == 0x7c),
        Stored::F8_E8M0 => byte(|byte| byte == 0xff),
        _ => {
            let mut values = values_of(dtype, bytes).ok()?.into_iter().enumerate();
            values.find(|(_, value)| !value.is_finite()).map(|(place, value)| (place, value.to_string()))
        }
    }
}
