//! What a timer costs while a million others are pending: ns for one arm and one cancel, as a line of JSON.
#![allow(clippy::disallowed_methods, reason = "what measures time reads the clock")]
#![allow(unsafe_code, reason = "a global allocator that counts is unsafe by its trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as Clock};

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
    /// Calls of the allocator during both.
    allocations: u64,
}

fn main() -> Result<(), serde_json::Error> {
    let start = Instant::from_unix_nanos(1_700_000_000_000_000_000);
    let mut prng = Prng::new(1);
    let mut wheel = Wheel::new(start);
    let mut pending: Vec<TimerId> =
        (0..PENDING).map(|at| wheel.arm(start + spread(&mut prng), at as u64)).collect();
    // Warm-up: the list of free nodes has seen the most timers that there will be.
    let extra: Vec<TimerId> = (0..=IN_FLIGHT).map(|_| wheel.arm(start, 0)).collect();
    extra.into_iter().for_each(|timer| assert!(wheel.cancel(timer).is_some()));
    let mut in_flight = VecDeque::with_capacity(IN_FLIGHT + 1);

    let allocations = ALLOCATIONS.load(Ordering::Relaxed);
    let arm_cancel_ns = per_pair(|at| {
        let now = start + Duration::from_nanos(at as u64 * PAIR_NS);
        in_flight.push_back(wheel.arm(now + spread(&mut prng), at as u64));
        if in_flight.len() > IN_FLIGHT {
            let oldest = in_flight.pop_front().expect("it has just been filled");
            black_box(wheel.cancel(oldest));
        }
    });
    in_flight.drain(..).for_each(|timer| assert!(wheel.cancel(timer).is_some()));
    let arm_cancel_random_ns = per_pair(|at| {
        let chosen = (prng.next_u64() % PENDING as u64) as usize;
        let armed = wheel.arm(start + spread(&mut prng), at as u64);
        let cancelled = std::mem::replace(&mut pending[chosen], armed);
        black_box(wheel.cancel(cancelled));
    });
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - allocations;
    assert_eq!(wheel.len(), PENDING, "every arm had its cancel");
    println!("{}", serde_json::to_string(&Report { arm_cancel_ns, arm_cancel_random_ns, allocations })?);
    Ok(())
}

fn spread(prng: &mut Prng) -> Duration {
    Duration::from_nanos(prng.next_u64() % SPREAD_NS)
}

fn per_pair(mut pair: impl FnMut(usize)) -> f64 {
    let start = Clock::now();
    (0..PAIRS).for_each(&mut pair);
    start.elapsed().as_nanos() as f64 / PAIRS as f64
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

// SAFETY: every call goes on to the system's allocator with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and `memory` came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}
