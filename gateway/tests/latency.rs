//! How long messages take, as a shard counts it.

mod common;

use std::time::Duration;

use common::{ROUTER, World, send_ack};
use gateway::{Histogram, RouteClass};
use wire::client::Outcome;
use wire::node::ToGateway;

const MS: Duration = Duration::from_millis(1);

/// How many were counted, and how long they took together, to a ms.
fn counted(histogram: &Histogram) -> (u64, u64) {
    (histogram.count(), (histogram.sum_seconds() * 1_000.0).round() as u64)
}

/// Of each class; classes without a message are left out.
fn all(histograms: &[Histogram; 4]) -> Vec<(RouteClass, (u64, u64))> {
    let counts = RouteClass::ALL.into_iter().zip(histograms.iter().map(counted));
    counts.filter(|(_, (count, _))| *count > 0).collect()
}

#[test]
fn the_time_to_the_ack_is_that_from_the_routers_word() {
    let mut world = World::new();
    let client = world.login(1);
    world.deliver(client, 5, "hello");
    world.pass(40 * MS);
    world.ack(client, 5);
    world.ack(client, 5);
    world.deliver_lossy(client, 6, "typing");
    let latency = world.metrics().latency;
    assert_eq!(all(&latency.ack), [(RouteClass::UserReliable, (1, 40))]);
    let written = [(RouteClass::UserReliable, (1, 0)), (RouteClass::UserLossy, (1, 0))];
    assert_eq!(all(&latency.write), written, "both left in the turn in which they came");
    assert_eq!(all(&latency.outcome), [], "it was sent elsewhere");
}

#[test]
fn what_waits_for_a_slow_reader_counts_when_it_is_written() {
    let mut world = World::new();
    let client = world.login(1);
    world.stop_reading(client);
    world.deliver(client, 5, "first"); // it is in flight
    world.deliver(client, 6, "second");
    world.pass(300 * MS);
    assert_eq!(all(&world.metrics().latency.write), [(RouteClass::UserReliable, (1, 0))]);
    world.go_on_reading(client);
    assert_eq!(all(&world.metrics().latency.write), [(RouteClass::UserReliable, (2, 300))]);
}

#[test]
fn messages_of_a_dense_room_wait_for_its_interval() {
    let mut world = World::with(|config| config.delivery.room_interval_ms = 25);
    let clients = [world.login(1), world.login(2)];
    for client in clients {
        world.join(client, 7);
    }
    world.broadcast(7, 1, false, "at once");
    world.pass(5 * MS);
    world.broadcast(7, 2, false, "waits for 20 ms");
    world.broadcast(7, 3, false, "and so does this");
    world.pass(100 * MS);
    world.broadcast(7, 4, true, "acked");
    let latency = world.metrics().latency;
    assert_eq!(counted(&latency.write[RouteClass::RoomReliable as usize]), (2, 0));
    let (count, ms) = counted(&latency.write[RouteClass::RoomLossy as usize]);
    // Three to each of the two members, of which two waited for 20 ms and up to a tick of the timer.
    assert!(count == 6 && (80..=88).contains(&ms), "{count} took {ms} ms");
}

#[test]
fn the_time_to_the_outcome_is_that_from_the_senders_packet() {
    let mut world = World::new();
    let client = world.login(1);
    world.send(client, 6001, 2, "m-1", "hello");
    let submitted = world.submissions()[0].id;
    world.pass(70 * MS);
    let session = world.session(client);
    let ack = send_ack("m-1", Outcome::Delivered);
    world.tell_from(ROUTER, ToGateway::SendAck { session, submitted, ack });
    world.send(client, 6001, 2, "m-2", "hello");
    let submitted = world.submissions()[0].id;
    let ack = send_ack("m-2", Outcome::Stored);
    world.tell_from(ROUTER, ToGateway::SendAck { session, submitted, ack });
    let latency = world.metrics().latency;
    assert_eq!(
        all(&latency.outcome),
        [(RouteClass::UserReliable, (1, 70))],
        "what is stored is not delivered"
    );
}
