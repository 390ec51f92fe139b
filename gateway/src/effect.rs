//! What a gateway core wants done, and the queue of it.

use std::collections::VecDeque;

use shard::{ConnId, Linger, ShardId};
use wire::node::{ToBridge, ToControl, ToGateway, ToRouter};

/// What a gateway core wants done.
#[derive(PartialEq, Eq, Debug)]
pub enum Effect {
    /// Tell the router core of a shard something.
    ToRouter {
        /// Which shard.
        to: ShardId,
        /// What.
        mail: ToRouter,
    },
    /// Tell the gateway core of another shard of this node something.
    ToSibling {
        /// Which shard.
        to: ShardId,
        /// What.
        mail: ToGateway,
    },
    /// Keep an event for the bridge.
    ToBridge(ToBridge),
    /// Tell the control thread something.
    ToControl(ToControl),
    /// There are bytes for a client; take them with
    /// [`Gateway::poll_transmit`](crate::Gateway::poll_transmit).
    Transmit {
        /// The client's connection.
        conn: ConnId,
    },
    /// End the connection of a client.
    Close {
        /// Which connection.
        conn: ConnId,
        /// What becomes of its unwritten bytes.
        linger: Linger,
    },
    /// Let no client in any more.
    StopAccepting,
}

/// What is to be done, in the order in which it was said; the engine takes all of it in the same turn.
#[derive(Default)]
pub(crate) struct Effects(VecDeque<Effect>);

impl Effects {
    pub(crate) fn router(&mut self, to: ShardId, mail: ToRouter) {
        self.0.push_back(Effect::ToRouter { to, mail });
    }

    pub(crate) fn sibling(&mut self, to: ShardId, mail: ToGateway) {
        self.0.push_back(Effect::ToSibling { to, mail });
    }

    pub(crate) fn bridge(&mut self, event: ToBridge) {
        self.0.push_back(Effect::ToBridge(event));
    }

    pub(crate) fn control(&mut self, mail: ToControl) {
        self.0.push_back(Effect::ToControl(mail));
    }

    /// Ends a connection once what waits for it is written.
    pub(crate) fn close(&mut self, conn: ConnId) {
        self.0.push_back(Effect::Close { conn, linger: Linger::Flush });
    }

    pub(crate) fn stop_accepting(&mut self) {
        self.0.push_back(Effect::StopAccepting);
    }

    /// A router is gone: its next life knows nothing of what this was about.
    pub(crate) fn forget_router(&mut self, router: ShardId) {
        self.0.retain(|effect| !matches!(effect, Effect::ToRouter { to, .. } if *to == router));
    }

    pub(crate) fn pop(&mut self) -> Option<Effect> {
        self.0.pop_front()
    }
}
