//! Random events against a plain model of the rules, and the same events twice.

mod common;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use common::*;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use router::{Config, Keeps, Limits};
use shard::{Instant, ShardId};
use wire::client::{FailReason, Message, NoticeCode, Outcome, SendAck};
use wire::node::{Class, DeliveryId, Login, SessionId, Submission, Target, ToGateway, ToRouter};
use wire::{AppId, BizCode, ClientMsgId, DeviceClass, MessageId, RoomId, UserId};

/// Small enough that every limit is met often.
const LIMITS: Limits = Limits {
    memberships_max: 1_000,
    bindings_max: 6,
    pending_max: 3,
    pending_sender_max: 3,
    pending_receiver_max: 2,
    pending_receiver_bytes_max: 1 << 20,
    pending_timeout_ms: 2_000,
    bridge_timeout_ms: 2_000,
    dedupe_max: 5,
    dedupe_sender_max: 4,
    dedupe_window_ms: 1_000,
    settle_ms: 500,
    away_ms: 0,
    room_messages_per_second: 1_000_000,
    room_burst: 1_000_000,
    // The model keeps no history; tests/history.rs is about that.
    history_messages: 0,
    history_bytes: 64 * 1024,
    history_ms: 60_000,
    history_bytes_max: 1 << 20,
};
const EPOCH_UNIX_MS: u64 = 1_704_067_200_000;
const MOVE_GAP: u64 = 1 << 16;
/// Of sequences: all slots of all routers.
const CYCLE: u64 = 1 << 21;
/// Where the router's own slot begins in it.
const SLOT: u64 = ((ROUTER.node() as u64 * 32 + ROUTER.index() as u64) * 20_251 % (1 << 15)) << 6;
const SHARDS: [ShardId; 3] = [A, B, C];

/// What a test does next. Numbers are taken modulo what there is to choose from.
#[derive(Clone, Debug)]
enum Step {
    Bind {
        shard: usize,
        user: i64,
        device: usize,
        session: u64,
        login: u64,
        fresh: bool,
    },
    Unbind {
        shard: usize,
        user: i64,
        device: usize,
        session: u64,
        moved: bool,
    },
    /// Unbinds a session that is bound.
    UnbindOne {
        pick: usize,
        moved: bool,
    },
    Join {
        shard: usize,
        room: i64,
        /// How far the shard has seen more than the router, or less; `None` when it has seen nothing.
        ahead: Option<i64>,
    },
    Leave {
        shard: usize,
        room: i64,
    },
    Submit {
        shard: usize,
        session: u64,
        target: Target,
        class: Class,
        name: &'static str,
    },
    /// Settles a delivery of the last few, done or not, at its session or at another.
    Settle {
        pick: usize,
        stray: bool,
        outcome: Outcome,
    },
    Pass {
        ms: u64,
    },
    /// A gateway shard goes.
    Down {
        shard: usize,
    },
    /// It comes back, if it was gone.
    Up {
        shard: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let shard = || 0..SHARDS.len();
    let binding = || (shard(), 1..5i64, 0..3usize, 1..4u64);
    let target = prop_oneof![3 => (1..6i64).prop_map(|id| Target::User(UserId(id))), 2 => (1..4i64).prop_map(|id| Target::Room(RoomId(id)))];
    let class = prop_oneof![3 => Just(Class::Reliable), 1 => Just(Class::Lossy)];
    let name = prop::sample::select(vec!["", "a", "b", "c", "d", "e", "f"]);
    let outcome = prop_oneof![
        2 => Just(Outcome::Delivered),
        3 => prop::sample::select(FailReason::ALL.to_vec()).prop_map(Outcome::Failed),
    ];
    prop_oneof![
        4 => (binding(), 0..20u64, prop::bool::weighted(0.7)).prop_map(
            |((shard, user, device, session), login, fresh)| {
                Step::Bind { shard, user, device, session, login: login * RAISE / 4, fresh }
            }
        ),
        1 => (binding(), any::<bool>()).prop_map(|((shard, user, device, session), moved)| {
            Step::Unbind { shard, user, device, session, moved }
        }),
        1 => any::<(usize, bool)>().prop_map(|(pick, moved)| Step::UnbindOne { pick, moved }),
        2 => (shard(), 1..4i64, prop_oneof![3 => Just(None), 1 => (-3..4i64).prop_map(Some)])
            .prop_map(|(shard, room, ahead)| Step::Join { shard, room, ahead }),
        2 => (shard(), 1..4i64).prop_map(|(shard, room)| Step::Leave { shard, room }),
        8 => (shard(), 1..4u64, target, class, name)
            .prop_map(|(shard, session, target, class, name)| Step::Submit { shard, session, target, class, name }),
        6 => (any::<usize>(), prop::bool::weighted(0.1), outcome)
            .prop_map(|(pick, stray, outcome)| Step::Settle { pick, stray, outcome }),
        2 => prop_oneof![4 => 0..3u64, 2 => 0..600u64, 1 => 0..3_000u64].prop_map(|ms| Step::Pass { ms }),
        // A stays: with no gateway at all, the router would wait for others.
        1 => (1..SHARDS.len()).prop_map(|shard| Step::Down { shard }),
        3 => (1..SHARDS.len()).prop_map(|shard| Step::Up { shard }),
    ]
}

/// The first sequence from `from` on at which the router's slot begins.
fn next_slot(from: u64) -> u64 {
    from + (SLOT + CYCLE - from % CYCLE) % CYCLE
}

type Seat = (ShardId, SessionId);
/// With the id under which the sender's shard submitted.
type Sender = (Seat, MessageId);
type Name = (AppId, UserId, Target, ClientMsgId);

/// The rules in maps and lists, with no thought of speed. A delivery is named by its message's id.
#[derive(Default)]
struct Model {
    now: Instant,
    /// By how much the fastest clock that it has heard of is ahead.
    ahead_ns: u64,
    linked: BTreeSet<ShardId>,
    bindings: BTreeMap<(UserId, DeviceClass), (Seat, Login)>,
    ends: BTreeMap<(UserId, DeviceClass), Login>,
    /// Of sessions whose stamps were put above an end, what these were.
    ranks: BTreeMap<(UserId, DeviceClass), Login>,
    rooms: BTreeMap<RoomId, (u64, BTreeSet<ShardId>)>,
    sequence_floor: u64,
    /// Oldest first.
    pending: Vec<Letter>,
    /// Oldest first.
    done: VecDeque<(Instant, Name, MessageId, Option<Outcome>)>,
    said: Mail,
}

struct Letter {
    due: Instant,
    name: Name,
    sender: Sender,
    again: bool,
    receiver: UserId,
    waiting: Vec<Seat>,
    message: Message,
}

impl Model {
    fn tell(&mut self, from: ShardId, mail: &ToRouter) -> Mail {
        if !self.linked.contains(&from) {
            return Mail::new();
        }
        match mail.clone() {
            ToRouter::Bind { user, device, session, login, fresh, .. } => {
                self.ahead_ns = self.ahead_ns.max(login.0.saturating_sub(self.now.unix_nanos()));
                self.bind((from, session), user, device, login, fresh);
            }
            ToRouter::Unbind { user, device, session, moved, .. } => {
                self.unbind((from, session), user, device, moved);
            }
            ToRouter::Join { app, room, sequence: seen } => {
                let base = self.ms() << 12;
                let after_seen = if seen == 0 { 0 } else { next_slot(seen.max(base) + MOVE_GAP) };
                let base = next_slot(base).max(self.sequence_floor).max(after_seen);
                let (sequence, members) = self.rooms.entry(room).or_insert((base, BTreeSet::new()));
                members.insert(from);
                if seen > *sequence {
                    *sequence = after_seen;
                }
                let joined = ToGateway::Joined { app, room, sequence: *sequence };
                self.gateway(from, joined);
            }
            ToRouter::Leave { room, .. } => self.leave(from, room),
            ToRouter::Submit { session, submission } => {
                self.submit(((from, session), submission.id), submission);
            }
            ToRouter::Settle { delivery, session, outcome } => {
                let outcome = match outcome {
                    // They would ask the sender to try again, but the message is handed over.
                    Outcome::Failed(
                        FailReason::NotMember
                        | FailReason::NoRoute
                        | FailReason::Busy
                        | FailReason::BadContent,
                    ) => Outcome::Failed(FailReason::Unacked),
                    other => other,
                };
                self.settle((from, session), MessageId(delivery.0), outcome);
            }
            other => panic!("no step says {other:?}"),
        }
        std::mem::take(&mut self.said)
    }

    fn down(&mut self, shard: ShardId) -> Mail {
        if self.linked.remove(&shard) {
            let there = self.bindings.clone().into_iter().filter(|(_, (seat, _))| seat.0 == shard);
            for ((user, device), (seat, _)) in there {
                self.unbind(seat, user, device, false);
            }
            self.rooms.clone().into_keys().for_each(|room| self.leave(shard, room));
            let mut waiting = Vec::new();
            for letter in &self.pending {
                let there = letter.waiting.iter().filter(|seat| seat.0 == shard);
                waiting.extend(there.map(|seat| (*seat, letter.message.id)));
            }
            for (seat, id) in waiting {
                self.settle(seat, id, Outcome::Failed(FailReason::Disconnected));
            }
        }
        // What it would be told is nothing to its next life.
        self.said.retain(|(to, _)| *to != shard);
        std::mem::take(&mut self.said)
    }

    fn leave(&mut self, shard: ShardId, room: RoomId) {
        let Some((sequence, members)) = self.rooms.get_mut(&room) else { return };
        members.remove(&shard);
        if members.is_empty() {
            self.sequence_floor = self.sequence_floor.max(*sequence);
            self.rooms.remove(&room);
        }
    }

    fn gateway(&mut self, to: ShardId, message: ToGateway) {
        self.said.push((to, Said::ToGateway(message)));
    }

    fn bind(&mut self, seat: Seat, user: UserId, device: DeviceClass, mut login: Login, fresh: bool) {
        let (shard, session) = seat;
        match self.bindings.get(&(user, device)).copied() {
            None if self.bindings.len() == LIMITS.bindings_max as usize => {
                self.said.push(kicked(shard, session.0, NoticeCode::ServerFull));
                if !fresh {
                    self.offline(user, device, login);
                }
                return;
            }
            None => {
                let ended = self.ends.get(&(user, device)).copied().unwrap_or_default();
                if login <= ended {
                    if !fresh {
                        self.ranks.insert((user, device), login);
                    }
                    login = if fresh { Login(ended.0 + RAISE) } else { ended.raised() };
                }
                self.said.push(online(user, device, login));
            }
            Some((old, known)) if old == seat => login = login.max(known),
            Some((_, known)) if fresh && known > login => {
                return self.gateway(shard, ToGateway::AskAgain { session, above: known });
            }
            Some((_, known))
                if known > login && self.ranks.get(&(user, device)).is_none_or(|rank| *rank >= login) =>
            {
                return self.said.push(kicked(shard, session.0, NoticeCode::Kicked));
            }
            Some(((shard, session), known)) => {
                let rank = self.ranks.remove(&(user, device)).map(|_| login);
                login = login.max(Login(known.0 + RAISE));
                if let Some(rank) = rank.filter(|rank| *rank < login) {
                    self.ranks.insert((user, device), rank);
                }
                self.said.push(kicked(shard, session.0, NoticeCode::Kicked));
                self.said.push(online(user, device, login));
            }
        }
        self.bindings.insert((user, device), (seat, login));
        self.said.push(bound(shard, session.0, login));
    }

    fn unbind(&mut self, seat: Seat, user: UserId, device: DeviceClass, moved: bool) {
        let known = self.bindings.get(&(user, device)).copied();
        if let Some((_, login)) = known.filter(|(known, _)| *known == seat) {
            self.bindings.remove(&(user, device));
            self.ranks.remove(&(user, device));
            if !moved {
                self.offline(user, device, login);
            }
        }
    }

    fn offline(&mut self, user: UserId, device: DeviceClass, login: Login) {
        let known = self.ends.entry((user, device)).or_default();
        *known = login.max(*known);
        self.said.push(offline(user, device, login));
    }

    fn submit(&mut self, sender: Sender, submission: Submission) {
        let name = (submission.app, submission.sender, submission.target, submission.client_msg_id.clone());
        let named = !name.3.is_empty();
        if named {
            if let Some(letter) = self.pending.iter_mut().find(|letter| letter.name == name) {
                if submission.is_answered() {
                    let is_older = submission.again && (!letter.again || submission.id < letter.sender.1);
                    let other = match is_older {
                        true => sender,
                        false => {
                            letter.again = submission.again;
                            std::mem::replace(&mut letter.sender, sender)
                        }
                    };
                    let ((shard, _), submitted) = other;
                    self.said.push(superseded(shard, submitted));
                }
                return;
            }
            let window = Duration::from_millis(LIMITS.dedupe_window_ms.into());
            self.done.retain(|(since, ..)| self.now.since(*since) < window);
            if let Some((.., id, outcome)) = self.done.iter().rfind(|(_, known, ..)| *known == name).cloned()
            {
                match outcome {
                    Some(outcome) if submission.is_answered() => {
                        return self.ack(sender, &name, id, outcome);
                    }
                    // Nothing is known of a lossy one that its sender could be told.
                    None if submission.is_answered() => {}
                    Some(_) | None => return,
                }
            }
        }
        match submission.target {
            Target::User(user) => self.submit_to_user(sender, name, user, submission),
            Target::Room(room) => self.submit_to_room(sender, name, room, submission),
        }
    }

    fn submit_to_user(&mut self, sender: Sender, name: Name, receiver: UserId, submission: Submission) {
        let of_user = self.bindings.iter().filter(|((user, _), _)| *user == receiver);
        let waiting: Vec<Seat> = of_user.map(|(_, (seat, _))| *seat).collect();
        let lossy = submission.class == Class::Lossy;
        if lossy && waiting.is_empty() {
            return;
        }
        let for_receiver = self.pending.iter().filter(|letter| letter.receiver == receiver).count();
        let is_full = self.pending.len() == LIMITS.pending_max as usize
            || for_receiver == LIMITS.pending_receiver_max as usize;
        let full = !lossy && is_full;
        if full && !waiting.is_empty() && !name.3.is_empty() {
            return self.ack(sender, &name, MessageId(0), Outcome::Failed(FailReason::Busy));
        }
        let again = submission.again;
        let message = message(None, 0, submission);
        if lossy {
            self.remember(&name, message.id, None);
        }
        if !full {
            for &(shard, session) in &waiting {
                let delivery = (!lossy).then_some(DeliveryId(message.id.0));
                let (again, message) = (again && !lossy, message.clone());
                self.gateway(shard, ToGateway::Deliver { session, delivery, again, message });
            }
        }
        if lossy {
            return;
        }
        let due = self.now + Duration::from_millis(LIMITS.pending_timeout_ms.into());
        let offline = waiting.is_empty();
        let letter = Letter { due, name, sender, again, receiver, waiting, message };
        if offline {
            self.conclude(letter, Outcome::Failed(FailReason::Offline));
        } else if full {
            self.conclude(letter, Outcome::Failed(FailReason::Busy));
        } else {
            self.pending.push(letter);
        }
    }

    fn submit_to_room(&mut self, sender: Sender, name: Name, room: RoomId, submission: Submission) {
        let Some((sequence, members)) = self.rooms.get_mut(&room) else {
            return self.ack(sender, &name, MessageId(0), Outcome::Failed(FailReason::Busy));
        };
        *sequence += 1;
        let (sequence, members) = (*sequence, members.clone());
        let is_answered = submission.is_answered();
        let message = message(Some(room), sequence, submission);
        let id = message.id;
        for member in members {
            // C is the only shard of its node, and the others are of the router's own.
            let shards = if member == C { vec![0] } else { vec![] };
            self.gateway(member, ToGateway::Broadcast { message: message.clone(), shards });
        }
        self.remember(&name, id, Some(Outcome::Sequenced { sequence }));
        if is_answered {
            self.ack(sender, &name, id, Outcome::Sequenced { sequence });
        }
    }

    fn settle(&mut self, seat: Seat, id: MessageId, outcome: Outcome) {
        let Some(at) = self.pending.iter().position(|letter| letter.message.id == id) else { return };
        let waiting = &mut self.pending[at].waiting;
        let Some(struck) = waiting.iter().position(|other| *other == seat) else { return };
        waiting.remove(struck);
        if outcome == Outcome::Delivered || waiting.is_empty() {
            let letter = self.pending.remove(at);
            self.conclude(letter, outcome);
        }
    }

    fn pass(&mut self, ms: u64) -> Mail {
        self.now += Duration::from_millis(ms);
        while self.pending.first().is_some_and(|letter| letter.due <= self.now) {
            let letter = self.pending.remove(0);
            self.conclude(letter, Outcome::Failed(FailReason::Unacked));
        }
        std::mem::take(&mut self.said)
    }

    fn conclude(&mut self, letter: Letter, outcome: Outcome) {
        let Letter { name, sender, receiver, message, .. } = letter;
        if let Outcome::Failed(reason) = outcome {
            self.said.push(undelivered(receiver, reason, &message));
        }
        self.remember(&name, message.id, Some(outcome));
        self.ack(sender, &name, message.id, outcome);
    }

    fn remember(&mut self, name: &Name, id: MessageId, outcome: Option<Outcome>) {
        if !name.3.is_empty() {
            self.done.push_back((self.now, name.clone(), id, outcome));
            // All are of one sender.
            while self.done.len() > LIMITS.dedupe_sender_max as usize {
                self.done.pop_front();
            }
        }
    }

    fn ack(&mut self, sender: Sender, name: &Name, id: MessageId, outcome: Outcome) {
        let ((shard, session), submitted) = sender;
        let ack = SendAck { client_msg_id: name.3.clone(), id, outcome };
        self.gateway(shard, ToGateway::SendAck { session, submitted, ack });
    }

    /// What the clock shows that all nodes share.
    fn ms(&self) -> u64 {
        (self.now.unix_nanos() + self.ahead_ns) / 1_000_000 - EPOCH_UNIX_MS
    }
}

fn message(room: Option<RoomId>, sequence: u64, submission: Submission) -> Message {
    let Submission { id, app, sender, biz_code, class, client_msg_id, payload, .. } = submission;
    let ack_wanted = class == Class::Reliable;
    Message { id, app, sender, biz_code, room, sequence, ack_wanted, client_msg_id, payload }
}

/// The router and the model, fed the same.
struct Pair {
    bench: Bench,
    model: Model,
    /// The delivery of each message, as the router named it, with a session it went to.
    deliveries: Vec<(MessageId, DeliveryId, Seat)>,
    last_id: u64,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let bench = Bench::with(|config| {
            *config = Config { id: ROUTER, seed, limits: LIMITS, keeps: Keeps::default() }
        });
        let model = Model { now: START, linked: SHARDS.into(), ..Model::default() };
        Self { bench, model, deliveries: Vec::new(), last_id: 0 }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        if let Step::Pass { ms } = *step {
            let said = self.bench.pass(Duration::from_millis(ms));
            return self.compare(said, |model| model.pass(ms));
        }
        if let Step::Down { shard } = *step {
            let said = self.bench.down(SHARDS[shard]);
            return self.compare(said, |model| model.down(SHARDS[shard]));
        }
        if let Step::Up { shard } = *step {
            if self.model.linked.insert(SHARDS[shard]) {
                prop_assert_eq!(self.bench.up(SHARDS[shard]), []);
            }
            return Ok(());
        }
        let Some((from, mail)) = self.mail(step) else { return Ok(()) };
        let said = self.bench.tell(from, mail.clone());
        let as_model_names_it = self.by_message(mail);
        self.compare(said, |model| model.tell(from, &as_model_names_it))
    }

    /// The mail that a step stands for.
    fn mail(&mut self, step: &Step) -> Option<(ShardId, ToRouter)> {
        let app = APP;
        let (shard, mail) = match *step {
            Step::Bind { shard, user, device, session, login: later, fresh } => {
                let (user, device, session) = (UserId(user), DeviceClass::ALL[device], SessionId(session));
                (
                    SHARDS[shard],
                    ToRouter::Bind {
                        app,
                        user,
                        device,
                        session,
                        login: Login(self.bench.now.unix_nanos() + later),
                        fresh,
                    },
                )
            }
            Step::Unbind { shard, user, device, session, moved } => {
                let (user, device, session) = (UserId(user), DeviceClass::ALL[device], SessionId(session));
                (SHARDS[shard], ToRouter::Unbind { app, user, device, session, moved })
            }
            Step::UnbindOne { pick, moved } => {
                let bindings = &self.model.bindings;
                let (&(user, device), &((shard, session), _)) =
                    bindings.iter().nth(pick % bindings.len().max(1))?;
                (shard, ToRouter::Unbind { app, user, device, session, moved })
            }
            Step::Join { shard, room, ahead } => {
                let room = RoomId(room);
                let known = self.model.rooms.get(&room).map_or(self.model.ms() << 12, |(known, _)| *known);
                let sequence = ahead.map_or(0, |ahead| known.strict_add_signed(ahead));
                (SHARDS[shard], ToRouter::Join { app, room, sequence })
            }
            Step::Leave { shard, room } => (SHARDS[shard], ToRouter::Leave { app, room: RoomId(room) }),
            Step::Submit { shard, session, target, class, name } => {
                self.last_id += 1;
                let submission = Submission {
                    id: MessageId(self.last_id),
                    app,
                    sender: ALICE,
                    target,
                    biz_code: BizCode(1),
                    class,
                    client_msg_id: ClientMsgId::new(Bytes::from_static(name.as_bytes())),
                    payload: Bytes::from_static(b"payload"),
                    again: self.last_id.is_multiple_of(5),
                    stored: false,
                    device: None,
                    concluded: None,
                };
                (SHARDS[shard], ToRouter::Submit { session: SessionId(session), submission })
            }
            Step::Settle { pick, stray, outcome } => {
                let last = self.deliveries.iter().rev().take(8).collect::<Vec<_>>();
                let &&(_, delivery, (shard, session)) = last.get(pick % last.len().max(1))?;
                let session = if stray { SessionId(session.0 + 1) } else { session };
                (shard, ToRouter::Settle { delivery, session, outcome })
            }
            Step::Pass { .. } | Step::Down { .. } | Step::Up { .. } => return None,
        };
        Some((shard, mail))
    }

    fn by_message(&self, mail: ToRouter) -> ToRouter {
        match mail {
            ToRouter::Settle { delivery, session, outcome } => {
                let known = self.deliveries.iter().rev().find(|(_, known, _)| *known == delivery);
                let delivery = DeliveryId(known.expect("a test settles what it saw").0.0);
                ToRouter::Settle { delivery, session, outcome }
            }
            other => other,
        }
    }

    /// Both said the same, in whatever order within one step, and hold the same.
    fn compare(
        &mut self,
        mut said: Mail,
        model: impl FnOnce(&mut Model) -> Mail,
    ) -> Result<(), TestCaseError> {
        for (shard, mail) in &mut said {
            if let Said::ToGateway(ToGateway::Deliver {
                session, delivery: Some(delivery), message, ..
            }) = mail
            {
                self.deliveries.push((message.id, *delivery, (*shard, *session)));
                *delivery = DeliveryId(message.id.0);
            }
        }
        let mut expected = model(&mut self.model);
        for mail in [&mut said, &mut expected] {
            mail.sort_by_cached_key(|mail| format!("{mail:?}"));
        }
        prop_assert_eq!(said, expected);
        let (metrics, model) = (self.bench.router.metrics(), &self.model);
        prop_assert_eq!(metrics.bindings, model.bindings.len() as u64);
        prop_assert_eq!(metrics.rooms, model.rooms.len() as u64);
        prop_assert_eq!(metrics.pending, model.pending.len() as u64);
        prop_assert_eq!(self.bench.router.poll_timeout(), model.pending.first().map(|letter| letter.due));
        for user in (1..6).map(UserId) {
            let of_user = model.bindings.iter().filter(|((known, _), _)| *known == user);
            let expected: Vec<_> = of_user.map(|((_, device), ((shard, _), _))| (*device, *shard)).collect();
            prop_assert_eq!(self.bench.online(user), expected);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// A failure prints the steps, and proptest the seed that replays them.
    #[test]
    fn the_router_does_what_the_model_does(seed: u64, steps in prop::collection::vec(step(), 1..400)) {
        let mut pair = Pair::new(seed);
        for step in &steps {
            pair.step(step)?;
        }
        // Nobody is left waiting.
        let ms = u64::from(LIMITS.pending_timeout_ms);
        pair.step(&Step::Pass { ms })?;
        prop_assert_eq!(pair.bench.router.metrics().pending, 0);
    }

    #[test]
    fn the_same_seed_and_events_say_the_same_in_the_same_order(seed: u64, steps in prop::collection::vec(step(), 1..200)) {
        let said = || {
            let mut pair = Pair::new(seed);
            let mut said = Mail::new();
            for step in &steps {
                match *step {
                    Step::Pass { ms } => said.extend(pair.bench.pass(Duration::from_millis(ms))),
                    Step::Down { shard } => said.extend(pair.bench.down(SHARDS[shard])),
                    Step::Up { shard } => drop(pair.bench.up(SHARDS[shard])),
                    _ => if let Some((from, mail)) = pair.mail(step) {
                        said.extend(pair.bench.tell(from, mail));
                    }
                }
                // The deliveries of the steps to come.
                for (shard, mail) in &said {
                    if let Said::ToGateway(ToGateway::Deliver { session, delivery: Some(delivery), message, .. }) = mail {
                        let seen = (message.id, *delivery, (*shard, *session));
                        if !pair.deliveries.contains(&seen) {
                            pair.deliveries.push(seen);
                        }
                    }
                }
            }
            said
        };
        prop_assert_eq!(said(), said());
    }
}

/// The model is only as good as the steps: each kind of outcome must come up.
#[test]
fn the_steps_reach_every_rule() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut pair = Pair::new(1);
    for _ in 0..40_000 {
        let step = step().new_tree(&mut runner).expect("a strategy without filters").current();
        pair.step(&step).expect("the router does what the model does");
    }
    let m = pair.bench.router.metrics();
    let reached = [
        m.kicks,
        m.announced,
        m.gateways_lost,
        m.strangers,
        m.refused,
        m.unbinds,
        m.unbinds_stale,
        m.submitted_user_reliable,
        m.submitted_user_lossy,
        m.submitted_room_reliable,
        m.submitted_room_lossy,
        m.repeats_pending,
        m.repeats_done,
        m.forwarded,
        m.broadcasts,
        m.delivered,
        m.lossy_offline,
        m.busy,
        m.expired,
        m.settles_stale,
    ];
    assert!(reached.iter().all(|count| *count >= 100), "{m:#?}");
    let final_reasons = [
        FailReason::Offline,
        FailReason::Unacked,
        FailReason::Disconnected,
        FailReason::Overflow,
        FailReason::TooLong,
    ];
    let unexpected = m.undelivered_by_reason().find(|(reason, count)| {
        let expected = final_reasons.contains(reason) || *reason == FailReason::Busy;
        expected != (*count >= 10)
    });
    assert_eq!(unexpected, None, "{m:#?}");
}
