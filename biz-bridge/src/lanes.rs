//! A lane: takes events in, sends them in batches, one under way at a time, and reports which are done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use logs::warn;
use tokio::sync::{mpsc, watch};
use traces::Moment;
use wire::node::Taken;

use crate::backoff::{Backoff, Random};
use crate::breaker::Breaker;
use crate::config::Config;
use crate::event::{Entry, EventKey};
use crate::http::Http;
use crate::metrics::Metrics;
use crate::queue::{Batch, Done, Queue, Verdict};
use crate::redis::Stream;
use crate::spans::Spans;
use crate::timing::sleep_until;
use crate::{Item, Shards};

/// How many events are taken in at a time, so that batches leave while many come.
const INTAKE_MAX: usize = 1_024;

/// Where a lane's batches go.
pub enum Sink {
    Http(Http),
    Redis(Stream),
}

impl Sink {
    async fn send(&mut self, entries: &[Entry]) -> Verdict {
        match self {
            Self::Http(http) => http.send(entries).await,
            Self::Redis(stream) => stream.send(entries).await,
        }
    }
}

pub struct Lane {
    mailbox: mpsc::UnboundedReceiver<Item>,
    queue: Queue,
    sink: Sink,
    breaker: Arc<Breaker>,
    shards: Arc<dyn Shards>,
    metrics: Arc<Metrics>,
    spans: Spans,
}

impl Lane {
    pub fn new(
        config: &Config,
        number: usize,
        mailbox: mpsc::UnboundedReceiver<Item>,
        sink: Sink,
        breaker: Arc<Breaker>,
        shards: Arc<dyn Shards>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let spans = Spans::new(config, metrics.traces.clone());
        let backoff = Backoff::new(config.retry_first, config.retry_max);
        let queue = Queue::new(config.batch_max, backoff, random(number));
        Self { mailbox, queue, sink, breaker, shards, metrics, spans }
    }

    /// Runs until it is to stop and nothing waits. From the stop on no events come in, or a busy lane would
    /// never end.
    pub async fn run(mut self, mut stopped: watch::Receiver<Option<Instant>>) {
        loop {
            let is_stopping = stopped.borrow().is_some();
            if is_stopping {
                self.mailbox.close(); // what is in it is taken in still
            }
            for _ in 0..INTAKE_MAX {
                let Ok(item) = self.mailbox.try_recv() else { break };
                self.take_in(&item);
            }
            if let Some(batch) = self.queue.take(Instant::now()) {
                self.carry(batch).await;
                continue;
            }
            if is_stopping && self.queue.is_empty() && self.mailbox.is_empty() {
                return;
            }
            let due = self.queue.next_due();
            let is_open = !(is_stopping && self.mailbox.is_empty());
            tokio::select! {
                biased; // the stop first: from then on the mailbox ends by itself, and not the lane with it
                changed = stopped.changed(), if !is_stopping => if changed.is_err() { return },
                () = sleep_until(due) => {}
                item = self.mailbox.recv(), if is_open => match item {
                    Some(item) => self.take_in(&item),
                    None => return, // everybody who could push is gone, the bridge among them
                },
            }
        }
    }

    fn take_in(&mut self, item: &Item) {
        if self.queue.contains(&EventKey::of(item)) {
            self.metrics.repeated.add(1);
            self.metrics.waiting.take(1);
        } else {
            self.queue.push(self.spans.entry(item));
        }
    }

    async fn carry(&mut self, batch: Batch) {
        self.breaker.enter().await;
        let again = batch.entries.iter().filter(|entry| entry.tries > 0).count();
        self.metrics.retries.add(u64::try_from(again).expect("64 bits hold a length"));
        let begun = Moment::now();
        let verdict = self.sink.send(&batch.entries).await;
        self.spans.sent(&batch.entries, begun, &verdict);
        match &verdict {
            Verdict::Answered(_) => {
                self.metrics.batches_taken.add(1);
                self.breaker.succeeded();
            }
            Verdict::Rejected(_) => {
                self.metrics.batches_rejected.add(1);
                self.breaker.succeeded();
            }
            Verdict::Failed(why) => {
                self.metrics.batches_failed.add(1);
                self.breaker.failed(why);
            }
        }
        let done = self.queue.settle(batch, verdict, Instant::now());
        self.report(done);
    }

    fn report(&mut self, done: Vec<Done>) {
        let mut shards: BTreeMap<(u32, u64), Vec<(u64, Taken)>> = BTreeMap::new();
        for Done { entry, taken, why } in done {
            self.metrics.waiting.take(1);
            self.spans.done(&entry, why.as_deref());
            match taken {
                Taken::Ok => self.metrics.taken(entry.kind).add(1),
                Taken::Refused(_) => {
                    self.metrics.refused(entry.kind).add(1);
                    log_refused(&entry, &why.unwrap_or_default());
                }
            }
            let EventKey { shard, incarnation, seq } = entry.key;
            shards.entry((shard, incarnation)).or_default().push((seq, taken));
        }
        for ((shard, incarnation), results) in shards {
            self.shards.taken(shard, incarnation, results);
        }
    }
}

fn log_refused(entry: &Entry, why: &str) {
    warn!(
        id = entry.key.id(),
        trace = entry.key.trace(),
        kind = entry.kind.name(),
        user = entry.user.1.0,
        reason = why,
        "the backend refused an event for good"
    );
}

/// A random generator of its own for each lane of each process.
pub fn random(number: usize) -> Random {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = u64::try_from(number).expect("64 bits hold a length");
    Random::new(
        u64::from(now.subsec_nanos()) ^ now.as_secs() ^ u64::from(std::process::id()) << 32 ^ number << 48,
    )
}
