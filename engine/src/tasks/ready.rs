//! System calls that never wait: what a task does when its socket is ready, or before it waits.
#![allow(unsafe_code)]

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use shard::{CloseReason, ConnectError, SendBatch};
use socket2::SockRef;

use crate::{Options, socket};

/// Pieces of a batch given to one system call.
const SLICES_MAX: usize = 64;

/// Takes what has arrived; 0 is the peer's FIN.
pub(crate) fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    (&*SockRef::from(socket)).read(buffer)
}

/// Hands the socket `bytes`; answers how many it took.
pub(crate) fn send(socket: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    SockRef::from(socket).send_with_flags(bytes, libc::MSG_NOSIGNAL)
}

/// Hands the socket `batch` from its byte `written` on; answers how much it took.
pub(super) fn send_batch(socket: &impl AsFd, batch: &SendBatch, written: usize) -> io::Result<usize> {
    if let Some(piece) = batch.contiguous() {
        return send(socket, &piece[written..]);
    }
    let mut slices = [const { MaybeUninit::uninit() }; SLICES_MAX];
    let mut count = 0;
    for (slot, piece) in slices.iter_mut().zip(unwritten(batch, written)) {
        slot.write(IoSlice::new(piece));
        count += 1;
    }
    // SAFETY: the first `count` slots are written just above.
    let slices = unsafe { std::slice::from_raw_parts(slices.as_ptr().cast::<IoSlice<'_>>(), count) };
    SockRef::from(socket).send_vectored_with_flags(slices, libc::MSG_NOSIGNAL)
}

/// The pieces of `batch` from its byte `written` on; none is empty.
pub(super) fn unwritten(batch: &SendBatch, mut written: usize) -> impl Iterator<Item = &[u8]> {
    batch.segments().filter_map(move |piece| {
        let skipped = written.min(piece.len());
        written -= skipped;
        (skipped < piece.len()).then_some(&piece[skipped..])
    })
}

/// The next connection that waits at `listener`.
pub(super) fn accept(listener: &impl AsFd) -> io::Result<(OwnedFd, IpAddr)> {
    let (socket, peer) = SockRef::from(listener).accept4(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)?;
    let peer = peer.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    Ok((socket.into(), peer.ip().to_canonical()))
}

/// Begins to connect to `peer`; the socket is writable when it has come to an end.
pub(super) fn connect(
    peer: SocketAddr,
    source: Option<IpAddr>,
    options: &Options,
) -> Result<OwnedFd, ConnectError> {
    let fd = socket::to_connect(peer, source, options)?;
    let socket = SockRef::from(&fd);
    match socket.set_nonblocking(true).and_then(|()| socket.connect(&peer.into())) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(socket::why(&error)),
        _ => Ok(fd),
    }
}

/// How the connect that made `socket` writable has ended.
pub(crate) fn connected(socket: &impl AsFd) -> io::Result<()> {
    match SockRef::from(socket).take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Ends the connection and wakes whoever waits for the socket.
pub(super) fn shutdown(socket: &impl AsFd) {
    let _ = SockRef::from(socket).shutdown(Shutdown::Both); // it fails when it is gone already
}

/// A copy of an open descriptor.
pub(super) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer; a number that is no open descriptor is refused.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `copy` was just opened and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Makes an eventfd readable.
pub(super) fn signal(eventfd: &impl AsFd) {
    let one = 1_u64;
    // SAFETY: `one` is readable for its 8 bytes. A failure is EAGAIN: it has been readable for long.
    unsafe { libc::write(eventfd.as_fd().as_raw_fd(), (&raw const one).cast(), size_of_val(&one)) };
}

/// Empties an eventfd.
pub(super) fn drain_eventfd(eventfd: &impl AsFd) {
    let mut count = 0_u64;
    // SAFETY: `count` is writable for its 8 bytes. A failure is EAGAIN: it was empty.
    unsafe { libc::read(eventfd.as_fd().as_raw_fd(), (&raw mut count).cast(), size_of_val(&count)) };
}

/// What a failed receive or send means for the connection.
pub(super) fn close_reason(error: &io::Error) -> CloseReason {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => CloseReason::Reset,
        _ => CloseReason::Failed,
    }
}
