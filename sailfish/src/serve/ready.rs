//! What a node prints once it is ready.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Instant;

use engine::Chosen;

use super::clients::ClientPort;
use crate::cli::ConfigArgs;
use crate::config::Layers;
use crate::files::{Capacity, Files};
use crate::role::Role;
use crate::secret::Secret;
use crate::shell::{program, quoted};

/// The running node. The first line is for programs: `ready clients=.. admin=.. engine=.. shards=.. node=..`;
/// a router or a bridge has `links=..` instead of `clients=..`.
pub struct Summary {
    /// Its role.
    pub role: Role,
    /// The own number.
    pub node: u16,
    /// Where clients, or links, connect.
    pub address: SocketAddr,
    /// Where clients connect by WebSocket or TLS.
    pub beside: Vec<ClientPort>,
    /// The routers of a gateway or a bridge.
    pub routers: Vec<SocketAddr>,
    /// Where metrics and health are.
    pub admin: SocketAddr,
    /// The engine and why.
    pub chosen: Chosen,
    /// How many.
    pub shards: usize,
    /// Where the backend within serves its API.
    pub backend: Option<SocketAddr>,
    /// The limit of open files.
    pub files: Files,
    /// The capacity of one shard.
    pub capacity: Capacity,
    /// Connections of one shard, if there were files enough.
    pub connections_max_configured: u32,
    /// When the process started.
    pub started: Instant,
}

impl Summary {
    /// One line in the log.
    pub fn log(&self) {
        tracing::info!(
            role = self.role.name(),
            node = self.node,
            address = %self.address,
            admin = %self.admin,
            engine = %self.chosen.kind,
            reason = self.chosen.reason,
            shards = self.shards,
            open_files = self.files.limit,
            connections_max_per_shard = self.capacity.connections_max,
            open_connections_max_per_shard = self.capacity.open_connections_max,
            "ready"
        );
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, node, address, admin, chosen, shards, files, capacity, .. } = self;
        let (what, of) = match role {
            Role::Router | Role::Bridge => ("links", "links  "),
            Role::Up | Role::Gateway => ("clients", "clients"),
        };
        write!(f, "ready {what}={address} admin={admin} engine={} shards={shards} node={node}", chosen.kind)?;
        if let Some(backend) = self.backend {
            write!(f, " backend={backend}")?;
        }
        for ClientPort { name, address, .. } in &self.beside {
            write!(f, " {name}={address}")?;
        }
        writeln!(f)?;
        writeln!(f)?;
        writeln!(f, "  started  in {} ms", self.started.elapsed().as_millis())?;
        match role {
            Role::Router | Role::Bridge if *shards > 1 => {
                let last = address.port().saturating_add(*shards as u16 - 1);
                writeln!(f, "  {of}  {address} to port {last}, one for each shard")?;
            }
            _ => writeln!(f, "  {of}  {address}")?,
        }
        for ClientPort { scheme, address, .. } in &self.beside {
            writeln!(f, "           {scheme}{address}")?;
        }
        if matches!(role, Role::Gateway | Role::Bridge) {
            let routers: Vec<String> = self.routers.iter().map(ToString::to_string).collect();
            let routers = if routers.is_empty() { vec!["those in the directory".into()] } else { routers };
            writeln!(f, "  routers  {}; /readyz says whether they are linked", routers.join(", "))?;
        }
        writeln!(f, "  admin    http://{admin}/metrics, /healthz, /readyz, /online?app=1&user=10001,10002")?;
        writeln!(f, "  console  http://{admin}/console for operators")?;
        if let Some(backend) = self.backend {
            writeln!(f, "  page     http://{backend}/ for browsers: a live room")?;
            writeln!(f, "  backend  http://{backend}/docs")?;
        }
        writeln!(f, "  engine   {} ({})", chosen.kind, chosen.reason)?;
        if role.takes_links() {
            return Ok(());
        }
        let each = if *shards == 1 { "1 shard" } else { &format!("each of {shards} shards") };
        let Capacity { connections_max, open_connections_max } = *capacity;
        writeln!(f, "  capacity {connections_max} connections on {each}")?;
        if capacity.has_rings() {
            writeln!(
                f,
                "           {open_connections_max} of them as open files, the others as direct descriptors of io_uring"
            )?;
        }
        if connections_max < self.connections_max_configured {
            writeln!(
                f,
                "           bound by {} open files; for more raise the hard limit: ulimit -Hn, or LimitNOFILE= in systemd",
                files.limit
            )?;
            if let Some(locked) = files.locked.filter(|_| chosen.kind == engine::Kind::Uring) {
                writeln!(
                    f,
                    "           and by {} KiB of locked memory for rings: ulimit -Hl, or LimitMEMLOCK= in systemd",
                    locked >> 10
                )?;
            }
        }
        Ok(())
    }
}

/// The last line.
pub const END: &str = "Ctrl-C ends it: clients are told, and what is under way is finished.\n";

/// What to do next: commands that work unchanged, from any directory.
pub struct Hint {
    program: String,
    /// Flags by which the commands find the same secret.
    config: String,
    target: SocketAddr,
    /// Whether the secret has a source that the commands cannot read.
    note: bool,
}

impl Hint {
    /// Commands that find `secret` as this process did.
    pub fn new(args: &ConfigArgs, layers: &Layers, secret: &Secret, clients: SocketAddr) -> Self {
        let mut config = String::new();
        // The first run's secret is found without any flag, unless the environment moved it.
        let moved = std::env::var_os("XDG_STATE_HOME").is_some();
        let source = layers.source("token.secret").or(layers.source("token.secret_file"));
        let from_file = args.config.as_ref().filter(|file| source == Some(&file.display().to_string()));
        match (from_file, &secret.file) {
            (Some(file), _) => config = format!(" --config {}", quoted(&absolute(file))),
            (None, Some(file)) if source.is_some() || moved => {
                config = format!(" --set token.secret_file={}", quoted(&absolute(file)));
            }
            _ => {}
        }
        let note = from_file.is_none() && secret.file.is_none();
        Self { program: program(), config, target: reachable(clients), note }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, config, target, note } = self;
        writeln!(f)?;
        writeln!(f, "Send a first message, from two more terminals:")?;
        writeln!(f, "  {program} chat --user 10001 --room 7 --target {target}{config}")?;
        writeln!(f, "  {program} chat --user 10002 --room 7 --target {target}{config}")?;
        writeln!(f, "A login token for a client of your own:")?;
        writeln!(f, "  {program} token --app 1 --user 10001{config}")?;
        writeln!(f, "How fast it is:")?;
        writeln!(
            f,
            "  {program} load chat --target {target} --connections 200 --rate 1000 --seconds 10{config}"
        )?;
        if *note {
            writeln!(
                f,
                "These need the same token secret: in SAILFISH_TOKEN__SECRET, or as --set token.secret=..."
            )?;
        }
        f.write_str(END)
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Where a client on this machine connects.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_is_reached_by_loopback() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(reachable(address("0.0.0.0:1")), address("127.0.0.1:1"));
        assert_eq!(reachable(address("[::]:1")), address("[::1]:1"));
        assert_eq!(reachable(address("10.0.0.1:1")), address("10.0.0.1:1"));
    }
}
