//! Whole clusters and their clients in one thread, on a simulated clock and network.
//!
//! The cores are those of production, composed as production composes them; what an engine, a kernel and a
//! network do to them is simulated, faults included. A plain model keeps what clients sent, got and were told
//! beside it, and fails a run in which a promise of docs/PROTOCOL.md is not kept. A seed determines a run:
//! its cluster, its clients, its faults, and every delay; the hash of two runs of one seed is the same.
//!
//! Where to look: `world` is time and what happens when; `turns`, `wires` and `acts` are what engines, the
//! network and faults do; `clients` is what clients do, `layers` how they connect; `flights` checks what
//! gateways write to clients, `model` what can be checked at once, `judge` what must hold at the end. A
//! promise that cannot be kept in some fault stands there as an exception, with its reason.
//!
//! Deliberately not here: engines, sockets, clocks, threads.

mod acts;
mod asks;
mod bridges;
mod client;
mod clients;
mod flights;
mod host;
mod judge;
mod layers;
mod lives;
mod model;
mod network;
mod notes;
mod outages;
mod plan;
mod recovery;
mod scenarios;
mod stamps;
mod tap;
mod trace;
mod turns;
mod wires;
mod world;

pub use plan::{Cost, Fault, Plan};
pub use scenarios::{SCENARIOS, Scenario};
pub use world::{Failure, Report};

/// Runs a plan to its end. If somebody reads lines, every event is one; that changes nothing in the run.
pub fn run(plan: &Plan, lines: Option<fn(&str)>) -> Result<Report, Failure> {
    let _seed = SaysSeed(plan.seed);
    world::World::new(plan.clone(), lines).run()
}

/// Names the seed when a core panics.
struct SaysSeed(u64);

impl Drop for SaysSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("that was seed {}", self.0);
        }
    }
}
