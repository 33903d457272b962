//! What kernels do wrong, and that each of it is found: memory, races, barriers, registers, steps.

mod support;

use support::*;

/// Each thread writes its number to a[thread].
const STORE: &str = "mul.wide.u32 %rd4, %r1, 4; add.s64 %rd5, %rd1, %rd4; st.global.u32 [%rd5], %r1;";
const SHARED: &str = ".shared .align 4 .b8 words[512];";
/// words[thread] = thread
const STORE_SHARED: &str = "mov.u32 %r2, words; shl.b32 %r3, %r1, 2; add.s32 %r4, %r2, %r3; st.shared.u32 [%r4], %r1;";
/// %r6 = words[(thread + 1) mod 64]
const LOAD_NEXT: &str =
    "add.s32 %r5, %r1, 1; and.b32 %r5, %r5, 63; shl.b32 %r5, %r5, 2; add.s32 %r5, %r2, %r5; ld.shared.u32 %r6, [%r5];";

#[test]
fn a_correct_kernel_runs_and_leaves_nothing() {
    let device = Device::new();
    let memory = allocate(64 * 4);
    let body = format!(
        "{STORE_SHARED} bar.sync 0; {LOAD_NEXT} mul.wide.u32 %rd4, %r1, 4; add.s64 %rd5, %rd1, %rd4; st.global.u32 [%rd5], %r6;"
    );
    for seed in 0..20 {
        set("PVERA_DOUBLE_SEED", seed);
        assert_eq!(run(&kernel(SHARED, &body), 1, 64, [memory, 0, 0]), 0, "{}", report());
        let values: Vec<u32> = download(memory, 64).unwrap();
        assert!(values.iter().enumerate().all(|(thread, &value)| value == (thread as u32 + 1) % 64));
    }
    free(memory);
    device.finish_clean();
}

#[test]
fn a_store_past_the_end() {
    let _device = Device::new();
    let memory = allocate(63 * 4);
    assert_eq!(run(&kernel("", STORE), 1, 64, [memory, 0, 0]), 700);
    assert_reported(&[
        "kernel `test`",
        "st.global.u32",
        "thread [63, 0, 0]",
        "out of bounds, 4 bytes: writes",
        "0 bytes past allocation",
        "252 bytes",
    ]);
    // The context stays broken until it ends.
    assert_eq!(synchronize(), 700);
    let mut at = 0;
    // SAFETY: a place for the result.
    assert_eq!(unsafe { cuda::exports::memory::cuMemAlloc_v2(&mut at, 16) }, 700);
}

#[test]
fn a_load_before_the_start_and_a_null_pointer() {
    for (body, text) in [("ld.global.u32 %r2, [%rd1+-4];", "4 bytes before"), ("ld.global.u32 %r2, [%rd2];", "0x0")] {
        let _device = Device::new();
        let memory = upload(&[0u32; 4]);
        assert_eq!(run(&kernel("", body), 1, 1, [memory, 0, 0]), 700);
        assert_reported(&[text, "reads memory that is not allocated"]);
    }
}

#[test]
fn memory_that_was_freed() {
    let _device = Device::new();
    let memory = upload(&[1u32; 16]);
    free(memory);
    assert_eq!(run(&kernel("", STORE), 1, 1, [memory, 0, 0]), 700);
    assert_reported(&["0 bytes into allocation", "freed"]);
}

#[test]
fn fresh_memory_read_by_a_kernel() {
    let _device = Device::new();
    let memory = allocate(16);
    assert_eq!(run(&kernel("", "ld.global.u32 %r2, [%rd1+8];"), 1, 1, [memory, 0, 0]), 719);
    assert_reported(&["reads 4 bytes of memory that nothing wrote", "8 bytes into"]);
}

#[test]
fn fresh_bytes_within_a_vector() {
    let _device = Device::new();
    let memory = allocate(16);
    let body = "mov.u32 %r2, 7; st.global.u32 [%rd1], %r2; st.global.u32 [%rd1+4], %r2; st.global.u32 [%rd1+8], %r2; \
                st.global.u16 [%rd1+12], %r2; ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%rd1];";
    assert_eq!(run(&kernel("", body), 1, 1, [memory, 0, 0]), 719);
}

#[test]
fn fresh_memory_copied_to_the_host() {
    let _device = Device::new();
    let memory = allocate(16);
    assert_eq!(download::<u32>(memory, 4), Err(719));
    assert_reported(&["reads memory that nothing wrote"]);
}

#[test]
fn misaligned_accesses() {
    for body in [
        "ld.global.u32 %r2, [%rd1+2];",
        "ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1+8];",
        "st.global.f64 [%rd1+4], 0d0000000000000000;",
    ] {
        let _device = Device::new();
        let memory = upload(&[0u32; 16]);
        assert_eq!(run(&kernel("", body), 1, 1, [memory, 0, 0]), 716, "{body}");
        assert_reported(&["misaligned"]);
    }
}

#[test]
fn a_missing_barrier() {
    let mut found = [0; 2];
    for seed in 0..10 {
        let _device = Device::new();
        set("PVERA_DOUBLE_SEED", seed);
        assert_eq!(run(&kernel(SHARED, &format!("{STORE_SHARED} {LOAD_NEXT}")), 1, 64, [0; 3]), 719);
        found[usize::from(report().contains("race: "))] += 1;
    }
    // Whichever thread comes first: it reads what is not written yet, or what another one wrote.
    assert_eq!(found.iter().sum::<i32>(), 10);
}

#[test]
fn a_missing_second_barrier_is_a_race_for_every_seed() {
    // Between the reads of one round and the writes of the next.
    let body = format!("{STORE_SHARED} bar.sync 0; {LOAD_NEXT} st.shared.u32 [%r4], %r6;");
    for seed in 0..10 {
        let _device = Device::new();
        set("PVERA_DOUBLE_SEED", seed);
        assert_eq!(run(&kernel(SHARED, &body), 1, 64, [0; 3]), 719);
        assert_reported(&["race: ", "of shared memory collides with the", "by thread ["]);
        assert_eq!(report().matches("PTX line").count(), 2);
    }
}

#[test]
fn shared_memory_that_nothing_wrote() {
    let _device = Device::new();
    assert_eq!(run(&kernel(SHARED, "mov.u32 %r2, words; ld.shared.u32 %r3, [%r2+16];"), 1, 1, [0; 3]), 719);
    assert_reported(&["shared memory that nothing wrote"]);
}

#[test]
fn shared_memory_does_not_outlive_its_block() {
    let body = "mov.u32 %r2, words; mov.u32 %r3, %ctaid.x; setp.ne.u32 %p1, %r3, 0; @%p1 ld.shared.u32 %r4, [%r2]; st.shared.u32 [%r2], %r3;";
    let _device = Device::new();
    assert_eq!(run(&kernel(SHARED, body), 8, 1, [0; 3]), 719);
    assert_reported(&["shared memory that nothing wrote"]);
}

/// Each kernel's block holds only what it names of the module's shared variables.
#[test]
fn shared_variables_of_the_module() {
    let _device = Device::new();
    let two = kernel("", "").replace("test(", "other(").replace(HEADER, "");
    let source = format!("{}{two}", kernel("", "mov.u32 %r2, mine; st.shared.u32 [%r2+12], %r1;"));
    let source = source.replacen(".visible", ".shared .align 4 .b8 mine[16];\n.visible", 1);
    let module = load(&source).unwrap_or_else(|code| panic!("{code} {}", report()));
    for (name, bytes) in [("test", 16), ("other", 0)] {
        let mut value = -1;
        // SAFETY: a place for the result.
        let code = unsafe { cuda::exports::module::cuFuncGetAttribute(&mut value, 1, function(module, name)) };
        assert_eq!((code, value), (0, bytes), "{name}");
    }
    assert_eq!((launch_on(0, function(module, "test"), 1, 1, [0; 3]), synchronize()), (0, 0), "{}", report());
    // SAFETY: its kernel is over.
    assert_eq!(unsafe { cuda::exports::module::cuModuleUnload(module) }, 0);
}

#[test]
fn shared_memory_past_its_end() {
    let _device = Device::new();
    assert_eq!(run(&kernel(SHARED, "mov.u32 %r2, words; st.shared.u32 [%r2+512], %r1;"), 1, 1, [0; 3]), 700);
    assert_reported(&["0x200 of shared memory"]);
}

#[test]
fn races_in_device_memory() {
    // All write one word; one writes what all read; neighbours write halves of a word, which is no race.
    let all = "st.global.u32 [%rd1], %r1;";
    let one = "setp.eq.u32 %p1, %r1, 3; @%p1 st.global.u32 [%rd1], %r1; @!%p1 ld.global.u32 %r2, [%rd1];";
    let halves =
        "mul.wide.u32 %rd4, %r1, 2; add.s64 %rd5, %rd1, %rd4; ld.global.u16 %h1, [%rd5]; st.global.u16 [%rd5], %h1;";
    let overlap = "mul.wide.u32 %rd4, %r1, 2; add.s64 %rd5, %rd1, %rd4; setp.eq.u32 %p1, %r1, 2; @%p1 ld.global.u32 %r2, [%rd5]; \
                   setp.eq.u32 %p1, %r1, 3; mov.u16 %h1, 5; @%p1 st.global.u16 [%rd5], %h1;";
    for (body, grid, code) in [(all, 1, 719), (all, 64, 719), (one, 1, 719), (halves, 1, 0), (overlap, 1, 719)] {
        for seed in 0..8 {
            let _device = Device::new();
            set("PVERA_DOUBLE_SEED", seed);
            let memory = upload(&[0u32; 64]);
            let block = if grid > 1 { 1 } else { 16 };
            assert_eq!(run(&kernel("", body), grid, block, [memory, 0, 0]), code, "{body} {}", report());
            if code != 0 {
                assert_reported(&["race: ", "collides with the"]);
            }
        }
    }
}

/// A thread that reads what the others read and then writes it, whichever of them comes first.
#[test]
fn one_of_the_readers_writes() {
    for (memory, kind, register) in
        [("global", "u32", "%r2"), ("shared", "u32", "%r2"), ("global", "u16", "%h2"), ("shared", "u16", "%h2")]
    {
        for writer in 0..32 {
            let _device = Device::new();
            let at = upload(&[0u32; 4]);
            // One thread puts a value into shared memory first.
            let first = match memory {
                "shared" => "mov.u64 %rd1, words; setp.eq.u32 %p2, %r1, 0; @%p2 st.shared.u32 [%rd1], 5; bar.sync 0;",
                _ => "",
            };
            let body = format!(
                "{first} ld.{memory}.{kind} {register}, [%rd1+2]; setp.eq.u32 %p1, %r1, {writer}; \
                 @%p1 st.{memory}.{kind} [%rd1+2], {register};"
            );
            let body = if kind == "u32" { body.replace("+2]", "]") } else { body };
            assert_eq!(run(&kernel(SHARED, &body), 1, 32, [at, 0, 0]), 719, "{memory} {kind} {writer}");
            assert_reported(&["race: the write", "collides with the read"]);
        }
    }
}

#[test]
fn atomics_do_not_race_with_each_other() {
    let device = Device::new();
    let memory = upload(&[0u32; 4]);
    let source = kernel("", "atom.global.add.u32 %r2, [%rd1], 1; ld.volatile.global.u32 %r3, [%rd1];");
    assert_eq!(run(&source, 4, 64, [memory, 0, 0]), 0);
    assert_eq!(download::<u32>(memory, 1).unwrap()[0], 256);
    let claim = "mov.u32 %r2, 0; mov.u32 %r3, 1; atom.global.cas.b32 %r4, [%rd1+4], %r2, %r3; setp.eq.u32 %p1, %r4, 0; \
                 @%p1 st.global.u32 [%rd1+8], %r1;";
    assert_eq!(run(&kernel("", claim), 1, 64, [memory, 0, 0]), 0);
    free(memory);
    device.finish_clean();
}

#[test]
fn a_plain_load_races_with_an_atomic() {
    let _device = Device::new();
    let memory = upload(&[0u32; 4]);
    assert_eq!(
        run(&kernel("", "atom.global.add.u32 %r2, [%rd1], 1; ld.global.u32 %r3, [%rd1];"), 1, 2, [memory, 0, 0]),
        719
    );
    assert_reported(&["race: the ", " collides with the ", "atomic"]);
}

#[test]
fn a_store_races_with_a_volatile_load() {
    for seed in 0..8 {
        let _device = Device::new();
        set("PVERA_DOUBLE_SEED", seed);
        let memory = upload(&[0u32; 4]);
        let body =
            "setp.eq.u32 %p1, %r1, 0; @%p1 st.volatile.global.u32 [%rd1], %r1; ld.volatile.global.u32 %r3, [%rd1];";
        assert_eq!(run(&kernel("", body), 1, 4, [memory, 0, 0]), 719);
        assert_reported(&["race: "]);
    }
}

#[test]
fn barriers_that_not_all_threads_reach() {
    let leaves = "setp.eq.u32 %p1, %r1, 5; @%p1 bra END; bar.sync 0; END:";
    let elsewhere = "setp.eq.u32 %p1, %r1, 5; @%p1 bra OTHER; bar.sync 0; bra END; OTHER: bar.sync 0; END:";
    for (body, text) in [(leaves, "has left the kernel"), (elsewhere, "waits at the barrier of PTX line")] {
        let _device = Device::new();
        assert_eq!(run(&kernel("", body), 1, 8, [0; 3]), 719);
        assert_reported(&["barrier divergence", text]);
    }
}

#[test]
fn registers_that_were_not_written() {
    let body = "setp.eq.u32 %p1, %r1, 3; @%p1 bra SKIP; mov.u32 %r2, 1; SKIP: st.global.u32 [%rd1], %r2;";
    for (threads, code) in [(1, 0), (4, 719)] {
        let _device = Device::new();
        let memory = upload(&[0u32; 4]);
        let source = kernel(
            "",
            &body
                .replace("[%rd1]", "[%rd5]")
                .replace("setp", "mul.wide.u32 %rd4, %r1, 4; add.s64 %rd5, %rd1, %rd4; setp"),
        );
        assert_eq!(run(&source, 1, threads, [memory, 0, 0]), code, "{}", report());
        if code != 0 {
            assert_reported(&["reads the register %r2 before it was written", "thread [3, 0, 0]"]);
        }
    }
}

#[test]
fn loops_that_do_not_end() {
    let _device = Device::new();
    set("PVERA_DOUBLE_STEPS", 10_000);
    assert_eq!(run(&kernel("", "AGAIN: bra AGAIN;"), 1, 1, [0; 3]), 702);
    assert_reported(&["more than 10000 instructions"]);
}

#[test]
fn division_of_integers_by_zero_and_trap() {
    for (body, code) in [("mov.u32 %r2, 0; div.u32 %r3, %r1, %r2;", 719), ("trap;", 715)] {
        let _device = Device::new();
        assert_eq!(run(&kernel("", body), 1, 1, [0; 3]), code);
    }
}

#[test]
fn parameters_past_their_end() {
    let _device = Device::new();
    assert_eq!(run(&kernel("", "ld.param.u64 %rd4, [n+8];"), 1, 1, [0; 3]), 700);
    assert_reported(&["param memory"]);
}

#[test]
fn local_memory_is_each_threads_own() {
    let device = Device::new();
    let memory = allocate(64 * 4);
    let body = "mov.u64 %rd4, mine; st.local.u32 [%rd4+4], %r1; ld.local.u32 %r2, [%rd4+4]; cvta.local.u64 %rd5, %rd4; ld.u32 %r3, [%rd5+4]; \
                add.s32 %r2, %r2, %r3; mul.wide.u32 %rd6, %r1, 4; add.s64 %rd7, %rd1, %rd6; st.global.u32 [%rd7], %r2;";
    assert_eq!(run(&kernel(".local .align 4 .b8 mine[16];", body), 1, 64, [memory, 0, 0]), 0, "{}", report());
    assert!(download::<u32>(memory, 64).unwrap().iter().enumerate().all(|(thread, &value)| value == 2 * thread as u32));
    assert_eq!(
        run(&kernel(".local .align 4 .b8 mine[16];", "mov.u64 %rd4, mine; ld.local.u32 %r2, [%rd4];"), 1, 1, [0; 3]),
        719
    );
    assert_reported(&["local memory that nothing wrote"]);
    // Memory of a broken context goes with it.
    drop(device);
    assert!(!report().contains("leak"));
}

#[test]
fn tables_generic_addresses_and_dynamic_shared_memory() {
    let device = Device::new();
    let memory = allocate(64 * 4);
    let source = kernel(".extern .shared .align 16 .b8 room[];", "").replace(
        ".visible",
        ".const .align 4 .b8 table[16] = {1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0};\n.global .align 4 .u32 single = 40;\n.visible",
    );
    let body = "and.b32 %r2, %r1, 3; mul.wide.u32 %rd4, %r2, 4; mov.u64 %rd5, table; add.s64 %rd5, %rd5, %rd4; ld.const.u32 %r3, [%rd5]; \
                ld.global.u32 %r4, [single]; mov.u32 %r5, room; shl.b32 %r6, %r1, 2; add.s32 %r5, %r5, %r6; st.shared.u32 [%r5], %r3; \
                cvt.u64.u32 %rd6, %r5; cvta.shared.u64 %rd6, %rd6; ld.u32 %r7, [%rd6]; add.s32 %r7, %r7, %r4; \
                mul.wide.u32 %rd4, %r1, 4; add.s64 %rd7, %rd1, %rd4; st.u32 [%rd7], %r7;";
    let source = source.replace("\n\nret;", &format!("\n{body}\nret;"));
    let module = load(&source).unwrap_or_else(|code| panic!("{code} {}", report()));
    let function = function(module, "test");
    let launch = |bytes: u32| {
        let arguments = [memory, 0u64, 0];
        let mut params: Vec<*mut std::ffi::c_void> =
            arguments.iter().map(|a| (&raw const *a).cast_mut().cast()).collect();
        // SAFETY: a pointer for each parameter.
        unsafe {
            cuda::exports::module::cuLaunchKernel(
                function,
                1,
                1,
                1,
                64,
                1,
                1,
                bytes,
                0,
                params.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        }
    };
    assert_eq!(launch(48 * 1024 + 1), 1);
    support::pvera_reset();
    assert_eq!((launch(256), synchronize()), (0, 0), "{}", report());
    assert!(
        download::<u32>(memory, 64).unwrap().iter().enumerate().all(|(thread, &value)| value == 41 + thread as u32 % 4)
    );
    // SAFETY: the module's kernel is over.
    assert_eq!(unsafe { cuda::exports::module::cuModuleUnload(module) }, 0);
    free(memory);
    device.finish_clean();
}

/// Threads of a group that part in loops, in loops within loops, and for good.
#[test]
fn threads_that_part_and_meet() {
    let device = Device::new();
    // %r2 = steps of the Collatz sequence of thread + 1, by threads that are not multiples of 7; the sum of 0 … thread for those that
    // are multiples of 5, each added up in an inner loop; threads past n leave at once.
    let body = "cvt.u32.u64 %r20, %rd3; setp.ge.u32 %p1, %r1, %r20; @%p1 bra END; mov.u32 %r2, 0; rem.u32 %r3, %r1, 7; \
                setp.eq.u32 %p2, %r3, 0; @%p2 bra SEVEN; add.u32 %r4, %r1, 1; \
                NEXT: setp.eq.u32 %p3, %r4, 1; @%p3 bra SEVEN; and.b32 %r5, %r4, 1; setp.eq.u32 %p4, %r5, 0; @%p4 shr.u32 %r4, %r4, 1; \
                @!%p4 mad.lo.u32 %r4, %r4, 3, 1; add.u32 %r2, %r2, 1; bra NEXT; \
                SEVEN: rem.u32 %r6, %r1, 5; setp.ne.u32 %p5, %r6, 0; @%p5 bra STORE; mov.u32 %r7, 0; \
                OUTER: setp.gt.u32 %p6, %r7, %r1; @%p6 bra STORE; mov.u32 %r8, 0; \
                INNER: setp.ge.u32 %p7, %r8, %r7; @%p7 bra OUT; add.u32 %r2, %r2, 1; add.u32 %r8, %r8, 1; bra INNER; \
                OUT: add.u32 %r7, %r7, 1; bra OUTER; \
                STORE: mul.wide.u32 %rd4, %r1, 4; add.s64 %rd5, %rd1, %rd4; st.global.u32 [%rd5], %r2; END:";
    let expected = |thread: u32| {
        let mut result = 0;
        if !thread.is_multiple_of(7) {
            let mut value = thread + 1;
            while value != 1 {
                value = if value.is_multiple_of(2) { value / 2 } else { 3 * value + 1 };
                result += 1;
            }
        }
        if thread.is_multiple_of(5) { result + thread * (thread + 1) / 2 } else { result }
    };
    for threads in [1u32, 5, 31, 32, 33, 100, 256] {
        for limit in [threads, threads.div_ceil(2)] {
            let memory = upload(&vec![u32::MAX; threads as usize]);
            assert_eq!(run(&kernel("", body), 1, threads, [memory, 0, u64::from(limit)]), 0, "{}", report());
            let values: Vec<u32> = download(memory, threads as usize).unwrap();
            for (thread, value) in (0..threads).zip(values) {
                assert_eq!(value, if thread < limit { expected(thread) } else { u32::MAX }, "{thread} of {threads}");
            }
            free(memory);
        }
    }
    device.finish_clean();
}

/// Some threads wait at a barrier while others of their group still compute.
#[test]
fn barriers_after_threads_parted() {
    let device = Device::new();
    let memory = allocate(64 * 4);
    let body = format!(
        "mov.u32 %r9, 0; setp.lt.u32 %p1, %r1, 17; @%p1 bra SHORT; mov.u32 %r9, 3; SHORT: {STORE_SHARED} bar.sync 0; {LOAD_NEXT} \
         add.u32 %r6, %r6, %r9; mul.wide.u32 %rd4, %r1, 4; add.s64 %rd5, %rd1, %rd4; st.global.u32 [%rd5], %r6;"
    );
    assert_eq!(run(&kernel(SHARED, &body), 1, 64, [memory, 0, 0]), 0, "{}", report());
    let values: Vec<u32> = download(memory, 64).unwrap();
    assert!((0..64).zip(values).all(|(thread, value)| value == (thread + 1) % 64 + if thread < 17 { 0 } else { 3 }));
    free(memory);
    device.finish_clean();
}

/// Wide and narrow registers, signs, and elements that nobody wants.
#[test]
fn loads_and_stores_of_every_width() {
    let device = Device::new();
    let bytes: Vec<u8> = (0..32).map(|at| 0x7b_u8.wrapping_mul(at + 3)).collect();
    let from = upload(&bytes);
    let to = allocate(80);
    let body = "ld.global.s8 %r2, [%rd1+1]; st.global.u32 [%rd2], %r2; ld.global.s16 %rd4, [%rd1+2]; st.global.u64 [%rd2+8], %rd4; \
                ld.global.u8 %h1, [%rd1+3]; st.global.u16 [%rd2+16], %h1; ld.global.s8 %h2, [%rd1+3]; st.global.u16 [%rd2+18], %h2; \
                ld.global.v2.u32 {%rd5, %rd6}, [%rd1+8]; st.global.v2.u64 [%rd2+32], {%rd5, %rd6}; \
                ld.global.v4.u16 {%h3, _, %h5, _}, [%rd1+16]; st.global.v2.u16 [%rd2+20], {%h3, %h5}; \
                ld.global.v2.f64 {%d1, %d2}, [%rd1+16]; st.global.v2.f64 [%rd2+48], {%d2, %d1}; ld.global.s32 %rd7, [%rd1+28]; \
                st.global.u32 [%rd2+24], %rd7; st.global.v4.u32 [%rd2+64], {1, 2, %r2, 4}; st.global.u8 [%rd2+28], %r2;";
    assert_eq!(run(&kernel("", body), 1, 1, [from, to, 0]), 0, "{}", report());
    let state: Vec<u8> = download(to + 32, 48).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(state[..8], u64::from(word(8)).to_le_bytes());
    assert_eq!(state[8..16], u64::from(word(12)).to_le_bytes());
    assert_eq!((&state[16..24], &state[24..32]), (&bytes[24..32], &bytes[16..24]));
    let narrow = i32::from(bytes[1] as i8);
    assert_eq!(download::<i32>(to + 64, 4).unwrap(), [1, 2, narrow, 4]);
    assert_eq!(download::<i32>(to, 1).unwrap(), [narrow]);
    assert_eq!(download::<i64>(to + 8, 1).unwrap(), [i64::from(i16::from_le_bytes([bytes[2], bytes[3]]))]);
    assert_eq!(download::<u16>(to + 16, 2).unwrap(), [u16::from(bytes[3]), i16::from(bytes[3] as i8) as u16]);
    assert_eq!(download::<u8>(to + 20, 4).unwrap(), [bytes[16], bytes[17], bytes[20], bytes[21]]);
    assert_eq!(download::<u32>(to + 24, 1).unwrap(), [word(28)]);
    assert_eq!(download::<u8>(to + 28, 1).unwrap(), [narrow as u8]);
    assert_eq!(download::<u8>(to + 29, 1), Err(719));
    drop(device);
}

#[test]
fn jump_tables() {
    let device = Device::new();
    let memory = allocate(4 * 4);
    let body = "mov.u32 %r2, 9; $L_t: .branchtargets A, B, C; brx.idx %r1, $L_t; A: mov.u32 %r2, 10; bra END; B: mov.u32 %r2, 11; bra END; \
                C: mov.u32 %r2, 12; END: mul.wide.u32 %rd4, %r1, 4; add.s64 %rd5, %rd1, %rd4; st.global.u32 [%rd5], %r2;";
    assert_eq!(run(&kernel("", body), 1, 3, [memory, 0, 0]), 0, "{}", report());
    assert_eq!(download::<u32>(memory, 3).unwrap(), [10, 11, 12]);
    free(memory);
    device.finish_clean();
}

#[test]
fn instructions_that_are_not_known_are_refused_with_their_line() {
    let _device = Device::new();
    for body in [
        "ex2.approx.f32 %f1, %f2;",
        "add.rn.ftz.f32 %f1, %f2, %f3;",
        "add.f32 %f1, %f2, %f3;",
        "div.approx.f32 %f1, %f2, %f3;",
        "atom.global.add.f32 %f1, [%rd1], %f2;",
        "shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;",
        "add.s32 %r2, %rd1, 1;",
        "bra NOWHERE;",
        "mov.f32 %f1, %unknown;",
        "call.uni helper, ();",
    ] {
        support::pvera_reset();
        assert_eq!(load(&kernel("", &format!("\n{body}"))), Err(218), "{body}");
        assert_reported(&["PTX line 10", body.split(' ').next().unwrap()]);
    }
}
