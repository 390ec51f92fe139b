//! Where a user is: bind, kick, unbind, online and offline.

mod common;

use common::*;
use wire::client::NoticeCode;
use wire::node::{Login, SessionId, ToRouter};
use wire::{AppId, DeviceClass, UserId};

#[test]
fn the_first_binding_of_a_device_is_online() {
    let mut bench = Bench::new();
    assert_eq!(bench.bind(A, ALICE, PHONE, 1), [online(ALICE, PHONE, login(0)), bound(A, 1, login(0))]);
    assert_eq!(bench.bind(B, ALICE, WEB, 1), [online(ALICE, WEB, login(0)), bound(B, 1, login(0))]);
    assert_eq!(bench.online(ALICE), [(PHONE, A), (WEB, B)]);
    assert_eq!(bench.online(BOB), []);
    let metrics = bench.router.metrics();
    assert_eq!((metrics.users, metrics.bindings, metrics.binds), (1, 2, 2));
}

#[test]
fn a_newer_session_kicks_the_older_wherever_it_is() {
    let mut bench = Bench::new();
    bench.bind(A, ALICE, PHONE, 1);
    let told = |stamp| online(ALICE, PHONE, stamp);
    let said = bench.bind(A, ALICE, PHONE, 2);
    assert_eq!(said, [kicked(A, 1, NoticeCode::Kicked), told(login(RAISE)), bound(A, 2, login(RAISE))]);
    let third = login(2 * RAISE);
    let said = bench.bind_at(C, ALICE, PHONE, 9, third, true);
    assert_eq!(said, [kicked(A, 2, NoticeCode::Kicked), told(third), bound(C, 9, third)]);
    assert_eq!(bench.online(ALICE), [(PHONE, C)]);
    assert_eq!(bench.router.metrics().kicks, 2);
}

/// Sessions of different shards may have the same number.
#[test]
fn the_same_number_on_another_shard_is_another_session() {
    let mut bench = Bench::new();
    bench.bind(A, ALICE, PHONE, 1);
    let (raised, said) = (login(RAISE), bench.bind(B, ALICE, PHONE, 1));
    assert_eq!(said, [kicked(A, 1, NoticeCode::Kicked), online(ALICE, PHONE, raised), bound(B, 1, raised)]);
    assert_eq!(bench.unbind(A, ALICE, PHONE, 1), []);
    assert_eq!(bench.online(ALICE), [(PHONE, B)]);
}

#[test]
fn to_bind_again_changes_nothing_and_is_answered() {
    let mut bench = Bench::new();
    bench.bind(A, ALICE, PHONE, 1);
    assert_eq!(bench.bind(A, ALICE, PHONE, 1), [bound(A, 1, login(0))]);
    assert_eq!(bench.router.metrics().bindings, 1);
}

/// The close of an old connection must not remove the binding of the one that replaced it.
#[test]
fn the_close_of_a_replaced_session_removes_nothing() {
    let mut bench = Bench::new();
    bench.bind(A, ALICE, PHONE, 1);
    bench.bind(A, ALICE, PHONE, 2);
    assert_eq!(bench.unbind(A, ALICE, PHONE, 1), []);
    assert_eq!(bench.online(ALICE), [(PHONE, A)]);
    assert_eq!(bench.unbind(A, ALICE, PHONE, 2), [offline(ALICE, PHONE, login(RAISE))]);
    assert_eq!(bench.online(ALICE), []);
    let metrics = bench.router.metrics();
    assert_eq!((metrics.unbinds, metrics.unbinds_stale, metrics.users), (1, 1, 0));
}

#[test]
fn an_unbind_of_nobody_is_stale() {
    let mut bench = Bench::new();
    assert_eq!(bench.unbind(A, ALICE, PHONE, 1), []);
    bench.bind(A, ALICE, PHONE, 1);
    assert_eq!(bench.unbind(A, ALICE, WEB, 1), []);
    assert_eq!(bench.online(ALICE), [(PHONE, A)]);
}

#[test]
fn devices_go_in_any_order() {
    for last in DeviceClass::ALL {
        let mut bench = Bench::new();
        for device in DeviceClass::ALL {
            bench.bind(A, ALICE, device, device as u64);
        }
        let others = || DeviceClass::ALL.into_iter().filter(|&device| device != last);
        for device in others() {
            assert_eq!(bench.unbind(A, ALICE, device, device as u64), [offline(ALICE, device, login(0))]);
        }
        assert_eq!(bench.online(ALICE), [(last, A)]);
        for device in others() {
            bench.bind(B, ALICE, device, device as u64);
        }
        assert_eq!(bench.online(ALICE).len(), DeviceClass::ALL.len());
    }
}

#[test]
fn apps_do_not_meet() {
    let mut bench = Bench::new();
    bench.bind(A, ALICE, PHONE, 1);
    let (session, login) = (SessionId(2), login(7));
    let other = ToRouter::Bind { app: AppId(2), user: ALICE, device: PHONE, session, login, fresh: true };
    assert_eq!(bench.tell(A, other)[1], bound(A, 2, login));
    assert_eq!(bench.online(ALICE), [(PHONE, A)]);
    assert_eq!(bench.router.metrics().users, 2);
}

#[test]
fn past_the_limit_a_session_is_told_that_the_server_is_full() {
    let mut bench = Bench::with(|config| config.limits.bindings_max = 2);
    bench.bind(A, ALICE, PHONE, 1);
    bench.bind(A, BOB, PHONE, 2);
    assert_eq!(bench.bind(A, ALICE, WEB, 3), [kicked(A, 3, NoticeCode::ServerFull)]);
    assert_eq!(bench.bind(A, UserId(3), WEB, 4), [kicked(A, 4, NoticeCode::ServerFull)]);
    let (raised, said) = (login(RAISE), bench.bind(A, BOB, PHONE, 5));
    assert_eq!(said, [kicked(A, 2, NoticeCode::Kicked), online(BOB, PHONE, raised), bound(A, 5, raised)]);
    assert_eq!(bench.unbind(A, ALICE, WEB, 3), [], "it was never bound");
    bench.unbind(A, ALICE, PHONE, 1);
    assert_eq!(bench.bind(A, ALICE, WEB, 6), [online(ALICE, WEB, login(0)), bound(A, 6, login(0))]);
    assert_eq!(bench.router.metrics().refused, 2);
}

#[test]
fn many_users_come_and_go() {
    let mut bench = Bench::new();
    let users = 5_000;
    let tell = |bench: &mut Bench, mail| {
        bench.tell_unchecked(A, mail);
    };
    for user in 0..users {
        tell(
            &mut bench,
            ToRouter::Bind {
                app: APP,
                user: UserId(user),
                device: PHONE,
                session: SessionId(1),
                login: Login(1),
                fresh: true,
            },
        );
    }
    bench.router.check_invariants();
    for user in (0..users).rev().step_by(2) {
        tell(
            &mut bench,
            ToRouter::Unbind {
                app: APP,
                user: UserId(user),
                device: PHONE,
                session: SessionId(1),
                moved: false,
            },
        );
    }
    bench.router.check_invariants();
    for user in 0..users {
        assert_eq!(bench.online(UserId(user)).len(), usize::from(user % 2 == 0));
    }
    assert_eq!(bench.router.metrics().users, users as u64 / 2);
}
