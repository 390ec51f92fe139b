//! The control thread's end of the shards' mail: questions with their answers, and orders.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::{Remote, Running, Stats};
use gateway::Push;
use node::{Control, Mail, Peer, Report, ShardMetrics};
use shard::ShardId;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use wire::client::{Message, Outcome};
use wire::node::{Answer, FoundSeat, Login, Presence, Question, Seat, SessionId, Stream, Target};
use wire::{AppId, ClientMsgId, RoomId, UserId};

use crate::directory::Binding;
use crate::role::Role;

/// How long a shard may take to answer before it counts as stuck, and a router before it counts as gone.
pub const ANSWER_TIME: Duration = Duration::from_secs(1);
/// How often a full mailbox is tried again.
const RETRY_TIME: Duration = Duration::from_millis(2);

/// The shards of this node, as the control thread sees them.
pub struct Shards {
    role: Role,
    ids: Vec<ShardId>,
    remote: Remote<Mail>,
    stats: Vec<Arc<Stats>>,
    asked: Mutex<HashMap<u64, mpsc::UnboundedSender<Report>>>,
    asks: AtomicU64,
    draining: AtomicBool,
    frame_bytes_max: AtomicU32,
    /// One permit for each shard that has drained.
    drained: Semaphore,
    drain_asked: Notify,
    /// How often routers said that another process has the number of this node.
    same_number: AtomicU64,
}

/// Why a question got no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unanswered {
    /// That shard of this node does not answer.
    Shard(ShardId),
    /// No router is linked.
    NoRouter,
    /// A router did not answer in time.
    Router,
}

/// The result of a push.
#[derive(Clone, Copy, Debug)]
pub struct Pushed {
    /// The message's id; 0 when it got none.
    pub id: u64,
    /// What is known of its outcome.
    pub fate: Fate,
}

/// What is known of a push's outcome.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// It is lossy, so there is no outcome.
    Sent,
    /// Its owner's outcome.
    Known(Outcome),
    /// Its owner has not said anything yet.
    Pending,
}

impl Shards {
    /// The shards `ids` of `running`. A thread hands their reports to the askers. No push is longer than
    /// `frame_bytes_max`.
    pub fn new(
        role: Role,
        ids: Vec<ShardId>,
        running: &Running<Mail, Report>,
        frame_bytes_max: u32,
    ) -> Arc<Self> {
        let shards = Arc::new(Self {
            role,
            ids,
            remote: running.remote(),
            stats: running.stats().to_vec(),
            asked: Mutex::default(),
            asks: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            frame_bytes_max: frame_bytes_max.into(),
            drained: Semaphore::new(0),
            drain_asked: Notify::new(),
            same_number: AtomicU64::new(0),
        });
        let (reports, to) = (running.control().clone(), shards.clone());
        std::thread::spawn(move || {
            for (_, report) in reports {
                to.report(report);
            }
        });
        shards
    }

    /// The role of this node.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The own number.
    pub fn node(&self) -> u16 {
        self.ids[0].node()
    }

    /// How often routers have said that another process, which started earlier, has the number of this node.
    pub fn same_number(&self) -> u64 {
        self.same_number.load(Ordering::Relaxed)
    }

    /// Each shard's id.
    pub fn ids(&self) -> &[ShardId] {
        &self.ids
    }

    /// Each shard's engine counters.
    pub fn stats(&self) -> &[Arc<Stats>] {
        &self.stats
    }

    /// Sets the nodes that every shard links with. A shard with a full mailbox gets them again soon.
    pub fn set_nodes(&self, routers: &[SocketAddr], bridges: &[SocketAddr]) {
        for id in &self.ids {
            let nodes = Control::Nodes { routers: routers.to_vec(), bridges: bridges.to_vec() };
            let _ = self.remote.send(*id, Mail::Control(nodes));
        }
    }

    /// Passes on the sessions that the directory found.
    pub fn found(&self, to: ShardId, app: AppId, user: UserId, bindings: &[Binding]) {
        let seat = |binding: &Binding| FoundSeat {
            seat: Seat { device: binding.device, shard: binding.shard.as_u32(), login: Login(binding.login) },
            session: SessionId(binding.session),
            incarnation: binding.incarnation,
        };
        let found = Control::Found { app, user, seats: bindings.iter().map(seat).collect() };
        // Lost if the shard is that busy: the waiter then waits no longer than it would without a directory.
        let _ = self.remote.send(to, Mail::Control(found));
    }

    /// Passes on a room's stream from the directory. Lost if the shard is that busy, as found sessions are.
    pub fn stream(&self, to: ShardId, stream: Stream) {
        let _ = self.remote.send(to, Mail::Control(Control::Stream(Box::new(stream))));
    }

    /// Reports that the directory has refused what an owner wrote to a room's stream. Lost if the shard is
    /// that busy: then the stream lacks the room's messages until the room has another owner.
    pub fn stream_is_ahead(&self, to: ShardId, app: AppId, room: RoomId, refused: u64) {
        let _ = self.remote.send(to, Mail::Control(Control::StreamIsAhead { app, room, refused }));
    }

    /// Has shards send every binding to the directory again. A shard that is too busy for this gets it again
    /// with the next loss.
    pub fn resync(&self) {
        for id in &self.ids {
            let _ = self.remote.send(*id, Mail::Control(Control::Resync));
        }
    }

    /// From here on, a frame with a push may be no longer than this.
    pub fn set_frame_bytes_max(&self, bytes: u32) {
        self.frame_bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// Whether a message may be pushed. Each entry point for pushes checks this: a message that does not fit
    /// a client's frame reaches nobody, and one that does not fit a link's frame stops the link for good.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_push(&self, client_msg_id: &ClientMsgId, payload: &[u8]) -> Result<(), String> {
        let bytes_max = self.frame_bytes_max.load(Ordering::Relaxed);
        if Message::fits(client_msg_id.as_bytes(), payload, bytes_max as usize) {
            return Ok(());
        }
        let bytes = payload.len();
        Err(format!("{bytes} bytes; limits.frame_bytes_max is {bytes_max}, for all of the message in JSON"))
    }

    /// Sends an order to every shard. Returns whether all took it.
    pub async fn order(&self, control: impl Fn() -> Control) -> bool {
        let deadline = Instant::now() + ANSWER_TIME;
        let mut all = true;
        for id in &self.ids {
            all &= self.deliver(*id, control(), deadline).await;
        }
        all
    }

    /// Marks this node as draining, for all who ask.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Starts the drain on every shard.
    pub async fn drain(&self) {
        self.set_draining();
        self.order(|| Control::Drain).await;
    }

    /// Whether this node drains.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Waits until every shard has drained.
    pub async fn drained(&self) {
        let count = u32::try_from(self.ids.len()).expect("there are few shards");
        let _ = self.drained.acquire_many(count).await; // never closed
    }

    /// Asks for a drain of this node.
    pub fn ask_for_drain(&self) {
        self.drain_asked.notify_one();
    }

    /// Waits until somebody asks for a drain of this node.
    pub async fn drain_asked(&self) {
        self.drain_asked.notified().await;
    }

    /// The metrics of each shard, in the order of [`Shards::ids`]; `None` for a shard that does not answer.
    pub async fn metrics(self: &Arc<Self>) -> Vec<Option<Box<ShardMetrics>>> {
        let answers = self.ask_all(|ask| Control::Stats { ask }).await.into_iter();
        answers
            .map(|answer| match answer {
                Some(Report::Stats { metrics, .. }) => Some(metrics),
                _ => None,
            })
            .collect()
    }

    /// The links of each shard, in the order of [`Shards::ids`]; none for one that does not answer in time.
    pub async fn peers(self: &Arc<Self>) -> Vec<(ShardId, Vec<Peer>)> {
        let answers = self.ask_all(|ask| Control::Peers { ask }).await;
        let of = |(id, answer): (&ShardId, Option<Report>)| match answer {
            Some(Report::Peers { peers, .. }) => (*id, peers),
            _ => (*id, Vec::new()),
        };
        self.ids.iter().zip(answers).map(of).collect()
    }

    /// Which of `users` are online, as the routers that own them answer, in unspecified order. And whether
    /// these routers know every session.
    ///
    /// # Errors
    /// Which shard or router did not answer in time.
    pub async fn online(
        self: &Arc<Self>,
        app: AppId,
        users: Vec<UserId>,
    ) -> Result<(Vec<Presence>, bool), Unanswered> {
        let (mut presences, mut all_settled) = (Vec::new(), true);
        for answer in self.question(Question::Online { app, users }).await? {
            if let Answer::Online { users, settled } = answer {
                presences.extend(users);
                all_settled &= settled;
            }
        }
        Ok((presences, all_settled))
    }

    /// Asks the routers that know, and no other routers.
    ///
    /// # Errors
    /// Which shard or router did not answer in time.
    pub async fn question(self: &Arc<Self>, question: Question) -> Result<Vec<Answer>, Unanswered> {
        // All shards of a gateway have the same links; those of a router or of `up` know only what they own.
        let first = self.ids[0];
        if self.role == Role::Router {
            let asked = self.ask_all(|ask| Control::Ask { ask, question: question.clone() }).await;
            let mut answers = Vec::with_capacity(asked.len());
            for (id, answer) in self.ids.iter().zip(asked) {
                answers.push(answer.and_then(answer_of).ok_or(Unanswered::Shard(*id))?);
            }
            return Ok(merged(answers));
        }
        let asked = self.begin(first, |ask| Control::Ask { ask, question }).await;
        self.answers(asked).await
    }

    /// Sends a lossy message to every session of its app. Returns how many gateway shards got it.
    ///
    /// # Errors
    /// Which shard or router did not answer in time.
    pub async fn push_to_all(self: &Arc<Self>, push: Push) -> Result<u32, Unanswered> {
        let asked = self.begin(self.ids[0], |ask| Control::PushAll { ask, push }).await;
        let told = self.answers(asked).await?.into_iter().map(|answer| match answer {
            Answer::Told { shards } => shards,
            Answer::Online { .. } | Answer::Kicked { .. } | Answer::Nodes { .. } | Answer::History { .. } => {
                0
            }
        });
        Ok(told.fold(0, u32::saturating_add))
    }

    /// The answers of routers to a question that the first shard took.
    async fn answers(&self, asked: Option<Asked>) -> Result<Vec<Answer>, Unanswered> {
        let first = self.ids[0];
        let mut asked = asked.ok_or(Unanswered::Shard(first))?;
        let parts = match asked.next().await {
            Some(Report::Asked { parts: 0, .. }) => return Err(Unanswered::NoRouter),
            Some(Report::Asked { parts, .. }) => parts,
            _ => return Err(Unanswered::Shard(first)),
        };
        let mut answers = Vec::with_capacity(parts);
        for _ in 0..parts {
            answers.push(asked.next().await.and_then(answer_of).ok_or(Unanswered::Router)?);
        }
        Ok(answers)
    }

    /// Sends a message and waits for its outcome, up to `patience`.
    ///
    /// # Errors
    /// No router is linked, or the shard did not take it.
    pub async fn push(
        self: &Arc<Self>,
        target: Target,
        push: Push,
        patience: Duration,
    ) -> Result<Pushed, Unanswered> {
        let asked = self.begin(self.ids[0], |ask| Control::Push { ask, target, push }).await;
        self.pushed(asked.ok_or(Unanswered::Shard(self.ids[0]))?, patience).await
    }

    /// Sends messages and waits for their outcomes, up to `patience` in all. Those to one target go in order.
    pub async fn push_all(
        self: &Arc<Self>,
        pushes: Vec<(Target, Push)>,
        patience: Duration,
    ) -> Vec<Result<Pushed, Unanswered>> {
        let (shard, count) = (self.ids[0], pushes.len());
        let mut under_way = Vec::with_capacity(count);
        let taken_by = Instant::now() + ANSWER_TIME;
        for (target, push) in pushes {
            let asked = self.begin_by(taken_by, shard, |ask| Control::Push { ask, target, push }).await;
            let Some(asked) = asked else { break }; // later messages would overtake it
            under_way.push(asked);
        }
        let (answered_by, deadline) = (Instant::now() + ANSWER_TIME, Instant::now() + patience);
        let mut pushed = Vec::with_capacity(count);
        for mut asked in under_way {
            asked.deadline = answered_by;
            // An outcome that came in time counts, however late it is read.
            pushed.push(self.pushed(asked, deadline.saturating_duration_since(Instant::now())).await);
        }
        pushed.resize(count, Err(Unanswered::Shard(shard)));
        pushed
    }

    async fn pushed(&self, mut asked: Asked, patience: Duration) -> Result<Pushed, Unanswered> {
        let id = match asked.next().await {
            Some(Report::Taken { id, .. }) => id,
            Some(Report::Pushed { id, outcome, .. }) => return Ok(Pushed::of(id, outcome)),
            Some(Report::Asked { .. }) => return Err(Unanswered::NoRouter),
            _ => return Err(Unanswered::Shard(self.ids[0])),
        };
        asked.deadline = Instant::now() + patience;
        match asked.next().await {
            Some(Report::Pushed { id, outcome, .. }) => Ok(Pushed::of(id, outcome)),
            _ => Ok(Pushed { id, fate: Fate::Pending }),
        }
    }

    /// Asks all shards at once: a stuck one delays no other.
    async fn ask_all(self: &Arc<Self>, control: impl Fn(u64) -> Control) -> Vec<Option<Report>> {
        let asked: Vec<JoinHandle<Option<Report>>> = self
            .ids
            .iter()
            .map(|id| {
                let (shards, id) = (self.clone(), *id);
                let ask = shards.asks.fetch_add(1, Ordering::Relaxed);
                let control = control(ask);
                tokio::spawn(async move {
                    let mut asked = shards.begin_as(ask, Instant::now() + ANSWER_TIME, id, control).await?;
                    match asked.next().await {
                        Some(Report::Asked { .. }) => asked.next().await,
                        report => report,
                    }
                })
            })
            .collect();
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            answers.push(answer.await.ok().flatten());
        }
        answers
    }

    async fn begin(self: &Arc<Self>, id: ShardId, control: impl FnOnce(u64) -> Control) -> Option<Asked> {
        self.begin_by(Instant::now() + ANSWER_TIME, id, control).await
    }

    async fn begin_by(
        self: &Arc<Self>,
        deadline: Instant,
        id: ShardId,
        control: impl FnOnce(u64) -> Control,
    ) -> Option<Asked> {
        let ask = self.asks.fetch_add(1, Ordering::Relaxed);
        self.begin_as(ask, deadline, id, control(ask)).await
    }

    /// Asks a shard; `None` if it does not take the question in time.
    async fn begin_as(
        self: &Arc<Self>,
        ask: u64,
        deadline: Instant,
        id: ShardId,
        control: Control,
    ) -> Option<Asked> {
        let (answer, reports) = mpsc::unbounded_channel();
        self.asked().insert(ask, answer);
        let asked = Asked { shards: self.clone(), ask, reports, deadline };
        self.deliver(id, control, deadline).await.then_some(asked)
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
            Report::Stats { ask, .. }
            | Report::Peers { ask, .. }
            | Report::Asked { ask, .. }
            | Report::Answer { ask, .. }
            | Report::Taken { ask, .. }
            | Report::Pushed { ask, .. } => {
                if let Some(answer) = self.asked().get(&ask) {
                    let _ = answer.send(report); // the asker may have given up
                }
            }
            Report::DrainAsked => self.ask_for_drain(),
            Report::SameNumber => {
                self.same_number.fetch_add(1, Ordering::Relaxed);
            }
            Report::Drained => self.drained.add_permits(1),
        }
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, HashMap<u64, mpsc::UnboundedSender<Report>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pushed {
    fn of(id: u64, outcome: Option<Outcome>) -> Self {
        Self { id, fate: outcome.map_or(Fate::Sent, Fate::Known) }
    }
}

/// A question under way.
struct Asked {
    shards: Arc<Shards>,
    ask: u64,
    reports: mpsc::UnboundedReceiver<Report>,
    deadline: Instant,
}

impl Asked {
    /// The next report, if it comes in time.
    async fn next(&mut self) -> Option<Report> {
        tokio::time::timeout_at(self.deadline, self.reports.recv()).await.ok().flatten()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.shards.asked().remove(&self.ask);
    }
}

fn answer_of(report: Report) -> Option<Answer> {
    match report {
        Report::Answer { answer, .. } => Some(answer),
        _ => None,
    }
}

/// Merges the answers of a router's own shards about the same users: only the shard that owns a user knows
/// it.
fn merged(answers: Vec<Answer>) -> Vec<Answer> {
    let mut users: Vec<Presence> = Vec::new();
    let (mut others, mut all_settled) = (Vec::new(), true);
    for answer in answers {
        match answer {
            Answer::Online { users: some, settled } => {
                all_settled &= settled;
                for presence in some {
                    match users.iter_mut().find(|known| known.user == presence.user) {
                        Some(known) => known.seats.extend(presence.seats),
                        None => users.push(presence),
                    }
                }
            }
            other => others.push(other),
        }
    }
    if !users.is_empty() {
        others.push(Answer::Online { users, settled: all_settled });
    }
    others
}
