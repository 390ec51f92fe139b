//! What was told `stored` comes, and who is told to be online and in a room is: with the real backend, over
//! sessions and kills.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use gateway::{Claims, mint_hs256};
use serde_json::json;
use wire::client::{FailReason, Outcome};
use wire::{DeviceClass, UserId};

use crate::common::stack::{Api, Stack, Store, Up, User};
use crate::common::{APP, Client, SECRET, until};

/// Ids that no backend gives: it draws the first from 1 to 1000.
const STRANGER: i64 = 700_000;

fn log_in(address: SocketAddr, device: DeviceClass, user: i64) -> Client {
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
    let mut client = Client::connect(address);
    client.user = UserId(user);
    client.send_login(&mint_hs256(SECRET.as_bytes(), &Claims { app: APP, user: UserId(user), device, exp }));
    client.next().expect("it is logged in");
    client
}

/// The names of the next messages, each acked.
fn names(client: &mut Client, count: usize) -> Vec<String> {
    let name = |_| {
        let message = client.message();
        client.ack(message.id);
        message.client_msg_id.as_str().to_owned()
    };
    (0..count).map(name).collect()
}

/// A web session that never acks has the first of five messages; the phone that comes meanwhile gets all
/// five, in order, at once.
fn five_get_past_a_silent_session(address: SocketAddr) {
    let mut sender = log_in(address, DeviceClass::Phone, STRANGER);
    let sent: Vec<String> = (0..5).map(|number| format!("d{number}")).collect();
    for name in &sent {
        sender.say(6001, STRANGER + 1, name, "x");
        assert_eq!(sender.outcome(name), Outcome::Stored);
    }
    let mut web = log_in(address, DeviceClass::Web, STRANGER + 1);
    assert_eq!(web.message().client_msg_id.as_str(), "d0");
    let mut phone = log_in(address, DeviceClass::Phone, STRANGER + 1);
    assert_eq!(names(&mut phone, 5), sent);
}

#[test]
fn a_phone_gets_its_inbox_beside_a_silent_session() {
    five_get_past_a_silent_session(Up::start(SECRET).server.clients);
}

#[test]
fn a_phone_gets_its_inbox_beside_a_silent_session_in_a_cluster() {
    let mut stack = Stack::start(1, Store::sqlite());
    five_get_past_a_silent_session(stack.cluster.gateway(0).clients);
}

#[test]
fn a_friends_message_outlives_a_strangers() {
    let up = Up::start(SECRET);
    let receiver = up.api.user();
    let mut friend = log_in(up.server.clients, DeviceClass::Phone, STRANGER);
    friend.say(6001, receiver.id, "precious", "p");
    assert_eq!(friend.outcome("precious"), Outcome::Stored);
    let mut stranger = log_in(up.server.clients, DeviceClass::Phone, STRANGER + 1);
    let (mut stored, mut failed) = (0, 0);
    for number in 0..200 {
        let name = format!("j{number}");
        stranger.say(6001, receiver.id, &name, "x");
        match stranger.outcome(&name) {
            Outcome::Stored => stored += 1,
            Outcome::Failed(FailReason::Offline) => failed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(stored > 0 && failed > 0, "{stored} stored, {failed} failed");
    stranger.say(6001, 1_000_000_000_000_000, "nobody", "x");
    assert_eq!(stranger.outcome("nobody"), Outcome::Failed(FailReason::Offline));
    let mut phone = log_in(up.server.clients, DeviceClass::Phone, receiver.id);
    assert_eq!(names(&mut phone, 1), ["precious"]);
    assert_eq!(names(&mut phone, stored).len(), stored, "and what else was promised");
}

/// The room's members, and whether a user is online, as the backend says.
fn is_there(api: Api, caller: &User, room: i64, users: &[i64]) -> bool {
    let members = &api.get(&format!("/rooms/{room}/members"), "")["user_ids"];
    let online = |user: &i64| api.get(&format!("/users/{user}/presence"), &caller.token)["is_online"] == true;
    *members == json!(users) && (STRANGER..STRANGER + 3).all(|user| online(&user) == users.contains(&user))
}

/// Opens a room, and has three users in it.
fn fill_a_room(api: Api, address: SocketAddr) -> (User, i64, Vec<Client>) {
    let owner = api.user();
    let room = api.post("/rooms", &owner.token, json!({ "title": "r" }))["id"].as_i64().unwrap();
    let users = [STRANGER, STRANGER + 1, STRANGER + 2];
    let clients = users.map(|user| {
        let mut client = log_in(address, DeviceClass::Phone, user);
        client.join(room);
        client
    });
    until("they are there", || is_there(api, &owner, room, &users));
    (owner, room, clients.into())
}

#[test]
fn nobody_is_a_ghost_after_a_kill() {
    let mut up = Up::start(SECRET);
    let (owner, room, clients) = fill_a_room(up.api, up.server.clients);
    up.kill_and_restart(SECRET);
    drop(clients);
    // One comes back, and is no ghost.
    let mut back = log_in(up.server.clients, DeviceClass::Phone, STRANGER);
    back.join(room);
    until("one is there", || is_there(up.api, &owner, room, &[STRANGER]));
}

/// Gateway, router and bridge die at once, and come back; the backend lives on.
#[test]
fn nobody_is_a_ghost_after_the_kill_of_a_cluster() {
    let mut stack = Stack::start(1, Store::sqlite());
    let api = stack.api;
    let (owner, room, clients) = fill_a_room(api, stack.cluster.gateway(0).clients);
    let nodes =
        [&mut stack.cluster.gateways[0], &mut stack.cluster.routers[0], &mut stack.cluster.bridges[0]];
    let listened = nodes.map(|node| {
        let address = node.server().clients;
        node.kill();
        address
    });
    drop(clients);
    // The kernel closes the sockets of an io_uring some time after its process has ended.
    let is_free = |address: &SocketAddr| {
        let ports = [address.port(), address.port() + 1];
        ports.iter().all(|port| testbed::is_free((address.ip(), *port).into()))
    };
    until("their ports are free", || listened.iter().all(is_free));
    stack.cluster.routers[0].start();
    stack.cluster.bridges[0].start();
    stack.cluster.gateways[0].start();
    until("nobody is there", || is_there(api, &owner, room, &[]));
}
