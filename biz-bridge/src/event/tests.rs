//! The JSON of each event, letter by letter: it is the contract.

use serde_json::{Value, json};
use wire::node::{Login, SessionId};
use wire::{BizCode, ClientMsgId, DeviceClass, MessageId, RoomId};

use super::*;

const APP: AppId = AppId(-1);
const USER: UserId = UserId(i64::MIN);
const ROOM: RoomId = RoomId(7);
const DEVICE: DeviceClass = DeviceClass::Tablet;
const LOGIN: Login = Login(u64::MAX);

fn entry(event: ToBridge) -> Entry {
    let item = Item { shard: 0x3_0001, incarnation: u64::MAX, seq: 255, event };
    Entry::new(&item, Sampling::default())
}

fn read(entry: &Entry) -> Value {
    serde_json::from_slice(&entry.json).unwrap()
}

fn request(room: Option<RoomId>, payload: &[u8]) -> ToBridge {
    ToBridge::Request {
        session: SessionId(9),
        device: DEVICE,
        room,
        app: APP,
        sender: USER,
        biz_code: BizCode(5560),
        received_ms: 0,
        client_msg_id: ClientMsgId::new(Bytes::from_static(b"g1")),
        payload: Bytes::copy_from_slice(payload),
    }
}

fn undelivered(room: Option<RoomId>) -> ToBridge {
    let message = Message {
        id: MessageId(u64::MAX),
        app: APP,
        sender: UserId(2),
        biz_code: BizCode(6001),
        room,
        sequence: if room.is_some() { 42 } else { 0 },
        ack_wanted: true,
        client_msg_id: ClientMsgId::default(),
        payload: Bytes::from_static(b"hi"),
    };
    ToBridge::Undelivered {
        user: USER,
        reason: FailReason::Unacked,
        message,
        delivery: wire::node::DeliveryId(1),
    }
}

const ID: &str = "30001-ffffffffffffffff-ff";

#[test]
fn sessions_and_memberships() {
    let session = |kind| json!({ "id": ID, "type": kind, "app": -1, "user": i64::MIN, "device": "tablet", "login": "18446744073709551615" });
    let membership = |kind| {
        let mut body = session(kind);
        body["room"] = json!(7);
        body
    };
    let (app, user, device, login, room) = (APP, USER, DEVICE, LOGIN, ROOM);
    for (event, body) in [
        (ToBridge::Online { app, user, device, login }, session("online")),
        (ToBridge::Offline { app, user, device, login }, session("offline")),
        (ToBridge::Joined { app, user, device, login, room }, membership("join")),
        (ToBridge::Left { app, user, device, login, room }, membership("leave")),
    ] {
        let entry = entry(event);
        assert_eq!(read(&entry), body);
        assert_eq!(body["type"], entry.kind.name());
        assert_eq!((entry.user, entry.refusal), ((APP, USER), FailReason::NoRoute));
    }
}

/// That of every event here.
fn traceparent() -> String {
    let trace = entry(request(None, b"")).key.context(Sampling::default()).to_string();
    let lengths: Vec<usize> = trace.split('-').map(str::len).collect();
    assert_eq!(lengths, [2, 32, 16, 2], "{trace}");
    trace
}

#[test]
fn each_event_begins_a_trace_of_its_own() {
    let key = |shard, incarnation, seq| EventKey { shard, incarnation, seq };
    let keys = (0..1_000).flat_map(|n| [key(1, 7, n), key(2, 7, n), key(1, 8, n), key(0, 0, n)]);
    let mut seen = std::collections::BTreeSet::new();
    assert!(keys.map(|key| key.trace()).all(|trace| trace != "0".repeat(32) && seen.insert(trace)));
    let (all, none) = (Sampling::default(), Sampling::per_million(0));
    assert_eq!(key(1, 7, 3).context(all), key(1, 7, 3).context(all), "on every retry");
    let unsampled = key(1, 7, 3).context(none);
    assert_eq!(Context { is_sampled: true, ..unsampled }, key(1, 7, 3).context(all));
    assert!(unsampled.to_string().ends_with("-00"), "{unsampled}");
}

#[test]
fn requests() {
    let mut body = json!({
        "id": ID, "type": "request", "app": -1, "user": i64::MIN, "device": "tablet", "biz_code": 5560, "client_msg_id": "g1", "data": "{}",
        "traceparent": traceparent()
    });
    assert_eq!(read(&entry(request(None, b"{}"))), body);
    body["room"] = json!(7);
    assert_eq!(read(&entry(request(Some(ROOM), b"{}"))), body);
}

#[test]
fn undelivered_messages() {
    let mut body = json!({
        "id": ID, "type": "undelivered", "app": -1, "user": i64::MIN, "reason": "unacked",
        "message_id": "18446744073709551615", "sender": 2, "biz_code": 6001, "client_msg_id": "", "data": "hi",
        "traceparent": traceparent()
    });
    let to_user = entry(undelivered(None));
    assert_eq!(read(&to_user), body);
    assert_eq!((to_user.user, to_user.refusal), ((APP, USER), FailReason::Unacked));
    body["room"] = json!(7);
    body["sequence"] = json!(42);
    assert_eq!(read(&entry(undelivered(Some(ROOM)))), body);
}

#[test]
fn payloads_survive_whatever_is_in_them() {
    let text = "\0\u{1}\n\r\t\"\\\u{7f}\u{2028}\u{1f381} '; DROP TABLE users; --";
    assert_eq!(read(&entry(request(None, text.as_bytes())))["data"], text);
    let binary = [0xff, 0, 0xfe, 0x80];
    let body = read(&entry(request(None, &binary)));
    assert_eq!(body["data_base64"], "/wD+gA==");
    assert_eq!(body.get("data"), None);
    assert_eq!(read(&entry(request(None, b"")))["data"], "");
}

#[test]
fn users_are_spread_over_lanes_and_stay_there() {
    let lanes: Vec<usize> = (0..8_000).map(|user| lane_of(AppId(1), UserId(user), 8)).collect();
    for lane in 0..8 {
        let users = lanes.iter().filter(|of| **of == lane).count();
        assert!((800..1_200).contains(&users), "{users} users on lane {lane}");
    }
    // Bridges of different versions go by the same lanes.
    assert_eq!(lanes[..8], [5, 2, 3, 6, 7, 5, 1, 0]);
}
