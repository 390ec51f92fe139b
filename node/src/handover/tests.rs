use bytes::Bytes;
use shard::Prng;
use wire::client::Message;
use wire::node::Login;
use wire::{AppId, BizCode, ClientMsgId, DeviceClass, UserId};

use super::*;

const LIMITS: HandoverLimits = HandoverLimits {
    queue_messages_max: 10_000,
    queue_bytes_max: 8 << 20,
    user_messages_max: 5_000,
    user_bytes_max: 4 << 20,
    window_bytes: 4 << 20,
};

fn name(text: &'static str) -> ClientMsgId {
    ClientMsgId::new(Bytes::from_static(text.as_bytes()))
}

fn online(user: i64) -> ToBridge {
    ToBridge::Online { app: AppId(1), user: UserId(user), device: DeviceClass::Phone, login: Login(1) }
}

fn offline(user: i64, login: u64) -> ToBridge {
    let (app, user, device, login) = (AppId(1), UserId(user), DeviceClass::Phone, Login(login));
    ToBridge::Offline { app, user, device, login }
}

fn joined(user: i64, room: i64, login: u64) -> ToBridge {
    let (app, user, device, login, room) =
        (AppId(1), UserId(user), DeviceClass::Phone, Login(login), RoomId(room));
    ToBridge::Joined { app, user, device, login, room }
}

fn left(user: i64, room: i64, login: u64) -> ToBridge {
    match joined(user, room, login) {
        ToBridge::Joined { app, user, device, login, room } => {
            ToBridge::Left { app, user, device, login, room }
        }
        other => panic!("{other:?}"),
    }
}

fn request(client_msg_id: &'static str, payload: usize) -> ToBridge {
    ToBridge::Request {
        session: SessionId(9),
        device: DeviceClass::Phone,
        room: None,
        app: AppId(1),
        sender: UserId(2),
        biz_code: BizCode(5560),
        received_ms: 3,
        client_msg_id: name(client_msg_id),
        payload: vec![1; payload].into(),
    }
}

fn undelivered(delivery: Option<u64>) -> ToBridge {
    let message = Message {
        id: MessageId(1),
        app: AppId(1),
        sender: UserId(2),
        biz_code: BizCode(6001),
        room: None,
        sequence: 0,
        ack_wanted: true,
        client_msg_id: name("m"),
        payload: Bytes::new(),
    };
    let (user, reason, delivery) =
        (UserId(3), FailReason::Offline, delivery.map_or(DeliveryId::NONE, DeliveryId));
    ToBridge::Undelivered { user, reason, message, delivery }
}

fn outcome(answer: Option<Told>) -> Option<Outcome> {
    match answer {
        Some(Told::Session { session: SessionId(9), ack }) => Some(ack.outcome),
        None => None,
        other => panic!("{other:?}"),
    }
}

fn numbers(handover: &mut Handover) -> Vec<u64> {
    let numbers = std::iter::from_fn(|| handover.next()).map(|handed| handed.seq).collect();
    handover.check_invariants();
    numbers
}

#[test]
fn events_are_numbered_and_handed_over_once() {
    let mut handover = Handover::new(LIMITS, 1);
    (1..=3).for_each(|user| assert_eq!(handover.put(online(user)), None));
    assert_eq!(handover.next(), Some(Handed { seq: 1, event: online(1) }));
    assert_eq!(numbers(&mut handover), [2, 3]);
    handover.put(online(4));
    assert_eq!(numbers(&mut handover), [4]);
    (1..=4).for_each(|seq| assert_eq!(handover.taken(seq, Taken::Ok), None));
    assert!(handover.is_empty() && handover.is_idle());
    let metrics = HandoverMetrics { handed: 4, taken: 4, ..HandoverMetrics::default() };
    assert_eq!(handover.metrics(), metrics);
}

#[test]
fn the_next_bridge_gets_what_is_not_taken_in_order() {
    let mut handover = Handover::new(LIMITS, 1);
    (1..=6).for_each(|user| drop(handover.put(online(user))));
    assert_eq!(numbers(&mut handover), [1, 2, 3, 4, 5, 6]);
    handover.taken(2, Taken::Ok);
    handover.taken(5, Taken::Refused(FailReason::NoRoute));
    handover.put(online(7));
    handover.begin_again();
    assert!(handover.is_idle() && !handover.is_empty());
    assert_eq!(handover.taken(3, Taken::Ok), None, "the bridge before has it after all");
    assert_eq!(numbers(&mut handover), [1, 4, 6, 7]);
    assert_eq!(handover.taken(2, Taken::Ok), None, "told twice");
    let HandoverMetrics { handed, resent, taken, refused, waiting, .. } = handover.metrics();
    assert_eq!((handed, resent, taken, refused, waiting), (7, 3, 2, 1, 4));
}

#[test]
fn a_window_bounds_what_is_under_way() {
    let mut handover = Handover::new(LIMITS, 1);
    (0..5_000).for_each(|user| drop(handover.put(online(user))));
    assert_eq!(numbers(&mut handover).len(), WINDOW_MESSAGES);
    handover.taken(4_000, Taken::Ok);
    assert_eq!(numbers(&mut handover), [WINDOW_MESSAGES as u64 + 1], "one goes, one may follow");
    let mut handover = Handover::new(HandoverLimits { window_bytes: 3_000, ..LIMITS }, 1);
    (0..5).for_each(|_| drop(handover.put(request("", 1_000))));
    assert_eq!(numbers(&mut handover), [1, 2, 3]);
    handover.taken(1, Taken::Ok);
    assert_eq!(numbers(&mut handover), [4]);
}

#[test]
fn whoever_waits_hears_what_became_of_it() {
    let mut handover = Handover::new(LIMITS, 1);
    [request("a", 0), request("b", 0), request("", 0), undelivered(Some(7)), undelivered(None)]
        .into_iter()
        .for_each(|event| drop(handover.put(event)));
    numbers(&mut handover);
    assert_eq!(outcome(handover.taken(1, Taken::Ok)), Some(Outcome::Answered));
    let refused = Taken::Refused(FailReason::NoRoute);
    assert_eq!(outcome(handover.taken(2, refused)), Some(Outcome::Failed(FailReason::NoRoute)));
    assert_eq!(outcome(handover.taken(3, Taken::Ok)), None);
    let kept = Told::Router { delivery: DeliveryId(7), taken: refused };
    assert_eq!(handover.taken(4, refused), Some(kept));
    assert_eq!(handover.taken(5, Taken::Ok), None);
}

#[test]
fn past_the_limits_whoever_waits_is_told_and_the_rest_is_counted() {
    for limits in [
        HandoverLimits { queue_messages_max: 2, ..LIMITS },
        HandoverLimits { queue_bytes_max: 2 * EVENT_BYTES as u64, ..LIMITS },
    ] {
        let mut handover = Handover::new(limits, 1);
        (1..=2).for_each(|user| assert_eq!(handover.put(online(user)), None));
        (3..=4).for_each(|_| assert_eq!(handover.put(request("", 0)), None));
        assert_eq!(handover.put(online(3)), None);
        assert_eq!(outcome(handover.put(request("a", 0))), Some(Outcome::Failed(FailReason::Busy)));
        let kept = Told::Router { delivery: DeliveryId(7), taken: Taken::Refused(FailReason::Busy) };
        assert_eq!(handover.put(undelivered(Some(7))), Some(kept));
        assert_eq!(handover.metrics().dropped, [1, 0, 0, 0, 1, 1]);
        assert_eq!(numbers(&mut handover), [1, 2, 3, 4], "numbers have no gaps");
        handover.taken(1, Taken::Ok);
        assert_eq!(handover.put(online(3)), None);
        assert_eq!(numbers(&mut handover), [5]);
    }
}

/// A bridge that is away for long hears where everybody is, however often they came and went.
#[test]
fn of_what_waits_about_a_session_the_newest_stays() {
    let mut handover = Handover::new(HandoverLimits { queue_messages_max: 4, ..LIMITS }, 1);
    let again = |user, login| match online(user) {
        ToBridge::Online { app, user, device, .. } => {
            ToBridge::Online { app, user, device, login: Login(login) }
        }
        other => panic!("{other:?}"),
    };
    for round in 0..100 {
        handover.put(again(1, 10 * round + 1));
        handover.put(joined(1, 7, 10 * round + 1));
        handover.put(left(1, 7, 10 * round + 1));
        handover.put(offline(1, 10 * round + 1));
        handover.put(again(2, 10 * round + 5));
        handover.put(joined(2, 7, 10 * round + 5));
        handover.check_invariants();
    }
    handover.put(again(1, 991)); // of equal stamps the end counts
    handover.put(offline(2, 17)); // and the highest in any case
    let last: Vec<ToBridge> = std::iter::from_fn(|| handover.next()).map(|handed| handed.event).collect();
    assert_eq!(last.len(), 4);
    for event in [offline(1, 991), left(1, 7, 991), again(2, 995), joined(2, 7, 995)] {
        assert!(last.contains(&event), "{event:?} of {last:?}");
    }
    assert_eq!((handover.metrics().dropped, handover.metrics().handed), ([0; 6], 4));
    handover.check_invariants();
    // What is under way stays as it is.
    handover.put(offline(2, 995));
    assert_eq!(handover.metrics().dropped[1], 1, "there is no place");
    assert!(!handover.take_behind(), "nor one for what would be told again");
    let taken: Vec<u64> = handover.kept.keys().copied().collect();
    taken.into_iter().for_each(|seq| drop(handover.taken(seq, Taken::Ok)));
    assert!(handover.take_behind() && !handover.take_behind());
    handover.put(offline(2, 995));
    assert_eq!(handover.next().map(|handed| handed.event), Some(offline(2, 995)));
    handover.check_invariants();
}

#[test]
fn the_next_bridge_hears_of_what_is_newest_alone() {
    let mut handover = Handover::new(LIMITS, 1);
    handover.put(online(1));
    handover.put(online(2));
    assert_eq!(numbers(&mut handover), [1, 2]);
    handover.put(offline(1, 1));
    handover.put(offline(2, 0)); // of a session before
    assert_eq!(numbers(&mut handover), [3, 4], "what is under way stays");
    handover.begin_again();
    let next: Vec<Handed> = std::iter::from_fn(|| handover.next()).collect();
    assert_eq!(next, [Handed { seq: 3, event: offline(1, 1) }, Handed { seq: 4, event: online(2) }]);
    handover.check_invariants();
    assert_eq!(handover.taken(1, Taken::Ok), None, "the bridge before has it after all");
    (3..=4).for_each(|seq| drop(handover.taken(seq, Taken::Ok)));
    assert!(handover.is_empty());
    handover.check_invariants();
}

/// A bridge may take the newer of two events and then go, with the older one untaken. Whatever it takes, and
/// however late it says so, the newest of each device is handed over.
#[test]
fn the_newest_is_handed_over_whatever_bridges_take() {
    for seed in 0..200 {
        let mut prng = Prng::new(seed);
        let mut handover = Handover::new(LIMITS, 1);
        let (mut said, mut heard) = ([0; 3], [0; 3]);
        let mut handed: Vec<u64> = Vec::new();
        let mut hear = |handover: &mut Handover| {
            let next = handover.next()?;
            let ToBridge::Offline { user, login, .. } = next.event else { panic!("{next:?}") };
            let heard = &mut heard[user.0 as usize];
            *heard = login.0.max(*heard);
            Some(next.seq)
        };
        for login in 1..300 {
            match prng.below(10) {
                0..=3 => {
                    let user = prng.below(3);
                    said[user as usize] = login;
                    handover.put(offline(user as i64, login));
                }
                4..=6 => handed.extend(hear(&mut handover)),
                7 | 8 if !handed.is_empty() => {
                    let place = prng.below(handed.len() as u64) as usize;
                    handover.taken(handed.swap_remove(place), Taken::Ok);
                }
                _ if prng.below(5) == 0 => handover.begin_again(),
                _ => {}
            }
            handover.check_invariants();
        }
        while hear(&mut handover).is_some() {}
        assert_eq!(heard, said, "seed {seed}");
    }
}

/// Whatever bridges do, each event is handed over at least once, in order between two of their ends, and
/// taken once.
#[test]
fn bridges_that_come_and_go_lose_nothing() {
    for seed in 0..200 {
        let mut prng = Prng::new(seed);
        let mut handover =
            Handover::new(HandoverLimits { window_bytes: 10 * EVENT_BYTES as u64, ..LIMITS }, 1);
        let (mut put, mut with, mut taken) = (0, Vec::new(), Vec::new());
        let mut last = 0;
        while taken.len() < 300 {
            match prng.below(8) {
                0 | 1 if put < 300 => {
                    put += 1;
                    assert_eq!(handover.put(online(put)), None);
                }
                0..=4 => {
                    if let Some(Handed { seq, event }) = handover.next() {
                        assert_eq!(event, online(seq as i64));
                        assert!(seq > last, "seed {seed}: {seq} after {last}");
                        last = seq;
                        with.push(seq);
                    }
                }
                5 if prng.below(10) == 0 => {
                    handover.begin_again();
                    last = 0;
                    with.clear();
                }
                _ if !with.is_empty() => {
                    let seq = with.swap_remove(prng.below(with.len() as u64) as usize);
                    handover.taken(seq, Taken::Ok);
                    taken.push(seq);
                }
                _ => {}
            }
            handover.check_invariants();
        }
        taken.sort_unstable();
        assert_eq!(taken, (1..=300).collect::<Vec<_>>(), "seed {seed}");
    }
}

fn of_user(user: i64, event: ToBridge) -> ToBridge {
    match event {
        mut request @ ToBridge::Request { .. } => {
            if let ToBridge::Request { sender, .. } = &mut request {
                *sender = UserId(user);
            }
            request
        }
        ToBridge::Undelivered { user: receiver, reason, message, delivery } => {
            let message = Message { sender: UserId(user), ..message };
            ToBridge::Undelivered { user: receiver, reason, message, delivery }
        }
        other => panic!("{other:?} has its user"),
    }
}

/// An undelivered message to a room, which a member did not ack.
fn undelivered_in_room(member: i64, sender: i64) -> ToBridge {
    match of_user(sender, undelivered(None)) {
        ToBridge::Undelivered { reason, message, delivery, .. } => {
            let message = Message { room: Some(RoomId(7)), ..message };
            ToBridge::Undelivered { user: UserId(member), reason, message, delivery }
        }
        other => panic!("{other:?}"),
    }
}

/// Puts so many events; how many found room.
fn taken(handover: &mut Handover, count: usize, event: impl Fn() -> ToBridge) -> u64 {
    let before = handover.metrics().waiting;
    (0..count).for_each(|_| drop(handover.put(event())));
    handover.check_invariants();
    handover.metrics().waiting - before
}

#[test]
fn one_users_events_take_no_place_of_others() {
    let limits = HandoverLimits { queue_messages_max: 100, user_messages_max: 10, ..LIMITS };
    let mut handover = Handover::new(limits, 1);
    assert_eq!(taken(&mut handover, 20, || of_user(5, request("", 0))), 10);
    assert_eq!(taken(&mut handover, 20, || of_user(5, undelivered(None))), 0, "these are packets of its too");
    assert_eq!(outcome(handover.put(of_user(5, request("a", 0)))), Some(Outcome::Failed(FailReason::Busy)));
    assert_eq!(taken(&mut handover, 10, || of_user(6, request("", 0))), 10);
    assert_eq!(taken(&mut handover, 10, || of_user(7, undelivered(None))), 10);
    let room = std::cell::Cell::new(0);
    let joined = |user| {
        room.set(room.get() + 1);
        joined(user, room.get(), 1)
    };
    assert_eq!(taken(&mut handover, 20, || joined(5)), 10, "its presence counts apart");
    assert_eq!(taken(&mut handover, 10, || joined(6)), 10);
    numbers(&mut handover);
    handover.taken(1, Taken::Ok);
    assert_eq!(taken(&mut handover, 20, || of_user(5, request("", 0))), 1, "one goes, one may come");
}

#[test]
fn packets_and_presence_do_not_take_each_others_places() {
    let limits = HandoverLimits { queue_messages_max: 100, user_messages_max: 1, ..LIMITS };
    let mut handover = Handover::new(limits, 1);
    let users = std::cell::Cell::new(0);
    let next = || {
        users.set(users.get() + 1);
        users.get()
    };
    assert_eq!(taken(&mut handover, 150, || of_user(next(), request("", 0))), 100);
    assert_eq!(taken(&mut handover, 150, || online(next())), 100);
    assert_eq!(handover.metrics().dropped, [50, 0, 0, 0, 0, 50]);
}

#[test]
fn bytes_have_shares_too() {
    let limits = HandoverLimits { user_bytes_max: 10_000, ..LIMITS };
    let mut handover = Handover::new(limits, 1);
    assert_eq!(taken(&mut handover, 20, || of_user(5, request("", 4_000))), 2);
    assert_eq!(taken(&mut handover, 2, || of_user(6, request("", 4_000))), 2);
}

#[test]
fn a_room_message_counts_for_the_member_that_did_not_ack_it() {
    let limits = HandoverLimits { user_messages_max: 10, ..LIMITS };
    let mut handover = Handover::new(limits, 1);
    assert_eq!(taken(&mut handover, 20, || undelivered_in_room(5, 6)), 10);
    assert_eq!(
        taken(&mut handover, 10, || of_user(6, undelivered(None))),
        10,
        "its sender has no part in it"
    );
}

#[test]
fn what_was_pushed_in_nobodys_name_has_half() {
    let limits = HandoverLimits { queue_messages_max: 100, user_messages_max: 10, ..LIMITS };
    let mut handover = Handover::new(limits, 1);
    assert_eq!(taken(&mut handover, 80, || of_user(0, undelivered(None))), 50);
}
