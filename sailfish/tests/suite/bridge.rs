//! What goes to a backend and comes from it, through bridges that are killed and come back.

use rustix::process::Signal;
use serde_json::json;
use testbed::Redis;
use wire::UserId;
use wire::client::{FailReason, Outcome};

use crate::common::backend::Backend;
use crate::common::cluster::{CLUSTER_SECRET, Cluster};
use crate::common::{SECRET, Server, sailfish, until};

fn bridged(routers: u8, gateways: u8, bridges: u8) -> (Cluster, Backend) {
    let backend = Backend::start();
    let flags = backend.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    (Cluster::start_with_bridges(routers, gateways, bridges, &flags), backend)
}

/// The sum of a metric over the nodes whose shards hand events over.
fn metric(cluster: &mut Cluster, name: &str) -> f64 {
    let nodes = cluster.routers.iter_mut().chain(&mut cluster.gateways);
    nodes.map(|node| node.server().metric(name, "")).sum()
}

#[test]
fn one_process_has_a_bridge_of_its_own() {
    let backend = Backend::start();
    let flags = backend.flags();
    let mut server = Server::start(&flags.each_ref().map(String::as_str));
    let mut client = server.login(1);
    client.say(5560, 0, "gift", "{}");
    assert_eq!(client.outcome("gift"), Outcome::Answered);
    client.say(6001, 2, "late", "are you there?");
    assert_eq!(client.outcome("late"), Outcome::Stored, "nobody is there");
    client.say(6001, 2, "late", "are you there?");
    assert_eq!(client.outcome("late"), Outcome::Stored, "a repeat hears the same");
    client.join(7);
    drop(client);
    // Online, offline, joined, left, a request, an undelivered message.
    until("the bridge has taken everything", || server.metric("sailfish_bridge_taken_total", "") == 6.0);
    assert_eq!(server.metric("sailfish_bridge_waiting", ""), 0.0);
    assert_eq!(server.metric("sailfish_bridge_dropped_total", ""), 0.0);
    server.signal(Signal::TERM);
    assert!(server.wait().success());
}

#[test]
fn a_bridge_that_is_killed_loses_nothing() {
    let (mut cluster, _backend) = bridged(2, 2, 1);
    let mut clients: Vec<_> = (0..4).map(|at| cluster.gateway(at % 2).login(100 + at as i64)).collect();
    for client in &mut clients {
        client.say(5560, 0, "before", "{}");
        assert_eq!(client.outcome("before"), Outcome::Answered);
    }
    cluster.bridges[0].kill();
    for client in &mut clients {
        client.say(5560, 0, "during", "{}");
        client.say(6001, 999, "late", "are you there?");
        client.join(7);
    }
    let gone = clients.pop().unwrap();
    drop(gone);
    // Of one who joined and left meanwhile, the newer waits.
    let overtaken = |cluster: &mut _| metric(cluster, "sailfish_bridge_overtaken_total");
    until("events wait", || {
        metric(&mut cluster, "sailfish_bridge_waiting") + overtaken(&mut cluster) >= 14.0
    });
    cluster.bridges[0].start();
    for client in &mut clients {
        let mut outcomes = [client.send_ack(), client.send_ack()];
        outcomes.sort_by(|a, b| a.client_msg_id.as_str().cmp(b.client_msg_id.as_str()));
        assert_eq!(outcomes.each_ref().map(|ack| ack.client_msg_id.as_str()), ["during", "late"]);
        assert_eq!(outcomes.map(|ack| ack.outcome), [Outcome::Answered, Outcome::Stored]);
    }
    until("nothing waits", || metric(&mut cluster, "sailfish_bridge_waiting") == 0.0);
    // Of four users: came, two requests, undelivered, joined; of one: went, left.
    let taken = metric(&mut cluster, "sailfish_bridge_taken_total");
    assert_eq!(taken + overtaken(&mut cluster), 4.0 * 5.0 + 2.0);
    assert!(overtaken(&mut cluster) <= 1.0, "nobody else did two things of one kind");
    assert_eq!(metric(&mut cluster, "sailfish_bridge_dropped_total"), 0.0);
}

#[test]
fn another_bridge_goes_on_where_one_stands_still_or_drains() {
    let (mut cluster, _backend) = bridged(1, 2, 2);
    let mut client = cluster.gateway(0).login(1);
    for bridge in 0..2 {
        cluster.bridges[bridge].server().signal(Signal::STOP);
        for number in 0..20 {
            let id = format!("{bridge}-{number}");
            client.say(5560, 0, &id, "{}");
            assert_eq!(client.outcome(&id), Outcome::Answered);
        }
        cluster.bridges[bridge].server().signal(Signal::CONT);
        until("both bridges are linked", || {
            cluster.gateways[0].server().metric("sailfish_link_peers", "") == 2.0 * (2.0 + 4.0)
        });
    }
    let drained = cluster.bridges[0].server();
    drained.signal(Signal::TERM);
    assert!(drained.wait().success());
    client.say(5560, 0, "after", "{}");
    assert_eq!(client.outcome("after"), Outcome::Answered);
    until("nothing waits", || metric(&mut cluster, "sailfish_bridge_waiting") == 0.0);
}

/// SIGTERM while events wait: all that the bridge has goes out before it ends, and its log has nothing to
/// complain of.
fn stops_with_an_empty_queue(flags: &[&str], answers: Outcome) {
    const ROUNDS: usize = 6;
    const EACH: usize = 40;
    let mut cluster = Cluster::start_with_bridges(1, 1, 1, flags);
    let mut client = cluster.gateway(0).login(1);
    for round in 0..ROUNDS {
        for number in 0..EACH {
            client.say(5560, 0, &format!("{round}-{number}"), "{}");
        }
        let bridge = cluster.bridges[0].server();
        bridge.signal(Signal::TERM);
        assert_eq!(bridge.wait().code(), Some(0));
        until("the log says that it is over", || bridge.log().contains("stopped"));
        let log = bridge.log();
        assert!(log.contains("left=0") && !log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
        cluster.bridges[0].start();
    }
    for _ in 0..ROUNDS * EACH {
        assert_eq!(client.send_ack().outcome, answers);
    }
}

#[test]
fn every_role_starts_and_stops_without_a_complaint() {
    let backend = Backend::start();
    let flags = backend.flags();
    let mut cluster = Cluster::start_with_bridges(2, 2, 1, &flags.each_ref().map(String::as_str));
    let mut client = cluster.gateway(0).login(1);
    client.join(7);
    let Cluster { gateways, bridges, routers, .. } = &mut cluster;
    // Those that the others need go last: one that has lost its routers may say so.
    for node in gateways.iter_mut().chain(bridges).chain(routers) {
        let server = node.server();
        server.signal(Signal::TERM);
        assert_eq!(server.wait().code(), Some(0));
        until("the log says that it is over", || server.log().contains("stopped"));
        let log = server.log();
        assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
    }
}

#[test]
fn a_bridge_that_stops_sends_its_queue_over_http() {
    let backend = Backend::start();
    let flags = backend.flags();
    stops_with_an_empty_queue(&flags.each_ref().map(String::as_str), Outcome::Answered);
    let mut ids: Vec<String> = backend
        .events()
        .iter()
        .filter_map(|event| event["client_msg_id"].as_str().map(str::to_owned))
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 240, "each has come");
}

#[test]
fn a_bridge_that_stops_sends_its_queue_to_redis() {
    let redis = Redis::start();
    let flags = ["--set=bridge.mode=redis".to_owned(), format!("--set=bridge.redis={}", redis.url())];
    stops_with_an_empty_queue(&flags.each_ref().map(String::as_str), Outcome::Answered);
}

#[test]
fn a_bridge_is_told_from_a_gateway() {
    let (mut cluster, _backend) = bridged(1, 2, 2);
    // A gateway that is told of no bridge.
    let links = cluster.router(0).clients;
    let mut command = sailfish();
    command.args(["gateway", "--id=40", "--shards=2", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0"]);
    command.args([format!("--routers={links}"), format!("--set=cluster.secret={CLUSTER_SECRET}")]);
    let unbridged = Server::spawn(command.arg(format!("--set=token.secret={SECRET}")));
    until("it is ready", || unbridged.get("/readyz").0 == 200);
    let nodes = |server: &Server| {
        let answer: serde_json::Value = serde_json::from_str(&server.get("/v1/nodes").1).unwrap();
        let of = |role: &str| {
            let mut nodes: Vec<u64> =
                answer[role].as_array().unwrap().iter().map(|node| node["node"].as_u64().unwrap()).collect();
            nodes.dedup(); // it is said of each shard
            nodes
        };
        (of("bridges"), of("gateways"))
    };
    let (bridges, gateways) = nodes(cluster.gateway(0));
    assert_eq!((&bridges[..], &gateways[..]), (&[65, 66][..], &[33, 34, 40][..]), "a gateway says this");
    assert_eq!(nodes(&unbridged), (vec![], gateways.clone()), "one that is linked with no bridge");
    let (of_router, seen) = nodes(cluster.router(0));
    assert_eq!((of_router, seen), (bridges, gateways.clone()), "and the router says the same");
    for bridge in &mut cluster.bridges {
        assert_eq!(nodes(bridge.server()), (vec![], gateways.clone()), "and each bridge");
    }
}

/// The backend answers nothing, and the deadline is far.
#[test]
fn a_bridge_that_finishes_says_so_and_goes_at_a_second_signal() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("--set=bridge.url=http://{}", silent.local_addr().unwrap());
    let flags = [
        "--set=bridge.mode=http",
        &url,
        "--set=bridge.secret=the bridge's secret of the tests",
        "--set=drain.deadline_ms=600000",
    ];
    let mut cluster = Cluster::start_with_bridges(1, 1, 1, &flags);
    let _client = cluster.gateway(0).login(1);
    let bridge = cluster.bridges[0].server();
    until("it has an event", || bridge.metric("sailfish_bridge_queued", "") == 1.0);
    assert_eq!(bridge.get("/readyz").0, 200);
    bridge.signal(Signal::TERM);
    until("it says that it goes", || bridge.get("/readyz") == (503, "draining\n".into()));
    bridge.signal(Signal::TERM);
    assert!(bridge.wait().success());
    until("the log says why", || bridge.log().contains("stopping at once"));
}

/// What is pushed through Redis is in the stream `sailfish:push`.
fn add(redis: &Redis, push: &serde_json::Value) {
    redis.command(&["XADD", "sailfish:push", "*", "p", &push.to_string()]);
}

/// A bridge that dies pushes again what it had under way. Nobody but its receivers can tell that.
#[test]
fn a_push_to_all_from_a_stream_keeps_its_name() {
    let redis = Redis::start();
    let flags = ["--set=bridge.mode=redis".to_owned(), format!("--set=bridge.redis={}", redis.url())];
    let mut cluster = Cluster::start_with_bridges(1, 2, 1, &flags.each_ref().map(String::as_str));
    let mut clients = [cluster.gateway(0).login(1), cluster.gateway(1).login(2)];
    add(&redis, &json!({ "app": 1, "biz_code": 9, "client_msg_id": "news-1", "data": "all" }));
    for client in &mut clients {
        let message = client.message();
        assert_eq!((message.client_msg_id.as_str(), &message.payload[..]), ("news-1", &b"all"[..]));
    }
    until("the stream is empty", || redis.number(&["XLEN", "sailfish:push"]) == 0);
}

/// One that is longer than a link's longest frame would stop the link.
#[test]
fn a_push_from_a_stream_that_is_too_long_is_a_dead_letter() {
    let redis = Redis::start();
    let flags = ["--set=bridge.mode=redis".to_owned(), format!("--set=bridge.redis={}", redis.url())];
    let mut cluster = Cluster::start_with_bridges(1, 1, 1, &flags.each_ref().map(String::as_str));
    let mut client = cluster.gateway(0).login(5);
    client.join(7);
    let long = "x".repeat(64 * 1024 + 1);
    for target in [json!({ "user": 5 }), json!({ "room": 7 }), json!({})] {
        let mut push = json!({ "app": 1, "biz_code": 6001, "class": "lossy", "data": long });
        push.as_object_mut().unwrap().extend(target.as_object().unwrap().clone());
        add(&redis, &push);
    }
    add(&redis, &json!({ "app": 1, "user": 5, "biz_code": 6001, "client_msg_id": "good", "data": "good" }));
    let message = client.message();
    assert_eq!(message.client_msg_id.as_str(), "good");
    client.ack(message.id);
    until("the stream is empty", || redis.number(&["XLEN", "sailfish:push"]) == 0);
    let dead = redis.command(&["XRANGE", "sailfish:push:dead", "-", "+"]);
    assert_eq!(dead.matches("65537 bytes; limits.frame_bytes_max is 65536").count(), 3);
}

#[test]
fn a_bridge_pushes_to_clients_of_all_gateways() {
    let (mut cluster, _backend) = bridged(1, 2, 1);
    let (mut one, mut two) = (cluster.gateway(0).login(1), cluster.gateway(1).login(2));
    one.join(7);
    let push =
        |user, id: &str| json!({ "app": 1, "user": user, "biz_code": 6001, "client_msg_id": id, "data": id });
    let pushes = json!([
        push(1, "a"),
        push(2, "b"),
        push(1, "c"),
        { "app": 1, "room": 7, "biz_code": 5556, "data": "d", "sender": 9 },
        push(404, "e"),
        { "app": 1, "user": 2, "biz_code": 6002, "class": "lossy", "data_base64": "/w==" },
    ]);
    let body = json!({ "pushes": pushes, "wait_ms": 30_000 }).to_string();
    let results = std::thread::scope(|scope| {
        let server = cluster.bridges[0].server();
        let answer = scope.spawn(move || server.post("/v1/push", &body));
        let mut heard: Vec<_> = (0..3)
            .map(|_| {
                let message = one.message();
                one.ack(message.id);
                (message.payload.to_vec(), message.sender)
            })
            .collect();
        // The order is that of each target.
        heard.sort_by_key(|(_, sender)| *sender);
        let wanted = [("a", 0), ("c", 0), ("d", 9)];
        assert_eq!(heard, wanted.map(|(data, sender)| (data.as_bytes().to_vec(), UserId(sender))));
        for wanted in [&b"b"[..], &[255]] {
            let message = two.message();
            assert_eq!(&message.payload[..], wanted);
            if message.ack_wanted {
                two.ack(message.id);
            }
        }
        answer.join().unwrap()
    });
    assert_eq!(results.0, 200);
    let outcomes: Vec<_> = results.1["results"].as_array().unwrap().iter().map(|it| &it["outcome"]).collect();
    assert_eq!(outcomes, ["delivered", "delivered", "delivered", "sequenced", "stored", "sent"]);
    assert!(results.1["results"][3]["sequence"].is_u64());
}

/// The original is remembered as stored; from the inbox it comes all the same, once, and its receiver knows
/// it again.
#[test]
fn what_was_stored_is_handed_over_from_the_inbox() {
    let (mut cluster, _backend) = bridged(1, 1, 1);
    let mut sender = cluster.gateway(0).login(1);
    sender.say(6001, 2, "m1", "for later");
    assert_eq!(sender.outcome("m1"), Outcome::Stored);
    let inbox = json!({ "pushes": [{
        "app": 1, "user": 2, "biz_code": 6001, "client_msg_id": "m1", "data": "for later", "sender": 1, "stored": true,
    }], "wait_ms": 30_000 })
    .to_string();
    let handed = metric(&mut cluster, "sailfish_bridge_handed_total");
    let (status, answer) = cluster.bridges[0].server().post("/v1/push", &inbox);
    assert_eq!((status, &answer["results"][0]["outcome"]), (200, &json!("failed")));
    assert_eq!(answer["results"][0]["reason"], FailReason::Offline.name());
    assert_eq!(metric(&mut cluster, "sailfish_bridge_handed_total"), handed, "it is in the inbox still");
    let mut receiver = cluster.gateway(0).login(2);
    let (status, answer) = std::thread::scope(|scope| {
        let server = cluster.bridges[0].server();
        let answer = scope.spawn(|| server.post("/v1/push", &inbox));
        let message = receiver.message();
        assert_eq!((message.sender, message.client_msg_id.as_str()), (UserId(1), "m1"));
        receiver.ack(message.id);
        answer.join().unwrap()
    });
    assert_eq!((status, &answer["results"][0]["outcome"]), (200, &json!("delivered")));
    let again = cluster.bridges[0].server().post("/v1/push", &inbox);
    assert_eq!(again.1["results"][0]["outcome"], "delivered", "and is not sent once more");
}

#[test]
fn pushes_that_are_not_as_they_are_wanted_are_refused_all() {
    let server = Server::start(&[]);
    let mut client = server.login(5);
    let good = r#"{"app":1,"user":5,"biz_code":6001,"data":"good"}"#;
    for (more, part) in [
        (r#"{"app":1,"biz_code":6001,"data":"x"}"#, "pushes[1].user: want user or room"),
        (r#"{"app":1,"user":5,"room":7,"biz_code":6001,"data":"x"}"#, "pushes[1].room: user is set too"),
        (r#"{"app":1,"user":5,"biz_code":6001}"#, "pushes[1].data: want data or data_base64"),
        (r#"{"app":1,"room":7,"biz_code":6001,"data":"x","stored":true}"#, "pushes[1].stored: want it for"),
        (
            r#"{"app":1,"user":5,"biz_code":6001,"data":"x","device":"web"}"#,
            "pushes[1].device: want it with stored",
        ),
        (r#"{"app":1,"user":5,"biz_code":6001,"data":"x","stored":true,"device":"car"}"#, "car"),
        (
            r#"{"app":1,"user":5,"biz_code":6001,"data":"x","class":"lossy","stored":true}"#,
            "pushes[1].stored",
        ),
        (r#"{"app":1,"user":5,"biz_code":6001,"data":"x","senders":1}"#, "pushes[1].senders"),
        (r#"{"app":"1","user":5,"biz_code":6001,"data":"x"}"#, "pushes[1].app: invalid type"),
    ] {
        let (status, answer) = server.post("/v1/push", &format!(r#"{{"pushes":[{good},{more}]}}"#));
        let message = answer["message"].as_str().unwrap();
        assert!(status == 400 && message.contains(part), "{more} gave {status} {message}");
    }
    let many = vec![good; 1_001].join(",");
    let (status, answer) = server.post("/v1/push", &format!(r#"{{"pushes":[{many}]}}"#));
    assert!(status == 400 && answer["message"].as_str().unwrap().contains("want at most 1000"), "{answer}");
    let (status, answer) = server.post("/v1/push", r#"{"pushes":[],"wait_ms":30001}"#);
    assert!(status == 400 && answer["message"].as_str().unwrap().contains("wait_ms = 30001"), "{answer}");
    assert_eq!(server.post("/v1/push", r#"{"pushes":[]}"#), (200, json!({ "results": [] })));
    // Nothing of it was sent.
    let (status, _) = server
        .post("/v1/push", r#"{"pushes":[{"app":1,"user":5,"biz_code":6002,"class":"lossy","data":"end"}]}"#);
    assert_eq!((status, &client.message().payload[..]), (200, &b"end"[..]));
}
