//! The server's end of one connection: frames that the client said, and frames to it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wire::client::{
    ClientFrame, Code, Encoding, Frame, HEADER_BYTES, Message, NoticeCode, Outcome, Recovery, SendAck,
    ServerFrame, Want, frame_of_text,
};
use wire::{AppId, BizCode, ClientMsgId, MessageId, RoomId, UserId};

use crate::transport::{Read1, Transport};
use crate::{Verdict, ensure};

/// How long a script waits for what a client is to do at once.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How much earlier than asked a client may do something, as clocks and timers have their grain.
pub const GRAIN: Duration = Duration::from_millis(20);
/// The longest frame that a server takes.
const BODY_BYTES_MAX: usize = 64 << 10;
/// A heartbeat period that no scenario reaches.
const HEARTBEAT_MS: u32 = 30_000;
/// The app and the user of every client under test.
pub const APP: AppId = AppId(1);
pub const USER: UserId = UserId(10_001);

/// A frame of the client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    Login(String),
    Logout,
    Send { id: String, biz_code: i32, target: i64, data: String },
    Heartbeat(Vec<u8>),
    Ack(Vec<u64>),
    Join(i64, Option<Want>),
    Leave(i64),
}

/// A connection that a client opened.
pub struct Connection {
    transport: Transport,
    /// When it was accepted.
    pub at: Instant,
    verbose: bool,
    buffer: Vec<u8>,
    encoding: Option<Encoding>,
    /// What the client said and no script has asked for yet, with the time of each.
    heard: VecDeque<(Instant, Said)>,
    gone: Option<String>,
    fault: Option<String>,
    /// Whether the server answers heartbeats by itself.
    pub answers_heartbeats: bool,
}

impl Connection {
    pub fn new(transport: Transport, at: Instant, verbose: bool) -> Self {
        Self {
            transport,
            at,
            verbose,
            buffer: Vec::new(),
            encoding: None,
            heard: VecDeque::new(),
            gone: None,
            fault: None,
            answers_heartbeats: true,
        }
    }

    /// Waits for the first frame for which `pick` has a value. The others wait for later questions.
    pub fn hear<T>(
        &mut self,
        what: &str,
        within: Duration,
        pick: impl Fn(&Said) -> Option<T>,
    ) -> Verdict<(Instant, T)> {
        let deadline = Instant::now() + within;
        loop {
            let found =
                self.heard.iter().enumerate().find_map(|(at, (when, said))| Some((at, *when, pick(said)?)));
            if let Some((at, when, value)) = found {
                self.heard.remove(at);
                return Ok((when, value));
            }
            if let Some(fault) = &self.fault {
                return Err(fault.clone());
            }
            if let Some(gone) = &self.gone {
                return Err(format!("wanted {what}, but {gone}; unread: {:?}", self.heard_only()));
            }
            ensure!(
                Instant::now() < deadline,
                "wanted {what} within {} ms; came instead: {:?}",
                within.as_millis(),
                self.heard_only()
            );
            self.read(deadline);
        }
    }

    /// Reads for a while, and fails if a frame comes, or has come, for which `is_wrong` holds.
    pub fn hear_none(&mut self, what: &str, for_time: Duration, is_wrong: impl Fn(&Said) -> bool) -> Verdict {
        let deadline = Instant::now() + for_time;
        loop {
            if let Some((_, said)) = self.heard.iter().find(|(_, said)| is_wrong(said)) {
                return Err(format!("wanted no {what}, but {said:?} came"));
            }
            if let Some(fault) = &self.fault {
                return Err(fault.clone());
            }
            if Instant::now() >= deadline || self.gone.is_some() {
                return Ok(());
            }
            self.read(deadline);
        }
    }

    /// Waits until the client has closed the connection.
    pub fn hear_end(&mut self, why: &str, within: Duration) -> Verdict {
        let deadline = Instant::now() + within;
        while self.gone.is_none() {
            ensure!(
                Instant::now() < deadline,
                "{why}: the client has not closed the connection within {} ms",
                within.as_millis()
            );
            self.read(deadline);
        }
        Ok(())
    }

    /// Waits for the login, which must be the first frame; its token.
    pub fn login_token(&mut self) -> Verdict<String> {
        let (_, said) = self.hear("a login", PATIENCE, |said| Some(said.clone()))?;
        match said {
            Said::Login(token) => Ok(token),
            other => Err(format!("wanted a login as the first frame, but {other:?} came")),
        }
    }

    /// Takes the login with whatever token.
    pub fn login(&mut self) -> Verdict {
        self.login_token()?;
        self.send(&[logged_in(HEARTBEAT_MS)]);
        Ok(())
    }

    /// Waits for a message of that name.
    pub fn hear_send(&mut self, id: &str, within: Duration) -> Verdict<Instant> {
        let is_it = |said: &Said| matches!(said, Said::Send { id: other, .. } if other == id).then_some(());
        self.hear(&format!("the message {id}"), within, is_it).map(|(at, ())| at)
    }

    /// Waits for the next message, whatever its name.
    pub fn hear_any_send(&mut self) -> Verdict<String> {
        let name = |said: &Said| match said {
            Said::Send { id, .. } => Some(id.clone()),
            _ => None,
        };
        self.hear("a message", PATIENCE, name).map(|(_, id)| id)
    }

    /// Waits for acks of all of these, in whatever order and frames; others may come too.
    pub fn hear_acks(&mut self, ids: &[u64]) -> Verdict {
        let mut missing = ids.to_vec();
        while let Some(first) = missing.first().copied() {
            let what = format!("an ack of {first} ({} ids are not acked)", missing.len());
            let (_, acked) = self.hear(&what, PATIENCE, |said| match said {
                Said::Ack(ids) => Some(ids.clone()),
                _ => None,
            })?;
            for id in acked {
                if let Some(at) = missing.iter().position(|missing| *missing == id) {
                    missing.remove(at);
                }
            }
        }
        Ok(())
    }

    /// Waits for the join of a room.
    pub fn hear_join(&mut self, room: i64) -> Verdict<Option<Want>> {
        let want = |said: &Said| match said {
            Said::Join(other, want) if *other == room => Some(*want),
            _ => None,
        };
        self.hear(&format!("a join of room {room}"), PATIENCE, want).map(|(_, want)| want)
    }

    /// Sends frames in one write.
    pub fn send(&mut self, frames: &[ServerFrame<'_>]) {
        if self.verbose {
            frames.iter().for_each(|frame| eprintln!("    server: {frame:?}"));
        }
        let bytes = self.transport.pack(&self.frames(frames), usize::MAX);
        self.transport.write(&bytes);
    }

    /// Sends frames in two writes, cut at that byte; false when there is no such byte.
    pub fn send_cut(&mut self, frames: &[ServerFrame<'_>], at: usize) -> bool {
        let bytes = self.transport.pack(&self.frames(frames), usize::MAX);
        let (first, second) = bytes.split_at(at.min(bytes.len()));
        self.transport.write(first);
        pause(Duration::from_millis(1));
        self.transport.write(second);
        at < bytes.len()
    }

    /// Sends frames byte by byte, on WebSocket also in fragments of `piece` bytes.
    pub fn send_bytewise(&mut self, frames: &[ServerFrame<'_>], piece: usize) {
        let bytes = self.transport.pack(&self.frames(frames), piece);
        for byte in bytes.chunks(1) {
            self.transport.write(byte);
            pause(Duration::from_micros(200));
        }
    }

    /// Answers a join, and says what became of the history that it asked for, if it did.
    pub fn send_joined(&mut self, room: i64, sequence: u64, recovery: Option<Recovery>) {
        self.send(&[ServerFrame::Joined { room: RoomId(room), sequence, recovery }]);
    }

    /// Sends bytes that are no frame.
    pub fn send_garbage(&mut self, garbage: &[u8]) {
        let bytes = self.transport.pack_garbage(garbage);
        self.transport.write(&bytes);
    }

    /// Writes bytes past the transport.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.transport.write(bytes);
    }

    /// Sends a notice and closes, as a gateway does.
    pub fn farewell(mut self, code: NoticeCode, retry_after_ms: u32, alternatives: &[String]) {
        let alternatives = alternatives.iter().map(|one| one.as_str().into()).collect();
        self.send(&[ServerFrame::Notice { code, text: code.name().into(), retry_after_ms, alternatives }]);
        self.transport.end(Some((4000 + code as u16, code.name())));
    }

    /// Closes without a word.
    pub fn end(self) {
        self.transport.end(None);
    }

    pub fn is_websocket(&self) -> bool {
        self.transport.is_websocket()
    }

    /// Whether bodies are JSON.
    pub fn is_json(&self) -> bool {
        self.encoding() != Encoding::Binary
    }

    /// What the client said decides; before that, what its transport allows.
    fn encoding(&self) -> Encoding {
        let first = if self.transport.is_text() { Encoding::Json } else { Encoding::Binary };
        self.encoding.unwrap_or(first)
    }

    fn frames(&self, frames: &[ServerFrame<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        frames.iter().for_each(|frame| frame.encode(self.encoding(), APP, USER, &mut out));
        out
    }

    fn heard_only(&self) -> Vec<&Said> {
        self.heard.iter().map(|(_, said)| said).collect()
    }

    fn read(&mut self, deadline: Instant) {
        let read = self.transport.read(deadline);
        let now = Instant::now();
        let taken = match read {
            Read1::Bytes(bytes) => {
                self.buffer.extend_from_slice(&bytes);
                self.take_frames(now)
            }
            Read1::Binary(bytes) => {
                self.buffer = bytes;
                let taken = self.take_frames(now);
                let left = self.buffer.len();
                taken.and_then(|()| {
                    ensure!(left == 0, "a WebSocket message ends within a frame, {left} bytes are too many");
                    Ok(())
                })
            }
            Read1::Text(text) => self.take_text(now, &text),
            Read1::Gone(why) => {
                self.gone = Some(why);
                Ok(())
            }
            Read1::Nothing => Ok(()),
        };
        if let Err(fault) = taken {
            self.fault = Some(fault);
        }
    }

    fn take_frames(&mut self, now: Instant) -> Verdict {
        loop {
            let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(()) };
            let [m0, m1, c0, c1, c2, c3, l0, l1, l2, l3] = *header;
            let magic = u16::from_be_bytes([m0, m1]);
            let code = i32::from_be_bytes([c0, c1, c2, c3]);
            let encoding = Encoding::from_magic(magic).ok_or(format!("magic {magic:#06x} is none"))?;
            ensure!(
                self.encoding.is_none_or(|first| first == encoding),
                "the magic changes to {magic:#06x} within a connection"
            );
            self.encoding = Some(encoding);
            let known = Code::from_i32(code).ok_or(format!("code {code} is none"))?;
            let length = i32::from_be_bytes([l0, l1, l2, l3]);
            let length = usize::try_from(length).ok().filter(|length| *length <= BODY_BYTES_MAX);
            let length = length.ok_or("a frame's length is negative or over 64 KiB".to_owned())?;
            if self.buffer.len() < HEADER_BYTES + length {
                return Ok(());
            }
            let frame: Vec<u8> = self.buffer.drain(..HEADER_BYTES + length).collect();
            let said = decode(&Frame { encoding, code: known, body: &frame[HEADER_BYTES..] })?;
            self.take(now, said);
        }
    }

    fn take_text(&mut self, now: Instant, text: &str) -> Verdict {
        let wrong = |error| format!("the text {text:?} is no frame: {error:?}");
        let frame = frame_of_text(text.as_bytes()).map_err(wrong)?;
        self.encoding = Some(Encoding::Json);
        let said = decode(&frame)?;
        self.take(now, said);
        Ok(())
    }

    fn take(&mut self, now: Instant, said: Said) {
        if self.verbose {
            eprintln!("    client: {said:?}");
        }
        if let (Said::Heartbeat(echo), true) = (&said, self.answers_heartbeats) {
            let echo = echo.clone();
            self.send(&[ServerFrame::Heartbeat { echo: &echo }]);
        }
        self.heard.push_back((now, said));
    }
}

fn decode(frame: &Frame<'_>) -> Verdict<Said> {
    let body = || String::from_utf8_lossy(frame.body).into_owned();
    let decoded = ClientFrame::decode(frame);
    Ok(
        match decoded
            .map_err(|error| format!("a body of {:?} is refused: {error:?} {:?}", frame.code, body()))?
        {
            ClientFrame::Login { token } => Said::Login(token.into_owned()),
            ClientFrame::Logout => Said::Logout,
            ClientFrame::Business(business) => Said::Send {
                id: business.client_msg_id.into_owned(),
                biz_code: business.biz_code.0,
                target: business.target,
                data: String::from_utf8_lossy(&business.payload).into_owned(),
            },
            ClientFrame::Heartbeat { echo } => Said::Heartbeat(echo.to_vec()),
            ClientFrame::Ack(ids) => Said::Ack(ids.iter().map(|id| id.0).collect()),
            ClientFrame::Join { room, want } => Said::Join(room.0, want),
            ClientFrame::Leave { room } => Said::Leave(room.0),
        },
    )
}

/// The answer to a login.
pub fn logged_in(heartbeat_ms: u32) -> ServerFrame<'static> {
    ServerFrame::LoggedIn { heartbeat_ms }
}

/// A send-ack.
pub fn send_ack(client_msg_id: &str, outcome: Outcome) -> ServerFrame<'static> {
    let client_msg_id = ClientMsgId::new(Bytes::copy_from_slice(client_msg_id.as_bytes()));
    ServerFrame::SendAck(SendAck { client_msg_id, id: MessageId(4_711), outcome })
}

/// A message to the client from user 1, business code 6001, that wants an ack.
pub fn direct(id: u64, client_msg_id: &str, text: &str) -> Message {
    Message {
        id: MessageId(id),
        app: APP,
        sender: UserId(1),
        biz_code: BizCode(6_001),
        room: None,
        sequence: 0,
        ack_wanted: true,
        client_msg_id: ClientMsgId::new(Bytes::copy_from_slice(client_msg_id.as_bytes())),
        payload: Bytes::copy_from_slice(text.as_bytes()),
    }
}

/// A message of a room from user 1, business code 5555, that wants no ack.
pub fn in_room(room: i64, sequence: u64, id: u64, text: &str) -> Message {
    Message {
        biz_code: BizCode(5_555),
        room: Some(RoomId(room)),
        sequence,
        ack_wanted: false,
        ..direct(id, &format!("r{id}"), text)
    }
}

/// A frame that delivers a message.
pub fn deliver(message: Message) -> ServerFrame<'static> {
    ServerFrame::Deliver(std::borrow::Cow::Owned(message))
}

pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
