//! The floor: a server that does nothing but what the kernel must be asked for. `sailfish load` drives it
//! like a gateway.

use std::net::{SocketAddr, TcpListener};

use clap::{Parser, ValueEnum};
use socket2::{Domain, Protocol, Socket, Type};

/// Serves heartbeats, logins and one room with a bare loop, on one thread.
#[derive(Parser)]
struct Args {
    /// Which system calls.
    system: System,
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:9300")]
    listen: SocketAddr,
}

#[derive(Clone, Copy, ValueEnum)]
enum System {
    Uring,
    Epoll,
}

const BACKLOG: i32 = 16 * 1024;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let listener = listen(args.listen)?;
    println!("ready {}", listener.local_addr()?);
    let stopped = match args.system {
        System::Uring => benches::raw::run_uring(listener),
        System::Epoll => benches::raw::run_epoll(listener),
    };
    match stopped? {}
}

/// A listener whose connections send without delay.
fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
