//! An event as a backend reads it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use traces::{Context, Moment, Sampling};
use wire::client::{FailReason, Message};
use wire::node::ToBridge;
use wire::{AppId, BizCode, RoomId, UserId};

use crate::Item;
use crate::backoff::mix;

/// The kind of an event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EventKind {
    /// A business packet.
    Request,
    /// A session came.
    Online,
    /// A session ended.
    Offline,
    /// A session joined a room.
    Join,
    /// A session left a room.
    Leave,
    /// A reliable message that its receiver did not ack.
    Undelivered,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [EventKind; 6] =
        [Self::Request, Self::Online, Self::Offline, Self::Join, Self::Leave, Self::Undelivered];

    /// The name in JSON and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Undelivered => "undelivered",
        }
    }

    fn of(event: &ToBridge) -> Self {
        match event {
            ToBridge::Request { .. } => Self::Request,
            ToBridge::Online { .. } => Self::Online,
            ToBridge::Offline { .. } => Self::Offline,
            ToBridge::Joined { .. } => Self::Join,
            ToBridge::Left { .. } => Self::Leave,
            ToBridge::Undelivered { .. } => Self::Undelivered,
        }
    }
}

/// The id of an event: its shard, which life of it, and its number there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EventKey {
    pub shard: u32,
    pub incarnation: u64,
    pub seq: u64,
}

impl EventKey {
    pub fn of(item: &Item) -> Self {
        Self { shard: item.shard, incarnation: item.incarnation, seq: item.seq }
    }

    /// The id as a backend sees it, the same on every retry.
    pub fn id(&self) -> String {
        format!("{:x}-{:x}-{:x}", self.shard, self.incarnation, self.seq)
    }

    /// The trace that begins with the event, the same on every retry.
    pub fn context(&self, sampling: Sampling) -> Context {
        let life = mix(self.incarnation ^ u64::from(self.shard) << 32);
        let (high, low) = (mix(life ^ self.seq), mix(life.wrapping_add(self.seq)) | 1); // not 0
        let trace = u128::from(high) << 64 | u128::from(low);
        let span = mix(self.seq ^ u64::from(self.shard) << 32) | 1;
        Context { trace, span, is_sampled: sampling.takes(trace) }
    }

    /// The id of that trace: 32 hexadecimal digits.
    pub fn trace(&self) -> String {
        self.context(Sampling::default()).trace_id()
    }
}

/// An event on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub key: EventKey,
    /// The user whose events are to stay in order.
    pub user: (AppId, UserId),
    pub kind: EventKind,
    /// The reason that its shard gets when the backend refuses it.
    pub refusal: FailReason,
    /// The event as JSON.
    pub json: Vec<u8>,
    /// How often it was sent without success.
    pub tries: u32,
    /// The contents of its spans, if its trace is exported.
    pub trace: Option<Box<Traced>>,
}

/// The contents of an event's spans.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Traced {
    pub context: Context,
    pub packet: Packet,
    /// When the bridge got it.
    pub taken: Moment,
}

/// The packet that an event carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    pub is_undelivered: bool,
    pub biz_code: BizCode,
    pub room: Option<RoomId>,
    /// When its gateway got it, in ms since the UNIX epoch; 0 if that is unknown.
    pub received_ms: u64,
}

impl Entry {
    pub fn new(item: &Item, sampling: Sampling) -> Self {
        let key = EventKey::of(item);
        let refusal = match &item.event {
            // The sender gets the reason why it did not reach its receiver.
            ToBridge::Undelivered { reason, .. } => *reason,
            _ => FailReason::NoRoute,
        };
        let body = body(key, &item.event, sampling);
        let json = serde_json::to_vec(&body).expect("strings and numbers are JSON");
        Self {
            key,
            user: whose(&item.event),
            kind: EventKind::of(&item.event),
            refusal,
            json,
            tries: 0,
            trace: None,
        }
    }
}

/// The user whose order an event belongs to: the receiver of an undelivered message.
pub fn whose(event: &ToBridge) -> (AppId, UserId) {
    match event {
        ToBridge::Online { app, user, .. }
        | ToBridge::Offline { app, user, .. }
        | ToBridge::Joined { app, user, .. }
        | ToBridge::Left { app, user, .. } => (*app, *user),
        ToBridge::Undelivered { user, message, .. } => (message.app, *user),
        ToBridge::Request { app, sender, .. } => (*app, *sender),
    }
}

/// The lane of a user's events: the same in every bridge with as many lanes.
pub fn lane_of(app: AppId, user: UserId, lanes: usize) -> usize {
    let hash = mix(mix(u64::from(app.0.cast_unsigned())) ^ user.0.cast_unsigned());
    let lanes = u64::try_from(lanes).expect("64 bits hold a length");
    usize::try_from(hash % lanes).expect("less than a length")
}

/// Layout: docs/BACKEND.md. 64-bit numbers that use all their bits are strings: JSON numbers are exact below
/// 2^53 only.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Body<'a> {
    Request {
        id: String,
        app: i32,
        user: i64,
        device: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<i64>,
        biz_code: i32,
        client_msg_id: &'a str,
        traceparent: String,
        #[serde(flatten)]
        payload: Payload<'a>,
    },
    Online(Session),
    Offline(Session),
    Join(Membership),
    Leave(Membership),
    Undelivered {
        id: String,
        app: i32,
        user: i64,
        reason: &'static str,
        message_id: String,
        sender: i64,
        biz_code: i32,
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        sequence: Option<u64>,
        client_msg_id: &'a str,
        traceparent: String,
        #[serde(flatten)]
        payload: Payload<'a>,
    },
}

#[derive(Serialize)]
struct Session {
    id: String,
    app: i32,
    user: i64,
    device: &'static str,
    login: String,
}

#[derive(Serialize)]
struct Membership {
    #[serde(flatten)]
    session: Session,
    room: i64,
}

/// The payload as text where it is UTF-8.
#[derive(Serialize)]
enum Payload<'a> {
    #[serde(rename = "data")]
    Text(&'a str),
    #[serde(rename = "data_base64")]
    Binary(String),
}

impl<'a> Payload<'a> {
    fn of(bytes: &'a Bytes) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(_) => Self::Binary(STANDARD.encode(bytes)),
        }
    }
}

fn body(key: EventKey, event: &ToBridge, sampling: Sampling) -> Body<'_> {
    let id = key.id();
    let session = |id, app: AppId, user: UserId, device: wire::DeviceClass, login: wire::node::Login| {
        Session { id, app: app.0, user: user.0, device: device.name(), login: login.0.to_string() }
    };
    match event {
        ToBridge::Online { app, user, device, login } => {
            Body::Online(session(id, *app, *user, *device, *login))
        }
        ToBridge::Offline { app, user, device, login } => {
            Body::Offline(session(id, *app, *user, *device, *login))
        }
        ToBridge::Joined { app, user, device, login, room } => {
            Body::Join(Membership { session: session(id, *app, *user, *device, *login), room: room.0 })
        }
        ToBridge::Left { app, user, device, login, room } => {
            Body::Leave(Membership { session: session(id, *app, *user, *device, *login), room: room.0 })
        }
        ToBridge::Request { device, room, app, sender, biz_code, client_msg_id, payload, .. } => {
            Body::Request {
                id,
                app: app.0,
                user: sender.0,
                device: device.name(),
                room: room.map(|room| room.0),
                biz_code: biz_code.0,
                client_msg_id: client_msg_id.as_str(),
                traceparent: key.context(sampling).to_string(),
                payload: Payload::of(payload),
            }
        }
        ToBridge::Undelivered { user, reason, message, .. } => {
            undelivered(key, *user, *reason, message, sampling)
        }
    }
}

fn undelivered(
    key: EventKey,
    user: UserId,
    reason: FailReason,
    message: &Message,
    sampling: Sampling,
) -> Body<'_> {
    Body::Undelivered {
        id: key.id(),
        app: message.app.0,
        user: user.0,
        reason: reason.name(),
        message_id: message.id.0.to_string(),
        sender: message.sender.0,
        biz_code: message.biz_code.0,
        room: message.room.map(|room| room.0),
        sequence: message.room.map(|_| message.sequence),
        client_msg_id: message.client_msg_id.as_str(),
        traceparent: key.context(sampling).to_string(),
        payload: Payload::of(&message.payload),
    }
}

#[cfg(test)]
mod tests;
