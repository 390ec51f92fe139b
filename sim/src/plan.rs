//! What a run consists of: drawn from a seed, or named.

use shard::Prng;

use crate::network::Host;

/// The node id of the first router, and of the first gateway.
pub(crate) const ROUTERS: Host = 1;
pub(crate) const GATEWAYS: Host = 32;
/// That of the first bridge.
pub(crate) const BRIDGES: Host = 64;

/// What a run consists of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of everything that is left to chance.
    pub seed: u64,
    /// Gateway nodes.
    pub gateways: u16,
    /// Router nodes.
    pub routers: u16,
    /// Bridge nodes; without one, events are noted where they happen.
    pub bridges: u16,
    /// Shards of each node.
    pub shards: u16,
    /// Users, each with one to three devices.
    pub users: i64,
    /// How long clients act and faults happen.
    pub busy_ms: u64,
    /// How long they then have to come to rest.
    pub quiet_ms: u64,
    /// Clients lose connections, vanish, read slowly, log out, take over.
    pub rough_clients: bool,
    /// Some clients come by TLS, and those with layers may falter while they connect.
    pub tls: bool,
    /// Records reach the directory, and answers come from it, within so many ms; none: there is no directory.
    pub directory_ms: Option<u64>,
    /// By how many ms the clocks of nodes are off.
    pub clocks: Vec<(Host, i64)>,
    /// What happens, by when in ms.
    pub faults: Vec<(u64, Fault)>,
    /// What its work costs a node; nothing in a run that is not about load.
    pub cost: Option<Cost>,
    /// Links are encrypted. A run that is read does not show what they carry.
    pub encrypted_links: bool,
}

/// What its work costs a node: a shard with more to do than time falls behind. What it says in a turn leaves
/// at the turn's beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Each turn, in us.
    pub turn_us: u64,
    /// Each message of another node that it hears or says, in us.
    pub message_us: u64,
    /// Clients come one by one in that time, in ms. They stay and send no messages.
    pub gather_ms: u64,
}

/// Something that goes wrong with nodes, or is done to them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The process dies, with its machine or not, and starts again later.
    Crash {
        /// Which node.
        host: Host,
        /// Nobody hears of it: no connection is reset.
        power: bool,
        /// How long it is away, in ms.
        back_ms: u64,
    },
    /// The process stands still.
    Freeze {
        /// Which node.
        host: Host,
        /// How long, in ms.
        ms: u64,
    },
    /// Others take its CPU: what a node does takes longer.
    Slow {
        /// Which node.
        host: Host,
        /// So many times as long.
        times: u32,
        /// How long, in ms.
        ms: u64,
    },
    /// Nothing gets from one node to another.
    Cut {
        /// From which node.
        from: Host,
        /// To which.
        to: Host,
        /// Nor back.
        both: bool,
        /// How long, in ms.
        ms: u64,
    },
    /// One link's connection is reset.
    Reset {
        /// Of which node.
        host: Host,
    },
    /// The node says farewell, ends, and starts again later.
    Drain {
        /// Which node.
        host: Host,
        /// How long it is away, in ms.
        back_ms: u64,
    },
}

impl Plan {
    /// A calm run of the usual cluster.
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            gateways: 3,
            routers: 2,
            bridges: 1,
            shards: 2,
            users: 8,
            busy_ms: 9_000,
            quiet_ms: 12_000,
            rough_clients: false,
            tls: true,
            directory_ms: Some(20),
            clocks: Vec::new(),
            faults: Vec::new(),
            cost: None,
            encrypted_links: false,
        }
    }

    /// A run in which announcing all sessions takes a router longer than any link waits for it, and then a
    /// router, or all, are late. The load is within what they can do, so everything is whole again in
    /// [`Plan::quiet_ms`].
    pub fn overload(seed: u64) -> Self {
        let mut prng = Prng::new(seed ^ 0x10ad);
        let mut plan = Self {
            gateways: 6,
            routers: 1 + prng.below(2) as u16,
            bridges: 0,
            shards: 1,
            users: 4_000,
            directory_ms: None,
            busy_ms: 20_000,
            quiet_ms: 8_000,
            cost: Some(Cost { turn_us: 100, message_us: 600, gather_ms: 10_000 }),
            ..Self::calm(seed)
        };
        for at in 0..1 + prng.below(3) {
            let host = match prng.below(4) {
                0 => GATEWAYS + prng.below(plan.gateways.into()) as Host,
                _ => ROUTERS + prng.below(plan.routers.into()) as Host,
            };
            let fault = match prng.below(2) {
                0 => Fault::Freeze { host, ms: 700 + prng.below(3_000) },
                _ => Fault::Slow { host, times: 4 << prng.below(3), ms: 500 + prng.below(2_500) },
            };
            plan.faults.push((11_500 + 2_500 * at + prng.below(1_500), fault));
        }
        plan
    }

    /// The run of that seed.
    pub fn of_seed(seed: u64) -> Self {
        let mut prng = Prng::new(seed ^ 0x5eed);
        let mut plan = Self {
            gateways: 1 + prng.below(3) as u16,
            routers: 1 + prng.below(3) as u16,
            bridges: prng.below(3) as u16,
            shards: 1 + prng.below(2) as u16,
            users: 4 + prng.below(8) as i64,
            rough_clients: prng.below(4) > 0,
            directory_ms: [None, Some(5), Some(300)][prng.below(3) as usize],
            ..Self::calm(seed)
        };
        if prng.below(3) == 0 {
            for host in plan.hosts() {
                let far = prng.below(4) == 0;
                let most = if far { 3_600_000 } else { 200 };
                plan.clocks.push((host, prng.below(2 * most + 1) as i64 - most as i64));
            }
        }
        for _ in 0..[0, 1, 1, 2, 3, 6][prng.below(6) as usize] {
            let at_ms = 1_000 + prng.below(plan.busy_ms - 2_000);
            let fault = plan.any_fault(&mut prng);
            plan.faults.push((at_ms, fault));
        }
        plan.faults.sort_by_key(|(at_ms, _)| *at_ms);
        plan
    }

    /// The run of that seed in half the time.
    pub fn short(seed: u64) -> Self {
        let plan = Self::of_seed(seed);
        let faults = plan.faults.iter().map(|(at_ms, fault)| (at_ms / 2, *fault)).collect();
        Self { faults, busy_ms: plan.busy_ms / 2, quiet_ms: 10_500, ..plan }
    }

    /// The same without the faults in these places.
    pub fn without(mut self, places: &[usize]) -> Self {
        let faults = self.faults.into_iter().enumerate().filter(|(place, _)| !places.contains(place));
        self.faults = faults.map(|(_, fault)| fault).collect();
        self
    }

    /// Every node.
    pub fn hosts(&self) -> Vec<Host> {
        self.router_hosts().into_iter().chain(self.gateway_hosts()).chain(self.bridge_hosts()).collect()
    }

    /// The bridge nodes.
    pub fn bridge_hosts(&self) -> Vec<Host> {
        (BRIDGES..BRIDGES + self.bridges).collect()
    }

    /// The gateway nodes.
    pub fn gateway_hosts(&self) -> Vec<Host> {
        (GATEWAYS..GATEWAYS + self.gateways).collect()
    }

    /// The router nodes.
    pub fn router_hosts(&self) -> Vec<Host> {
        (ROUTERS..ROUTERS + self.routers).collect()
    }

    /// By how much the clock of a node is behind the fastest.
    pub(crate) fn behind_ns(&self, host: Host) -> u64 {
        let ahead_ms = |host: Host| self.clocks.iter().find(|(of, _)| *of == host).map_or(0, |(_, ms)| *ms);
        let fastest = self.hosts().into_iter().map(ahead_ms).max().unwrap_or_default();
        fastest.abs_diff(ahead_ms(host)) * 1_000_000
    }

    fn any_fault(&self, prng: &mut Prng) -> Fault {
        let hosts = self.hosts();
        let host = hosts[prng.below(hosts.len() as u64) as usize];
        let router = ROUTERS + prng.below(self.routers.into()) as Host;
        let gateway = GATEWAYS + prng.below(self.gateways.into()) as Host;
        let (router, gateway) = match self.bridge_hosts()[..] {
            [bridge, ..] if prng.below(4) == 0 => {
                [(router, bridge), (bridge, gateway)][prng.below(2) as usize]
            }
            _ => (router, gateway),
        };
        let most = [300, 2_000, 5_000][prng.below(3) as usize];
        let ms = 50 + prng.below(most);
        match prng.below(10) {
            0 | 1 => Fault::Crash { host, power: false, back_ms: ms },
            2 => Fault::Crash { host, power: true, back_ms: ms },
            3 => Fault::Freeze { host, ms },
            4 => Fault::Cut { from: router, to: gateway, both: false, ms },
            5 => Fault::Cut { from: gateway, to: router, both: false, ms },
            6 => Fault::Cut { from: gateway, to: router, both: true, ms },
            7 => Fault::Reset { host },
            _ => Fault::Drain { host, back_ms: ms },
        }
    }
}
