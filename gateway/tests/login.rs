//! Login, logout, kick: who a connection is, and for how long.

mod common;

use std::time::Duration;

use common::{APP, SECRET, World};
use gateway::{Claims, TokenKeys, mint_hs256};
use shard::{Clocks, Event};
use wire::client::{ClientFrame, Encoding, NoticeCode, ServerFrame};
use wire::node::{Login, ToBridge, ToGateway, ToRouter};
use wire::{DeviceClass, RoomId, UserId};

#[test]
fn a_login_binds_the_tokens_user_and_is_answered_when_bound() {
    let mut world = World::new();
    world.router_answers = false;
    let client = world.connect();
    let token = world.token(10_001, DeviceClass::Web);
    world.say(client, ClientFrame::Login { token: token.into() });
    let session = world.session(client);
    let (user, device, login) = (UserId(10_001), DeviceClass::Web, Login(world.now.unix_nanos()));
    assert_eq!(
        world.to_router.pop_front(),
        Some(ToRouter::Bind { app: APP, user, device, session, login, fresh: true })
    );
    assert_eq!(world.hear(client), [], "not reachable yet, so not answered yet");
    world.tell(ToGateway::Bound { session, login: Login(1) });
    assert_eq!(world.hear(client), [ServerFrame::LoggedIn { heartbeat_ms: 30_000 }]);
    assert_eq!(world.metrics().logins, 1);
}

#[test]
fn a_login_works_in_every_encoding() {
    for encoding in [Encoding::Binary, Encoding::Json, Encoding::JsonOld] {
        World::new().login_as(5, DeviceClass::Phone, encoding);
    }
}

#[test]
fn a_bad_token_ends_the_connection_with_its_notice() {
    let mut world = World::new();
    let now = world.now.unix_secs();
    let claims = Claims { app: APP, user: UserId(1), device: DeviceClass::Phone, exp: now };
    for (token, code) in [
        (mint_hs256(SECRET, &claims), NoticeCode::TokenExpired),
        (mint_hs256(b"forger", &Claims { exp: now + 9, ..claims }), NoticeCode::TokenInvalid),
        ("no.token".into(), NoticeCode::TokenInvalid),
        (String::new(), NoticeCode::TokenInvalid),
    ] {
        let client = world.connect();
        world.say(client, ClientFrame::Login { token: token.into() });
        assert_eq!(world.closing_notice(client), code);
    }
    assert!(world.to_router.is_empty(), "nobody else hears of it");
}

/// A node that started while the clock was wrong, or stood still, is not wrong for good.
#[test]
fn tokens_go_by_the_wall_clock_and_order_does_not() {
    const HOUR_NS: i64 = 3_600_000_000_000;
    let mut world = World::new();
    let first = world.login(1);
    world.send(first, 6001, 2, "m1", "x");
    let before = world.submissions()[0].id;
    let token = |world: &World, hours: i64| {
        let exp = world.now.unix_secs().saturating_add_signed(hours * 3_600 + 1_800);
        let (user, device) = (UserId(3), DeviceClass::Web);
        mint_hs256(SECRET, &Claims { app: APP, user, device, exp })
    };
    let try_login = |world: &mut World, hours: i64| {
        let token = token(world, hours);
        let client = world.connect();
        world.say(client, ClientFrame::Login { token: token.into() });
        world.hear(client).pop()
    };
    let expired = |told| matches!(told, Some(ServerFrame::Notice { code: NoticeCode::TokenExpired, .. }));
    let logged_in = |told| matches!(told, Some(ServerFrame::LoggedIn { .. }));
    assert!(logged_in(try_login(&mut world, 0)) && expired(try_login(&mut world, -1)));
    // It started two hours ahead, and the clock was set right.
    let set = |world: &mut World, hours: i64| {
        world.handle(Event::Clocks(Clocks { still: Duration::ZERO, wall_ahead_ns: hours * HOUR_NS }));
    };
    set(&mut world, -2);
    assert!(logged_in(try_login(&mut world, -2)) && expired(try_login(&mut world, -3)));
    set(&mut world, 2);
    assert!(logged_in(try_login(&mut world, 2)) && expired(try_login(&mut world, 1)));
    set(&mut world, -2);
    world.send(first, 6001, 2, "m2", "x");
    assert!(world.submissions()[0].id > before, "ids go on");
    assert!(world.is_open(first), "nobody is judged by the wall clock");
}

/// Other nodes' clocks went on: a login after the pause is newer than those that came meanwhile.
#[test]
fn a_shard_that_stood_still_stamps_as_the_others_do() {
    let mut world = World::new();
    let before = world.login(1);
    world.send(before, 6001, 2, "m1", "x");
    let first = world.submissions()[0].id;
    let still = Duration::from_secs(20);
    world.handle(Event::Clocks(Clocks { still, wall_ahead_ns: still.as_nanos() as i64 }));
    world.to_router.clear();
    world.router_answers = false;
    let client = world.connect();
    let token = world.token(3, DeviceClass::Web);
    world.say(client, ClientFrame::Login { token: token.into() });
    match world.to_router.pop_front() {
        Some(ToRouter::Bind { login, .. }) => {
            assert_eq!(login, Login((world.now + still).unix_nanos()), "by the time that it is elsewhere");
        }
        other => panic!("{other:?}"),
    }
    world.send(before, 6001, 2, "m2", "x");
    let second = world.submissions()[0].id;
    assert!((second.0 >> 23) - (first.0 >> 23) >= 20_000, "ids go on too");
}

#[test]
fn nothing_comes_before_login_and_login_comes_once() {
    let mut world = World::new();
    for frame in [
        ClientFrame::Heartbeat { echo: b"" },
        ClientFrame::Logout,
        ClientFrame::Join { room: RoomId(1), want: None },
        ClientFrame::Leave { room: RoomId(1) },
    ] {
        let client = world.connect();
        world.say(client, frame);
        assert_eq!(world.closing_notice(client), NoticeCode::LoginRequired);
    }
    for (user, device) in [(2, DeviceClass::Phone), (1, DeviceClass::Web)] {
        let client = world.login(1);
        let token = world.token(user, device);
        world.say(client, ClientFrame::Login { token: token.into() });
        assert_eq!(world.closing_notice(client), NoticeCode::AlreadyLoggedIn);
    }
}

/// A token of a session's own user that is good for this long.
fn token_for(world: &World, secs: u64) -> String {
    let exp = world.now.unix_secs() + secs;
    mint_hs256(SECRET, &Claims { app: APP, user: UserId(1), device: DeviceClass::Phone, exp })
}

/// Lets time pass, with a heartbeat every ten seconds.
fn pass_alive(world: &mut World, client: u32, secs: u64) {
    for _ in 0..secs / 10 {
        world.pass(Duration::from_secs(10));
        if world.is_open(client) {
            world.say(client, ClientFrame::Heartbeat { echo: b"" });
        }
    }
}

#[test]
fn a_session_ends_with_its_token_unless_that_is_renewed() {
    for renewals in [0, 1, 2] {
        let mut world = World::new();
        let client = world.connect();
        world.client(client).user = UserId(1);
        let token = token_for(&world, 600);
        world.say(client, ClientFrame::Login { token: token.into() });
        world.hear(client);
        for _ in 0..renewals {
            pass_alive(&mut world, client, 500);
            world.hear(client);
            world.to_router.clear();
            let token = token_for(&world, 600);
            world.say(client, ClientFrame::Login { token: token.into() });
            assert_eq!(world.hear(client), [ServerFrame::LoggedIn { heartbeat_ms: 30_000 }]);
            assert!(world.to_router.is_empty(), "the session is the same");
        }
        pass_alive(&mut world, client, 590);
        assert!(world.is_open(client), "{renewals} renewals");
        world.hear(client);
        pass_alive(&mut world, client, 20);
        assert_eq!(world.closing_notice(client), NoticeCode::TokenExpired);
        assert_eq!((world.metrics().sessions, world.metrics().timers), (0, 0));
    }
}

#[test]
fn a_renewal_with_a_bad_token_ends_the_session_and_a_shorter_one_does_not_shorten_it() {
    let mut world = World::new();
    let client = world.login(1);
    let token = token_for(&world, 60);
    world.say(client, ClientFrame::Login { token: token.into() });
    pass_alive(&mut world, client, 120);
    assert!(world.is_open(client));
    for (token, code) in
        [(token_for(&world, 0), NoticeCode::TokenExpired), ("no.token".into(), NoticeCode::TokenInvalid)]
    {
        let client = world.login(1);
        world.say(client, ClientFrame::Login { token: token.into() });
        assert_eq!(world.closing_notice(client), code);
    }
}

/// Says a token on a session and hears the answer.
fn renewal(world: &mut World, client: u32, token: &str) -> Option<NoticeCode> {
    world.say(client, ClientFrame::Login { token: token.into() });
    match world.hear(client).as_slice() {
        [ServerFrame::LoggedIn { .. }] => None,
        [ServerFrame::Notice { code, .. }] => Some(*code),
        other => panic!("{other:?}"),
    }
}

/// To verify a token takes long, so a renewal counts as many frames.
#[test]
fn a_flood_of_renewals_ends_the_connection() {
    let mut world = World::new();
    let client = world.login(1);
    for renewals in 0.. {
        let token = token_for(&world, 86_401 + renewals);
        if let Some(notice) = renewal(&mut world, client, &token) {
            assert_eq!((renewals, notice), (39, NoticeCode::RateLimited), "of 2,000 frames at once");
            break;
        }
    }
    // Not one that comes every second, among other frames.
    let client = world.login(2);
    for secs in 1..100 {
        world.pass(Duration::from_secs(1));
        for _ in 0..900 {
            world.say(client, ClientFrame::Heartbeat { echo: b"" });
        }
        world.hear(client);
        let exp = world.now.unix_secs() + 86_400 + secs;
        let claims = Claims { app: APP, user: UserId(2), device: DeviceClass::Phone, exp };
        assert_eq!(renewal(&mut world, client, &mint_hs256(SECRET, &claims)), None);
    }
}

/// So it may come with each frame. Only of the connection that showed it, and while the keys are the same.
#[test]
fn the_token_of_a_session_is_not_verified_again() {
    let mut world = World::new();
    let client = world.connect();
    world.client(client).user = UserId(1);
    let [token, other] = [600, 601].map(|secs| token_for(&world, secs));
    for _ in 0..1_000 {
        assert_eq!(renewal(&mut world, client, &token), None, "it counts as one frame");
    }
    assert_eq!(renewal(&mut world, client, &other), None);
    for _ in 0..900 {
        assert_eq!(renewal(&mut world, client, &other), None);
    }
    let stranger = world.login(1);
    assert_eq!(renewal(&mut world, stranger, &other), None);
    world.gateway.set_keys(TokenKeys::hs256(b"another secret"));
    assert_eq!(renewal(&mut world, stranger, &other), Some(NoticeCode::TokenInvalid));
}

#[test]
fn a_logout_is_answered_and_clears_everything() {
    let mut world = World::new();
    let client = world.login(1);
    world.join(client, 7);
    world.hear(client);
    world.to_router.clear();
    let session = world.session(client);
    world.say(client, ClientFrame::Logout);
    assert_eq!(world.hear(client), [ServerFrame::LoggedOut]);
    assert!(world.client(client).closed.is_some());
    let (user, device) = (UserId(1), DeviceClass::Phone);
    assert!(world.to_router.contains(&ToRouter::Unbind { app: APP, user, device, session, moved: false }));
    assert!(world.to_router.contains(&ToRouter::Leave { app: APP, room: RoomId(7) }));
    let left = |mail: &ToBridge| matches!(mail, ToBridge::Left { room: RoomId(7), user: UserId(1), .. });
    assert!(world.to_bridge.iter().any(left));
    let metrics = world.metrics();
    assert_eq!((metrics.connections, metrics.sessions, metrics.memberships, metrics.timers), (0, 0, 0, 0));
}

#[test]
fn every_way_to_end_unbinds_that_session() {
    for end in [World::reset, World::finish] {
        let mut world = World::new();
        let client = world.login(1);
        let session = world.session(client);
        world.to_router.clear();
        end(&mut world, client);
        let (user, device) = (UserId(1), DeviceClass::Phone);
        let unbind = ToRouter::Unbind { app: APP, user, device, session, moved: false };
        assert_eq!(world.to_router, [unbind]);
        assert_eq!((world.metrics().sessions, world.metrics().timers), (0, 0));
    }
}

#[test]
fn a_kick_tells_the_old_session_and_leaves_the_new_one() {
    let mut world = World::new();
    let old = world.login(1);
    let new = world.login(1);
    let session = world.session(old);
    world.tell(ToGateway::Kick { session, notice: NoticeCode::Kicked });
    assert_eq!(world.closing_notice(old), NoticeCode::Kicked);
    assert_eq!(world.metrics().sessions, 1);
    world.say(new, ClientFrame::Heartbeat { echo: b"hi" });
    assert_eq!(world.hear(new), [ServerFrame::Heartbeat { echo: b"hi" }]);
}

#[test]
fn what_is_addressed_to_a_session_that_is_gone_reaches_no_later_one() {
    let mut world = World::new();
    let old = world.login(1);
    let session = world.session(old);
    world.reset(old);
    let new = world.login(2);
    assert_eq!(new, old, "the index is used again");
    world.tell(ToGateway::Kick { session, notice: NoticeCode::Kicked });
    world.tell(ToGateway::Bound { session, login: Login(1) });
    assert!(world.hear(new).is_empty() && world.client(new).closed.is_none());
}

#[test]
fn an_owner_that_never_answers_ends_in_the_login_deadline() {
    let mut world = World::with(|config| config.limits.login_deadline_ms = 500);
    world.router_answers = false;
    let client = world.connect();
    let token = world.token(1, DeviceClass::Phone);
    world.say(client, ClientFrame::Login { token: token.into() });
    world.pass(Duration::from_millis(502));
    assert_eq!(world.closing_notice(client), NoticeCode::LoginTimeout);
}

/// More come at once than are let in before an owner answers.
#[test]
fn logins_wait_for_owners_that_do_not_keep_up_and_are_told_when_to_come_back() {
    const CLIENTS: usize = 700;
    let mut world = World::with(|config| config.limits.address_connections_max = 20_000);
    world.router_answers = false;
    let clients: Vec<u32> = (1..=CLIENTS as i64)
        .map(|user| {
            let client = world.connect();
            world.client(client).user = UserId(user);
            let token = world.token(user, DeviceClass::Phone);
            world.say(client, ClientFrame::Login { token: token.into() });
            client
        })
        .collect();
    let binds = |world: &World| {
        world.to_routers.iter().filter(|(_, mail)| matches!(mail, ToRouter::Bind { .. })).count()
    };
    assert_eq!(binds(&world), 512);
    // One is answered, one goes: two of those that wait are let in.
    let session = world.session(clients[0]);
    world.tell(ToGateway::Bound { session, login: Login(world.now.unix_nanos()) });
    world.reset(clients[1]);
    assert_eq!(binds(&world), 514);
    assert!(matches!(world.hear(clients[0]).as_slice(), [ServerFrame::LoggedIn { .. }]));
    world.pass(Duration::from_secs(60));
    for client in &clients[2..514] {
        assert_eq!(world.closing_notice(*client), NoticeCode::LoginTimeout);
    }
    for client in &clients[514..] {
        match world.hear(*client).pop() {
            Some(ServerFrame::Notice { code: NoticeCode::ServerFull, retry_after_ms, .. }) => {
                assert!((1_000..=2_000).contains(&retry_after_ms), "{retry_after_ms}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Another session of the user seems newer, as one clock is behind or this login came late.
#[test]
fn a_login_asks_again_above_what_its_owner_knows() {
    let mut world = World::new();
    world.router_answers = false;
    let client = world.connect();
    world.say(client, ClientFrame::Login { token: world.token(1, DeviceClass::Phone).into() });
    let Some(ToRouter::Bind { session, login, .. }) = world.to_router.pop_front() else { panic!("a login") };
    let above = Login(login.0 + 1_000_000);
    world.tell(ToGateway::AskAgain { session, above });
    let again = world.to_router.pop_front();
    let Some(ToRouter::Bind { session: its, login, fresh: true, .. }) = again else {
        panic!("not {again:?}")
    };
    assert_eq!((its, login), (session, above.raised()));
    world.tell(ToGateway::Bound { session, login });
    assert!(matches!(world.hear(client)[..], [ServerFrame::LoggedIn { .. }]));
    world.tell(ToGateway::AskAgain { session, above });
    assert_eq!(world.to_router.pop_front(), None, "it is bound");
    // One that has gone is no newer one.
    let gone = world.connect();
    world.say(gone, ClientFrame::Login { token: world.token(2, DeviceClass::Phone).into() });
    let Some(ToRouter::Bind { session, login, .. }) = world.to_router.pop_front() else { panic!("a login") };
    world.reset(gone);
    world.to_router.clear();
    world.tell(ToGateway::AskAgain { session, above: login });
    assert_eq!(world.to_router.pop_front(), None);
}
