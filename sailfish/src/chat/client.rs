//! The chat client's state, and what it does about each input.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use wire::client::{AckIds, ClientFrame, Encoding, Message, NoticeCode, Outcome, SendAck, ServerFrame};
use wire::node::Target;
use wire::{AppId, BizCode, MessageId, RoomId, UserId};

use super::link::Link;
use super::outgoing::Outgoing;
use super::screen::Screen;
use super::{Input, Loss};
use crate::config::ConfigError;
use crate::printable::printable;

/// How long a gateway may take to say a first word: a server that never does is none, or is not there.
const FIRST_TIME: Duration = Duration::from_secs(5);
/// How long the outcome of messages is waited for once stdin has ended.
const FINISH_TIME: Duration = Duration::from_secs(5);
/// The first wait before connecting again; each further one is twice as long.
const BACKOFF: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// What a server that does not tell expects, as the Java platform does.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Message ids remembered to tell a repeat.
const SEEN_MAX: usize = 4096;
/// How often time is looked at.
const TICK: Duration = Duration::from_millis(100);

/// Who logs in where.
pub struct Identity {
    /// The app.
    pub app: AppId,
    /// The user.
    pub user: UserId,
    /// The login token.
    pub token: String,
    /// HOST:PORT; a gateway that goes may name others.
    pub target: String,
    /// How bodies are encoded.
    pub encoding: Encoding,
    /// What lines are about, if not chat.
    pub biz_code: Option<BizCode>,
}

/// The client.
pub struct Client {
    identity: Identity,
    screen: Screen,
    inputs: Sender<Input>,
    /// Where to try when the target takes no connection, in turns.
    elsewhere: VecDeque<String>,
    link: Option<Link>,
    links: u64,
    logged_in: bool,
    connect_at: Instant,
    backoff: Duration,
    heartbeat: Duration,
    heartbeat_at: Instant,
    heard_at: Instant,
    /// Until when a gateway is to speak for the first time; `None` once one has.
    first_by: Option<Instant>,
    /// Why none has spoken yet.
    silence: String,
    /// Where lines go.
    target: Option<Target>,
    /// The rooms to be in, and whether the server said so.
    rooms: BTreeMap<RoomId, bool>,
    /// Of this run, so that no two runs share an id.
    id_prefix: String,
    ids: u64,
    outgoing: VecDeque<Outgoing>,
    seen: HashSet<MessageId>,
    seen_order: VecDeque<MessageId>,
    failed: bool,
    /// Set when no more lines come.
    finish_by: Option<Instant>,
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    /// End: all that was to be done is done.
    Done,
    /// End: no gateway is at the target, and why that is thought.
    NoGateway(String),
}

impl Client {
    /// A client that is not connected.
    pub fn new(
        identity: Identity,
        room: Option<RoomId>,
        to: Option<UserId>,
        inputs: Sender<Input>,
        screen: Screen,
    ) -> Self {
        let now = Instant::now();
        let random: [u8; 4] = crate::secret::random();
        Self {
            identity,
            screen,
            inputs,
            elsewhere: VecDeque::new(),
            link: None,
            links: 0,
            logged_in: false,
            connect_at: now,
            backoff: BACKOFF,
            heartbeat: HEARTBEAT,
            heartbeat_at: now,
            heard_at: now,
            first_by: Some(now + FIRST_TIME),
            silence: "it says nothing".into(),
            target: to.map(Target::User).or(room.map(Target::Room)),
            rooms: room.into_iter().map(|room| (room, false)).collect(),
            id_prefix: format!("chat-{:08x}", u32::from_ne_bytes(random)),
            ids: 0,
            outgoing: VecDeque::new(),
            seen: HashSet::new(),
            seen_order: VecDeque::new(),
            failed: false,
            finish_by: None,
        }
    }

    /// Runs until the user, the end of stdin or the server ends it; answers whether nothing failed.
    ///
    /// # Errors
    /// No gateway is at the target.
    pub fn run(mut self, received: &Receiver<Input>) -> Result<bool, ConfigError> {
        loop {
            let next = match self.tick(Instant::now()) {
                Next::GoOn => self.input(received.recv_timeout(TICK)),
                end => end,
            };
            match next {
                Next::GoOn => {}
                Next::Done => break,
                Next::NoGateway(why) => {
                    let target = printable(&self.identity.target);
                    let wish = "want the address of clients that `sailfish up` prints, or start it";
                    return Err(ConfigError(format!(
                        "--target {target}: no gateway of Sailfish is there: {}; {wish}",
                        printable(&why)
                    )));
                }
            }
        }
        if self.logged_in {
            self.send(&ClientFrame::Logout);
        }
        Ok(!self.failed)
    }

    fn input(&mut self, input: Result<Input, RecvTimeoutError>) -> Next {
        match input {
            Ok(Input::Line(line)) => self.line(line.trim()),
            Ok(Input::NoText(number)) => {
                self.failed = true;
                self.screen.say(&format!("line {number} is no UTF-8, and is not sent"));
                Next::GoOn
            }
            Ok(Input::End) => self.finish(),
            Ok(Input::Broken(why)) => {
                self.failed = true;
                self.screen.say(&format!("stdin cannot be read: {why}"));
                self.finish()
            }
            Ok(Input::Frame(link, frame)) if self.is_current(link) => self.frame(frame),
            Ok(Input::Lost(link, loss)) if self.is_current(link) => self.lost_link(loss),
            Ok(Input::Frame(..) | Input::Lost(..)) | Err(RecvTimeoutError::Timeout) => Next::GoOn,
            Err(RecvTimeoutError::Disconnected) => Next::Done,
        }
    }

    fn tick(&mut self, now: Instant) -> Next {
        if self.first_by.is_some_and(|by| now >= by) {
            return Next::NoGateway(std::mem::take(&mut self.silence));
        }
        if let Some(by) = self.finish_by {
            if self.outgoing.is_empty() && self.logged_in && self.rooms.values().all(|joined| *joined) {
                return Next::Done;
            }
            if now >= by {
                for message in &self.outgoing {
                    let text = printable(&message.text);
                    self.screen.say(&format!("  no outcome within {} s: {text}", FINISH_TIME.as_secs()));
                }
                if !self.logged_in {
                    self.screen.say("not logged in");
                }
                self.failed = true;
                return Next::Done;
            }
        }
        if self.link.is_none() {
            return if now >= self.connect_at { self.connect(now) } else { Next::GoOn };
        }
        if !self.logged_in {
            return Next::GoOn;
        }
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + self.heartbeat;
            self.send(&ClientFrame::Heartbeat { echo: &[] });
        }
        if now >= self.heard_at + 2 * self.heartbeat + HEARTBEAT / 10 {
            return self.lost("the server is silent");
        }
        self.send_outgoing(now);
        Next::GoOn
    }

    fn connect(&mut self, now: Instant) -> Next {
        self.links += 1;
        match Link::connect(self.links, &self.identity.target, self.inputs.clone()) {
            Ok(link) => {
                self.link = Some(link);
                self.heard_at = now;
                let token = self.identity.token.clone();
                self.send(&ClientFrame::Login { token: Cow::Owned(token) });
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && self.first_by.is_some() => {
                return Next::NoGateway(error.to_string()); // it is no HOST:PORT
            }
            Err(error) => {
                let wait = self.back_off(Duration::ZERO);
                let failed = self.next_target();
                let (failed, target) = (printable(&failed), printable(&self.identity.target));
                self.screen.say(&format!(
                    "cannot connect to {failed}: {error}; is `sailfish up` running? Trying {target} in {} ms",
                    wait.as_millis()
                ));
                self.silence = error.to_string();
            }
        }
        Next::GoOn
    }

    /// Goes on to the next gateway that is known, if there is another; the one before it.
    fn next_target(&mut self) -> String {
        let before = self.identity.target.clone();
        if let Some(next) = self.elsewhere.pop_front() {
            self.elsewhere.push_back(std::mem::replace(&mut self.identity.target, next));
        }
        before
    }

    /// A gateway that goes says where to be instead; it comes last itself.
    fn go_elsewhere(&mut self, alternatives: &[Cow<'_, str>]) {
        if alternatives.is_empty() {
            return;
        }
        let left = &self.identity.target;
        let others =
            alternatives.iter().filter(|other| *other != left).map(|other| other.clone().into_owned());
        self.elsewhere = others.collect();
        self.next_target();
    }

    /// Sets the time of the next connect, at the earliest `least` from here on.
    fn back_off(&mut self, least: Duration) -> Duration {
        // A little apart, so that clients that lost their server together do not come back together.
        let [random] = crate::secret::random();
        let wait = self.backoff.mul_f64(0.75 + f64::from(random) / 512.0).max(least);
        self.backoff = (2 * self.backoff).min(BACKOFF_MAX);
        self.connect_at = Instant::now() + wait;
        wait
    }

    fn lost_link(&mut self, loss: Loss) -> Next {
        match loss {
            Loss::NoProtocol(begin) if self.first_by.is_some() => {
                Next::NoGateway(format!("it answers \"{begin}\""))
            }
            Loss::NoProtocol(_) => self.lost("the server sent what is no frame"),
            Loss::Ended(why) => {
                self.silence = format!("it says nothing and ends the connection: {why}");
                self.lost(&why)
            }
        }
    }

    fn lost(&mut self, why: &str) -> Next {
        self.drop_link();
        let wait = self.connect_at.saturating_duration_since(Instant::now());
        let wait = if wait.is_zero() { self.back_off(Duration::ZERO) } else { wait };
        self.screen.say(&format!("connection lost: {why}; connecting again in {} ms", wait.as_millis()));
        Next::GoOn
    }

    fn drop_link(&mut self) {
        self.link = None;
        self.logged_in = false;
        self.rooms.values_mut().for_each(|joined| *joined = false);
        self.outgoing.iter_mut().for_each(Outgoing::lost);
    }

    fn frame(&mut self, frame: ServerFrame<'static>) -> Next {
        let now = Instant::now();
        self.heard_at = now;
        self.first_by = None;
        match frame {
            ServerFrame::LoggedIn { heartbeat_ms } => self.logged_in(now, heartbeat_ms),
            ServerFrame::LoggedOut => return Next::Done,
            ServerFrame::Deliver(message) => self.message(&message),
            ServerFrame::Heartbeat { .. } => {}
            ServerFrame::SendAck(ack) => self.outcome(&ack),
            ServerFrame::Notice { code, text, retry_after_ms, alternatives } => {
                self.go_elsewhere(&alternatives);
                return self.notice(code, &text, Duration::from_millis(retry_after_ms.into()));
            }
            ServerFrame::Joined { room, sequence } => {
                self.rooms.insert(room, true);
                self.screen
                    .say(&format!("joined room {} (its last message so far is number {sequence})", room.0));
                self.send_outgoing(now);
            }
            ServerFrame::Left { room } => self.screen.say(&format!("left room {}", room.0)),
        }
        Next::GoOn
    }

    fn logged_in(&mut self, now: Instant, heartbeat_ms: u32) {
        self.logged_in = true;
        self.backoff = BACKOFF;
        if heartbeat_ms > 0 {
            self.heartbeat = Duration::from_millis(heartbeat_ms.into());
        }
        self.heartbeat_at = now + self.heartbeat;
        let Identity { user, target, .. } = &self.identity;
        self.screen.say(&format!("logged in to {} as user {}", printable(target), user.0));
        for room in self.rooms.keys().copied().collect::<Vec<_>>() {
            self.send(&ClientFrame::Join { room });
        }
        self.send_outgoing(now);
    }

    fn message(&mut self, message: &Message) {
        if message.ack_wanted {
            self.send(&ClientFrame::Ack(AckIds::One(message.id)));
        }
        if !self.is_first(message.id) {
            return;
        }
        let own = message.client_msg_id.as_str().starts_with(&self.id_prefix);
        if own && message.sender == self.identity.user {
            return; // the send-ack says it
        }
        let text = String::from_utf8_lossy(&message.payload);
        let text = printable(&text);
        match message.room {
            Some(room) => {
                self.screen
                    .say(&format!("[room {} #{}] {}: {text}", room.0, message.sequence, message.sender.0));
            }
            None => self.screen.say(&format!("[direct] {}: {text}", message.sender.0)),
        }
    }

    fn is_first(&mut self, id: MessageId) -> bool {
        if !self.seen.insert(id) {
            return false;
        }
        self.seen_order.push_back(id);
        if self.seen_order.len() > SEEN_MAX
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }

    fn outcome(&mut self, ack: &SendAck) {
        let id = ack.client_msg_id.as_str();
        let Some(at) = self.outgoing.iter().position(|message| message.client_msg_id == id) else { return };
        let message = self.outgoing.remove(at).expect("it is at that place");
        let became = match ack.outcome {
            Outcome::Delivered => "delivered".to_owned(),
            Outcome::Stored => "stored for the receiver".to_owned(),
            Outcome::Sequenced { sequence } => format!("sequenced #{sequence}"),
            Outcome::Answered => "answered".to_owned(),
            Outcome::Failed(reason) => {
                self.failed = true;
                format!("failed ({})", reason.name())
            }
        };
        self.screen.say(&format!("  {became}: {}", printable(&message.text)));
    }

    fn notice(&mut self, code: NoticeCode, text: &str, retry_after: Duration) -> Next {
        self.screen.say(&format!("notice {}: {}", code.name(), printable(text)));
        if !code.closes() {
            return Next::GoOn;
        }
        match code {
            NoticeCode::Draining
            | NoticeCode::IdleTimeout
            | NoticeCode::SlowReader
            | NoticeCode::RateLimited
            | NoticeCode::LoginTimeout
            | NoticeCode::AddressLimit
            | NoticeCode::ServerFull => {
                let wait = self.back_off(retry_after);
                self.drop_link();
                let target = printable(&self.identity.target);
                self.screen.say(&format!("connecting to {target} in {} ms", wait.as_millis()));
                Next::GoOn
            }
            // To try again would only fail again, or kick whoever kicked us.
            _ => {
                self.logged_in = false;
                self.failed = true;
                Next::Done
            }
        }
    }

    fn line(&mut self, line: &str) -> Next {
        let number = |rest: &str| rest.trim().parse::<i64>().ok();
        if line == "/quit" {
            return self.finish();
        } else if let Some(rest) = line.strip_prefix("/to ") {
            let (user, text) = rest.trim().split_once(' ').unwrap_or((rest, ""));
            let Some(user) = number(user) else { return self.misunderstood() };
            self.target = Some(Target::User(UserId(user)));
            self.screen.say(&format!("lines go to user {user}"));
            return self.line(text.trim());
        } else if let Some(room) = line.strip_prefix("/room ").and_then(number) {
            let room = RoomId(room);
            self.target = Some(Target::Room(room));
            self.screen.say(&format!("lines go to room {}", room.0));
            let rooms = self.rooms.len();
            self.rooms.entry(room).or_insert(false);
            if self.rooms.len() > rooms && self.logged_in {
                self.send(&ClientFrame::Join { room });
            }
        } else if line.starts_with('/') {
            return self.misunderstood();
        } else if !line.is_empty() {
            match self.target {
                Some(target) => {
                    self.ids += 1;
                    let id = format!("{}-{}", self.id_prefix, self.ids);
                    let biz_code = self.identity.biz_code;
                    self.outgoing.push_back(Outgoing::new(id, target, biz_code, line.to_owned()));
                    self.send_outgoing(Instant::now());
                }
                None => {
                    self.failed = true;
                    self.screen.say("where to? Say /to USER or /room ROOM, or start with --to or --room");
                }
            }
        }
        Next::GoOn
    }

    /// No more lines come: what is under way gets its time.
    fn finish(&mut self) -> Next {
        self.finish_by.get_or_insert(Instant::now() + FINISH_TIME);
        Next::GoOn
    }

    fn misunderstood(&mut self) -> Next {
        self.failed = true;
        self.screen.say("want /to USER, /to USER TEXT, /room ROOM or /quit");
        Next::GoOn
    }

    /// Writes what is due, in order; a room's messages wait until the room is joined.
    fn send_outgoing(&mut self, now: Instant) {
        if !self.logged_in {
            return;
        }
        let Self { outgoing, rooms, link: Some(link), identity, .. } = self else { return };
        for message in outgoing.iter_mut().filter(|message| message.is_due(now)) {
            if let Target::Room(room) = message.target
                && rooms.get(&room) != Some(&true)
            {
                continue;
            }
            link.send(identity, &message.frame());
            message.sent(now);
        }
    }

    fn send(&mut self, frame: &ClientFrame<'_>) {
        if let Some(link) = &mut self.link {
            link.send(&self.identity, frame);
        }
    }

    fn is_current(&self, number: u64) -> bool {
        self.link.as_ref().is_some_and(|link| link.number == number)
    }
}
