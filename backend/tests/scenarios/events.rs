//! Events as a bridge sends them.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::common::{Stack, request};

/// A session that came (`online`) or ended (`offline`). `seq` is its shard's number of the event.
pub fn session(kind: &str, seq: u64, user: i64, device: &str, login: u64) -> Value {
    json!({ "id": format!("210000-18a3f0c2b4d5e600-{seq:x}"), "type": kind, "app": 1, "user": user, "device": device,
        "login": login.to_string() })
}

/// A session that joined (`join`) or left (`leave`) a room.
pub fn membership(kind: &str, seq: u64, user: i64, device: &str, login: u64, room: i64) -> Value {
    let mut event = session(kind, seq, user, device, login);
    event["room"] = json!(room);
    event
}

/// Sends events to the backend at `url`; what became of each.
pub async fn try_send(stack: &Stack, url: &str, events: &[Value]) -> Vec<String> {
    let body = json!({ "events": events }).to_string();
    let timestamp = stack.clock().now_ms().to_string();
    let mac =
        Hmac::<Sha256>::new_from_slice(b"bridge-secret").unwrap().chain_update(format!("{timestamp}.{body}"));
    let signature = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("x-sailfish-timestamp", timestamp),
        ("x-sailfish-signature", signature),
    ];
    let answer = request("POST", &format!("{url}/bridge/events"), &headers, body.into()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    let results = answer["results"].as_array().unwrap().iter();
    results.map(|result| result["status"].as_str().unwrap().to_owned()).collect()
}

/// Sends events, as often as they are wanted again.
pub async fn send(stack: &Stack, url: &str, events: &[Value]) {
    let mut rest = events.to_vec();
    for _ in 0..50 {
        let results = try_send(stack, url, &rest).await;
        let again = rest.into_iter().zip(results).filter(|(event, status)| {
            assert!(status == "ok" || status == "retry", "{status}: {event}");
            status == "retry"
        });
        rest = again.map(|(event, _)| event).collect();
        if rest.is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{} events are wanted again and again", rest.len());
}
