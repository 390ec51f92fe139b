//! Routers that come and go: who owns what, and what the new owners are told.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::{APP, ME, ROUTER, ROUTER_2, ROUTER_3, SEQUENCE, World, message};
use shard::{Event, Prng, ShardId};
use wire::client::{ClientFrame, Encoding, FailReason, Message, NoticeCode, Outcome, SendAck, ServerFrame};
use wire::node::{DeliveryId, Login, Owners, SessionId, ToBridge, ToGateway, ToRouter};
use wire::{ClientMsgId, DeviceClass, MessageId, RoomId, UserId};

fn owners(routers: &[ShardId]) -> Owners {
    Owners::new(routers.iter().map(|router| router.as_u32()).collect())
}

fn owner_of_user(routers: &[ShardId], user: i64) -> ShardId {
    ShardId::from_u32(owners(routers).of_user(APP, UserId(user)))
}

fn owner_of_room(routers: &[ShardId], room: i64) -> ShardId {
    ShardId::from_u32(owners(routers).of_room(APP, RoomId(room)))
}

fn view(routers: &[ShardId], done: bool) -> ToRouter {
    ToRouter::View { view: owners(routers).name(), done }
}

/// When each world begins.
const CLOCK: Login = Login(1_800_000_000_000_000_000);

fn reach(routers: &[ShardId]) -> ToRouter {
    ToRouter::Reach { routers: routers.iter().map(|router| router.as_u32()).collect(), clock: CLOCK }
}

fn common(routers: &[ShardId]) -> ToGateway {
    ToGateway::Common { routers: routers.iter().map(|router| router.as_u32()).collect(), clock: CLOCK }
}

/// The first users that one router owns, and another when it comes up as well.
fn users_of(router: ShardId, count: usize) -> Vec<i64> {
    (1..).filter(|user| owner_of_user(&[ROUTER, ROUTER_2], *user) == router).take(count).collect()
}

fn log_in(world: &mut World, user: i64) -> u32 {
    let client = world.connect();
    world.client(client).user = UserId(user);
    let token = world.token(user, DeviceClass::Phone);
    world.say(client, ClientFrame::Login { token: token.into() });
    client
}

/// What routers have bound after all they were told: each session with its router.
fn bindings(world: &World) -> BTreeMap<(ShardId, UserId), SessionId> {
    let mut bound = BTreeMap::new();
    for (router, mail) in &world.to_routers {
        match mail {
            ToRouter::Bind { user, session, .. } => {
                bound.insert((*router, *user), *session);
            }
            ToRouter::Unbind { user, session, .. } if bound.get(&(*router, *user)) == Some(session) => {
                bound.remove(&(*router, *user));
            }
            _ => {}
        }
    }
    bound
}

fn views(world: &World, router: ShardId) -> Vec<ToRouter> {
    let told = world.to_routers.iter().filter(|(to, _)| *to == router).map(|(_, mail)| mail.clone());
    told.filter(|mail| matches!(mail, ToRouter::View { .. })).collect()
}

// -- no router

#[test]
fn without_a_router_logins_joins_and_messages_wait_for_one() {
    let mut world = World::without_routers(|_| {});
    let client = log_in(&mut world, 1);
    world.join(client, 7);
    world.send(client, 6001, 10_002, "m-1", "x");
    assert_eq!((world.hear(client), world.to_routers.len()), (vec![], 0));
    let login = Login(world.now.unix_nanos());
    world.pass(Duration::from_secs(1));
    world.router_up(ROUTER);
    assert_eq!(world.to_routers.len(), 0, "other routers may be about to come");
    world.begin();
    let session = world.session(client);
    let told = world.told(ROUTER);
    let ToRouter::Submit { session: sender, submission } = &told[3] else { panic!("{told:?}") };
    assert_eq!((*sender, submission.client_msg_id.as_str(), submission.again), (session, "m-1", false));
    let (app, user, device, fresh) = (APP, UserId(1), DeviceClass::Phone, false);
    let clock = Login(world.now.unix_nanos());
    let routers = vec![ROUTER.as_u32()];
    assert_eq!(told[..2], [ToRouter::Reach { routers, clock }, view(&[ROUTER], false)]);
    assert_eq!(told[2], ToRouter::Join { app, room: RoomId(7), sequence: 0 });
    assert_eq!(told[4], ToRouter::Bind { app, user, device, session, login, fresh });
    assert_eq!(told[5..], [view(&[ROUTER], true)]);
    match world.hear(client).as_slice() {
        [ServerFrame::Joined { .. }, ServerFrame::LoggedIn { .. }] => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_login_waits_for_a_router_no_longer_than_its_deadline() {
    let mut world = World::without_routers(|config| config.limits.login_deadline_ms = 500);
    let client = log_in(&mut world, 1);
    world.pass(Duration::from_millis(502));
    assert_eq!(world.closing_notice(client), NoticeCode::LoginTimeout);
    world.router_up(ROUTER);
    world.begin();
    assert!(bindings(&world).is_empty());
}

/// Its router has told of it, and is gone.
#[test]
fn a_session_that_ends_while_nobody_knows_it_is_told_offline() {
    let mut world = World::new();
    let client = world.login(1);
    world.router_down(ROUTER);
    let never_online = log_in(&mut world, 2);
    world.forget();
    let login = Login(world.now.unix_nanos());
    world.reset(client);
    world.reset(never_online);
    let (app, user, device) = (APP, UserId(1), DeviceClass::Phone);
    assert_eq!(world.to_bridge, [ToBridge::Offline { app, user, device, login }]);
    assert!(world.to_routers.is_empty());
}

/// Of very many sessions, those that the next owner has not heard of yet.
#[test]
fn a_session_that_ends_between_an_owner_that_is_gone_and_the_next_is_told_offline() {
    let (mut world, clients) = crowd();
    world.router_up(ROUTER_2);
    world.pass(Duration::from_millis(30));
    world.forget();
    world.router_down(ROUTER_2);
    assert_eq!(views(&world, ROUTER), [view(&[ROUTER], false)], "under way");
    let user = users_of(ROUTER_2, 1)[0];
    let client = clients[user as usize - 1];
    let (session, app, device) = (world.session(client), APP, DeviceClass::Phone);
    world.forget();
    world.reset(client);
    assert_eq!(world.told(ROUTER_2), []);
    let user = UserId(user);
    let unbind = ToRouter::Unbind { app, user, device, session, moved: false };
    assert_eq!(world.told(ROUTER), [unbind]);
    assert!(matches!(world.to_bridge.make_contiguous(), [ToBridge::Offline { .. }]));
}

// -- another owner

#[test]
fn just_what_moves_is_announced_between_the_two_views() {
    let mut world = World::new();
    let both = [ROUTER, ROUTER_2];
    let login = Login(world.now.unix_nanos());
    let clients: Vec<u32> = (1..=20).map(|user| world.login(user)).collect();
    (1..=8).for_each(|room| world.join(clients[0], room));
    world.forget();
    world.router_up(ROUTER_2);
    let moved: Vec<i64> = (1..=20).filter(|user| owner_of_user(&both, *user) == ROUTER_2).collect();
    let rooms: Vec<RoomId> =
        (1..=8).filter(|room| owner_of_room(&both, *room) == ROUTER_2).map(RoomId).collect();
    assert!((5..16).contains(&moved.len()) && (1..8).contains(&rooms.len()), "{moved:?} {rooms:?}");

    let (old, new) = (world.told(ROUTER), world.told(ROUTER_2));
    assert_eq!(old[..2], [reach(&both), view(&both, false)]);
    assert_eq!(new[..3], [reach(&both), view(&[ROUTER], true), view(&both, false)]);
    assert_eq!((old.last(), new.last()), (Some(&view(&both, true)), Some(&view(&both, true))));
    let (app, device) = (APP, DeviceClass::Phone);
    assert_eq!((old.len(), new.len()), (3 + moved.len() + rooms.len(), 4 + moved.len() + rooms.len()));
    for room in rooms {
        assert!(old.contains(&ToRouter::Leave { app, room }));
        assert!(new.contains(&ToRouter::Join { app, room, sequence: SEQUENCE }));
    }
    for user in moved {
        let session = world.session(clients[user as usize - 1]);
        let (user, login, fresh) = (UserId(user), Login(login.0 + 1), false);
        assert!(old.contains(&ToRouter::Unbind { app, user, device, session, moved: true }));
        assert!(new.contains(&ToRouter::Bind { app, user, device, session, login, fresh }));
    }
    assert!(clients.iter().all(|client| world.is_open(*client)));
}

#[test]
fn an_owner_that_is_gone_is_told_nothing_and_stamps_rise() {
    let mut world = World::new();
    let login = Login(world.now.unix_nanos());
    let user = users_of(ROUTER_2, 1)[0];
    let client = world.login(user);
    world.router_up(ROUTER_2);
    world.forget();
    world.router_down(ROUTER_2);
    assert_eq!(world.told(ROUTER_2), []);
    let (session, login, fresh) = (world.session(client), Login(login.0 + 2), false);
    let (app, user, device) = (APP, UserId(user), DeviceClass::Phone);
    let bind = ToRouter::Bind { app, user, device, session, login, fresh };
    let expected = [reach(&[ROUTER]), view(&[ROUTER], false), bind, view(&[ROUTER], true)];
    assert_eq!(world.told(ROUTER), expected);
}

#[test]
fn a_login_that_is_not_answered_yet_is_one_by_its_stamp_for_the_next_owner() {
    let mut world = World::new();
    world.router_answers = false;
    let user = users_of(ROUTER_2, 1)[0];
    let client = log_in(&mut world, user);
    let login = Login(world.now.unix_nanos());
    world.router_up(ROUTER_2);
    [ROUTER, ROUTER_2].into_iter().for_each(|it| world.tell_from(it, common(&[ROUTER, ROUTER_2])));
    let binds = |mail: &ToRouter| match mail {
        ToRouter::Bind { login, fresh, .. } => Some((*login, *fresh)),
        _ => None,
    };
    // The owner before may have bound it, and tells of its end under that stamp.
    let login = Login(login.0 + 1);
    assert_eq!(world.told(ROUTER_2).iter().filter_map(binds).collect::<Vec<_>>(), [(login, false)]);
    let session = world.session(client);
    world.tell_from(ROUTER_2, ToGateway::Bound { session, login });
    assert!(matches!(world.hear(client)[..], [ServerFrame::LoggedIn { .. }]));
}

#[test]
fn a_login_that_an_owner_before_may_have_bound_has_a_higher_stamp_though_there_was_none_in_between() {
    let mut world = World::new();
    world.router_answers = false;
    let client = log_in(&mut world, 1);
    let login = Login(world.now.unix_nanos());
    world.router_down(ROUTER);
    world.forget();
    world.router_up(ROUTER);
    world.begin();
    world.tell_from(ROUTER, common(&[ROUTER]));
    let told = world.told(ROUTER);
    let is_higher =
        |mail: &ToRouter| matches!(mail, ToRouter::Bind { login: its, fresh: false, .. } if *its > login);
    assert!(told.iter().any(is_higher), "{told:?}");
    assert!(world.is_open(client));
}

#[test]
fn the_stamp_that_an_owner_raised_is_announced() {
    let mut world = World::new();
    let user = users_of(ROUTER_2, 1)[0];
    let client = world.login(user);
    let (session, raised) = (world.session(client), Login(world.now.unix_nanos() + 500));
    world.tell(ToGateway::Bound { session, login: raised });
    world.tell(ToGateway::Bound { session, login: Login(3) });
    world.router_up(ROUTER_2);
    let told = world.told(ROUTER_2);
    let is_higher = |mail: &ToRouter| matches!(mail, ToRouter::Bind { login, .. } if login.0 == raised.0 + 1);
    assert!(told.iter().any(is_higher), "{told:?}");
}

/// It asked for messages of the owner before, which does not send any.
#[test]
fn an_owner_before_answers_no_join() {
    let mut world = World::new();
    let client = world.login(1);
    let room = (1..).find(|room| owner_of_room(&[ROUTER, ROUTER_2], *room) == ROUTER_2).unwrap();
    world.router_answers = false;
    world.join(client, room);
    world.router_up(ROUTER_2);
    [ROUTER, ROUTER_2].into_iter().for_each(|it| world.tell_from(it, common(&[ROUTER, ROUTER_2])));
    let joined = |sequence| ToGateway::Joined { app: APP, room: RoomId(room), sequence };
    world.tell_from(ROUTER, joined(1 << 50));
    assert_eq!(world.hear(client), []);
    world.tell_from(ROUTER_2, joined(3));
    assert_eq!(world.hear(client), [ServerFrame::Joined { room: RoomId(room), sequence: 3, recovery: None }]);
    let message = Message { sequence: 4, ..message(9, Some(room), false, "m") };
    world.tell_from(ROUTER_2, ToGateway::Broadcast { message, shards: vec![] });
    assert_eq!(world.messages(client).len(), 1);
}

/// A router that owned a room for a moment has given it sequences above those of its owner. Until the owner
/// hears of them, all that it says comes too late.
#[test]
fn an_owner_hears_what_another_has_given_meanwhile() {
    let mut world = World::new();
    let client = world.login(1);
    world.join(client, 7);
    world.hear(client);
    world.forget();
    let broadcast = |id, sequence| {
        let message = Message { sequence: SEQUENCE + sequence, ..message(id, Some(7), false, "m") };
        ToGateway::Broadcast { message, shards: Vec::new() }
    };
    world.tell_from(ROUTER_2, broadcast(1, 1_000));
    world.tell_from(ROUTER, broadcast(2, 500));
    world.tell_from(ROUTER, broadcast(3, 501));
    assert_eq!(world.messages(client).len(), 1);
    assert_eq!(joins(&world.told(ROUTER)), [SEQUENCE + 1_000], "once");
    world.tell_from(ROUTER, broadcast(4, 2_000));
    assert_eq!(world.messages(client).len(), 1);
}

fn joins(mail: &[ToRouter]) -> Vec<u64> {
    let join = |mail: &ToRouter| match mail {
        ToRouter::Join { sequence, .. } => Some(*sequence),
        _ => None,
    };
    mail.iter().filter_map(join).collect()
}

/// Its last member has left, and comes again when it has another owner: sequences go on.
#[test]
fn what_was_said_of_a_room_is_told_to_its_next_owner() {
    let mut world = World::new();
    let client = world.login(1);
    let room = (1..).find(|room| owner_of_room(&[ROUTER, ROUTER_2], *room) == ROUTER_2).unwrap();
    world.forget();
    world.join(client, room);
    assert_eq!(joins(&world.told(ROUTER)), [0], "nothing is known of it");
    let message = Message { sequence: 77, ..message(9, Some(room), false, "m") };
    world.tell(ToGateway::Broadcast { message, shards: vec![] });
    world.say(client, ClientFrame::Leave { room: RoomId(room) });
    world.join(client, room);
    assert_eq!(joins(&world.told(ROUTER)), [77]);
    world.say(client, ClientFrame::Leave { room: RoomId(room) });
    world.router_answers = false;
    world.join(client, room);
    world.say(client, ClientFrame::Leave { room: RoomId(room) });
    world.tell(ToGateway::Joined { app: APP, room: RoomId(room), sequence: 99 });
    world.router_answers = true;
    world.router_up(ROUTER_2);
    world.forget();
    world.join(client, room);
    assert_eq!(joins(&world.told(ROUTER_2)), [99], "an answer that nobody waited for counts");
}

#[test]
fn what_a_second_owner_said_of_a_room_is_told_to_the_third() {
    let mut world = World::new();
    let client = world.login(1);
    let is_moving = |room: &i64| {
        let by = |routers: &[ShardId]| owner_of_room(routers, *room);
        (by(&[ROUTER, ROUTER_2]), by(&[ROUTER, ROUTER_2, ROUTER_3])) == (ROUTER_2, ROUTER_3)
    };
    let room = (1..).find(is_moving).unwrap();
    world.join(client, room);
    world.router_answers = false;
    world.router_up(ROUTER_2);
    world.tell_from(ROUTER, common(&[ROUTER, ROUTER_2]));
    world.tell_from(ROUTER_2, common(&[ROUTER, ROUTER_2]));
    world.tell_from(ROUTER_2, ToGateway::Joined { app: APP, room: RoomId(room), sequence: 5_000 });
    world.router_up(ROUTER_3);
    for router in [ROUTER, ROUTER_2, ROUTER_3] {
        world.tell_from(router, common(&[ROUTER, ROUTER_2, ROUTER_3]));
    }
    assert_eq!(joins(&world.told(ROUTER_3)), [5_000]);
}

/// An owner has told the sender of a message, and died with what was on its way to the members.
#[test]
fn a_sequence_that_a_send_ack_has_named_is_told_to_the_next_owner() {
    let mut world = World::new();
    let client = world.login(1);
    let sequenced = |sequence| Outcome::Sequenced { sequence: SEQUENCE + sequence };
    world.join(client, 7);
    world.forget();
    world.send(client, 5555, 7, "m", "x");
    let id = submits(&world.told(ROUTER))[0].0;
    answer(&mut world, ROUTER, client, id, sequenced(3));
    world.send(client, 5555, 7, "m2", "x");
    let id = submits(&world.told(ROUTER))[0].0;
    world.say(client, ClientFrame::Leave { room: RoomId(7) });
    world.router_down(ROUTER);
    world.router_up(ROUTER);
    world.begin();
    let told = world.told(ROUTER);
    assert_eq!(joins(&told), [SEQUENCE + 3], "of a room that nobody is in");
    let leave = ToRouter::Leave { app: APP, room: RoomId(7) };
    assert_eq!(told.last(), Some(&leave), "it hears that when it has answered");
    answer(&mut world, ROUTER, client, id, sequenced(99_000));
    world.join(client, 7);
    assert_eq!(joins(&world.told(ROUTER)), [SEQUENCE + 99_000], "of a room that its sender had left");
}

/// As many are told as were left last, to owners that have lost theirs only.
#[test]
fn rooms_that_were_left_are_told_when_their_owner_dies() {
    let mut world = World::new();
    let client = world.login(1);
    let rooms = 1..=256 + 10;
    for room in rooms.clone() {
        world.join(client, room);
        world.say(client, ClientFrame::Leave { room: RoomId(room) });
    }
    world.router_up(ROUTER_2);
    assert!(joins(&world.told(ROUTER_2)).is_empty(), "the owner before lives, and gives what it knows");
    world.router_down(ROUTER);
    let of_dead = |room: &i64| owner_of_room(&[ROUTER, ROUTER_2], *room) == ROUTER;
    let told = joins(&world.told(ROUTER_2)).len();
    assert_eq!(told, rooms.clone().skip(10).filter(of_dead).count());
    assert_eq!(world.metrics().rooms, 0, "nobody is in them");
}

// -- very many sessions

const MANY: i64 = 5_000;

fn crowd() -> (World, Vec<u32>) {
    let mut world = World::with(|config| config.limits.address_connections_max = 20_000);
    world.check_every = 1_000;
    let clients = (1..=MANY).map(|user| world.login(user)).collect();
    (world, clients)
}

/// Every live session is bound by its owner, and nothing else is bound by anybody.
fn assert_bound(world: &mut World, routers: &[ShardId], live: &[(i64, u32)]) {
    let expected: BTreeMap<_, _> = live
        .iter()
        .map(|(user, client)| ((owner_of_user(routers, *user), UserId(*user)), world.session(*client)))
        .collect();
    let bound = bindings(world);
    assert_eq!(bound.len(), expected.len());
    assert!(bound == expected);
}

#[test]
fn sessions_wait_while_their_next_owner_has_more_to_take_in_than_it_should() {
    let (mut world, _clients) = crowd();
    world.forget();
    let announced = |world: &World| bindings(world).keys().filter(|(router, _)| *router == ROUTER_2).count();
    world.router_up(ROUTER_2);
    assert!(world.gateway.is_announcing());
    let at_first = announced(&world);
    world.gateway.set_slow(vec![ROUTER_2]);
    world.pass(Duration::from_secs(10));
    assert_eq!(announced(&world), at_first);
    assert_eq!(views(&world, ROUTER_2).last(), Some(&view(&[ROUTER, ROUTER_2], false)));
    world.gateway.set_slow(Vec::new());
    world.pass(Duration::from_millis(500));
    assert!(!world.gateway.is_announcing());
    let moved = (1..=MANY).filter(|user| owner_of_user(&[ROUTER, ROUTER_2], *user) == ROUTER_2).count();
    assert_eq!(announced(&world), moved);
    assert_eq!(views(&world, ROUTER_2).last(), Some(&view(&[ROUTER, ROUTER_2], true)));
}

#[test]
fn very_many_sessions_are_announced_step_by_step_while_others_come_and_go() {
    let (mut world, clients) = crowd();
    let both = [ROUTER, ROUTER_2];
    let before = world.to_routers.len();
    world.router_up(ROUTER_2);
    assert_eq!(views(&world, ROUTER).last(), Some(&view(&both, false)), "not done");
    assert!(world.to_routers.len() < before + 2 * 2_048, "a step is short");
    let mut live: Vec<(i64, u32)> = (1..=MANY).zip(clients).collect();
    // The last are announced first, so the first have yet to be.
    for at in [MANY as usize - 1, 700, 300, 100, 5] {
        let (_, client) = live.remove(at);
        world.reset(client);
    }
    for user in MANY + 1..MANY + 20 {
        live.push((user, world.login(user)));
    }
    world.pass(Duration::from_millis(4) + Duration::from_millis(2));
    let (_, client) = live.remove(10);
    world.reset(client);
    world.pass(Duration::from_millis(20));
    for router in both {
        let its = world.to_routers.iter().filter(|(to, _)| *to == router).map(|(_, mail)| mail);
        assert_eq!(its.last(), Some(&view(&both, true)), "the last word");
        let views = views(&world, router);
        let (first, rest) = views.split_at(views.len() - 2);
        assert_eq!(rest, [view(&both, false), view(&both, true)]);
        assert!(first.iter().all(|it| *it == view(&[ROUTER], true)), "{first:?}");
    }
    assert_bound(&mut world, &both, &live);
    assert_eq!(world.metrics().timers, live.len() as u64);
}

#[test]
fn another_change_meanwhile_takes_along_what_is_not_announced_yet() {
    let (mut world, clients) = crowd();
    let (two, three) = ([ROUTER, ROUTER_2], [ROUTER, ROUTER_2, ROUTER_3]);
    world.router_up(ROUTER_2);
    world.router_up(ROUTER_3);
    world.pass(Duration::from_millis(2));
    let mut live: Vec<(i64, u32)> = (1..=MANY).zip(clients).collect();
    let (_, client) = live.remove(1_000);
    world.reset(client);
    world.pass(Duration::from_millis(500));
    let expected = [view(&two, false), view(&three, false), view(&three, true)];
    assert_eq!(views(&world, ROUTER), expected);
    assert_eq!(views(&world, ROUTER_3), expected, "from the moment it is there");
    assert_bound(&mut world, &three, &live);
    assert_eq!(world.metrics().timers, live.len() as u64, "no timer is left over");
    world.router_down(ROUTER_2);
    world.router_up(ROUTER_2);
    world.pass(Duration::from_millis(500));
    // A router that was gone knows only what it was told since.
    let gone =
        world.to_routers.iter().rposition(|(to, mail)| *to == ROUTER_2 && *mail == view(&three, false));
    let gone = gone.expect("it was told of the view");
    let mut at = 0;
    world.to_routers.retain(|(to, _)| {
        at += 1;
        *to != ROUTER_2 || at > gone
    });
    assert_bound(&mut world, &three, &live);
}

// -- messages that wait for an answer

fn answer(world: &mut World, router: ShardId, client: u32, submitted: MessageId, outcome: Outcome) {
    let session = world.session(client);
    let client_msg_id = ClientMsgId::new(bytes::Bytes::from_static(b"m"));
    let ack = SendAck { client_msg_id, id: submitted, outcome };
    world.tell_from(router, ToGateway::SendAck { session, submitted, ack });
}

fn outcomes(world: &mut World, client: u32) -> Vec<Outcome> {
    let heard = world.hear(client).into_iter();
    heard
        .map(|frame| match frame {
            ServerFrame::SendAck(ack) => ack.outcome,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn submits(mail: &[ToRouter]) -> Vec<(MessageId, bool)> {
    let submit = |mail: &ToRouter| match mail {
        ToRouter::Submit { submission, .. } => Some((submission.id, submission.again)),
        _ => None,
    };
    mail.iter().filter_map(submit).collect()
}

fn withdrawn(mail: &[ToRouter]) -> Vec<MessageId> {
    let withdraw = |mail: &ToRouter| match mail {
        ToRouter::Withdraw { id, .. } => Some(*id),
        _ => None,
    };
    mail.iter().filter_map(withdraw).collect()
}

#[test]
fn what_is_not_answered_goes_to_the_next_owner_in_order_under_the_same_id() {
    let mut world = World::new();
    let (one, two) = (world.login(1), world.login(2));
    let (moving, staying) = (users_of(ROUTER_2, 2), users_of(ROUTER, 1)[0]);
    world.forget();
    for (client, target) in [(one, moving[0]), (two, moving[1]), (one, staying), (one, moving[0])] {
        world.send(client, 6001, target, "m", "x");
    }
    let ids: Vec<MessageId> = submits(&world.told(ROUTER)).iter().map(|(id, _)| *id).collect();
    world.router_up(ROUTER_2);
    let moved = [ids[0], ids[1], ids[3]];
    let old = world.told(ROUTER);
    assert_eq!((withdrawn(&old), submits(&old)), (moved.to_vec(), vec![]));
    assert_eq!(submits(&world.told(ROUTER_2)), moved.map(|id| (id, true)));
    assert_eq!((world.metrics().submitted, world.metrics().submitted_again), (4, 3));

    let failed = Outcome::Failed(FailReason::Offline);
    answer(&mut world, ROUTER, one, ids[0], failed);
    assert_eq!(outcomes(&mut world, one), [], "another has it");
    answer(&mut world, ROUTER_2, one, ids[0], failed);
    answer(&mut world, ROUTER, one, ids[3], Outcome::Delivered);
    answer(&mut world, ROUTER_2, one, ids[3], failed);
    answer(&mut world, ROUTER, one, ids[2], failed);
    assert_eq!(outcomes(&mut world, one), [failed, Outcome::Delivered, failed], "each once");
    assert_eq!(world.metrics().submitted, 1);
    world.router_down(ROUTER_2);
    assert_eq!(submits(&world.told(ROUTER)), [(ids[1], true)]);
}

#[test]
fn a_router_that_comes_again_is_given_what_it_knew() {
    let mut world = World::new();
    let client = world.login(1);
    world.send(client, 6001, 9, "m", "x");
    world.router_down(ROUTER);
    world.send(client, 6001, 9, "n", "x");
    world.forget();
    world.router_up(ROUTER);
    assert_eq!(submits(&world.told(ROUTER)), [], "others may be about to come too");
    world.begin();
    let submitted = submits(&world.told(ROUTER));
    assert_eq!(submitted.iter().map(|(_, again)| *again).collect::<Vec<_>>(), [true, false]);
    assert!(submitted[0].0 < submitted[1].0);
}

#[test]
fn so_many_messages_wait_for_answers_at_most() {
    let mut world = World::with(|config| config.limits.submitted_max = 1);
    let client = world.login(1);
    world.forget();
    world.send(client, 6001, 9, "m", "x");
    let [(id, _)] = submits(&world.told(ROUTER))[..] else { panic!("one") };
    world.send(client, 6001, 9, "n", "x");
    world.send(client, 6001, 9, "", "x");
    let busy = Outcome::Failed(FailReason::Busy);
    match world.hear(client).as_slice() {
        [ServerFrame::SendAck(ack), ServerFrame::Notice { code: NoticeCode::Busy, .. }] => {
            assert_eq!((ack.client_msg_id.as_str(), ack.outcome), ("n", busy));
        }
        other => panic!("{other:?}"),
    }
    answer(&mut world, ROUTER, client, id, Outcome::Delivered);
    world.send(client, 6001, 9, "n", "x");
    assert_eq!(submits(&world.told(ROUTER)).len(), 1, "there is room again");
}

#[test]
fn a_message_that_another_session_sent_again_waits_no_more() {
    let mut world = World::new();
    let client = world.login(1);
    world.forget();
    world.send(client, 6001, 9, "m", "x");
    let [(submitted, _)] = submits(&world.told(ROUTER))[..] else { panic!("one") };
    world.tell(ToGateway::Superseded { submitted });
    assert_eq!(world.metrics().submitted, 0);
    answer(&mut world, ROUTER, client, submitted, Outcome::Delivered);
    assert_eq!(world.hear(client), []);
}

/// That owner has told the bridge, which may be about to say that it keeps the message.
#[test]
fn what_an_owner_has_handed_over_stays_with_it_while_owners_change() {
    let mut world = World::new();
    let client = world.login(1);
    let target = users_of(ROUTER_2, 1)[0];
    world.forget();
    world.send(client, 6001, target, "m", "x");
    let [(submitted, _)] = submits(&world.told(ROUTER))[..] else { panic!("one") };
    let reason = FailReason::Offline;
    world.tell(ToGateway::Concluded { submitted, reason });
    world.router_up(ROUTER_2);
    assert_eq!((withdrawn(&world.told(ROUTER)), submits(&world.told(ROUTER_2))), (vec![], vec![]));
    answer(&mut world, ROUTER, client, submitted, Outcome::Stored);
    assert_eq!(outcomes(&mut world, client), [Outcome::Stored]);
    assert_eq!(world.metrics().submitted, 0);
}

#[test]
fn the_next_owner_may_only_hand_over_what_one_that_is_gone_has_handed_over() {
    let mut world = World::new();
    let client = world.login(1);
    let target = users_of(ROUTER_2, 1)[0];
    world.forget();
    world.send(client, 6001, target, "m", "x");
    let [(submitted, _)] = submits(&world.told(ROUTER))[..] else { panic!("one") };
    // It is not the owner any more when its word comes, so another has the message meanwhile.
    world.router_up(ROUTER_2);
    assert_eq!(submits(&world.told(ROUTER_2)), [(submitted, true)]);
    world.forget();
    let reason = FailReason::Disconnected;
    world.tell(ToGateway::Concluded { submitted, reason });
    assert_eq!(withdrawn(&world.told(ROUTER_2)), [submitted]);
    answer(&mut world, ROUTER_2, client, submitted, Outcome::Failed(reason));
    assert_eq!(outcomes(&mut world, client), [], "the other waits for the bridge");
    // It goes while it is no owner.
    world.common = Some(vec![ROUTER_2]);
    world.tell_from(ROUTER, common(&[ROUTER_2]));
    world.tell_from(ROUTER_2, common(&[ROUTER_2]));
    assert_eq!(chosen(&world), [ROUTER_2]);
    world.forget();
    world.router_down(ROUTER);
    let is_given = |mail: &ToRouter| match mail {
        ToRouter::Submit { submission, .. } => submission.concluded == Some(reason),
        _ => false,
    };
    assert!(world.told(ROUTER_2).iter().any(is_given));
    // That one goes as well, and is back when there was no router at all.
    world.router_down(ROUTER_2);
    world.forget();
    world.router_up(ROUTER_2);
    world.begin();
    assert!(world.told(ROUTER_2).iter().any(is_given));
}

#[test]
fn answers_are_given_on_and_nothing_is_kept() {
    let mut world = World::new();
    world.answer_submit = Some(Outcome::Delivered);
    let client = world.login(1);
    for name in ["a", "b", ""] {
        world.send(client, 6001, 9, name, "x");
    }
    assert_eq!(outcomes(&mut world, client), [Outcome::Delivered; 2], "the third has no name");
    assert_eq!(world.metrics().submitted, 0);
}

// -- which routers

fn chosen(world: &World) -> Vec<ShardId> {
    world.gateway.owners().collect()
}

#[test]
fn owners_are_the_routers_that_everybody_reaches() {
    let mut world = World::without_routers(|_| {});
    world.router_answers = false;
    [ROUTER, ROUTER_2, ROUTER_3].into_iter().for_each(|router| world.router_up(router));
    world.begin();
    assert_eq!(chosen(&world), [], "nobody has said so");
    world.tell_from(ROUTER, common(&[ROUTER, ROUTER_2, ROUTER_3, ShardId::new(9, 9)]));
    assert_eq!(chosen(&world), [], "others that are linked here may still know sessions");
    world.tell_from(ROUTER_2, common(&[ROUTER, ROUTER_2]));
    assert_eq!(chosen(&world), [ROUTER, ROUTER_2]);
    let views = world.metrics().views;
    world.tell_from(ROUTER_3, common(&[ROUTER, ROUTER_2, ROUTER_3]));
    assert_eq!((chosen(&world), world.metrics().views), (vec![ROUTER, ROUTER_2], views), "no change");
    world.tell_from(ShardId::new(9, 9), common(&[]));
    assert_eq!(chosen(&world).len(), 2, "not linked, not heard");
}

#[test]
fn when_no_router_is_reached_by_all_those_that_are_linked_have_to_do() {
    let mut world = World::without_routers(|_| {});
    world.router_answers = false;
    [ROUTER, ROUTER_2].into_iter().for_each(|router| world.router_up(router));
    world.begin();
    world.tell_from(ROUTER, common(&[ROUTER]));
    assert_eq!(chosen(&world), [ROUTER]);
    world.tell_from(ROUTER_2, common(&[ROUTER_2]));
    assert_eq!(chosen(&world), [ROUTER, ROUTER_2]);
    world.router_down(ROUTER);
    assert_eq!(chosen(&world), [ROUTER_2]);
}

#[test]
fn what_is_reached_is_told_when_all_routers_had_their_time_and_on_every_change() {
    let mut world = World::without_routers(|_| {});
    world.router_answers = false;
    let both = [ROUTER, ROUTER_2];
    world.router_up(ROUTER);
    world.tell_from(ROUTER, common(&both));
    world.router_up(ROUTER_2);
    world.tell_from(ROUTER_2, common(&both));
    assert_eq!((&world.to_routers[..], chosen(&world)), (&[][..], vec![]));
    world.begin();
    world.begin();
    let reaches = |world: &World| {
        let told = world.to_routers.iter().filter(|(_, mail)| matches!(mail, ToRouter::Reach { .. }));
        told.cloned().collect::<Vec<_>>()
    };
    assert_eq!(reaches(&world), both.map(|to| (to, reach(&both))));
    assert_eq!(chosen(&world), both, "what it heard meanwhile counts");
    world.forget();
    world.router_down(ROUTER);
    world.router_down(ROUTER);
    assert_eq!(reaches(&world), [(ROUTER_2, reach(&[ROUTER_2]))]);
}

/// A router that has just come would begin rooms by its own clock, below what their members have seen.
#[test]
fn a_clock_that_is_ahead_is_passed_on_to_all_routers() {
    let mut world = World::without_routers(|_| {});
    world.router_answers = false;
    world.router_up(ROUTER);
    world.router_up(ROUTER_2);
    world.begin();
    world.forget();
    let ahead = Login(world.now.unix_nanos() + 3_600 * 1_000_000_000);
    let routers: Vec<u32> = [ROUTER, ROUTER_2].iter().map(|router| router.as_u32()).collect();
    world.tell_from(ROUTER, ToGateway::Common { routers: routers.clone(), clock: ahead });
    let told = ToRouter::Reach { routers, clock: ahead };
    assert_eq!(world.to_routers[..2], [(ROUTER, told.clone()), (ROUTER_2, told)]);
    world.forget();
    world.tell_from(ROUTER_2, common(&[ROUTER, ROUTER_2]));
    let hears_again = |(_, mail): &(ShardId, ToRouter)| matches!(mail, ToRouter::Reach { .. });
    assert!(!world.to_routers.iter().any(hears_again), "it is behind, and nothing new");
}

/// A router that names a delivery anew again and again.
#[test]
fn a_message_is_owed_to_few_owners() {
    let mut world = World::new();
    let client = world.login(1);
    let session = world.session(client);
    for delivery in 0..20 {
        let (again, message) = (true, message(1, None, true, "m"));
        world.tell(ToGateway::Deliver { session, delivery: Some(DeliveryId(delivery)), again, message });
    }
    world.ack(client, 1);
    let settled = world.told(ROUTER).into_iter().filter(|mail| matches!(mail, ToRouter::Settle { .. }));
    assert_eq!(settled.count(), 8);
}

// -- siblings

#[test]
fn a_room_message_for_several_shards_of_the_node_is_mailed_on() {
    let mut world = World::new();
    let member = world.login_as(1, DeviceClass::Phone, Encoding::Binary);
    world.join(member, 7);
    world.hear(member);
    let message = |id| message(id, Some(7), false, "m");
    world.tell(ToGateway::Broadcast { message: message(1), shards: vec![0, ME.index(), 2] });
    assert_eq!(world.messages(member).len(), 1);
    let single = |index, id| {
        (ShardId::new(ME.node(), index), ToGateway::Broadcast { message: message(id), shards: vec![] })
    };
    assert_eq!(std::mem::take(&mut world.to_siblings), [single(0, 1), single(2, 1)]);
    world.tell(ToGateway::Broadcast { message: message(2), shards: vec![2] });
    assert_eq!(world.to_siblings, [single(2, 2)]);
    assert_eq!(world.messages(member).len(), 0, "not for this shard");
    let from = ShardId::new(ME.node(), 0);
    let broadcast = ToGateway::Broadcast { message: message(3), shards: vec![] };
    world.handle(Event::Mail { from, mail: broadcast });
    assert_eq!(world.messages(member).len(), 1, "from a sibling");
}

// -- at random

/// What routers know after all they were told.
#[derive(Default, PartialEq, Eq, Debug)]
struct Known {
    sessions: BTreeSet<(ShardId, UserId, SessionId)>,
    rooms: BTreeSet<(ShardId, RoomId)>,
    messages: BTreeSet<(ShardId, MessageId)>,
}

impl Known {
    fn by_routers(world: &World) -> Self {
        let mut known = Self::default();
        for (to, mail) in &world.to_routers {
            match mail {
                ToRouter::Bind { user, session, .. } => drop(known.sessions.insert((*to, *user, *session))),
                ToRouter::Unbind { user, session, .. } => {
                    known.sessions.remove(&(*to, *user, *session));
                }
                ToRouter::Join { room, .. } => drop(known.rooms.insert((*to, *room))),
                ToRouter::Leave { room, .. } => drop(known.rooms.remove(&(*to, *room))),
                ToRouter::Submit { submission, .. } => drop(known.messages.insert((*to, submission.id))),
                ToRouter::Withdraw { id, .. } => drop(known.messages.remove(&(*to, *id))),
                _ => {}
            }
        }
        known
    }
}

#[test]
fn whatever_routers_do_in_the_end_the_owners_know_all_and_others_nothing() {
    for seed in 0..300 {
        let mut prng = Prng::new(seed);
        let mut world = World::new();
        let routers = [ROUTER, ROUTER_2, ROUTER_3];
        let mut up = BTreeSet::from([ROUTER]);
        let mut live: Vec<(i64, u32, BTreeSet<i64>)> = Vec::new();
        let mut sent: Vec<(MessageId, i64)> = Vec::new();
        for step in 0..120_i64 {
            let router = routers[prng.below(3) as usize];
            let pick = prng.below(live.len().max(1) as u64) as usize;
            match prng.below(10) {
                0 if up.insert(router) => {
                    world.router_up(router);
                    world.begin();
                }
                1 if up.remove(&router) => {
                    world.router_down(router);
                    world.told(router);
                }
                2 => world.common = (prng.below(2) == 0).then(|| vec![router, ROUTER]),
                3..5 => {
                    live.push((step + 1, log_in(&mut world, step + 1), BTreeSet::new()));
                }
                5 if !live.is_empty() => world.reset(live.swap_remove(pick).1),
                6 | 7 if !live.is_empty() => {
                    let (room, (_, client, rooms)) = (prng.below(4) as i64 + 1, &mut live[pick]);
                    if rooms.insert(room) {
                        world.join(*client, room);
                    } else {
                        rooms.remove(&room);
                        world.say(*client, ClientFrame::Leave { room: RoomId(room) });
                    }
                }
                8 if !live.is_empty() => {
                    let (target, now) = (prng.below(50) as i64 + 1, world.now);
                    let push = gateway::Push {
                        app: APP,
                        sender: UserId(0),
                        biz_code: wire::BizCode(6001),
                        class: wire::node::Class::Reliable,
                        client_msg_id: ClientMsgId::default(),
                        payload: bytes::Bytes::new(),
                        stored: false,
                        device: None,
                    };
                    let id = world.gateway.push(now, wire::node::Target::User(UserId(target)), push);
                    sent.push((id.unwrap(), target));
                    world.run();
                }
                _ => world.pass(Duration::from_millis(3)),
            }
        }
        if up.is_empty() {
            world.router_up(ROUTER);
            world.begin();
        }
        world.pass(Duration::from_millis(10));
        let owners = chosen(&world);
        let mut expected = Known::default();
        for (user, client, rooms) in &live {
            expected.sessions.insert((owner_of_user(&owners, *user), UserId(*user), world.session(*client)));
            expected.rooms.extend(rooms.iter().map(|room| (owner_of_room(&owners, *room), RoomId(*room))));
        }
        expected.messages.extend(sent.iter().map(|(id, target)| (owner_of_user(&owners, *target), *id)));
        assert_eq!(Known::by_routers(&world), expected, "seed {seed}");
    }
}
