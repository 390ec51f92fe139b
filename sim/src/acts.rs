//! What is done to nodes.

use node::{Control, Mail};
use shard::{Clocks, CloseReason, ShardId};
use wire::node::link::Role;

use crate::host::{Input, LATE_NS, Power, address};
use crate::judge::check_refusals;
use crate::network::Host;
use crate::plan::Fault;
use crate::world::{Event, World};

/// By when nodes that start first have found each other.
const GATHERED_NS: u64 = 2_500_000_000;
/// How long a drain may take before the process is stopped all the same.
const DRAIN_NS: u64 = 6_000_000_000;

impl World {
    pub(crate) fn start(&mut self, host: Host, at: u64) {
        let (routers, bridges) = (self.plan.router_hosts(), self.plan.bridge_hosts());
        let shards = self.plan.shards;
        let node = self.nodes.get_mut(&host).expect("every host has a node");
        if node.power == Power::Up || node.back_at.is_some_and(|back_at| back_at != at) {
            return;
        }
        let was_off = node.power == Power::Off;
        let is_first = node.life == 0;
        node.start(self.now, &self.plan, &mut self.prng);
        let (life, role) = (node.life, node.role);
        self.model.lives.begin(self.now, host);
        self.trace.line(self.now, || format!("STARTED {host}, life {life}"));
        self.trace.mix([5, self.now, host.into()]);
        match is_first {
            true => self.model.gather(GATHERED_NS),
            false => self.model.unsettle([host; 2], self.now, self.now),
        }
        for index in 0..shards {
            let id = ShardId::new(host, index);
            if routers.contains(&host) {
                let gateways = self.plan.gateway_hosts().into_iter();
                let all = gateways.flat_map(|of| (0..shards).map(move |index| ShardId::new(of, index)));
                self.model.outages.begin(self.now, id, all);
            }
            if role != Role::Router {
                let addresses = |hosts: &[Host]| hosts.iter().map(|host| address(*host, 0)).collect();
                let bridges = if role == Role::Gateway { addresses(&bridges) } else { Vec::new() };
                let nodes = Control::Nodes { routers: addresses(&routers), bridges };
                self.sibling_mail(ShardId::CONTROL, id, life, Mail::Control(nodes));
            }
            self.wake(id, self.now + 1_000);
        }
        if was_off {
            self.answer_the_dead(host);
        }
    }

    /// Peers of a machine that lost its power repeat what it never took, and hear that nobody knows it.
    fn answer_the_dead(&mut self, host: Host) {
        for tcp in 0..self.network.tcps.len() {
            for side in [crate::network::Side::Opener, crate::network::Side::Taker] {
                let (own, peer) = (side.other(), side);
                let is_own = self.network.end(tcp, own).host == host;
                if is_own && !self.network.end(tcp, peer).life.has_ended() {
                    let delay = self.prng.below(400_000_000);
                    self.after(delay, Event::Reset { tcp, to: peer });
                }
            }
        }
    }

    pub(crate) fn come_back(&mut self, host: Host, at: u64) {
        self.nodes.get_mut(&host).expect("every host has a node").back_at = Some(at);
        self.schedule(at, Event::Start { host, at });
    }

    pub(crate) fn fault(&mut self, index: usize) {
        let fault = self.plan.faults[index].1;
        if self.is_quiet {
            return;
        }
        self.trace.line(self.now, || format!("FAULT {fault:?}"));
        self.trace.mix([6, self.now, index as u64]);
        match fault {
            Fault::Crash { host, power, back_ms } => {
                if self.nodes[&host].power == Power::Up {
                    self.kill(host, power, false);
                    self.come_back(host, self.now + back_ms * 1_000_000);
                }
            }
            Fault::Freeze { host, ms } => self.freeze(host, ms),
            Fault::Slow { host, times, ms } => {
                let until = self.now + ms * 1_000_000;
                self.model.unsettle([host; 2], self.now, until);
                self.model.frozen(self.now, until, host);
                let node = self.nodes.get_mut(&host).expect("every host has a node");
                node.slow = Some((until, times));
            }
            Fault::Cut { from, to, both, ms } => {
                let until = self.now + ms * 1_000_000;
                self.model.unsettle([from, to], self.now, until);
                self.model.cut(self.now, until, from, to);
                for (from, to) in [(from, to), (to, from)].into_iter().take(1 + usize::from(both)) {
                    self.network.cut(from, to);
                    self.schedule(until, Event::Heal { from, to });
                }
            }
            Fault::Reset { host } => {
                let links: Vec<_> =
                    self.ends_of(host).into_iter().filter(|(tcp, _)| self.is_link(*tcp)).collect();
                if !links.is_empty() {
                    let (tcp, _) = links[self.prng.below(links.len() as u64) as usize];
                    self.break_connection(tcp);
                }
            }
            Fault::Drain { host, back_ms } => self.drain(host, back_ms),
        }
    }

    /// The network forgets a connection: both ends hear of it, and what was on its way is lost.
    pub(crate) fn break_connection(&mut self, tcp: usize) {
        self.network.tcps[tcp].is_broken = true;
        for side in [crate::network::Side::Opener, crate::network::Side::Taker] {
            self.network.end(tcp, side).drop_all();
            let delay = self.prng.below(30_000_000);
            self.after(delay, Event::Reset { tcp, to: side });
        }
    }

    /// The process is gone. A machine that lives on says so to its peers; what it had sent may still get
    /// through.
    pub(crate) fn kill(&mut self, host: Host, power: bool, gently: bool) {
        self.trace.line(self.now, || format!("GONE {host}"));
        let found = self.nodes[&host].shards().try_for_each(check_refusals);
        self.check(found);
        self.model.disturb(host, self.now, self.now);
        self.model.crashed(self.now, host, gently);
        self.model.outages.end(self.now, host);
        let ends = self.ends_of(host);
        let node = self.nodes.get_mut(&host).expect("every host has a node");
        node.power = if power { Power::Off } else { Power::Down };
        node.shards.clear();
        (node.frozen, node.draining) = (None, false);
        node.life += 1;
        for (tcp, side) in ends {
            let drops = !gently && (power || self.prng.below(2) == 0);
            let end = self.network.end(tcp, side);
            let (epoch, held) = (end.epoch, std::mem::take(&mut end.held));
            end.drop_all();
            if !drops {
                (end.epoch, end.held) = (epoch, held);
            }
            end.life.end(CloseReason::Failed);
            if !power {
                self.say_reset(tcp, side);
            }
        }
    }

    fn freeze(&mut self, host: Host, ms: u64) {
        let until = self.now + ms * 1_000_000;
        let node = self.nodes.get_mut(&host).expect("every host has a node");
        if node.power == Power::Up && node.frozen.is_none() {
            node.frozen = Some((self.now, until));
            self.model.unsettle([host; 2], self.now, until);
            self.model.frozen(self.now, until, host);
            self.schedule(until, Event::Thaw { host, until });
        }
    }

    pub(crate) fn thaw(&mut self, host: Host, until: u64) {
        let node = self.nodes.get_mut(&host).expect("every host has a node");
        if let Some((from, _)) = node.frozen.take_if(|(_, end)| *end == until) {
            self.trace.line(until, || format!("THAWED {host}"));
            node.still_ns += (self.now - from).saturating_sub(LATE_NS);
            let still = std::time::Duration::from_nanos(node.still_ns);
            let clocks = Clocks { still, wall_ahead_ns: node.still_ns as i64 };
            let ids: Vec<ShardId> = node.shards().map(|shard| shard.id).collect();
            for id in ids {
                if let Some(shard) = self.nodes.get_mut(&host).and_then(|node| node.shard(id.index())) {
                    shard.wake = None;
                    shard.inbox.push_front(Input::Clocks(clocks));
                }
                let soon = self.now + 1_000 + self.prng.below(100_000);
                self.wake(id, soon);
            }
        }
    }

    fn drain(&mut self, host: Host, back_ms: u64) {
        let back_at = self.now + back_ms * 1_000_000;
        let node = self.nodes.get_mut(&host).expect("every host has a node");
        if node.power != Power::Up || node.draining {
            return;
        }
        (node.draining, node.back_at) = (true, Some(back_at));
        let life = node.life;
        let ids: Vec<ShardId> = node.shards().map(|shard| shard.id).collect();
        self.model.disturb(host, self.now, self.now + DRAIN_NS);
        self.model.drains.push((self.now, host));
        for id in ids {
            self.sibling_mail(ShardId::CONTROL, id, life, Mail::Control(Control::Drain));
        }
        self.after(DRAIN_NS, Event::DrainLate { host, life });
    }

    pub(crate) fn drain_late(&mut self, host: Host, life: u32) {
        let node = &self.nodes[&host];
        if node.life == life && node.power == Power::Up {
            self.trace.line(self.now, || format!("node {host} has not drained in time"));
            self.drains_late += 1;
            self.kill(host, false, false);
            self.come_back(host, self.now + 100_000_000);
        }
    }

    /// Faults are over: everything is healed and started.
    pub(crate) fn quieten(&mut self) {
        self.trace.line(self.now, || "QUIET".into());
        self.is_quiet = true;
        self.model.ends(self.now);
        for (from, to) in self.network.cuts() {
            self.heal(from, to);
        }
        for host in self.plan.hosts() {
            let node = &self.nodes[&host];
            if let Some((_, until)) = node.frozen {
                self.thaw(host, until);
            }
            if self.nodes[&host].power != Power::Up {
                self.come_back(host, self.now);
            }
        }
        for client in &mut self.clients {
            client.quieten();
        }
    }
}
