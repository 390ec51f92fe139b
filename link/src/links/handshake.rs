//! The handshake: both ends prove that they know the secret, and agree which session goes on or begins.

use std::cmp::Ordering;
use std::net::IpAddr;

use shard::{ConnId, Instant, ShardId};
use wire::node::link::{Frame, Identity, Refusal};

use super::Links;
use crate::conn::{Party, Stage};
use crate::contract::News;
use crate::metrics::SameNumber;
use crate::proof::Side;

impl Links {
    pub(super) fn party(&mut self) -> Party {
        self.nonces += 1;
        Party { identity: self.identity, nonce: self.secret.nonce(self.seed, self.nonces) }
    }

    pub(super) fn challenge(&mut self, now: Instant, conn: ConnId, hello: Party) -> Result<(), Refusal> {
        if !self.identity.role.takes(hello.identity.role) {
            return Err(Refusal::Role);
        }
        if !hello.identity.is_sound(self.identity, now.unix_nanos()) {
            return Err(Refusal::Identity);
        }
        let challenge = self.party();
        self.conns.go_on(conn, Stage::Challenged { hello, challenge }, &challenge.challenge());
        Ok(())
    }

    pub(super) fn prove(
        &mut self,
        now: Instant,
        conn: ConnId,
        hello: Party,
        challenge: Party,
    ) -> Result<(), Refusal> {
        // A dial that is not wanted any more has been aborted.
        let dial = self.conns.get(conn).and_then(|entry| entry.dial);
        let dial = self.dials.iter().find(|known| Some(known.token) == dial);
        if dial.is_some_and(|dial| dial.role != challenge.identity.role)
            || !challenge.identity.role.takes(self.identity.role)
        {
            return Err(Refusal::Role);
        }
        if !challenge.identity.is_sound(self.identity, now.unix_nanos()) {
            return Err(Refusal::Identity);
        }
        let shard = ShardId::from_u32(challenge.identity.shard);
        let known = self.peers.get(shard).filter(|peer| peer.identity == challenge.identity);
        let asked = known.map_or((0, 0), |peer| (peer.session, peer.received));
        if self.is_stale(challenge.identity) {
            self.note_same_number(conn, challenge.identity);
            if asked.0 != 0 {
                // The same shard at another address: for this dial it counts as linked.
                self.dial_answered(conn, shard, challenge.identity.shards);
            }
            return Err(Refusal::Stale);
        }
        let (session, received) = asked;
        let said = [&hello.hello(), &challenge.challenge()];
        let proof = self.secret.proof(Side::Connector, said, session, received);
        let stage = Stage::Proven { hello, challenge, asked };
        self.conns.go_on(conn, stage, &Frame::Proof { session, received, proof });
        Ok(())
    }

    /// The connector has proven itself: its session goes on, if both ends still have it, or begins.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        conn: ConnId,
        [hello, challenge]: [Party; 2],
        session: u64,
        received: u64,
    ) -> Result<(), Refusal> {
        let identity = hello.identity;
        let shard = ShardId::from_u32(identity.shard);
        if self.note_same_number(conn, identity) {
            return Err(Refusal::Stale);
        }
        let known = self.peers.get_mut(shard);
        let resumed = known.is_some_and(|peer| {
            let is_same = (peer.identity, peer.session) == (identity, session);
            is_same && peer.outgoing.resume(received)
        });
        if !resumed {
            self.lose(shard);
            self.sessions += 1;
            self.up(now, identity, self.sessions);
        }
        let Some(peer) = self.peers.get(shard) else { return Ok(()) };
        let (session, received) = (peer.session, peer.received);
        let said = [&hello.hello(), &challenge.challenge()];
        let proof = self.secret.proof(Side::Acceptor, said, session, received);
        self.conns.go_on(conn, Stage::Linked { peer: shard }, &Frame::Welcome { session, received, proof });
        self.carry(now, conn, shard, resumed);
        Ok(())
    }

    /// The acceptor has proven itself too, and names the session.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        conn: ConnId,
        identity: Identity,
        asked: (u64, u64),
        (session, received): (u64, u64),
    ) -> Result<(), Refusal> {
        if self.is_stale(identity) {
            return Err(Refusal::Stale);
        }
        let shard = ShardId::from_u32(identity.shard);
        let known = self.peers.get_mut(shard);
        if session == 0 {
            return Err(Refusal::BadFrame);
        }
        let resumed = session == asked.0;
        if resumed {
            // The acceptor goes on where this side said that it was. If that has changed since, both begin
            // anew.
            let goes_on = known.is_some_and(|peer| {
                let is_same = (peer.identity, peer.session, peer.received) == (identity, asked.0, asked.1);
                is_same && peer.outgoing.resume(received)
            });
            if !goes_on {
                self.lose(shard);
                return Err(Refusal::Stale);
            }
        } else {
            if received != 0 {
                return Err(Refusal::BadFrame);
            }
            self.lose(shard);
            self.up(now, identity, session);
        }
        let Some(entry) = self.conns.get_mut(conn) else { return Ok(()) };
        entry.stage = Stage::Linked { peer: shard };
        if let Some(dial) = self.dial_answered(conn, shard, identity.shards) {
            dial.tries = 0;
        }
        self.carry(now, conn, shard, resumed);
        Ok(())
    }

    /// Notes that the process at the other end has the number of one that started later and is up. Returns
    /// whether it has.
    fn note_same_number(&mut self, conn: ConnId, identity: Identity) -> bool {
        let shard = ShardId::from_u32(identity.shard);
        let later = self.peers.get(shard).filter(|peer| peer.identity.incarnation > identity.incarnation);
        let Some(later) = later else { return false };
        let [earlier, later] = [Some(conn), later.conn].map(|conn| self.address(conn?));
        self.metrics.same_numbers += 1;
        self.metrics.same_number = Some(SameNumber { node: shard.node(), earlier, later });
        self.incoming.push(News::SameNumber { peer: shard });
        true
    }

    /// The address of a connection's other end.
    fn address(&self, conn: ConnId) -> Option<IpAddr> {
        let entry = self.conns.get(conn)?;
        let dial = || self.dials.iter().find(|dial| Some(dial.token) == entry.dial);
        entry.from.or_else(|| dial().map(|dial| dial.address().ip()))
    }

    /// Whether a link with this life of a shard must be refused: a later life is known, or this one is linked
    /// by another connection.
    fn is_stale(&self, identity: Identity) -> bool {
        self.peers.get(ShardId::from_u32(identity.shard)).is_some_and(|peer| {
            match peer.identity.incarnation.cmp(&identity.incarnation) {
                Ordering::Less => false,
                Ordering::Equal => peer.conn.is_some(),
                Ordering::Greater => true,
            }
        })
    }
}
