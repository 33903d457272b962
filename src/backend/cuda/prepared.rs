//! The calls of a step as kernels see them: its terms in device memory, its rows, and which of them go through which projections.

use super::arguments::{self, LIST_THREADS, Resolve, Rows, Seed};
use super::driver::Address;
use super::kernels::Kernel;
use super::lists::Lists;
use super::turn::Turn;
use crate::backend::{Call, Membership, Mode, Original, Term, Weight};
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::memory::{Arena, List};
use crate::tensor::{Device, Vector};

/// One call of a backend step.
pub struct Prepared<'a> {
    pub call: &'a Call<'a>,
    /// Pairs of projections, in the order in which summed terms are added.
    pub groups: &'a [Group<'a>],
    /// The terms in device memory.
    pub terms: Address,
    pub rows: Rows,
    pub seed: Seed,
    /// Columns of z.
    pub z_width: usize,
}

/// The calls of a step in the making.
struct Preparer<'t, 'd, 'a> {
    turn: &'t Turn<'d>,
    arena: &'a Arena,
    lists: Lists<'a>,
    /// How the terms of rows are found whose slots are on the device.
    resolved: List<'a, Resolve>,
}

/// Rows that share a pair of projections.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    pub index: u32,
    /// The number of a term that stands for the group in all that its rows share.
    pub term: u32,
    pub shared: &'a Term<'a>,
    /// Whether a term of the group needs its logvar.
    pub samples: bool,
    pub drops: bool,
    /// Where its columns of z begin.
    pub z_column: usize,
}

/// A frozen matrix in device memory, as `x wᵀ` uses it.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    pub address: Address,
    pub output_stride: usize,
    pub input_stride: usize,
    pub outputs: usize,
    pub inputs: usize,
    pub dtype: u32,
}

impl Operand {
    /// A weight whose memory is on the device already.
    pub fn lying(weight: &Weight<'_>) -> Self {
        Self::at(weight.data().addr() as Address, weight)
    }

    fn at(address: Address, weight: &Weight<'_>) -> Self {
        Self {
            address,
            output_stride: weight.output_stride(),
            input_stride: weight.input_stride(),
            outputs: weight.outputs(),
            inputs: weight.inputs(),
            dtype: arguments::code(weight.dtype()),
        }
    }

    pub fn transposed(self) -> Self {
        Self {
            output_stride: self.input_stride,
            input_stride: self.output_stride,
            outputs: self.inputs,
            inputs: self.outputs,
            ..self
        }
    }

    /// The first `count` outputs.
    pub fn first_outputs(self, count: usize) -> Self {
        Self { outputs: count, ..self }
    }
}

impl Turn<'_> {
    /// Where a piece of host memory that never changes lies on the device.
    fn resident(&self, original: &Original<'_>, at: *const u8) -> Result<Address> {
        if self.is_dry() {
            return Ok(0);
        }
        let (device, bytes) = (self.device(), original.bytes());
        let copy = original.on_cuda().address(&device.house, &device.user, bytes, self.capturing)?;
        Ok(copy + (at.addr() - bytes.as_ptr().addr()) as Address)
    }

    /// A of a term, `[2r, in]`.
    pub fn a(&self, term: &Term<'_>) -> Result<Operand> {
        Ok(Operand::at(self.resident(&term.originals.a, term.a.data())?, &term.a))
    }

    /// B of a term, `[out, r]`.
    pub fn b(&self, term: &Term<'_>) -> Result<Operand> {
        Ok(Operand::at(self.resident(&term.originals.b, term.b.data())?, &term.b))
    }

    fn vector(&self, term: &Term<'_>, name: &str, vector: Vector<'_>) -> Result<Address> {
        match (vector.device(), &term.originals.vectors) {
            (Device::Cuda(_), _) => Ok(vector.data().addr() as Address),
            (Device::Host, Some(original)) => self.resident(original, vector.data().cast()),
            (Device::Host, None) if self.is_dry() => Ok(0),
            (Device::Host, None) => fail!(
                Device,
                "{name} of a trainable adapter is on the CPU, where it may change; this context computes on {}: keep the parameters there (pvera_adapter_trainable_on, pvera_linear_vectors.device)",
                self.device().place()
            ),
        }
    }
}

impl<'a> Prepared<'a> {
    /// Prepares the calls of a step: their lists are on the way when this returns.
    pub fn of(turn: &Turn<'_>, arena: &'a Arena, calls: &'a [Call<'a>]) -> Result<&'a [Self]> {
        Ok(Self::both(turn, arena, calls, calls)?.0)
    }

    /// The same of the projections and the calls of a step.
    pub fn both(
        turn: &Turn<'_>,
        arena: &'a Arena,
        projections: &'a [Call<'a>],
        calls: &'a [Call<'a>],
    ) -> Result<(&'a [Self], &'a [Self])> {
        let same = std::ptr::eq(projections, calls);
        let others = if same { &[] } else { calls };
        let (count, room) = (projections.len() + others.len(), lists_room(projections) + lists_room(others));
        let lists = Lists::new(turn, arena, LISTS * count, room)?;
        let mut preparer = Preparer { turn, arena, lists, resolved: arena.list(count)? };
        let projections = preparer.prepared(projections)?;
        let others = preparer.prepared(others)?;
        preparer.send()?;
        Ok((projections, if same { projections } else { others }))
    }

    /// The rows' terms where a group's rows are some of them; 0 where they are all.
    pub fn members(&self) -> Address {
        self.rows.term
    }
}

/// The most lists that a call has: terms, members, identities, samples.
const LISTS: usize = 4;

/// Bytes of lists that some calls need, if no two have one in common.
fn lists_room(calls: &[Call<'_>]) -> usize {
    let of_call = |call: &Call<'_>| {
        let members = match call.membership {
            Membership::All => 0,
            Membership::ByRow(terms) => Lists::room::<i32>(terms.len()),
            Membership::BySlot { term_of_slot, .. } => Lists::room::<i32>(term_of_slot.len()),
        };
        let keys = &call.keys;
        Lists::room::<arguments::Term>(call.terms.len())
            + members
            + keys.identity.map_or(0, |identity| Lists::room::<u64>(identity.len()))
            + keys.sample.map_or(0, |sample| Lists::room::<u32>(sample.len()))
    };
    calls.iter().map(of_call).sum()
}

impl<'a> Preparer<'_, '_, 'a> {
    fn prepared(&mut self, calls: &'a [Call<'a>]) -> Result<&'a [Prepared<'a>]> {
        let mut prepared = self.arena.list(calls.len())?;
        for call in calls {
            prepared.push(self.call(call)?);
        }
        Ok(prepared.into_slice())
    }

    /// Queues the transport of the lists, and what is made of them.
    fn send(self) -> Result<()> {
        self.lists.send(self.turn)?;
        for resolve in &*self.resolved {
            let grid = [resolve.rows.div_ceil(LIST_THREADS) as usize, 1, 1];
            // SAFETY: the caller's slots, a table of ours, workspace for the terms.
            unsafe { self.turn.launch(Kernel::Resolve, grid, LIST_THREADS, resolve)? };
        }
        Ok(())
    }

    fn call(&mut self, call: &'a Call<'a>) -> Result<Prepared<'a>> {
        let (turn, arena) = (self.turn, self.arena);
        let by_row = call.membership.is_by_row();
        let mut groups: List<'a, Group<'a>> = arena.list(call.terms.len())?;
        let mut terms = arena.list(call.terms.len())?;
        let mut z_width = 0;
        for (number, term) in call.terms.iter().enumerate() {
            if !term.has_logvar() {
                fail!(Unsupported, "a VeRA adapter takes part; VeRA runs on the CPU only, so far");
            }
            let known = groups.iter().position(|group| by_row && group.shared.shares_projections(term));
            let place = known.unwrap_or(groups.len());
            if known.is_none() {
                let z_column = if by_row { 0 } else { z_width };
                z_width = z_width.max(z_column + term.rank());
                let (index, number) = (place as u32, number as u32);
                groups.push(Group { index, term: number, shared: term, samples: false, drops: false, z_column });
            }
            let group = &mut groups[place];
            group.samples |= term.mode != Mode::Mean;
            group.drops |= term.dropout.is_some();
            let (dropout, drop_below, keep_scale) = arguments::dropout(term);
            terms.push(arguments::Term {
                lambda_d: turn.vector(term, "lambda_d", term.lambda_d)?,
                lambda_b: turn.vector(term, "lambda_b", term.lambda_b)?,
                bias: term.bias.map_or(Ok(0), |bias| turn.vector(term, "the learned bias", bias))?,
                layer_hash: term.noise_names.0,
                adapter_identity: term.noise_names.1,
                scale: term.scale,
                bound: term.logvar_bound,
                rank: count("the rank", term.rank())?,
                mode: arguments::mode(term.mode),
                group: group.index,
                p_column: count("columns of p", term.p_column)?,
                latent_column: count("latents", term.latent_column)?,
                z_column: count("columns of z", group.z_column)?,
                delta_column: count("outputs of all terms", call.kept_column(number))?,
                dropout,
                drop_below,
                keep_scale,
            });
        }
        // SAFETY: terms and integers are plain data without padding.
        let terms = unsafe { self.lists.add(&terms) };
        let rows = self.rows(call)?;
        let seed = Seed { at: call.noise.seed_at, value: call.noise.seed };
        Ok(Prepared { call, groups: groups.into_slice(), terms, rows, seed, z_width })
    }

    fn rows(&mut self, call: &Call<'_>) -> Result<Rows> {
        let keys = &call.keys;
        let count = count("rows of x", call.rows)?;
        // SAFETY: integers are plain data.
        unsafe {
            let term = match call.membership {
                Membership::All => 0,
                Membership::ByRow(terms) => self.lists.add(terms),
                Membership::BySlot { slot, term_of_slot } => {
                    let table = self.lists.add(term_of_slot);
                    self.terms_of_slots(slot, table, count, term_of_slot.len() as u32)?
                }
            };
            Ok(Rows {
                term,
                identity: keys.identity.map_or(keys.identity_at, |identity| self.lists.add(identity)),
                sample: keys.sample.map_or(keys.sample_at, |sample| self.lists.add(sample)),
                identity_base: keys.identity_base,
                sample_base: keys.sample_base,
                count,
            })
        }
    }

    /// Where the terms of rows will lie whose slots are on the device: once for all calls with one table.
    fn terms_of_slots(&mut self, slot: Address, term_of_slot: Address, rows: u32, slots: u32) -> Result<Address> {
        let same = |known: &&Resolve| {
            (known.slot, known.term_of_slot, known.rows, known.slots) == (slot, term_of_slot, rows, slots)
        };
        if let Some(known) = self.resolved.iter().find(same) {
            return Ok(known.term);
        }
        let term = self.turn.take(size_of::<i32>() * rows.max(1) as usize)?;
        self.resolved.push(Resolve { slot, term_of_slot, term, fault: self.turn.fault(), rows, slots });
        Ok(term)
    }
}

/// A size as kernels take it.
pub fn count(what: &str, value: usize) -> Result<u32> {
    u32::try_from(value).ok().filter(|value| *value <= i32::MAX as u32).ok_or_else(|| {
        Error::new(Code::Unsupported, format!("{what}: {value}; CUDA kernels take at most {}", i32::MAX))
    })
}
