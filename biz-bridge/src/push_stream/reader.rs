//! Reads the push stream: first what this consumer had before, then new entries, and from time to time those
//! that others keep for too long.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use logs::warn;
use redis::aio::MultiplexedConnection;
use redis::{Client, RedisError, RedisResult, Value, cmd, from_redis_value};
use tokio::sync::mpsc;

use super::{GROUP, Keys};
use crate::backoff::Backoff;
use crate::config::Config;
use crate::lanes::random;
use crate::metrics::Metrics;
use crate::redis::{Link, describe};

/// Entries that are read at a time.
const COUNT: usize = 128;
/// How long a read waits for entries.
const BLOCK: Duration = Duration::from_secs(1);

/// An entry as it stands in the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Raw {
    pub id: String,
    /// The field `p`; empty if there is none.
    pub bytes: Vec<u8>,
    /// How often it was read or pushed, this time included.
    pub tries: u32,
    /// Whether somebody has removed it from the stream meanwhile.
    pub is_gone: bool,
}

#[derive(Clone)]
pub struct Reader {
    client: Client,
    timeout: Duration,
    reclaim: Duration,
    backoff: Backoff,
    keys: Keys,
    metrics: Arc<Metrics>,
}

impl Reader {
    pub fn new(config: &Config, client: Client, keys: Keys, metrics: Arc<Metrics>) -> Self {
        let backoff = Backoff::new(config.retry_first, config.retry_max);
        Self { client, timeout: config.timeout, reclaim: config.reclaim, backoff, keys, metrics }
    }

    /// Reads for ever, over as many connections as that takes. Waits while its batches are not taken.
    pub async fn run(mut self, batches: mpsc::Sender<Vec<Raw>>) {
        let mut link = Link::new(self.client.clone(), self.timeout, self.timeout + BLOCK);
        let mut random = random(usize::from(u16::MAX));
        let mut failures = 0;
        loop {
            let from = Instant::now();
            let Err(error) = self.read(&mut link, &batches).await else { return };
            link.close();
            self.metrics.push_stream_errors.add(1);
            failures = if from.elapsed() > BLOCK * 2 { 1 } else { failures + 1 };
            warn!(error = describe(&error), "cannot read the push stream; tried again");
            tokio::time::sleep(self.backoff.wait(failures, &mut random)).await;
        }
    }

    /// Reads over one connection until it fails, or its batches are no longer wanted.
    async fn read(&mut self, link: &mut Link, batches: &mpsc::Sender<Vec<Raw>>) -> RedisResult<()> {
        let connection = link.open().await?;
        self.tell_volatile(connection).await?;
        self.make_group(connection).await?;
        // Entries that this consumer has read and not finished, in this life or an earlier one.
        let mut after = "0".to_owned();
        loop {
            let entries = self.entries(connection, &after).await?;
            let Some(last) = entries.last() else { break };
            after.clone_from(&last.id);
            let entries = self.counted(connection, entries).await?;
            if batches.send(entries).await.is_err() {
                return Ok(());
            }
        }
        let mut reclaim_from = Instant::now();
        loop {
            if Instant::now() >= reclaim_from {
                if self.reclaim(connection, batches).await?.is_none() {
                    return Ok(());
                }
                reclaim_from = Instant::now() + self.reclaim / 2;
            }
            let entries = self.entries(connection, ">").await?;
            if !entries.is_empty() && batches.send(entries).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Notes whether Redis may lose what it has stored, if Redis lets us ask.
    async fn tell_volatile(&mut self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let mut command = cmd("CONFIG");
        let settings: HashMap<String, String> =
            match command.arg("GET").arg("append*").query_async(connection).await {
                Err(error) if error.is_io_error() => return Err(error),
                told => told.unwrap_or_default(),
            };
        let is_volatile = is_volatile(&settings);
        if is_volatile && self.metrics.redis_volatile.get() == 0 {
            warn!(
                "Redis does not sync every write to disk, so its death may lose events whose senders were told that they are \
                 safe; set appendonly yes and appendfsync always"
            );
        }
        self.metrics.redis_volatile.set(is_volatile.into());
        Ok(())
    }

    async fn make_group(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let mut command = cmd("XGROUP");
        command.arg("CREATE").arg(&self.keys.stream).arg(GROUP).arg("0").arg("MKSTREAM");
        match command.query_async::<()>(connection).await {
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
            made => made,
        }
    }

    /// Unread entries (`after` is `>`), or own ones after an id.
    async fn entries(&self, connection: &mut MultiplexedConnection, after: &str) -> RedisResult<Vec<Raw>> {
        let mut command = cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(&self.keys.consumer).arg("COUNT").arg(COUNT);
        command.arg("BLOCK").arg(millis(BLOCK)).arg("STREAMS").arg(&self.keys.stream).arg(after);
        let reply: Option<Vec<(String, Value)>> = command.query_async(connection).await?;
        let streams = reply.unwrap_or_default().into_iter();
        let mut entries = Vec::new();
        for (_, value) in streams {
            entries.extend(raw(value)?);
        }
        Ok(entries)
    }

    /// Takes over entries that consumers keep for too long; `None` if batches are no longer wanted.
    async fn reclaim(
        &self,
        connection: &mut MultiplexedConnection,
        batches: &mpsc::Sender<Vec<Raw>>,
    ) -> RedisResult<Option<()>> {
        let mut cursor = "0-0".to_owned();
        loop {
            let mut command = cmd("XAUTOCLAIM");
            command.arg(&self.keys.stream).arg(GROUP).arg(&self.keys.consumer);
            command.arg(millis(self.reclaim)).arg(&cursor).arg("COUNT").arg(COUNT);
            // Redis 7 adds a third part: the ids that are no longer in the stream.
            let parts: Vec<Value> = command.query_async(connection).await?;
            let mut parts = parts.into_iter();
            let (Some(next), Some(entries)) = (parts.next(), parts.next()) else {
                return Err(RedisError::from((
                    redis::ErrorKind::UnexpectedReturnType,
                    "XAUTOCLAIM has two parts",
                )));
            };
            cursor = from_redis_value(next)?;
            let entries = raw(entries)?;
            if !entries.is_empty() {
                let entries = self.counted(connection, entries).await?;
                if batches.send(entries).await.is_err() {
                    return Ok(None);
                }
            }
            if cursor == "0-0" {
                return Ok(Some(()));
            }
        }
    }

    /// Adds how often Redis has delivered each entry.
    async fn counted(
        &self,
        connection: &mut MultiplexedConnection,
        mut entries: Vec<Raw>,
    ) -> RedisResult<Vec<Raw>> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(entries) };
        let mut command = cmd("XPENDING");
        command.arg(&self.keys.stream).arg(GROUP).arg(&first.id).arg(&last.id).arg(PENDING_MAX);
        command.arg(&self.keys.consumer);
        let pending: Vec<(String, String, u64, u32)> = command.query_async(connection).await?;
        let tries: HashMap<String, u32> = pending.into_iter().map(|(id, _, _, tries)| (id, tries)).collect();
        for entry in &mut entries {
            entry.tries = tries.get(&entry.id).copied().unwrap_or(entry.tries);
        }
        Ok(entries)
    }
}

/// More than a consumer holds, so that no entry between two others is cut off.
const PENDING_MAX: usize = 100_000;

/// Whether Redis is known to reply before a write is on disk. With `everysec` even the death of the process
/// alone costs data: while a sync is under way, writes are kept in memory, and replied to.
fn is_volatile(settings: &HashMap<String, String>) -> bool {
    let is = |name, wanted| settings.get(name).is_none_or(|value| value == wanted);
    !(is("appendonly", "yes") && is("appendfsync", "always"))
}

/// The entries of a reply: pairs of an id and its fields, which are nil if the entry has gone from the
/// stream.
fn raw(value: Value) -> RedisResult<Vec<Raw>> {
    let entries: Vec<(String, Option<Vec<Vec<u8>>>)> = from_redis_value(value)?;
    let entry = |(id, fields): (String, Option<Vec<Vec<u8>>>)| {
        let is_gone = fields.is_none();
        let fields = fields.unwrap_or_default();
        let field = fields.chunks_exact(2).find(|pair| pair[0] == b"p");
        Raw { id, bytes: field.map(|pair| pair[1].clone()).unwrap_or_default(), tries: 1, is_gone }
    };
    Ok(entries.into_iter().map(entry).collect())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
