//! A further ring of a shard, with a table of direct descriptors: connections past those that may be open
//! files.
//!
//! The kernel bounds the table of a ring by the limit of open files, but each table for itself, so more rings
//! mean more connections. Only entries of its own ring can name a socket in a table. An ordinary call needs
//! an open file, which [`FileRing::install`] makes of the socket for a moment.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use io_uring::opcode;
use io_uring::types::{CancelBuilder, Fixed};

use super::buffers::Buffers;
use super::file;
use super::group::Group;
use super::ring::Ring;
use super::token::{Op, Token};
use crate::Options;

/// Rings past the main one: a completion has 8 bits for its ring.
pub(super) const FURTHER_RINGS_MAX: usize = u8::MAX as usize;
/// A further ring has at most this part of the main ring's receive buffers: a shard with many rings has many
/// in all.
const BUFFERS_PART: u16 = 4;
/// Connections to a receive buffer, where the table is small, and how many buffers there are at least.
const CONNECTIONS_PER_BUFFER: u32 = 32;
const BUFFERS_MIN: u32 = 64;

pub(super) struct FileRing {
    pub(super) ring: Ring,
    pub(super) buffers: Buffers,
    /// Whether the main ring has a poll of this one.
    pub(super) is_polled: bool,
    free: Vec<u32>,
    /// Slots from here on were never used.
    fresh: u32,
    slots: u32,
}

impl FileRing {
    /// Ring `number`, for connections of `group`.
    pub(super) fn new(number: u8, group: Group, options: &Options) -> io::Result<Self> {
        let slots = options.ring_connections_max.clamp(1, file::SLOTS_MAX);
        let slots = slots.min(crate::sys::open_files_max());
        let ring = Ring::new(number)?;
        let submitter = ring.uring().submitter();
        submitter.register_files_sparse(slots)?;
        let (count, size_bytes) = options.recv_buffers_of(group == Group::Accepted);
        let enough = slots.div_ceil(CONNECTIONS_PER_BUFFER).next_power_of_two().max(BUFFERS_MIN);
        let count = u32::from(count / BUFFERS_PART).min(enough).max(1) as u16;
        let buffers = Buffers::register(&submitter, group, count, size_bytes)?;
        Ok(Self { ring, buffers, is_polled: false, free: Vec::new(), fresh: 0, slots })
    }

    pub(super) fn has_room(&self) -> bool {
        self.fresh < self.slots || !self.free.is_empty()
    }

    /// Takes `socket` into the table; it is no open file any more. The ring has room.
    pub(super) fn insert(&mut self, socket: OwnedFd) -> io::Result<u32> {
        let slot = self.free.pop().unwrap_or(self.fresh);
        match self.put(slot, socket.as_raw_fd()) {
            Ok(()) => {
                self.fresh = self.fresh.max(slot + 1);
                Ok(slot)
            }
            Err(error) => {
                if slot < self.fresh {
                    self.free.push(slot);
                }
                Err(error)
            }
        }
    }

    /// Closes the socket in `slot`, which no operation is under way on.
    pub(super) fn remove(&mut self, slot: u32) -> io::Result<()> {
        self.put(slot, -1)?;
        self.free.push(slot);
        Ok(())
    }

    fn put(&mut self, slot: u32, fd: RawFd) -> io::Result<()> {
        match self.ring.uring().submitter().register_files_update(slot, &[fd])? {
            1 => Ok(()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// The socket in `slot` as an open file, for an ordinary call. It stays in the table, too.
    pub(super) fn install(&mut self, slot: u32) -> io::Result<OwnedFd> {
        let install = opcode::FixedFdInstall::new(Fixed(slot), 0).build();
        self.ring.push_plain(install, Token::new(Op::Install))?;
        self.ring.submit()?;
        // It completes while it is submitted.
        match self.ring.take_installed() {
            Some(result) if result >= 0 => Ok(file::received(result)),
            Some(error) => Err(io::Error::from_raw_os_error(-error)),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Ends the operations on `slot`.
    pub(super) fn cancel(&mut self, slot: u32) -> io::Result<()> {
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::fd(Fixed(slot)).all()).build();
        self.ring.push_plain(cancel, Token::new(Op::Cancel))
    }
}
