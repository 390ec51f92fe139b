//! The other end: what a client has between its socket and its frames.
//!
//! The Rust client, the load generator and the simulator use it. It trusts the server as little as it can: an
//! extension that it did not ask for, a masked frame or a text message ends the connection.

mod tls;
mod websocket;

use shard::Prng;

use tls::Tls;
pub use tls::TlsClient;
use websocket::WebSocket;

/// Which layers the connections to one address have.
#[derive(Clone, Default, Debug)]
pub struct ClientPort {
    /// TLS, and the host that the server must prove to be.
    pub tls: Option<TlsClient>,
    /// The upgrade to WebSocket; frames then travel in its binary messages.
    pub websocket: Option<Upgrade>,
}

/// The host and path of a WebSocket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upgrade {
    /// The host, and the port if it is not the scheme's.
    pub host: String,
    /// Begins with `/`.
    pub path: String,
}

/// Why the layers end a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// A name to count by.
    pub name: &'static str,
    /// The reason in words for people.
    pub text: String,
}

impl Broken {
    /// Whether another try would fail the same way, judged by [`Broken::name`].
    pub fn is_hopeless(name: &str) -> bool {
        name.starts_with("certificate_") || name.starts_with("websocket_") && name != "websocket_busy"
    }

    fn new(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, text: text.into() }
    }
}

/// The layers of one connection.
#[derive(Debug)]
pub struct ClientLayers {
    tls: Option<Tls>,
    websocket: Option<WebSocket>,
    /// Bytes that TLS has opened, or is to seal; empty between two calls.
    plain: Vec<u8>,
    /// Bytes to be written.
    out: Vec<u8>,
}

impl ClientLayers {
    /// The layers of a new connection, which begin their handshakes; `None` if the port has none. Keys and
    /// masks of WebSocket come from `seed`.
    ///
    /// # Errors
    /// The system has no randomness for TLS.
    pub fn new(port: &ClientPort, seed: u64) -> Result<Option<Self>, Broken> {
        if port.tls.is_none() && port.websocket.is_none() {
            return Ok(None);
        }
        let tls = port.tls.as_ref().map(Tls::new).transpose()?;
        let mut layers = Self { tls, websocket: None, plain: Vec::new(), out: Vec::new() };
        let mut request = Vec::new();
        layers.websocket =
            port.websocket.as_ref().map(|to| WebSocket::new(to, Prng::new(seed), &mut request));
        layers.seal(&request);
        Ok(Some(layers))
    }

    /// Whether handshakes are done, so that frames can be sent.
    pub fn is_open(&self) -> bool {
        self.tls.as_ref().is_none_or(Tls::is_open) && self.websocket.as_ref().is_none_or(WebSocket::is_open)
    }

    /// Whether the server has ended each layer properly. A connection that ends without that was cut.
    pub fn has_ended(&self) -> bool {
        self.tls.as_ref().is_none_or(Tls::has_ended)
            && self.websocket.as_ref().is_none_or(WebSocket::has_ended)
    }

    /// Takes bytes of the socket. `take` gets the stream of frames in pieces.
    ///
    /// # Errors
    /// Why the connection ends. Write the output that is left: it tells the server why.
    pub fn received(&mut self, bytes: &[u8], take: &mut dyn FnMut(&[u8])) -> Result<(), Broken> {
        let Self { tls, websocket, plain, out } = self;
        let Some(tls) = tls else {
            return match websocket {
                Some(websocket) => websocket.received(bytes, out, take),
                None => {
                    take(bytes);
                    Ok(())
                }
            };
        };
        let outcome = tls.received(bytes, plain, out);
        let mut answers = Vec::new();
        let outcome = match websocket {
            _ if plain.is_empty() => outcome,
            Some(websocket) => websocket.received(plain, &mut answers, take).and(outcome),
            None => {
                take(plain);
                outcome
            }
        };
        *plain = Vec::new();
        self.seal(&answers);
        outcome
    }

    /// Takes whole frames to be written, once the layers are open; with WebSocket they are one message.
    pub fn put(&mut self, frames: &[u8]) {
        match &mut self.websocket {
            Some(websocket) => {
                let mut message = Vec::new();
                websocket.put(frames, &mut message);
                self.seal(&message);
            }
            None => self.seal(frames),
        }
    }

    fn seal(&mut self, plain: &[u8]) {
        match &mut self.tls {
            Some(tls) => tls.seal(plain, &mut self.out),
            None => self.out.extend_from_slice(plain),
        }
    }

    /// Whether there are bytes to be written.
    pub fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    /// Takes the bytes to be written.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}

#[cfg(test)]
mod tests;
