//! The state machine of a client.

mod addresses;
mod rooms;
mod seen;
mod store;
#[cfg(test)]
mod tests;
mod token;

use std::collections::VecDeque;
use std::time::Duration;

use shard::{Instant, Prng};
use wire::RoomId;
use wire::client::{
    ACK_IDS_MAX, AckIds, ClientFrame, Deframer, FailReason, Message, NoticeCode, Outcome, Recovery, SendAck,
    ServerFrame, Want,
};

use self::addresses::{Addresses, BackOff};
use self::rooms::{Joined, Rooms};
use self::seen::Seen;
use self::store::Store;
use self::token::Token;
use crate::config::Config;
use crate::event::{End, Event, Loss};
use crate::outgoing::{Outgoing, Refused, To};

/// The longest body of a server's frame.
const BODY_BYTES_MAX: usize = 4 << 20;
/// The heartbeat period of a server that names none, as on the Java platform.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long a logout may take.
const LOGOUT_TIME: Duration = Duration::from_secs(2);
/// How much of what is no frame is told.
const GARBAGE_BYTES_MAX: usize = 60;
/// Why a connection ended to a server that knows no room history. The next joins ask for none.
const NO_HISTORY: &str = "the server knows no room history";
/// The wait after the server found a fault in what the client says, in first waits: it would find it again.
const FAULT_TIMES: u32 = 20;

/// What the driver is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Open a connection to that address, then call [`Core::connected`] or [`Core::not_connected`].
    Connect(String),
    /// Drop the connection, or the try to open one. Nothing of it may reach the core any more.
    Disconnect,
    /// Ask the provider for a token, then call [`Core::token`].
    AskToken,
}

/// Where the client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Without a connection until then, or for as long as there is no token.
    Away {
        connect_at: Instant,
    },
    Connecting {
        until: Instant,
    },
    LoggingIn {
        until: Instant,
    },
    Ready,
    LoggingOut {
        until: Instant,
    },
    Ended,
}

/// A client without I/O, clock and randomness of its own.
///
/// A driver calls a method for whatever happened, then takes what came of it: [`Core::poll_action`] until
/// there is none, [`Core::take_output`], [`Core::poll_event`]; and calls [`Core::handle_timeout`] at
/// [`Core::next_timeout`]. It reads what has arrived before it tells of a timeout, so that a machine that
/// slept takes no server for silent.
#[derive(Debug)]
pub struct Core {
    config: Config,
    prng: Prng,
    phase: Phase,
    addresses: Addresses,
    back_off: BackOff,
    join_back_off: BackOff,
    token: Token,
    heartbeat: Heartbeat,
    deframer: Deframer,
    rooms: Rooms,
    history: History,
    store: Store,
    seen: Seen,
    /// Of this client, so that no two clients choose the same name for a message.
    name_prefix: String,
    names: u64,
    acks: Vec<u8>,
    out: Vec<u8>,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
}

/// What is known of the server's room history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum History {
    /// It was not asked for.
    Unknown,
    /// It was asked for, and no answer has come.
    Asked,
    Known,
    /// The server is of before room history, and takes no join that asks for it.
    Missing,
}

/// Signs of life, in both directions.
#[derive(Debug)]
struct Heartbeat {
    period: Duration,
    said_at: Instant,
    heard_at: Instant,
    /// Since when a heartbeat has no answer.
    unanswered: Option<Instant>,
}

impl Heartbeat {
    fn new(now: Instant) -> Self {
        Self { period: HEARTBEAT, said_at: now, heard_at: now, unanswered: None }
    }

    /// When a heartbeat is to be sent, or the server counts as silent.
    fn due_at(&self) -> Instant {
        self.unanswered.unwrap_or(self.said_at.min(self.heard_at)) + self.period
    }
}

impl Core {
    /// A client that connects as soon as it has a token. The seed must differ from those of other clients: it
    /// names messages.
    pub fn new(config: Config, seed: u64, now: Instant) -> Self {
        let mut prng = Prng::new(seed);
        let name_prefix = format!("{:016x}", prng.next_u64());
        let mut core = Self {
            prng,
            phase: Phase::Away { connect_at: now },
            addresses: Addresses::new(config.address.clone()),
            back_off: BackOff::default(),
            join_back_off: BackOff::default(),
            token: Token::default(),
            heartbeat: Heartbeat::new(now),
            deframer: Deframer::default(),
            rooms: Rooms::default(),
            history: History::Unknown,
            store: Store::default(),
            seen: Seen::default(),
            name_prefix,
            names: 0,
            acks: Vec::new(),
            out: Vec::new(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            config,
        };
        core.handle_timeout(now);
        core
    }

    // What the application wants.

    /// Sends a message, now or once there is a connection, and again until its send-ack comes, which is told
    /// as [`Event::Outcome`]. Returns its name.
    ///
    /// # Errors
    /// The store is full, or the message cannot be sent as it is.
    pub fn send(&mut self, now: Instant, message: Outgoing) -> Result<String, Refused> {
        self.check(&message)?;
        let name = message.client_msg_id.clone().unwrap_or_else(|| {
            self.names += 1;
            format!("{}-{}", self.name_prefix, self.names)
        });
        let number = self.store.push(&name, message.clone(), &self.config)?;
        if self.phase == Phase::Ready && may_be_written(&self.rooms, &message) {
            self.say(now, &message.frame(&name));
            self.store.wrote(number, now + self.config.repeat_after);
        }
        Ok(name)
    }

    /// Sends a message at once, without a name: it has no send-ack and is not repeated. Lossy messages to
    /// users have no send-ack anyway.
    ///
    /// # Errors
    /// There is no connection, the client is not in the room yet, or the message cannot be sent as it is.
    pub fn send_once(&mut self, now: Instant, message: &Outgoing) -> Result<(), Refused> {
        self.check(message)?;
        if self.phase != Phase::Ready || !may_be_written(&self.rooms, message) {
            return Err(Refused::Away);
        }
        self.say(now, &message.frame(""));
        Ok(())
    }

    /// Joins a room, and joins it again after each reconnect and each gap, with all that was missed. `first`
    /// says what the first join asks for.
    pub fn join(&mut self, now: Instant, room: RoomId, first: Option<Want>) {
        if self.rooms.add(room, first) && self.phase == Phase::Ready {
            self.say_join(now, room);
        }
    }

    /// Leaves a room.
    pub fn leave(&mut self, now: Instant, room: RoomId) {
        if self.rooms.remove(room) && self.phase == Phase::Ready {
            self.say(now, &ClientFrame::Leave { room });
        }
    }

    /// Ends the session and then the client. Messages without a send-ack are forgotten.
    pub fn log_out(&mut self, now: Instant) {
        match self.phase {
            Phase::Ready => {
                self.say(now, &ClientFrame::Logout);
                self.phase = Phase::LoggingOut { until: now + LOGOUT_TIME };
            }
            Phase::LoggingOut { .. } | Phase::Ended => {}
            Phase::Connecting { .. } | Phase::LoggingIn { .. } | Phase::Away { .. } => self.end(End::Logout),
        }
    }

    /// Messages that have no send-ack yet.
    pub fn unanswered(&self) -> usize {
        self.store.len()
    }

    // What the driver did.

    /// Takes the provider's token; `None` when it has none, and is to be asked again later.
    pub fn token(&mut self, now: Instant, token: Option<String>) {
        self.token.is_asked = false;
        let is_ready = self.phase == Phase::Ready;
        match token {
            Some(token) => {
                let is_fresh = self.token.take(now, token);
                if is_fresh && is_ready {
                    self.say_login(now);
                }
            }
            None if is_ready => self.token.renew_at = None, // the server will say `token_expired`
            None if matches!(self.phase, Phase::Away { .. }) => self.lose(now, Loss::NoToken, Duration::ZERO),
            None => {}
        }
        self.handle_timeout(now);
    }

    /// The connection is open.
    pub fn connected(&mut self, now: Instant) {
        if let Phase::Connecting { until } = self.phase {
            self.phase = Phase::LoggingIn { until };
            self.heartbeat = Heartbeat::new(now);
            self.say_login(now);
        }
    }

    /// The connection could not be opened, and what the system says of that.
    pub fn not_connected(&mut self, now: Instant, why: String) {
        if let Phase::Connecting { .. } = self.phase {
            self.lose(now, Loss::NotConnected(why), Duration::ZERO);
        }
    }

    /// The connection was closed or broke, and what the system says of that.
    pub fn disconnected(&mut self, now: Instant, why: String) {
        if self.has_connection() {
            self.lose(now, Loss::Closed(why), Duration::ZERO);
        }
    }

    /// Bytes came.
    pub fn received(&mut self, now: Instant, bytes: &[u8]) {
        let mut deframer = std::mem::take(&mut self.deframer);
        let mut rest = bytes;
        while self.has_connection() {
            let decoded = match deframer.next(&mut rest, BODY_BYTES_MAX) {
                Ok(None) => break,
                Ok(Some(frame)) => ServerFrame::decode(&frame),
                Err(error) => Err(error),
            };
            match decoded {
                Ok(frame) => self.hear(now, frame),
                Err(_) => {
                    let begin = bytes[..bytes.len().min(GARBAGE_BYTES_MAX)].to_vec();
                    self.lose(now, Loss::Garbage(begin), Duration::ZERO);
                }
            }
        }
        if self.has_connection() {
            self.deframer = deframer;
            self.say_acks(now);
        }
        self.handle_timeout(now);
    }

    // What comes of it.

    /// What the driver is to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The bytes to write to the connection, whole frames.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// What the application is to be told next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Events that wait. A driver reads no further while the application takes none.
    pub fn events(&self) -> usize {
        self.events.len()
    }

    /// Whether the client has ended for good.
    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// When [`Core::handle_timeout`] is to be called at the latest.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Away { connect_at } => (!self.token.is_asked).then_some(connect_at),
            Phase::Connecting { until } | Phase::LoggingIn { until } | Phase::LoggingOut { until } => {
                Some(until)
            }
            Phase::Ready => {
                let renew_at = self.token.renew_at.filter(|_| !self.token.is_asked);
                let others = [self.store.due_at(), self.rooms.again_at, self.rooms.gap_due_at(), renew_at];
                others.into_iter().flatten().chain([self.heartbeat.due_at()]).min()
            }
            Phase::Ended => None,
        }
    }

    /// Does all that is due by now.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Away { connect_at } if now >= connect_at => self.connect(now),
            Phase::Connecting { until } if now >= until => {
                let time = self.config.login_time.as_millis();
                self.lose(now, Loss::NotConnected(format!("no connection within {time} ms")), Duration::ZERO);
            }
            Phase::LoggingIn { until } if now >= until => self.lose(now, Loss::Late, Duration::ZERO),
            Phase::LoggingOut { until } if now >= until => self.end(End::Logout),
            Phase::Ready => self.handle_session_timeout(now),
            _ => {}
        }
    }

    fn connect(&mut self, now: Instant) {
        if self.token.is_asked {
            return;
        }
        if self.token.usable(now).is_none() {
            self.token.is_asked = true;
            return self.actions.push_back(Action::AskToken);
        }
        self.actions.push_back(Action::Connect(self.addresses.current().to_owned()));
        self.phase = Phase::Connecting { until: now + self.config.login_time };
    }

    fn handle_session_timeout(&mut self, now: Instant) {
        if now >= self.heartbeat.due_at() {
            if self.heartbeat.unanswered.is_some() {
                return self.lose(now, Loss::Silent, Duration::ZERO);
            }
            self.say(now, &ClientFrame::Heartbeat { echo: &[] });
            self.heartbeat.unanswered = Some(now);
        }
        if self.token.renew_at.is_some_and(|at| now >= at) && !self.token.is_asked {
            self.token.is_asked = true;
            self.actions.push_back(Action::AskToken);
        }
        if self.rooms.again_at.is_some_and(|at| now >= at) {
            self.rooms.again_at = None;
            self.rooms.unjoined().into_iter().for_each(|room| self.say_join(now, room));
        }
        self.rooms.take_due_gaps(now).into_iter().for_each(|room| self.say_join(now, room));
        if self.store.due_at().is_some_and(|at| now >= at) {
            self.say_messages(now);
        }
    }

    fn hear(&mut self, now: Instant, frame: ServerFrame<'_>) {
        self.heartbeat.heard_at = now;
        self.heartbeat.unanswered = None;
        match frame {
            ServerFrame::LoggedIn { heartbeat_ms } => self.hear_logged_in(now, heartbeat_ms),
            ServerFrame::LoggedOut => self.end(End::Logout),
            ServerFrame::Deliver(message) => self.hear_message(now, message.into_owned()),
            ServerFrame::Heartbeat { .. } => {}
            ServerFrame::SendAck(ack) => self.hear_send_ack(now, &ack),
            ServerFrame::Notice { code: NoticeCode::BadBody, .. } if self.history == History::Asked => {
                self.history = History::Missing;
                self.lose(now, Loss::Closed(NO_HISTORY.into()), Duration::ZERO);
            }
            ServerFrame::Notice { code, text, retry_after_ms, alternatives } => {
                self.events.push_back(Event::Notice { code, text: text.into_owned() });
                self.addresses.go_elsewhere(alternatives.iter().map(AsRef::as_ref));
                self.hear_notice(now, code, Duration::from_millis(retry_after_ms.into()));
            }
            ServerFrame::Left { room } => self.events.push_back(Event::Left { room }),
            ServerFrame::Joined { room, sequence, recovery } => {
                self.hear_joined(now, room, sequence, recovery)
            }
        }
    }

    /// The answer to the login, or to its renewal.
    fn hear_logged_in(&mut self, now: Instant, heartbeat_ms: u32) {
        if heartbeat_ms > 0 {
            self.heartbeat.period = Duration::from_millis(heartbeat_ms.into());
        }
        if let Phase::LoggingIn { .. } = self.phase {
            self.phase = Phase::Ready;
            self.back_off.reset();
            self.join_back_off.reset();
            self.events.push_back(Event::LoggedIn { address: self.addresses.current().to_owned() });
            self.rooms.unjoined().into_iter().for_each(|room| self.say_join(now, room));
            self.say_messages(now);
        }
    }

    fn hear_joined(&mut self, now: Instant, room: RoomId, sequence: u64, recovery: Option<Recovery>) {
        if recovery.is_some() {
            self.history = History::Known;
        }
        let joined = self.rooms.joined(room, sequence, recovery);
        if joined == Joined::Unwanted {
            return;
        }
        self.join_back_off.reset();
        if joined == Joined::Anew || recovery == Some(Recovery::TooOld) {
            self.events.push_back(Event::Joined { room, sequence, recovery });
        }
        self.say_messages(now);
    }

    fn hear_message(&mut self, now: Instant, message: Message) {
        if message.ack_wanted {
            self.acks.extend_from_slice(&message.id.0.to_be_bytes());
        }
        if let Some(room) = message.room {
            self.rooms.saw(now, room, message.sequence, &mut self.prng);
            if self.history == History::Missing {
                self.rooms.forget_gaps();
            }
        }
        if self.seen.is_first(&message, self.config.remembered_max) {
            self.events.push_back(Event::Message(message));
        }
    }

    fn hear_send_ack(&mut self, now: Instant, ack: &SendAck) {
        let name = ack.client_msg_id.as_str();
        let Some(message) = self.store.get(name) else { return }; // an earlier send-ack said it
        match (ack.outcome, message.to) {
            (Outcome::Failed(FailReason::Busy), _) => {
                self.store.put_off(name, now, self.config.busy_after, &mut self.prng);
            }
            (Outcome::Failed(FailReason::NotMember), To::Room(room)) if self.rooms.not_joined(room) => {
                self.store.make_due(name);
                self.say_join(now, room);
            }
            (outcome, _) => {
                self.store.remove(name);
                let client_msg_id = name.to_owned();
                self.events.push_back(Event::Outcome { client_msg_id, id: ack.id, outcome });
            }
        }
    }

    fn hear_notice(&mut self, now: Instant, code: NoticeCode, retry_after: Duration) {
        let why = Loss::Notice(code);
        match code {
            NoticeCode::Kicked => self.end(End::Kicked),
            NoticeCode::Draining
            | NoticeCode::RateLimited
            | NoticeCode::IdleTimeout
            | NoticeCode::SlowReader
            | NoticeCode::LoginTimeout
            | NoticeCode::AddressLimit
            | NoticeCode::ServerFull => self.lose(now, why, retry_after),
            NoticeCode::TokenInvalid | NoticeCode::TokenExpired => {
                self.token.refuse();
                self.lose(now, why, retry_after);
            }
            NoticeCode::BadMagic
            | NoticeCode::BadCode
            | NoticeCode::BadLength
            | NoticeCode::BadBody
            | NoticeCode::LoginRequired
            | NoticeCode::AlreadyLoggedIn => self.lose(now, why, FAULT_TIMES * self.config.backoff),
            NoticeCode::Busy => self.hear_busy(now),
            NoticeCode::NotMember
            | NoticeCode::NoRoute
            | NoticeCode::RoomLimit
            | NoticeCode::TooLong
            | NoticeCode::BadContent => {}
        }
    }

    /// The server was too busy, perhaps for a join.
    fn hear_busy(&mut self, now: Instant) {
        let at = now + self.join_back_off.next(self.config.busy_after, &mut self.prng);
        let has_unjoined = !self.rooms.unjoined().is_empty();
        if has_unjoined {
            self.rooms.again_at = Some(at);
        }
        if !self.rooms.put_off_gaps(at) && !has_unjoined {
            self.join_back_off.reset(); // it was about something else
        }
    }

    /// The connection, or the try to have one, is over; the next try comes after a wait.
    fn lose(&mut self, now: Instant, why: Loss, wait_min: Duration) {
        let address = self.addresses.current().to_owned();
        match self.phase {
            Phase::Ended => return,
            Phase::LoggingOut { .. } => return self.end(End::Logout),
            // A notice may have named another address already.
            Phase::Connecting { .. } | Phase::LoggingIn { .. } if !matches!(why, Loss::Notice(_)) => {
                self.addresses.rotate();
                self.drop_connection();
            }
            Phase::Connecting { .. } | Phase::LoggingIn { .. } | Phase::Ready => self.drop_connection(),
            Phase::Away { .. } => {}
        }
        let wait = self.back_off.next(self.config.backoff, &mut self.prng).max(wait_min);
        self.phase = Phase::Away { connect_at: now + wait };
        let next = self.addresses.current().to_owned();
        self.events.push_back(Event::Disconnected { why, address, next, wait });
    }

    fn end(&mut self, why: End) {
        if !matches!(self.phase, Phase::Away { .. } | Phase::Ended) {
            self.drop_connection();
        }
        self.phase = Phase::Ended;
        self.events.push_back(Event::Ended(why));
    }

    fn drop_connection(&mut self) {
        self.actions.push_back(Action::Disconnect);
        self.deframer = Deframer::default();
        self.out.clear();
        self.acks.clear();
        self.rooms.disconnect();
        self.store.disconnect();
    }

    fn has_connection(&self) -> bool {
        matches!(self.phase, Phase::LoggingIn { .. } | Phase::Ready | Phase::LoggingOut { .. })
    }

    fn check(&self, message: &Outgoing) -> Result<(), Refused> {
        if self.phase == Phase::Ended {
            return Err(Refused::Ended);
        }
        if message.payload.len() > self.config.payload_bytes_max {
            return Err(Refused::TooLong);
        }
        if message.has_good_name() { Ok(()) } else { Err(Refused::BadName) }
    }

    fn say_login(&mut self, now: Instant) {
        let token = self.token.usable(now).unwrap_or_default().to_owned();
        self.say(now, &ClientFrame::Login { token: token.into() });
    }

    fn say_join(&mut self, now: Instant, room: RoomId) {
        let want = self.rooms.want(room).filter(|_| self.history != History::Missing);
        if want.is_some() {
            self.history = self.history.max(History::Asked);
        }
        self.say(now, &ClientFrame::Join { room, want });
    }

    fn say_messages(&mut self, now: Instant) {
        let Self { store, rooms, config, out, heartbeat, .. } = self;
        let Config { encoding, app, user, repeat_after, .. } = *config;
        store.write_due(
            now,
            repeat_after,
            |message| may_be_written(rooms, message),
            |name, message| {
                message.frame(name).encode(encoding, app, user, out);
                heartbeat.said_at = now;
            },
        );
    }

    fn say_acks(&mut self, now: Instant) {
        let acks = std::mem::take(&mut self.acks);
        for ids in acks.chunks(8 * ACK_IDS_MAX) {
            self.say(now, &ClientFrame::Ack(AckIds::Packed(ids)));
        }
    }

    fn say(&mut self, now: Instant, frame: &ClientFrame<'_>) {
        let Config { encoding, app, user, .. } = self.config;
        frame.encode(encoding, app, user, &mut self.out);
        self.heartbeat.said_at = now;
    }
}

fn may_be_written(rooms: &Rooms, message: &Outgoing) -> bool {
    match message.to {
        To::Room(room) => rooms.is_open(room),
        To::User(_) | To::Backend => true,
    }
}
