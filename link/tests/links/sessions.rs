//! What a session outlives, and what it does not.

use std::time::Duration;

use shard::ShardId;
use wire::node::link::Refusal;

use crate::world::{World, address, millis};

const GATEWAY: ShardId = ShardId::new(1, 0);
const ROUTER: ShardId = ShardId::new(2, 0);
const BAD_BATCH: usize = Refusal::BadBatch as usize - 1;

fn both_say(world: &mut World, count: usize) {
    for _ in 0..count {
        world.say(0, ROUTER);
        world.say(1, GATEWAY);
    }
}

fn all_came(world: &World) {
    for (from, to) in [(0, 1), (1, 0)] {
        let (heard, said) = world.progress(from, to);
        assert!(heard == said && said > 0, "{heard} of {said} from {from} to {to}");
    }
    assert!(world.nodes.iter().all(|node| node.links.are_flushed()));
}

#[test]
fn a_broken_connection_loses_nothing() {
    let mut world = World::linked_pair(1);
    for round in 1..20 {
        both_say(&mut world, 100);
        world.is_slow = true;
        world.run(millis(10));
        world.reset_all();
        both_say(&mut world, 100);
        world.is_slow = false;
        world.run(millis(300));
        assert_eq!(world.nodes[0].links.metrics().resumed, round);
    }
    world.run(millis(500));
    all_came(&world);
    assert_eq!((world.take_changes(0), world.take_changes(1)), (vec![], vec![]));
}

/// Some 900 bytes go over a link that is made and takes ten messages each way.
#[test]
fn a_reset_at_any_byte_loses_nothing() {
    let mut resumed = 0;
    for at in 1..1_200 {
        let mut world = World::pair(at);
        world.step = millis(20);
        world.chunk = 1 + at as usize % 40;
        world.reset_after = Some(at as usize);
        world.run(millis(20));
        both_say(&mut world, 5);
        world.run(millis(20));
        both_say(&mut world, 5);
        world.reset_after = world.reset_after.or(Some(at as usize / 2 + 1));
        world.run(millis(800));
        both_say(&mut world, 1);
        world.run(millis(400));
        all_came(&world);
        // Before the Welcome has come, only the acceptor knows of the session.
        let [gateway, router] = [0, 1].map(|node| world.take_changes(node));
        assert_eq!(gateway, [(2, true)], "reset after {at}");
        let anew = [(1, true), (1, false), (1, true)];
        assert!(router == anew[..1] || router == anew, "reset after {at}: {router:?}");
        resumed += world.nodes[0].links.metrics().resumed;
    }
    assert!(resumed > 800, "{resumed}");
}

#[test]
fn a_broken_batch_ends_the_session_and_the_link_comes_back() {
    for (from, to, peer) in [(0, 1, ROUTER), (1, 0, GATEWAY)] {
        let mut world = World::linked_pair(1);
        both_say(&mut world, 5);
        world.run(millis(50));
        world.corrupt = true;
        world.say(from, peer);
        world.run(millis(5));
        for node in [0, 1] {
            assert_eq!(world.take_changes(node), [([2, 1][node], false)], "told at once");
            assert_eq!(world.nodes[node].links.metrics().refused[BAD_BATCH], 1, "counted at both ends");
        }
        world.run(millis(300));
        assert_eq!((world.take_changes(0), world.take_changes(1)), (vec![(2, true)], vec![(1, true)]));
        both_say(&mut world, 5);
        world.run(millis(300));
        assert_eq!(world.progress(from, to), (5, 5));
        all_came(&world);
    }
}

#[test]
fn a_restart_is_down_then_up() {
    for (node, other) in [(0, 1), (1, 0)] {
        let mut world = World::linked_pair(1);
        both_say(&mut world, 5);
        world.run(millis(20));
        both_say(&mut world, 5);
        world.restart(node);
        if node == 0 {
            world.nodes[0].links.set_nodes(&[address(2000)], &[]);
        }
        world.run(millis(300));
        let peer = world.nodes[node].id.node();
        assert_eq!(world.take_changes(other), [(peer, false), (peer, true)]);
        both_say(&mut world, 3);
        world.run(millis(300));
        all_came(&world);
        assert_eq!(world.progress(0, 1), (3, 3));
    }
}

#[test]
fn a_frozen_peer_is_waited_for() {
    // A gateway waits half the lease for a router, a router all of it for a gateway. The last word may be a
    // ping old.
    for (frozen, waits, patience) in [(1, 0, 1_500), (0, 1, 3_000)] {
        let mut world = World::linked_pair(1);
        world.run(millis(1_000));
        world.nodes[frozen].is_frozen = true;
        world.run(millis(patience - 300));
        assert_eq!(world.take_changes(waits), []);
        assert_eq!(world.nodes[waits].links.peers().count(), 1);
        world.run(millis(350));
        assert_eq!(world.take_changes(waits), [(world.nodes[frozen].id.node(), false)]);
        world.nodes[frozen].is_frozen = false;
        world.run(millis(7_000));
        assert!(world.nodes[0].links.are_routers_complete());
        both_say(&mut world, 3);
        world.run(millis(300));
        all_came(&world);
    }
}

#[test]
fn a_peer_that_thaws_in_time_goes_on() {
    for frozen in [0, 1] {
        let mut world = World::linked_pair(1);
        world.nodes[frozen].is_frozen = true;
        both_say(&mut world, 50);
        world.run(millis(1_000));
        world.nodes[frozen].is_frozen = false;
        world.run(millis(2_000));
        assert_eq!((world.take_changes(0), world.take_changes(1)), (vec![], vec![]));
        all_came(&world);
    }
}

/// A peer that is late again and again is waited for longer, so that it comes to rest; later one that is lost
/// is lost as soon as ever.
#[test]
fn links_that_flap_are_waited_for() {
    for frozen in [0, 1] {
        let mut world = World::linked_pair(1);
        let mut losses = Vec::new();
        let mut freeze = |world: &mut World, ms| {
            world.nodes[frozen].is_frozen = true;
            world.run(millis(ms));
            world.nodes[frozen].is_frozen = false;
            world.run(millis(1_000));
            both_say(world, 5);
            world.run(millis(500));
            losses.push(world.take_changes(1 - frozen).len() / 2);
        };
        for _ in 0..8 {
            freeze(&mut world, 4_000);
        }
        world.run(millis(60_000));
        freeze(&mut world, 4_000);
        // The connector waits for half a lease of 3 s in the first two sessions, then twice and four times as
        // long.
        assert_eq!(losses, [1, 1, 1, 0, 0, 0, 0, 0, 1]);
        let peers = world.nodes.iter().map(|node| node.links.peers().count());
        assert_eq!(peers.collect::<Vec<_>>(), [1, 1]);
    }
}

#[test]
fn bye_is_down_at_once() {
    for (leaves, stays) in [(0, 1), (1, 0)] {
        let mut world = World::linked_pair(1);
        both_say(&mut world, 5);
        world.run(millis(300));
        world.nodes[leaves].links.say_bye();
        world.nodes[leaves].hear();
        world.nodes[leaves].links.check_invariants();
        world.run(millis(5));
        let peers = [leaves, stays].map(|node| world.nodes[node].id.node());
        assert_eq!(world.take_changes(leaves), [(peers[1], false)]);
        assert_eq!(world.take_changes(stays), [(peers[0], false)]);
        world.run(millis(2_000));
        assert_eq!((world.take_changes(0), world.take_changes(1)), (vec![], vec![]));
        assert_eq!(world.nodes[leaves].links.poll_timeout(), None, "it has nothing left to do");
    }
}

/// In the turn in which the next life of a peer links, the cores may still speak of what they know from the
/// life before.
#[test]
fn what_is_said_before_a_peer_is_known_to_be_there_is_not_for_it() {
    let mut world = World::linked_pair(1);
    world.restart(0);
    world.nodes[0].links.set_nodes(&[address(2000)], &[]);
    world.nodes[1].hears_later = true;
    world.run(millis(300));
    let (now, router) = (world.now, &mut world.nodes[1]);
    let drain = || wire::node::LinkMessage::ToGateway(wire::node::ToGateway::Drain);
    assert_eq!(router.links.peers().count(), 1, "its next life is linked");
    router.links.send(now, GATEWAY, drain());
    assert_eq!((router.links.metrics().unreachable, router.links.are_flushed()), (1, true));
    router.hears_later = false;
    router.hear();
    router.links.send(now, GATEWAY, drain());
    assert_eq!((router.links.metrics().unreachable, router.links.are_flushed()), (1, false));
}

#[test]
fn a_message_to_nobody_is_counted() {
    let mut world = World::pair(1);
    let message = wire::node::ToRouter::View { view: 1, done: true };
    let now = world.now;
    world.nodes[0].links.send(now, ROUTER, wire::node::LinkMessage::ToRouter(message));
    assert_eq!(world.nodes[0].links.metrics().unreachable, 1);
    assert!(world.nodes[0].links.are_flushed());
}

#[test]
fn a_busy_link_writes_once_an_interval() {
    let mut world = World::pair_with(1, |config| config.interval_us = 50_000);
    world.run(millis(500));
    let before = world.nodes[1].links.metrics().batches_out;
    for _ in 0..100 {
        world.say(1, GATEWAY);
        world.run(millis(5));
    }
    world.run(millis(100));
    let batches = world.nodes[1].links.metrics().batches_out - before;
    // The first few make it busy; after that, ten messages are said in an interval, the first of them with
    // its flush.
    assert!((10..30).contains(&batches), "{batches}");
    assert_eq!(world.progress(1, 0), (100, 100));
}

#[test]
fn no_interval_writes_everything_at_once() {
    let mut world = World::pair_with(1, |config| config.interval_us = 0);
    world.run(millis(500));
    let before = world.nodes[1].links.metrics().batches_out;
    for _ in 0..3 {
        world.say(1, GATEWAY);
        world.run(Duration::ZERO);
    }
    assert_eq!(world.nodes[1].links.metrics().batches_out, before + 3);
}
