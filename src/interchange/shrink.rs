//! Checkpoints without the projections that their key draws, and with them again; and whether a key draws them.

use std::path::Path;

use safetensors::tensor::{TensorInfo, TensorView};
use safetensors::{Dtype as Stored, SafeTensors};

use super::Options;
use crate::adapter::folder::replace_folder;
use crate::adapter::load::{dtype_of, widen};
use crate::adapter::save::header_of;
use crate::adapter::source::{CONFIG_FILE, Keys, Source, TENSOR_FILE, module_of};
use crate::backend::cpu::FloatMode;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::memory::Allocator;
use crate::noise::{Mt19937, draw_projection, projection_bound};
use crate::projection::{Frozen, Rounding, Size, Store};
use crate::tensor::Dtype;

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
/// them bit for bit; everything else stays as it is. All or nothing, as a save. With `options.replace`, `out` may hold a
/// checkpoint, that of `folder`, too.
///
/// Only `options.dtype` is tried where it is given. Error `Projection` says where they first differ.
pub fn shrink(folder: &Path, out: &Path, options: &Options<'_>) -> Result<Shrunk> {
    options.refuse_existing(out)?;
    let source = Source::folder(folder, false)?;
    let (mut config, file) = parsed(&source)?;
    let keys = Keys::of(config.method);
    let Some((a, b)) = saved(&file, &config).map_err(|error| error.within(&source.tensors_name))? else {
        fail!(
            Projection,
            "{}: {} and {} are not both in the file; nothing to leave out",
            source.tensors_name,
            keys.a,
            keys.b
        );
    };
    let candidates = CANDIDATES.iter().filter(|dtype| options.dtype.is_none_or(|wanted| wanted == **dtype));
    let candidates = candidates.map(|dtype| (Rounding::To(*dtype), *dtype)).collect();
    let dtype = rounding(&config, &a, &b, candidates, options).map_err(|error| error.within(&source.tensors_name))?;
    config.save_projection = false;
    write(
        out,
        options.replace,
        &config,
        kept(&file, keys).map(|(name, view)| (name, view.dtype(), view.shape().to_vec(), view.data())),
    )?;
    Ok(Shrunk { dtype, in_max: a.shape()[1], out_max: b.shape()[0] })
}

/// How the projections of a checkpoint were rounded, whose key draws them bit for bit; None where it holds none. VeRA's, too.
///
/// Error `Projection` says where they first differ from the key's: they may be damaged, or another's, or trained.
pub fn check_projections(folder: &Path, options: &Options<'_>) -> Result<Option<Rounding>> {
    let source = Source::folder(folder, false)?;
    let (config, file) = parsed(&source)?;
    let Some((a, b)) = saved(&file, &config).map_err(|error| error.within(&source.tensors_name))? else {
        return Ok(None);
    };
    let candidates = CANDIDATES.map(Rounding::To).into_iter().chain([Rounding::Int8Grid]);
    let candidates = candidates.map(|rounding| (rounding, rounding)).collect();
    rounding(&config, &a, &b, candidates, options).map(Some).map_err(|error| error.within(&source.tensors_name))
}

/// The reverse: writes the projections that the key draws into the checkpoint. Its file does not say how long the inputs of
/// the adapted layers are; `in_max` is the largest over all of them. `out_max` is that of the vectors where it is None. `out` is
/// as for [`shrink`].
pub fn grow(folder: &Path, out: &Path, in_max: usize, out_max: Option<usize>, options: &Options<'_>) -> Result<()> {
    options.refuse_existing(out)?;
    let source = Source::folder(folder, false)?;
    let (mut config, file) = parsed(&source)?;
    let keys = Keys::of(config.method);
    if file.tensor(keys.a).is_ok() || file.tensor(keys.b).is_ok() {
        fail!(Exists, "{}: {} or {} is in the file already", source.tensors_name, keys.a, keys.b);
    }
    let longest = largest_output(&file, &config).map_err(|error| error.within(&source.tensors_name))?;
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
    let key = config.projection_prng_key;
    let store = Store::from_key_watched(&Allocator::default(), key, size, dtype, &mut watch);
    let store = store.map_err(|error| match error.code() {
        Code::Memory => {
            let (rows, rank) = (config.a_rows(), config.rank);
            Error::new(Code::Memory, format!("out of memory: A would be {rows}×{in_max}, B {out_max}×{rank}"))
        }
        _ => error,
    })?;
    let (a, b) = (bytes_of(store.a())?, bytes_of(store.b())?);
    let pair = [(keys.a, store.a(), &a), (keys.b, store.b(), &b)]
        .map(|(key, matrix, bytes)| (key.to_owned(), Stored::F32, vec![matrix.rows(), matrix.cols()], &bytes[..]));
    config.save_projection = true;
    let kept = kept(&file, keys).map(|(name, view)| (name, view.dtype(), view.shape().to_vec(), view.data()));
    write(out, options.replace, &config, kept.chain(pair))
}

fn parsed(source: &Source) -> Result<(Config, SafeTensors<'_>)> {
    let config = Config::from_json(&source.config).map_err(|error| error.within(&source.config_name))?;
    let file = SafeTensors::deserialize(&source.tensors).map_err(|error| {
        Error::new(Code::Format, format!("{}: not a valid safetensors file: {error}", source.tensors_name))
    })?;
    Ok((config, file))
}

/// A and B, where they are saved: as large as the vectors want them, as far as these tell.
fn saved<'f>(file: &SafeTensors<'f>, config: &Config) -> Result<Option<(TensorView<'f>, TensorView<'f>)>> {
    let keys = Keys::of(config.method);
    let (a, b) = match (file.tensor(keys.a), file.tensor(keys.b)) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(_), Err(_)) => return Ok(None),
        (Ok(_), Err(_)) => fail!(Projection, "{} is in the file without {}", keys.a, keys.b),
        (Err(_), Ok(_)) => fail!(Projection, "{} is in the file without {}", keys.b, keys.a),
    };
    let longest = largest_output(file, config)?;
    if a.shape().get(1) == Some(&0) {
        fail!(Projection, "{} has shape {:?}; wanted columns", keys.a, a.shape());
    }
    if b.shape().first().is_some_and(|rows| *rows < longest) {
        fail!(Projection, "{} has shape {:?}; wanted {longest} rows at least, for the longest λ_b", keys.b, b.shape());
    }
    Ok(Some((a, b)))
}

/// What is not a projection.
fn kept<'f>(file: &'f SafeTensors<'f>, keys: &'f Keys) -> impl Iterator<Item = (String, TensorView<'f>)> {
    file.tensors().into_iter().filter(|(name, _)| name != keys.a && name != keys.b)
}

/// The longest λ_b. Every λ_d confirms the rank, by which is drawn.
fn largest_output(file: &SafeTensors<'_>, config: &Config) -> Result<usize> {
    let (keys, latents) = (Keys::of(config.method), config.a_rows());
    let mut longest = 0;
    for (name, view) in file.iter() {
        let count = view.shape().iter().product::<usize>();
        if module_of(name, keys.lambda_b).is_some() {
            longest = longest.max(count);
        } else if module_of(name, keys.lambda_d).is_some() && view.shape() != [latents] {
            let of = config.method.a_rows_text();
            fail!(Shape, "tensor '{name}' has shape {:?}; wanted [{latents}], {of} of the config", view.shape());
        }
    }
    if longest == 0 {
        fail!(Format, "there is no tensor 'base_model.model.MODULE{}'", keys.lambda_b);
    }
    Ok(longest)
}

/// The rounding that makes the key's draw A and B, by what the caller calls it.
fn rounding<T>(
    config: &Config,
    a: &TensorView<'_>,
    b: &TensorView<'_>,
    candidates: Vec<(Rounding, T)>,
    options: &Options<'_>,
) -> Result<T> {
    let (rank, a_rows, a_shape, b_shape) = (config.rank, config.a_rows(), a.shape(), b.shape());
    let Keys { a: a_key, b: b_key, .. } = Keys::of(config.method);
    if a_shape.len() != 2 || a_shape[0] != a_rows || b_shape.len() != 2 || b_shape[1] != rank {
        let rows = config.method.a_rows_text();
        fail!(
            Projection,
            "{a_key} and {b_key} have shapes {a_shape:?} and {b_shape:?}; wanted [{rows}, in_max] and [out_max, r] with r = {rank} of the config"
        );
    }
    let _mode = FloatMode::enter();
    let mut stream = Mt19937::new(config.projection_prng_key);
    let mut open: Vec<Candidate<T>> =
        candidates.into_iter().map(|(rounding, name)| Candidate { rounding, name, difference: None }).collect();
    let total = (a.data().len() / dtype_of(a_key, a.dtype())?.size()) as u64
        + (b.data().len() / dtype_of(b_key, b.dtype())?.size()) as u64;
    let mut done = 0u64;
    let mut values = [vec![0.0f32; BLOCK], vec![0.0f32; BLOCK], vec![0.0f32; BLOCK]];
    for (place, (key, view)) in [(a_key, a), (b_key, b)].into_iter().enumerate() {
        let dtype = dtype_of(key, view.dtype())?;
        for (block, bytes) in view.data().chunks(BLOCK * dtype.size()).enumerate() {
            options.progress("compare projections", done, total)?;
            let count = bytes.len() / dtype.size();
            let [drawn, held, rounded] = values.each_mut().map(|values| &mut values[..count]);
            draw_projection(&mut stream, view.shape()[1], drawn);
            widen(bytes, dtype, held);
            for candidate in &mut open {
                rounded.copy_from_slice(drawn);
                candidate.compare((place, key), view.shape()[1], block * BLOCK, rounded, held);
            }
            if open.iter().all(|candidate| candidate.difference.is_some()) {
                return Err(differs(config, &open));
            }
            done += count as u64;
        }
    }
    match open.iter().position(|candidate| candidate.difference.is_none()) {
        Some(equal) => Ok(open.swap_remove(equal).name),
        None => Err(differs(config, &open)),
    }
}

/// One rounding, and where it first differs.
struct Candidate<T> {
    rounding: Rounding,
    name: T,
    difference: Option<((usize, usize), String)>,
}

impl<T> Candidate<T> {
    /// `drawn` is rounded on the way.
    fn compare(&mut self, (place, key): (usize, &str), cols: usize, first: usize, drawn: &mut [f32], held: &[f32]) {
        if self.difference.is_some() {
            return;
        }
        self.rounding.round(drawn, projection_bound(cols));
        let differs = |(drawn, held): (&f32, &f32)| drawn.to_bits() != held.to_bits();
        if let Some(found) = drawn.iter().zip(held).position(differs) {
            let at = first + found;
            let rounded = match self.rounding {
                Rounding::To(Dtype::F32) => String::new(),
                Rounding::To(dtype) => format!(", rounded to {}", dtype.name()),
                Rounding::Int8Grid => ", on the int8 grid".into(),
            };
            let (row, col) = (at / cols, at % cols);
            let text =
                format!("{key} at row {row}, column {col} is {}; the key draws {}{rounded}", held[found], drawn[found]);
            self.difference = Some(((place, at), text));
        }
    }
}

/// The rounding that went furthest says most.
fn differs<T>(config: &Config, candidates: &[Candidate<T>]) -> Error {
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
    replace: bool,
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
    replace_folder(out, replace, &[(CONFIG_FILE, config.to_json().as_bytes()), (TENSOR_FILE, &file)])
}
