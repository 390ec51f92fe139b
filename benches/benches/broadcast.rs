//! What a room message costs the core for each member, the kernel left out.
#![allow(missing_docs, reason = "criterion_group! makes an undocumented function")]

mod harness;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use harness::Core;

fn broadcast(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("broadcast");
    for members in [100, 5_000, 50_000] {
        group.throughput(Throughput::Elements(u64::from(members)));
        let mut core = Core::new(members);
        group.bench_function(format!("{members} members"), |bencher| {
            bencher.iter(|| {
                core.broadcast();
                let written = core.turn();
                assert!(written >= 200 * members as usize, "every member gets the message");
            });
        });
    }
    let members = 5_000;
    group.throughput(Throughput::Elements(u64::from(4 * members)));
    let mut core = Core::new(members);
    group.bench_function("5000 members, 4 messages a turn", |bencher| {
        bencher.iter(|| {
            (0..4).for_each(|_| core.broadcast());
            let written = core.turn();
            assert!(written >= 4 * 200 * members as usize, "every member gets each message");
        });
    });
    group.finish();
}

criterion_group!(benches, broadcast);
criterion_main!(benches);
