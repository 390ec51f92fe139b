//! What gateway shards, router shards and the bridge tell each other.
//!
//! Every gateway shard speaks with the router shard that owns a user or a room. A message for a user travels
//! sender's shard -> owner -> receiver's shard; its outcome travels the same way back.

mod owners;

pub use owners::Owners;

use bytes::Bytes;

use crate::client::{Message, NoticeCode, Outcome, SendAck};
use crate::{AppId, BizCode, ClientMsgId, DeviceClass, RoomId, UserId};

/// A session as its gateway shard names it; opaque to everyone else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

/// A delivery that a router shard waits for; opaque to everyone else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeliveryId(pub u64);

/// Anything one core says to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NodeMessage {
    /// For the router core of the addressed shard.
    ToRouter(ToRouter),
    /// For the gateway core of the addressed shard.
    ToGateway(ToGateway),
    /// For the bridge.
    ToBridge(ToBridge),
}

/// What happens to a business packet's message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Acked by each receiver, repeated, handed over when undelivered.
    Reliable,
    /// Dropped first when a receiver is slow.
    Lossy,
}

/// Where a message goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Target {
    /// To every live session of a user.
    User(UserId),
    /// To every member of a room.
    Room(RoomId),
}

/// A message as a session submits it; the owner of its target gives it an id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Submission {
    /// The app of sender and target.
    pub app: AppId,
    /// The session's user.
    pub sender: UserId,
    /// Where it goes.
    pub target: Target,
    /// What it is about.
    pub biz_code: BizCode,
    /// How it is delivered.
    pub class: Class,
    /// The sender's name for it; empty means no dedupe and no send-ack.
    pub client_msg_id: ClientMsgId,
    /// What the receiver gets.
    pub payload: Bytes,
}

/// From a gateway shard to the router shard that owns the user or room in question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToRouter {
    /// A session logged in; answered by [`ToGateway::Bound`]. An older session of the same app, user and device class is kicked.
    Bind {
        /// Whose app.
        app: AppId,
        /// Who.
        user: UserId,
        /// On what.
        device: DeviceClass,
        /// Which session.
        session: SessionId,
    },
    /// A session ended. Removes the binding only while it is still this session's.
    Unbind {
        /// Whose app.
        app: AppId,
        /// Who.
        user: UserId,
        /// On what.
        device: DeviceClass,
        /// Which session.
        session: SessionId,
    },
    /// A shard got a member of a room; answered by [`ToGateway::Joined`].
    Join {
        /// Whose app.
        app: AppId,
        /// Which room.
        room: RoomId,
    },
    /// A shard lost its last member of a room.
    Leave {
        /// Whose app.
        app: AppId,
        /// Which room.
        room: RoomId,
    },
    /// A session sends a message.
    Submit {
        /// Who gets the send-ack.
        session: SessionId,
        /// The message.
        submission: Submission,
    },
    /// The end of a [`ToGateway::Deliver`] that had a `delivery`.
    Settle {
        /// Which delivery.
        delivery: DeliveryId,
        /// At which session.
        session: SessionId,
        /// `Delivered`, or `Failed` and why.
        outcome: Outcome,
    },
}

/// From a router shard to a gateway shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToGateway {
    /// The session is reachable.
    Bound {
        /// Which session.
        session: SessionId,
    },
    /// The session is no longer the one of its user and device class.
    Kick {
        /// Which session.
        session: SessionId,
        /// What its client is told.
        notice: NoticeCode,
    },
    /// The shard gets every message of the room past `sequence`.
    Joined {
        /// Whose app.
        app: AppId,
        /// Which room.
        room: RoomId,
        /// The sequence of the room's last message so far.
        sequence: u64,
    },
    /// A message for one session.
    Deliver {
        /// Which session.
        session: SessionId,
        /// Whom to tell the outcome; `None` for a lossy message.
        delivery: Option<DeliveryId>,
        /// The message.
        message: Message,
    },
    /// A message for every local member of its room.
    Broadcast {
        /// The message.
        message: Message,
    },
    /// What has become of a message that a session sent.
    SendAck {
        /// Which session sent it last.
        session: SessionId,
        /// What it is told.
        ack: SendAck,
    },
}

/// From a gateway or router shard to the bridge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToBridge {
    /// A user's session came.
    Online {
        /// Whose app.
        app: AppId,
        /// Who.
        user: UserId,
        /// On what.
        device: DeviceClass,
    },
    /// A user's session ended, however it ended.
    Offline {
        /// Whose app.
        app: AppId,
        /// Who.
        user: UserId,
        /// On what.
        device: DeviceClass,
    },
    /// A user's session joined a room.
    Joined {
        /// Whose app.
        app: AppId,
        /// Who.
        user: UserId,
        /// Which room.
        room: RoomId,
    },
    /// A user's session left a room, or ended in it.
    Left {
        /// Whose app.
        app: AppId,
        /// Who.
        user: UserId,
        /// Which room.
        room: RoomId,
    },
    /// A reliable message that its receiver did not ack.
    Undelivered {
        /// The receiver.
        user: UserId,
        /// Why.
        reason: crate::client::FailReason,
        /// The message.
        message: Message,
    },
    /// A business packet for the backend.
    Request {
        /// Who gets the send-ack.
        session: SessionId,
        /// On what device.
        device: DeviceClass,
        /// The room of the packet, if it named one.
        room: Option<RoomId>,
        /// Whose app.
        app: AppId,
        /// Who.
        sender: UserId,
        /// What it is about.
        biz_code: BizCode,
        /// The sender's name for it.
        client_msg_id: ClientMsgId,
        /// What the backend gets.
        payload: Bytes,
    },
}
