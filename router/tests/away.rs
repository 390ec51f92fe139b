//! Gateway shards whose link is lost, and which come back with the sessions that they had.

mod common;

use std::time::Duration;

use common::{
    ALICE, APP, BOB, BRIDGE, Bench, C, PHONE, Said, WEB, bound, deliveries, delivery, incarnation, login,
    offline, online, send_ack, to_user,
};
use router::Limits;
use shard::ShardId;
use wire::client::{FailReason, Outcome};
use wire::node::{
    Digests, Login, RangeSet, SessionId, Submission, Target, ToBridge, ToGateway, ToRouter, range_of,
    session_digest,
};
use wire::{DeviceClass, UserId};

const AWAY: Duration = Duration::from_secs(10);
/// Another gateway node with one shard.
const D: ShardId = ShardId::new(11, 0);

/// C and D are linked, and go by one view.
fn bench() -> Bench {
    let mut bench = Bench::without_gateways(|config| config.limits = Limits::default());
    [C, D].into_iter().for_each(|shard| drop(bench.up(shard)));
    bench.now += Duration::from_secs(10);
    bench.router.timeout(bench.now);
    [C, D].into_iter().for_each(|shard| drop(bench.view(shard, 1, true)));
    bench.taken();
    bench
}

/// The digests that the router says of a shard that is back.
fn digests(mail: &common::Mail, shard: ShardId) -> Option<Digests> {
    mail.iter().find_map(|(to, mail)| match mail {
        Said::ToGateway(ToGateway::Digests { digests }) if *to == shard => Digests::from_vec(digests.clone()),
        _ => None,
    })
}

/// Those of sessions of phones.
fn digests_of(sessions: &[(UserId, u64, Login)]) -> Digests {
    let mut digests = Digests::default();
    for (user, session, login) in sessions {
        let digest = session_digest(APP, *user, PHONE, SessionId(*session), *login);
        digests.toggle(range_of(APP, *user), digest);
    }
    digests
}

fn unchanged(bench: &mut Bench, shard: ShardId, users: &[UserId], moved: bool) -> common::Mail {
    let mut ranges = RangeSet::default();
    users.iter().for_each(|user| ranges.insert(range_of(APP, *user)));
    bench.tell(shard, ToRouter::Unchanged { ranges: ranges.words(), moved })
}

fn is_of_bridge((to, mail): &(ShardId, Said)) -> bool {
    *to == BRIDGE && matches!(mail, Said::ToBridge(ToBridge::Online { .. } | ToBridge::Offline { .. }))
}

#[test]
fn what_has_not_changed_is_not_announced_again() {
    let mut bench = bench();
    bench.bind_at(C, ALICE, PHONE, 7, login(0), true);
    bench.bind_at(C, BOB, PHONE, 8, login(1), true);
    bench.bind_at(D, BOB, WEB, 9, login(2), true);
    assert!(!bench.down(C).iter().any(is_of_bridge), "it may come back");
    assert_eq!((bench.online(ALICE), bench.online(BOB)), (vec![], vec![(WEB, D)]));
    assert_eq!(bench.router.metrics().away, 2);

    bench.now += AWAY - Duration::from_secs(1);
    bench.router.timeout(bench.now);
    let said = bench.up(C);
    assert_eq!(digests(&said, C), Some(digests_of(&[(ALICE, 7, login(0)), (BOB, 8, login(1))])));
    assert_eq!(bench.online(ALICE), [], "until it says that she is still there");
    assert_eq!(unchanged(&mut bench, C, &[ALICE, BOB], false), []);
    assert_eq!((bench.online(ALICE), bench.online(BOB)), (vec![(PHONE, C)], vec![(PHONE, C), (WEB, D)]));
    assert_eq!(bench.view(C, 1, true), []);
    let metrics = bench.router.metrics();
    assert_eq!((metrics.unchanged, metrics.announced, metrics.away), (2, 0, 0));

    bench.now += AWAY;
    bench.router.timeout(bench.now);
    assert_eq!(bench.taken(), []);
    assert_eq!(bench.online(ALICE), [(PHONE, C)]);
    let mail = bench.submit(D, 9, to_user(ALICE, "m"));
    assert_eq!(deliveries(mail).len(), 1);
}

#[test]
fn what_differs_is_announced_and_the_rest_has_ended() {
    let mut bench = bench();
    let users: Vec<UserId> = (1..=200).map(UserId).collect();
    for (session, user) in users.iter().enumerate() {
        bench.bind_at(C, *user, PHONE, session as u64, login(0), true);
    }
    bench.down(C);
    bench.up(C);
    // The first has ended meanwhile, a stranger came, and all of their ranges are announced.
    let (ended, fresh) = (users[0], UserId(1_000));
    let is_same =
        |user: &&UserId| ![ended, fresh].map(|user| range_of(APP, user)).contains(&range_of(APP, **user));
    let same: Vec<UserId> = users.iter().filter(is_same).copied().collect();
    assert!((180..200).contains(&same.len()), "{}", same.len());
    assert!(unchanged(&mut bench, C, &same, false).is_empty());
    assert_eq!(bench.online(ended), []);
    for user in users[1..].iter().filter(|user| !same.contains(user)) {
        let session = user.0 as u64 - 1;
        let said = bench.bind_at(C, *user, PHONE, session, Login(login(0).0 + 1), false);
        assert_eq!(said[1], bound(C, session, Login(login(0).0 + 1)));
    }
    bench.bind_at(C, fresh, PHONE, 1_000, login(5), false);
    let said = bench.view(C, 1, true);
    assert_eq!(said, [offline(ended, PHONE, login(0))]);
    assert_eq!(bench.online(ended), []);
    assert!(users[1..].iter().chain([&fresh]).all(|user| bench.online(*user) == [(PHONE, C)]));
    assert_eq!(bench.router.metrics().away, 0);
}

#[test]
fn a_shard_that_does_not_come_back_takes_its_sessions_with_it() {
    let mut bench = bench();
    bench.bind_at(C, ALICE, PHONE, 7, login(0), true);
    bench.down(C);
    bench.now += AWAY;
    assert_eq!(bench.router.poll_timeout(), Some(bench.now));
    bench.router.timeout(bench.now);
    assert_eq!(bench.taken(), [offline(ALICE, PHONE, login(0))]);
    assert_eq!(digests(&bench.up(C), C), None, "nothing is known of it any more");
    assert_eq!(unchanged(&mut bench, C, &[ALICE], false), []);
    assert_eq!(bench.online(ALICE), []);
}

#[test]
fn another_life_of_a_shard_has_other_sessions() {
    let mut bench = bench();
    bench.bind_at(C, ALICE, PHONE, 7, login(0), true);
    bench.down(C);
    bench.router.gateway_up(bench.now, C, 1, false, incarnation(C) + 1);
    let said = bench.taken();
    assert!(said.contains(&offline(ALICE, PHONE, login(0))) && digests(&said, C).is_none(), "{said:?}");
}

#[test]
fn a_message_to_somebody_who_is_away_waits_or_fails_and_is_given_to_who_is_back() {
    let mut bench = bench();
    bench.bind_at(C, ALICE, PHONE, 7, login(0), true);
    bench.bind_at(D, BOB, WEB, 9, login(0), true);
    bench.down(C);
    let failed = bench.submit(D, 9, to_user(ALICE, "early"));
    let outcome = Outcome::Failed(FailReason::Offline);
    assert_eq!(failed[1], send_ack(D, 9, "early", bench.last_id, bench.last_id, outcome));
    // Once the shard is back, there is no agreement until it has said what it has.
    bench.up(C);
    assert_eq!(bench.submit(D, 9, to_user(ALICE, "late")).len(), 0);
    let (_, message) = delivery(unchanged(&mut bench, C, &[ALICE], false));
    assert_eq!(message.client_msg_id.as_str(), "late");
}

/// Her sender hears `delivered` of the phone's ack, so the browser that comes back gets it too.
#[test]
fn a_device_that_is_back_gets_what_the_others_were_given() {
    let mut bench = bench();
    bench.bind_at(C, ALICE, WEB, 7, login(0), true);
    bench.bind_at(D, ALICE, PHONE, 8, login(0), true);
    bench.bind_at(D, BOB, WEB, 9, login(0), true);
    bench.down(C);
    bench.up(C);
    let (_, message) = delivery(bench.submit(D, 9, to_user(ALICE, "m")));
    let given = deliveries(unchanged(&mut bench, C, &[ALICE], false));
    assert_eq!(given.len(), 1, "{given:?}");
    assert_eq!((given[0].to, given[0].session, &given[0].message), (C, 7, &message));
}

/// It got nothing while its shard was away: a later message would come before those of that time, if these
/// came by another owner. What is kept for it goes when its shard does not come back.
#[test]
fn a_device_that_was_away_gets_what_the_others_were_given_meanwhile() {
    let mut bench = bench();
    bench.bind_at(C, ALICE, WEB, 7, login(0), true);
    bench.bind_at(D, ALICE, PHONE, 8, login(0), true);
    bench.bind_at(D, BOB, WEB, 9, login(0), true);
    bench.down(C);
    let (delivery_of_phone, message) = delivery(bench.submit(D, 9, to_user(ALICE, "m")));
    bench.settle(D, 8, delivery_of_phone, Outcome::Failed(FailReason::Disconnected));
    let (_, second) = delivery(bench.submit(D, 9, to_user(ALICE, "n")));
    assert_ne!(message.id, second.id);
    bench.up(C);
    let given = deliveries(unchanged(&mut bench, C, &[ALICE], false));
    assert_eq!(given.len(), 1, "what was handed over is not given: {given:?}");
    assert_eq!((given[0].to, given[0].session, &given[0].message), (C, 7, &second));

    bench.view(C, 1, true);
    bench.down(C);
    bench.submit(D, 9, to_user(ALICE, "o"));
    bench.now += AWAY;
    bench.router.timeout(bench.now);
    assert_eq!((bench.router.metrics().away, bench.router.metrics().unsettled), (0, 0));
    bench.router.check_invariants(); // nothing is kept any more
}

/// Its sender's shard goes by another owner, which gives it to all devices behind what the sender said
/// before. Here it would come first. If the shard comes back with it, it is as before.
#[test]
fn a_device_that_is_back_does_not_get_what_was_withdrawn() {
    let mut bench = bench();
    bench.bind_at(C, ALICE, WEB, 7, login(0), true);
    bench.bind_at(D, ALICE, PHONE, 8, login(0), true);
    bench.bind_at(D, BOB, WEB, 9, login(0), true);
    bench.down(C);
    delivery(bench.submit(D, 9, to_user(ALICE, "m")));
    let (target, first) = (Target::User(ALICE), bench.last_id);
    delivery(bench.submit(D, 9, to_user(ALICE, "n")));
    for id in [first, bench.last_id] {
        bench.tell(D, ToRouter::Withdraw { app: APP, target, id });
    }
    bench.submit(D, 9, to_user(ALICE, "n"));
    bench.up(C);
    let given = deliveries(unchanged(&mut bench, C, &[ALICE], false));
    let names: Vec<&str> = given.iter().map(|given| given.message.client_msg_id.as_str()).collect();
    assert_eq!(names, ["n"]);
}

/// One without a name is no repeat, so it may wait here twice: submitted again, and held back when the link
/// was lost by which it had left.
#[test]
fn what_waits_twice_is_withdrawn_at_once() {
    let mut bench = bench();
    bench.bind_at(C, ALICE, PHONE, 7, login(0), true);
    bench.bind_at(D, BOB, WEB, 9, login(0), true);
    bench.down(C);
    bench.up(C);
    assert_eq!(bench.submit(D, 9, to_user(ALICE, "")), []);
    let id = bench.last_id;
    let again = Submission { id, again: true, ..to_user(ALICE, "") };
    assert_eq!(bench.submit_as(D, 9, again), []);
    bench.tell(D, ToRouter::Withdraw { app: APP, target: Target::User(ALICE), id });
    assert_eq!(deliveries(unchanged(&mut bench, C, &[ALICE], false)), []);
}

/// What others told of sessions that were theirs meanwhile is below.
#[test]
fn sessions_that_were_known_elsewhere_are_told_online_above() {
    let mut bench = bench();
    bench.bind_at(C, ALICE, PHONE, 7, login(0), true);
    bench.down(C);
    bench.up(C);
    let raised = login(0).raised();
    assert_eq!(unchanged(&mut bench, C, &[ALICE], true), [online(ALICE, PHONE, raised)]);
    assert!(raised > Login(login(0).0 + 1));
    bench.down(C);
    let again = bench.up(C);
    assert_eq!(digests(&again, C), Some(digests_of(&[(ALICE, 7, raised)])));
}

#[test]
fn a_session_that_ended_while_its_shard_was_away_is_told_once() {
    let mut bench = bench();
    bench.bind_at(C, ALICE, PHONE, 7, login(0), true);
    bench.bind_at(C, BOB, PHONE, 8, login(0), true);
    bench.down(C);
    bench.up(C);
    // Its shard has told the bridge, as it knew no router then.
    let ended = ToRouter::Ended { app: APP, user: ALICE, device: PHONE, login: login(0) };
    assert_eq!(bench.tell(C, ended), []);
    assert_eq!(unchanged(&mut bench, C, &[ALICE, BOB], false), []);
    assert_eq!(bench.view(C, 1, true), []);
    assert_eq!((bench.online(ALICE), bench.online(BOB)), (vec![], vec![(PHONE, C)]));
}

#[test]
fn a_newer_session_elsewhere_takes_the_place_of_one_that_is_away() {
    let mut bench = bench();
    bench.bind_at(C, ALICE, PHONE, 7, login(0), true);
    bench.down(C);
    bench.bind_at(D, ALICE, PHONE, 8, login(5), true);
    assert_eq!(bench.online(ALICE), [(PHONE, D)]);
    let said = bench.up(C);
    assert_eq!(digests(&said, C), Some(Digests::default()), "it has no session here");
    let kicked = bench.bind_at(C, ALICE, PHONE, 7, Login(login(0).0 + 1), false);
    assert_eq!(kicked, [common::kicked(C, 7, wire::client::NoticeCode::Kicked)]);
}

/// What is announced before the shard has said what is unchanged counts, and does not bring back the others.
#[test]
fn a_bind_before_the_answer_is_of_that_session_alone() {
    let mut bench = bench();
    bench.bind_at(C, ALICE, PHONE, 7, login(0), true);
    bench.down(C);
    bench.up(C);
    bench.bind_at(C, BOB, PHONE, 8, login(1), true);
    assert_eq!((bench.online(ALICE), bench.online(BOB)), (vec![], vec![(PHONE, C)]));
    unchanged(&mut bench, C, &[ALICE], false);
    assert_eq!((bench.online(ALICE), bench.online(BOB)), (vec![(PHONE, C)], vec![(PHONE, C)]));
}

#[test]
fn those_that_are_away_make_room_for_those_that_come() {
    let mut bench = Bench::without_gateways(|config| {
        config.limits = Limits { bindings_max: 2, ..Limits::default() };
    });
    [C, D].into_iter().for_each(|shard| drop(bench.up(shard)));
    bench.bind_at(C, ALICE, PHONE, 7, login(0), true);
    bench.bind_at(C, BOB, PHONE, 8, login(0), true);
    bench.down(C);
    let said = bench.bind_at(D, UserId(3), DeviceClass::Web, 9, login(1), true);
    let ended = [offline(ALICE, PHONE, login(0)), offline(BOB, PHONE, login(0))];
    assert!(ended.iter().all(|end| said.contains(end)), "{said:?}");
    assert_eq!(bench.online(UserId(3)), [(WEB, D)]);
}
