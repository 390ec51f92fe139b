//! Listening sockets: one for each shard and address, all shards on one port or on ports in a row.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::Options;

/// How often a row of free ports is tried. Few ports are taken, so the first try mostly works.
const ROWS_MAX: usize = 64;

/// Opens listeners on each address of `options.listen` for each of `count` shards. Returns the addresses,
/// with port 0 resolved, and the listeners of each shard, in the order of addresses. Connections inherit the
/// options of their listener.
///
/// # Errors
/// `AddrInUse` if somebody listens there already; other errors of the system.
pub(crate) fn open(options: &Options, count: usize) -> io::Result<(Vec<SocketAddr>, Vec<Vec<Socket>>)> {
    let mut addresses = Vec::new();
    let mut of_shards: Vec<Vec<Socket>> = (0..count).map(|_| Vec::new()).collect();
    for &address in &options.listen {
        let listeners = match (options.listen_each, address.port()) {
            (false, _) => on_one_port(address, options, count)?,
            (true, 0) => on_free_row(address, options, count)?,
            (true, _) => on_row(address, options, count)?,
        };
        addresses.push(listeners.first().map_or(Ok(address), address_of)?);
        of_shards.iter_mut().zip(listeners).for_each(|(shard, listener)| shard.push(listener));
    }
    Ok((addresses, of_shards))
}

fn on_one_port(mut address: SocketAddr, options: &Options, count: usize) -> io::Result<Vec<Socket>> {
    if address.port() != 0 {
        refuse_shared_port(address)?;
    }
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = bound(address, true)?;
        address = address_of(&socket)?;
        listeners.push(socket);
    }
    listen(listeners, options)
}

/// Listens on ports in a row, wherever the system has them free.
fn on_free_row(address: SocketAddr, options: &Options, count: usize) -> io::Result<Vec<Socket>> {
    for _ in 1..ROWS_MAX {
        match on_row(address, options, count) {
            // One of them is taken, or past the last port.
            Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::InvalidInput) => {}
            done => return done,
        }
    }
    on_row(address, options, count)
}

/// Listens on the port of `address` and those that follow it.
fn on_row(mut address: SocketAddr, options: &Options, count: usize) -> io::Result<Vec<Socket>> {
    let mut listeners: Vec<Socket> = Vec::with_capacity(count);
    for _ in 0..count {
        if let Some(last) = listeners.last() {
            let port = address_of(last)?.port().checked_add(1).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, "a port for each shard: they go past 65535")
            })?;
            address.set_port(port);
        }
        listeners.push(bound(address, false)?);
    }
    listen(listeners, options)
}

/// Listens only when all are bound: from the first `listen` on, connections to a shared port are spread over
/// those that listen.
fn listen(listeners: Vec<Socket>, options: &Options) -> io::Result<Vec<Socket>> {
    for socket in &listeners {
        set_connection_options(socket, options.send_buffer_bytes, options.recv_buffer_bytes)?;
        socket.listen(options.backlog.min(i32::MAX as u32) as i32)?;
    }
    Ok(listeners)
}

fn address_of(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Sets what every connection needs: no Nagle delay (batches are complete when they are sent), and the buffer
/// sizes asked for.
pub(crate) fn set_connection_options(
    socket: &Socket,
    send_buffer_bytes: Option<u32>,
    recv_buffer_bytes: Option<u32>,
) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = send_buffer_bytes {
        socket.set_send_buffer_size(bytes as usize)?;
    }
    if let Some(bytes) = recv_buffer_bytes {
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
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let options = Options { listen: vec![anywhere, anywhere], ..Options::default() };
        let (addresses, listeners) = open(&options, 3).unwrap();
        assert!(addresses[0] != addresses[1] && addresses.iter().all(|address| address.port() != 0));
        for shard in &listeners {
            let own: Vec<_> = shard.iter().map(|listener| address_of(listener).unwrap()).collect();
            assert_eq!(own, addresses);
        }
        let taken = Options { listen: vec![addresses[1]], ..Options::default() };
        assert_eq!(open(&taken, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listeners);
        assert!(open(&taken, 1).is_ok());
    }

    #[test]
    fn ports_in_a_row_are_each_listened_on_alone() {
        let options = Options { listen_each: true, ..Options::default() };
        let anywhere = Options { listen: vec!["127.0.0.1:0".parse().unwrap()], ..options.clone() };
        let (addresses, mut listeners) = open(&anywhere, 4).unwrap();
        let first = addresses[0];
        for (at, shard) in listeners.iter().enumerate() {
            let listener = &shard[0];
            assert_eq!(address_of(listener).unwrap(), SocketAddr::new(first.ip(), first.port() + at as u16));
            assert!(!listener.reuse_port().unwrap());
        }
        // Whichever of them is taken.
        let row = Options { listen: vec![first], ..options.clone() };
        while !listeners.is_empty() {
            assert_eq!(open(&row, 4).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            listeners.remove(0);
        }
        assert!(open(&row, 4).is_ok());
        let last = Options { listen: vec![SocketAddr::new(first.ip(), 65535)], ..options };
        assert!(open(&last, 2).is_err());
    }

    #[test]
    fn connections_inherit_what_is_set_on_the_listener() {
        let small = Options { listen: vec!["127.0.0.1:0".parse().unwrap()], ..Options::default() };
        let small = Options { send_buffer_bytes: Some(10_000), recv_buffer_bytes: Some(20_000), ..small };
        let (addresses, listeners) = open(&small, 1).unwrap();
        let _peer = TcpStream::connect(addresses[0]).unwrap();
        let (connection, _) = listeners[0][0].accept().unwrap();
        assert!(connection.tcp_nodelay().unwrap());
        // The kernel doubles them, for its own bookkeeping.
        assert_eq!(connection.send_buffer_size().unwrap(), 20_000);
        assert_eq!(connection.recv_buffer_size().unwrap(), 40_000);
    }
}
