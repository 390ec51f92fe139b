//! The whole way with the real backend: from a client over gateways and bridge to the books, and back to
//! everybody's screen.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use gateway::{Claims, mint_hs256};
use serde_json::{Value, json};
use testbed::Redis;
use wire::client::{ClientFrame, Encoding, FailReason, Message, NoticeCode, Outcome, ServerFrame};
use wire::{DeviceClass, RoomId, UserId};

use crate::common::java::Java;
use crate::common::stack::{Api, INTERNAL_SECRET, Servers, Stack, Store, Up, User, backends};
use crate::common::{APP, Client, SECRET, Server, output, sailfish, token, until};

/// Send a gift, and the same in a PK.
const SEND: i32 = 5560;
const PK: i32 = 5558;
/// What is shown, and what failed.
const SHOWN: i32 = 5556;
const FAILED: i32 = 5557;
const ROOM: i64 = 7;

/// What a client heard.
#[derive(Default)]
struct Heard {
    acks: Vec<(String, Outcome)>,
    messages: Vec<Message>,
}

/// Reads until that many send-acks and messages have come, in whatever order, and acks the messages.
fn hear(client: &mut Client, acks: usize, messages: usize) -> Heard {
    let mut heard = Heard::default();
    while heard.acks.len() < acks || heard.messages.len() < messages {
        match client.next() {
            Some(ServerFrame::SendAck(ack)) => {
                heard.acks.push((ack.client_msg_id.as_str().to_owned(), ack.outcome));
            }
            Some(ServerFrame::Deliver(message)) => {
                if message.ack_wanted {
                    client.ack(message.id);
                }
                heard.messages.push(message.into_owned());
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((heard.acks.len(), heard.messages.len()), (acks, messages));
    heard
}

fn data(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}

/// The payload of a request.
fn gift_of(gift: i64, receiver: i64, count: i64) -> String {
    json!({ "giftId": gift, "receiverId": receiver, "count": count, "roomId": ROOM }).to_string()
}

/// What the room is shown of a gift.
fn effect(id: &str, sender: &User, receiver: i64, gift: i64, count: i64) -> Value {
    json!({ "id": id, "senderId": sender.id, "receiverId": receiver, "roomId": ROOM, "giftId": gift, "count": count,
        "total": 10 * count })
}

/// What a sender is told of a gift that failed.
fn failure(id: &str, receiver: i64, gift: i64, count: i64, reason: &str) -> Value {
    json!({ "id": id, "receiverId": receiver, "roomId": ROOM, "giftId": gift, "count": count, "reason": reason,
        "final": true })
}

fn is_online(server: &Server, user: i64) -> bool {
    server.get(&format!("/online?app=1&user={user}")).1.contains("\"online\":true")
}

fn token_on(device: DeviceClass, user: i64) -> String {
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 3_600;
    mint_hs256(SECRET.as_bytes(), &Claims { app: APP, user: UserId(user), device, exp })
}

/// A client of the Java platform in the room.
fn java_in_room(server: &Server, user: i64) -> Java {
    let mut java = Java(server.connect().stream);
    java.write(1001, &format!(r#"{{"appId":1,"userId":{user},"token":"{}"}}"#, token(user, 3_600)));
    java.read(1001);
    java.write(1010, &format!(r#"{{"appId":1,"userId":{user},"data":"{{\"roomId\":{ROOM}}}"}}"#));
    java.read(1010);
    java
}

/// As [`hear`]: the `data` of send-acks, and business code and `data` of messages.
fn hear_java(java: &mut Java, acks: usize, messages: usize) -> (Vec<Value>, Vec<(Value, Value)>) {
    let (mut told, mut seen) = (Vec::new(), Vec::new());
    while told.len() < acks || seen.len() < messages {
        let (code, body) = java.read_any();
        let body: Value = serde_json::from_str(&body).unwrap();
        let data = serde_json::from_str(body["data"].as_str().unwrap()).unwrap();
        match code {
            1006 => told.push(data),
            1003 => {
                assert_eq!(body["ack"], true, "{body}");
                java.write(1005, &format!(r#"{{"appId":1,"msgId":{}}}"#, body["msgId"]));
                seen.push((body["bizCode"].clone(), data));
            }
            _ => panic!("{code} {body}"),
        }
    }
    assert_eq!((told.len(), seen.len()), (acks, messages));
    (told, seen)
}

/// The members of the room: two on one gateway, the sender on another.
struct Members {
    sender: Client,
    watcher: Client,
    java: Java,
    /// Of what was seen, of sender and watcher in turns.
    sequences: Vec<u64>,
}

impl Members {
    /// All see one message to the room; the sender hears so many send-acks, and so many hears the client of
    /// the Java platform.
    fn all_see(&mut self, acks: [usize; 2], code: i32, wanted: Value) {
        let heard = hear(&mut self.sender, acks[0], 1);
        assert!(heard.acks.iter().all(|(_, outcome)| *outcome == Outcome::Answered), "{:?}", heard.acks);
        for message in [&heard.messages[0], &hear(&mut self.watcher, 0, 1).messages[0]] {
            let from = (message.biz_code.0, message.room, message.sender);
            assert_eq!((from, data(message)), ((code, Some(RoomId(ROOM)), UserId(0)), wanted.clone()));
            self.sequences.push(message.sequence);
        }
        let (told, seen) = hear_java(&mut self.java, acks[1], 1);
        assert!(told.iter().all(|data| data["outcome"] == "answered"), "{told:?}");
        assert_eq!(seen[0], (json!(code), wanted));
    }
}

/// A4 and C4: whoever pays, in whatever encoding and by whatever way, all members on all gateways see it, and
/// a sender without the money is told so.
fn gifts_reach_everybody(store: Store) {
    let mut stack = Stack::start(2, store);
    let api = stack.api;
    api.open_room(ROOM);
    let (giver, poor, watching) = (api.user_with(1_000), api.user_with(15), api.user().id);
    let gift = api.gift(10);
    let mut sender = stack.cluster.gateway(0).login(giver.id);
    let mut watcher = stack.cluster.gateway(1).login_as(watching, Encoding::Json);
    let java = java_in_room(stack.cluster.gateway(1), poor.id);
    sender.join(ROOM);
    watcher.join(ROOM);
    let mut members = Members { sender, watcher, java, sequences: Vec::new() };

    members.sender.say(SEND, ROOM, "g1", &gift_of(gift, watching, 2));
    members.all_see([1, 0], SHOWN, effect("g1", &giver, watching, gift, 2));

    // The very body that clients of the Java platform send, with somebody else as its user.
    let body = |id: &str| {
        let data = json!({ "userId": giver.id, "giftId": gift, "price": 10, "receiverId": watching, "roomId": ROOM, "uuid": "u" });
        json!({ "appId": 1, "userId": giver.id, "bizCode": SEND, "msgId": id, "data": data.to_string() })
            .to_string()
    };
    members.java.write(1003, &body("j1"));
    members.all_see([0, 1], SHOWN, effect("j1", &poor, watching, gift, 1));
    members.java.write(1003, &body("j2"));
    let (told, seen) = hear_java(&mut members.java, 1, 1);
    assert_eq!(told[0]["outcome"], "answered");
    assert_eq!(seen[0], (json!(FAILED), failure("j2", watching, gift, 1, "insufficient_balance")));

    // By HTTP.
    let by_http = |id: &str, count: i64| {
        let body =
            json!({ "id": id, "gift_id": gift, "room_id": ROOM, "receiver_id": watching, "count": count });
        api.ask("POST", "/gift/send", &giver.token, &body)
    };
    assert_eq!(by_http("h1", 3), (200, json!({ "id": "h1", "total": 30 })));
    members.all_see([0, 0], SHOWN, effect("h1", &giver, watching, gift, 3));
    let (status, answer) = by_http("h2", 96);
    assert_eq!((status, &answer["code"]), (409, &json!("insufficient_balance")), "{answer}");
    let told = hear(&mut members.sender, 0, 1).messages.remove(0);
    assert_eq!((told.biz_code.0, told.room), (FAILED, None));
    assert_eq!(data(&told), failure("h2", watching, gift, 96, "insufficient_balance"));

    // In a PK.
    members.sender.say(PK, ROOM, "pk", &gift_of(gift, watching, 1));
    members.all_see([1, 0], PK, effect("pk", &giver, watching, gift, 1));

    // Nothing else came to the room in between.
    let first = members.sequences[0];
    assert_eq!(members.sequences, [0, 0, 1, 1, 2, 2, 3, 3].map(|after| first + after));
    assert_eq!((api.balance(&giver), api.balance(&poor)), (1_000 - 60, 5));
    assert_eq!(api.committed(), 4);
}

#[test]
fn gifts_reach_everybody_on_sqlite() {
    gifts_reach_everybody(Store::sqlite());
}

#[test]
fn gifts_reach_everybody_on_mariadb_and_redis() {
    gifts_reach_everybody(Store::servers());
}

/// A12 and C2: what a packet says of its sender and of rooms counts for nothing, and one client_msg_id is one
/// gift.
#[test]
fn a_gift_is_of_its_session_and_debited_once() {
    let up = Up::start(SECRET);
    let api = up.api;
    api.open_room(ROOM);
    let (giver, rich, receiver) = (api.user_with(100), api.user_with(1_000), api.user().id);
    let gift = api.gift(10);
    let mut sender = up.server.login(giver.id);
    sender.say(SEND, ROOM, "outside", &gift_of(gift, receiver, 1));
    assert_eq!(sender.outcome("outside"), Outcome::Failed(FailReason::NotMember));
    // A client of the Java platform says the room in its data only.
    let mut java = java_in_room(&up.server, giver.id);
    let elsewhere = json!({ "giftId": gift, "receiverId": receiver, "roomId": 8 }).to_string();
    let body =
        json!({ "appId": 1, "userId": giver.id, "bizCode": SEND, "msgId": "outside", "data": elsewhere });
    java.write(1003, &body.to_string());
    assert!(java.read(1006).contains("not_member"));
    let mut sender = up.server.login(giver.id);
    sender.join(ROOM);
    // An empty room would count anew.
    let mut watcher = up.server.login(receiver);
    watcher.join(ROOM);
    let forged = json!({ "giftId": gift, "receiverId": receiver, "roomId": ROOM, "userId": rich.id, "senderId": rich.id });
    sender.say(SEND, ROOM, "g1", &forged.to_string());
    let heard = hear(&mut sender, 1, 1);
    assert_eq!(heard.acks, [("g1".to_owned(), Outcome::Answered)]);
    assert_eq!(data(&heard.messages[0]), effect("g1", &giver, receiver, gift, 1));
    let first = heard.messages[0].sequence;

    // Repeated at once, and by another session.
    sender.say(SEND, ROOM, "g1", &forged.to_string());
    assert_eq!(sender.outcome("g1"), Outcome::Answered);
    let mut sender = up.server.login(giver.id);
    sender.join(ROOM);
    sender.say(SEND, ROOM, "g1", &forged.to_string());
    assert_eq!(sender.outcome("g1"), Outcome::Answered);
    // Other contents under its name.
    sender.say(SEND, ROOM, "g1", &gift_of(gift, receiver, 2));
    let heard = hear(&mut sender, 1, 1);
    assert_eq!(heard.acks, [("g1".to_owned(), Outcome::Answered)]);
    assert_eq!(heard.messages[0].biz_code.0, FAILED);
    assert_eq!(data(&heard.messages[0]), failure("g1", receiver, gift, 2, "id_reused"));
    sender.say(SEND, ROOM, "g2", &gift_of(gift, receiver, 1));
    let heard = hear(&mut sender, 1, 1);
    assert_eq!(data(&heard.messages[0]), effect("g2", &giver, receiver, gift, 1));
    assert_eq!(heard.messages[0].sequence, first + 1, "the room saw two gifts");
    assert_eq!((api.balance(&giver), api.balance(&rich), api.committed()), (80, 1_000, 2));

    sender.say(SEND, ROOM, "g3", "{");
    refused(&mut sender, "g3");
}

/// The sender hears that what it has sent is no gift, by send-ack and by message.
fn refused(sender: &mut Client, id: &str) {
    let heard = hear(sender, 1, 1);
    assert_eq!(heard.acks, [(id.to_owned(), Outcome::Failed(FailReason::NoRoute))]);
    let told = &heard.messages[0];
    assert_eq!((told.biz_code.0, told.room), (FAILED, None));
    assert_eq!((&data(told)["id"], &data(told)["reason"]), (&json!(id), &json!("bad_request")));
}

/// A12: the room is the one that the gateway has checked, not one that the payload names.
#[test]
fn a_gift_is_shown_in_a_room_of_its_session_only() {
    let up = Up::start(SECRET);
    let api = up.api;
    api.open_room(8);
    let (giver, receiver) = (api.user_with(100), api.user().id);
    let gift = api.gift(10);
    let (mut sender, mut elsewhere) = (up.server.login(giver.id), up.server.login(receiver));
    sender.join(ROOM);
    elsewhere.join(8);
    let there = json!({ "giftId": gift, "receiverId": receiver, "roomId": 8 }).to_string();
    for (id, target) in [("g1", ROOM), ("g2", 0)] {
        sender.say(SEND, target, id, &there);
        refused(&mut sender, id);
    }
    elsewhere.heartbeat();
    assert_eq!((api.balance(&giver), api.committed()), (100, 0));
}

/// What is stored is handed over in order and once, to all devices that are there, though the backend is
/// killed before.
#[test]
fn the_inbox_outlives_the_backend_and_reaches_every_device() {
    let mut stack = Stack::start(1, Store::sqlite());
    let api = stack.api;
    let receiver = api.user();
    let count = || api.get("/inbox/count", &receiver.token)["count"].as_i64().unwrap();
    let mut sender = stack.cluster.gateway(0).login(1_000_001);
    let mut store = |ids: &[&str]| {
        for id in ids {
            sender.say(6001, receiver.id, id, &format!("text of {id}"));
            assert_eq!(sender.outcome(id), Outcome::Stored, "{id}");
        }
    };
    let takes = |client: &mut Client, ids: &[&str]| {
        for id in ids {
            let message = client.message();
            assert_eq!((message.sender, message.client_msg_id.as_str()), (UserId(1_000_001), *id));
            assert_eq!(&message.payload[..], format!("text of {id}").as_bytes());
            client.ack(message.id);
        }
    };
    store(&["m1", "m2", "m3"]);
    assert_eq!(count(), 3);
    stack.backend.kill();
    stack.backend.start();
    let mut phone = stack.cluster.gateway(0).login(receiver.id);
    takes(&mut phone, &["m1", "m2", "m3"]);
    until("the inbox is empty", || count() == 0);
    phone.heartbeat();
    drop(phone);
    until("it is offline", || !is_online(stack.cluster.gateway(0), receiver.id));

    store(&["m4", "m5"]);
    stack.backend.kill();
    let mut devices = [DeviceClass::Phone, DeviceClass::Web].map(|device| {
        let mut client = stack.cluster.gateway(0).connect();
        client.user = UserId(receiver.id);
        client.send_login(&token_on(device, receiver.id));
        assert!(matches!(client.next(), Some(ServerFrame::LoggedIn { .. })));
        client
    });
    stack.backend.start();
    devices.iter_mut().for_each(|client| takes(client, &["m4", "m5"]));
    until("the inbox is empty", || count() == 0);
    sender.say(6001, receiver.id, "m6", "text of m6");
    devices.iter_mut().for_each(|client| takes(client, &["m6"]));
    assert_eq!(sender.outcome("m6"), Outcome::Delivered);
    devices.iter_mut().for_each(Client::heartbeat);
}

/// B7: what the backend makes of a login by phone is a login at the gateway that it names; what another one
/// makes is not.
#[test]
fn an_im_token_is_a_login_at_its_gateway() {
    let (up, other) = (Up::start(SECRET), Up::start("another secret of the tests"));
    let made = |api: Api, body: Value| {
        let user = api.user();
        (api.post("/im/token", &user.token, body), user)
    };
    let (made_here, user) = made(up.api, json!({ "device": "web" }));
    let mut client = Client::connect(made_here["address"].as_str().unwrap().parse().unwrap());
    client.user = UserId(made_here["user_id"].as_i64().unwrap());
    client.send_login(made_here["token"].as_str().unwrap());
    assert!(matches!(client.next(), Some(ServerFrame::LoggedIn { .. })));
    let presence = || up.api.get(&format!("/users/{}/presence", user.id), &user.token);
    until("the backend knows", || presence()["devices"] == json!(["web"]));
    // The next token keeps the session; a logout ends it, and leaves those of other devices.
    let next = up.api.post("/im/token", &user.token, json!({ "device": "web" }));
    client.send_login(next["token"].as_str().unwrap());
    assert!(matches!(client.next(), Some(ServerFrame::LoggedIn { .. })));
    let mut of_nobody = up.server.connect();
    of_nobody.user = client.user;
    of_nobody.send_login(&token_on(DeviceClass::Tv, user.id));
    assert!(matches!(of_nobody.next(), Some(ServerFrame::LoggedIn { .. })));
    up.api.post("/logout", &user.token, json!({}));
    client.expect_farewell(NoticeCode::TokenInvalid);
    of_nobody.heartbeat();
    let mut again = up.server.connect();
    again.send_login(next["token"].as_str().unwrap());
    again.expect_farewell(NoticeCode::TokenInvalid);

    let (made_elsewhere, _) = made(other.api, json!({}));
    let mut stranger = up.server.connect();
    stranger.send_login(made_elsewhere["token"].as_str().unwrap());
    stranger.expect_farewell(NoticeCode::TokenInvalid);
    let (status, answer) = up.api.ask("POST", "/im/token", "00", &json!({}));
    assert_eq!(status, 401, "{answer}");
}

/// B5: four processes, a million ids.
#[test]
fn ids_of_four_processes_are_unique() {
    const CALLS: usize = 250;
    let store = Store::servers();
    let backends = backends(4, &store);
    let take = |api: Api| {
        let (mut all, mut last) = (Vec::new(), 0);
        for call in 0..CALLS {
            let ordered = call % 2 == 0;
            let body = json!({ "name": "things", "count": 1_000, "ordered": ordered });
            let answer = api.post("/internal/ids", INTERNAL_SECRET, body);
            let ids: Vec<i64> = serde_json::from_value(answer["ids"].clone()).unwrap();
            assert_eq!(ids.len(), 1_000);
            if ordered {
                assert!(ids[0] > last && ids.is_sorted(), "after {last}: {} to {}", ids[0], ids[999]);
                last = ids[999];
            }
            all.extend(ids);
        }
        all
    };
    let mut all = std::thread::scope(|scope| {
        let takers: Vec<_> = backends.iter().map(|(_, api)| scope.spawn(|| take(*api))).collect();
        takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect::<Vec<i64>>()
    });
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 4 * CALLS * 1_000);
}

/// E1 and E2: who is in a room and who is online follows what happens at the gateways, and all members read
/// the chat.
#[test]
fn rooms_and_presence_follow_the_gateways() {
    let mut stack = Stack::start(2, Store::sqlite());
    let api = stack.api;
    let owner = api.user();
    let room = api.post("/rooms", &owner.token, json!({ "title": "news" }))["id"].as_i64().unwrap();
    assert_eq!(api.get("/rooms", "")["rooms"][0]["id"], room);
    let members = || api.get(&format!("/rooms/{room}/members"), "")["user_ids"].clone();
    let online = |user: i64| api.get(&format!("/users/{user}/presence"), &owner.token)["is_online"] == true;
    let mut clients: Vec<Client> = (0..4)
        .map(|at| {
            let encoding = if at < 2 { Encoding::Binary } else { Encoding::Json };
            stack.cluster.gateway(at % 2).login_as(1_000_001 + at as i64, encoding)
        })
        .collect();
    clients.iter_mut().for_each(|client| client.join(room));
    until("all are in", || members() == json!([1_000_001, 1_000_002, 1_000_003, 1_000_004]));
    assert!((1..=4).all(|at| online(1_000_000 + at)) && !online(owner.id));
    for at in 0..4 {
        clients[at].say(5555, room, "hi", "hello");
        for client in &mut clients {
            let heard = hear(client, usize::from(client.user.0 == 1_000_001 + at as i64), 1);
            assert_eq!(heard.messages[0].sender, UserId(1_000_001 + at as i64));
        }
    }
    clients[2].send(&ClientFrame::Leave { room: RoomId(room) });
    until("one has left", || members() == json!([1_000_001, 1_000_002, 1_000_004]));
    assert!(online(1_000_003));
    drop(clients.remove(0));
    until("one is offline", || members() == json!([1_000_002, 1_000_004]) && !online(1_000_001));
    // The second gateway has users 2 and 4.
    stack.cluster.gateways[1].kill();
    until("those of a killed gateway are gone", || members() == json!([]));
    until("and offline", || !online(1_000_002) && !online(1_000_004));
    assert!(online(1_000_003));
}

/// With streams between bridge and backend, and Redis killed in between: every gift is answered, paid and
/// seen.
#[test]
fn gifts_in_streams_outlive_redis() {
    let redis = Redis::start();
    let url = redis.url();
    let mut stack = Stack::start_with(1, Store::sqlite_and(&redis), |_| {
        vec!["--set=bridge.mode=redis".into(), format!("--set=bridge.redis={url}")]
    });
    let api = stack.api;
    api.open_room(ROOM);
    let (giver, watching, gift) = (api.user_with(1_000), api.user().id, api.gift(10));
    let mut sender = stack.cluster.gateway(0).login(giver.id);
    let mut watcher = stack.cluster.gateway(0).login(watching);
    sender.join(ROOM);
    watcher.join(ROOM);
    let ids: Vec<String> = (10..30).map(|number| format!("g{number}")).collect();
    for id in &ids[..10] {
        sender.say(SEND, ROOM, id, &gift_of(gift, watching, 1));
        assert_eq!(sender.outcome_beside_messages(id), Outcome::Answered);
    }
    redis.kill();
    for id in &ids[10..] {
        sender.say(SEND, ROOM, id, &gift_of(gift, watching, 1));
    }
    until("gifts wait", || stack.cluster.gateway(0).metric("sailfish_bridge_waiting", "") >= 10.0);
    redis.start_again();
    ids[10..].iter().for_each(|id| assert_eq!(sender.outcome_beside_messages(id), Outcome::Answered, "{id}"));
    let mut seen = BTreeSet::new();
    while seen.len() < ids.len() {
        let message = watcher.message();
        watcher.ack(message.id);
        assert_eq!(message.biz_code.0, SHOWN);
        seen.insert(data(&message)["id"].as_str().unwrap().to_owned());
    }
    assert!(seen.iter().eq(&ids), "{seen:?}");
    assert_eq!((api.committed(), api.balance(&giver)), (20, 800));
}

/// The database goes and comes back, and then the backend: the backend says so, and what clients send
/// meanwhile waits for it.
#[test]
fn gifts_wait_for_the_database_and_for_the_backend() {
    let servers = Servers::start();
    let mut stack = Stack::start(1, Store::of(servers.flags()));
    let api = stack.api;
    api.open_room(ROOM);
    let (giver, away, gift) = (api.user_with(1_000), api.user().id, api.gift(10));
    let mut sender = stack.cluster.gateway(0).login(giver.id);
    sender.join(ROOM);
    let ready = || api.ask("GET", "/readyz", "", &Value::Null).0;
    assert_eq!(ready(), 200);
    let send = |sender: &mut Client, ids: [&str; 2]| {
        for id in ids {
            sender.say(SEND, ROOM, id, &gift_of(gift, away, 1));
        }
        sender.say(6001, away, ids[0], "for later");
    };
    servers.database.kill();
    until("it is not ready", || ready() == 503);
    assert_eq!(api.ask("GET", "/healthz", "", &Value::Null).0, 200);
    send(&mut sender, ["g1", "g2"]);
    servers.database.start_again();
    let answered = |sender: &mut Client, ids: [&str; 2]| {
        let heard = hear(sender, 3, 2);
        let shown: BTreeSet<String> = heard.messages.iter().map(|it| data(it)["id"].to_string()).collect();
        assert!(shown.iter().eq(ids.map(|id| format!("\"{id}\"")).iter()), "{shown:?}");
        let count = |wanted| heard.acks.iter().filter(|(_, outcome)| *outcome == wanted).count();
        assert_eq!((count(Outcome::Answered), count(Outcome::Stored)), (2, 1), "{:?}", heard.acks);
    };
    answered(&mut sender, ["g1", "g2"]);
    until("it is ready", || ready() == 200);
    stack.backend.kill();
    send(&mut sender, ["g3", "g4"]);
    stack.backend.start();
    answered(&mut sender, ["g3", "g4"]);
    assert_eq!((api.committed(), api.balance(&giver)), (4, 960));
}

/// What `sailfish demo` prints works as it stands, but for where these servers listen.
#[test]
fn the_demonstration_works_as_it_is_printed() {
    let mut up = Up::start(SECRET);
    let first = demo(up.api);
    let again = demo(up.api);
    let line = String::from_utf8(again.stderr).unwrap();
    assert_eq!((again.status.code(), line.trim_end().lines().count()), (Some(1), 1), "{line}");
    assert!(line.contains("one code a minute") && line.contains("wait"), "{line}");
    let printed = String::from_utf8(first.stdout).unwrap();
    assert!(first.status.success(), "{printed}{}", String::from_utf8_lossy(&first.stderr));
    let commands = printed.replace("\\\n", " ");
    let commands: Vec<&str> = commands.lines().map(str::trim).collect();
    let curl = |part: &str| {
        let line = commands.iter().find(|line| line.starts_with("curl ") && line.contains(part)).expect(part);
        let said = output(
            Command::new("sh").args(["-c", &format!("{line} --silent --show-error --fail-with-body")]),
            "",
        );
        let text = String::from_utf8(said.stdout).unwrap();
        assert!(said.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&said.stderr));
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let line = commands.iter().find_map(|line| line.strip_prefix("sailfish chat ")).unwrap();
    let mut chat = Chat::start(up.server.clients, line);
    until("the watcher is in the room", || up.server.metric("sailfish_rooms", "") >= 1.0);
    curl("/gift/send");
    until("the watcher sees the gift", || chat.said.lock().unwrap().contains("\"giftId\""));
    chat.end();
    assert_eq!(curl("/wallet")["balance"], 9_990);
    let order = curl("/orders");
    let pay_url = order["pay_url"].as_str().unwrap();
    let page = output(Command::new("curl").args(["-sS", "--fail", pay_url]), "");
    assert!(page.status.success() && String::from_utf8_lossy(&page.stdout).contains("Pay 6.00"), "{pay_url}");
    let pay = commands.iter().find(|line| line.starts_with("curl PAY_URL")).unwrap();
    let pay = format!("{} --silent --show-error --fail", pay.replace("PAY_URL", pay_url));
    assert!(output(Command::new("sh").args(["-c", &pay]), "").status.success(), "{pay}");
    assert_eq!(curl("/wallet")["balance"], 10_050);

    // Once more, after a restart: the same users, room and gifts, and no more money.
    up.restart(SECRET);
    let third = demo(up.api);
    let text = String::from_utf8(third.stdout).unwrap();
    assert!(third.status.success(), "{text}{}", String::from_utf8_lossy(&third.stderr));
    let same = |text: &str| -> Vec<String> {
        let ids = text
            .lines()
            .filter(|line| line.starts_with("  1") || line.contains("opened by") || line.contains("phone"));
        ids.map(|line| line.split("  token").next().unwrap().to_owned()).collect()
    };
    assert_eq!(same(&text), same(&printed));
    assert_eq!(curl("/wallet")["balance"], 10_050);
}

fn demo(api: Api) -> std::process::Output {
    let url = format!("http://{}", api.0);
    let mut command = sailfish();
    command.args(["demo", "--backend", &url]).env("SAILFISH_BACKEND__INTERNAL_SECRET", INTERNAL_SECRET);
    output(&mut command, "")
}

/// `sailfish chat` that stays until it is told to end.
struct Chat {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Chat {
    fn start(target: SocketAddr, arguments: &str) -> Self {
        let mut command = sailfish();
        command.arg("chat").args(arguments.split(' ')).args(["--target", &target.to_string()]);
        command.args(["--set", &format!("token.secret={SECRET}")]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = Arc::<Mutex<String>>::default();
        let (stdout, copy) = (child.stdout.take().unwrap(), said.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                copy.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        Self { child, said }
    }

    fn end(&mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

#[test]
fn a_load_of_gifts_passes() {
    let up = Up::start(SECRET);
    let mut command = sailfish();
    command.args("load gift --connections 40 --rooms 4 --rate 100 --seconds 3 --backend-secret".split(' '));
    command.args([INTERNAL_SECRET, "--backend", &format!("http://{}", up.api.0)]);
    command.args(["--target", &up.server.clients.to_string(), "--set", &format!("token.secret={SECRET}")]);
    let done = output(&mut command, "");
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{text}");
    assert_eq!(up.api.committed(), 300, "{text}");
}
