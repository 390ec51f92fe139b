//! What waits for a connection: a reliable message with its ack, and lossy ones for readers that stopped.
#![allow(missing_docs, reason = "criterion_group! makes an undocumented function")]

mod harness;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use harness::Core;

const SESSIONS: u32 = 10_000;
/// Messages of one burst, within the ack window.
const BURST: u32 = 16;

fn reliable(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("outbox/reliable");
    let mut core = Core::new(SESSIONS);
    let mut next = 0;
    group.bench_function("delivered, acked", |bencher| {
        bencher.iter(|| {
            next = (next + 1) % SESSIONS;
            let id = core.deliver(next);
            assert!(core.turn() >= 200, "the message is written");
            core.ack(next, id);
            black_box(core.turn());
        });
    });
    group.throughput(Throughput::Elements(u64::from(BURST)));
    group.bench_function("16 in one write, acked one by one", |bencher| {
        let mut ids = Vec::new();
        bencher.iter(|| {
            next = (next + 1) % SESSIONS;
            ids.extend((0..BURST).map(|_| core.deliver(next)));
            assert!(core.turn() >= 200 * BURST as usize, "all are written");
            ids.drain(..).for_each(|id| core.ack(next, id));
            black_box(core.turn());
        });
    });
    group.finish();
}

/// The readers' lossy lanes are full: each message drops the oldest.
fn stopped_readers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("outbox/lossy");
    let members = 1_000;
    group.throughput(Throughput::Elements(u64::from(members)));
    let mut core = Core::new(members);
    core.stopped = members;
    for _ in 0..2_000 {
        core.broadcast();
        core.turn();
    }
    group.bench_function("1000 stopped readers", |bencher| {
        bencher.iter(|| {
            core.broadcast();
            black_box(core.turn());
        });
    });
    group.finish();
}

criterion_group!(benches, reliable, stopped_readers);
criterion_main!(benches);
