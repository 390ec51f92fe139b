//! Connections that have layers between the socket and the frames. What the layers do is `edge`'s; what
//! becomes of what they say is here. A connection without layers has nothing in here.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use edge::{Form, Input, Layers, Port, Refusal, Rules, Scratch, TEXT_HEADER_BYTES_MAX, put_text_header};
use shard::{ConnId, ConnMap, Instant, SendBatch};
use wire::client::{
    Code, Encoding, Frame, NoticeCode, TEXT_CODE_BYTES, frame_of_java, frame_of_text, next_of_frames,
    put_java, put_text, text_bytes,
};

use crate::gateway::{Gateway, mark_dirty};
use crate::session::Phase;

/// The code of a Close frame after a notice is the notice's, and this.
const CLOSE_NOTICE: u16 = 4000;
/// The buffer for texts keeps room for so many bytes.
const TEXTS_BYTES_MAX: usize = 64 << 10;

const _: () = assert!(TEXT_CODE_BYTES + TEXT_HEADER_BYTES_MAX < 32, "a text is little longer than its frame");

/// The layered connections of a shard.
pub(crate) struct Layered {
    /// Which layers each listener of the engine has; a listener past the end has none.
    ports: Vec<Port>,
    rules: Arc<Rules>,
    slots: ConnMap<Slot>,
    /// Connections with a hello that is answered in a turn to come, in order, and since when there are any.
    waiting: VecDeque<ConnId>,
    waiting_since: Instant,
    scratch: Scratch,
    texts: Vec<u8>,
}

struct Slot {
    /// Taken out while they take bytes.
    layers: Option<Box<Layers>>,
    /// The notice that the connection ends with.
    notice: Option<NoticeCode>,
    /// Its texts are those of the Java platform.
    is_java: bool,
    /// It stands in `waiting`.
    is_waiting: bool,
}

impl Layered {
    pub(crate) fn new(ports: Vec<Port>, rules: Rules) -> Self {
        Self {
            ports,
            rules: Arc::new(rules),
            slots: ConnMap::new(),
            waiting: VecDeque::new(),
            waiting_since: Instant::default(),
            scratch: Scratch::default(),
            texts: Vec::new(),
        }
    }

    pub(crate) fn set_rules(&mut self, rules: Rules) {
        self.rules = Arc::new(rules);
    }

    /// Gives a new connection the layers of its listener. Whether it has any, and whether a proxy passes it
    /// on.
    pub(crate) fn accepted(&mut self, conn: ConnId, peer: IpAddr, listener: u16) -> (bool, bool) {
        let is_from_proxy = self.rules.is_proxy(peer);
        let plain = Port::default();
        let layers = Layers::new(self.ports.get(usize::from(listener)).unwrap_or(&plain), is_from_proxy);
        let has_layers = layers.is_some();
        if let Some(layers) = layers {
            let layers = Some(Box::new(layers));
            self.slots.insert(conn, Slot { layers, notice: None, is_java: false, is_waiting: false });
        }
        (has_layers, is_from_proxy)
    }

    /// The connection ends with a notice; the first one counts.
    pub(crate) fn ends_with(&mut self, conn: ConnId, code: NoticeCode) {
        if let Some(slot) = self.slots.get_mut(conn) {
            slot.notice.get_or_insert(code);
        }
    }

    /// Asks the peer for a sign of life. False when its layers have none.
    pub(crate) fn ping(&mut self, conn: ConnId) -> bool {
        let layers = self.slots.get_mut(conn).and_then(|slot| slot.layers.as_mut());
        layers.is_some_and(|layers| layers.ping())
    }

    /// Whether there is something to write besides frames.
    pub(crate) fn has_output(&self, conn: ConnId) -> bool {
        let layers = self.slots.get(conn).and_then(|slot| slot.layers.as_ref());
        layers.is_some_and(|layers| layers.has_output())
    }

    /// Makes of a batch of frames what leaves. Once the connection `is_ending`, no more frames follow.
    pub(crate) fn transmit(&mut self, conn: ConnId, batch: &mut SendBatch, is_ending: bool) {
        let Self { slots, scratch, texts, .. } = self;
        let Some(slot) = slots.get_mut(conn) else { return };
        let Some(layers) = &mut slot.layers else { return };
        if is_ending {
            let code = slot.notice.map(|notice| CLOSE_NOTICE + notice as u16);
            layers.close(code, slot.notice.map_or("", NoticeCode::name), scratch);
        }
        if matches!(layers.form(), Some(Form::Json | Form::Java)) && !batch.is_empty() {
            let put = if slot.is_java { put_java_texts } else { put_texts };
            batch.segments().for_each(|frames| put(frames, texts));
            batch.clear();
            batch.copy(texts);
            texts.clear();
            texts.shrink_to(TEXTS_BYTES_MAX);
        }
        layers.transmit(batch, is_ending, scratch);
    }

    /// Handshakes of TLS that were done, full and short ones.
    pub(crate) fn handshakes_done(&self) -> [u64; 2] {
        self.scratch.handshakes_done()
    }

    /// Since when hellos wait for a turn; `None` if none does.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.waiting_since)
    }

    /// A turn ends. If hellos wait, those to come stand behind them, until [`Gateway::answer_hellos`].
    pub(crate) fn end_turn(&mut self) {
        if self.waiting.is_empty() {
            self.scratch.begin_turn();
        }
    }

    /// The connection is gone.
    pub(crate) fn closed(&mut self, conn: ConnId) {
        if let Some(mut layers) = self.slots.remove(conn).and_then(|slot| slot.layers) {
            layers.release(&mut self.scratch);
        }
    }

    /// Own-state invariants, for tests and simulation.
    pub(crate) fn check_invariants(&self, layered: usize) {
        assert_eq!(self.slots.len(), layered, "every layered session has its layers");
        let held: usize =
            self.slots.iter().filter_map(|(_, slot)| Some(slot.layers.as_ref()?.head_bytes())).sum();
        assert_eq!(held, self.scratch.heads_bytes());
        let in_handshake = self.slots.iter().filter_map(|(_, slot)| slot.layers.as_ref());
        let in_handshake = in_handshake.filter(|layers| layers.is_in_handshake()).count();
        assert_eq!(in_handshake, self.scratch.handshakes() as usize);
    }
}

/// Makes a text message of each frame; a piece of a batch has whole ones.
fn put_texts(mut frames: &[u8], texts: &mut Vec<u8>) {
    while let Some((code, body)) = next_of_frames(&mut frames) {
        put_text_header(text_bytes(body), texts);
        put_text(code, body, texts);
    }
}

/// The same, as the Java platform has them.
fn put_java_texts(mut frames: &[u8], texts: &mut Vec<u8>) {
    let mut text = Vec::new();
    while let Some((code, body)) = next_of_frames(&mut frames) {
        text.clear();
        put_java(code, body, &mut text);
        put_text_header(text.len(), texts);
        texts.extend_from_slice(&text);
    }
}

impl Gateway {
    /// Bytes came on a connection with layers.
    pub(crate) fn received_layered(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        let Some(mut layers) = self.layered.slots.get_mut(conn).and_then(|slot| slot.layers.take()) else {
            return;
        };
        let rules = self.layered.rules.clone();
        let text_bytes_max = self.config.limits.frame_bytes_max as usize;
        let mut scratch = std::mem::take(&mut self.layered.scratch);
        let mut take = |input: Input<'_>| self.layer_says(now, conn, input);
        let taken = layers.received(&rules, text_bytes_max, &mut scratch, bytes, &mut take);
        self.layered.scratch = scratch;
        let (has_output, are_done) = (layers.has_output(), layers.are_done());
        let is_waiting = layers.is_waiting();
        if let Some(slot) = self.layered.slots.get_mut(conn) {
            slot.layers = Some(layers);
            if is_waiting && !std::mem::replace(&mut slot.is_waiting, true) {
                if self.layered.waiting.is_empty() {
                    self.layered.waiting_since = now;
                }
                self.layered.waiting.push_back(conn);
            }
        }
        match taken {
            Ok(()) if are_done => {
                self.layered.closed(conn);
                if let Some(session) = self.sessions.get_mut(conn) {
                    session.has_layers = false;
                }
            }
            Ok(()) if has_output => {
                if let Some(session) = self.sessions.get_mut(conn) {
                    mark_dirty(session, conn, &mut self.dirty);
                }
            }
            Ok(()) => {}
            Err(refusal) => self.layers_refuse(conn, refusal),
        }
    }

    /// When [`Gateway::timeout`] is wanted: at once, while hellos wait for a turn.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.layered.waiting_since().or_else(|| self.wheel.next_deadline())
    }

    /// Answers hellos that wait, as many as a turn may.
    pub(crate) fn answer_hellos(&mut self, now: Instant) {
        if self.layered.waiting.is_empty() {
            return;
        }
        self.layered.scratch.begin_turn();
        while !self.layered.scratch.is_turn_used_up()
            && let Some(conn) = self.layered.waiting.pop_front()
        {
            if let Some(slot) = self.layered.slots.get_mut(conn) {
                slot.is_waiting = false;
                self.received_layered(now, conn, &[]);
            }
        }
    }

    /// Ends a connection that its layers refuse. They have queued what there is to say.
    fn layers_refuse(&mut self, conn: ConnId, refusal: Refusal) {
        self.metrics.count_edge_refusal(refusal);
        if self.end(conn) {
            self.effects.close(conn);
        }
    }

    /// Takes in what the layers of a connection say. Whether it goes on.
    fn layer_says(&mut self, now: Instant, conn: ConnId, input: Input<'_>) -> bool {
        match input {
            Input::Client(client) => self.passed_on(conn, client),
            Input::Open(form) => self.websocket_opens(conn, form),
            Input::Login { token, room } => self.path_logs_in(now, conn, token, room),
            Input::Frames(bytes) => self.received_frames(now, conn, bytes),
            Input::MessageEnd => {
                let session = self.sessions.get(conn);
                if session.is_some_and(|session| session.deframer.has_partial()) {
                    self.close_with_notice(conn, NoticeCode::BadLength);
                }
            }
            Input::Text(text) => self.text(now, conn, text),
            Input::Alive => self.is_alive(now, conn),
            Input::Close => self.finished(conn),
        }
        self.sessions.get(conn).is_some_and(|session| session.phase != Phase::Closing)
    }

    fn websocket_opens(&mut self, conn: ConnId, form: Form) {
        self.metrics.websockets += 1;
        if let Some(slot) = self.layered.slots.get_mut(conn) {
            slot.is_java = form == Form::Java;
        }
        if let (Form::Json | Form::Java, Some(session)) = (form, self.sessions.get_mut(conn)) {
            session.encoding = Some(Encoding::Json);
        }
    }

    /// The request of a client of the Java platform is its login, and its join of a room.
    fn path_logs_in(&mut self, now: Instant, conn: ConnId, token: &str, room: Option<i64>) {
        let login = (Code::Login, format!(r#"{{"token":"{token}"}}"#));
        let join = room.map(|room| (Code::Join, format!(r#"{{"target":{room}}}"#)));
        for (code, body) in std::iter::once(login).chain(join) {
            let frame = Frame { encoding: Encoding::Json, code, body: body.as_bytes() };
            if let Err(notice) = self.frame(now, conn, &frame) {
                return self.close_with_notice(conn, notice);
            }
        }
    }

    /// Takes a text message: one frame.
    fn text(&mut self, now: Instant, conn: ConnId, text: &[u8]) {
        let is_java = self.layered.slots.get(conn).is_some_and(|slot| slot.is_java);
        let taken = if is_java {
            self.java_text(now, conn, text)
        } else {
            let frame = frame_of_text(text).map_err(NoticeCode::from);
            frame.and_then(|frame| self.frame(now, conn, &frame))
        };
        if let Err(notice) = taken {
            self.close_with_notice(conn, notice);
        }
    }

    fn java_text(&mut self, now: Instant, conn: ConnId, text: &[u8]) -> Result<(), NoticeCode> {
        let (code, body) = frame_of_java(text).map_err(NoticeCode::from)?;
        if body.len() > self.config.limits.frame_bytes_max as usize {
            return Err(NoticeCode::BadLength);
        }
        self.frame(now, conn, &Frame { encoding: Encoding::Json, code, body: body.as_bytes() })
    }

    /// A proxy says whose connection it passes on: limits for an address are the client's.
    fn passed_on(&mut self, conn: ConnId, client: Option<IpAddr>) {
        let (Some(client), Some(session)) = (client, self.sessions.get_mut(conn)) else { return };
        self.addresses.exit(session.address); // first, for the client may be where the proxy is
        let from_address;
        (session.address, from_address) = self.addresses.enter(client);
        if from_address > self.config.limits.address_connections_max {
            self.close_with_notice(conn, NoticeCode::AddressLimit);
        }
    }

    /// A ping or a pong is a sign of life, and one of the frames that a connection may send.
    fn is_alive(&mut self, now: Instant, conn: ConnId) {
        let Some(session) = self.sessions.get_mut(conn) else { return };
        session.last_seen = now;
        if !session.bucket.take(now, self.rate, 1) {
            self.close_with_notice(conn, NoticeCode::RateLimited);
        }
    }
}
