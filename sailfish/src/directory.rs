//! The directory: who is connected where, and which nodes live, written through to Redis for programs that do
//! not have it in memory.
//!
//! It never delays a message. A shard pushes records into a bounded queue and goes on; one thread, the
//! sidecar, carries them to Redis in batches. If Redis is slow, frozen or dead, only its data gets old.
//! Records that found no room in the queue are counted, and written again after [`News::Resync`].

mod keys;
mod leases;
mod link;
mod reader;
mod sentinels;
mod sidecar;
mod streams;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use anyhow::Context;
use crossbeam_queue::ArrayQueue;
use serde::{Deserialize, Serialize};
use shard::ShardId;
use tracing::warn;
use wire::node::{Entry, Stream};
use wire::{AppId, DeviceClass, RoomId, UserId};

use crate::config::{DirectoryConfig, StreamBounds};
use crate::role::Role;
use sidecar::Sidecar;

pub use reader::Reader;

/// Bytes of payloads that may wait.
const QUEUE_BYTES_MAX: u64 = 64 << 20;

/// Where one session of a user is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The user's app.
    pub app: AppId,
    /// The user.
    pub user: UserId,
    /// On which class of device.
    pub device: DeviceClass,
    /// The gateway's shard that has the session.
    pub shard: ShardId,
    /// When the gateway's process started, in nanoseconds.
    pub incarnation: u64,
    /// The session, as that shard names it.
    pub session: u64,
    /// The login's stamp; a higher one is newer.
    pub login: u64,
}

/// A record of a shard for the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Keep this binding, unless a newer login is there.
    Bind(Binding),
    /// Remove the binding, unless it is of a newer login.
    Unbind {
        /// The user's app.
        app: AppId,
        /// The user.
        user: UserId,
        /// On which class of device.
        device: DeviceClass,
        /// The stamp of the login that ended.
        login: u64,
    },
    /// Wants [`News::Found`]. There is no answer while Redis does not answer: the asker needs a timeout of
    /// its own.
    LookUp {
        /// Who asks.
        from: ShardId,
        /// The user's app.
        app: AppId,
        /// The user.
        user: UserId,
    },
    /// Adds an entry to the stream of a room. The answer is [`News::StreamIsAhead`] if the stream has a
    /// higher sequence and [`Entry::goes_on`].
    Keep {
        /// Who writes.
        from: ShardId,
        /// The room's app.
        app: AppId,
        /// The room.
        room: RoomId,
        /// The entry.
        entry: Box<Entry>,
    },
    /// Wants [`News::Stream`], as [`Record::LookUp`] does its answer.
    Read {
        /// Who asks; [`ShardId::CONTROL`] for an operator ([`Reader`]).
        from: ShardId,
        /// The room's app.
        app: AppId,
        /// The room.
        room: RoomId,
    },
}

impl Record {
    /// The bytes of its payload.
    fn bytes(&self) -> u64 {
        let Self::Keep { entry, .. } = self else { return 0 };
        let Entry::Message(message) = &**entry else { return 0 };
        message.payload.len() as u64
    }
}

/// An event of the directory for the shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Answers [`Record::LookUp`].
    Found {
        /// Who asked.
        to: ShardId,
        /// The user's app.
        app: AppId,
        /// The user.
        user: UserId,
        /// The bindings whose node lives; empty if no session is known.
        bindings: Vec<Binding>,
    },
    /// Answers [`Record::Read`].
    Stream {
        /// Who asked.
        to: ShardId,
        /// The room's stream; empty if nobody wrote to it.
        stream: Stream,
    },
    /// Refuses an entry of [`Record::Keep`]; of several refused entries of a room, the first.
    StreamIsAhead {
        /// Who wrote it.
        to: ShardId,
        /// The room's app.
        app: AppId,
        /// The room.
        room: RoomId,
        /// The sequence of that entry.
        refused: u64,
    },
    /// The living routers, by id, whenever that list has changed.
    Routers(Vec<RouterAddress>),
    /// Records were lost, or Redis lost its data: each router shard writes all its bindings again, and starts
    /// new streams for its rooms.
    Resync,
}

/// Where a router takes links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterAddress {
    /// The node.
    pub id: u16,
    /// When its process started.
    pub incarnation: u64,
    /// How many shards it has.
    pub shards: u16,
    /// Where shard 0 takes links; shard i at port + i.
    pub links: SocketAddr,
}

/// A node's description of itself; the text of its lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Unique among the living nodes.
    pub id: u16,
    /// When the process started, in nanoseconds.
    pub incarnation: u64,
    /// Its role.
    pub role: Role,
    /// How many shards it has.
    pub shards: u16,
    /// Of a router: where shard 0 takes links; shard i at port + i.
    pub links: Option<SocketAddr>,
    /// Where clients connect.
    pub clients: Option<SocketAddr>,
    /// Where its admin port is.
    pub admin: SocketAddr,
}

/// The sidecar at work.
pub struct Directory {
    shared: Arc<Shared>,
    ended: mpsc::Receiver<()>,
    /// The longest that [`Directory::stop`] waits.
    stop_time: Duration,
}

impl Directory {
    /// Starts the sidecar. An unreachable Redis is no error: the sidecar tries for ever. `news` is called on
    /// the sidecar's thread, and delays it.
    pub fn start(
        config: &DirectoryConfig,
        streams: StreamBounds,
        node: NodeInfo,
        news: impl Fn(News) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::new(config.queue_max as usize));
        let sidecar = Sidecar::new(config, streams, node, shared.clone(), news)?;
        let (done, ended) = mpsc::channel();
        let thread = thread::Builder::new().name("directory".into()).spawn(move || {
            sidecar.run();
            let _ = done.send(()); // whoever stopped it may have stopped waiting
        });
        let thread = thread.context("cannot start the directory's thread")?.thread().clone();
        shared.thread.set(thread).expect("it is set here only");
        // A connect, the batch in hand and the farewell, each bounded by the time-out.
        let stop_time = 4 * Duration::from_millis(config.timeout_ms.into());
        Ok(Self { shared, ended, stop_time })
    }

    /// A queue's end for one shard.
    pub fn writer(&self) -> Writer {
        Writer(self.shared.clone())
    }

    /// What the directory counts.
    pub fn stats(&self) -> Arc<Stats> {
        self.shared.stats.clone()
    }

    /// Writes queued records, gives the own lease back and ends, as far as Redis answers within a few
    /// timeouts.
    pub fn stop(self) {
        self.shared.stop();
        if self.ended.recv_timeout(self.stop_time).is_err() {
            warn!("the directory did not stop in time; the process ends without it");
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// Where shards put records. Never blocks.
#[derive(Clone)]
pub struct Writer(Arc<Shared>);

impl Writer {
    /// Queues a record. If the queue is full the record is dropped and counted, and a resync follows once
    /// Redis has caught up.
    pub fn push(&self, record: Record) {
        let is_write = !matches!(record, Record::LookUp { .. } | Record::Read { .. });
        if self.0.stats.queue(record) {
            self.0.wake();
        } else {
            self.0.stats.dropped.add(1);
            self.0.lost.fetch_or(is_write, Ordering::Release);
        }
    }
}

/// A number that any thread may add to.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// The value, as it was a moment ago.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// The counters of the directory, since the start. Commands are counted as they are sent, repeats too.
pub struct Stats {
    /// Commands that write a binding, one for each.
    pub binds: Count,
    /// Commands that remove a binding, one for each.
    pub unbinds: Count,
    /// Commands that look a user up, leases read for it included.
    pub lookups: Count,
    /// Commands about streams of rooms.
    pub streams: Count,
    /// Commands for the own lease and to find the other nodes.
    pub leases: Count,
    /// Batches of records, each one round trip.
    pub batches: Count,
    /// Failed connects, broken connections, and commands that Redis refused.
    pub errors: Count,
    /// Records that found the queue full.
    pub dropped: Count,
    /// 1 while Redis answers.
    pub connected: Count,
    queue: ArrayQueue<Record>,
    /// The bytes of all payloads in the queue.
    bytes: AtomicU64,
}

impl Stats {
    fn new(queue_max: usize) -> Self {
        Self {
            binds: Count::default(),
            unbinds: Count::default(),
            lookups: Count::default(),
            streams: Count::default(),
            leases: Count::default(),
            batches: Count::default(),
            errors: Count::default(),
            dropped: Count::default(),
            connected: Count::default(),
            queue: ArrayQueue::new(queue_max.max(2)),
            bytes: AtomicU64::new(0),
        }
    }

    /// Commands sent, by kind.
    pub fn commands(&self) -> [(&'static str, u64); 5] {
        [
            ("bind", self.binds.get()),
            ("unbind", self.unbinds.get()),
            ("look_up", self.lookups.get()),
            ("stream", self.streams.get()),
            ("lease", self.leases.get()),
        ]
    }

    /// Records that wait.
    pub fn queued(&self) -> u64 {
        self.queue.len() as u64
    }

    /// Queues a record; false if there was no room.
    fn queue(&self, record: Record) -> bool {
        let bytes = record.bytes();
        let fits = bytes == 0 || self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= QUEUE_BYTES_MAX;
        let is_queued = fits && self.queue.push(record).is_ok();
        if !is_queued && bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        is_queued
    }

    fn pop(&self) -> Option<Record> {
        let record = self.queue.pop()?;
        self.bytes.fetch_sub(record.bytes(), Ordering::Relaxed);
        Some(record)
    }
}

/// What the shards' threads and the sidecar share.
struct Shared {
    /// The queue stands in it.
    stats: Arc<Stats>,
    /// Whether a write was dropped since the last resync.
    lost: AtomicBool,
    /// Whether the sidecar waits for records; then a push wakes it.
    asleep: AtomicBool,
    stopping: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Shared {
    fn new(queue_max: usize) -> Self {
        Self {
            stats: Arc::new(Stats::new(queue_max)),
            lost: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            thread: OnceLock::new(),
        }
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Wakes the sidecar if it waits for records; otherwise it costs no system call.
    fn wake(&self) {
        fence(Ordering::SeqCst); // the push before the look at `asleep`; `wait` has the counterpart
        if self.asleep.load(Ordering::Relaxed)
            && self.asleep.swap(false, Ordering::Relaxed)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Sleeps until there is a record, a stop or that time.
    fn wait(&self, until: Instant) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.stats.queue.is_empty() {
            self.park(until);
        }
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Sleeps until that time or a stop, records or not; may return early.
    fn park(&self, until: Instant) {
        let time = until.saturating_duration_since(Instant::now());
        if !self.stopping.load(Ordering::Acquire) && !time.is_zero() {
            thread::park_timeout(time);
        }
    }
}
