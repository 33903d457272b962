//! The linear layers that a host declares: names, sizes, places in a sharded layer, optional borrowed weights.

use std::collections::HashMap;

use crate::backend::Weight;
use crate::backend::cpu::BasePacks;
use crate::error::{Error, Result};
use crate::fail;
use crate::memory::Allocator;
use crate::noise::layer_hash;
use crate::tensor::{Device, Matrix};

/// How a base weight is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightLayout {
    /// `[out, in]`, as torch.nn.Linear.
    #[default]
    OutIn,
    /// `[in, out]`, as GPT-2's Conv1D (`fan_in_fan_out`).
    InOut,
}

/// One declared layer, or this program's shard of it.
#[derive(Debug)]
pub struct Layer {
    /// Module path as in a checkpoint: `model.layers.0.self_attn.q_proj`.
    pub name: String,
    pub in_features: usize,
    pub out_features: usize,
    /// Where the shard begins in the whole layer.
    pub in_offset: usize,
    pub out_offset: usize,
    /// The whole layer.
    pub in_total: usize,
    pub out_total: usize,
    /// Borrowed from the host, which keeps it alive and unchanged.
    pub weight: Option<(Matrix<'static>, WeightLayout)>,
    /// `[1, out]`, borrowed.
    pub bias: Option<Matrix<'static>>,
    /// The output head, which "all-linear" leaves out.
    pub output_head: bool,
}

impl Layer {
    /// A whole layer, whose base is the host's own.
    pub fn whole(name: impl Into<String>, inputs: usize, outputs: usize) -> Self {
        Self {
            name: name.into(),
            in_features: inputs,
            out_features: outputs,
            in_offset: 0,
            out_offset: 0,
            in_total: inputs,
            out_total: outputs,
            weight: None,
            bias: None,
            output_head: false,
        }
    }

    pub fn checked(self) -> Result<Self> {
        let name = &self.name;
        if name.is_empty() {
            fail!(Argument, "layer.name is empty; wanted a module path");
        }
        for (field, value) in [("in_features", self.in_features), ("out_features", self.out_features)] {
            if value == 0 {
                fail!(Shape, "layer '{name}': {field} is 0; wanted at least 1");
            }
        }
        let sides = [
            ("in", self.in_offset, self.in_features, self.in_total),
            ("out", self.out_offset, self.out_features, self.out_total),
        ];
        for (side, offset, features, total) in sides {
            if offset.checked_add(features).is_none_or(|end| end > total) {
                fail!(
                    Shape,
                    "layer '{name}': {side}_offset {offset} + {side}_features {features} is beyond {side}_total {total}"
                );
            }
        }
        if let Some((weight, layout)) = &self.weight {
            let (out, inputs) = (("out_features", self.out_features), ("in_features", self.in_features));
            let (rows, cols) = if *layout == WeightLayout::OutIn { (out, inputs) } else { (inputs, out) };
            weight.shape("layer.weight", rows, cols).map_err(|error| error.within(format!("layer '{name}'")))?;
        }
        if let Some(bias) = &self.bias {
            let wanted = ("out_features", self.out_features);
            bias.shape("layer.bias", ("1", 1), wanted).map_err(|error| error.within(format!("layer '{name}'")))?;
        }
        Ok(self)
    }

    /// Where the base weight lies; the host, where there is none.
    pub fn place_of_weight(&self) -> Device {
        self.weight.as_ref().map_or(Device::Host, |(matrix, _)| matrix.device())
    }

    /// The key under which this layer draws its noise.
    pub fn hash(&self) -> u64 {
        layer_hash(&self.name)
    }

    /// The base weight as `x Wᵀ` uses it.
    pub fn base(&self) -> Option<Weight<'_>> {
        self.weight.as_ref().map(|(matrix, layout)| match layout {
            WeightLayout::OutIn => Weight::output_major(matrix),
            WeightLayout::InOut => Weight::output_major(matrix).transposed(),
        })
    }
}

/// The layers of a model, in the order of their declaration.
#[derive(Debug, Default)]
pub struct Layers {
    list: Vec<Layer>,
    packs: Vec<BasePacks>,
    allocator: Allocator,
    by_name: HashMap<String, usize>,
}

impl Layers {
    /// Adds a layer; its number is its place.
    pub fn declare(&mut self, layer: Layer) -> Result<usize> {
        let layer = layer.checked()?;
        if self.by_name.contains_key(&layer.name) {
            fail!(Exists, "layer '{}' is declared already", layer.name);
        }
        let index = self.list.len();
        self.list.try_reserve(1).map_err(|_| Error::out_of_memory())?;
        self.packs.try_reserve(1).map_err(|_| Error::out_of_memory())?;
        self.packs.push(BasePacks::default());
        self.by_name.insert(layer.name.clone(), index);
        self.list.push(layer);
        Ok(index)
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn get(&self, index: usize) -> Result<&Layer> {
        match self.list.get(index) {
            Some(layer) => Ok(layer),
            None => fail!(NotFound, "layer number {index} is not declared; the model has {} layers", self.list.len()),
        }
    }

    /// No layers yet; what is packed for them comes from `allocator`.
    pub fn new(allocator: Allocator) -> Self {
        Self { allocator, ..Self::default() }
    }

    pub fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// The packed forms of a declared layer's base weight.
    pub fn packs(&self, index: usize) -> &BasePacks {
        &self.packs[index]
    }

    pub fn find(&self, name: &str) -> Result<usize> {
        match self.by_name.get(name) {
            Some(index) => Ok(*index),
            None => fail!(NotFound, "layer '{name}' is not declared; the model has {} layers", self.list.len()),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Layer> {
        self.list.iter()
    }
}
