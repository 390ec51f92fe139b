//! WebSocket between a socket and frames, as section 11 of docs/PROTOCOL.md has it.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::HandshakeError;
use tungstenite::http::HeaderValue;
use tungstenite::{Error, Message};

const SCHEME: &str = "ws://";
const PROTOCOL: &str = "sailfish.v1.binary";

/// The address as a URL, if the application's address is one: an alternative has its scheme and path.
pub(super) fn url(address: &str, home: &str) -> Option<String> {
    if address.starts_with(SCHEME) {
        return Some(address.to_owned());
    }
    let rest = home.strip_prefix(SCHEME)?;
    let path = rest.find('/').map_or("/", |at| &rest[at..]);
    Some(format!("{SCHEME}{address}{path}"))
}

/// The protocol on a pipe in memory: what the socket gave goes in, what it is to take comes out.
pub(super) struct WebSocket {
    socket: Box<tungstenite::WebSocket<Pipe>>,
    pipe: Pipe,
    /// The server has ended the connection; what it said before has been taken.
    has_ended: bool,
}

impl WebSocket {
    /// Connects, and asks for the upgrade.
    pub async fn open(url: &str) -> io::Result<(TcpStream, Self)> {
        let mut request = url.into_client_request().map_err(wrong)?;
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(PROTOCOL));
        let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
        let mut stream = TcpStream::connect(authority.unwrap_or_default()).await?;
        stream.set_nodelay(true)?;
        let pipe = Pipe::default();
        let mut attempt = tungstenite::client::client(request, pipe.clone());
        let socket = loop {
            match attempt {
                Ok((socket, _)) => break socket,
                Err(HandshakeError::Failure(error)) => return Err(wrong(error)),
                Err(HandshakeError::Interrupted(handshake)) => {
                    let outgoing = std::mem::take(&mut pipe.ends().outgoing);
                    stream.write_all(&outgoing).await?;
                    let mut buffer = Vec::with_capacity(1_024);
                    if stream.read_buf(&mut buffer).await? == 0 {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                    pipe.ends().incoming.extend_from_slice(&buffer);
                    attempt = handshake.handshake();
                }
            }
        };
        Ok((stream, Self { socket: Box::new(socket), pipe, has_ended: false }))
    }

    /// Puts whole frames into one message.
    pub fn put(&mut self, frames: &[u8], out: &mut Vec<u8>) {
        let _ = self.socket.send(Message::binary(frames.to_vec())); // after the end, nothing is read any more
        out.append(&mut self.pipe.ends().outgoing);
    }

    /// Takes what the socket gave: the frames in it.
    pub fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<Vec<u8>> {
        self.pipe.ends().incoming.extend_from_slice(bytes);
        let mut frames = Vec::new();
        while !self.has_ended {
            match self.socket.read() {
                Ok(Message::Binary(message)) => frames.extend_from_slice(&message),
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
                Ok(Message::Text(_)) if frames.is_empty() => return Err(wrong("text in the binary form")),
                Err(error) if frames.is_empty() => return Err(wrong(error)),
                // What came before is told first. The socket ends, too, or its next bytes show the error
                // again.
                Ok(Message::Text(_) | Message::Close(_)) | Err(_) => self.has_ended = true,
            }
        }
        let _ = self.socket.flush(); // a pipe takes every write
        out.append(&mut self.pipe.ends().outgoing);
        if self.has_ended && frames.is_empty() {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed"));
        }
        Ok(frames)
    }
}

fn wrong(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

/// A pipe whose ends are the protocol and the socket's bytes.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<Ends>>);

#[derive(Default)]
struct Ends {
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Pipe {
    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let incoming = &mut self.ends().incoming;
        if incoming.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = buffer.len().min(incoming.len());
        buffer[..count].copy_from_slice(&incoming[..count]);
        incoming.drain(..count);
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.ends().outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alternative_has_scheme_and_path_of_the_applications_address() {
        for (address, home, wanted) in [
            ("ws://a:1/im?x=1", "ws://a:1/im?x=1", Some("ws://a:1/im?x=1")),
            ("b:2", "ws://a:1/im?x=1", Some("ws://b:2/im?x=1")),
            ("b:2", "ws://a:1", Some("ws://b:2/")),
            ("b:2", "a:1", None),
        ] {
            assert_eq!(url(address, home).as_deref(), wanted, "{address}, {home}");
        }
    }
}
