//! A model on disk: one safetensors file, or an index and its shards. Only headers are read.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorInfo;
use serde_json::Value;

use super::tensor_file::TensorFile;
use crate::adapter::source::{io, read_file};
use crate::error::{Code, Error, Result};
use crate::fail;

const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// An index names each tensor of a model; a hundred thousand take 10 MB.
const LARGEST_INDEX: u64 = 256 << 20;

/// The headers of a model's files.
#[derive(Debug)]
pub struct ModelFiles {
    /// The folder, where a folder was given: its other files belong to the model, too.
    folder: Option<PathBuf>,
    files: Vec<TensorFile>,
    /// By tensor: which file.
    place: HashMap<String, usize>,
}

impl ModelFiles {
    /// Of a folder with `model.safetensors` or `model.safetensors.index.json`, or of one safetensors file.
    pub fn open(path: &Path) -> Result<Self> {
        let data = std::fs::metadata(path).map_err(|error| io(path, "open", &error))?;
        if !data.is_dir() {
            return Self::of_one(None, path);
        }
        let (single, index) = (path.join(SINGLE), path.join(INDEX));
        match (single.exists(), index.exists()) {
            (true, false) => Self::of_one(Some(path), &single),
            (false, true) => Self::of_index(path, &index),
            (true, true) => fail!(
                Format,
                "'{}' holds {SINGLE} and {INDEX}; wanted one of them, or it is not clear which is the model",
                path.display()
            ),
            (false, false) => fail!(Io, "'{}' holds neither {SINGLE} nor {INDEX}", path.display()),
        }
    }

    fn of_one(folder: Option<&Path>, path: &Path) -> Result<Self> {
        let file = TensorFile::open(path)?;
        let place = file.names().into_iter().map(|name| (name, 0)).collect();
        Ok(Self { folder: folder.map(Path::to_owned), files: vec![file], place })
    }

    fn of_index(folder: &Path, index: &Path) -> Result<Self> {
        let weights = weight_map(index)?;
        let mut files: Vec<TensorFile> = Vec::new();
        let mut place = HashMap::new();
        for (shard, tensors) in weights {
            let path = folder.join(&shard);
            let file = TensorFile::open(&path)?;
            for tensor in tensors {
                if file.info(&tensor).is_none() {
                    fail!(Format, "'{}' says that '{tensor}' is in {shard}, but it is not", index.display());
                }
                place.insert(tensor, files.len());
            }
            files.push(file);
        }
        for (number, file) in files.iter().enumerate() {
            if let Some(name) = file.names().into_iter().find(|name| place.get(name) != Some(&number)) {
                fail!(
                    Format,
                    "'{}' is in {}, but '{}' does not say so; a reader of whole files would take it unchanged",
                    name,
                    file.path().display(),
                    index.display()
                );
            }
        }
        Ok(Self { folder: Some(folder.to_owned()), files, place })
    }

    /// The folder, where one was given.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    pub fn files(&self) -> &[TensorFile] {
        &self.files
    }

    /// A tensor, and the number of the file that it is in.
    pub fn find(&self, tensor: &str) -> Option<(usize, &TensorInfo)> {
        let file = *self.place.get(tensor)?;
        Some((file, self.files[file].info(tensor)?))
    }

    /// The same for a tensor that cannot be missed.
    pub fn wanted(&self, tensor: &str) -> Result<(usize, &TensorInfo)> {
        match self.find(tensor) {
            Some(found) => Ok(found),
            None => fail!(NotFound, "the model's files hold no tensor '{tensor}'{}", self.hint(tensor)),
        }
    }

    /// A tensor of the same name behind another beginning: a model saved with another class has such.
    fn hint(&self, tensor: &str) -> String {
        let longer = format!(".{tensor}");
        let shorter = |name: &str| tensor.strip_suffix(name).is_some_and(|before| before.ends_with('.'));
        let like = self.place.keys().filter(|name| name.ends_with(&longer) || shorter(name)).min();
        match like {
            Some(name) => format!(", but '{name}'; a prefix can be given"),
            None => String::new(),
        }
    }
}

/// The shards of an index, each with its tensors.
fn weight_map(index: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    let text = read_file(index, LARGEST_INDEX)?;
    let wrong = |what: String| Error::new(Code::Format, format!("'{}': {what}", index.display()));
    let value: Value = serde_json::from_slice(&text).map_err(|error| wrong(format!("not JSON: {error}")))?;
    let Some(Value::Object(map)) = value.get("weight_map") else {
        return Err(wrong("wanted an object 'weight_map' of tensors and files".into()));
    };
    let mut shards = BTreeMap::<String, Vec<String>>::new();
    for (tensor, shard) in map {
        let Some(shard) = shard.as_str() else { return Err(wrong(format!("the file of '{tensor}' is not a text"))) };
        if !is_plain_name(shard) {
            return Err(wrong(format!("'{tensor}' is in '{shard}'; wanted the name of a .safetensors file beside it")));
        }
        shards.entry(shard.to_owned()).or_default().push(tensor.clone());
    }
    if shards.is_empty() {
        return Err(wrong("it names no tensor".into()));
    }
    Ok(shards)
}

/// Whether a name stays in the folder and is that of a safetensors file.
fn is_plain_name(name: &str) -> bool {
    name.ends_with(".safetensors") && !name.contains(['/', '\\', '\0']) && !name.starts_with('.')
}
