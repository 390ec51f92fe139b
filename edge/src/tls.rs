//! TLS 1.2 and 1.3 of a server, by rustls without buffers of its own.
//!
//! An idle connection keeps its keys. What has come of a record that is not whole waits with the connection;
//! all else passes through buffers that the shard's connections share. Early data (0-RTT) is off, for it can
//! be replayed.
//!
//! Here a core is not deterministic: keys want randomness of the operating system, and tickets its clock.
//! What passes through depends on neither.

mod authorities;
mod certificates;
mod hello;

use std::fmt;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{Error, HandshakeKind, ServerConfig};

pub use authorities::AuthoritiesPem;
pub use certificates::CertificatePem;

use crate::Refusal;
use authorities::Authorities;
use certificates::Certificates;
use hello::{Hello, Seen};

/// Hellos that a shard answers in one turn, so that a storm of handshakes leaves the others their turns: with
/// an ECDSA key they take some 2 ms.
pub const HELLOS_PER_TURN: u32 = 8;

/// Bytes that may wait for the rest of a record; the longest record of TLS 1.2 has so many.
const REST_BYTES_MAX: usize = 5 + (1 << 14) + 2048;
/// Bytes that a client may send before the flight that ends its handshake. A client has at most one chain of
/// certificates, so two hellos are most of it.
const HANDSHAKE_BYTES_MAX: usize = 16 << 10;
/// Records that are read at a time: between, what carried nothing is counted.
const RECORDS_AT_ONCE: usize = 32;
/// Plain text of one record.
const RECORD_BYTES: usize = 1 << 14;
/// A record is at most so much longer than its plain text.
const RECORD_OVERHEAD: usize = 5 + 256;
/// The type of a record with which a client begins.
const HANDSHAKE: u8 = 22;

/// Alerts (RFC 8446, section 6).
const UNEXPECTED_MESSAGE: u8 = 10;
const DECODE_ERROR: u8 = 50;
const INTERNAL_ERROR: u8 = 80;

/// Certificates with their keys, and all that connections go by. The shards of a process share it;
/// certificates can be replaced.
#[derive(Clone)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
    /// The same without a question for the client's certificate.
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
    /// A server with these certificates at a time, in seconds since the UNIX epoch. A client that names none
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

    /// What a server goes by that keeps buffers of its own, such as one for HTTP. Certificates are replaced
    /// there too. It does not ask clients for certificates.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.bare.clone()
    }

    /// Replaces the certificates for connections to come, and the authorities of clients if it has any.
    ///
    /// # Errors
    /// As of [`TlsServer::new`]; those before stay.
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

/// What connections go by that show these certificates, and ask for those of clients if there are authorities
/// for them.
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

/// One connection.
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
    /// None until a hello is whole, and after an error.
    connection: Option<UnbufferedServerConnection>,
    /// What has come of a record or a handshake message that is not whole.
    rest: Vec<u8>,
    /// Bytes that came while the handshake went on.
    handshake_bytes: u32,
    hello: Hello,
    /// What came is no hello.
    is_wrong: bool,
    is_waiting: bool,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Nothing has come yet.
    New,
    /// Nothing has been answered yet, and nothing read until it is whole. To answer is most of a handshake's
    /// work.
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
        Self {
            config: server.config.clone(),
            connection: None,
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

    /// Whether the peer reads what is sealed.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Deaf)
    }

    /// Whether a handshake is under way whose hello is whole.
    pub(crate) fn is_in_handshake(&self) -> bool {
        matches!(self.stage, Stage::Hello | Stage::Handshake) && self.connection.is_some()
    }

    /// Whether the hello has yet to be read: [`Tls::take_hello`] takes it.
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

    /// Whether something has come that is answered in a turn to come: see [`Tls::received`].
    pub(crate) fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// Whether a ticket made the handshake short, once it is done.
    pub(crate) fn is_resumed(&self) -> bool {
        let kind = self.connection.as_ref().and_then(|connection| connection.handshake_kind());
        kind == Some(HandshakeKind::Resumed)
    }

    /// Takes bytes of a hello that is not whole yet, or whose turn has not come. Whether it is read now, by
    /// [`Tls::received`].
    pub(crate) fn take_hello(
        &mut self,
        bytes: &[u8],
        hellos: u32,
        out: &mut Vec<u8>,
    ) -> Result<bool, Refusal> {
        // Who speaks another protocol is told with the first byte.
        if self.is_new() && bytes.first() != Some(&HANDSHAKE) {
            self.fail(UNEXPECTED_MESSAGE, out);
            return Err(Refusal::TlsHandshake);
        }
        self.stage = Stage::Hello;
        self.wait(bytes)?;
        // What is wrong is read, so that its alert says why.
        let seen = self.hello.look(&self.rest);
        self.is_wrong = seen == Seen::Wrong;
        let is_whole = seen != Seen::Part;
        self.is_waiting = is_whole && hellos >= HELLOS_PER_TURN;
        Ok(is_whole && !self.is_waiting)
    }

    /// Refuses a connection before its handshake.
    pub(crate) fn refuse(&mut self, out: &mut Vec<u8>) {
        self.fail(INTERNAL_ERROR, out);
    }

    /// Takes bytes of the socket; none, to go on with what waits. `take` gets the plain text of each record,
    /// nothing for one after the handshake that carried none, and says whether to go on; answers of the
    /// handshake go to `out`. `hellos` counts hellos that were answered: from [`HELLOS_PER_TURN`] on, one
    /// waits. Whether the peer has said that it ends.
    pub(crate) fn received(
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
            self.connection = UnbufferedServerConnection::new(self.config.clone()).ok();
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
        let read = read(connection, incoming, &mut self.stage, out, take);
        let is_stranger = read.as_ref().is_err_and(is_of_certificate);
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
            self.handshake_bytes as usize > HANDSHAKE_BYTES_MAX
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

    /// Keeps bytes of a hello.
    fn wait(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.handshake_bytes += bytes.len() as u32;
        if self.handshake_bytes as usize > HANDSHAKE_BYTES_MAX {
            self.end_at_once();
            return Err(Refusal::TlsHandshake);
        }
        let wanted = self.rest.len() + bytes.len();
        if wanted > self.rest.capacity() {
            let capacity = wanted.max(2 * self.rest.capacity()).min(HANDSHAKE_BYTES_MAX);
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

    /// Seals plain text in records, behind what the connection has to say by itself. False, and nothing of it
    /// is written, when the peer could not read it.
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> bool {
        self.is_open() && self.write(Some(plain), out)
    }

    /// Says that nothing follows.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) {
        if self.is_open() {
            self.write(None, out);
        }
        self.end_at_once();
    }

    /// Writes plain text, or that nothing follows.
    fn write(&mut self, plain: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        loop {
            // All that is whole was read, so nothing is read here of what waits for its rest.
            let UnbufferedStatus { discard, state } = connection.process_tls_records(&mut self.rest);
            let written = match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    grow(out, RECORD_OVERHEAD, |out| data.encode(out).map_err(of_encode));
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    match plain {
                        Some(plain) => plain.chunks(RECORD_BYTES).for_each(|plain| {
                            let room = plain.len() + RECORD_OVERHEAD;
                            grow(out, room, |out| traffic.encrypt(plain, out).map_err(of_encrypt));
                        }),
                        None => grow(out, RECORD_OVERHEAD, |out| {
                            traffic.queue_close_notify(out).map_err(of_encrypt)
                        }),
                    }
                    Some(true)
                }
                _ => Some(false),
            };
            self.rest.drain(..discard.min(self.rest.len()));
            if let Some(written) = written {
                return written;
            }
        }
    }
}

/// Whether a client is refused because its certificate is wrong or missing.
fn is_of_certificate(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(_) | Error::NoCertificatesPresented)
}

/// How far records were read.
struct Read {
    /// Bytes that are done with.
    at: usize,
    /// The peer has said that it ends.
    has_ended: bool,
}

/// Reads all records that are whole; why not, with an alert in `out` that says it, if one cannot be.
fn read(
    connection: &mut UnbufferedServerConnection,
    incoming: &mut [u8],
    stage: &mut Stage,
    out: &mut Vec<u8>,
    take: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<Read, Error> {
    let (mut all, mut end) = (Read { at: 0, has_ended: false }, 0);
    loop {
        let was_open = *stage == Stage::Open;
        let mut records = 0;
        while records < RECORDS_AT_ONCE
            && let Some(len) = record_bytes(incoming.get(end..).unwrap_or_default())
        {
            end += len;
            records += 1;
        }
        let is_last = records < RECORDS_AT_ONCE;
        if is_last {
            end = incoming.len(); // with what has come of the next one, which may be wrong already
        }
        let some = incoming.get_mut(all.at..end).unwrap_or_default();
        let read = read_some(connection, some, stage, out, &mut |plain| {
            records = records.saturating_sub(1);
            take(plain)
        })?;
        all.at += read.at;
        all.has_ended |= read.has_ended;
        // What has no plain text is counted behind what has.
        while was_open && *stage == Stage::Open && records > 0 {
            records -= 1;
            if !take(&[]) {
                *stage = Stage::Deaf;
            }
        }
        if is_last || *stage == Stage::Deaf {
            return Ok(all);
        }
    }
}

/// The length of the whole record at the front of `bytes`.
fn record_bytes(bytes: &[u8]) -> Option<usize> {
    let ([_, _, _, high, low], rest) = bytes.split_first_chunk()?;
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    (rest.len() >= len).then_some(5 + len)
}

/// Reads some records.
fn read_some(
    connection: &mut UnbufferedServerConnection,
    incoming: &mut [u8],
    stage: &mut Stage,
    out: &mut Vec<u8>,
    take: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<Read, Error> {
    let (mut at, mut has_ended) = (0, false);
    loop {
        let UnbufferedStatus { mut discard, state } =
            connection.process_tls_records(incoming.get_mut(at..).unwrap_or_default());
        let is_done = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(Ok(record)) = traffic.next_record() {
                    discard += record.discard;
                    let is_heard = *stage != Stage::Deaf && !record.payload.is_empty();
                    if is_heard && !take(record.payload) {
                        *stage = Stage::Deaf;
                    }
                }
                *stage == Stage::Deaf
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                grow(out, RECORD_OVERHEAD, |out| data.encode(out).map_err(of_encode));
                false
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                false
            }
            Ok(ConnectionState::PeerClosed) => {
                has_ended = true;
                false
            }
            Ok(ConnectionState::WriteTraffic(_)) => {
                if matches!(stage, Stage::Hello | Stage::Handshake) {
                    *stage = Stage::Open;
                }
                true
            }
            Ok(_) => true,
            Err(error) => {
                put_alert(connection, out);
                return Err(error);
            }
        };
        at += discard;
        if is_done {
            return Ok(Read { at, has_ended });
        }
    }
}

/// Writes what a connection that has failed still wants to write. It takes nothing in any more: what is to be
/// written comes first, and a call without that would read on behind the error.
fn put_alert(connection: &mut UnbufferedServerConnection, out: &mut Vec<u8>) {
    while connection.wants_write() {
        match connection.process_tls_records(&mut []).state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                grow(out, RECORD_OVERHEAD, |out| data.encode(out).map_err(of_encode));
            }
            _ => return,
        }
    }
}

/// Lets `write` write at the end of `out`, with so much room or as much as it says it wants.
fn grow(
    out: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) {
    let len = out.len();
    for _ in 0..2 {
        out.resize(len + room, 0);
        match write(out.get_mut(len..).unwrap_or_default()) {
            Ok(written) => return out.truncate(len + written),
            Err(Some(wanted)) => room = wanted,
            Err(None) => break,
        }
    }
    out.truncate(len);
}

fn of_encode(error: EncodeError) -> Option<usize> {
    match error {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Some(required_size),
        EncodeError::AlreadyEncoded => None,
    }
}

fn of_encrypt(error: EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Some(required_size),
        EncryptError::EncryptExhausted => None,
    }
}

#[cfg(test)]
mod tests;
