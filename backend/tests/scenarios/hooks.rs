//! Webhooks, against a service that works, is late, answers nonsense, and dies.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use backend::{Class, Config, Failing};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::bridge::{gift_event, send};
use crate::common::{Node, Stack, free_port, request, servers, until};
use crate::events::session;
use crate::gift::{grant, new_gift};
use crate::login::{code, phone, try_log_in};
use crate::pushes::{FakePush, payload};

const SECRET: &str = "the secret of all hooks";

/// How the service answers.
#[derive(Clone, Debug)]
enum Mood {
    Answers(u16, Value),
    /// 400 to a call with this text in it, 200 to others.
    RefusesText(&'static str),
    /// Nothing that is JSON.
    Garbles,
    /// 10 MB.
    IsEndless,
    /// Never.
    IsSilent,
}

/// A service that remembers what it was told, and checks its signature.
#[derive(Clone)]
struct Service {
    told: Arc<Mutex<Vec<Value>>>,
    mood: Arc<Mutex<Mood>>,
    url: String,
}

impl Service {
    async fn start(mood: Mood) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let service = Self { told: Arc::default(), mood: Arc::new(Mutex::new(mood)), url };
        let router =
            Router::new().route("/hook", axum::routing::post(Self::take)).with_state(service.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        service
    }

    async fn take(State(service): State<Self>, headers: HeaderMap, body: Bytes) -> Response {
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        let mac = mac.chain_update(header("x-sailfish-timestamp")).chain_update(".").chain_update(&body);
        let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(header("x-sailfish-signature"), hex);
        let mut told: Value = serde_json::from_slice(&body).unwrap();
        if let Some(traceparent) = headers.get("traceparent") {
            told["traceparent"] = json!(traceparent.to_str().unwrap());
        }
        service.told.lock().unwrap().push(told);
        let mood = service.mood.lock().unwrap().clone();
        match mood {
            Mood::Answers(status, answer) => {
                (StatusCode::from_u16(status).unwrap(), answer.to_string()).into_response()
            }
            Mood::RefusesText(text) if String::from_utf8_lossy(&body).contains(text) => {
                StatusCode::BAD_REQUEST.into_response()
            }
            Mood::RefusesText(_) => StatusCode::OK.into_response(),
            Mood::Garbles => "allow".into_response(),
            Mood::IsEndless => Body::from(vec![b' '; 10_000_000]).into_response(),
            Mood::IsSilent => std::future::pending().await,
        }
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn told(&self) -> Vec<Value> {
        self.told.lock().unwrap().clone()
    }

    /// Events of all batches.
    fn events(&self) -> Vec<Value> {
        self.told().iter().flat_map(|told| told["events"].as_array().unwrap().clone()).collect()
    }
}

fn allow() -> Mood {
    Mood::Answers(200, json!({ "action": "allow" }))
}

fn with(stack: &Stack, change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config { hook_secret: SECRET.into(), ..stack.config() };
    change(&mut config);
    config
}

/// A message of a session that is in room 7.
fn chat(id: &str, user: i64, text: &str) -> Value {
    json!({ "id": id, "type": "request", "app": 1, "user": user, "device": "phone", "room": 7,
        "biz_code": 5555, "client_msg_id": format!("m{id}"), "data": text })
}

/// The status of one event, which is sent until it is decided.
async fn decided(node: &Node, event: &Value) -> String {
    for _ in 0..500 {
        let results = send(node, json!({ "events": [event] })).await;
        if results[0].1 != "retry" {
            return results[0].1.clone();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never decided: {event}");
}

async fn metric(node: &Node, line: &str) -> u64 {
    let page = request("GET", &format!("{}/metrics", node.url()), &[], Vec::new()).await.text();
    let found = page.lines().find_map(|known| known.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
    found.unwrap_or_else(|| panic!("no {line} in {page}"))
}

both!(
    /// A message that is allowed reaches its room in the sender's name, one that is refused only its sender,
    /// one that is replaced with its other payload.
    a_message_is_allowed_refused_or_replaced,
    |stack| async move {
        let (fake, service) = (FakePush::start().await, Service::start(allow()).await);
        let node = stack
            .backend_with(with(&stack, |config| {
                (config.push_url, config.before_send_url) = (fake.url(), service.url.clone());
            }))
            .await;
        assert_eq!(decided(&node, &chat("1", 5, "hello")).await, "ok");
        let question = &service.told()[0];
        assert_eq!(question["hook"], "before_send");
        assert_eq!(question["event"], json!({ "id": "1", "app": 1, "user": 5, "device": "phone", "room": 7,
            "biz_code": 5555, "client_msg_id": "m1", "data": "hello" }));
        assert_eq!(fake.all(), [json!({ "app": 1, "room": 7, "biz_code": 5555, "client_msg_id": "m1", "data": "hello",
            "sender": 5, "class": "lossy" })]);
        service.set(Mood::Answers(200, json!({ "action": "replace", "data": "h***o" })));
        let mut traced = chat("2", 5, "hello");
        traced["traceparent"] = json!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        assert_eq!(decided(&node, &traced).await, "ok");
        let told = service.told()[1]["traceparent"].as_str().unwrap().to_owned();
        assert!(told.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && !told.contains("b7ad6b7169203331"), "{told}");
        assert_eq!(fake.all()[1]["data"], "h***o");
        service.set(Mood::Answers(200, json!({ "action": "refuse", "reason": "no advertising" })));
        assert_eq!(decided(&node, &chat("3", 5, "buy")).await, "refused");
        let told = &fake.all()[2];
        assert_eq!((&told["biz_code"], &told["user"], &told["sender"]), (&json!(5562), &json!(5), &Value::Null));
        let reason = json!({ "id": "m3", "bizCode": 5555, "roomId": 7, "reason": "no advertising" });
        assert_eq!(payload(told), reason);
        assert_eq!(fake.all().len(), 3);
        // Other codes and other apps are no business of the service.
        let mut other = chat("4", 5, "x");
        other["app"] = json!(2);
        assert_eq!(decided(&node, &other).await, "refused");
        assert_eq!(service.told().len(), 3);
        assert_eq!(metric(&node, r#"sailfish_backend_before_send_messages_total{result="replaced"}"#).await, 1);
        node.stop().await;
    }
);

both!(
    /// A service that is late, answers nonsense, 500 or 10 MB, or is dead: the rule of the configuration
    /// decides, and a metric says why. After some failures in a row the service is left alone.
    a_failing_service_is_judged_by_the_rule,
    |stack| async move {
        let fake = FakePush::start().await;
        let failures = [
            (Mood::IsSilent, "late"),
            (Mood::Garbles, "wrong"),
            (Mood::Answers(200, json!({ "action": "perhaps" })), "wrong"),
            (Mood::Answers(200, json!({ "action": "replace" })), "wrong"),
            (Mood::Answers(500, json!({ "action": "allow" })), "status"),
            (Mood::IsEndless, "cut"),
            (Mood::Answers(400, json!({})), "refused"),
        ];
        for (failing, status, shown) in [(Failing::Allow, "ok", 1), (Failing::Refuse, "refused", 0)] {
            let service = Service::start(allow()).await;
            let node = stack
                .backend_with(with(&stack, |config| {
                    (config.push_url, config.before_send_url) = (fake.url(), service.url.clone());
                    (config.before_send_timeout_ms, config.before_send_failing) = (200, failing);
                }))
                .await;
            for (number, (mood, outcome)) in failures.iter().enumerate() {
                let line = format!(r#"sailfish_backend_webhook_calls_total{{hook="before_send",outcome="{outcome}"}}"#);
                let (before, sent) = (metric(&node, &line).await, fake.shown(5555).len());
                service.set(allow());
                assert_eq!(decided(&node, &chat(&format!("{failing:?}{number}a"), 5, "x")).await, "ok");
                service.set(mood.clone());
                let event = chat(&format!("{failing:?}{number}b"), 5, "y");
                assert_eq!(decided(&node, &event).await, status, "{mood:?}");
                assert_eq!(metric(&node, &line).await, before + 1, "{mood:?}");
                assert_eq!(fake.shown(5555).len(), sent + 1 + shown, "{mood:?}");
            }
            let asked = service.told().len();
            service.set(Mood::Answers(500, json!({})));
            for number in 0..20 {
                assert_eq!(decided(&node, &chat(&format!("{failing:?}c{number}"), 5, "z")).await, status);
            }
            assert!(service.told().len() - asked < 8, "a breaker leaves the service alone");
            assert!(metric(&node, r#"sailfish_backend_webhook_calls_total{hook="before_send",outcome="breaker_open"}"#).await > 10);
            node.stop().await;
        }
        let nobody = format!("http://127.0.0.1:{}/", free_port());
        let node = stack
            .backend_with(with(&stack, |config| {
                (config.push_url, config.before_send_url) = (fake.url(), nobody);
            }))
            .await;
        assert_eq!(decided(&node, &chat("dead", 5, "x")).await, "refused");
        let line = r#"sailfish_backend_webhook_calls_total{hook="before_send",outcome="unreachable"}"#;
        assert_eq!(metric(&node, line).await, 1);
        node.stop().await;
    }
);

both!(
    /// A slow service holds up the messages that it is asked about, and nothing else; each sender's stay in
    /// their order.
    a_slow_service_holds_up_its_own_messages_only,
    |stack| async move {
        let (fake, service) = (FakePush::start().await, Service::start(Mood::IsSilent).await);
        let node = stack
            .backend_with(with(&stack, |config| {
                (config.push_url, config.before_send_url) = (fake.url(), service.url.clone());
                (config.before_send_timeout_ms, config.before_send_failing) = (3_000, Failing::Allow);
            }))
            .await;
        let gift = new_gift(&node, 10).await;
        grant(&node, 6, 10, "a").await;
        let paid = gift_event("g", 6, "k", 5560, &json!({ "giftId": gift, "receiverId": 3 }));
        let online = session("online", 1, 7, "phone", 1_763_000_042_000_000_001);
        let chats = [chat("1", 5, "one"), chat("2", 5, "two")];
        let batch = json!({ "events": [chats[0], chats[1], paid, online] });
        let begun = std::time::Instant::now();
        let statuses: Vec<String> = send(&node, batch).await.into_iter().map(|(_, status)| status).collect();
        assert_eq!(statuses, ["retry", "retry", "ok", "ok"]);
        assert!(begun.elapsed() < Duration::from_secs(2), "nobody waited for the service");
        let questions: Vec<Value> = service.told().iter().map(|told| told["event"]["id"].clone()).collect();
        assert_eq!(questions, ["1"], "the second message waits for the first");
        // The first is decided by its time limit, the others at once.
        until("both are shown", || async {
            send(&node, json!({ "events": chats })).await;
            service.set(allow());
            fake.shown(5555).len() == 2
        })
        .await;
        let texts: Vec<Value> = fake.shown(5555).iter().map(|push| push["data"].clone()).collect();
        assert_eq!(texts, ["one", "two"]);
        node.stop().await;
    }
);

/// The same by streams: later events of the lane pass those that are being decided.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_service_holds_up_no_lane() {
    let stack = Stack::production().await;
    let (fake, service) = (FakePush::start().await, Service::start(Mood::IsSilent).await);
    let config = with(&stack, |config| {
        (config.push_url, config.before_send_url, config.bridge_streams) =
            (fake.url(), service.url.clone(), 1);
        (config.before_send_timeout_ms, config.before_send_failing) = (10_000, Failing::Allow);
    });
    let client = redis::Client::open(servers().redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let key = format!("{}:events:0", config.prefix);
    let mut add = async |event: &Value| {
        let mut add = redis::cmd("XADD");
        let add = add.arg(&key).arg("*").arg("e").arg(event.to_string());
        add.query_async::<String>(&mut connection).await.unwrap();
    };
    let node = stack.backend_with(config.clone()).await;
    let gift = new_gift(&node, 10).await;
    grant(&node, 6, 10, "a").await;
    add(&chat("1", 5, "one")).await;
    until("it is asked", || async { service.told().len() == 1 }).await;
    add(&gift_event("g", 6, "k", 5560, &json!({ "giftId": gift, "receiverId": 3 }))).await;
    until("the gift is shown", || async { fake.shown(5556).len() == 1 }).await;
    assert_eq!(fake.shown(5555), Vec::<Value>::new(), "it is not decided yet");
    until("the message is shown", || async { fake.shown(5555).len() == 1 }).await;
    until("the stream is empty", || async { servers().redis.number(&["XLEN", &key]) == 0 }).await;
    assert_eq!(service.told().len(), 1);
    node.stop().await;
}

both!(
    /// The service is asked about a login; what it refuses is refused with its reason, and the code stays.
    a_login_is_allowed_or_refused,
    |stack| async move {
        let service = Service::start(Mood::Answers(200, json!({ "action": "refuse", "reason": "banned" }))).await;
        for (failing, status) in [(Failing::Allow, 200), (Failing::Refuse, 503)] {
            let node = stack
                .backend_with(with(&stack, |config| {
                    (config.login_hook_url, config.login_hook_failing) = (service.url.clone(), failing);
                    config.logins_per_minute = 1_000;
                }))
                .await;
            let phone = phone(71 + u32::from(failing == Failing::Allow));
            let right = code(&node, &phone).await;
            service.set(Mood::Answers(200, json!({ "action": "refuse", "reason": "banned" })));
            let (refused, body) = try_log_in(&node, &phone, &right).await;
            assert_eq!((refused, body["code"].as_str(), body["message"].as_str()), (403, Some("login_refused"), Some("banned")));
            let event = service.told().pop().unwrap()["event"].clone();
            assert_eq!((&event["phone"], &event["is_new"], &event["address"]), (&json!(phone), &json!(true), &json!("127.0.0.1")));
            service.set(Mood::Answers(500, json!({})));
            assert_eq!(try_log_in(&node, &phone, &right).await.0, status, "{failing:?}");
            service.set(allow());
            let allowed = if failing == Failing::Allow { 401 } else { 200 }; // the code is used
            assert_eq!(try_log_in(&node, &phone, &right).await.0, allowed);
            node.stop().await;
        }
    }
);

/// A message to a user who is not there.
fn undelivered(id: u64, user: i64, reason: &str, data: &str) -> Value {
    json!({ "id": format!("u{id}"), "type": "undelivered", "app": 1, "user": user, "reason": reason,
        "message_id": id.to_string(), "sender": 9, "biz_code": 6001, "client_msg_id": format!("c{id}"), "data": data })
}

both!(
    /// A paid gift and a stored message are told although the service is dead when they happen, and the
    /// backend is killed.
    events_survive_the_service_and_the_backend,
    |stack| async move {
        let (fake, service) = (FakePush::start().await, Service::start(Mood::Answers(500, json!({}))).await);
        let config = with(&stack, |config| {
            config.push_url = fake.url();
            (config.after_gift_url, config.offline_push_url) = (service.url.clone(), service.url.clone());
        });
        let node = stack.backend_with(config.clone()).await;
        let gift = new_gift(&node, 10).await;
        grant(&node, 6, 15, "a").await;
        let buy = |key: &str| gift_event(key, 6, key, 5560, &json!({ "giftId": gift, "receiverId": 3, "count": 1 }));
        let long = "x".repeat(5_000);
        let messages = [undelivered(1, 3, "offline", "hi"), undelivered(2, 3, "overflow", "hi"), undelivered(3, 4, "unacked", &long)];
        let results = send(&node, json!({ "events": [buy("k"), messages[0], messages[1], messages[2]] })).await;
        assert!(results.iter().all(|(_, status)| status == "ok"), "{results:?}");
        assert_eq!(decided(&node, &buy("l")).await, "ok"); // refused: too few coins, which its sender is told
        until("the service has failed", || async { !service.told().is_empty() }).await;
        node.kill().await;
        let before = service.told().len();
        service.set(Mood::Answers(204, json!({})));
        stack.clock().advance_ms(120_000);
        let node = stack.backend_with(config).await;
        let told = || service.told()[before..].iter().flat_map(|told| told["events"].as_array().unwrap().clone()).collect::<Vec<_>>();
        until("three are told", || async { told().len() >= 3 }).await;
        let mut events = told();
        events.sort_by_key(|event| event["id"].to_string());
        assert_eq!(events.len(), 3, "{events:?}");
        let first = json!({ "id": "3-1", "app": 1, "user": 3, "reason": "offline", "sender": 9, "biz_code": 6001,
            "message_id": "1", "client_msg_id": "c1", "data": "hi" });
        assert_eq!(events[0], first);
        assert_eq!((&events[1]["id"], &events[1]["data"]), (&json!("4-3"), &Value::Null), "it is too long for a phone");
        let paid = &events[2];
        assert_eq!((&paid["id"], &paid["total"], &paid["receiver"], &paid["room"]), (&json!("6-k"), &json!(10), &json!(3), &json!(7)));
        // What is told again by the bridge is told once.
        send(&node, json!({ "events": [buy("k"), messages[0]] })).await;
        let waiting = r#"sailfish_backend_webhook_events_waiting{hook="offline_push"}"#;
        until("none wait", || async { metric(&node, waiting).await == 0 }).await;
        assert_eq!(told().len(), 3);
        node.stop().await;
    }
);

both!(
    /// An event that the service calls invalid is dropped; those of its batch are told. One sender's flood
    /// leaves room for others.
    an_invalid_event_and_a_flood_harm_no_other,
    |stack| async move {
        let service = Service::start(Mood::Answers(503, json!({}))).await;
        let node = stack
            .backend_with(with(&stack, |config| {
                (config.offline_push_url, config.hook_events_max) = (service.url.clone(), 200);
            }))
            .await;
        let flood: Vec<Value> = (0..60).map(|id| undelivered(id, 1_000 + id as i64, "offline", if id == 7 { "bad" } else { "hi" })).collect();
        send(&node, json!({ "events": flood })).await;
        let mut other = undelivered(100, 2_000, "offline", "other");
        other["sender"] = json!(10);
        send(&node, json!({ "events": [other] })).await;
        let dropped = r#"sailfish_backend_webhook_events_total{hook="offline_push",result="dropped"}"#;
        let count = metric(&node, dropped).await;
        assert!((30..50).contains(&count), "{count}");
        service.set(Mood::RefusesText("\"bad\""));
        let refused = r#"sailfish_backend_webhook_events_total{hook="offline_push",result="refused"}"#;
        until("the invalid one is dropped", || async {
            stack.clock().advance_ms(10_000);
            metric(&node, refused).await == 1
        })
        .await;
        let sent = r#"sailfish_backend_webhook_events_total{hook="offline_push",result="sent"}"#;
        until("the others are told", || async { metric(&node, sent).await == 60 - count }).await;
        assert!(service.events().iter().any(|event| event["data"] == "other"));
        node.stop().await;
    }
);

/// docs/examples/webhook.py, as a program.
struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The example of docs/BACKEND.md does what it says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_judges_messages() {
    let (stack, fake, port) = (Stack::embedded().await, FakePush::start().await, free_port());
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/webhook.py");
    let python = Command::new("python3")
        .args([example, &format!("127.0.0.1:{port}")])
        .env("HOOK_SECRET", SECRET)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _example =
        Example(python.unwrap_or_else(|error| panic!("cannot start python3 ({error}): install it")));
    until("it listens", || async { std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() }).await;
    let node = stack
        .backend_with(with(&stack, |config| {
            let url = format!("http://127.0.0.1:{port}/");
            (config.push_url, config.before_send_url, config.after_gift_url) = (fake.url(), url.clone(), url);
            (config.before_send_class, config.before_send_timeout_ms) = (Class::Reliable, 10_000);
        }))
        .await;
    assert_eq!(decided(&node, &chat("1", 5, "hello")).await, "ok");
    assert_eq!(decided(&node, &chat("2", 5, "damn good")).await, "ok");
    assert_eq!(decided(&node, &chat("3", 5, "best casino in town")).await, "refused");
    let shown: Vec<Value> =
        fake.shown(5555).iter().map(|push| json!([push["data"], push["class"]])).collect();
    assert_eq!(shown, [json!(["hello", null]), json!(["**** good", null])]);
    assert_eq!(payload(&fake.shown(5562)[0])["reason"], "no advertising");
    let gift = new_gift(&node, 10).await;
    grant(&node, 6, 10, "a").await;
    let paid = gift_event("g", 6, "k", 5560, &json!({ "giftId": gift, "receiverId": 3 }));
    assert_eq!(decided(&node, &paid).await, "ok");
    let sent = r#"sailfish_backend_webhook_events_total{hook="after_gift",result="sent"}"#;
    until("it is told", || async { metric(&node, sent).await == 1 }).await;
    node.stop().await;
}
