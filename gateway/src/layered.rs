//! Connections that have layers between the socket and the frames. The crate `edge` has the layers. A
//! connection without layers has no entry here.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use edge::{Form, Input, Layers, Port, Refusal, Rules, Scratch, TEXT_HEADER_BYTES_MAX, put_text_header};
use shard::{ConnId, ConnMap, Instant, SendBatch};
use wire::client::{NoticeCode, TEXT_CODE_BYTES, next_of_frames, put_java, put_text, text_bytes};

use crate::limits::PIECES_PER_FRAME;

/// The code of a Close frame after a notice is the notice's code plus this.
const CLOSE_NOTICE: u16 = 4000;
/// How many bytes the buffer for texts keeps allocated.
const TEXTS_BYTES_MAX: usize = 64 << 10;

const _: () = assert!(TEXT_CODE_BYTES + TEXT_HEADER_BYTES_MAX < 32, "a text is little longer than its frame");

/// The layered connections of a shard.
pub(crate) struct Layered {
    /// Which layers each listener of the engine has; a listener past the end has none.
    ports: Vec<Port>,
    rules: Arc<Rules>,
    slots: ConnMap<Slot>,
    /// Connections whose hello a later turn will answer, in order, and since when there are any.
    waiting: VecDeque<ConnId>,
    waiting_since: Instant,
    scratch: Scratch,
    texts: Vec<u8>,
}

struct Slot {
    /// Taken out while they process bytes.
    layers: Option<Box<Layers>>,
    /// The notice that the connection ends with.
    notice: Option<NoticeCode>,
    /// Whether its texts are those of the Java platform.
    is_java: bool,
    /// Whether it is in `waiting`.
    is_waiting: bool,
    /// Records and fragments that have come without a frame.
    pieces: u8,
}

/// The layers of one connection, with what they need to process bytes.
pub(crate) struct Lent {
    layers: Box<Layers>,
    rules: Arc<Rules>,
    scratch: Scratch,
}

impl Lent {
    /// Passes bytes from the socket to the layers, and their results to `take`, which returns whether the
    /// connection goes on.
    pub(crate) fn received(
        &mut self,
        text_bytes_max: usize,
        bytes: &[u8],
        take: &mut dyn FnMut(Input<'_>) -> bool,
    ) -> Result<(), Refusal> {
        self.layers.received(&self.rules, text_bytes_max, &mut self.scratch, bytes, take)
    }

    /// Whether there is something to write besides frames.
    pub(crate) fn has_output(&self) -> bool {
        self.layers.has_output()
    }

    /// Whether nothing is between socket and frames any more.
    pub(crate) fn are_done(&self) -> bool {
        self.layers.are_done()
    }
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

    /// Gives a new connection the layers of its listener. Returns whether it has any, and whether a proxy
    /// passes it on.
    pub(crate) fn accepted(&mut self, conn: ConnId, peer: IpAddr, listener: u16) -> (bool, bool) {
        let is_from_proxy = self.rules.is_proxy(peer);
        let plain = Port::default();
        let port = self.ports.get(usize::from(listener)).unwrap_or(&plain);
        let layers = Layers::new(port, conn, peer, is_from_proxy);
        let has_layers = layers.is_some();
        if let Some(layers) = layers {
            let layers = Some(Box::new(layers));
            self.slots
                .insert(conn, Slot { layers, notice: None, is_java: false, is_waiting: false, pieces: 0 });
        }
        (has_layers, is_from_proxy)
    }

    /// Notes the notice with which the connection ends; the first one counts.
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

    /// Turns a batch of frames into bytes to write. Once the connection `is_ending`, no frames follow.
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

    /// Ends a turn. If hellos wait, later ones wait behind them, until [`Layered::begin_hellos`].
    pub(crate) fn end_turn(&mut self) {
        if self.waiting.is_empty() {
            self.scratch.begin_turn();
        }
    }

    /// Takes the layers of a connection out while they take bytes; [`Layered::put_back`] ends that.
    pub(crate) fn take_out(&mut self, conn: ConnId) -> Option<Lent> {
        let layers = self.slots.get_mut(conn)?.layers.take()?;
        let (rules, scratch) = (self.rules.clone(), std::mem::take(&mut self.scratch));
        Some(Lent { layers, rules, scratch })
    }

    /// Puts the layers back, which have processed all bytes.
    pub(crate) fn put_back(&mut self, now: Instant, conn: ConnId, lent: Lent) {
        let Lent { layers, scratch, .. } = lent;
        self.scratch = scratch;
        let is_waiting = layers.is_waiting();
        if let Some(slot) = self.slots.get_mut(conn) {
            slot.layers = Some(layers);
            if is_waiting && !std::mem::replace(&mut slot.is_waiting, true) {
                if self.waiting.is_empty() {
                    self.waiting_since = now;
                }
                self.waiting.push_back(conn);
            }
        }
    }

    /// The next connection that another one took the place of, and how it ends.
    pub(crate) fn next_evicted(&mut self) -> Option<(ConnId, Refusal)> {
        while let Some(conn) = self.scratch.next_evicted() {
            if let Some(layers) = self.slots.get_mut(conn).and_then(|slot| slot.layers.as_mut()) {
                return Some((conn, layers.evict(&mut self.scratch)));
            }
        }
        None
    }

    /// Hellos that wait may be answered by [`Layered::next_hello`]; false when none does.
    pub(crate) fn begin_hellos(&mut self) -> bool {
        let is_any = !self.waiting.is_empty();
        if is_any {
            self.scratch.begin_turn();
        }
        is_any
    }

    /// The next connection whose hello this turn answers.
    pub(crate) fn next_hello(&mut self) -> Option<ConnId> {
        while !self.scratch.is_turn_used_up()
            && let Some(conn) = self.waiting.pop_front()
        {
            if let Some(slot) = self.slots.get_mut(conn) {
                slot.is_waiting = false;
                return Some(conn);
            }
        }
        None
    }

    /// Notes that a WebSocket is open, and whether its texts are in the Java platform's form.
    pub(crate) fn set_java(&mut self, conn: ConnId, is_java: bool) {
        if let Some(slot) = self.slots.get_mut(conn) {
            slot.is_java = is_java;
        }
    }

    /// Whether the texts of a connection are those of the Java platform.
    pub(crate) fn is_java(&self, conn: ConnId) -> bool {
        self.slots.get(conn).is_some_and(|slot| slot.is_java)
    }

    /// The length of a text message, as far as it has come.
    pub(crate) fn text_len(&self, conn: ConnId) -> usize {
        self.layers(conn).map_or(0, Layers::text_len)
    }

    /// Bytes held of an incomplete record and of an incomplete text message.
    pub(crate) fn partial_bytes(&self, conn: ConnId) -> usize {
        self.layers(conn).map_or(0, Layers::partial_bytes)
    }

    fn layers(&self, conn: ConnId) -> Option<&Layers> {
        self.slots.get(conn)?.layers.as_deref()
    }

    /// Counts a record or a fragment. Returns whether so many came without a frame that they count as one.
    pub(crate) fn counts_as_frame(&mut self, conn: ConnId) -> bool {
        let Some(slot) = self.slots.get_mut(conn) else { return false };
        let counts = slot.pieces >= PIECES_PER_FRAME;
        slot.pieces = if counts { 1 } else { slot.pieces + 1 };
        counts
    }

    /// Notes that a frame has come.
    pub(crate) fn has_frame(&mut self, conn: ConnId) {
        if let Some(slot) = self.slots.get_mut(conn) {
            slot.pieces = 0;
        }
    }

    /// The connection is gone.
    pub(crate) fn closed(&mut self, conn: ConnId) {
        if let Some(mut layers) = self.slots.remove(conn).and_then(|slot| slot.layers) {
            layers.release(&mut self.scratch);
        }
    }

    /// Bytes that layers hold, in all.
    pub(crate) fn held_bytes(&self) -> usize {
        let all = self.slots.iter().filter_map(|(_, slot)| slot.layers.as_ref());
        all.map(|layers| layers.held_bytes()).sum()
    }

    /// Own-state invariants, for tests and simulation.
    pub(crate) fn check_invariants(&self, layered: usize) {
        assert_eq!(self.slots.len(), layered, "every layered session has its layers");
        self.scratch.check_invariants(self.slots.iter().filter_map(|(_, slot)| slot.layers.as_deref()));
    }
}

/// Makes a text message of each frame; a piece of a batch has whole ones.
fn put_texts(mut frames: &[u8], texts: &mut Vec<u8>) {
    while let Some((code, body)) = next_of_frames(&mut frames) {
        put_text_header(text_bytes(body), texts);
        put_text(code, body, texts);
    }
}

/// The same in the Java platform's form.
fn put_java_texts(mut frames: &[u8], texts: &mut Vec<u8>) {
    let mut text = Vec::new();
    while let Some((code, body)) = next_of_frames(&mut frames) {
        text.clear();
        put_java(code, body, &mut text);
        put_text_header(text.len(), texts);
        texts.extend_from_slice(&text);
    }
}
