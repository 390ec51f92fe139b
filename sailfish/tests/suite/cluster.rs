//! Three gateways and two routers, each of two shards, over real sockets: whoever is where, messages find
//! them.

use std::time::Instant;

use rustix::process::Signal;
use wire::UserId;
use wire::client::{Message, NoticeCode, Outcome, ServerFrame};

use crate::common::cluster::{Cluster, LEASE};
use crate::common::{Client, expect_one_order, until};

/// Clients may send reliable messages to rooms, under a code that the defaults do not have.
const RELIABLE: i32 = 7001;
const ROUTES: &str = "--set=routes=[{biz_code=7001,to=\"room\",class=\"reliable\"},\
                      {biz_code=6001,to=\"user\",class=\"reliable\"}]";

fn payload(message: &Message) -> &str {
    std::str::from_utf8(&message.payload).unwrap()
}

/// One user on each gateway, more than once around.
fn users(cluster: &mut Cluster, count: usize) -> Vec<Client> {
    let gateways = cluster.gateways.len();
    (0..count).map(|at| cluster.gateway(at % gateways).login(100 + at as i64)).collect()
}

/// Counts a send-ack that says that a message came through.
fn good_news(frame: ServerFrame<'_>) -> usize {
    match frame {
        ServerFrame::SendAck(ack) if !matches!(ack.outcome, Outcome::Failed(_)) => 1,
        other => panic!("{other:?}"),
    }
}

fn is_online(cluster: &mut Cluster, gateway: usize, user: i64) -> bool {
    let (status, body) = cluster.gateway(gateway).get(&format!("/online?app=1&user={user}"));
    assert_eq!(status, 200, "{body}");
    body.contains("\"online\":true")
}

#[test]
fn users_on_different_nodes_reach_each_other_and_nobody_else_hears() {
    let mut cluster = Cluster::start(2, 3, &[]);
    let mut clients = users(&mut cluster, 9);
    for from in 0..clients.len() {
        let to = (from + 1) % clients.len();
        let deliveries = |cluster: &mut Cluster| -> Vec<f64> {
            (0..3).map(|at| cluster.gateway(at).metric("sailfish_deliveries_total", "")).collect()
        };
        let before = deliveries(&mut cluster);
        let receiver = clients[to].user;
        clients[from].say(6001, receiver.0, "m1", "are you there?");
        let message = clients[to].message();
        assert_eq!((message.sender, payload(&message)), (clients[from].user, "are you there?"));
        clients[to].ack(message.id);
        assert_eq!(clients[from].outcome("m1"), Outcome::Delivered);
        // Directed: the counter of the one node that holds the receiver has moved, and no other.
        let after = deliveries(&mut cluster);
        for at in 0..3 {
            let moved = after[at] - before[at];
            assert_eq!(moved, if at == to % 3 { 1.0 } else { 0.0 }, "gateway {at}, {from} to {to}");
        }
    }
}

#[test]
fn a_room_over_three_nodes_has_one_order_and_a_member_that_goes_harms_nobody() {
    let mut cluster = Cluster::start(2, 3, &[ROUTES]);
    let mut clients = users(&mut cluster, 12);
    clients.iter_mut().for_each(|client| client.join(7));
    const EACH: usize = 3;
    for round in 0..EACH {
        for client in &mut clients {
            client.say(RELIABLE, 7, &format!("m{round}"), "hi all");
        }
    }
    let count = EACH * clients.len();
    let gone = clients.pop().unwrap(); // stale: it is in the room and reads nothing
    drop(gone);
    expect_one_order(&mut clients, count, EACH);
}

#[test]
fn a_login_on_another_node_takes_over_and_the_user_stays_online() {
    let mut cluster = Cluster::start(2, 3, &[]);
    let mut first = cluster.gateway(0).login(5);
    let mut second = cluster.gateway(1).login(5);
    first.expect_farewell(NoticeCode::Kicked);
    assert!((0..3).all(|at| is_online(&mut cluster, at, 5)));
    let mut sender = cluster.gateway(2).login(6);
    sender.say(6001, 5, "m", "where are you?");
    let message = second.message();
    second.ack(message.id);
    assert_eq!(sender.outcome("m"), Outcome::Delivered);
    drop(second);
    until("the user is offline", || !is_online(&mut cluster, 2, 5));
}

#[test]
fn the_users_of_a_dead_gateway_are_offline_within_the_lease_and_others_feel_nothing() {
    let mut cluster = Cluster::start(2, 3, &[]);
    let mut clients = users(&mut cluster, 6);
    assert!((0..6).all(|user| is_online(&mut cluster, 1, 100 + user)));
    cluster.gateways[0].kill();
    let killed = Instant::now();
    until("the dead gateway's users are offline", || {
        [100, 103].iter().all(|user| !is_online(&mut cluster, 1, *user))
    });
    // Asking takes its time too; a busy machine is allowed as much again.
    assert!(killed.elapsed() < 2 * LEASE, "{:?}", killed.elapsed());
    assert!([101, 102, 104, 105].iter().all(|user| is_online(&mut cluster, 2, *user)));
    clients[1].say(6001, 102, "m", "still there?");
    let message = clients[2].message();
    clients[2].ack(message.id);
    assert_eq!(clients[1].outcome("m"), Outcome::Delivered);
    // It comes back under the same number, and is taken in again.
    cluster.gateways[0].start();
    cluster.wait_ready();
    let mut back = cluster.gateway(0).login(100);
    clients[1].say(6001, 100, "m2", "welcome back");
    assert_eq!(payload(&back.message()), "welcome back");
}

#[test]
fn a_dead_router_is_replaced_by_the_other_and_what_was_under_way_arrives() {
    let mut cluster = Cluster::start(2, 3, &[ROUTES]);
    let mut clients = users(&mut cluster, 12);
    clients.iter_mut().for_each(|client| client.join(9));
    cluster.routers[0].kill();
    // Sent while nobody has noticed: half of it to a router that is gone.
    for at in 0..clients.len() {
        let to = 100 + (at as i64 + 1) % clients.len() as i64;
        clients[at].say(6001, to, "during", "anybody?");
    }
    clients[0].say(RELIABLE, 9, "room", "in the room");
    let mut told = vec![0; clients.len()];
    for (client, told) in clients.iter_mut().zip(&mut told) {
        let (mut direct, mut in_room) = (0, 0);
        while (direct, in_room) != (1, 1) {
            match client.next().expect("a router's end ends no client's connection") {
                ServerFrame::Deliver(message) => {
                    client.ack(message.id);
                    *if message.room.is_some() { &mut in_room } else { &mut direct } += 1;
                }
                frame => *told += good_news(frame),
            }
            assert!(direct <= 1 && in_room <= 1, "once each");
        }
    }
    for (client, told) in clients.iter_mut().zip(&mut told) {
        let wanted = if client.user == UserId(100) { 2 } else { 1 };
        while *told < wanted {
            *told += good_news(client.next().expect("it stays"));
        }
    }
    assert!((0..12).all(|user| is_online(&mut cluster, 2, 100 + user)));
    cluster.routers[0].start();
    cluster.wait_ready();
    assert!((0..12).all(|user| is_online(&mut cluster, 0, 100 + user)));
    until("the router that came back owns its share", || {
        cluster.router(0).metric("sailfish_router_bindings", "") > 0.0
    });
}

#[test]
fn a_frozen_gateway_loses_its_place_and_gets_it_back() {
    let mut cluster = Cluster::start(2, 2, &[]);
    let mut sleeper = cluster.gateway(0).login(1);
    let mut sender = cluster.gateway(1).login(2);
    cluster.gateway(0).signal(Signal::STOP);
    until("its users are offline", || !is_online(&mut cluster, 1, 1));
    cluster.gateway(0).signal(Signal::CONT);
    until("its users are back", || is_online(&mut cluster, 1, 1));
    sender.say(6001, 1, "m", "awake?");
    let message = sleeper.message();
    sleeper.ack(message.id);
    assert_eq!(sender.outcome("m"), Outcome::Delivered);
}

#[test]
fn a_gateway_without_routers_says_so_and_serves_once_one_comes() {
    let mut cluster = Cluster::new(1, 1, &[]);
    cluster.gateways[0].start();
    assert_eq!(cluster.gateway(0).get("/readyz"), (503, "no router is linked\n".into()));
    let mut early = cluster.gateway(0).connect();
    early.user = UserId(1);
    early.send_login(&crate::common::token(1, 3_600));
    cluster.routers[0].start();
    cluster.wait_ready();
    assert!(matches!(early.next(), Some(ServerFrame::LoggedIn { .. })));
}
