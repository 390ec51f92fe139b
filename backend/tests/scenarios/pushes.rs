//! The outbox, against a push API that works, is slow, fails, and dies.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::common::{Node, Stack, free_port, until};

/// A push API that remembers what it was told.
pub struct FakePush {
    address: SocketAddr,
    seen: Arc<Seen>,
    server: Option<JoinHandle<()>>,
}

/// How it behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    Works,
    /// Every push is `failed`, `busy`.
    Busy,
    /// Every push to a user is `failed`, `offline`.
    Offline,
    /// 500.
    Fails,
    /// Pushes, and answers what is no answer.
    Garbles,
    /// Pushes, and answers after a while.
    IsSlow,
    /// A call with a payload that has `poison` in it is refused.
    Refuses,
    /// User 1 acks nothing, and a call waits for that as long as it says.
    OneIsSilent,
}

pub struct Seen {
    mood: Mutex<Mood>,
    pushes: Mutex<Vec<Value>>,
}

impl FakePush {
    pub async fn start() -> Self {
        let seen = Arc::new(Seen { mood: Mutex::new(Mood::Works), pushes: Mutex::default() });
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut fake = Self { address, seen, server: None };
        fake.revive().await;
        fake
    }

    /// Serves again, where it did.
    pub async fn revive(&mut self) {
        let router = Router::new().route("/v1/push", axum::routing::post(push)).with_state(self.seen.clone());
        let listener = testbed::listen(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        self.server = Some(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }));
    }

    /// Takes no more calls, and answers none.
    pub async fn die(&mut self) {
        let server = self.server.take().unwrap();
        server.abort();
        let _ = server.await;
    }

    pub fn set(&self, mood: Mood) {
        *self.seen.mood.lock().unwrap() = mood;
    }

    /// All that came, repeats too.
    pub fn all(&self) -> Vec<Value> {
        self.seen.pushes.lock().unwrap().clone()
    }

    /// Of one code, each once: what receivers show.
    pub fn shown(&self, biz_code: i32) -> Vec<Value> {
        let mut names = BTreeSet::new();
        let is_first = |push: &Value| names.insert(push["client_msg_id"].to_string());
        self.all().into_iter().filter(|push| push["biz_code"] == biz_code).filter(is_first).collect()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub async fn node(&self, stack: &Stack) -> Node {
        let mut config = stack.config();
        config.push_url = self.url();
        stack.backend_with(config).await
    }
}

/// The payload of a push.
pub fn payload(push: &Value) -> Value {
    serde_json::from_str(push["data"].as_str().unwrap()).unwrap()
}

async fn push(State(seen): State<Arc<Seen>>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    assert_eq!(headers["authorization"], "Bearer push-secret");
    let pushes = body["pushes"].as_array().unwrap().clone();
    assert!(pushes.len() <= 500);
    let mood = *seen.mood.lock().unwrap();
    let is_poison = |push: &Value| push["data"].as_str().unwrap().contains("poison");
    match mood {
        Mood::Fails => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Mood::Refuses if pushes.iter().any(is_poison) => {
            return (StatusCode::BAD_REQUEST, "no").into_response();
        }
        _ => {}
    }
    let outcome = |push: &Value| match mood {
        Mood::Busy => json!({ "outcome": "failed", "reason": "busy" }),
        Mood::OneIsSilent if push["user"] == 1 => json!({ "outcome": "pending" }),
        Mood::Offline if push["room"].is_null() => json!({ "outcome": "failed", "reason": "offline" }),
        _ if push["room"].is_null() => json!({ "outcome": "delivered", "message_id": "1" }),
        _ => json!({ "outcome": "sequenced", "sequence": 1 }),
    };
    let pushes_to_one = pushes.iter().any(|push| push["user"] == 1);
    let results: Vec<Value> = pushes.iter().map(outcome).collect();
    if mood != Mood::Busy {
        seen.pushes.lock().unwrap().extend(pushes);
    }
    match mood {
        Mood::Garbles => return "{\"results\":[".into_response(),
        Mood::OneIsSilent if pushes_to_one => {
            tokio::time::sleep(Duration::from_millis(body["wait_ms"].as_u64().unwrap())).await;
        }
        Mood::IsSlow => tokio::time::sleep(Duration::from_millis(700)).await,
        _ => {}
    }
    Json(json!({ "results": results })).into_response()
}

/// Commits messages to rooms, each with its number.
async fn commit(node: &Node, rooms: i64, numbers: std::ops::Range<i64>) {
    let message = |number: i64| backend::Message {
        key: format!("m-{number}"),
        app: 1,
        target: backend::Target::Room(1 + number % rooms),
        biz_code: 5556,
        payload: json!({ "number": number, "text": "'; DROP TABLE t_outbox; -- 🐟\u{1}" }).to_string(),
    };
    let app = node.app();
    app.outbox.commit(&app.store, numbers.map(message).collect()).await.unwrap();
}

fn numbers(pushes: &[Value]) -> Vec<i64> {
    pushes.iter().map(|push| payload(push)["number"].as_i64().unwrap()).collect()
}

async fn until_empty(node: &Node) {
    let app = node.app().clone();
    until("the outbox is empty", || async {
        backend::Outbox::waiting(&app.store).await.is_ok_and(|count| count == 0)
    })
    .await;
}

both!(
    /// Whatever the push API does, each message comes, and in a room in its order; when all came, the table
    /// is empty.
    messages_come_in_order_whatever_the_push_api_does,
    |stack| async move {
        let mut fake = FakePush::start().await;
        let node = fake.node(&stack).await;
        commit(&node, 3, 0..1_200).await;
        until_empty(&node).await;
        for room in 1..=3 {
            let of_room: Vec<_> = fake.all().into_iter().filter(|push| push["room"] == room).collect();
            assert!(numbers(&of_room).is_sorted() && of_room.len() == 400);
        }
        let mut sent = 1_200;
        for mood in [Mood::Busy, Mood::Fails, Mood::Garbles, Mood::IsSlow] {
            fake.set(mood);
            commit(&node, 3, sent..sent + 50).await;
            sent += 50;
            tokio::time::sleep(Duration::from_millis(300)).await;
            fake.set(Mood::Works);
            until_empty(&node).await;
            assert_eq!(fake.shown(5556).len() as i64, sent, "{mood:?}");
        }
        fake.die().await;
        commit(&node, 3, sent..sent + 50).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(fake.shown(5556).len() as i64, sent);
        fake.revive().await;
        until_empty(&node).await;
        let shown = fake.shown(5556);
        for room in 1..=3 {
            let of_room: Vec<_> = shown.iter().filter(|push| push["room"] == room).cloned().collect();
            assert!(numbers(&of_room).is_sorted(), "the first times of a room's messages are in order");
        }
        assert_eq!(numbers(&shown).into_iter().collect::<BTreeSet<_>>(), (0..sent + 50).collect());
        node.stop().await;
    }
);

both!(
    /// C4, money rule 5: a process that dies between the commit and the push leaves the push to the next one.
    what_a_dead_process_has_committed_is_pushed_by_another,
    |stack| async move {
        let mut fake = FakePush::start().await;
        let node = fake.node(&stack).await;
        fake.die().await;
        let since = std::time::Instant::now();
        commit(&node, 2, 0..20).await;
        node.kill().await;
        fake.revive().await;
        let node = fake.node(&stack).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        // On a machine that is so slow that 5 s have passed, anybody may have pushed them.
        let is_early = since.elapsed() < Duration::from_secs(5);
        assert!(fake.all().is_empty() || !is_early, "for some seconds they are left to who wrote them");
        stack.clock().advance_ms(5_000);
        until_empty(&node).await;
        assert_eq!(numbers(&fake.shown(5556)).into_iter().collect::<BTreeSet<_>>(), (0..20).collect());
        node.stop().await;
    }
);

both!(
    /// A message that the push API refuses is dropped, and keeps nobody else from being pushed.
    a_poisonous_message_is_dropped_alone,
    |stack| async move {
        let fake = FakePush::start().await;
        let node = fake.node(&stack).await;
        fake.set(Mood::Refuses);
        let message = |number: i64| backend::Message {
            key: format!("m-{number}"),
            app: 1,
            target: backend::Target::Room(4),
            biz_code: 5556,
            payload: json!({ "number": number, "text": if number == 13 { "poison" } else { "" } }).to_string(),
        };
        node.app().outbox.commit(&node.app().store, (0..40).map(message).collect()).await.unwrap();
        until_empty(&node).await;
        let expected: Vec<i64> = (0..40).filter(|number| *number != 13).collect();
        assert_eq!(numbers(&fake.all()), expected);
        node.stop().await;
    }
);

both!(
    /// What waits for a user who does not ack keeps nothing from others, though it came first.
    a_user_who_does_not_ack_delays_nobody,
    |stack| async move {
        let fake = FakePush::start().await;
        let node = fake.node(&stack).await;
        fake.set(Mood::OneIsSilent);
        let message = |user: i64, number: i64| backend::Message {
            key: format!("m-{user}-{number}"),
            app: 1,
            target: backend::Target::User(user),
            biz_code: 5561,
            payload: json!({ "number": number }).to_string(),
        };
        let pushed_to = |user: i64| fake.all().iter().filter(|push| push["user"] == user).count();
        node.app().outbox.commit(&node.app().store, (0..2_000).map(|number| message(1, number)).collect()).await.unwrap();
        until("the silent one is pushed to", async || pushed_to(1) > 0).await;
        let others = [2, 3, 4, 5, 9, 13];
        for number in 0..3 {
            let all = others.iter().map(|user| message(*user, number));
            node.app().outbox.commit(&node.app().store, all.collect()).await.unwrap();
        }
        until("all others have theirs", async || others.iter().all(|user| pushed_to(*user) >= 3)).await;
        // They take turns: it has one call under way, of 500 ms, with some of its messages.
        assert!(pushed_to(1) < 1_000, "{}", pushed_to(1));
        node.stop().await;
    }
);
