//! Joins that want what the room said: one question for all who wait, one order, no gap and no repeat.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{APP, ME, ROUTER, ROUTER_2, SEQUENCE, World};
use gateway::Metrics;
use shard::ShardId;
use wire::client::{ClientFrame, Encoding, Message, NoticeCode, Recovery, ServerFrame, Want};
use wire::node::{Kept, Recalled, ToBridge, ToGateway, ToRouter};
use wire::{BizCode, ClientMsgId, DeviceClass, MessageId, RoomId, UserId};

const ROOM: RoomId = RoomId(7);

fn want(world: &mut World, client: u32, want: Want) {
    world.say(client, ClientFrame::Join { room: ROOM, want: Some(want) });
}

/// What the room's owner was asked, and under which number.
fn asked(world: &mut World) -> Vec<(u32, u64, u32)> {
    let asked = world.to_router.drain(..).filter_map(|mail| match mail {
        ToRouter::Recall { app: APP, room: ROOM, ask, since, last } => Some((ask, since, last)),
        _ => None,
    });
    asked.collect()
}

fn said(sequence: u64, ack_wanted: bool) -> Message {
    Message {
        id: MessageId(1_000 + sequence),
        app: APP,
        sender: UserId(9),
        biz_code: BizCode(5555),
        room: Some(ROOM),
        sequence,
        ack_wanted,
        client_msg_id: ClientMsgId::new(Bytes::new()),
        payload: format!("words {sequence}").into_bytes().into(),
    }
}

fn part(ask: u32, sequence: u64, gone: u64, messages: Vec<Message>) -> Recalled {
    let (router, shard, total) = (ROUTER.as_u32(), ME.index(), messages.len() as u32);
    Recalled { router, app: APP, room: ROOM, ask, shard, sequence, gone, total, before: 0, messages }
}

fn answer(world: &mut World, ask: u32, sequence: u64, gone: u64, kept: impl IntoIterator<Item = u64>) {
    let messages = kept.into_iter().map(|sequence| said(sequence, false)).collect();
    world.tell(ToGateway::Recalled(Box::new(part(ask, sequence, gone, messages))));
}

fn joined(sequence: u64, recovery: Recovery) -> ServerFrame<'static> {
    ServerFrame::Joined { room: ROOM, sequence, recovery: Some(recovery) }
}

/// The answers in what a client hears, and the sequences of the messages, in one list.
fn heard(world: &mut World, client: u32) -> Vec<Result<u64, ServerFrame<'static>>> {
    let frames = world.hear(client).into_iter();
    let heard = frames.map(|frame| match frame {
        ServerFrame::Deliver(message) => Ok(message.sequence),
        other => Err(other),
    });
    heard.collect()
}

fn broadcast(world: &mut World, sequence: u64) {
    world.tell(ToGateway::Broadcast { message: said(sequence, false), shards: Vec::new() });
}

fn recoveries(metrics: &Metrics) -> (u64, u64, u64) {
    (metrics.recoveries_complete, metrics.recoveries_too_old, metrics.recalls_repeated)
}

#[test]
fn a_member_gets_what_it_missed_and_then_what_comes() {
    let mut world = World::new();
    let (other, client) = (world.login(1), world.login(2));
    world.join(other, 7);
    world.hear(other);
    want(&mut world, client, Want::Since(SEQUENCE - 2));
    let [(ask, since, 0)] = asked(&mut world)[..] else { panic!("one question") };
    assert_eq!(since, SEQUENCE - 2);
    broadcast(&mut world, SEQUENCE + 1); // before the answer: it has it
    assert_eq!(heard(&mut world, client), []);
    assert_eq!(heard(&mut world, other), [Ok(SEQUENCE + 1)]);
    answer(&mut world, ask, SEQUENCE + 1, SEQUENCE - 5, SEQUENCE - 1..=SEQUENCE + 1);
    broadcast(&mut world, SEQUENCE + 2);
    let all = [
        Err(joined(SEQUENCE + 1, Recovery::Complete)),
        Ok(SEQUENCE - 1),
        Ok(SEQUENCE),
        Ok(SEQUENCE + 1),
        Ok(SEQUENCE + 2),
    ];
    assert_eq!(heard(&mut world, client), all);
    assert_eq!(heard(&mut world, other), [Ok(SEQUENCE + 2)]);
    assert_eq!((asked(&mut world), recoveries(&world.metrics())), (vec![], (1, 0, 0)));
}

/// The bytes that the members share are cut where each of them goes on.
#[test]
fn one_question_is_for_all_who_wait_and_each_gets_its_part() {
    let mut world = World::new();
    let encodings = [Encoding::Binary, Encoding::Json, Encoding::JsonOld, Encoding::Binary];
    let clients: Vec<u32> = encodings
        .into_iter()
        .zip(1..)
        .map(|(encoding, user)| world.login_as(user, DeviceClass::Phone, encoding))
        .collect();
    want(&mut world, clients[0], Want::Since(SEQUENCE - 3));
    want(&mut world, clients[1], Want::Since(SEQUENCE - 1));
    want(&mut world, clients[2], Want::Since(SEQUENCE - 9)); // wants more than was asked for
    want(&mut world, clients[3], Want::Last(2)); // so does this
    let [(ask, ..)] = asked(&mut world)[..] else { panic!("one question") };
    answer(&mut world, ask, SEQUENCE, SEQUENCE - 4, SEQUENCE - 2..=SEQUENCE);
    let complete = || Err(joined(SEQUENCE, Recovery::Complete));
    let last = [Ok(SEQUENCE - 2), Ok(SEQUENCE - 1), Ok(SEQUENCE)];
    assert_eq!(heard(&mut world, clients[0]), [&[complete()][..], &last].concat());
    assert_eq!(heard(&mut world, clients[1]), [complete(), Ok(SEQUENCE)]);
    assert_eq!(heard(&mut world, clients[2]), []);
    let asked = asked(&mut world);
    let [(ask, since, 2)] = asked[..] else { panic!("one more question, not {asked:?}") };
    assert_eq!(since, SEQUENCE - 9);
    answer(&mut world, ask, SEQUENCE, SEQUENCE - 4, SEQUENCE - 3..=SEQUENCE);
    let too_old = [Err(joined(SEQUENCE, Recovery::TooOld)), Ok(SEQUENCE - 3)];
    assert_eq!(heard(&mut world, clients[2]), [&too_old[..], &last].concat());
    assert_eq!(heard(&mut world, clients[3]), [&[complete()][..], &last[1..]].concat());
    assert_eq!(recoveries(&world.metrics()), (3, 1, 0));
}

/// Two owners may have given a message a place. Who wants the last few gets each once, in its first place;
/// who wants what it has missed may have missed only the later one.
#[test]
fn the_last_few_have_each_message_once() {
    let mut world = World::new();
    let clients = [1, 2, 3].map(|user| world.login(user));
    let again = |sequence, of| Message { id: said(of, false).id, ..said(sequence, false) };
    let messages = vec![
        said(SEQUENCE - 4, false),
        said(SEQUENCE - 3, false),
        again(SEQUENCE - 2, SEQUENCE - 4),
        said(SEQUENCE - 1, false),
        again(SEQUENCE, SEQUENCE - 3),
    ];
    let tell = |world: &mut World| {
        let [(ask, ..)] = asked(world)[..] else { panic!("one question") };
        world.tell(ToGateway::Recalled(Box::new(part(ask, SEQUENCE, SEQUENCE - 5, messages.clone()))));
    };
    want(&mut world, clients[0], Want::Since(SEQUENCE - 2));
    want(&mut world, clients[1], Want::Last(2));
    want(&mut world, clients[2], Want::Last(3));
    tell(&mut world);
    tell(&mut world);
    let complete = Err(joined(SEQUENCE, Recovery::Complete));
    let heard = clients.map(|client| heard(&mut world, client));
    assert_eq!(heard[0], [complete.clone(), Ok(SEQUENCE - 1), Ok(SEQUENCE)]);
    assert_eq!(heard[1], [complete.clone(), Ok(SEQUENCE - 3), Ok(SEQUENCE - 1)]);
    assert_eq!(heard[2], [complete, Ok(SEQUENCE - 4), Ok(SEQUENCE - 3), Ok(SEQUENCE - 1)]);
}

/// A member in whose outbox something waits hears that first: an answer overtakes nothing.
#[test]
fn an_answer_comes_behind_what_waits() {
    let mut world = World::new();
    let client = world.login(1);
    world.join(client, 7);
    world.hear(client);
    world.stop_reading(client);
    (1..=3).for_each(|n| broadcast(&mut world, SEQUENCE + n));
    want(&mut world, client, Want::Since(SEQUENCE + 1));
    let [(ask, ..)] = asked(&mut world)[..] else { panic!("one question") };
    answer(&mut world, ask, SEQUENCE + 3, SEQUENCE, SEQUENCE + 2..=SEQUENCE + 3);
    world.go_on_reading(client);
    let [one, two, three] = [1, 2, 3].map(|n| Ok(SEQUENCE + n));
    let complete = Err(joined(SEQUENCE + 3, Recovery::Complete));
    assert_eq!(heard(&mut world, client), [one, two.clone(), three.clone(), complete, two, three]);
}

#[test]
fn what_wants_an_ack_is_repeated_and_never_handed_over() {
    let mut world = World::new();
    let client = world.login(1);
    want(&mut world, client, Want::Last(9));
    let [(ask, u64::MAX, 9)] = asked(&mut world)[..] else { panic!("one question") };
    let messages = vec![said(SEQUENCE - 1, false), said(SEQUENCE, true)];
    world.tell(ToGateway::Recalled(Box::new(part(ask, SEQUENCE, SEQUENCE - 2, messages))));
    world.hear(client);
    world.to_bridge.clear();
    world.pass(Duration::from_secs(6));
    assert_eq!(
        world.messages(client),
        [said(SEQUENCE, true)].map(|it| Message { app: wire::AppId(0), ..it })
    );
    world.ack(client, 1_000 + SEQUENCE);
    assert_eq!(world.metrics().acks, 1);
    want(&mut world, client, Want::Last(1));
    let [(ask, ..)] = asked(&mut world)[..] else { panic!("one question") };
    let messages = vec![said(SEQUENCE, true)];
    world.tell(ToGateway::Recalled(Box::new(part(ask, SEQUENCE, SEQUENCE - 2, messages))));
    world.reset(client);
    let is_undelivered = |mail: &ToBridge| matches!(mail, ToBridge::Undelivered { .. });
    assert!(!world.to_bridge.iter().any(is_undelivered), "whoever asks can ask again");
}

/// Parts that do not follow each other are no answer, and neither is that of another question, owner or
/// shard.
#[test]
fn only_a_whole_answer_counts() {
    let mut world = World::new();
    let client = world.login(1);
    want(&mut world, client, Want::Since(SEQUENCE - 2));
    let [(ask, ..)] = asked(&mut world)[..] else { panic!("one question") };
    let whole = part(ask, SEQUENCE, SEQUENCE - 3, vec![said(SEQUENCE - 1, false), said(SEQUENCE, false)]);
    let first = Recalled { messages: whole.messages[..1].to_vec(), ..whole.clone() };
    let second = Recalled { messages: whole.messages[1..].to_vec(), before: 1, ..whole.clone() };
    for broken in [
        Recalled { ask: ask + 1, ..whole.clone() },
        Recalled { router: ROUTER_2.as_u32(), ..whole.clone() },
        second.clone(),
        first.clone(),
        first.clone(),
    ] {
        world.tell(ToGateway::Recalled(Box::new(broken)));
        assert_eq!(heard(&mut world, client), []);
    }
    let sibling = Recalled { shard: ME.index() + 1, ..whole };
    world.tell(ToGateway::Recalled(Box::new(sibling.clone())));
    let to = ShardId::new(ME.node(), ME.index() + 1);
    assert_eq!(world.to_siblings, [(to, ToGateway::Recalled(Box::new(sibling)))]);
    world.tell(ToGateway::Recalled(Box::new(second)));
    let all = [Err(joined(SEQUENCE, Recovery::Complete)), Ok(SEQUENCE - 1), Ok(SEQUENCE)];
    assert_eq!(heard(&mut world, client), all);
}

#[test]
fn an_answer_that_does_not_come_is_asked_for_again() {
    let mut world = World::new();
    let client = world.login(1);
    want(&mut world, client, Want::Since(SEQUENCE));
    let [(first, ..)] = asked(&mut world)[..] else { panic!("one question") };
    world.pass(Duration::from_secs(6));
    let [(again, since, _)] = asked(&mut world)[..] else { panic!("the question again") };
    assert!(again != first && since == SEQUENCE);
    answer(&mut world, first, SEQUENCE, SEQUENCE, []);
    assert_eq!(heard(&mut world, client), [], "the first question is over");
    // A broadcast has taken another way, and is newer: the answer is not whole any more.
    broadcast(&mut world, SEQUENCE + 1);
    answer(&mut world, again, SEQUENCE, SEQUENCE, []);
    assert_eq!(heard(&mut world, client), []);
    let [(third, ..)] = asked(&mut world)[..] else { panic!("the question again") };
    answer(&mut world, third, SEQUENCE + 1, SEQUENCE, SEQUENCE + 1..=SEQUENCE + 1);
    let all = [Err(joined(SEQUENCE + 1, Recovery::Complete)), Ok(SEQUENCE + 1)];
    assert_eq!(heard(&mut world, client), all);
    assert_eq!(recoveries(&world.metrics()), (1, 0, 2));
    world.pass(Duration::from_secs(20));
    assert_eq!(asked(&mut world), []);
}

/// The answer to the join may come later than the history, which then stands for it.
#[test]
fn the_history_may_overtake_the_answer_to_the_join() {
    let mut world = World::new();
    world.router_answers = false;
    let (plain, client) = (world.login_slowly(1), world.login_slowly(2));
    world.join(plain, 7);
    want(&mut world, client, Want::Since(SEQUENCE - 1));
    let [(ask, ..)] = asked(&mut world)[..] else { panic!("one question") };
    broadcast(&mut world, SEQUENCE);
    answer(&mut world, ask, SEQUENCE, SEQUENCE - 1, SEQUENCE..=SEQUENCE);
    broadcast(&mut world, SEQUENCE + 1);
    world.tell(ToGateway::Joined { app: APP, room: ROOM, sequence: SEQUENCE - 1 });
    let plainly = ServerFrame::Joined { room: ROOM, sequence: SEQUENCE, recovery: None };
    assert_eq!(heard(&mut world, plain), [Err(plainly), Ok(SEQUENCE + 1)]);
    let all = [Err(joined(SEQUENCE, Recovery::Complete)), Ok(SEQUENCE), Ok(SEQUENCE + 1)];
    assert_eq!(heard(&mut world, client), all);
}

#[test]
fn who_leaves_or_ends_waits_no_more() {
    let mut world = World::new();
    let [stays, leaves, ends] = [1, 2, 3].map(|user| world.login(user));
    for client in [stays, leaves, ends] {
        want(&mut world, client, Want::Since(SEQUENCE - 1));
    }
    let [(ask, ..)] = asked(&mut world)[..] else { panic!("one question") };
    world.say(leaves, ClientFrame::Leave { room: ROOM });
    world.reset(ends);
    answer(&mut world, ask, SEQUENCE, SEQUENCE - 1, SEQUENCE..=SEQUENCE);
    assert_eq!(heard(&mut world, leaves), [Err(ServerFrame::Left { room: ROOM })]);
    assert_eq!(heard(&mut world, stays).len(), 2);
    assert_eq!(recoveries(&world.metrics()), (1, 0, 0));
}

/// A plain join of a member that waits is answered with what it waits for.
#[test]
fn a_client_that_has_seen_more_than_the_owner_said_is_told_so() {
    let mut world = World::new();
    let client = world.login(1);
    want(&mut world, client, Want::Since(SEQUENCE + 9));
    world.join(client, 7);
    let [(ask, ..)] = asked(&mut world)[..] else { panic!("one question") };
    answer(&mut world, ask, SEQUENCE, SEQUENCE - 1, []);
    assert_eq!(heard(&mut world, client), [Err(joined(SEQUENCE, Recovery::TooOld))]);
}

#[test]
fn whoever_asks_for_much_pays_for_it() {
    let mut world = World::with(|config| config.limits.frames_burst = 40);
    let client = world.login(1);
    for _ in 0..9 {
        want(&mut world, client, Want::Last(100));
    }
    assert!(world.is_open(client));
    want(&mut world, client, Want::Last(100));
    assert_eq!(world.closing_notice(client), NoticeCode::RateLimited);
}

/// Who asks over and over for what it has got is told so much of it in a time, also by its next connection.
#[test]
fn a_user_is_told_so_much_of_what_rooms_said() {
    let mut world = World::new();
    let ask = |world: &mut World, client: u32| {
        want(world, client, Want::Since(0));
        let asked = asked(world);
        for (ask, ..) in &asked {
            let long = |sequence| Message { payload: vec![b'x'; 32 << 10].into(), ..said(sequence, false) };
            let messages = (SEQUENCE - 30..SEQUENCE).map(long).collect();
            world.tell(ToGateway::Recalled(Box::new(part(*ask, SEQUENCE, 0, messages))));
            assert_eq!(world.hear(client).len(), 31);
        }
        !asked.is_empty()
    };
    let client = world.login(1);
    assert_eq!((0..100).take_while(|_| ask(&mut world, client)).count(), 18, "16 MiB and the last one");
    assert_eq!(world.closing_notice(client), NoticeCode::RateLimited);
    let client = world.login(1);
    assert!(!ask(&mut world, client));
    world.pass(Duration::from_secs(2));
    let client = world.login(1);
    assert!(ask(&mut world, client), "a MiB more in a second");
    let other = world.login(2);
    assert!(ask(&mut world, other));
}

/// Much more than the bound of lossy messages comes at once, of one room or of several, and none is dropped.
#[test]
fn what_a_room_keeps_comes_whole_or_is_told_to_be_missing() {
    let long = |sequence| Message { payload: vec![b'x'; 10 << 10].into(), ..said(sequence, false) };
    let messages = || (SEQUENCE - 30..SEQUENCE).map(long).collect::<Vec<_>>();
    let mut world = World::new();
    let client = world.login(1);
    want(&mut world, client, Want::Since(SEQUENCE - 31));
    let [(ask, ..)] = asked(&mut world)[..] else { panic!("one question") };
    world.tell(ToGateway::Recalled(Box::new(part(ask, SEQUENCE, 0, messages()))));
    let heard = world.hear(client);
    assert!(heard.len() == 31 && heard[0] == joined(SEQUENCE, Recovery::Complete), "{}", heard.len());

    let mut world = World::with(|config| {
        config.limits.frames_burst = 40;
        config.limits.submitted_user_max = 64;
    });
    let client = world.login(1);
    want(&mut world, client, Want::Since(SEQUENCE - 31));
    let [(ask, ..)] = asked(&mut world)[..] else { panic!("one question") };
    world.tell(ToGateway::Recalled(Box::new(part(ask, SEQUENCE, 0, messages()))));
    let heard = world.hear(client);
    assert!((2..31).contains(&heard.len()) && heard[0] == joined(SEQUENCE, Recovery::TooOld));
}

/// Owners have no links to each other, so what one kept goes to the next by a gateway, which knows it.
#[test]
fn what_moves_is_given_to_the_owner() {
    let mut world = World::new();
    let kept = |router: ShardId| {
        let (router, messages) = (router.as_u32(), vec![said(SEQUENCE, false)]);
        let (gone, upto, is_first, is_sure) = (SEQUENCE - 1, SEQUENCE, true, true);
        Box::new(Kept { router, app: APP, room: ROOM, gone, upto, is_first, is_sure, messages })
    };
    world.tell(ToGateway::Moved(kept(ROUTER_2)));
    assert_eq!(world.told(ROUTER).pop(), Some(ToRouter::Kept(kept(ROUTER_2))));
    world.tell(ToGateway::Moved(kept(ROUTER)));
    assert_eq!(world.told(ROUTER), [], "it is the owner again");
}

#[test]
fn the_next_owner_is_asked_too() {
    let mut world = World::new();
    let client = world.login(1);
    want(&mut world, client, Want::Since(SEQUENCE));
    world.router_down(ROUTER);
    world.forget();
    world.router_up(ROUTER_2);
    world.begin();
    let told = world.told(ROUTER_2);
    let joins = told.iter().position(|mail| matches!(mail, ToRouter::Join { room: ROOM, .. }));
    let asks = told.iter().position(|mail| matches!(mail, ToRouter::Recall { room: ROOM, .. }));
    assert!(joins.is_some() && asks > joins, "{told:?}");
}

/// What was said under a higher limit, or by a node that has one, is left out where its frame would be longer
/// than this node's clients are told to take.
#[test]
fn no_frame_of_what_a_room_said_is_over_the_limit() {
    let mut world = World::with(|config| config.limits.frame_bytes_max = 4_096);
    let client = world.login_as(1, DeviceClass::Phone, Encoding::Json);
    want(&mut world, client, Want::Since(SEQUENCE - 3));
    let [(ask, ..)] = asked(&mut world)[..] else { panic!("one question") };
    let long = Message { payload: "\u{1}".repeat(700).into_bytes().into(), ..said(SEQUENCE - 1, false) };
    let messages = vec![said(SEQUENCE - 2, false), long, said(SEQUENCE, false)];
    world.tell(ToGateway::Recalled(Box::new(part(ask, SEQUENCE, SEQUENCE - 9, messages))));
    let complete = Err(joined(SEQUENCE, Recovery::Complete));
    assert_eq!(heard(&mut world, client), [complete, Ok(SEQUENCE - 2), Ok(SEQUENCE)]);
    assert!(world.is_open(client));
}
