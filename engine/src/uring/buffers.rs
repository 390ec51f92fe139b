//! The receive buffers of one shard: rings that the kernel picks from whenever bytes arrive, so that a
//! connection owns none.
//!
//! Where the kernel can (Linux 6.12), it fills a buffer bit by bit: what a receive leaves of it, the next one
//! takes. So a buffer of 4 KiB has room for a hundred heartbeats, and few buffers serve many connections.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::VecDeque;
use std::io;
use std::ops::{Index, IndexMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use shard::ConnId;

use super::ring::Completion;

/// Connections that share buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Group {
    /// Those that came through the listener.
    Accepted,
    /// Those that the core opened. They go on while the core pushes the others back and their bytes hold all
    /// their buffers.
    Opened,
}

impl Group {
    pub(super) const ALL: [Self; 2] = [Self::Accepted, Self::Opened];

    /// The kernel's name for it.
    pub(super) const fn id(self) -> u16 {
        self as u16
    }
}

/// One for each group.
#[derive(Default)]
pub(super) struct PerGroup<T>([T; Group::ALL.len()]);

impl<T> Index<Group> for PerGroup<T> {
    type Output = T;

    fn index(&self, group: Group) -> &T {
        &self.0[group as usize]
    }
}

impl<T> IndexMut<Group> for PerGroup<T> {
    fn index_mut(&mut self, group: Group) -> &mut T {
        &mut self.0[group as usize]
    }
}

const PAGE_BYTES: usize = 4096;
/// `IOU_PBUF_RING_INC` of io_uring_register_buf_ring(3): a buffer is filled bit by bit.
const INCREMENTAL: u16 = 2;
/// What a receive takes of a buffer that is filled bit by bit, as far as is guessed.
const USUAL_RECEIVE_BYTES: u32 = 256;

pub(super) struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    size_bytes: u32,
    tail: u16,
    /// How far each buffer is.
    fills: Vec<Fill>,
    is_incremental: bool,
    /// Connections whose receive found no buffer.
    pub(super) starved: VecDeque<ConnId>,
}

/// How far a buffer is.
#[derive(Clone, Copy, Default)]
struct Fill {
    /// Where the next bytes land.
    end: u32,
    /// Parts of it that the core has not seen.
    parts: u16,
    /// The kernel is through with it.
    is_full: bool,
}

impl Buffers {
    /// Whether buffers can be asked for like that.
    pub(super) fn check(count: u16, size_bytes: u32) -> io::Result<()> {
        if !count.is_power_of_two() || count > 1 << 15 || size_bytes == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{count} receive buffers of {size_bytes} bytes: a power of two up to 32768, of 1 byte or more"
                ),
            ));
        }
        Ok(())
    }

    /// Registers `count` buffers, a power of two, for `group` with the ring behind `submitter`.
    ///
    /// The caller drops the buffers only after the ring has nothing in flight, or leaks them.
    pub(super) fn register(
        submitter: &Submitter<'_>,
        group: Group,
        count: u16,
        size_bytes: u32,
    ) -> io::Result<Self> {
        Self::check(count, size_bytes)?;
        let entries = allocate(entries_layout(count)).cast();
        let memory = allocate(memory_layout(count, size_bytes));
        let fills = vec![Fill::default(); count.into()];
        let (tail, starved) = (0, VecDeque::new());
        let mut buffers =
            Self { entries, memory, count, size_bytes, tail, fills, is_incremental: true, starved };
        for id in 0..count {
            buffers.give_back(id);
        }
        let register = |flags| {
            // SAFETY: the entries are page-aligned, initialised, and live as long as the ring may use them
            // (see above).
            unsafe {
                submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, count, group.id(), flags)
            }
        };
        if register(INCREMENTAL).is_err() {
            buffers.is_incremental = false;
            register(0)?;
        }
        Ok(buffers)
    }

    pub(super) fn count(&self) -> usize {
        self.count as usize
    }

    /// Takes out a connection that a buffer may have room for, while so many buffers are full and wait to be
    /// seen. To arm more receives than there is room for would only end them again.
    pub(super) fn next_starved(&mut self, full: usize, armed: usize) -> Option<ConnId> {
        let receives = if self.is_incremental { (self.size_bytes / USUAL_RECEIVE_BYTES).max(1) } else { 1 };
        let room = self.count().saturating_sub(full) * receives as usize;
        if armed >= room {
            return None;
        }
        self.starved.pop_front()
    }

    /// Notes where in its buffer a completion's bytes are. In the order of completions, as the kernel says
    /// only how many they are.
    pub(super) fn place(&mut self, completion: &mut Completion) {
        let fill = completion.buffer().and_then(|id| self.fills.get_mut(usize::from(id)));
        let Some(fill) = fill else { return };
        completion.place = fill.end;
        fill.end += completion.len();
        fill.parts += 1;
        // Not by the flag that says so: some kernels clear it at the end of a stream, which takes nothing.
        fill.is_full = !self.is_incremental || fill.end >= self.size_bytes;
    }

    /// The bytes that a completion brought. `None` for what no kernel says.
    pub(super) fn get(&self, completion: Completion) -> Option<&[u8]> {
        let id = completion.buffer().filter(|id| *id < self.count)?;
        let (start, len) = (completion.place as usize, completion.len() as usize);
        if start + len > self.size_bytes as usize {
            return None;
        }
        // SAFETY: in bounds, by the check above. The kernel writes to a part of a buffer only before the
        // completion that names it, and to all of it again after `give_back`, which takes `&mut self` and so
        // ends this borrow.
        Some(unsafe { std::slice::from_raw_parts(self.start_of(id).add(start), len) })
    }

    /// The core has seen what a completion brought. Once for each that was placed; with the last part of a
    /// full buffer, the kernel may use it again.
    pub(super) fn done(&mut self, completion: Completion) {
        let Some(id) = completion.buffer() else { return };
        let Some(fill) = self.fills.get_mut(usize::from(id)) else { return };
        fill.parts = fill.parts.saturating_sub(1);
        if fill.is_full && fill.parts == 0 {
            *fill = Fill::default();
            self.give_back(id);
        }
    }

    /// Lets the kernel use all of a buffer, of which it uses nothing.
    fn give_back(&mut self, id: u16) {
        let place = (self.tail & (self.count - 1)) as usize;
        // SAFETY: `place` is below `count`. The kernel reads no entry from the tail on.
        let entry = unsafe { &mut *self.entries.as_ptr().add(place) };
        entry.set_addr(self.start_of(id) as u64);
        entry.set_len(self.size_bytes);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `entries` is the base of the ring; its tail is valid, aligned, and read by the kernel
        // atomically.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release); // the entry before the tail
    }

    fn start_of(&self, id: u16) -> *mut u8 {
        // SAFETY: the callers check that `id` is below `count`, so this stays within `memory`.
        unsafe { self.memory.as_ptr().add(id as usize * self.size_bytes as usize) }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: both were allocated with these layouts, and the ring has nothing in flight that could write
        // to them.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), entries_layout(self.count));
            dealloc(self.memory.as_ptr(), memory_layout(self.count, self.size_bytes));
        }
    }
}

fn entries_layout(count: u16) -> Layout {
    layout(count as usize * size_of::<BufRingEntry>())
}

fn memory_layout(count: u16, size_bytes: u32) -> Layout {
    layout(count as usize * size_bytes as usize)
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, PAGE_BYTES).expect("2^15 buffers of 2^32 bytes fit an address")
}

/// Touches every page, so that the memory is there before the first connection, and not one page fault at a
/// time.
fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: the layout is not empty: `register` asks for one buffer of one byte at least.
    let memory = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
    for offset in (0..layout.size()).step_by(PAGE_BYTES) {
        // SAFETY: within the allocation. Volatile, or the compiler would see that the byte is zero already.
        unsafe { memory.add(offset).write_volatile(0) };
    }
    memory
}
