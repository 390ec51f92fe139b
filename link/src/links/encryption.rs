//! What happens under the frames of a connection that is not in clear.

use shard::{ConnId, Instant};
use wire::node::link::Refusal;

use super::Links;
use crate::conn::Stage;
use crate::peer::Peer;
use crate::tls::{Cover, TlsMode, begins_in_clear};

impl Links {
    /// Whether a peer's connection is not encrypted.
    pub(super) fn is_clear(&self, peer: &Peer) -> bool {
        peer.conn.and_then(|conn| self.conns.get(conn)).is_some_and(|entry| entry.cover.is_clear())
    }

    /// Bytes came over a connection that is not known to be in clear.
    pub(super) fn open(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        // While records are read, `sealed` is out of the entry, and `read` takes the plain text.
        let mut sealed = match std::mem::replace(&mut entry.cover, Cover::Clear) {
            Cover::Tls(sealed) => sealed,
            Cover::Clear => return self.read(now, conn, bytes),
            Cover::Unknown(mut first) => match self.sealing.accept(&first, bytes) {
                Some(sealed) => sealed,
                None if self.sealing.mode == TlsMode::Required => match begins_in_clear(&mut first, bytes) {
                    Some(true) => return self.refuse(conn, Refusal::NoTls),
                    Some(false) => return self.refuse(conn, Refusal::BadFrame),
                    None => {
                        entry.cover = Cover::Unknown(first);
                        return;
                    }
                },
                None => return self.read(now, conn, bytes),
            },
        };
        let is_answered_in_clear = sealed.is_answered_in_clear(bytes);
        let has_waited = sealed.tls.is_waiting();
        let mut lent = self.sealing.lend(has_waited);
        let read = if is_answered_in_clear {
            sealed.tls.end(&mut sealed.records);
            Err(Refusal::NoTls)
        } else {
            let (incoming, hellos) = (&mut lent.incoming, &mut lent.hellos);
            let read = sealed.tls.received(bytes, incoming, &mut sealed.records, hellos, &mut |plain| {
                self.read(now, conn, plain);
                self.conns.get(conn).is_some_and(|entry| !matches!(entry.stage, Stage::Closing))
            });
            read.map_err(of_tls)
        };
        self.sealing.give_back(lent);
        let is_waiting = sealed.tls.is_waiting();
        let Some(entry) = self.conns.get_mut(conn) else { return };
        entry.cover = Cover::Tls(sealed);
        if is_waiting && !has_waited {
            self.sealing.wait(now, conn);
        }
        match read {
            Ok(true) => self.abort(conn), // it says that nothing follows
            Ok(false) if entry.has_output() => self.conns.mark_dirty(conn),
            Ok(false) => {}
            Err(reason) => self.end_sealed(conn, reason),
        }
    }

    /// Goes on with connections whose hello had to wait, as far as this turn may.
    pub(super) fn answer_hellos(&mut self, now: Instant) {
        while let Some(conn) = self.sealing.pop_waiting() {
            self.open(now, conn, &[]);
        }
    }

    /// Ends a connection whose records cannot be read. A session that it carried goes on with the next one:
    /// what came before is what the peer said.
    fn end_sealed(&mut self, conn: ConnId, reason: Refusal) {
        let is_closing = self.conns.get(conn).is_some_and(|entry| matches!(entry.stage, Stage::Closing));
        if !is_closing {
            self.metrics.count_refused(reason);
            self.conns.close(conn);
            self.detach(conn);
        }
    }
}

/// The link's refusal for a failure of TLS.
fn of_tls(refusal: edge::Refusal) -> Refusal {
    if refusal == edge::Refusal::TlsClient { Refusal::Secret } else { Refusal::BadTls }
}
