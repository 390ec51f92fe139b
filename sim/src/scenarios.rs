//! Runs with a name: one kind of trouble each, over many seeds.

use crate::plan::{Fault, Plan};

/// A named run.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    make: fn(u64) -> Plan,
}

impl Scenario {
    /// Its plan for a seed.
    pub fn plan(&self, seed: u64) -> Plan {
        (self.make)(seed)
    }
}

const ROUTER: u16 = crate::plan::ROUTERS;
const GATEWAY: u16 = crate::plan::GATEWAYS;

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "calm", make: Plan::calm },
    Scenario { name: "short", make: Plan::short },
    Scenario { name: "overload", make: Plan::overload },
    Scenario { name: "router_killed", make: |seed| with(seed, &[(3_000, crash(ROUTER, false))]) },
    Scenario { name: "gateway_killed", make: |seed| with(seed, &[(3_000, crash(GATEWAY, false))]) },
    Scenario {
        name: "router_and_gateway_killed",
        make: |seed| with(seed, &[(3_000, crash(ROUTER, false)), (3_050, crash(GATEWAY, false))]),
    },
    Scenario {
        name: "power_loss",
        make: |seed| with(seed, &[(3_000, crash(ROUTER, true)), (6_000, crash(GATEWAY, true))]),
    },
    Scenario { name: "router_drained", make: |seed| with(seed, &[(3_000, drain(ROUTER))]) },
    Scenario {
        name: "rolling_restart",
        make: |seed| {
            let faults = [0, 1, 2].map(|at| (2_000 + 2_500 * u64::from(at), drain(GATEWAY + at)));
            Plan { busy_ms: 10_000, ..with(seed, &faults) }
        },
    },
    Scenario {
        name: "takeover_while_owners_change",
        make: |seed| Plan {
            rough_clients: true,
            clocks: vec![(GATEWAY, 3_600_000)],
            ..with(seed, &[(2_500, crash(ROUTER, false)), (5_000, drain(ROUTER + 1))])
        },
    },
    Scenario { name: "cut_one_way", make: |seed| with(seed, &[(3_000, cut(false))]) },
    Scenario { name: "cut_both_ways", make: |seed| with(seed, &[(3_000, cut(true))]) },
    Scenario {
        name: "clock_an_hour_off",
        make: |seed| Plan {
            rough_clients: true,
            clocks: vec![(GATEWAY + 1, -3_600_000)],
            ..Plan::calm(seed)
        },
    },
    Scenario {
        name: "frozen",
        make: |seed| {
            let freeze = |host, ms| Fault::Freeze { host, ms };
            with(seed, &[(2_500, freeze(ROUTER, 1_500)), (6_000, freeze(GATEWAY, 900))])
        },
    },
    Scenario { name: "encrypted_links", make: |seed| Plan { encrypted_links: true, ..Plan::short(seed) } },
    Scenario {
        name: "all_frozen_at_once",
        make: |seed| {
            let plan = Plan::calm(seed);
            let freeze = |host| (3_000, Fault::Freeze { host, ms: 1_500 });
            let faults = plan.hosts().into_iter().map(freeze).collect();
            Plan { faults, ..plan }
        },
    },
];

fn with(seed: u64, faults: &[(u64, Fault)]) -> Plan {
    Plan { faults: faults.to_vec(), ..Plan::calm(seed) }
}

fn crash(host: u16, power: bool) -> Fault {
    Fault::Crash { host, power, back_ms: 1_500 }
}

fn drain(host: u16) -> Fault {
    Fault::Drain { host, back_ms: 500 }
}

fn cut(both: bool) -> Fault {
    Fault::Cut { from: ROUTER, to: GATEWAY, both, ms: 2_500 }
}
