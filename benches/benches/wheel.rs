//! What a timer costs while a million others are pending.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use shard::{Instant, Prng, TimerId, Wheel};

const PENDING: usize = 1_000_000;
/// Deadlines lie up to this far ahead, as those of idle and ack timers do.
const SPREAD_NANOS: u64 = 60_000_000_000;
const START: Instant = Instant::from_unix_nanos(1_700_000_000_000_000_000);
/// Timers armed and not yet cancelled in the ack pattern: messages that wait for their acks.
const IN_FLIGHT: usize = 1_000;

struct Pending {
    prng: Prng,
    wheel: Wheel<u64>,
    timers: Vec<TimerId>,
}

impl Pending {
    fn new(count: usize) -> Self {
        let mut pending = Self { prng: Prng::new(1), wheel: Wheel::new(START), timers: Vec::new() };
        pending.timers = (0..count).map(|value| pending.arm(value as u64)).collect();
        pending
    }

    fn arm(&mut self, value: u64) -> TimerId {
        let span = Duration::from_nanos(self.prng.below(SPREAD_NANOS));
        self.wheel.arm(START + span, value)
    }
}

/// The timer cancelled is the one just armed, an old one as with acks, or any of the million: then each pair
/// costs cache misses.
fn arm_and_cancel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel/arm + cancel, a million pending");
    let mut pending = Pending::new(PENDING);
    group.bench_function("the last", |bencher| {
        bencher.iter(|| {
            let timer = pending.arm(1);
            pending.wheel.cancel(black_box(timer))
        });
    });
    let mut in_flight: Vec<TimerId> = (0..IN_FLIGHT).map(|_| pending.arm(1)).collect();
    let mut oldest = 0;
    group.bench_function("a thousand ago", |bencher| {
        bencher.iter(|| {
            oldest = (oldest + 1) % IN_FLIGHT;
            let timer = pending.arm(1);
            pending.wheel.cancel(std::mem::replace(&mut in_flight[oldest], timer))
        });
    });
    group.bench_function("any", |bencher| {
        bencher.iter(|| {
            let any = pending.prng.below(PENDING as u64) as usize;
            let timer = pending.arm(1);
            pending.wheel.cancel(std::mem::replace(&mut pending.timers[any], timer))
        });
    });
}

/// A million timers over a minute, polled each millisecond: cascades and `next_deadline` are in the cost of
/// one.
fn expire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel/expire");
    group.sample_size(10).throughput(Throughput::Elements(PENDING as u64));
    group.bench_function("a million in a minute", |bencher| {
        bencher.iter_batched(
            || Pending::new(PENDING),
            |mut pending| {
                let mut now = START;
                while black_box(pending.wheel.next_deadline()).is_some() {
                    now += Duration::from_millis(1);
                    while let Some(value) = pending.wheel.pop_expired(now) {
                        black_box(value);
                    }
                }
                pending
            },
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(benches, arm_and_cancel, expire);
criterion_main!(benches);
