//! Archives: whole, and broken in every way.

use std::panic::{AssertUnwindSafe, catch_unwind};

use wire::client::{FailReason, Message, NoticeCode, Outcome};
use wire::node::link::{BATCH_MESSAGES_MAX, Refusal};
use wire::node::{
    Answer, DeliveryId, FromBridge, Handed, Kept, LinkMessage, Login, Presence, Question, Recalled, Seat,
    SessionId, ToBridge, ToGateway, ToRouter, decode_batch, encode_batch, sequence_base,
};
use wire::{AppId, ClientMsgId, DeviceClass, MessageId, RoomId, UserId};

use crate::samples::{NOW_NS, client_msg_id, kept, message, messages, recalled};

fn read(bytes: &[u8]) -> (Vec<LinkMessage>, Result<(), Refusal>) {
    let mut out = Vec::new();
    let end = decode_batch(bytes, NOW_NS, |message| {
        out.push(message);
        Ok(())
    });
    (out, end)
}

/// Whatever the bytes: no panic, and no id that only a decoder's care would make sound.
fn check(bytes: &[u8], what: impl Fn() -> String) {
    let (out, _) = catch_unwind(AssertUnwindSafe(|| read(bytes))).unwrap_or_else(|_| panic!("{}", what()));
    for message in &out {
        if let Some(id) = client_msg_id(message) {
            let is_sound =
                id.as_bytes().len() <= ClientMsgId::BYTES_MAX && std::str::from_utf8(id.as_bytes()).is_ok();
            assert!(is_sound, "{}: {message:?}", what());
        }
    }
    assert!(out.len() <= bytes.len(), "{}", what());
}

#[test]
fn every_message_comes_back() {
    for message in messages() {
        let one = vec![message];
        assert_eq!(read(&encode_batch(&one)), (one, Ok(())));
    }
    assert_eq!(read(&encode_batch(&messages())), (messages(), Ok(())));
    assert_eq!(read(&encode_batch(&Vec::new())), (vec![], Ok(())));
}

#[test]
fn an_archive_may_lie_anywhere() {
    let archive = encode_batch(&messages());
    for shift in 0..16 {
        let moved = [&vec![0; shift], &archive[..]].concat();
        assert_eq!(read(&moved[shift..]), (messages(), Ok(())), "{shift}");
    }
}

#[test]
fn a_cut_archive_is_no_more_than_refused() {
    let archive = encode_batch(&messages());
    for end in 0..archive.len() {
        check(&archive[..end], || format!("cut at {end}"));
        check(&archive[end..], || format!("begun at {end}"));
    }
    assert_eq!(read(&[]).1, Err(Refusal::BadBatch));
}

#[test]
fn every_bit_of_every_message_flipped() {
    for message in messages() {
        let archive = encode_batch(&vec![message.clone()]);
        for bit in 0..archive.len() * 8 {
            let mut bytes = archive.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            check(&bytes, || format!("bit {bit} of {message:?}"));
        }
    }
}

#[test]
fn every_byte_of_a_batch_changed() {
    let archive = encode_batch(&messages());
    for at in 0..archive.len() {
        for with in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = archive.to_vec();
            bytes[at] = with;
            check(&bytes, || format!("byte {at} is {with}"));
        }
    }
}

#[test]
fn an_id_that_is_no_text_is_refused() {
    let mut found = 0;
    for message in messages() {
        if client_msg_id(&message).is_none_or(ClientMsgId::is_empty) {
            continue;
        }
        let mut archive = encode_batch(&vec![message.clone()]).to_vec();
        let at = archive.windows(2).position(|two| two == b"m1").unwrap();
        archive[at] = 0xff;
        assert_eq!(read(&archive), (vec![], Err(Refusal::BadMessage)), "{message:?}");
        found += 1;
    }
    assert_eq!(found, 14);
}

#[test]
fn a_batch_has_its_length() {
    let batch = |count| vec![LinkMessage::ToGateway(ToGateway::Drain); count];
    assert_eq!(read(&encode_batch(&batch(BATCH_MESSAGES_MAX))).1, Ok(()));
    assert_eq!(read(&encode_batch(&batch(BATCH_MESSAGES_MAX + 1))), (vec![], Err(Refusal::BadBatch)));
}

/// A number that no clock gives would stay above all that come later.
#[test]
fn what_is_from_the_future_is_refused() {
    const DAY_NS: u64 = 24 * 60 * 60 * 1_000_000_000;
    for (ahead_days, is_taken) in [(0, true), (2, true), (4, false), (u64::MAX / DAY_NS - 30_000, false)] {
        let ns = NOW_NS + ahead_days * DAY_NS;
        let (login, sequence) = (Login(ns), sequence_base(ns));
        let id = MessageId(sequence << 11);
        let seat = Seat { device: DeviceClass::Web, shard: 0x1_0000, login };
        let presence = Presence { user: UserId(1), seats: vec![seat] };
        let (app, room, session, ask) = (AppId(1), RoomId(1), SessionId(1), 1);
        let (user, device) = (UserId(1), DeviceClass::Web);
        let late = Message { sequence, ..message() };
        let named = Message { id, ..message() };
        let (delivery, outcome) = (DeliveryId(1), Outcome::Sequenced { sequence });
        let (shards, routers) = (vec![0], vec![0x1_0000]);
        let said = [
            ToRouter::Bind { app, user, device, session, login, fresh: true },
            ToRouter::Join { app, room, sequence },
            ToRouter::Settle { delivery, session, outcome },
            ToRouter::Reach { routers: routers.clone(), clock: login },
            ToRouter::Ask { ask, question: Question::PushAll { message: late.clone() } },
            ToRouter::Kept(Box::new(Kept { upto: sequence, ..kept() })),
        ];
        let told = [
            ToGateway::Bound { session, login },
            ToGateway::Joined { app, room, sequence },
            ToGateway::Deliver { session, delivery: None, again: false, message: named.clone() },
            ToGateway::Broadcast { message: late.clone(), shards },
            ToGateway::All { message: named.clone() },
            ToGateway::Common { routers, clock: login },
            ToGateway::Answer { ask, answer: Answer::Online { users: vec![presence], settled: true } },
            ToGateway::Answer { ask, answer: Answer::History { messages: vec![late.clone()] } },
            ToGateway::Recalled(Box::new(Recalled { sequence, ..recalled() })),
            ToGateway::Recalled(Box::new(Recalled { gone: sequence, ..recalled() })),
            ToGateway::Moved(Box::new(Kept { upto: sequence, ..kept() })),
        ];
        let events = [
            ToBridge::Left { app, user, device, login, room },
            ToBridge::Undelivered {
                user,
                reason: FailReason::Offline,
                message: named,
                delivery: DeliveryId::NONE,
            },
        ];
        let events = events.map(|event| LinkMessage::Handed(Box::new(Handed { seq: 1, event })));
        let all = said.map(LinkMessage::ToRouter).into_iter().chain(told.map(LinkMessage::ToGateway));
        for message in all.chain(events) {
            let end = read(&encode_batch(&vec![message.clone()])).1;
            assert_eq!(end.is_ok(), is_taken, "{ahead_days} days ahead: {message:?}: {end:?}");
        }
    }
}

#[test]
fn lists_that_no_shard_sends_are_refused() {
    let (clock, message) = (Login(NOW_NS), message());
    let long = Message { payload: vec![0; (1 << 20) + 1].into(), ..message.clone() };
    let (session, notice) = (SessionId(1), NoticeCode::Busy);
    let part = |change: &dyn Fn(&mut Recalled)| {
        let mut part = recalled();
        change(&mut part);
        LinkMessage::ToGateway(ToGateway::Recalled(Box::new(part)))
    };
    let whole = |change: &dyn Fn(&mut Kept)| {
        let mut part = kept();
        change(&mut part);
        LinkMessage::ToRouter(ToRouter::Kept(Box::new(part)))
    };
    let many = |count| vec![message.clone(); count];
    let other = Message { room: Some(RoomId(8)), ..message.clone() };
    let broken = [
        part(&|part| part.router = 1),
        part(&|part| part.shard = 32),
        part(&|part| part.before = 4),
        part(&|part| part.before = u32::MAX),
        part(&|part| part.total = u32::MAX),
        part(&|part| part.sequence = 8),
        part(&|part| part.messages = many(2)),
        part(&|part| part.messages = vec![other.clone()]),
        part(&|part| part.app = AppId(1)),
        whole(&|part| part.router = u32::MAX),
        whole(&|part| part.gone = 9),
        whole(&|part| part.gone = 10),
        whole(&|part| part.upto = 8),
        whole(&|part| part.messages = many(2)),
        whole(&|part| part.messages = vec![other.clone()]),
        LinkMessage::ToRouter(ToRouter::Reach { routers: vec![0x2_0000, 0x1_0000], clock }),
        LinkMessage::ToRouter(ToRouter::Reach { routers: vec![0x1_0000, 0x1_0000], clock }),
        LinkMessage::ToRouter(ToRouter::Reach { routers: vec![u32::MAX], clock }),
        LinkMessage::ToGateway(ToGateway::Common { routers: vec![1], clock }),
        LinkMessage::ToGateway(ToGateway::Common { routers: vec![0x400_0000], clock }),
        LinkMessage::ToGateway(ToGateway::Broadcast { message: message.clone(), shards: vec![0, 32] }),
        LinkMessage::ToGateway(ToGateway::Broadcast { message: message.clone(), shards: vec![3, 3] }),
        LinkMessage::ToGateway(ToGateway::All { message: long }),
        LinkMessage::ToGateway(ToGateway::Kick { session, notice }),
        LinkMessage::Handed(Box::new(Handed {
            seq: 0,
            event: ToBridge::Online {
                app: AppId(1),
                user: UserId(1),
                device: DeviceClass::Web,
                login: clock,
            },
        })),
    ];
    for message in broken {
        let end = read(&encode_batch(&vec![message.clone()]));
        assert_eq!(end, (vec![], Err(Refusal::BadMessage)));
    }
    let taken = vec![LinkMessage::FromBridge(FromBridge::Taken { results: vec![] })];
    assert_eq!(read(&encode_batch(&taken)).1, Ok(()));
}

proptest::proptest! {
    #[test]
    fn random_bytes_are_harmless(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        check(&bytes, || format!("{bytes:?}"));
    }

    #[test]
    fn many_changes_are_harmless(
        changes in proptest::collection::vec(proptest::prelude::any::<(u16, u8)>(), 1..20),
        cut in 0usize..8,
    ) {
        let mut bytes = encode_batch(&messages()).to_vec();
        for (at, with) in &changes {
            let at = *at as usize % bytes.len();
            bytes[at] = *with;
        }
        bytes.truncate(bytes.len() - cut);
        check(&bytes, || format!("{changes:?}, {cut} bytes less"));
    }
}
