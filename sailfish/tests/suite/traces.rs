//! Spans at a trace collector: one trace from the gateway over the bridge to the backend's transaction.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::common::stack::{Stack, Store};
use crate::common::{http, output, sailfish, until};
use wire::client::Outcome;

const ROOM: i64 = 7;

/// A collector of OpenTelemetry: notes the spans that it gets by OTLP over HTTP in JSON.
struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

/// A span, with the attributes of its resource under `resource.`.
#[derive(Clone, Debug)]
struct Span {
    body: Value,
    service: String,
    node: Value,
}

impl Collector {
    /// Listens for as long as the test's process lives. A silent one takes requests and never answers.
    fn start(is_silent: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let notes = spans.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, notes) = (stream.unwrap(), notes.clone());
                std::thread::spawn(move || serve(&stream, &notes, is_silent));
            }
        });
        Self { address, spans }
    }

    /// The flags of bridge and backend.
    fn flags(&self, api: SocketAddr) -> Vec<String> {
        let url = format!("--set=trace.otlp_url=http://{}", self.address);
        vec!["--set=bridge.mode=http".into(), format!("--set=bridge.url=http://{api}"), url]
    }

    fn all(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// The span of that name in a trace, or in any; waits for it.
    fn span(&self, trace: Option<&str>, name: &str) -> Span {
        let mut found = None;
        until(&format!("the collector has the span {name}"), || {
            let is_it = |span: &Span| span.name() == name && trace.is_none_or(|trace| span.trace() == trace);
            found = self.all().into_iter().find(is_it);
            found.is_some()
        });
        found.unwrap()
    }
}

impl Span {
    fn text(&self, key: &str) -> &str {
        self.body[key].as_str().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.text("name")
    }

    fn trace(&self) -> &str {
        self.text("traceId")
    }

    fn id(&self) -> &str {
        self.text("spanId")
    }

    fn parent(&self) -> &str {
        self.text("parentSpanId")
    }

    fn attribute(&self, key: &str) -> Value {
        value_of(&self.body["attributes"], key)
    }

    /// Start and end, in ns.
    fn times(&self) -> (u64, u64) {
        let time = |key| self.text(key).parse().unwrap();
        (time("startTimeUnixNano"), time("endTimeUnixNano"))
    }

    fn is_within(&self, outer: &Span) -> bool {
        let ((start, end), (from, to)) = (self.times(), outer.times());
        from <= start && start <= end && end <= to
    }
}

fn value_of(attributes: &Value, key: &str) -> Value {
    let of = |attribute: &&Value| attribute["key"] == key;
    attributes.as_array().unwrap().iter().find(of).map_or(Value::Null, |found| found["value"].clone())
}

fn serve(stream: &TcpStream, notes: &Mutex<Vec<Span>>, is_silent: bool) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut length, mut head) = (0, String::new());
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            head.push_str(&line.to_lowercase());
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
        assert!(head.contains("\r\ncontent-type: application/json\r\n"), "{head}");
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let body: Value = serde_json::from_slice(&body).unwrap();
        for of_resource in body["resourceSpans"].as_array().unwrap() {
            let resource = &of_resource["resource"]["attributes"];
            let service = value_of(resource, "service.name")["stringValue"].as_str().unwrap().to_owned();
            let node = value_of(resource, "service.instance.id");
            for body in of_resource["scopeSpans"][0]["spans"].as_array().unwrap() {
                let (service, node, body) = (service.clone(), node.clone(), body.clone());
                notes.lock().unwrap().push(Span { body, service, node });
            }
        }
        if is_silent {
            continue;
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        let mut writer = stream;
        if writer.write_all(head.as_bytes()).is_err() {
            return;
        }
    }
}

fn gift_of(gift: i64, receiver: i64) -> String {
    json!({ "giftId": gift, "receiverId": receiver, "count": 1, "roomId": ROOM }).to_string()
}

#[test]
fn a_gift_is_one_trace_from_the_gateway_to_the_transaction() {
    let collector = Collector::start(false);
    let mut stack = Stack::start_with(1, Store::sqlite(), |api| collector.flags(api));
    let api = stack.api;
    api.open_room(ROOM);
    let (giver, receiver, gift) = (api.user_with(100), api.user().id, api.gift(10));
    let mut sender = stack.cluster.gateway(0).login(giver.id);
    sender.join(ROOM);
    sender.say(5560, ROOM, "g1", &gift_of(gift, receiver));
    assert_eq!(sender.outcome("g1"), Outcome::Answered);

    let packet = collector.span(None, "request 5560");
    assert_eq!(
        (packet.service.as_str(), packet.parent(), &packet.body["kind"]),
        ("sailfish-gateway", "", &json!(2))
    );
    let node = stack.cluster.gateway(0).stdout.clone();
    assert!(packet.node["stringValue"].as_str().is_some_and(|id| id.parse::<u16>().is_ok()), "{node}");
    assert_eq!(packet.attribute("sailfish.user"), json!({ "intValue": giver.id.to_string() }));
    assert_eq!(packet.attribute("sailfish.room"), json!({ "intValue": "7" }));
    let trace = Some(packet.trace());
    let post = collector.span(trace, "POST /bridge/events");
    let taken = collector.span(trace, "take request 5560");
    let transaction = collector.span(trace, "gift transaction");
    let (bridge, backend) = ("sailfish-bridge", "sailfish-backend");
    let services = [&post, &taken, &transaction].map(|span| span.service.as_str());
    assert_eq!(services[1..], [backend, backend]);
    assert!(services[0] == bridge || services[0] == backend, "{services:?}");
    assert_eq!((taken.parent(), transaction.parent()), (packet.id(), taken.id()));
    assert_eq!(post.parent(), packet.id());
    assert!(
        transaction.is_within(&taken) && taken.is_within(&packet),
        "{packet:?} {taken:?} {transaction:?}"
    );
    assert_eq!(packet.attribute("sailfish.event_id"), taken.attribute("sailfish.event_id"));

    // By HTTP, with a trace that the app began.
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let body = json!({ "id": "h1", "gift_id": gift, "room_id": ROOM, "receiver_id": receiver, "count": 1 });
    let head = format!(
        "POST /gift/send HTTP/1.1\r\nContent-Type: application/json\r\nAuthorization: Bearer {}\r\n\
         traceparent: 00-{trace}-{parent}-01\r\n",
        giver.token
    );
    assert_eq!(http(api.0, &head, &body.to_string()).0, 200);
    let request = collector.span(Some(trace), "POST /gift/send");
    let transaction = collector.span(Some(trace), "gift transaction");
    assert_eq!((request.parent(), transaction.parent()), (parent, request.id()));
    assert_eq!(request.attribute("http.response.status_code"), json!({ "intValue": "200" }));
    // A caller that wants none has none; nor have questions for the health.
    let unsampled = head.replace("-01\r\n", "-00\r\n").replace(trace, "5bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(http(api.0, &unsampled, &body.to_string()).0, 200);
    assert_eq!(api.ask("GET", "/healthz", "", &Value::Null).0, 200);
    api.balance(&giver);
    collector.span(None, "GET /wallet"); // the last request, so all others' spans are here
    let names: Vec<String> = collector.all().iter().map(|span| span.name().to_owned()).collect();
    assert!(!names.iter().any(|name| name.contains("healthz")), "{names:?}");
    assert!(collector.all().iter().all(|span| !span.trace().starts_with("5bf9")));
}

#[test]
fn a_silent_collector_delays_no_gift() {
    let collector = Collector::start(true);
    let mut stack = Stack::start_with(1, Store::sqlite(), |api| collector.flags(api));
    let api = stack.api;
    api.open_room(ROOM);
    let (giver, receiver, gift) = (api.user_with(10_000), api.user().id, api.gift(1));
    let mut sender = stack.cluster.gateway(0).login(giver.id);
    sender.join(ROOM);
    for number in 0..20 {
        let id = format!("g{number}");
        sender.say(5560, ROOM, &id, &gift_of(gift, receiver));
        assert_eq!(sender.outcome(&id), Outcome::Answered);
    }
    until("the bridge has tried to export", || !collector.all().is_empty());
    let bridge = stack.cluster.bridges[0].server();
    assert_eq!(bridge.metric("sailfish_trace_spans_total", "exported"), 0.0);
    // What cannot be exported does not hold up the end.
    let ending = std::time::Instant::now();
    bridge.signal(rustix::process::Signal::TERM);
    assert!(bridge.wait().success());
    assert!(ending.elapsed().as_secs() < 10, "{:?}", ending.elapsed());
}

#[test]
fn an_address_that_is_none_is_refused_with_its_key() {
    for (setting, wants) in [
        ("trace.otlp_url=grpc://collector:4317", "trace.otlp_url: want http://HOST:PORT"),
        (
            "trace.sampled_per_million=1000001",
            "trace.sampled_per_million = 1000001: want a number from 0 to 1000000",
        ),
    ] {
        let refused = output(sailfish().args(["backend", "--set", setting]), "");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(2) && said.contains(wants), "{:?} {said}", refused.status);
    }
}
