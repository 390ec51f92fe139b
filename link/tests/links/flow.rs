//! Nothing grows because a peer is slow.

use shard::ShardId;
use wire::node::link::Role;

use crate::world::{SECRET, World, address, millis};

const GATEWAY: ShardId = ShardId::new(1, 0);
const ROUTER: ShardId = ShardId::new(2, 0);

fn world(window_bytes: u32) -> World {
    let mut world = World::new(1);
    world.config.window_bytes = window_bytes;
    world.config.queue_bytes_max = 1 << 20;
    world.socket_bytes = 64 << 20;
    world.add(Role::Gateway, ShardId::new(1, 0), 1, 1000, SECRET);
    world.add(Role::Router, ROUTER, 1, 2000, SECRET);
    world.nodes[0].links.set_nodes(&[address(2000)], &[]);
    world.run(millis(100));
    assert!(world.nodes[0].links.are_routers_complete());
    world
}

#[test]
fn the_window_bounds_what_is_written_and_push_back_ends() {
    let window = 256 << 10;
    let mut world = world(window);
    world.nodes[1].is_deaf = true;
    let before = world.nodes[0].written;
    for _ in 0..20_000 {
        world.say(0, ROUTER);
    }
    assert!(world.nodes[0].links.is_pushed_back() && world.nodes[0].links.is_full(ROUTER));
    world.run(millis(500));
    let written = world.nodes[0].written - before;
    let one_batch = 1024 * 80;
    assert!((window as usize..window as usize + one_batch + 500).contains(&written), "{written}");
    assert!(world.nodes[0].links.is_pushed_back());
    assert!(world.nodes[0].links.metrics().queued_bytes > 1 << 20);
    world.nodes[1].is_deaf = false;
    world.run(millis(1_000));
    assert_eq!(world.progress(0, 1), (20_000, 20_000));
    assert!(!world.nodes[0].links.is_pushed_back() && !world.nodes[0].links.is_full(ROUTER));
    world.run(millis(300));
    assert!(world.nodes[0].links.are_flushed());
    assert_eq!(world.nodes[0].links.metrics().queued_bytes, 0);
    assert_eq!((world.take_changes(0).len(), world.take_changes(1).len()), (1, 1), "one session");
}

#[test]
fn a_routers_queue_at_its_ceiling_ends_the_session() {
    let mut world = world(64 << 10);
    world.nodes[0].is_deaf = true;
    let ceiling = 8 * (1 << 20) / 128;
    for _ in 0..ceiling {
        world.say(1, GATEWAY);
    }
    assert_eq!(world.take_changes(1), [(1, true)]);
    world.say(1, GATEWAY);
    assert_eq!(world.take_changes(1), [(1, false)]);
    assert!(!world.nodes[1].links.is_pushed_back());
    world.nodes[1].links.check_invariants();
    world.nodes[0].is_deaf = false;
    world.run(millis(300));
    assert_eq!(world.take_changes(1), [(1, true)]);
    assert_eq!(world.take_changes(0), [(2, true), (2, false), (2, true)]);
}

#[test]
fn a_gateways_queue_has_no_ceiling_but_its_clients_are_held_back() {
    let mut world = world(64 << 10);
    world.nodes[1].is_deaf = true;
    let said = 16 * (1 << 20) / 128;
    for _ in 0..said {
        world.say(0, ROUTER);
    }
    assert!(world.nodes[0].links.is_pushed_back());
    world.nodes[1].is_deaf = false;
    world.run(millis(1_000));
    assert_eq!(world.progress(0, 1), (said, said), "nothing is said twice");
    assert_eq!(world.take_changes(0), [(2, true)]);
}

#[test]
fn a_push_back_ends_with_its_peer() {
    let mut world = world(64 << 10);
    world.nodes[1].is_deaf = true;
    for _ in 0..20_000 {
        world.say(0, ROUTER);
    }
    assert!(world.nodes[0].links.is_pushed_back());
    world.kill(1);
    world.run(millis(1_700));
    assert_eq!(world.take_changes(0), [(2, true), (2, false)]);
    assert!(!world.nodes[0].links.is_pushed_back());
}

/// Its siblings have no room for what it would mail them, for far longer than silent peers are waited for.
#[test]
fn a_held_shard_keeps_its_links_and_hears_everything_later() {
    let window = 64 << 10;
    let mut world = world(window);
    world.nodes[0].links.hold(true);
    for _ in 0..5_000 {
        world.say(1, GATEWAY);
        world.say(0, ROUTER);
    }
    world.run(millis(10_000));
    assert_eq!(world.progress(0, 1), (5_000, 5_000), "it speaks on");
    assert_eq!(world.progress(1, 0), (0, 5_000));
    assert!(world.nodes[1].links.is_full(GATEWAY) || world.nodes[1].links.metrics().queued_bytes > 0);
    let waiting = world.nodes[0].links.metrics().backlog_bytes as usize;
    assert!((1..2 * window as usize + 1024 * 80).contains(&waiting), "{waiting} bytes");
    world.nodes[0].links.hold(false);
    world.run(millis(1_000));
    assert_eq!(world.progress(1, 0), (5_000, 5_000), "once and in order");
    assert_eq!(world.nodes[0].links.metrics().backlog_bytes, 0);
    assert_eq!((world.take_changes(0).len(), world.take_changes(1).len()), (1, 1), "one session");
}

#[test]
fn what_a_held_shard_has_not_heard_comes_again_over_the_next_connection() {
    let mut world = world(1 << 20);
    world.nodes[0].links.hold(true);
    (0..3_000).for_each(|_| world.say(1, GATEWAY));
    world.run(millis(100));
    assert!(world.nodes[0].links.metrics().backlog_bytes > 0);
    world.reset_all();
    world.run(millis(500));
    world.nodes[0].links.hold(false);
    world.run(millis(500));
    assert_eq!(world.progress(1, 0), (3_000, 3_000), "once and in order");
    assert_eq!(world.nodes[0].links.metrics().resumed, 1);
}

/// A turn is short however much has come: what a link is alive by does not wait for all of it.
#[test]
fn a_turn_hears_a_bounded_number_of_messages() {
    let mut world = world(64 << 20);
    world.chunk = 64 << 20;
    world.nodes[1].is_deaf = true;
    (0..30_000).for_each(|_| world.say(0, ROUTER));
    world.run(millis(20));
    world.nodes[1].is_deaf = false;
    world.run(millis(100));
    assert_eq!(world.progress(0, 1), (30_000, 30_000));
    let most = world.nodes[1].most_heard;
    assert!((2_048..3_072).contains(&most), "{most} messages in a turn");
}
