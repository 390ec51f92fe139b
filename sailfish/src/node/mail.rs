//! What the shards of this process and its control thread tell each other.

use wire::node::NodeMessage;
use wire::{AppId, DeviceClass, UserId};

use super::Unbridged;

/// Mail of this process.
pub enum Mail {
    /// From core to core.
    Node(NodeMessage),
    /// From the control thread.
    Control(Control),
    /// To the control thread.
    Report(Report),
}

/// What the control thread asks of a shard. `ask` comes back in the report.
pub enum Control {
    /// Wants [`Report::Stats`].
    Stats {
        /// Which question.
        ask: u64,
    },
    /// Wants [`Report::Online`] for users that this shard owns.
    Online {
        /// Which question.
        ask: u64,
        /// Whose users.
        app: AppId,
        /// Which users.
        users: Vec<UserId>,
    },
    /// Use this configuration from here on.
    Reload(Box<gateway::Config>),
    /// Say farewell to the clients; [`Report::Drained`] when none is left.
    Drain,
    /// Close everything and end the thread.
    Stop,
}

/// What a shard tells the control thread.
pub enum Report {
    /// Answers [`Control::Stats`].
    Stats {
        /// Which question.
        ask: u64,
        /// What the cores count.
        metrics: Box<ShardMetrics>,
    },
    /// Answers [`Control::Online`].
    Online {
        /// Which question.
        ask: u64,
        /// The users in the order asked.
        users: Vec<Presence>,
    },
    /// Every client was told, and is gone or had its time.
    Drained,
}

/// What the cores of one shard count.
pub struct ShardMetrics {
    /// Of the gateway core.
    pub gateway: gateway::Metrics,
    /// Of the router core.
    pub router: router::Metrics,
    /// Of what would have gone to the bridge.
    pub unbridged: Unbridged,
}

/// Whether a user is online.
pub struct Presence {
    /// Who.
    pub user: UserId,
    /// The classes of device with a live session; none when offline.
    pub devices: Vec<DeviceClass>,
}
