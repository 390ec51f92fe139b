//! What a router may hold.

use std::fmt::Display;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shard::{Amount, Rate};
use wire::node::{HISTORY_BYTES_MAX, HISTORY_MESSAGES_MAX};

use crate::keep::Keep;
use crate::outbox::Holder;

/// The most bindings that may be allowed: they are named by 32 bits, and one value means none.
const BINDINGS_MAX: u32 = 1 << 30;
/// The most memberships that may be allowed: some 30 GB.
const MEMBERSHIPS_MAX: u32 = 1 << 28;
/// The most pending messages that may be allowed.
const PENDING_MAX: u32 = 1 << 24;
/// The most outcomes that may be remembered: 1.4 GB. Their places in the window are told apart modulo 2^32.
const DEDUPE_MAX: u32 = 1 << 24;
/// The longest time that may be set, a day.
const TIME_MS_MAX: u32 = 24 * 60 * 60 * 1000;
/// Pending messages that one timeout ends; the rest follow in the next turn.
pub(crate) const EXPIRE_PER_TIMEOUT_MAX: usize = 1024;
/// Outcomes past their time that one submission forgets: more than the one it may add, so the window can
/// shrink.
pub(crate) const FORGET_PER_SUBMIT_MAX: usize = 8;
/// Reported ends of sessions that are remembered, each with its stamp: about 6 MB, and a minute of a thousand
/// ends a second.
pub(crate) const ENDS_MAX: usize = 1 << 16;
/// How long a router that has started waits for gateways that it does not know; they try again more often
/// than that.
pub(crate) const WARM_UP_MAX: Duration = Duration::from_secs(2);
/// Messages are parked for at most this many times `settle_ms`, however often gateways change their views
/// meanwhile.
pub(crate) const SETTLE_TIMES_MAX: u32 = 4;
/// Places of bindings that one step of a resync tells the directory of.
pub(crate) const RESYNC_PER_STEP: u32 = 512;
/// The pause between two steps of a resync: about as fast as one Redis takes them.
pub(crate) const RESYNC_PAUSE: Duration = Duration::from_millis(10);

/// What a message that a room keeps counts for beside its payload and its name: its place in the ring, the
/// allocations of the two, and the place of its sender among those who have shares.
pub(crate) const ENTRY_BYTES: usize = 384;
/// What a room that keeps something counts for, which its oldest message bears. Each lane counts besides.
pub(crate) const RING_BYTES: u64 = 640;
/// One room may keep this part (a sixteenth) of the bytes that all rooms may keep.
pub(crate) const HISTORY_SHARES: u64 = 16;
/// The highest number of messages of one business code that a room may be set to keep.
pub const HISTORY_MESSAGES_CEILING: u32 = 4096;
/// The highest number of their bytes that may be set.
pub const HISTORY_BYTES_CEILING: u32 = 1 << 20;
/// The longest time that they may be set to be kept, a day.
pub const HISTORY_MS_CEILING: u32 = TIME_MS_MAX;
/// Rooms whose kept messages one step of the sweep looks at: a million take four minutes.
pub(crate) const SWEEP_PER_STEP: u32 = 4096;
/// The pause between two of these steps.
pub(crate) const SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// The same pause while the router leaves.
pub(crate) const SWEEP_PAUSE_LEAVING: Duration = Duration::from_millis(10);
/// Shards that wait for a room's messages, each for one room.
pub(crate) const RECALLS_MAX: u64 = 1 << 16;
/// Those of one shard. It asks again if there is no room.
pub(crate) const RECALLS_SHARD_MAX: u64 = 1 << 14;
/// Bytes of the answers that one step sends, a tenth of a turn that is full of them.
pub(crate) const RECALL_BYTES_PER_STEP: usize = 512 * 1024;
/// Bytes that an answer counts for beside its messages.
pub(crate) const RECALL_BYTES: usize = 512;
/// Bytes that a message of an answer counts for beside its payload and its name.
pub(crate) const RECALL_ENTRY_BYTES: usize = 160;
/// The pause between two steps of the answers.
pub(crate) const RECALL_PAUSE: Duration = Duration::from_millis(2);
/// How long a room that has come from another owner waits for that owner's history, before it reports the
/// messages as missing.
pub(crate) const MOVED_WAIT: Duration = Duration::from_secs(2);
/// How long it waits for the room's stream from the directory.
pub(crate) const STREAM_WAIT: Duration = Duration::from_millis(500);

/// Bytes of a reliable room message that count as one message.
pub(crate) const ROOM_TOKEN_BYTES: usize = 1024;

const _: () = assert!(BINDINGS_MAX < u32::MAX);
const _: () = assert!(DEDUPE_MAX <= u32::MAX / 2);
const _: () = assert!(FORGET_PER_SUBMIT_MAX > 1);
const _: () = assert!(HISTORY_MESSAGES_CEILING <= HISTORY_MESSAGES_MAX);
const _: () = assert!((HISTORY_BYTES_CEILING as usize) < HISTORY_BYTES_MAX);
const _: () = assert!(RECALLS_SHARD_MAX < RECALLS_MAX);

/// What one router may hold, and for how long.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bindings, of all users together; beyond that a session that binds is kicked with `server_full`.
    pub bindings_max: u32,
    /// Shards in rooms, over all rooms; beyond that a shard that joins is refused, and its members get
    /// `busy`.
    pub memberships_max: u32,
    /// Reliable messages that wait for their receivers; beyond that a sender gets `busy`.
    pub pending_max: u32,
    /// Those of one sender; beyond that this sender gets `busy`.
    pub pending_sender_max: u32,
    /// Those for one receiver; beyond that their senders get `busy`. No more than a gateway lets wait for one
    /// connection, so a receiver that reads is never overrun.
    pub pending_receiver_max: u32,
    /// Bytes of those for one receiver.
    pub pending_receiver_bytes_max: u32,
    /// How long a reliable message waits for its receivers' shards before it counts as unacked. This is for a
    /// shard that is gone, so it must exceed what a live one may take: the time of all tries, times the
    /// windows that a full queue fills.
    pub pending_timeout_ms: u32,
    /// How long an undelivered message waits for the bridge to say whether it keeps it, before its sender is
    /// told that it failed.
    pub bridge_timeout_ms: u32,
    /// Outcomes that are remembered for repeats; beyond that the oldest is forgotten.
    pub dedupe_max: u32,
    /// Outcomes that are remembered for one sender; beyond that its own oldest is forgotten.
    pub dedupe_sender_max: u32,
    /// How long an outcome is remembered.
    pub dedupe_window_ms: u32,
    /// How long messages are parked while gateways disagree about owners, or a router has just started and
    /// may not know everybody. A view that changes meanwhile begins that time anew, up to four times in all.
    pub settle_ms: u32,
    /// How long a gateway shard whose link was lost may come back with its sessions. Messages to them fail
    /// meanwhile; if it does not come back, they are offline. They count as bindings, and those that have
    /// been away for longest end first when there is no room.
    pub away_ms: u32,
    /// Reliable messages that a room gives its members a second, sustained; beyond that their senders get
    /// `busy`. In a message longer than 1 KiB, each KiB counts as a message.
    pub room_messages_per_second: u32,
    /// Reliable messages that a room gives at once.
    pub room_burst: u32,
    /// Messages of each business code that a room keeps, unless the route sets another number.
    pub history_messages: u32,
    /// Bytes of these.
    pub history_bytes: u32,
    /// How long they are kept.
    pub history_ms: u32,
    /// Bytes that all rooms may keep; beyond that the room that keeps most forgets its oldest message.
    pub history_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bindings_max: 1 << 24,
            memberships_max: 1 << 23,
            pending_max: 1 << 16,
            pending_sender_max: 4_096,
            pending_receiver_max: 2_048,
            pending_receiver_bytes_max: 1 << 20,
            pending_timeout_ms: 3 * 3_600_000,
            bridge_timeout_ms: 30_000,
            dedupe_max: 1 << 20,
            dedupe_sender_max: 1 << 16,
            dedupe_window_ms: 120_000,
            settle_ms: 5_000,
            away_ms: 10_000,
            room_messages_per_second: 1_000,
            room_burst: 4_096,
            history_messages: 100,
            history_bytes: 96 * 1024,
            history_ms: 600_000,
            history_bytes_max: 64 << 20,
        }
    }
}

impl Limits {
    /// Checks every bound; the error names the key, its value and what it wants.
    pub fn validate(&self) -> Result<(), String> {
        within("router.bindings_max", self.bindings_max, 1, BINDINGS_MAX)?;
        within("router.memberships_max", self.memberships_max, 1, MEMBERSHIPS_MAX)?;
        within("router.pending_max", self.pending_max, 1, PENDING_MAX)?;
        within("router.pending_sender_max", self.pending_sender_max, 1, PENDING_MAX)?;
        within("router.pending_receiver_max", self.pending_receiver_max, 1, PENDING_MAX)?;
        within("router.pending_receiver_bytes_max", self.pending_receiver_bytes_max, 512, 1 << 30)?;
        within("router.pending_timeout_ms", self.pending_timeout_ms, 1, TIME_MS_MAX)?;
        within("router.bridge_timeout_ms", self.bridge_timeout_ms, 1, TIME_MS_MAX)?;
        within("router.dedupe_max", self.dedupe_max, 1, DEDUPE_MAX)?;
        within("router.dedupe_sender_max", self.dedupe_sender_max, 1, DEDUPE_MAX)?;
        within("router.dedupe_window_ms", self.dedupe_window_ms, 1, TIME_MS_MAX)?;
        within("router.settle_ms", self.settle_ms, 0, 60_000)?;
        within("router.away_ms", self.away_ms, 0, 600_000)?;
        within("router.room_messages_per_second", self.room_messages_per_second, 1, 1_000_000)?;
        within("router.room_burst", self.room_burst, 1, 1_000_000)?;
        within("router.history_messages", self.history_messages, 0, HISTORY_MESSAGES_CEILING)?;
        within("router.history_bytes", self.history_bytes, 0, HISTORY_BYTES_CEILING)?;
        within("router.history_ms", self.history_ms, 0, HISTORY_MS_CEILING)?;
        within("router.history_bytes_max", self.history_bytes_max, 0, 1 << 40)
    }

    /// What rooms keep of messages whose business code has no bounds of its own.
    pub(crate) fn history(&self) -> Keep {
        Keep { messages: self.history_messages, bytes: self.history_bytes, ms: self.history_ms }
    }

    /// What operators and backends may have of a pool. They stand for many users, so they get half and leave
    /// half.
    pub(crate) fn operator_share(&self, total: u32) -> u32 {
        (total / 2).max(1)
    }

    /// How much of the messages that wait one sender may have.
    pub(crate) fn sender_share(&self, holder: Holder) -> Amount {
        Amount::of_entries(u64::from(match holder {
            Holder::User(..) => self.pending_sender_max,
            Holder::Operator => self.operator_share(self.pending_max),
        }))
    }

    /// How much of the messages that wait may be for one receiver.
    pub(crate) fn receiver_share(&self) -> Amount {
        Amount { entries: self.pending_receiver_max.into(), bytes: self.pending_receiver_bytes_max.into() }
    }

    /// How much may wait in all.
    pub(crate) fn pending_total(&self) -> Amount {
        Amount::of_entries(self.pending_max.into())
    }

    pub(crate) fn room_rate(&self) -> Rate {
        Rate::new(self.room_messages_per_second, self.room_burst)
    }

    pub(crate) fn pending_timeout(&self) -> Duration {
        Duration::from_millis(self.pending_timeout_ms.into())
    }

    pub(crate) fn bridge_timeout(&self) -> Duration {
        Duration::from_millis(self.bridge_timeout_ms.into())
    }

    pub(crate) fn settle(&self) -> Duration {
        Duration::from_millis(self.settle_ms.into())
    }

    pub(crate) fn away(&self) -> Duration {
        Duration::from_millis(self.away_ms.into())
    }

    pub(crate) fn dedupe_window(&self) -> Duration {
        Duration::from_millis(self.dedupe_window_ms.into())
    }
}

fn within<T: PartialOrd + Display>(key: &str, value: T, min: T, max: T) -> Result<(), String> {
    if value < min || value > max {
        return Err(format!("{key} = {value}: want a number from {min} to {max}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_bounds() {
        assert_eq!(Limits::default().validate(), Ok(()));
    }

    /// A message whose outcome is forgotten before its client sends it again would be delivered twice.
    #[test]
    fn outcomes_outlast_the_time_after_which_a_client_sends_again() {
        // The time of all tries and that of the bridge, as section 5 of docs/PROTOCOL.md says.
        let repeat_secs = 65;
        let limits = Limits::default();
        assert!(limits.dedupe_window() > Duration::from_secs(repeat_secs));
        assert!(
            u64::from(limits.dedupe_max) >= repeat_secs * 16_000,
            "messages a second of one router shard"
        );
        assert!(u64::from(limits.dedupe_sender_max) >= repeat_secs * 1_000, "what a connection may send");
    }

    #[test]
    fn an_error_names_the_key_and_what_it_wants() {
        let limits = Limits { pending_max: 0, ..Limits::default() };
        assert_eq!(limits.validate(), Err("router.pending_max = 0: want a number from 1 to 16777216".into()));
    }
}
