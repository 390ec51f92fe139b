//! Redis, which keeps what it was told: every command is in its log before it is answered.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};

use crate::folder::Folder;
use crate::process::{Server, free_port};

/// A Redis of one's own.
pub struct Redis {
    server: Server,
    _folder: Folder,
}

impl Redis {
    /// Starts it, empty.
    pub fn start() -> Self {
        let (folder, port) = (Folder::new("redis"), free_port());
        let command = format!(
            "redis-server --port {port} --bind 127.0.0.1 --save  --appendonly yes --appendfsync always --daemonize no --logfile  --dir {}",
            folder.path().display()
        );
        let command = command.split(' ').map(str::to_owned).collect();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { server: Server::start(command, &folder.path().join("log"), address, false), _folder: folder }
    }

    /// Where it is, as a URL.
    pub fn url(&self) -> String {
        format!("redis://{}", self.server.address())
    }
}

impl Deref for Redis {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Redis {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}
