//! The bridge of this process, and the way back from it to the shards whose events it takes.

mod pushes;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use engine::Remote;
use node::{Control, Mail, Origin};
use shard::ShardId;
use wire::node::{Handed, Taken};

use crate::config::{BridgeConfig, BridgeMode};
use crate::control::Shards;
use crate::secret::Secret;
use biz_bridge::{Bridge, Inbox, Item, Metrics, Mode};
use pushes::ByShards;

/// How often a full mailbox is tried again.
const RETRY_TIME: Duration = Duration::from_millis(1);
/// Results that one mail has at most.
const RESULTS_MAX: usize = 1024;

/// The bridge at work, and the way of its results.
pub struct Bridging {
    bridge: Bridge,
    returns: Arc<Returns>,
    pushes: ByShards,
}

/// A shard's access to the bridge of its process.
#[derive(Clone)]
pub struct Door {
    inbox: Inbox,
    returns: Arc<Returns>,
}

/// Returns results of the bridge to the shard that the events came by.
struct Returns {
    /// Set when the shards have started.
    remote: OnceLock<Remote<Mail>>,
    /// The shard of this process by which events of a shard elsewhere came last: it is linked with that one.
    by: Mutex<HashMap<u32, ShardId>>,
    /// From when on a full mailbox is not tried again.
    gives_up: Mutex<Option<Instant>>,
}

impl Bridging {
    /// Starts the bridge of node `node`.
    pub fn start(config: &BridgeConfig, trace: &traces::Config, node: u16) -> anyhow::Result<Self> {
        let returns =
            Arc::new(Returns { remote: OnceLock::new(), by: Mutex::default(), gives_up: Mutex::default() });
        let pushes = ByShards::default();
        let config = biz_bridge::Config { trace: trace.clone(), ..config_of(config, node)? };
        let bridge = Bridge::start(config, returns.clone(), pushes.clone())?;
        Ok(Self { bridge, returns, pushes })
    }

    /// What it counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.bridge.metrics()
    }

    /// Whether it works.
    pub fn is_alive(&self) -> bool {
        self.bridge.is_alive()
    }

    /// The access for a shard.
    pub fn door(&self) -> Door {
        Door { inbox: self.bridge.inbox(), returns: self.returns.clone() }
    }

    /// Call this when the shards have started.
    pub fn set_shards(&self, remote: Remote<Mail>, shards: Arc<Shards>) {
        self.returns.remote.set(remote).ok().expect("it is set here only");
        self.pushes.set(shards);
    }

    /// Lets the bridge send its events, up to `deadline`, and end.
    pub fn finish(&self, deadline: Duration) {
        *self.returns.gives_up() = Some(Instant::now() + deadline);
        self.bridge.finish(deadline);
    }

    /// Ends it, if it has not ended. Returns how many events are left: their shards keep them, but those of
    /// this process are lost.
    pub fn end(self) -> u64 {
        *self.returns.gives_up() = Some(Instant::now());
        self.bridge.stop(Duration::ZERO)
    }
}

fn config_of(config: &BridgeConfig, node: u16) -> anyhow::Result<biz_bridge::Config> {
    let mode = match config.mode {
        BridgeMode::Redis => Mode::Redis { url: config.redis.clone(), prefix: config.prefix.clone() },
        BridgeMode::Http => Mode::Http { url: config.url.clone(), secret: Secret::of_bridge(config)?.bytes },
        BridgeMode::Auto | BridgeMode::Off => unreachable!("who starts a bridge knows where its backend is"),
    };
    let time = |ms: u32| Duration::from_millis(ms.into());
    Ok(biz_bridge::Config {
        lanes: config.lanes as usize,
        batch_max: config.batch_max as usize,
        timeout: time(config.timeout_ms),
        retry_first: time(config.retry_first_ms),
        retry_max: time(config.retry_max_ms),
        breaker_failures: config.breaker_failures,
        breaker_pause: time(config.breaker_pause_ms),
        tries_max: config.tries_max,
        roots: config.roots.clone(),
        ..biz_bridge::Config::new(mode, format!("bridge-{node}"))
    })
}

impl Door {
    /// Hands over an event that came by the shard `by` of this process.
    pub fn hand(&self, by: ShardId, of: Origin, Handed { seq, event }: Handed) {
        let shard = of.shard.as_u32();
        if of.shard != by {
            self.returns.by().insert(shard, by);
        }
        self.inbox.push(Item { shard, incarnation: of.incarnation, seq, event });
    }
}

impl Returns {
    fn by(&self) -> std::sync::MutexGuard<'_, HashMap<u32, ShardId>> {
        self.by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gives_up(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.gives_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A full mailbox belongs to a busy shard, and has room again soon. A result that is not delivered leaves
    /// its event with a linked shard for ever, so this tries until the bridge must end.
    fn send(&self, to: ShardId, mut mail: Mail) {
        loop {
            if let Some(remote) = self.remote.get() {
                match remote.send(to, mail) {
                    Ok(()) => return,
                    Err(refused) => mail = refused,
                }
            }
            if self.gives_up().is_some_and(|from| from <= Instant::now()) {
                return;
            }
            std::thread::sleep(RETRY_TIME);
        }
    }
}

impl biz_bridge::Shards for Returns {
    fn taken(&self, shard: u32, incarnation: u64, results: Vec<(u64, Taken)>) {
        let of = Origin { shard: ShardId::from_u32(shard), incarnation };
        let to = self.by().get(&shard).copied().unwrap_or(of.shard);
        for results in results.chunks(RESULTS_MAX) {
            self.send(to, Mail::Control(Control::Taken { of, results: results.to_vec() }));
        }
    }
}
