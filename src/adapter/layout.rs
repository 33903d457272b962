//! Which layers an adapter adapts, and where their vectors lie among the parameters.

use super::{Ranges, Span};
use crate::config::Config;
use crate::model::Layer;

/// Where one layer's vectors lie among the parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub layer: usize,
    pub ranges: Ranges,
    pub samples: bool,
}

/// The adapted layers' vectors, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// One for each adapted layer, in the order of declaration.
    pub entries: Vec<Entry>,
    /// By layer number: which entry.
    of_layer: Vec<Option<usize>>,
    /// Number of parameters.
    pub total: usize,
}

impl Layout {
    pub fn new(layers: usize) -> Self {
        Self { entries: Vec::new(), of_layer: vec![None; layers], total: 0 }
    }

    /// Adds a layer, whose number is above all before it.
    pub fn add(&mut self, number: usize, layer: &Layer, config: &Config, learns_bias: bool) {
        let mut span = |count: usize| {
            self.total += count;
            Span { start: self.total - count, count }
        };
        let ranges = Ranges {
            lambda_b: span(layer.out_total),
            lambda_d: span(config.a_rows()),
            bias: learns_bias.then(|| span(layer.out_total)),
        };
        self.of_layer[number] = Some(self.entries.len());
        self.entries.push(Entry { layer: number, ranges, samples: config.sample_at_inference_for(&layer.name) });
    }

    pub fn find(&self, layer: usize) -> Option<&Entry> {
        self.entries.get((*self.of_layer.get(layer)?)?)
    }
}
