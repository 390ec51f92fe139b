//! What operators ask.

mod common;

use common::*;
use shard::ShardId;
use wire::client::NoticeCode;
use wire::node::{
    Answer, Ban, Presence, Question, Revocation, Seat, SessionId, ShardLoad, ToGateway, ToRouter,
};
use wire::{DeviceClass, MessageId, UserId};

/// Asks from A; what else is said, and the answer.
fn ask(bench: &mut Bench, question: Question) -> (Mail, Answer) {
    let mut said = bench.tell(A, ToRouter::Ask { ask: 5, question });
    match said.pop() {
        Some((A, Said::ToGateway(ToGateway::Answer { ask: 5, answer }))) => (said, answer),
        other => panic!("the answer comes last, not {other:?}"),
    }
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.bind(A, ALICE, PHONE, 1);
    bench.bind(C, ALICE, WEB, 2);
    bench.bind(C, BOB, PHONE, 3);
    bench
}

#[test]
fn who_is_online_in_the_order_asked() {
    let mut bench = bench();
    let users = vec![UserId(404), BOB, ALICE];
    let (said, answer) = ask(&mut bench, Question::Online { app: APP, users });
    let Answer::Online { mut users, settled: true } = answer else { panic!("{answer:?}") };
    assert_eq!((said, users.len()), (vec![], 3));
    users[2].seats.sort_by_key(|seat| seat.device);
    let seat = |shard: ShardId, device| Seat { device, shard: shard.as_u32(), login: login(0) };
    let presence = |user, seats| Presence { user, seats };
    assert_eq!(users[0], presence(UserId(404), vec![]));
    assert_eq!(users[1], presence(BOB, vec![seat(C, PHONE)]));
    assert_eq!(users[2], presence(ALICE, vec![seat(A, PHONE), seat(C, WEB)]));
}

#[test]
fn a_kick_ends_the_sessions_that_are_meant() {
    let mut bench = bench();
    let kick = |device| Question::Kick { app: APP, user: ALICE, device, ban_ms: None };
    let (said, answer) = ask(&mut bench, kick(Some(WEB)));
    assert_eq!((said, answer), (vec![kicked(C, 2, NoticeCode::Kicked)], Answer::Kicked { sessions: 1 }));
    let (mut said, answer) = ask(&mut bench, kick(None));
    said.sort_by_key(|(to, _)| *to);
    assert_eq!(said, [kicked(A, 1, NoticeCode::Kicked), kicked(C, 2, NoticeCode::Kicked)]);
    assert_eq!(answer, Answer::Kicked { sessions: 2 });
    let nobody = Question::Kick { app: APP, user: UserId(404), device: None, ban_ms: None };
    assert_eq!(ask(&mut bench, nobody), (vec![], Answer::Kicked { sessions: 0 }));
}

/// Alice logs in.
fn bind(session: u64, device: DeviceClass) -> ToRouter {
    let session = SessionId(session);
    ToRouter::Bind { app: APP, user: ALICE, device, session, login: login(9), fresh: true }
}

#[test]
fn a_ban_refuses_logins_until_it_ends() {
    let mut bench = bench();
    let ban = |device, ban_ms| Question::Kick { app: APP, user: ALICE, device, ban_ms };
    let (said, _) = ask(&mut bench, ban(Some(PHONE), Some(60_000)));
    assert_eq!(said[3..], [kicked(A, 1, NoticeCode::Kicked)], "after all gateways were told");
    assert_eq!(bench.tell(B, bind(5, PHONE)), [kicked(B, 5, NoticeCode::Kicked)]);
    assert_ne!(bench.tell(B, bind(6, WEB)), [kicked(B, 6, NoticeCode::Kicked)], "another class of device");
    // A kick without a ban does not lift one.
    ask(&mut bench, ban(Some(PHONE), None));
    bench.pass(std::time::Duration::from_secs(59));
    assert_eq!(bench.tell(B, bind(7, PHONE)), [kicked(B, 7, NoticeCode::Kicked)]);
    bench.pass(std::time::Duration::from_secs(2));
    let is_refused = |bench: &mut Bench, session, device| {
        bench.tell(B, bind(session, device)) == [kicked(B, session, NoticeCode::Kicked)]
    };
    assert!(!is_refused(&mut bench, 8, PHONE));
    // On all devices, until it is lifted.
    ask(&mut bench, ban(None, Some(60_000)));
    assert!(is_refused(&mut bench, 9, WEB) && is_refused(&mut bench, 10, PHONE));
    ask(&mut bench, ban(None, Some(0)));
    assert!(!is_refused(&mut bench, 11, WEB) && !is_refused(&mut bench, 12, PHONE));
}

/// What a router told each gateway shard, the same to all.
fn told_all(said: &Mail) -> Vec<Ban> {
    let bans = |(_, said): &(ShardId, Said)| match said {
        Said::ToGateway(ToGateway::Banned { bans }) => Some(bans.clone()),
        _ => None,
    };
    let told: Vec<Vec<Ban>> = said.iter().filter_map(bans).collect();
    let to: Vec<ShardId> = said.iter().filter(|said| bans(said).is_some()).map(|(to, _)| *to).collect();
    assert_eq!(to, [A, B, C]);
    assert!(told.iter().all(|bans| *bans == told[0]));
    told[0].clone()
}

/// A router that was not asked hears of a ban from gateways, which hear of it from any router.
#[test]
fn a_ban_outlives_the_router_that_was_asked() {
    let (mut first, mut second) = (bench(), Bench::new());
    let ban = |ban_ms| Question::Kick { app: APP, user: ALICE, device: None, ban_ms: Some(ban_ms) };
    first.pass(std::time::Duration::from_secs(5));
    let bans = told_all(&ask(&mut first, ban(60_000)).0);
    let is_refused = |bench: &mut Bench, session| {
        bench.tell(B, bind(session, PHONE)) == [kicked(B, session, NoticeCode::Kicked)]
    };
    // A gateway tells the next router, which tells all gateways and those that come later.
    assert_eq!(told_all(&second.tell(A, ToRouter::Banned { bans: bans.clone() })), bans);
    assert_eq!(second.tell(B, ToRouter::Banned { bans: bans.clone() }), [], "nothing new");
    let later = ShardId::new(11, 0);
    let banned = (later, Said::ToGateway(ToGateway::Banned { bans: bans.clone() }));
    assert!(second.up(later).contains(&banned));
    second.down(later);
    assert!(is_refused(&mut second, 21));
    // It is lifted by the one whose clock is behind. The other hears so, and no old word undoes it.
    let lifted = told_all(&ask(&mut second, ban(0)).0);
    assert!(!is_refused(&mut second, 22));
    assert!(is_refused(&mut first, 23));
    assert_eq!(told_all(&first.tell(A, ToRouter::Banned { bans: lifted.clone() })), lifted);
    assert!(!is_refused(&mut first, 24));
    for bench in [&mut first, &mut second] {
        assert_eq!(bench.tell(C, ToRouter::Banned { bans: bans.clone() }), []);
        assert!(!is_refused(bench, 25));
    }
    // One that does not know of the ban lifts it everywhere all the same.
    let mut third = Bench::new();
    third.pass(std::time::Duration::from_secs(1));
    let unknown = told_all(&ask(&mut third, ban(0)).0);
    let mut fourth = bench();
    told_all(&ask(&mut fourth, ban(60_000)).0);
    fourth.tell(A, ToRouter::Banned { bans: unknown });
    assert!(!is_refused(&mut fourth, 26));
}

/// All gateways refuse the tokens, those that come later and those that another gateway has told of too.
#[test]
fn revocations_go_to_every_gateway_shard() {
    let mut bench = bench();
    let until_secs = START.unix_secs() + 600;
    let of = |user| Revocation { app: APP, user, login: 0, before_secs: START.unix_secs(), until_secs };
    let revoked = |shard, users: &[UserId]| {
        let revocations = users.iter().copied().map(of).collect();
        (shard, Said::ToGateway(ToGateway::Revoked { revocations }))
    };
    let recheck =
        |shard, session| (shard, Said::ToGateway(ToGateway::Recheck { session: SessionId(session) }));
    let question = Question::Revoke { revocations: vec![of(ALICE)] };
    let (mut said, answer) = ask(&mut bench, question.clone());
    said[3..].sort_by_key(|(to, _)| *to);
    assert_eq!(answer, Answer::Told { shards: 3 });
    assert_eq!(said[..3], [A, B, C].map(|shard| revoked(shard, &[ALICE])));
    assert_eq!(said[3..], [recheck(A, 1), recheck(C, 2)], "after that, her sessions are looked at");
    assert_eq!(ask(&mut bench, question), (vec![], Answer::Told { shards: 3 }), "nothing new");

    let told = bench.tell(B, ToRouter::Revoked { revocations: vec![of(ALICE), of(UserId(404))] });
    assert_eq!(
        told,
        [A, B, C].map(|shard| revoked(shard, &[UserId(404)])),
        "what was not known is passed on"
    );
    let later = ShardId::new(11, 0);
    assert!(bench.up(later).contains(&revoked(later, &[UserId(404), ALICE])));
    bench.pass(std::time::Duration::from_secs(601));
    let question = Question::Revoke { revocations: vec![of(BOB)] };
    assert_eq!(ask(&mut bench, question).0, [], "it has ended before it came");
}

#[test]
fn a_message_to_all_goes_to_every_gateway_shard() {
    let mut bench = bench();
    bench.bind(B, UserId(7), PHONE, 9);
    let (_, message) = delivery(bench.submit(A, 1, to_user(BOB, "m")));
    let message = wire::client::Message { id: MessageId(77), ack_wanted: false, ..message };
    let (said, answer) = ask(&mut bench, Question::PushAll { message: message.clone() });
    let all = |shard| (shard, Said::ToGateway(ToGateway::All { message: message.clone() }));
    assert_eq!((said, answer), ([A, B, C].map(all).to_vec(), Answer::Told { shards: 3 }));
}

#[test]
fn a_drain_goes_to_the_shards_of_that_node() {
    let mut bench = bench();
    let drain = |shard| (shard, Said::ToGateway(ToGateway::Drain));
    let of_node = |bench: &mut Bench, node| ask(bench, Question::Drain { node });
    assert_eq!(of_node(&mut bench, 9), (vec![drain(C)], Answer::Told { shards: 1 }));
    assert_eq!(of_node(&mut bench, 0), (vec![drain(A), drain(B)], Answer::Told { shards: 2 }));
    assert_eq!(of_node(&mut bench, 3), (vec![], Answer::Told { shards: 0 }));
}

#[test]
fn which_gateway_shards_there_are_and_what_they_hold() {
    let mut bench = bench();
    bench.bind(B, BOB, PHONE, 8);
    let load = |shard: ShardId, sessions| ShardLoad { shard: shard.as_u32(), sessions };
    let (said, answer) = ask(&mut bench, Question::Nodes);
    assert_eq!(said, []);
    assert_eq!(answer, Answer::Nodes { shards: vec![load(A, 1), load(B, 1), load(C, 1)] });
    let bridge = ShardId::new(65, 0);
    bench.router.bridge_up(bench.now, bridge, 1, 7);
    bench.taken();
    let (_, answer) = ask(&mut bench, Question::Nodes);
    assert_eq!(answer, Answer::Nodes { shards: vec![load(A, 1), load(B, 1), load(C, 1)] });
    // Its number may be a gateway's next.
    bench.up(bridge);
    let (_, answer) = ask(&mut bench, Question::Nodes);
    assert_eq!(answer, Answer::Nodes { shards: vec![load(A, 1), load(B, 1), load(C, 1), load(bridge, 0)] });
}
