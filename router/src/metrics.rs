//! What a router counts.

use wire::client::FailReason;

/// Counts since the start, and what is held at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Metrics {
    /// Held: bindings of sessions.
    pub bindings: u64,
    /// Held: of these bindings, those of gateway shards that were lost and may come back with them.
    pub away: u64,
    /// Held: users with at least one binding.
    pub users: u64,
    /// Held: rooms with at least one member shard.
    pub rooms: u64,
    /// Held: rooms with a history.
    pub history_rooms: u64,
    /// Held: messages that rooms keep.
    pub history_messages: u64,
    /// Held: their bytes.
    pub history_bytes: u64,
    /// Held: shards that wait for a room's messages.
    pub recalls_waiting: u64,
    /// Held: reliable messages that wait for their receivers.
    pub pending: u64,
    /// Held: undelivered messages that the bridge has not accepted or refused yet.
    pub handed: u64,
    /// Held: outcomes remembered for repeated messages.
    pub remembered: u64,
    /// Held: messages that are parked until gateways agree.
    pub parked: u64,
    /// Held: gateway shards that are linked.
    pub gateways: u64,
    /// Held: router shards that all of these reach.
    pub common: u64,
    /// Held: whether gateways disagree at the moment, or this router has just come up.
    pub unsettled: u64,
    /// Mail from shards that are not linked.
    pub strangers: u64,
    /// Gateway shards whose link was lost.
    pub gateways_lost: u64,
    /// Sessions announced by their gateways to this new owner.
    pub announced: u64,
    /// Sessions of gateway shards that were lost and came back with them unchanged: nothing was announced.
    pub unchanged: u64,
    /// Messages that rooms forgot because all of them kept too much.
    pub history_evicted: u64,
    /// Shards that were sent a room's messages.
    pub recalls: u64,
    /// Shards that found no room to wait for these; they ask again.
    pub recalls_refused: u64,
    /// Streams of rooms that were read from the directory.
    pub streams_read: u64,
    /// Parts of histories that were sent to the next owner.
    pub history_moved: u64,
    /// Parts of histories that came from the owner before and were used.
    pub history_taken: u64,
    /// Sessions that bound.
    pub binds: u64,
    /// Sessions that were kicked because a newer one bound.
    pub kicks: u64,
    /// Sessions that were kicked because the router was full.
    pub refused: u64,
    /// Shards that could not join a room because the router was full.
    pub joins_refused: u64,
    /// Sessions that unbound.
    pub unbinds: u64,
    /// Unbinds of sessions that were no longer bound: replaced or refused ones.
    pub unbinds_stale: u64,
    /// Messages submitted to users, reliable, repeats included.
    pub submitted_user_reliable: u64,
    /// Messages submitted to users, lossy, repeats included.
    pub submitted_user_lossy: u64,
    /// Messages submitted to rooms, reliable, repeats included.
    pub submitted_room_reliable: u64,
    /// Messages submitted to rooms, lossy, repeats included.
    pub submitted_room_lossy: u64,
    /// Submitted messages that repeat one that is pending.
    pub repeats_pending: u64,
    /// Submitted messages that repeat one whose outcome is remembered.
    pub repeats_done: u64,
    /// Messages sent to sessions, one for each session.
    pub forwarded: u64,
    /// Room messages sent to shards, one for each shard.
    pub broadcasts: u64,
    /// Reliable messages to users that a receiver acked.
    pub delivered: u64,
    /// Reliable messages to users that no receiver acked, in the order of `FailReason::ALL`.
    pub undelivered: [u64; FailReason::ALL.len()],
    /// Of these, those that the bridge keeps.
    pub stored: u64,
    /// Lossy messages to users without a session; they are gone.
    pub lossy_offline: u64,
    /// Messages that met a limit, or a room that is not known yet: the sender is asked to try again later.
    pub busy: u64,
    /// Pending messages whose receivers' shards never settled.
    pub expired: u64,
    /// Settlements that nobody waited for: after another receiver's ack, after the timeout, or from an
    /// earlier life.
    pub settles_stale: u64,
}

impl Metrics {
    /// Reliable messages to users that no receiver acked, by the reason of the last failure.
    pub fn undelivered_by_reason(&self) -> impl Iterator<Item = (FailReason, u64)> {
        FailReason::ALL.into_iter().zip(self.undelivered)
    }

    pub(crate) fn count_undelivered(&mut self, reason: FailReason) {
        let known = FailReason::ALL.iter().position(|known| *known == reason);
        self.undelivered[known.expect("ALL has every reason")] += 1;
    }
}
