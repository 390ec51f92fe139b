//! A ring of receive buffers that the kernel picks from (`IORING_REGISTER_PBUF_RING`).

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, squeue};

/// The one buffer group of a loop.
pub const GROUP: u16 = 0;

const ENTRIES: u16 = 1024;
const BUFFER_BYTES: usize = 1024;
/// One cache line more than a buffer, so that the first lines of the buffers spread over all cache sets.
const STRIDE_BYTES: usize = BUFFER_BYTES + 64;
const PAGE_BYTES: usize = 4096;

/// The ring and its buffers; they live as long as the process, since the kernel writes into them.
pub struct BufferRing {
    entries: NonNull<BufRingEntry>,
    buffers: NonNull<u8>,
    tail: u16,
}

impl BufferRing {
    /// Registers a full ring as [`GROUP`].
    pub fn register(ring: &IoUring<squeue::Entry>) -> io::Result<Self> {
        let entries = leak_pages(usize::from(ENTRIES) * size_of::<BufRingEntry>()).cast();
        let buffers = leak_pages(usize::from(ENTRIES) * STRIDE_BYTES);
        let mut this = Self { entries, buffers, tail: 0 };
        // SAFETY: `entries` is page-aligned, has room for `ENTRIES` entries and is never freed.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, ENTRIES, GROUP, 0)?;
        }
        for id in 0..ENTRIES {
            this.put_back(id);
        }
        Ok(this)
    }

    /// The address of buffer `id`.
    pub fn address(&self, id: u16) -> *const u8 {
        assert!(id < ENTRIES, "the kernel names only buffers that it was given");
        // SAFETY: the buffers are one allocation of `ENTRIES * STRIDE_BYTES`, and `id` is in range.
        unsafe { self.buffers.as_ptr().add(usize::from(id) * STRIDE_BYTES) }
    }

    /// The first `len` bytes of buffer `id`, which the kernel handed out with a completion and which is not
    /// put back yet.
    pub fn bytes(&self, id: u16, len: usize) -> &[u8] {
        assert!(len <= BUFFER_BYTES, "the kernel fills no more than a buffer");
        // SAFETY: in range by the two asserts, initialised by `alloc_zeroed`; the kernel does not write into
        // a buffer between its completion and `put_back`, which takes `&mut self` and so ends this borrow.
        unsafe { std::slice::from_raw_parts(self.address(id), len) }
    }

    /// Gives buffer `id` back to the kernel.
    pub fn put_back(&mut self, id: u16) {
        let address = self.address(id) as u64;
        // SAFETY: the index is masked into the ring; this thread is the only writer of entries, and the
        // kernel reads an entry only once the tail has passed it.
        let entry = unsafe { &mut *self.entries.as_ptr().add(usize::from(self.tail & (ENTRIES - 1))) };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `entries` is the base of a registered ring, whose tail is aligned and shared with the
        // kernel, hence atomic.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Zeroed memory for the life of the process.
fn leak_pages(bytes: usize) -> NonNull<u8> {
    let layout = Layout::from_size_align(bytes, PAGE_BYTES).expect("a constant, page-aligned size");
    // SAFETY: the layout's size is not zero.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}
