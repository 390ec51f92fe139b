//! Calls on sockets that never wait.
#![allow(unsafe_code)]

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use shard::{CloseReason, ConnectError, SendBatch};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::{Options, listener};

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
    let open = || {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(peer), kind, Some(Protocol::TCP))?;
        listener::set_connection_options(&socket, options)?;
        Ok(socket)
    };
    let socket = open().map_err(|error| connect_error(&error))?;
    if let Some(source) = source {
        let bound = bind_late(&socket).and_then(|()| socket.bind(&SocketAddr::new(source, 0).into()));
        bound.map_err(|error| match connect_error(&error) {
            ConnectError::Exhausted if error.kind() == io::ErrorKind::AddrNotAvailable => {
                ConnectError::Unreachable
            }
            other => other,
        })?;
    }
    match socket.connect(&peer.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(connect_error(&error)),
        _ => Ok(socket.into()),
    }
}

/// How the connect that made `socket` writable has ended.
pub(crate) fn connected(socket: &impl AsFd) -> io::Result<()> {
    match SockRef::from(socket).take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Ends the connection, or one way of it, and wakes whoever waits for the socket.
pub(super) fn shutdown(socket: &impl AsFd, how: Shutdown) {
    let _ = SockRef::from(socket).shutdown(how); // it is gone already
}

/// Drops what is not yet sent, resets the connection and wakes whoever waits for the socket.
pub(super) fn reset(socket: &impl AsFd) {
    // SAFETY: a `sockaddr` is plain data; all zeros is the address of family AF_UNSPEC.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    // SAFETY: `nowhere` is readable for the length given; the descriptor is open while `socket` is borrowed.
    let failed = unsafe {
        libc::connect(
            socket.as_fd().as_raw_fd(),
            &raw const nowhere,
            size_of_val(&nowhere) as libc::socklen_t,
        )
    };
    if failed != 0 {
        shutdown(socket, Shutdown::Both);
    }
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

/// What a failed connect is called.
pub(super) fn connect_error(error: &io::Error) -> ConnectError {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ECONNRESET) => ConnectError::Refused,
        Some(libc::ETIMEDOUT) => ConnectError::TimedOut,
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN) => {
            ConnectError::Unreachable
        }
        // EADDRNOTAVAIL of a connect: no port is left.
        Some(
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL | libc::EAGAIN,
        ) => ConnectError::Exhausted,
        _ => ConnectError::Other,
    }
}

/// The port is chosen at connect, where it need only be unique together with the peer's.
fn bind_late(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` is readable for the length given.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if failed != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
