//! Exports, merges on disk, shrinking and imports: against products made here, and against hostile files.

#[path = "../support/mod.rs"]
mod support;

mod disk;
mod lora;
mod merge;

/// The goldens of which a model on disk can be made: all adapted layers have a weight.
pub fn with_weights() -> Vec<std::path::PathBuf> {
    let mut folders = support::goldens();
    folders.retain(|folder| support::layers_of(folder).iter().all(|layer| layer.weight.is_some()));
    assert!(folders.len() >= 10, "{} goldens", folders.len());
    folders
}
