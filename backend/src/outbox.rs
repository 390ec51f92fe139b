//! The outbox: messages to clients that are committed together with their cause, and pushed afterwards, at
//! least once.
//!
//! The process that committed them pushes them from memory. Any process takes up from the table what is not
//! pushed within some seconds, because that process died or the push API is away. A message keeps its key on
//! every try, by which router and receivers drop repeats.

mod message;
mod users;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use logs::{error, warn};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use crate::error::Error;
use crate::event::Data;
use crate::push::{PUSHES_MAX, Push, PushItem, PushOutcome};
use crate::random;
use crate::stop::Stop;
use crate::store::Store;
use crate::tables::outbox;
pub use message::{Message, Target};
use users::{Kind, Pace, Users};

/// Messages to push, in memory.
pub struct Outbox {
    /// Lanes for rooms.
    lanes: Vec<Lane>,
    rows_to_users: Users,
    mentions_to_users: Users,
    hand: Mutex<Hand>,
    mentions: Arc<Mutex<Mentions>>,
    pushed: Notify,
    lost: AtomicU64,
}

/// Messages of one lane go one after the other, so those of a room keep their order, in this process.
#[derive(Default)]
struct Lane {
    waiting: Mutex<VecDeque<Item>>,
    filled: Notify,
}

/// A message, with its row's id unless it has none.
struct Item {
    id: Option<i64>,
    message: Message,
    tries: u32,
    /// Set for a message without a row.
    mention: Option<Mention>,
}

/// The extra state of a message without a row.
struct Mention {
    /// Gets notified when the router has it.
    told: oneshot::Sender<()>,
    _place: Place,
}

/// How many messages without a row are in memory, in all and for each target.
#[derive(Default)]
struct Mentions {
    all: usize,
    by_target: HashMap<Target, usize>,
}

/// Holds a place for one of these until it is dropped.
struct Place {
    mentions: Arc<Mutex<Mentions>>,
    target: Target,
}

impl Place {
    fn take(mentions: &Arc<Mutex<Mentions>>, target: Target) -> Option<Self> {
        let mut taken = lock(mentions);
        let of_target = taken.by_target.get(&target).copied().unwrap_or_default();
        if taken.all >= MENTIONS_MAX || of_target >= TARGET_MENTIONS_MAX {
            return None;
        }
        taken.all += 1;
        taken.by_target.insert(target, of_target + 1);
        Some(Self { mentions: mentions.clone(), target })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.mentions);
        taken.all -= 1;
        if let Some(of_target) = taken.by_target.get_mut(&self.target) {
            *of_target -= 1;
            if *of_target == 0 {
                taken.by_target.remove(&self.target);
            }
        }
    }
}

/// The rows that this process handles.
#[derive(Default)]
struct Hand {
    /// All these rows.
    held: HashSet<i64>,
    /// Rows that are pushed, and still in the table.
    done: Vec<i64>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            lanes: (0..LANES).map(|_| Lane::default()).collect(),
            rows_to_users: Users::default(),
            mentions_to_users: Users::default(),
            hand: Mutex::default(),
            mentions: Arc::default(),
            pushed: Notify::new(),
            lost: AtomicU64::new(0),
        }
    }
}

impl Outbox {
    /// Takes messages that were just committed, with the ids that `outbox::insert` returned. If there are too
    /// many, they stay in the table until there are fewer.
    pub fn hand_over(&self, rows: Vec<(i64, Message)>) {
        for (id, message) in rows {
            {
                let mut hand = lock(&self.hand);
                if hand.held.len() >= HELD_MAX || !hand.held.insert(id) {
                    continue;
                }
            }
            self.queue(Item { id: Some(id), message, tries: 0, mention: None });
        }
    }

    /// Takes a message without a row: it is pushed if that works at once, and if its target's share has room
    /// for it. The receiver gets a notice when it is on its way; an error if it is given up.
    pub fn mention(&self, message: Message) -> oneshot::Receiver<()> {
        let (told, is_told) = oneshot::channel();
        match Place::take(&self.mentions, message.target) {
            Some(place) => {
                let mention = Some(Mention { told, _place: place });
                self.queue(Item { id: None, message, tries: 0, mention });
            }
            None => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        is_told
    }

    /// Commits messages on their own, and has them pushed.
    pub async fn commit(&self, store: &Store, messages: Vec<Message>) -> Result<(), Error> {
        let mut tx = store.db.begin().await?;
        let ids = outbox::insert(&mut tx, &messages, store.clock.now_ms()).await?;
        tx.commit().await?;
        self.hand_over(ids.into_iter().zip(messages).collect());
        Ok(())
    }

    /// Messages that are committed and not known to be pushed, by any process.
    pub async fn waiting(store: &Store) -> Result<i64, Error> {
        outbox::count(store.db.primary()).await
    }

    /// How many messages are in memory, are pushed and still in the table, and had no row and were given up.
    pub fn counts(&self) -> [(&'static str, u64); 3] {
        let (held, done) = {
            let hand = lock(&self.hand);
            (hand.held.len() as u64, hand.done.len() as u64)
        };
        [("held", held), ("pushed", done), ("lost", self.lost.load(Ordering::Relaxed))]
    }

    fn queue(&self, item: Item) {
        match item.message.target {
            Target::User(id) if item.id.is_some() => self.rows_to_users.queue(id, item),
            Target::User(id) => self.mentions_to_users.queue(id, item),
            Target::Room(id) => {
                let lane = &self.lanes[id.rem_euclid(LANES as i64) as usize];
                lock(&lane.waiting).push_back(item);
                lane.filled.notify_one();
            }
        }
    }

    /// Finishes these messages: their rows will be removed.
    fn finish(&self, items: impl Iterator<Item = Item>) {
        let mut ids = Vec::new();
        for item in items {
            ids.extend(item.id);
            if let Some(mention) = item.mention {
                let _ = mention.told.send(()); // its caller may have gone
            }
        }
        lock(&self.hand).done.extend(ids);
        self.pushed.notify_one();
    }

    /// Drops messages that the push API refuses as invalid.
    fn drop_refused(&self, items: impl Iterator<Item = Item>) {
        let items: Vec<Item> = items.collect();
        self.lost.fetch_add(items.len() as u64, Ordering::Relaxed);
        self.finish(items.into_iter());
    }

    /// Tries a message again, later: by then, later commits may have overtaken it. A message without a row is
    /// given up after a few tries.
    fn retry(self: &Arc<Self>, mut item: Item) {
        item.tries += 1;
        if item.id.is_none() && item.tries >= MENTION_TRIES_MAX {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let (outbox, pause) = (Arc::downgrade(self), pause(item.tries));
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            if let Some(outbox) = outbox.upgrade() {
                outbox.queue(item);
            }
        });
    }
}

/// What the workers of the outbox share.
struct Pusher {
    outbox: Arc<Outbox>,
    push: Arc<Push>,
    store: Arc<Store>,
}

/// Pushes messages until it is time to end.
pub(crate) async fn run(outbox: Arc<Outbox>, push: Arc<Push>, store: Arc<Store>, stop: Stop) {
    let pusher = Arc::new(Pusher { outbox, push, store });
    let mut tasks = JoinSet::new();
    for index in 0..LANES {
        tasks.spawn(push_lane(pusher.clone(), index, stop.clone()));
    }
    for _ in 0..users::CALLS_MAX {
        for (kind, pace) in Kind::ALL.into_iter().flat_map(|kind| Pace::ALL.map(|pace| (kind, pace))) {
            tasks.spawn(users::push(pusher.clone(), kind, pace, stop.clone()));
        }
    }
    tasks.spawn(take_up(pusher.clone(), stop.clone()));
    tasks.spawn(remove(pusher, stop));
    while tasks.join_next().await.is_some() {}
}

async fn push_lane(pusher: Arc<Pusher>, index: usize, mut stop: Stop) {
    let lane = &pusher.outbox.lanes[index];
    let (mut most, mut failures) = (PUSHES_MAX, 0);
    while !stop.is_due() {
        let batch: Vec<Item> = {
            let mut waiting = lock(&lane.waiting);
            let count = waiting.len().min(most);
            waiting.drain(..count).collect()
        };
        if batch.is_empty() {
            tokio::select! {
                biased; // either wakes it up
                () = stop.wait() => {}
                () = lane.filled.notified() => {}
            }
            continue;
        }
        let items: Vec<PushItem> = batch.iter().map(|item| push_item(&item.message)).collect();
        match pusher.push.send_within(&items, WAIT).await {
            Ok(outcomes) => {
                let (done, open): (Vec<_>, Vec<_>) =
                    batch.into_iter().zip(outcomes).partition(|(item, outcome)| is_done(item, outcome));
                failures = if done.is_empty() { failures + 1 } else { 1 };
                most = PUSHES_MAX;
                pusher.outbox.finish(done.into_iter().map(|(item, _)| item));
                if open.is_empty() {
                    failures = 0;
                    continue;
                }
                // In front, to keep the order within a room.
                put_back(lane, open.into_iter().map(|(item, _)| item).collect());
            }
            // One of them is invalid; halving finds it.
            Err(error) if error.status.is_client_error() && batch.len() == 1 => {
                error!(%error, message = ?batch[0].message, "the push API refuses a message as invalid; it is dropped");
                pusher.outbox.drop_refused(batch.into_iter());
                continue;
            }
            Err(error) if error.status.is_client_error() => {
                most = batch.len() / 2;
                put_back(lane, batch);
                continue;
            }
            Err(error) => {
                if failures == 0 {
                    warn!(%error, "the push API does not accept messages; they wait");
                }
                failures += 1;
                let (rows, mentions): (Vec<_>, Vec<_>) =
                    batch.into_iter().partition(|item| item.id.is_some());
                mentions.into_iter().for_each(|item| pusher.outbox.retry(item));
                put_back(lane, rows);
            }
        }
        tokio::select! {
            biased; // either ends the pause
            () = stop.wait() => {}
            () = tokio::time::sleep(pause(failures)) => {}
        }
    }
}

/// A message without a row is done when the router has it.
fn is_done(item: &Item, outcome: &PushOutcome) -> bool {
    outcome.is_final() || item.id.is_none() && outcome.outcome == "pending"
}

fn push_item(message: &Message) -> PushItem {
    let (user, room) = match message.target {
        Target::User(id) => (Some(id), None),
        Target::Room(id) => (None, Some(id)),
    };
    PushItem {
        app: message.app,
        user,
        room,
        biz_code: message.biz_code,
        client_msg_id: message.key.clone(),
        data: Data::text(message.payload.clone()),
        sender: 0,
        stored: false,
        device: None,
        class: None,
    }
}

fn put_back(lane: &Lane, items: Vec<Item>) {
    let mut waiting = lock(&lane.waiting);
    for item in items.into_iter().rev() {
        waiting.push_front(item);
    }
}

/// Takes up rows that their writers did not push: at the start, and again and again.
async fn take_up(pusher: Arc<Pusher>, mut stop: Stop) {
    while !stop.is_due() {
        if let Err(error) = take_up_due(&pusher).await {
            warn!(%error, "cannot read the outbox table");
        }
        tokio::select! {
            biased; // either ends the pause
            () = stop.wait() => {}
            () = tokio::time::sleep(TAKE_UP_PAUSE) => {}
        }
    }
}

async fn take_up_due(pusher: &Pusher) -> Result<(), Error> {
    let now_ms = pusher.store.clock.now_ms();
    let due = outbox::due(pusher.store.db.primary(), now_ms, TAKE_UP_MAX).await?;
    let ids: Vec<i64> = due.iter().map(|(id, _)| *id).collect();
    // Two processes may take up the same rows at once; then their messages are pushed twice, and seen once.
    outbox::claim(pusher.store.db.writer(), &ids, now_ms + CLAIM_TIME_MS).await?;
    pusher.outbox.hand_over(due);
    Ok(())
}

/// Removes rows that are pushed, many at a time.
async fn remove(pusher: Arc<Pusher>, mut stop: Stop) {
    loop {
        tokio::select! {
            biased; // either wakes it up, and the last time is asked for below
            () = stop.wait() => {}
            () = pusher.outbox.pushed.notified() => {}
        }
        let is_last = stop.is_due();
        if !is_last {
            tokio::time::sleep(GATHER).await;
        }
        let done = std::mem::take(&mut lock(&pusher.outbox.hand).done);
        if !done.is_empty() {
            if let Err(error) = remove_rows(&pusher, &done).await {
                warn!(%error, "cannot delete pushed messages from the outbox table; tried again later");
                lock(&pusher.outbox.hand).done.extend(done);
                pusher.outbox.pushed.notify_one();
                tokio::time::sleep(GATHER * 4).await;
            } else {
                let mut hand = lock(&pusher.outbox.hand);
                done.iter().for_each(|id| {
                    hand.held.remove(id);
                });
            }
        }
        if is_last {
            return;
        }
    }
}

async fn remove_rows(pusher: &Pusher, ids: &[i64]) -> Result<(), Error> {
    let mut tx = pusher.store.db.begin().await?;
    outbox::delete(&mut tx, ids).await?;
    tx.commit().await
}

/// Doubles after each failure, less up to half of it by chance.
fn pause(failures: u32) -> Duration {
    let most = PAUSE_MS_MAX.min(PAUSE_MS_FIRST << failures.min(16).saturating_sub(1));
    Duration::from_millis(most - random::below(most / 2))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lanes for rooms.
const LANES: usize = 4;
/// Rows in memory.
const HELD_MAX: usize = 100_000;
/// Messages without a row in memory, and those of them for one target; more are given up.
const MENTIONS_MAX: usize = 40_000;
const TARGET_MENTIONS_MAX: usize = 256;
/// Tries of a message without a row.
const MENTION_TRIES_MAX: u32 = 8;
/// How long a call waits for outcomes; a user's ack that takes longer is asked for by another call.
const WAIT: Duration = Duration::from_millis(500);
const PAUSE_MS_FIRST: u64 = 100;
const PAUSE_MS_MAX: u64 = 5_000;
const TAKE_UP_PAUSE: Duration = Duration::from_secs(5);
/// Rows that are taken up at once.
const TAKE_UP_MAX: u32 = 5_000;
/// How long a row is left to the process that took it up.
const CLAIM_TIME_MS: i64 = 30_000;
/// How long pushed rows are gathered before they are removed. If the process dies, these are pushed once
/// more.
const GATHER: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    fn mention(outbox: &Outbox, target: Target) -> bool {
        let message = Message { key: "k".into(), app: 1, target, biz_code: 5557, payload: "{}".into() };
        outbox.mention(message).try_recv() != Err(TryRecvError::Closed)
    }

    #[test]
    fn a_target_has_a_share_of_what_is_in_no_table() {
        let outbox = Outbox::default();
        let (many, one) = (Target::Room(1), Target::Room(1 + LANES as i64)); // of the same lane
        let taken = (0..1_000).filter(|_| mention(&outbox, many)).count();
        assert_eq!(taken, TARGET_MENTIONS_MAX);
        assert!(mention(&outbox, one) && mention(&outbox, Target::User(1)));
        assert_eq!(outbox.counts()[2], ("lost", 1_000 - taken as u64));
        let waiting = lock(&outbox.lanes[1].waiting).pop_front();
        outbox.finish(waiting.into_iter());
        assert!(mention(&outbox, many) && !mention(&outbox, many), "one is done");
    }

    #[test]
    fn there_are_so_many_in_all() {
        let outbox = Outbox::default();
        let taken = (0..2 * MENTIONS_MAX as i64).filter(|id| mention(&outbox, Target::Room(*id))).count();
        assert_eq!(taken, MENTIONS_MAX);
        outbox.lanes.iter().for_each(|lane| lock(&lane.waiting).clear());
        assert!(lock(&outbox.mentions).by_target.is_empty());
    }
}
