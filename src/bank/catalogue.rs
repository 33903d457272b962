//! What the adapters of a bank have in common: stores, and families of one configuration, as JSON in the file.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::file::{Place, Tail, read};
use super::outline::{FamilyOutline, LayerOutline};
use crate::adapter::{Kind, Ranges};
use crate::config::{Config, Method};
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::memory::Buffer;
use crate::model::Model;
use crate::projection::{Frozen, Origin, Rounding, Size, Store};
use crate::tensor::Dtype;

/// Larger ones are somebody's mistake: a family of a thousand layers takes some 100 KB.
const LARGEST: u64 = 1 << 28;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Catalogue {
    pub stores: Vec<StoreNote>,
    pub families: Vec<FamilyNote>,
}

/// A catalogue for another file, and what became of each store and family of this one: its number there.
#[derive(Debug, Default)]
pub struct Copied {
    pub catalogue: Catalogue,
    pub stores: Vec<Option<usize>>,
    pub families: Vec<Option<u32>>,
    /// Of stores that could not be copied.
    pub damaged: Vec<Error>,
}

/// One store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreNote {
    rank: usize,
    /// Whether it is VeRA's, whose A has r rows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    vera: bool,
    in_max: usize,
    out_max: usize,
    #[serde(flatten)]
    projections: Projections,
}

/// Where A and B come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Projections {
    Drawn { key: u64, rounding: Element },
    DrawnOnGrid { key: u64 },
    Held { a: Piece, b: Piece, saved_as: Element },
}

/// A matrix in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Piece {
    dtype: Element,
    offset: u64,
    crc32: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Element {
    F32,
    F16,
    Bf16,
}

/// Adapters of one configuration on one store. Their vectors lie one after the other: for each layer λ_b, λ_d and the
/// learned bias.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FamilyNote {
    store: usize,
    config: Value,
    layers: Vec<LayerNote>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct LayerNote {
    name: String,
    lambda_b: usize,
    lambda_d: usize,
    bias: usize,
}

/// A family as a model's layers see it.
#[derive(Debug)]
pub struct Family {
    pub kind: Kind,
    /// From where in the file's numbers to where in the parameters, and how many.
    pub pieces: Vec<(usize, usize, usize)>,
}

impl Catalogue {
    pub fn read(file: &File, path: &Path, place: Place, crc: u32, end: u64) -> Result<Self> {
        if place.bytes == 0 {
            return Ok(Self::default());
        }
        if place.bytes > LARGEST {
            fail!(Format, "'{}': its catalogue would have {} bytes", path.display(), place.bytes);
        }
        let bytes = read(file, path, "the catalogue", place, end)?;
        if crc32fast::hash(&bytes) != crc {
            fail!(Format, "'{}': its catalogue of stores and families is damaged", path.display());
        }
        let own = serde_json::from_slice(&bytes);
        own.map_err(|error| Error::new(Code::Format, format!("'{}': its catalogue is wrong: {error}", path.display())))
    }

    /// Whether it is another one with more behind it, so that numbers of that one hold in this one, too.
    pub fn continues(&self, other: &Self) -> bool {
        self.stores.starts_with(&other.stores) && self.families.starts_with(&other.families)
    }

    /// Of each store, whether a family of these has it.
    pub fn stores_of(&self, families: &[bool]) -> Vec<bool> {
        let mut used = vec![false; self.stores.len()];
        for (family, _) in self.families.iter().zip(families).filter(|(_, is_used)| **is_used) {
            if let Some(used) = used.get_mut(family.store) {
                *used = true;
            }
        }
        used
    }

    /// The same with these families alone for another file, into which their projections are copied.
    pub fn copied(&self, families: &[bool], file: &File, path: &Path, end: u64, tail: &mut Tail<'_>) -> Result<Copied> {
        let mut own = Copied::default();
        for (store, is_used) in self.stores.iter().zip(self.stores_of(families)) {
            let copy = is_used.then(|| store.copied(file, path, end, tail)).transpose();
            let place = match copy {
                Ok(copy) => copy.map(|copy| {
                    own.catalogue.stores.push(copy);
                    own.catalogue.stores.len() - 1
                }),
                Err(error) if error.code() == Code::Format => {
                    own.damaged.push(error);
                    None
                }
                Err(error) => return Err(error),
            };
            own.stores.push(place);
        }
        for (family, is_used) in self.families.iter().zip(families) {
            let store = own.stores.get(family.store).copied().flatten().filter(|_| *is_used);
            own.families.push(store.map(|store| {
                own.catalogue.families.push(FamilyNote { store, ..family.clone() });
                own.catalogue.families.len() as u32 - 1
            }));
        }
        Ok(own)
    }

    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self)
            .map_err(|error| Error::new(Code::Format, format!("could not write a catalogue: {error}")))
    }

    /// The number of a family, which is added where it is new.
    pub fn family_of(&mut self, kind: &Kind, store: usize) -> Result<u32> {
        let config = serde_json::from_str(&kind.config().to_json());
        let config = config.map_err(|error| Error::new(Code::Config, format!("the adapter's config: {error}")))?;
        let layers = kind.ranges().map(|(number, ranges)| {
            let Ranges { lambda_b, lambda_d, bias } = ranges;
            Ok(LayerNote {
                name: kind.layers().get(number)?.name.clone(),
                lambda_b: lambda_b.count,
                lambda_d: lambda_d.count,
                bias: bias.map_or(0, |span| span.count),
            })
        });
        let note = FamilyNote { store, config, layers: layers.collect::<Result<_>>()? };
        let known = self.families.iter().position(|family| *family == note);
        Ok(known.unwrap_or_else(|| {
            self.families.push(note);
            self.families.len() - 1
        }) as u32)
    }

    /// A family, and the store that it names.
    pub fn outline(&self, family: &FamilyNote, adapters: usize) -> Result<FamilyOutline> {
        let Some(store) = self.stores.get(family.store) else {
            fail!(Format, "a family is of store {}, which there is not", family.store)
        };
        let layer = |note: &LayerNote| LayerOutline {
            name: note.name.clone(),
            outputs: note.lambda_b,
            learns_bias: note.bias > 0,
        };
        Ok(FamilyOutline {
            config: Config::from_json(family.config.to_string().as_bytes())?,
            store: family.store,
            in_max: store.in_max,
            out_max: store.out_max,
            drawn: store.rounding(),
            layers: family.layers.iter().map(layer).collect(),
            adapters,
        })
    }

    /// The number of a new store. What its key does not draw is written into the file.
    pub fn add_store(&mut self, store: &Store, tail: &mut Tail<'_>) -> Result<usize> {
        let projections = match store.origin() {
            Some(Origin { key, rounding: Rounding::To(dtype) }) => Projections::Drawn { key, rounding: dtype.into() },
            Some(Origin { key, rounding: Rounding::Int8Grid }) => Projections::DrawnOnGrid { key },
            None => Projections::Held {
                a: Piece::written(store.a(), tail)?,
                b: Piece::written(store.b(), tail)?,
                saved_as: store.saved_dtype().into(),
            },
        };
        let (rank, in_max, out_max) = (store.rank(), store.in_max(), store.out_max());
        let vera = store.method() == Method::Vera;
        self.stores.push(StoreNote { rank, vera, in_max, out_max, projections });
        Ok(self.stores.len() - 1)
    }
}

/// What a family's store may be drawn for: more would be a file's way to ask for any amount of memory.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub in_max: usize,
    pub out_max: usize,
    /// Vectors of layers that the model does not declare are left out, instead of being an error.
    pub ignore_undeclared: bool,
}

impl StoreNote {
    pub fn method(&self) -> Method {
        if self.vera { Method::Vera } else { Method::Pvera }
    }

    /// Rows of A, and numbers of a λ_d; None for more than there can be.
    pub fn a_rows(&self) -> Option<usize> {
        self.rank.checked_mul(2).map(|_| self.method().a_rows(self.rank))
    }

    /// The same for another file, into which its projections are copied.
    fn copied(&self, file: &File, path: &Path, end: u64, tail: &mut Tail<'_>) -> Result<Self> {
        let mut own = self.clone();
        let [in_a, in_b] = own.elements();
        if let Projections::Held { a, b, .. } = &mut own.projections {
            let pieces = [a.bytes(file, path, "A", in_a, end)?, b.bytes(file, path, "B", in_b, end)?];
            for (piece, bytes) in [a, b].into_iter().zip(pieces) {
                piece.offset = tail.end();
                tail.push(&bytes)?;
            }
        }
        Ok(own)
    }

    /// Reads what the file holds of it, against its checksums.
    pub fn check(&self, file: &File, path: &Path, end: u64) -> Result<()> {
        if let Projections::Held { a, b, .. } = &self.projections {
            let [in_a, in_b] = self.elements();
            a.bytes(file, path, "A", in_a, end)?;
            b.bytes(file, path, "B", in_b, end)?;
        }
        Ok(())
    }

    /// Whether its key draws it, so that an equal note is of the same projections, in whatever file.
    pub fn is_drawn(&self) -> bool {
        self.rounding().is_some()
    }

    /// How what its key draws is rounded.
    pub fn rounding(&self) -> Option<Rounding> {
        match self.projections {
            Projections::Drawn { rounding, .. } => Some(Rounding::To(rounding.into())),
            Projections::DrawnOnGrid { .. } => Some(Rounding::Int8Grid),
            Projections::Held { .. } => None,
        }
    }

    /// Whether its projections may be those of a store, as far as their sizes tell.
    pub fn has_sizes_of(&self, store: &Store) -> bool {
        let own = (self.method(), self.rank, self.in_max, self.out_max);
        own == (store.method(), store.rank(), store.in_max(), store.out_max())
    }

    /// Bytes in the file.
    pub fn bytes(&self) -> u64 {
        let Projections::Held { a, b, .. } = &self.projections else { return 0 };
        let [in_a, in_b] = self.elements();
        let bytes = |piece: &Piece, elements: usize| Dtype::from(piece.dtype).size().saturating_mul(elements);
        bytes(a, in_a).saturating_add(bytes(b, in_b)) as u64
    }

    /// Elements of A and of B. More than there can be are found out where they are read.
    fn elements(&self) -> [usize; 2] {
        [self.a_rows().unwrap_or(usize::MAX).saturating_mul(self.in_max), self.out_max.saturating_mul(self.rank)]
    }

    /// Reads or draws the store.
    pub fn store(&self, model: &Model, file: &File, path: &Path, end: u64, limits: Limits) -> Result<Arc<Store>> {
        let store = match &self.projections {
            Projections::Drawn { key, rounding } => {
                self.drawn(model, *key, Rounding::To((*rounding).into()), limits)?
            }
            Projections::DrawnOnGrid { key } => self.drawn(model, *key, Rounding::Int8Grid, limits)?,
            Projections::Held { a, b, saved_as } => {
                let rows = self.a_rows().ok_or(Error::out_of_memory())?;
                let a = a.read(model, file, path, "A", (rows, self.in_max), end)?;
                let b = b.read(model, file, path, "B", (self.out_max, self.rank), end)?;
                Store::new(a, b, (*saved_as).into())?
            }
        };
        Ok(model.stores().share(Arc::new(store)))
    }

    fn drawn(&self, model: &Model, key: u64, rounding: Rounding, limits: Limits) -> Result<Store> {
        let size = Size { method: self.method(), rank: self.rank, in_max: self.in_max, out_max: self.out_max };
        if size.in_max > limits.in_max || size.out_max > limits.out_max {
            fail!(
                Projection,
                "the bank's projections are drawn for in_max {}, out_max {}; the declared layers reach {} and {} (options.in_max and options.out_max allow more)",
                size.in_max,
                size.out_max,
                limits.in_max,
                limits.out_max
            );
        }
        let mut watch = |drawn, total| model.listener().drawn(drawn, total);
        Store::from_key_watched(model.allocator(), key, size, rounding, &mut watch)
    }
}

impl Piece {
    fn written(matrix: &Frozen, tail: &mut Tail<'_>) -> Result<Self> {
        let bytes = matrix.stored();
        let piece = Self { dtype: matrix.dtype().into(), offset: tail.end(), crc32: crc32fast::hash(bytes) };
        tail.push(bytes)?;
        Ok(piece)
    }

    fn read(
        &self,
        model: &Model,
        file: &File,
        path: &Path,
        name: &str,
        (rows, cols): (usize, usize),
        end: u64,
    ) -> Result<Frozen> {
        let Some(count) = rows.checked_mul(cols) else {
            fail!(Format, "'{}': {name} would be {rows}×{cols}", path.display())
        };
        let bytes = self.bytes(file, path, name, count, end)?;
        Frozen::from_bytes(model.allocator(), &bytes, self.dtype.into(), rows, cols)
    }

    /// Its elements, checked.
    fn bytes(&self, file: &File, path: &Path, name: &str, count: usize, end: u64) -> Result<Buffer<u8>> {
        let bytes = (count as u64).saturating_mul(Dtype::from(self.dtype).size() as u64);
        let bytes = read(file, path, name, Place { offset: self.offset, bytes }, end)?;
        if crc32fast::hash(&bytes) != self.crc32 {
            fail!(Format, "'{}': {name}, which lies at {}, is damaged", path.display(), self.offset);
        }
        Ok(bytes)
    }
}

impl FamilyNote {
    pub fn store(&self) -> usize {
        self.store
    }

    /// Whether the vectors bear out the rank of the store, which decides how much is drawn.
    pub fn check(&self, store: &StoreNote) -> Result<()> {
        let Some(wanted) = store.a_rows() else { fail!(Format, "a store has rank {}; that is too large", store.rank) };
        if self.layers.is_empty() {
            fail!(Format, "a family adapts no layer");
        }
        match self.layers.iter().find(|layer| layer.lambda_d != wanted) {
            Some(LayerNote { name, lambda_d, .. }) => {
                let of_store = if store.vera { "r of the store" } else { "2r of the store" };
                fail!(Format, "λ_d of layer '{name}' has {lambda_d} numbers; wanted {wanted}, {of_store}")
            }
            None => Ok(()),
        }
    }

    /// Numbers in the file for one adapter of the family; None for more than there can be.
    pub fn stored(&self) -> Option<usize> {
        let counts = self.layers.iter().flat_map(|layer| [layer.lambda_b, layer.lambda_d, layer.bias]);
        counts.into_iter().try_fold(0usize, usize::checked_add)
    }

    /// The family for the layers that the model declares.
    pub fn bound(&self, model: &Model, store: Arc<Store>, limits: Limits) -> Result<Family> {
        let layers = model.layers();
        let config = Config::from_json(self.config.to_string().as_bytes())?;
        if self.stored().is_none() {
            fail!(Format, "a family has more numbers than can be counted");
        }
        // By the number of the declared layer: where its vectors begin in the file.
        let mut adapted = Vec::new();
        let mut start = 0;
        for note in &self.layers {
            match layers.find(&note.name) {
                Ok(number) => adapted.push((number, start, note)),
                Err(_) if limits.ignore_undeclared => {}
                Err(_) => fail!(
                    NotFound,
                    "the bank's adapters adapt layer '{}', which is not declared; declare it, or set ignore_undeclared",
                    note.name
                ),
            }
            start += note.lambda_b + note.lambda_d + note.bias;
        }
        adapted.sort_by_key(|(number, ..)| *number);
        if adapted.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            fail!(Format, "a family lists a layer twice");
        }
        let kind = Kind::new(layers, config, store, adapted.iter().map(|(number, _, note)| (*number, note.bias > 0)))?;
        let mut pieces: Vec<(usize, usize, usize)> = Vec::new();
        for ((_, start, note), (_, ranges)) in adapted.iter().zip(kind.ranges()) {
            let bias = ranges.bias.map_or(0, |span| span.count);
            let (given, wanted) =
                ([note.lambda_b, note.lambda_d, note.bias], [ranges.lambda_b.count, ranges.lambda_d.count, bias]);
            if given != wanted {
                fail!(
                    Shape,
                    "the bank's vectors of layer '{}' have {given:?} numbers; wanted {wanted:?} (out_total, 2r, learned bias)",
                    note.name
                );
            }
            let (to, count) = (ranges.lambda_b.start, given.iter().sum::<usize>());
            match pieces.last_mut() {
                Some(last) if last.0 + last.2 == *start && last.1 + last.2 == to => last.2 += count,
                _ => pieces.push((*start, to, count)),
            }
        }
        Ok(Family { kind, pieces })
    }
}

impl From<Element> for Dtype {
    fn from(element: Element) -> Self {
        match element {
            Element::F32 => Dtype::F32,
            Element::F16 => Dtype::F16,
            Element::Bf16 => Dtype::Bf16,
        }
    }
}

impl From<Dtype> for Element {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Element::F32,
            Dtype::F16 => Element::F16,
            Dtype::Bf16 => Element::Bf16,
        }
    }
}
