//! Folding an adapter's mean into a model on disk: shard by shard, a block of rows at a time.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::TensorInfo;

use super::declare::{sizes, weight_name};
use super::model_files::ModelFiles;
use super::tensor_file::{Reader, TensorFile, zeros};
use super::{Options, adapted, copy_on_host, refuse_undeclared};
use crate::adapter::folder::{not_empty, replace_whole};
use crate::adapter::load::{dtype_of, widen};
use crate::adapter::source::{MODULE_PREFIX, inode, io};
use crate::adapter::{Adapter, Tensor};
use crate::context::Context;
use crate::error::Result;
use crate::fail;
use crate::linear::{Choice, Linear, MergeRequest, merge_rows};
use crate::memory::{Allocator, Buffer};
use crate::model::{Layer, WeightLayout};
use crate::tensor::{Device, Dtype, Matrix, MatrixMut, Parts};

/// Bytes handled at a time.
const BLOCK: usize = 8 << 20;

/// Endings of files that hold weights in other formats: copied, they would be the unmerged model.
const OTHER_WEIGHTS: [&str; 9] = ["safetensors", "bin", "pt", "pth", "ckpt", "h5", "msgpack", "onnx", "gguf"];

/// Writes the model with `W + alpha · diag(λ_b) B diag(λ_d[:r]) A[:r]` in the place of every adapted weight, rounded once in
/// the weight's own element type: the bits of [`crate::linear::merge`]. A learned bias takes the place of the module's, a
/// carried tensor that of its namesake; everything else is copied byte for byte.
///
/// `out` gets the files of the model, and those beside them. It is a new or empty folder, unless `options.replace` is set.
/// Everything is checked before anything is written; a failure or a stop leaves nothing behind.
pub fn merge_files(
    context: &Context,
    adapter: &Arc<Adapter>,
    files: &ModelFiles,
    out: &Path,
    options: &Options<'_>,
) -> Result<()> {
    if context.place() != Device::Host {
        fail!(Unsupported, "the context computes on {}; wanted one of PVERA_BACKEND_CPU, to merge", context.place());
    }
    let adapter = &copy_on_host(adapter)?.map_or_else(|| adapter.clone(), Arc::new);
    options.refuse_sampling(adapter)?;
    refuse_undeclared(adapter)?;
    let jobs = jobs(adapter, files, options)?;
    check_target(files, out, options)?;
    let beside = files.folder().map_or(Ok(Vec::new()), |folder| files_beside(folder, files, options))?;
    let total = files.files().iter().map(TensorFile::length).sum();
    let mut work = Work { context, jobs, options, done: 0, total };
    replace_whole(out, options.replace, |fresh| {
        beside.iter().try_for_each(|path| copy_file(path, fresh))?;
        files.files().iter().enumerate().try_for_each(|(number, file)| work.file(number, file, fresh))
    })
}

/// What takes the place of a tensor, by the file and the tensor's name.
type Jobs<'a> = HashMap<(usize, String), Job<'a>>;

enum Job<'a> {
    Weight(Linear, WeightLayout, Dtype),
    Values(&'a [f32], Dtype),
    Carried(&'a Tensor),
}

fn jobs<'a>(adapter: &'a Arc<Adapter>, files: &ModelFiles, options: &Options<'_>) -> Result<Jobs<'a>> {
    let mut jobs = Jobs::new();
    for (layer, vectors) in adapted(adapter)? {
        let name = weight_name(options.prefix, &layer.name);
        let (file, info) = files.wanted(&name)?;
        let layout = check_weight(layer, &name, info, adapter.config().fan_in_fan_out)?;
        let linear = Linear::single(adapter.clone(), adapter.layers().find(&layer.name)?);
        jobs.insert((file, name.clone()), Job::Weight(linear, layout, dtype_of(&name, info.dtype)?));
        if let Some(bias) = vectors.bias {
            let name = format!("{}{}.bias", options.prefix, layer.name);
            let (file, info) = files.wanted(&name)?;
            if info.shape != [bias.len()] {
                fail!(Shape, "tensor '{name}' has shape {:?}; wanted [{}], the learned bias", info.shape, bias.len());
            }
            let dtype = dtype_of(&name, info.dtype)?;
            check_finite(&name, bias.on_host(), dtype)?;
            jobs.insert((file, name), Job::Values(bias.on_host(), dtype));
        }
    }
    for tensor in adapter.tensors() {
        let name = tensor.name.strip_prefix(MODULE_PREFIX).unwrap_or(&tensor.name);
        let name = format!("{}{name}", options.prefix);
        let Some((file, info)) = files.find(&name) else {
            options
                .left_out(&format!("the adapter carries '{}', but the model's files hold no '{name}'", tensor.name))?;
            continue;
        };
        check_carried(tensor, &name, info)?;
        if jobs.insert((file, name.clone()), Job::Carried(tensor)).is_some() {
            fail!(Format, "the adapter carries '{}', but '{name}' gets other values from it too", tensor.name);
        }
    }
    Ok(jobs)
}

fn check_weight(layer: &Layer, name: &str, info: &TensorInfo, transposed: bool) -> Result<WeightLayout> {
    let (outputs, inputs) = (layer.out_total, layer.in_total);
    if (layer.out_features, layer.in_features) != (outputs, inputs) {
        fail!(Shape, "layer '{}' is declared as a shard; wanted it whole, to merge into files", layer.name);
    }
    if sizes(name, info, transposed)? != (outputs, inputs) {
        fail!(
            Shape,
            "tensor '{name}' has shape {:?}; wanted {:?}, as layer '{}' is declared{}",
            info.shape,
            if transposed { [inputs, outputs] } else { [outputs, inputs] },
            layer.name,
            if transposed { " (fan_in_fan_out)" } else { "" }
        );
    }
    Ok(if transposed { WeightLayout::InOut } else { WeightLayout::OutIn })
}

fn check_finite(name: &str, values: &[f32], dtype: Dtype) -> Result<()> {
    match values.iter().position(|value| !dtype.rounded(*value).is_finite()) {
        None => Ok(()),
        Some(place) => {
            fail!(Overflow, "tensor '{name}' would hold {} at {place}, in {}", values[place], dtype.name())
        }
    }
}

/// A carried tensor has the shape of its namesake, and its type, or both are floats.
fn check_carried(tensor: &Tensor, name: &str, info: &TensorInfo) -> Result<()> {
    if tensor.shape != info.shape {
        fail!(
            Shape,
            "the adapter carries '{}' of shape {:?}; the model's '{name}' has {:?}",
            tensor.name,
            tensor.shape,
            info.shape
        );
    }
    if tensor.element.0 != info.dtype {
        let target = dtype_of(name, info.dtype)?;
        check_finite(name, &widened(tensor)?, target)?;
    }
    Ok(())
}

fn widened(tensor: &Tensor) -> Result<Vec<f32>> {
    let dtype = dtype_of(&tensor.name, tensor.element.0)?;
    let mut values = zeros(tensor.data.len() / dtype.size())?;
    widen(&tensor.data, dtype, &mut values);
    Ok(values)
}

/// The target does not hold the model, and nothing else, unless that is to go.
fn check_target(files: &ModelFiles, out: &Path, options: &Options<'_>) -> Result<()> {
    let Ok(target) = fs::canonicalize(out) else { return Ok(()) };
    for file in files.files() {
        let source = fs::canonicalize(file.path()).map_err(|error| io(file.path(), "find", &error))?;
        if source.starts_with(&target) || file.path().parent().is_some_and(|own| inode(own).ok() == inode(out).ok()) {
            fail!(Argument, "'{}' holds the model that is merged; wanted another folder", out.display());
        }
    }
    let mut entries = fs::read_dir(out).map_err(|error| io(out, "read", &error))?;
    if entries.next().is_some() && !options.replace {
        return Err(not_empty(out));
    }
    Ok(())
}

/// The files that belong to a model beside its tensors: index, configuration, tokenizer.
fn files_beside(folder: &Path, files: &ModelFiles, options: &Options<'_>) -> Result<Vec<PathBuf>> {
    let mut beside = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| io(folder, "read", &error))? {
        let path = entry.map_err(|error| io(folder, "read", &error))?.path();
        if files.files().iter().any(|file| file.path() == path) {
            continue;
        }
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        // A link, as in a cache of downloads, stands for its file.
        let is_file = fs::metadata(&path).is_ok_and(|data| data.is_file());
        if is_file && !OTHER_WEIGHTS.contains(&ending.to_ascii_lowercase().as_str()) {
            beside.push(path);
        } else {
            options.listener.warning(&format!(
                "'{}' is not copied: {}",
                path.display(),
                if is_file { "it may hold the unmerged weights" } else { "it is not a file" }
            ));
        }
    }
    beside.sort();
    Ok(beside)
}

fn copy_file(path: &Path, folder: &Path) -> Result<()> {
    let Some(name) = path.file_name() else { return Ok(()) };
    let target = folder.join(name);
    let copied = fs::copy(path, &target).and_then(|_| File::open(&target)?.sync_all());
    copied.map_err(|error| io(&target, "write", &error))
}

struct Work<'a> {
    context: &'a Context,
    jobs: Jobs<'a>,
    options: &'a Options<'a>,
    /// Bytes written, and bytes in all.
    done: u64,
    total: u64,
}

impl Work<'_> {
    fn file(&mut self, number: usize, source: &TensorFile, folder: &Path) -> Result<()> {
        let name = source.path().file_name().unwrap_or_default();
        let path = folder.join(name);
        let reader = source.reader()?;
        // As private as the file that it is made of.
        let mode = fs::metadata(source.path()).map_err(|error| io(source.path(), "read", &error))?.mode();
        let mut target = File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .map_err(|error| io(&path, "write", &error))?;
        let mut put = |bytes: &[u8]| {
            target.write_all(bytes).map_err(|error| io(&path, "write", &error))?;
            self.done += bytes.len() as u64;
            self.options.progress("merge", self.done, self.total)
        };
        put(source.head())?;
        for tensor in source.names() {
            let Some(info) = source.info(&tensor) else { continue };
            match self.jobs.get(&(number, tensor.clone())) {
                None => copy(&reader, info, &mut put)?,
                Some(Job::Values(values, dtype)) => put(&narrowed(values, *dtype)?)?,
                Some(Job::Carried(carried)) if carried.element.0 == info.dtype => put(&carried.data)?,
                Some(Job::Carried(carried)) => put(&narrowed(&widened(carried)?, dtype_of(&tensor, info.dtype)?)?)?,
                Some(Job::Weight(linear, layout, dtype)) => {
                    merge(self.context, linear, *layout, *dtype, &reader, info, &mut put)
                        .map_err(|error| error.within(format!("tensor '{tensor}'")))?;
                }
            }
        }
        target.sync_all().map_err(|error| io(&path, "write", &error))
    }
}

type Put<'p> = dyn FnMut(&[u8]) -> Result<()> + 'p;

fn copy(reader: &Reader<'_>, info: &TensorInfo, put: &mut Put<'_>) -> Result<()> {
    let (start, end) = info.data_offsets;
    let mut block = zeros(BLOCK.min(end - start))?;
    for first in (start..end).step_by(BLOCK) {
        let part = &mut block[..BLOCK.min(end - first)];
        reader.read(first, part)?;
        put(part)?;
    }
    Ok(())
}

fn narrowed(values: &[f32], dtype: Dtype) -> Result<Buffer<u8>> {
    let mut bytes = Buffer::zeroed(&Allocator::default(), values.len() * dtype.size())?;
    // SAFETY: a buffer is aligned for any element, and has room for these.
    unsafe { dtype.narrow(values, bytes.as_mut_ptr(), 0) };
    Ok(bytes)
}

fn merge(
    context: &Context,
    linear: &Linear,
    layout: WeightLayout,
    dtype: Dtype,
    reader: &Reader<'_>,
    info: &TensorInfo,
    put: &mut Put<'_>,
) -> Result<()> {
    let (rows, cols) = (info.shape[0], info.shape[1]);
    let row_bytes = cols * dtype.size();
    let height = (BLOCK / row_bytes).clamp(1, rows);
    let request = MergeRequest { choice: Choice::First, layout, drop_sampling: true, wants_undo: false };
    let mut weight = Buffer::<u8>::zeroed(context.allocator(), height * row_bytes)?;
    let mut merged = Buffer::<u8>::zeroed(context.allocator(), height * row_bytes)?;
    for first in (0..rows).step_by(height) {
        let count = height.min(rows - first);
        let bytes = count * row_bytes;
        reader.read(info.data_offsets.0 + first * row_bytes, &mut weight[..bytes])?;
        let parts = Parts { rows: count, cols, row_stride: cols, dtype, device: Device::Host };
        // SAFETY: the buffers hold `height` rows, are aligned for any element, and are nobody else's.
        let (from, to) = unsafe {
            (Matrix::new("weight", weight.as_ptr(), parts)?, MatrixMut::new("merged", merged.as_mut_ptr(), parts)?)
        };
        merge_rows(context, linear, &request, first, &from, &to)
            .map_err(|error| error.within(format!("rows {first} to {}", first + count - 1)))?;
        put(&merged[..bytes])?;
    }
    Ok(())
}
