//! What operators ask of the cluster.

use rkyv::{Archive, Deserialize as Load, Serialize as Store};

use super::{Login, Revocation};
use crate::client::Message;
use crate::{AppId, DeviceClass, RoomId, UserId};

/// What the control thread of a gateway asks a router shard.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Store, Load)]
pub enum Question {
    /// Where these users are, all owned by the router asked.
    Online {
        /// The app.
        app: AppId,
        /// Who.
        users: Vec<UserId>,
    },
    /// End the sessions of a user that the router asked knows, and keep the user out for a while.
    Kick {
        /// The app.
        app: AppId,
        /// Who.
        user: UserId,
        /// On this class of device only.
        device: Option<DeviceClass>,
        /// How long new logins are refused from here on, a week at most; 0 lifts a ban, `None` leaves it as
        /// it is.
        ban_ms: Option<u32>,
    },
    /// Refuse tokens, and end the sessions that have them.
    Revoke {
        /// [`REVOCATIONS_PER_MESSAGE`](crate::node::REVOCATIONS_PER_MESSAGE) at most.
        revocations: Vec<Revocation>,
    },
    /// Send a lossy message to every session of its app.
    PushAll {
        /// The message.
        message: Message,
    },
    /// Make the gateways of that node go.
    Drain {
        /// Which node.
        node: u16,
    },
    /// Which gateway shards are linked, and what they hold.
    Nodes,
    /// The last messages that are kept of a room, which the router asked owns.
    History {
        /// The room's app.
        app: AppId,
        /// Which room.
        room: RoomId,
        /// How many at most.
        last: u32,
    },
}

/// The answer to a [`Question`].
#[derive(Clone, PartialEq, Eq, Debug, Archive, Store, Load)]
pub enum Answer {
    /// To `Online`, in the order asked.
    Online {
        /// One for each user.
        users: Vec<Presence>,
        /// Every gateway has announced its sessions: a user without one is offline.
        settled: bool,
    },
    /// To `Kick`: how many sessions.
    Kicked {
        /// That many.
        sessions: u32,
    },
    /// To `PushAll`, `Drain` and `Revoke`: how many gateway shards were told.
    Told {
        /// That many.
        shards: u32,
    },
    /// To `Nodes`, ascending by shard.
    Nodes {
        /// One for each linked gateway shard.
        shards: Vec<ShardLoad>,
    },
    /// To `History`: in their order.
    History {
        /// The messages.
        messages: Vec<Message>,
    },
}

/// Where a user is.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Store, Load)]
pub struct Presence {
    /// Who.
    pub user: UserId,
    /// The live sessions; none when offline.
    pub seats: Vec<Seat>,
}

/// Where a session is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Store, Load)]
pub struct Seat {
    /// On what.
    pub device: DeviceClass,
    /// The packed id of the gateway shard.
    pub shard: u32,
    /// When it logged in.
    pub login: Login,
}

/// What a router shard knows of a gateway shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Store, Load)]
pub struct ShardLoad {
    /// The packed id of the gateway shard.
    pub shard: u32,
    /// Its sessions that this router owns.
    pub sessions: u32,
}
