//! Runs against a cluster that loses gateways and owners: what that may cost, the report forgives, and no
//! more.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod world;

use loadgen::{Plan, Report, Scenario, render};
use world::{Act, Fault, World, plan, target};

const REPEAT_NS: u64 = 300_000_000;

fn cluster(plan: Plan) -> Plan {
    Plan { targets: vec![target(0), target(1), target(2)], repeat_ns: REPEAT_NS, ..plan }
}

fn chat() -> Plan {
    cluster(plan(Scenario::Chat, 20, 1000.0))
}

fn room() -> Plan {
    cluster(Plan { rooms: 2, publishers: 2, ..plan(Scenario::Room, 20, 500.0) })
}

fn run(plan: Plan, script: &[(u64, Act)]) -> Report {
    run_with_fault(plan, script, None)
}

fn run_with_fault(plan: Plan, script: &[(u64, Act)], fault: Option<Fault>) -> Report {
    let mut world = World::new(plan);
    world.script = script.iter().copied().collect();
    world.faults_made = true;
    world.server.fault = fault;
    let report = world.run().report;
    assert_eq!([report.duplicated, report.out_of_order, report.unanswered], [0; 3], "{}", render(&report));
    report
}

#[test]
fn clients_begin_at_all_targets() {
    let first = |plan: Plan| [0, 1, 2, 3, 4, 5].map(|client| plan.first_target(client));
    assert_eq!(first(Plan { rooms: 3, ..chat() }), [0, 1, 2, 0, 1, 2]);
    // Clients 0 and 3 are in one room.
    assert_eq!(first(Plan { rooms: 3, ..room() }), [0, 1, 2, 1, 2, 0]);
    let report = run(chat(), &[]);
    assert!(report.passed(), "{}", render(&report));
    let on_targets: Vec<_> = report.on_targets.into_iter().collect();
    assert_eq!(on_targets, [(0, 7), (1, 7), (2, 6)].map(|(at, count)| (target(at).to_string(), count)));
}

#[test]
fn a_dead_gateway_costs_a_reconnect_and_no_more() {
    for plan in [chat(), room()] {
        let report = run(plan, &[(600, Act::Kill(target(1)))]);
        assert!(report.passed(), "{}", render(&report));
        assert_eq!((report.on_targets.get(&target(1).to_string()), report.reconnects), (None, 7));
        // The next target takes them after the first wait, which chance makes a bit longer.
        assert!(report.reconnect_us.max < 200_000.0, "{}", render(&report));
        assert!(report.handed_over + report.passed_by > 0, "{}", render(&report));
    }
}

#[test]
fn a_rolling_restart_under_load_goes_on_until_it_is_stopped() {
    let restart = |ms, at| [(ms, Act::Kill(target(at))), (ms + 400, Act::Revive(target(at)))];
    let mut script: Vec<_> = [restart(300, 0), restart(1000, 1), restart(1700, 2)].concat();
    script.push((2600, Act::Stop));
    let report = run(Plan { measure_ns: None, ..chat() }, &script);
    assert!(report.passed(), "{}", render(&report));
    assert!(report.reconnects >= 20 && report.handed_over > 0, "{}", render(&report));
    assert!((2450..=2550).contains(&report.sent), "{}", report.sent);
}

#[test]
fn a_message_without_a_send_ack_is_repeated_on_the_same_connection() {
    for plan in [chat(), room()] {
        let mut world = World::new(plan);
        world.script = [(500, Act::Mute(true)), (600, Act::Mute(false))].into();
        let report = world.run().report;
        assert!(report.passed(), "{}", render(&report));
        assert!(report.repeats >= 40 && report.redelivered == 0, "{}", render(&report));
        // Its send-ack came with the repeat.
        assert!(report.send_ack_us.max > 300_000.0 && report.latency_us.max < 1_000.0);
    }
}

#[test]
fn a_message_that_was_swallowed_comes_late_and_is_not_out_of_order() {
    for plan in [chat(), room()] {
        let report = run(plan, &[(500, Act::Swallow(true)), (600, Act::Swallow(false))]);
        assert!(report.passed() && report.lost == 0, "{}", render(&report));
        assert_eq!((report.renewed, report.sent), (0, report.accepted));
    }
}

#[test]
fn what_a_busy_cluster_refuses_is_sent_again() {
    let script = [(500, Act::Refuse(true)), (600, Act::Refuse(false))];
    for plan in [chat(), room()] {
        let report = run(Plan { retry_busy: true, ..plan.clone() }, &script);
        assert!(report.passed() && report.busy >= 45, "{}", render(&report));
        assert_eq!((report.busy, report.accepted), (report.repeats, report.sent));
        let report = run(plan, &script);
        assert!(!report.passed() && report.rejected["busy"] >= 45, "{}", render(&report));
    }
}

#[test]
fn what_an_owner_took_into_its_grave_is_redelivered_by_the_next() {
    let script = [(500, Act::Mute(true)), (600, Act::Forget), (600, Act::Mute(false))];
    for plan in [chat(), room()] {
        let members = if plan.scenario == Scenario::Room { 10 } else { 1 };
        let report = run(plan, &script);
        assert!(report.passed() && report.lost == 0, "{}", render(&report));
        assert_eq!(report.renewed, report.repeats * members, "{}", render(&report));
        assert_eq!(report.delivered, report.sent * members);
    }
}

#[test]
fn a_room_that_goes_on_at_a_higher_base_has_lost_nothing() {
    let script = [(400, Act::Forget), (800, Act::Forget)];
    let report = run(room(), &script);
    assert!(report.passed(), "{}", render(&report));
    assert_eq!((report.passed_by, report.delivered), (0, report.sent * 10));
    // Before, between and after.
    for at in [100, 2500, 5000] {
        let report = run_with_fault(room(), &script, Some(Fault::Lose(at)));
        assert_eq!((report.lost, report.delivered), (1, report.sent * 10 - 1), "{at}");
    }
}

#[test]
fn a_member_that_comes_back_after_a_move_is_owed_what_comes_then() {
    let script = [(500, Act::Kill(target(1))), (505, Act::Forget)];
    let report = run(room(), &script);
    assert!(report.passed() && report.passed_by > 0, "{}", render(&report));
    assert_eq!(report.delivered + report.passed_by, report.sent * 10);
}

#[test]
fn without_faults_on_purpose_what_is_handed_over_fails_the_run() {
    let mut world = World::new(chat());
    world.script = [(600, Act::Kill(target(1)))].into();
    let report = world.run().report;
    let rejected: u64 = report.rejected.values().sum();
    assert!(report.handed_over == rejected && rejected > 0 && report.lost == 0);
    assert!(!report.passed());
}
