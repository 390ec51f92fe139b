//! The limit of open files: raised as far as allowed, and shared out between clients, HTTP ports and the
//! rest.
//!
//! The `uring` engine holds connections past it, as direct descriptors of further rings.

use http_server::{Limits, REFUSED_CONNECTIONS_MAX};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Files of the process itself: standard streams, the directory's connections, what is read for a moment.
const RESERVE: u64 = 64;
/// Files of one shard: its listener, rings and event files, and connections that are told that the shard is
/// full.
const RESERVE_PER_SHARD: u64 = 96;
/// Of [`RESERVE_PER_SHARD`], connections past the limit that get a notice before they are closed.
pub const REFUSALS_PER_SHARD: u32 = 64;
/// Where a shard has further rings: accepted sockets on their way into them take this many files, and rings
/// this part of a shard's.
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

/// How many files the process may open.
#[derive(Clone, Copy, Debug)]
pub struct Files {
    /// The limit, raised.
    pub limit: u64,
}

/// What one shard may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// Connections.
    pub connections_max: u32,
    /// Of them, how many may be open files. The others are direct descriptors.
    pub open_connections_max: u32,
}

impl Capacity {
    /// Whether some connections are to be direct descriptors.
    pub fn has_rings(self) -> bool {
        self.connections_max > self.open_connections_max
    }
}

/// Files that no client's connection may take.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reserved(u64);

impl Files {
    /// Raises the soft limit to the hard one.
    pub fn raise() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        let limit = if raised.is_ok() { maximum } else { current };
        Self { limit: limit.unwrap_or(u64::MAX) }
    }

    /// What callers of an HTTP port may take: no more connections than their part of all files.
    pub fn http(self, limits: &Limits) -> Limits {
        let connections_max = (self.limit / HTTP_PART).clamp(1, u32::MAX.into());
        limits.with_connections_max(connections_max as u32)
    }

    /// How many connections each of `shards` shards may hold, beside what is reserved, when it is to hold
    /// `wanted`. The `uring` engine alone has rings.
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
        let each = self.open_connections_max(shards, reserved)?;
        if may_have_rings && each < wanted {
            return Ok(self.with_rings(each, wanted));
        }
        let connections_max = each.min(wanted);
        Ok(Capacity { connections_max, open_connections_max: connections_max })
    }

    /// What `files` of its own and further rings are enough for.
    fn with_rings(self, files: u32, wanted: u32) -> Capacity {
        let (files, wanted) = (u64::from(files), u64::from(wanted));
        let ring = self.limit.min(engine::RING_CONNECTIONS_MAX.into());
        let transit = RESERVE_FOR_RINGS.min(files / RINGS_PART);
        let rings = wanted.div_ceil(ring).min(files / RINGS_PART).min(engine::RINGS_MAX.into());
        let open = files - transit - rings;
        let connections_max = wanted.min(open + rings * ring);
        Capacity { connections_max: connections_max as u32, open_connections_max: open as u32 }
    }

    /// How many connections of each shard may be open files.
    fn open_connections_max(self, shards: u16, reserved: Reserved) -> anyhow::Result<u32> {
        let shards = u64::from(shards);
        let reserve = RESERVE + reserved.0 + RESERVE_PER_SHARD * shards;
        let each = self.limit.saturating_sub(reserve) / shards;
        anyhow::ensure!(
            each > 0,
            "{} open files are too few for {shards} shards: want at least {}; raise the hard limit (ulimit -Hn, or \
             LimitNOFILE= of a systemd unit) or use fewer --shards",
            self.limit,
            reserve + shards
        );
        Ok(u32::try_from(each).unwrap_or(u32::MAX))
    }
}

impl Reserved {
    /// For an HTTP port within these limits.
    #[must_use]
    pub fn with_http(self, limits: &Limits) -> Self {
        Self(self.0 + u64::from(limits.connections_max) + REFUSED_CONNECTIONS_MAX as u64 + 1)
    }

    /// For a backend in the process, without its HTTP port.
    #[must_use]
    pub fn with_backend(self, config: &backend::Config) -> Self {
        let pools = 1 + config.replicas.len() as u64;
        let database = u64::from(config.database_connections_max) * pools * FILES_PER_DATABASE_CONNECTION;
        Self(self.0 + RESERVE_OF_BACKEND + database)
    }

    /// For a bridge in the process.
    #[must_use]
    pub fn with_bridge(self, config: &Config) -> Self {
        Self(self.0 + RESERVE_OF_BRIDGE + u64::from(config.bridge.lanes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_no_clients() {
        let (files, config) = (Files { limit: 1_200 }, Config::default());
        let http = files.http(&config.http);
        assert_eq!((http.connections_max, http.address_connections_max), (75, 38));
        let reserved = Reserved::default().with_http(&http).with_http(&http).with_backend(&config.backend);
        let capacity = files.capacity(false, 2, 1_000_000, reserved.with_bridge(&config)).unwrap();
        let each = u64::from(capacity.connections_max);
        assert!(!capacity.has_rings());
        let (shards, ports, backend, bridge) = (2 * 96, 2 * (75 + 17), 64 + 3 * 16, 16 + 8);
        assert_eq!(2 * each + shards + ports + backend + bridge + 64, 1_200);
        assert_eq!(Files { limit: u64::MAX }.http(&config.http), config.http);
        let few = Files { limit: 300 };
        for may_have_rings in [false, true] {
            let few = few.capacity(may_have_rings, 2, 1000, Reserved::default().with_http(&config.http));
            assert!(few.unwrap_err().to_string().starts_with("300 open files are too few for 2 shards"));
        }
    }

    #[test]
    fn rings_hold_what_open_files_cannot() {
        let capacity = |limit, shards, wanted| {
            Files { limit }.capacity(true, shards, wanted, Reserved::default()).unwrap()
        };
        let all = |connections_max| Capacity { connections_max, open_connections_max: connections_max };
        assert_eq!(capacity(20_000, 1, 19_000), all(19_000));
        let many = capacity(20_000, 1, 1_000_000);
        let open = 20_000 - 64 - 96 - 1024 - 50;
        assert_eq!(many, Capacity { connections_max: 1_000_000, open_connections_max: open });
        assert!(many.has_rings());
        // Where files are few, so are rings and what they hold.
        let few = capacity(1024, 2, 1_000_000);
        let (each, quarter) = ((1024 - 64 - 2 * 96) / 2, (1024 - 64 - 2 * 96) / 8);
        let open = each - 2 * quarter;
        assert_eq!(few, Capacity { connections_max: open + quarter * 1024, open_connections_max: open });
    }
}
