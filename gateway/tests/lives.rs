//! What is for an earlier life of a shard, or of an owner, or for a connection that is gone, does not come to
//! the next.

mod common;

use common::*;
use gateway::{Config, Gateway, Setup, TokenKeys};
use shard::{ConnId, Instant};
use wire::DeviceClass;
use wire::UserId;
use wire::client::{ClientFrame, FailReason, NoticeCode, Outcome};
use wire::node::{DeliveryId, Login, SessionId, ToBridge, ToGateway, ToRouter};

const PHONE: DeviceClass = DeviceClass::Phone;

fn log_in(world: &mut World, user: i64) -> u32 {
    let client = world.connect();
    world.client(client).user = UserId(user);
    let token = world.token(user, PHONE);
    world.say(client, ClientFrame::Login { token: token.into() });
    client
}

/// The bytes of a login, for a test that has more to say in the same turn.
fn login_bytes(world: &World, user: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let token = world.token(user, PHONE).into();
    ClientFrame::Login { token }.encode(wire::client::Encoding::Binary, APP, UserId(user), &mut bytes);
    bytes
}

fn binds(mail: &[ToRouter]) -> Vec<(Login, bool)> {
    let bind = |mail: &ToRouter| match mail {
        ToRouter::Bind { login, fresh, .. } => Some((*login, *fresh)),
        _ => None,
    };
    mail.iter().filter_map(bind).collect()
}

/// A router that saw this shard go knew a session by the directory alone, and told the bridge that it has
/// ended. Another one owns it, and hears of that from the shard.
#[test]
fn an_end_that_was_told_of_a_live_session_goes_to_its_owner() {
    let mut world = World::new();
    let client = log_in(&mut world, 5);
    let (login, _) = binds(&world.told(ROUTER))[0];
    let session = world.session(client);
    let ended_at = |world: &mut World, login| {
        world.forget();
        world.tell(ToGateway::Ended { session, login });
        world.told(ROUTER)
    };
    assert_eq!(ended_at(&mut world, Login(login.0 - 1)), [], "the bridge knows better");
    let ended = ToRouter::Ended { app: APP, user: UserId(5), device: PHONE, login };
    assert_eq!(ended_at(&mut world, login), [ended]);
    world.reset(client);
    assert_eq!(ended_at(&mut world, login), [], "so it has");
}

/// Connections are counted anew in each life, so a session's name has to say of which life it is.
#[test]
fn a_session_of_another_life_has_another_name() {
    let life = |seed| {
        let now = Instant::from_unix_nanos(1_800_000_000_000_000_000);
        let (keys, config) = (TokenKeys::hs256(SECRET), Config::default());
        Gateway::new(now, Setup { id: ME, keys, config, ports: Vec::new(), seed })
    };
    let conns = (1..100).flat_map(|index| [0, 1].map(|generation| ConnId { index, generation }));
    for conn in conns {
        assert_ne!(life(7).session_of(conn), life(8).session_of(conn));
        assert_ne!(life(7).session_of(conn), SessionId::CONTROL);
    }
}

#[test]
fn what_is_for_a_session_of_another_life_reaches_nobody() {
    let mut world = World::new();
    let client = world.login(5);
    let conn = world.client(client).conn;
    let other = SessionId(conn.as_u64());
    world.tell(ToGateway::Kick { session: other, notice: NoticeCode::Kicked });
    let (delivery, message) = (Some(DeliveryId(1001)), message(1, None, true, "for another"));
    world.tell(ToGateway::Deliver { session: other, delivery, again: false, message });
    assert!(world.is_open(client));
    assert_eq!(world.hear(client), []);
    assert_eq!(world.settled(), [(1, Outcome::Failed(FailReason::Disconnected))]);
}

/// An owner says `Bound` before it sends anything.
#[test]
fn a_message_is_not_for_a_session_that_is_not_bound_yet() {
    let mut world = World::new();
    world.router_answers = false;
    let client = log_in(&mut world, 5);
    world.deliver(client, 1, "early");
    assert_eq!(world.hear(client), []);
    assert_eq!(world.settled(), [(1, Outcome::Failed(FailReason::Disconnected))]);
    let fresh = world.connect();
    let session = world.session(fresh);
    world.tell(ToGateway::Kick { session, notice: NoticeCode::Kicked });
    assert!(world.is_open(fresh), "nobody has logged in there");
}

/// The owner dies and its next life links, in one turn in which something was said to it already.
#[test]
fn what_was_for_an_owners_life_before_is_not_told_to_the_next() {
    let mut world = World::new();
    let client = world.connect();
    world.client(client).user = UserId(5);
    let (conn, now, bytes) = (world.client(client).conn, world.now, login_bytes(&world, 5));
    world.forget();
    world.gateway.received(now, conn, &bytes);
    world.gateway.router_down(now, ROUTER);
    world.gateway.router_up(now, ROUTER);
    world.run();
    assert_eq!(binds(&world.told(ROUTER)), [], "the next life is told of it when it is an owner");
    world.begin();
    let told = world.told(ROUTER);
    assert_eq!(binds(&told).len(), 1, "{told:?}");
    assert!(world.is_open(client));
}

/// A login is with an owner that binds it and tells the bridge, but its answer is lost with the link. The
/// next owner is told of the session under a stamp above, or the end that the owner before tells later, of
/// equal stamp, is what the bridge believes.
#[test]
fn a_session_that_moves_before_it_is_bound_has_a_higher_stamp() {
    let mut world = World::new();
    world.router_up(ROUTER_2);
    world.router_answers = false;
    for user in 1..20 {
        log_in(&mut world, user);
    }
    world.router_down(ROUTER_2);
    let mut moved = 0;
    for user in 1..20 {
        let bind = |(_, mail): &(_, ToRouter)| match mail {
            ToRouter::Bind { user: of, login, .. } if *of == UserId(user) => Some(*login),
            _ => None,
        };
        let stamps: Vec<Login> = world.to_routers.iter().filter_map(bind).collect();
        assert!(stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
        moved += usize::from(stamps.len() == 2);
    }
    assert!(moved > 3, "{moved}");
}

/// The shard stood still. Meanwhile a client tried to log in, gave up and went elsewhere: its login and its
/// end come in one turn.
#[test]
fn a_login_of_a_client_that_is_gone_is_not_bound() {
    let mut world = World::new();
    world.forget();
    let (gone, stays) = (world.connect(), world.connect());
    let now = world.now;
    for (client, user) in [(gone, 5), (stays, 6)] {
        let (conn, bytes) = (world.client(client).conn, login_bytes(&world, user));
        world.client(client).user = UserId(user);
        world.gateway.received(now, conn, &bytes);
    }
    let conn = world.client(gone).conn;
    world.gateway.finished(conn);
    world.now += std::time::Duration::from_millis(3);
    world.run();
    let told = world.told(ROUTER);
    let end = Login(world.now.unix_nanos());
    assert_eq!(binds(&told), [(end, true)], "the one that stays, stamped when all was heard: {told:?}");
    assert!(!world.to_bridge.iter().any(|event| matches!(event, ToBridge::Offline { .. })));
    assert_eq!(world.metrics().logins, 1);
}

fn ended(mail: &[ToRouter]) -> Vec<(UserId, Login)> {
    let ended = |mail: &ToRouter| match mail {
        ToRouter::Ended { user, login, .. } => Some((*user, *login)),
        _ => None,
    };
    mail.iter().filter_map(ended).collect()
}

/// Else a session that was out of sight when a newer one ended would come back below the stamp under which
/// that was told.
#[test]
fn ends_that_the_next_owner_has_not_heard_of_are_told_to_it() {
    let mut world = World::new();
    world.router_up(ROUTER_2);
    world.forget();
    for user in 1..20 {
        let client = world.login(user);
        world.reset(client);
    }
    let before = ended(&world.told(ROUTER));
    assert_eq!(
        (before, ended(&world.told(ROUTER_2))),
        (vec![], vec![]),
        "the owners hear of it as it happens"
    );
    world.router_down(ROUTER_2);
    let told = ended(&world.told(ROUTER));
    assert!((3..17).contains(&told.len()), "those of the other: {told:?}");
    for (of, login) in &told {
        let is_it = |event: &ToBridge| matches!(event, ToBridge::Offline { user, login: at, .. } if (user, at) == (of, login));
        assert!(world.to_bridge.iter().any(is_it), "the bridge has heard of {of:?}, too");
    }
    // One that ends while there is no owner.
    let client = world.login(50);
    world.router_down(ROUTER);
    world.reset(client);
    world.router_up(ROUTER);
    world.begin();
    let told = ended(&world.told(ROUTER));
    assert_eq!((told.len(), told.iter().filter(|(user, _)| *user == UserId(50)).count()), (20, 1));
}

#[test]
fn the_bridge_is_told_again_of_rooms_and_of_what_ended() {
    let mut world = World::new();
    let clients: Vec<u32> = (1..=10).map(|user| world.login(user)).collect();
    clients.iter().for_each(|client| (1..=3).for_each(|room| world.join(*client, room)));
    world.reset(clients[0]);
    world.forget();
    assert!(!world.gateway.retell(512), "nobody asked");
    world.gateway.begin_retelling();
    let mut steps = 0;
    while world.gateway.retell(512) {
        world.run();
        steps += 1;
    }
    let count = |is_it: fn(&ToBridge) -> bool| world.to_bridge.iter().filter(|event| is_it(event)).count();
    let joined = count(|event| matches!(event, ToBridge::Joined { .. }));
    let offline = count(|event| matches!(event, ToBridge::Offline { .. }));
    assert_eq!((joined, offline, world.to_bridge.len()), (27, 1, 28));
    assert_eq!(steps, 1 + 5, "two sessions of 256 rooms at most in each step");
}
