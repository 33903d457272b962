//! Exports, merges on disk, shrinking and imports: against products made here, and against hostile files.

#[path = "../support/mod.rs"]
mod support;

mod authors;
mod disk;
mod gguf;
mod lora;
mod merge;
mod shrink;

/// The goldens of which a model on disk can be made: all adapted layers have a weight.
pub fn with_weights() -> Vec<std::path::PathBuf> {
    let mut folders = support::goldens();
    folders.retain(|folder| support::layers_of(folder).iter().all(|layer| layer.weight.is_some()));
    assert!(folders.len() >= 10, "{} goldens", folders.len());
    folders
}
