//! Routers that were lost and come back with what they knew of this shard: what has not changed is not
//! announced again.

mod common;

use std::time::Duration;

use common::{APP, ROUTER, ROUTER_2, World};
use shard::ShardId;
use wire::node::{
    Digests, Login, Owners, RangeSet, SessionId, ToGateway, ToRouter, range_of, session_digest,
};
use wire::{DeviceClass, UserId};

/// A session as a router knows it.
type Known = (i64, SessionId, Login);

fn digests(known: &[Known]) -> ToGateway {
    let mut digests = Digests::default();
    for (user, session, login) in known {
        let digest = session_digest(APP, UserId(*user), DeviceClass::Phone, *session, *login);
        digests.toggle(range_of(APP, UserId(*user)), digest);
    }
    ToGateway::Digests { digests: digests.to_vec() }
}

/// Clients who are logged in, as their owner knows them.
fn crowd(world: &mut World, users: std::ops::RangeInclusive<i64>) -> (Vec<u32>, Vec<Known>) {
    let clients: Vec<u32> = users.clone().map(|user| world.login(user)).collect();
    let login = |mail: &ToRouter| match mail {
        ToRouter::Bind { user, session, login, .. } => Some((user.0, *session, *login)),
        _ => None,
    };
    let known: Vec<Known> = world.to_router.iter().filter_map(login).collect();
    assert_eq!(known.len(), clients.len());
    (clients, known)
}

/// The router was lost, and is back with that.
fn come_back(world: &mut World, known: &[Known]) {
    world.router_down(ROUTER);
    world.pass(Duration::from_secs(2));
    world.forget();
    return_of(world, ROUTER, known);
}

fn return_of(world: &mut World, router: ShardId, known: &[Known]) {
    world.gateway.router_up(world.now, router);
    world.tell_from(router, digests(known));
    world.begin();
    world.pass(Duration::from_millis(100));
}

/// The users that a router hears announced, what it hears of unchanged ranges before, and that it hears of an
/// end at last.
fn announced(world: &mut World, router: ShardId) -> (Option<(RangeSet, bool)>, Vec<i64>) {
    let told = world.told(router);
    let at = told.iter().position(|mail| matches!(mail, ToRouter::Unchanged { .. }));
    let unchanged = at.map(|at| match &told[at] {
        ToRouter::Unchanged { ranges, moved } => (RangeSet::from_words(ranges).expect("all words"), *moved),
        _ => unreachable!(),
    });
    let mut users = Vec::new();
    for (place, mail) in told.iter().enumerate() {
        if let ToRouter::Bind { user, fresh: false, .. } = mail {
            assert!(at.is_none_or(|at| at < place), "it hears first what has not changed");
            users.push(user.0);
        }
    }
    assert!(matches!(told.last(), Some(ToRouter::View { done: true, .. })), "{told:?}");
    users.sort_unstable();
    (unchanged, users)
}

fn has(ranges: &RangeSet, user: i64) -> bool {
    ranges.contains(range_of(APP, UserId(user)))
}

#[test]
fn sessions_that_a_router_knows_are_not_announced_to_it() {
    let mut world = World::new();
    let (_, known) = crowd(&mut world, 1..=100);
    come_back(&mut world, &known);
    let (unchanged, users) = announced(&mut world, ROUTER);
    let (ranges, moved) = unchanged.expect("it asked");
    assert_eq!(users, [0i64; 0]);
    assert!((1..=100).all(|user| has(&ranges, user)));
    assert!(!moved, "there was no other router");
    // A router that knows nothing is told everything.
    world.router_down(ROUTER);
    world.router_up(ROUTER);
    world.begin();
    world.pass(Duration::from_millis(100));
    let (unchanged, users) = announced(&mut world, ROUTER);
    assert_eq!((unchanged, users.len()), (None, 100));
}

#[test]
fn what_differs_is_announced_and_nothing_else() {
    let mut world = World::new();
    let (clients, mut known) = crowd(&mut world, 1..=100);
    // One under another stamp, one that has ended long ago, one that the router never heard of.
    known[0].2 = known[0].2.raised();
    known.push((1_000, SessionId(77), known[1].2));
    known.remove(1);
    world.router_down(ROUTER);
    world.reset(clients[2]);
    world.pass(Duration::from_secs(2));
    world.forget();
    return_of(&mut world, ROUTER, &known);
    let (unchanged, users) = announced(&mut world, ROUTER);
    let (ranges, _) = unchanged.expect("it asked");
    assert!([1, 2, 1_000].iter().all(|user| !has(&ranges, *user)));
    assert!(has(&ranges, 3), "its end is told by itself");
    let changed: Vec<i64> = (1..=100).filter(|user| *user != 3 && !has(&ranges, *user)).collect();
    assert_eq!(users, changed);
    assert!((2..10).contains(&users.len()), "{users:?}");
}

/// The end itself is told, and its range is not announced for it.
#[test]
fn the_end_of_a_session_that_the_router_knows_is_told_before() {
    let mut world = World::new();
    let (clients, known) = crowd(&mut world, 1..=3);
    world.router_down(ROUTER);
    world.reset(clients[0]);
    world.pass(Duration::from_secs(2));
    world.forget();
    return_of(&mut world, ROUTER, &known);
    let told = world.told(ROUTER);
    let place = |is_it: &dyn Fn(&ToRouter) -> bool| told.iter().position(is_it).expect("it is told");
    let ended = place(&|mail| matches!(mail, ToRouter::Ended { user: UserId(1), .. }));
    let unchanged = place(&|mail| matches!(mail, ToRouter::Unchanged { .. }));
    assert!(ended < unchanged);
    assert!(!told.iter().any(|mail| matches!(mail, ToRouter::Bind { .. })), "{told:?}");
}

#[test]
fn a_login_that_was_under_way_is_announced_alone() {
    let mut world = World::new();
    let (_, mut known) = crowd(&mut world, 1..=50);
    // Its owner has bound it, and the answer was lost with the link.
    let under_way = world.login(51);
    let session = world.session(under_way);
    known.push((51, session, known[0].2));
    come_back(&mut world, &known);
    let (unchanged, users) = announced(&mut world, ROUTER);
    let (ranges, _) = unchanged.expect("it asked");
    assert!(
        (1..=50).all(|user| has(&ranges, user) || range_of(APP, UserId(user)) == range_of(APP, UserId(51)))
    );
    assert!(users.iter().all(|user| range_of(APP, UserId(*user)) == range_of(APP, UserId(51))), "{users:?}");
}

/// Two routers: what the second took over goes back under stamps that both ends raise in the same way.
#[test]
fn what_another_owner_had_meanwhile_comes_back_under_raised_stamps() {
    let mut world = World::new();
    let both = Owners::new(vec![ROUTER.as_u32(), ROUTER_2.as_u32()]);
    let (_, known) = crowd(&mut world, 1..=100);
    world.router_down(ROUTER);
    world.router_up(ROUTER_2);
    world.begin();
    world.pass(Duration::from_millis(100));
    assert_eq!(announced(&mut world, ROUTER_2), (None, (1..=100).collect()));
    world.forget();
    let its = |known: &&Known| both.of_user(APP, UserId(known.0)) == ROUTER.as_u32();
    return_of(&mut world, ROUTER, &known);
    let told = world.told(ROUTER_2);
    let moved = told.iter().filter(|mail| matches!(mail, ToRouter::Unbind { moved: true, .. })).count();
    let (unchanged, users) = announced(&mut world, ROUTER);
    let (ranges, has_moved) = unchanged.expect("it asked");
    assert!(has_moved);
    // The router knows users that are the other's by now: their ranges differ, and with them who shares one.
    assert_eq!(
        users,
        known.iter().filter(its).map(|it| it.0).filter(|it| !has(&ranges, *it)).collect::<Vec<_>>()
    );
    assert!(users.len() < 15, "{users:?}");
    assert_eq!(moved, known.iter().filter(its).count());
    // The next time it knows them under the raised stamps.
    let raised = |known: &Known| if has(&ranges, known.0) { known.2.raised() } else { Login(known.2.0 + 2) };
    let known: Vec<Known> = known.iter().filter(its).map(|it| (it.0, it.1, raised(it))).collect();
    world.forget();
    world.router_down(ROUTER);
    return_of(&mut world, ROUTER, &known);
    let (unchanged, users) = announced(&mut world, ROUTER);
    let (ranges, _) = unchanged.expect("it asked");
    assert_eq!(users, [0i64; 0]);
    assert!(known.iter().all(|known| has(&ranges, known.0)));
}

/// Another owner has told the end of a session that lives, and hears so. The one before may know it by then,
/// so it is told of that end, too; but then of the session as well, whatever its digest says.
#[test]
fn a_session_whose_end_was_denied_is_announced_to_whoever_hears_of_the_end() {
    let mut world = World::new();
    let (clients, known) = crowd(&mut world, 1..=3);
    world.router_down(ROUTER);
    world.router_up(ROUTER_2);
    world.begin();
    world.pass(Duration::from_millis(100));
    let (session, login) = (world.session(clients[0]), Login(known[0].2.0 + 1));
    world.tell_from(ROUTER_2, ToGateway::Ended { session, login });
    world.pass(Duration::from_millis(100));
    world.forget();
    world.router_down(ROUTER_2);
    return_of(&mut world, ROUTER, &known);
    let told = world.told(ROUTER);
    let place = |is_it: &dyn Fn(&ToRouter) -> bool| told.iter().position(is_it);
    let ended = place(&|mail| matches!(mail, ToRouter::Ended { user: UserId(1), .. }));
    let bound = place(&|mail| matches!(mail, ToRouter::Bind { user: UserId(1), .. }));
    assert!(ended.is_some() && ended < bound, "{told:?}");
    assert!(place(&|mail| matches!(mail, ToRouter::Bind { user: UserId(2), .. })).is_none());
}
