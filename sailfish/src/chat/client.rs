//! The chat client's state, and what it does about each input.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, never, select_biased};
use sailfish_client::{
    Address, Client, End, Event, Loss, Message, NoticeCode, Outcome, Outgoing, Recovery, Refused,
};
use wire::node::Target;
use wire::{BizCode, RoomId, UserId};

use super::Input;
use super::screen::{Screen, Tone};
use crate::config::ConfigError;
use crate::printable::printable;

/// How long connects may fail before the first success: then no gateway is there.
const FIRST_TIME: Duration = Duration::from_secs(5);
/// How long the chat waits for outcomes once stdin has ended.
const FINISH_TIME: Duration = Duration::from_secs(5);
/// How long the logout may take.
const LOGOUT_TIME: Duration = Duration::from_secs(1);
/// While this many messages of a script have no outcome, its next line waits.
const OUTGOING_MAX: usize = 1_024;
/// How many lines of a script are sent a second, and at once: less than half of what a gateway takes by
/// default (`limits.frames_per_second`, `limits.frames_burst`).
const LINES_PER_SECOND: u32 = 400;
/// For how long no line is read after the server has said that it was too much.
const RATE_PAUSE: Duration = Duration::from_secs(2);
/// The forms of a gateway's address.
pub const WANTED: &str = "want HOST:PORT, tls://HOST:PORT, ws://HOST:PORT or wss://HOST:PORT";
/// The first byte of a TLS server's answer to other bytes: an alert.
const TLS_ALERT: u8 = 21;
const TLS_MAJOR: u8 = 3;
/// How often time is looked at.
const TICK: Duration = Duration::from_millis(100);

/// The user of the chat, and the target.
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The address of the first connect.
    pub target: String,
    /// The business code of lines, if not chat.
    pub biz_code: Option<BizCode>,
}

/// The state of the screen, and what the chat waits for. The [`Client`] has connections, repeats and acks.
pub struct Chat {
    identity: Identity,
    screen: Screen,
    client: Client,
    logged_in: bool,
    /// Until when connects may fail; `None` once a server answered, or was silent for too long.
    first_by: Option<Instant>,
    /// Why the last one failed, if any did.
    silence: Option<String>,
    /// Where lines go.
    target: Option<Target>,
    /// The rooms to be in, and whether the server has confirmed each.
    rooms: BTreeMap<RoomId, bool>,
    /// A prefix of this run, so that no two runs share an id.
    id_prefix: String,
    ids: u64,
    /// The texts of messages without an outcome, by the numbers of their ids.
    outgoing: BTreeMap<u64, String>,
    pace: Pace,
    failed: bool,
    /// Set when no more lines come.
    finish_by: Option<Instant>,
}

/// Where inputs come from.
pub struct Inputs {
    /// What the user writes.
    pub lines: Receiver<Input>,
    /// What happens to the client.
    pub events: Receiver<Input>,
}

impl Inputs {
    /// The next input, whichever comes first. If the lines end without `End`, they are at their end.
    fn next(&self, takes_lines: bool) -> Result<Input, RecvTimeoutError> {
        let none = never();
        let lines = if takes_lines { &self.lines } else { &none };
        select_biased! {
            // Outcomes first: they let further messages go.
            recv(self.events) -> event => event.map_err(|_| RecvTimeoutError::Disconnected),
            recv(lines) -> line => Ok(line.unwrap_or(Input::End)),
            default(TICK) => Err(RecvTimeoutError::Timeout),
        }
    }
}

/// How fast the lines of a script are taken.
struct Pace {
    per_second: u32,
    /// While this many messages have no outcome, the next line waits.
    outgoing_max: usize,
    /// When the next line would be taken without a burst.
    next_at: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { per_second: LINES_PER_SECOND, outgoing_max: OUTGOING_MAX, next_at: now }
    }

    /// Whether a line may be taken: those of a second may come at once.
    fn allows(&self, now: Instant, outgoing: usize) -> bool {
        outgoing < self.outgoing_max && self.next_at <= now + Duration::from_secs(1)
    }

    fn took_one(&mut self, now: Instant) {
        self.next_at = self.next_at.max(now) + Duration::from_secs(1) / self.per_second;
    }

    /// The server said that it was too much: its limits are lower than the default.
    fn was_too_fast(&mut self, now: Instant) {
        self.per_second = (self.per_second / 2).max(1);
        self.outgoing_max = (self.outgoing_max / 2).max(1);
        self.next_at = now + RATE_PAUSE + Duration::from_secs(1);
    }
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    /// End: everything is done.
    Done,
    /// End: no gateway is at the target, and the reason to think so.
    NoGateway(String),
    /// End: the target is used in a wrong way, and what to change.
    Wrong(String),
}

impl Chat {
    /// A chat of a client that has just been started.
    pub fn new(
        identity: Identity,
        room: Option<RoomId>,
        to: Option<UserId>,
        client: Client,
        screen: Screen,
    ) -> Self {
        let random: [u8; 4] = crate::secret::random();
        room.into_iter().for_each(|room| client.join(room, None));
        Self {
            identity,
            screen,
            client,
            logged_in: false,
            first_by: Some(Instant::now() + FIRST_TIME),
            silence: None,
            target: to.map(Target::User).or(room.map(Target::Room)),
            rooms: room.into_iter().map(|room| (room, false)).collect(),
            id_prefix: format!("chat-{:08x}-", u32::from_ne_bytes(random)),
            ids: 0,
            outgoing: BTreeMap::new(),
            pace: Pace::new(Instant::now()),
            failed: false,
            finish_by: None,
        }
    }

    /// Runs until the user, the end of stdin or the server ends it. Returns whether nothing failed.
    ///
    /// # Errors
    /// No gateway is at the target.
    pub fn run(mut self, inputs: &Inputs) -> Result<bool, ConfigError> {
        loop {
            let next = match self.tick(Instant::now()) {
                Next::GoOn => self.input(inputs.next(self.takes_lines())),
                end => end,
            };
            match next {
                Next::GoOn => {}
                Next::Done => break,
                Next::Wrong(why) => return Err(self.wrong_target(&printable(&why))),
                Next::NoGateway(why) => {
                    let wish = "want the address of clients that `sailfish up` prints, or start it";
                    let why = printable(&why);
                    return Err(self.wrong_target(&format!("no gateway of Sailfish is there: {why}; {wish}")));
                }
            }
        }
        self.log_out(&inputs.events);
        Ok(!self.failed)
    }

    fn wrong_target(&self, why: &str) -> ConfigError {
        ConfigError(format!("--target {}: {why}", printable(&self.identity.target)))
    }

    /// A script waits for outcomes, and keeps a pace; a person does not send that much.
    fn takes_lines(&self) -> bool {
        let is_allowed = || self.pace.allows(Instant::now(), self.outgoing.len());
        self.finish_by.is_none() && (self.screen.is_edited() || is_allowed())
    }

    fn input(&mut self, input: Result<Input, RecvTimeoutError>) -> Next {
        match input {
            Ok(Input::Line(line)) => {
                self.pace.took_one(Instant::now());
                self.line(line.trim())
            }
            Ok(Input::NoText(number)) => {
                self.failed = true;
                self.screen.say(Tone::Bad, &format!("line {number} is no UTF-8, and is not sent"));
                Next::GoOn
            }
            Ok(Input::TooLong(number)) => {
                self.failed = true;
                self.screen
                    .say(Tone::Bad, &format!("line {number} is longer than any message, and is not sent"));
                Next::GoOn
            }
            Ok(Input::End) => self.finish(),
            Ok(Input::Broken(why)) => {
                self.failed = true;
                self.screen.say(Tone::Bad, &format!("stdin cannot be read: {why}"));
                self.finish()
            }
            Ok(Input::Event(event)) => self.event(event),
            Err(RecvTimeoutError::Timeout) => Next::GoOn,
            Err(RecvTimeoutError::Disconnected) => Next::Done,
        }
    }

    fn tick(&mut self, now: Instant) -> Next {
        if let Some(by) = self.first_by {
            return match self.silence.take_if(|_| now >= by) {
                Some(why) => Next::NoGateway(why),
                None => Next::GoOn, // a script waits for the first answer, too
            };
        }
        let Some(by) = self.finish_by else { return Next::GoOn };
        if self.outgoing.is_empty() && self.logged_in && self.rooms.values().all(|joined| *joined) {
            return Next::Done;
        }
        if now < by {
            return Next::GoOn;
        }
        for text in self.outgoing.values() {
            self.screen.say(
                Tone::Bad,
                &format!("  no outcome within {} s: {}", FINISH_TIME.as_secs(), printable(text)),
            );
        }
        if !self.logged_in {
            self.screen.say(Tone::Bad, "not logged in");
        }
        self.failed = true;
        Next::Done
    }

    fn event(&mut self, event: Event) -> Next {
        match event {
            Event::LoggedIn { address } => {
                self.heard();
                self.logged_in = true;
                self.screen.say(
                    Tone::Quiet,
                    &format!("logged in to {} as user {}", printable(&address), self.identity.user.0),
                );
            }
            Event::Joined { room, sequence, recovery } => self.joined(room, sequence, recovery),
            Event::Left { room } => self.screen.say(Tone::Quiet, &format!("left room {}", room.0)),
            Event::Message(message) => self.message(&message),
            Event::Outcome { client_msg_id, outcome, .. } => self.outcome(&client_msg_id, outcome),
            Event::Notice { code, text } => self.noticed(code, &text),
            Event::Disconnected { why, address, next, wait } => {
                self.logged_in = false;
                self.rooms.values_mut().for_each(|joined| *joined = false);
                return self.lost(why, &address, &next, wait);
            }
            Event::Ended(End::Kicked) => {
                self.logged_in = false;
                self.failed = true;
                return Next::Done;
            }
            Event::Ended(End::Logout) => return Next::Done,
        }
        Next::GoOn
    }

    fn joined(&mut self, room: RoomId, sequence: u64, recovery: Option<Recovery>) {
        let was_in = self.rooms.insert(room, true) == Some(true);
        if !was_in {
            self.screen.say(
                Tone::Quiet,
                &format!("joined room {} (its last message so far is number {sequence})", room.0),
            );
        }
        if recovery == Some(Recovery::TooOld) {
            let why = "they are too old, or were too many, to be kept";
            self.screen.say(Tone::Bad, &format!("some messages of room {} are missing: {why}", room.0));
        }
    }

    fn noticed(&mut self, code: NoticeCode, text: &str) {
        self.screen.say(Tone::Bad, &format!("notice {}: {}", code.name(), printable(text)));
        if code == NoticeCode::LoginTimeout {
            self.screen.say(
                Tone::Bad,
                "a gateway is there and nothing answers the login: it may have no router yet; see its /readyz",
            );
        }
        self.heard();
    }

    /// Notes that a server has answered, or that it is silent. The time for a script's messages begins here.
    fn heard(&mut self) {
        if self.first_by.take().is_some() && self.finish_by.is_some() {
            self.finish_by = Some(Instant::now() + FINISH_TIME);
        }
    }

    fn lost(&mut self, why: Loss, address: &str, next: &str, wait: Duration) -> Next {
        let (next, wait) = (printable(next), wait.as_millis());
        let why = match why {
            Loss::NotConnected(error) => {
                if self.first_by.is_some()
                    && let Some(why) = remedy(address, &error)
                {
                    return Next::Wrong(why);
                }
                let address = printable(address);
                self.screen.say(Tone::Bad, &format!(
                    "cannot connect to {address}: {error}; is `sailfish up` running? Trying {next} in {wait} ms"
                ));
                self.silence = Some(error);
                return Next::GoOn;
            }
            Loss::Notice(code) if is_worth_another_try(code) => {
                if code == NoticeCode::RateLimited {
                    self.pace.was_too_fast(Instant::now());
                }
                self.screen.say(Tone::Quiet, &format!("connecting to {next} in {wait} ms"));
                return Next::GoOn;
            }
            Loss::Notice(_) | Loss::NoToken => {
                self.failed = true;
                return Next::Done;
            }
            Loss::Garbage(begin) if self.first_by.is_some() => {
                return another_protocol(&begin);
            }
            Loss::Garbage(_) => "the server sent bytes that are no frame".to_owned(),
            Loss::Closed(why) => {
                self.silence = Some(format!("it says nothing and ends the connection: {why}"));
                why
            }
            Loss::Late => {
                self.heard();
                "the server does not answer the login: it is a gateway that has no router yet, or another server"
                    .to_owned()
            }
            Loss::Silent => "the server is silent".to_owned(),
        };
        self.screen.say(Tone::Bad, &format!("connection lost: {why}; connecting again in {wait} ms"));
        Next::GoOn
    }

    fn message(&mut self, message: &Message) {
        let own = message.client_msg_id.as_str().starts_with(&self.id_prefix);
        if own && message.sender == self.identity.user {
            return; // the send-ack says it
        }
        let text = String::from_utf8_lossy(&message.payload);
        let text = printable(&text);
        match message.room {
            Some(room) => {
                self.screen.say(
                    Tone::Message,
                    &format!("[room {} #{}] {}: {text}", room.0, message.sequence, message.sender.0),
                );
            }
            None => self.screen.say(Tone::Message, &format!("[direct] {}: {text}", message.sender.0)),
        }
    }

    fn outcome(&mut self, id: &str, outcome: Outcome) {
        let number = id.strip_prefix(&self.id_prefix).and_then(|number| number.parse().ok());
        let Some(text) = number.and_then(|number: u64| self.outgoing.remove(&number)) else { return };
        let tone = if matches!(outcome, Outcome::Failed(_)) { Tone::Bad } else { Tone::Good };
        let became = match outcome {
            Outcome::Delivered => "delivered".to_owned(),
            Outcome::Stored => "stored for the receiver".to_owned(),
            Outcome::Sequenced { sequence } => format!("sequenced #{sequence}"),
            Outcome::Answered => "answered".to_owned(),
            Outcome::Failed(reason) => {
                self.failed = true;
                format!("failed ({})", reason.name())
            }
        };
        self.screen.say(tone, &format!("  {became}: {}", printable(&text)));
    }

    fn line(&mut self, line: &str) -> Next {
        let number = |rest: &str| rest.trim().parse::<i64>().ok();
        if line == "/quit" {
            return self.finish();
        } else if let Some(rest) = line.strip_prefix("/to ") {
            let (user, text) = rest.trim().split_once(' ').unwrap_or((rest, ""));
            let Some(user) = number(user) else { return self.misunderstood() };
            self.target = Some(Target::User(UserId(user)));
            self.screen.say(Tone::Quiet, &format!("lines go to user {user}"));
            return self.line(text.trim());
        } else if let Some(room) = line.strip_prefix("/room ").and_then(number) {
            let room = RoomId(room);
            self.target = Some(Target::Room(room));
            self.screen.say(Tone::Quiet, &format!("lines go to room {}", room.0));
            self.rooms.entry(room).or_insert(false);
            self.client.join(room, None);
        } else if line.starts_with('/') {
            return self.misunderstood();
        } else if !line.is_empty() {
            match self.target {
                Some(target) => self.send(target, line),
                None => {
                    self.failed = true;
                    self.screen
                        .say(Tone::Bad, "where to? Say /to USER or /room ROOM, or start with --to or --room");
                }
            }
        }
        Next::GoOn
    }

    fn send(&mut self, target: Target, line: &str) {
        let message = match target {
            Target::User(user) => Outgoing::to_user(user, line.to_owned()),
            Target::Room(room) => Outgoing::to_room(room, line.to_owned()),
        };
        let message = match self.identity.biz_code {
            Some(biz_code) => message.about(biz_code),
            None => message,
        };
        self.ids += 1;
        match self.client.send(message.named(format!("{}{}", self.id_prefix, self.ids))) {
            Ok(_) => {
                self.outgoing.insert(self.ids, line.to_owned());
            }
            Err(Refused::Ended) => {} // the event that tells it is on its way
            Err(refused) => {
                self.failed = true;
                self.screen.say(Tone::Bad, &format!("  not sent ({refused}): {}", printable(line)));
            }
        }
    }

    /// Notes that no more lines come: messages under way get their time.
    fn finish(&mut self) -> Next {
        self.finish_by.get_or_insert(Instant::now() + FINISH_TIME);
        Next::GoOn
    }

    fn misunderstood(&mut self) -> Next {
        self.failed = true;
        self.screen.say(Tone::Bad, "want /to USER, /to USER TEXT, /room ROOM or /quit");
        Next::GoOn
    }

    /// Logs out, so that the server learns of the end from the client and not from the end of its connection.
    fn log_out(&self, events: &Receiver<Input>) {
        if !self.logged_in {
            return;
        }
        self.client.log_out();
        let by = Instant::now() + LOGOUT_TIME;
        while let Ok(input) = events.recv_timeout(by.saturating_duration_since(Instant::now())) {
            if let Input::Event(Event::Ended(_)) = input {
                return;
            }
        }
    }
}

/// Whether another try may help: some notices would only come again.
fn is_worth_another_try(code: NoticeCode) -> bool {
    matches!(
        code,
        NoticeCode::Draining
            | NoticeCode::IdleTimeout
            | NoticeCode::SlowReader
            | NoticeCode::RateLimited
            | NoticeCode::LoginTimeout
            | NoticeCode::AddressLimit
            | NoticeCode::ServerFull
    )
}

/// What to change, if another try would fail in the same way.
fn remedy(address: &str, error: &str) -> Option<String> {
    let Ok(Address { tls, websocket, .. }) = Address::parse(address, None) else { return Some(error.into()) };
    let has = |part: &str| error.contains(part);
    Some(match error {
        _ if has("invalid socket address") || has("invalid port") => format!("{error}; {WANTED}"),
        _ if has("CaUsedAsEndEntity") => {
            "the server shows the certificate of an authority as its own; a certificate for a test that signs itself wants \
             basicConstraints=CA:FALSE, or trust it with --insecure"
                .into()
        }
        _ if ["UnknownIssuer", "BadSignature", "UnsupportedSignature"].into_iter().any(has) => {
            "nobody who is trusted here has signed the server's certificate; name its authority with --ca FILE, or trust \
             every server with --insecure, for tests"
                .into()
        }
        _ if has("invalid peer certificate") => {
            format!("{error}; --insecure trusts every certificate, for tests")
        }
        _ if tls && (has("InvalidContentType") || has("InvalidMessage")) => {
            "no TLS is spoken there; want HOST:PORT or ws://HOST:PORT, or the port of the gateway with TLS".into()
        }
        _ if has("no certificates in PEM") || has("no certificate of an authority") => {
            format!("{error}; want a file with certificates in PEM as --ca")
        }
        _ if has("the system has no certificates") => format!("{error}; name authorities with --ca FILE"),
        _ if websocket.is_some() && has("the answer is no HTTP") => {
            "no WebSocket is spoken there; want HOST:PORT, or the port of the gateway with WebSocket or WebSocket over TLS"
                .into()
        }
        _ => return None,
    })
}

/// What it means that no frame came, but something that begins like this.
fn another_protocol(begin: &[u8]) -> Next {
    if let [TLS_ALERT, TLS_MAJOR, ..] = begin {
        return Next::Wrong("it speaks TLS there; want tls://HOST:PORT or wss://HOST:PORT".into());
    }
    let line = first_line(begin);
    let is_http = line.starts_with("HTTP/");
    let hint = if is_http { " (a gateway's port for WebSocket wants ws://)" } else { "" };
    Next::NoGateway(format!("it answers \"{line}\"{hint}"))
}

/// The beginning of an answer, for a person to recognise.
fn first_line(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_try_cannot_mend_is_told_at_once() {
        for (address, error, part) in [
            ("tls://a:1", "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))", "CA:FALSE"),
            ("wss://a:1", "invalid peer certificate: UnknownIssuer", "--ca FILE"),
            ("tls://a:1", "invalid peer certificate: Expired", "Expired"),
            ("tls://a:1", "received corrupt message of type InvalidContentType", "no TLS is spoken"),
            ("tls://a:1", "invalid peer certificate: BadSignature", "--ca FILE"),
            ("tls://a:1", "no certificate of an authority: no root trust anchors were provided", "as --ca"),
            ("ws://a:1", "the answer is no HTTP: invalid HTTP version", "no WebSocket is spoken"),
            ("http://a:1", "http://a:1: want HOST:PORT", "want HOST:PORT"),
        ] {
            let told = remedy(address, error).unwrap();
            assert!(told.contains(part), "{told}");
        }
        for error in
            ["Connection refused (os error 111)", "the answer is HTTP 503: busy", "the server closed"]
        {
            assert_eq!(remedy("wss://a:1", error), None, "{error}");
        }
    }

    #[test]
    fn a_script_keeps_a_pace() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let lines = |pace: &mut Pace, ms: u64| {
            let now = start + Duration::from_millis(ms);
            let mut lines = 0;
            while pace.allows(now, 0) {
                pace.took_one(now);
                lines += 1;
            }
            lines
        };
        assert_eq!((lines(&mut pace, 0), lines(&mut pace, 0), lines(&mut pace, 500)), (401, 0, 200));
        assert!(!pace.allows(start + Duration::from_secs(9), OUTGOING_MAX));
        pace.was_too_fast(start + Duration::from_secs(1));
        assert_eq!((lines(&mut pace, 2_900), lines(&mut pace, 3_000), lines(&mut pace, 3_500)), (0, 1, 100));
        (0..20).for_each(|_| pace.was_too_fast(start));
        assert_eq!((pace.per_second, pace.outgoing_max), (1, 1));
    }
}
