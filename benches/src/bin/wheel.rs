//! What a timer costs while a million others are pending: ns for one arm and one cancel, as a line of JSON.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use shard::{Instant, Prng, TimerId, Wheel};

const PENDING: usize = 1_000_000;
/// Deadlines are spread over this, as idle and ack timers are.
const SPREAD_NS: u64 = 60_000_000_000;
/// Timers armed and not yet cancelled in the first figure: messages that wait for their acks.
const IN_FLIGHT: usize = 1_000;
const PAIRS: usize = 4_000_000;
/// Simulated time moves on by this for each pair.
const PAIR_NS: u64 = 100;

#[derive(Serialize)]
struct Report {
    /// Each timer is cancelled when `IN_FLIGHT` younger ones are armed, as an ack does it.
    arm_cancel_ns: f64,
    /// Each cancel takes any of the million: a cache miss or more.
    arm_cancel_random_ns: f64,
}

fn main() -> anyhow::Result<()> {
    let start = Instant::from_unix_nanos(1_700_000_000_000_000_000);
    let mut prng = Prng::new(1);
    let mut wheel = Wheel::new(start);
    let mut pending: Vec<TimerId> =
        (0..PENDING).map(|at| wheel.arm(start + spread(&mut prng), at as u64)).collect();
    // Warm-up: the list of free nodes has seen the most timers that there will be.
    let extra: Vec<TimerId> = (0..=IN_FLIGHT).map(|_| wheel.arm(start, 0)).collect();
    extra.into_iter().for_each(|timer| assert!(wheel.cancel(timer).is_some()));
    let mut in_flight = VecDeque::with_capacity(IN_FLIGHT + 1);

    let arm_cancel_ns = per_pair(|at| {
        let now = start + Duration::from_nanos(at as u64 * PAIR_NS);
        in_flight.push_back(wheel.arm(now + spread(&mut prng), at as u64));
        if in_flight.len() > IN_FLIGHT {
            let oldest = in_flight.pop_front().expect("it has just been filled");
            black_box(wheel.cancel(oldest));
        }
    })?;
    in_flight.drain(..).for_each(|timer| assert!(wheel.cancel(timer).is_some()));
    let arm_cancel_random_ns = per_pair(|at| {
        let chosen = (prng.next_u64() % PENDING as u64) as usize;
        let armed = wheel.arm(start + spread(&mut prng), at as u64);
        let cancelled = std::mem::replace(&mut pending[chosen], armed);
        black_box(wheel.cancel(cancelled));
    })?;
    assert_eq!(wheel.len(), PENDING, "every arm had its cancel");
    println!("{}", serde_json::to_string(&Report { arm_cancel_ns, arm_cancel_random_ns })?);
    Ok(())
}

fn spread(prng: &mut Prng) -> Duration {
    Duration::from_nanos(prng.next_u64() % SPREAD_NS)
}

/// CPU time of one call, in ns: on a shared machine the clock on the wall counts the others' work too.
fn per_pair(mut pair: impl FnMut(usize)) -> anyhow::Result<f64> {
    let start = cpu_ns()?;
    (0..PAIRS).for_each(&mut pair);
    Ok((cpu_ns()? - start) as f64 / PAIRS as f64)
}

/// What this thread has run so far: the first field of `schedstat`.
fn cpu_ns() -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(stat.split_whitespace().next().context("schedstat is empty")?.parse()?)
}
