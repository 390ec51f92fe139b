//! What a router does for one message while it holds a million users.
#![allow(missing_docs, reason = "criterion_group! makes an undocumented function")]

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use router::{Config, Effect, Keeps, Limits, Router};
use shard::{Instant, Prng, ShardId};
use wire::client::Outcome;
use wire::node::{Class, DeliveryId, Login, Owners, SessionId, Submission, Target, ToGateway, ToRouter};
use wire::{AppId, BizCode, ClientMsgId, DeviceClass, MessageId, RoomId, UserId};

const USERS: u64 = 1_000_000;
const APP: AppId = AppId(1);
/// Of the one node.
const SHARDS: u16 = 4;
const ROOM: RoomId = RoomId(7);
const SENDER: UserId = UserId(-1);
const START: Instant = Instant::from_unix_nanos(1_767_225_600_000_000_000);

struct Bench {
    router: Router,
    prng: Prng,
    now: Instant,
    payload: Bytes,
    last_id: MessageId,
}

impl Bench {
    fn new() -> Self {
        let mut router = Router::new(Config {
            id: ShardId::new(0, 0),
            seed: 1,
            limits: Limits::default(),
            keeps: Keeps::default(),
        });
        for shard in 0..SHARDS {
            router.gateway_up(START, ShardId::new(0, shard), SHARDS, true, 1);
        }
        let payload = Bytes::from(vec![b'x'; 200]);
        let mut bench = Self { router, prng: Prng::new(1), now: START, payload, last_id: MessageId(0) };
        for user in 0..USERS {
            let session = SessionId(user);
            let (user, device) = (UserId(user as i64), DeviceClass::Phone);
            let login = Login(user.0 as u64);
            bench.tell(0, ToRouter::Bind { app: APP, user, device, session, login, fresh: true });
        }
        for shard in 0..SHARDS {
            bench.tell(shard, ToRouter::Join { app: APP, room: ROOM, sequence: 0 });
        }
        bench
    }

    /// Hands over one message and takes what the router says; the last delivery in it, if any.
    fn tell(&mut self, from: u16, mail: ToRouter) -> Option<DeliveryId> {
        self.now += Duration::from_micros(10);
        self.router.mail(self.now, ShardId::new(0, from), mail);
        let mut last = None;
        while let Some(effect) = self.router.poll_effect() {
            if let Effect::ToGateway { mail: ToGateway::Deliver { delivery, .. }, .. } = &effect {
                last = *delivery;
            }
            black_box(effect);
        }
        last
    }

    fn submit(&mut self, target: Target, class: Class) -> Option<DeliveryId> {
        let name = Bytes::copy_from_slice(&self.prng.next_u64().to_le_bytes().map(|byte| byte & 0x7f));
        self.last_id.0 += 1;
        let submission = Submission {
            id: self.last_id,
            app: APP,
            sender: SENDER,
            target,
            biz_code: BizCode(6001),
            class,
            client_msg_id: ClientMsgId::new(name),
            payload: self.payload.clone(),
            again: false,
            stored: false,
            device: None,
            concluded: None,
        };
        self.tell(0, ToRouter::Submit { session: SessionId(1), submission })
    }
}

/// A router of 320 goes and comes back, as one of the others hears it from 1,280 gateways.
fn reach(criterion: &mut Criterion) {
    let mut router = Router::new(Config {
        id: ShardId::new(1, 0),
        seed: 1,
        limits: Limits::default(),
        keeps: Keeps::default(),
    });
    let routers: Vec<u32> =
        (1..=20).flat_map(|node| (0..16).map(move |at| ShardId::new(node, at).as_u32())).collect();
    let gateways: Vec<ShardId> =
        (100..180).flat_map(|node| (0..16).map(move |at| ShardId::new(node, at))).collect();
    for gateway in &gateways {
        router.gateway_up(START, *gateway, 16, false, 1);
    }
    let mut say = |routers: &[u32]| {
        for gateway in &gateways {
            router.mail(START, *gateway, ToRouter::Reach { routers: routers.to_vec(), clock: Login(0) });
            while let Some(effect) = router.poll_effect() {
                black_box(effect);
            }
        }
    };
    say(&routers);
    let mut group = criterion.benchmark_group("router/1,280 gateways and 320 routers");
    group.sample_size(10);
    group.bench_function("a router goes and comes back", |bencher| {
        bencher.iter(|| {
            say(&routers[..319]);
            say(&routers);
        });
    });
    group.finish();
}

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("router/a million users");
    let mut bench = Bench::new();
    group.bench_function("to a user, settled", |bencher| {
        bencher.iter(|| {
            let user = bench.prng.below(USERS);
            let delivery = bench.submit(Target::User(UserId(user as i64)), Class::Reliable);
            let delivery = delivery.expect("every user is online");
            bench
                .tell(0, ToRouter::Settle { delivery, session: SessionId(user), outcome: Outcome::Delivered })
        });
    });
    group.bench_function("to a room on 4 shards", |bencher| {
        bencher.iter(|| bench.submit(Target::Room(ROOM), Class::Lossy));
    });
    group.bench_function("a session replaced", |bencher| {
        bencher.iter(|| {
            let user = UserId(bench.prng.below(USERS) as i64);
            let session = SessionId(bench.prng.next_u64());
            let (device, login) = (DeviceClass::Phone, Login(bench.now.unix_nanos()));
            bench.tell(0, ToRouter::Bind { app: APP, user, device, session, login, fresh: true })
        });
    });
    group.finish();
}

fn owner(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("router/owner of a user");
    for routers in [1, 2, 4, 8, 16] {
        let (owners, mut user) = (Owners::new((0..routers).collect()), 0);
        group.bench_function(format!("{routers} routers"), |bencher| {
            bencher.iter(|| {
                user += 1;
                owners.of_user(APP, UserId(user))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, messages, owner, reach);
criterion_main!(benches);
