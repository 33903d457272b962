//! A model's layers as its files have them: their shapes, from the headers alone.

use std::collections::BTreeSet;
use std::path::Path;

use safetensors::tensor::TensorInfo;

use super::model_files::ModelFiles;
use super::outline::Outline;
use crate::adapter::load::dtype_of;
use crate::error::Result;
use crate::fail;
use crate::model::{Layer, Model};
use crate::tensor::Dtype;

/// What was declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declared {
    /// How many layers.
    pub count: usize,
    /// The element type of their weights; None where they differ, or hold one that computing does not take.
    pub dtype: Option<Dtype>,
}

/// Declares the layers that a checkpoint folder adapts, without weights, by the order of their names. All or none.
///
/// `prefix` is what stands before a module's path in the names of the files' tensors.
pub fn declare_layers(model: &Model, checkpoint: &Path, files: &ModelFiles, prefix: &str) -> Result<Declared> {
    let outline = Outline::read(checkpoint)?;
    let mut layers = Vec::new();
    let mut dtypes = BTreeSet::new();
    for module in &outline.modules {
        let weight = weight_name(prefix, &module.path);
        let (_, info) = files.wanted(&weight)?;
        let (outputs, inputs) = sizes(&weight, info, outline.config.fan_in_fan_out)?;
        if module.lambda_b != [outputs] {
            fail!(
                Shape,
                "'{}': tensor '{}' has shape {:?}; wanted [{outputs}], the outputs of '{weight}' of shape {:?}{}",
                outline.tensors.path().display(),
                outline.lambda_b(&module.path),
                module.lambda_b,
                info.shape,
                if outline.config.fan_in_fan_out { " (fan_in_fan_out)" } else { "" }
            );
        }
        dtypes.insert(dtype_of(&weight, info.dtype).ok().map(Dtype::name));
        layers.push(Layer::whole(module.path.as_str(), inputs, outputs));
    }
    if let Some(known) = layers.iter().find(|layer| model.layers().find(&layer.name).is_ok()) {
        fail!(Exists, "layer '{}' is declared already", known.name);
    }
    let first = outline.modules.first().and_then(|module| files.find(&weight_name(prefix, &module.path)));
    let dtype = first.filter(|_| dtypes.len() == 1).and_then(|(_, info)| dtype_of("", info.dtype).ok());
    let count = layers.len();
    layers.into_iter().try_for_each(|layer| model.declare(layer).map(drop))?;
    Ok(Declared { count, dtype })
}

/// The name of a module's weight in a model's files.
pub(super) fn weight_name(prefix: &str, module: &str) -> String {
    format!("{prefix}{module}.weight")
}

/// Outputs and inputs of a weight.
pub(super) fn sizes(name: &str, info: &TensorInfo, transposed: bool) -> Result<(usize, usize)> {
    match info.shape[..] {
        [rows, cols] if rows > 0 && cols > 0 => Ok(if transposed { (cols, rows) } else { (rows, cols) }),
        _ => fail!(Shape, "tensor '{name}' has shape {:?}; wanted the matrix of a linear layer", info.shape),
    }
}
