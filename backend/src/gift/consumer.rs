//! The workers: they put gifts into the queue, commit them from it, and answer those who wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use logs::{error, warn};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use traces::{Kind, Moment, Span};

use super::decide::{Decisions, Facts, RoomState, decide};
use super::{Answer, Batch, GiftRequest, Gifts, Identity, Order, add, old_refusals};
use crate::cache::held_key;
use crate::db::{Dialect, Tx};
use crate::error::Error;
use crate::hooks::after_gift;
use crate::outbox::Message;
use crate::queue::{AnyQueue, Job, JobId, Queue, Topic};
use crate::stop::Stop;
use crate::tables::{account, gift, gift_order, outbox, room, room_member, user};
use crate::trace;

impl Gifts {
    /// Decides gifts in one transaction, without the queue and waiters. Returns how many are paid. Their
    /// messages stay in the table until the outbox takes them up.
    pub async fn commit(&self, requests: Vec<GiftRequest>) -> Result<usize, Error> {
        let batch = Batch { jobs: vec![None; requests.len()], requests };
        let (decisions, _) = try_commit(self, &batch).await?;
        Ok(decisions.entries.len())
    }
}

/// Works until it is time to end, and then until all waiters have their answers.
pub(crate) async fn run(gifts: Arc<Gifts>, mut stop: Stop) {
    let taken = gifts.taken_by_consumer.lock().unwrap_or_else(PoisonError::into_inner).take();
    let direct = gifts.direct_to_consumer.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (Some(taken), Some(direct)) = (taken, direct) else { return };
    let (end, ending) = watch::channel(false);
    let ending = Stop::from(ending);
    let mut tasks = JoinSet::new();
    tasks.spawn(put(gifts.clone(), ending.clone()));
    tasks.spawn(watch_others(gifts.clone(), ending.clone()));
    tasks.spawn(look_up(gifts.clone(), ending.clone()));
    tasks.spawn(take(gifts.clone(), ending.clone()));
    tasks.spawn(old_refusals::run(gifts.store.clone(), ending.clone()));
    let source = Source { taken, direct, left: Batch::default(), is_queue_first: true };
    tasks.spawn(commit_all(gifts.clone(), source, ending));
    stop.wait().await;
    while gifts.under_way.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let _ = end.send(true);
    while tasks.join_next().await.is_some() {}
}

/// Puts gifts into the queue, all that come at once together.
async fn put(gifts: Arc<Gifts>, mut stop: Stop) {
    let work = |requests: Vec<GiftRequest>| {
        let gifts = gifts.clone();
        async move {
            let payloads: Vec<_> = requests.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
            gifts.store.queue.push(Topic::Gift, &payloads, Duration::ZERO).await?;
            Ok(vec![(); requests.len()])
        }
    };
    gifts.pushes.run(batch_max(&gifts), stop.wait(), work).await;
}

/// Looks gifts up in the table.
async fn look_up(gifts: Arc<Gifts>, mut stop: Stop) {
    let work = |identities: Vec<Identity>| {
        let gifts = gifts.clone();
        async move {
            let mut connection = gifts.store.db.primary().acquire().await?;
            let wanted: BTreeSet<&Identity> = identities.iter().collect();
            let found = gift_order::find(&mut connection, &Vec::from_iter(wanted)).await?;
            Ok(identities.iter().map(|identity| found.get(identity).cloned()).collect())
        }
    };
    gifts.looks.run(LOOKS_MAX, stop.wait(), work).await;
}

/// Takes gifts from the queue, ahead of the consumer.
async fn take(gifts: Arc<Gifts>, mut stop: Stop) {
    while !stop.is_due() {
        let work = async {
            let jobs = gifts
                .store
                .take_for_database(Topic::Gift, gifts.store.config.gift_batch_max, TAKE_WAIT)
                .await?;
            if !jobs.is_empty() {
                let batch = Batch::of(&gifts, jobs);
                gifts.waiters.are_here(batch.requests.iter().map(|request| &request.identity));
                let _ = gifts.taken.send(batch).await; // the consumer ends last
            }
            Ok::<_, Error>(())
        };
        let done = tokio::select! {
            biased; // nothing more is taken once it is time to end
            () = stop.wait() => return,
            done = work => done,
        };
        if let Err(error) = done {
            warn!(%error, "cannot read the queue of gifts");
            tokio::select! {
                biased; // either ends the pause
                () = stop.wait() => {}
                () = tokio::time::sleep(PAUSE_MAX) => {}
            }
        }
    }
}

fn batch_max(gifts: &Gifts) -> usize {
    gifts.store.config.gift_batch_max as usize
}

/// Commits what was taken, batch by batch.
async fn commit_all(gifts: Arc<Gifts>, mut source: Source, mut stop: Stop) {
    let most = batch_max(&gifts);
    let mut finishing = JoinSet::new();
    loop {
        let batch = tokio::select! {
            biased; // what was taken is committed before the end, which comes once nothing more is taken
            batch = source.next(most) => batch,
            () = stop.wait() => break,
        };
        for committed in commit(&gifts, batch, &mut stop).await {
            finishing.spawn(finish(gifts.clone(), committed));
        }
        while finishing.len() > FINISHING_MAX {
            finishing.join_next().await;
        }
    }
    while finishing.join_next().await.is_some() {}
}

/// The sources of the consumer's gifts.
struct Source {
    /// From the queue.
    taken: mpsc::Receiver<Batch>,
    /// Without the queue: nobody was promised anything yet, so memory is as good as the queue, and costs far
    /// less.
    direct: mpsc::Receiver<GiftRequest>,
    /// The rest of a batch.
    left: Batch,
    is_queue_first: bool,
}

impl Source {
    /// The next batch of up to `most`. Dropping the call loses nothing.
    async fn next(&mut self, most: usize) -> Batch {
        if self.left.requests.is_empty() {
            tokio::select! {
                biased; // either wakes it up; how they take turns, is said below
                more = self.taken.recv() => self.left.extend(more.unwrap_or_default()),
                Some(request) = self.direct.recv() => self.left.push(None, request),
            }
        }
        // In turn, so that neither keeps the other waiting.
        self.is_queue_first = !self.is_queue_first;
        for is_queue in [self.is_queue_first, !self.is_queue_first] {
            while self.left.requests.len() < most {
                let more = match is_queue {
                    true => self.taken.try_recv().map(|more| self.left.extend(more)),
                    false => self.direct.try_recv().map(|request| self.left.push(None, request)),
                };
                if more.is_err() {
                    break;
                }
            }
        }
        let rest = self.left.split_off(size(self.left.requests.len(), most));
        std::mem::replace(&mut self.left, rest)
    }
}

/// How many of `gifts` make a batch. Under load there are few sizes: each has statements of its own, which a
/// connection keeps prepared, and preparing those of several hundred rows costs as much as running them.
fn size(gifts: usize, most: usize) -> usize {
    match gifts.min(most) {
        few if few < WHOLE_MIN => few,
        many if many == most => most,
        many => 1 << many.ilog2(),
    }
}

/// The work that is left after the commit of gifts.
struct Committed {
    jobs: Vec<JobId>,
    /// Answers that somebody may look for in the cache.
    answers: Vec<(Identity, Order)>,
    /// Senders for whom more coins were held than they paid.
    unpaid: BTreeSet<i64>,
}

impl Batch {
    /// A job that is no gift stays in the queue until it becomes a dead letter there.
    fn of(gifts: &Gifts, jobs: Vec<Job>) -> Self {
        let mut batch = Self::default();
        for job in jobs {
            match serde_json::from_str(&job.payload) {
                Ok(request) => batch.push(Some(job.id), request),
                Err(error) => {
                    add(&gifts.counters.poison, 1);
                    error!(%error, id = ?job.id, tries = job.tries, payload = job.payload, "no gift");
                }
            }
        }
        batch
    }

    fn push(&mut self, job: Option<JobId>, request: GiftRequest) {
        self.jobs.push(job);
        self.requests.push(request);
    }

    fn extend(&mut self, more: Self) {
        let Self { requests, jobs } = more;
        self.requests.extend(requests);
        self.jobs.extend(jobs);
    }

    /// Splits off everything behind the first gifts.
    fn split_off(&mut self, at: usize) -> Self {
        Self { requests: self.requests.split_off(at), jobs: self.jobs.split_off(at) }
    }

    /// Its two halves.
    fn split(mut self) -> [Self; 2] {
        let at = self.requests.len() / 2;
        let second = self.split_off(at);
        [self, second]
    }
}

/// Commits a batch, again and again while the database is away. Returns what was committed, without the gifts
/// that make transactions fail.
async fn commit(gifts: &Arc<Gifts>, batch: Batch, stop: &mut Stop) -> Vec<Committed> {
    let mut todo = vec![batch];
    let mut committed = Vec::new();
    let mut failures = 0;
    while let Some(batch) = todo.pop() {
        if batch.requests.is_empty() {
            continue;
        }
        let begun = Moment::now();
        let tried = try_commit(gifts, &batch).await;
        record(gifts, &batch, begun, tried.as_ref().err());
        match tried {
            Ok((decisions, ids)) => {
                failures = 0;
                committed.push(after_commit(gifts, batch.jobs, decisions, ids));
            }
            // It will pass; or another consumer was faster with the same gift, which the next try sees.
            Err(error) if error.is_transient() && error.status != 500 || error.code == "duplicate" => {
                add(&gifts.counters.batches_failed, 1);
                if failures == 0 {
                    warn!(%error, gifts = batch.requests.len(), "committing a batch of gifts failed; tried again");
                }
                failures += 1;
                todo.push(batch);
                tokio::select! {
                    biased; // no further try once it is time to end
                    // Nobody waits for the rest, and what is in the queue stays there.
                    () = stop.wait() => return committed,
                    () = tokio::time::sleep(PAUSE_MAX.min(PAUSE_FIRST * failures)) => {}
                }
            }
            Err(error) if batch.requests.len() == 1 => {
                add(&gifts.counters.poison, 1);
                error!(%error, request = ?batch.requests[0], "cannot commit a gift; if it is in the queue, it stays there");
            }
            Err(error) => {
                warn!(%error, gifts = batch.requests.len(), "committing a batch of gifts failed; its halves are tried separately");
                todo.extend(batch.split().into_iter().rev());
            }
        }
    }
    committed
}

/// Records a finished transaction as a step of each of its gifts.
fn record(gifts: &Gifts, batch: &Batch, begun: Moment, error: Option<&Error>) {
    let traced = batch.requests.iter().filter_map(|request| request.trace);
    for parent in traced.filter(|parent| gifts.store.traces.wants(parent)) {
        let span = Span::since(begun, trace::SOURCE, Kind::Internal, parent.child(), Some(parent.span));
        let gifts_in_it = i64::try_from(batch.requests.len()).unwrap_or(i64::MAX);
        let span = span.named("gift transaction").with("sailfish.gifts", gifts_in_it);
        gifts.store.traces.record(match error {
            Some(error) => span.failed(error.to_string()),
            None => span,
        });
    }
}

/// One transaction: reads the facts, decides, and writes. Returns the ids of the messages too.
async fn try_commit(gifts: &Gifts, batch: &Batch) -> Result<(Decisions, Vec<i64>), Error> {
    let (dialect, now_ms) = (gifts.store.db.dialect(), gifts.store.clock.now_ms());
    let senders: BTreeSet<i64> = batch.requests.iter().map(|request| request.identity.sender_id).collect();
    let identities: BTreeSet<&Identity> = batch.requests.iter().map(|request| &request.identity).collect();
    let gift_ids: BTreeSet<i64> = batch.requests.iter().map(|request| request.contents.gift_id).collect();
    let mut tx = gifts.store.db.begin().await?;
    // Locks come first: all later reads see what other consumers of these senders have committed.
    let balances = account::lock(&mut tx, dialect, &Vec::from_iter(senders)).await?;
    let known = gift_order::find(&mut tx, &Vec::from_iter(identities)).await?;
    let kinds = gift::get_many(&mut tx, &Vec::from_iter(gift_ids)).await?;
    let catalogue: BTreeMap<_, _> = kinds.into_iter().map(|gift| (gift.id, gift)).collect();
    let rooms = rooms(&mut tx, dialect, batch).await?;
    let members = members(gifts, &mut tx, batch).await?;
    let receivers = receivers(gifts, &mut tx, batch).await?;
    let facts = Facts { known, balances, catalogue, rooms, members, receivers };
    let decisions = decide(gifts.store.config.app, &batch.requests, facts);
    if !decisions.debits.is_empty() {
        if !account::debit(&mut tx, &decisions.debits).await? {
            return Err(Error::unavailable("balance_changed", "a balance changed under its lock"));
        }
        account::record(&mut tx, &decisions.entries, now_ms).await?;
    }
    gift_order::insert(&mut tx, &decisions.orders, now_ms).await?;
    let ids = outbox::insert(&mut tx, &decisions.messages, now_ms).await?;
    let mut told = 0;
    if let Some(hook) = &gifts.after_gift {
        let paid = after_gift::paid(gifts.store.config.app, &decisions.orders, now_ms);
        told = hook.insert(&mut tx, paid, now_ms).await?;
    }
    if let AnyQueue::Table(queue) = &gifts.store.queue {
        let ids: Vec<JobId> = batch.jobs.iter().flatten().cloned().collect();
        queue.done_with(&mut tx, &ids).await?;
    }
    tx.commit().await?;
    if let Some(hook) = &gifts.after_gift {
        hook.committed(told);
    }
    Ok((decisions, ids))
}

/// Reads rooms, which cannot close before the transaction ends.
async fn rooms(tx: &mut Tx, dialect: Dialect, batch: &Batch) -> Result<BTreeMap<i64, RoomState>, Error> {
    let ids: BTreeSet<i64> = batch.requests.iter().map(|request| request.contents.room_id).collect();
    let rows = room::keep(tx, dialect, &Vec::from_iter(ids)).await?;
    Ok(rows
        .into_iter()
        .map(|room| (room.id, RoomState { is_open: room.is_open, owner_id: room.owner_id }))
        .collect())
}

/// The senders in their rooms, if no gateway has seen them there.
async fn members(gifts: &Gifts, tx: &mut Tx, batch: &Batch) -> Result<BTreeSet<(i64, i64)>, Error> {
    let asked = batch.requests.iter().filter(|request| !request.is_in_room);
    let asked: BTreeSet<(i64, i64)> =
        asked.map(|request| (request.contents.room_id, request.identity.sender_id)).collect();
    room_member::among(tx, gifts.store.db.dialect(), gifts.store.config.app, &Vec::from_iter(asked)).await
}

/// The existing receivers. Most were seen before, and cost nothing.
async fn receivers(gifts: &Gifts, tx: &mut Tx, batch: &Batch) -> Result<BTreeSet<i64>, Error> {
    let ids = batch.requests.iter().map(|request| request.contents.receiver_id).collect();
    let (mut known, unknown) = gifts.receivers.split(ids);
    if !unknown.is_empty() {
        let found = user::among(tx, &unknown).await?;
        gifts.receivers.put(&found);
        known.extend(found);
    }
    Ok(known)
}

/// Answers the waiters, and hands the messages over.
fn after_commit(gifts: &Gifts, jobs: Vec<Option<JobId>>, decisions: Decisions, ids: Vec<i64>) -> Committed {
    let Decisions { entries, orders, messages, repeats, .. } = decisions;
    let counters = &gifts.counters;
    add(&counters.batches, 1);
    add(&counters.committed, entries.len());
    add(&counters.refused, orders.len() - entries.len());
    add(&counters.repeats, repeats.len());
    let is_refused = |order: &Order| matches!(order.answer, Answer::Refused(_));
    let is_of_place = |order: &Order| matches!(order.answer, Answer::Refused(reason) if reason.is_of_place());
    for (identity, _) in orders.iter().filter(|(_, order)| is_of_place(order)) {
        gifts.refused.add(identity.sender_id);
    }
    let unpaid = orders.iter().filter(|(_, order)| is_refused(order)).chain(&repeats);
    let unpaid = unpaid.map(|(identity, _)| identity.sender_id).collect();
    let mut answers = Vec::new();
    for (identity, order) in orders.into_iter().chain(repeats) {
        let is_awaited = gifts.waiters.tell(&identity, &order);
        // Another process may have a waiter; and a refused sender may ask again and again.
        if !is_awaited || is_refused(&order) {
            answers.push((identity, order));
        }
    }
    gifts.outbox.hand_over(ids.into_iter().zip(messages).collect::<Vec<(i64, Message)>>());
    Committed { jobs: jobs.into_iter().flatten().collect(), answers, unpaid }
}

/// Work that may come late, or never: answers for the cache, and the end of jobs that are in no table.
async fn finish(gifts: Arc<Gifts>, committed: Committed) {
    let Committed { jobs, answers, unpaid } = committed;
    let key = |(identity, _): &(Identity, Order)| held_key(identity.sender_id, &identity.key);
    let keys: Vec<String> = answers.iter().map(key).collect();
    let text = |order: &Order| serde_json::to_string(order).expect("strings and numbers are JSON");
    let entries = keys.iter().zip(&answers).map(|(key, (_, order))| (key.as_str(), text(order), ANSWER_TTL));
    let entries: Vec<_> = entries.collect();
    let told = async {
        gifts.store.cache.set_many(&entries).await?;
        // Their held coins are free again.
        gifts.store.cache.forget_available(&Vec::from_iter(unpaid)).await
    };
    let done = async {
        match &gifts.store.queue {
            AnyQueue::Table(_) => Ok(()),
            AnyQueue::Redis(_) if jobs.is_empty() => Ok(()),
            AnyQueue::Redis(queue) => queue.done(Topic::Gift, &jobs).await,
        }
    };
    if let (Err(error), _) | (_, Err(error)) = tokio::join!(told, done) {
        // If the job is taken again, its gift is decided already.
        warn!(%error, "gifts are committed, but the cache could not be updated");
    }
}

/// Answers waiters whose gifts another process has committed.
async fn watch_others(gifts: Arc<Gifts>, mut stop: Stop) {
    let is_shared = !gifts.store.config.redis.is_empty();
    for round in 1_u32.. {
        tokio::select! {
            biased; // no further look once it is time to end
            () = stop.wait() => return,
            () = tokio::time::sleep(WATCH_PAUSE) => {}
        }
        let now = Instant::now();
        let waiting = gifts.waiters.since_before(now - WATCH_PAUSE);
        if is_shared && !waiting.is_empty() {
            let keys: Vec<_> =
                waiting.iter().map(|identity| held_key(identity.sender_id, &identity.key)).collect();
            let texts = gifts.store.cache.get_many(&keys).await.unwrap_or_default();
            for (identity, text) in waiting.iter().zip(texts) {
                if let Some(order) = text.and_then(|text| serde_json::from_str(&text).ok()) {
                    gifts.waiters.tell(identity, &order);
                }
            }
        }
        if round.is_multiple_of(WATCHES_A_LOOK) {
            let waiting = gifts.waiters.since_before(now - WATCH_PAUSE * WATCHES_A_LOOK);
            for identity in waiting.into_iter().take(LOOKS_MAX) {
                let gifts = gifts.clone();
                tokio::spawn(async move {
                    if let Ok(Some(order)) = gifts.looks.ask(identity.clone()).await {
                        gifts.waiters.tell(&identity, &order);
                    }
                });
            }
        }
    }
}

/// From this many gifts on, batches have few sizes.
const WHOLE_MIN: usize = 128;
/// Gifts that one query looks up.
const LOOKS_MAX: usize = 500;
const TAKE_WAIT: Duration = Duration::from_secs(1);
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Batches whose cache entries and jobs wait for Redis, beside the one that is committed.
const FINISHING_MAX: usize = 8;
/// How long an answer stays in the cache, for waiters in other processes and early repeats. The table keeps
/// it for good.
const ANSWER_TTL: Duration = Duration::from_secs(60);
const WATCH_PAUSE: Duration = Duration::from_millis(100);
/// How often the cache is read before the table is.
const WATCHES_A_LOOK: u32 = 5;
