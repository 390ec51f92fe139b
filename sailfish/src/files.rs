//! The limit of open files: raised as far as allowed, and what it means for connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files of the process itself: standard streams, the admin port and its clients.
const RESERVE: u64 = 128;
/// Files of one shard: its listener, rings and event files, and connections that are told that the shard is full.
const RESERVE_PER_SHARD: u64 = 96;
/// Of [`RESERVE_PER_SHARD`], connections past the limit that get a notice before they are closed.
pub const REFUSALS_PER_SHARD: u32 = 64;

/// How many files the process may open.
#[derive(Clone, Copy, Debug)]
pub struct Files {
    /// The limit, raised.
    pub limit: u64,
}

impl Files {
    /// Raises the soft limit to the hard one.
    pub fn raise() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        let limit = if raised.is_ok() { maximum } else { current };
        Self { limit: limit.unwrap_or(u64::MAX) }
    }

    /// How many connections each of `shards` shards may hold.
    ///
    /// # Errors
    /// One line, when there is no room for any.
    pub fn connections_max(self, shards: u16) -> anyhow::Result<u32> {
        let shards = u64::from(shards);
        let reserve = RESERVE + RESERVE_PER_SHARD * shards;
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
