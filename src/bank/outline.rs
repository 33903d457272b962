//! What a bank's adapters have in common, as its catalogue says it: for programs that do not know the network.

use super::Bank;
use crate::config::Config;
use crate::error::Result;
use crate::projection::Rounding;

/// Adapters of one configuration on one store.
#[derive(Clone, Debug)]
pub struct FamilyOutline {
    pub config: Config,
    /// Number of its store; equal ones share the projections.
    pub store: usize,
    /// Columns of A, and rows of B.
    pub in_max: usize,
    pub out_max: usize,
    /// How the projections that the config's key draws are rounded; None: the file holds them.
    pub drawn: Option<Rounding>,
    pub layers: Vec<LayerOutline>,
    /// How many adapters are of this family.
    pub adapters: usize,
}

/// One adapted layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerOutline {
    pub name: String,
    /// out_total of the layer.
    pub outputs: usize,
    pub learns_bias: bool,
}

impl Bank {
    /// The families that adapters of the bank are of. A config that is none is an error.
    pub fn families(&self) -> Result<Vec<FamilyOutline>> {
        let state = self.state();
        let used =
            state.catalogue.families.iter().zip(state.members_of_families()).filter(|(_, adapters)| *adapters > 0);
        used.map(|(family, adapters)| {
            let outline = state.catalogue.outline(family, adapters);
            outline.map_err(|error| error.within(self.path.display()))
        })
        .collect()
    }
}
