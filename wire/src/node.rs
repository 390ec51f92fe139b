//! What gateway shards, router shards and the bridge tell each other, and its bytes on a link between nodes.
//!
//! Every gateway shard speaks with the router shard that owns a user or a room. A message for a user travels
//! sender's shard -> owner -> receiver's shard; its outcome travels the same way back.
#![allow(
    missing_docs,
    reason = "the derived archives have fields of their own; everything here is documented"
)]

mod ban;
mod batch;
mod ending;
mod history;
pub mod link;
mod owners;
mod question;
mod ranges;
mod revocation;
mod sound;
mod stamps;

pub use ban::{BAN_MS_MAX, BANS_MAX, BANS_PER_MESSAGE, Ban, Bans};
pub use batch::{decode_batch, encode_batch};
pub use history::{
    Entry, HISTORY_BYTES_MAX, HISTORY_MESSAGES_MAX, Kept, PART_BYTES, PART_MESSAGES_MAX, Recalled, Stream,
};
pub use owners::Owners;
pub use question::{Answer, Presence, Question, Seat, ShardLoad};
pub use ranges::{Digests, RANGE_WORDS, RANGES, RangeSet, range_of, session_digest};
pub use revocation::{
    REVOCATION_SECS_MAX, REVOCATIONS_MAX, REVOCATIONS_PER_MESSAGE, Revocation, Revocations,
};
pub use sound::{PAYLOAD_BYTES_MAX, sequence_base, sequence_believed_max};
pub use stamps::StampClock;

use bytes::Bytes;
use rkyv::with::Skip;
use rkyv::{Archive, Deserialize as Load, Serialize as Store};

use crate::client::{FailReason, Message, NoticeCode, Outcome, SendAck};
use crate::{AppId, BizCode, ClientMsgId, DeviceClass, MessageId, RoomId, UserId};

/// A session as its gateway shard names it; opaque to everyone else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Archive, Store, Load)]
pub struct SessionId(pub u64);

impl SessionId {
    /// No session: the control thread of a gateway speaks.
    pub const CONTROL: SessionId = SessionId(u64::MAX);
}

/// A delivery that a router shard waits for; opaque to everyone else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Archive, Store, Load)]
pub struct DeliveryId(pub u64);

impl DeliveryId {
    /// Nobody waits.
    pub const NONE: DeliveryId = DeliveryId(u64::MAX);
}

impl Default for DeliveryId {
    fn default() -> Self {
        Self::NONE
    }
}

/// When a session logged in, as a stamp that orders all sessions of one user and device class: the higher is
/// the newer. It begins as ns since the UNIX epoch, by a [`StampClock`]; an owner that knows of a higher one
/// raises it above, and an announcement to another owner raises it by one. So clocks that differ between
/// nodes do not decide who is newer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Archive, Store, Load)]
pub struct Login(pub u64);

/// Anything that goes over a link. [`link::Role::may_say`] tells who says what to whom.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Store, Load)]
pub enum LinkMessage {
    /// For the router core of the addressed shard.
    ToRouter(ToRouter),
    /// For the gateway core of the addressed shard.
    ToGateway(ToGateway),
    /// An event on its way to a bridge.
    Handed(Box<Handed>),
    /// From a bridge to whoever handed events over.
    FromBridge(FromBridge),
}

/// What happens to a business packet's message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Archive, Store, Load)]
pub enum Class {
    /// Acked by each receiver, repeated, handed over when undelivered.
    Reliable,
    /// Dropped first when a receiver is slow.
    Lossy,
}

/// Where a message goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Archive, Store, Load)]
pub enum Target {
    /// To every live session of a user.
    User(UserId),
    /// To every member of a room.
    Room(RoomId),
}

/// A message as a session submits it.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Store, Load)]
pub struct Submission {
    /// The id that the sender's shard gave it. It stays when the message goes to another owner.
    pub id: MessageId,
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
    /// Another owner may have delivered it already.
    pub again: bool,
    /// It stands in an inbox and is handed over from there: under the name that its sender gave it, but apart
    /// from what its owner remembers of the original. When it fails it stays in the inbox.
    pub stored: bool,
    /// It is for the receiver's session on this class of device alone.
    pub device: Option<DeviceClass>,
    /// Another owner, which is gone, found it undelivered for this reason and may have handed it over: to
    /// hand it over is all that is left.
    pub concluded: Option<FailReason>,
}

impl Submission {
    /// Whether the owner answers it: always, but for a lossy message of which no sender is told anything.
    pub fn is_answered(&self) -> bool {
        is_answered(self.class, self.target, &self.client_msg_id)
    }
}

/// Whether a message like this is answered by the owner of its target.
pub fn is_answered(class: Class, target: Target, client_msg_id: &ClientMsgId) -> bool {
    match (class, target) {
        (Class::Reliable, _) => true,
        (Class::Lossy, Target::Room(_)) => !client_msg_id.is_empty(),
        (Class::Lossy, Target::User(_)) => false,
    }
}

/// From a gateway shard to a router shard: the one that owns the user or room in question, where there is
/// one.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Store, Load)]
pub enum ToRouter {
    /// A session is the one of its user and device class. Of two sessions the older is kicked.
    Bind {
        /// The app that the user or room belongs to.
        app: AppId,
        /// The user.
        user: UserId,
        /// On what.
        device: DeviceClass,
        /// Which session.
        session: SessionId,
        /// When it logged in.
        login: Login,
        /// It has logged in a moment ago, so it is newer than whatever is bound. Otherwise it is announced to
        /// an owner that may not know it, and its stamp decides.
        fresh: bool,
    },
    /// A session is no longer to be bound here. Removes the binding only while it is still this session's.
    Unbind {
        /// The app that the user or room belongs to.
        app: AppId,
        /// The user.
        user: UserId,
        /// On what.
        device: DeviceClass,
        /// Which session.
        session: SessionId,
        /// It lives on, bound by another owner.
        moved: bool,
    },
    /// A shard has members of a room; answered by [`ToGateway::Joined`].
    Join {
        /// The app that the user or room belongs to.
        app: AppId,
        /// Which room.
        room: RoomId,
        /// The highest sequence of it that this shard has seen, or that an owner has told it; 0 for none.
        sequence: u64,
    },
    /// A shard has no member of a room any more, or another owner for it.
    Leave {
        /// The app that the user or room belongs to.
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
    /// The sender's shard has another owner for the target, and submits the message there. Forget it, if it
    /// is held back.
    Withdraw {
        /// Its app.
        app: AppId,
        /// Its target.
        target: Target,
        /// Its id.
        id: MessageId,
    },
    /// The router shards that this gateway shard has links with, as packed shard ids, ascending.
    Reach {
        /// All of them.
        routers: Vec<u32>,
        /// What its [`StampClock`] shows.
        clock: Login,
    },
    /// This shard goes by the owners of that name from here on. It announces what it has to those of them
    /// that do not know it, and says so when it is `done`.
    View {
        /// [`Owners::name`].
        view: u64,
        /// Everything is announced.
        done: bool,
    },
    /// The control thread wants something; answered by [`ToGateway::Answer`].
    Ask {
        /// Comes back with the answer.
        ask: u64,
        /// What.
        question: Question,
    },
    /// A session of this shard ended a while ago, and the bridge was told so by another owner, or by this
    /// shard, which then had none. Another session of its user and device class that comes here needs a stamp
    /// above.
    Ended {
        /// The app that the user belongs to.
        app: AppId,
        /// The user.
        user: UserId,
        /// On what.
        device: DeviceClass,
        /// That of the session that ended.
        login: Login,
    },
    /// Of the ranges that the router told by [`ToGateway::Digests`], these are as this shard has them: it
    /// announces the sessions of the others, and those that it has not announced when it is done have ended.
    Unchanged {
        /// A [`RangeSet`] by its words.
        ranges: Vec<u64>,
        /// Another owner may have known these sessions meanwhile: their stamps are raised, here and there.
        moved: bool,
    },
    /// Members of this shard want what the room said before; answered by [`ToGateway::Recalled`], if the
    /// shard is in the room.
    Recall {
        /// The room's app.
        app: AppId,
        /// Which room.
        room: RoomId,
        /// Comes back with the answer.
        ask: u32,
        /// All after this sequence are wanted; `u64::MAX` for none.
        since: u64,
        /// So many of the last are wanted, too.
        last: u32,
    },
    /// The owner before kept this of a room.
    Kept(Box<Kept>),
    /// This node refuses tokens for these, which the router may not know.
    Revoked {
        /// [`REVOCATIONS_PER_MESSAGE`] at most.
        revocations: Vec<Revocation>,
    },
    /// This node refuses these logins, which the router may not know.
    Banned {
        /// [`BANS_PER_MESSAGE`] at most.
        bans: Vec<Ban>,
    },
}

/// From a router shard to a gateway shard.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Store, Load)]
pub enum ToGateway {
    /// The session is reachable.
    Bound {
        /// Which session.
        session: SessionId,
        /// Its stamp, raised where it had to be.
        login: Login,
    },
    /// A session with a stamp that is higher than that of a login is bound: the login came late, or its clock
    /// is behind. If its session is still there, it is the newer one, and its shard asks again.
    AskAgain {
        /// Which session has logged in.
        session: SessionId,
        /// The stamp that its own is to be above.
        above: Login,
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
        /// The app that the user or room belongs to.
        app: AppId,
        /// Which room.
        room: RoomId,
        /// The sequence of the room's last message so far.
        sequence: u64,
    },
    /// The owner has no place for the shard in that room, and sends nothing of it: its members there are not
    /// in.
    Full {
        /// The app that the user or room belongs to.
        app: AppId,
        /// Which room.
        room: RoomId,
    },
    /// A message for one session.
    Deliver {
        /// Which session.
        session: SessionId,
        /// Whom to tell the outcome; `None` for a lossy message.
        delivery: Option<DeliveryId>,
        /// Another owner may have delivered it already: the session may still have it in flight.
        again: bool,
        /// The message.
        message: Message,
    },
    /// A message for the members of its room.
    Broadcast {
        /// The message.
        message: Message,
        /// The shards of the node that have members, by index; the shard that gets it mails it on. Empty: it
        /// is for this shard alone.
        shards: Vec<u16>,
    },
    /// What has become of a message that this shard submitted.
    SendAck {
        /// Which session sent it last.
        session: SessionId,
        /// The id that its shard gave it.
        submitted: MessageId,
        /// What it is told; nothing when it gave the message no id.
        ack: SendAck,
    },
    /// A message was sent once more, by another session, which gets the send-ack.
    Superseded {
        /// The id under which this shard submitted it.
        submitted: MessageId,
    },
    /// A message was not delivered: the bridge is given it, and what that says is told by
    /// [`ToGateway::SendAck`]. No other owner is to deliver it meanwhile.
    Concluded {
        /// The id under which this shard submitted it.
        submitted: MessageId,
        /// Why.
        reason: FailReason,
    },
    /// The router shards that every gateway shard linked to this router reaches, ascending.
    Common {
        /// All of them.
        routers: Vec<u32>,
        /// What the router's [`StampClock`] shows.
        clock: Login,
    },
    /// The router still has bindings of this shard's sessions, from before their link was lost, and delivers
    /// nothing to them until it hears which are still there, by [`ToRouter::Unchanged`].
    Digests {
        /// [`Digests`], one for each range.
        digests: Vec<u64>,
    },
    /// A lossy message for every session of its app.
    All {
        /// The message.
        message: Message,
    },
    /// The node is to go: what SIGTERM does.
    Drain,
    /// Another process that started earlier has the number of this node, and was refused.
    SameNumber,
    /// Answers [`ToRouter::Ask`].
    Answer {
        /// Which question.
        ask: u64,
        /// The answer.
        answer: Answer,
    },
    /// A part of the answer to [`ToRouter::Recall`].
    Recalled(Box<Recalled>),
    /// What this router, which owns the room no longer, kept of it. The shard gives it to the owner.
    Moved(Box<Kept>),
    /// Refuse tokens for these.
    Revoked {
        /// [`REVOCATIONS_PER_MESSAGE`] at most.
        revocations: Vec<Revocation>,
    },
    /// Refuse these logins.
    Banned {
        /// [`BANS_PER_MESSAGE`] at most.
        bans: Vec<Ban>,
    },
    /// The token of a session may have been revoked: end the session if it was.
    Recheck {
        /// Which session.
        session: SessionId,
    },
    /// The bridge was told that a session has ended, as the directory knew it and its shard was lost. If it
    /// lives, its owner is to hear so by [`ToRouter::Ended`].
    Ended {
        /// Which session.
        session: SessionId,
        /// The stamp under which that was told.
        login: Login,
    },
}

/// From a gateway or router shard to the bridge.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Store, Load)]
pub enum ToBridge {
    /// A user's session came, or is bound by another owner. May be told twice; of what is told about one user
    /// and device class the highest `login` counts, and of equal ones `Offline`, since a session ends once.
    Online {
        /// The app that the user or room belongs to.
        app: AppId,
        /// The user.
        user: UserId,
        /// On what.
        device: DeviceClass,
        /// Orders this against other events of the same user and device class.
        login: Login,
    },
    /// A user's session ended, however it ended.
    Offline {
        /// The app that the user or room belongs to.
        app: AppId,
        /// The user.
        user: UserId,
        /// On what.
        device: DeviceClass,
        /// That of the session that ended.
        login: Login,
    },
    /// A user's session joined a room.
    Joined {
        /// The app that the user or room belongs to.
        app: AppId,
        /// The user.
        user: UserId,
        /// On what.
        device: DeviceClass,
        /// Orders this against other events of the same user, device class and room: the highest counts, and
        /// of equal ones the last.
        login: Login,
        /// Which room.
        room: RoomId,
    },
    /// A user's session left a room, or ended in it.
    Left {
        /// The app that the user or room belongs to.
        app: AppId,
        /// The user.
        user: UserId,
        /// On what.
        device: DeviceClass,
        /// As in `Joined`.
        login: Login,
        /// Which room.
        room: RoomId,
    },
    /// A reliable message that its receiver did not ack.
    Undelivered {
        /// The receiver.
        user: UserId,
        /// Why.
        reason: FailReason,
        /// The message.
        message: Message,
        /// As what the router core of this shard waits to hear whether the bridge has it. Told within a shard
        /// only: on a link it is [`DeliveryId::NONE`].
        #[rkyv(with = Skip)]
        delivery: DeliveryId,
    },
    /// A business packet for the backend.
    Request {
        /// Who gets the send-ack.
        session: SessionId,
        /// On what device.
        device: DeviceClass,
        /// The room of the packet, if it named one.
        room: Option<RoomId>,
        /// The app that the user or room belongs to.
        app: AppId,
        /// The user.
        sender: UserId,
        /// What it is about.
        biz_code: BizCode,
        /// When the gateway got it, in ms since the UNIX epoch by its wall clock; 0 if that is unknown.
        received_ms: u64,
        /// The sender's name for it.
        client_msg_id: ClientMsgId,
        /// What the backend gets.
        payload: Bytes,
    },
}

/// An event for the bridge, as the shard numbers it from which it comes.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Store, Load)]
pub struct Handed {
    /// Counted from 1 in each life of a shard's process. The same number is the same event, however often it
    /// is handed over.
    pub seq: u64,
    /// The event.
    pub event: ToBridge,
}

/// From a bridge shard to a shard that hands events over.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Store, Load)]
pub enum FromBridge {
    /// These events need not be handed over again.
    Taken {
        /// By their numbers, in any order.
        results: Vec<(u64, Taken)>,
    },
}

/// What a bridge says of an event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Archive, Store, Load)]
pub enum Taken {
    /// The backend has it, or a store that outlives the bridge.
    Ok,
    /// Nobody will ever take it.
    Refused(FailReason),
}

/// From a gateway core to the control thread of its node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToControl {
    /// The answer to a question of the control thread.
    Answer {
        /// Which question.
        ask: u64,
        /// The answer.
        answer: Answer,
    },
    /// What has become of a message that the control thread sent.
    SendAck {
        /// The id that the shard gave it.
        submitted: MessageId,
        /// What the sender is told.
        ack: SendAck,
    },
    /// A message of the control thread was sent once more, and the later one gets the answer.
    Superseded {
        /// The id that the shard gave the earlier one.
        submitted: MessageId,
    },
    /// The node is to go: what SIGTERM does.
    Drain,
    /// Another process that started earlier has the number of this node, and was refused.
    SameNumber,
}

/// From a router shard to the directory of its node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToDirectory {
    /// A user's session is bound.
    Bind {
        /// The app that the user or room belongs to.
        app: AppId,
        /// The user.
        user: UserId,
        /// Where.
        seat: FoundSeat,
    },
    /// A user's session is bound no more. Says nothing of a newer one.
    Unbind {
        /// The app that the user or room belongs to.
        app: AppId,
        /// The user.
        user: UserId,
        /// On what.
        device: DeviceClass,
        /// That of the session.
        login: Login,
    },
    /// Where is this user? The directory answers with the seats that it knows, if any.
    LookUp {
        /// The app that the user or room belongs to.
        app: AppId,
        /// The user.
        user: UserId,
    },
    /// To be added to the stream of a room.
    Keep {
        /// The app that the user or room belongs to.
        app: AppId,
        /// Which room.
        room: RoomId,
        /// What.
        entry: Box<Entry>,
    },
    /// What is in the stream of a room? The directory answers with a [`Stream`], unless its server does not.
    Read {
        /// The app that the user or room belongs to.
        app: AppId,
        /// Which room.
        room: RoomId,
    },
}

/// A session as the directory has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoundSeat {
    /// On what, where, since when.
    pub seat: Seat,
    /// Which session of that shard.
    pub session: SessionId,
    /// Which life of the shard's process.
    pub incarnation: u64,
}
