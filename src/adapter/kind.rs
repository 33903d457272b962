//! What adapters of one training setup have in common: where there are thousands of them, they share it.

use std::sync::Arc;

use super::layout::Layout;
use super::{Adapter, Parameters, Ranges, SavedDtypes};
use crate::backend::Copies;
use crate::config::Config;
use crate::error::Result;
use crate::model::Layers;
use crate::projection::Store;
use crate::tensor::Dtype;

/// Config, store, and the adapted layers with the places of their vectors.
#[derive(Clone, Debug)]
pub struct Kind {
    layers: Arc<Layers>,
    config: Arc<Config>,
    store: Arc<Store>,
    layout: Arc<Layout>,
}

impl Kind {
    /// The kind that adapts these layers (number, and whether its bias is learned), ascending.
    pub fn new(
        layers: Arc<Layers>,
        config: Config,
        store: Arc<Store>,
        adapted: impl Iterator<Item = (usize, bool)>,
    ) -> Result<Self> {
        super::check_f32(&config)?;
        super::check_store(&store, &config)?;
        let mut layout = Layout::new(layers.len());
        for (number, learns_bias) in adapted {
            let layer = layers.get(number)?;
            store.covers(&layer.name, layer.in_total, layer.out_total)?;
            layout.add(number, layer, &config, learns_bias);
        }
        Ok(Self { layers, config: Arc::new(config), store, layout: Arc::new(layout) })
    }

    pub fn of(adapter: &Adapter) -> Self {
        Self {
            layers: adapter.layers.clone(),
            config: adapter.config.clone(),
            store: adapter.store.clone(),
            layout: adapter.layout.clone(),
        }
    }

    pub fn layers(&self) -> &Arc<Layers> {
        &self.layers
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The adapted layers, with the places of their vectors, in the order in which those lie one after the other.
    pub fn ranges(&self) -> impl Iterator<Item = (usize, Ranges)> {
        self.layout.entries.iter().map(|entry| (entry.layer, entry.ranges))
    }

    /// How many parameters an adapter of this kind has.
    pub fn parameter_count(&self) -> usize {
        self.layout.total
    }

    /// Whether both are surely one kind: they share everything, as adapters that were made together do.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
            && Arc::ptr_eq(&self.store, &other.store)
            && Arc::ptr_eq(&self.layout, &other.layout)
    }

    /// An immutable adapter of this kind. A save holds its vectors in `dtype`, where that loses nothing.
    pub fn adapter(&self, parameters: Parameters, dtype: Dtype, identity: Option<u64>) -> Adapter {
        assert_eq!(parameters.len(), self.layout.total);
        let projections = self.store.saved_dtype();
        Adapter {
            layers: self.layers.clone(),
            config: self.config.clone(),
            store: self.store.clone(),
            identity,
            parameters,
            layout: self.layout.clone(),
            tensors: Vec::new(),
            saved_dtypes: SavedDtypes { vectors: dtype, a: projections, b: projections },
            trainable: false,
            copies: Copies::default(),
        }
    }
}
