//! Events into Redis Streams.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use biz_bridge::{Config, Mode};
use serde_json::Value;

use crate::world::{Redis, config, id, item, online, request, start, until};

fn redis(server: &Redis) -> Config {
    config(Mode::Redis { url: server.url(), prefix: "t".into() })
}

/// What stands in the streams of 8 lanes, lane by lane.
fn stored(server: &Redis) -> Vec<Vec<Value>> {
    let lane = |lane| {
        type Fields = Vec<(String, Vec<u8>)>;
        let entries: Vec<(String, Fields)> = server.query(&["XRANGE", &format!("t:events:{lane}"), "-", "+"]);
        entries
            .into_iter()
            .map(|(_, fields)| {
                assert_eq!((fields.len(), fields[0].0.as_str()), (1, "e"));
                serde_json::from_slice(&fields[0].1).unwrap()
            })
            .collect()
    };
    (0..8).map(lane).collect()
}

#[test]
fn events_are_stored_and_a_user_has_one_stream() {
    let server = Redis::start();
    let (bridge, ledger) = start(redis(&server));
    for seq in 1..=1_000 {
        bridge.inbox().push(item(seq, online(i64::try_from(seq % 40).unwrap())));
    }
    ledger.wait_for(1_000);
    ledger.assert_all_ok(1..=1_000);
    let mut lanes_of: HashMap<i64, HashSet<usize>> = HashMap::new();
    let mut ids_of: HashMap<i64, Vec<String>> = HashMap::new();
    for (lane, events) in stored(&server).iter().enumerate() {
        for event in events {
            let user = event["user"].as_i64().unwrap();
            lanes_of.entry(user).or_default().insert(lane);
            ids_of.entry(user).or_default().push(event["id"].as_str().unwrap().into());
        }
    }
    assert!(lanes_of.values().all(|lanes| lanes.len() == 1));
    for user in 0..40 {
        let mine = (1..=1_000).filter(|seq| i64::try_from(seq % 40).unwrap() == user);
        assert_eq!(ids_of[&user], mine.map(id).collect::<Vec<_>>());
    }
    assert_eq!(ids_of.len(), 40);
    assert_eq!(bridge.stop(Duration::from_secs(20)), 0);
}

/// The lanes that have nothing to do, and the stream of pushes, end before the one that has.
#[test]
fn a_stop_waits_for_the_lane_that_has_something() {
    let server = Redis::start();
    for round in 1..=40 {
        let (bridge, ledger) = start(redis(&server));
        (1..=20).for_each(|at| bridge.inbox().push(item(round * 100 + at, online(1))));
        assert_eq!(bridge.stop(Duration::from_secs(20)), 0, "round {round}");
        ledger.assert_all_ok((1..=20).map(|at| round * 100 + at));
    }
}

#[test]
fn a_redis_that_is_killed_under_load_loses_nothing_that_was_taken() {
    const EVENTS: u64 = 20_000;
    let mut server = Redis::start();
    let (bridge, ledger) = start(Config { timeout: Duration::from_secs(2), batch_max: 16, ..redis(&server) });
    let inbox = bridge.inbox();
    let pushing = std::thread::Builder::new().spawn(move || {
        for seq in 1..=EVENTS {
            inbox.push(item(seq, request(i64::try_from(seq % 200).unwrap(), b"{}")));
            if seq % 50 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    });
    for kill in 1..=4 {
        until("events are taken", || ledger.count() > usize::try_from(kill * EVENTS / 6).unwrap());
        server.kill();
        server.start_again();
    }
    pushing.unwrap().join().unwrap();
    ledger.wait_for(EVENTS.try_into().unwrap());
    ledger.assert_all_ok(1..=EVENTS);
    assert!(bridge.metrics().batches_failed.get() > 0, "it was killed under load");
    let mut seen = HashSet::new();
    let mut last_of: HashMap<i64, u64> = HashMap::new();
    for event in stored(&server).into_iter().flatten() {
        let id = event["id"].as_str().unwrap().to_owned();
        let seq = u64::from_str_radix(id.rsplit('-').next().unwrap(), 16).unwrap();
        if seen.insert(id) {
            let last = last_of.insert(event["user"].as_i64().unwrap(), seq);
            assert!(last.is_none_or(|last| last < seq), "{seq} after {last:?}");
        } // else its reply was lost, so it was stored once more
    }
    assert_eq!(seen.len(), usize::try_from(EVENTS).unwrap());
}

#[test]
fn a_redis_that_may_lose_what_it_has_stored_is_told_of() {
    let server = Redis::start();
    for (setting, value, volatile) in [
        ("appendfsync", "always", 0),
        ("appendfsync", "everysec", 1),
        ("appendfsync", "always", 0),
        ("appendonly", "no", 1),
    ] {
        assert_eq!(server.ask(&["CONFIG", "SET", setting, value]), "OK");
        server.ask(&["DEL", "t:push"]);
        let (bridge, _ledger) = start(redis(&server));
        until("it is connected", || server.ask(&["EXISTS", "t:push"]) == "1");
        assert_eq!(bridge.metrics().redis_volatile.get(), volatile, "{setting} {value}");
    }
}

#[test]
fn what_redis_refuses_waits() {
    let server = Redis::start();
    (0..8).for_each(|lane| assert_eq!(server.ask(&["SET", &format!("t:events:{lane}"), "x"]), "OK"));
    let (bridge, ledger) = start(redis(&server));
    (1..=20).for_each(|seq| bridge.inbox().push(item(seq, online(1))));
    until("it fails", || bridge.metrics().batches_failed.get() > 10);
    assert_eq!(ledger.count(), 0);
    (0..8).for_each(|lane| assert_eq!(server.ask(&["DEL", &format!("t:events:{lane}")]), "1"));
    ledger.wait_for(20);
    let events: Vec<Value> = stored(&server).into_iter().flatten().collect();
    let ids: Vec<&str> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(ids, (1..=20).map(id).collect::<Vec<_>>());
}

#[test]
fn payloads_of_all_kinds_are_stored() {
    let server = Redis::start();
    let text = "\0\r\n$3\r\n*1\r\n\u{1f381} '; DROP TABLE users; --";
    let large = "0123456789abcdef".repeat(4_096);
    let (bridge, ledger) = start(redis(&server));
    bridge.inbox().push(item(1, request(1, text.as_bytes())));
    bridge.inbox().push(item(2, request(1, &[0xff, 0, 0xfe, 0x80])));
    (3..=60).for_each(|seq| bridge.inbox().push(item(seq, request(1, large.as_bytes()))));
    ledger.wait_for(60);
    let events: Vec<Value> = stored(&server).into_iter().flatten().collect();
    assert_eq!((&events[0]["data"], &events[1]["data_base64"]), (&text.into(), &"/wD+gA==".into()));
    assert!(events[2..].iter().all(|event| event["data"] == large.as_str()));
    assert_eq!(events.len(), 60);
}
