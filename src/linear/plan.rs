//! From a request to resolved terms: which vectors, which projections, which columns of p and eps.

use super::Linear;
use super::request::{Choice, ModeChoice, Request};
use crate::backend::cpu::FloatMode;
use crate::backend::{Call, Membership, Mode, Noise, Term};
use crate::error::{Error, Result};
use crate::fail;
use crate::model::Slot;
use crate::noise::{DropoutKey, NormalKey};

/// The resolved terms of a group of layers with one input.
#[derive(Debug)]
pub struct Plan<'a> {
    layers: Vec<LayerPlan<'a>>,
    projections: Vec<LayerPlan<'a>>,
    /// Columns of p.
    pub width: usize,
    request: Request<'a>,
    rows: usize,
}

#[derive(Debug)]
struct LayerPlan<'a> {
    linear: &'a Linear,
    terms: Vec<Term<'a>>,
    /// Which slot each term is of.
    slots: Vec<i32>,
    /// One term a row, by index; empty when every row takes every term.
    of_row: Vec<i32>,
    /// Columns of eps, mu and logvar.
    latents: usize,
}

impl<'a> Plan<'a> {
    /// Resolves every slot before anything is computed.
    pub fn new(linears: &[&'a Linear], rows: usize, request: &Request<'a>) -> Result<Self> {
        if u32::try_from(rows).is_err() {
            fail!(Shape, "x has {rows} rows; wanted at most {}", u32::MAX);
        }
        let Some(first) = linears.first() else { fail!(Argument, "count is 0; wanted at least one layer") };
        // Factors are rounded to f32 here, and the host may have left another rounding mode behind.
        let _mode = FloatMode::enter();
        for linear in linears {
            let (own, other) = (first.layer(), linear.layer());
            if (own.in_offset, own.in_features) != (other.in_offset, other.in_features) {
                fail!(
                    Shape,
                    "layers '{}' and '{}' of a group have inputs of different sizes or offsets",
                    own.name,
                    other.name
                );
            }
        }
        let mut plan = Self { layers: Vec::new(), projections: Vec::new(), width: 0, request: *request, rows };
        match request.rows.choice {
            Choice::First => plan.sum(linears, &[(0, 1.0)])?,
            Choice::Sum(active) => plan.sum(linears, active)?,
            Choice::PerRow(slots) => plan.per_row(linears, slots)?,
        }
        Ok(plan)
    }

    /// The layers' calls, in the order of the group.
    pub fn calls(&self) -> Vec<Call<'_>> {
        self.layers.iter().map(|layer| self.call(layer)).collect()
    }

    /// Calls that together hold each distinct projection once.
    pub fn projections(&self) -> Vec<Call<'_>> {
        self.projections.iter().map(|layer| self.call(layer)).collect()
    }

    /// Columns of eps, mu and logvar of each layer.
    pub fn latents(&self) -> impl Iterator<Item = usize> {
        self.layers.iter().map(|layer| layer.latents)
    }

    /// Total columns of eps.
    pub fn latent_width(&self) -> usize {
        self.latents().sum()
    }

    /// The slots of one layer's terms.
    pub fn slots(&self, layer: usize) -> &[i32] {
        &self.layers[layer].slots
    }

    /// One layer's terms.
    pub fn terms(&self, layer: usize) -> &[Term<'a>] {
        &self.layers[layer].terms
    }

    pub fn request(&self) -> &Request<'a> {
        &self.request
    }

    fn call<'p>(&'p self, layer: &'p LayerPlan<'a>) -> Call<'p> {
        let declared = layer.linear.layer();
        let noise = &self.request.noise;
        Call {
            rows: self.rows,
            inputs: declared.in_features,
            outputs: declared.out_features,
            in_offset: declared.in_offset,
            base: layer.linear.base(),
            bias: declared.bias,
            terms: &layer.terms,
            membership: if layer.of_row.is_empty() { Membership::All } else { Membership::ByRow(&layer.of_row) },
            keys: self.request.rows.keys,
            noise: Noise { eps: noise.eps, dropout_mask: noise.dropout_mask, antithetic: noise.antithetic },
        }
    }

    /// Several adapters on every row. Those of one store, without dropout, share a projection, in all layers.
    fn sum(&mut self, linears: &[&'a Linear], active: &[(i32, f32)]) -> Result<()> {
        let mut distinct: Vec<Term<'a>> = Vec::new();
        let mut latent_column = 0;
        for linear in linears {
            let (mut terms, mut slots) = (Vec::new(), Vec::new());
            let first_column = latent_column;
            for (slot, scale) in active {
                if *slot == -1 {
                    continue;
                }
                if slots.contains(slot) {
                    fail!(
                        Argument,
                        "rows.active holds slot {slot} twice; wanted each adapter once, with the sum of its scales"
                    );
                }
                if !scale.is_finite() {
                    fail!(Argument, "rows.active: the scale of slot {slot} is {scale}; wanted a finite number");
                }
                let Some(mut term) = self.term(linear, linear.slots().get(*slot)?, *scale)? else { continue };
                term.latent_column = latent_column;
                latent_column += term.rank();
                match distinct.iter_mut().find(|known| shares_projection(known, &term)) {
                    Some(known) => {
                        term.p_column = known.p_column;
                        project_for_both(known, &term);
                    }
                    None => {
                        term.p_column = self.width;
                        self.width += 2 * term.rank();
                        push(&mut distinct, term)?;
                    }
                }
                push(&mut terms, term)?;
                push(&mut slots, *slot)?;
            }
            check_one_bias(linear, &terms)?;
            push(
                &mut self.layers,
                LayerPlan { linear, terms, slots, of_row: Vec::new(), latents: latent_column - first_column },
            )?;
        }
        push(
            &mut self.projections,
            LayerPlan { linear: linears[0], terms: distinct, slots: Vec::new(), of_row: Vec::new(), latents: 0 },
        )
    }

    /// One adapter a row. Rows share columns of p; with dropout, each layer has columns of its own.
    fn per_row(&mut self, linears: &[&'a Linear], slots: &[i32]) -> Result<()> {
        if slots.len() != self.rows {
            fail!(Shape, "rows.slot has {} entries; wanted {}, the rows of x", slots.len(), self.rows);
        }
        let mut used: Vec<i32> = Vec::new();
        used.try_reserve(slots.len()).map_err(|_| Error::out_of_memory())?;
        used.extend(slots.iter().filter(|slot| **slot != -1));
        used.sort_unstable();
        used.dedup();
        let mut union: Vec<Option<Term<'a>>> = filled(None, used.len())?;
        let mut latent_column = 0;
        for linear in linears {
            let (mut terms, mut own_slots) = (Vec::new(), Vec::new());
            let mut place_of = filled(-1, used.len())?;
            let mut latents = 0;
            for (place, slot) in used.iter().enumerate() {
                let Some(mut term) = self.term(linear, linear.slots().get(*slot)?, 1.0)? else { continue };
                term.latent_column = latent_column;
                latents = latents.max(term.rank());
                place_of[place] = terms.len() as i32;
                push(&mut terms, term)?;
                push(&mut own_slots, *slot)?;
                project_for_both(union[place].get_or_insert(term), &term);
            }
            latent_column += latents;
            let of_row = self.of_row(slots, &used, &place_of)?;
            push(&mut self.layers, LayerPlan { linear, terms, slots: own_slots, of_row, latents })?;
        }
        let widest = |terms: &[Term<'a>]| terms.iter().map(|term| 2 * term.rank()).max().unwrap_or(0);
        if self.layers.iter().any(|layer| layer.terms.iter().any(|term| term.dropout.is_some())) {
            for position in 0..self.layers.len() {
                let column = self.width;
                let layer = &mut self.layers[position];
                layer.terms.iter_mut().for_each(|term| term.p_column = column);
                self.width += widest(&layer.terms);
                let copy = LayerPlan {
                    linear: layer.linear,
                    terms: layer.terms.clone(),
                    slots: Vec::new(),
                    of_row: layer.of_row.clone(),
                    latents: 0,
                };
                push(&mut self.projections, copy)?;
            }
            return Ok(());
        }
        let mut terms = Vec::new();
        let mut place_of = filled(-1, used.len())?;
        for (place, term) in union.into_iter().enumerate() {
            let Some(term) = term else { continue };
            place_of[place] = terms.len() as i32;
            push(&mut terms, term)?;
        }
        self.width = widest(&terms);
        let of_row = self.of_row(slots, &used, &place_of)?;
        push(&mut self.projections, LayerPlan { linear: linears[0], terms, slots: Vec::new(), of_row, latents: 0 })
    }

    fn of_row(&self, slots: &[i32], used: &[i32], place_of: &[i32]) -> Result<Vec<i32>> {
        let mut of_row = Vec::new();
        of_row.try_reserve_exact(slots.len()).map_err(|_| Error::out_of_memory())?;
        of_row.extend(slots.iter().map(|slot| used.binary_search(slot).map_or(-1, |place| place_of[place])));
        Ok(of_row)
    }

    /// One adapter's term on a layer; None when it does not adapt the layer.
    fn term(&self, linear: &'a Linear, slot: &'a Slot, scale: f32) -> Result<Option<Term<'a>>> {
        let layer = linear.layer();
        let adapter = &slot.adapter;
        let Some(vectors) = adapter.vectors(linear.index()) else { return Ok(None) };
        let config = adapter.config();
        let noise = &self.request.noise;
        let mode = match noise.mode {
            ModeChoice::All(mode) => mode,
            ModeChoice::AsPeft if self.request.training || vectors.samples => Mode::Sample,
            ModeChoice::AsPeft => Mode::Mean,
        };
        let drops = self.request.training && config.pvera_dropout > 0.0 && noise.dropout_mask.is_none();
        let dropout = (DropoutKey::new(noise.seed, layer.hash(), slot.identity), config.pvera_dropout as f32);
        let outputs = layer.out_offset..layer.out_offset + layer.out_features;
        Ok(Some(Term {
            a: adapter.store().a_slice(layer.in_offset, layer.in_features),
            b: adapter.store().b_slice(layer.out_offset, layer.out_features),
            pair: adapter.store().pair(layer.in_offset, layer.out_offset),
            lambda_d: vectors.lambda_d,
            lambda_b: &vectors.lambda_b[outputs.clone()],
            bias: vectors.bias.map(|bias| &bias[outputs]),
            scale: (config.alpha * f64::from(scale)) as f32,
            mode,
            logvar_bound: config.logvar_bound.map_or(f32::INFINITY, |bound| bound as f32),
            noise: NormalKey::new(noise.seed, layer.hash(), slot.identity),
            dropout: drops.then_some(dropout),
            p_column: 0,
            latent_column: 0,
        }))
    }
}

fn shares_projection(first: &Term<'_>, second: &Term<'_>) -> bool {
    first.a.data() == second.a.data()
        && first.rank() == second.rank()
        && first.dropout.is_none()
        && second.dropout.is_none()
}

/// A shared projection is made for its most demanding user: the mean needs half of it, a sample all.
fn project_for_both(shared: &mut Term<'_>, user: &Term<'_>) {
    if shared.mode == Mode::Mean {
        shared.mode = user.mode;
    }
}

fn check_one_bias(linear: &Linear, terms: &[Term<'_>]) -> Result<()> {
    let learned = terms.iter().filter(|term| term.bias.is_some()).count();
    if learned > 1 {
        fail!(
            State,
            "{learned} of the summed adapters learned a bias for layer '{}'; a bias can take the place of the base's only once",
            linear.layer().name
        );
    }
    Ok(())
}

fn filled<T: Clone>(value: T, count: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(count).map_err(|_| Error::out_of_memory())?;
    list.resize(count, value);
    Ok(list)
}

fn push<T>(list: &mut Vec<T>, item: T) -> Result<()> {
    list.try_reserve(1).map_err(|_| Error::out_of_memory())?;
    list.push(item);
    Ok(())
}
