//! What links count.

use std::net::IpAddr;

use wire::node::link::Refusal;

/// Counts since the start, and what is held at the moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Metrics {
    /// Held: peers that are up.
    pub peers: u64,
    /// Held: of these, those without a connection at the moment.
    pub peers_away: u64,
    /// Held: of the peers, those whose connection is not encrypted.
    pub peers_clear: u64,
    /// Held: of the peers, those whose queue is full: clients are not read meanwhile.
    pub peers_full: u64,
    /// Held: bytes that wait for peers, or are in flight without a credit.
    pub queued_bytes: u64,
    /// Held: bytes of batches that came and that the cores have not handled yet.
    pub backlog_bytes: u64,
    /// Sessions begun.
    pub sessions: u64,
    /// Connections that went on with a session.
    pub resumed: u64,
    /// Peers given up.
    pub lost: u64,
    /// Messages that were on their way to them, or waited.
    pub messages_lost: u64,
    /// Connects that failed.
    pub connect_failures: u64,
    /// Connections refused, by this side or by the other, in the order of [`Refusal::ALL`].
    pub refused: [u64; Refusal::ALL.len()],
    /// Connections refused as [`Refusal::Stale`] because another process has the number of the other end.
    pub same_numbers: u64,
    /// The last of these.
    pub same_number: Option<SameNumber>,
    /// Messages sent in batches.
    pub messages_out: u64,
    /// Messages that came in batches.
    pub messages_in: u64,
    /// Batches sent, repeats not counted.
    pub batches_out: u64,
    /// Batches that came.
    pub batches_in: u64,
    /// Messages to a shard that is not linked.
    pub unreachable: u64,
}

/// Two processes that have the number of one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SameNumber {
    /// Their number.
    pub node: u16,
    /// Where the one that started earlier is, which was refused.
    pub earlier: Option<IpAddr>,
    /// Where the one that started later is, which is linked; `None` while it has no connection.
    pub later: Option<IpAddr>,
}

impl Metrics {
    /// Connections refused, by reason.
    pub fn refused_by_reason(&self) -> impl Iterator<Item = (Refusal, u64)> + use<> {
        Refusal::ALL.into_iter().zip(self.refused)
    }

    pub(crate) fn count_refused(&mut self, reason: Refusal) {
        for (known, count) in Refusal::ALL.into_iter().zip(&mut self.refused) {
            *count += u64::from(known == reason);
        }
    }
}
