//! Checkpoints without the projections that their key draws, and with them again.

use std::path::Path;

use safetensors::tensor::{TensorInfo, TensorView};
use safetensors::{Dtype as Stored, SafeTensors};

use super::Options;
use crate::adapter::folder::replace_folder;
use crate::adapter::load::{dtype_of, widen};
use crate::adapter::save::header_of;
use crate::adapter::source::{CONFIG_FILE, Keys, Source, TENSOR_FILE, module_of};
use crate::backend::cpu::FloatMode;
use crate::config::{Config, Method};
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::memory::Allocator;
use crate::noise::{Mt19937, draw_projection};
use crate::projection::{Frozen, Size, Store};
use crate::tensor::Dtype;

const A_KEY: &str = Keys::PVERA.a;
const B_KEY: &str = Keys::PVERA.b;
const LAMBDA_B: &str = Keys::PVERA.lambda_b;
const LAMBDA_D: &str = Keys::PVERA.lambda_d;

/// Values drawn between two looks at the listener.
const BLOCK: usize = 1 << 20;

/// What a key's projections may have been rounded to before they were saved, likeliest first.
const CANDIDATES: [Dtype; 3] = [Dtype::F32, Dtype::Bf16, Dtype::F16];

/// What a shrunken checkpoint no longer says, and its load must be told where it differs from the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// The element type that the projections were rounded to: the base's.
    pub dtype: Dtype,
    /// Columns of A. The default of a load is the largest in_features of the declared layers.
    pub in_max: usize,
    /// Rows of B.
    pub out_max: usize,
}

/// Writes the checkpoint of `folder` to `out` without A and B (`save_projection` false), after checking that its key draws
/// them bit for bit; everything else stays as it is. `out` may be `folder` itself: all or nothing, as a save.
///
/// Only `options.dtype` is tried where it is given. Error `Projection` says where they first differ.
pub fn shrink(folder: &Path, out: &Path, options: &Options<'_>) -> Result<Shrunk> {
    let source = Source::folder(folder, false)?;
    let (mut config, file) = parsed(&source)?;
    let (Ok(a), Ok(b)) = (file.tensor(A_KEY), file.tensor(B_KEY)) else {
        fail!(
            Projection,
            "{}: {A_KEY} and {B_KEY} are not both in the file; nothing to leave out",
            source.tensors_name
        );
    };
    let dtype = rounding(&config, &a, &b, options).map_err(|error| error.within(&source.tensors_name))?;
    config.save_projection = false;
    write(out, &config, kept(&file).map(|(name, view)| (name, view.dtype(), view.shape().to_vec(), view.data())))?;
    Ok(Shrunk { dtype, in_max: a.shape()[1], out_max: b.shape()[0] })
}

/// The reverse: writes the projections that the key draws into the checkpoint. Its file does not say how long the inputs of
/// the adapted layers are; `in_max` is the largest over all of them. `out_max` is that of the vectors where it is None.
pub fn grow(folder: &Path, out: &Path, in_max: usize, out_max: Option<usize>, options: &Options<'_>) -> Result<()> {
    let source = Source::folder(folder, false)?;
    let (mut config, file) = parsed(&source)?;
    if file.tensor(A_KEY).is_ok() || file.tensor(B_KEY).is_ok() {
        fail!(Exists, "{}: {A_KEY} or {B_KEY} is in the file already", source.tensors_name);
    }
    let longest = largest_output(&file, config.rank).map_err(|error| error.within(&source.tensors_name))?;
    let out_max = out_max.unwrap_or(longest);
    if out_max < longest {
        fail!(Argument, "out_max is {out_max}; wanted at least {longest}, the longest λ_b of the file");
    }
    if in_max == 0 {
        fail!(Argument, "in_max is 0; wanted the largest in_features over all adapted layers");
    }
    let size = Size { method: config.method, rank: config.rank, in_max, out_max };
    let mut watch = |drawn, total| options.progress("draw projections", drawn, total);
    let dtype = options.dtype.unwrap_or(Dtype::F32);
    let store = Store::from_key_watched(&Allocator::default(), config.projection_prng_key, size, dtype, &mut watch)?;
    let (a, b) = (bytes_of(store.a())?, bytes_of(store.b())?);
    let pair = [(A_KEY, store.a(), &a), (B_KEY, store.b(), &b)]
        .map(|(key, matrix, bytes)| (key.to_owned(), Stored::F32, vec![matrix.rows(), matrix.cols()], &bytes[..]));
    config.save_projection = true;
    let kept = kept(&file).map(|(name, view)| (name, view.dtype(), view.shape().to_vec(), view.data()));
    write(out, &config, kept.chain(pair))
}

fn parsed(source: &Source) -> Result<(Config, SafeTensors<'_>)> {
    let config = Config::from_json(&source.config).map_err(|error| error.within(&source.config_name))?;
    if config.method == Method::Vera {
        fail!(Unsupported, "{}: peft_type is VERA; wanted a PVeRA checkpoint", source.config_name);
    }
    let file = SafeTensors::deserialize(&source.tensors).map_err(|error| {
        Error::new(Code::Format, format!("{}: not a valid safetensors file: {error}", source.tensors_name))
    })?;
    Ok((config, file))
}

/// What is not a projection.
fn kept<'f>(file: &'f SafeTensors<'f>) -> impl Iterator<Item = (String, TensorView<'f>)> {
    file.tensors().into_iter().filter(|(name, _)| name != A_KEY && name != B_KEY)
}

/// The longest λ_b. Every λ_d confirms the rank, by which is drawn.
fn largest_output(file: &SafeTensors<'_>, rank: usize) -> Result<usize> {
    let mut longest = 0;
    for (name, view) in file.iter() {
        let count = view.shape().iter().product::<usize>();
        if module_of(name, LAMBDA_B).is_some() {
            longest = longest.max(count);
        } else if module_of(name, LAMBDA_D).is_some() && view.shape() != [2 * rank] {
            fail!(Shape, "tensor '{name}' has shape {:?}; wanted [{}], 2r of the config", view.shape(), 2 * rank);
        }
    }
    if longest == 0 {
        fail!(Format, "there is no tensor 'base_model.model.MODULE{LAMBDA_B}'");
    }
    Ok(longest)
}

/// The element type that the key's draw must be rounded to, to give A and B.
fn rounding(config: &Config, a: &TensorView<'_>, b: &TensorView<'_>, options: &Options<'_>) -> Result<Dtype> {
    let (rank, a_shape, b_shape) = (config.rank, a.shape(), b.shape());
    if a_shape.len() != 2 || a_shape[0] != 2 * rank || b_shape.len() != 2 || b_shape[1] != rank {
        fail!(
            Projection,
            "{A_KEY} and {B_KEY} have shapes {a_shape:?} and {b_shape:?}; wanted [2r, in_max] and [out_max, r] with r = {rank} of the config"
        );
    }
    let _mode = FloatMode::enter();
    let mut stream = Mt19937::new(config.projection_prng_key);
    let mut open: Vec<Candidate> = CANDIDATES
        .iter()
        .filter(|dtype| options.dtype.is_none_or(|wanted| wanted == **dtype))
        .map(Candidate::new)
        .collect();
    let total = (a.data().len() / dtype_of(A_KEY, a.dtype())?.size()) as u64
        + (b.data().len() / dtype_of(B_KEY, b.dtype())?.size()) as u64;
    let mut done = 0u64;
    let mut values = [vec![0.0f32; BLOCK], vec![0.0f32; BLOCK]];
    for (key, view) in [(A_KEY, a), (B_KEY, b)] {
        let dtype = dtype_of(key, view.dtype())?;
        for (block, bytes) in view.data().chunks(BLOCK * dtype.size()).enumerate() {
            options.progress("compare projections", done, total)?;
            let count = bytes.len() / dtype.size();
            let [drawn, held] = &mut values;
            draw_projection(&mut stream, view.shape()[1], &mut drawn[..count]);
            widen(bytes, dtype, &mut held[..count]);
            for candidate in &mut open {
                candidate.compare(key, view.shape()[1], block * BLOCK, &drawn[..count], &held[..count]);
            }
            if open.iter().all(|candidate| candidate.difference.is_some()) {
                return Err(differs(config, &open));
            }
            done += count as u64;
        }
    }
    match open.iter().find(|candidate| candidate.difference.is_none()) {
        Some(equal) => Ok(equal.dtype),
        None => Err(differs(config, &open)),
    }
}

/// One rounding, and where it first differs.
struct Candidate {
    dtype: Dtype,
    difference: Option<(u64, String)>,
}

impl Candidate {
    fn new(dtype: &Dtype) -> Self {
        Self { dtype: *dtype, difference: None }
    }

    fn compare(&mut self, key: &str, cols: usize, first: usize, drawn: &[f32], held: &[f32]) {
        if self.difference.is_some() {
            return;
        }
        let differs = |(drawn, held): (&f32, &f32)| self.dtype.rounded(*drawn).to_bits() != held.to_bits();
        if let Some(place) = drawn.iter().zip(held).position(differs) {
            let (at, name) = (first + place, self.dtype.name());
            let text = format!(
                "{key} at row {}, column {} is {}; the key draws {}{}",
                at / cols,
                at % cols,
                held[place],
                self.dtype.rounded(drawn[place]),
                if self.dtype == Dtype::F32 { String::new() } else { format!(", rounded to {name}") }
            );
            let order = if key == A_KEY { at as u64 } else { (1 << 63) | at as u64 };
            self.difference = Some((order, text));
        }
    }
}

/// The rounding that went furthest says most.
fn differs(config: &Config, candidates: &[Candidate]) -> Error {
    let furthest =
        candidates.iter().filter_map(|candidate| candidate.difference.as_ref()).rev().max_by_key(|found| found.0);
    let text = furthest.map_or("", |(_, text)| text);
    Error::new(
        Code::Projection,
        format!("the projections are not those of projection_prng_key {}: {text}", config.projection_prng_key),
    )
}

fn bytes_of(matrix: &Frozen) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(matrix.rows() * matrix.cols() * 4).map_err(|_| Error::out_of_memory())?;
    let mut row_values = vec![0.0; matrix.cols()];
    for row in 0..matrix.rows() {
        matrix.matrix().load(row, 0, &mut row_values);
        bytes.extend_from_slice(bytemuck::cast_slice(&row_values));
    }
    Ok(bytes)
}

/// A checkpoint of tensors as they are: name, element type, shape, bytes.
pub(super) fn write<'t>(
    out: &Path,
    config: &Config,
    tensors: impl Iterator<Item = (String, Stored, Vec<usize>, &'t [u8])>,
) -> Result<()> {
    let mut tensors: Vec<_> = tensors.collect();
    tensors.sort_by(|first, second| second.1.cmp(&first.1).then_with(|| first.0.cmp(&second.0)));
    let mut end = 0;
    let infos = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let start = end;
        end += bytes.len();
        (name.clone(), TensorInfo { dtype: *dtype, shape: shape.clone(), data_offsets: (start, end) })
    });
    let mut file = header_of(infos.collect())?;
    file.try_reserve_exact(end).map_err(|_| Error::out_of_memory())?;
    tensors.iter().for_each(|(.., bytes)| file.extend_from_slice(bytes));
    replace_folder(out, &[(CONFIG_FILE, config.to_json().as_bytes()), (TENSOR_FILE, &file)])
}
