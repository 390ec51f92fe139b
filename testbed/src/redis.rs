//! Redis, which keeps what it was told.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::path::Path;

use crate::claim::free_port;
use crate::folder::Folder;
use crate::process::{Server, try_run};

/// A Redis of one's own.
pub struct Redis {
    server: Server,
    /// Where it speaks TLS, if it does.
    tls_port: Option<u16>,
    /// The password that it asks clients for, if any.
    password: Option<&'static str>,
    _folder: Folder,
}

impl Redis {
    /// Starts it, empty; every command is in its log before it is answered.
    pub fn start() -> Self {
        Self::start_in(Folder::new("redis"), "always")
    }

    /// Starts it with its data in this folder, and its log written to the disk `always` or `everysec`.
    pub fn start_in(folder: Folder, fsync: &str) -> Self {
        Self::start_all(folder, fsync, None, "", None)
    }

    /// Starts it, empty, with a second port that speaks TLS and shows this certificate.
    pub fn start_with_tls(chain: &Path, key: &Path) -> Self {
        let (port, chain, key) = (free_port(), chain.display(), key.display());
        let flags =
            format!("--tls-port {port} --tls-cert-file {chain} --tls-key-file {key} --tls-auth-clients no");
        Self::start_all(Folder::new("redis"), "everysec", Some(port), &flags, None)
    }

    /// Starts one that Sentinels may make a master or a replica. `tls` has its flags, if it speaks TLS.
    pub(crate) fn start_watched(
        master: Option<u16>,
        password: Option<&'static str>,
        tls: Option<&str>,
    ) -> Self {
        let tls_port = tls.map(|_| free_port());
        let mut flags = "--repl-diskless-sync-delay 0".to_owned();
        if let Some(password) = password {
            flags += &format!(" --requirepass {password} --masterauth {password}");
        }
        if let (Some(tls), Some(port)) = (tls, tls_port) {
            flags += &format!(" --tls-port {port} {tls}");
        }
        if let Some(master) = master {
            flags += &format!(" --replicaof 127.0.0.1 {master}");
        }
        Self::start_all(Folder::new("redis"), "everysec", tls_port, &flags, password)
    }

    fn start_all(
        folder: Folder,
        fsync: &str,
        tls_port: Option<u16>,
        flags: &str,
        password: Option<&'static str>,
    ) -> Self {
        let command = |port| {
            let command = format!(
                "redis-server --port {port} --bind 127.0.0.1 --save  --appendonly yes --appendfsync {fsync} --daemonize no --logfile  --dir {}",
                folder.path().display()
            );
            let more = flags.split(' ').filter(|flag| !flag.is_empty());
            command.split(' ').chain(more).map(str::to_owned).collect()
        };
        let server = Server::start(command, &folder.path().join("log"), answers);
        Self { server, tls_port, password, _folder: folder }
    }

    /// Where Sentinels and clients of them find it.
    pub(crate) fn watched_port(&self) -> u16 {
        self.tls_port.unwrap_or(self.server.address().port())
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
        self.try_command(command).unwrap_or_else(|why| panic!("{command:?}: {why}"))
    }

    /// Whether it is a master, or a replica (`slave`); no, while it closes connections to become another.
    pub fn has_role(&self, role: &str) -> bool {
        self.try_command(&["ROLE"]).is_ok_and(|answer| answer.starts_with(role))
    }

    fn try_command(&self, command: &[&str]) -> Result<String, String> {
        let port = self.server.address().port().to_string();
        let password = self.password.map(|password| ["--no-auth-warning", "-a", password]);
        let at = ["-h", "127.0.0.1", "-p", &port];
        try_run("redis-cli", at.iter().chain(password.iter().flatten()).chain(command))
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

/// Whether it answers, if only that it wants a password; not while it reads its log.
pub(crate) fn answers(stream: &mut TcpStream) -> std::io::Result<bool> {
    stream.write_all(b"PING\r\n")?;
    let mut first = [0; 2];
    stream.read_exact(&mut first)?;
    Ok(first == *b"+P" || first == *b"-N")
}

impl Deref for Redis {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}
