//! Processes that stand still for a while, as in a paused virtual machine, and go on: peers that spoke
//! meanwhile is not silent.

use std::time::Duration;

use rustix::process::Signal;
use wire::client::Outcome;

use crate::common::cluster::{Cluster, LEASE};
use crate::common::{Beats, Client, Server, until};

const PERIOD_MS: u64 = 1_000;
const GRACE_MS: u64 = 1_000;
/// Twice as long as a client may be silent, and more than three leases.
const STILL: Duration = Duration::from_millis(4_000);

fn flags() -> [String; 2] {
    [format!("--set=heartbeat.period_ms={PERIOD_MS}"), format!("--set=heartbeat.grace_ms={GRACE_MS}")]
}

/// Each client writes to the next one and hears of its ack.
fn all_talk(clients: &mut [Client], name: &str) {
    for from in 0..clients.len() {
        let to = (from + 1) % clients.len();
        let receiver = clients[to].user.0;
        let text = format!("{name} {from}");
        clients[from].say(6001, receiver, name, &text);
        // As each client must, it acks what comes once more because an owner was given up.
        loop {
            let message = clients[to].message_beside_answers();
            clients[to].ack(message.id);
            if message.payload == text.as_bytes() {
                break;
            }
        }
        let ack = clients[from].send_ack_beside_heartbeats();
        assert_eq!((ack.client_msg_id.as_str(), ack.outcome), (name, Outcome::Delivered));
    }
}

fn signal_all(cluster: &mut Cluster, signal: Signal) {
    let Cluster { routers, gateways, bridges, .. } = cluster;
    for node in routers.iter_mut().chain(gateways).chain(bridges) {
        node.server().signal(signal);
    }
}

fn links_lost(cluster: &mut Cluster) -> f64 {
    let Cluster { routers, gateways, .. } = cluster;
    let nodes = routers.iter_mut().chain(gateways);
    nodes.map(|node| node.server().metric("sailfish_link_lost_total", "")).sum()
}

fn idle_timeouts(server: &Server) -> f64 {
    server.metric("sailfish_notices_total", "notice=\"idle_timeout\"")
}

#[test]
fn a_cluster_that_stood_still_as_a_whole_goes_on_where_it_was() {
    let flags = flags();
    let mut cluster = Cluster::start(2, 2, &flags.each_ref().map(String::as_str));
    let mut clients: Vec<Client> = (0..6).map(|at| cluster.gateway(at % 2).login(100 + at as i64)).collect();
    let _beats = Beats::of(&clients);
    all_talk(&mut clients, "before");
    let lost = links_lost(&mut cluster);
    signal_all(&mut cluster, Signal::STOP);
    std::thread::sleep(STILL);
    signal_all(&mut cluster, Signal::CONT);
    all_talk(&mut clients, "after");
    std::thread::sleep(Duration::from_millis(2 * PERIOD_MS));
    all_talk(&mut clients, "later");
    assert_eq!(links_lost(&mut cluster), lost, "no link was given up");
    for at in 0..2 {
        assert_eq!(idle_timeouts(cluster.gateway(at)), 0.0);
        assert!(cluster.gateway(at).metric("sailfish_stillness_ms_total", "") > 1_000.0);
    }
}

#[test]
fn the_clients_of_a_gateway_that_stood_still_stay_and_are_found_again() {
    let flags = flags();
    let mut cluster = Cluster::start(2, 2, &flags.each_ref().map(String::as_str));
    let mut clients: Vec<Client> = (0..6).map(|at| cluster.gateway(at % 2).login(100 + at as i64)).collect();
    let _beats = Beats::of(&clients);
    cluster.gateway(0).signal(Signal::STOP);
    std::thread::sleep(STILL.max(3 * LEASE));
    cluster.gateway(0).signal(Signal::CONT);
    // Routers have given it up in the meantime, and it has to tell them of its sessions again.
    until("its users are found again", || {
        (0..6).all(|at| {
            let (_, body) = cluster.gateway(1).get(&format!("/online?app=1&user={}", 100 + at));
            body.contains("\"online\":true")
        })
    });
    all_talk(&mut clients, "after");
    assert_eq!(idle_timeouts(cluster.gateway(0)), 0.0);
}

#[test]
fn a_router_that_stood_still_costs_no_client_and_no_message() {
    let flags = flags();
    let mut cluster = Cluster::start(2, 2, &flags.each_ref().map(String::as_str));
    let mut clients: Vec<Client> = (0..6).map(|at| cluster.gateway(at % 2).login(100 + at as i64)).collect();
    let _beats = Beats::of(&clients);
    all_talk(&mut clients, "before");
    cluster.router(0).signal(Signal::STOP);
    all_talk(&mut clients, "meanwhile");
    std::thread::sleep(STILL);
    cluster.router(0).signal(Signal::CONT);
    until("all owners are back", || {
        (0..2).all(|at| cluster.gateway(at).metric("sailfish_owners", "") == 8.0)
    });
    all_talk(&mut clients, "after");
    for at in 0..2 {
        assert_eq!(idle_timeouts(cluster.gateway(at)), 0.0);
    }
}
