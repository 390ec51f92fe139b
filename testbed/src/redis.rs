//! Redis, which keeps what it was told.

use std::io::{Read, Write};
use std::ops::Deref;
use std::path::Path;

use crate::claim::free_port;
use crate::folder::Folder;
use crate::process::{Server, run};

/// A Redis of one's own.
pub struct Redis {
    server: Server,
    /// Where it speaks TLS, if it does.
    tls_port: Option<u16>,
    _folder: Folder,
}

impl Redis {
    /// Starts it, empty; every command is in its log before it is answered.
    pub fn start() -> Self {
        Self::start_in(Folder::new("redis"), "always")
    }

    /// Starts it with its data in this folder, and its log written to the disk `always` or `everysec`.
    pub fn start_in(folder: Folder, fsync: &str) -> Self {
        Self::start_all(folder, fsync, None)
    }

    /// Starts it, empty, with a second port that speaks TLS and shows this certificate.
    pub fn start_with_tls(chain: &Path, key: &Path) -> Self {
        let (port, chain, key) = (free_port(), chain.display(), key.display());
        let flags =
            format!("--tls-port {port} --tls-cert-file {chain} --tls-key-file {key} --tls-auth-clients no");
        Self::start_all(Folder::new("redis"), "everysec", Some((port, flags)))
    }

    fn start_all(folder: Folder, fsync: &str, tls: Option<(u16, String)>) -> Self {
        let (tls_port, flags) = tls.unzip();
        let command = |port| {
            let command = format!(
                "redis-server --port {port} --bind 127.0.0.1 --save  --appendonly yes --appendfsync {fsync} --daemonize no --logfile  --dir {}",
                folder.path().display()
            );
            let more = flags.iter().flat_map(|flags| flags.split(' '));
            command.split(' ').chain(more).map(str::to_owned).collect()
        };
        let server = Server::start(command, &folder.path().join("log"), |stream| {
            stream.write_all(b"PING\r\n")?;
            let mut first = [0];
            stream.read_exact(&mut first)?;
            Ok(first == *b"+") // not while it reads its log
        });
        Self { server, tls_port, _folder: folder }
    }

    /// Where it is, as a URL.
    pub fn url(&self) -> String {
        format!("redis://{}", self.server.address())
    }

    /// Where it speaks TLS, as a URL.
    pub fn tls_url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.tls_port.expect("it was started with TLS"))
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
