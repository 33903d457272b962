//! Who touched which word since when: finds two threads that touch the same byte, one of them writing, with nothing that orders them.
//!
//! Device memory counts in executed operations (kernels, copies, sets), shared memory in intervals between barriers; both are an
//! `epoch` here. A word that only one epoch's threads read or one thread writes is kept as such; words whose bytes have different
//! owners, and those that atomics touch, are split into four bytes.

/// A thread that made an access, and the instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// One more than the thread's number in the launch; 0 for none.
    pub thread: u32,
    pub at: u32,
}

/// What is known of four bytes: sixteen bytes, four words to a line of the cache.
#[derive(Clone, Copy, Default)]
#[repr(C, align(16))]
pub struct Word {
    /// The epoch times 16, plus flags.
    tag: u32,
    /// The thread that had it alone, or the first of several readers; of a split word, one more than the place of its four bytes.
    thread: u32,
    /// The second reader.
    other: u32,
    /// The instructions of those two: of a thread that wrote, its last write.
    at: [u16; 2],
}

const READ: u32 = 1;
const WRITTEN: u32 = 2;
/// Read by several threads and written by none: every byte of it, so that any write collides.
const SHARED: u32 = 4;
const SPLIT: u32 = 8;
const FLAGS: u32 = 15;

#[derive(Clone, Copy, Default)]
struct Byte {
    writer: Mark,
    reader: Mark,
    other: Mark,
    atomic: Mark,
    other_atomic: Mark,
    strong: Mark,
    other_strong: Mark,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    Atomic,
    /// A volatile read: may race with atomics.
    StrongRead,
}

/// What an access collides with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub other: Mark,
    pub kind: Kind,
    /// The epoch of the other access.
    pub epoch: u32,
}

/// Whether everything of an epoch comes before the current one.
pub trait Order {
    /// Everything up to this epoch does.
    fn floor(&self) -> u32;

    fn before(&self, epoch: u32) -> bool;
}

/// For shared memory: barriers order all.
pub struct Always;

impl Order for Always {
    #[inline(always)]
    fn floor(&self) -> u32 {
        u32::MAX
    }

    fn before(&self, _: u32) -> bool {
        true
    }
}

/// Who makes an access, and what comes before it.
pub struct By<'a, O> {
    pub mark: Mark,
    pub epoch: u32,
    pub order: &'a O,
}

impl<O> Clone for By<'_, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<O> Copy for By<'_, O> {}

pub struct Shadow {
    words: *mut Word,
    count: usize,
    split: Vec<[Byte; 4]>,
    /// The epochs that split words are of.
    split_in: Vec<u32>,
}

// SAFETY: the words belong to one arena or block, which only one thread uses at a time (under the driver's lock).
unsafe impl Send for Shadow {}

impl Byte {
    fn touch(&mut self, kind: Kind, mark: Mark, epoch: u32) -> Result<(), Conflict> {
        let foreign = |other: Mark| other.thread != 0 && other.thread != mark.thread;
        let hit = |other: Mark, kind: Kind| {
            if foreign(other) { Err(Conflict { other, kind, epoch }) } else { Ok(()) }
        };
        hit(self.writer, Kind::Write)?;
        if matches!(kind, Kind::Write | Kind::Atomic) {
            hit(self.reader, Kind::Read)?;
            hit(self.other, Kind::Read)?;
        }
        if matches!(kind, Kind::Write | Kind::Read) {
            hit(self.atomic, Kind::Atomic)?;
            hit(self.other_atomic, Kind::Atomic)?;
        }
        if kind == Kind::Write {
            hit(self.strong, Kind::StrongRead)?;
            hit(self.other_strong, Kind::StrongRead)?;
        }
        let note = |first: &mut Mark, second: &mut Mark| {
            if first.thread == 0 {
                *first = mark;
            } else if foreign(*first) && second.thread == 0 {
                *second = mark;
            }
        };
        match kind {
            Kind::Read => note(&mut self.reader, &mut self.other),
            Kind::Write => self.writer = mark,
            Kind::Atomic => note(&mut self.atomic, &mut self.other_atomic),
            Kind::StrongRead => note(&mut self.strong, &mut self.other_strong),
        }
        Ok(())
    }
}

impl Shadow {
    /// # Safety
    /// `words` points at `count` words that live as long as this and that nothing else uses.
    pub unsafe fn new(words: *mut Word, count: usize) -> Shadow {
        Shadow { words, count, split: Vec::new(), split_in: Vec::new() }
    }

    /// The epochs that split words are of.
    pub fn split_epochs(&self) -> &[u32] {
        &self.split_in
    }

    /// Forgets the split words; their epochs must be ordered before all that come.
    pub fn forget_split(&mut self) {
        self.split.clear();
        self.split_in.clear();
    }

    /// Notes an access of `bytes` bytes at `offset`, which lie inside; at most 4 of one word unless whole words.
    #[inline(always)]
    pub fn touch<O: Order>(&mut self, offset: usize, bytes: usize, kind: Kind, by: By<O>) -> Result<(), Conflict> {
        debug_assert!((offset + bytes).div_ceil(4) <= self.count);
        let tag = by.epoch << 4;
        if bytes < 4 || !matches!(kind, Kind::Read | Kind::Write) {
            // SAFETY: the caller promises that the bytes lie inside.
            let flags = unsafe { (*self.words.add(offset / 4)).tag } ^ tag;
            if kind == Kind::Read && flags <= FLAGS && flags & SHARED != 0 {
                return Ok(());
            }
            return self.touch_bytes(offset, bytes, kind, by);
        }
        for index in offset / 4..(offset + bytes) / 4 {
            // SAFETY: as above.
            let word = unsafe { &mut *self.words.add(index) };
            let flags = word.tag ^ tag;
            if flags > FLAGS && (word.tag >> 4 <= by.order.floor() || by.order.before(word.tag >> 4)) {
                *word = Word::alone(tag, kind, by.mark);
            } else if flags > FLAGS {
                self.touch_slowly(index, kind, by)?;
            } else if kind == Kind::Read && flags & SHARED != 0 {
            } else if kind == Kind::Read && flags & SPLIT == 0 && word.thread == by.mark.thread {
                word.tag |= READ;
            } else if kind == Kind::Write && flags & (SPLIT | SHARED) == 0 && word.thread == by.mark.thread {
                word.tag |= WRITTEN;
                word.at[0] = by.mark.at as u16;
            } else {
                self.touch_slowly(index, kind, by)?;
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn touch_slowly<O: Order>(&mut self, index: usize, kind: Kind, by: By<O>) -> Result<(), Conflict> {
        // SAFETY: as in touch.
        let word = unsafe { *self.words.add(index) };
        if word.tag >> 4 != by.epoch {
            self.collide_with_old(word, kind, 0..4, by)?;
            self.put(index, Word::alone(by.epoch << 4, kind, by.mark));
            return Ok(());
        }
        if word.tag & SPLIT != 0 {
            return self.touch_bytes(index * 4, 4, kind, by);
        }
        word.byte().touch(kind, by.mark, by.epoch)?;
        // What remains without a collision is a second reader.
        let at = [word.at[0], by.mark.at as u16];
        self.put(index, Word { tag: word.tag | SHARED, thread: word.thread, other: by.mark.thread, at });
        Ok(())
    }

    fn put(&mut self, index: usize, word: Word) {
        // SAFETY: as in touch.
        unsafe { *self.words.add(index) = word };
    }

    /// Compares an access with what is known of a word from an older epoch, unless that is ordered before.
    fn collide_with_old<O: Order>(
        &mut self,
        word: Word,
        kind: Kind,
        lanes: std::ops::Range<usize>,
        by: By<O>,
    ) -> Result<(), Conflict> {
        let epoch = word.tag >> 4;
        if epoch == 0 || by.order.before(epoch) {
            return Ok(());
        }
        // Threads of different operations are different: a mark that is no thread's.
        let stranger = Mark { thread: u32::MAX, at: 0 };
        if word.tag & SPLIT == 0 {
            return word.byte().touch(kind, stranger, epoch);
        }
        self.split[word.thread as usize - 1][lanes].iter_mut().try_for_each(|byte| byte.touch(kind, stranger, epoch))
    }

    #[inline(never)]
    fn touch_bytes<O: Order>(&mut self, offset: usize, bytes: usize, kind: Kind, by: By<O>) -> Result<(), Conflict> {
        let (mut at, end) = (offset, offset + bytes);
        while at < end {
            let index = at / 4;
            let upto = end.min(index * 4 + 4);
            let lanes = at - index * 4..upto - index * 4;
            // SAFETY: as in touch.
            let mut word = unsafe { *self.words.add(index) };
            if word.tag >> 4 != by.epoch {
                self.collide_with_old(word, kind, lanes.clone(), by)?;
                word = Word { tag: by.epoch << 4, ..Word::default() };
            }
            if word.tag & SPLIT == 0 {
                self.split.push([word.byte(); 4]);
                if self.split_in.last() != Some(&by.epoch) {
                    self.split_in.push(by.epoch);
                }
                word = Word { tag: by.epoch << 4 | SPLIT, thread: self.split.len() as u32, other: 0, at: [0; 2] };
            }
            let four = &mut self.split[word.thread as usize - 1];
            for byte in &mut four[lanes] {
                byte.touch(kind, by.mark, by.epoch)?;
            }
            if kind == Kind::Read && four.iter().all(Byte::is_shared) {
                word.tag |= SHARED;
            }
            self.put(index, word);
            at = upto;
        }
        Ok(())
    }
}

impl Word {
    #[inline(always)]
    fn alone(tag: u32, kind: Kind, mark: Mark) -> Word {
        let flag = if kind == Kind::Write { WRITTEN } else { READ };
        Word { tag: tag | flag, thread: mark.thread, other: 0, at: [mark.at as u16, 0] }
    }

    /// What is known of each byte of a word that is not split.
    fn byte(&self) -> Byte {
        let first = Mark { thread: self.thread, at: u32::from(self.at[0]) };
        let second = Mark { thread: self.other, at: u32::from(self.at[1]) };
        let is = |flag: u32, mark: Mark| {
            if self.tag & flag != 0 { mark } else { Mark::default() }
        };
        Byte { writer: is(WRITTEN, first), reader: is(READ, first), other: is(SHARED, second), ..Byte::default() }
    }
}

impl Byte {
    fn is_shared(&self) -> bool {
        self.other.thread != 0 && self.writer.thread | self.atomic.thread | self.strong.thread == 0
    }
}
