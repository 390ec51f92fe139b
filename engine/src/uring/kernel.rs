//! What the kernel works on, with the memory that it works in.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::time::Duration;

use io_uring::opcode;
use io_uring::squeue::Flags;
use io_uring::types::Fd;
use shard::ConnId;

use super::accepted;
use super::buffers::{Buffers, Group, PerGroup};
use super::connect::Connects;
use super::ring::Ring;
use super::sends::Sends;
use super::token::{Op, Token};
use crate::{Clock, Options};

/// How long the operations still in flight at the end may take to be cancelled.
const CANCEL_TIME: Duration = Duration::from_secs(1);

/// The ring, and all memory that its operations point to. Dropped, it ends the operations first.
pub(super) struct Kernel {
    pub(super) ring: Ring,
    pub(super) sends: Sends,
    pub(super) connects: Connects,
    /// `None` for a group that has no connections yet.
    pub(super) buffers: PerGroup<Option<Buffers>>,
}

impl Kernel {
    /// A shard that `listens` gets the buffers of opened connections with the first of those. For another, they are all.
    pub(super) fn new(options: &Options, listens: bool) -> io::Result<Self> {
        Buffers::check(options.opened_recv_buffers, options.opened_recv_buffer_size_bytes)?;
        let mut kernel = Self {
            ring: Ring::new()?,
            sends: Sends::default(),
            connects: Connects::default(),
            buffers: PerGroup::default(),
        };
        let group = if listens { Group::Accepted } else { Group::Opened };
        kernel.register(group, options.recv_buffers, options.recv_buffer_size_bytes)?;
        Ok(kernel)
    }

    /// Before a connect.
    pub(super) fn have_opened_buffers(&mut self, options: &Options) -> io::Result<()> {
        if self.buffers[Group::Opened].is_some() {
            return Ok(());
        }
        self.register(Group::Opened, options.opened_recv_buffers, options.opened_recv_buffer_size_bytes)
    }

    fn register(&mut self, group: Group, count: u16, size_bytes: u32) -> io::Result<()> {
        let submitter = self.ring.uring().submitter();
        self.buffers[group] = Some(Buffers::register(&submitter, group, count, size_bytes)?);
        Ok(())
    }

    /// Writes what is left of the batch `send`.
    pub(super) fn send(&mut self, send: u32, fd: Fd, conn: ConnId) -> io::Result<()> {
        let entry = self.sends.entry(send, fd);
        // SAFETY: the batch stays in `sends` until the completion of this operation, its only one, has come in; `drop` leaks
        // it when that cannot be had.
        unsafe { self.ring.push(entry, Token::of(Op::Send, conn)) }
    }

    /// Connects to the address that `connects` has for `conn`.
    pub(super) fn connect(&mut self, conn: ConnId, fd: Fd) -> io::Result<()> {
        let Some(peer) = self.connects.peer(conn) else { return Ok(()) };
        let entry = opcode::Connect::new(fd, peer.as_ptr().cast(), peer.len()).build();
        // SAFETY: the address stays in `connects`, boxed, until the completion of this operation, its only one, has come
        // in; `drop` leaks it when that cannot be had.
        unsafe { self.ring.push(entry, Token::of(Op::Connect, conn)) }
    }

    /// Closes a socket that no operation is under way on, with the next submission.
    pub(super) fn close(&mut self, socket: OwnedFd) -> io::Result<()> {
        let close = opcode::Close::new(Fd(socket.into_raw_fd())).build().flags(Flags::SKIP_SUCCESS);
        self.ring.push_plain(close, Token::new(Op::Close))
    }

    /// Ends all operations. Whether none is left.
    fn cancel_all(&mut self) -> io::Result<bool> {
        const STEP: Duration = Duration::from_millis(10);
        let clock = Clock::with_offset(0);
        let end = clock.now() + CANCEL_TIME;
        self.drop_accepted();
        self.ring.cancel_all()?;
        while self.ring.in_flight() > 0 && clock.now() < end {
            self.ring.submit_and_wait(Some(STEP))?;
            self.drop_accepted();
        }
        Ok(self.ring.in_flight() == 0)
    }

    /// Closes the connections that the core was not told of.
    fn drop_accepted(&mut self) {
        while let Some(completion) = self.ring.next() {
            if completion.token.op() == Op::Accept && completion.result >= 0 {
                drop(accepted::accepted(completion.result));
            }
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if !matches!(self.cancel_all(), Ok(true)) {
            // The kernel may still write to this memory, and read it: better leaked than reused.
            mem::forget(mem::take(&mut self.sends));
            mem::forget(mem::take(&mut self.connects));
            mem::forget(mem::take(&mut self.buffers));
        }
    }
}
