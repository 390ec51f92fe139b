//! Turns of shards: what an engine does, as `shard/src/contract.rs` has it.

use link::Links;
use node::{Control, Mail, Report};
use shard::{
    CloseReason, Closing, ConnId, Effect, Event as CoreEvent, Finishing, Instant, Life, SendBatch, Shard,
    ShardId,
};

use crate::host::{Input, Outcome, Power, ShardHost, host_of};
use crate::network::{Owner, Packet, Side, TcpId};
use crate::world::{Event, World};

/// Inputs that one turn takes at most.
const INPUTS_PER_TURN: usize = 64;
/// How often a turn goes from effects to their outcomes and back.
const ROUNDS_PER_TURN: usize = 16;
/// Own-state invariants are checked after one turn of so many, and after each in a run that is read: what is
/// broken stays so, and the checks take longer than the turns.
const TURNS_PER_CHECK: u64 = 16;
/// How long a graceful close may take.
const LINGER_NS: u64 = 1_000_000_000;

/// Whether batches of an end are written.
fn is_written(life: Life) -> bool {
    life.is_open() || life.is_flushing()
}

/// Messages of other nodes that a shard has heard, and said.
fn messages_of(host: &ShardHost) -> u64 {
    host.core.cores().links().map(Links::metrics).map_or(0, |links| links.messages_in + links.messages_out)
}

impl World {
    /// Something for a shard; its turn comes soon.
    pub(crate) fn give(&mut self, shard: ShardId, input: Input) {
        let soon = self.now + 1_000 + self.prng.below(60_000);
        let Some(host) = self.nodes.get_mut(&shard.node()).and_then(|node| node.shard(shard.index())) else {
            return;
        };
        host.inbox.push_back(input);
        self.wake(shard, soon);
    }

    /// Its turn is then, if not sooner.
    pub(crate) fn wake(&mut self, shard: ShardId, at: u64) {
        let Some(node) = self.nodes.get_mut(&shard.node()) else { return };
        let life = node.life;
        let Some(host) = node.shard(shard.index()) else { return };
        let at = at.max(host.busy_until);
        if host.wake.is_none_or(|wake| at < wake) {
            host.wake = Some(at);
            self.schedule(at, Event::Turn { shard, life });
        }
    }

    pub(crate) fn sibling_mail(&mut self, from: ShardId, to: ShardId, life: u32, mail: Mail) {
        if self.nodes.get(&to.node()).is_some_and(|node| node.life == life) {
            self.give(to, Input::Mail { from, mail });
        }
    }

    /// One turn, if it is still wanted.
    pub(crate) fn turn(&mut self, id: ShardId, life: u32) {
        let now_ns = self.now;
        let Some(node) = self.nodes.get_mut(&id.node()).filter(|node| node.life == life) else { return };
        let (is_up, frozen) = (node.power == Power::Up, node.frozen.is_some());
        let now = node.clock(now_ns);
        let place = node.shards.get_mut(usize::from(id.index()));
        let Some(mut host) = place.and_then(|place| place.take_if(|host| host.wake == Some(now_ns))) else {
            return;
        };
        host.wake = None;
        if is_up && !frozen && !host.stopped {
            self.trace.mix([1, self.now, id.as_u32().into()]);
            let before = messages_of(&host);
            self.run_turn(&mut host, now);
            self.note_links(&host);
            if let Some(cost) = self.plan.cost {
                let us = cost.turn_us + cost.message_us * (messages_of(&host) - before);
                host.busy_until = now_ns + 1_000 * us * self.nodes[&id.node()].slowness(now_ns);
            }
        }
        let stopped = host.stopped;
        let next = host.core.poll_timeout();
        let has_more = !host.inbox.is_empty() || host.core.has_more();
        let node = self.nodes.get_mut(&id.node()).expect("it was there before the turn");
        let at =
            if has_more { Some(now_ns + 1_000) } else { next.map(|next| node.at(next).max(now_ns + 1_000)) };
        node.shards[usize::from(id.index())] = Some(host);
        if let Some(at) = at.filter(|_| is_up && !frozen && !stopped) {
            self.wake(id, at);
        }
        self.end_if_stopped(id.node());
    }

    fn note_links(&mut self, host: &ShardHost) {
        if let Some(router) = host.core.cores().router() {
            self.model.outages.note(self.now, host.id, &router.announced().collect::<Vec<_>>());
        }
    }

    fn run_turn(&mut self, host: &mut ShardHost, now: Instant) {
        self.take_inputs(host, now);
        if host.core.poll_timeout().is_some_and(|at| at <= now) {
            host.core.handle(now, CoreEvent::Timeout);
        }
        self.take_effects(host, now);
        host.turns += 1;
        if self.trace.is_read() || host.turns.is_multiple_of(TURNS_PER_CHECK) {
            host.core.check_invariants();
        }
        host.is_pushed_back = host.core.is_pushed_back();
        if !host.is_pushed_back {
            while let Some(input) = host.unread.pop_back() {
                host.inbox.push_front(input);
            }
        }
        self.drain_notes(host);
    }

    /// Gives a shard some of its inbox. While its core is pushed back, what clients sent waits.
    fn take_inputs(&mut self, host: &mut ShardHost, now: Instant) {
        for _ in 0..INPUTS_PER_TURN {
            let Some(input) = host.inbox.pop_front() else { break };
            let is_client = matches!(
                input,
                Input::Bytes { side: Side::Taker, .. } | Input::Fin { side: Side::Taker, .. }
            );
            if is_client && (host.is_pushed_back || !host.unread.is_empty()) {
                host.unread.push_back(input);
                continue;
            }
            self.take(host, now, input);
        }
        let input_waits = !host.inbox.is_empty();
        if std::mem::replace(&mut host.input_waits, input_waits) != input_waits {
            host.core.handle(now, CoreEvent::InputWaits(input_waits));
        }
    }

    /// Carries out what a core wants, and tells it what became of that.
    fn take_effects(&mut self, host: &mut ShardHost, now: Instant) {
        for _ in 0..ROUNDS_PER_TURN {
            while let Some(effect) = host.core.poll_effect(now) {
                self.carry_out(host, now, effect);
            }
            if host.outcomes.is_empty() || host.stopped {
                break;
            }
            for _ in 0..host.outcomes.len() {
                match host.outcomes.pop_front().expect("as many as counted") {
                    Outcome::Sent { conn, bytes } => self.tell_sent(host, now, conn, bytes),
                    Outcome::Closed { conn, reason } => {
                        host.forget(conn);
                        host.core.handle(now, CoreEvent::Closed { conn, reason });
                    }
                }
            }
        }
    }

    fn drain_notes(&mut self, host: &mut ShardHost) {
        let life = self.nodes[&host.id.node()].life;
        let notes = std::mem::take(host.core.outside());
        for event in notes.lost {
            self.trace.line(self.now, || format!("{:?} bridge {event:?}", host.id));
            let found = self.model.bridge(self.now, event);
            self.check(found);
        }
        for (of, handed) in notes.handed {
            self.bridge_note(host.id, life, of, handed);
        }
        for record in notes.directory {
            self.directory_note(host.id, life, record);
        }
    }

    fn take(&mut self, host: &mut ShardHost, now: Instant, input: Input) {
        match input {
            Input::Accepted { tcp } => {
                let conn = self.open_end(host, tcp, Side::Taker);
                let (peer, listener) = self.way_of(tcp).entrance(tcp);
                self.trace.line(self.now, || format!("{:?} accepted tcp {tcp} as {conn:?}", host.id));
                host.core.handle(now, CoreEvent::Accepted { conn, peer, listener });
            }
            Input::Connected { tcp } => {
                let conn = self.open_end(host, tcp, Side::Opener);
                let token = self.network.tcps[tcp].token;
                self.trace.line(self.now, || format!("{:?} connected tcp {tcp} as {conn:?}", host.id));
                host.core.handle(now, CoreEvent::Connected { conn, token });
            }
            Input::ConnectFailed { token, error } => {
                host.core.handle(now, CoreEvent::ConnectFailed { token, error });
            }
            Input::Bytes { tcp, side, bytes } => {
                self.taken(tcp, side, bytes.len());
                if let Some(conn) = self.conn_of(host, tcp, side, Life::is_open) {
                    if !self.is_link(tcp) && self.way_of(tcp).is_bare() {
                        self.flights.read(now, tcp, &bytes);
                    }
                    host.core.handle(now, CoreEvent::Received { conn, bytes: &bytes });
                }
            }
            Input::Fin { tcp, side } => {
                let conn = self.conn_of(host, tcp, side, |_| true);
                match (self.network.end(tcp, side).life.finish(), conn) {
                    (Finishing::Tell, Some(conn)) => host.core.handle(now, CoreEvent::Finished { conn }),
                    (Finishing::End, _) => self.end_shards(host, tcp, side),
                    (Finishing::Tell, None) | (Finishing::Ignored, _) => {}
                }
            }
            Input::Reset { tcp, side } => {
                if self.network.end(tcp, side).life.fail(CloseReason::Reset) {
                    self.end_shards(host, tcp, side);
                }
            }
            Input::Sent { tcp, side, bytes } => {
                if let Some(conn) = self.conn_of(host, tcp, side, is_written) {
                    self.tell_sent(host, now, conn, bytes);
                }
            }
            Input::Expired { tcp, side } => {
                if self.conn_of(host, tcp, side, Life::is_closing).is_some() {
                    self.network.end(tcp, side).life.end(CloseReason::Local);
                    self.reset_shards(host, tcp, side);
                }
            }
            Input::Clocks(clocks) => host.core.handle(now, CoreEvent::Clocks(clocks)),
            Input::Mail { from, mail } => {
                match &mail {
                    Mail::ToGateway(mail) => {
                        self.trace.line(self.now, || format!("{:?} mail from {from:?}: {mail:?}", host.id));
                    }
                    Mail::ToRouter(mail) => {
                        self.trace.line(self.now, || format!("{:?} mail from {from:?}: {mail:?}", host.id));
                    }
                    Mail::Control(_) => {}
                }
                host.core.handle(now, CoreEvent::Mail { from, mail });
            }
        }
    }

    /// An end becomes known to its core.
    fn open_end(&mut self, host: &mut ShardHost, tcp: TcpId, side: Side) -> ConnId {
        let conn = host.name(tcp, side);
        let end = self.network.end(tcp, side);
        end.owner = Owner::Shard { shard: host.id, conn };
        end.life.connected();
        conn
    }

    /// The name of an end, if that shard has it and its life is such.
    fn conn_of(
        &mut self,
        host: &ShardHost,
        tcp: TcpId,
        side: Side,
        is_such: impl Fn(Life) -> bool,
    ) -> Option<ConnId> {
        let end = self.network.end(tcp, side);
        let Owner::Shard { conn, .. } = end.owner else { return None };
        (is_such(end.life) && host.find(conn) == Some((tcp, side))).then_some(conn)
    }

    fn tell_sent(&mut self, host: &mut ShardHost, now: Instant, conn: ConnId, bytes: usize) {
        let Some((tcp, side)) = host.find(conn) else { return };
        let life = self.network.end(tcp, side).life;
        if !is_written(life) {
            return;
        }
        host.core.handle(now, CoreEvent::Sent { conn, bytes });
        if life.is_flushing() {
            self.flush(host, now, tcp, side, conn);
        }
    }

    fn carry_out(&mut self, host: &mut ShardHost, now: Instant, effect: Effect<Mail, Report>) {
        match effect {
            Effect::Transmit { conn } => {
                if let Some((tcp, side)) = host.find(conn)
                    && self.network.end(tcp, side).life.is_open()
                    && self.network.end(tcp, side).batch.is_none()
                {
                    self.write(host, now, tcp, side, conn);
                }
            }
            Effect::Close { conn, linger } => {
                let Some((tcp, side)) = host.find(conn) else { return };
                let end = self.network.end(tcp, side);
                match end.life.close(linger) {
                    Closing::Ignored => {}
                    Closing::Reset => self.reset_shards(host, tcp, side),
                    Closing::Flush => {
                        let is_writing = end.batch.is_some();
                        self.after(LINGER_NS, Event::Linger { tcp, side });
                        if !is_writing {
                            self.flush(host, now, tcp, side, conn);
                        }
                    }
                }
            }
            Effect::Connect { token, peer, source: _ } => {
                let (to, index) = host_of(peer);
                let owner = Owner::Shard { shard: host.id, conn: ConnId { index: u32::MAX, generation: 0 } };
                self.open(host.id.node(), owner, to, Some(index), token);
            }
            Effect::Report(report) => {
                if matches!(report, Report::Drained) {
                    host.drained = true;
                }
            }
            Effect::Mail { to, mail } => {
                let life = self.nodes[&host.id.node()].life;
                let earliest = host.mail_until.get(&to).copied().unwrap_or(0);
                let at = (self.now + 500 + self.prng.below(50_000)).max(earliest + 1);
                host.mail_until.insert(to, at);
                self.schedule(at, Event::Mail { from: host.id, to, life, mail: Box::new(mail) });
            }
            Effect::StopAccepting => host.accepting = false,
            Effect::Stop => host.stopped = true,
        }
    }

    /// Takes the core's next batch and sends it; false when there is none.
    fn write(&mut self, host: &mut ShardHost, now: Instant, tcp: TcpId, side: Side, conn: ConnId) -> bool {
        let mut batch = SendBatch::new();
        host.core.poll_transmit(now, conn, &mut batch);
        if batch.is_empty() {
            return false;
        }
        let bytes = batch.len();
        let end = self.network.end(tcp, side);
        let written: Vec<u8> = batch.segments().collect::<Vec<_>>().concat();
        end.outgoing.extend(&written);
        end.batch = Some(bytes);
        if !self.is_link(tcp) && self.way_of(tcp).is_bare() {
            let (model, ago) = (&self.model, self.now);
            let is_moving =
                |since: Instant| model.is_moving(ago.saturating_sub(now.since(since).as_nanos() as u64), ago);
            let found = self.flights.written(now, tcp, &written, is_moving);
            self.check(found);
        }
        if self.pump(tcp, side) {
            self.network.end(tcp, side).batch = None;
            host.outcomes.push_back(Outcome::Sent { conn, bytes });
        }
        true
    }

    fn flush(&mut self, host: &mut ShardHost, now: Instant, tcp: TcpId, side: Side, conn: ConnId) {
        if self.write(host, now, tcp, side, conn) {
            return;
        }
        self.send(tcp, side, Packet::Fin);
        if self.network.end(tcp, side).life.drain(false) {
            self.end_shards(host, tcp, side);
        }
    }

    /// An end of a shard has ended, and its peer is to see a reset.
    fn reset_shards(&mut self, host: &mut ShardHost, tcp: TcpId, side: Side) {
        self.end_shards(host, tcp, side);
        self.say_reset(tcp, side);
    }

    /// An end of a shard has ended: its core is told.
    fn end_shards(&mut self, host: &mut ShardHost, tcp: TcpId, side: Side) {
        let end = self.network.end(tcp, side);
        let (Owner::Shard { conn, .. }, Some(reason)) = (end.owner, end.life.ended()) else { return };
        end.outgoing.clear();
        end.batch = None;
        self.flights.closed(tcp);
        host.outcomes.push_back(Outcome::Closed { conn, reason });
    }

    /// A process with a shard that has drained everywhere is told to stop, and is gone once all have.
    fn end_if_stopped(&mut self, host: crate::network::Host) {
        let Some(node) = self.nodes.get_mut(&host) else { return };
        if node.power != Power::Up || !node.draining {
            return;
        }
        if node.shards().count() == node.shards.len() && node.shards().all(|shard| shard.stopped) {
            let back_at = node.back_at;
            self.trace.line(self.now, || format!("node {host} has drained"));
            self.kill(host, false, true);
            if let Some(at) = back_at {
                self.come_back(host, at.max(self.now + 50_000_000));
            }
            return;
        }
        let life = node.life;
        let drained = node.shards().all(|shard| shard.drained);
        let ids: Vec<ShardId> = node.shards().map(|shard| shard.id).collect();
        if drained {
            for shard in node.shards.iter_mut().flatten() {
                shard.drained = false;
            }
            for id in ids {
                self.sibling_mail(ShardId::CONTROL, id, life, Mail::Control(Control::Stop));
            }
        }
    }
}
