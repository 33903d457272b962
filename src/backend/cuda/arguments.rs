//! What kernels take, field by field as `kernels/arguments.cuh` has it, where each kernel is described.

use super::driver::Address;
use crate::backend::cpu::Overflow;
use crate::backend::{Mode, Term as HostTerm};
use crate::error::{Code, Error};
use crate::tensor::{self, Dtype, MatrixMut};

/// Device memory seen as a matrix; absent when `data` is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Matrix {
    pub data: Address,
    pub stride: u64,
    pub dtype: u32,
    pub reserved: u32,
}

impl Matrix {
    pub const ABSENT: Matrix = Matrix { data: 0, stride: 0, dtype: 0, reserved: 0 };

    pub fn f32(data: Address, stride: usize) -> Self {
        Self { data, stride: stride as u64, ..Self::ABSENT }
    }

    /// From a column of f32 on.
    pub fn at_column(self, column: usize) -> Self {
        Self { data: self.data + 4 * column as u64, ..self }
    }
}

impl From<&tensor::Matrix<'_>> for Matrix {
    fn from(matrix: &tensor::Matrix<'_>) -> Self {
        let stride = matrix.row_stride() as u64;
        Self { data: matrix.data().addr() as Address, stride, dtype: code(matrix.dtype()), reserved: 0 }
    }
}

impl From<&MatrixMut<'_>> for Matrix {
    fn from(matrix: &MatrixMut<'_>) -> Self {
        Self::from(&matrix.as_const())
    }
}

impl From<Option<tensor::Matrix<'_>>> for Matrix {
    fn from(matrix: Option<tensor::Matrix<'_>>) -> Self {
        matrix.as_ref().map_or(Self::ABSENT, Self::from)
    }
}

pub fn code(dtype: Dtype) -> u32 {
    match dtype {
        Dtype::F32 => 0,
        Dtype::F16 => 1,
        Dtype::Bf16 => 2,
    }
}

/// A sum in parts, added ascending.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts {
    pub data: Address,
    pub stride: u64,
    pub part_stride: u64,
    pub count: u32,
    pub reserved: u32,
}

impl Parts {
    /// Of one part, as it lies.
    pub fn whole(data: Address, stride: usize) -> Self {
        Self { data, stride: stride as u64, part_stride: 0, count: 1, reserved: 0 }
    }

    /// From a column on.
    pub fn at_column(self, column: usize) -> Self {
        Self { data: self.data + 4 * column as u64, ..self }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Term {
    pub lambda_d: Address,
    pub lambda_b: Address,
    pub bias: Address,
    pub layer_hash: u64,
    pub adapter_identity: u64,
    pub scale: f32,
    pub bound: f32,
    pub rank: u32,
    pub mode: u32,
    pub group: u32,
    pub p_column: u32,
    pub latent_column: u32,
    pub z_column: u32,
    pub delta_column: u32,
    pub dropout: u32,
    pub drop_below: u32,
    pub keep_scale: f32,
}

/// How x is dropped: the kind, the words below which a column is, and what a kept one is multiplied by.
pub fn dropout(term: &HostTerm<'_>) -> (u32, u32, f32) {
    const NONE: u32 = 0;
    const KEYED: u32 = 1;
    const ALL: u32 = 2;
    match term.dropout {
        None => (NONE, 0, 1.0),
        Some((_, 0.0)) => (NONE, 0, 1.0),
        Some((_, 1.0)) => (ALL, 0, 0.0),
        Some((_, probability)) => {
            let (threshold, scale) = crate::noise::dropout_threshold(probability);
            (KEYED, threshold, scale)
        }
    }
}

pub fn mode(mode: Mode) -> u32 {
    match mode {
        Mode::Mean => 0,
        Mode::Sample => 1,
        Mode::Fixed => 2,
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Rows {
    pub term: Address,
    pub identity: Address,
    pub sample: Address,
    pub identity_base: u64,
    pub sample_base: u32,
    pub count: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Seed {
    pub at: Address,
    pub value: u64,
}

/// The first thing that went wrong while kernels ran.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Fault {
    pub claimed: u32,
    pub kind: u32,
    pub row: u32,
    pub latent: u32,
    pub logvar: f32,
    pub reserved: u32,
}

impl Fault {
    pub const OVERFLOW_SIGMA: u32 = 1;
    pub const OVERFLOW_VARIANCE: u32 = 2;
    pub const SLOT: u32 = 3;
    pub const WORDS: usize = size_of::<Fault>() / 4;

    /// As the CPU would have told it.
    pub fn error(self) -> Error {
        let Fault { kind, row, latent, logvar, .. } = self;
        let overflow = Overflow { latent: latent as usize, logvar };
        match kind {
            Self::OVERFLOW_SIGMA => overflow.error(row as usize, "½ logvar"),
            Self::OVERFLOW_VARIANCE => overflow.error(row as usize, "logvar"),
            _ => Error::new(
                Code::NotFound,
                format!(
                    "row {row}: slot {} in device memory holds no PVeRA adapter; the row got the base alone",
                    latent as i32
                ),
            ),
        }
    }
}

pub const PUT_WORDS: usize = defined("PUT_WORDS");

/// Shapes of the kernels' blocks.
pub const LIST_THREADS: u32 = defined("LIST_THREADS") as u32;
pub const ELEMENT_THREADS: u32 = defined("ELEMENT_THREADS") as u32;
pub const SPLIT_COLS: usize = defined("SPLIT_COLS");
pub const SPLIT_ROWS: usize = defined("SPLIT_ROWS");
pub const SPLIT_THREADS: u32 = defined("SPLIT_THREADS") as u32;
pub const TILE_COLS: usize = defined("TILE_COLS");
pub const TILE_ROWS: usize = defined("TILE_ROWS");
pub const TILE_THREADS: u32 = defined("TILE_THREADS") as u32;
pub const LATENT_BLOCKS: usize = defined("LATENT_BLOCKS");
pub const LATENT_THREADS: u32 = defined("LATENT_THREADS") as u32;
pub const DIVERGENCE_THREADS: u32 = defined("DIVERGENCE_THREADS") as u32;
pub const SUM_COLS: usize = defined("SUM_COLS");
pub const SUM_ROWS: usize = defined("SUM_ROWS");

/// The number that `kernels/arguments.cuh` defines under a name, so that host and kernels cannot differ.
const fn defined(name: &str) -> usize {
    let (text, wanted) = (include_bytes!("kernels/arguments.cuh"), name.as_bytes());
    let start = b"#define ";
    let mut at = 0;
    while at + start.len() + wanted.len() < text.len() {
        if begins_with(text, at, start) && begins_with(text, at + start.len(), wanted) {
            let mut digit = at + start.len() + wanted.len();
            if text[digit] == b' ' {
                digit += 1;
                let mut value = 0;
                while text[digit].is_ascii_digit() {
                    value = 10 * value + (text[digit] - b'0') as usize;
                    digit += 1;
                }
                return value;
            }
        }
        at += 1;
    }
    panic!("arguments.cuh defines no such name")
}

const fn begins_with(text: &[u8], at: usize, wanted: &[u8]) -> bool {
    let mut place = 0;
    while place < wanted.len() {
        if text[at + place] != wanted[place] {
            return false;
        }
        place += 1;
    }
    true
}

/// Latents that are made together: a block of noise.
pub const LATENT_BLOCK: usize = 16;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Put {
    pub to: Address,
    pub count: u32,
    pub reserved: u32,
    pub words: [u32; PUT_WORDS],
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Resolve {
    pub slot: Address,
    pub term_of_slot: Address,
    pub term: Address,
    pub fault: Address,
    pub rows: u32,
    pub slots: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Product {
    pub x: Matrix,
    pub w: Address,
    pub w_output_stride: u64,
    pub w_input_stride: u64,
    pub w_dtype: u32,
    pub square: u32,
    pub out: Address,
    pub out_stride: u64,
    pub part_stride: u64,
    pub rows: u32,
    pub outputs: u32,
    pub depth: u32,
    pub group: u32,
    pub term: Address,
    pub terms: Address,
    pub rows_of_call: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Combine {
    pub from: Parts,
    pub out: Matrix,
    pub rows: u32,
    pub cols: u32,
    pub group: u32,
    pub rows_of_call: u32,
    pub term: Address,
    pub terms: Address,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Mask {
    pub x: Matrix,
    pub given: Matrix,
    pub out: Address,
    pub out_stride: u64,
    pub terms: Address,
    pub rows: Rows,
    pub seed: Seed,
    pub in_offset: u64,
    pub cols: u32,
    pub group: u32,
    pub index: u32,
    pub reserved: u32,
}

pub const LATENT_Z: u32 = 0;
pub const LATENT_VARIANCE: u32 = 1;
pub const LATENT_MOMENTS: u32 = 2;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Latent {
    pub p: Parts,
    pub terms: Address,
    pub rows: Rows,
    pub seed: Seed,
    pub eps: Matrix,
    pub z: Address,
    pub z_stride: u64,
    pub mu: Matrix,
    pub logvar: Matrix,
    pub fault: Address,
    pub kind: u32,
    pub draws: u32,
    pub rank: u32,
    pub group: u32,
    pub index: u32,
    pub antithetic: u32,
}

pub const START_BASE: u32 = 0;
pub const START_Y: u32 = 1;
pub const START_ZERO: u32 = 2;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Finish {
    pub y: Matrix,
    pub base: Parts,
    pub delta: Parts,
    pub bias: Matrix,
    pub terms: Address,
    pub rows: Rows,
    pub term_count: u32,
    pub draws: u32,
    pub cols: u32,
    pub start: u32,
    pub square: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Weigh {
    pub dy: Matrix,
    pub out: Address,
    pub out_stride: u64,
    pub terms: Address,
    pub rows: Rows,
    pub cols: u32,
    pub group: u32,
    pub index: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Slopes {
    pub p: Matrix,
    pub g: Parts,
    pub terms: Address,
    pub rows: Rows,
    pub seed: Seed,
    pub eps: Matrix,
    pub prior_dmu: Matrix,
    pub prior_dlogvar: Matrix,
    pub dm: Address,
    pub dm_stride: u64,
    pub dp: Address,
    pub dp_stride: u64,
    pub fault: Address,
    pub kl_each: f32,
    pub has_kl: u32,
    pub first_latent: u32,
    pub rank: u32,
    pub group: u32,
    pub index: u32,
    pub antithetic: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Divergence {
    pub p: Matrix,
    pub terms: Address,
    pub rows: Rows,
    pub kl: Address,
    pub group: u32,
    pub index: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct KlTotal {
    pub kl: Address,
    pub out: Address,
    pub divisor: f64,
    pub rows: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    pub left: Matrix,
    pub right: Matrix,
    pub term: Address,
    pub out: Address,
    pub part_stride: u64,
    pub scale: f32,
    pub rows: u32,
    pub cols: u32,
    pub index: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Deliver {
    pub from: Address,
    pub part_stride: u64,
    pub to: Address,
    pub parts: u32,
    pub cols: u32,
    pub overwrite: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Accumulate {
    pub from: Matrix,
    pub to: Matrix,
    pub add: Parts,
    pub given: Matrix,
    pub terms: Address,
    pub rows: Rows,
    pub seed: Seed,
    pub in_offset: u64,
    pub cols: u32,
    pub group: u32,
    pub index: u32,
    pub masked: u32,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What kernels take, as the PTX says: `.param .align 8 .b8 put_param_0[3856]`.
    fn parameter_bytes(kernel: &str) -> usize {
        let sources = [
            include_str!("kernels/ptx/lists.ptx"),
            include_str!("kernels/ptx/product.ptx"),
            include_str!("kernels/ptx/latent.ptx"),
            include_str!("kernels/ptx/finish.ptx"),
            include_str!("kernels/ptx/gradients.ptx"),
        ];
        let name = format!(" {kernel}_param_0[");
        let declared = sources.iter().find_map(|ptx| ptx.split_once(&name)).expect(kernel).1;
        declared.split_once(']').unwrap().0.parse().unwrap()
    }

    /// A struct's fields, in order: names and types, as Rust would write them.
    type Fields = Vec<(String, String)>;

    /// The structs of the kernels' header; comments and all else are left out.
    fn structs_of_kernels() -> BTreeMap<String, Fields> {
        let text = include_str!("kernels/arguments.cuh");
        let lines = || text.lines().map(|line| line.split("//").next().unwrap().trim());
        let opens = |line: &str| Some(line.strip_prefix("struct ")?.strip_suffix(" {")?.to_owned());
        structs(lines(), opens, |line| {
            let line = line.strip_suffix(';').unwrap().trim_start_matches("const ");
            let (kind, name) = line.split_once(' ').unwrap();
            match (name.strip_prefix('*'), name.split_once('[')) {
                (Some(name), _) => (name.to_owned(), "Address".to_owned()),
                (None, Some((name, count))) => (name.to_owned(), format!("[{kind}; {count}")),
                (None, None) => (name.to_owned(), kind.to_owned()),
            }
        })
    }

    /// The structs above, of C's layout.
    fn structs_of_host() -> BTreeMap<String, Fields> {
        let text = include_str!("arguments.rs").split("#[cfg(test)]").next().unwrap();
        let c_layout = text.split("#[repr(C)]").skip(1).flat_map(|after| after.lines().map(str::trim));
        let opens = |line: &str| Some(line.strip_prefix("pub struct ")?.strip_suffix(" {")?.to_owned());
        structs(c_layout, opens, |line| {
            let (name, kind) = line.strip_prefix("pub ").unwrap().strip_suffix(',').unwrap().split_once(": ").unwrap();
            (name.to_owned(), kind.to_owned())
        })
    }

    fn structs<'a>(
        lines: impl Iterator<Item = &'a str>,
        opens: impl Fn(&str) -> Option<String>,
        field: impl Fn(&str) -> (String, String),
    ) -> BTreeMap<String, Fields> {
        let (mut found, mut open) = (BTreeMap::new(), None);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with("///")) {
            match (&mut open, opens(line)) {
                (None, name) => open = name.map(|name| (name, Vec::new())),
                (Some(_), _) if line.starts_with('}') => found.extend(open.take()),
                (Some((_, fields)), _) => fields.push(field(line)),
            }
        }
        found
    }

    /// Both have C's layout, so that equal fields in an equal order lie at equal offsets.
    #[test]
    fn structs_have_the_kernels_fields() {
        let plain = |kind: &str| match kind {
            "Address" => "u64".to_owned(),
            "float" => "f32".to_owned(),
            "double" => "f64".to_owned(),
            other => other.to_owned(),
        };
        let same = |fields: &Fields| fields.iter().map(|(name, kind)| (name.clone(), plain(kind))).collect::<Fields>();
        let (host, kernels) = (structs_of_host(), structs_of_kernels());
        assert_eq!(host.keys().collect::<Vec<_>>(), kernels.keys().collect::<Vec<_>>());
        assert_eq!(host.len(), 20);
        for (name, fields) in &host {
            assert_eq!(same(fields), same(&kernels[name]), "{name}");
        }
        assert_eq!(host["Term"].len(), 17);
        assert_eq!(host["Put"][3], ("words".to_owned(), "[u32; PUT_WORDS]".to_owned()));
        assert_eq!(size_of::<Address>(), 8);
    }

    #[test]
    fn structs_have_the_kernels_sizes() {
        let sizes = [
            ("put", size_of::<Put>()),
            ("resolve", size_of::<Resolve>()),
            ("product_split_k", size_of::<Product>()),
            ("product_split_j", size_of::<Product>()),
            ("product_tile_k", size_of::<Product>()),
            ("product_tile_j", size_of::<Product>()),
            ("combine", size_of::<Combine>()),
            ("mask", size_of::<Mask>()),
            ("latent", size_of::<Latent>()),
            ("finish", size_of::<Finish>()),
            ("weigh", size_of::<Weigh>()),
            ("slopes", size_of::<Slopes>()),
            ("divergence", size_of::<Divergence>()),
            ("kl_total", size_of::<KlTotal>()),
            ("sums", size_of::<Sums>()),
            ("deliver", size_of::<Deliver>()),
            ("accumulate", size_of::<Accumulate>()),
        ];
        for (kernel, size) in sizes {
            assert_eq!(size, parameter_bytes(kernel), "{kernel}");
        }
    }
}
