//! Other programs' files: an adapter's mean as a LoRA for PEFT or llama.cpp, merges into models on disk, and checkpoints
//! with more or less in them.

mod authors;
mod declare;
mod factors;
mod gguf;
mod lora;
mod merge;
mod model_files;
mod outline;
mod shrink;
mod tensor_file;

pub use authors::{ALPHA, Authors, import_authors};
pub use declare::{Declared, declare_layers};
pub use gguf::{Gguf, Rope, export_gguf};
pub use lora::export_lora;
pub use merge::merge_files;
pub use model_files::ModelFiles;
pub use outline::{Module, Outline};
pub use shrink::{Shrunk, check_projections, grow, shrink};
pub use tensor_file::TensorFile;

use std::path::Path;

use crate::adapter::folder::refuse_existing;
use crate::adapter::source::{CONFIG_FILE, TENSOR_FILE, is_reserved};
use crate::adapter::{Adapter, Vectors};
use crate::error::{Code, Error, Result};
use crate::fail;
use crate::memory::Allocator;
use crate::model::{Layer, Listener, Silent};
use crate::tensor::{Device, Dtype};

/// How files are written.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The mean is meant, also of an adapter that samples at inference, whose sampling the target cannot hold.
    pub mean: bool,
    /// What the target cannot hold (a learned bias, a carried tensor) is left out with a warning instead of being an error.
    pub leave_out: bool,
    /// What the target holds is replaced: a checkpoint, a file, by a merge the whole folder.
    pub replace: bool,
    /// Element type of what is exported; f32 where it is not given. Of shrinking and growing: the base model's.
    pub dtype: Option<Dtype>,
    /// What stands before a module's path in the names of a model's files.
    pub prefix: &'a str,
    pub listener: &'a dyn Listener,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { mean: false, leave_out: false, replace: false, dtype: None, prefix: "", listener: &Silent }
    }
}

impl Options<'_> {
    /// Tells how far the work is; the listener's wish to stop is an error.
    fn progress(&self, stage: &str, done: u64, total: u64) -> Result<()> {
        match self.listener.progress(stage, done, total) {
            true => Ok(()),
            false => Err(Error::new(Code::Cancelled, format!("the progress callback stopped the work ({stage})"))),
        }
    }

    /// Something that the target cannot hold: a warning where leaving out was asked for, an error otherwise.
    fn left_out(&self, what: &str) -> Result<()> {
        if !self.leave_out {
            fail!(Unsupported, "{what}; ask for leaving it out, if the rest is wanted");
        }
        self.listener.warning(&format!("{what}; it is left out"));
        Ok(())
    }

    /// A checkpoint that is there is replaced only where that is asked for.
    pub fn refuse_existing(&self, out: &Path) -> Result<()> {
        if self.replace { Ok(()) } else { refuse_existing(out, out, &[CONFIG_FILE, TENSOR_FILE]) }
    }

    /// A target has no noise: of an adapter that samples, only the mean can be meant.
    fn refuse_sampling(&self, adapter: &Adapter) -> Result<()> {
        for (layer, vectors) in adapted(adapter)? {
            if vectors.samples && !self.mean {
                fail!(
                    State,
                    "the adapter samples at inference in layer '{}', which the target cannot; ask for its mean",
                    layer.name
                );
            }
        }
        Ok(())
    }
}

/// A copy on the CPU of an adapter whose parameters lie elsewhere.
fn copy_on_host(adapter: &Adapter) -> Result<Option<Adapter>> {
    match adapter.parameters().device() {
        Device::Host => Ok(None),
        _ => adapter.frozen(&Allocator::default()).map(Some),
    }
}

/// The adapted layers with their vectors, in the order of their numbers.
fn adapted(adapter: &Adapter) -> Result<Vec<(&Layer, Vectors<'_>)>> {
    let vectors = adapter.adapted_layers().filter_map(|number| Some((number, adapter.vectors(number)?)));
    vectors.map(|(number, vectors)| Ok((adapter.layers().get(number)?, vectors))).collect()
}

/// Vectors of layers that are not declared are carried as they are; nothing is known of those layers but their names.
fn refuse_undeclared(adapter: &Adapter) -> Result<()> {
    if let Some(tensor) = adapter.tensors().iter().find(|tensor| is_reserved(&tensor.name)) {
        fail!(
            State,
            "the adapter carries '{}' of a layer that is not declared; declare all that it adapts",
            tensor.name
        );
    }
    Ok(())
}
