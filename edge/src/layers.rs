//! The layers of one connection, put together.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use shard::{ConnId, FairPool, SendBatch};

use crate::proxy::Header;
use crate::tls::{HELLOS_PER_TURN, Tls, TlsServer};
use crate::websocket::{CLOSE_NORMAL, Handshake, Login, Opened, WebSocket, answer};
use crate::{Form, Input, Refusal, Rules, share_of};

/// Handshakes of TLS that a shard has under way: those whose hello is whole.
const HANDSHAKES_MAX: u64 = 4096;
/// Bytes of unfinished requests and hellos that a shard holds.
const UNFINISHED_BYTES_MAX: u64 = 16 << 20;
/// Of what is free of either, one address may have one part in so many.
const ADDRESS_PARTS: u64 = 8;
/// How many bytes a scratch buffer keeps allocated.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

/// Which layers the connections of a port have.
#[derive(Clone, Default, Debug)]
pub struct Port {
    /// TLS with this server's keys; `None`: in clear.
    pub tls: Option<TlsServer>,
    /// Frames come in messages of WebSocket.
    pub websocket: bool,
}

/// What the connections of a shard share: buffers that hold nothing between two calls, and budgets, of which
/// each address has a share.
pub struct Scratch {
    unmasked: Vec<u8>,
    before: Vec<u8>,
    /// Plain text from records, and plain text to seal.
    records: Vec<u8>,
    plain: Vec<u8>,
    /// Handshakes of TLS under way.
    handshakes: FairPool<Holder>,
    /// Hellos of TLS that were answered in this turn.
    hellos: u32,
    full_handshakes: u64,
    resumed_handshakes: u64,
    /// Unfinished requests and hellos.
    unfinished: FairPool<Holder>,
}

/// Who has a share: an IPv4 address, or the 64 bits of an IPv6 address that one site has.
type Holder = u64;

/// Where a connection counts in budgets.
#[derive(Clone, Copy, Debug)]
struct Place {
    conn: ConnId,
    /// The address whose share it is.
    from: Holder,
}

fn holder(address: IpAddr) -> Holder {
    match share_of(address) {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

impl Default for Scratch {
    /// Nobody holds anything.
    fn default() -> Self {
        Self {
            unmasked: Vec::new(),
            before: Vec::new(),
            records: Vec::new(),
            plain: Vec::new(),
            handshakes: FairPool::new(HANDSHAKES_MAX, ADDRESS_PARTS),
            hellos: 0,
            full_handshakes: 0,
            resumed_handshakes: 0,
            unfinished: FairPool::new(UNFINISHED_BYTES_MAX, ADDRESS_PARTS),
        }
    }
}

impl Scratch {
    /// Counts what a connection holds of a request or hello that is not whole; false if there is no room.
    fn hold(&mut self, place: Place, bytes: usize) -> bool {
        self.unfinished.set(place.conn.as_u64(), place.from, bytes as u64)
    }

    /// The inverse of `hold`.
    fn let_go(&mut self, place: Place) {
        self.unfinished.forget(place.conn.as_u64());
    }

    /// The next connection that has to end, so that another one has room: [`Layers::evict`] ends it.
    pub fn next_evicted(&mut self) -> Option<ConnId> {
        let evicted = self.handshakes.next_evicted().or_else(|| self.unfinished.next_evicted());
        evicted.map(ConnId::from_u64)
    }

    /// Handshakes of TLS under way.
    pub fn handshakes(&self) -> u64 {
        self.handshakes.held()
    }

    /// Handshakes of TLS that were done: full ones, and those that a ticket made short.
    pub fn handshakes_done(&self) -> [u64; 2] {
        [self.full_handshakes, self.resumed_handshakes]
    }

    /// Begins a turn: it may answer [`HELLOS_PER_TURN`](crate::HELLOS_PER_TURN) hellos.
    pub fn begin_turn(&mut self) {
        self.hellos = 0;
    }

    /// Whether this turn answers no more hellos.
    pub fn is_turn_used_up(&self) -> bool {
        self.hellos >= HELLOS_PER_TURN
    }

    /// Bytes that unfinished requests and hellos of all connections hold.
    pub fn unfinished_bytes(&self) -> u64 {
        self.unfinished.held()
    }

    /// Checks the budgets against all layers that there are.
    ///
    /// # Panics
    ///
    /// When they differ.
    pub fn check_invariants<'l>(&self, all: impl Iterator<Item = &'l Layers>) {
        let (mut unfinished, mut handshakes) = (BTreeMap::new(), BTreeMap::new());
        for layers in all {
            let conn = layers.place.conn.as_u64();
            match layers.unfinished_bytes() as u64 {
                0 => {}
                bytes => assert_eq!(unfinished.insert(conn, bytes), None),
            }
            if layers.is_in_handshake() {
                handshakes.insert(conn, 1);
            }
        }
        assert!(self.unfinished.iter().eq(unfinished), "the pool has what connections hold");
        assert!(self.handshakes.iter().eq(handshakes), "the pool has the handshakes of connections");
        self.unfinished.check_invariants();
        self.handshakes.check_invariants();
    }
}

/// The layers of one connection. Call [`Layers::release`] before you drop it: that returns what a handshake
/// holds of the budgets.
#[derive(Debug)]
pub struct Layers {
    /// A PROXY header is awaited.
    proxy: Option<Box<Header>>,
    tls: Option<Box<Tls>>,
    /// Records that are to be written.
    records: Vec<u8>,
    place: Place,
    /// It counts among the shard's handshakes.
    is_counted: bool,
    upper: Upper,
}

/// What is above TLS.
#[derive(Debug)]
struct Upper {
    websocket: Stage,
    /// Answers of handshakes that are to be written.
    out: Vec<u8>,
}

#[derive(Debug)]
enum Stage {
    /// The port has no WebSocket.
    None,
    Handshake(Handshake),
    Open(Box<WebSocket>),
    /// Refused before it was open.
    Refused,
}

impl Layers {
    /// The layers of a connection that a port took from an address; `None` if it has none. No other
    /// connection that shares its [`Scratch`] has that id.
    pub fn new(port: &Port, conn: ConnId, from: IpAddr, is_from_proxy: bool) -> Option<Self> {
        if port.tls.is_none() && !port.websocket && !is_from_proxy {
            return None;
        }
        let websocket = if port.websocket { Stage::Handshake(Handshake::default()) } else { Stage::None };
        Some(Self {
            proxy: is_from_proxy.then(|| Box::new(Header::new())),
            tls: port.tls.as_ref().map(|server| Box::new(Tls::new(server))),
            records: Vec::new(),
            place: Place { conn, from: holder(from) },
            is_counted: false,
            upper: Upper { websocket, out: Vec::new() },
        })
    }

    /// Whether no layer has anything left to do, so that the connection can go on without them.
    pub fn are_done(&self) -> bool {
        self.proxy.is_none() && self.tls.is_none() && matches!(self.upper.websocket, Stage::None)
    }

    /// How the WebSocket carries frames, once it is open.
    pub fn form(&self) -> Option<Form> {
        self.websocket().map(WebSocket::form)
    }

    /// The length of a text message, as far as it has come.
    pub fn text_len(&self) -> usize {
        self.websocket().map_or(0, |websocket| websocket.text().len())
    }

    /// Bytes that are held of a record and of a text message that are not whole.
    pub fn partial_bytes(&self) -> usize {
        let record = self.tls.as_ref().map_or(0, |tls| tls.record_bytes());
        record + self.websocket().map_or(0, |websocket| websocket.text().capacity())
    }

    fn websocket(&self) -> Option<&WebSocket> {
        match &self.upper.websocket {
            Stage::Open(websocket) => Some(websocket),
            Stage::None | Stage::Handshake(_) | Stage::Refused => None,
        }
    }

    /// Bytes that an unfinished request or hello holds.
    pub fn unfinished_bytes(&self) -> usize {
        self.hello_bytes()
            + match &self.upper.websocket {
                Stage::Handshake(handshake) => handshake.bytes(),
                Stage::None | Stage::Open(_) | Stage::Refused => 0,
            }
    }

    /// Bytes of unfinished input, and bytes to be written: 0 while a connection is idle.
    pub fn held_bytes(&self) -> usize {
        let of_tls = self.tls.as_ref().map_or(0, |tls| tls.held_bytes());
        let of_request = match &self.upper.websocket {
            Stage::Handshake(handshake) => handshake.bytes(),
            Stage::None | Stage::Open(_) | Stage::Refused => 0,
        };
        let of_text = self.websocket().map_or(0, |websocket| websocket.text().capacity());
        let to_be_written = self.records.capacity() + self.upper.out.capacity();
        of_tls + of_request + of_text + to_be_written
    }

    fn hello_bytes(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.hello_bytes())
    }

    /// Whether a TLS handshake is under way and its hello is complete.
    pub fn is_in_handshake(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_in_handshake())
    }

    /// Whether a hello will be answered in a later turn: then call [`Layers::received`] without bytes to go
    /// on.
    pub fn is_waiting(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_waiting())
    }

    fn count_handshake(&mut self, scratch: &mut Scratch) {
        let is_done = self.is_counted && !self.is_in_handshake();
        if let Some(tls) = self.tls.as_ref().filter(|tls| self.is_counted && tls.is_open()) {
            *if tls.is_resumed() { &mut scratch.resumed_handshakes } else { &mut scratch.full_handshakes } +=
                1;
        }
        if is_done {
            scratch.handshakes.forget(self.place.conn.as_u64());
            self.is_counted = false;
        }
    }

    /// Takes bytes of a hello. Returns whether it is complete, so that its handshake begins.
    fn hello(&mut self, scratch: &mut Scratch, bytes: &[u8]) -> Result<bool, Refusal> {
        let Self { tls: Some(tls), records, place, is_counted, .. } = self else { return Ok(true) };
        if !tls.awaits_hello() {
            return Ok(true);
        }
        let taken = tls.take_hello(bytes, scratch.hellos, records);
        if taken != Ok(false) {
            scratch.let_go(*place);
        }
        let is_whole = taken?;
        let has_room = if is_whole {
            *is_counted = scratch.handshakes.set(place.conn.as_u64(), place.from, 1);
            *is_counted
        } else {
            scratch.hold(*place, tls.hello_bytes())
        };
        if !has_room {
            tls.refuse(records);
            return Err(Refusal::TlsBusy);
        }
        Ok(is_whole)
    }

    /// Takes bytes of the connection. `take` gets their contents, in order, and returns whether to go on. The
    /// body of a text message's frame has up to `text_bytes_max` bytes. After a refusal the connection ends,
    /// and [`Layers::transmit`] writes the reason for the peer.
    ///
    /// # Errors
    /// Why the connection ends.
    pub fn received(
        &mut self,
        rules: &Rules,
        text_bytes_max: usize,
        scratch: &mut Scratch,
        mut bytes: &[u8],
        take: &mut dyn FnMut(Input<'_>) -> bool,
    ) -> Result<(), Refusal> {
        if let Some(header) = &mut self.proxy {
            let Some(client) = header.take(&mut bytes)? else { return Ok(()) };
            self.proxy = None;
            self.place.from = client.map_or(self.place.from, holder);
            // A request is read also if the connection ends now, so that its end is told in HTTP.
            take(Input::Client(client));
        }
        if let Some(tls) = &self.tls {
            if bytes.is_empty() && !tls.is_waiting() {
                return Ok(());
            }
            if tls.awaits_hello() {
                if !self.hello(scratch, bytes)? {
                    return Ok(());
                }
                bytes = &[];
            }
        }
        if self.tls.is_none() {
            return self.upper.received(rules, text_bytes_max, scratch, self.place, bytes, take);
        }
        self.received_sealed(rules, text_bytes_max, scratch, bytes, take)
    }

    /// Takes records of TLS, and what is in them.
    fn received_sealed(
        &mut self,
        rules: &Rules,
        text_bytes_max: usize,
        scratch: &mut Scratch,
        bytes: &[u8],
        take: &mut dyn FnMut(Input<'_>) -> bool,
    ) -> Result<(), Refusal> {
        let Self { tls: Some(tls), records, upper, place, .. } = self else { return Ok(()) };
        let mut incoming = std::mem::take(&mut scratch.records);
        let (mut refused, mut goes_on) = (Ok(()), true);
        let mut hellos = scratch.hellos;
        let outcome = tls.received(bytes, &mut incoming, records, &mut hellos, &mut |plain| {
            goes_on = take(if plain.is_empty() { Input::Silent } else { Input::Piece });
            if !goes_on || plain.is_empty() {
                return goes_on;
            }
            refused = upper.received(rules, text_bytes_max, scratch, *place, plain, &mut |input| {
                goes_on = take(input);
                goes_on
            });
            goes_on && refused.is_ok()
        });
        incoming.clear();
        incoming.shrink_to(SCRATCH_BYTES_MAX);
        (scratch.records, scratch.hellos) = (incoming, hellos);
        self.count_handshake(scratch);
        refused?;
        if outcome? && goes_on {
            take(Input::Close);
        }
        Ok(())
    }

    /// Asks the peer for a sign of life, if its protocol has one.
    pub fn ping(&mut self) -> bool {
        match &mut self.upper.websocket {
            Stage::Open(websocket) => {
                websocket.ping();
                true
            }
            Stage::None | Stage::Handshake(_) | Stage::Refused => false,
        }
    }

    /// Whether there is something to write besides frames.
    pub fn has_output(&self) -> bool {
        !self.records.is_empty() || self.upper.has_output()
    }

    /// Ends the connection, with a close code and a reason of up to 123 bytes. During the HTTP handshake the
    /// peer reads no frames, so it gets these as an HTTP response.
    pub fn close(&mut self, code: Option<u16>, reason: &'static str, scratch: &mut Scratch) {
        let is_heard = self.proxy.is_none() && self.tls.as_ref().is_none_or(|tls| tls.is_open());
        self.upper.close(code.filter(|_| is_heard), reason, scratch, self.place);
    }

    /// Turns a batch of frames, which may be empty, into bytes to write. `is_last`: no frames follow.
    pub fn transmit(&mut self, batch: &mut SendBatch, is_last: bool, scratch: &mut Scratch) {
        self.upper.transmit(batch, is_last, scratch);
        let Some(tls) = &mut self.tls else { return };
        let plain = &mut scratch.plain;
        plain.clear();
        batch.segments().for_each(|segment| plain.extend_from_slice(segment));
        batch.clear();
        if !plain.is_empty() {
            tls.seal(plain, &mut self.records);
        }
        plain.clear();
        plain.shrink_to(SCRATCH_BYTES_MAX);
        if is_last {
            scratch.let_go(self.place);
            tls.end(&mut self.records);
        }
        batch.copy(&std::mem::take(&mut self.records));
        self.count_handshake(scratch);
    }

    /// Returns what the connection holds of the shard's budgets.
    pub fn release(&mut self, scratch: &mut Scratch) {
        scratch.let_go(self.place);
        self.tls = None;
        self.count_handshake(scratch);
        self.upper.release(scratch, self.place);
    }

    /// Ends the connection, whose place in a budget another one has taken; answers the reason.
    pub fn evict(&mut self, scratch: &mut Scratch) -> Refusal {
        match &mut self.tls {
            Some(tls) if !tls.is_open() => {
                tls.refuse(&mut self.records);
                self.count_handshake(scratch);
                Refusal::TlsBusy
            }
            Some(_) | None => {
                self.upper.refuse_busy();
                Refusal::HttpBusy
            }
        }
    }
}

impl Upper {
    fn received(
        &mut self,
        rules: &Rules,
        text_bytes_max: usize,
        scratch: &mut Scratch,
        place: Place,
        mut bytes: &[u8],
        take: &mut dyn FnMut(Input<'_>) -> bool,
    ) -> Result<(), Refusal> {
        if let Stage::Handshake(handshake) = &mut self.websocket {
            let taken = handshake.take(&mut bytes, rules, &mut self.out);
            if taken != Ok(None) {
                scratch.let_go(place);
            }
            match taken {
                Ok(None) if scratch.hold(place, handshake.bytes()) => return Ok(()),
                Ok(None) => {
                    self.refuse_busy();
                    return Err(Refusal::HttpBusy);
                }
                Ok(Some(Opened { form, login })) => {
                    let mut websocket = Box::new(WebSocket::new(form));
                    let goes_on = take(Input::Open(form))
                        && login
                            .is_none_or(|Login { token, room }| take(Input::Login { token: &token, room }));
                    if !goes_on {
                        websocket.stop_reading();
                    }
                    self.websocket = Stage::Open(websocket);
                }
                Err(refusal) => {
                    self.websocket = Stage::Refused;
                    return Err(refusal);
                }
            }
        }
        match &mut self.websocket {
            Stage::None if !bytes.is_empty() => {
                take(Input::Frames(bytes));
                Ok(())
            }
            Stage::Open(websocket) => websocket.received(bytes, text_bytes_max, &mut scratch.unmasked, take),
            Stage::None | Stage::Handshake(_) | Stage::Refused => Ok(()),
        }
    }

    fn has_output(&self) -> bool {
        !self.out.is_empty() || matches!(&self.websocket, Stage::Open(websocket) if websocket.has_output())
    }

    fn close(&mut self, code: Option<u16>, reason: &'static str, scratch: &mut Scratch, place: Place) {
        match &mut self.websocket {
            Stage::Open(websocket) => websocket.close(Some(code.unwrap_or(CLOSE_NORMAL)), reason),
            Stage::Handshake(_) => {
                self.release(scratch, place);
                if code.is_some() {
                    answer("503 Service Unavailable", "", &format!("{reason}\n"), &mut self.out);
                }
                self.websocket = Stage::Refused;
            }
            Stage::None | Stage::Refused => {}
        }
    }

    fn transmit(&mut self, batch: &mut SendBatch, is_last: bool, scratch: &mut Scratch) {
        let before = &mut scratch.before;
        before.clear();
        before.append(&mut std::mem::take(&mut self.out)); // an answer is written once: its room goes too
        match &mut self.websocket {
            Stage::None => {}
            Stage::Open(websocket) => {
                websocket.put_before(batch.len(), before);
                batch.prepend(before);
                before.clear();
                if is_last {
                    websocket.put_close(before);
                    batch.copy(before);
                }
            }
            // The peer cannot read frames, so they are dropped.
            Stage::Handshake(_) | Stage::Refused => {
                batch.clear();
                batch.copy(before);
            }
        }
        before.clear();
        before.shrink_to(SCRATCH_BYTES_MAX);
        scratch.unmasked.shrink_to(SCRATCH_BYTES_MAX);
    }

    fn release(&mut self, scratch: &mut Scratch, place: Place) {
        if let Stage::Handshake(_) = self.websocket {
            scratch.let_go(place);
            self.websocket = Stage::Refused;
        }
    }

    /// There is no room for a request that is not whole.
    fn refuse_busy(&mut self) {
        if let Stage::Handshake(handshake) = &mut self.websocket {
            handshake.refuse_busy(&mut self.out);
            self.websocket = Stage::Refused;
        }
    }
}
