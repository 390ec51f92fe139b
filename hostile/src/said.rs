//! Messages that a peer may say, of any kind, with ids that the other side knows among their numbers.

use bytes::Bytes;
use wire::client::{FailReason, Message, NoticeCode, Outcome, SendAck};
use wire::node::{
    Answer, BAN_MS_MAX, Ban, Class, DeliveryId, FromBridge, Handed, Kept, LinkMessage, Login, Presence,
    Question, RANGE_WORDS, RANGES, Recalled, Revocation, Seat, SessionId, ShardLoad, Submission, Taken,
    Target, ToBridge, ToGateway, ToRouter,
};
use wire::{AppId, BizCode, ClientMsgId, DeviceClass, MessageId, RoomId, UserId};

use crate::input::{Input, NOW};

/// A day in ns: what a clock may be ahead.
const DAY_NS: u64 = 24 * 60 * 60 * 1_000_000_000;

/// What a peer has heard, and so may name.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) deliveries: Vec<u64>,
    pub(crate) sessions: Vec<u64>,
    pub(crate) messages: Vec<u64>,
    pub(crate) asks: Vec<u64>,
    pub(crate) seqs: Vec<u64>,
}

impl Said {
    pub(crate) const KINDS: u8 = 37;

    /// Notes the names in what the other side says.
    pub(crate) fn hear(&mut self, message: &LinkMessage) {
        match message {
            LinkMessage::ToRouter(ToRouter::Bind { session, .. }) => note(&mut self.sessions, session.0),
            LinkMessage::ToRouter(ToRouter::Submit { session, submission }) => {
                note(&mut self.sessions, session.0);
                note(&mut self.messages, submission.id.0);
            }
            LinkMessage::ToRouter(ToRouter::Ask { ask, .. }) => note(&mut self.asks, *ask),
            LinkMessage::ToGateway(ToGateway::Deliver { session, delivery, message, .. }) => {
                note(&mut self.sessions, session.0);
                delivery.iter().for_each(|delivery| note(&mut self.deliveries, delivery.0));
                note(&mut self.messages, message.id.0);
            }
            LinkMessage::Handed(handed) => note(&mut self.seqs, handed.seq),
            LinkMessage::ToRouter(_) | LinkMessage::ToGateway(_) | LinkMessage::FromBridge(_) => {}
        }
    }

    /// Any message.
    pub(crate) fn message(&mut self, input: &mut Input<'_>) -> LinkMessage {
        let kind = input.byte() % Self::KINDS;
        match kind {
            0..=9 | 29..=31 | 34 => LinkMessage::ToRouter(self.for_router(kind, input)),
            10..=21 | 32 | 33 | 35 | 36 => LinkMessage::ToGateway(self.for_gateway(kind, input)),
            22..=27 => {
                let event = self.for_bridge(kind, input);
                LinkMessage::Handed(Box::new(Handed { seq: known(&self.seqs, input), event }))
            }
            _ => {
                let result = |input: &mut Input<'_>| {
                    let taken =
                        if input.flag() { Taken::Ok } else { Taken::Refused(input.pick(&FailReason::ALL)) };
                    (known(&self.seqs, input), taken)
                };
                let results = (0..input.byte() % 4).map(|_| result(input)).collect();
                LinkMessage::FromBridge(FromBridge::Taken { results })
            }
        }
    }

    fn for_router(&mut self, kind: u8, input: &mut Input<'_>) -> ToRouter {
        let (app, user, room) = (app(input), user(input), room(input));
        let (device, session) = (device(input), self.session(input));
        match kind {
            0 => ToRouter::Bind { app, user, device, session, login: login(input), fresh: input.flag() },
            1 => ToRouter::Unbind { app, user, device, session, moved: input.flag() },
            2 => ToRouter::Join { app, room, sequence: sequence(input) },
            3 => ToRouter::Leave { app, room },
            4 => {
                let class = input.pick(&[Class::Reliable, Class::Lossy]);
                let (client_msg_id, payload) = (name(input), Bytes::copy_from_slice(input.some(40)));
                let (id, target) = (self.id(input), target(input));
                let (again, stored) = (input.flag(), input.flag());
                let (sender, biz_code) = (user, BizCode(5555));
                let submission = Submission {
                    id,
                    app,
                    sender,
                    target,
                    biz_code,
                    class,
                    client_msg_id,
                    payload,
                    again,
                    stored,
                    device: input.flag().then_some(device),
                    concluded: input.flag().then(|| input.pick(&FailReason::ALL)),
                };
                ToRouter::Submit { session, submission }
            }
            5 => {
                let delivery = DeliveryId(known(&self.deliveries, input));
                ToRouter::Settle { delivery, session, outcome: outcome(input) }
            }
            6 => ToRouter::Withdraw { app, target: target(input), id: self.id(input) },
            7 => ToRouter::Reach { routers: routers(input), clock: login(input) },
            8 => ToRouter::View { view: input.number(), done: input.flag() },
            9 if input.flag() => {
                let words = if input.flag() { RANGE_WORDS } else { 1 };
                ToRouter::Unchanged { ranges: vec![input.number(); words], moved: input.flag() }
            }
            29 => ToRouter::Ended { app, user, device, login: login(input) },
            30 => {
                let (ask, since, last) = (input.number() as u32, sequence(input), input.number() as u32);
                ToRouter::Recall { app, room, ask, since, last }
            }
            31 => ToRouter::Kept(Box::new(self.kept(input))),
            34 if input.flag() => ToRouter::Banned { bans: bans(input) },
            34 => ToRouter::Revoked { revocations: revocations(input) },
            _ => ToRouter::Ask { ask: known(&self.asks, input), question: self.question(input) },
        }
    }

    fn question(&mut self, input: &mut Input<'_>) -> Question {
        let (app, user) = (app(input), user(input));
        match input.byte() % 7 {
            6 => Question::Revoke { revocations: revocations(input) },
            5 => Question::History { app, room: room(input), last: input.number() as u32 },
            0 => Question::Online { app, users: vec![user; input.byte() as usize % 4] },
            1 => {
                let device = input.flag().then(|| device(input));
                let ban_ms = input.flag().then(|| input.number() as u32);
                Question::Kick { app, user, device, ban_ms }
            }
            2 => Question::PushAll { message: self.delivered(input) },
            3 => Question::Drain { node: input.pick(&[0, 1, 2, 3, u16::MAX]) },
            _ => Question::Nodes,
        }
    }

    fn for_gateway(&mut self, kind: u8, input: &mut Input<'_>) -> ToGateway {
        let (app, room, session) = (app(input), room(input), self.session(input));
        match kind {
            10 => ToGateway::Bound { session, login: login(input) },
            11 if input.flag() => ToGateway::AskAgain { session, above: login(input) },
            11 => ToGateway::Kick { session, notice: input.pick(&[NoticeCode::Kicked, NoticeCode::Busy]) },
            12 => ToGateway::Joined { app, room, sequence: sequence(input) },
            13 | 14 => {
                let delivery = input.flag().then(|| DeliveryId(known(&self.deliveries, input)));
                ToGateway::Deliver { session, delivery, again: kind == 14, message: self.delivered(input) }
            }
            15 => {
                let shards =
                    input.pick::<&[u16]>(&[&[], &[0], &[1], &[0, 1], &[0, 31], &[2, 1], &[u16::MAX]]);
                ToGateway::Broadcast { message: self.delivered(input), shards: shards.to_vec() }
            }
            16 => {
                let submitted = self.id(input);
                let ack = SendAck { client_msg_id: name(input), id: self.id(input), outcome: outcome(input) };
                ToGateway::SendAck { session, submitted, ack }
            }
            17 if input.flag() => {
                ToGateway::Concluded { submitted: self.id(input), reason: input.pick(&FailReason::ALL) }
            }
            17 => ToGateway::Superseded { submitted: self.id(input) },
            18 => ToGateway::Common { routers: routers(input), clock: login(input) },
            19 => ToGateway::All { message: self.delivered(input) },
            20 if input.flag() => {
                let digests = if input.flag() { RANGES } else { RANGES - 1 };
                ToGateway::Digests { digests: vec![input.number(); digests] }
            }
            20 if input.flag() => ToGateway::SameNumber,
            20 => ToGateway::Drain,
            35 if input.flag() => ToGateway::Banned { bans: bans(input) },
            35 => ToGateway::Revoked { revocations: revocations(input) },
            36 if input.flag() => ToGateway::Ended { session, login: login(input) },
            36 => ToGateway::Recheck { session },
            32 => ToGateway::Recalled(Box::new(self.recalled(input))),
            33 => ToGateway::Moved(Box::new(self.kept(input))),
            _ => {
                let seat = Seat { device: device(input), shard: input.number() as u32, login: login(input) };
                let answer = match input.byte() % 5 {
                    4 => Answer::History { messages: self.history(app, room, input) },
                    0 => {
                        let users = vec![Presence { user: user(input), seats: vec![seat] }];
                        Answer::Online { users, settled: input.flag() }
                    }
                    1 => Answer::Kicked { sessions: u32::MAX },
                    2 => Answer::Told { shards: u32::MAX },
                    _ => Answer::Nodes { shards: vec![ShardLoad { shard: seat.shard, sessions: u32::MAX }] },
                };
                ToGateway::Answer { ask: known(&self.asks, input), answer }
            }
        }
    }

    fn for_bridge(&mut self, kind: u8, input: &mut Input<'_>) -> ToBridge {
        let (app, user, device, room) = (app(input), user(input), device(input), room(input));
        match kind {
            22 => ToBridge::Online { app, user, device, login: login(input) },
            23 => ToBridge::Offline { app, user, device, login: login(input) },
            24 => ToBridge::Joined { app, user, device, login: login(input), room },
            25 => ToBridge::Left { app, user, device, login: login(input), room },
            26 => {
                let (reason, message) = (input.pick(&FailReason::ALL), self.delivered(input));
                ToBridge::Undelivered { user, reason, message, delivery: DeliveryId::NONE }
            }
            _ => ToBridge::Request {
                session: self.session(input),
                device,
                room: input.flag().then_some(room),
                app,
                sender: user,
                biz_code: BizCode(5560),
                received_ms: 0,
                client_msg_id: name(input),
                payload: Bytes::copy_from_slice(input.some(40)),
            },
        }
    }

    /// A part of an answer, often to what was asked and often whole.
    fn recalled(&mut self, input: &mut Input<'_>) -> Recalled {
        let (app, room) = (AppId(1), room(input));
        let messages = self.history(app, room, input);
        let (count, before) = (messages.len() as u32, u32::from(input.byte() % 8) / 7);
        Recalled {
            router: input.pick(&[0x1_0000, 0x1_0000, 0x2_0000, 0, u32::MAX]),
            app,
            room,
            ask: input.pick(&[1, 2, 3, 4, u32::MAX]),
            shard: input.pick(&[0, 0, 1, 31, u16::MAX]),
            sequence: sequence(input),
            gone: sequence(input),
            total: if input.flag() { before + count } else { input.number() as u32 },
            before,
            messages,
        }
    }

    fn kept(&mut self, input: &mut Input<'_>) -> Kept {
        let (app, room) = (AppId(1), room(input));
        let messages = self.history(app, room, input);
        let first = messages.first().map_or(1, |first| first.sequence);
        let last = messages.last().map_or(1, |last| last.sequence);
        Kept {
            router: input.pick(&[0x1_0000, 0x2_0000, u32::MAX]),
            app,
            room,
            gone: if input.flag() { first.saturating_sub(1) } else { sequence(input) },
            upto: if input.flag() { last } else { sequence(input) },
            is_first: input.flag(),
            is_sure: input.flag(),
            messages,
        }
    }

    /// Messages of a room, mostly in order.
    fn history(&mut self, app: AppId, room: RoomId, input: &mut Input<'_>) -> Vec<Message> {
        let first = sequence(input);
        let message = |said: &mut Self, n: u64, input: &mut Input<'_>| {
            let sequence = first.saturating_add(n);
            let room = if input.byte() == 0 { None } else { Some(room) };
            Message { app, room, sequence, ..said.delivered(input) }
        };
        (0..u64::from(input.byte() % 4)).map(|n| message(self, n, input)).collect()
    }

    fn delivered(&mut self, input: &mut Input<'_>) -> Message {
        Message {
            id: self.id(input),
            app: app(input),
            sender: user(input),
            biz_code: BizCode(5555),
            room: input.flag().then(|| room(input)),
            sequence: sequence(input),
            ack_wanted: input.flag(),
            client_msg_id: name(input),
            payload: Bytes::copy_from_slice(input.some(40)),
        }
    }

    fn session(&self, input: &mut Input<'_>) -> SessionId {
        SessionId(known(&self.sessions, input))
    }

    fn id(&self, input: &mut Input<'_>) -> MessageId {
        MessageId(known(&self.messages, input))
    }
}

/// The last names are kept.
fn note(names: &mut Vec<u64>, name: u64) {
    if names.len() >= 16 {
        names.remove(0);
    }
    names.push(name);
}

/// A name that has been heard, or a number.
fn known(names: &[u64], input: &mut Input<'_>) -> u64 {
    match input.byte() {
        choice if choice & 1 == 1 && !names.is_empty() => names[choice as usize / 2 % names.len()],
        choice if choice < 128 => u64::from(choice / 2),
        _ => input.number(),
    }
}

/// Of users that there are, some of them for longer than may be.
fn revocations(input: &mut Input<'_>) -> Vec<Revocation> {
    let one = |input: &mut Input<'_>| Revocation {
        app: app(input),
        user: user(input),
        login: input.number() % 4,
        before_secs: input.pick(&[0, NOW.unix_secs(), u64::MAX]),
        until_secs: input.pick(&[0, NOW.unix_secs() + 60, NOW.unix_secs() + 7 * 24 * 3_600, u64::MAX]),
    };
    (0..input.byte() % 4).map(|_| one(input)).collect()
}

/// Of users that there are, some of them for longer than may be, or said in the future.
fn bans(input: &mut Input<'_>) -> Vec<Ban> {
    let now_ms = NOW.unix_millis();
    let one = |input: &mut Input<'_>| Ban {
        app: app(input),
        user: user(input),
        device: input.flag().then(|| device(input)),
        said: login(input),
        until_ms: input.pick(&[0, now_ms + 60_000, now_ms + BAN_MS_MAX, u64::MAX]),
        kept_ms: input.pick(&[0, now_ms + 60_000, now_ms + BAN_MS_MAX, u64::MAX]),
    };
    (0..input.byte() % 4).map(|_| one(input)).collect()
}

fn app(input: &mut Input<'_>) -> AppId {
    AppId(input.pick(&[1, 1, 1, 2, -1, i32::MAX, i32::MIN]))
}

fn user(input: &mut Input<'_>) -> UserId {
    UserId(input.pick(&[1, 2, 3, 4, 0, -1, i64::MAX, i64::MIN]))
}

fn room(input: &mut Input<'_>) -> RoomId {
    RoomId(input.pick(&[7, 8, 7, 0, -1, i64::MAX, i64::MIN]))
}

fn device(input: &mut Input<'_>) -> DeviceClass {
    input.pick(&DeviceClass::ALL)
}

fn target(input: &mut Input<'_>) -> Target {
    if input.flag() { Target::User(user(input)) } else { Target::Room(room(input)) }
}

fn login(input: &mut Input<'_>) -> Login {
    let now = NOW.unix_nanos();
    Login(match input.byte() % 6 {
        0 => now,
        1 => now + DAY_NS,
        2 => now + 3 * DAY_NS - 1,
        3 => now.saturating_add(input.number()),
        4 => now.saturating_sub(input.number()),
        _ => input.number(),
    })
}

fn sequence(input: &mut Input<'_>) -> u64 {
    let base = wire::node::sequence_base(NOW.unix_nanos());
    match input.byte() % 5 {
        0 => base,
        1 => wire::node::sequence_base(NOW.unix_nanos() + DAY_NS),
        2 => wire::node::sequence_base(NOW.unix_nanos() + 3 * DAY_NS),
        3 => base.saturating_add(input.number()),
        _ => input.number(),
    }
}

fn outcome(input: &mut Input<'_>) -> Outcome {
    match input.byte() % 5 {
        0 => Outcome::Delivered,
        1 => Outcome::Stored,
        2 => Outcome::Sequenced { sequence: sequence(input) },
        3 => Outcome::Answered,
        _ => Outcome::Failed(input.pick(&FailReason::ALL)),
    }
}

fn name(input: &mut Input<'_>) -> ClientMsgId {
    ClientMsgId::new(Bytes::from_static(input.pick::<&[u8]>(&[b"", b"a", b"b", b"m-1"])))
}

fn routers(input: &mut Input<'_>) -> Vec<u32> {
    let all: [&[u32]; 7] =
        [&[0x1_0000], &[0x2_0000], &[0x1_0000, 0x2_0000], &[], &[0x3_0000], &[2, 1], &[u32::MAX]];
    input.pick(&all).to_vec()
}
