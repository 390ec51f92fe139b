//! Runs of many seeds, and of each scenario.

use sim::{Plan, SCENARIOS, Scenario};

/// Seeds of a run of `cargo test`, each in its short form (`--scenario short`); `cargo xtask sim` runs more
/// of them.
const SEEDS: u64 = 200;
/// Seeds that found what was wrong with presence, in their short form.
const PRESENCE_SEEDS: [u64; 4] = [146, 1_353_951_330, 1_353_954_052, 1_353_956_233];
/// Seeds that found what was wrong, here or in the judgement, with messages that two owners deliver, in their
/// short form.
const SEEDS_OF_TWO_OWNERS: [u64; 2] = [5_001_095, 5_002_319];
/// Seeds of the plan `overload`: one router or two that stand still for up to 3 s or have a sixteenth of
/// their CPU, and gateways that do.
const OVERLOADED: [u64; 4] = [1, 4, 5, 8];
/// Seeds of runs whose links are encrypted.
const ENCRYPTED: u64 = 30;
/// Seeds of each scenario.
const SEEDS_OF_EACH: u64 = 2;
/// Seeds of whole runs in which a room's sequence went back, or was given twice.
const OF_SEQUENCES: [u64; 3] = [1_135, 1_353_950_574, 1_353_950_682];
/// Seeds of whole runs in which a room did not wait for a gateway that had just come, in which a router that
/// was cut off told the end of a session that another one owned, in which a gateway's next life was given the
/// answer to a question of the one before, and in which a room was deaf to its owner, as another one had been
/// its owner for a moment.
const OF_GATEWAYS_APART: [u64; 4] = [9_000_394, 9_000_936, 9_000_235, 20_000_087];
/// Seeds of whole runs in which a lossy message that a cut-off router held back came late, in which a room's
/// stream, its next owner, or its owner itself did not know what another had said in between, in which a
/// session whose end was denied was not announced again, and in which a client behind a proxy was told that
/// it spoke no HTTP.
const OF_WHAT_OTHERS_SAID: [u64; 6] =
    [30_002_931, 30_004_544, 40_002_544, 40_002_867, 40_003_647, 30_007_796];

/// Seeds in their short form, with clients by TLS, in which an owner did not know what one that had died had
/// said: a stream did not say what members knew of, and all gateways that knew of it had ended.
const OF_DEAD_OWNERS: [u64; 2] = [60_000_812, 55_007_816];
/// Seeds whose faults, in their short form, were played with the schedule of another seed. There a message
/// came late to a client that had joined meanwhile, and to one whose gateway had been cut off, and one that
/// its sender's shard had withdrawn came early.
const OF_OTHER_SCHEDULES: [(u64, u64); 3] =
    [(1_353_956_233, 445), (1_353_951_330, 20), (1_353_954_052, 3_429)];
/// A seed in its short form, in which a newer session gives way to an older one, as the only router and the
/// newer one's gateway have started in between, and the older one's clock is 34 minutes ahead. Without the
/// fault in that place it is a session on another device.
const OF_FORGOTTEN_STAMPS: (u64, usize) = (73_013_091, 4);
/// Seeds of whole runs with clients by TLS, in which a client that acked late missed lossy messages.
const OF_LATE_ACKS: [u64; 1] = [80_000_248];

/// The run that a seed stood for when it was recorded, without clients that come by TLS.
fn before_tls(plan: Plan) -> Plan {
    Plan { tls: false, ..plan }
}

#[test]
fn seeds_keep_their_promises() {
    let recorded = PRESENCE_SEEDS.into_iter().chain(SEEDS_OF_TWO_OWNERS).map(Plan::short).map(before_tls);
    let as_drawn = (0..SEEDS).chain(OF_DEAD_OWNERS).map(Plan::short);
    let others = OF_OTHER_SCHEDULES.map(|(faults, seed)| Plan { seed, ..Plan::short(faults) });
    let (seed, place) = OF_FORGOTTEN_STAMPS;
    let forgotten = [Plan::short(seed), Plan::short(seed).without(&[place])];
    for plan in as_drawn.chain(recorded).chain(others).chain(forgotten) {
        if let Err(failure) = sim::run(&plan, None) {
            panic!("{failure}");
        }
    }
}

#[test]
fn sequences_of_rooms_only_go_up_and_are_given_once() {
    for seed in OF_SEQUENCES {
        if let Err(failure) = sim::run(&before_tls(Plan::of_seed(seed)), None) {
            panic!("{failure}");
        }
    }
}

#[test]
fn gateways_that_are_apart_for_a_while_lose_nothing() {
    let recorded =
        OF_GATEWAYS_APART.into_iter().chain(OF_WHAT_OTHERS_SAID).map(Plan::of_seed).map(before_tls);
    for plan in recorded.chain(OF_LATE_ACKS.map(Plan::of_seed)) {
        if let Err(failure) = sim::run(&plan, None) {
            panic!("{failure}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 2, 3] {
        let hash = || sim::run(&Plan::short(seed), None).map(|report| report.hash);
        assert_eq!(hash(), hash());
        assert_ne!(hash(), sim::run(&Plan::short(seed + 10), None).map(|report| report.hash));
    }
}

/// Keys of TLS are drawn anew in each run. Nothing but the bytes on the network depends on them.
#[test]
fn tls_does_not_change_a_run() {
    let mut handshakes = [0, 0];
    for seed in 0..8 {
        let run = || sim::run(&Plan::short(seed), None);
        let (first, second) = (run(), run());
        assert_eq!(first, second, "seed {seed}");
        let its = first.unwrap_or_else(|failure| panic!("{failure}")).tls_handshakes;
        handshakes = [0, 1].map(|kind| handshakes[kind] + its[kind]);
    }
    assert!(handshakes[0] > 10 && handshakes[1] > 0, "{handshakes:?}, full and with a ticket");
}

/// A replay is the run that failed.
#[test]
fn a_run_that_is_read_is_the_same_run() {
    for seed in [1, 2, 3] {
        let hash = |lines| sim::run(&Plan::short(seed), lines).map(|report| report.hash);
        assert_eq!(hash(None), hash(Some(|line| assert!(!line.is_empty()))), "seed {seed}");
    }
}

/// TLS draws its keys from the system, and the run does not depend on them.
#[test]
fn encrypted_links_keep_their_promises_and_give_the_same_run() {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == "encrypted_links").expect("it is one");
    for seed in 0..ENCRYPTED {
        let run = || sim::run(&scenario.plan(seed), None).unwrap_or_else(|failure| panic!("{failure}")).hash;
        let hash = run();
        if seed < 5 {
            assert_eq!(run(), hash, "seed {seed}");
        }
        assert_ne!(sim::run(&Plan::short(seed), None).map(|report| report.hash), Ok(hash), "seed {seed}");
    }
}

#[test]
fn scenarios_keep_their_promises() {
    for scenario in SCENARIOS {
        for seed in 0..SEEDS_OF_EACH {
            if let Err(failure) = sim::run(&scenario.plan(seed), None) {
                panic!("scenario {}: {failure}", scenario.name);
            }
        }
    }
}

/// Announcing everything takes a router longer than any link waits for it. If that were done whenever links
/// are lost, they would be lost for ever.
#[test]
fn after_an_overload_everything_is_whole_again() {
    for seed in OVERLOADED {
        let report = sim::run(&Plan::overload(seed), None).unwrap_or_else(|failure| panic!("{failure}"));
        let whole_after_ms = report.whole_after_ms.expect("the judge has found it whole");
        println!(
            "seed {seed}: whole {whole_after_ms} ms after the last fault; {} links lost, {} sessions announced",
            report.links_lost, report.announced
        );
        assert!(report.links_lost > 0, "seed {seed} says nothing: {report:?}");
    }
}

/// A farewell ends by itself, and what was sent through it is answered as if nothing had been.
#[test]
fn farewells_end_by_themselves_and_lose_nothing() {
    let is_farewell = |scenario: &&Scenario| ["router_drained", "rolling_restart"].contains(&scenario.name);
    for scenario in SCENARIOS.iter().filter(is_farewell) {
        let report = sim::run(&scenario.plan(7), None).expect(scenario.name);
        assert_eq!(report.drains_late, 0, "{}", scenario.name);
        assert_eq!(report.unaccounted, 0, "{}", scenario.name);
    }
}

/// Nobody was silent: nobody could have spoken, and who did is read before anybody is judged.
#[test]
fn a_cluster_that_stood_still_as_a_whole_gives_up_no_link() {
    let scenario =
        SCENARIOS.iter().find(|scenario| scenario.name == "all_frozen_at_once").expect("it is one");
    for seed in 0..10 {
        let report = sim::run(&scenario.plan(seed), None).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!((report.links_lost, report.handed_over), (0, 0), "seed {seed}: {report:?}");
    }
}

/// A run says something only if much happens in it.
#[test]
fn much_happens_in_a_run() {
    let report = sim::run(&Plan::calm(1), None).expect("a calm run");
    assert!(report.messages > 300 && report.delivered > report.messages * 9 / 10, "{report:?}");
    assert_eq!(report.handed_over, 0, "everybody is there and acks");
}
