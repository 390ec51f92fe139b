//! The files of sockets: open files of the process, or direct descriptors, which are places in the table of
//! one ring.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::mem;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use socket2::SockRef;

/// Direct descriptors of one ring: a slot has 23 bits in a [`File`].
pub(super) const SLOTS_MAX: u32 = 1 << 23;

/// Set for a direct descriptor. An open file's number never has it: it would be negative.
const DIRECT: u32 = 1 << 31;

/// A socket of a connection, in the 4 bytes of an open file's number. Dropping it closes an open file; a
/// direct descriptor goes with its ring, or by [`FileRing::remove`](super::file_ring::FileRing::remove).
pub(super) struct File(u32);

/// Where a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Among the open files of the process, for the main ring.
    Open(RawFd),
    /// In the table of a further ring, counted from 1.
    Direct { ring: u8, slot: u32 },
}

impl File {
    pub(super) fn open(socket: OwnedFd) -> Self {
        Self(socket.into_raw_fd() as u32)
    }

    pub(super) fn direct(ring: u8, slot: u32) -> Self {
        assert!(slot < SLOTS_MAX, "the table of a ring is bounded by SLOTS_MAX");
        Self(DIRECT | u32::from(ring) << 23 | slot)
    }

    pub(super) fn place(&self) -> Place {
        if self.0 & DIRECT == 0 {
            return Place::Open(self.0 as RawFd);
        }
        Place::Direct { ring: (self.0 >> 23) as u8, slot: self.0 & (SLOTS_MAX - 1) }
    }

    /// The number of an open file, or a slot: an entry names the file by it.
    pub(super) fn number(&self) -> i32 {
        match self.place() {
            Place::Open(fd) => fd,
            Place::Direct { slot, .. } => slot as i32,
        }
    }

    /// `None` for a direct descriptor.
    pub(super) fn as_open(&self) -> Option<BorrowedFd<'_>> {
        match self.place() {
            // SAFETY: the file is open for as long as `self` is there, which owns it.
            Place::Open(fd) => Some(unsafe { BorrowedFd::borrow_raw(fd) }),
            Place::Direct { .. } => None,
        }
    }

    /// Gives the file up without closing it.
    pub(super) fn into_place(self) -> Place {
        let place = self.place();
        mem::forget(self);
        place
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Place::Open(fd) = self.place() {
            // SAFETY: `self` owns the file and is gone after this.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place().fmt(f)
    }
}

/// Takes over a file that an operation completed with.
pub(super) fn received(result: i32) -> OwnedFd {
    assert!(result >= 0, "an operation that did not fail has a file");
    // SAFETY: the kernel opened the file for this completion, and each completion is taken in once.
    unsafe { OwnedFd::from_raw_fd(result) }
}

/// The remote address. It fails when the connection is gone already.
pub(super) fn peer_of(socket: &OwnedFd) -> io::Result<IpAddr> {
    let address = SockRef::from(socket).peer_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(address.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_file_knows_its_place() {
        for (ring, slot) in [(1, 0), (1, SLOTS_MAX - 1), (u8::MAX, 19_999)] {
            let file = File::direct(ring, slot);
            assert_eq!((file.place(), file.number()), (Place::Direct { ring, slot }, slot as i32));
            assert!(file.as_open().is_none());
        }
        let socket: OwnedFd = std::net::TcpListener::bind("127.0.0.1:0").unwrap().into();
        let fd = socket.as_raw_fd();
        let file = File::open(socket);
        assert_eq!((file.place(), file.number()), (Place::Open(fd), fd));
        assert_eq!(file.as_open().map(|file| file.as_raw_fd()), Some(fd));
    }
}
