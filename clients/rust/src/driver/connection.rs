//! One connection: a socket, and WebSocket where the address asks for it.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[cfg(feature = "websocket")]
use super::websocket::{self, WebSocket};

/// What a connection that the other end closed is lost by.
const CLOSED: &str = "the server closed";

/// A connection that is open.
pub(super) struct Connection {
    stream: TcpStream,
    #[cfg(feature = "websocket")]
    websocket: Option<WebSocket>,
    /// Bytes to be written.
    outgoing: Vec<u8>,
    written: usize,
}

/// What was done.
pub(super) enum Turn {
    /// Frames came.
    Read,
    /// Some bytes were written.
    Wrote,
}

impl Connection {
    /// Connects to `address` in the way that `home` says.
    pub async fn open(address: String, home: String) -> io::Result<Self> {
        #[cfg(feature = "websocket")]
        if let Some(url) = websocket::url(&address, &home) {
            let (stream, websocket) = WebSocket::open(&url).await?;
            return Ok(Self { stream, websocket: Some(websocket), outgoing: Vec::new(), written: 0 });
        }
        let _ = home;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            #[cfg(feature = "websocket")]
            websocket: None,
            outgoing: Vec::new(),
            written: 0,
        })
    }

    /// Takes whole frames to be written.
    pub fn queue(&mut self, frames: &[u8]) {
        if frames.is_empty() {
            return;
        }
        #[cfg(feature = "websocket")]
        if let Some(websocket) = &mut self.websocket {
            return websocket.put(frames, &mut self.outgoing);
        }
        self.outgoing.extend_from_slice(frames);
    }

    /// Reads or writes once. Nothing is lost when it is dropped before it is done.
    pub async fn turn(&mut self, buffer: &mut Vec<u8>, may_read: bool) -> io::Result<Turn> {
        let (mut reader, mut writer) = self.stream.split();
        buffer.clear();
        let read = tokio::select! {
            biased; // a server that is not read may stop to read
            read = reader.read_buf(buffer), if may_read => Some(read?),
            wrote = writer.write(&self.outgoing[self.written..]), if self.written < self.outgoing.len() => {
                self.written += wrote?;
                None
            }
            () = std::future::pending() => None,
        };
        match read {
            Some(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, CLOSED)),
            Some(_) => {}
            None => {
                if self.written == self.outgoing.len() {
                    (self.outgoing, self.written) = (Vec::new(), 0);
                }
                return Ok(Turn::Wrote);
            }
        }
        #[cfg(feature = "websocket")]
        if let Some(websocket) = &mut self.websocket {
            *buffer = websocket.take(buffer, &mut self.outgoing)?;
        }
        Ok(Turn::Read)
    }
}
