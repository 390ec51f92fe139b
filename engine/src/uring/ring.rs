//! An io_uring: entries in, completions out.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};

use super::token::{Op, Token};

/// Entries handed to the kernel at once; more operations in one turn take more system calls.
const SUBMISSION_ENTRIES: u32 = 512;
/// Completions the kernel can leave between two looks. Past it they wait in the kernel, slower; none is lost.
const COMPLETION_ENTRIES: u32 = 8192;

/// A completed operation, or one shot of a multishot one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) token: Token,
    /// The operation's result, or a negative errno.
    pub(super) result: i32,
    /// The kernel's flags without the unused middle bits, which leaves room for the ring.
    flags_high: u16,
    flags_low: u8,
    /// The ring that it came from: 0 is the main one.
    pub(super) ring: u8,
    /// Where in its buffer the received bytes are.
    pub(super) place: u32,
}

// Thousands wait at times.
const _: () = assert!(size_of::<Completion>() == 24);

impl Completion {
    fn new(ring: u8, entry: &cqueue::Entry) -> Self {
        let flags = entry.flags();
        Self {
            token: Token::from_u64(entry.user_data()),
            result: entry.result(),
            flags_high: (flags >> 16) as u16,
            flags_low: flags as u8,
            ring,
            place: 0,
        }
    }

    /// The result as a number of bytes; 0 for an error.
    pub(super) fn len(self) -> u32 {
        u32::try_from(self.result).unwrap_or(0)
    }

    /// Whether more completions of the same operation follow.
    pub(super) fn has_more(self) -> bool {
        cqueue::more(self.flags())
    }

    /// The provided buffer that holds what was received: one of the ring's.
    pub(super) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags())
    }

    /// Whether the kernel is through with that buffer.
    fn fills_buffer(self) -> bool {
        self.buffer().is_some() && !cqueue::buffer_more(self.flags())
    }

    fn flags(self) -> u32 {
        u32::from(self.flags_high) << 16 | u32::from(self.flags_low)
    }
}

pub(super) struct Ring {
    uring: IoUring,
    number: u8,
    ready: VecDeque<Completion>,
    /// Of these, how many have filled a receive buffer.
    full_buffers: usize,
    /// Whether the kernel had more to complete when it was entered last.
    leaves_some: bool,
    /// What the last [`Op::Install`] completed with.
    installed: Option<i32>,
    /// Operations whose last completion has not been taken in.
    in_flight: usize,
}

impl Ring {
    /// Ring `number`. The main one, 0, works off its completions when it is entered. A further one does so
    /// whenever the thread is in the kernel, in the main ring's wait too: only then does a poll of it see
    /// them, and nobody has to enter it for them.
    pub(super) fn new(number: u8) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        if number == 0 {
            builder.setup_defer_taskrun();
        } else {
            builder.setup_coop_taskrun();
        }
        let uring = builder
            .setup_single_issuer()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(COMPLETION_ENTRIES)
            .build(SUBMISSION_ENTRIES)?;
        let ready = VecDeque::new();
        Ok(Self { uring, number, ready, full_buffers: 0, leaves_some: false, installed: None, in_flight: 0 })
    }

    pub(super) fn uring(&self) -> &IoUring {
        &self.uring
    }

    /// What another ring polls to know when this one has something.
    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }

    /// Another file of the same ring.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        // SAFETY: the ring has its file open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.uring.as_raw_fd()) }.try_clone_to_owned()
    }

    /// Operations that the kernel may still work on.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Queues `entry` under `token`.
    ///
    /// # Safety
    ///
    /// The memory that `entry` points to stays valid and unchanged until the operation's last completion was
    /// taken in, or [`Ring::in_flight`] is zero.
    pub(super) unsafe fn push(&mut self, entry: Entry, token: Token) -> io::Result<()> {
        let entry = entry.user_data(token.as_u64());
        // SAFETY: the caller answers for the memory.
        while unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.submit()?; // full
        }
        if token.op() != Op::Close {
            self.in_flight += 1;
        }
        Ok(())
    }

    /// Queues an entry that points to no memory.
    pub(super) fn push_plain(&mut self, entry: Entry, token: Token) -> io::Result<()> {
        // SAFETY: `entry` points to no memory.
        unsafe { self.push(entry, token) }
    }

    /// Cancels every operation.
    pub(super) fn cancel_all(&mut self) -> io::Result<()> {
        self.push_plain(opcode::AsyncCancel2::new(CancelBuilder::any()).build(), Token::new(Op::Cancel))
    }

    /// Hands what is queued to the kernel, and takes in what is complete.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        let wanted = {
            let queue = self.uring.submission();
            !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
        };
        if wanted {
            let entered = self.uring.submit();
            self.entered(entered)?;
        }
        self.harvest();
        Ok(())
    }

    /// The same, and waits for a completion, up to `timeout` (`None`: as long as it takes).
    pub(super) fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let entered = match timeout {
            None => self.uring.submit_and_wait(1),
            Some(timeout) => {
                let time = Timespec::from(timeout);
                self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
        };
        self.entered(entered)?;
        self.harvest();
        Ok(())
    }

    /// The result of an [`Op::Install`] that has completed.
    pub(super) fn take_installed(&mut self) -> Option<i32> {
        self.installed.take()
    }

    /// Whether [`Ring::next`] has something.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether receives wait, here or in the kernel, which completes so many at a time.
    pub(super) fn has_unread(&self) -> bool {
        self.full_buffers > 0 || self.leaves_some
    }

    /// How many receive buffers are full with bytes that were taken in and wait.
    pub(super) fn full_buffers(&self) -> usize {
        self.full_buffers
    }

    /// The next completion taken in.
    pub(super) fn next(&mut self) -> Option<Completion> {
        let completion = self.ready.pop_front()?;
        self.full_buffers -= usize::from(completion.fills_buffer());
        Some(completion)
    }

    fn harvest(&mut self) {
        let queue = self.uring.submission();
        self.leaves_some = queue.taskrun() || queue.cq_overflow();
        drop(queue);
        for entry in self.uring.completion() {
            let completion = Completion::new(self.number, &entry);
            let op = completion.token.op();
            if !completion.has_more() && op != Op::Close {
                self.in_flight -= 1;
            }
            if op == Op::Install {
                self.installed = Some(completion.result);
            } else {
                self.full_buffers += usize::from(completion.fills_buffer());
                self.ready.push_back(completion);
            }
        }
    }

    /// Ignores three results: the time is up, a signal came, or completions must be taken in first.
    fn entered(&mut self, entered: io::Result<usize>) -> io::Result<()> {
        match entered {
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
            Ok(_) => Ok(()),
        }
    }
}
