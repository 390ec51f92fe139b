//! TLS under the frames of links. Its key is derived from the cluster's secret, so that there are no
//! certificates, and both ends prove by it that they know the secret before a frame comes.

use std::collections::VecDeque;

use edge::{HELLOS_PER_TURN, SharedKey, Tls};
use serde::{Deserialize, Serialize};
use shard::{ConnId, Instant, SEND_BATCH_BYTES_MAX, SendBatch};
use wire::node::link::MAGIC;

/// The type of a record with which TLS begins. A frame in clear begins with the highest byte of a length that
/// is far shorter.
const HANDSHAKE: u8 = 22;
/// The type of a record that refuses.
const ALERT: u8 = 21;

/// Whether the links of a node are encrypted. Every node accepts TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum TlsMode {
    /// It opens links in clear.
    #[default]
    Off,
    /// It opens links with TLS, and takes those in clear too.
    Optional,
    /// It opens links with TLS, and refuses those in clear.
    Required,
}

impl TryFrom<String> for TlsMode {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        match name.as_str() {
            "off" => Ok(Self::Off),
            "optional" => Ok(Self::Optional),
            "required" => Ok(Self::Required),
            _ => Err("want off, optional or required"),
        }
    }
}

/// What lies between the socket of a connection and its frames.
pub(crate) enum Cover {
    /// Accepted; too few bytes have come to tell a hello in clear from nonsense.
    Unknown(Vec<u8>),
    /// Nothing.
    Clear,
    Tls(Box<Sealed>),
}

impl Cover {
    pub(crate) fn is_clear(&self) -> bool {
        matches!(self, Self::Clear)
    }

    /// Whether a handshake of TLS is under way, or TLS has ended: frames wait, or do not leave any more.
    pub(crate) fn is_shut(&self) -> bool {
        matches!(self, Self::Tls(sealed) if !sealed.tls.is_open())
    }

    /// Whether TLS has something to write by itself.
    pub(crate) fn has_records(&self) -> bool {
        matches!(self, Self::Tls(sealed) if !sealed.records.is_empty())
    }

    /// Takes these bytes.
    pub(crate) fn take_records(&mut self) -> Vec<u8> {
        match self {
            Self::Tls(sealed) => std::mem::take(&mut sealed.records),
            Self::Unknown(_) | Self::Clear => Vec::new(),
        }
    }
}

/// TLS of one connection.
pub(crate) struct Sealed {
    pub(crate) tls: Tls,
    /// What it has to write by itself: its handshake, or an alert.
    pub(crate) records: Vec<u8>,
    /// Whether any bytes have come.
    is_heard: bool,
}

impl Sealed {
    /// Whether the other end answers in clear, by its first bytes.
    pub(crate) fn is_answered_in_clear(&mut self, bytes: &[u8]) -> bool {
        let is_first = !std::mem::replace(&mut self.is_heard, true);
        is_first && bytes.first().is_some_and(|kind| ![HANDSHAKE, ALERT].contains(kind))
    }
}

/// Adds bytes to the first ones of a connection. Returns whether they begin a link in clear, of any version,
/// with a hello; `None` if that takes more bytes.
pub(crate) fn begins_in_clear(first: &mut Vec<u8>, bytes: &[u8]) -> Option<bool> {
    let [a, b, c, d] = MAGIC.to_be_bytes();
    // The length of its body depends on the version, but fits a byte.
    let hello = [Some(0), Some(0), Some(0), None, Some(1), Some(a), Some(b), Some(c), Some(d)];
    first.extend(bytes.iter().take(hello.len().saturating_sub(first.len())));
    let fits = first.iter().zip(hello).all(|(byte, wanted)| wanted.is_none_or(|wanted| *byte == wanted));
    if fits && first.len() < hello.len() { None } else { Some(fits) }
}

/// What the connections of a shard share.
pub(crate) struct Sealing {
    pub(crate) mode: TlsMode,
    key: SharedKey,
    /// Connections whose hello waits for a turn, in the order in which they came.
    waiting: VecDeque<ConnId>,
    /// When the last of these came: some time that has passed.
    waits_since: Instant,
    /// Hellos that were answered in this turn.
    hellos: u32,
    /// Records that are read; empty between two calls, as the two below.
    incoming: Vec<u8>,
    /// Plain text of a record to be written.
    piece: Vec<u8>,
    sealed: Vec<u8>,
}

/// What reads records: see [`Sealing::lend`].
pub(crate) struct Lent {
    pub(crate) incoming: Vec<u8>,
    /// Hellos that were answered in this turn, as far as it matters to the connection.
    pub(crate) hellos: u32,
    hellos_before: u32,
}

impl Sealing {
    pub(crate) fn new(mode: TlsMode, private: &[u8; 32]) -> Self {
        Self {
            mode,
            key: SharedKey::new(private),
            waiting: VecDeque::new(),
            waits_since: Instant::default(),
            hellos: 0,
            incoming: Vec::new(),
            piece: Vec::new(),
            sealed: Vec::new(),
        }
    }

    /// The cover of a connection that this side opened; `None` if the system has no randomness.
    pub(crate) fn connect(&self) -> Option<Cover> {
        if self.mode == TlsMode::Off {
            return Some(Cover::Clear);
        }
        let mut records = Vec::new();
        let tls = Tls::connect(&self.key, &mut records)?;
        Some(Cover::Tls(Box::new(Sealed { tls, records, is_heard: false })))
    }

    /// The cover of an accepted connection, if `before` and `bytes` begin TLS.
    pub(crate) fn accept(&self, before: &[u8], bytes: &[u8]) -> Option<Box<Sealed>> {
        let is_tls = before.is_empty() && bytes.first() == Some(&HANDSHAKE);
        let tls = is_tls.then(|| Tls::accept(&self.key))?;
        Some(Box::new(Sealed { tls, records: Vec::new(), is_heard: true }))
    }

    /// Lends what reads records, until it is given back. No hello overtakes those that wait.
    pub(crate) fn lend(&mut self, has_waited: bool) -> Lent {
        let may_answer = has_waited || self.waiting.is_empty();
        let hellos = if may_answer { self.hellos } else { HELLOS_PER_TURN };
        Lent { incoming: std::mem::take(&mut self.incoming), hellos, hellos_before: hellos }
    }

    pub(crate) fn give_back(&mut self, lent: Lent) {
        let Lent { mut incoming, hellos, hellos_before } = lent;
        incoming.clear();
        incoming.shrink_to(2 * SEND_BATCH_BYTES_MAX);
        self.incoming = incoming;
        self.hellos += hellos.saturating_sub(hellos_before);
    }

    /// The hello of a connection waits for a turn.
    pub(crate) fn wait(&mut self, now: Instant, conn: ConnId) {
        self.waits_since = now;
        self.waiting.push_back(conn);
    }

    /// The next connection whose hello may be answered in this turn.
    pub(crate) fn pop_waiting(&mut self) -> Option<ConnId> {
        if self.hellos < HELLOS_PER_TURN { self.waiting.pop_front() } else { None }
    }

    /// Since when a hello waits that may be answered.
    pub(crate) fn due(&self) -> Option<Instant> {
        let is_due = self.hellos < HELLOS_PER_TURN && !self.waiting.is_empty();
        is_due.then_some(self.waits_since)
    }

    pub(crate) fn end_turn(&mut self) {
        self.hellos = 0;
    }

    /// Seals a batch of frames, behind what TLS has to write by itself. `is_last` says that nothing follows.
    pub(crate) fn seal(&mut self, connection: &mut Sealed, batch: &mut SendBatch, is_last: bool) {
        let Sealed { tls, records, .. } = connection;
        if !batch.is_empty() || !records.is_empty() {
            self.sealed.append(records);
            tls.seal_batch(batch, &mut self.piece, &mut self.sealed);
        }
        if is_last {
            tls.end(records);
            batch.copy(records);
            records.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hello_overtakes_those_that_wait() {
        let mut sealing = Sealing::new(TlsMode::Off, &[1; 32]);
        let conn = |index| ConnId { index, generation: 1 };
        let mut lent = sealing.lend(false);
        assert_eq!(lent.hellos, 0);
        lent.hellos = HELLOS_PER_TURN;
        sealing.give_back(lent);
        (0..2).for_each(|index| sealing.wait(Instant::default(), conn(index)));
        assert_eq!((sealing.due(), sealing.pop_waiting()), (None, None), "the turn has had its share");
        sealing.end_turn();
        assert!(sealing.due().is_some());
        let fresh = sealing.lend(false);
        assert_eq!(fresh.hellos, HELLOS_PER_TURN, "one that has just come waits too");
        sealing.give_back(fresh);
        for index in 0..2 {
            assert_eq!(sealing.pop_waiting(), Some(conn(index)));
            let mut lent = sealing.lend(true);
            lent.hellos += 1;
            sealing.give_back(lent);
        }
        assert_eq!((sealing.hellos, sealing.pop_waiting(), sealing.due()), (2, None, None));
    }
}
