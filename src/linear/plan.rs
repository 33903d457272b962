//! From a request to resolved terms: which vectors, which projections, which columns of p and eps.

use super::Linear;
use super::request::{Choice, ModeChoice, Request};
use crate::backend::{Call, Membership, Mode, NO_ADAPTER, Noise, Originals, Term};
use crate::config::Method;
use crate::error::Result;
use crate::fail;
use crate::memory::{Arena, List};
use crate::model::Slot;
use crate::noise::{DropoutKey, NormalKey};

/// The resolved terms of a group of layers with one input.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The layers' calls, in the order of the group.
    pub calls: &'a [Call<'a>],
    /// Calls that together hold each distinct projection once.
    pub projections: &'a [Call<'a>],
    /// Which slot each term is of, layer by layer.
    pub slots: &'a [&'a [i32]],
    /// Columns of p.
    pub width: usize,
    /// Columns of eps, mu and logvar.
    pub latents: usize,
    pub request: &'a Request<'a>,
}

/// One slot a row.
#[derive(Clone, Copy, Debug)]
enum Slots<'s> {
    OnHost(&'s [i32]),
    /// By address.
    OnDevice(u64),
}

/// A plan in the making.
struct Planner<'a, 'l> {
    arena: &'a Arena,
    linears: &'l [&'a Linear],
    rows: usize,
    request: &'a Request<'a>,
}

impl<'a> Plan<'a> {
    /// Resolves every slot before anything is computed.
    pub fn new(arena: &'a Arena, linears: &[&'a Linear], rows: usize, request: &'a Request<'a>) -> Result<Self> {
        if u32::try_from(rows).is_err() {
            fail!(Shape, "x has {rows} rows; wanted at most {}", u32::MAX);
        }
        let Some(first) = linears.first() else { fail!(Argument, "count is 0; wanted at least one layer") };
        for linear in &linears[1..] {
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
        let planner = Planner { arena, linears, rows, request };
        match request.rows.choice {
            Choice::First => planner.sum(&[(0, 1.0)]),
            Choice::Sum(active) => planner.sum(active),
            Choice::PerRow(slots) => planner.per_row(Slots::OnHost(slots)),
            Choice::PerRowOnDevice(address) => planner.per_row(Slots::OnDevice(address)),
        }
    }
}

impl<'a> Planner<'a, '_> {
    #[inline]
    fn call(&self, linear: &'a Linear, terms: &'a [Term<'a>], membership: Membership<'a>) -> Call<'a> {
        let declared = linear.layer();
        let noise = &self.request.noise;
        Call {
            rows: self.rows,
            inputs: declared.in_features,
            outputs: declared.out_features,
            in_offset: declared.in_offset,
            base: linear.base(),
            bias: declared.bias,
            terms,
            membership,
            keys: self.request.rows.keys,
            noise: Noise {
                eps: noise.eps,
                dropout_mask: noise.dropout_mask,
                antithetic: noise.antithetic,
                seed: noise.seed,
                seed_at: noise.seed_at,
            },
        }
    }

    /// Several adapters on every row. Those of one store, without dropout, share a projection, in all layers.
    fn sum(&self, active: &[(i32, f32)]) -> Result<Plan<'a>> {
        let most = active.iter().filter(|(slot, _)| *slot != -1).count();
        // One term in all shares with none: what is to be projected is what the layer's call says.
        let alone = most == 1 && self.linears.len() == 1;
        let most_distinct = if alone { 0 } else { most.saturating_mul(self.linears.len()) };
        let mut distinct: List<'a, Term<'a>> = self.arena.list(most_distinct)?;
        let mut calls = self.arena.list(self.linears.len())?;
        let mut slots_of = self.arena.list(self.linears.len())?;
        let (mut width, mut latents) = (0, 0);
        for linear in self.linears {
            let mut terms: List<'a, Term<'a>> = self.arena.list(most)?;
            let mut slots = self.arena.list(most)?;
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
                let Some(mut term) = self.term(linear, linear.slots().get(*slot)?, *scale) else { continue };
                term.latent_column = latents;
                latents += term.rank();
                match distinct.iter_mut().find(|known| shares_projection(known, &term)) {
                    Some(known) => {
                        term.p_column = known.p_column;
                        project_for_both(known, &term);
                    }
                    None => {
                        term.p_column = width;
                        width += term.width();
                        if !alone {
                            distinct.push(term);
                        }
                    }
                }
                terms.push(term);
                slots.push(*slot);
            }
            check_one_bias(linear, &terms)?;
            calls.push(self.call(linear, terms.into_slice(), Membership::All));
            slots_of.push(&*slots.into_slice());
        }
        let calls = &*calls.into_slice();
        let projections = if alone {
            calls
        } else {
            let mut shared = self.arena.list(1)?;
            shared.push(self.call(self.linears[0], distinct.into_slice(), Membership::All));
            shared.into_slice()
        };
        Ok(Plan { calls, projections, slots: slots_of.into_slice(), width, latents, request: self.request })
    }

    /// One adapter a row. Rows share columns of p, and layers do; but for an adapter with dropout each layer has columns of
    /// its own, whatever the other rows' adapters do: so a row of dx is summed as if it were alone.
    fn per_row(&self, slots: Slots<'_>) -> Result<Plan<'a>> {
        let used = match slots {
            Slots::OnHost(slots) if slots.len() != self.rows => {
                fail!(Shape, "rows.slot has {} entries; wanted {}, the rows of x", slots.len(), self.rows)
            }
            Slots::OnHost(slots) => self.used(slots)?,
            // Any of them may occur.
            Slots::OnDevice(_) => self.published()?,
        };
        let union: &mut [Option<Term<'a>>] = self.arena.filled(None, used.len())?;
        let mut layers = self.arena.list(self.linears.len())?;
        let mut slots_of = self.arena.list(self.linears.len())?;
        let mut latents = 0;
        for linear in self.linears {
            let mut terms: List<'a, Term<'a>> = self.arena.list(used.len())?;
            let mut own_slots = self.arena.list(used.len())?;
            let place_of = self.arena.filled(-1, used.len())?;
            let mut widest = 0;
            for (place, slot) in used.iter().enumerate() {
                let Some(mut term) = self.term(linear, linear.slots().get(*slot)?, 1.0) else { continue };
                term.latent_column = latents;
                widest = widest.max(term.rank());
                place_of[place] = terms.len() as i32;
                terms.push(term);
                own_slots.push(*slot);
                if term.dropout.is_none() {
                    project_for_both(union[place].get_or_insert(term), &term);
                }
            }
            latents += widest;
            layers.push((*linear, terms.into_slice(), self.of_row(slots, used, place_of)?));
            slots_of.push(&*own_slots.into_slice());
        }
        let mut calls = self.arena.list(layers.len())?;
        let mut projections = self.arena.list(1 + layers.len())?;
        let shared = self.shared_projection(slots, used, union)?;
        let some_share = !shared.terms.is_empty();
        if some_share {
            projections.push(shared);
        }
        let mut own_width = 0;
        for (linear, terms, membership) in layers.into_slice() {
            let column = own_width;
            for term in terms.iter_mut().filter(|term| term.dropout.is_some()) {
                term.p_column = column;
                own_width = own_width.max(column + term.width());
            }
            let call = self.call(linear, terms, *membership);
            calls.push(call);
            if some_share && own_width > column {
                projections.push(self.dropping(call)?);
            }
        }
        let width = own_width.max(widest(shared.terms));
        let calls = &*calls.into_slice();
        let projections = if some_share { &*projections.into_slice() } else { calls };
        Ok(Plan { calls, projections, slots: slots_of.into_slice(), width, latents, request: self.request })
    }

    /// The slots that hold an adapter which a device can run, ascending. A row that takes another finds none: one tenant's
    /// VeRA adapter is no error of the others' calls.
    fn published(&self) -> Result<&'a [i32]> {
        let slots = self.linears[0].slots();
        let mut used = self.arena.list(slots.len())?;
        for slot in slots.numbers() {
            if slots.get(slot)?.adapter.store().method() == Method::Pvera {
                used.push(slot);
            }
        }
        Ok(used.into_slice())
    }

    /// The slots that some row takes, ascending.
    fn used(&self, slots: &[i32]) -> Result<&'a [i32]> {
        let mut used = self.arena.list(slots.len())?;
        slots.iter().filter(|slot| **slot != -1).for_each(|slot| used.push(*slot));
        used.sort_unstable();
        used.dedup();
        Ok(used.into_slice())
    }

    /// One call with the term of each slot on whichever layer has one.
    fn shared_projection(&self, slots: Slots<'_>, used: &[i32], union: &[Option<Term<'a>>]) -> Result<Call<'a>> {
        let mut terms = self.arena.list(used.len())?;
        let place_of = self.arena.filled(-1, used.len())?;
        for (place, term) in union.iter().enumerate() {
            let Some(term) = term else { continue };
            place_of[place] = terms.len() as i32;
            terms.push(*term);
        }
        Ok(self.call(self.linears[0], terms.into_slice(), self.of_row(slots, used, place_of)?))
    }

    /// A layer's call with those of its terms alone that drop.
    fn dropping(&self, call: Call<'a>) -> Result<Call<'a>> {
        let mut terms = self.arena.list(call.terms.len())?;
        let kept = self.arena.filled(-1, call.terms.len())?;
        for (term, kept) in call.terms.iter().zip(&mut *kept).filter(|(term, _)| term.dropout.is_some()) {
            *kept = terms.len() as i32;
            terms.push(*term);
        }
        let terms = terms.into_slice();
        let of_term = |term: &i32| usize::try_from(*term).map_or(*term, |term| kept[term]);
        let membership = match call.membership {
            Membership::All => Membership::All,
            Membership::ByRow(rows) => Membership::ByRow(self.arena.collected(rows.iter().map(of_term))?),
            Membership::BySlot { slot, term_of_slot } => {
                Membership::BySlot { slot, term_of_slot: self.arena.collected(term_of_slot.iter().map(of_term))? }
            }
        };
        Ok(Call { terms, membership, ..call })
    }

    fn of_row(&self, slots: Slots<'_>, used: &[i32], place_of: &[i32]) -> Result<Membership<'a>> {
        let of_slot = |slot: i32| used.binary_search(&slot).map_or(-1, |place| place_of[place]);
        match slots {
            Slots::OnHost(slots) => {
                Ok(Membership::ByRow(self.arena.collected(slots.iter().map(|slot| of_slot(*slot)))?))
            }
            Slots::OnDevice(slot) => {
                let count = used.last().map_or(0, |last| last + 1);
                let holds = |slot: i32| used.binary_search(&slot).is_ok();
                let of_slot = |slot: i32| if holds(slot) { of_slot(slot) } else { NO_ADAPTER };
                let term_of_slot = self.arena.collected((0..count as usize).map(|slot| of_slot(slot as i32)))?;
                Ok(Membership::BySlot { slot, term_of_slot })
            }
        }
    }

    /// One adapter's term on a layer; None when it does not adapt the layer.
    #[inline]
    fn term(&self, linear: &'a Linear, slot: &'a Slot, scale: f32) -> Option<Term<'a>> {
        let layer = linear.layer();
        let adapter = &slot.adapter;
        let vectors = adapter.vectors(linear.index())?;
        let config = adapter.config();
        let noise = &self.request.noise;
        let mode = match noise.mode {
            // There is nothing to draw.
            _ if adapter.store().method() == Method::Vera => Mode::Mean,
            ModeChoice::All(mode) => mode,
            ModeChoice::AsPeft if self.request.training || vectors.samples => Mode::Sample,
            ModeChoice::AsPeft => Mode::Mean,
        };
        let drops = self.request.training && config.pvera_dropout > 0.0 && noise.dropout_mask.is_none();
        let dropout = || (DropoutKey::new(noise.seed, linear.hash(), slot.identity), config.pvera_dropout as f32);
        Some(Term {
            a: adapter.store().a_slice(layer.in_offset, layer.in_features),
            b: adapter.store().b_slice(layer.out_offset, layer.out_features),
            pair: adapter.store().pair(layer.in_offset, layer.out_offset),
            lambda_d: vectors.lambda_d,
            lambda_b: vectors.lambda_b.part(layer.out_offset, layer.out_features),
            bias: vectors.bias.map(|bias| bias.part(layer.out_offset, layer.out_features)),
            originals: Originals {
                a: adapter.store().a().original(),
                b: adapter.store().b().original(),
                vectors: adapter.original(),
            },
            scale: (config.alpha * f64::from(scale)) as f32,
            mode,
            logvar_bound: config.logvar_bound.map_or(f32::INFINITY, |bound| bound as f32),
            noise: NormalKey::new(noise.seed, linear.hash(), slot.identity),
            noise_names: (linear.hash(), slot.identity),
            dropout: drops.then(dropout),
            p_column: 0,
            latent_column: 0,
        })
    }
}

fn shares_projection(first: &Term<'_>, second: &Term<'_>) -> bool {
    first.a.data() == second.a.data()
        && first.rank() == second.rank()
        && first.width() == second.width()
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

fn widest(terms: &[Term<'_>]) -> usize {
    terms.iter().map(Term::width).max().unwrap_or(0)
}
