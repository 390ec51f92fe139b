//! The door for the bridge's events.

use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::common::{Answer, Node, Stack, request, servers, until};
use crate::gift::{audit, grant, new_gift};
use crate::pushes::{FakePush, payload};

/// A request of a session that is in room 7.
pub fn gift_event(id: &str, user: i64, key: &str, biz_code: i32, payload: &Value) -> Value {
    json!({ "id": id, "type": "request", "app": 1, "user": user, "device": "phone", "room": 7,
        "biz_code": biz_code, "client_msg_id": key, "data": payload.to_string() })
}

/// A call as a bridge makes it, `age_ms` ago.
async fn post(node: &Node, secret: &str, age_ms: i64, body: &str) -> Answer {
    post_to(&node.url(), secret, age_ms, body).await
}

/// What a bridge puts into the headers of a call that it made `age_ms` ago.
pub fn signature(secret: &str, age_ms: i64, body: &str) -> [(&'static str, String); 2] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let timestamp = (now - age_ms).to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{timestamp}.{body}").as_bytes());
    let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    [("x-sailfish-timestamp", timestamp), ("x-sailfish-signature", signature)]
}

async fn post_to(url: &str, secret: &str, age_ms: i64, body: &str) -> Answer {
    let mut headers = vec![("content-type", "application/json".to_owned())];
    headers.extend(signature(secret, age_ms, body));
    request("POST", &format!("{url}/bridge/events"), &headers, body.into()).await
}

/// Sends events; each one's id and status.
pub async fn send(node: &Node, batch: Value) -> Vec<(String, String)> {
    let answer = post(node, "bridge-secret", 0, &batch.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let results = answer.json();
    let results = results["results"].as_array().unwrap().iter();
    results.map(|result| (text(&result["id"]), text(&result["status"]))).collect()
}

both!(
    /// A4: only the bridge is heard, only what it has just said, and each event is answered by itself.
    the_door_opens_to_the_bridge_alone,
    |stack| async move {
        let node = stack.backend().await;
        let empty = r#"{"events":[]}"#;
        assert_eq!(post(&node, "bridge-secret", 0, empty).await.status, 200);
        assert_eq!(post(&node, "bridge-secret", 299_000, empty).await.status, 200);
        assert_eq!(post(&node, "bridge-secret", 301_000, empty).await.status, 401);
        assert_eq!(post(&node, "bridge-secret", -301_000, empty).await.status, 401);
        assert_eq!(post(&node, "another", 0, empty).await.status, 401);
        let url = format!("{}/bridge/events", node.url());
        assert_eq!(request("POST", &url, &[], empty.into()).await.status, 401);
        for broken in ["", "{", "[]", r#"{"events":1}"#, r#"{"events":[1]"#, "\u{0}"] {
            let answer = post(&node, "bridge-secret", 0, broken).await;
            assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some("bad_request")));
        }
        let long = format!(r#"{{"events":["{}"]}}"#, "x".repeat(10 << 20));
        let url = node.url();
        // It is answered, or cut off, before all of it was sent.
        let sent = tokio::spawn(async move { post_to(&url, "bridge-secret", 0, &long).await.status });
        assert!(sent.await.is_ok_and(|status| status == 413) || post(&node, "bridge-secret", 0, empty).await.status == 200);
        let events = json!({ "events": [
            { "id": "1", "type": "online", "app": 1, "user": 5, "device": "phone", "login": "7" },
            { "id": "2", "type": "of a later version", "app": 1, "user": 5 },
            { "id": "3", "type": "online", "app": 1, "user": "five", "device": "phone", "login": "7" },
            { "type": "offline" },
            gift_event("4", 5, "k", 4711, &json!({})),
            { "id": "5", "type": "request", "app": 2, "user": 5, "device": "phone", "biz_code": 5560, "client_msg_id": "k", "data": "{}" },
            { "id": "6", "type": "join", "app": 1, "user": 5, "device": "phone", "login": "7", "room": 3 },
        ] });
        let results = send(&node, events).await;
        let expected = [("1", "ok"), ("2", "refused"), ("3", "refused"), ("", "refused"), ("4", "refused"), ("5", "refused"), ("6", "ok")];
        assert_eq!(results, expected.map(|(id, status)| (id.to_owned(), status.to_owned())));
        node.stop().await;
        let mut config = stack.config();
        config.bridge_secret = String::new();
        let node = stack.backend_with(config).await;
        assert_eq!(post(&node, "", 0, empty).await.status, 401, "no secret, no events");
        node.stop().await;
    }
);

/// A gift that is not decided in time is sent again; what came with it is answered before the bridge gives up
/// the whole batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undecided_gift_does_not_hold_its_batch() {
    let stack = Stack::embedded().await;
    let mut config = stack.config();
    config.gift_wait_ms = 25_000;
    let node = stack.backend_with(config).await;
    let gift = new_gift(&node, 10).await;
    grant(&node, 5, 100, "a").await;
    let writer = node.app().store.db.begin().await.unwrap(); // the only one that SQLite has
    let paid = gift_event("1", 5, "k", 5560, &json!({ "giftId": gift, "receiverId": 3 }));
    let batch = json!({ "events": [paid, gift_event("2", 5, "l", 4711, &json!({}))] });
    let results = tokio::time::timeout(std::time::Duration::from_secs(15), send(&node, batch.clone())).await;
    let pairs = |statuses: [&str; 2]| {
        [("1".to_owned(), statuses[0].to_owned()), ("2".to_owned(), statuses[1].to_owned())]
    };
    assert_eq!(results.expect("well before the gift is given up"), pairs(["retry", "refused"]));
    drop(writer);
    assert_eq!(send(&node, batch).await, pairs(["ok", "refused"]));
    assert_eq!(audit(&node).await, (90, 1));
    node.stop().await;
}

/// A4: events from Redis Streams: each is dealt with once, in its lane's order, by one of two processes, and
/// by the other when that dies; what is no event becomes a dead letter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_by_streams() {
    let stack = Stack::production().await;
    let fake = FakePush::start().await;
    let mut config = stack.config();
    (config.bridge_streams, config.push_url, config.gifts_per_second) = (2, fake.url(), 1_000_000);
    let redis = &servers().redis;
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut add = async |lane: u32, event: String| {
        let key = format!("{}:events:{lane}", config.prefix);
        let mut add = redis::cmd("XADD");
        add.arg(key).arg("*").arg("e").arg(event).query_async::<String>(&mut connection).await.unwrap();
    };
    // Some are there before anybody reads.
    add(0, "no event".into()).await;
    let first = stack.backend_with(config.clone()).await;
    let gift = new_gift(&first, 10).await;
    grant(&first, 1, 395, "a").await;
    let event = |number: u32| {
        let payload = json!({ "giftId": gift, "receiverId": 3 });
        gift_event(&format!("e{number}"), 1, &format!("g{number}"), 5560, &payload).to_string()
    };
    let second = stack.backend_with(config.clone()).await;
    for number in 0..20 {
        add(number % 2, event(number)).await;
        add(number % 2, event(number)).await; // its reply was lost, so the bridge repeats it
    }
    until("twenty are paid", || async { audit(&second).await == (195, 20) }).await;
    let mut victim = Some(first);
    for number in 20..40 {
        add(number % 2, event(number)).await;
        if number == 25 {
            victim.take().unwrap().kill().await;
        }
    }
    until("all that could be are paid", || async { audit(&second).await == (5, 39) }).await;
    until("one is told that it was not", || async { fake.shown(5557).len() == 1 }).await;
    assert_eq!(payload(&fake.shown(5557)[0])["reason"], "insufficient_balance");
    let dead = format!("{}:events:dead", config.prefix);
    assert_eq!(redis.number(&["XLEN", &dead]), 1);
    for lane in 0..2 {
        let key = format!("{}:events:{lane}", config.prefix);
        until("the streams are empty", || async { redis.number(&["XLEN", &key]) == 0 }).await;
    }
    second.stop().await;
}
