//! Rooms with memory: who was away hears what was said, in order, once.

use rustix::process::Signal;
use wire::RoomId;
use wire::client::{ClientFrame, Encoding, Message, Outcome, Recovery, ServerFrame, Want};

use crate::common::cluster::Cluster;
use crate::common::{Client, Server, until};

const ROOM: i64 = 7;

/// Joins and wants what was said; the answer, with the sequence.
fn recover(client: &mut Client, room: i64, want: Want) -> (u64, Recovery) {
    let room = RoomId(room);
    client.send(&ClientFrame::Join { room, want: Some(want) });
    match client.next() {
        Some(ServerFrame::Joined { room: joined, sequence, recovery: Some(recovery) }) if joined == room => {
            (sequence, recovery)
        }
        other => panic!("instead of joined: {other:?}"),
    }
}

/// Says so many messages, and waits until each has its place; the sequences.
fn talk(client: &mut Client, room: i64, from: usize, count: usize) -> Vec<u64> {
    for n in from..from + count {
        client.say(5555, room, &format!("m{n}"), &format!("words {n}"));
    }
    let sequence = |n: usize| match client.outcome_beside_messages(&format!("m{n}")) {
        Outcome::Sequenced { sequence } => sequence,
        other => panic!("m{n} is {other:?}"),
    };
    (from..from + count).map(sequence).collect()
}

fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8(message.payload.to_vec()).unwrap()).collect()
}

fn words(from: usize, count: usize) -> Vec<String> {
    (from..from + count).map(|n| format!("words {n}")).collect()
}

fn check_recovery(mut speaker: Client, mut login: impl FnMut(i64, Encoding) -> Client) {
    speaker.join(ROOM);
    let said = talk(&mut speaker, ROOM, 0, 10);
    for encoding in [Encoding::Binary, Encoding::Json, Encoding::JsonOld] {
        let mut away = login(2, encoding);
        assert_eq!(recover(&mut away, ROOM, Want::Since(said[3])), (said[9], Recovery::Complete));
        let heard = messages(&mut away, 6);
        assert_eq!(texts(&heard), words(4, 6));
        assert!(heard.iter().map(|message| message.sequence).eq(said[4..].iter().copied()));
        assert!(heard.iter().all(|message| message.room == Some(RoomId(ROOM)) && !message.ack_wanted));
        // Once more, though it is in: a client that suspects a gap.
        assert_eq!(recover(&mut away, ROOM, Want::Last(2)), (said[9], Recovery::Complete));
        assert_eq!(texts(&messages(&mut away, 2)), words(8, 2));
        assert_eq!(recover(&mut away, ROOM, Want::Since(said[9])), (said[9], Recovery::Complete));
        assert_eq!(recover(&mut away, ROOM, Want::Since(0)), (said[9], Recovery::TooOld));
        assert_eq!(texts(&messages(&mut away, 10)), words(0, 10));
        away.heartbeat();
    }
    let mut away = login(3, Encoding::Binary);
    assert_eq!(recover(&mut away, ROOM, Want::Since(said[8])).1, Recovery::Complete);
    let live = talk(&mut speaker, ROOM, 10, 1);
    let heard = messages(&mut away, 2);
    assert_eq!((texts(&heard), heard[1].sequence), (words(9, 2), live[0]));
}

fn messages(client: &mut Client, count: usize) -> Vec<Message> {
    (0..count).map(|_| client.message()).collect()
}

#[test]
fn a_member_that_was_away_hears_what_was_said() {
    let server = Server::start(&[]);
    check_recovery(server.login(1), |user, encoding| server.login_as(user, encoding));
    assert!(server.metric("sailfish_router_history_messages", "") >= 11.0);
}

#[test]
fn it_comes_back_to_another_node() {
    let mut cluster = Cluster::start(2, 2, &[]);
    let speaker = cluster.gateway(0).login(1);
    check_recovery(speaker, |user, encoding| cluster.gateway(1).login_as(user, encoding));
}

#[test]
fn http_has_the_last_messages_of_a_room() {
    let mut cluster = Cluster::start(2, 2, &[]);
    let mut speaker = cluster.gateway(0).login(1);
    speaker.join(ROOM);
    let said = talk(&mut speaker, ROOM, 0, 5);
    speaker.send(&ClientFrame::Business(wire::client::Business {
        biz_code: wire::BizCode(5555),
        target: ROOM,
        client_msg_id: "".into(),
        payload: (&b"\xff"[..]).into(),
    }));
    speaker.heartbeat_beside_messages();
    let get = |cluster: &mut Cluster, path: &str| cluster.gateway(1).get(path);
    let path = format!("/v1/rooms/1/{ROOM}/messages?last=3");
    until("all have their place", || get(&mut cluster, &path).1.contains("data_base64"));
    let (status, body) = get(&mut cluster, &path);
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &answer["app"], &answer["room"]), (200, &1.into(), &ROOM.into()));
    let messages = answer["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 3);
    let first = &messages[0];
    assert_eq!((first["sequence"].as_u64(), first["sender"].as_i64()), (Some(said[3]), Some(1)));
    assert_eq!((&first["data"], &first["client_msg_id"]), (&"words 3".into(), &"m3".into()));
    assert_eq!(
        (&messages[2]["data_base64"], &messages[2]["data"]),
        (&"/w==".into(), &serde_json::Value::Null)
    );
    let (status, body) = get(&mut cluster, "/v1/rooms/1/99/messages");
    assert_eq!((status, body.contains("\"messages\":[]")), (200, true), "{body}");
    for wrong in ["last=1001", "last=x", "first=1"] {
        assert_eq!(get(&mut cluster, &format!("/v1/rooms/1/7/messages?{wrong}")).0, 400, "{wrong}");
    }
    assert_eq!(get(&mut cluster, "/v1/rooms/1/x/messages").0, 400);
}

/// The last member of a room goes, too: the room is there when it comes back.
#[test]
fn a_room_that_was_empty_for_a_while_remembers() {
    let server = Server::start(&[]);
    let mut alone = server.login(1);
    alone.join(ROOM);
    let said = talk(&mut alone, ROOM, 0, 3);
    drop(alone);
    until("the room is empty", || server.metric("sailfish_router_rooms", "") == 0.0);
    let mut alone = server.login(1);
    let (sequence, recovery) = recover(&mut alone, ROOM, Want::Since(said[0]));
    assert_eq!((recovery, sequence >= said[2]), (Recovery::Complete, true));
    assert_eq!(texts(&messages(&mut alone, 2)), words(1, 2));
    assert!(talk(&mut alone, ROOM, 3, 1)[0] > sequence);
}

/// Rooms that one router owns or the other.
const ROOMS: std::ops::Range<i64> = 1..13;

fn talk_in_rooms(cluster: &mut Cluster) -> Vec<(i64, Vec<u64>)> {
    let mut speaker = cluster.gateway(0).login(1);
    ROOMS.for_each(|room| speaker.join(room));
    ROOMS.map(|room| (room, talk(&mut speaker, room, 0, 5))).collect()
}

/// A router that leaves gives what it keeps to the next owners.
#[test]
fn what_rooms_said_moves_with_them() {
    let mut cluster = Cluster::start(2, 2, &[]);
    let mut listener = cluster.gateway(1).login(2);
    ROOMS.filter(|room| room % 2 == 0).for_each(|room| listener.join(room));
    let said = talk_in_rooms(&mut cluster);
    until("the speaker is out", || cluster.gateway(0).metric("sailfish_memberships", "") == 0.0);
    let owned = |cluster: &mut Cluster, at: usize| {
        cluster.routers[at].server().metric("sailfish_router_history_rooms", "")
    };
    let (first, second) = (owned(&mut cluster, 0), owned(&mut cluster, 1));
    assert!(first > 0.0 && first + second == 12.0, "{first} and {second}");
    cluster.routers[0].server().signal(Signal::TERM);
    assert!(cluster.routers[0].server().wait().success());
    until("the other has them", || owned(&mut cluster, 1) == 12.0);
    let mut away = cluster.gateway(1).login(3);
    for (room, said) in said {
        assert_eq!(recover(&mut away, room, Want::Since(said[1])).1, Recovery::Complete, "room {room}");
        assert_eq!(texts(&messages(&mut away, 3)), words(2, 3));
    }
}

/// Other gateways end, or die and come back. Rooms that nobody is in meanwhile lose nothing.
#[test]
fn gateways_that_end_take_nothing_that_rooms_said() {
    let mut cluster = Cluster::start(1, 3, &[]);
    let said = talk_in_rooms(&mut cluster);
    let linked = |cluster: &mut Cluster| cluster.router(0).metric("sailfish_link_peers", "");
    let all = linked(&mut cluster);
    cluster.gateway(2).signal(Signal::TERM);
    assert!(cluster.gateway(2).wait().success());
    until("one has left", || linked(&mut cluster) < all);
    let two = linked(&mut cluster);
    cluster.gateways[1].kill();
    until("one has died", || linked(&mut cluster) < two);
    cluster.gateways[1].start();
    until("it is back", || linked(&mut cluster) == two);
    std::thread::sleep(std::time::Duration::from_secs(4)); // what is kept is looked through
    let mut away = cluster.gateway(0).login(3);
    for (room, said) in said {
        assert_eq!(recover(&mut away, room, Want::Since(said[1])).1, Recovery::Complete, "room {room}");
        assert_eq!(texts(&messages(&mut away, 3)), words(2, 3));
    }
}

/// What a router kept dies with it, and its rooms say so.
#[test]
fn the_next_owner_of_a_room_says_what_it_does_not_know() {
    let mut cluster = Cluster::start(2, 2, &[]);
    let said = talk_in_rooms(&mut cluster);
    cluster.routers[0].kill();
    let mut lost = 0;
    let mut away = cluster.gateway(1).login(3);
    for (room, said) in said {
        match recover(&mut away, room, Want::Since(said[1])).1 {
            Recovery::Complete => assert_eq!(texts(&messages(&mut away, 3)), words(2, 3)),
            Recovery::TooOld => lost += 1,
        }
    }
    assert!(lost > 0, "no room was owned by the router that died");
    away.heartbeat();
}

/// With a Redis, what rooms said outlives the router that owned them, whether or not somebody is in them.
#[test]
fn what_rooms_said_outlives_their_owner_in_redis() {
    let mut cluster = Cluster::start_with_redis(2, 2, &[]);
    let mut listener = cluster.gateway(1).login(2);
    ROOMS.filter(|room| room % 2 == 0).for_each(|room| listener.join(room));
    let said = talk_in_rooms(&mut cluster);
    until("the speaker is out", || cluster.gateway(0).metric("sailfish_memberships", "") == 0.0);
    // Each room has five messages and a gap before them; of those that are empty, that this is all.
    let redis = cluster.redis.as_ref().unwrap();
    let entries = |room: i64| redis.ask(&["XLEN", &format!("sailfish:room:{{1:{room}}}")]).parse::<u64>();
    let entries = || ROOMS.map(|room| entries(room).unwrap()).sum::<u64>();
    until("all is written", || entries() == 6 * 12 + 6);
    cluster.routers[0].kill();
    // An operator is told before any member has asked, and the owner has read nothing yet.
    for (room, said) in &said {
        let path = format!("/v1/rooms/1/{room}/messages?last=4");
        let mut answer = (0, String::new());
        until("the next owner answers", || {
            answer = cluster.gateway(1).get(&path);
            answer.0 == 200
        });
        let answer: serde_json::Value = serde_json::from_str(&answer.1).unwrap();
        let messages = answer["messages"].as_array().unwrap().iter();
        let heard: Vec<_> =
            messages.map(|message| (message["sequence"].as_u64(), &message["data"])).collect();
        let wanted: Vec<_> = words(1, 4).into_iter().map(serde_json::Value::from).collect();
        let wanted: Vec<_> = said[1..].iter().map(|at| Some(*at)).zip(&wanted).collect();
        assert_eq!(heard, wanted, "room {room}");
    }
    assert_eq!(cluster.routers[1].server().metric("sailfish_router_streams_read_total", ""), 0.0);
    let mut away = cluster.gateway(1).login(3);
    for (room, said) in said {
        assert_eq!(recover(&mut away, room, Want::Since(said[1])).1, Recovery::Complete, "room {room}");
        assert_eq!(texts(&messages(&mut away, 3)), words(2, 3));
    }
    // With Redis gone, operators get what the owner has.
    cluster.redis.as_mut().unwrap().kill();
    let (status, body) = cluster.gateway(1).get("/v1/rooms/1/1/messages?last=4");
    assert!(status == 200 && body.contains("words 4"), "{status} {body}");
    assert!(cluster.routers[1].server().metric("sailfish_router_streams_read_total", "") > 0.0);
    away.heartbeat();
}
