//! The receive buffers of one shard: rings that the kernel picks from whenever bytes arrive, so that a
//! connection owns none.
//!
//! From Linux 6.12 on, the kernel fills a buffer incrementally: the next receive takes what one leaves of it.
//! So a buffer of 4 KiB has room for a hundred heartbeats, and few buffers serve many connections.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::VecDeque;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use shard::ConnId;

use super::group::Group;
use super::ring::Completion;

const PAGE_BYTES: usize = 4096;
/// `IOU_PBUF_RING_INC` of io_uring_register_buf_ring(3): buffers are filled incrementally.
const INCREMENTAL: u16 = 2;
/// The size of a receive before any has come.
const FIRST_RECEIVE_BYTES: u32 = 256;

pub(super) struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    size_bytes: u32,
    tail: u16,
    /// How far each buffer is.
    fills: Vec<Fill>,
    is_incremental: bool,
    /// The mean size of the last receives.
    usual_bytes: u32,
    /// Connections whose receive found no buffer.
    pub(super) starved: VecDeque<ConnId>,
}

/// How far a buffer is.
#[derive(Clone, Copy, Default)]
struct Fill {
    /// Where the next bytes land.
    end: u32,
    /// Parts of it that the core has not seen.
    parts: u32,
    /// Whether the kernel is done with it.
    is_full: bool,
}

impl Buffers {
    /// Whether such buffers are possible.
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
        let mut buffers = Self {
            entries,
            memory,
            count,
            size_bytes,
            tail: 0,
            fills: vec![Fill::default(); count.into()],
            is_incremental: true,
            usual_bytes: FIRST_RECEIVE_BYTES,
            starved: VecDeque::new(),
        };
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

    /// Takes out a connection that a buffer may have room for, while `full` buffers wait to be handled. More
    /// receives than there is room for would only end again.
    pub(super) fn next_starved(&mut self, full: usize, armed: usize) -> Option<ConnId> {
        let receives =
            if self.is_incremental { (self.size_bytes / self.usual_bytes.max(1)).max(1) } else { 1 };
        let room = self.count().saturating_sub(full) * receives as usize;
        if armed >= room {
            return None;
        }
        self.starved.pop_front()
    }

    /// Notes where in its buffer a completion's bytes are. Call it in the order of completions, as the kernel
    /// reports only their number.
    pub(super) fn place(&mut self, completion: &mut Completion) {
        let fill = completion.buffer().and_then(|id| self.fills.get_mut(usize::from(id)));
        let Some(fill) = fill else { return };
        completion.place = fill.end;
        fill.end += completion.len();
        fill.parts += 1;
        // Else bytes would be taken for those of another connection.
        assert!(fill.end <= self.size_bytes, "the kernel fills a buffer in the order of its completions");
        // The kernel's flag does not count: it is missing at the end of some streams (liburing issue 1553).
        fill.is_full = !self.is_incremental || fill.end == self.size_bytes;
        self.usual_bytes = (7 * self.usual_bytes + completion.len()) / 8;
    }

    /// The bytes that a completion brought. `None` if out of bounds, which no kernel reports.
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

    /// Gives a whole unused buffer to the kernel.
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
