//! What clients sent, got, acked and were told: plain lists, and the promises of docs/PROTOCOL.md checked
//! against them.

use std::collections::{BTreeMap, BTreeSet};

use shard::ShardId;
use wire::client::{FailReason, Message, Outcome, Recovery, SendAck, Want};
use wire::node::{Class, Login, Target, ToBridge};
use wire::{DeviceClass, UserId};

use crate::asks::{Ask, Asks};
use crate::host::{FRAME_BYTES_MAX, LEASE_MS};
use crate::lives::Lives;
use crate::network::Host;
use crate::outages::{Outages, Trouble};
use crate::plan::{BRIDGES, GATEWAYS};

/// How long a change of owners, or the loss of a link, may be felt.
const DISTURBED_NS: u64 = 4 * LEASE_MS as u64 * 1_000_000;
/// How late a bridge and slow packets may make what a router has decided.
const LATE_NS: u64 = 1_000_000_000;

/// One in so many messages has the name of an earlier one, if there is one to another target among the last
/// so many.
const NAMED_AGAIN_ONE_IN: usize = 8;
const NAMES_LOOK: usize = 100;

/// Names a connection on which a client logged in; never reused.
pub(crate) type SessionNo = usize;

/// A message as its sender knows it.
pub(crate) struct Sent {
    pub(crate) client: usize,
    pub(crate) sender: i64,
    pub(crate) target: Target,
    pub(crate) code: i32,
    pub(crate) class: Class,
    /// It has a client_msg_id: it is answered, and repeated until it is. Each user counts its own.
    pub(crate) name: Option<u64>,
    pub(crate) size: usize,
    /// When it was written, and in which session.
    pub(crate) sends: Vec<(u64, SessionNo)>,
    pub(crate) outcomes: Vec<(u64, Outcome)>,
    /// First copies: the how manieth of all copies, and in which session.
    pub(crate) copies: Vec<(u64, SessionNo)>,
    pub(crate) ids: BTreeSet<u64>,
    /// When, and in which session.
    pub(crate) acks: Vec<(u64, SessionNo)>,
    /// When, for whom, under which id, and why.
    pub(crate) handed: Vec<(u64, i64, u64, FailReason)>,
    /// The bridge refused to keep it.
    pub(crate) refused: bool,
}

impl Sent {
    /// No frame may deliver it.
    pub(crate) fn is_too_long(&self) -> bool {
        !Message::fits(b"", &payload(0, self.size), FRAME_BYTES_MAX)
    }
}

/// A session, as its client sees it.
pub(crate) struct Session {
    pub(crate) user: i64,
    pub(crate) device: DeviceClass,
    pub(crate) shard: ShardId,
    pub(crate) began: u64,
    pub(crate) live: Option<u64>,
    pub(crate) over: Option<u64>,
    pub(crate) reads_slowly: bool,
    /// It said farewell, and was told that it is out.
    pub(crate) logged_out: Option<u64>,
    /// Nobody was told of its end.
    pub(crate) vanished: bool,
    /// It was kicked for an older one: see [`crate::stamps`].
    pub(crate) gave_way: bool,
    pub(crate) rooms: BTreeMap<i64, Stay>,
    seen: BTreeSet<u64>,
    asks: Asks,
    /// Rooms that it has joined once more, for what was said there.
    given_again: BTreeSet<i64>,
    /// The number of the last first copy, by the sender's session and the target.
    last_of: BTreeMap<(SessionNo, Target), usize>,
}

impl Session {
    /// It has joined a room for the first time, and wants what was said there before it hears anything else.
    fn waits_for_history(&self, room: i64) -> bool {
        let is_new = self.rooms.get(&room).is_some_and(|stay| stay.joined.is_none() && !stay.came_again);
        is_new && matches!(self.asks.first(room), Some(Ask::Join(Some(_))))
    }

    /// It has joined a room that it was in, and got messages from before, out of their order.
    pub(crate) fn is_given_again(&self, room: i64) -> bool {
        self.given_again.contains(&room)
    }

    pub(crate) fn has_seen(&self, id: u64) -> bool {
        self.seen.contains(&id)
    }
}

/// A session's time in a room.
#[derive(Clone, Copy, Default)]
pub(crate) struct Stay {
    pub(crate) joined: Option<u64>,
    /// When it was told first that it is in, since it was out.
    since: Option<u64>,
    /// When it asked to leave.
    pub(crate) leaves: Option<u64>,
    /// It was in it before, in the same session.
    came_again: bool,
    /// It was given messages from before.
    has_recovered: bool,
    last: u64,
}

/// A client was told that all after `since`, up to `sequence`, follows.
pub(crate) struct Promise {
    pub(crate) session: SessionNo,
    pub(crate) room: i64,
    pub(crate) since: u64,
    pub(crate) sequence: u64,
    pub(crate) at: u64,
}

/// The model.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) sent: Vec<Sent>,
    pub(crate) sessions: Vec<Session>,
    /// There are bridges, which may take what they are given later than its sender hears of it.
    pub(crate) is_bridged: bool,
    arrivals: u64,
    by_id: BTreeMap<u64, usize>,
    /// Messages that came late while owners changed: so they may if an owner had handed them over, of which
    /// the bridge has yet to tell.
    late: Vec<(usize, String)>,
    pub(crate) by_sequence: BTreeMap<(i64, u64), Place>,
    /// What clients were told that follows.
    pub(crate) promises: Vec<Promise>,
    /// By user and device class: the highest stamp, and whether online was told last.
    pub(crate) presence: BTreeMap<(i64, DeviceClass), (Login, bool)>,
    /// By user and name.
    names: BTreeMap<(i64, u64), usize>,
    /// How many names each user has given.
    named: BTreeMap<i64, u64>,
    troubles: Vec<Trouble>,
    /// When faults began and ended.
    turns: Vec<u64>,
    pub(crate) lives: Lives,
    pub(crate) crashes: Vec<(u64, Host, bool)>,
    pub(crate) cuts: Vec<(u64, u64, Host, Host)>,
    pub(crate) freezes: Vec<(u64, u64, Host)>,
    pub(crate) drains: Vec<(u64, Host)>,
    pub(crate) outages: Outages,
}

/// What has a sequence of a room.
pub(crate) struct Place {
    /// Of the message.
    pub(crate) id: u64,
    pub(crate) number: usize,
    /// Those whose clients were told so, by the message or by its send-ack.
    pub(crate) told: BTreeSet<SessionNo>,
}

/// How a client names a message.
pub(crate) fn name_of(name: Option<u64>) -> String {
    name.map_or(String::new(), |count| format!("c{count}"))
}

/// What message number `number` says.
pub(crate) fn payload(number: usize, size: usize) -> Vec<u8> {
    let mut payload = format!("{number:08}").into_bytes();
    payload.resize(8 + size, b'a' + (number % 26) as u8);
    payload
}

impl Model {
    pub(crate) fn new(is_bridged: bool) -> Self {
        Self { is_bridged, ..Self::default() }
    }

    pub(crate) fn messages(&self) -> usize {
        self.sent.len()
    }

    pub(crate) fn delivered(&self) -> usize {
        self.sent.iter().filter(|sent| !sent.copies.is_empty()).count()
    }

    /// A message that came late, and was not handed over.
    pub(crate) fn late(&self) -> Option<&str> {
        let late = self.late.iter().find(|(number, _)| self.sent[*number].handed.is_empty());
        late.map(|(_, what)| what.as_str())
    }

    pub(crate) fn handed_over(&self) -> usize {
        self.sent.iter().filter(|sent| !sent.handed.is_empty()).count()
    }

    pub(crate) fn unaccounted(&self) -> usize {
        let is_answered = |sent: &&Sent| {
            let busy = Outcome::Failed(FailReason::Busy);
            sent.outcomes.iter().any(|(_, outcome)| *outcome != busy)
        };
        let reliable = self.sent.iter().filter(|sent| sent.class == Class::Reliable && sent.name.is_some());
        reliable.filter(|sent| !is_answered(sent)).count()
    }

    pub(crate) fn lived(&self) -> usize {
        self.sessions.iter().filter(|session| session.live.is_some()).count()
    }

    // -- what happened to nodes

    /// A node's process ends, or takes leave.
    pub(crate) fn disturb(&mut self, host: Host, from: u64, until: u64) {
        self.trouble([host; 2], from, until, host < GATEWAYS);
    }

    /// What is between two nodes, or a whole one, does not work; or one begins, and routers wait for what it
    /// has to announce.
    pub(crate) fn unsettle(&mut self, of: [Host; 2], from: u64, until: u64) {
        self.trouble(of, from, until, true);
    }

    fn trouble(&mut self, of: [Host; 2], from: u64, until: u64, moves: bool) {
        self.troubles.push(Trouble { from, until: until + DISTURBED_NS, of, moves });
        self.turns.extend([from, until]);
    }

    /// A fault ends.
    pub(crate) fn ends(&mut self, at: u64) {
        self.turns.push(at);
    }

    /// Whether a fault began or ended in that time.
    pub(crate) fn has_turned(&self, from: u64, until: u64) -> bool {
        self.turns.iter().any(|at| (from..=until).contains(at))
    }

    /// The first starts: until then the nodes find each other.
    pub(crate) fn gather(&mut self, until: u64) {
        self.troubles.push(Trouble { from: 0, until, of: [0; 2], moves: true });
        self.turns.extend([0, until]);
    }

    pub(crate) fn crashed(&mut self, at: u64, host: Host, gently: bool) {
        self.crashes.push((at, host, gently));
        self.lives.end(at, host);
    }

    pub(crate) fn cut(&mut self, from: u64, until: u64, a: Host, b: Host) {
        self.cuts.push((from, until, a, b));
    }

    pub(crate) fn frozen(&mut self, from: u64, until: u64, host: Host) {
        self.freezes.push((from, until, host));
    }

    /// Whether any fault may be felt in that time.
    pub(crate) fn is_disturbed(&self, from: u64, until: u64) -> bool {
        self.troubles.iter().any(|it| it.is_felt(from, until))
    }

    /// Whether owners changed in that time, or may have.
    pub(crate) fn is_moving(&self, from: u64, until: u64) -> bool {
        self.troubles.iter().any(|it| it.moves && it.is_felt(from, until))
    }

    /// Whether a fault of one of these nodes may be felt in that time.
    pub(crate) fn is_troubled(&self, from: u64, until: u64, is_one: impl Fn(Host) -> bool) -> bool {
        self.troubles.iter().any(|it| it.of.iter().any(|host| is_one(*host)) && it.is_felt(from, until))
    }

    // -- sessions

    /// The bridge has heard of a farewell when the user comes again.
    pub(crate) fn check_farewell(&self, at: u64, user: i64, device: DeviceClass) -> Result<(), String> {
        let its = || self.sessions.iter().filter(|it| (it.user, it.device) == (user, device));
        let Some(out) = its().filter_map(|it| it.logged_out).max() else { return Ok(()) };
        let is_alone = its().all(|it| it.over.is_some_and(|over| over <= out + LATE_NS / 10));
        let is_online = self.presence.get(&(user, device)).is_some_and(|(_, online)| *online);
        let from = out.saturating_sub(LATE_NS);
        let is_its = |host| host >= BRIDGES || its().any(|it| it.shard.node() == host);
        let is_excused = self.is_moving(from, at) || self.is_troubled(from, at, is_its);
        if is_online && is_alone && at > out + LATE_NS && !is_excused {
            return Err(format!("the bridge takes {:?} for online, who has logged out", (user, device)));
        }
        Ok(())
    }

    pub(crate) fn login(&mut self, at: u64, user: i64, device: DeviceClass, shard: ShardId) -> SessionNo {
        self.sessions.push(Session {
            user,
            device,
            shard,
            began: at,
            live: None,
            over: None,
            reads_slowly: false,
            logged_out: None,
            vanished: false,
            gave_way: false,
            rooms: BTreeMap::new(),
            seen: BTreeSet::new(),
            asks: Asks::default(),
            given_again: BTreeSet::new(),
            last_of: BTreeMap::new(),
        });
        self.sessions.len() - 1
    }

    pub(crate) fn live(&mut self, at: u64, session: SessionNo) {
        self.sessions[session].live = Some(at);
    }

    pub(crate) fn logged_out(&mut self, at: u64, session: SessionNo) {
        self.sessions[session].logged_out = Some(at);
    }

    pub(crate) fn vanishes(&mut self, session: SessionNo) {
        self.sessions[session].vanished = true;
    }

    pub(crate) fn gives_way(&mut self, session: SessionNo) {
        self.sessions[session].gave_way = true;
    }

    pub(crate) fn over(&mut self, at: u64, session: SessionNo) {
        self.sessions[session].over = Some(at);
    }

    pub(crate) fn reads_slowly(&mut self, session: SessionNo) {
        self.sessions[session].reads_slowly = true;
    }

    /// A session may be kicked only for one that is not older: one that was answered before this one began
    /// is.
    pub(crate) fn kicked(&mut self, at: u64, session: SessionNo) -> Result<(), String> {
        let it = &self.sessions[session];
        let is_newer = |other: &Session| {
            (other.user, other.device) == (it.user, it.device)
                && other.live.is_none_or(|live| live >= it.began)
        };
        let others = self.sessions.iter().enumerate().filter(|(number, _)| *number != session);
        if others.into_iter().any(|(_, other)| is_newer(other)) {
            return Ok(());
        }
        Err(format!("session {session} of user {} was kicked at {at}, but no other is newer", it.user))
    }

    // -- rooms

    pub(crate) fn joins(&mut self, session: SessionNo, room: i64, want: Option<Want>) {
        self.sessions[session].asks.add(room, Ask::Join(want));
        let rooms = &mut self.sessions[session].rooms;
        let before = rooms.get(&room).copied();
        let (came_again, last) = before.map_or((false, 0), |before| (true, before.last));
        let since = before.filter(|before| before.leaves.is_none()).and_then(|before| before.since);
        let stay = Stay { joined: None, since, leaves: None, came_again, has_recovered: false, last };
        rooms.insert(room, stay);
    }

    pub(crate) fn joined(
        &mut self,
        at: u64,
        session: SessionNo,
        room: i64,
        sequence: u64,
        recovery: Option<Recovery>,
    ) -> Result<(), String> {
        let Session { rooms, given_again, asks, .. } = &mut self.sessions[session];
        let want = asks.joined(room, recovery).map_err(|wrong| format!("session {session} {wrong}"))?;
        if let (Some(Want::Since(since)), Some(Recovery::Complete)) = (want, recovery) {
            self.promises.push(Promise { session, room, since, sequence, at });
        }
        let Some(stay) = rooms.get_mut(&room) else {
            return Err(format!(
                "session {session} was told that it is in room {room}, which it never wanted"
            ));
        };
        if stay.came_again && want.is_some() {
            given_again.insert(room);
        }
        stay.joined = stay.joined.or(Some(at));
        stay.since = stay.since.or(Some(at));
        match want {
            // What has come since it asked comes again, in its place.
            Some(Want::Since(since)) => stay.last = since.min(sequence),
            Some(Want::Last(_)) => stay.last = 0,
            None if !stay.came_again && stay.last == 0 => stay.last = sequence,
            None => {}
        }
        stay.has_recovered |= want.is_some();
        Ok(())
    }

    pub(crate) fn leaves(&mut self, at: u64, session: SessionNo, room: i64) {
        self.sessions[session].asks.add(room, Ask::Leave);
        if let Some(stay) = self.sessions[session].rooms.get_mut(&room) {
            stay.leaves = Some(at);
        }
    }

    pub(crate) fn left(&mut self, session: SessionNo, room: i64) {
        self.sessions[session].asks.left(room);
    }

    /// Whether a session has heard of all that it asked of a room.
    pub(crate) fn is_answered(&self, session: SessionNo, room: i64) -> bool {
        self.sessions[session].asks.is_answered(room)
    }

    // -- messages

    #[expect(clippy::too_many_arguments, reason = "a message has as many properties")]
    pub(crate) fn message(
        &mut self,
        client: usize,
        sender: i64,
        target: Target,
        code: i32,
        class: Class,
        named: bool,
        size: usize,
    ) -> usize {
        let name = named.then(|| self.name(client, sender, target));
        self.sent.push(Sent {
            client,
            sender,
            target,
            code,
            class,
            name,
            size,
            sends: Vec::new(),
            outcomes: Vec::new(),
            copies: Vec::new(),
            ids: BTreeSet::new(),
            acks: Vec::new(),
            handed: Vec::new(),
            refused: false,
        });
        self.sent.len() - 1
    }

    /// A name for the next message: now and then that of one to another target, which is done with.
    fn name(&mut self, client: usize, sender: i64, target: Target) -> u64 {
        let number = self.sent.len();
        let is_given_once =
            |name| self.sent.iter().filter(|sent| (sent.sender, sent.name) == (sender, name)).count() == 1;
        let is_done = |sent: &&Sent| {
            (sent.client, sent.sends.len(), sent.outcomes.len()) == (client, 1, 1)
                && sent.target != target
                && sent.outcomes[0].1 != Outcome::Failed(FailReason::Busy)
                && is_given_once(sent.name)
        };
        let is_due = number.is_multiple_of(NAMED_AGAIN_ONE_IN);
        let known = self.sent.iter().rev().take(if is_due { NAMES_LOOK } else { 0 });
        let again = known.filter(|sent| sent.name.is_some()).find(is_done).and_then(|sent| sent.name);
        let name = again.unwrap_or_else(|| {
            let count = self.named.entry(sender).or_default();
            *count += 1;
            *count
        });
        self.names.insert((sender, name), number);
        name
    }

    pub(crate) fn get(&self, number: usize) -> &Sent {
        &self.sent[number]
    }

    /// The message that a user has given a name.
    pub(crate) fn named(&self, user: i64, name: &str) -> Option<usize> {
        let count = name.strip_prefix('c')?.parse().ok()?;
        self.names.get(&(user, count)).copied()
    }

    pub(crate) fn sends(&mut self, at: u64, session: SessionNo, number: usize) {
        self.sent[number].sends.push((at, session));
    }

    /// The number of a message, if it is one that was sent, unchanged, by its sender.
    fn recognise(&self, message: &Message) -> Result<usize, String> {
        let text = message.payload.get(..8).and_then(|text| std::str::from_utf8(text).ok());
        let number = text.and_then(|text| text.parse::<usize>().ok());
        let known = number.and_then(|number| Some((number, self.sent.get(number)?)));
        let Some((number, sent)) = known else {
            return Err(format!("a message that nobody sent: {message:?}"));
        };
        let name = name_of(sent.name);
        let room = match sent.target {
            Target::Room(room) => Some(room),
            Target::User(_) => None,
        };
        let is_it = message.payload[..] == payload(number, sent.size)
            && message.sender == UserId(sent.sender)
            && message.client_msg_id.as_str() == name
            && message.biz_code.0 == sent.code
            && message.room == room
            && message.ack_wanted == (sent.class == Class::Reliable);
        if !is_it {
            return Err(format!("m{number} was changed on its way: {message:?}"));
        }
        match self.by_id.get(&message.id.0) {
            Some(other) if *other != number => {
                Err(format!("id {:#x} names m{other} and m{number}", message.id.0))
            }
            _ => Ok(number),
        }
    }

    pub(crate) fn delivered_to(
        &mut self,
        at: u64,
        session: SessionNo,
        message: &Message,
    ) -> Result<(), String> {
        let number = self.recognise(message)?;
        self.by_id.insert(message.id.0, number);
        self.sent[number].ids.insert(message.id.0);
        self.check_dedupe(at, number)?;
        let (sent, it) = (&mut self.sent[number], &mut self.sessions[session]);
        match sent.target {
            Target::User(user) if user.0 != it.user => {
                return Err(format!("m{number} for user {} came to user {}", user.0, it.user));
            }
            Target::Room(room) if !it.rooms.contains_key(&room.0) => {
                return Err(format!("m{number} came to session {session}, which is not in room {}", room.0));
            }
            Target::User(_) | Target::Room(_) => {}
        }
        let is_first = !sent.copies.iter().any(|(_, of)| *of == session);
        if let Target::Room(room) = sent.target
            && it.waits_for_history(room.0)
        {
            return Err(format!(
                "m{number} came to session {session}, which waits for what room {} said",
                room.0
            ));
        }
        let is_again = !it.seen.insert(message.id.0);
        if let Target::Room(room) = sent.target
            && sent.class == Class::Lossy
            && let Some(stay) = it.rooms.get(&room.0).filter(|stay| stay.has_recovered)
            && message.sequence <= stay.last
        {
            return Err(format!(
                "m{number}, lossy, has sequence {} of room {}, after {} in session {session}",
                message.sequence, room.0, stay.last
            ));
        }
        if is_again {
            if let Target::Room(room) = sent.target
                && sent.class == Class::Lossy
                && let Some(stay) = it.rooms.get_mut(&room.0)
            {
                stay.last = stay.last.max(message.sequence);
            }
            return Ok(()); // a retry
        }
        if let Target::Room(room) = sent.target {
            let stay = it.rooms.get_mut(&room.0).expect("checked above");
            if message.sequence <= stay.last {
                return Err(format!(
                    "m{number} has sequence {} of room {}, after {} in session {session}",
                    message.sequence, room.0, stay.last
                ));
            }
            stay.last = message.sequence;
        }
        if is_first {
            self.arrivals += 1;
            sent.copies.push((self.arrivals, session));
            self.check_order(at, session, number)?;
        }
        match message.room {
            Some(room) => self.sequenced(session, number, room.0, message.sequence, message.id.0),
            None => Ok(()),
        }
    }

    /// A sequence of a room names one message.
    fn sequenced(
        &mut self,
        session: SessionNo,
        number: usize,
        room: i64,
        sequence: u64,
        id: u64,
    ) -> Result<(), String> {
        let anew = || Place { id, number, told: BTreeSet::new() };
        let place = self.by_sequence.entry((room, sequence)).or_insert_with(anew);
        place.told.insert(session);
        match place.id {
            other if other != id => {
                Err(format!("sequence {sequence} of room {room} names {other:#x} and {id:#x}"))
            }
            _ => Ok(()),
        }
    }

    /// What one connection sent to one target comes in that order, but for what its sender repeated. While
    /// owners change there are two exceptions.
    ///
    /// - Lossy messages. The next owner does not get those to users, so a slow link of the owner before
    ///   delivers them late. It gets those to rooms that want an answer, and a member that missed the first
    ///   copy gets the second one late.
    /// - Messages without an outcome. The next owner gives them again, and cannot know to whom they went: to
    ///   a session that came, or joined, after they were sent, their first copy is a retry. So it is when the
    ///   owner before had handed a message over, and that answer met the change.
    fn check_order(&mut self, at: u64, session: SessionNo, number: usize) -> Result<(), String> {
        let sent = &self.sent[number];
        let [(began, sender)] = sent.sends[..] else { return Ok(()) };
        let is_late_lossy =
            sent.class == Class::Lossy && (matches!(sent.target, Target::User(_)) || sent.name.is_some());
        let it = &self.sessions[session];
        let joined = match sent.target {
            Target::Room(room) => it.rooms.get(&room.0).and_then(|stay| stay.since),
            Target::User(_) => Some(began),
        };
        let came_after = [it.live, joined].iter().any(|at| at.is_none_or(|at| at > began));
        let is_retry = came_after || sent.copies.len() > 1 || !sent.handed.is_empty();
        if self.is_moving(began, at) && (is_late_lossy || is_retry) {
            return Ok(());
        }
        // A client that joins a room once more, since it has missed something, gets that after what it has.
        if let Target::Room(room) = sent.target
            && self.sessions[session].is_given_again(room.0)
        {
            return Ok(());
        }
        let key = (sender, sent.target);
        let last = self.sessions[session].last_of.insert(key, number);
        match last {
            Some(last) if last > number => {
                let what =
                    format!("m{number} came after m{last} in session {session}, but was sent before it");
                if !self.is_moving(began, at) {
                    return Err(what);
                }
                self.late.push((number, what));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A repeat is recognised by the owner that has the message, and comes under the same id.
    fn check_dedupe(&self, at: u64, number: usize) -> Result<(), String> {
        let sent = &self.sent[number];
        if sent.ids.len() == 1 || self.is_moving(sent.sends[0].0, at) {
            return Ok(());
        }
        Err(format!("m{number}, sent {} times, has {} ids", sent.sends.len(), sent.ids.len()))
    }

    pub(crate) fn acks(&mut self, at: u64, session: SessionNo, id: u64) {
        if let Some(number) = self.by_id.get(&id) {
            self.sent[*number].acks.push((at, session));
        }
    }

    /// A send-ack says what is true.
    pub(crate) fn answered(
        &mut self,
        at: u64,
        client: usize,
        session: SessionNo,
        number: usize,
        ack: &SendAck,
        in_room: bool,
    ) -> Result<(), String> {
        let Some(sent) = self.sent.get_mut(number).filter(|sent| sent.client == client) else {
            return Err(format!("client {client} got an answer to m{number}, which it never sent"));
        };
        sent.outcomes.push((at, ack.outcome));
        let first = sent.sends[0].0;
        let is_handed = !sent.handed.is_empty() && ack.outcome == Outcome::Delivered;
        if is_handed && !self.is_moving(first, at) {
            return Err(format!("m{number} is said to be delivered, and was handed over"));
        }
        let sent = &self.sent[number];
        let is_to_user = matches!(sent.target, Target::User(_));
        let was_sent_once = sent.sends.len() == 1;
        match ack.outcome {
            Outcome::Delivered if is_to_user && !sent.acks.is_empty() => Ok(()),
            Outcome::Delivered => Err(format!("m{number} is said to be delivered, but nobody acked it")),
            Outcome::Sequenced { sequence } => match sent.target {
                Target::Room(room) => self.sequenced(session, number, room.0, sequence, ack.id.0),
                Target::User(_) => Err(format!("m{number} to a user is said to be sequenced")),
            },
            Outcome::Failed(FailReason::Busy) => Ok(()),
            Outcome::Failed(FailReason::TooLong) if sent.is_too_long() => Ok(()),
            Outcome::Failed(FailReason::NotMember) if !(in_room && was_sent_once) => Ok(()),
            Outcome::Failed(
                FailReason::Offline | FailReason::Unacked | FailReason::Disconnected | FailReason::Overflow,
            ) if is_to_user && (!sent.handed.is_empty() || self.is_bridged) => Ok(()),
            Outcome::Stored if is_to_user && self.is_bridged && !sent.handed.is_empty() => Ok(()),
            outcome => Err(format!("session {session} hears {outcome:?} of m{number}, which cannot be")),
        }
    }

    // -- the bridge

    pub(crate) fn bridge(&mut self, at: u64, message: ToBridge) -> Result<(), String> {
        match message {
            ToBridge::Online { user, device, login, .. } => self.told((user.0, device), login, true),
            ToBridge::Offline { user, device, login, .. } => self.told((user.0, device), login, false),
            ToBridge::Undelivered { user, reason, message, delivery: _ } => {
                let number = self.recognise(&message)?;
                self.check_hand_over(at, number, user.0, message.id.0, reason)?;
                let sent = &mut self.sent[number];
                if let Target::User(target) = sent.target
                    && target != user
                {
                    return Err(format!("m{number} for {target:?} was handed over as one for {user:?}"));
                }
                if sent.class == Class::Lossy {
                    return Err(format!("m{number} is lossy, and was handed over"));
                }
                sent.handed.push((at, user.0, message.id.0, reason));
            }
            ToBridge::Joined { .. } | ToBridge::Left { .. } | ToBridge::Request { .. } => {}
        }
        Ok(())
    }

    /// A message is handed over once for each receiver, and only if no client has acked it.
    fn check_hand_over(
        &self,
        at: u64,
        number: usize,
        user: i64,
        id: u64,
        reason: FailReason,
    ) -> Result<(), String> {
        let sent = &self.sent[number];
        let first = sent.sends[0].0;
        if self.is_moving(first, at) {
            return Ok(());
        }
        // A bridge that ends may have taken what its peers give to the next.
        let is_bridge_lost = self.is_troubled(first, at, |host| host >= BRIDGES);
        let is_again = |(_, whose, its, _): &&(u64, i64, u64, FailReason)| (*whose, *its) == (user, id);
        let is_to_user = matches!(sent.target, Target::User(_));
        if is_to_user && !is_bridge_lost && sent.handed.iter().any(|known| is_again(&known)) {
            return Err(format!("m{number} was handed over for user {user} again: {reason:?}"));
        }
        if sent.outcomes.iter().any(|(_, outcome)| *outcome == Outcome::Delivered) {
            return Err(format!("m{number} was delivered, and handed over: {reason:?}"));
        }
        // An ack is lost with its connection.
        let counts = |(acked, session): &&(u64, SessionNo)| {
            let it = &self.sessions[*session];
            acked + LATE_NS <= at
                && it.over.is_none_or(|over| over > acked + LATE_NS)
                && !self.is_troubled(*acked, at, |host| host == it.shard.node())
        };
        match sent.acks.iter().find(|ack| is_to_user && counts(ack)) {
            Some((_, session)) => {
                Err(format!("m{number} was acked in session {session}, and handed over: {reason:?}"))
            }
            None => Ok(()),
        }
    }

    /// A bridge did not take an undelivered message.
    pub(crate) fn refused(&mut self, event: &ToBridge) -> Result<(), String> {
        if let ToBridge::Undelivered { message, .. } = event {
            let number = self.recognise(message)?;
            self.sent[number].refused = true;
        }
        Ok(())
    }

    /// The highest stamp counts, and of equal ones offline, since a session ends once.
    fn told(&mut self, key: (i64, DeviceClass), login: Login, online: bool) {
        let known = self.presence.entry(key).or_insert((login, online));
        if login > known.0 || login == known.0 && !online {
            *known = (login, online);
        }
    }
}
