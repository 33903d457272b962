//! An adapter's projections: from its file, or from its key.

use std::sync::Arc;

use safetensors::tensor::TensorView;

use super::layout::Layout;
use super::load::{Loading, Views};
use super::source::Keys;
use super::store_file::stored;
use crate::config::Config;
use crate::error::Result;
use crate::fail;
use crate::model::{Layer, Model};
use crate::projection::{Size, Store};
use crate::tensor::Dtype;

impl Loading<'_> {
    pub fn store(&self, views: &Views<'_>, layout: &Layout) -> Result<Arc<Store>> {
        let Keys { a: a_key, b: b_key, .. } = self.keys();
        let store = match (views.get(*a_key), views.get(*b_key)) {
            (Some(a), Some(b)) => {
                if !self.config.save_projection {
                    let listener = self.model.listener();
                    listener.warning(&format!(
                        "{}: save_projection is false, but the file holds projections; they are used, not the key's",
                        self.source.tensors_name
                    ));
                }
                self.saved_store(a, b)?
            }
            (None, None) if self.config.save_projection => {
                fail!(Projection, "save_projection is true, but neither {a_key} nor {b_key} is in the file")
            }
            (None, None) => self.drawn_store(layout)?,
            (Some(_), None) => fail!(Projection, "{a_key} is in the file, but {b_key} is not"),
            (None, Some(_)) => fail!(Projection, "{b_key} is in the file, but {a_key} is not"),
        };
        Ok(self.model.stores().share(Arc::new(store)))
    }

    fn saved_store(&self, a: &TensorView<'_>, b: &TensorView<'_>) -> Result<Store> {
        let Keys { a: a_key, b: b_key, .. } = self.keys();
        let rank = self.config.rank;
        let (a_shape, b_shape) = (a.shape(), b.shape());
        if a_shape.len() != 2 || a_shape[0] != self.config.a_rows() || a_shape[1] == 0 {
            let rows = self.config.method.a_rows_text();
            fail!(Projection, "{a_key} has shape {a_shape:?}; wanted [{rows}, in_max] with r = {rank} of the config");
        }
        if b_shape.len() != 2 || b_shape[1] != rank || b_shape[0] == 0 {
            fail!(Projection, "{b_key} has shape {b_shape:?}; wanted [out_max, r] with r = {rank} of the config");
        }
        stored(self.model.allocator(), a, b, self.keys(), &self.source.tensors)
    }

    fn drawn_store(&self, layout: &Layout) -> Result<Store> {
        let layers = layout.entries.iter().map(|entry| self.layers.get(entry.layer));
        let layers = layers.collect::<Result<Vec<_>>>()?;
        let knows_all = !self.options.ignore_undeclared;
        let largest = |name: &str, given: Option<usize>, own: Option<usize>| match (given, own) {
            (Some(given), _) => Ok(given),
            (None, Some(own)) if knows_all => Ok(own),
            (None, None) if knows_all => {
                fail!(Projection, "{name} is not known: the file adapts no declared layer, and options.{name} is 0")
            }
            _ => fail!(
                Projection,
                "{name} is not known: with ignore_undeclared, projections from the key need options.{name}, the largest over all adapted layers of the whole model"
            ),
        };
        let in_max = largest("in_max", self.options.in_max, layers.iter().map(|layer| layer.in_total).max())?;
        let out_max = largest("out_max", self.options.out_max, layers.iter().map(|layer| layer.out_total).max())?;
        draw(
            self.model,
            &self.config,
            &layers,
            Size { method: self.config.method, rank: self.config.rank, in_max, out_max },
            self.options.base_dtype,
        )
    }
}

/// Draws a store from the config's key, and says so where the base's element type is a guess.
pub(super) fn draw(
    model: &Model,
    config: &Config,
    layers: &[&Layer],
    size: Size,
    base_dtype: Option<Dtype>,
) -> Result<Store> {
    let narrow = layers
        .iter()
        .filter_map(|layer| layer.weight.as_ref())
        .map(|(weight, _)| weight.dtype())
        .find(|dtype| *dtype != Dtype::F32);
    if let (None, Some(dtype)) = (base_dtype, narrow) {
        model.listener().warning(&format!(
            "projections are drawn from the key unrounded, but a base weight is {}; if PEFT trained on such a base, set options.base_dtype",
            dtype.name()
        ));
    }
    let mut watch = |drawn, total| model.listener().drawn(drawn, total);
    let round_to = base_dtype.unwrap_or(Dtype::F32);
    Store::from_key_watched(model.allocator(), config.projection_prng_key, size, round_to, &mut watch)
}
