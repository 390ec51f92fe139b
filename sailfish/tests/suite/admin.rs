//! The admin port: metrics, health, and who is online.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wire::client::NoticeCode;

use crate::common::{Server, token, until};

const OPERATIONS: &str = include_str!("../../../docs/OPERATIONS.md");

#[test]
fn health_and_metrics_are_served() {
    let server = Server::start(&[]);
    assert_eq!(server.get("/healthz"), (200, "ok\n".into()));
    assert_eq!(server.get("/readyz"), (200, "ready\n".into()));
    assert_eq!(server.get("/nothing").0, 404);
    let mut client = server.login(1);
    client.heartbeat();
    assert_eq!(server.metric("sailfish_shard_up", ""), 2.0);
    assert_eq!(server.metric("sailfish_sessions", ""), 1.0);
    assert_eq!(server.metric("sailfish_logins_total", ""), 1.0);
    assert_eq!(server.metric("sailfish_frames_in_total", "code=\"heartbeat\""), 1.0);
    assert!(server.metric("process_resident_memory_bytes", "") > 1e6);
    let mut page = server.get("/metrics").1;
    check_exposition(&page);
    // Every shard turns, and its time is in the histogram.
    for shard in ["shard=\"0\"", "shard=\"1\""] {
        page = server.get("/metrics").1;
        assert!(server.metric("sailfish_turn_seconds_count", shard) > 0.0, "{page}");
    }
}

/// A directory that nobody answers for is told of, and holds nobody up.
#[test]
fn the_directory_is_counted() {
    let server = Server::start(&["--set", "directory.redis=redis://127.0.0.1:1"]);
    server.login(1);
    until("a connect has failed", || server.metric("sailfish_directory_errors_total", "") > 0.0);
    assert_eq!(server.metric("sailfish_directory_connected", ""), 0.0);
    assert!(server.metric("sailfish_directory_queued", "") >= 1.0);
    let page = server.get("/metrics").1;
    check_exposition(&page);
    for kind in ["bind", "unbind", "look_up", "lease"] {
        assert!(page.contains(&format!("sailfish_directory_commands_total{{kind=\"{kind}\"}} 0")), "{page}");
    }
}

/// HELP and TYPE once for each family, before its samples, no sample twice, and each family is documented.
fn check_exposition(page: &str) {
    let mut families = Vec::new();
    let mut series = std::collections::HashSet::new();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let name = help.split(' ').next().unwrap();
            assert!(!families.contains(&name), "{name} stands twice");
            assert!(OPERATIONS.contains(&format!("`{name}`")), "docs/OPERATIONS.md does not tell of {name}");
            families.push(name);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            assert_eq!(kind.split(' ').next(), families.last().copied());
        } else {
            let (labelled, value) = line.rsplit_once(' ').unwrap();
            let name = labelled.split('{').next().unwrap();
            let family = families.last().unwrap();
            let suffixes = ["_bucket", "_sum", "_count"];
            let of_family = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
            assert!(name == *family || of_family == *family, "{name} stands under {family}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(series.insert(labelled), "{labelled} stands twice");
        }
    }
    assert!(families.len() > 30);
}

/// What an answer says of a user who has a session.
const ONLINE: &str = "\"online\":true";

#[test]
fn the_online_query_asks_the_owner_of_each_user() {
    let server = Server::start(&[]);
    let users: Vec<i64> = (1..=8).collect();
    let clients: Vec<_> = users.iter().map(|user| server.login(*user)).collect();
    let list = users.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
    let (status, body) = server.get(&format!("/online?app=1&user={list},99"));
    assert_eq!(status, 200);
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(answer["users"].as_array().unwrap().len(), 9);
    for (user, found) in users.iter().zip(answer["users"].as_array().unwrap()) {
        assert_eq!((&found["user"], &found["online"]), (&(*user).into(), &true.into()));
        assert_eq!(found["devices"], serde_json::json!(["phone"]));
        let session = &found["sessions"][0];
        assert_eq!((&session["device"], &session["node"]), (&"phone".into(), &0.into()));
        assert!(session["shard"].as_u64().unwrap() < 2, "{session}");
        let login_secs = session["login_ms"].as_u64().unwrap() / 1_000;
        assert!(now.abs_diff(login_secs) < 60, "{session}");
    }
    let offline = serde_json::json!({ "user": 99, "online": false, "devices": [], "sessions": [] });
    assert_eq!((&answer["app"], &answer["users"][8]), (&1.into(), &offline));
    // Users of another app are others.
    assert!(!server.get("/online?app=2&user=1").1.contains(ONLINE));
    for bad in ["/online", "/online?app=1", "/online?app=x&user=1", "/online?app=1&user=1,x"] {
        assert_eq!(server.get(bad).0, 400, "{bad}");
    }
    drop(clients);
    until("all are offline", || !server.get(&format!("/online?app=1&user={list}")).1.contains(ONLINE));
}

/// A client that freezes says no FIN; it is offline within period and grace, and no sooner.
#[test]
fn a_frozen_client_goes_offline_in_time() {
    let server = Server::start(&["--set", "heartbeat.period_ms=400", "--set", "heartbeat.grace_ms=400"]);
    let since = Instant::now();
    let mut frozen = server.login(1);
    let mut alive = server.login(2);
    let is_online = |user: i64| server.get(&format!("/online?app=1&user={user}")).1.contains(ONLINE);
    assert!(is_online(1) && is_online(2));
    let mut beaten = Instant::now();
    until("the frozen client is offline", || {
        if beaten.elapsed() > Duration::from_millis(200) {
            alive.heartbeat();
            beaten = Instant::now();
        }
        !is_online(1)
    });
    let silent = since.elapsed();
    assert!(silent >= Duration::from_millis(790), "offline after {silent:?} already");
    assert!(silent < Duration::from_secs(5), "offline only after {silent:?}");
    assert!(is_online(2), "who sends heartbeats stays");
    frozen.expect_farewell(NoticeCode::IdleTimeout);
    until("the event is counted", || {
        server.metric("sailfish_bridge_dropped_total", "event=\"offline\"") == 1.0
    });
}

/// Heartbeats stay within the shard: a thousand of them cause no mail to anybody.
#[test]
fn heartbeats_touch_nothing_outside_their_shard() {
    let server = Server::start(&[]);
    let mut client = server.login(1);
    let mail = || {
        let page = server.get("/metrics").1;
        let of = |line: &str| {
            line.starts_with("sailfish_mail_out_total") || line.starts_with("sailfish_mail_in_total")
        };
        let values = page.lines().filter(|line| of(line)).map(|line| line.rsplit_once(' ').unwrap().1);
        values.map(|value| value.parse::<f64>().unwrap()).sum::<f64>()
    };
    let (first, second) = (mail(), mail());
    let of_a_query = second - first;
    for _ in 0..1_000 {
        client.heartbeat();
    }
    assert_eq!(mail() - second, of_a_query);
    assert_eq!(server.metric("sailfish_frames_in_total", "code=\"heartbeat\""), 1_000.0);
}

#[test]
fn tokens_end() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send_login(&token(1, -1));
    client.expect_farewell(NoticeCode::TokenExpired);
}
