//! Redis, which keeps what it was told.

use std::io::{Read, Write};
use std::ops::Deref;

use crate::folder::Folder;
use crate::process::{Server, run};

/// A Redis of one's own.
pub struct Redis {
    server: Server,
    _folder: Folder,
}

impl Redis {
    /// Starts it, empty; every command is in its log before it is answered.
    pub fn start() -> Self {
        Self::start_in(Folder::new("redis"), "always")
    }

    /// Starts it with its data in this folder, and its log written to the disk `always` or `everysec`.
    pub fn start_in(folder: Folder, fsync: &str) -> Self {
        let command = |port| {
            let command = format!(
                "redis-server --port {port} --bind 127.0.0.1 --save  --appendonly yes --appendfsync {fsync} --daemonize no --logfile  --dir {}",
                folder.path().display()
            );
            command.split(' ').map(str::to_owned).collect()
        };
        let server = Server::start(command, &folder.path().join("log"), |stream| {
            stream.write_all(b"PING\r\n")?;
            let mut first = [0];
            stream.read_exact(&mut first)?;
            Ok(first == *b"+") // not while it reads its log
        });
        Self { server, _folder: folder }
    }

    /// Where it is, as a URL.
    pub fn url(&self) -> String {
        format!("redis://{}", self.server.address())
    }

    /// Runs a command; each value that it answers in a line.
    pub fn command(&self, command: &[&str]) -> String {
        let port = self.server.address().port().to_string();
        run("redis-cli", ["-h", "127.0.0.1", "-p", &port].iter().chain(command))
    }

    /// The number that a command answers; of several values, the first.
    pub fn number(&self, command: &[&str]) -> i64 {
        let text = self.command(command);
        text.lines()
            .next()
            .and_then(|line| line.parse().ok())
            .unwrap_or_else(|| panic!("{command:?}: {text}"))
    }
}

impl Deref for Redis {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}
