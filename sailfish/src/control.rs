//! The control thread's end of the shards' mail: questions with their answers, and orders.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::{Remote, Running, Stats};
use shard::ShardId;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use wire::node::Owners;
use wire::{AppId, UserId};

use crate::node::{Control, Mail, Presence, Report, ShardMetrics};

/// How long a shard may take to answer before it counts as stuck.
pub const ANSWER_TIME: Duration = Duration::from_secs(1);
/// How often a full mailbox is tried again.
const RETRY_TIME: Duration = Duration::from_millis(2);

/// The shards of this node, as the control thread sees them.
pub struct Shards {
    ids: Vec<ShardId>,
    remote: Remote<Mail>,
    stats: Vec<Arc<Stats>>,
    owners: Owners,
    asked: Mutex<HashMap<u64, oneshot::Sender<Report>>>,
    asks: AtomicU64,
    draining: AtomicBool,
    /// One permit for each shard that has drained.
    drained: Semaphore,
}

impl Shards {
    /// The shards `ids` of `running`. A thread hands their reports to whoever asked.
    pub fn new(ids: Vec<ShardId>, running: &Running<Mail>, owners: Owners) -> Arc<Self> {
        let shards = Arc::new(Self {
            ids,
            remote: running.remote(),
            stats: running.stats().to_vec(),
            owners,
            asked: Mutex::default(),
            asks: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            drained: Semaphore::new(0),
        });
        let (reports, to) = (running.control().clone(), shards.clone());
        std::thread::spawn(move || {
            for (_, mail) in reports {
                if let Mail::Report(report) = mail {
                    to.report(report);
                }
            }
        });
        shards
    }

    /// Each shard's id.
    pub fn ids(&self) -> &[ShardId] {
        &self.ids
    }

    /// Each shard's engine counters.
    pub fn stats(&self) -> &[Arc<Stats>] {
        &self.stats
    }

    /// Gives an order to every shard; answers whether all took it.
    pub async fn order(&self, control: impl Fn() -> Control) -> bool {
        let deadline = Instant::now() + ANSWER_TIME;
        let mut all = true;
        for id in &self.ids {
            all &= self.deliver(*id, control(), deadline).await;
        }
        all
    }

    /// Starts the farewell on every shard.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.order(|| Control::Drain).await;
    }

    /// Whether the farewell has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Waits until every shard has drained.
    pub async fn drained(&self) {
        let count = u32::try_from(self.ids.len()).expect("there are few shards");
        let _ = self.drained.acquire_many(count).await; // never closed
    }

    /// What each shard counts, in the order of [`Shards::ids`]; `None` for one that does not answer in time.
    pub async fn metrics(self: &Arc<Self>) -> Vec<Option<Box<ShardMetrics>>> {
        let asked = self.ids.iter().map(|id| self.ask(*id, |ask| Control::Stats { ask })).collect();
        let answers = answers(asked).await.into_iter();
        answers
            .map(|answer| match answer {
                Some(Report::Stats { metrics, .. }) => Some(metrics),
                _ => None,
            })
            .collect()
    }

    /// Which of `users` are online, asked of the shards that own them; in no particular order.
    ///
    /// # Errors
    /// The shard that did not answer in time.
    pub async fn online(self: &Arc<Self>, app: AppId, users: &[UserId]) -> Result<Vec<Presence>, ShardId> {
        let owned_by = |id: ShardId| {
            let of = |user: &&UserId| self.owners.of_user(app, **user) == id.as_u32();
            users.iter().filter(of).copied().collect::<Vec<_>>()
        };
        let owners: Vec<ShardId> = self.ids.iter().copied().filter(|id| !owned_by(*id).is_empty()).collect();
        let ask = |id: &ShardId| {
            let users = owned_by(*id);
            self.ask(*id, move |ask| Control::Online { ask, app, users })
        };
        let asked = owners.iter().map(ask).collect();
        let mut found = Vec::with_capacity(users.len());
        for (id, answer) in owners.iter().zip(answers(asked).await) {
            match answer {
                Some(Report::Online { users, .. }) => found.extend(users),
                _ => return Err(*id),
            }
        }
        Ok(found)
    }

    /// Asks a shard, apart from what the others are asked: a stuck one takes no time from them.
    fn ask(
        self: &Arc<Self>,
        id: ShardId,
        control: impl FnOnce(u64) -> Control + Send + 'static,
    ) -> JoinHandle<Option<Report>> {
        let shards = self.clone();
        tokio::spawn(async move {
            let deadline = Instant::now() + ANSWER_TIME;
            let ask = shards.asks.fetch_add(1, Ordering::Relaxed);
            let (answer, answered) = oneshot::channel();
            shards.asked().insert(ask, answer);
            shards.deliver(id, control(ask), deadline).await;
            let answer = tokio::time::timeout_at(deadline, answered).await;
            shards.asked().remove(&ask);
            answer.ok()?.ok()
        })
    }

    /// Puts mail into a shard's mailbox. A full one belongs to a busy shard, and has room again soon.
    async fn deliver(&self, id: ShardId, control: Control, deadline: Instant) -> bool {
        let mut mail = Mail::Control(control);
        loop {
            match self.remote.send(id, mail) {
                Ok(()) => return true,
                Err(_) if Instant::now() >= deadline => return false,
                Err(refused) => mail = refused,
            }
            tokio::time::sleep(RETRY_TIME).await;
        }
    }

    fn report(&self, report: Report) {
        match report {
            Report::Stats { ask, .. } | Report::Online { ask, .. } => {
                if let Some(answer) = self.asked().remove(&ask) {
                    let _ = answer.send(report); // whoever asked may have given up
                }
            }
            Report::Drained => self.drained.add_permits(1),
        }
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Report>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answers to what was asked, in that order; `None` for one that did not come in time.
async fn answers(asked: Vec<JoinHandle<Option<Report>>>) -> Vec<Option<Report>> {
    let mut answers = Vec::with_capacity(asked.len());
    for answer in asked {
        answers.push(answer.await.ok().flatten());
    }
    answers
}
