//! One connection: a socket, and the layers that its address asks for.

use std::io::{self, ErrorKind};
use std::sync::Arc;

#[cfg(feature = "layers")]
use edge::ClientLayers;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Shared;
use crate::Address;

/// What a connection that the other end closed is lost by.
const CLOSED: &str = "the server closed";

/// A connection that is open.
pub(super) struct Connection {
    stream: TcpStream,
    #[cfg(feature = "layers")]
    layers: Option<Box<ClientLayers>>,
    /// Frames that came with the end of the handshakes.
    #[cfg(feature = "layers")]
    early: Vec<u8>,
    /// Why the connection is over, once what came before that is told.
    #[cfg(feature = "layers")]
    broken: Option<io::Error>,
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
    /// Connects to `address`, in the way of the application's address unless it names its own.
    pub async fn open(address: String, shared: Arc<Shared>) -> io::Result<Self> {
        let home = Address::parse(&shared.home, None).map_err(wrong)?;
        let address = Address::parse(&address, Some(&home)).map_err(wrong)?;
        #[cfg(feature = "layers")]
        let port = shared.security.port(&address).map_err(wrong)?;
        #[cfg(not(feature = "layers"))]
        if address.tls || address.websocket.is_some() {
            return Err(wrong("this client is built without the feature `layers`: want HOST:PORT"));
        }
        let stream = TcpStream::connect(address.authority).await?;
        stream.set_nodelay(true)?;
        #[cfg(feature = "layers")]
        return Self::handshake(stream, &port).await;
        #[cfg(not(feature = "layers"))]
        Ok(Self { stream, outgoing: Vec::new(), written: 0 })
    }

    /// Does the handshakes of the layers.
    #[cfg(feature = "layers")]
    async fn handshake(mut stream: TcpStream, port: &edge::ClientPort) -> io::Result<Self> {
        let layers = ClientLayers::new(port, super::random()).map_err(|broken| wrong(broken.text))?;
        let mut layers = layers.map(Box::new);
        let mut frames = Vec::new();
        let mut buffer = Vec::with_capacity(super::READ_BYTES);
        if let Some(layers) = &mut layers {
            loop {
                let outgoing = layers.take_output();
                stream.write_all(&outgoing).await?;
                if layers.is_open() {
                    break;
                }
                buffer.clear();
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, CLOSED));
                }
                let taken = layers.received(&buffer, &mut |bytes| frames.extend_from_slice(bytes));
                if let Err(broken) = taken {
                    let _ = stream.write_all(&layers.take_output()).await; // the reason counts
                    return Err(wrong(broken.text));
                }
            }
        }
        Ok(Self { stream, layers, early: frames, broken: None, outgoing: Vec::new(), written: 0 })
    }

    /// Takes whole frames to be written.
    pub fn queue(&mut self, frames: &[u8]) {
        if frames.is_empty() {
            return;
        }
        #[cfg(feature = "layers")]
        if let Some(layers) = &mut self.layers {
            layers.put(frames);
            self.outgoing.append(&mut layers.take_output());
            return;
        }
        self.outgoing.extend_from_slice(frames);
    }

    /// Reads or writes once. Nothing is lost when it is dropped before it is done.
    pub async fn turn(&mut self, buffer: &mut Vec<u8>, may_read: bool) -> io::Result<Turn> {
        #[cfg(feature = "layers")]
        if may_read && !self.early.is_empty() {
            *buffer = std::mem::take(&mut self.early);
            return Ok(Turn::Read);
        }
        #[cfg(feature = "layers")]
        if let Some(broken) = self.broken.take() {
            return Err(broken);
        }
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
        #[cfg(feature = "layers")]
        if let Some(layers) = &mut self.layers {
            let mut frames = Vec::new();
            let taken = layers.received(buffer, &mut |bytes| frames.extend_from_slice(bytes));
            self.outgoing.append(&mut layers.take_output());
            self.broken = taken.err().map(|broken| wrong(broken.text));
            *buffer = frames;
        }
        Ok(Turn::Read)
    }
}

fn wrong(why: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why.into())
}
