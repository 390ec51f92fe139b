//! A router on a bench: one event in, its mail out, every invariant checked in between.
#![allow(dead_code, reason = "each topic uses its part")]

use std::time::Duration;

use bytes::Bytes;
use router::{Config, Router};
use shard::{Effect, Event, Instant, Shard, ShardId};
use wire::client::{FailReason, Message, NoticeCode, Outcome, SendAck};
use wire::node::{
    Class, DeliveryId, NodeMessage, SessionId, Submission, Target, ToBridge, ToGateway, ToRouter,
};
use wire::{AppId, BizCode, ClientMsgId, DeviceClass, MessageId, RoomId, UserId};

pub const APP: AppId = AppId(1);
pub const ROOM: RoomId = RoomId(7);
/// Gateway shards, on different nodes.
pub const A: ShardId = ShardId::new(0, 0);
pub const B: ShardId = ShardId::new(0, 1);
pub const C: ShardId = ShardId::new(9, 0);
pub const ALICE: UserId = UserId(10_001);
pub const BOB: UserId = UserId(10_002);
pub const PHONE: DeviceClass = DeviceClass::Phone;
pub const WEB: DeviceClass = DeviceClass::Web;

/// 2026-01-01.
pub const START: Instant = Instant::from_unix_nanos(1_767_225_600_000_000_000);

pub type Mail = Vec<(ShardId, NodeMessage)>;

pub struct Bench {
    pub router: Router,
    pub now: Instant,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { number: 3, seed: 42, ..Config::default() };
        change(&mut config);
        Self { router: Router::new(config), now: START }
    }

    pub fn handle(&mut self, event: Event<'_, NodeMessage>) -> Mail {
        let said = self.handle_unchecked(event);
        self.router.check_invariants();
        said
    }

    /// For many events: the invariants are the caller's.
    pub fn handle_unchecked(&mut self, event: Event<'_, NodeMessage>) -> Mail {
        self.router.handle(self.now, event);
        let mut said = Mail::new();
        while let Some(effect) = self.router.poll_effect(self.now) {
            let Effect::Mail { to, mail } = effect else { panic!("a router only mails: {effect:?}") };
            said.push((to, mail));
        }
        said
    }

    pub fn tell(&mut self, from: ShardId, mail: ToRouter) -> Mail {
        self.handle(Event::Mail { from, mail: NodeMessage::ToRouter(mail) })
    }

    /// Lets time pass; a timeout that is due comes as an engine would bring it.
    pub fn pass(&mut self, time: Duration) -> Mail {
        self.now += time;
        let mut said = Mail::new();
        while self.router.poll_timeout().is_some_and(|due| due <= self.now) {
            said.extend(self.handle(Event::Timeout));
        }
        said
    }

    pub fn bind(&mut self, shard: ShardId, user: UserId, device: DeviceClass, session: u64) -> Mail {
        self.tell(shard, ToRouter::Bind { app: APP, user, device, session: SessionId(session) })
    }

    pub fn unbind(&mut self, shard: ShardId, user: UserId, device: DeviceClass, session: u64) -> Mail {
        self.tell(shard, ToRouter::Unbind { app: APP, user, device, session: SessionId(session) })
    }

    pub fn join(&mut self, shard: ShardId, room: RoomId) -> u64 {
        match self.tell(shard, ToRouter::Join { app: APP, room }).as_slice() {
            [(to, NodeMessage::ToGateway(ToGateway::Joined { app: APP, room: joined, sequence }))]
                if *to == shard && *joined == room =>
            {
                *sequence
            }
            other => panic!("one answer to a join, not {other:?}"),
        }
    }

    pub fn leave(&mut self, shard: ShardId, room: RoomId) -> Mail {
        self.tell(shard, ToRouter::Leave { app: APP, room })
    }

    pub fn submit(&mut self, shard: ShardId, session: u64, submission: Submission) -> Mail {
        self.tell(shard, ToRouter::Submit { session: SessionId(session), submission })
    }

    pub fn settle(&mut self, shard: ShardId, session: u64, delivery: DeliveryId, outcome: Outcome) -> Mail {
        self.tell(shard, ToRouter::Settle { delivery, session: SessionId(session), outcome })
    }

    /// The classes of device and shards of a user, sorted.
    pub fn online(&self, user: UserId) -> Vec<(DeviceClass, ShardId)> {
        let mut online: Vec<_> = self.router.online(APP, user).collect();
        online.sort();
        online
    }
}

/// A reliable message of ALICE.
pub fn submission(target: Target, client_msg_id: &str) -> Submission {
    Submission {
        app: APP,
        sender: ALICE,
        target,
        biz_code: BizCode(6001),
        class: Class::Reliable,
        client_msg_id: ClientMsgId::new(Bytes::copy_from_slice(client_msg_id.as_bytes())),
        payload: Bytes::from_static(b"hello"),
    }
}

pub fn to_user(user: UserId, client_msg_id: &str) -> Submission {
    submission(Target::User(user), client_msg_id)
}

pub fn to_room(room: RoomId, client_msg_id: &str) -> Submission {
    submission(Target::Room(room), client_msg_id)
}

pub fn lossy(submission: Submission) -> Submission {
    Submission { class: Class::Lossy, ..submission }
}

pub fn bound(shard: ShardId, session: u64) -> (ShardId, NodeMessage) {
    (shard, NodeMessage::ToGateway(ToGateway::Bound { session: SessionId(session) }))
}

pub fn kicked(shard: ShardId, session: u64, notice: NoticeCode) -> (ShardId, NodeMessage) {
    (shard, NodeMessage::ToGateway(ToGateway::Kick { session: SessionId(session), notice }))
}

pub fn online(user: UserId, device: DeviceClass) -> (ShardId, NodeMessage) {
    (ShardId::BRIDGE, NodeMessage::ToBridge(ToBridge::Online { app: APP, user, device }))
}

pub fn offline(user: UserId, device: DeviceClass) -> (ShardId, NodeMessage) {
    (ShardId::BRIDGE, NodeMessage::ToBridge(ToBridge::Offline { app: APP, user, device }))
}

pub fn send_ack(
    shard: ShardId,
    session: u64,
    client_msg_id: &str,
    id: MessageId,
    outcome: Outcome,
) -> (ShardId, NodeMessage) {
    let client_msg_id = ClientMsgId::new(Bytes::copy_from_slice(client_msg_id.as_bytes()));
    let ack = SendAck { client_msg_id, id, outcome };
    (shard, NodeMessage::ToGateway(ToGateway::SendAck { session: SessionId(session), ack }))
}

pub fn undelivered(user: UserId, reason: FailReason, message: &Message) -> (ShardId, NodeMessage) {
    let message = message.clone();
    (ShardId::BRIDGE, NodeMessage::ToBridge(ToBridge::Undelivered { user, reason, message }))
}

/// A `Deliver` as the test sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub to: ShardId,
    pub session: u64,
    pub delivery: Option<DeliveryId>,
    pub message: Message,
}

/// The deliveries, and nothing else may be among the mail.
pub fn deliveries(mail: Mail) -> Vec<Delivered> {
    let delivered = |(to, mail)| match mail {
        NodeMessage::ToGateway(ToGateway::Deliver { session, delivery, message }) => {
            Delivered { to, session: session.0, delivery, message }
        }
        other => panic!("only deliveries, not {other:?}"),
    };
    mail.into_iter().map(delivered).collect()
}

/// The one delivery, with its message and id.
pub fn delivery(mail: Mail) -> (DeliveryId, Message) {
    let [one] = <[Delivered; 1]>::try_from(deliveries(mail)).expect("one delivery");
    (one.delivery.expect("a reliable one"), one.message)
}
