//! The control API and `sailfish ctl`, on a lone node and on a cluster.

use serde_json::{Value, json};
use testbed::free_port;
use wire::RoomId;
use wire::client::{NoticeCode, Outcome};

use crate::common::cluster;
use crate::common::stack::{Store, backends};
use crate::common::{SECRET, Server, output, sailfish, token, until};

const OPERATIONS: &str = include_str!("../../../docs/OPERATIONS.md");

/// The error of a refused POST: its status and code, and its message, which must contain `part`.
fn refused(server: &Server, path: &str, body: &str, part: &str) -> (u16, String) {
    let (status, answer) = server.post(path, body);
    error(path, status, &answer, part)
}

fn error(path: &str, status: u16, answer: &Value, part: &str) -> (u16, String) {
    let message = answer["message"].as_str().unwrap_or_else(|| panic!("{path}: no error in {answer}"));
    assert!(message.contains(part), "{path}: {part:?} is not in {message:?}");
    assert_eq!(answer.as_object().unwrap().len(), 2, "{path}: {answer}");
    (status, answer["code"].as_str().unwrap().to_owned())
}

fn get(server: &Server, path: &str) -> (u16, Value) {
    let (status, body) = server.get(path);
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path} answered {body}")))
}

/// Runs `sailfish ctl` against a node: whether it succeeded, and what it printed.
fn ctl(server: &Server, arguments: &[&str]) -> (bool, String) {
    let mut command = sailfish();
    command.args(["ctl", "--admin", &server.admin.to_string()]).args(arguments);
    ran(&mut command)
}

fn ran(command: &mut std::process::Command) -> (bool, String) {
    let done = output(command, "");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(done.stdout), text(done.stderr));
    match done.status.code() {
        Some(0) => assert_eq!(stderr, ""),
        Some(1 | 2) if stdout.is_empty() => assert_eq!(stderr.lines().count(), 1, "one line: {stderr}"),
        Some(1) => {}
        other => panic!("{other:?}: {stdout}{stderr}"),
    }
    (done.status.success(), stdout + &stderr)
}

#[test]
fn users_are_found() {
    let server = Server::start(&[]);
    let _client = server.login(5);
    let (status, answer) = server.post("/v1/online", r#"{"app":1,"users":[6,5,6]}"#);
    assert_eq!(status, 200);
    assert_eq!((&answer["users"][0]["user"], &answer["users"][1]["user"]), (&json!(5), &json!(6)));
    assert_eq!((&answer["users"][0]["online"], &answer["users"][1]["online"]), (&json!(true), &json!(false)));
    assert_eq!(get(&server, "/v1/users/1/5"), (200, answer["users"][0].clone()));
    assert_eq!(get(&server, "/v1/users/1/6"), (200, answer["users"][1].clone()));
    assert_eq!(get(&server, "/v1/users/2/5").1["online"], false);

    let bad = (400, "bad_request".to_owned());
    assert_eq!(refused(&server, "/v1/online", r#"{"app":1,"users":[]}"#, "1 to 1000"), bad);
    let many = json!({ "app": 1, "users": (0..1_001).collect::<Vec<i64>>() }).to_string();
    assert_eq!(refused(&server, "/v1/online", &many, "1 to 1000"), bad);
    assert_eq!(refused(&server, "/v1/online", r#"{"app":1,"users":[5,"x"]}"#, "users[1]"), bad);
    for path in ["/v1/users/1/x", "/online?app=1&user=x"] {
        let (status, answer) = get(&server, path);
        assert_eq!(error(path, status, &answer, "want /"), bad);
    }
}

#[test]
fn requests_that_are_wrong_are_told_what_is() {
    let server = Server::start(&[]);
    let bad = (400, "bad_request".to_owned());
    for (body, part) in [
        ("{", "EOF"),
        (r#"{"app":1}"#, "missing field `user`"),
        (r#"{"app":1,"user":5,"devise":"tv"}"#, "unknown field `devise`"),
        (r#"{"app":1,"user":5,"device":"fridge"}"#, "device: unknown variant `fridge`"),
        (r#"{"app":3000000000,"user":5}"#, "app: invalid value"),
    ] {
        assert_eq!(refused(&server, "/v1/kick", body, part), bad);
    }
    let parsed =
        |(status, _, body): (u16, String, String)| (status, serde_json::from_str::<Value>(&body).unwrap());
    let (status, answer) = parsed(server.http("POST /v1/drain HTTP/1.1\r\n", ""));
    assert_eq!(error("", status, &answer, "application/json"), (415, "unsupported_media_type".into()));
    let text = "POST /v1/kick HTTP/1.1\r\nContent-Type: text/plain\r\n";
    assert_eq!(parsed(server.http(text, r#"{"app":1,"user":5}"#)).0, 415);
    for head in ["DELETE /v1/nodes HTTP/1.1\r\n", "POST /v1/nodes HTTP/1.1\r\n", "PUT /v1/kick HTTP/1.1\r\n"]
    {
        let (status, answer) = parsed(server.http(head, ""));
        assert_eq!(error("", status, &answer, "method"), (405, "method_not_allowed".into()), "{head}");
    }
    assert_eq!(parsed(server.http("POST /v1/nothing HTTP/1.1\r\n", "")).0, 404);
    let named = "GET /v1/nodes HTTP/1.1\r\nHost: evil.example:5347\r\n";
    let (status, answer) = parsed(server.http(named, ""));
    assert_eq!(error("", status, &answer, "control.secret"), (403, "forbidden".into()));
    assert_eq!(server.http("GET /metrics HTTP/1.1\r\nHost: sailfish.example\r\n", "").0, 200);
    let (status, answer) = get(&server, "/v1/nothing");
    assert_eq!(error("", status, &answer, "/v1/nothing"), (404, "not_found".into()));
    let (status, answer) = get(&server, "/v1/kick");
    assert_eq!(error("", status, &answer, "method"), (405, "method_not_allowed".into()));
    let long = json!({ "app": 1, "user": 5, "x": "y".repeat(3 << 20) }).to_string();
    assert_eq!(refused(&server, "/v1/kick", &long, "65536"), (413, "too_large".into()));
    assert_eq!(refused(&server, "/v1/push", &long, "2097152"), (413, "too_large".into()));
}

#[test]
fn a_kick_ends_the_sessions_that_are_meant() {
    let server = Server::start(&[]);
    let mut client = server.login(5);
    assert_eq!(server.post("/v1/kick", r#"{"app":1,"user":5,"device":"tv"}"#), (200, json!({ "kicked": 0 })));
    client.heartbeat();
    assert_eq!(
        server.post("/v1/kick", r#"{"app":1,"user":5,"device":"phone"}"#),
        (200, json!({ "kicked": 1 }))
    );
    client.expect_farewell(NoticeCode::Kicked);
    until("it is offline", || get(&server, "/v1/users/1/5").1["online"] == false);
    assert_eq!(server.post("/v1/kick", r#"{"app":1,"user":5}"#), (200, json!({ "kicked": 0 })));
}

#[test]
fn a_push_to_a_user_tells_its_outcome() {
    let server = Server::start(&["--set", "limits.frame_bytes_max=4096"]);
    let push =
        |more: &str| server.post("/v1/push/user", &format!(r#"{{"app":1,"user":5,"biz_code":6001,{more}}}"#));
    let mut client = server.login(5);
    // Nobody acks while nobody waits.
    let (status, answer) = push(r#""data":"hi","client_msg_id":"m1","wait_ms":0"#);
    assert_eq!((status, &answer["outcome"]), (200, &json!("pending")));
    // The same again takes the place of the first, and is not delivered once more.
    assert_eq!(push(r#""data":"hi","client_msg_id":"m1","wait_ms":0"#).1["outcome"], "pending");
    let message = client.message();
    assert_eq!((&message.payload[..], message.sender.0, message.biz_code.0), (&b"hi"[..], 0, 6001));
    assert_eq!(answer["message_id"], message.id.0.to_string());
    client.ack(message.id);
    // And later gets the answer of the first.
    let answer = push(r#""data":"hi","client_msg_id":"m1","wait_ms":30000"#);
    assert_eq!(answer, (200, json!({ "message_id": message.id.0.to_string(), "outcome": "delivered" })));
    let (status, answer) = push(r#""data_base64":"/wA=","class":"lossy""#);
    assert_eq!((status, &answer["outcome"]), (200, &json!("sent")));
    assert_eq!(&client.message().payload[..], &[255, 0]);

    drop(client);
    until("it is offline", || get(&server, "/v1/users/1/5").1["online"] == false);
    let (status, answer) = push(r#""data":"late""#);
    assert_eq!((status, &answer["outcome"], &answer["reason"]), (200, &json!("failed"), &json!("offline")));

    for (more, part) in [
        (r#""wait_ms":0"#, "data: want data or data_base64"),
        (r#""data":"a","data_base64":"YQ==""#, "want only one"),
        (r#""data_base64":"*""#, "data_base64: "),
        (r#""data":"a","wait_ms":30001"#, "wait_ms = 30001: want a number from 0 to 30000"),
        (r#""data":"a","class":"fast""#, "class: unknown variant `fast`"),
    ] {
        let (status, answer) = push(more);
        assert_eq!(error(more, status, &answer, part), (400, "bad_request".into()));
    }
    let long = "x".repeat(65);
    let (status, answer) = push(&format!(r#""data":"a","client_msg_id":"{long}""#));
    assert_eq!(error("", status, &answer, "at most 64 bytes"), (400, "bad_request".into()));
    let long = "x".repeat(4097);
    let (status, answer) = push(&format!(r#""data":"{long}""#));
    assert_eq!(error("", status, &answer, "limits.frame_bytes_max is 4096"), (413, "too_large".into()));
}

#[test]
fn a_push_to_a_room_tells_its_place() {
    let server = Server::start(&[]);
    let push = |more: &str| {
        server.post("/v1/push/room", &format!(r#"{{"app":1,"room":7,"biz_code":5555,"data":"hi"{more}}}"#))
    };
    let nobody = json!({ "outcome": "failed", "reason": "not_member" });
    assert_eq!(push(""), (200, nobody.clone()));
    assert_eq!(push(r#","class":"lossy","client_msg_id":"m0""#), (200, nobody));
    let mut client = server.login(5);
    client.join(7);
    let (status, answer) = push("");
    assert_eq!((status, &answer["outcome"]), (200, &json!("sequenced")));
    let message = client.message();
    assert_eq!((message.room, &message.payload[..], message.ack_wanted), (Some(RoomId(7)), &b"hi"[..], true));
    assert_eq!(answer["sequence"], message.sequence);
    assert_eq!(answer["message_id"], message.id.0.to_string());
    client.ack(message.id);
    let named = r#","class":"lossy","client_msg_id":"m1""#;
    assert_eq!(push(named).1["sequence"], message.sequence + 1);
    assert_eq!(client.message().sequence, message.sequence + 1);
    assert_eq!(push(named).1["sequence"], message.sequence + 1, "it was sent once");
    assert_eq!(push(r#","class":"lossy""#).1["outcome"], "sent");
    assert_eq!(client.message().sequence, message.sequence + 2);
    // Clients see no difference: a member sends as ever, and who is none is refused by its own shard.
    client.say(5555, 7, "m2", "me too");
    assert!(matches!(client.outcome_beside_messages("m2"), Outcome::Sequenced { .. }));
}

#[test]
fn a_push_to_all_reaches_every_session_of_the_app() {
    let server = Server::start(&[]);
    let mut clients: Vec<_> = (1..=6).map(|user| server.login(user)).collect();
    let push = |app: i32| {
        let body = json!({ "app": app, "biz_code": 9, "client_msg_id": "n1", "data": "all" });
        server.post("/v1/push/all", &body.to_string())
    };
    assert_eq!(push(2), (200, json!({ "shards": 2 })), "nobody is in that app");
    assert_eq!(push(1), (200, json!({ "shards": 2 })));
    for client in &mut clients {
        let message = client.message();
        assert_eq!((&message.payload[..], message.biz_code.0, message.ack_wanted), (&b"all"[..], 9, false));
        assert_eq!(message.client_msg_id.as_str(), "n1");
        client.heartbeat();
    }
    assert_eq!(refused(&server, "/v1/push/all", r#"{"app":1,"biz_code":9}"#, "data").0, 400);
}

#[test]
fn a_lone_node_lists_itself_and_drains() {
    let mut server = Server::start(&[]);
    let mut client = server.login(5);
    let (status, answer) = get(&server, "/v1/nodes");
    assert_eq!(status, 200);
    let own = json!({ "id": 0, "role": "up", "shards": 2, "connections": 1, "draining": false });
    assert_eq!((&answer["node"], &answer["routers"]), (&own, &json!([])));
    assert_eq!((&answer["gateways"][0]["node"], &answer["gateways"][0]["sessions"]), (&json!(0), &json!(1)));
    assert_eq!(refused(&server, "/v1/drain", r#"{"node":9}"#, "no node 9"), (404, "not_found".into()));
    assert_eq!(refused(&server, "/v1/drain", r#"{"node":70000}"#, "node: invalid value").0, 400);
    assert_eq!(server.post("/v1/drain", "{}"), (200, json!({ "draining": true, "node": 0 })));
    client.expect_farewell(NoticeCode::Draining);
    assert_eq!(server.wait().code(), Some(0));
    until("the log says why", || server.log().contains("because an operator asked for it"));
}

#[test]
fn a_secret_guards_all_but_health() {
    let server = Server::start(&["--set", "control.secret=hush, hush, hush"]);
    for path in ["/", "/metrics", "/healthz", "/readyz"] {
        assert_eq!(server.get(path).0, 200, "{path}");
    }
    for path in ["/online?app=1&user=1", "/v1/nodes", "/v1/users/1/1", "/openapi.json", "/nothing"] {
        let (status, answer) = get(&server, path);
        assert_eq!(error(path, status, &answer, "control.secret"), (401, "unauthorized".into()));
        for wrong in ["Bearer hush", "Basic hush, hush, hush", "Bearer hush, hush, hush!"] {
            let head = format!("GET {path} HTTP/1.1\r\nAuthorization: {wrong}\r\n");
            let (status, head, _) = server.http(&head, "");
            assert!(status == 401 && head.contains("www-authenticate: bearer"), "{path} {wrong}: {head}");
        }
        let right = format!("GET {path} HTTP/1.1\r\nAuthorization: Bearer hush, hush, hush\r\n");
        assert_eq!(server.http(&right, "").0, if path == "/nothing" { 404 } else { 200 }, "{path}");
    }
    assert_eq!(refused(&server, "/v1/drain", "{}", "control.secret").0, 401);

    let (ok, line) = ctl(&server, &["nodes"]);
    assert!(!ok && line.contains("refuses the secret") && line.contains("--secret"), "{line}");
    let mut by_flag = sailfish();
    by_flag.args(["ctl", "--admin", &server.admin.to_string(), "nodes", "--secret", "hush, hush, hush"]);
    assert!(output(&mut by_flag, "").status.success());
    let admin = server.admin.to_string();
    let mut from_environment = sailfish();
    from_environment.args(["ctl", "nodes"]).env("SAILFISH_CONTROL__SECRET", "hush, hush, hush");
    from_environment.env("SAILFISH_NODE__ADMIN", &admin);
    assert!(ran(&mut from_environment).0);
}

#[test]
fn a_secret_that_nobody_wants_is_told_of() {
    let server = Server::start(&[]);
    let nodes = |secret: &str| {
        let mut command = sailfish();
        command.args(["ctl", "--admin", &server.admin.to_string(), "nodes"]);
        let ended = output(command.env("SAILFISH_CONTROL__SECRET", secret), "");
        (ended.status.success(), String::from_utf8(ended.stderr).unwrap())
    };
    let (ok, line) = nodes("the secret of nobody");
    assert!(ok && line.contains("wants no secret") && line.trim_end().lines().count() == 1, "{line}");
    assert_eq!(nodes(""), (true, String::new()));
}

#[test]
fn without_a_secret_only_loopback_is_listened_on() {
    for role in ["up", "gateway", "router"] {
        let mut command = sailfish();
        command.args([role, "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"]);
        let done = output(&mut command, "");
        let line = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{line}");
        assert!(line.contains("control.secret: ") && line.lines().count() == 1, "{line}");
    }
    let guarded = ["--admin", "0.0.0.0:0", "--set", "control.secret=hush, hush, hush"];
    let mut command = sailfish();
    command.args([
        "up",
        "--listen",
        "127.0.0.1:0",
        "--shards",
        "1",
        "--set",
        &format!("token.secret={SECRET}"),
    ]);
    Server::spawn(command.args(guarded));
}

/// The document names each path that is served, and each is in docs/OPERATIONS.md.
#[test]
fn the_document_is_of_what_is_served() {
    let server = Server::start(&[]);
    let (status, document) = get(&server, "/openapi.json");
    assert_eq!(status, 200);
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let mut named = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        assert!(OPERATIONS.contains(&format!("`{path}`")), "docs/OPERATIONS.md does not tell of {path}");
        for (method, operation) in item.as_object().unwrap() {
            let filled = path.replace("{app}", "1").replace("{user}", "1").replace("{room}", "1");
            let head =
                format!("{} {filled} HTTP/1.1\r\nContent-Type: application/json\r\n", method.to_uppercase());
            let (answered, _, _) = server.http(&head, "");
            assert!(answered != 404 && answered != 405, "{method} {path}: {answered}");
            let told = operation["responses"].as_object().unwrap();
            assert!(
                told.contains_key(&answered.to_string()),
                "{method} {path}: {answered} is not in {told:?}"
            );
            named.push(format!("{method} {path}"));
        }
    }
    let served = [
        "get /online",
        "post /v1/drain",
        "post /v1/kick",
        "get /v1/nodes",
        "post /v1/online",
        "post /v1/push",
        "post /v1/push/all",
        "post /v1/push/room",
        "post /v1/push/user",
        "post /v1/revoke",
        "get /v1/rooms/{app}/{room}/messages",
        "get /v1/users/{app}/{user}",
    ];
    assert_eq!(named, served);
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name} is not there");
    }
}

#[test]
fn ctl_does_each_of_it() {
    let mut server = Server::start(&[]);
    let mut client = server.login(5);
    client.join(7);
    let said = |arguments: &[&str], wanted: &str| {
        let (ok, text) = ctl(&server, arguments);
        assert!(ok && text.contains(wanted), "{arguments:?} said {text:?}");
        text
    };
    let text = said(&["online", "5", "-6"], "phone");
    assert!(text.lines().count() == 2 && text.contains("-6 ") && text.contains("offline"), "{text}");
    said(&["where", "5"], "phone    on node 0 shard ");
    said(&["where", "--app", "2", "5"], "offline\n");
    said(&["nodes"], "node 0: up, 2 shards, 1 connection\ngateway 0: 1 session (");
    said(&["push", "--user", "5", "--text", "hi", "--wait-ms", "0"], "pending (message ");
    let message = client.message();
    assert_eq!((&message.payload[..], message.biz_code.0), (&b"hi"[..], 6001));
    client.ack(message.id);
    said(&["push", "--user", "5", "--text", "hi", "--lossy", "--biz-code", "8"], "sent (message ");
    assert_eq!(client.message().biz_code.0, 8);
    said(&["push", "--room", "7", "--text", "hi"], "sequenced, number ");
    let message = client.message();
    assert_eq!((message.room, message.biz_code.0), (Some(RoomId(7)), 5555));
    client.ack(message.id);
    said(&["push", "--all", "--text", "hi"], "sent to 2 gateway shards\n");
    assert_eq!(&client.message().payload[..], b"hi");
    let json = said(&["--json", "kick", "5", "--device", "tv"], "{\"kicked\":0}\n");
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), json!({ "kicked": 0 }));
    said(&["revoke", "6", "--login", "phone", "--ttl", "10m"], "2 gateway shards told\n");
    said(&["kick", "5", "--ban", "1h"], "1 session kicked\n");
    client.expect_farewell(NoticeCode::Kicked);
    let mut banned = server.connect();
    banned.send_login(&token(5, 3_600));
    banned.expect_farewell(NoticeCode::Kicked);

    let (ok, text) = ctl(&server, &["push", "--user", "99", "--text", "hi"]);
    assert!(!ok && text.contains("failed: offline"), "{text}");
    let (ok, line) = ctl(&server, &["drain", "--node", "9"]);
    assert!(!ok && line.contains("no node 9 is linked"), "{line}");
    said(&["drain"], "node 0 drains\n");
    assert_eq!(server.wait().code(), Some(0));
    let (ok, line) = ctl(&server, &["nodes"]);
    assert!(!ok && line.contains("no node answers at") && line.contains("--admin"), "{line}");
    let (ok, line) = ran(sailfish().args(["ctl", "--admin", "nowhere", "nodes"]));
    assert!(!ok && line.contains("want HOST:PORT"), "{line}");
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let (ok, line) = ran(sailfish()
        .args(["demo", "--backend", &nobody])
        .env("SAILFISH_BACKEND__INTERNAL_SECRET", crate::common::stack::INTERNAL_SECRET));
    assert!(!ok && line.contains("no backend answers at") && line.contains("with --backend"), "{line}");
    // Something else listens there: the clients' port of another node.
    let other = Server::start(&[]);
    let (ok, line) = ran(sailfish().args(["ctl", "--admin", &other.clients.to_string(), "nodes"]));
    assert!(!ok && (line.contains("no admin port") || line.contains("no answer")), "{line}");
}

/// One router and two gateways.
struct Cluster {
    router: Server,
    gateways: [Server; 2],
    links: String,
}

const CLUSTER_SECRET: &str = "cluster.secret=the secret of the cluster";

impl Cluster {
    fn start() -> Self {
        let links = format!("127.0.0.1:{}", free_port());
        let router = node(&["router", "--id", "1", "--listen", &links, "--set", CLUSTER_SECRET]);
        let gateways = ["33", "34"].map(|id| gateway(id, &links, CLUSTER_SECRET));
        for gateway in &gateways {
            until("the gateway is ready", || gateway.get("/readyz").0 == 200);
        }
        // Until gateways agree, messages to rooms are held back.
        until("the owners are settled", || router.metric("sailfish_router_unsettled", "") == 0.0);
        Self { router, gateways, links }
    }
}

fn gateway(id: &str, links: &str, secret: &str) -> Server {
    node(&["gateway", "--id", id, "--listen", "127.0.0.1:0", "--routers", links, "--set", secret])
}

fn node(arguments: &[&str]) -> Server {
    let mut command = sailfish();
    command.args(arguments).args(["--admin", "127.0.0.1:0", "--shards", "1"]);
    Server::spawn(command.args(["--set", &format!("token.secret={SECRET}")]))
}

#[test]
fn a_cluster_is_controlled_through_any_gateway() {
    let cluster = Cluster::start();
    let [one, two] = &cluster.gateways;
    let mut client = two.login(5);
    client.join(7);
    // One gateway knows of the other's sessions by the router.
    let session = &get(one, "/v1/users/1/5").1["sessions"][0];
    assert_eq!((&session["node"], &session["shard"]), (&json!(34), &json!(0)));
    assert_eq!(get(&cluster.router, "/v1/users/1/5").1["online"], true);

    let (_, seen) = get(one, "/v1/nodes");
    let own = json!({ "id": 33, "role": "gateway", "shards": 1, "connections": 0, "draining": false });
    assert_eq!(seen["node"], own);
    let router = &seen["routers"][0];
    assert_eq!(
        (&router["node"], &router["shard"], &router["up"], &router["owner"]),
        (&json!(1), &json!(0), &json!(true), &json!(true))
    );
    assert!(router["since_ms"].as_u64().unwrap() > 1_700_000_000_000 && router["queued_bytes"].is_u64());
    let load = |node: u16, sessions: u32| json!({ "node": node, "sessions": sessions, "shards": [{ "shard": 0, "sessions": sessions }] });
    assert_eq!(seen["gateways"], json!([load(33, 0), load(34, 1)]));
    let (_, seen) = get(&cluster.router, "/v1/nodes");
    assert_eq!((&seen["node"]["role"], &seen["routers"]), (&json!("router"), &json!([])));
    assert_eq!(seen["gateways"], json!([load(33, 0), load(34, 1)]));
    for node in [one, &cluster.router] {
        let (_, page) = node.get("/metrics");
        for name in page.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()) {
            assert!(OPERATIONS.contains(&format!("`{name}`")), "docs/OPERATIONS.md does not tell of {name}");
        }
    }
    let (ok, text) = ctl(one, &["nodes"]);
    assert!(
        ok && text.contains("router 1 shard 0: up, owner for ") && text.contains("gateway 34: 1 session"),
        "{text}"
    );

    let body = r#"{"app":1,"user":5,"biz_code":6001,"data":"hi","wait_ms":0}"#;
    assert_eq!(one.post("/v1/push/user", body).1["outcome"], "pending");
    let message = client.message();
    client.ack(message.id);
    let body = r#"{"app":1,"room":7,"biz_code":5555,"data":"hi"}"#;
    let (_, answer) = one.post("/v1/push/room", body);
    let message = client.message();
    assert_eq!(answer["sequence"], message.sequence);
    client.ack(message.id);
    let body = r#"{"app":1,"room":8,"biz_code":5555,"data":"hi"}"#;
    assert_eq!(one.post("/v1/push/room", body).1["reason"], "not_member");
    let body = r#"{"app":1,"biz_code":9,"data":"all"}"#;
    assert_eq!(one.post("/v1/push/all", body), (200, json!({ "shards": 2 })));
    assert_eq!(client.message().biz_code.0, 9);

    let missing = (503, "no_gateway".to_owned());
    assert_eq!(refused(&cluster.router, "/v1/push/all", body, "ask a gateway"), missing);
    let to_user = r#"{"app":1,"user":5,"biz_code":6001,"data":"hi"}"#;
    assert_eq!(refused(&cluster.router, "/v1/push/user", to_user, "ask a gateway"), missing);
    assert_eq!(one.post("/v1/kick", r#"{"app":1,"user":5}"#), (200, json!({ "kicked": 1 })));
    client.expect_farewell(NoticeCode::Kicked);
}

#[test]
fn any_node_of_a_cluster_is_drained_by_its_number() {
    let mut cluster = Cluster::start();
    until("the router's log says who is linked", || cluster.router.log().contains("linked=2"));
    let [one, two] = &mut cluster.gateways;
    let mut client = two.login(5);
    let missing = (404, "not_found".to_owned());
    assert_eq!(refused(one, "/v1/drain", r#"{"node":35}"#, "no node 35"), missing);
    assert_eq!(get(one, "/v1/nodes").1["gone"], json!([]));
    assert_eq!(one.post("/v1/drain", r#"{"node":34}"#), (200, json!({ "draining": true, "node": 34 })));
    client.expect_farewell(NoticeCode::Draining);
    assert_eq!(two.wait().code(), Some(0));
    until("the router has seen it go", || get(one, "/v1/nodes").1["gateways"].as_array().unwrap().len() == 1);
    let (ok, text) = ctl(one, &["nodes"]);
    assert!(ok && text.contains("gateway 34: gone for "), "{text}");
    until("the log says so", || cluster.router.log().contains("lost=1"));
    assert_eq!(one.post("/v1/drain", r#"{"node":1}"#), (200, json!({ "draining": true, "node": 1 })));
    assert_eq!(cluster.router.wait().code(), Some(0));
    // Nobody is left to ask.
    until("the router is gone", || one.get("/readyz").0 == 503);
    let missing = (503, "no_router".to_owned());
    assert_eq!(refused(one, "/v1/online", r#"{"app":1,"users":[5]}"#, "no router is linked"), missing);
    for body in [
        r#"{"app":1,"user":5,"biz_code":6001,"data":"hi"}"#,
        r#"{"app":1,"user":5,"biz_code":6001,"data":"hi","class":"lossy"}"#,
    ] {
        assert_eq!(refused(one, "/v1/push/user", body, "no router is linked"), missing);
    }
    let (status, seen) = get(one, "/v1/nodes");
    assert_eq!(
        (status, &seen["missing"], &seen["routers"]),
        (200, &json!("no router is linked"), &json!([]))
    );
}

#[test]
fn a_refused_link_is_told_at_most_once_a_minute() {
    let cluster = Cluster::start();
    let stranger = gateway("35", &cluster.links, "cluster.secret=the secret of another cluster");
    until("both ends say so", || {
        [&cluster.router, &stranger].iter().all(|node| node.log().contains("links were refused"))
    });
    until("it was refused again", || stranger.metric("sailfish_link_refused_total", "") >= 3.0);
    assert_eq!(stranger.log().matches("links were refused").count(), 1, "{}", stranger.log());
    let (status, seen) = get(&stranger, "/v1/nodes");
    assert_eq!(
        (status, &seen["routers"], &seen["missing"]),
        (200, &json!([]), &json!("no router is linked"))
    );
}

/// A health check by the binary alone, of a node and of a backend.
#[test]
fn ctl_says_whether_a_node_or_a_backend_is_ready() {
    let lone = Server::start(&[]);
    assert_eq!(ctl(&lone, &["ready"]), (true, "ready\n".to_owned()));
    let store = Store::sqlite();
    let (_backend, api) = backends(1, &store).remove(0);
    let (ok, text) = ran(sailfish().args(["ctl", "ready", "--admin", &api.0.to_string()]));
    assert!(ok && text == "ready\n", "{text}");
    // A gateway without a router.
    let mut cluster = cluster::Cluster::new(1, 1, &[]);
    cluster.gateways[0].start();
    let (ok, text) = ctl(cluster.gateway(0), &["ready"]);
    assert!(!ok && text.starts_with("not ready: "), "{text}");
    let (ok, _) = ran(sailfish().args(["ctl", "ready", "--admin", "127.0.0.1:1"]));
    assert!(!ok);
}
