//! Merges into models on disk have the bits of merges in memory.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use pvera::adapter::{Adapter, ElementType, Tensor};
use pvera::context::{Context, Kind};
use pvera::error::Code;
use pvera::interchange::{ModelFiles, Options, merge_files};
use pvera::linear::{Choice, Linear, MergeRequest, merge};
use pvera::memory::Allocator;
use pvera::model::{Listener, WeightLayout};
use pvera::tensor::{Device, MatrixMut, Parts};
use safetensors::Dtype as Stored;

use crate::disk::*;
use crate::lora::{Stopping, trained};
use crate::support::*;
use crate::with_weights;

fn context() -> Context {
    Context::new(Kind::Cpu, 0, None, Allocator::default()).unwrap()
}

const MEAN: Options<'static> =
    Options { mean: true, leave_out: true, replace: false, dtype: None, prefix: "", listener: &pvera::model::Silent };

/// A weight merged in memory, in one piece.
fn merged(adapter: &Arc<Adapter>, number: usize, raw: &Raw) -> Raw {
    let weight = forever(raw);
    let mut words = vec![0u64; raw.bytes.len().div_ceil(8)];
    let parts = Parts {
        rows: weight.rows(),
        cols: weight.cols(),
        row_stride: weight.cols(),
        dtype: weight.dtype(),
        device: Device::Host,
    };
    // SAFETY: room for the elements, aligned to 8 bytes.
    let target = unsafe { MatrixMut::new("merged", words.as_mut_ptr().cast(), parts) }.unwrap();
    let layout = if adapter.config().fan_in_fan_out { WeightLayout::InOut } else { WeightLayout::OutIn };
    let request = MergeRequest { choice: Choice::First, layout, drop_sampling: true, wants_undo: false };
    merge(&context(), &Linear::single(adapter.clone(), number), &request, &weight, &target).unwrap();
    Raw { bytes: bytemuck::cast_slice(&words)[..raw.bytes.len()].to_vec(), ..raw.clone() }
}

/// What the merged model holds, by the adapter and the model's own tensors.
fn expected(adapter: &Arc<Adapter>, tensors: &Tensors) -> Tensors {
    let mut wanted = tensors.clone();
    for number in adapter.adapted_layers() {
        let name = &adapter.layers().get(number).unwrap().name;
        let weight = format!("{name}.weight");
        let changed = merged(adapter, number, &tensors[&weight]);
        assert_ne!(changed, tensors[&weight], "{weight}");
        wanted.insert(weight, changed);
        if let Some(bias) = adapter.vectors(number).unwrap().bias {
            wanted.insert(format!("{name}.bias"), f32_tensor(bias.on_host()));
        }
    }
    for tensor in adapter.tensors() {
        let name = tensor.name.strip_prefix("base_model.model.").unwrap();
        if let Some(own) = wanted.get_mut(name) {
            own.bytes = tensor.data.clone();
        }
    }
    wanted
}

/// All tensors of a model's folder, wherever they lie, and the names of its files.
fn model_in(folder: &Path) -> (Tensors, Vec<String>) {
    let files = contents(folder);
    let mut tensors = Tensors::new();
    for (_, bytes) in files.iter().filter(|(name, _)| name.ends_with(".safetensors")) {
        tensors.extend(parse(bytes));
    }
    (tensors, files.into_keys().collect())
}

#[test]
fn shards_and_single_files_have_the_bits_of_a_merge_in_memory() {
    let scratch = Scratch::new("merge");
    for (number, checkpoint) in with_weights().into_iter().enumerate() {
        let tensors = tensors_of(&checkpoint);
        for shards in [1, 2, 5] {
            let (folder, out) =
                (scratch.join(&format!("{number}-{shards}")), scratch.join(&format!("{number}-{shards}-out")));
            write_model(&folder, &tensors, shards);
            let adapter = load(&checkpoint, &folder);
            let files = ModelFiles::open(&folder).unwrap();
            let before = contents(&folder);
            merge_files(&context(), &adapter, &files, &out, &MEAN).unwrap();
            assert_eq!(contents(&folder), before, "the model itself is as it was");
            let (found, names) = model_in(&out);
            assert_eq!(found, expected(&adapter, &tensors), "{}", checkpoint.display());
            assert_eq!(names, before.keys().cloned().collect::<Vec<_>>());
            let after = contents(&out);
            for (name, bytes) in &before {
                let is_weights = name.ends_with(".safetensors");
                assert!(is_weights || after[name] == *bytes, "{name}");
                let head =
                    |file: &[u8]| file[..8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize].to_vec();
                assert!(!is_weights || head(bytes) == head(&after[name]), "{name}: the header stays");
            }
        }
    }
}

/// A weight of more than one block of rows, in both orientations.
#[test]
fn blocks_of_rows_have_the_bits_of_the_whole() {
    let scratch = Scratch::new("blocks");
    for transposed in [false, true] {
        let (inputs, outputs) = (2100, 1300); // 10.9 MB
        let adapter = trained(vec![layer("h.q_proj", inputs, outputs)], |config| config.fan_in_fan_out = transposed);
        adapter.save(&scratch.join("checkpoint")).unwrap();
        let mut random = Random(3);
        let values: Vec<f32> = (0..inputs * outputs).map(|_| random.below(1 << 12) as f32 / 4096.0).collect();
        let shape = if transposed { vec![inputs, outputs] } else { vec![outputs, inputs] };
        let raw = Raw { shape, ..f32_tensor(&values) };
        let tensors = Tensors::from([("h.q_proj.weight".to_owned(), raw)]);
        let _ = fs::remove_dir_all(scratch.join("model"));
        write_model(&scratch.join("model"), &tensors, 1);
        let adapter = load(&scratch.join("checkpoint"), &scratch.join("model"));
        let files = ModelFiles::open(&scratch.join("model")).unwrap();
        let options = Options { replace: true, ..MEAN };
        merge_files(&context(), &adapter, &files, &scratch.join("out"), &options).unwrap();
        let (found, wanted) = (model_in(&scratch.join("out")).0, expected(&adapter, &tensors));
        assert!(found == wanted, "transposed: {transposed}");
    }
}

#[test]
fn learned_biases_and_heads_take_the_place_of_the_models() {
    let scratch = Scratch::new("bias");
    let checkpoint = golden("bias_and_head");
    let mut tensors = tensors_of(&checkpoint);
    write_model(&scratch.join("model"), &tensors, 1);
    let adapter = load(&checkpoint, &scratch.join("model"));
    let carried: Vec<_> = adapter.tensors().iter().map(|tensor| tensor.name.replace("base_model.model.", "")).collect();
    assert!(!carried.is_empty() && adapter.vectors(0).unwrap().bias.is_some());
    for (name, tensor) in carried.iter().zip(adapter.tensors()) {
        tensors.insert(
            name.clone(),
            Raw { dtype: Stored::F32, shape: tensor.shape.clone(), bytes: vec![0; tensor.data.len()] },
        );
    }
    write_model(&scratch.join("model"), &tensors, 1);
    let merge = |model: &Path| {
        let files = ModelFiles::open(model).unwrap();
        let options = Options { leave_out: false, ..MEAN };
        merge_files(&context(), &adapter, &files, &scratch.join("out"), &options)
    };
    merge(&scratch.join("model")).unwrap();
    let found = model_in(&scratch.join("out")).0;
    assert_eq!(found, expected(&adapter, &tensors));
    for (name, tensor) in carried.iter().zip(adapter.tensors()) {
        assert_eq!(found[name].bytes, tensor.data, "{name}");
    }
    fs::remove_dir_all(scratch.join("out")).unwrap();

    // In another float type the head is rounded, and other shapes are errors.
    let (first, own) = (carried[0].clone(), adapter.tensors()[0].clone());
    let count: usize = own.shape.iter().product();
    let narrow = Raw { dtype: Stored::BF16, shape: own.shape.clone(), bytes: vec![0; 2 * count] };
    tensors.insert(first.clone(), narrow);
    write_model(&scratch.join("model"), &tensors, 1);
    merge(&scratch.join("model")).unwrap();
    let rounded =
        widened(Stored::F32, &own.data).into_iter().flat_map(|value| half::bf16::from_f32(value).to_le_bytes());
    assert_eq!(model_in(&scratch.join("out")).0[&first].bytes, rounded.collect::<Vec<u8>>());
    fs::remove_dir_all(scratch.join("out")).unwrap();

    tensors.insert(first.clone(), f32_tensor(&[1.0]));
    write_model(&scratch.join("model"), &tensors, 1);
    let (code, message) = error(merge(&scratch.join("model")));
    assert!(code == Code::Shape && message.contains(&first), "{message}");
    tensors.remove(&first);
    write_model(&scratch.join("model"), &tensors, 1);
    let (code, message) = error(merge(&scratch.join("model")));
    assert!(code == Code::Unsupported && message.contains(&first), "{message}");
    let bias = format!("{}.bias", adapter.layers().get(0).unwrap().name);
    tensors.remove(&bias);
    write_model(&scratch.join("model"), &tensors, 1);
    let (code, message) = error(merge(&scratch.join("model")));
    assert!(code == Code::NotFound && message.contains(&bias), "{message}");
    assert!(!scratch.join("out").exists());
}

/// Everything that is wrong is found before the first write.
#[test]
fn targets_that_hold_something_are_refused() {
    let scratch = Scratch::new("target");
    let (checkpoint, folder, out) = (golden("seed_only"), scratch.join("model"), scratch.join("out"));
    write_model(&folder, &tensors_of(&checkpoint), 2);
    let adapter = load(&checkpoint, &folder);
    let files = ModelFiles::open(&folder).unwrap();
    let merge =
        |out: &Path, replace: bool| merge_files(&context(), &adapter, &files, out, &Options { replace, ..MEAN });
    for replace in [false, true] {
        for target in [folder.clone(), scratch.0.clone()] {
            let (code, message) = error(merge(&target, replace));
            assert!(code == Code::Argument && message.contains("holds the model"), "{message}");
        }
    }
    fs::create_dir(&out).unwrap();
    merge(&out, false).unwrap();
    let (code, message) = error(merge(&out, false));
    assert!(code == Code::Exists && message.contains("not empty"), "{message}");
    fs::create_dir(out.join("sub")).unwrap();
    fs::write(out.join("sub/old"), "old").unwrap();
    // What a killed merge left goes with the next; a folder that somebody called nearly so does not.
    for beside in [".out.pvera-whole-7", ".out.pvera-whole-mine"] {
        fs::create_dir(scratch.join(beside)).unwrap();
    }
    merge(&out, true).unwrap();
    assert!(!out.join("sub").exists(), "replaced whole");
    assert!(!scratch.join(".out.pvera-whole-7").exists());
    fs::remove_dir(scratch.join(".out.pvera-whole-mine")).unwrap();
    fs::write(scratch.join("file"), "").unwrap();
    assert_eq!(error(merge(&scratch.join("file"), true)).0, Code::Io);
    let mut names: Vec<_> = fs::read_dir(&scratch.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["file", "model", "out"], "nothing is left beside it");
}

#[test]
fn other_formats_and_folders_are_not_copied_and_told() {
    let scratch = Scratch::new("beside");
    let (checkpoint, folder) = (golden("seed_only"), scratch.join("model"));
    write_model(&folder, &tensors_of(&checkpoint), 1);
    fs::write(folder.join("pytorch_model.bin"), "old weights").unwrap();
    fs::write(folder.join("other.safetensors"), "old weights").unwrap();
    fs::create_dir(folder.join("1_Pooling")).unwrap();
    fs::write(scratch.join("blob"), "linked").unwrap();
    std::os::unix::fs::symlink(scratch.join("blob"), folder.join("vocab.txt")).unwrap();
    let heard = Stopping(Heard::default());
    let adapter = load(&checkpoint, &folder);
    let options = Options { listener: &heard, ..MEAN };
    merge_files(&context(), &adapter, &ModelFiles::open(&folder).unwrap(), &scratch.join("out"), &options).unwrap();
    let names: Vec<_> = contents(&scratch.join("out")).into_keys().collect();
    assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]);
    assert_eq!(contents(&scratch.join("out"))["vocab.txt"], b"linked");
    let warnings = heard.0.warnings().join("\n");
    for name in ["pytorch_model.bin", "other.safetensors", "1_Pooling"] {
        assert!(warnings.contains(name), "{warnings}");
    }
}

#[test]
fn a_weight_that_overflows_is_named_and_nothing_is_left() {
    let scratch = Scratch::new("overflow");
    let (checkpoint, folder) = (golden("base_f16"), scratch.join("model"));
    let mut tensors = tensors_of(&checkpoint);
    let weight = tensors.get_mut("q_proj.weight").unwrap();
    assert_eq!(weight.dtype, Stored::F16);
    let at = 2 * (weight.shape[1] + 1);
    weight.bytes[at..at + 2].copy_from_slice(&half::f16::INFINITY.to_le_bytes());
    write_model(&folder, &tensors, 1);
    let adapter = load(&checkpoint, &folder);
    let files = ModelFiles::open(&folder).unwrap();
    let (code, message) = error(merge_files(&context(), &adapter, &files, &scratch.join("out"), &MEAN));
    assert_eq!(code, Code::Overflow);
    assert!(message.contains("tensor 'q_proj.weight'") && message.contains("output 1, input 1"), "{message}");
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1, "the model alone");
}

/// Stops at the n-th question; records what it heard.
struct Counting {
    stop_at: usize,
    heard: Mutex<Vec<(u64, u64)>>,
}

impl Listener for Counting {
    fn warning(&self, _: &str) {}

    fn progress(&self, stage: &str, done: u64, total: u64) -> bool {
        assert_eq!(stage, "merge");
        let mut heard = self.heard.lock().unwrap();
        heard.push((done, total));
        heard.len() != self.stop_at
    }
}

#[test]
fn progress_counts_bytes_and_every_stop_leaves_nothing() {
    let scratch = Scratch::new("progress");
    let (checkpoint, folder, out) = (golden("seed_only"), scratch.join("model"), scratch.join("out"));
    write_model(&folder, &tensors_of(&checkpoint), 2);
    let adapter = load(&checkpoint, &folder);
    let files = ModelFiles::open(&folder).unwrap();
    let total: u64 = files.files().iter().map(|file| file.length()).sum();
    let run = |stop_at: usize| {
        let listener = Counting { stop_at, heard: Mutex::default() };
        let outcome = merge_files(&context(), &adapter, &files, &out, &Options { listener: &listener, ..MEAN });
        (outcome, listener.heard.into_inner().unwrap())
    };
    let (outcome, heard) = run(0);
    outcome.unwrap();
    assert!(heard.is_sorted() && heard.last() == Some(&(total, total)), "{heard:?}");
    fs::remove_dir_all(&out).unwrap();
    for stop_at in 1..=heard.len() {
        let (code, _) = error(run(stop_at).0);
        assert_eq!(code, Code::Cancelled);
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1, "after {stop_at}");
    }
}

#[test]
fn a_file_that_changes_meanwhile_is_an_error() {
    let scratch = Scratch::new("changes");
    let (checkpoint, folder) = (golden("seed_only"), scratch.join("model"));
    write_model(&folder, &tensors_of(&checkpoint), 1);
    let adapter = load(&checkpoint, &folder);
    let files = ModelFiles::open(&folder).unwrap();
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
    let (code, message) = error(merge_files(&context(), &adapter, &files, &scratch.join("out"), &MEAN));
    assert!(code == Code::Io && message.contains("changed while it was read"), "{message}");
    assert!(!scratch.join("out").exists());
}

#[test]
fn an_adapter_that_samples_needs_the_word() {
    let scratch = Scratch::new("samples");
    let (checkpoint, folder) = (golden("sample_at_inference"), scratch.join("model"));
    write_model(&folder, &tensors_of(&checkpoint), 1);
    let adapter = load(&checkpoint, &folder);
    let files = ModelFiles::open(&folder).unwrap();
    let refused = merge_files(&context(), &adapter, &files, &scratch.join("out"), &Options { mean: false, ..MEAN });
    assert_eq!(error(refused).0, Code::State);
    assert!(!scratch.join("out").exists());
}

#[test]
fn a_carried_tensor_never_takes_the_place_of_a_merged_weight() {
    let scratch = Scratch::new("collision");
    let checkpoint = with_weights().remove(0);
    let model = scratch.join("model");
    write_model(&model, &tensors_of(&checkpoint), 1);
    let adapter = load(&checkpoint, &model);
    let weight = format!("{}.weight", adapter.layers().get(0).unwrap().name);
    let own = tensors_of(&checkpoint).remove(&weight).unwrap();
    let mut carrying = adapter.trainable(&Allocator::default()).unwrap();
    let key = format!("base_model.model.{weight}");
    carrying.set_tensor(Tensor::copied(&key, ElementType(own.dtype), &own.shape, &own.bytes).unwrap()).unwrap();
    let carrying = Arc::new(carrying.frozen(&Allocator::default()).unwrap());
    let files = ModelFiles::open(&model).unwrap();
    let (code, message) = error(merge_files(&context(), &carrying, &files, &scratch.join("out"), &MEAN));
    assert_eq!(code, Code::Format, "{message}");
    assert!(message.contains(&format!("carries '{key}', but '{weight}' gets other values")), "{message}");
    assert!(!scratch.join("out").exists());
}

#[test]
fn a_tensor_that_the_index_does_not_give_to_its_shard_is_an_error() {
    let scratch = Scratch::new("unlisted");
    let tensors = tensors_of(&with_weights().remove(0));
    let model = scratch.join("model");
    write_model(&model, &tensors, 2);
    let second = model.join("model-00002-of-00002.safetensors");
    let mut shard = parse(&fs::read(&second).unwrap());
    let (name, raw) = tensors.iter().find(|(name, _)| !shard.contains_key(*name)).unwrap();
    shard.insert(name.clone(), raw.clone());
    fs::write(&second, file_of(&shard)).unwrap();
    let (code, message) = error(ModelFiles::open(&model));
    assert_eq!(code, Code::Format, "{message}");
    assert!(message.contains(&format!("'{name}' is in")) && message.contains("does not say so"), "{message}");
}
