//! What a link may hold, and how long it waits.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wire::node::link::{BATCH_MESSAGES_MAX, BODY_BYTES_MAX};

/// What an operator may set for links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// After how long a silent peer is given up: the acceptor waits this long, the connector half as long.
    pub lease_ms: u32,
    /// How often an idle link says that it is alive.
    pub ping_ms: u32,
    /// The least time between two flushes of a busy shard's links: what comes sooner leaves together. 0: at
    /// once.
    pub interval_us: u32,
    /// Bytes of batches that may be in flight to one peer without a credit.
    pub window_bytes: u32,
    /// Bytes that may wait for one peer before the shard stops to read from its clients.
    pub queue_bytes_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease_ms: 3_000,
            ping_ms: 250,
            interval_us: 500,
            window_bytes: 4 << 20,
            queue_bytes_max: 8 << 20,
        }
    }
}

impl Config {
    /// Checks every bound; the error names the key, its value and what it wants.
    pub fn validate(&self) -> Result<(), String> {
        within("link.lease_ms", self.lease_ms, LEASE_MS_MIN, 600_000)?;
        within("link.ping_ms", self.ping_ms, 10, self.lease_ms / 8)?;
        within("link.interval_us", self.interval_us, 0, 1_000 * self.ping_ms)?;
        within("link.window_bytes", self.window_bytes, 64 << 10, 1 << 30)?;
        within("link.queue_bytes_max", self.queue_bytes_max, 64 << 10, 1 << 30)
    }

    /// How long a silent peer is waited for, by which side opened the link.
    pub(crate) fn patience(&self, peer_opened: bool) -> Duration {
        let lease = Duration::from_millis(self.lease_ms.into());
        if peer_opened { lease } else { lease / 2 }
    }

    /// The bytes of one peer's batches that may wait for the cores.
    pub(crate) fn backlog_bytes_max(&self) -> usize {
        BACKLOG_WINDOWS * self.window_bytes as usize + BODY_BYTES_MAX
    }

    pub(crate) fn interval(&self) -> Duration {
        Duration::from_micros(self.interval_us.into())
    }

    pub(crate) fn ping(&self) -> Duration {
        Duration::from_millis(self.ping_ms.into())
    }
}

fn within(key: &str, value: u32, min: u32, max: u32) -> Result<(), String> {
    if value < min || value > max {
        return Err(format!("{key} = {value}: want a number from {min} to {max}"));
    }
    Ok(())
}

const LEASE_MS_MIN: u32 = 400;
/// Messages that the cores handle in one turn, and up to one batch more. The others wait for the next turn;
/// pings and credits do not.
pub(crate) const TURN_MESSAGES: usize = 2 * BATCH_MESSAGES_MAX;
/// How many windows of one peer's batches may wait, beside one batch. A peer with a longer window of its own
/// is refused as one that floods.
const BACKLOG_WINDOWS: usize = 8;
/// How often links check the time.
pub(crate) const TICK: Duration = Duration::from_millis(20);
/// How long a handshake may take.
pub(crate) const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// An accepted connection that has not proven itself is closed once this many were accepted after it. Far
/// more than the shards that link at once, and only a part of the files that a process may open.
pub(crate) const STRANGERS_MAX: usize = 4096;
/// The wait after the first failed connect; it doubles with each, up to the longest, and chance makes it up
/// to half longer.
pub(crate) const BACK_OFF: Duration = Duration::from_millis(40);
/// See [`BACK_OFF`].
pub(crate) const BACK_OFF_MAX: Duration = Duration::from_millis(640);
/// A batch takes no further message once its messages hold this many bytes.
pub(crate) const BATCH_BYTES: usize = 48 << 10;
/// Bytes that the fixed part of a message counts for in a queue.
pub(crate) const MESSAGE_BYTES: usize = 128;
/// Bytes that the fixed part of a part of a room's history adds, as it is stored apart.
pub(crate) const PART_BYTES: usize = 16;
/// Bytes that each message adds if one message carries several.
pub(crate) const CARRIED_BYTES: usize = 58;
/// Bytes that the fixed part of an event adds, as it is stored apart.
pub(crate) const HANDED_BYTES: usize = 64;
/// A router ends a session whose queue has this many times `queue_bytes_max`: nothing else slows down what
/// fills it.
pub(crate) const QUEUE_CEILING: usize = 8;
/// A peer with this many bytes in flight gets nothing that can wait. Credits travel with everything that it
/// sends, and each of its peers may have this much in flight: a router with 2,000 of them then has 256 MB of
/// announcements to read.
pub(crate) const SLOW_BYTES: usize = 128 << 10;
/// From this many times `queue_bytes_max` on, a router fails reliable messages instead of queueing them.
pub(crate) const QUEUE_STUFFED: usize = 4;

const _: () = assert!(QUEUE_STUFFED < QUEUE_CEILING);

/// A gateway gives a connection up after a quarter of the lease: the longest ping, which waits for a tick,
/// comes before that.
const _: () = assert!(LEASE_MS_MIN as u128 / 8 + TICK.as_millis() < LEASE_MS_MIN as u128 / 4);
const _: () = assert!(BATCH_BYTES + (1 << 20) + BATCH_MESSAGES_MAX * 2 * MESSAGE_BYTES < BODY_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_bounds() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn an_error_names_the_key_and_what_it_wants() {
        let config = Config { ping_ms: 2_000, ..Config::default() };
        assert_eq!(config.validate(), Err("link.ping_ms = 2000: want a number from 10 to 375".into()));
    }
}
