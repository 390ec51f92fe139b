//! The queue in Redis Streams: for each topic a stream with the consumer group `backend`, a sorted set of
//! jobs that are not due, and a stream of dead letters.
//!
//! One script takes jobs: it moves due jobs into the stream, then returns jobs that another consumer took and
//! did not finish in time, and then jobs that nobody took. If Redis was flushed, the group is gone too; the
//! next taker makes it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Script, Value};
use tokio::time::Instant;

use super::{Job, JobId, Queue, TRIES_MAX, Topic};
use crate::clock::Clock;
use crate::config::Config;
use crate::connection::Servers;
use crate::error::Error;
use crate::{connection, random};

/// How long a command may take.
const COMMAND_TIME: Duration = Duration::from_secs(5);
/// How often due jobs are looked for; jobs that are due at once wake the waiters.
const LOOK: Duration = Duration::from_millis(250);
/// How often, in ms, this process looks for jobs that were taken and not finished.
const LOOK_BACK_MS: i64 = 1_000;
/// Jobs of one round trip.
const PIPELINE_MAX: usize = 1_000;
/// A consumer without jobs that was not seen for this long, in ms, belongs to a process that has ended.
const CONSUMER_IDLE_MS: u64 = 3_600_000;
const GROUP: &str = "backend";

/// See the module's page.
pub struct RedisQueue {
    commands: connection::Redis,
    /// For connections that wait, which cannot be shared.
    servers: Servers,
    /// The connections that wait, each with its era.
    waiting: Mutex<Vec<(u64, MultiplexedConnection)>>,
    clock: Clock,
    prefix: String,
    /// This process, as Redis knows it.
    consumer: String,
    take_time: Duration,
    take: Script,
    /// Tells jobs with equal payloads apart that are not due, and keeps their order.
    next: AtomicU64,
    /// When jobs that were not finished were last looked for, in the order of [`Topic`].
    looked_back_ms: [AtomicI64; Topic::COUNT],
}

/// The keys of a topic.
struct Keys {
    stream: String,
    delayed: String,
    dead: String,
}

impl RedisQueue {
    /// Connects as needed. A job is left for `take_time` to the process that took it.
    pub fn open(
        config: &Config,
        servers: &Servers,
        clock: Clock,
        take_time: Duration,
    ) -> Result<Self, Error> {
        Ok(Self {
            commands: servers.shared(COMMAND_TIME)?,
            servers: servers.clone(),
            waiting: Mutex::default(),
            clock,
            prefix: config.prefix.clone(),
            consumer: random::hex::<8>(),
            take_time,
            take: Script::new(include_str!("take.lua")),
            next: AtomicU64::new(0),
            looked_back_ms: [const { AtomicI64::new(0) }; Topic::COUNT],
        })
    }

    fn keys(&self, topic: Topic) -> Keys {
        let stream = format!("{}:queue:{}", self.prefix, topic.name());
        Keys { delayed: format!("{stream}:delayed"), dead: format!("{stream}:dead"), stream }
    }

    /// Due jobs, and the id of the stream's last entry.
    async fn take_due(&self, topic: Topic, most: u32) -> Result<(Vec<Job>, String), Error> {
        let now_ms = self.clock.now_ms();
        let looked_ms = &self.looked_back_ms[topic as usize];
        let looks_back = now_ms - looked_ms.load(Ordering::Relaxed) >= self.look_back_ms();
        let keys = self.keys(topic);
        let mut call = self.take.key(&keys.stream);
        call.key(&keys.delayed).key(&keys.dead);
        call.arg(GROUP).arg(&self.consumer).arg(now_ms).arg(most);
        call.arg(self.take_time.as_millis() as u64).arg(TRIES_MAX).arg(u8::from(looks_back)).arg(ORDER_LEN);
        let mut connection = self.commands.clone();
        let mut answer = call.invoke_async::<(String, Vec<Value>)>(&mut connection).await;
        if answer.as_ref().is_err_and(|error| error.to_string().contains("NOGROUP")) {
            self.make_group(&keys.stream).await?;
            answer = call.invoke_async(&mut connection).await;
        }
        let (last, fields) = answer?;
        if looks_back && looked_ms.swap(now_ms, Ordering::Relaxed) == 0 {
            self.prune(&keys.stream).await?;
        }
        Ok((jobs(&fields)?, last))
    }

    fn look_back_ms(&self) -> i64 {
        LOOK_BACK_MS.min(self.take_time.as_millis() as i64 / 2)
    }

    /// From the stream's beginning, so that jobs that were pushed before the group existed are taken too.
    async fn make_group(&self, stream: &str) -> Result<(), Error> {
        let mut connection = self.commands.clone();
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(stream).arg(GROUP).arg("0").arg("MKSTREAM");
        match create.query_async::<()>(&mut connection).await {
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(()), // another process was quicker
            done => Ok(done?),
        }
    }

    /// Returns when the stream has an entry after `last`, or after a while.
    async fn wait_for(&self, stream: &str, last: &str, wait: Duration) -> Result<(), Error> {
        let kept = self.waiting().pop().filter(|(era, _)| *era == self.servers.era());
        let (era, mut connection) = match kept {
            Some(kept) => kept,
            None => self.servers.own(COMMAND_TIME).await?,
        };
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(1).arg("BLOCK").arg(wait.as_millis().max(1) as u64);
        read.arg("STREAMS").arg(stream).arg(last);
        read.query_async::<Value>(&mut connection).await?;
        self.waiting().push((era, connection)); // one whose read was given up is closed, since it still waits
        Ok(())
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<(u64, MultiplexedConnection)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The prefix of a payload that is not due; of [`ORDER_LEN`] bytes.
    fn order(&self) -> String {
        format!("{:016x}{}", self.next.fetch_add(1, Ordering::Relaxed), self.consumer)
    }

    /// Forgets the consumers of processes that have ended.
    async fn prune(&self, stream: &str) -> Result<(), Error> {
        let mut connection = self.commands.clone();
        let mut info = redis::cmd("XINFO");
        info.arg("CONSUMERS").arg(stream).arg(GROUP);
        let consumers: Vec<BTreeMap<String, Value>> = info.query_async(&mut connection).await?;
        for consumer in consumers {
            let number = |name: &str| match consumer.get(name) {
                Some(Value::Int(number)) => u64::try_from(*number).ok(),
                _ => None,
            };
            let has_ended =
                number("pending") == Some(0) && number("idle").is_some_and(|idle| idle > CONSUMER_IDLE_MS);
            if let (true, Some(name)) = (has_ended, consumer.get("name")) {
                let name: String = redis::from_redis_value(name.clone()).map_err(Error::internal)?;
                let mut delete = redis::cmd("XGROUP");
                delete.arg("DELCONSUMER").arg(stream).arg(GROUP).arg(name);
                delete.query_async::<()>(&mut connection).await?;
            }
        }
        Ok(())
    }
}

impl Queue for RedisQueue {
    async fn push(&self, topic: Topic, payloads: &[String], delay: Duration) -> Result<(), Error> {
        let keys = self.keys(topic);
        let mut connection = self.commands.clone();
        for chunk in payloads.chunks(PIPELINE_MAX) {
            let mut pipe = redis::pipe();
            for payload in chunk {
                match delay.is_zero() {
                    true => pipe.cmd("XADD").arg(&keys.stream).arg("*").arg("p").arg(payload).ignore(),
                    false => {
                        let due_ms = self.clock.now_ms() + delay.as_millis() as i64;
                        let member = self.order() + payload;
                        pipe.cmd("ZADD").arg(&keys.delayed).arg(due_ms).arg(member).ignore()
                    }
                };
            }
            pipe.query_async::<()>(&mut connection).await?;
        }
        Ok(())
    }

    async fn take(&self, topic: Topic, most: u32, wait: Duration) -> Result<Vec<Job>, Error> {
        let deadline = Instant::now() + wait;
        loop {
            let (jobs, last) = self.take_due(topic, most).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !jobs.is_empty() || left.is_zero() {
                return Ok(jobs);
            }
            self.wait_for(&self.keys(topic).stream, &last, left.min(LOOK)).await?;
        }
    }

    async fn done(&self, topic: Topic, ids: &[JobId]) -> Result<(), Error> {
        let stream = self.keys(topic).stream;
        let entry = |id: &JobId| match id {
            JobId::Entry(id) => Some(id.clone()),
            JobId::Row(_) => None, // of another queue
        };
        let entries: Vec<String> = ids.iter().filter_map(entry).collect();
        for chunk in entries.chunks(PIPELINE_MAX) {
            let mut pipe = redis::pipe();
            // In this order and in one transaction: an entry that is deleted but still pending would count as
            // lost.
            pipe.atomic();
            pipe.cmd("XACK").arg(&stream).arg(GROUP).arg(chunk).ignore();
            pipe.cmd("XDEL").arg(&stream).arg(chunk).ignore();
            pipe.query_async::<()>(&mut self.commands.clone()).await?;
        }
        Ok(())
    }

    async fn count(&self, topic: Topic) -> Result<(u64, u64), Error> {
        let keys = self.keys(topic);
        let mut pipe = redis::pipe();
        pipe.cmd("XLEN").arg(&keys.stream).cmd("ZCARD").arg(&keys.delayed).cmd("XLEN").arg(&keys.dead);
        let (due, delayed, dead): (u64, u64, u64) = pipe.query_async(&mut self.commands.clone()).await?;
        Ok((due + delayed, dead))
    }
}

/// Id, payload and tries of each job, as the script returns them.
fn jobs(fields: &[Value]) -> Result<Vec<Job>, Error> {
    let job = |fields: &[Value]| -> Result<Job, redis::ParsingError> {
        Ok(Job {
            id: JobId::Entry(redis::from_redis_value(fields[0].clone())?),
            payload: redis::from_redis_value(fields[1].clone())?,
            tries: redis::from_redis_value(fields[2].clone())?,
        })
    };
    fields.chunks_exact(3).map(|fields| job(fields).map_err(Error::internal)).collect()
}

/// The length of the result of [`RedisQueue::order`].
const ORDER_LEN: usize = 32;
