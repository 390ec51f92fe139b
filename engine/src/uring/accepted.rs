//! Accepted sockets.
#![allow(unsafe_code)]

use std::io;
use std::net::IpAddr;
use std::os::fd::{FromRawFd, OwnedFd};

use socket2::SockRef;

/// Takes over a file that an accept completed with.
pub(super) fn accepted(result: i32) -> OwnedFd {
    assert!(result >= 0, "an accept that did not fail has a file");
    // SAFETY: the kernel opened the file for this completion, and each completion is taken in once.
    unsafe { OwnedFd::from_raw_fd(result) }
}

/// The remote address. It fails when the connection is gone already.
pub(super) fn peer_of(socket: &OwnedFd) -> io::Result<IpAddr> {
    let address = SockRef::from(socket).peer_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(address.ip().to_canonical())
}
