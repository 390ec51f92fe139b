//! WebSocket, RFC 6455, as a client speaks it, in the binary form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use httparse::{Response, Status};
use shard::Prng;

use super::{Broken, Upgrade};
use crate::Form;
use crate::websocket::{
    BINARY, CLOSE, CLOSE_NORMAL, CONTINUATION, CONTROL_BYTES_MAX, FIN, HEAD_BYTES_MAX, MASKED, PING, PONG,
    accept_of, mask_with, put_header,
};

/// Fields of an answer.
const FIELDS_MAX: usize = 64;
/// The longest payload of a frame. It is passed on in pieces.
const FRAME_BYTES_MAX: u64 = 16 << 20;

/// One connection.
#[derive(Debug)]
pub(super) struct WebSocket {
    stage: Stage,
    prng: Prng,
}

#[derive(Debug)]
enum Stage {
    /// The answer is awaited.
    Handshake {
        /// The `Sec-WebSocket-Accept` value that the request's key wants.
        accept: String,
        /// As much of the answer as has come.
        head: Vec<u8>,
    },
    Open(Reader),
    /// The server has sent Close: nothing more is read or written.
    Ended,
}

/// What has come of a frame that is not whole.
#[derive(Debug, Default)]
struct Reader {
    header: Vec<u8>,
    /// The frame whose payload comes; none between two frames.
    frame: Option<Frame>,
    control: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: u8,
    /// Bytes of payload that have yet to come.
    left: u64,
}

impl WebSocket {
    /// Asks for the upgrade.
    pub(super) fn new(to: &Upgrade, mut prng: Prng, out: &mut Vec<u8>) -> Self {
        let key = [prng.next_u64(), prng.next_u64()].map(u64::to_be_bytes).concat();
        let key = STANDARD.encode(key);
        let (Upgrade { host, path }, protocol) = (to, Form::Binary.subprotocol().unwrap_or_default());
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
        );
        out.extend_from_slice(request.as_bytes());
        Self { stage: Stage::Handshake { accept: accept_of(key.as_bytes()), head: Vec::new() }, prng }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(_))
    }

    /// Whether the server has sent Close.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    /// Takes bytes of the connection. `take` gets the stream of frames; answers go to `out`.
    pub(super) fn received(
        &mut self,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Broken> {
        if let Stage::Handshake { accept, head } = &mut self.stage {
            let before = head.len();
            head.extend_from_slice(bytes);
            let Some(len) = opened(head, accept)? else { return Ok(()) };
            bytes = bytes.get(len - before..).unwrap_or_default();
            self.stage = Stage::Open(Reader::default());
        }
        while let Stage::Open(reader) = &mut self.stage {
            let Some(said) = reader.next(&mut bytes)? else { break };
            match said {
                Said::Frames(piece) => take(piece),
                Said::Ping(payload) => put(PONG, &payload, &mut self.prng, out),
                Said::Pong => {}
                Said::Close(code) => {
                    put(CLOSE, &code.to_be_bytes(), &mut self.prng, out);
                    self.stage = Stage::Ended;
                }
            }
        }
        Ok(())
    }

    /// Writes whole frames as one message; nothing once the server has ended it.
    pub(super) fn put(&mut self, frames: &[u8], out: &mut Vec<u8>) {
        if self.is_open() && !frames.is_empty() {
            put(BINARY, frames, &mut self.prng, out);
        }
    }
}

/// Checks the response. Returns the length of its head once it is complete and opens the WebSocket.
fn opened(head: &[u8], accept: &str) -> Result<Option<usize>, Broken> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = Response::new(&mut fields);
    let no_http = |why: String| Broken::new("websocket_no_http", why);
    let len = match response.parse(head) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) if head.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(Status::Partial) => return Err(no_http("the head of the answer is too long".into())),
        Err(error) => return Err(no_http(format!("the answer is no HTTP: {error}"))),
    };
    let status = response.code.unwrap_or_default();
    if status != 101 {
        let text = String::from_utf8_lossy(head.get(len..).unwrap_or_default());
        let first = text.lines().next().unwrap_or_default();
        let name = if status == 503 { "websocket_busy" } else { "websocket_refused" };
        return Err(Broken::new(name, format!("the answer is HTTP {status}: {first}")));
    }
    let field = |name: &str| {
        let named = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value.trim_ascii())
    };
    let is_upgrade = field("upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
    if !is_upgrade || field("sec-websocket-accept") != Some(accept.as_bytes()) {
        return Err(no_http("the answer does not fit the request".into()));
    }
    if field("sec-websocket-protocol") != Form::Binary.subprotocol().map(str::as_bytes)
        || field("sec-websocket-extensions").is_some()
    {
        return Err(no_http("the answer chooses an option that was not asked for".into()));
    }
    Ok(Some(len))
}

/// What a server has sent.
enum Said<'a> {
    Frames(&'a [u8]),
    Ping(Vec<u8>),
    Pong,
    /// Its code; 1000 if it gives none.
    Close(u16),
}

impl Reader {
    /// Takes what comes next off the front of `bytes`; `None` while some of it is missing.
    fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Said<'a>>, Broken> {
        loop {
            let Some(frame) = &mut self.frame else {
                let Some((&byte, rest)) = bytes.split_first() else { return Ok(None) };
                *bytes = rest;
                self.header.push(byte);
                self.frame = parse(&self.header)?;
                continue;
            };
            if frame.left > 0 && bytes.is_empty() {
                return Ok(None);
            }
            let (piece, rest) =
                bytes.split_at(bytes.len().min(usize::try_from(frame.left).unwrap_or(usize::MAX)));
            *bytes = rest;
            frame.left -= piece.len() as u64;
            let (opcode, is_end) = (frame.opcode, frame.left == 0);
            if is_end {
                self.frame = None;
                self.header.clear();
            }
            if opcode < CLOSE {
                if piece.is_empty() {
                    continue;
                }
                return Ok(Some(Said::Frames(piece)));
            }
            self.control.extend_from_slice(piece);
            if !is_end {
                continue;
            }
            let payload = std::mem::take(&mut self.control);
            return Ok(Some(match opcode {
                PING => Said::Ping(payload),
                PONG => Said::Pong,
                _ => {
                    Said::Close(payload.first_chunk().map_or(CLOSE_NORMAL, |code| u16::from_be_bytes(*code)))
                }
            }));
        }
    }
}

/// Checks as much of a header as is there; `None` while some of it is missing.
fn parse(header: &[u8]) -> Result<Option<Frame>, Broken> {
    let wrong = |why: &str| Err(Broken::new("websocket_protocol", why));
    let [first, second, length @ ..] = header else { return Ok(None) };
    let (opcode, short) = (first & 0x0f, second & !MASKED);
    let is_control = matches!(opcode, CLOSE | PING | PONG);
    if first & 0x70 != 0 || second & MASKED != 0 || !(is_control || matches!(opcode, CONTINUATION | BINARY)) {
        return wrong("a frame that was not asked for");
    }
    if is_control && (first & FIN == 0 || usize::from(short) > CONTROL_BYTES_MAX) {
        return wrong("a control frame that is long or in fragments");
    }
    let left = match short {
        126 => length.first_chunk().map(|length| u64::from(u16::from_be_bytes(*length))),
        127 => length.first_chunk().map(|length| u64::from_be_bytes(*length)),
        short => Some(u64::from(short)),
    };
    if left.is_some_and(|left| left > FRAME_BYTES_MAX) {
        return wrong("a frame that is too long");
    }
    Ok(left.map(|left| Frame { opcode, left }))
}

/// Writes a whole message, masked.
fn put(opcode: u8, payload: &[u8], prng: &mut Prng, out: &mut Vec<u8>) {
    let at = out.len();
    put_header(opcode, payload.len(), out);
    if let Some(second) = out.get_mut(at + 1) {
        *second |= MASKED;
    }
    let mask = (prng.next_u64() as u32).to_be_bytes();
    out.extend_from_slice(&mask);
    let at = out.len();
    out.extend_from_slice(payload);
    mask_with(mask, out.get_mut(at..).unwrap_or_default());
}
