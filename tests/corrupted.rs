//! Corrupted checkpoints: an error, or exactly the tensors that the file declares; never a panic, and memory bounded.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use pvera::adapter::{Adapter, LoadOptions};
use pvera::error::Code;
use pvera::model::Model;
use serde_json::Value;
use support::*;

/// Counts what is allocated, and the most at one time.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The most memory that loading takes: parsed JSON for both files, the compiled patterns of the configuration (which
/// src/config bounds by their number of pieces, whatever the file), and
/// three copies of the projections (drawn or read, widened, kept).
const PER_FILE_BYTE: usize = 64;
const PER_PROJECTION_BYTE: usize = 3;
const PATTERNS: usize = 64 << 20;

const NAMES: [&str; 6] =
    ["mixed_shapes", "bias_and_head", "all_bf16", "seed_only", "sample_at_inference", "two_adapters/second"];

struct Case {
    name: &'static str,
    model: Model,
    config: Vec<u8>,
    tensors: Vec<u8>,
    /// Sum of in and out over the declared layers.
    declared: usize,
}

#[derive(Default)]
struct Tally {
    loaded: usize,
    refused: usize,
    codes: BTreeMap<i32, usize>,
}

impl Case {
    fn new(name: &'static str) -> Self {
        let folder = golden(name);
        let layers = layers_of(&folder);
        let declared = layers.iter().map(|layer| layer.in_total + layer.out_total).sum();
        let read = |file| fs::read(folder.join(file)).unwrap();
        Self { name, model: model(layers).0, config: read(CONFIG), tensors: read(TENSORS), declared }
    }

    fn header(&self) -> usize {
        8 + u64::from_le_bytes(self.tensors[..8].try_into().unwrap()) as usize
    }

    /// The file with its header edited as text.
    fn with_header(&self, edit: impl FnOnce(String) -> Vec<u8>) -> Vec<u8> {
        let end = self.header();
        let header = edit(String::from_utf8(self.tensors[8..end].to_vec()).unwrap());
        let length = (header.len() as u64).to_le_bytes();
        [&length[..], &header, &self.tensors[end..]].concat()
    }

    fn with_json(&self, edit: impl FnOnce(&mut Value)) -> Vec<u8> {
        self.with_header(|text| {
            let mut header: Value = serde_json::from_str(&text).unwrap();
            edit(&mut header);
            header.to_string().into_bytes()
        })
    }

    fn check(&self, config: &[u8], tensors: &[u8], tally: &mut Tally) {
        let rank = rank_of(tensors).min(tensors.len());
        let bound = PATTERNS
            + PER_FILE_BYTE * (config.len() + tensors.len())
            + PER_PROJECTION_BYTE * 2 * 4 * rank * self.declared;
        let before = NOW.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            Adapter::from_memory(&self.model, config, tensors, &LoadOptions::default())
        }));
        let peak = PEAK.load(Ordering::Relaxed) - before;
        let shown = || {
            format!(
                "{}: {}\n{:?}",
                self.name,
                String::from_utf8_lossy(config),
                String::from_utf8_lossy(&tensors[..tensors.len().min(900)])
            )
        };
        assert!(peak <= bound, "{peak} bytes at one time, bound {bound}: {}", shown());
        match outcome {
            Err(_) => panic!("a panic: {}", shown()),
            Ok(Err(error)) => {
                assert!(error.code() != Code::Panic && !error.message().is_empty());
                tally.refused += 1;
                *tally.codes.entry(error.code() as i32).or_default() += 1;
            }
            Ok(Ok(adapter)) => {
                assert_holds(&adapter, &parse(tensors));
                let fields: Value = serde_json::from_slice(config).unwrap();
                assert_eq!(adapter.store().rank() as u64, fields.get("r").map_or(256, |r| r.as_u64().unwrap()));
                tally.loaded += 1;
            }
        }
    }
}

/// Half of the longest λ_d that a valid file declares.
fn rank_of(tensors: &[u8]) -> usize {
    let Ok(file) = safetensors::SafeTensors::deserialize(tensors) else { return 0 };
    let lengths = file.iter().filter(|(name, _)| name.ends_with("lambda_d"));
    lengths.map(|(_, view)| view.shape().first().copied().unwrap_or(0) / 2).max().unwrap_or(0)
}

fn flipped(bytes: &[u8], random: &mut Random, from: usize, to: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + random.below(3) {
        bytes[from + random.below(to - from)] ^= 1 << random.below(8);
    }
    bytes
}

fn spoil_bits(case: &Case, random: &mut Random, tally: &mut Tally) {
    let header = case.header();
    for _ in 0..60 {
        case.check(&case.config, &flipped(&case.tensors, random, 0, header), tally);
        case.check(&flipped(&case.config, random, 0, case.config.len()), &case.tensors, tally);
    }
    for _ in 0..20 {
        case.check(&case.config, &flipped(&case.tensors, random, header, case.tensors.len()), tally);
    }
}

fn spoil_lengths(case: &Case, random: &mut Random, tally: &mut Tally) {
    let (header, all) = (case.header(), case.tensors.len());
    let mut ends = vec![0, 1, 7, 8, 9, header - 1, header, header + 1, all - 1, all / 2];
    ends.extend((0..15).map(|_| random.below(all)));
    for end in ends {
        case.check(&case.config, &case.tensors[..end], tally);
        case.check(&case.config[..end.min(case.config.len() - 1)], &case.tensors, tally);
    }
    case.check(&case.config, &[&case.tensors[..], &[0]].concat(), tally);
    let length = header as u64 - 8;
    let lengths = [0, 1, 2, length - 1, length + 1, all as u64, 100_000_000, 100_000_001, 1 << 32, 1 << 62, 1 << 63];
    for length in lengths.into_iter().chain([u64::MAX, u64::MAX - 7, u64::MAX - 8]) {
        let mut tensors = case.tensors.clone();
        tensors[..8].copy_from_slice(&length.to_le_bytes());
        case.check(&case.config, &tensors, tally);
    }
}

fn spoil_header(case: &Case, random: &mut Random, tally: &mut Tally) {
    let names: Vec<String> = parse(&case.tensors).into_keys().collect();
    let max = u64::MAX;
    let shapes = [
        "[]",
        "[0]",
        "[-1]",
        "[1.5]",
        "[null]",
        "7",
        "[[4]]",
        "[4,4]",
        "[1e3]",
        "[18446744073709551615]",
        "[4611686018427387904,4]",
        "[4294967296,4294967296]",
        "[18446744073709551616]",
        "[1073741824]",
    ];
    let dtypes = [
        "F64", "F16", "BF16", "I8", "BOOL", "C64", "U64", "F4", "F6_E2M3", "F6_E3M2", "F8_E4M3", "F8_E8M0", "f32", "X",
        "",
    ];
    for name in &names {
        for shape in shapes {
            let shape: Value = serde_json::from_str(shape).unwrap();
            case.check(&case.config, &case.with_json(|header| header[name]["shape"] = shape), tally);
        }
        let dtype = dtypes[random.below(dtypes.len())];
        case.check(&case.config, &case.with_json(|header| header[name]["dtype"] = dtype.into()), tally);
        for offsets in [[0, 0], [0, max], [max, max], [4, 0], [max, 4], [0, 8], [1 << 40, 1 << 41]] {
            case.check(
                &case.config,
                &case.with_json(|header| header[name]["data_offsets"] = offsets.to_vec().into()),
                tally,
            );
        }
        let other = &names[random.below(names.len())];
        case.check(&case.config, &case.with_json(|header| header[name] = header[other].clone()), tally);
        case.check(&case.config, &case.with_json(|header| drop(header.as_object_mut().unwrap().remove(name))), tally);
        case.check(&case.config, &case.with_header(|text| text.replace(name.as_str(), other).into()), tally);
        case.check(
            &case.config,
            &case.with_header(|text| text.replace(name.as_str(), "base_model.pvera_A").into()),
            tally,
        );
        case.check(&case.config, &case.with_header(|text| text.replace(name.as_str(), "\\ud800").into()), tally);
    }
    // A vector read as other types of the same size holds other numbers: what the file declares is what counts.
    for (from, to) in [("F32", "F16"), ("BF16", "F16"), ("F32", "I32"), ("F32", "F4")] {
        case.check(&case.config, &case.with_header(|text| text.replace(from, to).into()), tally);
    }
    let texts: [Vec<u8>; 9] = [
        vec![b'['; 200_000],
        b"{\"a\":".repeat(100_000),
        vec![0xff; 64],
        b"null".to_vec(),
        b"{}".to_vec(),
        b"[]".to_vec(),
        br#"{"__metadata__":{"format":1}}"#.to_vec(),
        br#"{"__metadata__":null}"#.to_vec(),
        [b"{\"x\":".to_vec(), vec![b'1'; 50_000], b"}".to_vec()].concat(),
    ];
    for text in texts {
        case.check(&case.config, &case.with_header(|_| text), tally);
    }
    let twice =
        case.with_header(|text| text.replacen('{', &format!("{{{},", &text[1..text.trim_end().len() - 1]), 1).into());
    case.check(&case.config, &twice, tally);
}

fn spoil_config(case: &Case, tally: &mut Tally) {
    let fields: Value = serde_json::from_slice(&case.config).unwrap();
    let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
    let deeper = "[".repeat(100_000);
    let listed = format!("[{}\"q\"]", "\"(a*)*b\",".repeat(3_000));
    let values = [
        "null",
        "true",
        "0",
        "-1",
        "1",
        "2.5",
        "1e400",
        "\"\"",
        "\"x\"",
        "[]",
        "{}",
        "[1]",
        "[\"q\"]",
        "1073741823",
        "1073741824",
        "340282366920938463463374607431768211456",
        "\"(a*)*b\"",
        "\"((a{1,99}){1,99}){1,99}\"",
        "\"(?=(a+)+$)q\"",
        deep.as_str(),
        deeper.as_str(),
        listed.as_str(),
    ];
    for name in fields.as_object().unwrap().keys() {
        for value in values {
            // Written as text: some of these are no JSON.
            let mut others = fields.clone();
            others.as_object_mut().unwrap().remove(name);
            let text = others.to_string().replacen('{', &format!("{{\"{name}\":{value},"), 1);
            case.check(text.as_bytes(), &case.tensors, tally);
        }
    }
    case.check(&vec![b' '; 5 << 20], &case.tensors, tally);
    case.check(b"\xff\xfe", &case.tensors, tally);
}

/// A file that loses its end while it is read, or before it is mapped.
fn shorten_while_open(case: &Case, random: &mut Random) {
    let scratch = Scratch::new("shortened");
    fs::write(scratch.join(CONFIG), &case.config).unwrap();
    for _ in 0..40 {
        fs::write(scratch.join(TENSORS), &case.tensors).unwrap();
        let (path, end) = (scratch.join(TENSORS), random.below(case.tensors.len()) as u64);
        let shortening = std::thread::spawn(move || fs::File::options().write(true).open(path).unwrap().set_len(end));
        if let Ok(adapter) = Adapter::load(&case.model, &scratch.0, &LoadOptions::default()) {
            assert_holds(&adapter, &parse(&case.tensors));
        }
        shortening.join().unwrap().unwrap();
        assert_short(case, &scratch.0);
    }
}

fn assert_short(case: &Case, folder: &Path) {
    for map in [false, true] {
        let options = LoadOptions { map, ..LoadOptions::default() };
        let error = Adapter::load(&case.model, folder, &options).unwrap_err();
        assert!(error.message().contains(TENSORS) && error.code() == Code::Format, "{error}");
    }
}

/// One test, because the counts are of the whole process.
#[test]
fn corrupted_checkpoints_are_refused_or_read_as_they_stand() {
    let (mut random, mut tally) = (Random(20_26), Tally::default());
    for name in NAMES {
        let case = Case::new(name);
        let mut intact = Tally::default();
        case.check(&case.config, &case.tensors, &mut intact);
        assert_eq!(intact.loaded, 1, "{name}");
        spoil_bits(&case, &mut random, &mut tally);
        spoil_lengths(&case, &mut random, &mut tally);
        spoil_header(&case, &mut random, &mut tally);
        spoil_config(&case, &mut tally);
        shorten_while_open(&case, &mut random);
    }
    let Tally { loaded, refused, codes } = tally;
    println!("{} variants: {refused} refused, {loaded} read as they stand; by code: {codes:?}", loaded + refused);
    assert!(loaded + refused >= 1_000 && loaded > 100 && refused > 1_000);
}
