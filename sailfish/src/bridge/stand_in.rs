//! Stands in for the crate `biz-bridge` with the part of its interface that is used here, until that is merged: it takes
//! everything and passes nothing on.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use wire::client::FailReason;
use wire::node::{Class, Taken, ToBridge};
use wire::{AppId, BizCode, ClientMsgId, RoomId, UserId};

/// Everything that is to be configured.
#[expect(dead_code, reason = "read by what it stands in for")]
pub struct Config {
    pub mode: Mode,
    pub lanes: usize,
    pub batch_max: usize,
    pub timeout: Duration,
    pub retry_first: Duration,
    pub retry_max: Duration,
    pub breaker_failures: u32,
    pub breaker_pause: Duration,
    pub tries_max: u32,
    pub reclaim: Duration,
    pub consumer: String,
}

/// Where events go.
#[expect(dead_code, reason = "read by what it stands in for")]
pub enum Mode {
    Http { url: String, secret: Vec<u8> },
    Redis { url: String, prefix: String },
}

impl Config {
    /// The defaults.
    pub fn new(mode: Mode, consumer: String) -> Self {
        Self {
            mode,
            lanes: 8,
            batch_max: 256,
            timeout: Duration::from_secs(5),
            retry_first: Duration::from_millis(100),
            retry_max: Duration::from_secs(10),
            breaker_failures: 5,
            breaker_pause: Duration::from_secs(2),
            tries_max: 10,
            reclaim: Duration::from_secs(60),
            consumer,
        }
    }
}

/// A message that the backend wants sent.
pub struct Push {
    pub app: AppId,
    pub target: PushTarget,
    pub biz_code: BizCode,
    pub class: Class,
    pub client_msg_id: ClientMsgId,
    pub sender: UserId,
    pub payload: Bytes,
}

/// To whom a push goes.
#[expect(dead_code, reason = "made by what it stands in for")]
pub enum PushTarget {
    User(UserId),
    Room(RoomId),
    All,
}

/// What became of a push.
#[expect(dead_code, reason = "read by what it stands in for")]
pub enum Pushed {
    Delivered,
    Sequenced,
    Sent,
    Failed(FailReason),
    Pending,
    Unavailable,
    Refused(String),
}

/// Who sends pushes.
pub trait Pushes: Send + Sync + 'static {
    /// Sends pushes and answers what became of each, in their order.
    #[expect(dead_code, reason = "called by what it stands in for")]
    fn push(&self, pushes: Vec<Push>) -> impl Future<Output = Vec<Pushed>> + Send;
}

/// An event as its shard hands it over.
pub struct Item {
    /// Which shard.
    pub shard: u32,
    /// Which life of the shard's process.
    pub incarnation: u64,
    /// Counted by the shard, from 1.
    pub seq: u64,
    /// What happened.
    pub event: ToBridge,
}

/// The shards that hand events over, as the bridge sees them.
pub trait Shards: Send + Sync + 'static {
    /// These events of that life of the shard are done, in any order. Called on the bridge's thread, which waits.
    fn taken(&self, shard: u32, incarnation: u64, results: Vec<(u64, Taken)>);
}

/// Where events go in.
#[derive(Clone)]
pub struct Inbox(Sender<Item>);

impl Inbox {
    /// Takes an event in; never blocks.
    pub fn push(&self, item: Item) {
        tracing::trace!(event = ?item.event, "for the backend");
        let _ = self.0.send(item);
    }
}

/// A bridge at work, on a thread of its own.
pub struct Bridge {
    inbox: Inbox,
    thread: JoinHandle<()>,
}

impl Bridge {
    /// Starts it.
    pub fn start(_config: Config, shards: Arc<dyn Shards>, _pushes: impl Pushes) -> io::Result<Self> {
        let (sender, items) = channel();
        let run = move || take(&items, &*shards);
        let thread = std::thread::Builder::new().name("bridge".into()).spawn(run)?;
        Ok(Self { inbox: Inbox(sender), thread })
    }

    /// Where events go in.
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// Ends it. How many events are left: their shards keep them.
    pub fn stop(self, _deadline: Duration) -> u64 {
        drop(self.thread); // it ends with the last inbox
        0
    }
}

fn take(items: &Receiver<Item>, shards: &dyn Shards) {
    while let Ok(Item { shard, incarnation, seq, event: _ }) = items.recv() {
        shards.taken(shard, incarnation, vec![(seq, Taken::Ok)]);
    }
}
