//! The batches in flight.

use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::Fd;
use shard::SendBatch;

/// No batch.
pub(super) const NONE: u32 = u32::MAX;

/// The kernel goes on by itself after a short write; a peer that is gone raises no signal.
const FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
/// A batch that grew larger gives its memory back after use: a burst of large ones leaves nothing behind.
const RETAINED_BYTES_MAX: usize = 4096;
/// How many pieces one `sendmsg` takes.
const PIECES_MAX: usize = 1024;

/// Batches by number. One stays at its place, with its bytes, from [`Sends::add`] to [`Sends::remove`].
#[derive(Default)]
pub(super) struct Sends {
    sends: Vec<Send>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Send {
    batch: SendBatch,
    written: usize,
    /// For a batch in pieces; boxed, so that the kernel finds it where it was.
    gather: Option<Box<Gather>>,
}

struct Gather {
    header: libc::msghdr,
    pieces: Vec<libc::iovec>,
}

impl Sends {
    /// An empty batch to fill; it goes back by [`Sends::add`].
    pub(super) fn batch(&mut self) -> SendBatch {
        match self.free.last() {
            Some(&number) => std::mem::take(&mut self.sends[number as usize].batch),
            None => SendBatch::new(),
        }
    }

    /// Keeps `batch` until it is written.
    pub(super) fn add(&mut self, batch: SendBatch) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.sends.push(Send::default());
            self.sends.len() as u32 - 1
        });
        let send = &mut self.sends[number as usize];
        send.batch = batch;
        send.written = 0;
        number
    }

    /// Takes back a batch that stayed empty.
    pub(super) fn put_back(&mut self, batch: SendBatch) {
        if let Some(&number) = self.free.last() {
            self.sends[number as usize].batch = batch;
        }
    }

    /// The entry that writes what is not yet written. It points into the batch.
    pub(super) fn entry(&mut self, number: u32, fd: Fd) -> Entry {
        let send = &mut self.sends[number as usize];
        if let Some(bytes) = send.batch.contiguous() {
            let rest = &bytes[send.written..];
            let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
            return opcode::Send::new(fd, rest.as_ptr(), len).flags(FLAGS).build();
        }
        let gather = send.gather.get_or_insert_with(Gather::new);
        gather.fill(&send.batch, send.written);
        opcode::SendMsg::new(fd, &gather.header).flags(FLAGS as u32).build()
    }

    /// Notes that `bytes` more are written. Returns the size of a batch that is complete.
    pub(super) fn wrote(&mut self, number: u32, bytes: usize) -> Option<usize> {
        let send = &mut self.sends[number as usize];
        send.written += bytes;
        (send.written >= send.batch.len()).then_some(send.batch.len())
    }

    /// Frees the batch, written or not. The kernel must be done with it.
    pub(super) fn remove(&mut self, number: u32) {
        let send = &mut self.sends[number as usize];
        if send.batch.len() > RETAINED_BYTES_MAX {
            *send = Send::default();
        } else {
            send.batch.clear();
        }
        self.free.push(number);
    }
}

impl Gather {
    fn new() -> Box<Self> {
        // All zeros: no address, no control data.
        let header = libc::msghdr {
            msg_name: std::ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: std::ptr::null_mut(),
            msg_iovlen: 0,
            msg_control: std::ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        };
        Box::new(Self { header, pieces: Vec::new() })
    }

    /// Points to all of `batch` but its first `skip` bytes.
    fn fill(&mut self, batch: &SendBatch, mut skip: usize) {
        self.pieces.clear();
        for segment in batch.segments() {
            let skipped = skip.min(segment.len());
            skip -= skipped;
            let rest = &segment[skipped..];
            if !rest.is_empty() && self.pieces.len() < PIECES_MAX {
                self.pieces
                    .push(libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() });
            }
        }
        self.header.msg_iov = self.pieces.as_mut_ptr();
        self.header.msg_iovlen = self.pieces.len() as _;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn pieces_cover_what_is_not_written() {
        let mut batch = SendBatch::new();
        batch.copy(b"head");
        batch.share(Bytes::from(vec![b'x'; 2000]));
        batch.copy(b"tail");
        for (skip, wanted) in [(0, vec![4, 2000, 4]), (4, vec![2000, 4]), (5, vec![1999, 4]), (2006, vec![2])]
        {
            let mut gather = Gather::new();
            gather.fill(&batch, skip);
            let sizes: Vec<usize> = gather.pieces.iter().map(|piece| piece.iov_len).collect();
            assert_eq!(sizes, wanted);
            assert_eq!(gather.header.msg_iovlen, wanted.len());
        }
    }

    #[test]
    fn numbers_are_reused_and_large_memory_is_not_kept() {
        let mut sends = Sends::default();
        let mut batch = sends.batch();
        batch.copy(&[0; RETAINED_BYTES_MAX + 1]);
        let number = sends.add(batch);
        assert_eq!(sends.wrote(number, 1), None);
        assert_eq!(sends.wrote(number, RETAINED_BYTES_MAX), Some(RETAINED_BYTES_MAX + 1));
        sends.remove(number);
        let batch = sends.batch();
        assert!(batch.is_empty());
        assert_eq!(sends.add(batch), number);
    }
}
