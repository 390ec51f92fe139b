//! The receive buffers of one shard: rings that the kernel picks from whenever bytes arrive, so that a
//! connection owns none.
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

pub(super) struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    size_bytes: u32,
    tail: u16,
    /// Connections whose receive found no buffer.
    pub(super) starved: VecDeque<ConnId>,
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
        let mut buffers = Self { entries, memory, count, size_bytes, tail: 0, starved: VecDeque::new() };
        for id in 0..count {
            buffers.give_back(id);
        }
        // SAFETY: the entries are page-aligned, initialised, and live as long as the ring may use them (see
        // above).
        unsafe { submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, count, group.id(), 0)? };
        Ok(buffers)
    }

    pub(super) fn count(&self) -> usize {
        self.count as usize
    }

    /// Takes out a connection that a buffer may be free for, while so many completions wait, each of which
    /// may hold one. To arm more receives than there are buffers would only end them again.
    pub(super) fn next_starved(&mut self, waiting: usize, armed: usize) -> Option<ConnId> {
        if waiting + armed >= self.count() {
            return None;
        }
        self.starved.pop_front()
    }

    /// The first `len` bytes of the buffer that a completion named. `None` for what no kernel says.
    pub(super) fn get(&self, id: u16, len: usize) -> Option<&[u8]> {
        if id >= self.count || len > self.size_bytes as usize {
            return None;
        }
        // SAFETY: in bounds, by the check above. The kernel writes to a buffer only between `give_back` and
        // the completion that names it, and `give_back` takes `&mut self`, which ends this borrow.
        Some(unsafe { std::slice::from_raw_parts(self.start_of(id), len) })
    }

    /// Lets the kernel use the buffer again. Once for each completion that named it.
    pub(super) fn give_back(&mut self, id: u16) {
        if id >= self.count {
            return;
        }
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
