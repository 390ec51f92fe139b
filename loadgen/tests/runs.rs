//! Runs against a model of the gateway: what it keeps, the report says; what it breaks, the report counts.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod world;

use loadgen::{Plan, Report, Samples, Scenario, render};
use shard::Instant;
use world::{Fault, World, plan};

fn counts(report: &Report) -> [u64; 3] {
    [report.lost, report.duplicated, report.out_of_order]
}

/// Runs with one fault; lost, duplicated, out of order.
fn with_fault(plan: Plan, fault: Fault) -> (Report, [u64; 3]) {
    let mut world = World::new(plan);
    world.server.fault = Some(fault);
    let report = world.run().report;
    let counts = counts(&report);
    (report, counts)
}

fn chat() -> Plan {
    plan(Scenario::Chat, 20, 1000.0)
}

fn room() -> Plan {
    Plan { rooms: 2, ..plan(Scenario::Room, 20, 100.0) }
}

fn gifts() -> Plan {
    Plan { rooms: 2, ..plan(Scenario::Gift, 20, 100.0) }
}

#[test]
fn chat_delivers_every_message_once_with_a_send_ack() {
    let report = World::new(chat()).run().report;
    assert!(report.passed(), "{}", render(&report));
    assert_eq!([report.connections, report.connected, report.failed], [20, 20, 0]);
    assert_eq!([report.sent, report.accepted, report.delivered, report.acked], [1000; 4]);
    assert_eq!(report.per_second, 1000.0);
    // There and on to the receiver; then its ack and the send-ack.
    assert_eq!(report.latency_us.p50.round(), 50.0);
    assert!(report.send_ack_us.p50 > report.latency_us.p50);
    assert_eq!(report.schedule_lag_us.max, 0.0);
}

#[test]
fn every_member_gets_every_message_of_its_room() {
    let report = World::new(room()).run().report;
    assert!(report.passed(), "{}", render(&report));
    assert_eq!([report.sent, report.accepted, report.delivered, report.acked], [100, 100, 1000, 0]);
}

#[test]
fn every_member_sees_every_gift_of_its_room() {
    let report = World::new(gifts()).run().report;
    assert!(report.passed(), "{}", render(&report));
    assert_eq!([report.sent, report.accepted, report.delivered], [100, 100, 1000]);
    assert!(report.latency_us.p50 > 0.0 && report.send_ack_us.p50 > 0.0);
}

#[test]
fn a_gift_that_failed_is_owed_to_nobody() {
    let mut world = World::new(gifts());
    world.server.refuse_gift = Some(7);
    let report = world.run().report;
    assert!(report.passed(), "{}", render(&report));
    assert_eq!((report.accepted, report.delivered, report.refused["insufficient_balance"]), (100, 990, 1));
}

#[test]
fn an_effect_that_is_lost_or_cannot_be_told_from_another_is_counted() {
    assert_eq!(with_fault(gifts(), Fault::Lose(33)).1, [1, 0, 0]);
    assert_eq!(with_fault(gifts(), Fault::Rename(33)).1, [0, 1, 0]);
    let (report, counts) = with_fault(gifts(), Fault::Duplicate(33));
    assert_eq!((counts, report.redelivered), ([0; 3], 1), "the client message id tells");
    let (report, counts) = with_fault(gifts(), Fault::Redeliver(33));
    assert_eq!((counts, report.redelivered), ([0; 3], 1));
}

#[test]
fn echo_answers_every_heartbeat() {
    let report = World::new(plan(Scenario::Echo, 10, 2000.0)).run().report;
    assert!(report.passed(), "{}", render(&report));
    assert_eq!([report.sent, report.accepted, report.delivered], [2000; 3]);
}

#[test]
fn idle_sends_heartbeats_at_the_servers_period() {
    let mut world = World::new(plan(Scenario::Idle, 50, 0.0));
    let report = world.run().report;
    assert!(report.passed(), "{}", render(&report));
    // 50 clients, once every 500 ms, for a second.
    assert_eq!([report.sent, report.delivered], [100, 100]);
}

#[test]
fn a_storm_brings_everybody_back() {
    let mut world = World::new(Plan { connect_window: 8, ..plan(Scenario::Storm, 100, 0.0) });
    let report = world.run().report;
    assert!(report.passed(), "{}", render(&report));
    assert_eq!([report.connected, report.sent, report.delivered], [100, 200, 200]);
    let storm = report.storm.unwrap();
    assert!(storm.connect_seconds > 0.0 && storm.reconnect_seconds > 0.0, "{storm:?}");
    assert_eq!(world.server.online(), 100);
}

#[test]
fn after_the_reset_everybody_stays_and_is_heard() {
    let plan = Plan { stay_ns: 10_000_000_000, heartbeat_ms: Some(1000), ..plan(Scenario::Storm, 100, 0.0) };
    let mut world = World::new(plan);
    let report = world.run().report;
    assert!(report.passed(), "{}", render(&report));
    assert_eq!(report.delivered, 200);
    // One second before the reset, ten after it.
    let heartbeats = world.server.heartbeats;
    assert!((1000..=1200).contains(&heartbeats), "{heartbeats}");
}

#[test]
fn each_part_of_a_split_run_has_its_latency() {
    let mut world = World::new(Plan { split_ns: vec![250_000_000, 600_000_000], ..chat() });
    let run = world.run();
    assert!(run.report.passed(), "{}", render(&run.report));
    assert_eq!(run.tally.parts.iter().map(Samples::len).collect::<Vec<_>>(), [250, 350, 400]);
    assert_eq!(run.report.parts.len(), 3);
}

#[test]
fn json_bodies_serve_as_well() {
    for plan in [chat(), room(), plan(Scenario::Echo, 10, 500.0)] {
        let scenario = plan.scenario;
        let report = World::new(Plan { json: true, ..plan }).run().report;
        assert!(report.passed(), "{scenario:?}\n{}", render(&report));
        assert!(report.delivered >= 500);
    }
}

#[test]
fn split_bytes_change_nothing() {
    let mut world = World::new(chat());
    world.piece_bytes = 1;
    let report = world.run().report;
    assert!(report.passed(), "{}", render(&report));
    assert_eq!(report.delivered, 1000);
}

#[test]
fn the_same_run_writes_the_same_bytes() {
    let written = || {
        let mut world = World::new(chat());
        world.run();
        world.written
    };
    assert!(written() == written());
}

#[test]
fn a_lost_message_is_counted() {
    assert_eq!(with_fault(chat(), Fault::Lose(500)).1, [1, 0, 0]);
    assert_eq!(with_fault(chat(), Fault::Lose(1000)).1, [1, 0, 0]);
    assert_eq!(with_fault(room(), Fault::Lose(500)).1, [1, 0, 0]);
    assert_eq!(with_fault(room(), Fault::Lose(1000)).1, [1, 0, 0]);
}

#[test]
fn a_refused_message_is_not_lost_but_fails_the_run() {
    let (report, counts) = with_fault(chat(), Fault::Refuse(500));
    assert_eq!(counts, [0, 0, 0]);
    assert_eq!(report.rejected.get("unacked"), Some(&1));
    assert!(!report.passed());
}

#[test]
fn a_duplicate_is_counted_and_a_repeat_is_not() {
    for plan in [chat(), room()] {
        // In a room another id at the same place is another order.
        let wanted = if plan.scenario == Scenario::Chat { [0, 1, 0] } else { [0, 0, 1] };
        assert_eq!(with_fault(plan.clone(), Fault::Duplicate(500)).1, wanted);
        let (report, counts) = with_fault(plan, Fault::Redeliver(500));
        assert_eq!((counts, report.redelivered), ([0, 0, 0], 1));
        assert!(report.passed());
    }
}

#[test]
fn a_changed_order_is_counted() {
    assert_eq!(with_fault(chat(), Fault::Delay(500)).1, [0, 0, 1]);
    assert_eq!(with_fault(room(), Fault::Delay(500)).1, [0, 0, 1]);
}

#[test]
fn an_altered_or_forged_message_does_not_count_as_delivered() {
    for fault in [Fault::Alter(500), Fault::Forge(500)] {
        for plan in [chat(), room()] {
            let (report, counts) = with_fault(plan, fault);
            assert_eq!((counts, report.stray), ([1, 0, 0], 1), "{fault:?}");
        }
    }
}

#[test]
fn a_missing_send_ack_is_counted() {
    let (report, counts) = with_fault(chat(), Fault::KeepQuiet(500));
    assert_eq!((counts, report.unanswered, report.delivered), ([0, 0, 0], 1, 1000));
    assert!(!report.passed());
}

#[test]
fn a_message_is_repeated_after_a_reconnect_and_delivered_once() {
    let mut world = World::new(chat());
    world.server.fault = Some(Fault::ResetSender(500));
    let report = world.run().report;
    assert_eq!(counts(&report), [0, 0, 0], "{}", render(&report));
    // While it is away, its partner is told that it is offline.
    let offline = report.rejected["offline"];
    assert_eq!([report.accepted + offline, report.delivered + offline, report.unanswered], [1000, 1000, 0]);
    assert_eq!(report.disconnected.get("reset"), Some(&1));
}

#[test]
fn a_server_that_forgets_repeats_is_found_out() {
    let mut world = World::new(chat());
    world.server.fault = Some(Fault::ResetSender(500));
    world.server.no_dedupe = true;
    let report = world.run().report;
    assert_eq!((counts(&report), report.redelivered, report.renewed), ([0, 0, 0], 1, 1));
    assert!(!report.passed());
}

#[test]
fn a_receiver_that_is_reset_comes_back() {
    let (report, counts) = with_fault(chat(), Fault::Reset(500));
    assert_eq!(counts, [0, 0, 0]);
    assert_eq!([report.connected, report.failed], [20, 0]);
    let rejected: u64 = report.rejected.values().sum();
    assert!(rejected >= 1 && report.delivered + rejected == 1000, "{}", render(&report));
}

#[test]
fn a_member_that_was_away_is_owed_nothing_for_that_time() {
    let (report, counts) = with_fault(Plan { rate: 1000.0, ..room() }, Fault::Reset(500));
    assert_eq!(counts, [0, 0, 0], "{}", render(&report));
    assert!(report.passed_by > 0);
    assert_eq!(report.delivered + report.passed_by, 10_000);
}

#[test]
fn notices_are_told_by_name() {
    let (report, _) = with_fault(chat(), Fault::Limit(500));
    assert_eq!(report.disconnected.get("rate_limited"), Some(&1));
    assert!(render(&report).contains("closed by the server: rate_limited x 1"), "{}", render(&report));
}

#[test]
fn an_http_port_is_called_one_and_is_tried_once() {
    let mut world = World::new(chat());
    world.server.speaks_http = true;
    let report = world.run().report;
    assert_eq!((report.failed, report.disconnected.get("http_port")), (20, Some(&20)));
    assert!(render(&report).contains("http_port x 20 (an HTTP server is there"), "{}", render(&report));
}

#[test]
fn who_is_kicked_does_not_come_back_and_is_owed_nothing_after() {
    let (report, counts) = with_fault(room(), Fault::Kick(501));
    assert_eq!((counts, report.failed), ([0, 0, 0], 1), "{}", render(&report));
    assert_eq!(report.disconnected.get("kicked"), Some(&1));
    assert!(!report.passed() && report.delivered < 1000);
}

#[test]
fn unanswered_and_doubled_heartbeats_are_counted() {
    for scenario in [Scenario::Idle, Scenario::Echo] {
        let mut world = World::new(plan(scenario, 10, 1000.0));
        world.server.swallow_heartbeat = Some(15);
        assert_eq!(counts(&world.run().report), [1, 0, 0], "{scenario:?}");
        let mut world = World::new(plan(scenario, 10, 1000.0));
        world.server.double_heartbeats = true;
        assert!(world.run().report.duplicated >= 20, "{scenario:?}");
    }
}

#[test]
fn a_stalled_server_is_charged_for_every_operation_it_kept_waiting() {
    let mut world = World::new(plan(Scenario::Echo, 10, 1000.0));
    let at = |ms: u64| Instant::from_unix_nanos(1_790_000_000_000_000_000 + ms * 1_000_000);
    // Within the run, which begins after about 100 ms.
    world.server.stall = Some((at(500), at(700)));
    let outcome = world.run();
    let latency = &outcome.tally.latency;
    assert_eq!(latency.len(), 1000);
    // 200 of 1,000 operations waited, evenly between 0 and 200 ms: 100 of them more than 100 ms.
    assert!((latency.quantile_us(0.9) - 100_000.0).abs() < 3_000.0, "{}", latency.quantile_us(0.9));
    assert!((latency.max_us() - 200_000.0).abs() < 3_000.0, "{}", latency.max_us());
    assert_eq!(latency.quantile_us(0.79).round(), 50.0);
}

#[test]
fn several_fleets_make_one_run() {
    // Both rooms have members in both fleets; both publishers are in the first.
    let report = World::with_fleets(room(), 2).run().report;
    assert!(report.passed(), "{}", render(&report));
    let publishers = 2;
    assert_eq!(report.connected, 40);
    assert_eq!(report.sent, 50 * publishers);
    assert_eq!(report.delivered, 100 * 20);
    // The last delivery of all is to a member in the second fleet, which sends nothing itself.
    let mut world = World::with_fleets(room(), 2);
    world.server.fault = Some(Fault::Lose(2000));
    assert_eq!(counts(&world.run().report), [1, 0, 0]);
}

#[test]
fn a_warm_up_is_checked_but_not_measured() {
    let plan = Plan { warmup_ns: 500_000_000, ..chat() };
    let outcome = World::new(plan.clone()).run();
    assert_eq!((outcome.report.sent, outcome.tally.latency.len()), (1500, 1000));
    assert_eq!(with_fault(plan, Fault::Lose(100)).1, [1, 0, 0]);
}

#[test]
fn nobody_listening_ends_soon_and_says_so() {
    let mut world = World::new(chat());
    world.refuse = true;
    let report = world.run().report;
    assert_eq!([report.connected, report.failed], [0, 20]);
    assert!(!report.passed());
    assert!(render(&report).contains("is a gateway listening there?"), "{}", render(&report));
}

#[test]
fn connects_keep_to_their_rate_their_window_and_their_addresses() {
    let mut world = World::new(Plan { connect_rate: Some(1000.0), ..plan(Scenario::Idle, 50, 0.0) });
    world.run();
    let (first, last) = (world.connects[0].0, world.connects[49].0);
    assert_eq!(last.since(first).as_millis(), 49);
    let addresses: Vec<_> = world.connects.iter().map(|(_, source)| source.as_str()).collect();
    assert_eq!(
        [addresses[0], addresses[9], addresses[10], addresses[49]],
        ["127.1.0.1", "127.1.0.1", "127.1.0.2", "127.1.0.5"]
    );
    let mut world = World::new(Plan { connect_window: 7, ..plan(Scenario::Idle, 50, 0.0) });
    world.run();
    let at_once = world.connects.iter().filter(|(at, _)| *at == world.connects[0].0).count();
    assert_eq!(at_once, 7);
}
