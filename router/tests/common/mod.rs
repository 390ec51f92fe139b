//! A router on a bench: one event in, its mail out, every invariant checked in between.
#![allow(dead_code, reason = "each topic uses its part")]

use std::time::Duration;

use bytes::Bytes;
use router::{Config, Effect, Limits, Router};
use shard::{Instant, ShardId};
use wire::client::{FailReason, Message, NoticeCode, Outcome, SendAck};
use wire::node::{
    Class, DeliveryId, FoundSeat, Login, SessionId, Submission, Taken, Target, ToBridge, ToDirectory,
    ToGateway, ToRouter,
};
use wire::{AppId, BizCode, ClientMsgId, DeviceClass, MessageId, RoomId, UserId};

pub const APP: AppId = AppId(1);
pub const ROOM: RoomId = RoomId(7);
/// The router itself, on the node of A and B.
pub const ROUTER: ShardId = ShardId::new(0, 3);
/// Gateway shards, on different nodes.
pub const A: ShardId = ShardId::new(0, 0);
pub const B: ShardId = ShardId::new(0, 1);
pub const C: ShardId = ShardId::new(9, 0);
pub const ALICE: UserId = UserId(10_001);
pub const BOB: UserId = UserId(10_002);
pub const PHONE: DeviceClass = DeviceClass::Phone;
pub const WEB: DeviceClass = DeviceClass::Web;

/// How far above the stamp of a session that it replaces that of another is at least.
pub const RAISE: u64 = 1 << 20;

/// 2026-01-01.
pub const START: Instant = Instant::from_unix_nanos(1_767_225_600_000_000_000);

/// What a router says to a gateway, or to the bridge, which stands as [`BRIDGE`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    ToGateway(ToGateway),
    ToBridge(ToBridge),
}

/// No shard has this name.
pub const BRIDGE: ShardId = ShardId::new(u16::MAX, 0);

pub type Mail = Vec<(ShardId, Said)>;

pub struct Bench {
    pub router: Router,
    pub now: Instant,
    /// What the directory was told.
    pub directory: Vec<ToDirectory>,
    /// The id of the last message submitted.
    pub last_id: MessageId,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// With A, B and C linked.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut bench = Self::without_gateways(change);
        [A, B, C].into_iter().for_each(|shard| drop(bench.up(shard)));
        bench
    }

    pub fn without_gateways(change: impl FnOnce(&mut Config)) -> Self {
        // What a shard that is back still has is the topic of `away.rs`.
        let limits = Limits { away_ms: 0, ..Limits::default() };
        let mut config = Config { id: ROUTER, seed: 42, limits, keeps: router::Keeps::default() };
        change(&mut config);
        Self { router: Router::new(config), now: START, directory: Vec::new(), last_id: MessageId(0) }
    }

    /// A gateway shard is linked: one of two on the own node, the only one on any other.
    pub fn up(&mut self, shard: ShardId) -> Mail {
        let is_local = shard.node() == ROUTER.node();
        self.up_of(shard, if is_local { 2 } else { 1 })
    }

    /// A gateway shard is linked whose node has so many.
    pub fn up_of(&mut self, shard: ShardId, shards: u16) -> Mail {
        self.router.gateway_up(self.now, shard, shards, shard.node() == ROUTER.node(), incarnation(shard));
        self.taken()
    }

    pub fn down(&mut self, shard: ShardId) -> Mail {
        self.router.gateway_down(self.now, shard);
        self.taken()
    }

    /// What the router said, the directory's part apart.
    pub fn taken(&mut self) -> Mail {
        self.router.check_invariants();
        self.taken_unchecked()
    }

    fn taken_unchecked(&mut self) -> Mail {
        let mut said = Mail::new();
        while let Some(effect) = self.router.poll_effect() {
            match effect {
                Effect::ToDirectory(record) => self.directory.push(record),
                Effect::ToBridge(event) => said.push((BRIDGE, Said::ToBridge(event))),
                Effect::ToGateway { to, mail } => said.push((to, Said::ToGateway(mail))),
            }
        }
        said
    }

    pub fn tell(&mut self, from: ShardId, mail: ToRouter) -> Mail {
        let said = self.tell_unchecked(from, mail);
        self.router.check_invariants();
        said
    }

    /// For many messages: the invariants are the caller's.
    pub fn tell_unchecked(&mut self, from: ShardId, mail: ToRouter) -> Mail {
        self.router.mail(self.now, from, mail);
        self.taken_unchecked()
    }

    /// The directory knows these sessions of a user.
    pub fn found(&mut self, user: UserId, seats: &[FoundSeat]) -> Mail {
        self.router.found(self.now, APP, user, seats);
        self.taken()
    }

    /// The bridge says whether it keeps an undelivered message.
    pub fn kept(&mut self, delivery: DeliveryId, taken: Taken) -> Mail {
        self.router.kept(self.now, delivery, taken);
        self.taken()
    }

    /// Lets time pass; a timeout that is due comes as an engine would bring it.
    pub fn pass(&mut self, time: Duration) -> Mail {
        self.now += time;
        let mut said = Mail::new();
        while self.router.poll_timeout().is_some_and(|due| due <= self.now) {
            self.router.timeout(self.now);
            said.extend(self.taken());
        }
        said
    }

    /// A session that has just logged in, by the clock of the test.
    pub fn bind(&mut self, shard: ShardId, user: UserId, device: DeviceClass, session: u64) -> Mail {
        self.bind_at(shard, user, device, session, Login(self.now.unix_nanos()), true)
    }

    /// A session that its gateway announces to another owner.
    pub fn announce(
        &mut self,
        shard: ShardId,
        user: UserId,
        device: DeviceClass,
        session: u64,
        login: Login,
    ) -> Mail {
        self.bind_at(shard, user, device, session, login, false)
    }

    pub fn bind_at(
        &mut self,
        shard: ShardId,
        user: UserId,
        device: DeviceClass,
        session: u64,
        login: Login,
        fresh: bool,
    ) -> Mail {
        let session = SessionId(session);
        self.tell(shard, ToRouter::Bind { app: APP, user, device, session, login, fresh })
    }

    /// A session that has ended.
    pub fn unbind(&mut self, shard: ShardId, user: UserId, device: DeviceClass, session: u64) -> Mail {
        let session = SessionId(session);
        self.tell(shard, ToRouter::Unbind { app: APP, user, device, session, moved: false })
    }

    /// A session that another owner binds.
    pub fn move_away(&mut self, shard: ShardId, user: UserId, device: DeviceClass, session: u64) -> Mail {
        let session = SessionId(session);
        self.tell(shard, ToRouter::Unbind { app: APP, user, device, session, moved: true })
    }

    pub fn join(&mut self, shard: ShardId, room: RoomId) -> u64 {
        self.join_from(shard, room, 0)
    }

    /// A shard joins that has seen the room's messages up to a sequence.
    pub fn join_from(&mut self, shard: ShardId, room: RoomId, sequence: u64) -> u64 {
        match self.tell(shard, ToRouter::Join { app: APP, room, sequence }).as_slice() {
            [(to, Said::ToGateway(ToGateway::Joined { app: APP, room: joined, sequence }))]
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

    /// Submits a message under the next id, as the sender's shard gives it one.
    pub fn submit(&mut self, shard: ShardId, session: u64, submission: Submission) -> Mail {
        self.last_id.0 += 1;
        self.submit_as(shard, session, Submission { id: self.last_id, ..submission })
    }

    /// Submits a message under the id that it has.
    pub fn submit_as(&mut self, shard: ShardId, session: u64, submission: Submission) -> Mail {
        self.tell(shard, ToRouter::Submit { session: SessionId(session), submission })
    }

    pub fn view(&mut self, shard: ShardId, view: u64, done: bool) -> Mail {
        self.tell(shard, ToRouter::View { view, done })
    }

    pub fn settle(&mut self, shard: ShardId, session: u64, delivery: DeliveryId, outcome: Outcome) -> Mail {
        self.tell(shard, ToRouter::Settle { delivery, session: SessionId(session), outcome })
    }

    /// The classes of device and shards of a user, sorted.
    pub fn online(&self, user: UserId) -> Vec<(DeviceClass, ShardId)> {
        let seats = self.router.online(APP, user);
        let mut online: Vec<_> = seats.map(|seat| (seat.device, ShardId::from_u32(seat.shard))).collect();
        online.sort();
        online
    }
}

/// Which life of its process a gateway shard is in.
pub fn incarnation(shard: ShardId) -> u64 {
    1_000 + u64::from(shard.node())
}

/// The stamp of a session that logs in at the beginning, or so much later.
pub fn login(later: u64) -> Login {
    Login(START.unix_nanos() + later)
}

/// A reliable message of ALICE, which has no id until it is submitted.
pub fn submission(target: Target, client_msg_id: &str) -> Submission {
    Submission {
        id: MessageId(0),
        app: APP,
        sender: ALICE,
        target,
        biz_code: BizCode(6001),
        class: Class::Reliable,
        client_msg_id: ClientMsgId::new(Bytes::copy_from_slice(client_msg_id.as_bytes())),
        payload: Bytes::from_static(b"hello"),
        again: false,
        stored: false,
        device: None,
        concluded: None,
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

pub fn bound(shard: ShardId, session: u64, login: Login) -> (ShardId, Said) {
    (shard, Said::ToGateway(ToGateway::Bound { session: SessionId(session), login }))
}

pub fn kicked(shard: ShardId, session: u64, notice: NoticeCode) -> (ShardId, Said) {
    (shard, Said::ToGateway(ToGateway::Kick { session: SessionId(session), notice }))
}

pub fn online(user: UserId, device: DeviceClass, login: Login) -> (ShardId, Said) {
    (BRIDGE, Said::ToBridge(ToBridge::Online { app: APP, user, device, login }))
}

pub fn offline(user: UserId, device: DeviceClass, login: Login) -> (ShardId, Said) {
    (BRIDGE, Said::ToBridge(ToBridge::Offline { app: APP, user, device, login }))
}

pub fn superseded(shard: ShardId, submitted: MessageId) -> (ShardId, Said) {
    (shard, Said::ToGateway(ToGateway::Superseded { submitted }))
}

/// The answer to the message that its shard submitted under an id, with the id that the receiver saw.
pub fn send_ack(
    shard: ShardId,
    session: u64,
    client_msg_id: &str,
    submitted: MessageId,
    id: MessageId,
    outcome: Outcome,
) -> (ShardId, Said) {
    let client_msg_id = ClientMsgId::new(Bytes::copy_from_slice(client_msg_id.as_bytes()));
    let ack = SendAck { client_msg_id, id, outcome };
    (shard, Said::ToGateway(ToGateway::SendAck { session: SessionId(session), submitted, ack }))
}

pub fn undelivered(user: UserId, reason: FailReason, message: &Message) -> (ShardId, Said) {
    let message = message.clone();
    (BRIDGE, Said::ToBridge(ToBridge::Undelivered { user, reason, message, delivery: DeliveryId::NONE }))
}

/// A `Deliver` as the test sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub to: ShardId,
    pub session: u64,
    pub delivery: Option<DeliveryId>,
    pub again: bool,
    pub message: Message,
}

/// The deliveries, and nothing else may be among the mail.
pub fn deliveries(mail: Mail) -> Vec<Delivered> {
    let delivered = |(to, mail)| match mail {
        Said::ToGateway(ToGateway::Deliver { session, delivery, again, message }) => {
            Delivered { to, session: session.0, delivery, again, message }
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
