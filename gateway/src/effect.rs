//! The effects of a gateway core, and their queue.

use std::collections::VecDeque;

use shard::{ConnId, Linger, ShardId};
use wire::node::{ToBridge, ToControl, ToGateway, ToRouter};

/// An effect of a gateway core.
#[derive(PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send mail to the router core of a shard.
    ToRouter {
        /// Which shard.
        to: ShardId,
        /// What.
        mail: ToRouter,
    },
    /// Send mail to the gateway core of another shard of this node.
    ToSibling {
        /// Which shard.
        to: ShardId,
        /// What.
        mail: ToGateway,
    },
    /// Keep an event for the bridge.
    ToBridge(ToBridge),
    /// Report something to the control thread.
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

/// Effects, in the order in which they arose; the engine takes all of them in the same turn.
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

    /// Drops mail to a router that is gone: it means nothing to the router's next life.
    pub(crate) fn forget_router(&mut self, router: ShardId) {
        self.0.retain(|effect| !matches!(effect, Effect::ToRouter { to, .. } if *to == router));
    }

    pub(crate) fn pop(&mut self) -> Option<Effect> {
        self.0.pop_front()
    }
}
