//! A proxy that breaks connections, and balances them over several servers.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Passes bytes on, and can break the connections that it passes them on.
pub struct Proxy {
    pub address: SocketAddr,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    pub fn to(server: SocketAddr) -> Self {
        Self::to_any(vec![server])
    }

    /// To these in turns, without those that do not listen. When either end is gone, so is the other.
    pub fn to_any(servers: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), streams: Arc::default() };
        let streams = proxy.streams.clone();
        std::thread::spawn(move || {
            for (turn, client) in listener.incoming().map_while(Result::ok).enumerate() {
                let in_turn = servers.iter().cycle().skip(turn % servers.len()).take(servers.len());
                let Some(server) = in_turn.flat_map(TcpStream::connect).next() else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to); // either end may be gone
                        [from, to].iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
                    });
                }
                streams.lock().unwrap().extend([client, server]);
            }
        });
        proxy
    }

    pub fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both); // either end may be gone
        }
    }
}
