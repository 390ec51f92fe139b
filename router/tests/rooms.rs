//! Rooms: who gets a message, and in which order.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::*;
use shard::ShardId;
use wire::client::{FailReason, Message, Outcome};
use wire::node::{Login, ToGateway, ToRouter};
use wire::{MessageId, RoomId};

/// The broadcasts of some mail, with their receivers.
fn broadcasts(mail: &Mail) -> Vec<(ShardId, Message)> {
    let broadcast = |(to, mail): &(ShardId, Said)| match mail {
        Said::ToGateway(ToGateway::Broadcast { message, .. }) => Some((*to, message.clone())),
        _ => None,
    };
    mail.iter().filter_map(broadcast).collect()
}

#[test]
fn each_shard_with_members_gets_it_once_and_the_sender_its_place() {
    let mut bench = Bench::new();
    let base = bench.join(C, ROOM);
    for shard in [A, B, A] {
        assert_eq!(bench.join(shard, ROOM), base);
    }
    bench.join(A, RoomId(8));
    let submitted = to_room(ROOM, "m1");
    let said = bench.submit(A, 1, submitted.clone());
    let sent = broadcasts(&said);
    assert_eq!(sent.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [A, B, C]);
    let message = &sent[0].1;
    assert_eq!((message.room, message.sequence, message.ack_wanted), (Some(ROOM), base + 1, true));
    assert!(sent.iter().all(|(_, other)| other == message));
    assert!(sent.iter().all(|(_, other)| other.payload.as_ptr() == submitted.payload.as_ptr()), "shared");
    let sequenced = Outcome::Sequenced { sequence: base + 1 };
    assert_eq!(said[3..], [send_ack(A, 1, "m1", message.id, message.id, sequenced)]);
    let metrics = bench.router.metrics();
    assert_eq!((metrics.broadcasts, metrics.rooms, metrics.submitted_room_reliable), (3, 2, 1));
}

#[test]
fn all_shards_see_one_order_without_gaps() {
    let mut bench = Bench::new();
    let base = bench.join(A, ROOM);
    bench.join(B, ROOM);
    let mut seen: BTreeMap<ShardId, Vec<u64>> = BTreeMap::new();
    for n in 0..100 {
        let sender = [A, B, C][n % 3];
        for (to, message) in broadcasts(&bench.submit(sender, 1, to_room(ROOM, &n.to_string()))) {
            seen.entry(to).or_default().push(message.sequence);
        }
        if n == 50 {
            assert_eq!(bench.join(C, ROOM), base + 51, "a shard that joins hears where the room stands");
        }
    }
    let all: Vec<u64> = (base + 1..=base + 100).collect();
    assert_eq!(seen[&A], all);
    assert_eq!(seen[&B], all);
    assert_eq!(seen[&C], all[51..]);
}

#[test]
fn a_shard_that_left_gets_nothing() {
    let mut bench = Bench::new();
    for shard in [A, B, C] {
        bench.join(shard, ROOM);
    }
    assert_eq!(bench.leave(B, ROOM), []);
    assert_eq!(bench.leave(B, ROOM), [], "once more does no harm");
    let sent = broadcasts(&bench.submit(A, 1, to_room(ROOM, "m1")));
    assert_eq!(sent.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [A, C]);
    assert_eq!(bench.router.room_shards(APP, ROOM), [A, C]);
}

#[test]
fn an_empty_room_is_forgotten_and_comes_again_higher() {
    let mut bench = Bench::new();
    let mut last = bench.join(A, ROOM);
    for _ in 0..5 {
        for _ in 0..3 {
            last = broadcasts(&bench.submit(A, 1, to_room(ROOM, "")))[0].1.sequence;
        }
        bench.leave(A, ROOM);
        assert_eq!(bench.router.metrics().rooms, 0);
        // In the same millisecond, so that time alone does not keep the order.
        let again = bench.join(A, ROOM);
        assert!(again >= last, "{again} after {last}");
        last = again;
    }
    bench.leave(A, ROOM);
    bench.pass(Duration::from_millis(1));
    let again = bench.join(A, ROOM);
    assert!(again >= last && again < 1 << 53);
    let restarted = Bench { now: bench.now + Duration::from_secs(1), ..Bench::new() }.join(A, ROOM);
    assert!(restarted > again, "another router continues higher too");
}

#[test]
fn a_lossy_message_has_its_place_too() {
    let mut bench = Bench::new();
    let base = bench.join(A, ROOM);
    let said = bench.submit(A, 1, lossy(to_room(ROOM, "m1")));
    let message = &broadcasts(&said)[0].1;
    assert_eq!((message.sequence, message.ack_wanted), (base + 1, false));
    let sequenced = Outcome::Sequenced { sequence: base + 1 };
    assert_eq!(said[1..], [send_ack(A, 1, "m1", message.id, message.id, sequenced)]);
    assert_eq!(bench.submit(A, 1, lossy(to_room(ROOM, ""))).len(), 1, "no name, no send-ack");
}

/// The gateway has checked that the sender is in the room, so the router is behind; the sender is to try
/// again.
#[test]
fn a_room_that_the_router_does_not_know_is_busy() {
    let mut bench = Bench::new();
    let busy = Outcome::Failed(FailReason::Busy);
    let said = bench.submit(A, 1, to_room(ROOM, "m1"));
    assert_eq!(said, [send_ack(A, 1, "m1", bench.last_id, MessageId(0), busy)]);
    assert_eq!(bench.router.metrics().rooms, 0);
    bench.join(A, ROOM);
    assert_eq!(broadcasts(&bench.submit(A, 1, to_room(ROOM, "m1"))).len(), 1, "it is not remembered");
}

/// The broadcasts of some mail: to whom, and for which shards of the node.
fn shards_of(mail: &Mail) -> Vec<(ShardId, Vec<u16>)> {
    let broadcast = |(to, mail): &(ShardId, Said)| match mail {
        Said::ToGateway(ToGateway::Broadcast { shards, .. }) => Some((*to, shards.clone())),
        _ => None,
    };
    mail.iter().filter_map(broadcast).collect()
}

#[test]
fn another_node_gets_one_message_and_all_of_a_room_by_the_same_shard() {
    let mut bench = Bench::new();
    let there = |index| ShardId::new(12, index);
    (0..4).for_each(|index| drop(bench.up_of(there(index), 4)));
    for room in [ROOM, RoomId(8), RoomId(-1)] {
        for shard in [there(2), B, there(0), A] {
            bench.join(shard, room);
        }
    }
    for _ in 0..3 {
        let said = bench.submit(A, 1, to_room(ROOM, ""));
        let expected = [(A, vec![]), (B, vec![]), (there(3), vec![0, 2])];
        assert_eq!(shards_of(&said), expected, "7 modulo 4, though it has no member");
    }
    assert_eq!(bench.router.metrics().broadcasts, 9);
    let picked = |bench: &mut Bench, room| shards_of(&bench.submit(A, 1, to_room(room, "")))[2].0;
    assert_eq!(picked(&mut bench, RoomId(8)), there(0));
    assert_eq!(picked(&mut bench, RoomId(-1)), there(3));
    bench.down(there(3));
    let said = bench.submit(A, 1, to_room(ROOM, ""));
    let each = [(A, vec![]), (B, vec![]), (there(0), vec![]), (there(2), vec![])];
    assert_eq!(shards_of(&said), each, "each by itself when the one that is picked is gone");
}

/// Its owner before may have given some places that no shard had seen yet.
#[test]
fn a_room_goes_on_well_above_what_any_member_has_seen() {
    let mut bench = Bench::new();
    let base = bench.join(A, ROOM);
    let seen = base + 5;
    let after = bench.join_from(B, ROOM, seen);
    assert!((seen + (1 << 16)..seen + (1 << 16) + (1 << 21)).contains(&after), "{after} after {seen}");
    assert_eq!(bench.join_from(C, ROOM, seen - 1), after, "less is no news");
    let sent = broadcasts(&bench.submit(A, 1, to_room(ROOM, "m")));
    assert!(sent.iter().all(|(_, message)| message.sequence == after + 1));
    let unknown = RoomId(8);
    assert_eq!(bench.join_from(B, unknown, seen), after);
    bench.leave(B, unknown);
    assert_eq!(bench.join(A, unknown), after, "never back");
}

/// Two gateways go by different owners for a while, which hear of the room in the same moment.
#[test]
fn no_two_owners_begin_a_room_at_the_same_sequence() {
    let routers = (1..=40).flat_map(|node| (0..8).map(move |index| ShardId::new(node, index)));
    for seen in [0, 1, (1 << 50) + 7] {
        let mut begins: Vec<u64> = Vec::new();
        for router in routers.clone() {
            begins.push(Bench::with(|config| config.id = router).join_from(C, ROOM, seen));
        }
        begins.sort_unstable();
        let apart = begins.windows(2).map(|pair| pair[1] - pair[0]).min();
        assert!(apart >= Some(64), "{apart:?} messages apart");
    }
}

/// The owner before was ahead by its clock, and no member of the room is left that has seen a sequence of it.
#[test]
fn a_room_begins_by_the_fastest_clock_of_the_cluster() {
    let hour = 3_600_000_000_000;
    let mut ahead = Bench { now: START + Duration::from_nanos(hour), ..Bench::new() };
    let before = ahead.join(A, ROOM);
    let mut bench = Bench::new();
    let clock = Login(ahead.now.unix_nanos() + 1_000_000_000);
    bench.tell(C, ToRouter::Reach { routers: vec![ROUTER.as_u32()], clock });
    let after = bench.join(A, ROOM);
    assert!(after > before, "{after} after {before}");
}

#[test]
fn a_router_has_so_many_shards_in_rooms() {
    let mut bench = Bench::with(|config| config.limits.memberships_max = 2);
    bench.join(A, ROOM);
    bench.join(B, ROOM);
    bench.join(A, ROOM);
    let full = |shard, room| (shard, Said::ToGateway(ToGateway::Full { app: APP, room }));
    for room in [ROOM, RoomId(8)] {
        let said = bench.tell(C, ToRouter::Join { app: APP, room, sequence: 0 });
        assert_eq!(said, [full(C, room)]);
    }
    assert_eq!((bench.router.room_shards(APP, ROOM), bench.router.metrics().joins_refused), (&[A, B][..], 2));
    bench.leave(B, ROOM);
    bench.join(C, RoomId(8));
}
