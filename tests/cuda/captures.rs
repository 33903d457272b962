//! What a driver refuses, while one stream is captured, to calls that have nothing to do with it. The library is relaxed in
//! these; that the doubles refuse the same is told by running this on both and on a GPU. The table is what an H100 said.

use std::ffi::{CStr, c_int, c_uint};

use libloading::Library;

use super::driver::Gpu;
use super::no_complaints;

const GLOBAL: c_int = 0;
const OWN_THREAD: c_int = 1;
const RELAXED: c_int = 2;

const SUCCESS: c_int = 0;
const UNSUPPORTED: c_int = 900;
const INVALIDATED: c_int = 901;

const PTX: &CStr = c".version 8.1\n.target sm_75\n.address_size 64\n.visible .entry put()\n{\nret;\n}\n";

/// The code of a call of libcuda. Handles are numbers here: they go to other threads.
macro_rules! code {
    ($library:expr, $name:literal ($($argument:expr),*) as fn($($type:ty),*)) => {{
        // SAFETY: the signatures are those of the driver's documentation, the handles live.
        unsafe {
            let function = $library.get::<unsafe extern "C" fn($($type),*) -> c_int>($name.as_bytes()).unwrap();
            function($($argument),*)
        }
    }};
}

/// What calls beside a capture are made with.
struct Beside<'a> {
    library: &'a Library,
    context: usize,
    stream: usize,
    event: usize,
    module: usize,
    /// Filled on the stream, and not waited for.
    memory: [u64; 2],
}

type Call = fn(&Beside<'_>) -> c_int;

/// The calls that the library makes, and whether a capture forbids them. Not among them: loading a module, which drivers that
/// load when a kernel is first used allow, and the interpreter does not.
const CALLS: [(&str, bool, Call); 13] = [
    ("cuMemAllocAsync", true, |on| {
        let mut address = 0;
        let code = on.allocate(&mut address);
        if code == SUCCESS { on.free(address) } else { code }
    }),
    ("cuMemFreeAsync", true, |on| {
        // Given back with the rest where this is refused.
        on.free(on.memory[0])
    }),
    ("cuStreamSynchronize", true, |on| code!(on.library, "cuStreamSynchronize"(on.stream) as fn(usize))),
    ("cuModuleUnload", true, |on| code!(on.library, "cuModuleUnload"(on.module) as fn(usize))),
    ("cuModuleGetFunction", false, |on| {
        let mut function = 0;
        code!(
            on.library,
            "cuModuleGetFunction"(&raw mut function, on.module, c"put".as_ptr().cast())
                as fn(*mut usize, usize, *const u8)
        )
    }),
    ("cuMemcpyHtoDAsync", false, |on| {
        code!(
            on.library,
            "cuMemcpyHtoDAsync_v2"(on.memory[0], [1u8; 64].as_ptr(), 64, on.stream) as fn(u64, *const u8, usize, usize)
        )
    }),
    ("cuMemcpyDtoDAsync", false, |on| {
        let [to, from] = on.memory;
        code!(on.library, "cuMemcpyDtoDAsync_v2"(to, from, 64, on.stream) as fn(u64, u64, usize, usize))
    }),
    ("cuMemsetD32Async", false, |on| on.fill(on.memory[0])),
    ("cuEventRecord", false, |on| code!(on.library, "cuEventRecord"(on.event, on.stream) as fn(usize, usize))),
    ("cuStreamWaitEvent", false, |on| {
        code!(on.library, "cuStreamWaitEvent"(on.stream, on.event, 0) as fn(usize, usize, c_uint))
    }),
    ("cuStreamIsCapturing", false, |on| {
        let mut status = 0;
        code!(on.library, "cuStreamIsCapturing"(on.stream, &raw mut status) as fn(usize, *mut c_int))
    }),
    ("cuEventCreate, cuEventDestroy", false, |on| {
        let mut event = 0;
        let code = code!(on.library, "cuEventCreate"(&raw mut event, 2) as fn(*mut usize, c_uint));
        if code == SUCCESS { code!(on.library, "cuEventDestroy_v2"(event) as fn(usize)) } else { code }
    }),
    ("cuStreamCreate, cuStreamDestroy", false, |on| {
        let mut stream = 0;
        let code = code!(on.library, "cuStreamCreate"(&raw mut stream, 1) as fn(*mut usize, c_uint));
        if code == SUCCESS { code!(on.library, "cuStreamDestroy_v2"(stream) as fn(usize)) } else { code }
    }),
];

impl<'a> Beside<'a> {
    /// A context is current.
    fn new(gpu: &'a Gpu) -> Self {
        let (library, context, stream) = (gpu.library(), gpu.context as usize, gpu.new_stream(false) as usize);
        let mut on = Self { library, context, stream, event: 0, module: 0, memory: [0; 2] };
        assert_eq!(code!(library, "cuEventCreate"(&raw mut on.event, 2) as fn(*mut usize, c_uint)), SUCCESS);
        assert_eq!(
            code!(library, "cuModuleLoadData"(&raw mut on.module, PTX.as_ptr().cast()) as fn(*mut usize, *const u8)),
            SUCCESS
        );
        for place in 0..2 {
            let mut address = 0;
            assert_eq!(on.allocate(&mut address), SUCCESS);
            assert_eq!(on.fill(address), SUCCESS);
            on.memory[place] = address;
        }
        assert_eq!(code!(library, "cuEventRecord"(on.event, stream) as fn(usize, usize)), SUCCESS);
        on
    }

    fn allocate(&self, address: &mut u64) -> c_int {
        code!(self.library, "cuMemAllocAsync"(address, 64, self.stream) as fn(*mut u64, usize, usize))
    }

    fn free(&self, address: u64) -> c_int {
        code!(self.library, "cuMemFreeAsync"(address, self.stream) as fn(u64, usize))
    }

    fn fill(&self, address: u64) -> c_int {
        code!(self.library, "cuMemsetD32Async"(address, 1, 16, self.stream) as fn(u64, c_uint, usize, usize))
    }

    fn exchange(&self, mode: &mut c_int) {
        assert_eq!(code!(self.library, "cuThreadExchangeStreamCaptureMode"(mode) as fn(*mut c_int)), SUCCESS);
    }

    /// The code of a call that this thread makes in a mode of its own.
    fn made(&self, mut mode: c_int, call: Call) -> c_int {
        let mut popped = 0usize;
        assert_eq!(code!(self.library, "cuCtxPushCurrent_v2"(self.context) as fn(usize)), SUCCESS);
        self.exchange(&mut mode);
        let code = call(self);
        self.exchange(&mut mode);
        assert_eq!(code!(self.library, "cuCtxPopCurrent_v2"(&raw mut popped) as fn(*mut usize)), SUCCESS);
        code
    }

    /// Gives back what is left: not what the call has destroyed.
    fn end(self, destroyed: &str) {
        let [first, second] = self.memory;
        assert!(destroyed == "cuMemFreeAsync" || self.free(first) == SUCCESS);
        assert_eq!(self.free(second), SUCCESS);
        assert!(
            destroyed == "cuModuleUnload" || code!(self.library, "cuModuleUnload"(self.module) as fn(usize)) == SUCCESS
        );
        assert_eq!(code!(self.library, "cuEventDestroy_v2"(self.event) as fn(usize)), SUCCESS);
        assert_eq!(code!(self.library, "cuStreamDestroy_v2"(self.stream) as fn(usize)), SUCCESS);
    }
}

#[test]
#[ignore = "needs a libcuda"]
fn what_a_capture_forbids_beside_it() {
    let gpu = Gpu::new();
    for (name, is_forbidden, call) in CALLS {
        for mode in [GLOBAL, OWN_THREAD, RELAXED] {
            for (on_its_thread, own_mode) in [(true, GLOBAL), (true, RELAXED), (false, GLOBAL), (false, RELAXED)] {
                let captured = gpu.new_stream(false) as usize;
                let beside = gpu.inside(|| Beside::new(&gpu));
                let begun =
                    gpu.inside(|| code!(gpu.library(), "cuStreamBeginCapture_v2"(captured, mode) as fn(usize, c_int)));
                assert_eq!(begun, SUCCESS);
                let made = || beside.made(own_mode, call);
                let code =
                    if on_its_thread { made() } else { std::thread::scope(|scope| scope.spawn(made).join().unwrap()) };
                let mut graph = 0;
                let ended = gpu.inside(|| {
                    code!(gpu.library(), "cuStreamEndCapture"(captured, &raw mut graph) as fn(usize, *mut usize))
                });

                let reaches = mode == GLOBAL || (mode == OWN_THREAD && on_its_thread);
                let refused = is_forbidden && reaches && own_mode != RELAXED;
                let wanted = if refused { (UNSUPPORTED, INVALIDATED) } else { (SUCCESS, SUCCESS) };
                let what = format!(
                    "{name} in mode {own_mode}, on the capture's thread: {on_its_thread}, a capture in mode {mode}"
                );
                assert_eq!((code, ended), wanted, "{what}");
                gpu.inside(|| {
                    beside.end(if refused { "" } else { name });
                    assert!(graph == 0 || code!(gpu.library(), "cuGraphDestroy"(graph) as fn(usize)) == SUCCESS);
                });
                gpu.destroy_stream(captured as super::driver::Handle);
                gpu.forget_complaints();
            }
        }
    }
    no_complaints(&gpu);
}
