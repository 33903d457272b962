//! Checkpoints of the method's authors (github.com/leofillioux/pvera), given as safetensors.
//!
//! Their layer is a fused `qkv` of which q and v are adapted, each through projections of its own, and the delta is multiplied
//! by an alpha of 16. Exactly the same layer is one PVeRA layer of twice the rank, which PEFT loads, too:
//!
//! ```text
//! A = [q_downᵀ mu; v_downᵀ mu; q_downᵀ logvar; v_downᵀ logvar]    λ_d = the same of adapter_qd, adapter_vd
//! B = [q_upᵀ 0; 0 0; 0 v_upᵀ]                                     λ_b = alpha · [adapter_qb, 0, adapter_vb]
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype as Stored;

use super::Options;
use super::shrink::write;
use super::tensor_file::{Reader, TensorFile, zeros};
use crate::adapter::load::{dtype_of, widen};
use crate::adapter::source::{Keys, key_of};
use crate::backend::cpu::FloatMode;
use crate::config::{Config, Targets};
use crate::error::Result;
use crate::fail;
use crate::noise::{Mt19937, draw_projection};

/// The alpha of their configuration.
pub const ALPHA: f64 = 16.0;

/// The four frozen matrices, in the order in which they are drawn.
const PROJECTIONS: [&str; 4] = ["q_downsample", "v_downsample", "q_upsample", "v_upsample"];

/// What their files do not say.
#[derive(Clone, Copy, Debug)]
pub struct Authors {
    pub alpha: f64,
    /// Which of the copies that were trained side by side in a grid search. Their last file holds the best one alone, which
    /// keeps the projections of its number.
    pub head: usize,
    /// Their state dictionary has no projections, since these are no buffers there. Where the file was not given them as
    /// `q_downsample`, `v_downsample`, `q_upsample` and `v_upsample`, they are drawn as PyTorch's CPU generator does from this.
    pub seed: Option<u64>,
}

impl Default for Authors {
    fn default() -> Self {
        Self { alpha: ALPHA, head: 0, seed: None }
    }
}

/// Writes a PEFT checkpoint folder of twice the rank, for the fused layers. `options.prefix` is taken off the module paths.
/// The base's weights and the prediction head are left out, with a warning.
pub fn import_authors(file: &Path, out: &Path, authors: &Authors, options: &Options<'_>) -> Result<()> {
    options.refuse_existing(out)?;
    let tensors = TensorFile::open(file)?;
    let import = || {
        let reader = tensors.reader()?;
        let layers = layers(&tensors, &reader, authors, options)?;
        let Some((inputs, rank)) = layers.values().next().map(|layer| (layer.qb.len(), layer.qd.len() / 2)) else {
            fail!(Format, "there is no tensor 'MODULE.heads.adapter_qd' or 'MODULE.heads.{}.adapter_qd'", authors.head);
        };
        let projections = match held(&tensors, &reader, inputs, rank)? {
            Some(held) => held,
            None => drawn(authors, inputs, rank)?,
        };
        checkpoint(out, options.replace, authors, &layers, &projections, inputs, rank)
    };
    import().map_err(|error| error.within(file.display()))
}

/// One layer's vectors.
struct Vectors {
    qd: Vec<f32>,
    vd: Vec<f32>,
    qb: Vec<f32>,
    vb: Vec<f32>,
}

fn layers(
    file: &TensorFile,
    reader: &Reader<'_>,
    authors: &Authors,
    options: &Options<'_>,
) -> Result<BTreeMap<String, Vectors>> {
    let mut layers = BTreeMap::new();
    let mut others = 0;
    let endings = [".heads.adapter_qd".to_owned(), format!(".heads.{}.adapter_qd", authors.head)];
    for name in file.names() {
        let Some(ending) = endings.iter().find(|ending| name.ends_with(*ending)) else {
            others += usize::from(!name.contains(".adapter_") && !PROJECTIONS.contains(&&*name));
            continue;
        };
        let path = &name[..name.len() - ending.len()];
        let Some(module) = path.strip_prefix(options.prefix).filter(|module| !module.is_empty()) else {
            fail!(Argument, "tensor '{name}' does not begin with the prefix '{}'", options.prefix);
        };
        let vector = |which: &str| {
            let name = name.replace("adapter_qd", which);
            let Some(info) = file.info(&name) else { fail!(Format, "there is no tensor '{name}'") };
            if info.shape.len() != 1 || info.shape[0] == 0 {
                fail!(Shape, "tensor '{name}' has shape {:?}; wanted a vector", info.shape);
            }
            values(reader, &name, info)
        };
        let found = Vectors {
            qd: vector("adapter_qd")?,
            vd: vector("adapter_vd")?,
            qb: vector("adapter_qb")?,
            vb: vector("adapter_vb")?,
        };
        let sizes = |vectors: &Vectors| [vectors.qd.len(), vectors.vd.len(), vectors.qb.len(), vectors.vb.len()];
        let [qd, _, qb, _] = sizes(layers.values().next().unwrap_or(&found));
        if sizes(&found) != [qd, qd, qb, qb] || qd % 2 != 0 {
            fail!(
                Shape,
                "the vectors d and b of '{path}' have lengths {:?} (qd, vd, qb, vb); wanted 2r, 2r, d, d, alike in all layers",
                sizes(&found)
            );
        }
        layers.insert(module.to_owned(), found);
    }
    if others > 0 {
        options.listener.warning(&format!("{others} tensors of the base or its head are left out"));
    }
    Ok(layers)
}

fn values(reader: &Reader<'_>, name: &str, info: &safetensors::tensor::TensorInfo) -> Result<Vec<f32>> {
    let dtype = dtype_of(name, info.dtype)?;
    let bytes = reader.tensor(info)?;
    let mut values = zeros(bytes.len() / dtype.size())?;
    widen(&bytes, dtype, &mut values);
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(place) => fail!(Format, "tensor '{name}' holds {} at {place}; wanted finite numbers", values[place]),
    }
}

/// Shapes of the four: [in, 2r] twice, [r, in] twice.
fn shapes(inputs: usize, rank: usize) -> [[usize; 2]; 4] {
    [[inputs, 2 * rank], [inputs, 2 * rank], [rank, inputs], [rank, inputs]]
}

/// The four matrices of the file, if it has them.
fn held(file: &TensorFile, reader: &Reader<'_>, inputs: usize, rank: usize) -> Result<Option<[Vec<f32>; 4]>> {
    let mut found = [const { Vec::new() }; 4];
    let count = PROJECTIONS.iter().filter(|name| file.info(name).is_some()).count();
    if count == 0 {
        return Ok(None);
    }
    for ((name, shape), place) in PROJECTIONS.iter().zip(shapes(inputs, rank)).zip(&mut found) {
        let Some(info) = file.info(name) else {
            fail!(Projection, "{count} of 4 projections are there, but not '{name}'")
        };
        if info.shape != shape {
            fail!(Projection, "tensor '{name}' has shape {:?}; wanted {shape:?}", info.shape);
        }
        *place = values(reader, name, info)?;
    }
    Ok(Some(found))
}

/// As their model makes them: one stream of PyTorch's CPU generator, `kaiming_uniform_` on each, copy after copy.
fn drawn(authors: &Authors, inputs: usize, rank: usize) -> Result<[Vec<f32>; 4]> {
    let Some(seed) = authors.seed else {
        fail!(
            Projection,
            "the file has none of {}, and no seed is given to draw them from; wanted one of the two",
            PROJECTIONS.join(", ")
        );
    };
    let _mode = FloatMode::enter();
    let mut stream = Mt19937::new(seed);
    let mut drawn = [const { Vec::new() }; 4];
    for _ in 0..=authors.head {
        for ([rows, cols], place) in shapes(inputs, rank).into_iter().zip(&mut drawn) {
            *place = zeros(rows * cols)?;
            draw_projection(&mut stream, cols, place);
        }
    }
    Ok(drawn)
}

fn checkpoint(
    out: &Path,
    replace: bool,
    authors: &Authors,
    layers: &BTreeMap<String, Vectors>,
    [q_down, v_down, q_up, v_up]: &[Vec<f32>; 4],
    inputs: usize,
    rank: usize,
) -> Result<()> {
    let mut a = zeros(4 * rank * inputs)?;
    let mut b = zeros(3 * inputs * 2 * rank)?;
    for latent in 0..rank {
        for input in 0..inputs {
            let from = input * 2 * rank + latent;
            a[latent * inputs + input] = q_down[from];
            a[(rank + latent) * inputs + input] = v_down[from];
            a[(2 * rank + latent) * inputs + input] = q_down[from + rank];
            a[(3 * rank + latent) * inputs + input] = v_down[from + rank];
            b[input * 2 * rank + latent] = q_up[latent * inputs + input];
            b[(2 * inputs + input) * 2 * rank + rank + latent] = v_up[latent * inputs + input];
        }
    }
    let mut tensors = vec![
        (Keys::PVERA.a.to_owned(), vec![4 * rank, inputs], a),
        (Keys::PVERA.b.to_owned(), vec![3 * inputs, 2 * rank], b),
    ];
    for (module, Vectors { qd, vd, qb, vb }) in layers {
        let d = [&qd[..rank], &vd[..rank], &qd[rank..], &vd[rank..]].concat();
        let scaled = |values: &[f32]| values.iter().map(|value| (authors.alpha * f64::from(*value)) as f32).collect();
        let b = [scaled(qb), vec![0.0; inputs], scaled(vb)].concat();
        if let Some(place) = b.iter().position(|value| !value.is_finite()) {
            fail!(Overflow, "λ_b of '{module}' would hold {} at {place}; alpha is {}", b[place], authors.alpha);
        }
        tensors.push((key_of(module, Keys::PVERA.lambda_d), vec![d.len()], d));
        tensors.push((key_of(module, Keys::PVERA.lambda_b), vec![b.len()], b));
    }
    let config = Config {
        rank: 2 * rank,
        target_modules: Targets::List(layers.keys().cloned().collect()),
        inference_mode: true,
        ..Config::default()
    };
    config.validate()?;
    let stored = tensors.iter().map(|(name, shape, values)| {
        (name.clone(), Stored::F32, shape.clone(), bytemuck::cast_slice::<f32, u8>(values))
    });
    write(out, replace, &config, stored)
}
