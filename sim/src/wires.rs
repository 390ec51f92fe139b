//! Connections at work: opening, sending, arriving, ending.

use shard::{CloseReason, ConnectError, Life, ShardId};

use crate::host::{EPOCH_NS, Input, Power};
use crate::layers::Way;
use crate::network::{CLIENTS, End, Host, Owner, Packet, Side, Tcp, TcpId};
use crate::world::{Event, World};

/// After so many pieces of what goes at once, the next may be twice as long: a frame is cut anywhere, and a
/// long one does not become a thousand events.
const PIECES_ALIKE: u32 = 8;
/// How long a connect waits for an answer.
const CONNECT_NS: u64 = 1_500_000_000;
/// After so long without an answer, a connect is tried again, as TCP does (RFC 6298).
const SYN_AGAIN_NS: u64 = 1_000_000_000;

impl World {
    /// Begins a connect.
    pub(crate) fn open(
        &mut self,
        from: Host,
        owner: Owner,
        to: Host,
        index: Option<u16>,
        token: u64,
    ) -> TcpId {
        let opener = End::new(from, owner, Life::connecting());
        let nobody = Owner::Client { client: usize::MAX };
        let mut taker = End::new(to, nobody, Life::connecting());
        taker.life.end(CloseReason::Local); // until it takes the connection
        self.network.tcps.push(Tcp { ends: [opener, taker], token, index, is_broken: false });
        let tcp = self.network.tcps.len() - 1;
        self.trace.mix([2, self.now, tcp as u64, from.into(), to.into()]);
        self.after(CONNECT_NS, Event::ConnectLate { tcp });
        if self.network.is_cut(from, to) {
            self.after(SYN_AGAIN_NS, Event::Syn { tcp });
        } else {
            let delay = self.network.delay(from, to);
            self.after(delay, Event::Syn { tcp });
        }
        tcp
    }

    pub(crate) fn syn(&mut self, tcp: TcpId) {
        let [opener, taker] = &self.network.tcps[tcp].ends;
        let (from, to, index) = (opener.host, taker.host, self.network.tcps[tcp].index);
        if self.network.is_cut(from, to) {
            return;
        }
        let Some(node) = self.nodes.get(&to).filter(|node| node.power != Power::Off) else { return };
        let listening: Vec<ShardId> = node
            .shards()
            .filter(|shard| index.is_none_or(|index| index == shard.id.index()))
            .filter(|shard| node.power == Power::Up && shard.accepting && !shard.stopped)
            .map(|shard| shard.id)
            .collect();
        let answers = !self.network.is_cut(to, from);
        let delay = self.network.delay(to, from);
        if listening.is_empty() {
            match answers {
                true => self.after(delay, Event::Refused { tcp }),
                false => self.after(SYN_AGAIN_NS, Event::Syn { tcp }),
            }
            return;
        }
        let shard = listening[self.prng.below(listening.len() as u64) as usize];
        let conn = shard::ConnId { index: u32::MAX, generation: 0 };
        let end = self.network.end(tcp, Side::Taker);
        (end.owner, end.life) = (Owner::Shard { shard, conn }, Life::connecting());
        end.last_arrival = self.now + delay;
        self.give(shard, Input::Accepted { tcp });
        self.after(if answers { delay } else { SYN_AGAIN_NS }, Event::SynAck { tcp });
    }

    pub(crate) fn syn_ack(&mut self, tcp: TcpId) {
        let [opener, taker] = &self.network.tcps[tcp].ends;
        if self.network.is_cut(taker.host, opener.host) {
            return;
        }
        let end = self.network.end(tcp, Side::Opener);
        match end.owner {
            _ if !end.life.is_connecting() => self.say_reset(tcp, Side::Opener),
            Owner::Shard { shard, .. } => self.give(shard, Input::Connected { tcp }),
            Owner::Client { client } => {
                end.life.connected();
                self.client_connected(client, tcp);
            }
        }
    }

    pub(crate) fn connect_failed(&mut self, tcp: TcpId, error: ConnectError) {
        let token = self.network.tcps[tcp].token;
        let end = self.network.end(tcp, Side::Opener);
        if !end.life.is_connecting() {
            return;
        }
        end.life.end(CloseReason::Local);
        match end.owner {
            Owner::Shard { shard, .. } => self.give(shard, Input::ConnectFailed { token, error }),
            Owner::Client { client } => self.client_lost(client, tcp),
        }
    }

    /// Moves what waits into the network as far as there is room; whether all of it has gone.
    pub(crate) fn pump(&mut self, tcp: TcpId, side: Side) -> bool {
        let (from, to) = self.hosts(tcp, side);
        let delay = self.network.delay(from, to);
        for pieces in 0.. {
            let (room, piece_max) = (self.network.room, self.network.piece_max << (pieces / PIECES_ALIKE));
            let end = self.network.end(tcp, side);
            let free = room.saturating_sub(end.unacked).min(end.outgoing.len());
            if free == 0 {
                return end.outgoing.is_empty();
            }
            let piece = 1 + self.prng.below(piece_max.min(free as u64)) as usize;
            let end = self.network.end(tcp, side);
            end.unacked += piece;
            let bytes = end.cut_off(piece);
            self.trace.mix([3, self.now, tcp as u64, side as u64, piece as u64]);
            // What TLS makes of the same bytes is something else each time, and always as long.
            if !self.is_sealed(tcp) {
                self.trace.mix_bytes(&bytes);
            }
            self.send_after(tcp, side, delay, Packet::Data(bytes));
        }
        unreachable!("pieces grow until nothing waits")
    }

    /// Sends a packet on its way.
    pub(crate) fn send(&mut self, tcp: TcpId, side: Side, packet: Packet) {
        let (from, to) = self.hosts(tcp, side);
        let delay = self.network.delay(from, to);
        self.send_after(tcp, side, delay, packet);
    }

    fn send_after(&mut self, tcp: TcpId, side: Side, delay: u64, packet: Packet) {
        let (from, to) = self.hosts(tcp, side);
        if self.network.is_cut(from, to) {
            return self.network.end(tcp, side).held.push_back(packet);
        }
        let now = self.now;
        let end = self.network.end(tcp, side);
        end.last_arrival = (now + delay).max(end.last_arrival + 1);
        let (at, epoch) = (end.last_arrival, end.epoch);
        self.schedule(at, Event::Arrive { tcp, to: side.other(), epoch, packet });
    }

    pub(crate) fn arrive(&mut self, tcp: TcpId, to: Side, epoch: u32, packet: Packet) {
        if self.network.tcps[tcp].is_broken || self.network.end(tcp, to.other()).epoch != epoch {
            return;
        }
        let end = self.network.end(tcp, to);
        let (host, life, owner) = (end.host, end.life, end.owner);
        if self.nodes.get(&host).is_some_and(|node| node.power == Power::Off) {
            return;
        }
        if life.has_ended() {
            return self.say_reset(tcp, to);
        }
        match (owner, packet) {
            (Owner::Shard { shard, .. }, Packet::Data(bytes)) => {
                self.tap(tcp, to, &bytes);
                self.give(shard, Input::Bytes { tcp, side: to, bytes });
            }
            (Owner::Shard { shard, .. }, Packet::Fin) => self.give(shard, Input::Fin { tcp, side: to }),
            (Owner::Client { client }, Packet::Data(bytes)) => self.client_bytes(client, tcp, bytes),
            (Owner::Client { client }, Packet::Fin) => {
                self.close_client_end(tcp);
                self.client_finished(client, tcp);
            }
        }
    }

    /// Says the messages in bytes that arrive at an end of a link.
    fn tap(&mut self, tcp: TcpId, to: Side, bytes: &[u8]) {
        if !self.trace.is_read() || !self.is_link(tcp) || self.is_sealed(tcp) {
            return;
        }
        let name = |owner| match owner {
            Owner::Shard { shard, .. } => shard,
            Owner::Client { .. } => ShardId::CONTROL,
        };
        let [from, at] = [to.other(), to].map(|side| name(self.network.end(tcp, side).owner));
        for text in self.taps.read(EPOCH_NS + self.now, tcp, to, bytes) {
            self.trace.line(self.now, || format!("{from:?} => {at:?} (tcp {tcp}) {text}"));
        }
    }

    /// An application took bytes: its peer hears that there is room.
    pub(crate) fn taken(&mut self, tcp: TcpId, side: Side, bytes: usize) {
        let (from, to) = self.hosts(tcp, side);
        if self.network.is_cut(from, to) {
            self.network.end(tcp, side).held_credit += bytes;
            return;
        }
        let delay = self.network.delay(from, to);
        self.after(delay, Event::Credit { tcp, to: side.other(), bytes });
    }

    pub(crate) fn credit(&mut self, tcp: TcpId, to: Side, bytes: usize) {
        let room = self.network.room;
        let end = self.network.end(tcp, to);
        end.unacked = end.unacked.saturating_sub(bytes);
        let (waiting, free) = (end.outgoing.len(), room.saturating_sub(end.unacked));
        // As a sender of TCP does that avoids silly windows (RFC 9293, 3.8.6.2.1).
        if end.life.has_ended() || waiting == 0 || free < waiting.min(room / 2) {
            return;
        }
        let (owner, batch) = (end.owner, end.batch);
        if self.pump(tcp, to)
            && let (Owner::Shard { shard, .. }, Some(bytes)) = (owner, batch)
        {
            self.network.end(tcp, to).batch = None;
            self.give(shard, Input::Sent { tcp, side: to, bytes });
        }
    }

    /// This end is gone, and the other is told so, if that gets through.
    pub(crate) fn say_reset(&mut self, tcp: TcpId, side: Side) {
        let (from, to) = self.hosts(tcp, side);
        if self.network.is_cut(from, to) {
            return;
        }
        let delay = self.network.delay(from, to);
        let at = (self.now + delay).max(self.network.end(tcp, side).last_arrival + 1);
        self.schedule(at, Event::Reset { tcp, to: side.other() });
    }

    pub(crate) fn reset(&mut self, tcp: TcpId, to: Side) {
        let end = self.network.end(tcp, to);
        if end.life.has_ended() || self.nodes.get(&end.host).is_some_and(|node| node.power == Power::Off) {
            return;
        }
        self.trace.mix([4, self.now, tcp as u64, to as u64]);
        let end = self.network.end(tcp, to);
        match end.owner {
            Owner::Shard { shard, .. } if end.life.is_connecting() && to == Side::Opener => {
                let _ = shard;
                self.connect_failed(tcp, ConnectError::Refused);
            }
            Owner::Shard { shard, .. } => self.give(shard, Input::Reset { tcp, side: to }),
            Owner::Client { client } => {
                end.life.end(CloseReason::Reset);
                end.drop_all();
                self.client_lost(client, tcp);
            }
        }
    }

    pub(crate) fn linger(&mut self, tcp: TcpId, side: Side) {
        if let Owner::Shard { shard, .. } = self.network.end(tcp, side).owner {
            self.give(shard, Input::Expired { tcp, side });
        }
    }

    /// A client closes: what it said still gets through.
    pub(crate) fn close_client_end(&mut self, tcp: TcpId) {
        let end = self.network.end(tcp, Side::Opener);
        let is_open = end.life.is_open();
        end.life.end(CloseReason::Local);
        if is_open {
            self.send(tcp, Side::Opener, Packet::Fin);
        }
    }

    /// Every connection of a host that a process has an end of, and that end.
    pub(crate) fn ends_of(&self, host: Host) -> Vec<(TcpId, Side)> {
        let sides = [Side::Opener, Side::Taker];
        let all = self.network.tcps.iter().enumerate();
        all.flat_map(|(tcp, it)| sides.map(|side| (tcp, side, &it.ends[side as usize])))
            .filter(|(_, _, end)| end.host == host && !end.life.has_ended())
            .map(|(tcp, side, _)| (tcp, side))
            .collect()
    }

    /// What a cut held up goes on.
    pub(crate) fn heal(&mut self, from: Host, to: Host) {
        self.network.heal(from, to);
        self.trace.line(self.now, || format!("HEALED {from} -> {to}"));
        for (tcp, side) in self.all_ends_of(from) {
            if self.hosts(tcp, side) != (from, to) {
                continue;
            }
            let held = std::mem::take(&mut self.network.end(tcp, side).held);
            held.into_iter().for_each(|packet| self.send(tcp, side, packet));
            let bytes = std::mem::take(&mut self.network.end(tcp, side).held_credit);
            if bytes > 0 {
                self.taken(tcp, side, bytes);
            }
        }
    }

    fn all_ends_of(&self, host: Host) -> Vec<(TcpId, Side)> {
        let sides = [Side::Opener, Side::Taker];
        let all = self.network.tcps.iter().enumerate();
        all.flat_map(|(tcp, it)| sides.map(|side| (tcp, side, it.ends[side as usize].host)))
            .filter(|(_, _, of)| *of == host)
            .map(|(tcp, side, _)| (tcp, side))
            .collect()
    }

    /// From which host to which an end sends.
    pub(crate) fn hosts(&self, tcp: TcpId, side: Side) -> (Host, Host) {
        let ends = &self.network.tcps[tcp].ends;
        (ends[side as usize].host, ends[side.other() as usize].host)
    }

    pub(crate) fn is_link(&self, tcp: TcpId) -> bool {
        self.network.tcps[tcp].ends[0].host != CLIENTS
    }

    /// Whether what a connection carries is encrypted.
    pub(crate) fn is_sealed(&self, tcp: TcpId) -> bool {
        self.way_of(tcp).is_tls() || self.plan.encrypted_links && self.is_link(tcp)
    }

    /// How a connection is made; a link has no layers.
    pub(crate) fn way_of(&self, tcp: TcpId) -> Way {
        match self.network.tcps[tcp].ends[0].owner {
            Owner::Client { client } => self.clients[client].way,
            Owner::Shard { .. } => Way::default(),
        }
    }
}
