//! Pushes of the backend from a Redis Stream.
//!
//! An entry stays in the stream until its outcome is known, so the death of a bridge loses none: the next one
//! takes them over. A message that is pushed twice because of that has the same client_msg_id, and is
//! delivered once; one to all is delivered twice, and clients recognise it by that id.

mod entry;
mod reader;

use std::collections::{BTreeMap, HashMap};
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use logs::warn;
use redis::Client;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use wire::client::FailReason;
use wire::node::Class;
use wire::{AppId, BizCode, ClientMsgId, RoomId, UserId};

use crate::backoff::{Backoff, Random};
use crate::config::Config;
use crate::lanes::random;
use crate::metrics::{Metrics, PushOutcome};
use crate::redis::{Link, describe};
use crate::timing::sleep_until;
pub(crate) use entry::parse;
pub(crate) use reader::Raw;
use reader::Reader;

/// Entries that are being pushed at a time. Beyond that no more are read.
const UNDER_WAY_MAX: usize = 4_096;
/// The bytes of those.
const UNDER_WAY_BYTES_MAX: usize = 16 << 20;

/// A message that the backend pushes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Push {
    /// The app.
    pub app: AppId,
    /// Its target.
    pub target: PushTarget,
    /// What it is about.
    pub biz_code: BizCode,
    /// How it is delivered; lossy if it is to all.
    pub class: Class,
    /// Its id, the same on every repeat of the push.
    pub client_msg_id: ClientMsgId,
    /// Whom receivers see as its sender.
    pub sender: UserId,
    /// What they get.
    pub payload: Bytes,
}

/// The target of a push.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PushTarget {
    /// To every session of a user.
    User(UserId),
    /// To the members of a room.
    Room(RoomId),
    /// To every session of the app.
    All,
}

/// The outcome of a push.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pushed {
    /// A session has acked it.
    Delivered,
    /// It has its place in its room.
    Sequenced,
    /// It is lossy and on its way.
    Sent,
    /// It failed, for the reason that its owner gives.
    Failed(FailReason),
    /// Its owner gave no outcome in time.
    Pending,
    /// Nobody could be asked, such as while no router is linked.
    Unavailable,
    /// It is wrong, and will be on every try; why.
    Refused(String),
}

/// Who sends pushes: the control API of the node.
pub trait Pushes: Send + Sync + 'static {
    /// Sends pushes and returns their outcomes, in order, however long that takes (within
    /// [`Config::reclaim`]). Those to one target are on their way in order once the future is first polled,
    /// or has had to wait for room.
    fn push(&self, pushes: Vec<Push>) -> impl Future<Output = Vec<Pushed>> + Send;
}

/// Serves the push stream.
pub struct PushStream<P> {
    reader: Reader,
    pushes: Arc<P>,
    link: Link,
    keys: Keys,
    tries_max: u32,
    backoff: Backoff,
    random: Random,
    metrics: Arc<Metrics>,
    /// Entries that were read and are not yet out of the stream, by id.
    known: HashMap<String, usize>,
    known_bytes: usize,
    under_way: JoinSet<Vec<(Job, Pushed)>>,
    /// To be pushed again, in the order in which they came.
    again: BTreeMap<u64, Job>,
    again_from: Option<Instant>,
    /// Whether nothing can be pushed at present. Then no more is read: it would overtake.
    unavailable: bool,
    failures: u32,
    count: u64,
    /// Done, and yet to be removed from the stream.
    done: Vec<Done>,
    done_from: Option<Instant>,
    /// When Redis is next informed that the known entries are under way.
    touch_from: Instant,
    reclaim: Duration,
    flush_failures: u32,
}

/// The names in Redis.
#[derive(Clone)]
struct Keys {
    stream: String,
    dead: String,
    consumer: String,
}

const GROUP: &str = "bridge";

/// An entry at work.
struct Job {
    /// The place in the order in which they came.
    place: u64,
    raw: Raw,
    push: Push,
}

/// An entry that is done.
struct Done {
    raw: Raw,
    /// Why it is a dead letter.
    dead: Option<String>,
}

impl<P: Pushes> PushStream<P> {
    pub fn new(config: &Config, client: Client, prefix: &str, pushes: Arc<P>, metrics: Arc<Metrics>) -> Self {
        let keys = Keys {
            stream: format!("{prefix}:push"),
            dead: format!("{prefix}:push:dead"),
            consumer: config.consumer.clone(),
        };
        Self {
            reader: Reader::new(config, client.clone(), keys.clone(), metrics.clone()),
            pushes,
            link: Link::new(client, config.timeout, config.timeout),
            keys,
            tries_max: config.tries_max,
            backoff: Backoff::new(config.retry_first, config.retry_max),
            random: random(config.lanes),
            metrics,
            known: HashMap::new(),
            known_bytes: 0,
            under_way: JoinSet::new(),
            again: BTreeMap::new(),
            again_from: None,
            unavailable: false,
            failures: 0,
            count: 0,
            done: Vec::new(),
            done_from: None,
            touch_from: Instant::now(),
            reclaim: config.reclaim,
            flush_failures: 0,
        }
    }

    /// Runs until it is to stop and nothing is under way. Entries to be tried again then stay in the stream.
    pub async fn run(mut self, mut stopped: watch::Receiver<Option<Instant>>) {
        let (batches, mut incoming) = mpsc::channel(1);
        let mut reading = tokio::spawn(self.reader.clone().run(batches));
        loop {
            self.flush_if_due().await;
            let is_stopping = stopped.borrow().is_some();
            if is_stopping && self.under_way.is_empty() && self.done.is_empty() {
                break;
            }
            let has_room = self.known.len() < UNDER_WAY_MAX && self.known_bytes < UNDER_WAY_BYTES_MAX;
            let again_from = self.again_from.filter(|_| !is_stopping);
            let due = [again_from, self.done_from, Some(self.touch_from)].into_iter().flatten().min();
            tokio::select! {
                biased; // the stop before the end that it makes; what is due or done before more is read
                changed = stopped.changed(), if !is_stopping => {
                    reading.abort();
                    if changed.is_err() { break }
                }
                () = sleep_until(due) => {
                    if again_from.is_some_and(|from| from <= Instant::now()) {
                        self.push_again().await;
                    }
                    self.touch_if_due().await;
                }
                Some(ended) = self.under_way.join_next() => {
                    self.settle(ended.expect("a push does not panic, and nobody aborts it"));
                }
                Some(entries) = incoming.recv(), if has_room && !self.unavailable && !is_stopping => {
                    self.take_in(entries).await;
                }
                ended = &mut reading, if !is_stopping => {
                    panic!("it reads for as long as somebody wants what it has read: {ended:?}");
                }
            }
        }
        reading.abort();
    }

    async fn take_in(&mut self, entries: Vec<Raw>) {
        let mut jobs = Vec::with_capacity(entries.len());
        for raw in entries {
            if self.known.contains_key(&raw.id) {
                continue; // it was read again while it is under way
            }
            self.known.insert(raw.id.clone(), raw.bytes.len());
            self.known_bytes += raw.bytes.len();
            self.count += 1;
            if raw.is_gone {
                self.done.push(Done { raw, dead: None });
                continue;
            }
            if raw.tries > self.tries_max {
                let dead = format!("tried {} times", raw.tries - 1);
                self.end(raw, PushOutcome::Dead, Some(dead));
                continue;
            }
            match parse(&raw) {
                Ok(push) => jobs.push(Job { place: self.count, raw, push }),
                Err(wrong) => self.end(raw, PushOutcome::Dead, Some(wrong)),
            }
        }
        self.push(jobs).await;
    }

    async fn push_again(&mut self) {
        self.again_from = None;
        self.unavailable = false;
        let jobs = std::mem::take(&mut self.again).into_values().collect();
        self.push(jobs).await;
    }

    /// Starts pushes; before it returns, they are on their way as far as they can be at once.
    async fn push(&mut self, jobs: Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        let pushes = self.pushes.clone();
        let mut pushing = Box::pin(async move {
            let pushed = pushes.push(jobs.iter().map(|job| job.push.clone()).collect()).await;
            assert_eq!(pushed.len(), jobs.len(), "every push has an outcome");
            jobs.into_iter().zip(pushed).collect::<Vec<_>>()
        });
        // Polled here, so that an earlier batch is on its way before a later one.
        match poll_fn(|context| Poll::Ready(pushing.as_mut().poll(context))).await {
            Poll::Ready(pushed) => self.settle(pushed),
            Poll::Pending => drop(self.under_way.spawn(pushing)),
        }
    }

    fn settle(&mut self, pushed: Vec<(Job, Pushed)>) {
        let mut failed = false;
        for (mut job, pushed) in pushed {
            match pushed {
                Pushed::Delivered => self.end(job.raw, PushOutcome::Delivered, None),
                Pushed::Sequenced => self.end(job.raw, PushOutcome::Sequenced, None),
                Pushed::Sent => self.end(job.raw, PushOutcome::Sent, None),
                Pushed::Refused(why) => self.end(job.raw, PushOutcome::Dead, Some(why)),
                Pushed::Unavailable => {
                    (failed, self.unavailable) = (true, true);
                    self.again(job);
                }
                Pushed::Pending | Pushed::Failed(FailReason::Busy) => {
                    if job.raw.tries >= self.tries_max {
                        let dead = format!("tried {} times, the last time {}", job.raw.tries, name(&pushed));
                        self.end(job.raw, PushOutcome::Dead, Some(dead));
                    } else {
                        failed = true;
                        job.raw.tries += 1;
                        self.again(job);
                    }
                }
                Pushed::Failed(
                    reason @ (FailReason::NoRoute | FailReason::TooLong | FailReason::BadContent),
                ) => self.end(job.raw, PushOutcome::Dead, Some(reason.name().into())),
                // The bridge of its receiver's owner has it as undelivered, or its room is empty.
                Pushed::Failed(
                    FailReason::Offline
                    | FailReason::Unacked
                    | FailReason::Disconnected
                    | FailReason::Overflow
                    | FailReason::NotMember,
                ) => self.end(job.raw, PushOutcome::Failed, None),
            }
        }
        if failed {
            self.failures = self.failures.saturating_add(1);
            let from = Instant::now() + self.backoff.wait(self.failures, &mut self.random);
            self.again_from = Some(self.again_from.map_or(from, |earlier| earlier.min(from)));
        } else {
            self.failures = 0;
        }
    }

    fn again(&mut self, job: Job) {
        self.metrics.pushes(PushOutcome::Again).add(1);
        self.again.insert(job.place, job);
    }

    fn end(&mut self, raw: Raw, outcome: PushOutcome, dead: Option<String>) {
        self.metrics.pushes(outcome).add(1);
        if let Some(why) = &dead {
            warn!(
                entry = raw.id,
                reason = why,
                "an entry of the push stream is invalid or failed too often; it is a dead letter"
            );
        }
        self.done.push(Done { raw, dead });
    }

    /// Removes finished entries from the stream. Until Redis has done so, they stay known, so nobody here
    /// pushes them again.
    async fn flush_if_due(&mut self) {
        if self.done.is_empty() || self.done_from.is_some_and(|from| Instant::now() < from) {
            return;
        }
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        for Done { raw, dead } in &self.done {
            if let Some(why) = dead {
                pipeline.cmd("XADD").arg(&self.keys.dead).arg("*").arg("p").arg(&raw.bytes);
                pipeline.arg("reason").arg(why).arg("id").arg(&raw.id).arg("tries").arg(raw.tries).ignore();
            }
            pipeline.cmd("XACK").arg(&self.keys.stream).arg(GROUP).arg(&raw.id).ignore();
            pipeline.cmd("XDEL").arg(&self.keys.stream).arg(&raw.id).ignore();
        }
        match self.link.run(&pipeline).await {
            Ok(()) => {
                for Done { raw, .. } in self.done.drain(..) {
                    self.known_bytes -= self.known.remove(&raw.id).expect("what is done is known");
                }
                (self.done_from, self.flush_failures) = (None, 0);
            }
            Err(error) => {
                self.metrics.push_stream_errors.add(1);
                self.flush_failures = self.flush_failures.saturating_add(1);
                let wait = self.backoff.wait(self.flush_failures, &mut self.random);
                self.done_from = Some(Instant::now() + wait);
                warn!(error = describe(&error), "cannot remove finished pushes from the stream; tried again");
            }
        }
    }

    /// Informs Redis which entries are under way, so that no other bridge takes them over.
    async fn touch_if_due(&mut self) {
        let now = Instant::now();
        if now < self.touch_from {
            return;
        }
        self.touch_from = now + self.reclaim / 3;
        if self.known.is_empty() {
            return;
        }
        let mut pipeline = redis::pipe();
        let command =
            pipeline.cmd("XCLAIM").arg(&self.keys.stream).arg(GROUP).arg(&self.keys.consumer).arg(0);
        #[allow(clippy::iter_over_hash_type, reason = "a set of ids has no order")]
        for id in self.known.keys() {
            command.arg(id);
        }
        command.arg("JUSTID").ignore(); // so that it does not count as a try
        if self.link.run(&pipeline).await.is_err() {
            self.metrics.push_stream_errors.add(1);
        }
    }
}

fn name(pushed: &Pushed) -> &'static str {
    match pushed {
        Pushed::Failed(reason) => reason.name(),
        _ => "without an outcome in time",
    }
}
