//! The limit of open files: raised as far as allowed, and shared out between clients, HTTP ports and the
//! rest.
//!
//! The `uring` engine holds connections past it, as direct descriptors of further rings.

use http_server::{Limits, REFUSED_CONNECTIONS_MAX};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Files of the process itself: standard streams, connections of the directory, files that are read once.
const RESERVE: u64 = 64;
/// Files of one shard: its listener, rings and event files, and connections that get a notice that the shard
/// is full.
const RESERVE_PER_SHARD: u64 = 96;
/// Of [`RESERVE_PER_SHARD`], connections past the limit that get a notice before they are closed.
pub const REFUSALS_PER_SHARD: u32 = 64;
/// If a shard has further rings: this many files for accepted sockets on their way into them, and this part
/// of a shard's files for rings.
const RESERVE_FOR_RINGS: u64 = 1024;
const RINGS_PART: u64 = 4;
/// Which part of all files the connections of one HTTP port are at most.
const HTTP_PART: u64 = 16;
/// Files of a backend beside its listener and its database: Redis, the push API, event files.
const RESERVE_OF_BACKEND: u64 = 64;
/// Files of one connection to SQLite: the database, its log, its index.
const FILES_PER_DATABASE_CONNECTION: u64 = 3;
/// Files of a bridge beside its lanes.
const RESERVE_OF_BRIDGE: u64 = 16;

/// `CAP_IPC_LOCK`: what the process locks is not counted.
const CAP_IPC_LOCK: u64 = 1 << 14;
/// The id map of the first user namespace of a system; in other namespaces that capability means nothing.
const FIRST_NAMESPACE: [&str; 3] = ["0", "0", "4294967295"];

/// How many files the process may open.
#[derive(Clone, Copy, Debug)]
pub struct Files {
    /// The limit, raised.
    pub limit: u64,
    /// Bytes of memory that its user may lock, as each ring of io_uring does; `None` for any number.
    pub locked: Option<u64>,
}

/// What one shard may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// Connections.
    pub connections_max: u32,
    /// How many of these may be open files. The others are direct descriptors.
    pub open_connections_max: u32,
}

impl Capacity {
    /// Whether some connections are to be direct descriptors.
    pub fn has_rings(self) -> bool {
        self.connections_max > self.open_connections_max
    }
}

/// Files that no client's connection may take.
#[derive(Clone, Debug, Default)]
pub struct Reserved {
    files: u64,
    /// What the connections of further HTTP ports take.
    ports: Vec<u64>,
}

impl Reserved {
    fn all(&self) -> u64 {
        self.files + self.ports.iter().sum::<u64>()
    }

    /// The reserve under another limit, of which HTTP ports take their part.
    fn all_of(&self, limit: u64, new_limit: u64) -> u64 {
        let new = |&port: &u64| if port < http_part(limit) { port } else { http_part(new_limit) };
        self.files + self.ports.iter().map(new).sum::<u64>()
    }
}

/// The most connections of one HTTP port.
fn http_part(limit: u64) -> u64 {
    (limit / HTTP_PART).clamp(1, u32::MAX.into())
}

impl Files {
    /// Raises the soft limit to the hard one.
    pub fn raise() -> Self {
        let locked = raise(Resource::Memlock).filter(|_| !locks_freely());
        Self { limit: raise(Resource::Nofile).unwrap_or(u64::MAX), locked }
    }

    /// The limits of an HTTP port: no more connections than its part of all files.
    pub fn http(self, limits: &Limits) -> Limits {
        limits.with_connections_max(http_part(self.limit) as u32)
    }

    /// How many connections each of `shards` shards may hold, beside the reserve, if `wanted` are wanted.
    /// Only the `uring` engine has rings.
    ///
    /// # Errors
    /// One line, when there is no room for any.
    pub fn capacity(
        self,
        may_have_rings: bool,
        shards: u16,
        wanted: u32,
        reserved: Reserved,
    ) -> anyhow::Result<Capacity> {
        let each = self.open_connections_max(shards, &reserved)?;
        if may_have_rings && each < wanted {
            return Ok(self.with_rings(each, shards.into(), wanted));
        }
        let connections_max = each.min(wanted);
        Ok(Capacity { connections_max, open_connections_max: connections_max })
    }

    /// The capacity with `files` open files and further rings.
    fn with_rings(self, files: u32, shards: u64, wanted: u32) -> Capacity {
        let (files, wanted) = (u64::from(files), u64::from(wanted));
        let ring = self.limit.min(engine::RING_CONNECTIONS_MAX.into());
        let transit = RESERVE_FOR_RINGS.min(files / RINGS_PART);
        let rings = wanted.div_ceil(ring).min(files / RINGS_PART).min(engine::RINGS_MAX.into());
        let rings = rings.min(self.further_rings(shards));
        if rings == 0 {
            return Capacity { connections_max: files as u32, open_connections_max: files as u32 };
        }
        let open = files - transit - rings;
        let connections_max = wanted.min(open + rings * ring);
        Capacity { connections_max: connections_max as u32, open_connections_max: open as u32 }
    }

    /// How many rings each shard may have beside its first.
    fn further_rings(self, shards: u64) -> u64 {
        let locked = self.locked.map_or(u64::MAX, |bytes| bytes / engine::RING_LOCKED_BYTES / shards);
        locked.saturating_sub(1)
    }

    /// How many connections of each shard may be open files.
    fn open_connections_max(self, shards: u16, reserved: &Reserved) -> anyhow::Result<u32> {
        let shards = u64::from(shards);
        let own = RESERVE + RESERVE_PER_SHARD * shards;
        let each = self.limit.saturating_sub(own + reserved.all()) / shards;
        anyhow::ensure!(
            each > 0,
            "{} open files are too few for {shards} shards: want at least {}; raise the hard limit (ulimit -Hn, or \
             LimitNOFILE= of a systemd unit) or use fewer --shards",
            self.limit,
            self.least(own + shards, reserved)
        );
        Ok(u32::try_from(each).unwrap_or(u32::MAX))
    }

    /// The lowest limit that leaves `wanted` files: HTTP ports take their part of it, too.
    fn least(self, wanted: u64, reserved: &Reserved) -> u64 {
        let mut least = self.limit;
        loop {
            let needed = wanted + reserved.all_of(self.limit, least);
            if needed <= least {
                return least;
            }
            least = needed;
        }
    }
}

/// Raises a soft limit to the hard one. Returns its value then, `None` for no limit.
fn raise(resource: Resource) -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(resource);
    let raised = setrlimit(resource, Rlimit { current: maximum, maximum });
    if raised.is_ok() { maximum } else { current }
}

/// Whether the limit of locked memory does not hold for this process.
fn locks_freely() -> bool {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let (status, ids) = (read("status"), read("uid_map"));
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = capabilities.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    held & CAP_IPC_LOCK != 0 && ids.split_whitespace().eq(FIRST_NAMESPACE)
}

impl Reserved {
    /// Adds the files of an HTTP port with these limits.
    #[must_use]
    pub fn with_http(mut self, limits: &Limits) -> Self {
        self.ports.push(limits.connections_max.into());
        self.and(REFUSED_CONNECTIONS_MAX as u64 + 1)
    }

    /// Adds the files of a backend in the process, without its HTTP port.
    #[must_use]
    pub fn with_backend(self, config: &backend::Config) -> Self {
        let pools = 1 + config.replicas.len() as u64;
        let database = u64::from(config.database_connections_max) * pools * FILES_PER_DATABASE_CONNECTION;
        self.and(RESERVE_OF_BACKEND + database)
    }

    /// Adds the files of a bridge in the process.
    #[must_use]
    pub fn with_bridge(self, config: &Config) -> Self {
        self.and(RESERVE_OF_BRIDGE + u64::from(config.bridge.lanes))
    }

    fn and(mut self, files: u64) -> Self {
        self.files += files;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(limit: u64) -> Files {
        Files { limit, locked: None }
    }

    #[test]
    fn what_is_reserved_is_no_clients() {
        let (files, config) = (with(1_200), Config::default());
        let http = files.http(&config.http);
        assert_eq!((http.connections_max, http.address_connections_max), (75, 38));
        let reserved = Reserved::default().with_http(&http).with_http(&http).with_backend(&config.backend);
        let capacity = files.capacity(false, 2, 1_000_000, reserved.with_bridge(&config)).unwrap();
        let each = u64::from(capacity.connections_max);
        assert!(!capacity.has_rings());
        let (shards, ports, backend, bridge) = (2 * 96, 2 * (75 + 17), 64 + 3 * 16, 16 + 8);
        assert_eq!(2 * each + shards + ports + backend + bridge + 64, 1_200);
        assert_eq!(with(u64::MAX).http(&config.http), config.http);
        let few = with(300);
        for may_have_rings in [false, true] {
            let few = few.capacity(may_have_rings, 2, 1000, Reserved::default().with_http(&config.http));
            assert!(few.unwrap_err().to_string().starts_with("300 open files are too few for 2 shards"));
        }
    }

    /// With the limit that is asked for, there is room; with one less, there is not.
    #[test]
    fn the_limit_that_is_asked_for_is_enough() {
        let config = Config::default();
        let tried = |limit: u64| {
            let http = with(limit).http(&config.http);
            let reserved =
                Reserved::default().with_http(&http).with_http(&http).with_backend(&config.backend);
            with(limit).capacity(false, 2, 1000, reserved.with_bridge(&config))
        };
        for limit in [16, 64, 300, 400] {
            let line = tried(limit).unwrap_err().to_string();
            let least = line.split("at least ").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
            let least: u64 = least.parse().unwrap();
            assert!(tried(least).is_ok() && tried(least - 1).is_err(), "{limit}: {line}");
        }
    }

    #[test]
    fn rings_hold_what_open_files_cannot() {
        let capacity =
            |limit, shards, wanted| with(limit).capacity(true, shards, wanted, Reserved::default()).unwrap();
        let all = |connections_max| Capacity { connections_max, open_connections_max: connections_max };
        assert_eq!(capacity(20_000, 1, 19_000), all(19_000));
        let many = capacity(20_000, 1, 1_000_000);
        let open = 20_000 - 64 - 96 - 1024 - 50;
        assert_eq!(many, Capacity { connections_max: 1_000_000, open_connections_max: open });
        assert!(many.has_rings());
        // Each ring locks memory, of which a user without privileges has 8 MiB.
        let locked = Files { locked: Some(8 << 20), ..with(20_000) };
        let bound = locked.capacity(true, 4, 1_000_000, Reserved::default()).unwrap();
        assert_eq!(bound.connections_max - bound.open_connections_max, 10 * 20_000);
        let none = Files { locked: Some(1 << 20), ..with(20_000) };
        let each = none.capacity(true, 4, 1_000_000, Reserved::default()).unwrap();
        assert_eq!(each, all((20_000 - 64 - 4 * 96) / 4));
        // Where files are few, so are rings and what they hold.
        let few = capacity(1024, 2, 1_000_000);
        let (each, quarter) = ((1024 - 64 - 2 * 96) / 2, (1024 - 64 - 2 * 96) / 8);
        let open = each - 2 * quarter;
        assert_eq!(few, Capacity { connections_max: open + quarter * 1024, open_connections_max: open });
    }
}
