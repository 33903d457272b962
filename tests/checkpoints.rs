//! PEFT's checkpoints, in and out: what is loaded is what the files hold, and what is saved is what PEFT wrote.

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use pvera::adapter::{Adapter, ElementType, LoadOptions, Tensor};
use pvera::config::{Bias, Config};
use pvera::error::Code;
use pvera::model::{Layer, Model};
use pvera::tensor::Dtype;
use support::*;

fn options() -> LoadOptions {
    LoadOptions::default()
}

fn load(model: &Model, folder: &Path) -> Adapter {
    Adapter::load(model, folder, &options()).unwrap()
}

#[test]
fn every_golden_checkpoint_loads_and_saves_as_peft_wrote_it() {
    for folder in goldens() {
        let (model, heard) = model(layers_of(&folder));
        let (config, tensors) = (fs::read(folder.join(CONFIG)).unwrap(), fs::read(folder.join(TENSORS)).unwrap());
        let wanted = parse(&tensors);
        // The one that is read comes first: it is shared with whoever asks for a map, but not the other way round.
        let read = load(&model, &folder);
        let mapped = Adapter::load(&model, &folder, &LoadOptions { map: true, ..options() }).unwrap();
        let adapters = [read, mapped, Adapter::from_memory(&model, &config, &tensors, &options()).unwrap()];
        for adapter in &adapters {
            assert_holds(adapter, &wanted);
            assert!(Arc::ptr_eq(adapter.store(), adapters[0].store()), "{folder:?}: equal projections are kept once");
            let saved = adapter.checkpoint().unwrap();
            assert_eq!(parse(&saved.tensors), wanted, "{folder:?}");
            assert_eq!(saved.tensors, tensors, "{folder:?}: byte for byte what safetensors writes in Python");
            assert_eq!(String::from_utf8(saved.config).unwrap(), String::from_utf8_lossy(&config), "{folder:?}");
            assert!(!adapter.is_trainable());
        }
        assert_eq!(heard.warnings(), Vec::<String>::new(), "{folder:?}");
        let scratch = Scratch::new("round-trip");
        adapters[0].save(&scratch.join("saved")).unwrap();
        let again = load(&model, &scratch.join("saved"));
        assert_holds(&again, &wanted);
        assert_eq!(again.config(), adapters[0].config());
        assert!(Arc::ptr_eq(again.store(), adapters[0].store()));
    }
}

#[test]
fn seed_only_and_saved_projections_of_one_key_are_one_store() {
    let folder = golden("seed_only");
    let (model, _) = model(layers_of(&folder));
    let drawn = load(&model, &folder);
    let mut config = drawn.config().clone();
    config.save_projection = true;
    let saved =
        Adapter::create(&model, &config, Some(drawn.store().clone()), &options()).unwrap().checkpoint().unwrap();
    assert!(parse(&saved.tensors).contains_key("base_model.pvera_A"));
    let read = Adapter::from_memory(&model, &saved.config, &saved.tensors, &options()).unwrap();
    assert!(Arc::ptr_eq(read.store(), drawn.store()));
    config.projection_prng_key += 1;
    let other = Adapter::create(&model, &config, None, &options()).unwrap();
    assert!(!Arc::ptr_eq(other.store(), drawn.store()));
}

#[test]
fn the_seed_draws_what_peft_saved() {
    for (name, base_dtype) in [("mixed_shapes", Dtype::F32), ("base_bf16", Dtype::Bf16), ("base_f16", Dtype::F16)] {
        let (folder, without) = (golden(name), ["base_model.pvera_A", "base_model.pvera_B"]);
        let (model, heard) = model(layers_of(&folder));
        let saved = load(&model, &folder);
        let mut tensors = parse(&fs::read(folder.join(TENSORS)).unwrap());
        tensors.retain(|key, _| !without.contains(&key.as_str()));
        let config = fs::read_to_string(folder.join(CONFIG)).unwrap();
        let config = config.replace("\"save_projection\": true", "\"save_projection\": false");
        let told = LoadOptions { base_dtype: Some(base_dtype), ..options() };
        let drawn = Adapter::from_memory(&model, config.as_bytes(), &file_of(&tensors), &told).unwrap();
        assert!(Arc::ptr_eq(drawn.store(), saved.store()), "{name}");
        assert!(heard.warnings().is_empty());
        let guessed = Adapter::from_memory(&model, config.as_bytes(), &file_of(&tensors), &options()).unwrap();
        assert_eq!(heard.warnings().len(), usize::from(base_dtype != Dtype::F32), "{name}: a guess is said");
        assert_eq!(Arc::ptr_eq(guessed.store(), saved.store()), base_dtype == Dtype::F32);
    }
}

#[test]
fn unknown_and_our_own_fields_survive() {
    let folder = golden("seed_only");
    let (model, _) = model(layers_of(&folder));
    let text = fs::read_to_string(folder.join(CONFIG)).unwrap();
    let extra = r#"{ "a_field_of_tomorrow": {"nested": [1, 2.50, "ü"]}, "logvar_bound": 8.5, "alpha": 2.0,"#;
    let text = text.replacen('{', extra, 1);
    let tensors = fs::read(folder.join(TENSORS)).unwrap();
    let adapter = Adapter::from_memory(&model, text.as_bytes(), &tensors, &options()).unwrap();
    assert_eq!((adapter.config().alpha, adapter.config().logvar_bound), (2.0, Some(8.5)));
    let saved = adapter.checkpoint().unwrap();
    let again = Adapter::from_memory(&model, &saved.config, &saved.tensors, &options()).unwrap();
    assert_eq!(again.config(), &Config { alpha: 1.0, ..adapter.config().clone() }, "alpha is in the vectors now");
    assert_eq!(again.config().get_json("a_field_of_tomorrow").unwrap(), r#"{"nested":[1,2.50,"ü"]}"#);
    for number in 0..2 {
        let (before, after) = (adapter.vectors(number).unwrap(), again.vectors(number).unwrap());
        assert_eq!(*after.lambda_b, *before.lambda_b.iter().map(|value| value * 2.0).collect::<Vec<_>>());
        assert_eq!(*after.lambda_d, *before.lambda_d);
    }
    let huge = text.replace("\"alpha\": 2.0", "\"alpha\": 1e300");
    let error = Adapter::from_memory(&model, huge.as_bytes(), &tensors, &options()).unwrap_err();
    assert_eq!(error.message(), "the config in memory: alpha is 1e300; wanted a number that f32 holds");
}

#[test]
fn a_new_adapter_starts_as_peft_starts_one() {
    let bias = forever(&f32_tensor(&[1.0, 2.0, 3.0]));
    let (model, _) =
        model(vec![Layer { bias: Some(bias), ..layer("a.q_proj", 4, 3) }, layer("a.v_proj", 6, 5), layer("x", 9, 9)]);
    let mut config = Config { rank: 2, bias: Bias::PveraOnly, ..Config::default() };
    config.set_json("target_modules", r#"["q_proj", "v_proj"]"#).unwrap();
    let adapter = Adapter::create(&model, &config, None, &options()).unwrap();
    assert!(adapter.is_trainable());
    assert_eq!(adapter.adapted_layers().collect::<Vec<_>>(), [0, 1]);
    assert_eq!((adapter.store().in_max(), adapter.store().out_max()), (6, 5), "the largest of the targeted layers");
    let first = adapter.vectors(0).unwrap();
    assert_eq!(
        (&*first.lambda_b, &*first.lambda_d, first.bias.as_deref()),
        (&[0.0; 3][..], &[0.1; 4][..], Some(&[1.0, 2.0, 3.0][..]))
    );
    assert!(adapter.vectors(1).unwrap().bias.is_none(), "a layer without a bias has none to learn");
    assert!(adapter.vectors(2).is_none() && adapter.vectors(99).is_none());
    let saved = adapter.checkpoint().unwrap();
    assert_holds(
        &Adapter::from_memory(&model, &saved.config, &saved.tensors, &options()).unwrap(),
        &parse(&saved.tensors),
    );

    let wild = Config { init_weights: false, ..config.clone() };
    let wild = Adapter::create(&model, &wild, None, &options()).unwrap();
    assert_eq!(*wild.vectors(1).unwrap().lambda_b, [1.0; 5]);
    assert!(*wild.vectors(1).unwrap().lambda_d != *wild.vectors(0).unwrap().lambda_d, "drawn for each layer");
    config.set_json("target_modules", r#"["nothing"]"#).unwrap();
    let error = Adapter::create(&model, &config, None, &options()).unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Config, "target_modules matches none of the 3 declared layers"));
}

#[test]
fn a_given_store_is_used_and_checked() {
    let (model, heard) = model(vec![layer("q", 4, 3)]);
    let config = |rank, key| {
        let mut config = Config { rank, projection_prng_key: key, save_projection: false, ..Config::default() };
        config.set_json("target_modules", r#"["q"]"#).unwrap();
        config
    };
    let store = Adapter::create(&model, &config(2, 7), None, &options()).unwrap().store().clone();
    let kept = Adapter::create(&model, &config(2, 7), Some(store.clone()), &options()).unwrap();
    assert!(Arc::ptr_eq(kept.store(), &store) && heard.warnings().is_empty());
    Adapter::create(&model, &config(2, 8), Some(store.clone()), &options()).unwrap();
    assert!(heard.warnings()[0].contains("projection_prng_key 8 does not draw the given store"), "{heard:?}");
    let error = Adapter::create(&model, &config(3, 7), Some(store), &options()).unwrap_err();
    assert_eq!(error.message(), "the store has rank 2; the config has r = 3");
}

#[test]
fn trainable_copies_are_apart_from_what_they_copy() {
    let folder = golden("bias_and_head");
    let (model, _) = model(layers_of(&folder));
    let mut original = load(&model, &folder);
    assert_eq!(original.parameters_mut().unwrap_err().code(), Code::State);
    let mut copy = original.trainable(model.allocator()).unwrap();
    copy.parameters_mut().unwrap().all_mut()[0] = 9.0;
    assert_ne!(original.parameters().all()[0], 9.0);

    let count = original.parameters().len();
    let mut memory = vec![0f32; count];
    // SAFETY: `memory` outlives both uses below, and is written between calls only.
    let lent = unsafe { copy.trainable_in(memory.as_mut_ptr(), count) }.unwrap();
    assert!(lent.parameters().is_borrowed() && lent.is_trainable());
    assert_eq!(memory[0], 9.0);
    memory[0] = 7.0;
    assert_eq!(lent.vectors(0).unwrap().lambda_b[0], 7.0, "the caller's memory is the adapter's");
    let slot = model.publish("lent", Arc::new(lent)).unwrap();
    memory[0] = 5.0;
    let published = model.snapshot().unwrap().slots().get(slot).unwrap().adapter.clone();
    assert_eq!(published.vectors(0).unwrap().lambda_b[0], 7.0, "publishing copies");
    assert!(!published.is_trainable());
    // SAFETY: refused before any access.
    let refused = |memory, count| unsafe { original.trainable_in(memory, count) }.unwrap_err().code();
    assert_eq!(refused(memory.as_mut_ptr(), count - 1), Code::Shape);
    assert_eq!(refused(std::ptr::null_mut(), count), Code::Null);
    assert_eq!(refused(memory.as_mut_ptr().cast::<u8>().wrapping_add(1).cast(), count), Code::Argument);
}

#[test]
fn biases_and_heads_go_both_ways() {
    let folder = golden("bias_and_head");
    let (model, _) = model(layers_of(&folder));
    let mut adapter = load(&model, &folder).trainable(model.allocator()).unwrap();
    let head = "base_model.model.classifier.weight";
    assert_eq!(
        adapter.tensors().iter().map(|tensor| tensor.name.as_str()).collect::<Vec<_>>(),
        ["base_model.model.classifier.bias", head]
    );
    let zeros = [0; 3 * 12 * 4];
    let element = ElementType::from_dlpack(2, 32).unwrap();
    adapter.set_tensor(Tensor::copied(head, element, &[3, 12], &zeros).unwrap()).unwrap();
    adapter.set_tensor(Tensor::copied("base_model.model.norm.bias", element, &[2], &zeros[..8]).unwrap()).unwrap();
    let bias = adapter.ranges(0).unwrap().bias.unwrap();
    adapter.parameters_mut().unwrap().get_mut(&bias).fill(0.25);
    let saved = parse(&adapter.checkpoint().unwrap().tensors);
    assert_eq!(saved[head].bytes, zeros);
    assert_eq!(saved["base_model.model.norm.bias"].shape, [2]);
    assert_eq!(saved["base_model.model.q_proj.base_layer.bias"].values(), [0.25; 12]);

    for name in
        ["base_model.pvera_A", &vector_key("q_proj", "b"), "base_model.model.q_proj.base_layer.bias", "__metadata__"]
    {
        let own = Tensor::copied(name, element, &[1], &zeros[..4]).unwrap();
        assert_eq!(adapter.set_tensor(own).unwrap_err().code(), Code::Argument, "{name}");
    }
    assert_eq!(Tensor::copied("x", element, &[3], &zeros[..8]).unwrap_err().code(), Code::Shape);
    assert_eq!(Tensor::copied("x", element, &[usize::MAX, 2], &[]).unwrap_err().code(), Code::Shape);
    let lying = Tensor { name: "x".into(), element, shape: vec![5], data: vec![0; 4] };
    assert_eq!(adapter.set_tensor(lying).unwrap_err().code(), Code::Shape);
}

#[test]
fn training_a_16_bit_checkpoint_loses_nothing_at_save() {
    let folder = golden("all_bf16");
    let (model, _) = model(layers_of(&folder));
    let mut adapter = load(&model, &folder).trainable(model.allocator()).unwrap();
    adapter.parameters_mut().unwrap().all_mut()[3] = 1.0 + 1.0 / 1024.0;
    let saved = adapter.checkpoint().unwrap();
    let again = Adapter::from_memory(&model, &saved.config, &saved.tensors, &options()).unwrap();
    assert_eq!(again.parameters().all(), adapter.parameters().all());
    adapter.parameters_mut().unwrap().all_mut()[3] = f32::NAN;
    let error = adapter.checkpoint().unwrap_err();
    assert_eq!(error.code(), Code::Overflow);
    assert!(error.message().contains("q_proj.pvera_lambda_b' would hold NaN at 3"), "{error}");
}

#[test]
fn shards_hold_whole_vectors() {
    let folder = golden("mixed_shapes");
    let whole = layers_of(&folder);
    let sharded = whole.iter().map(|whole| Layer {
        in_features: whole.in_total - 3,
        out_features: 4,
        in_offset: 2,
        out_offset: 3,
        ..layer(&whole.name, whole.in_total, whole.out_total)
    });
    let (model, _) = model(sharded.collect());
    let adapter = load(&model, &folder);
    assert_holds(&adapter, &parse(&fs::read(folder.join(TENSORS)).unwrap()));
    assert_eq!(parse(&adapter.checkpoint().unwrap().tensors), parse(&fs::read(folder.join(TENSORS)).unwrap()));
}

#[test]
fn undeclared_layers_are_carried_when_asked() {
    let folder = golden("train_step");
    let mut layers = layers_of(&folder);
    layers.retain(|layer| layer.name == "v_proj");
    let (model, _) = model(layers);
    let error = Adapter::load(&model, &folder, &options()).unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(
        error
            .message()
            .ends_with("the file adapts layer 'q_proj', which is not declared; declare it, or set ignore_undeclared"),
        "{error}"
    );
    let carrying = LoadOptions { ignore_undeclared: true, ..options() };
    let adapter = Adapter::load(&model, &folder, &carrying).unwrap();
    assert_eq!(adapter.adapted_layers().count(), 1);
    assert_eq!(adapter.checkpoint().unwrap().tensors, fs::read(folder.join(TENSORS)).unwrap());
    assert_holds(&adapter, &parse(&fs::read(folder.join(TENSORS)).unwrap()));

    let seed_only = golden("seed_only");
    let (model, _) = support::model(layers_of(&seed_only).into_iter().take(1).collect());
    let error = Adapter::load(&model, &seed_only, &carrying).unwrap_err();
    assert_eq!(error.code(), Code::Projection);
    assert!(error.message().contains("need options.in_max"), "{error}");
    let told = LoadOptions { in_max: Some(48), out_max: Some(48), ..carrying };
    Adapter::load(&model, &seed_only, &told).unwrap();
}
