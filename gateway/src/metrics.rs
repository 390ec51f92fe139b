//! What a shard counts.

use edge::Refusal;
use wire::client::{Code, FailReason, NoticeCode};

use crate::latency::Latency;
use crate::token::TokenError;

/// Counters since the start, and gauges of the moment. Plain numbers: one shard writes, and gives away
/// copies.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Metrics {
    /// Gauge: connections, closing ones included.
    pub connections: u64,
    /// Gauge: sessions of logged-in users.
    pub sessions: u64,
    /// Gauge: rooms with members on this shard.
    pub rooms: u64,
    /// Gauge: memberships of all sessions.
    pub memberships: u64,
    /// Gauge: armed timers.
    pub timers: u64,
    /// Gauge: bytes that wait or are in flight for all connections.
    pub outbox_bytes: u64,
    /// Gauge: messages that wait for their owners' answers.
    pub submitted: u64,
    /// Gauge: bytes of these.
    pub submitted_bytes: u64,
    /// Gauge: router shards that are linked.
    pub routers: u64,
    /// Gauge: router shards that own users and rooms.
    pub owners: u64,
    /// Changes of owners.
    pub views: u64,
    /// Messages submitted to another owner because theirs went.
    pub submitted_again: u64,
    /// Room messages from an earlier owner that came after newer ones: dropped or, if reliable, handed over.
    pub room_late: u64,
    /// Connections taken.
    pub accepted: u64,
    /// TLS handshakes that were done: full ones, and those that a ticket made short.
    pub tls_handshakes: [u64; 2],
    /// Connections that became WebSocket connections.
    pub websockets: u64,
    /// Connections ended by the layers between socket and frames, in the order of [`Refusal::ALL`].
    pub edge_refusals: [u64; Refusal::ALL.len()],
    /// Logins that were answered.
    pub logins: u64,
    /// Tokens that were refused, in the order of [`TokenError::ALL`].
    pub tokens_refused: [u64; TokenError::ALL.len()],
    /// Frames from clients, in the order of [`Code::ALL`].
    pub frames_in: [u64; Code::ALL.len()],
    /// Frames to clients, in the order of [`Code::ALL`]; repeats included.
    pub frames_out: [u64; Code::ALL.len()],
    /// Notices, in the order of [`NoticeCode::ALL`].
    pub notices: [u64; NoticeCode::ALL.len()],
    /// Reliable messages queued for a connection.
    pub deliveries_reliable: u64,
    /// Lossy messages queued for a connection.
    pub deliveries_lossy: u64,
    /// Joins whose answer says that all messages that they wanted follow.
    pub recoveries_complete: u64,
    /// Joins whose answer says that some of these are no longer kept.
    pub recoveries_too_old: u64,
    /// Owners that were asked once more for their rooms' messages.
    pub recalls_repeated: u64,
    /// Lossy messages dropped because their receiver is slow.
    pub lossy_dropped: u64,
    /// Lossy messages dropped because there was no router; their senders are not told.
    pub lossy_unowned: u64,
    /// Acks that ended a flight.
    pub acks: u64,
    /// Acks for a message that is not in flight: late, repeated or made up.
    pub acks_unknown: u64,
    /// Reliable messages written again.
    pub retries: u64,
    /// Reliable deliveries that ended without an ack, in the order of [`FailReason::ALL`].
    pub undelivered: [u64; FailReason::ALL.len()],
    /// Messages refused to their sender here, in the order of [`FailReason::ALL`].
    pub refused: [u64; FailReason::ALL.len()],
    /// How long messages take.
    pub latency: Latency,
}

impl Metrics {
    pub(crate) fn count_in(&mut self, code: Code) {
        count(&mut self.frames_in, &Code::ALL, code, 1);
    }

    pub(crate) fn count_out(&mut self, code: Code, frames: u64) {
        count(&mut self.frames_out, &Code::ALL, code, frames);
    }

    pub(crate) fn count_notice(&mut self, code: NoticeCode) {
        count(&mut self.notices, &NoticeCode::ALL, code, 1);
    }

    pub(crate) fn count_edge_refusal(&mut self, refusal: Refusal) {
        count(&mut self.edge_refusals, &Refusal::ALL, refusal, 1);
    }

    pub(crate) fn count_token_refused(&mut self, error: TokenError) {
        count(&mut self.tokens_refused, &TokenError::ALL, error, 1);
    }

    pub(crate) fn count_undelivered(&mut self, reason: FailReason) {
        count(&mut self.undelivered, &FailReason::ALL, reason, 1);
    }

    pub(crate) fn count_refused(&mut self, reason: FailReason) {
        count(&mut self.refused, &FailReason::ALL, reason, 1);
    }

    /// Tokens that were refused for one reason.
    pub fn tokens_refused_for(&self, error: TokenError) -> u64 {
        TokenError::ALL
            .into_iter()
            .zip(self.tokens_refused)
            .find(|(known, _)| *known == error)
            .map_or(0, |(_, n)| n)
    }

    /// Notices of one code.
    pub fn notices_of(&self, code: NoticeCode) -> u64 {
        NoticeCode::ALL.into_iter().zip(self.notices).find(|(known, _)| *known == code).map_or(0, |(_, n)| n)
    }
}

fn count<T: PartialEq>(counters: &mut [u64], names: &[T], name: T, by: u64) {
    let at = names.iter().position(|known| *known == name).expect("ALL names every one");
    counters[at] += by;
}
