//! WebSocket, RFC 6455, as a server speaks it.
//!
//! In the binary form, messages carry the stream of frames: bytes go on as they come, unmasked in a buffer
//! that the shard's connections share, so neither a message nor a fragment is ever held. In the JSON forms a
//! text message is one frame, and is held until it is whole.

mod handshake;
mod java;
mod utf8;

pub(crate) use handshake::{HEAD_BYTES_MAX, Handshake, accept_of, answer};

use crate::{Form, Input, Refusal};
use utf8::Utf8;

/// The longest binary message. A client with more to send begins another message.
pub(crate) const BINARY_BYTES_MAX: u64 = 4 << 20;
/// What the Java platform's form adds to a body, at most.
const JAVA_BYTES_MAX: u64 = 128;
/// The longest payload of a control frame.
pub(crate) const CONTROL_BYTES_MAX: usize = 125;
/// The longest header of a frame of the server, which masks nothing.
pub const TEXT_HEADER_BYTES_MAX: usize = 10;
/// The longest header of a frame of a client.
const HEADER_BYTES_MAX: usize = 14;

pub(crate) const FIN: u8 = 0x80;
pub(crate) const MASKED: u8 = 0x80;
pub(crate) const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Close codes of RFC 6455, section 7.4.
pub(crate) const CLOSE_NORMAL: u16 = 1000;
const CLOSE_PROTOCOL: u16 = 1002;
const CLOSE_KIND: u16 = 1003;
const CLOSE_UTF8: u16 = 1007;
const CLOSE_TOO_BIG: u16 = 1009;

impl Form {
    const fn opcode(self) -> u8 {
        match self {
            Self::Binary => BINARY,
            Self::Json | Self::Java => TEXT,
        }
    }

    /// The longest message of a client, whose frames have bodies of up to `body_bytes_max`.
    const fn message_bytes_max(self, body_bytes_max: usize) -> u64 {
        match self {
            Self::Binary => BINARY_BYTES_MAX,
            Self::Json => body_bytes_max as u64,
            // The body is a string in the message: a quote takes two bytes there.
            Self::Java => 2 * body_bytes_max as u64 + JAVA_BYTES_MAX,
        }
    }
}

/// What a handshake has opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Opened {
    pub(crate) form: Form,
    /// The request's path logs in, in the Java platform's form.
    pub(crate) login: Option<Login>,
}

/// The client's token, and the room that it joins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Login {
    pub(crate) token: String,
    pub(crate) room: Option<i64>,
}

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct WebSocket {
    form: Form,
    /// The header of the next frame, as far as it has come.
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: u8,
    /// The frame whose payload comes; none between two frames.
    frame: Option<Frame>,
    /// Bytes of payload in the current message's frames so far; `None` between messages.
    message: Option<u64>,
    utf8: Utf8,
    /// What has come of a text message that came in pieces, or of a control frame; never both of one kind.
    text: Vec<u8>,
    control: Vec<u8>,
    /// The payload of the last ping that is not answered yet.
    pong: Option<Vec<u8>>,
    ping: bool,
    /// How it ends; once the Close frame is written, nothing follows.
    close: Option<Close>,
    is_ended: bool,
    /// Nothing more is read: bytes after the end were dropped, so the place in the stream is lost.
    is_deaf: bool,
}

/// The payload of a Close frame.
#[derive(Clone, Copy, Debug)]
struct Close {
    /// `None` if the peer gave none.
    code: Option<u16>,
    reason: &'static str,
}

/// A frame with a header that passed every check.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: u8,
    is_last: bool,
    /// Bytes of payload that have yet to come.
    left: u64,
    /// Rotated so that its first byte masks the next byte of the payload.
    mask: [u8; 4],
}

impl WebSocket {
    pub(crate) fn new(form: Form) -> Self {
        Self {
            form,
            header: [0; HEADER_BYTES_MAX],
            header_bytes: 0,
            frame: None,
            message: None,
            utf8: Utf8::default(),
            text: Vec::new(),
            control: Vec::new(),
            pong: None,
            ping: false,
            close: None,
            is_ended: false,
            is_deaf: false,
        }
    }

    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// What has come of a text message that is not whole.
    pub(crate) fn text(&self) -> &Vec<u8> {
        &self.text
    }

    /// Takes bytes of the connection. `take` gets their contents and returns whether to go on. A refusal
    /// queues its Close frame.
    pub(crate) fn received(
        &mut self,
        mut bytes: &[u8],
        text_bytes_max: usize,
        scratch: &mut Vec<u8>,
        take: &mut dyn FnMut(Input<'_>) -> bool,
    ) -> Result<(), Refusal> {
        while self.close.is_none()
            && !self.is_deaf
            && (!bytes.is_empty() || self.frame.is_some_and(|frame| frame.left == 0))
        {
            match self.step(&mut bytes, text_bytes_max, scratch, take) {
                Ok(true) => {}
                Ok(false) => self.stop_reading(),
                Err(refusal) => {
                    let code = match refusal {
                        Refusal::WebSocketKind => CLOSE_KIND,
                        Refusal::WebSocketUtf8 => CLOSE_UTF8,
                        Refusal::WebSocketTooBig => CLOSE_TOO_BIG,
                        _ => CLOSE_PROTOCOL,
                    };
                    self.close(Some(code), refusal.name());
                    return Err(refusal);
                }
            }
        }
        Ok(())
    }

    /// Nothing more is read.
    pub(crate) fn stop_reading(&mut self) {
        self.is_deaf = true;
    }

    /// Takes a header, or a piece of a payload.
    fn step(
        &mut self,
        bytes: &mut &[u8],
        text_bytes_max: usize,
        scratch: &mut Vec<u8>,
        take: &mut dyn FnMut(Input<'_>) -> bool,
    ) -> Result<bool, Refusal> {
        let Some(mut frame) = self.frame else {
            self.frame = self.header(bytes, text_bytes_max)?;
            let is_data = self.frame.is_some_and(|frame| frame.opcode < CLOSE);
            return Ok(!is_data || take(Input::Piece));
        };
        let piece = frame.unmask(bytes, scratch);
        self.frame = (frame.left > 0).then_some(frame);
        match frame.opcode {
            TEXT | BINARY | CONTINUATION => self.data(frame, piece, take),
            _ => self.control(frame, piece, take),
        }
    }

    /// Takes the next header off the front of `bytes`; `None` while some of it is missing.
    fn header(&mut self, bytes: &mut &[u8], text_bytes_max: usize) -> Result<Option<Frame>, Refusal> {
        while let Some((&byte, rest)) = bytes.split_first() {
            self.header[usize::from(self.header_bytes)] = byte;
            self.header_bytes += 1;
            *bytes = rest;
            if let Some(frame) = self.parse(text_bytes_max)? {
                self.header_bytes = 0;
                if frame.opcode < CLOSE {
                    self.message = Some(self.message.unwrap_or(0) + frame.left);
                }
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// Checks as much of a header as is there, each part as soon as its last byte is.
    fn parse(&self, text_bytes_max: usize) -> Result<Option<Frame>, Refusal> {
        let have = &self.header[..usize::from(self.header_bytes)];
        let Some((&first, have)) = have.split_first() else { return Ok(None) };
        let (opcode, is_last) = (first & 0x0f, first & FIN != 0);
        let is_in_turn = match opcode {
            CONTINUATION => self.message.is_some(),
            TEXT | BINARY => self.message.is_none(),
            CLOSE | PING | PONG => is_last,
            _ => false,
        };
        if first & 0x70 != 0 || !is_in_turn {
            return Err(Refusal::WebSocketProtocol);
        }
        if matches!(opcode, TEXT | BINARY) && opcode != self.form.opcode() {
            return Err(Refusal::WebSocketKind);
        }
        let Some((&second, have)) = have.split_first() else { return Ok(None) };
        let short = second & !MASKED;
        if second & MASKED == 0 || opcode >= CLOSE && usize::from(short) > CONTROL_BYTES_MAX {
            return Err(Refusal::WebSocketProtocol);
        }
        let (left, have, least) = match short {
            126 => match have.split_first_chunk() {
                Some((len, have)) => (u64::from(u16::from_be_bytes(*len)), have, 126),
                None => return Ok(None),
            },
            127 => match have.split_first_chunk() {
                Some((len, have)) => (u64::from_be_bytes(*len), have, 1 << 16),
                None => return Ok(None),
            },
            short => (u64::from(short), have, 0),
        };
        // A length takes as few bytes as it can, and its highest bit is 0.
        if left < least || left >> 63 != 0 {
            return Err(Refusal::WebSocketProtocol);
        }
        let most = self.form.message_bytes_max(text_bytes_max);
        if opcode < CLOSE && left > most - self.message.unwrap_or(0) {
            return Err(Refusal::WebSocketTooBig);
        }
        Ok(have.first_chunk().map(|mask| Frame { opcode, is_last, left, mask: *mask }))
    }

    fn data(
        &mut self,
        frame: Frame,
        piece: &[u8],
        take: &mut dyn FnMut(Input<'_>) -> bool,
    ) -> Result<bool, Refusal> {
        let is_end = frame.is_last && frame.left == 0;
        if is_end {
            self.message = None;
        }
        if self.form == Form::Binary {
            return Ok(
                (piece.is_empty() || take(Input::Frames(piece))) && (!is_end || take(Input::MessageEnd))
            );
        }
        self.utf8.push(piece).map_err(|_| Refusal::WebSocketUtf8)?;
        if !is_end {
            self.text.extend_from_slice(piece);
            return Ok(true);
        }
        self.utf8.end().map_err(|_| Refusal::WebSocketUtf8)?;
        if self.text.is_empty() {
            return Ok(take(Input::Text(piece)));
        }
        let mut text = std::mem::take(&mut self.text);
        text.extend_from_slice(piece);
        Ok(take(Input::Text(&text)))
    }

    fn control(
        &mut self,
        frame: Frame,
        piece: &[u8],
        take: &mut dyn FnMut(Input<'_>) -> bool,
    ) -> Result<bool, Refusal> {
        self.control.extend_from_slice(piece);
        if frame.left > 0 {
            return Ok(true);
        }
        let payload = std::mem::take(&mut self.control);
        match frame.opcode {
            PING => {
                self.pong = Some(payload);
                Ok(take(Input::Alive))
            }
            PONG => Ok(take(Input::Alive)),
            _ => {
                self.close(close_code(&payload)?, "");
                Ok(take(Input::Close))
            }
        }
    }

    /// Queues a Close frame, to be written after everything before it. Only the first call counts.
    pub(crate) fn close(&mut self, code: Option<u16>, reason: &'static str) {
        self.close.get_or_insert(Close { code, reason });
        self.text = Vec::new();
        self.control = Vec::new();
    }

    /// Asks the peer for a sign of life.
    pub(crate) fn ping(&mut self) {
        self.ping = true;
    }

    /// Whether a control frame can leave without a message.
    pub(crate) fn has_output(&self) -> bool {
        self.pong.is_some() || self.ping
    }

    /// Writes what precedes the messages of a batch: answers to pings, and in the binary form the header of
    /// the one message of `message_bytes` that carries the batch.
    pub(crate) fn put_before(&mut self, message_bytes: usize, out: &mut Vec<u8>) {
        if let Some(payload) = self.pong.take() {
            put_frame(PONG, &payload, out);
        }
        if std::mem::take(&mut self.ping) {
            put_frame(PING, &[], out);
        }
        if self.form == Form::Binary && message_bytes > 0 {
            put_header(BINARY, message_bytes, out);
        }
    }

    /// Writes the Close frame if one is queued and not written yet.
    pub(crate) fn put_close(&mut self, out: &mut Vec<u8>) {
        let Some(Close { code, reason }) = self.close.filter(|_| !self.is_ended) else { return };
        self.is_ended = true;
        let mut payload = code.map_or_else(Vec::new, |code| code.to_be_bytes().to_vec());
        payload.extend_from_slice(reason.as_bytes());
        payload.truncate(CONTROL_BYTES_MAX);
        put_frame(CLOSE, &payload, out);
    }
}

impl Frame {
    /// Takes what has come of the payload off the front of `bytes`, and unmasks it in `scratch`.
    fn unmask<'s>(&mut self, bytes: &mut &[u8], scratch: &'s mut Vec<u8>) -> &'s [u8] {
        let (masked, rest) =
            bytes.split_at(bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX)));
        *bytes = rest;
        self.left -= masked.len() as u64;
        scratch.clear();
        scratch.extend_from_slice(masked);
        mask_with(self.mask, scratch);
        self.mask.rotate_left(masked.len() % 4);
        scratch
    }
}

/// Masks bytes, or unmasks them, in place.
pub(crate) fn mask_with(mask: [u8; 4], bytes: &mut [u8]) {
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = bytes.as_chunks_mut::<8>();
    words.iter_mut().for_each(|bytes| *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes());
    tail.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

/// The code in a peer's Close frame; `None` if it has none.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Refusal> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(Refusal::WebSocketProtocol) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Refusal::WebSocketProtocol);
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(Refusal::WebSocketUtf8),
    }
}

/// Writes the header of a text message of `len` bytes.
pub fn put_text_header(len: usize, out: &mut Vec<u8>) {
    put_header(TEXT, len, out);
}

fn put_frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    put_header(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}

pub(crate) fn put_header(opcode: u8, len: usize, out: &mut Vec<u8>) {
    out.push(FIN | opcode);
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len @ ..126), _) => out.push(len),
        (_, Ok(len)) => {
            out.push(126);
            out.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
