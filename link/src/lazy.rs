//! Messages that may wait a little for company.
//!
//! Outcomes and send-acks are half of what a busy link carries, and nobody's next step hangs on them. On a link that wrote
//! something a moment ago they wait for the next message that does not wait, or for [`LAZY_TIME`]: each wake-up of the
//! other end costs more than the message itself. A quiet link sends them at once.

use std::collections::VecDeque;
use std::time::Duration;

use shard::{Instant, ShardId};
use wire::client::Outcome;
use wire::node::{NodeMessage, ToGateway, ToRouter};

/// How long they wait at most, and how long a link counts as busy after a write.
pub(crate) const LAZY_TIME: Duration = Duration::from_millis(1);

/// Whether a message may wait.
pub(crate) fn is_lazy(message: &NodeMessage) -> bool {
    match message {
        NodeMessage::ToRouter(ToRouter::Settle { outcome, .. }) => *outcome == Outcome::Delivered,
        NodeMessage::ToGateway(ToGateway::SendAck { .. } | ToGateway::Superseded { .. }) => true,
        NodeMessage::ToRouter(_)
        | NodeMessage::ToGateway(_)
        | NodeMessage::ToBridge(_)
        | NodeMessage::ToDirectory(_) => false,
    }
}

/// The peers for which nothing but such messages waits, in the order of their time.
#[derive(Default)]
pub(crate) struct Lazy {
    dues: VecDeque<(Instant, ShardId)>,
}

impl Lazy {
    /// A peer has something that may wait from here on; when that ends.
    pub(crate) fn wait(&mut self, now: Instant, peer: ShardId) -> Instant {
        let due = now + LAZY_TIME;
        self.dues.push_back((due, peer));
        due
    }

    /// The first time that ends.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.dues.front().map(|(due, _)| *due)
    }

    /// Takes a peer whose time has ended, with that time: what waited may have gone meanwhile.
    pub(crate) fn take(&mut self, now: Instant) -> Option<(Instant, ShardId)> {
        self.dues.pop_front_if(|(due, _)| *due <= now)
    }
}
