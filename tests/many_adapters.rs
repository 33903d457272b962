//! Many adapters at once: a batch in which every row has another one has the bits of each run alone, in every mode,
//! element type and tape; and swaps under readers leave no reader with half of one.

mod common;

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::host::Host;
use common::layers::{Spec, config, declared, spec, trainable};
use common::setup::{POLICIES, Setup};
use common::{Random, context};
use pvera::adapter::{Adapter, LoadOptions};
use pvera::backend::{Mode, RowKeys};
use pvera::config::Config;
use pvera::context::{Context, Kind};
use pvera::linear::{Choice, ModeChoice, Noise, Request, Rows, forward};
use pvera::memory::{Allocator, HostAllocator};
use pvera::model::{Model, Silent, Slots, Snapshot};
use pvera::tensor::Dtype;

const ADAPTERS: usize = 64;
/// Rows of the base alone among them.
const BARE: usize = 5;
const DRAWS: usize = 3;

/// Ranks, keys (and with them stores), dropouts, bounds and alphas, mixed.
fn configs() -> Vec<Config> {
    let of = |number: usize| Config {
        pvera_dropout: [0.0, 0.0, 0.3][number % 3],
        alpha: [1.0, 2.5][number % 2],
        logvar_bound: [None, None, None, Some(0.5)][number % 4],
        ..config([16, 5, 33, 16][number % 4], [1, 2, 1, 1, 3][number % 5])
    };
    (0..ADAPTERS).map(of).collect()
}

struct World {
    model: Model,
    specs: Vec<Spec>,
    adapters: Vec<Arc<Adapter>>,
    names: Vec<String>,
    /// Of the batch: whose each row is; None for the base alone.
    whose: Vec<Option<usize>>,
    random: Random,
}

impl World {
    fn new(weight: Option<Dtype>) -> Self {
        let mut random = Random(64);
        let specs = ["q", "k"].map(|name| Spec { weight, ..spec(name, 70, 45) }).to_vec();
        let model = common::layers::model(&mut random, &specs);
        let options = LoadOptions::default();
        let own = |config: &Config| trainable(&model, &mut random, config, &options).frozen(model.allocator()).unwrap();
        let adapters = configs().iter().map(own).map(Arc::new).collect();
        let names = (0..ADAPTERS).map(|number| format!("tenant {}", number * 37 % 101)).collect();
        let mut whose: Vec<_> = (0..ADAPTERS).map(Some).chain([None; BARE]).collect();
        for place in (1..whose.len()).rev() {
            whose.swap(place, random.below(place + 1));
        }
        Self { model, specs, adapters, names, whose, random }
    }

    /// All adapters, published in another order than theirs; and the slot of each.
    fn all(&self) -> (Snapshot, Vec<i32>) {
        let mut slots = vec![0; ADAPTERS];
        for number in (0..ADAPTERS).map(|number| number * 29 % ADAPTERS) {
            slots[number] = self.model.publish(&self.names[number], self.adapters[number].clone()).unwrap();
        }
        (self.model.snapshot().unwrap(), slots)
    }

    /// One adapter in slot 0, or none.
    fn alone(&self, whose: Option<usize>) -> Snapshot {
        let mut slots = Slots::default();
        if let Some(number) = whose {
            slots.put(&self.names[number], self.adapters[number].clone()).unwrap();
        }
        Snapshot::of(self.model.layers(), Arc::new(slots)).unwrap()
    }

    fn batch(&mut self, snapshot: Snapshot, slots: Vec<i32>) -> Setup {
        let (rows, mut random) = (self.whose.len(), Random(self.random.next()));
        let mut matrix = |cols: usize| Host::f32(rows, cols, &random.values(rows * cols));
        let x = matrix(self.specs[0].inputs);
        let dy = self.specs.iter().map(|spec| matrix(spec.outputs)).collect();
        Setup { snapshot, x, dy, slots, random }
    }
}

fn request<'a>(choice: Choice<'a>, mode: ModeChoice, identity: &'a [u64], training: bool) -> Request<'a> {
    let noise = Noise { mode, seed: 9, ..Noise::default() };
    let keys = RowKeys { identity: Some(identity), sample_base: 4, ..RowKeys::default() };
    Request { rows: Rows { choice, keys }, noise, training }
}

#[test]
fn sixty_four_adapters_in_one_batch_are_sixty_four_runs() {
    for (dtype, weight) in [
        (Dtype::F32, Some(Dtype::F32)),
        (Dtype::F32, None),
        (Dtype::F16, Some(Dtype::F16)),
        (Dtype::Bf16, Some(Dtype::Bf16)),
    ] {
        let mut world = World::new(weight);
        let (snapshot, published) = world.all();
        let together = world.batch(snapshot, published.clone()).in_type(dtype, 1);
        let identities: Vec<u64> = (0..together.x.rows() as u64).map(|row| row * 1000 + 7).collect();
        let slots: Vec<i32> = world.whose.iter().map(|whose| whose.map_or(-1, |number| published[number])).collect();
        let all = ModeChoice::All;
        let modes = [ModeChoice::AsPeft, all(Mode::Mean), all(Mode::Sample), all(Mode::Fixed)];
        for mode in modes {
            let context = context(Kind::Cpu, 1);
            let all = together.calls(&context, &request(Choice::PerRow(&slots), mode, &identities, false), DRAWS);
            for (row, whose) in world.whose.iter().enumerate() {
                let own = Setup { snapshot: world.alone(*whose), ..one_row(&together, row) };
                let choice = if whose.is_some() { Choice::Sum(&[(0, 1.0)]) } else { Choice::Sum(&[]) };
                let one = own.calls(&context, &request(choice, mode, &identities[row..=row], false), DRAWS);
                for ((name, all), (_, one)) in all.iter().zip(&one) {
                    let rows: Vec<usize> = (0..one.rows()).map(|draw| draw * identities.len() + row).collect();
                    let found = all.rows_of(&rows).values();
                    let cols = one.cols().min(all.cols());
                    let found: Vec<f32> = found.chunks(all.cols()).flat_map(|row| row[..cols].to_vec()).collect();
                    assert!(
                        common::bits(&found) == common::bits(&one.values()),
                        "{dtype:?}, {mode:?}, row {row} of {whose:?}: {name}"
                    );
                }
            }
        }
    }
}

/// One row of a batch, as a batch of its own.
fn one_row(batch: &Setup, row: usize) -> Setup {
    Setup {
        snapshot: Snapshot::of(Arc::default(), Arc::default()).unwrap(),
        x: batch.x.rows_of(&[row]),
        dy: batch.dy.iter().map(|dy| dy.rows_of(&[row])).collect(),
        slots: vec![0],
        random: Random(0),
    }
}

#[test]
fn sixty_four_adapters_train_in_one_batch_as_in_sixty_four() {
    for (dtype, weight) in [(Dtype::F32, Some(Dtype::F32)), (Dtype::Bf16, Some(Dtype::Bf16))] {
        let mut world = World::new(weight);
        let (snapshot, published) = world.all();
        let together = world.batch(snapshot, published.clone()).in_type(dtype, 1);
        let identities: Vec<u64> = (0..together.x.rows() as u64).map(|row| row * 1000 + 7).collect();
        let slots: Vec<i32> = world.whose.iter().map(|whose| whose.map_or(-1, |number| published[number])).collect();
        for policy in POLICIES {
            let context = context(Kind::Cpu, 1);
            let batch = request(Choice::PerRow(&slots), ModeChoice::AsPeft, &identities, true);
            let all = together.outcome(&context, &batch, |step| (step.policy, step.dtype) = (policy, dtype));
            for (row, whose) in world.whose.iter().enumerate() {
                let mut own = Setup { snapshot: world.alone(*whose), ..one_row(&together, row) };
                if whose.is_none() {
                    own.slots.clear();
                }
                let choice = if whose.is_some() { Choice::Sum(&[(0, 1.0)]) } else { Choice::Sum(&[]) };
                let request = request(choice, ModeChoice::AsPeft, &identities[row..=row], true);
                let one = own.outcome(&context, &request, |step| (step.policy, step.dtype) = (policy, dtype));
                let what = format!("{dtype:?}, {policy:?}, row {row} of {whose:?}");
                assert_eq!(all.dx.row_bits(row), one.dx.row_bits(0), "{what}: dx");
                for layer in 0..one.y.len() {
                    assert_eq!(all.y[layer].row_bits(row), one.y[layer].row_bits(0), "{what}: y of layer {layer}");
                    for own in &one.layers[layer] {
                        let slot = published[whose.unwrap()];
                        let theirs = all.layers[layer].iter().find(|other| other.slot == slot).unwrap();
                        let gradients = [&own.lambda_b, &own.lambda_d].map(|values| common::bits(values));
                        let others = [&theirs.lambda_b, &theirs.lambda_d].map(|values| common::bits(values));
                        assert!(gradients == others, "{what}: gradients of layer {layer}");
                    }
                }
            }
        }
    }
}

/// Bytes that the host's allocator has given and not got back, and the most that there ever were.
static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn allocate(_: *mut c_void, size: usize, alignment: usize) -> *mut c_void {
    MOST.fetch_max(HELD.fetch_add(size, Ordering::SeqCst) + size, Ordering::SeqCst);
    // SAFETY: the library asks for no empty memory, aligned to a power of two.
    unsafe { alloc(Layout::from_size_align(size, alignment).unwrap()).cast() }
}

unsafe extern "C" fn release(_: *mut c_void, memory: *mut c_void, size: usize, alignment: usize) {
    HELD.fetch_sub(size, Ordering::SeqCst);
    // SAFETY: `allocate` gave it.
    unsafe { dealloc(memory.cast(), Layout::from_size_align(size, alignment).unwrap()) }
}

const READERS: usize = 8;
const SWAPS: usize = 10_000;
/// After so many swaps the writer waits for a pass.
const SWAPS_A_PASS: usize = 10;
const VERSIONS: usize = 4;

/// Eight threads run passes over two layers while a ninth swaps ten thousand adapters: every pass sees one version in both
/// layers, and memory does not grow.
#[test]
fn readers_run_while_a_writer_swaps_ten_thousand_adapters() {
    let host = HostAllocator { allocate, release, user: std::ptr::null_mut() };
    let model = Model::new(Allocator::host(host), Box::new(Silent));
    for name in ["first", "second"] {
        model.declare(declared(&Spec { weight: None, ..spec(name, 24, 20) })).unwrap();
    }
    let mut random = Random(5);
    let make = |random: &mut Random| trainable(&model, random, &config(8, 1), &LoadOptions::default());
    let versions: Vec<Adapter> = (0..VERSIONS).map(|_| make(&mut random)).collect();
    let x = Host::f32(3, 24, &random.values(72));
    let pass = |context: &Context, snapshot: &Snapshot| {
        [0, 1].map(|layer| {
            let mut y = Host::zeros(3, 20);
            let linear = snapshot.linear(layer).unwrap();
            forward(context, &[linear], &x.matrix(), &Request::default(), &[y.matrix_mut()]).unwrap();
            y.bits()
        })
    };
    let frozen = |version: usize| Arc::new(versions[version].frozen(model.allocator()).unwrap());
    let wanted: Vec<_> = (0..VERSIONS)
        .map(|version| {
            let mut slots = Slots::default();
            slots.put("served", frozen(version)).unwrap();
            pass(&context(Kind::Cpu, 0), &Snapshot::of(model.layers(), Arc::new(slots)).unwrap())
        })
        .collect();
    assert!((1..VERSIONS).all(|version| wanted[version] != wanted[0]));
    model.publish("served", frozen(0)).unwrap();
    let before = HELD.load(Ordering::SeqCst);
    let (done, passes) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                let context = context(Kind::Cpu, 0);
                loop {
                    let found = pass(&context, &model.snapshot().unwrap());
                    assert!(wanted.contains(&found), "a pass saw two versions");
                    passes.fetch_add(1, Ordering::SeqCst);
                    if done.load(Ordering::SeqCst) {
                        break;
                    }
                }
            });
        }
        for swap in 0..SWAPS {
            let version = swap % VERSIONS;
            match swap % 10 {
                // A name beside the served one comes and goes.
                3 => drop(model.publish("beside", frozen(version)).unwrap()),
                7 => model.remove("beside").unwrap(),
                _ => drop(model.replace("served", frozen(version)).unwrap()),
            }
            // Swaps and passes do overlap.
            let seen = passes.load(Ordering::SeqCst);
            while swap % SWAPS_A_PASS == 0 && passes.load(Ordering::SeqCst) == seen {
                std::thread::yield_now();
            }
        }
        done.store(true, Ordering::SeqCst);
    });
    assert!(passes.load(Ordering::SeqCst) >= SWAPS / SWAPS_A_PASS);
    assert_eq!(HELD.load(Ordering::SeqCst), before, "what was swapped out went with its last reader");
    // The served adapter, the one beside it, one on its way in and one more in the hands of each reader and the writer.
    let own = versions[0].bytes();
    assert!(MOST.load(Ordering::SeqCst) - before <= (READERS + 4) * own.next_multiple_of(64) + own);
}

/// No test of the library: `tests/thread_sanitizer/run.sh` proves by it that the sanitizer is on.
#[test]
#[ignore = "it races"]
fn a_race_that_the_sanitizer_has_to_see() {
    struct Shared(std::cell::UnsafeCell<u64>);
    // SAFETY: it is not; that is the point.
    unsafe impl Sync for Shared {}
    impl Shared {
        fn add(&self) {
            // SAFETY: none.
            (0..1000).for_each(|_| unsafe { *self.0.get() = std::hint::black_box(*self.0.get() + 1) });
        }
    }
    let shared = Shared(0.into());
    let start = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                start.wait();
                shared.add();
            });
        }
    });
    assert!(shared.0.into_inner() > 0);
}
