//! A worker thread. Rust's own `spawn` leaves a thread-local destructor behind on the thread that calls it, so that glibc keeps
//! the library mapped until that thread ends, whatever the host unloads; a POSIX thread leaves nothing.

#[cfg(unix)]
use std::ffi::c_void;
use std::io;

/// Joined when it is dropped.
#[derive(Debug)]
pub struct Thread {
    #[cfg(unix)]
    id: libc::pthread_t,
    #[cfg(not(unix))]
    handle: Option<std::thread::JoinHandle<()>>,
}

#[cfg(unix)]
impl Thread {
    /// Runs the body, which does not panic.
    pub fn start<F: FnOnce() + Send + 'static>(body: F) -> io::Result<Self> {
        extern "C" fn run<F: FnOnce()>(body: *mut c_void) -> *mut c_void {
            // SAFETY: the box that `start` gave away, once.
            let body = unsafe { Box::from_raw(body.cast::<F>()) };
            body();
            std::ptr::null_mut()
        }
        let body = Box::into_raw(Box::new(body));
        let mut id = std::mem::MaybeUninit::uninit();
        // SAFETY: the thread owns the body from here on, if it starts.
        match unsafe { libc::pthread_create(id.as_mut_ptr(), std::ptr::null(), run::<F>, body.cast()) } {
            0 => {
                // SAFETY: written by a successful call.
                let id = unsafe { id.assume_init() };
                // What the host's tools show; nothing depends on it.
                // SAFETY: a thread that was not joined yet; a static name.
                #[cfg(target_os = "linux")]
                unsafe {
                    libc::pthread_setname_np(id, c"pvera".as_ptr());
                }
                Ok(Self { id })
            }
            code => {
                // SAFETY: no thread has it.
                drop(unsafe { Box::from_raw(body) });
                Err(io::Error::from_raw_os_error(code))
            }
        }
    }
}

#[cfg(unix)]
impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: a joinable thread, joined once.
        unsafe { libc::pthread_join(self.id, std::ptr::null_mut()) };
    }
}

#[cfg(not(unix))]
impl Thread {
    /// Runs the body, which does not panic.
    pub fn start<F: FnOnce() + Send + 'static>(body: F) -> io::Result<Self> {
        std::thread::Builder::new().spawn(body).map(|handle| Self { handle: Some(handle) })
    }
}

#[cfg(not(unix))]
impl Drop for Thread {
    fn drop(&mut self) {
        let _ = self.handle.take().map(std::thread::JoinHandle::join);
    }
}
