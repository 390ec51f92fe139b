//! The bridge: carries events of gateway and router shards to a backend, and pushes of the backend from
//! Redis.
//!
//! Events come in by [`Inbox::push`], go out by HTTP or into Redis Streams, and are reported as taken by
//! [`Shards::taken`] once the backend has answered or Redis has stored them. docs/BACKEND.md is the contract
//! with the backend.
//!
//! - Events of one user go one way, a lane, which has one batch under way: so they stay in order. Only an
//!   answer ends an event; until then it is sent again under the same id.
//! - The windows of the shards bound what waits here: a shard keeps every event until it is taken. So the
//!   bridge stores nothing, and its death loses nothing.
//!
//! Deliberately absent: business rules; links and what is on them (the binary hands events in and takes
//! results out); the HTTP API by which a backend pushes (the control API of the binary).
#![allow(
    clippy::disallowed_methods,
    reason = "it waits on real servers, so it reads the clock and has a thread"
)]

mod backoff;
mod breaker;
mod config;
mod event;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod http;
mod lanes;
mod metrics;
mod push_stream;
mod queue;
mod redis;
mod signature;
mod spans;
mod timing;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use logs::{error, warn};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use traces::Traces;
use wire::node::{Taken, ToBridge};

use crate::breaker::Breaker;
use crate::event::lane_of;
use crate::http::Http;
use crate::lanes::{Lane, Sink};
use crate::push_stream::PushStream;
use crate::redis::Stream;

pub use crate::config::{Config, ConfigError, Mode, check_redis, check_url};
pub use crate::event::EventKind;
pub use crate::metrics::{BreakerState, Counter, Metrics, PushOutcome};
pub use crate::push_stream::{Push, PushTarget, Pushed, Pushes};
pub use crate::signature::sign;

/// An event as its shard hands it over. The first three fields name it: two items with the same ones are the
/// same event.
#[derive(Clone, PartialEq, Eq, Debug)]
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
    /// These events of that life of the shard are done, in any order. Called on the bridge's thread, which
    /// waits.
    fn taken(&self, shard: u32, incarnation: u64, results: Vec<(u64, Taken)>);
}

/// How long spans may take to leave at the end.
const EXPORT_TIME: Duration = Duration::from_millis(500);

/// A bridge at work, on a thread of its own.
pub struct Bridge {
    inbox: Inbox,
    metrics: Arc<Metrics>,
    /// The deadline after which it ends; `None` until it is to stop.
    stop: watch::Sender<Option<Instant>>,
    thread: Option<JoinHandle<()>>,
}

impl Bridge {
    /// Starts the bridge. An unreachable backend or Redis is no error: the bridge tries for ever. `pushes`
    /// serves the push stream, which only Redis has.
    ///
    /// # Errors
    /// `InvalidInput` with a [`ConfigError`] for a wrong configuration, else what kept the thread from
    /// starting.
    pub fn start(config: Config, shards: Arc<dyn Shards>, pushes: impl Pushes) -> io::Result<Self> {
        let wrong = |error: ConfigError| io::Error::new(io::ErrorKind::InvalidInput, error);
        let no_roots = |wants| wrong(ConfigError { key: "trace.otlp_url", wants });
        config.check().map_err(wrong)?;
        let to = To::new(&config).map_err(wrong)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (traces, exporter) = {
            let _runtime = runtime.enter();
            Traces::start(&config.trace).map_err(no_roots)?
        };
        let metrics = Arc::new(Metrics::with(traces));
        let (stop, stopped) = watch::channel(None);
        let (lanes, mailboxes): (Vec<_>, Vec<_>) =
            (0..config.lanes).map(|_| mpsc::unbounded_channel()).unzip();
        let inbox = Inbox { lanes: lanes.into(), metrics: metrics.clone() };
        let work = Work { config, to, shards, metrics: metrics.clone(), stopped };
        let thread = thread::Builder::new().name("bridge".into()).spawn(move || {
            runtime.block_on(async {
                work.run(mailboxes, pushes).await;
                if let Some(exporter) = exporter {
                    exporter.finish(EXPORT_TIME).await;
                }
            });
            runtime.shutdown_background(); // a name look-up may hang
        })?;
        Ok(Self { inbox, metrics, stop, thread: Some(thread) })
    }

    /// Where events go in.
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// What it counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Whether it works. A bridge that has ended before it was stopped is broken.
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// From here on it takes nothing more in, sends what waits, for `deadline` at most, and ends: see
    /// [`Bridge::is_alive`].
    pub fn finish(&self, deadline: Duration) {
        let _ = self.stop.send(Some(Instant::now() + deadline)); // the thread may have ended
    }

    /// [`Bridge::finish`], then waits for the end. A later deadline replaces an earlier one. Returns how many
    /// events are left: their shards keep them, and those that are pushed from here on.
    pub fn stop(mut self, deadline: Duration) -> u64 {
        self.finish(deadline);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the bridge's thread panicked");
        }
        self.metrics.waiting.get()
    }
}

/// Where events go in; any number of clones on any thread.
#[derive(Clone)]
pub struct Inbox {
    lanes: Arc<[mpsc::UnboundedSender<Item>]>,
    metrics: Arc<Metrics>,
}

impl Inbox {
    /// Takes an event in. Never blocks: the shards bound the events that they hand over without an answer. An
    /// event that waits here already is the same event.
    pub fn push(&self, item: Item) {
        let (app, user) = event::whose(&item.event);
        let lane = lane_of(app, user, self.lanes.len());
        self.metrics.waiting.add(1);
        if self.lanes[lane].send(item).is_err() {
            self.metrics.waiting.take(1); // the bridge ends, and the shard keeps it
        }
    }
}

/// What runs on the bridge's thread.
struct Work {
    config: Config,
    to: To,
    shards: Arc<dyn Shards>,
    metrics: Arc<Metrics>,
    stopped: watch::Receiver<Option<Instant>>,
}

/// Where events go.
enum To {
    Http(Http),
    /// A server, and what the names of its streams begin with.
    Redis(::redis::Client, String),
}

impl To {
    fn new(config: &Config) -> Result<Self, ConfigError> {
        match &config.mode {
            Mode::Http { url, secret } => Http::new(url, secret, config)
                .map(Self::Http)
                .map_err(|wants| ConfigError { key: "bridge.url", wants }),
            Mode::Redis { url, prefix } => redis::client(url, &config.roots)
                .map(|client| Self::Redis(client, prefix.clone()))
                .map_err(|error| ConfigError { key: "bridge.redis", wants: error.to_string() }),
        }
    }
}

impl Work {
    async fn run(mut self, mailboxes: Vec<mpsc::UnboundedReceiver<Item>>, pushes: impl Pushes) {
        let mut tasks = JoinSet::new();
        let breaker = Arc::new(Breaker::new(&self.config, self.metrics.clone()));
        for (number, mailbox) in mailboxes.into_iter().enumerate() {
            let sink = match &self.to {
                To::Http(http) => Sink::Http(http.clone()),
                To::Redis(client, prefix) => {
                    let key = format!("{prefix}:events:{number}");
                    Sink::Redis(Stream::new(client.clone(), &key, self.config.timeout))
                }
            };
            let (shards, metrics, stopped) =
                (self.shards.clone(), self.metrics.clone(), self.stopped.clone());
            let lane = Lane::new(&self.config, number, mailbox, sink, breaker.clone(), shards, metrics);
            tasks.spawn(lane.run(stopped));
        }
        if let To::Redis(client, prefix) = &self.to {
            let (client, pushes) = (client.clone(), Arc::new(pushes));
            let stream = PushStream::new(&self.config, client, prefix, pushes, self.metrics.clone());
            tasks.spawn(stream.run(self.stopped.clone()));
        }
        let ended = tokio::select! {
            biased; // a lane that ends because of the stop has not ended by itself
            _ = self.stopped.wait_for(Option::is_some) => None, // an error means that the bridge is dropped
            ended = tasks.join_next() => ended,
        };
        // The stop is set before it is announced: a lane may have seen it, and ended, before this task has.
        if ended.is_some() && self.stopped.borrow().is_none() {
            // A missing lane would hold up its users until somebody notices.
            error!(?ended, "a task of the bridge ended unexpectedly; the bridge stops");
            return;
        }
        tokio::select! {
            biased; // what has been sent in time was not late
            () = async { while tasks.join_next().await.is_some() {} } => {}
            () = end(self.stopped) => {
                let waiting = self.metrics.waiting.get();
                if waiting > 0 {
                    warn!(waiting, "the bridge stops before the backend has accepted everything");
                }
            }
        }
    }
}

/// Waits for the deadline, the last one that was set.
async fn end(mut stopped: watch::Receiver<Option<Instant>>) {
    loop {
        let deadline = stopped.borrow_and_update().unwrap_or_else(Instant::now);
        tokio::select! {
            biased; // a later deadline counts, though the earlier one has come
            changed = stopped.changed() => if changed.is_err() { return }, // the bridge is dropped
            () = tokio::time::sleep_until(deadline.into()) => return,
        }
    }
}
