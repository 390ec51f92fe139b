//! TLS by rustls without buffers of its own: 1.2 and 1.3 of a server for clients, and 1.3 of both ends of a
//! connection between nodes ([`SharedKey`]).
//!
//! An idle connection keeps only its keys. An incomplete record waits with the connection; all else passes
//! through buffers that the shard's connections share. Early data (0-RTT) is off, for it can be replayed.
//!
//! Here a core is not deterministic: keys need randomness of the operating system, and tickets its clock. The
//! plain text depends on neither.

mod authorities;
mod certificates;
mod hello;
mod records;
mod shared_key;

use std::fmt;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::crypto::ring;
use rustls::server::UnbufferedServerConnection;
use rustls::{AlertDescription, Error, HandshakeKind, ServerConfig};
use shard::SendBatch;

pub use authorities::AuthoritiesPem;
pub use certificates::CertificatePem;
pub use shared_key::SharedKey;

use crate::Refusal;
use authorities::Authorities;
use certificates::Certificates;
use hello::{Hello, Seen};
use records::{Connection, RECORD_BYTES, Read};

/// Hellos that a shard answers in one turn, so that a storm of handshakes leaves the others their turns: with
/// an ECDSA key they take some 2 ms.
pub const HELLOS_PER_TURN: u32 = 8;

/// Bytes that may wait for the rest of a record: the length of the longest record of TLS 1.2.
const REST_BYTES_MAX: usize = 5 + (1 << 14) + 2048;
/// Bytes that a client may send before the flight that ends its handshake. A client has at most one chain of
/// certificates, so two hellos are most of it.
const HANDSHAKE_BYTES_MAX: usize = 16 << 10;
/// The same between nodes, which have no certificates: three times what their handshakes take.
const SHARED_HANDSHAKE_BYTES_MAX: usize = 2 << 10;
/// The type of a record with which a client begins.
const HANDSHAKE: u8 = 22;

/// Alerts (RFC 8446, section 6).
const UNEXPECTED_MESSAGE: u8 = 10;
const DECODE_ERROR: u8 = 50;
const INTERNAL_ERROR: u8 = 80;

/// Certificates with their keys, and the settings of connections. The shards of a process share it;
/// certificates can be replaced.
#[derive(Clone)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
    /// The same settings, but clients are not asked for certificates.
    bare: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    /// Who vouches for clients, if they are asked for certificates.
    authorities: Option<Arc<Authorities>>,
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer").finish_non_exhaustive()
    }
}

impl TlsServer {
    /// A server with these certificates; `now_secs` counts from the UNIX epoch. A client that names none
    /// of their hosts gets the first.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn new(
        certificates: &[CertificatePem],
        authorities: Option<&AuthoritiesPem>,
        now_secs: u64,
    ) -> Result<Self, String> {
        let certificates = Arc::new(Certificates::read(certificates, now_secs)?);
        let authorities = authorities.map(Authorities::read).transpose()?.map(Arc::new);
        let bare = Arc::new(config(certificates.clone(), None)?);
        let asking = authorities.clone().map(|authorities| config(certificates.clone(), Some(authorities)));
        let asking = asking.transpose()?.map_or(bare.clone(), Arc::new);
        Ok(Self { config: asking, bare, certificates, authorities })
    }

    /// The settings for a server with buffers of its own, such as one for HTTP. Replaced certificates count
    /// there too. It does not ask clients for certificates.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.bare.clone()
    }

    /// Replaces the certificates for connections to come, and the authorities of clients if it has any.
    ///
    /// # Errors
    /// As in [`TlsServer::new`]; then the old certificates stay.
    pub fn replace(
        &self,
        certificates: &[CertificatePem],
        authorities: Option<&AuthoritiesPem>,
        now_secs: u64,
    ) -> Result<(), String> {
        let authorities = authorities.map(Authorities::read).transpose()?;
        self.certificates.replace(Certificates::read(certificates, now_secs)?);
        if let (Some(before), Some(authorities)) = (&self.authorities, authorities) {
            before.replace(authorities);
        }
        Ok(())
    }
}

/// The settings of connections that show these certificates, and that ask clients for theirs if there are
/// authorities.
fn config(
    certificates: Arc<Certificates>,
    authorities: Option<Arc<Authorities>>,
) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let builder = match authorities {
        None => builder.with_no_client_auth(),
        Some(authorities) => builder.with_client_cert_verifier(authorities),
    };
    let mut config = builder.with_cert_resolver(certificates);
    config.ticketer = ring::Ticketer::new().map_err(|error| error.to_string())?;
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    Ok(config)
}

/// One connection, at either end.
pub struct Tls {
    /// The settings of the accepting end.
    config: Option<Arc<ServerConfig>>,
    /// At the accepting end none until a hello is whole; none after an error.
    connection: Option<Connection>,
    /// Both ends show the same key.
    is_shared: bool,
    /// What has come of a record or a handshake message that is not whole.
    rest: Vec<u8>,
    /// Bytes that came while the handshake went on.
    handshake_bytes: u32,
    hello: Hello,
    /// Whether the first bytes were no hello.
    is_wrong: bool,
    is_waiting: bool,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Nothing has come yet.
    New,
    /// The hello is not answered yet, and not parsed until it is complete. Answering it is most of a
    /// handshake's work.
    Hello,
    Handshake,
    Open,
    /// Nothing more is read; something may be written.
    Deaf,
    Ended,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("stage", &self.stage).finish_non_exhaustive()
    }
}

impl Tls {
    pub(crate) fn new(server: &TlsServer) -> Self {
        Self::accepting(server.config.clone(), false)
    }

    /// The accepting end of a connection between nodes. It takes bytes from the first one on.
    pub fn accept(key: &SharedKey) -> Self {
        Self::accepting(key.server.clone(), true)
    }

    /// The other end, which begins its handshake in `out`; `None` if the system has no randomness.
    pub fn connect(key: &SharedKey, out: &mut Vec<u8>) -> Option<Self> {
        let connection = UnbufferedClientConnection::new(key.client.clone(), key.host.clone()).ok()?;
        let mut connection = Connection::Client(connection);
        let mut stage = Stage::Handshake;
        connection.read(&mut [], &mut stage, out, &mut |_| true).ok()?;
        let connection = Some(connection);
        let (rest, hello) = (Vec::new(), Hello::default());
        let (handshake_bytes, is_waiting, is_shared) = (0, false, true);
        Some(Self {
            config: None,
            connection,
            is_shared,
            rest,
            handshake_bytes,
            hello,
            is_wrong: false,
            is_waiting,
            stage,
        })
    }

    fn accepting(config: Arc<ServerConfig>, is_shared: bool) -> Self {
        Self {
            config: Some(config),
            connection: None,
            is_shared,
            rest: Vec::new(),
            handshake_bytes: 0,
            hello: Hello::default(),
            is_wrong: false,
            is_waiting: false,
            stage: Stage::New,
        }
    }

    pub(crate) fn is_new(&self) -> bool {
        self.stage == Stage::New
    }

    /// Whether the peer can read sealed bytes yet.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Deaf)
    }

    /// Whether a handshake is under way and its hello is complete.
    pub(crate) fn is_in_handshake(&self) -> bool {
        matches!(self.stage, Stage::Hello | Stage::Handshake) && self.connection.is_some()
    }

    /// Whether the hello has yet to come in full: [`Tls::take_hello`] takes it.
    pub(crate) fn awaits_hello(&self) -> bool {
        matches!(self.stage, Stage::New | Stage::Hello) && self.connection.is_none()
    }

    /// Bytes that wait for a hello to be whole, or for its turn.
    pub(crate) fn hello_bytes(&self) -> usize {
        if self.awaits_hello() { self.rest.capacity() } else { 0 }
    }

    /// Bytes that wait after the handshake for a record to be whole.
    pub(crate) fn record_bytes(&self) -> usize {
        if self.is_open() { self.rest.capacity() } else { 0 }
    }

    /// Bytes that are held between two calls, beside keys.
    pub(crate) fn held_bytes(&self) -> usize {
        self.rest.capacity()
    }

    /// Whether bytes wait that a later turn will answer: see [`Tls::received`].
    pub fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// Whether a ticket made the handshake short, once it is done.
    pub(crate) fn is_resumed(&self) -> bool {
        let kind = self.connection.as_ref().and_then(|connection| connection.state().handshake_kind());
        kind == Some(HandshakeKind::Resumed)
    }

    /// Keeps bytes of a hello that is incomplete or waits for its turn. Returns whether [`Tls::received`] is
    /// to read it now.
    pub(crate) fn take_hello(
        &mut self,
        bytes: &[u8],
        hellos: u32,
        out: &mut Vec<u8>,
    ) -> Result<bool, Refusal> {
        // A peer with another protocol is refused at its first byte.
        if self.is_new() && bytes.first() != Some(&HANDSHAKE) {
            self.fail(UNEXPECTED_MESSAGE, out);
            return Err(Refusal::TlsHandshake);
        }
        self.stage = Stage::Hello;
        self.wait(bytes)?;
        // A wrong hello is read too, so that the alert says what is wrong.
        let seen = self.hello.look(&self.rest);
        self.is_wrong = seen == Seen::Wrong;
        let is_whole = seen != Seen::Part;
        self.is_waiting = is_whole && hellos >= HELLOS_PER_TURN;
        Ok(is_whole && !self.is_waiting)
    }

    /// Refuses a connection whose handshake is not done. Once there are keys, no alert in clear is read.
    pub(crate) fn refuse(&mut self, out: &mut Vec<u8>) {
        match self.stage {
            Stage::New | Stage::Hello => self.fail(INTERNAL_ERROR, out),
            Stage::Handshake | Stage::Open | Stage::Deaf | Stage::Ended => self.end_at_once(),
        }
    }

    /// Takes bytes of the socket; without bytes, goes on with those that wait. `take` gets the plain text of
    /// each record (empty for one after the handshake that carries none) and returns whether to go on;
    /// handshake answers go to `out`. `hellos` counts answered hellos: from [`HELLOS_PER_TURN`] on, a hello
    /// waits. Returns whether the peer has ended its side.
    ///
    /// # Errors
    /// Why the connection ends; the alert is in `out`.
    pub fn received(
        &mut self,
        bytes: &[u8],
        incoming: &mut Vec<u8>,
        out: &mut Vec<u8>,
        hellos: &mut u32,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<bool, Refusal> {
        if matches!(self.stage, Stage::Deaf | Stage::Ended) {
            return Ok(false);
        }
        let mut bytes = bytes;
        if self.awaits_hello() {
            if !self.take_hello(bytes, *hellos, out)? {
                return Ok(false);
            }
            let connection = self.config.take().map(UnbufferedServerConnection::new);
            self.connection = connection.and_then(Result::ok).map(Connection::Server);
            bytes = &[];
        }
        let Some(connection) = &mut self.connection else {
            self.fail(INTERNAL_ERROR, out);
            return Err(Refusal::TlsHandshake);
        };
        self.is_waiting = self.stage == Stage::Hello && *hellos >= HELLOS_PER_TURN;
        if self.is_waiting {
            return self.wait(bytes).map(|()| false);
        }
        incoming.clear();
        incoming.append(&mut self.rest);
        incoming.extend_from_slice(bytes);
        let out_bytes = out.len();
        let read = connection.read(incoming, &mut self.stage, out, take);
        let is_stranger = read.as_ref().is_err_and(|error| self.is_of_certificate(error));
        if self.stage == Stage::Hello && out.len() > out_bytes {
            *hellos += 1;
            self.stage = Stage::Handshake;
        }
        let wrong = if self.is_open() { Refusal::TlsRecord } else { Refusal::TlsHandshake };
        let Ok(Read { at, has_ended }) = read else {
            self.end_at_once();
            return Err(if is_stranger { Refusal::TlsClient } else { wrong });
        };
        if self.stage == Stage::Deaf {
            return Ok(false);
        }
        if self.stage == Stage::Hello && self.is_wrong {
            self.fail(DECODE_ERROR, out);
            return Err(wrong);
        }
        if self.is_in_handshake() {
            self.handshake_bytes += bytes.len() as u32;
        }
        let rest = incoming.get(at..).unwrap_or_default();
        let is_too_long = if self.is_in_handshake() {
            self.handshake_bytes as usize > self.handshake_bytes_max()
        } else {
            rest.len() > REST_BYTES_MAX
        };
        if is_too_long {
            self.end_at_once();
            return Err(wrong);
        }
        self.rest = rest.to_vec();
        Ok(has_ended)
    }

    fn handshake_bytes_max(&self) -> usize {
        if self.is_shared { SHARED_HANDSHAKE_BYTES_MAX } else { HANDSHAKE_BYTES_MAX }
    }

    /// Keeps bytes of a hello.
    fn wait(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.handshake_bytes += bytes.len() as u32;
        if self.handshake_bytes as usize > self.handshake_bytes_max() {
            self.end_at_once();
            return Err(Refusal::TlsHandshake);
        }
        let wanted = self.rest.len() + bytes.len();
        if wanted > self.rest.capacity() {
            let capacity = wanted.max(2 * self.rest.capacity()).min(self.handshake_bytes_max());
            self.rest.reserve_exact(capacity - self.rest.len());
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }

    /// Ends with an alert that goes out in clear, before there are keys.
    fn fail(&mut self, alert: u8, out: &mut Vec<u8>) {
        const FATAL: u8 = 2;
        out.extend_from_slice(&[21, 3, 3, 0, 2, FATAL, alert]);
        self.end_at_once();
    }

    fn end_at_once(&mut self) {
        self.stage = Stage::Ended;
        self.is_waiting = false;
        self.connection = None;
        self.rest = Vec::new();
    }

    /// Seals plain text in records, after the connection's own output. Returns false, and writes none of it,
    /// if the peer could not read it.
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> bool {
        self.is_open() && self.write(Some(plain), out)
    }

    /// Seals a batch, after what is in `out`, and puts all of that back into the batch. `piece` is room for
    /// the plain text of one record; `out` and `piece` come back empty.
    pub fn seal_batch(&mut self, batch: &mut SendBatch, piece: &mut Vec<u8>, out: &mut Vec<u8>) {
        for segment in batch.segments() {
            let mut segment = segment;
            while !segment.is_empty() {
                // Large segments are sealed where they lie.
                if let Some((record, rest)) = segment.split_at_checked(RECORD_BYTES)
                    && piece.is_empty()
                {
                    self.seal(record, out);
                    segment = rest;
                    continue;
                }
                let room = RECORD_BYTES.saturating_sub(piece.len());
                let (some, rest) = segment.split_at_checked(room).unwrap_or((segment, &[]));
                piece.extend_from_slice(some);
                segment = rest;
                if piece.len() >= RECORD_BYTES {
                    self.seal(piece, out);
                    piece.clear();
                }
            }
        }
        if !piece.is_empty() {
            self.seal(piece, out);
            piece.clear();
        }
        batch.replace(out);
    }

    /// Says that nothing follows.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if self.is_open() {
            self.write(None, out);
        }
        self.end_at_once();
    }

    fn write(&mut self, plain: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
        let connection = self.connection.as_mut();
        connection.is_some_and(|connection| connection.write(&mut self.rest, plain, out))
    }

    /// Whether the error is about the other end's certificate, or a missing one. With a shared key, the
    /// connecting end may be the first to find that the keys differ.
    fn is_of_certificate(&self, error: &Error) -> bool {
        match error {
            Error::InvalidCertificate(_) | Error::NoCertificatesPresented => true,
            Error::AlertReceived(alert) => self.is_shared && *alert == AlertDescription::AccessDenied,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
