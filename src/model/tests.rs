//! Tests of declaring layers and publishing adapters.

use std::sync::Weak;

use super::*;
use crate::adapter::LoadOptions;
use crate::config::Config;
use crate::error::Code;
use crate::memory::Buffer;
use crate::tensor::Matrix;

fn layer(name: &str) -> Layer {
    Layer::whole(name, 4, 3)
}

fn model() -> Model {
    let model = Model::new(Allocator::default(), Box::new(Silent));
    assert_eq!((model.declare(layer("q")).unwrap(), model.declare(layer("v")).unwrap()), (0, 1));
    model
}

fn adapter(model: &Model, rank: usize) -> Arc<Adapter> {
    let mut config = Config { rank, ..Config::default() };
    config.set_json("target_modules", r#"["q"]"#).unwrap();
    let adapter = Adapter::create(model, &config, None, &LoadOptions::default()).unwrap();
    Arc::new(adapter.frozen(model.allocator()).unwrap())
}

#[test]
fn a_slot_is_stable_across_replace_and_free_after_remove() {
    let model = model();
    let slots = ["a", "b", "c"].map(|name| model.publish(name, adapter(&model, 2)).unwrap());
    assert_eq!(slots, [0, 1, 2]);
    assert_eq!(model.replace("b", adapter(&model, 3)).unwrap(), 1);
    model.remove("a").unwrap();
    assert_eq!(model.snapshot().unwrap().slots().get(0).unwrap_err().code(), Code::NotFound);
    assert_eq!(model.publish("d", adapter(&model, 2)).unwrap(), 0, "the lowest free slot");
    assert_eq!(model.publish("e", adapter(&model, 2)).unwrap(), 3);
    let snapshot = model.snapshot().unwrap();
    assert_eq!(snapshot.slots().len(), 4);
    assert_eq!(snapshot.slots().find("b").unwrap(), 1);
    assert_eq!(snapshot.slots().get(1).unwrap().adapter.config().rank, 3);
}

#[test]
fn a_snapshot_keeps_its_adapters_and_the_last_reader_frees_them() {
    let model = model();
    let first = adapter(&model, 2);
    let (weak, store) = (Arc::downgrade(&first), Arc::downgrade(first.store()));
    model.publish("a", first).unwrap();
    let before = model.snapshot().unwrap();
    model.replace("a", adapter(&model, 3)).unwrap();
    let after = model.snapshot().unwrap();
    assert_eq!(before.slots().get(0).unwrap().adapter.config().rank, 2);
    assert_eq!(after.slots().get(0).unwrap().adapter.config().rank, 3);
    assert_eq!(weak.strong_count(), 1, "only the old snapshot holds it");
    let linear = before.linear(0).unwrap().clone();
    drop(before);
    assert_eq!(weak.strong_count(), 1, "a layer of it still runs");
    drop(linear);
    assert_eq!((weak.strong_count(), store.strong_count()), (0, 0));

    let second = Arc::downgrade(&after.slots().get(0).unwrap().adapter);
    drop(after);
    model.remove("a").unwrap();
    assert_eq!(Weak::strong_count(&second), 0);
}

#[test]
fn identities_are_the_adapters_own_or_of_the_name() {
    let model = model();
    let mut config = Config { rank: 2, ..Config::default() };
    config.set_json("target_modules", r#"["q"]"#).unwrap();
    let options = LoadOptions { identity: Some(42), ..LoadOptions::default() };
    let own = Adapter::create(&model, &config, None, &options).unwrap();
    model.publish("own", Arc::new(own)).unwrap();
    let named = adapter(&model, 2);
    for name in ["x", "y"] {
        model.publish(name, named.clone()).unwrap();
    }
    let snapshot = model.snapshot().unwrap();
    let identity = |slot| snapshot.slots().get(slot).unwrap().identity;
    assert_eq!(identity(0), 42);
    assert_eq!(identity(1), crate::noise::adapter_identity("x"));
    assert_ne!(identity(1), identity(2));
}

#[test]
fn a_trainable_adapter_is_published_as_it_is_now() {
    let model = model();
    let mut training = adapter(&model, 2).trainable(model.allocator()).unwrap();
    training.parameters_mut().unwrap().all_mut()[0] = 1.0;
    let training = Arc::new(training);
    model.publish("t", training.clone()).unwrap();
    let published = model.snapshot().unwrap().slots().get(0).unwrap().adapter.clone();
    assert!(!Arc::ptr_eq(&published, &training) && !published.is_trainable());
    assert_eq!(published.parameters().all(), training.parameters().all());
    assert!(Arc::ptr_eq(published.store(), training.store()));
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let (model, other) = (model(), model());
    let adapter = adapter(&model, 2);
    model.publish("a", adapter.clone()).unwrap();
    let code = |outcome: Result<i32>| outcome.unwrap_err().code();
    assert_eq!(code(model.publish("a", adapter.clone())), Code::Exists);
    assert_eq!(code(model.publish("", adapter.clone())), Code::Argument);
    assert_eq!(code(model.replace("b", adapter.clone())), Code::NotFound);
    assert_eq!(code(other.publish("a", adapter.clone())), Code::State);
    assert_eq!(model.remove("b").unwrap_err().message(), "no adapter is published as 'b'; 1 are");
    let snapshot = model.snapshot().unwrap();
    assert_eq!(snapshot.slots().len(), 1);
    assert_eq!(snapshot.slots().get(-1).unwrap_err().message(), "slot -1 holds no adapter; 1 slots are in use");
    assert_eq!(snapshot.linear(2).unwrap_err().message(), "layer number 2 is not declared; the model has 2 layers");
    assert!(other.snapshot().unwrap().slots().is_empty());
}

#[test]
fn a_learned_bias_needs_the_bias_it_replaces() {
    let bias = [1.0f32; 3];
    // SAFETY: `bias` outlives the model.
    let bias = unsafe { Matrix::from_f32(&bias, 1, 3).forever() };
    let with = Model::new(Allocator::default(), Box::new(Silent));
    with.declare(Layer { bias: Some(bias), ..layer("q") }).unwrap();
    let mut config = Config { rank: 2, bias: crate::config::Bias::PveraOnly, ..Config::default() };
    config.set_json("target_modules", r#"["q"]"#).unwrap();
    let saved = Adapter::create(&with, &config, None, &LoadOptions::default()).unwrap().checkpoint().unwrap();
    let without = model();
    let loaded = Adapter::from_memory(&without, &saved.config, &saved.tensors, &LoadOptions::default()).unwrap();
    let error = without.publish("a", Arc::new(loaded)).unwrap_err();
    assert_eq!(error.code(), Code::State);
    assert!(error.message().contains("learned a bias for layer 'q', which is declared without one"), "{error}");
}

#[test]
fn layers_are_checked_and_declared_before_adapters() {
    let model = model();
    let code = |layer: Layer| model.declare(layer).unwrap_err().code();
    assert_eq!(code(layer("q")), Code::Exists);
    assert_eq!(code(layer("")), Code::Argument);
    assert_eq!(code(Layer { in_features: 0, ..layer("z") }), Code::Shape);
    assert_eq!(code(Layer { out_offset: 1, ..layer("z") }), Code::Shape);
    assert_eq!(code(Layer { in_offset: usize::MAX, ..layer("z") }), Code::Shape);
    let values = Buffer::<f32>::zeroed(&Allocator::default(), 12).unwrap();
    // SAFETY: `values` outlives the layer, which is refused.
    let weight = unsafe { Matrix::from_f32(&values, 3, 4).forever() };
    let turned = Layer { weight: Some((weight, WeightLayout::InOut)), ..layer("z") };
    let error = model.declare(turned).unwrap_err();
    assert_eq!(error.message(), "layer 'z': layer.weight is 3×4; wanted 4×3 (in_features × out_features)");
    let snapshot = model.snapshot().unwrap();
    assert_eq!(code(layer("late")), Code::State);
    drop(snapshot);
    assert_eq!(model.declare(layer("late")).unwrap(), 2, "nobody saw the shorter list");
}

#[test]
fn snapshots_and_publishing_run_side_by_side() {
    let model = model();
    let adapters = [adapter(&model, 2), adapter(&model, 3)];
    model.publish("a", adapters[0].clone()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..200 {
                model.replace("a", adapters[round % 2].clone()).unwrap();
            }
        });
        for _ in 0..200 {
            let snapshot = model.snapshot().unwrap();
            let (first, second) = (snapshot.linear(0).unwrap(), snapshot.linear(1).unwrap());
            let of = |linear: &Linear| linear.slots().get(0).unwrap().adapter.clone();
            assert!(Arc::ptr_eq(&of(first), &of(second)), "all layers of a snapshot see one adapter");
        }
    });
}
