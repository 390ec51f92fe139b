//! What rooms keep, who gets it, and what is said of what is not there.

mod common;

use std::time::Duration;

use common::*;
use router::{Keep, Keeps};
use shard::ShardId;
use wire::client::Message;
use wire::node::{
    Answer, Entry, Kept, Owners, Question, Recalled, Stream, Submission, ToDirectory, ToGateway, ToRouter,
};
use wire::{BizCode, MessageId, RoomId, UserId};

fn said(bench: &mut Bench, room: RoomId, count: usize) {
    for _ in 0..count {
        bench.submit(A, 1, lossy(to_room(room, "")));
    }
}

fn recalled(mail: Mail) -> Vec<(ShardId, Recalled)> {
    let parts = mail.into_iter().filter_map(|(to, mail)| match mail {
        Said::ToGateway(ToGateway::Recalled(part)) => Some((to, *part)),
        _ => None,
    });
    parts.collect()
}

fn moved(mail: &Mail) -> Vec<Kept> {
    let parts = mail.iter().filter_map(|(_, mail)| match mail {
        Said::ToGateway(ToGateway::Moved(part)) => Some((**part).clone()),
        _ => None,
    });
    parts.collect()
}

fn ask(bench: &mut Bench, shard: ShardId, room: RoomId, since: u64, last: u32) -> Vec<(ShardId, Recalled)> {
    recalled(bench.tell(shard, ToRouter::Recall { app: APP, room, ask: 5, since, last }))
}

/// The one part of an answer: where it stands, what is gone, and the sequences of its messages.
fn answer(bench: &mut Bench, shard: ShardId, since: u64, last: u32) -> (u64, u64, Vec<u64>) {
    let parts = ask(bench, shard, ROOM, since, last);
    let [(_, part)] = &parts[..] else { panic!("one part, not {parts:?}") };
    (part.sequence, part.gone, sequences(&part.messages))
}

fn sequences(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.sequence).collect()
}

const NONE: u64 = u64::MAX;

#[test]
fn a_shard_gets_what_follows_a_sequence_or_the_last() {
    let mut bench = Bench::new();
    let base = bench.join(A, ROOM);
    said(&mut bench, ROOM, 5);
    let all: Vec<u64> = (base + 1..=base + 5).collect();
    assert_eq!(answer(&mut bench, A, base, 0), (base + 5, base, all.clone()));
    assert_eq!(answer(&mut bench, A, base + 3, 0), (base + 5, base, all[3..].to_vec()));
    assert_eq!(answer(&mut bench, A, base + 3, 4), (base + 5, base, all[1..].to_vec()));
    assert_eq!(answer(&mut bench, A, NONE, 2), (base + 5, base, all[3..].to_vec()));
    assert_eq!(answer(&mut bench, A, NONE, 0), (base + 5, base, vec![]));
    assert_eq!(answer(&mut bench, A, 0, 0), (base + 5, base, all));
    assert_eq!(ask(&mut bench, B, ROOM, 0, 0), [], "it is not in the room");
    assert_eq!(bench.router.metrics().recalls, 6);
}

/// The answer goes by the shard that takes the room's broadcasts, so that neither overtakes the other.
#[test]
fn an_answer_takes_the_way_of_the_broadcasts() {
    let (first, asker) = (ShardId::new(8, 0), ShardId::new(8, 1));
    let picked = ShardId::new(8, (ROOM.0 % 3) as u16);
    assert_eq!(picked, asker);
    let mut bench = Bench::new();
    let third = ShardId::new(8, 2);
    [first, asker, third].into_iter().for_each(|shard| drop(bench.up_of(shard, 3)));
    bench.join(third, ROOM);
    let broadcast = bench.submit(third, 1, lossy(to_room(ROOM, "")));
    assert!(matches!(broadcast[..], [(to, Said::ToGateway(ToGateway::Broadcast { .. }))] if to == picked));
    let parts = ask(&mut bench, third, ROOM, 0, 0);
    assert_eq!(parts.iter().map(|(to, part)| (*to, part.shard)).collect::<Vec<_>>(), [(picked, 2)]);
}

#[test]
fn what_is_long_comes_in_parts_that_follow_each_other() {
    let mut bench = Bench::with(|config| {
        config.limits.history_messages = 1_000;
        config.limits.history_bytes = 1 << 20;
    });
    let base = bench.join(A, ROOM);
    said(&mut bench, ROOM, 300);
    let long = |payload: usize| Submission { payload: vec![1; payload].into(), ..lossy(to_room(ROOM, "")) };
    for _ in 0..4 {
        bench.submit(A, 1, long(30_000));
    }
    let parts: Vec<Recalled> = ask(&mut bench, A, ROOM, base, 0).into_iter().map(|(_, part)| part).collect();
    assert!(parts.len() > 3, "{} parts", parts.len());
    let mut before = 0;
    for part in &parts {
        assert_eq!((part.before, part.total, part.sequence), (before, 304, base + 304));
        assert!(part.messages.len() <= 256);
        before += part.messages.len() as u32;
    }
    assert_eq!(before, 304);
    let all: Vec<u64> = parts.iter().flat_map(|part| sequences(&part.messages)).collect();
    assert!(all.into_iter().eq(base + 1..=base + 304));
}

#[test]
fn a_room_forgets_its_oldest_and_says_so() {
    let mut bench = Bench::with(|config| config.limits.history_messages = 3);
    let base = bench.join(A, ROOM);
    said(&mut bench, ROOM, 5);
    assert_eq!(answer(&mut bench, A, base, 0), (base + 5, base + 2, vec![base + 3, base + 4, base + 5]));
    bench.pass(Duration::from_secs(601));
    assert_eq!(answer(&mut bench, A, base, 0), (base + 5, base + 5, vec![]));
    said(&mut bench, ROOM, 1);
    assert_eq!(answer(&mut bench, A, base + 5, 0), (base + 6, base + 5, vec![base + 6]));
}

/// Gifts are not lost to a flood of chat.
#[test]
fn each_code_has_its_own_bounds() {
    let keep = |messages, bytes| Keep { messages, bytes, ms: 1_000 };
    let code = |code| Submission { biz_code: BizCode(code), ..lossy(to_room(ROOM, "")) };
    let mut bench = Bench::with(|config| {
        config.keeps = Keeps::new([
            (BizCode(5555), keep(2, 1 << 20)),
            (BizCode(5559), keep(0, 1 << 20)),
            (BizCode(7001), keep(100, 900)),
        ]);
    });
    let base = bench.join(A, ROOM);
    for n in [5556, 5555, 5555, 5555, 5559, 7001, 7001, 7001, 5555] {
        bench.submit(A, 1, code(n));
    }
    // Of 5555 the first two are gone, the last at base + 3, of 5559 all, of 7001 the first, for its bytes.
    let (sequence, gone, kept) = answer(&mut bench, A, base, 0);
    assert_eq!((sequence, gone), (base + 9, base + 6));
    assert_eq!(kept, [1, 4, 7, 8, 9].map(|n| base + n));
    bench.pass(Duration::from_secs(2));
    let (_, gone, kept) = answer(&mut bench, A, base, 0);
    assert_eq!((gone, kept), (base + 6, vec![base + 1, base + 4, base + 7, base + 8, base + 9]));
    // The one in front is kept for longer; what is behind it goes with it, at the latest.
    bench.pass(Duration::from_secs(600));
    assert_eq!(answer(&mut bench, A, base, 0).1, base + 9);
}

#[test]
fn rooms_that_have_most_make_room_for_the_others() {
    let mut bench = Bench::with(|config| config.limits.history_bytes_max = 160 * 1024);
    let (big, small) = (RoomId(8), ROOM);
    let base = bench.join(A, small);
    bench.join(A, big);
    for room in 101..130 {
        bench.join(A, RoomId(room));
    }
    said(&mut bench, small, 5);
    let heavy = |room, sender| {
        let sender = UserId(sender);
        Submission { sender, payload: vec![1; 900].into(), ..lossy(to_room(room, "")) }
    };
    for n in 0..200 {
        bench.submit(A, 1, heavy(big, 1_000 + n));
        bench.submit(A, 1, heavy(RoomId(101 + n % 29), 101 + n % 29));
    }
    let metrics = bench.router.metrics();
    assert!(metrics.history_bytes <= 160 * 1024 && metrics.history_evicted > 0, "{metrics:?}");
    assert_eq!(answer(&mut bench, A, base, 0).2.len(), 5, "who has little keeps it");
    let parts = ask(&mut bench, A, big, 0, 0);
    let bytes: usize = parts.iter().flat_map(|(_, part)| &part.messages).map(|it| it.payload.len()).sum();
    assert!(bytes <= 10 * 1024, "a sixteenth of the pool is a room's share, not {bytes}");
}

/// Rooms with little make room, too, down to the last message: a client that goes from room to room and says
/// a few words in each filled the pool with rooms of which none stood out, and the router looked for one that
/// had something for ever.
#[test]
fn many_rooms_with_little_make_room_for_each_other() {
    let mut bench = Bench::with(|config| config.limits.history_bytes_max = 64 * 1024);
    for room in 0..1_000 {
        bench.join(A, RoomId(1_000 + room));
        let by_many = Submission { sender: UserId(1 + room), ..lossy(to_room(RoomId(1_000 + room), "")) };
        bench.submit(A, 1, Submission { payload: vec![1; 200].into(), ..by_many });
        bench.leave(A, RoomId(1_000 + room));
    }
    let metrics = bench.router.metrics();
    assert!(metrics.history_bytes <= 64 * 1024 && metrics.history_evicted > 800, "{metrics:?}");
    assert!(metrics.history_bytes > 60 * 1024, "the newest are kept: {metrics:?}");
}

/// A message that is alone in its room takes about a KiB, however short it is: the room's ring is there for
/// it.
#[test]
fn what_a_room_takes_for_one_short_message_counts() {
    let bytes_max = 256 * 1024;
    let mut bench = Bench::with(|config| config.limits.history_bytes_max = bytes_max);
    for room in 0..1_000 {
        bench.join(A, RoomId(1_000 + room));
        bench.submit(
            A,
            1,
            Submission { sender: UserId(1 + room), ..lossy(to_room(RoomId(1_000 + room), "")) },
        );
        bench.leave(A, RoomId(1_000 + room));
    }
    let metrics = bench.router.metrics();
    assert!(metrics.history_bytes <= bytes_max && metrics.history_messages < bytes_max / 900, "{metrics:?}");
    assert_eq!(metrics.history_rooms, metrics.history_messages, "a room that has nothing left is forgotten");
    // A room with many short ones pays once.
    let mut bench = Bench::new();
    bench.join(A, ROOM);
    said(&mut bench, ROOM, 100);
    let metrics = bench.router.metrics();
    assert!(metrics.history_messages == 100 && metrics.history_bytes < 42_000, "{metrics:?}");
}

/// One sender that goes through many rooms takes nothing from what the others' rooms keep.
#[test]
fn a_sender_has_a_share_of_what_all_rooms_keep() {
    let mut bench = Bench::with(|config| config.limits.history_bytes_max = 160 * 1024);
    let base = bench.join(A, ROOM);
    said(&mut bench, ROOM, 5);
    for room in 0..500 {
        bench.join(A, RoomId(1_000 + room));
        let loud = Submission { sender: UserId(77), ..lossy(to_room(RoomId(1_000 + room), "")) };
        bench.submit(A, 1, Submission { payload: vec![1; 900].into(), ..loud });
    }
    let metrics = bench.router.metrics();
    assert!(metrics.history_bytes < 13 * 1024 && metrics.history_evicted == 0, "{metrics:?}");
    assert_eq!(answer(&mut bench, A, base, 0).2.len(), 5);
    let base = bench.join(A, RoomId(1_499)) - 1;
    let [(_, part)] = &ask(&mut bench, A, RoomId(1_499), base, 0)[..] else { panic!("one part") };
    assert_eq!((part.gone, part.messages.len()), (base + 1, 0), "who asks is told that something is missing");
}

#[test]
fn a_room_that_all_have_left_is_remembered_until_it_is_old() {
    let mut bench = Bench::new();
    let base = bench.join(A, ROOM);
    said(&mut bench, ROOM, 2);
    bench.leave(A, ROOM);
    bench.pass(Duration::from_secs(5));
    let again = bench.join(B, ROOM);
    assert_eq!(answer(&mut bench, B, base + 1, 0), (again, base, vec![base + 2]));
    bench.leave(B, ROOM);
    bench.pass(Duration::from_secs(700));
    assert_eq!(bench.router.metrics().history_rooms, 0);
    let anew = bench.join(B, ROOM);
    assert_eq!(answer(&mut bench, B, base + 1, 0), (anew, anew, vec![]));
}

/// A shard that has seen more than this owner said has it from another. What this one has is told all the
/// same, and that something may be missing.
#[test]
fn what_another_owner_may_have_said_is_gone() {
    let mut bench = Bench::new();
    let base = bench.join(A, ROOM);
    said(&mut bench, ROOM, 2);
    let ahead = bench.join_from(B, ROOM, base + 10);
    let (sequence, gone, _) = answer(&mut bench, A, base, 0);
    assert_eq!((sequence, gone), (ahead, ahead));
    bench.leave(A, ROOM);
    bench.leave(B, ROOM);
    let again = bench.join_from(C, ROOM, ahead + 1);
    bench.pass(Duration::from_secs(3)); // what the owner before kept may come
    assert_eq!(answer(&mut bench, C, base, 0), (again, again, vec![base + 1, base + 2]));
    // The last owner has all, and what is here by chance gives way.
    bench.tell(B, kept(ahead..=ahead + 1, base, ahead + 1, true));
    assert_eq!(answer(&mut bench, C, base, 0), (again, base, vec![ahead, ahead + 1]));
}

/// The last member of a room left while gateways changed owners: perhaps for another owner, which said more
/// before they came back.
#[test]
fn what_was_left_while_owners_changed_may_not_be_all() {
    for changes in [false, true] {
        let mut bench = Bench::without_gateways(|_| {});
        let other = ShardId::new(11, 0);
        [C, other].into_iter().for_each(|shard| drop(bench.up(shard)));
        bench.pass(Duration::from_secs(10));
        [C, other].into_iter().for_each(|shard| drop(bench.view(shard, 1, true)));
        let base = bench.join(C, ROOM);
        bench.submit(C, 1, lossy(to_room(ROOM, "")));
        if changes {
            bench.view(other, 2, false);
        }
        bench.leave(C, ROOM);
        let again = bench.join_from(C, ROOM, base + 1);
        let asked = ask(&mut bench, C, ROOM, base, 0);
        let told = [asked, recalled(bench.pass(Duration::from_secs(30)))].concat();
        let [(_, part)] = &told[..] else { panic!("one part, not {told:?}") };
        assert_eq!(part.gone, if changes { again } else { base });
        assert_eq!(sequences(&part.messages), [base + 1]);
    }
}

/// The id of a message that was said at the start: what is old is not kept.
fn said_now() -> MessageId {
    MessageId((START.unix_millis() - 1_704_067_200_000) << 23)
}

fn kept(sequences: std::ops::RangeInclusive<u64>, gone: u64, upto: u64, is_first: bool) -> ToRouter {
    let first = said_now().0;
    let messages = sequences.map(|sequence| Message {
        id: MessageId(first + (sequence & 0xffff)),
        app: APP,
        sender: ALICE,
        biz_code: BizCode(5555),
        room: Some(ROOM),
        sequence,
        ack_wanted: false,
        client_msg_id: wire::ClientMsgId::new(bytes::Bytes::new()),
        payload: bytes::Bytes::from_static(b"before"),
    });
    let (router, messages) = (ShardId::new(5, 0).as_u32(), messages.collect());
    let is_sure = true;
    ToRouter::Kept(Box::new(Kept { router, app: APP, room: ROOM, gone, upto, is_first, is_sure, messages }))
}

/// What the owner before kept is waited for, and joined to what is said here.
#[test]
fn what_the_owner_before_kept_goes_before() {
    let mut bench = Bench::new();
    let before = 1 << 30;
    let base = bench.join_from(A, ROOM, before);
    said(&mut bench, ROOM, 1);
    assert_eq!(ask(&mut bench, A, ROOM, before - 3, 0), [], "it may come");
    assert_eq!(bench.router.metrics().recalls_waiting, 1);
    assert_eq!(answer(&mut bench, A, base, 0).2, [base + 1], "who wants less need not wait");
    bench.tell(A, kept(before - 1..=before, before - 2, before, true));
    let answers = bench.tell(A, kept(before - 3..=before - 2, before - 4, before - 2, false));
    let answers = recalled(answers);
    let [(A, part)] = &answers[..] else { panic!("the answer, not {answers:?}") };
    assert_eq!(sequences(&part.messages), [before - 2, before - 1, before, base + 1]);
    assert_eq!(part.gone, before - 4);
    assert_eq!(bench.router.metrics().history_taken, 2);
    // A part that does not touch is of no use, and neither is what another says.
    bench.tell(A, kept(before - 9..=before - 8, before - 10, before - 8, false));
    bench.tell(A, kept(before - 9..=before - 8, before - 10, before, true));
    assert_eq!(answer(&mut bench, A, before - 4, 0).1, before - 4);
    assert_eq!(bench.router.metrics().history_taken, 2);
    // A shard had seen more of the owner before than that kept.
    bench.join_from(B, ROOM, before + 7);
    assert_eq!(answer(&mut bench, A, base, 0).1, base);
}

/// A gateway hears of the next owner before it hears what became of its messages at the one before, so it
/// submits them again. The last few of a room are counted by their first places: in a later one a message may
/// stand behind what its sender said after it.
#[test]
fn what_has_two_places_counts_at_the_first_among_the_last() {
    let before = 1 << 30;
    for is_stream in [false, true] {
        let mut bench = if is_stream { writer() } else { Bench::new() };
        let base = bench.join_from(A, ROOM, before);
        let ToRouter::Kept(part) = kept(before - 3..=before, before - 4, before, true) else {
            unreachable!()
        };
        for again in &part.messages[1..3] {
            bench.submit_as(A, 1, Submission { id: again.id, again: true, ..lossy(to_room(ROOM, "")) });
        }
        if is_stream {
            bench.pass(Duration::from_secs(2)); // an owner that lives would have told
            ask(&mut bench, A, ROOM, before - 4, 0);
            let entries = part.messages.into_iter().map(Entry::Message).collect();
            bench.router.take_stream(bench.now, Stream { app: APP, room: ROOM, entries });
            bench.taken();
        } else {
            bench.tell(A, ToRouter::Kept(part));
        }
        assert_eq!(bench.router.metrics().history_messages, 6, "{is_stream}");
        let all = [before - 3, before - 2, before - 1, before, base + 1, base + 2];
        assert_eq!(answer(&mut bench, A, NONE, 1).2, all[1..], "the later places may be wanted by others");
        assert_eq!(answer(&mut bench, A, NONE, 4).2, all);
        assert_eq!(answer(&mut bench, A, base + 1, 0).2, all[5..]);
        let question = Question::History { app: APP, room: ROOM, last: 2 };
        let Answer::History { messages } = bench.router.answer(bench.now, question) else {
            panic!("a history")
        };
        assert_eq!(sequences(&messages), all[2..4]);
    }
}

#[test]
fn what_does_not_come_is_waited_for_in_vain_for_two_seconds() {
    let mut bench = Bench::new();
    let base = bench.join_from(A, ROOM, 1 << 30);
    assert_eq!(ask(&mut bench, A, ROOM, 9, 0), []);
    assert_eq!(ask(&mut bench, A, ROOM, NONE, 9), []);
    let answers = recalled(bench.pass(Duration::from_millis(2_100)));
    assert_eq!(answers.iter().map(|(_, part)| part.gone).collect::<Vec<_>>(), [base, base]);
}

/// Its next life counts its questions from the first again, and would take an answer for its own.
#[test]
fn what_the_life_before_has_asked_is_not_answered_to_the_next() {
    let mut bench = Bench::new();
    bench.join_from(A, ROOM, 1 << 30);
    assert_eq!(ask(&mut bench, A, ROOM, 9, 0), []);
    bench.up(A);
    assert_eq!(bench.router.metrics().recalls_waiting, 0);
    bench.join_from(A, ROOM, 1 << 30);
    assert_eq!(recalled(bench.pass(Duration::from_secs(3))), []);
}

/// A part of which a shard has seen more than it has is not all.
#[test]
fn an_owner_before_that_knows_too_little_is_not_believed() {
    let mut bench = Bench::new();
    let base = bench.join_from(A, ROOM, 1 << 30);
    bench.tell(A, kept(7..=8, 6, 8, true));
    bench.pass(Duration::from_secs(3));
    assert_eq!(answer(&mut bench, A, 7, 0), (base, base, vec![]));
}

/// Both gateways go by an owner that is not this router: it gives what it kept, the newest first.
#[test]
fn what_is_kept_moves_to_the_next_owner() {
    let mut bench = Bench::without_gateways(|_| {});
    let (gateway, other) = (C, ShardId::new(77, 0));
    let reach = |routers: &[ShardId]| {
        let mut routers: Vec<u32> = routers.iter().map(|router| router.as_u32()).collect();
        routers.sort_unstable();
        (ToRouter::Reach { routers: routers.clone(), clock: login(0) }, Owners::new(routers))
    };
    bench.up(gateway);
    let (alone, owners) = reach(&[ROUTER]);
    bench.tell(gateway, alone);
    bench.view(gateway, owners.name(), true);
    bench.pass(Duration::from_secs(3)); // others may come, after a start
    let (both, owners) = reach(&[ROUTER, other]);
    let of_other = |room: &RoomId| owners.of_room(APP, *room) == other.as_u32();
    let [in_use, left] = [1..50, 50..100].map(|mut rooms| rooms.find(|n| of_other(&RoomId(*n))).unwrap());
    let stays = (1..50).map(RoomId).find(|room| !of_other(room)).unwrap();
    for room in [RoomId(in_use), RoomId(left), stays] {
        bench.join(gateway, room);
        for _ in 0..3 {
            bench.submit(gateway, 1, lossy(to_room(room, "")));
        }
    }
    bench.leave(gateway, RoomId(left));
    bench.leave(gateway, stays);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.router.metrics().history_rooms, 3);
    bench.tell(gateway, both);
    bench.view(gateway, owners.name(), false);
    let said = bench.leave(gateway, RoomId(in_use));
    let [part] = &moved(&said)[..] else { panic!("one part: {said:?}") };
    assert_eq!((part.room, part.is_first, part.messages.len()), (RoomId(in_use), true, 3));
    assert_eq!((part.upto, part.gone), (part.messages[2].sequence, part.messages[0].sequence - 1));
    // What nobody is in goes as soon as they agree.
    let said = bench.view(gateway, owners.name(), true);
    assert_eq!(moved(&said).iter().map(|part| part.room).collect::<Vec<_>>(), [RoomId(left)]);
    assert_eq!(bench.router.metrics().history_rooms, 1);
    // It leaves, and not before it has given the rest away.
    bench.router.leave(bench.now);
    bench.taken();
    assert!(!bench.router.has_left());
    let (rest, owners) = reach(&[other]);
    bench.tell(gateway, rest);
    let mut said = bench.view(gateway, owners.name(), true);
    said.extend(bench.pass(Duration::from_secs(2)));
    assert_eq!(moved(&said).iter().map(|part| part.room).collect::<Vec<_>>(), [stays]);
    assert!(bench.router.has_left());
}

/// What a router has written of rooms, in the order in which the directory keeps it, and whether it has
/// asked.
fn written(bench: &mut Bench) -> (Vec<Entry>, bool) {
    let (mut entries, mut asks) = (Vec::new(), false);
    for record in std::mem::take(&mut bench.directory) {
        match record {
            ToDirectory::Keep { app: APP, room: ROOM, mut entry } => {
                if let Entry::Message(message) = &mut *entry {
                    message.id = said_now();
                }
                entries.push(*entry);
            }
            ToDirectory::Read { app: APP, room: ROOM } => asks = true,
            _ => {}
        }
    }
    let places = entries.iter().map(|entry| (entry.sequence(), entry.rank()));
    assert!(places.is_sorted_by(|a, b| a < b), "{entries:?}");
    (entries, asks)
}

fn writer() -> Bench {
    let mut bench = Bench::new();
    bench.router.write_streams();
    bench
}

/// A router that has the room after one that is dead.
struct Next {
    bench: Bench,
    /// What it writes.
    entries: Vec<Entry>,
    /// What it answers to who has seen up to a sequence.
    gone: u64,
    told: Vec<u64>,
}

/// A router that reads what others wrote. Members that came over to it have seen up to `seen`, and one asks
/// for all after `since`.
fn next_owner(entries: &[Entry], seen: u64, since: u64) -> Next {
    let (mut bench, mut own) = (writer(), Vec::new());
    bench.now += Duration::from_secs(1); // its clock has gone on, so it begins above
    bench.join_from(A, ROOM, seen);
    assert_eq!(ask(&mut bench, A, ROOM, since, 0), []);
    for tries in 0.. {
        let (written, asks) = written(&mut bench);
        own.extend(written);
        if asks {
            break;
        }
        assert!(tries < 30, "an owner that lives would have told by now, so the directory is asked");
        bench.pass(Duration::from_millis(100));
    }
    bench.router.take_stream(bench.now, Stream { app: APP, room: ROOM, entries: entries.to_vec() });
    let answers = recalled(bench.taken());
    let [(A, part)] = &answers[..] else { panic!("the answer, not {answers:?}") };
    own.extend(written(&mut bench).0);
    Next { gone: part.gone, told: sequences(&part.messages), bench, entries: own }
}

/// An owner that dies has written what it kept. The next one tells all of it, if members that came over have
/// seen no more.
#[test]
fn the_next_owner_reads_what_a_dead_one_wrote() {
    let mut first = writer();
    let base = first.join(A, ROOM);
    said(&mut first, ROOM, 5);
    let entries = written(&mut first).0;
    assert_eq!((entries.len(), &entries[0]), (6, &Entry::Gap(base)));
    let all: Vec<u64> = (base + 1..=base + 5).collect();
    // What both have written, the second after one more message.
    let both = |entries: &[Entry], mut next: Next| {
        said(&mut next.bench, ROOM, 1);
        [entries.to_vec(), next.entries, written(&mut next.bench).0].concat()
    };
    let second = next_owner(&entries, base + 5, base + 2);
    assert_eq!((second.gone, &second.told[..]), (base, &all[2..]));
    let entries_of_both = both(&entries, second);
    let last = entries_of_both[entries_of_both.len() - 1].sequence();
    let third = next_owner(&entries_of_both, last, base);
    assert_eq!((third.gone, third.told.len()), (base, 6));
    // What it had not written yet is missing: members have seen it.
    let second = next_owner(&entries[..5], base + 5, base + 2);
    assert_eq!(second.told, all[2..4]);
    assert!(second.gone > base + 5, "{}", second.gone);
    // And so it is when a third one reads.
    let entries_of_both = both(&entries[..5], second);
    let last = entries_of_both[entries_of_both.len() - 1].sequence();
    let third = next_owner(&entries_of_both, last, base + 2);
    assert_eq!((third.gone, third.told), (last - 1, [all[2..4].to_vec(), vec![last]].concat()));
    // One that died before it said anything, as far as one knows, may have said something.
    let silent = [&entries[..], &[Entry::Whole(base + 5), Entry::Gap(base + 9)]].concat();
    assert_eq!(next_owner(&silent, base + 9, base).gone, base);
    assert!(next_owner(&silent, 0, base).gone > base + 9);
}

/// An owner that died had not written its last messages, and members knew of them. The next one began above
/// them and was left before it had read the stream, or had read in vain. A third one is to find what the
/// second one knew.
#[test]
fn what_members_knew_of_is_written_for_the_owner_after_the_next() {
    let mut first = writer();
    let base = first.join(A, ROOM);
    said(&mut first, ROOM, 2);
    first.leave(A, ROOM);
    let entries = written(&mut first).0;
    assert_eq!(entries.last(), Some(&Entry::Whole(base + 2)));
    let second = |seen: &[u64]| {
        let mut second = writer();
        second.now += Duration::from_secs(1);
        for (shard, seen) in [A, B].into_iter().zip(seen) {
            second.join_from(shard, ROOM, *seen);
        }
        said(&mut second, ROOM, 1);
        [A, B].into_iter().for_each(|shard| drop(second.leave(shard, ROOM)));
        let own = written(&mut second).0;
        ([&entries[..], &own].concat(), own[0].sequence())
    };
    for known in [&[base + 2][..], &[base + 1, base + 2], &[base + 2, base + 1]] {
        let (stream, _) = second(known);
        let third = next_owner(&stream, stream[stream.len() - 1].sequence(), base);
        assert_eq!((third.gone, third.told.len()), (base, 3), "the stream has come as far");
    }
    for known in [&[base + 3][..], &[0, base + 3], &[base + 2, base + 3], &[base + 3, base + 4]] {
        let (stream, anew) = second(known);
        let third = next_owner(&stream, stream[stream.len() - 1].sequence(), base);
        assert_eq!((third.gone, third.told.len()), (anew, 3), "there was more: {known:?}");
    }
}

/// Two owners, each of some gateways. The one whose message the directory refused begins again above the
/// other, and says in the stream that something is missing. The other one reads that, and tells nobody that
/// all is there.
#[test]
fn an_owner_whose_message_is_refused_says_so_to_the_other() {
    let mut first = writer();
    let base = first.join(A, ROOM);
    said(&mut first, ROOM, 3);
    let entries = written(&mut first).0;
    said(&mut first, ROOM, 1);
    assert_eq!(written(&mut first).0.len(), 1);
    let refused = base + 4;
    first.router.stream_is_ahead(first.now, APP, ROOM, refused);
    first.router.stream_is_ahead(first.now, APP, ROOM, refused + 1); // of the same
    first.taken();
    let again = written(&mut first).0;
    let [Entry::Lost(anew)] = again[..] else { panic!("{again:?}") };
    let far = [&entries[..], &[Entry::Lost(anew + (1 << 40))]].concat();
    assert_eq!(next_owner(&entries, base + 3, base).gone, base, "it has all, as far as one knows");
    assert!(next_owner(&far, base + 3, base).gone > base + 3);
    // Two that overtake each other stay near the clock.
    for _ in 0..100 {
        said(&mut first, ROOM, 1);
        let last = written(&mut first).0.last().map(Entry::sequence).unwrap();
        first.router.stream_is_ahead(first.now, APP, ROOM, last);
    }
    said(&mut first, ROOM, 1);
    let last = written(&mut first).0.last().map(Entry::sequence).unwrap();
    assert!(last < base + (8 << 21), "{} cycles", (last - base) >> 21);
}

/// A room that all have left is written to its end: whoever comes then was told all.
#[test]
fn a_room_that_was_empty_when_its_owner_died_is_read() {
    let mut first = writer();
    let base = first.join(A, ROOM);
    said(&mut first, ROOM, 2);
    let unfinished = written(&mut first).0;
    first.leave(A, ROOM);
    let entries = [unfinished.clone(), written(&mut first).0].concat();
    assert_eq!(entries.last(), Some(&Entry::Whole(base + 2)));
    assert_eq!(next_owner(&entries, 0, base).gone, base);
    assert!(next_owner(&unfinished, 0, base).gone > base + 2, "who knows whether more was said");
    assert!(next_owner(&[], 0, base).gone > base + 2);
}

/// A directory that does not answer is waited for half a second, and not asked again.
#[test]
fn a_directory_that_does_not_answer_holds_nobody_up() {
    let mut bench = writer();
    let base = bench.join(A, ROOM);
    assert_eq!(ask(&mut bench, A, ROOM, 9, 0), []);
    let answers = recalled(bench.pass(Duration::from_millis(600)));
    assert_eq!(answers.iter().map(|(_, part)| part.gone).collect::<Vec<_>>(), [base]);
    assert_eq!(answer(&mut bench, A, 9, 0).1, base);
    // It comes late: what is true is true.
    written(&mut bench);
    let entries = vec![Entry::Gap(8), Entry::Whole(base - 1)];
    bench.router.take_stream(bench.now, Stream { app: APP, room: ROOM, entries });
    assert_eq!(answer(&mut bench, A, 9, 0).1, 8);
}

/// What was told to a directory that has lost something is not counted on.
#[test]
fn a_directory_that_lost_something_gets_a_gap() {
    let mut bench = writer();
    let base = bench.join(A, ROOM);
    said(&mut bench, ROOM, 2);
    bench.router.tell_directory_all(bench.now);
    written(&mut bench);
    said(&mut bench, ROOM, 1);
    assert_eq!(written(&mut bench).0[0], Entry::Lost(base + 2));
}

/// Another owner has begun above this one in the same moment. The directory refuses what this one says, until
/// it begins anew above that one. A reader of the stream then sees that something is missing, although each
/// of them has left the room in order.
#[test]
fn an_owner_whose_beginning_is_refused_begins_again_above() {
    let mut bench = writer();
    let base = bench.join(A, ROOM);
    said(&mut bench, ROOM, 2);
    assert_eq!(written(&mut bench).0[0], Entry::Gap(base));
    bench.router.stream_is_ahead(bench.now, APP, ROOM, base);
    bench.router.stream_is_ahead(bench.now, APP, ROOM, base); // that of a repeat
    said(&mut bench, ROOM, 1);
    bench.leave(A, ROOM);
    let entries = written(&mut bench).0;
    let Entry::Lost(anew) = entries[0] else { panic!("{entries:?}") };
    assert!(anew > base + (1 << 21), "above a slot of the cycle after this");
    assert_eq!((entries.len(), entries.last()), (3, Some(&Entry::Whole(anew + 1))));
    let other = base + 1_000;
    let stream = [&[Entry::Gap(other), Entry::Whole(other)], &entries[..]].concat();
    let next = next_owner(&stream, anew + 1, base);
    assert_eq!((next.gone, next.told), (anew, vec![anew + 1]));
}

/// A storm of shards that want all of a room leaves each turn to others, and all of them are answered.
#[test]
fn a_storm_of_questions_is_answered_step_by_step() {
    let mut bench = Bench::with(|config| config.limits.history_bytes = 1 << 20);
    for shard in [A, B, C] {
        bench.join(shard, ROOM);
    }
    let heavy = Submission { payload: vec![1; 9_000].into(), ..lossy(to_room(ROOM, "")) };
    for _ in 0..90 {
        bench.submit(A, 1, heavy.clone());
    }
    let weigh = |parts: &[(ShardId, Recalled)]| -> usize {
        parts.iter().flat_map(|(_, part)| &part.messages).map(|message| message.payload.len()).sum()
    };
    let mut whole = 0;
    for ask in 0..200 {
        let mail = bench.tell(A, ToRouter::Recall { app: APP, room: ROOM, ask, since: 0, last: 0 });
        whole += weigh(&recalled(mail));
    }
    assert!(whole <= 2 << 20, "{whole} bytes in one turn");
    assert!(bench.router.metrics().recalls_waiting > 150);
    let mut steps = 0;
    while bench.router.metrics().recalls_waiting > 0 {
        let parts = recalled(bench.pass(Duration::from_millis(2)));
        assert!(weigh(&parts) <= 2 << 20);
        whole += weigh(&parts);
        steps += 1;
        assert!(steps < 1_000);
    }
    assert_eq!(whole, 200 * 90 * 9_000);
}

#[test]
fn an_operator_sees_the_last_messages() {
    let mut bench = Bench::new();
    let base = bench.join(A, ROOM);
    said(&mut bench, ROOM, 5);
    let question = Question::History { app: APP, room: ROOM, last: 2 };
    let Answer::History { messages } = bench.router.answer(bench.now, question) else { panic!("a history") };
    assert_eq!(sequences(&messages), [base + 4, base + 5]);
}

/// The owner before lost a gateway after the room was empty there, which may have gone by another owner. Its
/// members would know.
#[test]
fn what_the_owner_before_is_not_sure_of_needs_a_witness() {
    let last = 1 << 30;
    for (seen, told) in [(0, vec![]), (last, vec![last])] {
        let mut bench = Bench::new();
        let base = bench.join_from(A, ROOM, seen);
        let ToRouter::Kept(mut part) = kept(last..=last, last - 1, last, true) else { unreachable!() };
        part.is_sure = false;
        bench.tell(B, ToRouter::Kept(part));
        bench.pass(Duration::from_secs(3));
        let gone = if told.is_empty() { base } else { last - 1 };
        assert_eq!(answer(&mut bench, A, last - 1, 0), (base, gone, told), "seen {seen}");
    }
}

/// What is kept from before a room was empty is not all, if a member comes that has seen more by then.
#[test]
fn a_member_that_has_seen_more_is_believed_after_a_room_was_empty() {
    let mut bench = Bench::new();
    let base = bench.join(A, ROOM);
    said(&mut bench, ROOM, 2);
    bench.leave(A, ROOM);
    bench.now += Duration::from_secs(5);
    let anew = bench.join_from(A, ROOM, base + 2);
    let all = vec![base + 1, base + 2];
    assert_eq!(answer(&mut bench, A, base, 0), (anew, base, all), "nobody said more");
    bench.join_from(B, ROOM, base + 3);
    bench.pass(Duration::from_secs(3)); // what the owner before kept is waited for
    assert_eq!(answer(&mut bench, A, base, 0).1, anew);
}

/// Its members of another owner have seen what that one said above the first beginning: none of it is here.
#[test]
fn what_another_owner_said_above_a_refused_beginning_is_missing() {
    let mut bench = writer();
    let base = bench.join(A, ROOM);
    bench.router.stream_is_ahead(bench.now, APP, ROOM, base);
    bench.taken();
    let entries = written(&mut bench).0;
    let [.., Entry::Lost(anew)] = entries[..] else { panic!("{entries:?}") };
    said(&mut bench, ROOM, 1);
    bench.join_from(B, ROOM, base + 1_010);
    assert_eq!(ask(&mut bench, A, ROOM, base + 1_005, 0), []);
    let answers = recalled(bench.pass(Duration::from_secs(3)));
    let [(A, part)] = &answers[..] else { panic!("the answer, not {answers:?}") };
    assert_eq!((part.gone, sequences(&part.messages)), (anew, vec![anew + 1]));
}

/// What nobody is sure of does not become sure by resting at a router that has lost no gateway yet.
#[test]
fn what_is_unsure_is_not_kept_for_a_room_that_nobody_is_in() {
    let last = 1 << 30;
    for (is_sure, count) in [(false, 0), (true, 1)] {
        let mut bench = Bench::new();
        let ToRouter::Kept(mut part) = kept(last..=last, last - 1, last, true) else { unreachable!() };
        part.is_sure = is_sure;
        bench.tell(B, ToRouter::Kept(part));
        bench.pass(Duration::from_secs(5));
        assert_eq!(bench.router.metrics().history_messages, count);
        assert!(bench.join(A, ROOM) > last, "it goes on above in any case");
    }
}
