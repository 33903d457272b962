//! What the streams of one CUDA context share: the kernels' code, and copies in device memory of what never changes on the
//! host; given back in the order of the streams that used them, without waiting for any.

use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::driver::{Address, Context, Driver, Event, Stream};
use super::kernels::Code;
use crate::backend::lock::lock;
use crate::error::{Error, Result};
use crate::fail;

/// The code of one CUDA context, and where its copies are made and given back: streams of the library's own.
#[derive(Debug)]
pub struct House {
    driver: &'static Driver,
    context: Context,
    /// Tells contexts apart, also where a freed one's address is used again.
    id: u64,
    /// Where copies are made, by calls that wait for it: it waits for nobody.
    uploads: Stream,
    /// Where they are given back, behind the streams that used them. Nobody waits for it.
    releases: Stream,
    code: Mutex<Code>,
    /// Copies nobody needs any more, that could not be given back while a stream was being captured.
    waiting: Mutex<Vec<Resident>>,
    /// Released after the stream.
    _primary: Option<Arc<Primary>>,
}

// SAFETY: handles of libcuda may be used on any thread.
unsafe impl Send for House {}
// SAFETY: as above.
unsafe impl Sync for House {}

/// A stream that work with copies is queued on.
#[derive(Debug)]
pub struct User {
    driver: &'static Driver,
    context: Context,
    stream: Stream,
    event: Event,
    /// Set when all its work is done, and it may be gone.
    closed: Mutex<bool>,
}

// SAFETY: as for `House`.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

#[derive(Debug)]
struct Resident {
    address: Address,
    /// Dropped before the house, which may be what holds the context of their events.
    users: Vec<Arc<User>>,
    house: Arc<House>,
}

/// The copies of one piece of host memory.
#[derive(Debug, Default)]
pub struct Residents {
    copies: Mutex<Vec<Resident>>,
}

/// A retained primary context.
#[derive(Debug)]
pub struct Primary {
    driver: &'static Driver,
    device: i32,
    context: Context,
}

// SAFETY: as for `House`.
unsafe impl Send for Primary {}
// SAFETY: as above.
unsafe impl Sync for Primary {}

impl Primary {
    pub fn retain(driver: &'static Driver, device: i32) -> Result<Self> {
        let _relaxed = driver.relax();
        Ok(Self { driver, device, context: driver.retain_primary(device)? })
    }

    pub fn context(&self) -> Context {
        self.context
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        let _relaxed = self.driver.relax();
        self.driver.release_primary(self.device);
    }
}

/// The houses that stand, by id, so that the streams of one CUDA context share one.
static HOUSES: Mutex<Vec<(u64, Weak<House>)>> = Mutex::new(Vec::new());

/// Code that a driver did not unload, by the id of its context, whose next house tries again.
static LEFT: Mutex<Vec<(u64, Code)>> = Mutex::new(Vec::new());

fn take_left(id: u64) -> Code {
    let mut left = lock(&LEFT);
    let Some(place) = left.iter().position(|(known, _)| *known == id) else { return Code::default() };
    let (_, code) = left.swap_remove(place);
    // Nothing is left when the library is unloaded.
    left.shrink_to_fit();
    code
}

impl House {
    /// That of a CUDA context, which is current; `primary` where it is a retained primary context.
    pub fn of(driver: &'static Driver, context: Context, primary: Option<Arc<Primary>>) -> Result<Arc<Self>> {
        let id = driver.id_of(context)?;
        let mut houses = lock(&HOUSES);
        // Of no other house is there a reference here: its end would wait for the lock.
        if let Some(house) = houses.iter().filter(|(known, _)| *known == id).find_map(|(_, house)| house.upgrade()) {
            return Ok(house);
        }
        houses.try_reserve(1).map_err(|_| Error::out_of_memory())?;
        let uploads = driver.new_stream()?;
        let releases = driver.new_stream().inspect_err(|_| driver.destroy_stream(uploads))?;
        let (code, waiting) = (Mutex::new(take_left(id)), Mutex::default());
        let house = Arc::new(Self { driver, context, id, uploads, releases, code, waiting, _primary: primary });
        houses.push((id, Arc::downgrade(&house)));
        Ok(house)
    }

    /// Where work goes that waits for nothing that a caller has queued, and that calls may wait for.
    pub fn uploads(&self) -> Stream {
        self.uploads
    }

    /// The kernels, loaded when they are not yet. Its context is current.
    pub fn code(&self) -> Result<MutexGuard<'_, Code>> {
        let mut code = lock(&self.code);
        code.load(self.driver)?;
        Ok(code)
    }

    /// Gives back what can be.
    pub fn sweep(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|copy| !copy.give_back());
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let mut houses = lock(&HOUSES);
        houses.retain(|(_, house)| house.strong_count() > 0);
        // Nothing is left when the library is unloaded.
        houses.shrink_to_fit();
        drop(houses);
        if let Ok(_entered) = self.driver.enter(self.context) {
            self.driver.destroy_stream(self.uploads);
            self.driver.destroy_stream(self.releases);
            // All kernels have run: each device waited for its own when it closed.
            let mut code = lock(&self.code);
            code.unload(self.driver);
            let mut left = lock(&LEFT);
            if !code.is_unloaded() && left.try_reserve(1).is_ok() {
                left.push((self.id, std::mem::take(&mut *code)));
            }
        }
    }
}

impl User {
    /// The context is current.
    pub fn new(driver: &'static Driver, context: Context, stream: Stream) -> Result<Arc<Self>> {
        let event = driver.new_event()?;
        Ok(Arc::new(Self { driver, context, stream, event, closed: Mutex::new(false) }))
    }

    /// All work is done, and the stream may go.
    pub fn close(&self) {
        *lock(&self.closed) = true;
    }

    /// Lets a stream wait for all that uses copies; false while that cannot be told.
    fn hold_up(&self, later: Stream) -> bool {
        let closed = lock(&self.closed);
        if *closed {
            return true;
        }
        // An error is the legacy stream's, while a stream that it would wait for is captured.
        let capturing = self.driver.is_capturing(self.stream).unwrap_or(true);
        !capturing && self.driver.order(self.stream, self.event, later).is_ok()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Ok(_entered) = self.driver.enter(self.context) {
            self.driver.destroy_event(self.event);
        }
    }
}

impl Resident {
    /// False when it has to wait.
    fn give_back(&self) -> bool {
        let House { driver, context, releases, .. } = &*self.house;
        // A context that is gone took its memory along.
        let Ok(_entered) = driver.enter(*context) else { return true };
        if !self.users.iter().all(|user| user.hold_up(*releases)) {
            return false;
        }
        // SAFETY: the stream waits for all users.
        let _ = unsafe { driver.release(self.address, *releases) };
        true
    }
}

impl Residents {
    /// Where the copy lies in the context of `house`; made when there is none. `user` is the stream that will use it.
    pub fn address(&self, house: &Arc<House>, user: &Arc<User>, bytes: &[u8], capturing: bool) -> Result<Address> {
        let mut copies = lock(&self.copies);
        if let Some(copy) = copies.iter_mut().find(|copy| copy.house.id == house.id) {
            if !copy.users.iter().any(|known| Arc::ptr_eq(known, user)) {
                copy.users.retain(|user| !*lock(&user.closed));
                copy.users.try_reserve(1).map_err(|_| Error::out_of_memory())?;
                copy.users.push(user.clone());
            }
            return Ok(copy.address);
        }
        if capturing {
            fail!(
                State,
                "a store or an adapter has no copy on the device yet, and none can be made while the stream is being captured; run the call once before the capture"
            );
        }
        copies.try_reserve(1).map_err(|_| Error::out_of_memory())?;
        let (driver, stream) = (house.driver, house.uploads);
        let address = driver.allocate(bytes.len().max(1), stream)?;
        // SAFETY: allocated with this size.
        let copied = unsafe { driver.copy_to_device(address, bytes, stream) };
        // Any stream may use it from now on.
        if let Err(error) = copied.and_then(|()| driver.wait_for(stream)) {
            // SAFETY: nobody has it.
            let _ = unsafe { driver.release(address, stream) };
            return Err(error);
        }
        copies.push(Resident { address, users: vec![user.clone()], house: house.clone() });
        Ok(address)
    }
}

impl Drop for Residents {
    fn drop(&mut self) {
        for copy in lock(&self.copies).drain(..) {
            if !copy.give_back() {
                let house = copy.house.clone();
                lock(&house.waiting).push(copy);
            }
        }
    }
}
