//! The bytes of a connection: frames on TCP, messages on WebSocket.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use tungstenite::handshake::HandshakeError;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::{Error, Message, WebSocket};
use wire::client::{next_of_frames, put_text};

/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// How long a connection that the server ends stays open for the client to read what is left.
const LINGER_TIME: Duration = Duration::from_secs(2);
/// Subprotocol of text messages.
const PROTOCOL_JSON: &str = "sailfish.v1.json";
/// Subprotocol of binary messages.
const PROTOCOL_BINARY: &str = "sailfish.v1.binary";

const OPCODE_CONTINUATION: u8 = 0;
const OPCODE_TEXT: u8 = 1;
const OPCODE_BINARY: u8 = 2;
const OPCODE_CLOSE: u8 = 8;
const OPCODE_PING: u8 = 9;
const FINAL: u8 = 0x80;

/// What was read.
pub enum Read1 {
    /// Bytes of TCP's stream, cut anywhere.
    Bytes(Vec<u8>),
    /// A binary message.
    Binary(Vec<u8>),
    /// A text message.
    Text(String),
    /// The client's end of the connection, and what it looked like.
    Gone(String),
    /// Nothing until the deadline.
    Nothing,
}

/// A connection of one of the two kinds.
pub struct Transport {
    raw: TcpStream,
    reader: Reader,
}

enum Reader {
    Tcp(TcpStream),
    Ws { socket: Box<WebSocket<TcpStream>>, is_text: bool },
}

impl Transport {
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { raw: stream.try_clone()?, reader: Reader::Tcp(stream) })
    }

    /// Takes the client's upgrade to WebSocket.
    pub fn websocket(stream: TcpStream) -> Result<Self, String> {
        let broken = |error: io::Error| format!("the connection broke: {error}");
        stream.set_nodelay(true).map_err(broken)?;
        stream.set_read_timeout(Some(HANDSHAKE_TIME)).map_err(broken)?;
        let raw = stream.try_clone().map_err(broken)?;
        let mut is_text = false;
        #[allow(clippy::result_large_err)] // tungstenite's own type
        let choose = |request: &Request, mut response: Response| {
            let offered = request.headers().get_all("sec-websocket-protocol").iter();
            let offered: Vec<&str> = offered.filter_map(|value| value.to_str().ok()).collect();
            let mut names = offered.iter().flat_map(|value| value.split(',')).map(str::trim);
            if let Some(name) = names.find(|name| [PROTOCOL_JSON, PROTOCOL_BINARY].contains(name)) {
                is_text = name == PROTOCOL_JSON;
                let value = name.parse().expect("both names are good values of a header");
                response.headers_mut().insert("sec-websocket-protocol", value);
            }
            Ok(response)
        };
        match tungstenite::accept_hdr(stream, choose) {
            Ok(socket) => Ok(Self { raw, reader: Reader::Ws { socket: Box::new(socket), is_text } }),
            Err(HandshakeError::Failure(error)) => Err(format!("the WebSocket handshake failed: {error}")),
            Err(HandshakeError::Interrupted(_)) => Err("no whole WebSocket handshake came in 5 s".into()),
        }
    }

    pub fn is_websocket(&self) -> bool {
        matches!(self.reader, Reader::Ws { .. })
    }

    /// Whether messages are texts of one JSON frame each.
    pub fn is_text(&self) -> bool {
        matches!(self.reader, Reader::Ws { is_text: true, .. })
    }

    /// Reads once, until `deadline` at the latest.
    pub fn read(&mut self, deadline: Instant) -> Read1 {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        if let Err(error) = self.raw.set_read_timeout(Some(left)) {
            return Read1::Gone(error.to_string());
        }
        match &mut self.reader {
            Reader::Tcp(stream) => {
                let mut buffer = [0; 16 * 1024];
                match stream.read(&mut buffer) {
                    Ok(0) => Read1::Gone("the client closed".into()),
                    Ok(count) => Read1::Bytes(buffer[..count].to_vec()),
                    Err(error) if is_timeout(&error) => Read1::Nothing,
                    Err(error) => Read1::Gone(error.to_string()),
                }
            }
            Reader::Ws { socket, .. } => match socket.read() {
                Ok(Message::Binary(bytes)) => Read1::Binary(bytes.to_vec()),
                Ok(Message::Text(text)) => Read1::Text(text.to_string()),
                Ok(Message::Close(_)) => Read1::Gone("the client closed".into()),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Read1::Nothing,
                Err(Error::Io(error)) if is_timeout(&error) => Read1::Nothing,
                Err(error) => Read1::Gone(error.to_string()),
            },
        }
    }

    /// What carries whole frames: on TCP they themselves, else messages of at most `piece` bytes a fragment.
    pub fn pack(&self, frames: &[u8], piece: usize) -> Vec<u8> {
        let mut out = Vec::new();
        match &self.reader {
            Reader::Tcp(_) => out.extend_from_slice(frames),
            Reader::Ws { is_text: false, .. } => put_message(OPCODE_BINARY, frames, piece, &mut out),
            Reader::Ws { is_text: true, .. } => {
                let mut rest = frames;
                while let Some((code, body)) = next_of_frames(&mut rest) {
                    let mut text = Vec::new();
                    put_text(code, body, &mut text);
                    put_message(OPCODE_TEXT, &text, piece, &mut out);
                }
            }
        }
        out
    }

    /// What carries bytes that are no frame: on TCP they themselves, else one message of the connection's
    /// kind.
    pub fn pack_garbage(&self, garbage: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match &self.reader {
            Reader::Tcp(_) => out.extend_from_slice(garbage),
            Reader::Ws { is_text, .. } => {
                let opcode = if *is_text { OPCODE_TEXT } else { OPCODE_BINARY };
                put_message(opcode, garbage, usize::MAX, &mut out);
            }
        }
        out
    }

    /// Writes bytes as they are. Whether they arrive shows in what the client does.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.raw.write_all(bytes); // a client that has gone shows at the next read
    }

    /// Ends the connection behind what was written. On WebSocket a Close frame says the code, if there is
    /// one.
    pub fn end(mut self, close: Option<(u16, &str)>) {
        if self.is_websocket()
            && let Some((code, reason)) = close
        {
            let mut frame = Vec::new();
            let body = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
            put_frame(FINAL | OPCODE_CLOSE, &body, &mut frame);
            self.write(&frame);
        }
        let _ = self.raw.shutdown(Shutdown::Write); // it may be gone
        // A close with unread input would reset the connection, and the client might lose what was written
        // before.
        std::thread::spawn(move || {
            let end = Instant::now() + LINGER_TIME;
            while Instant::now() < end {
                if let Read1::Gone(_) = self.read(end) {
                    break;
                }
            }
        });
    }
}

/// Answers an upgrade in HTTP, and closes.
pub fn refuse_upgrade(mut stream: TcpStream, body: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(HANDSHAKE_TIME))?;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => break,
            count => head.extend_from_slice(&buffer[..count]),
        }
    }
    let length = body.len();
    let status = "HTTP/1.1 503 Service Unavailable\r\nConnection: close";
    write!(stream, "{status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn put_message(opcode: u8, payload: &[u8], piece: usize, out: &mut Vec<u8>) {
    let mut pieces = payload.chunks(piece.min(payload.len()).max(1)).peekable();
    let mut opcode_left = opcode;
    if payload.is_empty() {
        return put_frame(FINAL | opcode, &[], out);
    }
    while let Some(piece) = pieces.next() {
        let is_last = pieces.peek().is_none();
        put_frame(opcode_left | if is_last { FINAL } else { 0 }, piece, out);
        opcode_left = OPCODE_CONTINUATION;
        if !is_last {
            put_frame(FINAL | OPCODE_PING, b"between", out);
        }
    }
}

fn put_frame(first: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    match payload.len() {
        len @ 0..126 => out.push(len as u8),
        len @ 126..0x1_0000 => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
