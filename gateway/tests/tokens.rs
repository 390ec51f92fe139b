//! Tokens that are good by themselves and refused: there is no key yet, or they were revoked, or their user
//! is banned.

mod common;

use std::time::Duration;

use common::{APP, ROUTER_2, ROUTER_3, SECRET, World};
use gateway::{
    Claims, Config, Effect, Gateway, MoreClaims, Setup, TokenError, TokenKeys, login_tag, mint_hs256_with,
};
use shard::{Instant, ShardId};
use wire::client::{ClientFrame, NoticeCode, ServerFrame};
use wire::node::{Ban, Login, Revocation, ToGateway, ToRouter};
use wire::{DeviceClass, UserId};

const USER: i64 = 5;
/// What the clock of a [`World`] shows first.
const START_SECS: u64 = 1_800_000_000;

/// A token of [`USER`] that was made so many seconds before the start by a login.
fn token_of(ago_secs: u64, sid: &str) -> String {
    let claims =
        Claims { app: APP, user: UserId(USER), device: DeviceClass::Phone, exp: START_SECS + 86_400 };
    let more = MoreClaims { iat: Some(START_SECS - ago_secs), sid: Some(sid), ..MoreClaims::default() };
    mint_hs256_with(SECRET, &claims, &more)
}

/// A connection that has said a token.
fn try_login(world: &mut World, token: &str) -> u32 {
    let client = world.connect();
    world.client(client).user = UserId(USER);
    world.say(client, ClientFrame::Login { token: token.into() });
    client
}

fn login(world: &mut World, token: &str) -> u32 {
    let client = try_login(world, token);
    assert!(matches!(world.hear(client).as_slice(), [ServerFrame::LoggedIn { .. }]));
    client
}

/// Of all logins if there is no other word.
fn revocation(world: &World) -> Revocation {
    let now = world.now.unix_secs();
    Revocation { app: APP, user: UserId(USER), login: 0, before_secs: now, until_secs: now + 3_600 }
}

fn of_login(world: &World, sid: &str) -> Revocation {
    Revocation { login: login_tag(sid), before_secs: u64::MAX, ..revocation(world) }
}

fn revoke(world: &mut World, revocation: Revocation) {
    world.tell(ToGateway::Revoked { revocations: vec![revocation] });
}

fn refused(world: &mut World, error: TokenError) -> u64 {
    world.metrics().tokens_refused_for(error)
}

#[test]
fn tokens_of_before_a_revocation_neither_log_in_nor_renew() {
    let mut world = World::new();
    let live = login(&mut world, &token_of(60, "a"));
    let revoked = revocation(&world);
    revoke(&mut world, revoked);
    for ago_secs in [1, 60] {
        let client = try_login(&mut world, &token_of(ago_secs, "b"));
        assert_eq!(world.closing_notice(client), NoticeCode::TokenInvalid);
    }
    let plain = world.token(USER, DeviceClass::Phone);
    let client = try_login(&mut world, &plain);
    assert_eq!(world.closing_notice(client), NoticeCode::TokenInvalid, "it does not say when it was made");
    world.say(live, ClientFrame::Login { token: token_of(1, "a").into() });
    assert_eq!(world.closing_notice(live), NoticeCode::TokenInvalid);
    assert_eq!(refused(&mut world, TokenError::Revoked), 4);
    login(&mut world, &token_of(0, "a"));
    world.login(USER + 1);
}

#[test]
fn a_login_is_revoked_and_others_of_its_user_are_not() {
    let mut world = World::new();
    let revoked = of_login(&world, "a");
    revoke(&mut world, revoked);
    let client = try_login(&mut world, &token_of(0, "a"));
    assert_eq!(world.closing_notice(client), NoticeCode::TokenInvalid);
    login(&mut world, &token_of(60, "b"));
    world.pass(Duration::from_secs(3_601));
    login(&mut world, &token_of(0, "a"));
}

#[test]
fn a_live_session_ends_when_its_router_says_to_look_at_it() {
    let mut world = World::new();
    let [a, b] = ["a", "b"].map(|sid| login(&mut world, &token_of(60, sid)));
    let revoked = of_login(&world, "a");
    revoke(&mut world, revoked);
    for client in [a, b] {
        let session = world.session(client);
        world.tell(ToGateway::Recheck { session });
    }
    assert_eq!(world.closing_notice(a), NoticeCode::TokenInvalid);
    assert!(world.is_open(b), "{:?}", world.hear(b));
    // The next token is of a login that goes on: so does the session.
    world.say(b, ClientFrame::Login { token: token_of(0, "c").into() });
    let (revoked, session) = (of_login(&world, "b"), world.session(b));
    revoke(&mut world, revoked);
    world.tell(ToGateway::Recheck { session });
    assert!(world.is_open(b));
}

/// The word of a router may be lost with its link.
#[test]
fn a_live_session_ends_in_time_if_nobody_says_to_look_at_it() {
    let mut world = World::new();
    let client = login(&mut world, &token_of(60, "a"));
    let revoked = revocation(&world);
    revoke(&mut world, revoked);
    for _ in 0..3 {
        world.pass(Duration::from_secs(25));
        world.say(client, ClientFrame::Heartbeat { echo: b"" });
    }
    assert_eq!(world.closing_notice(client), NoticeCode::TokenInvalid);
}

#[test]
fn a_token_that_is_revoked_while_its_owner_is_asked_does_not_log_in() {
    let mut world = World::new();
    world.router_answers = false;
    let client = try_login(&mut world, &token_of(60, "a"));
    let (session, revoked) = (world.session(client), revocation(&world));
    revoke(&mut world, revoked);
    world.tell(ToGateway::Bound { session, login: Login(world.now.unix_nanos()) });
    assert_eq!(world.closing_notice(client), NoticeCode::TokenInvalid);
    assert_eq!(world.metrics().logins, 0);
}

/// A router that has started knows nothing.
#[test]
fn a_router_that_comes_is_told_what_is_revoked() {
    let now = Instant::from_unix_nanos(1_800_000_000_000_000_000);
    let revocations = vec![of_login(&World::new(), "a")];
    for (index, count) in [(0, 1), (1, 0)] {
        let (keys, config) = (TokenKeys::hs256(SECRET), Config::default());
        let setup = Setup { id: ShardId::new(9, index), keys, config, ports: Vec::new(), seed: 1 };
        let mut gateway = Gateway::new(now, setup);
        gateway.router_up(now, ROUTER_2);
        gateway.mail(now, ROUTER_2, ToGateway::Revoked { revocations: revocations.clone() });
        gateway.router_up(now, ROUTER_3);
        let mut said = std::iter::from_fn(|| gateway.poll_effect(now)).collect::<Vec<_>>();
        let mail = ToRouter::Revoked { revocations: revocations.clone() };
        let told = Effect::ToRouter { to: ROUTER_3, mail };
        said.retain(|effect| *effect == told);
        assert_eq!(said.len(), count, "one shard of the node tells it");
    }
}

/// Of [`USER`], for a minute.
fn ban() -> Ban {
    let until_ms = START_SECS * 1_000 + 60_000;
    let (app, user, said) = (APP, UserId(USER), Login(1));
    Ban { app, user, device: Some(DeviceClass::Phone), said, until_ms, kept_ms: until_ms }
}

/// The owner may have died with what it knew of the ban: it is not asked.
#[test]
fn a_banned_user_does_not_log_in_until_the_ban_ends_or_is_lifted() {
    let mut world = World::new();
    world.tell(ToGateway::Banned { bans: vec![ban()] });
    let client = try_login(&mut world, &token_of(0, "a"));
    assert_eq!(world.closing_notice(client), NoticeCode::Kicked);
    let web = world.token(USER, DeviceClass::Web);
    login(&mut world, &web);
    world.login(USER + 1);
    world.tell(ToGateway::Banned { bans: vec![Ban { said: Login(2), until_ms: 0, ..ban() }] });
    world.tell(ToGateway::Banned { bans: vec![ban()] });
    login(&mut world, &token_of(0, "a"));
    world.tell(ToGateway::Banned { bans: vec![Ban { said: Login(3), ..ban() }] });
    let client = try_login(&mut world, &token_of(0, "a"));
    assert_eq!(world.closing_notice(client), NoticeCode::Kicked);
    world.pass(Duration::from_secs(61));
    login(&mut world, &token_of(0, "a"));
}

#[test]
fn a_router_that_comes_is_told_of_bans() {
    let now = Instant::from_unix_nanos(START_SECS * 1_000_000_000);
    let (keys, config) = (TokenKeys::hs256(SECRET), Config::default());
    let setup = Setup { id: ShardId::new(9, 0), keys, config, ports: Vec::new(), seed: 1 };
    let mut gateway = Gateway::new(now, setup);
    gateway.router_up(now, ROUTER_2);
    gateway.mail(now, ROUTER_2, ToGateway::Banned { bans: vec![ban()] });
    gateway.router_up(now, ROUTER_3);
    let mut said = std::iter::from_fn(|| gateway.poll_effect(now));
    let told = Effect::ToRouter { to: ROUTER_3, mail: ToRouter::Banned { bans: vec![ban()] } };
    assert!(said.any(|effect| effect == told));
}

#[test]
fn keys_are_replaced_and_sessions_go_on() {
    let mut world = World::new();
    let before = login(&mut world, &token_of(0, "a"));
    world.gateway.set_keys(TokenKeys::default());
    let client = try_login(&mut world, &token_of(0, "a"));
    assert_eq!(world.closing_notice(client), NoticeCode::ServerFull, "it may come back when there are keys");
    world.gateway.set_keys(TokenKeys::hs256(b"another secret"));
    let client = try_login(&mut world, &token_of(0, "a"));
    assert_eq!(world.closing_notice(client), NoticeCode::TokenInvalid);
    assert_eq!([TokenError::NoKeys, TokenError::Forged].map(|error| refused(&mut world, error)), [1, 1]);
    world.say(before, ClientFrame::Heartbeat { echo: b"?" });
    assert_eq!(world.hear(before), [ServerFrame::Heartbeat { echo: b"?" }]);
}
