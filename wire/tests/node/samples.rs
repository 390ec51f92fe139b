//! One of each.

use bytes::Bytes;
use wire::client::{FailReason, Message, NoticeCode, Outcome, SendAck};
use wire::node::link::{Frame, Identity, Refusal, Role};
use wire::node::{
    Answer, Ban, Class, DeliveryId, FromBridge, Handed, Kept, LinkMessage, Login, Presence, Question,
    RANGE_WORDS, RANGES, Recalled, Revocation, Seat, SessionId, ShardLoad, Submission, Taken, Target,
    ToBridge, ToGateway, ToRouter,
};
use wire::{AppId, BizCode, ClientMsgId, DeviceClass, MessageId, RoomId, UserId};

/// What the clock shows when they are said: 2026-01-01.
pub const NOW_NS: u64 = 1_767_225_600_000_000_000;
pub const APP: AppId = AppId(7);
const USER: UserId = UserId(-10_001);
const ROOM: RoomId = RoomId(7);
const SESSION: SessionId = SessionId(0x0102_0304_0506_0708);
const LOGIN: Login = Login(1_700_000_000_000_000_000);
const PHONE: DeviceClass = DeviceClass::Phone;

pub const IDENTITY: Identity =
    Identity { shard: 0x0003_0001, shards: 2, role: Role::Gateway, incarnation: 0x1122_3344_5566_7788 };
pub const NONCE: [u8; 16] = [0xaa; 16];
pub const PROOF: [u8; 32] = [0xbb; 32];

pub fn id(text: &'static str) -> ClientMsgId {
    ClientMsgId::new(Bytes::from_static(text.as_bytes()))
}

pub fn message() -> Message {
    Message {
        id: MessageId(42),
        app: APP,
        sender: USER,
        biz_code: BizCode(5555),
        room: Some(ROOM),
        sequence: 9,
        ack_wanted: true,
        client_msg_id: id("m1"),
        payload: Bytes::from_static(b"hi"),
    }
}

fn submission() -> Submission {
    Submission {
        id: MessageId(42),
        app: APP,
        sender: USER,
        target: Target::Room(ROOM),
        biz_code: BizCode(5555),
        class: Class::Reliable,
        client_msg_id: id("m1"),
        payload: Bytes::from_static(b"hi"),
        again: false,
        stored: false,
        device: None,
        concluded: None,
    }
}

pub fn recalled() -> Recalled {
    Recalled {
        router: 0x1_0000,
        app: APP,
        room: ROOM,
        ask: 5,
        shard: 3,
        sequence: 9,
        gone: 7,
        total: 4,
        before: 3,
        messages: vec![message()],
    }
}

pub fn kept() -> Kept {
    Kept {
        router: 0x1_0000,
        app: APP,
        room: ROOM,
        gone: 7,
        upto: 9,
        is_first: true,
        is_sure: true,
        messages: vec![message()],
    }
}

pub fn to_router() -> Vec<ToRouter> {
    let direct =
        Submission { target: Target::User(USER), class: Class::Lossy, client_msg_id: id(""), ..submission() };
    let stored = Submission { target: Target::User(USER), stored: true, device: Some(PHONE), ..submission() };
    let concluded = Submission { again: true, concluded: Some(FailReason::Unacked), ..direct.clone() };
    let mut all = vec![
        ToRouter::Bind { app: APP, user: USER, device: PHONE, session: SESSION, login: LOGIN, fresh: true },
        ToRouter::Unbind { app: APP, user: USER, device: PHONE, session: SESSION, moved: false },
        ToRouter::Join { app: APP, room: ROOM, sequence: 9 },
        ToRouter::Leave { app: APP, room: ROOM },
        ToRouter::Submit { session: SESSION, submission: submission() },
        ToRouter::Submit { session: SESSION, submission: direct },
        ToRouter::Submit { session: SESSION, submission: stored },
        ToRouter::Submit { session: SESSION, submission: concluded },
        ToRouter::Reach { routers: vec![0x1_0001, 0x2_0000], clock: Login(7) },
        ToRouter::View { view: u64::MAX, done: false },
        ToRouter::View { view: 0, done: true },
        ToRouter::Withdraw { app: APP, target: Target::Room(ROOM), id: MessageId(42) },
    ];
    all.extend(
        [
            Outcome::Delivered,
            Outcome::Stored,
            Outcome::Sequenced { sequence: 9 },
            Outcome::Answered,
            Outcome::Failed(FailReason::Busy),
        ]
        .map(|outcome| ToRouter::Settle { delivery: DeliveryId(3), session: SESSION, outcome }),
    );
    let questions = [
        Question::Online { app: APP, users: vec![USER, UserId(2)] },
        Question::Kick { app: APP, user: USER, device: Some(PHONE), ban_ms: Some(60_000) },
        Question::Kick { app: APP, user: USER, device: None, ban_ms: None },
        Question::Revoke { revocations: vec![revocation(), Revocation { login: 0, ..revocation() }] },
        Question::PushAll { message: message() },
        Question::Drain { node: 3 },
        Question::Nodes,
        Question::History { app: APP, room: ROOM, last: 20 },
    ];
    all.extend(questions.map(|question| ToRouter::Ask { ask: 5, question }));
    all.push(ToRouter::Ended { app: APP, user: USER, device: PHONE, login: LOGIN });
    all.push(ToRouter::Unchanged { ranges: vec![1; RANGE_WORDS], moved: true });
    all.push(ToRouter::Recall { app: APP, room: ROOM, ask: 5, since: 8, last: 20 });
    all.push(ToRouter::Kept(Box::new(kept())));
    all.push(ToRouter::Revoked { revocations: vec![revocation()] });
    all.push(ToRouter::Banned { bans: vec![ban(), Ban { device: None, ..ban() }] });
    all
}

fn ban() -> Ban {
    Ban { app: APP, user: USER, device: Some(PHONE), said: LOGIN, until_ms: 7, kept_ms: 9 }
}

fn revocation() -> Revocation {
    Revocation { app: APP, user: USER, login: 3, before_secs: u64::MAX, until_secs: 9 }
}

pub fn to_gateway() -> Vec<ToGateway> {
    let ack = SendAck { client_msg_id: id("m1"), id: MessageId(42), outcome: Outcome::Stored };
    let seat = Seat { device: PHONE, shard: 0x3_0001, login: LOGIN };
    let mut all = vec![
        ToGateway::Bound { session: SESSION, login: LOGIN },
        ToGateway::Kick { session: SESSION, notice: NoticeCode::Kicked },
        ToGateway::Joined { app: APP, room: ROOM, sequence: 9 },
        ToGateway::Full { app: APP, room: ROOM },
        ToGateway::Deliver {
            session: SESSION,
            delivery: Some(DeliveryId(3)),
            again: true,
            message: message(),
        },
        ToGateway::Deliver {
            session: SESSION,
            delivery: None,
            again: false,
            message: Message { room: None, ..message() },
        },
        ToGateway::Broadcast { message: message(), shards: vec![0, 3] },
        ToGateway::SendAck { session: SESSION, submitted: MessageId(41), ack },
        ToGateway::AskAgain { session: SESSION, above: Login(9) },
        ToGateway::Superseded { submitted: MessageId(41) },
        ToGateway::Concluded { submitted: MessageId(41), reason: FailReason::Offline },
        ToGateway::Common { routers: vec![0x1_0001, 0x2_0000], clock: Login(8) },
        ToGateway::All { message: message() },
        ToGateway::Digests { digests: vec![1; RANGES] },
        ToGateway::Drain,
        ToGateway::SameNumber,
        ToGateway::Revoked { revocations: vec![revocation()] },
        ToGateway::Banned { bans: vec![ban()] },
        ToGateway::Recheck { session: SESSION },
    ];
    let answers = [
        Answer::Online {
            users: vec![
                Presence { user: USER, seats: vec![seat, seat] },
                Presence { user: UserId(2), seats: vec![] },
            ],
            settled: true,
        },
        Answer::Kicked { sessions: 2 },
        Answer::Told { shards: 2 },
        Answer::Nodes { shards: vec![ShardLoad { shard: 0x3_0001, sessions: 9 }] },
        Answer::History { messages: vec![message()] },
    ];
    all.extend(answers.map(|answer| ToGateway::Answer { ask: 5, answer }));
    all.push(ToGateway::Recalled(Box::new(recalled())));
    all.push(ToGateway::Moved(Box::new(kept())));
    all
}

fn to_bridge() -> Vec<ToBridge> {
    vec![
        ToBridge::Online { app: APP, user: USER, device: PHONE, login: LOGIN },
        ToBridge::Offline { app: APP, user: USER, device: PHONE, login: LOGIN },
        ToBridge::Joined { app: APP, user: USER, device: PHONE, login: LOGIN, room: ROOM },
        ToBridge::Left { app: APP, user: USER, device: PHONE, login: LOGIN, room: ROOM },
        ToBridge::Undelivered {
            user: USER,
            reason: FailReason::Offline,
            message: message(),
            delivery: DeliveryId::NONE,
        },
        ToBridge::Request {
            session: SESSION,
            device: PHONE,
            room: Some(ROOM),
            app: APP,
            sender: USER,
            biz_code: BizCode(5558),
            received_ms: 9,
            client_msg_id: id("m1"),
            payload: Bytes::from_static(b"hi"),
        },
    ]
}

/// Each variant, and each variant within.
pub fn messages() -> Vec<LinkMessage> {
    let all = to_router().into_iter().map(LinkMessage::ToRouter);
    let all = all.chain(to_gateway().into_iter().map(LinkMessage::ToGateway));
    let handed = to_bridge()
        .into_iter()
        .zip(1..)
        .map(|(event, seq)| LinkMessage::Handed(Box::new(Handed { seq, event })));
    let results = vec![(1, Taken::Ok), (u64::MAX, Taken::Refused(FailReason::NoRoute))];
    all.chain(handed).chain([LinkMessage::FromBridge(FromBridge::Taken { results })]).collect()
}

/// The text that a message carries as an id.
pub fn client_msg_id(message: &LinkMessage) -> Option<&ClientMsgId> {
    match message {
        LinkMessage::ToRouter(ToRouter::Submit { submission, .. }) => Some(&submission.client_msg_id),
        LinkMessage::ToRouter(ToRouter::Ask { question: Question::PushAll { message }, .. }) => {
            Some(&message.client_msg_id)
        }
        LinkMessage::ToGateway(ToGateway::SendAck { ack, .. }) => Some(&ack.client_msg_id),
        LinkMessage::ToGateway(
            ToGateway::Deliver { message, .. }
            | ToGateway::Broadcast { message, .. }
            | ToGateway::All { message },
        ) => Some(&message.client_msg_id),
        LinkMessage::ToGateway(ToGateway::Recalled(part)) => name_of_first(&part.messages),
        LinkMessage::ToGateway(ToGateway::Moved(part)) | LinkMessage::ToRouter(ToRouter::Kept(part)) => {
            name_of_first(&part.messages)
        }
        LinkMessage::ToGateway(ToGateway::Answer { answer: Answer::History { messages }, .. }) => {
            name_of_first(messages)
        }
        LinkMessage::Handed(handed) => name_of(&handed.event),
        _ => None,
    }
}

fn name_of_first(messages: &[Message]) -> Option<&ClientMsgId> {
    messages.first().map(|message| &message.client_msg_id)
}

fn name_of(event: &ToBridge) -> Option<&ClientMsgId> {
    match event {
        ToBridge::Undelivered { message, .. } => Some(&message.client_msg_id),
        ToBridge::Request { client_msg_id, .. } => Some(client_msg_id),
        _ => None,
    }
}

/// Each frame with the size of its body.
pub fn frames() -> Vec<(Frame<'static>, usize)> {
    let router = Identity { role: Role::Router, ..IDENTITY };
    let mut all = vec![
        (Frame::Hello { identity: IDENTITY, nonce: NONCE }, 37),
        (Frame::Challenge { identity: router, nonce: NONCE }, 33),
        (Frame::Proof { session: 1, received: 2, proof: PROOF }, 48),
        (Frame::Welcome { session: u64::MAX, received: 0, proof: PROOF }, 48),
        (Frame::Batch { received: 3, archive: b"archive" }, 15),
        (Frame::Credit { received: 4 }, 8),
        (Frame::Bye, 0),
    ];
    all.extend(Refusal::ALL.map(|reason| (Frame::Refused { reason }, 1)));
    all
}

pub fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}
