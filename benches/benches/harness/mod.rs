//! A gateway core with sessions in one room, and the least of an engine and a router around it.
#![allow(dead_code, reason = "each benchmark uses its part")]

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use gateway::{Claims, Config, Effect, Gateway, Setup, TokenKeys, mint_hs256};
use shard::{ConnId, Instant, SendBatch, ShardId};
use wire::client::{AckIds, ClientFrame, Encoding, Message};
use wire::node::{DeliveryId, ToGateway, ToRouter};
use wire::{AppId, BizCode, ClientMsgId, DeviceClass, MessageId, RoomId, UserId};

const APP: AppId = AppId(1);
const ROOM: RoomId = RoomId(7);
const SECRET: &[u8] = b"a secret of the benchmarks";
const ROUTER: ShardId = ShardId::new(0, 0);
const START: Instant = Instant::from_unix_nanos(1_767_225_600_000_000_000);
const TURN: Duration = Duration::from_micros(10);

pub struct Core {
    gateway: Gateway,
    now: Instant,
    batch: SendBatch,
    last_id: u64,
    payload: Bytes,
    /// Connections whose sockets take nothing: their writes do not end.
    pub stopped: u32,
}

impl Core {
    /// `members` sessions, all in one room.
    pub fn new(members: u32) -> Self {
        let mut config = Config::default();
        // Simulated time flies: nobody is to fall silent.
        config.heartbeat.period_ms = 24 * 60 * 60 * 1000;
        let setup = Setup { id: ROUTER, keys: TokenKeys::hs256(SECRET), config, ports: Vec::new(), seed: 1 };
        let mut core = Self {
            gateway: Gateway::new(START, setup),
            now: START,
            batch: SendBatch::new(),
            last_id: 0,
            payload: Bytes::from(vec![b'x'; 200]),
            stopped: 0,
        };
        core.gateway.router_up(START, ROUTER);
        core.gateway.begin(START);
        core.turn();
        (0..members).for_each(|index| core.log_in(index));
        core
    }

    fn log_in(&mut self, index: u32) {
        let (conn, user) = (conn(index), UserId(i64::from(index)));
        self.gateway.accepted(self.now, conn, [127, 0, 0, (index >> 10) as u8 + 1].into(), 0);
        let claims =
            Claims { app: APP, user, device: DeviceClass::Phone, exp: START.unix_secs() + 1_000_000 };
        let token = Cow::Owned(mint_hs256(SECRET, &claims));
        self.say(index, &ClientFrame::Login { token });
        self.turn();
        self.say(index, &ClientFrame::Join { room: ROOM, want: None });
        self.turn();
    }

    /// What a client sends.
    pub fn say(&mut self, index: u32, frame: &ClientFrame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(Encoding::Binary, APP, UserId(0), &mut bytes);
        self.gateway.received(self.now, conn(index), &bytes);
    }

    /// A room message from the router, for every member.
    pub fn broadcast(&mut self) {
        let message = self.message(Some(ROOM), false);
        self.tell(ToGateway::Broadcast { message, shards: Vec::new() });
    }

    /// A reliable message from the router, for one member; its id.
    pub fn deliver(&mut self, index: u32) -> MessageId {
        let message = self.message(None, true);
        let id = message.id;
        let session = self.gateway.session_of(conn(index));
        let delivery = Some(DeliveryId(id.0));
        self.tell(ToGateway::Deliver { session, delivery, again: false, message });
        id
    }

    /// A client's ack.
    pub fn ack(&mut self, index: u32, id: MessageId) {
        self.say(index, &ClientFrame::Ack(AckIds::Packed(&id.0.to_be_bytes())));
    }

    /// Does what the core asks for, as an engine does after the events of a turn; the bytes written.
    pub fn turn(&mut self) -> usize {
        let mut written = 0;
        loop {
            written += self.effects();
            if !self.gateway.has_more() {
                break;
            }
            self.now += Duration::from_nanos(1);
        }
        self.now += TURN;
        if self.gateway.poll_timeout().is_some_and(|due| due <= self.now) {
            self.gateway.timeout(self.now);
        }
        written
    }

    fn effects(&mut self) -> usize {
        let mut written = 0;
        while let Some(effect) = self.gateway.poll_effect(self.now) {
            match effect {
                Effect::Transmit { conn } => {
                    self.gateway.poll_transmit(self.now, conn, &mut self.batch);
                    let bytes = self.batch.len();
                    self.batch.clear();
                    written += bytes;
                    if bytes > 0 && conn.index >= self.stopped {
                        self.gateway.sent(conn);
                    }
                }
                Effect::ToRouter { mail, .. } => self.answer(mail),
                Effect::ToSibling { .. } | Effect::ToBridge(_) | Effect::ToControl(_) => {}
                effect => panic!("{effect:?} is not for these clients"),
            }
        }
        written
    }

    fn answer(&mut self, mail: ToRouter) {
        match mail {
            ToRouter::Bind { session, login, .. } => self.tell(ToGateway::Bound { session, login }),
            ToRouter::Join { app, room, .. } => self.tell(ToGateway::Joined { app, room, sequence: 0 }),
            ToRouter::Reach { routers, clock } => self.tell(ToGateway::Common { routers, clock }),
            _ => {}
        }
    }

    fn message(&mut self, room: Option<RoomId>, ack_wanted: bool) -> Message {
        self.last_id += 1;
        Message {
            id: MessageId(self.last_id),
            app: APP,
            sender: UserId(-1),
            biz_code: BizCode(5555),
            room,
            sequence: if room.is_some() { self.last_id } else { 0 },
            ack_wanted,
            client_msg_id: ClientMsgId::new(Bytes::from_static(b"from the benchmark")),
            payload: self.payload.clone(),
        }
    }

    fn tell(&mut self, mail: ToGateway) {
        self.gateway.mail(self.now, ROUTER, mail);
    }
}

fn conn(index: u32) -> ConnId {
    ConnId { index, generation: 1 }
}
