//! The gateways' events from Redis Streams, for a bridge with `bridge.mode = "redis"`. docs/BACKEND.md is the
//! contract.
//!
//! There is a stream for each of the bridge's lanes, with the group `backend`. To keep the order of a user's
//! events, a lane has one reader at a time: the process that has its lease. The next one that gets the lease
//! takes over events that were read and not finished. An event that fails again and again while the database
//! answers becomes a dead letter, in the stream `PREFIX:events:dead`.

use std::sync::Arc;
use std::time::Duration;

use logs::{error, warn};
use redis::streams::{StreamAutoClaimReply, StreamId, StreamReadReply};
use redis::{RedisError, Script};
use tokio::task::JoinSet;

use crate::app::App;
use crate::connection::{self, Servers};
use crate::error::Error;
use crate::event::Outcome;
use crate::stop::Stop;
use crate::{intake, random};

/// Reads all lanes, until it is time to end.
pub(crate) async fn run(app: Arc<App>, stop: Stop) {
    let Some(servers) = app.store.redis.clone() else { return };
    let mut lanes = JoinSet::new();
    for number in 0..app.store.config.bridge_streams {
        match Lane::new(&app, &servers, number) {
            Ok(lane) => drop(lanes.spawn(lane.run(app.clone(), stop.clone()))),
            Err(error) => error!(%error, "cannot read event streams"),
        }
    }
    while lanes.join_next().await.is_some() {}
}

/// One stream, and what this process has read of it.
struct Lane {
    /// A connection of its own, since its reads wait.
    redis: connection::Redis,
    stream: String,
    dead: String,
    lease: String,
    /// This process's name in Redis.
    name: String,
    renew: Script,
    /// Whether all pending entries of the group are in `open`.
    has_all: bool,
    open: Vec<Entry>,
}

/// An event that was read and is not finished.
struct Entry {
    id: String,
    text: String,
    /// Failures while the database answered.
    failures: u32,
    /// Whether it is being decided.
    is_waiting: bool,
}

impl Lane {
    fn new(app: &App, servers: &Servers, number: u32) -> Result<Self, Error> {
        let stream = format!("{}:events:{number}", app.store.config.prefix);
        Ok(Self {
            redis: servers.shared(COMMAND_TIME)?,
            dead: format!("{}:events:dead", app.store.config.prefix),
            lease: format!("{stream}:reader"),
            stream,
            name: random::hex::<8>(),
            renew: Script::new(
                "local reader = redis.call('GET', KEYS[1])
                 if reader and reader ~= ARGV[1] then return 0 end
                 redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
                 return reader and 1 or 2",
            ),
            has_all: false,
            open: Vec::new(),
        })
    }

    async fn run(mut self, app: Arc<App>, mut stop: Stop) {
        let mut failures = 0;
        while !stop.is_due() {
            let pause = match self.turn(&app).await {
                Ok(true) => {
                    failures = 0;
                    continue;
                }
                Ok(false) => {
                    failures += 1;
                    Duration::from_millis((100_u64 << failures.min(6)).min(PAUSE_MS_MAX))
                }
                Err(error) => {
                    warn!(%error, stream = self.stream, "cannot read or empty an event stream");
                    self.has_all = false;
                    Duration::from_secs(1)
                }
            };
            tokio::select! {
                biased; // either ends the pause
                () = stop.wait() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        let _ = self.give_up_lease().await; // otherwise it expires
    }

    /// Reads some events and handles them. Returns whether the next turn may come at once.
    async fn turn(&mut self, app: &Arc<App>) -> Result<bool, Error> {
        match self.lease().await? {
            Lease::Others => {
                self.has_all = false;
                return Ok(false);
            }
            Lease::Ours if self.has_all => {}
            Lease::Ours | Lease::Taken => self.take_over().await?,
        }
        // Events that are being decided delay nobody.
        let waiting = self.open.iter().filter(|entry| entry.is_waiting).count();
        if waiting == self.open.len() && waiting < WAITING_MAX {
            self.read(if waiting > 0 { BLOCK_WAITING_MS } else { BLOCK_MS }).await?;
        }
        if self.open.is_empty() {
            return Ok(true);
        }
        let is_through = self.deal(app).await?;
        if self.open.len() >= WAITING_MAX {
            tokio::time::sleep(Duration::from_millis(BLOCK_WAITING_MS)).await;
        }
        Ok(is_through)
    }

    async fn lease(&mut self) -> Result<Lease, Error> {
        let mut call = self.renew.key(&self.lease);
        call.arg(&self.name).arg(LEASE_MS);
        Ok(match call.invoke_async::<i64>(&mut self.redis).await? {
            0 => Lease::Others,
            1 => Lease::Ours,
            _ => Lease::Taken,
        })
    }

    async fn give_up_lease(&mut self) -> Result<(), Error> {
        let script = Script::new(
            "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 0",
        );
        Ok(script.key(&self.lease).arg(&self.name).invoke_async(&mut self.redis).await?)
    }

    /// Takes over entries that any process has read and not finished, from the beginning.
    async fn take_over(&mut self) -> Result<(), Error> {
        self.open.clear();
        let mut start = "0-0".to_owned();
        loop {
            let mut claim = redis::cmd("XAUTOCLAIM");
            claim.arg(&self.stream).arg(GROUP).arg(&self.name).arg(0).arg(&start).arg("COUNT").arg(BATCH_MAX);
            let claimed: StreamAutoClaimReply = match claim.query_async(&mut self.redis).await {
                Ok(claimed) => claimed,
                Err(error) => return self.make_group(error).await,
            };
            self.open.extend(claimed.claimed.iter().map(Entry::of));
            if claimed.next_stream_id == "0-0" {
                self.has_all = true;
                return Ok(());
            }
            start = claimed.next_stream_id;
        }
    }

    async fn read(&mut self, block_ms: u64) -> Result<(), Error> {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg(&self.name).arg("COUNT").arg(BATCH_MAX);
        read.arg("BLOCK").arg(block_ms).arg("STREAMS").arg(&self.stream).arg(">");
        match read.query_async::<Option<StreamReadReply>>(&mut self.redis).await {
            Ok(reply) => {
                let streams = reply.map(|reply| reply.keys).unwrap_or_default();
                self.open.extend(streams.iter().flat_map(|stream| &stream.ids).map(Entry::of));
                Ok(())
            }
            Err(error) => self.make_group(error).await,
        }
    }

    /// Makes the group if that was missing, from the stream's beginning: at first, and after Redis was
    /// flushed.
    async fn make_group(&mut self, error: RedisError) -> Result<(), Error> {
        if error.code() != Some("NOGROUP") {
            return Err(error.into());
        }
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(&self.stream).arg(GROUP).arg("0").arg("MKSTREAM");
        match create.query_async::<()>(&mut self.redis).await {
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
            done => Ok(done?),
        }
    }

    /// Finishes the events that it can. Returns whether none failed. A failed event is handled again before
    /// any later one.
    async fn deal(&mut self, app: &Arc<App>) -> Result<bool, Error> {
        // One event that makes the transaction of all fail is found by handling each alone.
        let is_alone = self.open.first().is_some_and(|entry| entry.failures >= TOGETHER_MAX);
        let count = if is_alone { 1 } else { self.open.len().min(BATCH_MAX) };
        let events: Vec<String> = self.open[..count].iter().map(|entry| entry.text.clone()).collect();
        let mut dealing = std::pin::pin!(intake::take(app, events.iter().map(String::as_str)));
        let outcomes = loop {
            tokio::select! {
                biased; // what is done needs no lease any more
                outcomes = &mut dealing => break outcomes,
                () = tokio::time::sleep(Duration::from_millis(LEASE_MS / 3)) => {
                    if !matches!(self.lease().await?, Lease::Ours) {
                        self.has_all = false; // another reader may have dealt with some of it
                        return Ok(false);
                    }
                }
            }
        };
        // If the database answers, the event itself fails.
        let has_failed = outcomes.contains(&Outcome::Again);
        let is_up = !has_failed || app.store.db.is_up().await;
        let mut pipe = redis::pipe();
        pipe.atomic();
        let mut kept = Vec::new();
        for (mut entry, outcome) in self.open.drain(..count).zip(outcomes) {
            entry.is_waiting = outcome == Outcome::Waiting;
            let dead = match outcome {
                Outcome::Done => None,
                Outcome::Refused(reason) if reason.starts_with("bad_event") => Some(reason),
                Outcome::Refused(_) => None, // whoever asked for it was told, as far as anybody is
                Outcome::Waiting => {
                    kept.push(entry);
                    continue;
                }
                Outcome::Again => {
                    entry.failures += u32::from(is_up);
                    if entry.failures < FAILURES_MAX {
                        kept.push(entry);
                        continue;
                    }
                    Some("it failed too often".to_owned())
                }
            };
            if let Some(reason) = dead {
                error!(
                    reason,
                    id = entry.id,
                    stream = self.stream,
                    "an event is invalid or failed too often; it is a dead letter"
                );
                pipe.cmd("XADD").arg(&self.dead).arg("MAXLEN").arg("~").arg(DEAD_MAX).arg("*");
                pipe.arg("e").arg(&entry.text).arg("reason").arg(reason).arg("id").arg(&entry.id).ignore();
            }
            pipe.cmd("XACK").arg(&self.stream).arg(GROUP).arg(&entry.id).ignore();
            pipe.cmd("XDEL").arg(&self.stream).arg(&entry.id).ignore();
        }
        self.open.splice(..0, kept);
        // If Redis is away they stay pending, and come again to the next holder of the lease, as repeats.
        pipe.query_async::<()>(&mut self.redis).await?;
        Ok(!has_failed)
    }
}

impl Entry {
    fn of(entry: &StreamId) -> Self {
        Self {
            id: entry.id.clone(),
            text: entry.get("e").unwrap_or_default(),
            failures: 0,
            is_waiting: false,
        }
    }
}

/// Whether this process may read a lane.
enum Lease {
    Others,
    Ours,
    /// This process has it from here on.
    Taken,
}

const GROUP: &str = "backend";
const BATCH_MAX: usize = 256;
const BLOCK_MS: u64 = 1_000;
/// The same while events are being decided.
const BLOCK_WAITING_MS: u64 = 20;
/// Events of a lane that are being decided while later ones are read; as many new ones fill a batch.
const WAITING_MAX: usize = BATCH_MAX / 2;
const COMMAND_TIME: Duration = Duration::from_secs(5);
/// How long a lane waits for a reader that has died.
const LEASE_MS: u64 = 10_000;
const PAUSE_MS_MAX: u64 = 5_000;
/// How often an event may fail while the database answers.
const FAILURES_MAX: u32 = 16;
/// How often events may fail together.
const TOGETHER_MAX: u32 = 8;
/// About how many dead letters are kept.
const DEAD_MAX: usize = 100_000;
