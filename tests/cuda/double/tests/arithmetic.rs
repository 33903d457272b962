//! Each instruction against Rust's arithmetic (or exact integers), over values that lie at edges and many in between.

mod support;

use support::*;

/// Bits that are interesting in any type, and a spread of others.
fn values(seed: u64, count: usize) -> Vec<u64> {
    let edges = [
        0u64,
        1,
        2,
        7,
        31,
        32,
        33,
        63,
        64,
        65,
        255,
        256,
        0x7fff,
        0x8000,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x7fff_ffff_ffff_ffff,
        0x8000_0000_0000_0000,
        u64::MAX,
    ];
    let floats = [
        0.0f32,
        -0.0,
        1.0,
        -1.0,
        1.5,
        2.5,
        -2.5,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        1e-45,
        -1e-45,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        65504.0,
        65520.0,
        6e-8,
        0.1,
        4_294_967_296.0,
        -2_147_483_648.0,
        9.3e18,
        1.000_000_1,
    ];
    let doubles = [
        0.0f64,
        -0.0,
        1.0,
        0.5,
        -1.5,
        2.5,
        f64::MAX,
        f64::MIN_POSITIVE,
        5e-324,
        f64::INFINITY,
        f64::NAN,
        0.1,
        1e300,
        3.4e38,
        1e-46,
        1.0 + 1e-12,
        9.3e18,
    ];
    let mut state = seed;
    let mut out = Vec::with_capacity(count);
    for index in 0..count {
        let random = cuda::run::block::random(&mut state);
        out.push(match random % 8 {
            0 | 1 => edges[(random >> 8) as usize % edges.len()],
            2 | 3 => u64::from(floats[(random >> 8) as usize % floats.len()].to_bits()),
            4 => doubles[(random >> 8) as usize % doubles.len()].to_bits(),
            // Floats of like sizes, so that sums and products are not all one operand.
            5 => u64::from(
                ((index as f32 + 1.0) * 0.37 * f32::from_bits(0x3f80_0000 | (random >> 40) as u32 & 0x7f_ffff))
                    .to_bits(),
            ),
            6 => (f64::from(random as u32) * 1e-5).to_bits(),
            _ => random,
        });
    }
    out
}

const COUNT: usize = 4096;

/// Runs `body` (from %rd10, %rd11, %rd12 to %rd20) on each of COUNT triples and gives inputs with results: for threads in step, and
/// again for threads that part, where what one half computes must not touch the other's registers.
fn evaluate(body: &str) -> Vec<([u64; 3], u64)> {
    let parted = format!(
        "and.b32 %r31, %r1, 1; setp.eq.u32 %p7, %r31, 0; @%p7 bra EVEN; {body} bra ALL; EVEN: {body} ALL: setp.eq.u32 %p7, %r31, 0;"
    );
    let mut results = evaluate_once(body);
    results.extend(evaluate_once(&parted));
    results
}

fn evaluate_once(body: &str) -> Vec<([u64; 3], u64)> {
    let inputs: Vec<Vec<u64>> = (1..=3).map(|seed| values(seed, COUNT)).collect();
    let interleaved: Vec<u64> = (0..COUNT).flat_map(|at| [inputs[0][at], inputs[1][at], inputs[2][at]]).collect();
    let source = upload(&interleaved);
    let target = allocate(COUNT * 8);
    let program = format!(
        "mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mad.lo.s32 %r4, %r2, %r3, %r1; mul.wide.u32 %rd4, %r4, 24; add.s64 %rd4, %rd1, %rd4; \
         ld.global.u64 %rd10, [%rd4]; ld.global.u64 %rd11, [%rd4+8]; ld.global.u64 %rd12, [%rd4+16]; \
         cvt.u32.u64 %r10, %rd10; cvt.u32.u64 %r11, %rd11; cvt.u32.u64 %r12, %rd12; \
         cvt.u16.u64 %h10, %rd10; cvt.u16.u64 %h11, %rd11; cvt.u16.u64 %h12, %rd12; \
         mov.b32 %f10, %r10; mov.b32 %f11, %r11; mov.b32 %f12, %r12; mov.b64 %d10, %rd10; mov.b64 %d11, %rd11; mov.b64 %d12, %rd12; \
         {body} \
         mul.wide.u32 %rd5, %r4, 8; add.s64 %rd5, %rd2, %rd5; st.global.u64 [%rd5], %rd20;"
    );
    assert_eq!(run(&kernel("", &program), COUNT as u32 / 64, 64, [source, target, 0]), 0, "{body}: {}", report());
    let results: Vec<u64> = download(target, COUNT).unwrap();
    free(source);
    free(target);
    results
        .into_iter()
        .enumerate()
        .map(|(at, result)| ([inputs[0][at], inputs[1][at], inputs[2][at]], result))
        .collect()
}

fn compare(body: &str, expected: impl Fn([u64; 3]) -> u64) {
    for (input, result) in evaluate(body) {
        assert_eq!(result, expected(input), "{body} of {input:x?}: {result:x} instead of {:x}", expected(input));
    }
}

fn int32(op: &str, expected: impl Fn(u32, u32, u32) -> u32) {
    compare(&format!("{op} cvt.u64.u32 %rd20, %r20;"), |[a, b, c]| u64::from(expected(a as u32, b as u32, c as u32)));
}

fn int16(op: &str, expected: impl Fn(u16, u16, u16) -> u16) {
    compare(&format!("{op} cvt.u64.u16 %rd20, %h13;"), |[a, b, c]| u64::from(expected(a as u16, b as u16, c as u16)));
}

fn predicate(op: &str, expected: impl Fn([u64; 3]) -> bool) {
    compare(&format!("{op} selp.b64 %rd20, 1, 0, %p1;"), |input| u64::from(expected(input)));
}

/// NaN results of f32 arithmetic are all one NaN.
fn canonical(value: f32) -> u64 {
    u64::from(if value.is_nan() { 0x7fff_ffff } else { value.to_bits() })
}

fn f32s(op: &str, expected: impl Fn(f32, f32, f32) -> f32) {
    let from = |bits: u64| f32::from_bits(bits as u32);
    compare(&format!("{op} mov.b32 %r20, %f20; cvt.u64.u32 %rd20, %r20;"), |[a, b, c]| {
        canonical(expected(from(a), from(b), from(c)))
    });
}

fn f64s(op: &str, expected: impl Fn(f64, f64, f64) -> f64) {
    for (input, result) in evaluate(&format!("{op} mov.b64 %rd20, %d20;")) {
        let [a, b, c] = input.map(f64::from_bits);
        let (result, expected) = (f64::from_bits(result), expected(a, b, c));
        assert!(
            result.to_bits() == expected.to_bits() || (result.is_nan() && expected.is_nan()),
            "{op} of {a:e} {b:e} {c:e}: {result:e} instead of {expected:e}"
        );
    }
}

#[test]
fn integers_of_32_bits() {
    let device = Device::new();
    let s = |value: u32| value as i32;
    int32("add.s32 %r20, %r10, %r11;", |a, b, _| a.wrapping_add(b));
    int32("sub.s32 %r20, %r10, %r11;", |a, b, _| a.wrapping_sub(b));
    int32("mul.lo.s32 %r20, %r10, %r11;", |a, b, _| a.wrapping_mul(b));
    int32("mul.hi.u32 %r20, %r10, %r11;", |a, b, _| ((u128::from(a) * u128::from(b)) >> 32) as u32);
    int32("mul.hi.s32 %r20, %r10, %r11;", |a, b, _| ((i128::from(s(a)) * i128::from(s(b))) >> 32) as u32);
    int32("mad.lo.s32 %r20, %r10, %r11, %r12;", |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    int32("mad.hi.u32 %r20, %r10, %r11, %r12;", |a, b, c| {
        (((u128::from(a) * u128::from(b)) >> 32) as u32).wrapping_add(c)
    });
    int32("or.b32 %r11, %r11, 1; div.u32 %r20, %r10, %r11;", |a, b, _| a / (b | 1));
    int32("or.b32 %r11, %r11, 1; div.s32 %r20, %r10, %r11;", |a, b, _| s(a).wrapping_div(s(b | 1)) as u32);
    int32("or.b32 %r11, %r11, 1; rem.u32 %r20, %r10, %r11;", |a, b, _| a % (b | 1));
    int32("or.b32 %r11, %r11, 1; rem.s32 %r20, %r10, %r11;", |a, b, _| s(a).wrapping_rem(s(b | 1)) as u32);
    int32("min.u32 %r20, %r10, %r11;", |a, b, _| a.min(b));
    int32("min.s32 %r20, %r10, %r11;", |a, b, _| s(a).min(s(b)) as u32);
    int32("max.u32 %r20, %r10, %r11;", |a, b, _| a.max(b));
    int32("max.s32 %r20, %r10, %r11;", |a, b, _| s(a).max(s(b)) as u32);
    int32("and.b32 %r20, %r10, %r11;", |a, b, _| a & b);
    int32("or.b32 %r20, %r10, %r11;", |a, b, _| a | b);
    int32("xor.b32 %r20, %r10, %r11;", |a, b, _| a ^ b);
    int32("not.b32 %r20, %r10;", |a, _, _| !a);
    int32("neg.s32 %r20, %r10;", |a, _, _| a.wrapping_neg());
    int32("abs.s32 %r20, %r10;", |a, _, _| s(a).wrapping_abs() as u32);
    int32("shl.b32 %r20, %r10, %r11;", |a, b, _| if b > 31 { 0 } else { a << b });
    int32("shr.u32 %r20, %r10, %r11;", |a, b, _| if b > 31 { 0 } else { a >> b });
    int32("shr.s32 %r20, %r10, %r11;", |a, b, _| (s(a) >> b.min(31)) as u32);
    int32("shl.b32 %r20, %r10, 5;", |a, _, _| a << 5);
    int32("shf.l.wrap.b32 %r20, %r10, %r11, %r12;", |a, b, c| {
        ((u64::from(b) << 32 | u64::from(a)) << (c & 31) >> 32) as u32
    });
    int32("shf.r.wrap.b32 %r20, %r10, %r11, %r12;", |a, b, c| ((u64::from(b) << 32 | u64::from(a)) >> (c & 31)) as u32);
    int32("shf.l.clamp.b32 %r20, %r10, %r11, %r12;", |a, b, c| {
        if c >= 32 { a } else { ((u64::from(b) << 32 | u64::from(a)) << c >> 32) as u32 }
    });
    int32("shf.r.clamp.b32 %r20, %r10, %r11, %r12;", |a, b, c| {
        if c >= 32 { b } else { ((u64::from(b) << 32 | u64::from(a)) >> c) as u32 }
    });
    int32("shf.l.wrap.b32 %r20, %r10, %r10, 7;", |a, _, _| a.rotate_left(7));
    int32("popc.b32 %r20, %r10;", |a, _, _| a.count_ones());
    int32("clz.b32 %r20, %r10;", |a, _, _| a.leading_zeros());
    int32("brev.b32 %r20, %r10;", |a, _, _| a.reverse_bits());
    int32("bfind.u32 %r20, %r10;", |a, _, _| if a == 0 { u32::MAX } else { 31 - a.leading_zeros() });
    device.finish_clean();
}

#[test]
fn bit_fields_and_bytes() {
    let device = Device::new();
    // Bit by bit, as PTX describes them.
    let bit = |value: u64, at: u32, width: u32| if at < width { value >> at & 1 } else { 0 };
    let bfe = |a: u64, b: u32, c: u32, width: u32, signed: bool| {
        let (pos, len) = (b & 255, c & 255);
        let sign = if !signed || len == 0 { 0 } else { bit(a, (pos + len - 1).min(width - 1), width) };
        (0..width)
            .fold(0u64, |out, i| out | (if i < len && pos + i < width { bit(a, pos + i, width) } else { sign }) << i)
    };
    let bfi =
        |a: u64, b: u64, c: u32, d: u32, width: u32| {
            let (pos, len) = (c & 255, d & 255);
            (0..len).fold(b, |out, i| {
                if pos + i < width { out & !(1 << (pos + i)) | bit(a, i, width) << (pos + i) } else { out }
            })
        };
    int32("bfe.u32 %r20, %r10, %r11, %r12;", |a, b, c| bfe(a.into(), b, c, 32, false) as u32);
    int32("bfe.s32 %r20, %r10, %r11, %r12;", |a, b, c| bfe(a.into(), b, c, 32, true) as u32);
    compare("bfe.u64 %rd20, %rd10, %r11, %r12;", |[a, b, c]| bfe(a, b as u32, c as u32, 64, false));
    compare("bfe.s64 %rd20, %rd10, %r11, %r12;", |[a, b, c]| bfe(a, b as u32, c as u32, 64, true));
    int32("bfi.b32 %r20, %r10, %r11, %r12, 9;", |a, b, c| bfi(a.into(), b.into(), c, 9, 32) as u32);
    int32("bfi.b32 %r20, %r10, %r11, 16, 16;", |a, b, _| a << 16 | b & 0xffff);
    compare("bfi.b64 %rd20, %rd10, %rd11, %r12, 40;", |[a, b, c]| bfi(a, b, c as u32, 40, 64));
    let prmt = |a: u32, b: u32, c: u32| {
        let bytes = [a.to_le_bytes(), b.to_le_bytes()].concat();
        u32::from_le_bytes([0, 1, 2, 3].map(|at| {
            let nibble = c >> (4 * at) & 15;
            let byte = bytes[nibble as usize & 7];
            if nibble & 8 == 0 {
                byte
            } else if byte & 128 != 0 {
                255
            } else {
                0
            }
        }))
    };
    int32("prmt.b32 %r20, %r10, %r11, %r12;", prmt);
    int32("prmt.b32 %r20, %r10, 0, 291;", |a, _, _| a.swap_bytes());
    for table in [0x80u32, 0xfe, 0x96, 0xca, 0xe8, 0x1b] {
        int32(&format!("lop3.b32 %r20, %r10, %r11, %r12, {table};"), |a, b, c| {
            (0..32).fold(0, |out, i| out | (table >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1)) & 1) << i)
        });
    }
    device.finish_clean();
}

#[test]
fn integers_of_16_and_64_bits() {
    let device = Device::new();
    int16("add.s16 %h13, %h10, %h11;", |a, b, _| a.wrapping_add(b));
    int16("sub.s16 %h13, %h10, %h11;", |a, b, _| a.wrapping_sub(b));
    int16("mul.lo.s16 %h13, %h10, %h11;", |a, b, _| a.wrapping_mul(b));
    int16("mad.lo.s16 %h13, %h10, %h11, %h12;", |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    int16("and.b16 %h13, %h10, %h11;", |a, b, _| a & b);
    int16("not.b16 %h13, %h10;", |a, _, _| !a);
    int16("neg.s16 %h13, %h10;", |a, _, _| a.wrapping_neg());
    int16("shl.b16 %h13, %h10, 3;", |a, _, _| a << 3);
    int16("shr.s16 %h13, %h10, 3;", |a, _, _| (a as i16 >> 3) as u16);
    int16("max.s16 %h13, %h10, %h11;", |a, b, _| (a as i16).max(b as i16) as u16);
    int32("mul.wide.u16 %r20, %h10, %h11;", |a, b, _| (a & 0xffff) * (b & 0xffff));
    int32("mul.wide.s16 %r20, %h10, %h11;", |a, b, _| (i32::from(a as i16) * i32::from(b as i16)) as u32);
    compare("add.s64 %rd20, %rd10, %rd11;", |[a, b, _]| a.wrapping_add(b));
    compare("sub.s64 %rd20, %rd10, %rd11;", |[a, b, _]| a.wrapping_sub(b));
    compare("mul.lo.s64 %rd20, %rd10, %rd11;", |[a, b, _]| a.wrapping_mul(b));
    compare("mul.hi.u64 %rd20, %rd10, %rd11;", |[a, b, _]| ((u128::from(a) * u128::from(b)) >> 64) as u64);
    compare("mul.hi.s64 %rd20, %rd10, %rd11;", |[a, b, _]| {
        ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
    });
    compare("mad.lo.s64 %rd20, %rd10, %rd11, %rd12;", |[a, b, c]| a.wrapping_mul(b).wrapping_add(c));
    compare("mul.wide.u32 %rd20, %r10, %r11;", |[a, b, _]| u64::from(a as u32) * u64::from(b as u32));
    compare("mul.wide.s32 %rd20, %r10, %r11;", |[a, b, _]| (i64::from(a as i32) * i64::from(b as i32)) as u64);
    compare("mad.wide.u32 %rd20, %r10, %r11, %rd12;", |[a, b, c]| {
        (u64::from(a as u32) * u64::from(b as u32)).wrapping_add(c)
    });
    compare("mad.wide.s32 %rd20, %r10, -4, %rd12;", |[a, _, c]| {
        (i64::from(a as i32) * -4).wrapping_add(c as i64) as u64
    });
    compare("or.b64 %rd11, %rd11, 1; div.u64 %rd20, %rd10, %rd11;", |[a, b, _]| a / (b | 1));
    compare("or.b64 %rd11, %rd11, 1; rem.s64 %rd20, %rd10, %rd11;", |[a, b, _]| {
        (a as i64).wrapping_rem((b | 1) as i64) as u64
    });
    compare("min.s64 %rd20, %rd10, %rd11;", |[a, b, _]| (a as i64).min(b as i64) as u64);
    compare("max.u64 %rd20, %rd10, %rd11;", |[a, b, _]| a.max(b));
    compare("xor.b64 %rd20, %rd10, %rd11;", |[a, b, _]| a ^ b);
    compare("not.b64 %rd20, %rd10;", |[a, _, _]| !a);
    compare("neg.s64 %rd20, %rd10;", |[a, _, _]| a.wrapping_neg());
    compare("shl.b64 %rd20, %rd10, %r11;", |[a, b, _]| if b as u32 > 63 { 0 } else { a << (b as u32) });
    compare("shr.u64 %rd20, %rd10, %r11;", |[a, b, _]| if b as u32 > 63 { 0 } else { a >> (b as u32) });
    compare("shr.s64 %rd20, %rd10, %r11;", |[a, b, _]| (a as i64 >> (b as u32).min(63)) as u64);
    compare("clz.b64 %r20, %rd10; cvt.u64.u32 %rd20, %r20;", |[a, _, _]| a.leading_zeros().into());
    compare("mov.b64 {%r20, %r21}, %rd10; mov.b64 %rd20, {%r21, %r20};", |[a, _, _]| a.rotate_left(32));
    int32("mov.b32 {%h13, %h14}, %r10; mov.b32 %r20, {%h14, %h13};", |a, _, _| a.rotate_left(16));
    device.finish_clean();
}

#[test]
fn comparisons() {
    let device = Device::new();
    for (name, int) in [
        ("eq", [false, true, false]),
        ("ne", [true, false, true]),
        ("lt", [true, false, false]),
        ("le", [true, true, false]),
        ("gt", [false, false, true]),
        ("ge", [false, true, true]),
    ] {
        let met = |ordering: std::cmp::Ordering| int[(ordering as i8 + 1) as usize];
        predicate(&format!("setp.{name}.s32 %p1, %r10, %r11;"), |[a, b, _]| met((a as i32).cmp(&(b as i32))));
        predicate(&format!("setp.{name}.u32 %p1, %r10, %r11;"), |[a, b, _]| met((a as u32).cmp(&(b as u32))));
        predicate(&format!("setp.{name}.s64 %p1, %rd10, %rd11;"), |[a, b, _]| met((a as i64).cmp(&(b as i64))));
        predicate(&format!("setp.{name}.u64 %p1, %rd10, %rd11;"), |[a, b, _]| met(a.cmp(&b)));
        predicate(&format!("setp.{name}.s16 %p1, %h10, %h11;"), |[a, b, _]| met((a as i16).cmp(&(b as i16))));
        predicate(&format!("setp.{name}.u16 %p1, %h10, %h11;"), |[a, b, _]| met((a as u16).cmp(&(b as u16))));
        predicate(&format!("setp.{name}.f32 %p1, %f10, %f11;"), |[a, b, _]| {
            f32::from_bits(a as u32).partial_cmp(&f32::from_bits(b as u32)).is_some_and(met)
        });
        predicate(&format!("setp.{name}.f64 %p1, %d10, %d11;"), |[a, b, _]| {
            f64::from_bits(a).partial_cmp(&f64::from_bits(b)).is_some_and(met)
        });
        predicate(&format!("setp.{name}u.f32 %p1, %f10, %f11;"), |[a, b, _]| {
            f32::from_bits(a as u32).partial_cmp(&f32::from_bits(b as u32)).is_none_or(met)
        });
    }
    predicate("setp.nan.f32 %p1, %f10, %f11;", |[a, b, _]| {
        f32::from_bits(a as u32).is_nan() || f32::from_bits(b as u32).is_nan()
    });
    predicate("setp.num.f64 %p1, %d10, %d11;", |[a, b, _]| !f64::from_bits(a).is_nan() && !f64::from_bits(b).is_nan());
    predicate("setp.lt.u32 %p2, %r12, 99; setp.lt.and.u32 %p1, %r10, %r11, %p2;", |[a, b, c]| {
        (a as u32) < b as u32 && (c as u32) < 99
    });
    predicate("setp.lt.u32 %p2, %r12, 99; setp.lt.or.u32 %p1, %r10, %r11, !%p2;", |[a, b, c]| {
        (a as u32) < b as u32 || (c as u32) >= 99
    });
    predicate("setp.lo.u32 %p2|%p1, %r10, %r11;", |[a, b, _]| (a as u32) >= b as u32);
    predicate(
        "setp.lt.u32 %p2, %r10, %r11; setp.eq.u32 %p3, %r12, 7; xor.pred %p1, %p2, %p3; not.pred %p1, %p1;",
        |[a, b, c]| ((a as u32) < b as u32) == (c as u32 == 7),
    );
    device.finish_clean();
}

#[test]
fn floats() {
    let device = Device::new();
    f32s("add.rn.f32 %f20, %f10, %f11;", |a, b, _| a + b);
    f32s("sub.rn.f32 %f20, %f10, %f11;", |a, b, _| a - b);
    f32s("mul.rn.f32 %f20, %f10, %f11;", |a, b, _| a * b);
    f32s("div.rn.f32 %f20, %f10, %f11;", |a, b, _| a / b);
    f32s("fma.rn.f32 %f20, %f10, %f11, %f12;", f32::mul_add);
    f32s("sqrt.rn.f32 %f20, %f10;", |a, _, _| a.sqrt());
    f32s("rcp.rn.f32 %f20, %f10;", |a, _, _| 1.0 / a);
    compare("neg.f32 %f20, %f10; mov.b32 %r20, %f20; cvt.u64.u32 %rd20, %r20;", |[a, _, _]| {
        u64::from(a as u32 ^ 1 << 31)
    });
    compare("abs.f32 %f20, %f10; mov.b32 %r20, %f20; cvt.u64.u32 %rd20, %r20;", |[a, _, _]| {
        u64::from(a as u32 & !(1 << 31))
    });
    f32s("min.f32 %f20, %f10, %f11;", |a, b, _| {
        if a.is_nan() {
            b
        } else if b.is_nan() || a.total_cmp(&b).is_le() {
            a
        } else {
            b
        }
    });
    f32s("max.f32 %f20, %f10, %f11;", |a, b, _| {
        if a.is_nan() {
            b
        } else if b.is_nan() || a.total_cmp(&b).is_gt() {
            a
        } else {
            b
        }
    });
    f32s("copysign.f32 %f20, %f10, %f11; add.rn.f32 %f20, %f20, 0f00000000;", |a, b, _| b.copysign(a) + 0.0);
    f32s("cvt.rni.f32.f32 %f20, %f10;", |a, _, _| a.round_ties_even());
    f32s("cvt.rzi.f32.f32 %f20, %f10;", |a, _, _| a.trunc());
    f32s("cvt.rmi.f32.f32 %f20, %f10;", |a, _, _| a.floor());
    f32s("cvt.rpi.f32.f32 %f20, %f10;", |a, _, _| a.ceil());
    f32s("cvt.sat.f32.f32 %f20, %f10;", |a, _, _| if a.is_nan() { 0.0 } else { a.clamp(0.0, 1.0) + 0.0 });
    f32s("mov.f32 %f20, 0f3FC00000; add.rn.f32 %f20, %f20, %f10;", |a, _, _| a + 1.5);
    f64s("add.rn.f64 %d20, %d10, %d11;", |a, b, _| a + b);
    f64s("sub.rn.f64 %d20, %d10, %d11;", |a, b, _| a - b);
    f64s("mul.rn.f64 %d20, %d10, %d11;", |a, b, _| a * b);
    f64s("div.rn.f64 %d20, %d10, %d11;", |a, b, _| a / b);
    f64s("fma.rn.f64 %d20, %d10, %d11, %d12;", f64::mul_add);
    f64s("sqrt.rn.f64 %d20, %d10;", |a, _, _| a.sqrt());
    f64s("neg.f64 %d20, %d10;", |a, _, _| -a);
    f64s("abs.f64 %d20, %d10;", |a, _, _| a.abs());
    f64s("cvt.rni.f64.f64 %d20, %d10;", |a, _, _| a.round_ties_even());
    f64s("cvt.f64.f32 %d20, %f10;", |a, _, _| f64::from(f32::from_bits(a.to_bits() as u32)));
    compare(
        "selp.f32 %f20, %f10, %f11, %p1; mov.b32 %r20, %f20; cvt.u64.u32 %rd20, %r20;"
            .replace("selp", "setp.lt.s32 %p1, %r12, 0; selp")
            .as_str(),
        |[a, b, c]| u64::from(if (c as i32) < 0 { a as u32 } else { b as u32 }),
    );
    device.finish_clean();
}

/// A whole number as a double, without the bits that do not fit.
fn cut(value: i128) -> f64 {
    let size = value.unsigned_abs();
    let spare = (128 - size.leading_zeros()).saturating_sub(53);
    let kept = (size >> spare << spare) as f64;
    if value < 0 { -kept } else { kept }
}

/// What mutants round to zero; sums and quotients of whole numbers, in units of 2^-40 and 2^-90.
#[test]
fn floats_to_zero() {
    let device = Device::new();
    f32s("sqrt.rz.f32 %f20, %f10;", |a, _, _| {
        let near = a.sqrt();
        if f64::from(near).powi(2) > f64::from(a) && near.is_finite() {
            f32::from_bits(near.to_bits() - 1)
        } else {
            near
        }
    });
    let whole = "cvt.rn.f64.u32 %d10, %r10; cvt.rn.f64.u32 %d11, %r11;";
    let part = |value: f64| i128::from(value.to_bits() as u32);
    for (name, sign) in [("add", 1), ("sub", -1)] {
        f64s(
            &format!("{whole} mul.rn.f64 %d11, %d11, 0d3D70000000000000; {name}.rz.f64 %d20, %d10, %d11;"),
            |a, b, _| cut((part(a) << 40) + sign * part(b)) * 2f64.powi(-40),
        );
    }
    f64s(
        "cvt.rn.f64.s64 %d10, %rd10; cvt.rn.f64.s64 %d11, %rd11; mul.rz.f64 %d20, %d10, %d11; \
         add.rn.f64 %d20, %d20, 0d0000000000000000;",
        |a, b, _| {
            let exact = |value: f64| value.to_bits() as i64 as f64 as i128;
            cut(exact(a) * exact(b))
        },
    );
    f64s(&format!("{whole} div.rz.f64 %d20, %d10, %d11;"), |a, b, _| {
        if part(b) == 0 {
            return part(a) as f64 / 0.0;
        }
        cut((part(a) << 90) / part(b)) * 2f64.powi(-90)
    });
    device.finish_clean();
}

#[test]
fn conversions() {
    let device = Device::new();
    let f = |bits: u64| f32::from_bits(bits as u32);
    int32("cvt.rzi.s32.f32 %r20, %f10;", |a, _, _| f(a.into()) as i32 as u32);
    int32("cvt.rzi.u32.f32 %r20, %f10;", |a, _, _| f(a.into()) as u32);
    int32("cvt.rni.s32.f32 %r20, %f10;", |a, _, _| f(a.into()).round_ties_even() as i32 as u32);
    compare("cvt.rmi.s64.f32 %rd20, %f10;", |[a, _, _]| f(a).floor() as i64 as u64);
    compare("cvt.rzi.u64.f64 %rd20, %d10;", |[a, _, _]| f64::from_bits(a) as u64);
    compare("cvt.rpi.s64.f64 %rd20, %d10;", |[a, _, _]| f64::from_bits(a).ceil() as i64 as u64);
    f32s("cvt.rn.f32.s32 %f20, %r10;", |a, _, _| a.to_bits() as i32 as f32);
    f32s("cvt.rn.f32.u32 %f20, %r10;", |a, _, _| a.to_bits() as f32);
    compare("cvt.rn.f32.s64 %f20, %rd10; mov.b32 %r20, %f20; cvt.u64.u32 %rd20, %r20;", |[a, _, _]| {
        u64::from((a as i64 as f32).to_bits())
    });
    compare("cvt.rn.f32.u64 %f20, %rd10; mov.b32 %r20, %f20; cvt.u64.u32 %rd20, %r20;", |[a, _, _]| {
        u64::from((a as f32).to_bits())
    });
    compare("cvt.rn.f64.s64 %d20, %rd10; mov.b64 %rd20, %d20;", |[a, _, _]| (a as i64 as f64).to_bits());
    compare("cvt.rn.f64.u32 %d20, %r10; mov.b64 %rd20, %d20;", |[a, _, _]| f64::from(a as u32).to_bits());
    compare("cvt.rn.f32.f64 %f20, %d10; mov.b32 %r20, %f20; cvt.u64.u32 %rd20, %r20;", |[a, _, _]| {
        canonical(f64::from_bits(a) as f32)
    });
    compare("cvt.s64.s32 %rd20, %r10;", |[a, _, _]| i64::from(a as i32) as u64);
    compare("cvt.u64.u32 %rd20, %r10;", |[a, _, _]| u64::from(a as u32));
    compare("cvt.s64.s16 %rd20, %h10;", |[a, _, _]| i64::from(a as i16) as u64);
    int32("cvt.u32.u16 %r20, %h10;", |a, _, _| a & 0xffff);
    int32("cvt.s32.s16 %r20, %h10;", |a, _, _| i32::from(a as i16) as u32);
    int32("cvt.s32.s8 %r20, %r10;", |a, _, _| i32::from(a as i8) as u32);
    int32("cvt.u32.u8 %r20, %r10;", |a, _, _| a & 255);
    int32("cvt.s8.s32 %r20, %r10;", |a, _, _| i32::from(a as i8) as u32);
    int16("cvt.u16.u32 %h13, %r10;", |a, _, _| a);
    f32s("cvt.rn.f32.s16 %f20, %h10;", |a, _, _| f32::from(a.to_bits() as i16));
    f32s("cvt.rn.f32.u8 %f20, %r10;", |a, _, _| f32::from(a.to_bits() as u8));
    device.finish_clean();
}

/// The nearest half by search among all of them; ties to even.
fn nearest_half(value: f32, table: &[(f64, u16)]) -> u16 {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    if value.is_nan() {
        return 0x7fff;
    }
    let size = f64::from(value.abs());
    let at = table.partition_point(|&(half, _)| half < size);
    // Half way from the largest to what would come after it lies the border to infinity.
    let Some(&(above, bits_above)) = table.get(at) else {
        return sign | if size >= 65_520.0 { 0x7c00 } else { 0x7bff };
    };
    if above == size || at == 0 {
        return sign | bits_above;
    }
    let (below, bits_below) = table[at - 1];
    let (down, up) = (size - below, above - size);
    sign | if down < up || (down == up && bits_below % 2 == 0) { bits_below } else { bits_above }
}

#[test]
fn halves() {
    let device = Device::new();
    // All finite halves from their definition.
    let table: Vec<(f64, u16)> = (0..0x7c00u16)
        .map(|bits| {
            let (exponent, fraction) = (i32::from(bits >> 10), f64::from(bits & 1023));
            (
                if exponent == 0 { fraction * 2f64.powi(-24) } else { (1024.0 + fraction) * 2f64.powi(exponent - 25) },
                bits,
            )
        })
        .collect();
    compare("cvt.f32.f16 %f20, %h10; mov.b32 %r20, %f20; cvt.u64.u32 %rd20, %r20;", |[a, _, _]| {
        let half = a as u16;
        let size = match half & 0x7fff {
            0x7c00 => f64::INFINITY,
            bits if bits > 0x7c00 => f64::NAN,
            bits => table[usize::from(bits)].0,
        };
        canonical(if half >> 15 != 0 { -size } else { size } as f32)
    });
    for (input, result) in evaluate("cvt.rn.f16.f32 %h13, %f10; cvt.u64.u16 %rd20, %h13;") {
        let value = f32::from_bits(input[0] as u32);
        assert_eq!(result as u16, nearest_half(value, &table), "{value:e}");
    }
    // Around every border between two halves.
    for pair in table.windows(2) {
        let middle = ((pair[0].0 + pair[1].0) / 2.0) as f32;
        for bits in middle.to_bits() - 1..=middle.to_bits() + 1 {
            let value = f32::from_bits(bits);
            assert_eq!(cuda::run::value::f32_to_half(value, 0), nearest_half(value, &table), "{value:e}");
        }
    }
    device.finish_clean();
}

/// What lies between zero and the exact result: checked against the two neighbours of the rounded one.
#[test]
fn rounding_to_zero() {
    use cuda::run::value::{add_to_zero, f32_to_half, f64_to_f32, fma_to_zero, half_to_f32, mul_to_zero};
    let (a, b, c) = (values(11, 200_000), values(12, 200_000), values(13, 200_000));
    // The sign of exact − candidate, from sums of doubles that lose nothing.
    let sign_of_difference = |exact: [f64; 2], candidate: f32| {
        let candidate = f64::from(candidate);
        let (high, low) = (exact[0].max(exact[1]), exact[0].min(exact[1]));
        // Exactly: add the three terms by repeated two-sums.
        let mut terms = vec![high, low, -candidate];
        for _ in 0..4 {
            for at in 0..2 {
                let (x, y) = (terms[at], terms[at + 1]);
                let sum = x + y;
                let back = sum - x;
                terms[at + 1] = sum;
                terms[at] = (x - (sum - back)) + (y - back);
            }
        }
        terms.into_iter().rev().find(|&term| term != 0.0).map_or(0.0, f64::signum)
    };
    let check = |name: &str, exact: [f64; 2], result: f32| {
        let rounded = exact[0] + exact[1];
        if !rounded.is_finite() || rounded.abs() > 3.4e38 {
            return;
        }
        // Not past the exact value, seen from zero; and one step further would be.
        let towards = sign_of_difference(exact, result);
        let size_sign = if rounded == 0.0 {
            return;
        } else {
            rounded.signum()
        };
        assert!(towards == 0.0 || towards == size_sign, "{name} {exact:?}: {result:e}");
        let further = f32::from_bits(result.to_bits() + 1);
        let further = if result == 0.0 { f32::from_bits(1).copysign(size_sign as f32) } else { further };
        assert_eq!(sign_of_difference(exact, further), -size_sign, "{name} {exact:?}: {result:e}");
    };
    for at in 0..a.len() {
        let [a, b, c] = [a[at], b[at], c[at]].map(|bits| f32::from_bits(bits as u32));
        if !a.is_finite() || !b.is_finite() || !c.is_finite() {
            continue;
        }
        check("add", [a.into(), b.into()], add_to_zero(a, b));
        check("mul", [f64::from(a) * f64::from(b), 0.0], mul_to_zero(a, b));
        check("fma", [f64::from(a) * f64::from(b), c.into()], fma_to_zero(a, b, c));
        let double = f64::from_bits(values(at as u64, 1)[0]);
        check("cvt", [double, 0.0], f64_to_f32(double, 1));
        let half = half_to_f32(f32_to_half(a, 1));
        assert!(half.abs() <= a.abs());
        assert!(a.abs() >= 65_504.0 || half_to_f32((f32_to_half(a, 1) & 0x7fff) + 1) > a.abs(), "{a:e}");
    }
    assert!(fma_to_zero(f32::INFINITY, 0.0, 1.0).is_nan());
    assert_eq!(add_to_zero(f32::MAX, f32::MAX), f32::MAX);
    assert_eq!(add_to_zero(1.0, -1.0).to_bits(), 0);
}
