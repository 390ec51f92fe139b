//! Sessions that move between owners: which of two is the newer, and what bridge and directory hear of it.

mod common;

use std::time::Duration;

use common::*;
use wire::client::NoticeCode;
use wire::node::{FoundSeat, Login, SessionId, ToDirectory, ToGateway, ToRouter};
use wire::{DeviceClass, UserId};

fn kick(shard: shard::ShardId, session: u64) -> (shard::ShardId, Said) {
    kicked(shard, session, NoticeCode::Kicked)
}

fn record(shard: shard::ShardId, session: u64, device: DeviceClass, login: Login) -> FoundSeat {
    let seat = wire::node::Seat { device, shard: shard.as_u32(), login };
    FoundSeat { seat, session: SessionId(session), incarnation: incarnation(shard) }
}

#[test]
fn a_login_beats_whatever_is_bound_though_its_clock_is_behind() {
    let mut bench = Bench::new();
    let ahead = login(1_000_000_000);
    bench.announce(A, ALICE, PHONE, 1, ahead);
    let ask_again = ToGateway::AskAgain { session: SessionId(2), above: ahead };
    assert_eq!(bench.bind(B, ALICE, PHONE, 2), [(B, Said::ToGateway(ask_again))], "it may have come late");
    assert_eq!(bench.online(ALICE), [(PHONE, A)]);
    let raised = Login(ahead.0 + RAISE);
    assert_eq!(
        bench.bind_at(B, ALICE, PHONE, 2, ahead.raised(), true),
        [kick(A, 1), online(ALICE, PHONE, raised), bound(B, 2, raised)]
    );
    assert_eq!(bench.unbind(B, ALICE, PHONE, 2), [offline(ALICE, PHONE, raised)]);
}

#[test]
fn an_announced_session_that_is_older_is_kicked() {
    let mut bench = Bench::new();
    bench.bind(A, ALICE, PHONE, 1);
    let older = Login(login(0).0 - 1);
    assert_eq!(bench.announce(B, ALICE, PHONE, 2, older), [kick(B, 2)]);
    assert_eq!(bench.online(ALICE), [(PHONE, A)]);
    assert_eq!(bench.unbind(B, ALICE, PHONE, 2), [], "it was never bound here");
    assert_eq!(bench.router.metrics().announced, 0);
}

#[test]
fn an_announced_session_that_is_newer_kicks() {
    let mut bench = Bench::new();
    bench.bind(A, ALICE, PHONE, 1);
    let newer = login(9 * RAISE);
    assert_eq!(
        bench.announce(B, ALICE, PHONE, 2, newer),
        [kick(A, 1), online(ALICE, PHONE, newer), bound(B, 2, newer)]
    );
    assert_eq!(bench.online(ALICE), [(PHONE, B)]);
    let metrics = bench.router.metrics();
    assert_eq!((metrics.binds, metrics.announced, metrics.kicks), (1, 1, 1));
}

/// Its gateway does not know yet that it is kicked, and raises its stamp with each owner.
#[test]
fn an_older_session_does_not_catch_up_by_being_announced() {
    let mut bench = Bench::new();
    bench.bind(A, ALICE, PHONE, 1);
    let newer = login(RAISE);
    let said = bench.bind(B, ALICE, PHONE, 2);
    assert_eq!(said, [kick(A, 1), online(ALICE, PHONE, newer), bound(B, 2, newer)], "in the same ns");
    let mut next_owner = Bench::new();
    next_owner.announce(B, ALICE, PHONE, 2, Login(newer.0 + 1));
    assert_eq!(next_owner.announce(A, ALICE, PHONE, 1, login(50)), [kick(A, 1)]);
    let mut other_order = Bench::new();
    other_order.announce(A, ALICE, PHONE, 1, login(50));
    let said = other_order.announce(B, ALICE, PHONE, 2, Login(newer.0 + 1));
    assert_eq!(said[0], kick(A, 1));
    assert_eq!(other_order.online(ALICE), [(PHONE, B)]);
}

#[test]
fn a_session_that_is_known_raises_its_stamp_and_never_lowers_it() {
    let mut bench = Bench::new();
    bench.bind(A, ALICE, PHONE, 1);
    assert_eq!(bench.announce(A, ALICE, PHONE, 1, login(9)), [bound(A, 1, login(9))]);
    assert_eq!(bench.announce(A, ALICE, PHONE, 1, login(4)), [bound(A, 1, login(9))]);
    assert_eq!(bench.unbind(A, ALICE, PHONE, 1), [offline(ALICE, PHONE, login(9))]);
}

#[test]
fn a_session_that_moves_is_not_told_offline_here_but_online_there() {
    let (mut before, mut after) = (Bench::new(), Bench::new());
    before.bind(A, ALICE, PHONE, 1);
    before.directory.clear();
    assert_eq!(before.move_away(A, ALICE, PHONE, 1), []);
    assert_eq!((before.online(ALICE), &before.directory[..]), (vec![], &[][..]));
    let said = after.announce(A, ALICE, PHONE, 1, login(1));
    assert_eq!(said, [online(ALICE, PHONE, login(1)), bound(A, 1, login(1))]);
    assert_eq!((after.router.metrics().binds, after.router.metrics().announced), (0, 1));
}

/// The owner before says nothing, and so nobody else would.
#[test]
fn a_session_that_moves_to_a_full_owner_is_told_offline() {
    let mut bench = Bench::with(|config| config.limits.bindings_max = 1);
    bench.bind(A, BOB, PHONE, 1);
    let said = bench.announce(A, ALICE, PHONE, 2, login(5));
    assert_eq!(said, [kicked(A, 2, NoticeCode::ServerFull), offline(ALICE, PHONE, login(5))]);
    assert_eq!(bench.bind(A, ALICE, PHONE, 3), [kicked(A, 3, NoticeCode::ServerFull)], "was never online");
}

#[test]
fn the_directory_is_told_of_every_binding_and_its_end() {
    let mut bench = Bench::new();
    bench.bind(A, ALICE, PHONE, 1);
    bench.announce(C, ALICE, WEB, 2, login(3));
    bench.bind(C, ALICE, PHONE, 4);
    bench.unbind(C, ALICE, WEB, 2);
    bench.unbind(A, ALICE, PHONE, 1);
    let bind = |seat| ToDirectory::Bind { app: APP, user: ALICE, seat };
    let last = record(C, 4, PHONE, login(RAISE));
    assert_eq!(
        bench.directory,
        [
            bind(record(A, 1, PHONE, login(0))),
            bind(record(C, 2, WEB, login(3))),
            bind(last),
            ToDirectory::Unbind { app: APP, user: ALICE, device: WEB, login: login(3) },
        ]
    );
    bench.directory.clear();
    bench.router.tell_directory_all(bench.now);
    assert_eq!(bench.pass(Duration::from_millis(100)), []);
    assert_eq!(bench.directory, [bind(last)]);
}

#[test]
fn many_users_are_told_to_the_directory_again_step_by_step() {
    let mut bench = Bench::new();
    (0..2000).for_each(|user| drop(bench.bind(A, UserId(user), PHONE, user as u64)));
    bench.directory.clear();
    bench.router.tell_directory_all(bench.now);
    bench.pass(Duration::ZERO);
    assert!((1..1000).contains(&bench.directory.len()), "not all at once");
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.directory.len(), 2000);
    assert!((0..2000).all(|user| bench.directory.iter().any(|record| is_of(record, UserId(user)))));
}

fn is_of(record: &ToDirectory, wanted: UserId) -> bool {
    matches!(record, ToDirectory::Bind { user, .. } if *user == wanted)
}

/// A gateway with a fast clock has given a stamp that the next login has to exceed, wherever it comes.
#[test]
fn a_clock_that_is_ahead_is_told_on() {
    let mut bench = Bench::new();
    let reach = |clock| ToRouter::Reach { routers: vec![1], clock };
    let heard = |said: &Mail| -> Vec<(shard::ShardId, Login)> {
        let clock = |(to, mail): &(shard::ShardId, Said)| match mail {
            Said::ToGateway(ToGateway::Common { clock, .. }) => Some((*to, *clock)),
            _ => None,
        };
        said.iter().filter_map(clock).collect()
    };
    let start = login(0);
    assert_eq!(heard(&bench.tell(A, reach(start)))[0], (A, start));
    let ahead = Login(start.0 + 3_600_000_000_000);
    assert_eq!(heard(&bench.tell(B, reach(ahead))), [A, B, C].map(|shard| (shard, ahead)));
    assert_eq!(heard(&bench.tell(A, reach(start))), [(A, ahead)]);
}

const HOUR_NS: u64 = 3_600_000_000_000;

fn hear_clock(bench: &mut Bench, shard: shard::ShardId, clock: Login) -> Mail {
    bench.tell(shard, ToRouter::Reach { routers: vec![1], clock })
}

/// The router and A are an hour behind when BOB logs in there, newer than his session at C, which comes back
/// with the right time.
#[test]
fn a_login_by_a_clock_that_was_behind_is_newer_all_the_same() {
    let mut bench = Bench::new();
    let slow = |later| Login(login(later).0 - HOUR_NS);
    bench.now = shard::Instant::from_unix_nanos(slow(8_000_000_000).0);
    hear_clock(&mut bench, A, slow(8_000_000_000));
    bench.bind(A, BOB, PHONE, 1);
    hear_clock(&mut bench, C, login(8_000_000_000));
    let right = login(8_000_000_000);
    let said = bench.announce(C, BOB, PHONE, 9, login(5_000_000_000));
    assert_eq!(said, [kick(C, 9), online(BOB, PHONE, right), bound(A, 1, right)]);
    assert_eq!(bench.unbind(A, BOB, PHONE, 1), [offline(BOB, PHONE, right)]);
}

#[test]
fn logins_are_stamped_again_when_a_faster_clock_is_heard() {
    let mut bench = Bench::new();
    hear_clock(&mut bench, A, login(0));
    (0..2000).for_each(|user| drop(bench.bind(A, UserId(user), PHONE, user as u64)));
    bench.announce(B, ALICE, WEB, 5, login(0));
    let said = hear_clock(&mut bench, C, login(HOUR_NS));
    assert!(said.iter().all(|(to, _)| *to != BRIDGE), "not in this turn: {said:?}");
    let said = bench.pass(Duration::from_secs(1));
    assert_eq!(said.len(), 4000, "each login, and nothing that was announced");
    assert!((0..2000).all(|user| said.contains(&online(UserId(user), PHONE, login(HOUR_NS)))));
    assert!((0..2000).all(|user| said.contains(&bound(A, user as u64, login(HOUR_NS)))));
    let said = hear_clock(&mut bench, C, login(HOUR_NS + 2_000_000_000));
    assert_eq!(said.len(), 3, "the other clock gained a second: {said:?}");
    let said = bench.pass(Duration::from_secs(1));
    assert!(said.contains(&bound(A, 7, login(HOUR_NS + 1_000_000_000))), "{:?}", said.first());
}

/// A session's gateway loses its link. Meanwhile another session of the user comes and goes elsewhere, under
/// a higher stamp. When the link is back, the first is announced again: of what the bridge is told the
/// highest stamp counts.
#[test]
fn a_session_that_was_out_of_sight_is_above_what_ended_meanwhile() {
    let mut bench = Bench::new();
    bench.bind(A, BOB, PHONE, 1);
    bench.down(A);
    bench.pass(Duration::from_secs(5));
    bench.bind(C, BOB, PHONE, 7);
    let ended = login(5_000_000_000);
    assert_eq!(bench.unbind(C, BOB, PHONE, 7), [offline(BOB, PHONE, ended)]);
    bench.up(A);
    let back = ended.raised();
    assert_eq!(bench.announce(A, BOB, PHONE, 1, login(1)), [online(BOB, PHONE, back), bound(A, 1, back)]);
    let next = bench.bind_at(B, BOB, PHONE, 2, back.raised(), true);
    assert!(next.contains(&kick(A, 1)), "{next:?}");
}

/// An owner bound a newer session, and its gateways lost it before the older one was kicked. So it told the
/// newer one's end, and the older one gets a stamp above that if it is announced first.
#[test]
fn a_session_above_the_end_of_a_newer_one_gives_way_when_that_lives() {
    let ended = |login| ToRouter::Ended { app: APP, user: BOB, device: PHONE, login };
    for (newer, is_first) in [(login(51), false), (login(51), true), (login(0), false)] {
        let mut bench = Bench::new();
        bench.tell(C, ended(login(50)));
        if is_first {
            bench.announce(B, BOB, PHONE, 2, newer);
        }
        let said = bench.announce(A, BOB, PHONE, 1, login(1));
        assert_eq!(said.contains(&kick(A, 1)), is_first, "{said:?}");
        if !is_first {
            let said = bench.announce(B, BOB, PHONE, 2, newer);
            let kicked = if newer > login(1) { kick(A, 1) } else { kick(B, 2) };
            assert!(said.contains(&kicked), "{said:?}");
        }
        bench.router.check_invariants();
        // A session that gave way does not come back by being announced once more.
        let (shard, session, stamp) = if newer > login(1) { (A, 1, login(2)) } else { (B, 2, login(1)) };
        assert_eq!(bench.announce(shard, BOB, PHONE, session, stamp), [kick(shard, session)]);
    }
}

/// Another owner, or a gateway that had none, told of the end.
#[test]
fn an_end_that_others_told_of_is_told_to_the_next_owner() {
    let mut bench = Bench::new();
    let ended = |login| ToRouter::Ended { app: APP, user: BOB, device: PHONE, login };
    assert_eq!(bench.tell(C, ended(login(50))), []);
    let above = login(50).raised();
    assert_eq!(bench.announce(A, BOB, PHONE, 1, login(1)), [online(BOB, PHONE, above), bound(A, 1, above)]);
    assert_eq!(bench.tell(C, ended(login(50))), [], "it is above that already");
    let above = login(600).raised();
    let raised = [online(BOB, PHONE, above), bound(A, 1, above)];
    assert_eq!(bench.tell(C, ended(login(600))), raised);
}

/// The bridge was not told of some: of all that is known it is told again.
#[test]
fn the_bridge_is_told_again_where_everybody_is() {
    let mut bench = Bench::new();
    (0..1500).for_each(|user| drop(bench.bind(A, UserId(user), PHONE, user as u64)));
    (0..700).for_each(|user| drop(bench.unbind(A, UserId(user), PHONE, user as u64)));
    assert!(!bench.router.retell(100), "nobody asked");
    bench.router.begin_retelling();
    let (mut said, mut most) = (Mail::new(), 0);
    while bench.router.retell(100) {
        let some = bench.taken();
        most = most.max(some.len());
        said.extend(some);
    }
    assert!(most <= 100, "{most} at once");
    assert_eq!(said.len(), 1500);
    assert!((0..700).all(|user| said.contains(&offline(UserId(user), PHONE, login(0)))));
    assert!((700..1500).all(|user| said.contains(&online(UserId(user), PHONE, login(0)))));
}

/// Else nobody could log in above it, and the bridge would take its user for online for ever.
#[test]
fn a_stamp_that_no_clock_gives_is_believed_by_a_day() {
    const DAY_NS: u64 = 24 * 60 * 60 * 1_000_000_000;
    let mut bench = Bench::new();
    let (most, raised) = (login(DAY_NS), login(DAY_NS + RAISE));
    let said = bench.announce(A, ALICE, PHONE, 1, Login(u64::MAX));
    assert_eq!(said, [online(ALICE, PHONE, most), bound(A, 1, most)]);
    bench.pass(Duration::from_micros(1));
    let said = bench.bind_at(B, ALICE, PHONE, 2, most.raised(), true);
    assert_eq!(said, [kick(A, 1), online(ALICE, PHONE, raised), bound(B, 2, raised)]);
}
