//! Listening sockets: one for each shard, all on one port.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::Options;

/// Opens `count` listeners on `options.listen`. The first resolves port 0. What is set on a listener, its connections
/// inherit.
///
/// # Errors
/// `AddrInUse` when anyone listens there already, and whatever the system says.
pub(crate) fn open(options: &Options, count: usize) -> io::Result<(Option<SocketAddr>, Vec<Socket>)> {
    let Some(mut address) = options.listen else { return Ok((None, Vec::new())) };
    if address.port() != 0 {
        refuse_shared_port(address)?;
    }
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = bound(address, true)?;
        set_connection_options(&socket, options)?;
        address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
        listeners.push(socket);
    }
    // Only when all are bound: from the first `listen` on, connections are spread over those that listen.
    for socket in &listeners {
        socket.listen(options.backlog.min(i32::MAX as u32) as i32)?;
    }
    Ok((Some(address), listeners))
}

/// What every connection wants: no Nagle delay (batches are complete when they are sent), and the buffer sizes asked for.
pub(crate) fn set_connection_options(socket: &Socket, options: &Options) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes as usize)?;
    }
    if let Some(bytes) = options.recv_buffer_bytes {
        socket.set_recv_buffer_size(bytes as usize)?;
    }
    Ok(())
}

/// `SO_REUSEPORT` would silently share the port with another process of ours; a socket without it is refused.
fn refuse_shared_port(address: SocketAddr) -> io::Result<()> {
    bound(address, false).map(drop)
}

fn bound(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn all_share_the_port_that_the_first_resolved() {
        let options = Options { listen: Some("127.0.0.1:0".parse().unwrap()), ..Options::default() };
        let (address, listeners) = open(&options, 3).unwrap();
        let address = address.unwrap();
        assert_ne!(address.port(), 0);
        for listener in &listeners {
            assert_eq!(listener.local_addr().unwrap().as_socket(), Some(address));
        }
        let taken = Options { listen: Some(address), ..Options::default() };
        assert_eq!(open(&taken, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listeners);
        assert!(open(&taken, 1).is_ok());
    }

    #[test]
    fn connections_inherit_what_is_set_on_the_listener() {
        let small = Options { listen: Some("127.0.0.1:0".parse().unwrap()), ..Options::default() };
        let small = Options { send_buffer_bytes: Some(10_000), recv_buffer_bytes: Some(20_000), ..small };
        let (address, listeners) = open(&small, 1).unwrap();
        let _peer = TcpStream::connect(address.unwrap()).unwrap();
        let (connection, _) = listeners[0].accept().unwrap();
        assert!(connection.tcp_nodelay().unwrap());
        // The kernel doubles them, for its own bookkeeping.
        assert_eq!(connection.send_buffer_size().unwrap(), 20_000);
        assert_eq!(connection.recv_buffer_size().unwrap(), 40_000);
    }
}
