//! What every engine does to a socket by a plain system call.
#![allow(unsafe_code)]

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use shard::ConnectError;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::{Options, listener};

/// How long a connect may take.
pub(crate) const CONNECT_TIME: Duration = Duration::from_secs(10);

/// How long accepting rests when the system has run out of file descriptors or memory.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Sends a FIN after what is written.
pub(crate) fn finish_writing(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).shutdown(Shutdown::Write)
}

/// Resets the connection: the peer gets a RST at once, unsent bytes are gone, and every operation and wait on
/// the socket ends. Cheaper on io_uring than cancelling them, which searches the ring's table.
pub(crate) fn reset(socket: &impl AsFd) {
    let nobody = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: `nobody` is readable for the length given. Connecting a TCP socket to `AF_UNSPEC` dissolves its
    // connection and does not block.
    let failed = unsafe { libc::connect(socket.as_fd().as_raw_fd(), &nobody, length) };
    if failed != 0 {
        // Some kernels say EBUSY when a worker of theirs waits on the socket. This wakes it, and the close
        // resets.
        let socket = SockRef::from(socket);
        let _ = socket.set_linger(Some(Duration::ZERO)).and_then(|()| socket.shutdown(Shutdown::Both));
    }
}

/// A socket to connect with: bound to `source`, the port left to the connect, so that only (source, peer)
/// pairs must differ.
pub(crate) fn to_connect(
    peer: SocketAddr,
    source: Option<IpAddr>,
    options: &Options,
) -> Result<OwnedFd, ConnectError> {
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))
        .map_err(|error| why(&error))?;
    listener::set_connection_options(&socket, None, options.recv_buffer_bytes)
        .map_err(|error| why(&error))?;
    if let Some(source) = source {
        leave_port_to_connect(&socket).map_err(|error| why(&error))?;
        socket.bind(&SocketAddr::new(source, 0).into()).map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRNOTAVAIL) => ConnectError::Unreachable, // not an address of this machine
            _ => why(&error),
        })?;
    }
    Ok(socket.into())
}

/// The meaning of a failed connect.
pub(crate) fn why(error: &io::Error) -> ConnectError {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ECONNRESET) => ConnectError::Refused,
        Some(libc::ETIMEDOUT) => ConnectError::TimedOut,
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EAFNOSUPPORT) => ConnectError::Unreachable,
        // Without a port in the bind, EADDRNOTAVAIL says that all ports are taken.
        Some(
            libc::EMFILE
            | libc::ENFILE
            | libc::ENOMEM
            | libc::ENOBUFS
            | libc::EADDRNOTAVAIL
            | libc::EADDRINUSE
            | libc::EAGAIN,
        ) => ConnectError::Exhausted,
        _ => ConnectError::Other,
    }
}

fn leave_port_to_connect(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` is readable for the length given.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if failed != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
