//! The rules: handshake, sessions, time.

use std::net::{IpAddr, SocketAddr};

use shard::{ConnId, Instant, Prng, SendBatch, ShardId};
use wire::node::LinkMessage;
use wire::node::link::{Frame, Identity, Refusal, Role};

use crate::conn::{Conn, Party, Stage};
use crate::conns::Conns;
use crate::contract::{Effect, News, PeerInfo, Setup};
use crate::dial::{Dial, Dials, State};
use crate::flaps::Flaps;
use crate::incoming::{Backlog, Incoming};
use crate::limits::{Config, HANDSHAKE_TIME, QUEUE_CEILING, TICK};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::peer::Peer;
use crate::peers::Peers;
use crate::proof::{Secret, Side};
use crate::tls::{Cover, Sealing};

mod encryption;
mod handshake;

/// The links of one shard. See the crate's page.
pub struct Links {
    identity: Identity,
    secret: Secret,
    sealing: Sealing,
    config: Config,
    seed: u64,
    prng: Prng,
    nonces: u64,
    /// The number of the last session.
    sessions: u64,
    conns: Conns,
    peers: Peers,
    flaps: Flaps,
    dials: Dials,
    incoming: Incoming,
    tick: Instant,
    pace: Pace,
    /// It has said `Bye`.
    is_leaving: bool,
    metrics: Metrics,
}

impl Links {
    /// Links with nobody.
    pub fn new(now: Instant, setup: Setup) -> Self {
        let Setup { identity, secret, tls, seed, config } = setup;
        let secret = Secret::new(&secret);
        let (pace, queue_bytes_max) = (Pace::new(config.interval()), config.queue_bytes_max as usize);
        Self {
            identity,
            sealing: Sealing::new(tls, &secret.tls_key()),
            secret,
            config,
            seed,
            prng: Prng::new(seed),
            nonces: 0,
            sessions: 0,
            conns: Conns::default(),
            peers: Peers::new(queue_bytes_max),
            flaps: Flaps::default(),
            dials: Dials::default(),
            incoming: Incoming::new(identity.role),
            tick: now,
            pace,
            is_leaving: false,
            metrics: Metrics::default(),
        }
    }

    /// Sets the nodes to link with, by the link addresses of their shards 0. Links with other nodes stay
    /// while they last.
    pub fn set_nodes(&mut self, routers: &[SocketAddr], bridges: &[SocketAddr]) {
        if self.is_leaving {
            return;
        }
        self.dials.set_nodes(Role::Router, routers);
        self.dials.set_nodes(Role::Bridge, bridges);
    }

    /// Whether all shards of all routers that were set are linked.
    pub fn are_routers_complete(&self) -> bool {
        let mut routers = self.dials.iter().filter(|dial| dial.role == Role::Router);
        routers.all(|dial| dial.peer.is_some_and(|peer| self.peers.contains(peer)))
    }

    /// The role of this shard.
    pub fn role(&self) -> Role {
        self.identity.role
    }

    /// Sends a message to a peer. It is dropped and counted if the last news was not [`News::Up`].
    pub fn send(&mut self, now: Instant, to: ShardId, message: LinkMessage) {
        let Some(peer) = self.peers.get_mut(to).filter(|peer| peer.is_told) else {
            self.metrics.unreachable += 1;
            return;
        };
        peer.outgoing.push(message);
        let is_large = peer.outgoing.is_large();
        let conn = peer.conn;
        if is_large || self.pace.is_open(now) {
            if let Some(conn) = conn {
                self.conns.mark_dirty(conn);
            }
        } else if !std::mem::replace(&mut peer.is_waiting, true) {
            self.pace.wait(to);
        }
        self.peers.weigh(to);
        if self.peers.get(to).is_some_and(|peer| peer.outgoing.bytes() > self.ceiling()) {
            self.lose(to);
        }
    }

    /// A session ends when this many bytes wait for its peer. A gateway has no such limit: it stops reading
    /// clients long before, and what it moves to another owner is bounded anyway. A new session would only
    /// make it send all that again. A bridge only answers.
    fn ceiling(&self) -> usize {
        match self.identity.role {
            Role::Gateway | Role::Bridge => usize::MAX,
            Role::Router => QUEUE_CEILING * self.config.queue_bytes_max as usize,
        }
    }

    /// Whether the queue of a peer is full: no lossy message should be added.
    pub fn is_full(&self, to: ShardId) -> bool {
        self.peers.is_full(to)
    }

    /// Whether the queue of a peer is so full that no message should be added whose sender can be told that
    /// it failed.
    pub fn is_stuffed(&self, to: ShardId) -> bool {
        self.peers.is_stuffed(to)
    }

    /// Whether so much is in flight to a peer that messages that can wait should wait.
    pub fn is_slow(&self, to: ShardId) -> bool {
        self.peers.is_slow(to)
    }

    /// Whether the queue of some peer is full: what fills it must stop.
    pub fn is_pushed_back(&self) -> bool {
        self.peers.full() > 0
    }

    /// Whether nothing waits for any peer or is in flight.
    pub fn are_flushed(&self) -> bool {
        self.peers.iter().all(|(_, peer)| peer.outgoing.is_empty())
    }

    /// Leaves for good: peers forget this shard at once, and it forgets them. From here on it accepts and
    /// opens no connection.
    pub fn say_bye(&mut self) {
        self.is_leaving = true;
        self.dials.clear();
        self.peers.shards().into_iter().for_each(|peer| self.lose_with(peer, &Frame::Bye));
        let conns: Vec<ConnId> = self.conns.iter().map(|(conn, _)| conn).collect();
        conns.into_iter().for_each(|conn| self.abort(conn));
    }

    /// Whether there is neither a peer nor a connection.
    pub fn are_closed(&self) -> bool {
        self.peers.is_empty() && self.conns.is_empty()
    }

    /// Whether a connection is one of a link.
    pub fn owns(&self, conn: ConnId) -> bool {
        self.conns.get(conn).is_some()
    }

    /// The peers that are up, ascending.
    pub fn peers(&self) -> impl Iterator<Item = PeerInfo> + '_ {
        self.peers.iter().map(|(shard, peer)| PeerInfo {
            shard,
            role: peer.identity.role,
            incarnation: peer.identity.incarnation,
            since: peer.since,
            is_connected: peer.conn.is_some(),
            queued_bytes: peer.outgoing.bytes() as u64,
        })
    }

    /// What has been counted, and what is held.
    pub fn metrics(&self) -> Metrics {
        Metrics {
            peers: self.peers.len() as u64,
            peers_full: self.peers.full() as u64,
            peers_clear: self.peers.iter().filter(|(_, peer)| self.is_clear(peer)).count() as u64,
            peers_away: self.peers.iter().filter(|(_, peer)| peer.conn.is_none()).count() as u64,
            queued_bytes: self.peers.iter().map(|(_, peer)| peer.outgoing.bytes() as u64).sum(),
            backlog_bytes: self.peers.iter().map(|(_, peer)| peer.backlog.bytes() as u64).sum(),
            ..self.metrics.clone()
        }
    }

    /// The next event for the cores, of which a turn handles a bounded number of messages.
    pub fn poll_news(&mut self) -> Option<News> {
        while let Some(peer) = self.incoming.next_behind() {
            self.hear_backlog(peer);
        }
        let news = self.incoming.pop()?;
        if let News::Up { peer, .. } = &news
            && !self.incoming.has_down(*peer)
            && let Some(known) = self.peers.get_mut(*peer)
        {
            known.is_told = true;
        }
        Some(news)
    }

    /// Stops messages to the cores, or lets them through again. Peers and timeouts are looked after all the
    /// same, and windows bound what waits.
    pub fn hold(&mut self, is_held: bool) {
        self.incoming.hold(is_held);
    }

    /// The next effect for the engine. Poll it when the cores have sent everything of this turn, which ends
    /// with `None`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        let effect = self.conns.poll_effect();
        if effect.is_some() {
            return effect;
        }
        self.incoming.end_turn();
        self.sealing.end_turn();
        None
    }

    /// When [`Links::timeout`] is wanted; at once while there is more to hear.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if let Some(since) = self.incoming.due().or(self.sealing.due()) {
            return Some(since);
        }
        let is_idle = self.dials.is_empty() && self.peers.is_empty() && self.conns.is_empty();
        let tick = (!is_idle).then_some(self.tick);
        [tick, self.pace.due()].into_iter().flatten().min()
    }

    /// A connection came from an address.
    pub fn accepted(&mut self, now: Instant, conn: ConnId, from: IpAddr) {
        self.conns.insert(
            conn,
            Conn { from: Some(from), ..Conn::new(now, Stage::Accepted, Cover::Unknown(Vec::new()), None) },
        );
        if self.is_leaving {
            self.abort(conn);
            return;
        }
        self.conns.put_stranger(conn);
        while let Some(oldest) = self.conns.pop_stranger() {
            self.metrics.count_refused(Refusal::Late);
            self.abort(oldest);
        }
    }

    /// A connect came through.
    pub fn connected(&mut self, now: Instant, conn: ConnId, token: u64) {
        let hello = self.party();
        let cover = self.sealing.connect();
        let has_cover = cover.is_some();
        let cover = cover.unwrap_or(Cover::Clear);
        let mut entry = Conn::new(now, Stage::Greeted { hello }, cover, Some(token));
        hello.hello().encode(&mut entry.out);
        self.conns.insert(conn, entry);
        match self.dials.find_mut(token).filter(|_| has_cover) {
            Some(dial) => {
                dial.state = State::Open(conn);
                self.conns.mark_dirty(conn);
            }
            None => self.abort(conn), // not wanted any more, or there is no randomness
        }
    }

    /// A connect failed.
    pub fn connect_failed(&mut self, now: Instant, token: u64) {
        self.metrics.connect_failures += 1;
        self.redial(now, token);
    }

    /// Bytes came.
    pub fn received(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        if let Some(peer) = entry.peer().and_then(|peer| self.peers.get_mut(peer)) {
            entry.heard_at = now;
            peer.heard_at = now;
        }
        if entry.cover.is_clear() {
            self.read(now, conn, bytes);
        } else {
            self.open(now, conn, bytes);
        }
    }

    /// Frames came.
    fn read(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        let mut deframer = std::mem::take(&mut entry.deframer);
        let most = entry.body_bytes_max();
        let fed = deframer.feed(bytes, most, |kind, body| {
            self.frame(now, conn, kind, body)?;
            Ok(self.conns.get(conn).map_or(0, |entry| entry.body_bytes_max()))
        });
        match (fed, self.conns.get_mut(conn)) {
            (Ok(()), Some(entry)) => entry.deframer = deframer,
            (Ok(()), None) => {}
            (Err(reason), _) => self.refuse(conn, reason),
        }
    }

    /// A batch was written.
    pub fn sent(&mut self, conn: ConnId) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        entry.is_writing = false;
        let peer = entry.peer().and_then(|peer| self.peers.get(peer));
        let has_more = peer.is_some_and(|peer| {
            !peer.is_waiting && peer.outgoing.can_fill(self.config.window_bytes as usize)
        });
        if has_more || entry.has_output() {
            self.conns.mark_dirty(conn);
        }
    }

    /// The other end will say no more: the connection is of no use.
    pub fn finished(&mut self, conn: ConnId) {
        self.abort(conn);
    }

    /// A connection is gone. Its session may go on with another.
    pub fn closed(&mut self, now: Instant, conn: ConnId) {
        let Some(entry) = self.conns.remove(conn) else { return };
        self.detach(conn);
        if let Some(token) = entry.dial {
            self.redial(now, token);
        }
    }

    /// Moves what is to be written into `batch`.
    pub fn poll_transmit(&mut self, now: Instant, conn: ConnId, batch: &mut SendBatch) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        if entry.cover.is_shut() {
            batch.copy(&entry.cover.take_records());
            entry.is_writing = !batch.is_empty();
            return;
        }
        batch.copy(&entry.out);
        entry.out.clear();
        let linked = entry.peer();
        if let Some(peer) = linked.and_then(|peer| self.peers.get_mut(peer)) {
            let filled = peer.outgoing.fill(batch, self.config.window_bytes as usize, peer.received);
            peer.is_waiting = false;
            self.metrics.batches_out += filled.batches;
            self.metrics.messages_out += filled.messages;
            if entry.owes_credit && !filled.says_received {
                let mut credit = Vec::new();
                Frame::Credit { received: peer.received }.encode(&mut credit);
                batch.copy(&credit);
            }
            if entry.owes_credit || filled.says_received {
                entry.owes_credit = false;
                peer.unsaid_bytes = 0;
            }
        }
        if let Cover::Tls(sealed) = &mut entry.cover {
            self.sealing.seal(sealed, batch, matches!(entry.stage, Stage::Closing));
        }
        entry.is_writing = !batch.is_empty();
        if entry.is_writing {
            entry.said_at = now;
        }
        if let Some(peer) = linked {
            self.peers.weigh(peer);
        }
    }

    /// The time of [`Links::poll_timeout`] has come.
    pub fn timeout(&mut self, now: Instant) {
        for shard in self.pace.take(now) {
            let Some(peer) = self.peers.get_mut(shard) else { continue };
            if std::mem::take(&mut peer.is_waiting)
                && let Some(conn) = peer.conn
            {
                self.conns.mark_dirty(conn);
            }
        }
        self.answer_hellos(now);
        if now < self.tick {
            return;
        }
        self.tick = now + TICK;
        self.dial_due(now);
        self.look_at_conns(now);
        let lost = self.peers.iter().filter(|(_, peer)| {
            let peer_opened = self.identity.role.takes(peer.identity.role);
            now.since(peer.heard_at) >= self.config.patience(peer_opened) * peer.patience(now)
        });
        let lost: Vec<ShardId> = lost.map(|(shard, _)| shard).collect();
        for peer in lost {
            self.lose(peer);
        }
    }

    /// Checks everything that must hold between events.
    ///
    /// # Panics
    ///
    /// When something does not hold.
    pub fn check_invariants(&self) {
        self.peers.check_invariants();
        let linked = self.conns.iter().filter_map(|(conn, entry)| Some((conn, entry.peer()?)));
        for (conn, peer) in linked {
            let peer = self.peers.get(peer).expect("a linked connection has a session");
            assert_eq!(peer.conn, Some(conn), "a session has one connection");
        }
        for (shard, peer) in self.peers.iter() {
            assert!(peer.session != 0, "a session has a name");
            if let Some(conn) = peer.conn {
                let entry = self.conns.get(conn).expect("a session's connection is open");
                assert_eq!(entry.peer(), Some(shard), "a connection carries its peer's session");
            }
            assert!(peer.outgoing.bytes() <= self.ceiling(), "a queue that is too long ends its session");
            let is_waited_for = peer.conn.is_some() && self.incoming.has_wait(shard);
            assert!(peer.backlog.is_empty() || is_waited_for, "what waits is heard some time");
        }
    }

    fn redial(&mut self, now: Instant, token: u64) {
        if let Some(dial) = self.dials.find_mut(token) {
            dial.fail(now, &mut self.prng);
        }
    }

    fn dial_due(&mut self, now: Instant) {
        for dial in self.dials.iter_mut().filter(|dial| dial.is_due(now)) {
            dial.state = State::Connecting;
            self.conns.connect(dial.token, dial.address());
        }
    }

    /// Closes connections that are too slow or too silent, and pings on those that had nothing to send.
    fn look_at_conns(&mut self, now: Instant) {
        let silence_max = |entry: &Conn, peer: ShardId| {
            let times = self.peers.get(peer).map_or(1, |peer| peer.patience(now));
            self.config.patience(entry.dial.is_none()) / 2 * times
        };
        let mut late = Vec::new();
        let mut silent = Vec::new();
        let mut mute = Vec::new();
        for (conn, entry) in self.conns.iter() {
            match entry.stage {
                Stage::Closing => {}
                Stage::Linked { peer } if now.since(entry.heard_at) >= silence_max(entry, peer) => {
                    silent.push(conn);
                }
                Stage::Linked { .. } if now.since(entry.said_at) >= self.config.ping() => mute.push(conn),
                Stage::Linked { .. } => {}
                Stage::Accepted | Stage::Challenged { .. } | Stage::Greeted { .. } | Stage::Proven { .. } => {
                    if now.since(entry.heard_at) >= HANDSHAKE_TIME {
                        late.push(conn);
                    }
                }
            }
        }
        late.into_iter().for_each(|conn| self.refuse(conn, Refusal::Late));
        silent.into_iter().for_each(|conn| self.abort(conn));
        mute.into_iter().for_each(|conn| self.conns.owe_credit(conn));
    }

    fn frame(&mut self, now: Instant, conn: ConnId, kind: u8, body: &[u8]) -> Result<(), Refusal> {
        let Some(entry) = self.conns.get(conn) else { return Ok(()) };
        if matches!(entry.stage, Stage::Closing) {
            return Ok(());
        }
        match (entry.stage, Frame::decode(kind, body)?) {
            (stage, Frame::Refused { reason }) => {
                self.metrics.count_refused(reason);
                if let Stage::Linked { peer } = stage {
                    self.lose(peer); // as the other end has done
                }
                self.abort(conn);
                Ok(())
            }
            (Stage::Accepted, Frame::Hello { identity, nonce }) => {
                self.challenge(now, conn, Party { identity, nonce })
            }
            (Stage::Greeted { hello }, Frame::Challenge { identity, nonce }) => {
                self.prove(now, conn, hello, Party { identity, nonce })
            }
            (Stage::Challenged { hello, challenge }, Frame::Proof { session, received, proof }) => {
                let said = [&hello.hello(), &challenge.challenge()];
                if !self.secret.is_proof(&proof, Side::Connector, said, session, received) {
                    return Err(Refusal::Secret);
                }
                self.admit(now, conn, [hello, challenge], session, received)
            }
            (Stage::Proven { hello, challenge, asked }, Frame::Welcome { session, received, proof }) => {
                let said = [&hello.hello(), &challenge.challenge()];
                if !self.secret.is_proof(&proof, Side::Acceptor, said, session, received) {
                    return Err(Refusal::Secret);
                }
                self.begin(now, conn, challenge.identity, asked, (session, received))
            }
            (Stage::Linked { peer }, Frame::Batch { received, archive }) => {
                self.credit(conn, peer, received)?;
                self.batch(now, conn, peer, archive)
            }
            (Stage::Linked { peer }, Frame::Credit { received }) => self.credit(conn, peer, received),
            (Stage::Linked { peer }, Frame::Bye) => {
                self.lose(peer);
                Ok(())
            }
            _ => Err(Refusal::BadFrame),
        }
    }

    fn dial_answered(&mut self, conn: ConnId, shard: ShardId, shards: u16) -> Option<&mut Dial> {
        self.dials.answered(self.conns.get(conn)?.dial?, shard, shards)
    }

    fn up(&mut self, now: Instant, identity: Identity, session: u64) {
        let shard = ShardId::from_u32(identity.shard);
        self.metrics.sessions += 1;
        let patience = self.flaps.begins(now, identity);
        self.peers.insert(shard, Peer::new(now, identity, session, patience));
        let Identity { role, shards, incarnation, .. } = identity;
        self.incoming.push(News::Up { peer: shard, role, shards, incarnation });
    }

    /// From here on this connection carries the session.
    fn carry(&mut self, now: Instant, conn: ConnId, shard: ShardId, resumed: bool) {
        self.metrics.resumed += u64::from(resumed);
        let peer = self.peers.get_mut(shard).expect("the caller made sure of it");
        peer.heard_at = now;
        let other = peer.conn.replace(conn).filter(|other| *other != conn);
        if let Some(entry) = self.conns.get_mut(conn) {
            entry.heard_at = now;
        }
        if let Some(other) = other {
            peer.backlog = Backlog::default();
            self.abort(other);
        }
        self.conns.mark_dirty(conn);
    }

    fn credit(&mut self, conn: ConnId, shard: ShardId, received: u64) -> Result<(), Refusal> {
        let Some(peer) = self.peers.get_mut(shard) else { return Ok(()) };
        if !peer.outgoing.credit(received) {
            return Err(Refusal::BadFrame);
        }
        if peer.outgoing.can_fill(self.config.window_bytes as usize) {
            self.conns.mark_dirty(conn);
        }
        self.peers.weigh(shard);
        Ok(())
    }

    /// A batch came: the cores hear it at once, or it waits for its turn.
    fn batch(&mut self, now: Instant, conn: ConnId, from: ShardId, archive: &[u8]) -> Result<(), Refusal> {
        let Some(peer) = self.peers.get_mut(from) else { return Ok(()) };
        if peer.backlog.is_empty() && self.incoming.may_hear() {
            return self.hear(now, conn, from, archive);
        }
        self.incoming.wait(now, from);
        peer.backlog.push(now, archive, self.config.backlog_bytes_max())
    }

    /// Gives the oldest waiting batch of a peer to the cores; none if the connection that it came over is
    /// gone.
    fn hear_backlog(&mut self, from: ShardId) {
        let Some(peer) = self.peers.get_mut(from) else { return };
        let (Some(conn), Some((at, archive))) = (peer.conn, peer.backlog.pop()) else { return };
        if !peer.backlog.is_empty() {
            self.incoming.wait(at, from);
        }
        if let Err(reason) = self.hear(at, conn, from, &archive) {
            self.refuse(conn, reason);
        }
    }

    fn hear(&mut self, at: Instant, conn: ConnId, from: ShardId, archive: &[u8]) -> Result<(), Refusal> {
        let Some(peer) = self.peers.get_mut(from) else { return Ok(()) };
        self.metrics.messages_in += self.incoming.read(at, (from, peer.identity.role), archive)?;
        self.metrics.batches_in += 1;
        peer.received += 1;
        peer.unsaid_bytes += archive.len();
        if peer.unsaid_bytes >= self.config.window_bytes as usize / 4 {
            self.conns.owe_credit(conn);
        }
        Ok(())
    }

    /// Gives a peer up, and what was on its way to it. A connection whose handshake is under way goes on: it
    /// finds that the session is gone.
    fn lose(&mut self, shard: ShardId) {
        if let Some(conn) = self.forget(shard) {
            self.abort(conn);
        }
    }

    /// Gives a peer up, and tells it.
    fn lose_with(&mut self, shard: ShardId, last: &Frame<'_>) {
        if let Some(conn) = self.forget(shard) {
            self.conns.close_with(conn, last);
        }
    }

    /// Ends a session; the caller ends the connection that carried it.
    fn forget(&mut self, shard: ShardId) -> Option<ConnId> {
        let peer = self.peers.remove(shard)?;
        self.metrics.lost += 1;
        self.metrics.messages_lost += peer.outgoing.messages();
        self.incoming.push(News::Down { peer: shard });
        peer.conn
    }

    /// Refuses a connection, and says why. A session that it carried ends, for what came over it is not to be
    /// trusted.
    fn refuse(&mut self, conn: ConnId, reason: Refusal) {
        let Some(entry) = self.conns.get(conn) else { return };
        if matches!(entry.stage, Stage::Closing) {
            return; // what came in behind the end does not count
        }
        match entry.peer() {
            Some(shard) => self.refuse_peer(shard, reason),
            None => {
                self.metrics.count_refused(reason);
                self.conns.close_with(conn, &Frame::Refused { reason });
            }
        }
    }

    /// Ends the session of a peer, and says why. What it said and the cores have not heard yet is not acted
    /// on.
    pub fn refuse_peer(&mut self, shard: ShardId, reason: Refusal) {
        if self.peers.contains(shard) {
            self.metrics.count_refused(reason);
            self.incoming.drop_messages(shard);
            self.lose_with(shard, &Frame::Refused { reason });
        }
    }

    fn abort(&mut self, conn: ConnId) {
        if self.conns.abort(conn) {
            self.detach(conn);
        }
    }

    /// Parts a connection from its session, if it carries one.
    fn detach(&mut self, conn: ConnId) {
        if let Some(peer) = self.peers.detach(conn) {
            self.incoming.push(News::Cut { peer });
        }
    }
}
