//! From the command line to the plan of each process: every limit is checked before the first connection.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use edge::ClientPort;
use engine::Kind;
use loadgen::{Plan, STAMP_BYTES, Scenario, Sources};
use sailfish_client::Address;
use wire::{AppId, BizCode};

use super::chaos::Strike;
use super::{Encoding, LoadArgs};
use crate::cli::TrustArgs;
use crate::files::{Files, Reserved};

/// Connections beside a load process's clients: some end while others take their places.
pub(super) const SURPLUS_CONNECTIONS: u32 = 16;
/// Connections from one source address on loopback: well under the server's cap per address.
const CONNECTIONS_PER_ADDRESS: u32 = 1000;
/// The most processes that are started without an explicit number.
const PROCESSES_MAX: u32 = 256;
/// TLS tickets that a load process keeps for each host: all its clients may reconnect at once.
const TICKETS_MAX: usize = 1 << 17;
/// The most gateways.
const TARGETS_MAX: usize = 1000;
/// The highest rate.
const RATE_MAX: f64 = 1e8;
/// The longest time, in s.
const SECONDS_MAX: f64 = 1e6;

/// How long to wait at the end, in s, unless the command line says it.
const DRAIN_SECONDS: f64 = 15.0;

/// The settings of a run.
pub(super) struct Settings {
    /// The scenario of the command line. A rolling restart is a storm whose clients chat.
    pub(super) scenario: Scenario,
    /// The part of each process.
    pub(super) plans: Vec<Plan>,
    /// Readers that will be stopped: their first client, and the addresses they come from.
    pub(super) stopped: u32,
    pub(super) stopped_sources: Option<Sources>,
    /// The layers of connections to each target.
    pub(super) addresses: Vec<Address>,
    pub(super) trust: TrustArgs,
    /// Whether a client that comes back has a shorter TLS handshake.
    pub(super) resumes: bool,
    pub(super) engine: Option<Kind>,
    pub(super) cores: Vec<usize>,
    pub(super) server_pids: Vec<u32>,
    pub(super) json: Option<PathBuf>,
    /// Operations a second of all processes; 0 when the scenario has none.
    pub(super) rate: f64,
    /// Commands to run at their times.
    pub(super) strikes: Vec<Strike>,
    /// Commands that restart one node after the other.
    pub(super) restarts: Vec<String>,
    /// The load before the first of them.
    pub(super) stay: Duration,
    /// Remarks for the reader before the start.
    pub(super) remarks: Vec<String>,
}

impl Settings {
    /// Checks and completes the command line.
    pub(super) fn new(args: &LoadArgs) -> anyhow::Result<Self> {
        let scenario = Scenario::from(args.scenario);
        let addresses = args.target.iter().map(|target| parse(target)).collect::<anyhow::Result<Vec<_>>>()?;
        let targets = addresses.iter().map(resolve).collect::<anyhow::Result<Vec<_>>>()?;
        let is_rolling = !args.restart.is_empty();
        let fleet_scenario = if is_rolling { Scenario::Chat } else { scenario };
        let engine = match args.engine.as_str() {
            "auto" => None,
            name => Some(name.parse().map_err(anyhow::Error::msg).context("--engine")?),
        };
        let rate = match fleet_scenario {
            Scenario::Idle | Scenario::Storm => 0.0,
            Scenario::Echo | Scenario::Chat => args.rate.unwrap_or(1000.0),
            Scenario::Room => args.rate.unwrap_or(10.0),
            Scenario::Gift => args.rate.unwrap_or(100.0),
        };
        check(args, scenario, fleet_scenario, rate)?;
        check_layers(args, &addresses)?;
        let seconds = args.seconds.unwrap_or(if scenario == Scenario::Storm { 2.0 } else { 10.0 });
        let strikes = args
            .chaos
            .iter()
            .map(|chaos| Strike::new(chaos, args.warmup + seconds))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let drain = args.drain.unwrap_or(match strikes.is_empty() && !is_rolling {
            true => DRAIN_SECONDS,
            false => DRAIN_SECONDS + args.repeat,
        });
        let stopped = (f64::from(args.connections) * args.stopped_readers / 100.0).round() as u32;
        let clients = args.connections - stopped;
        if scenario == Scenario::Room {
            let senders = u64::from(args.rooms) * u64::from(args.publishers);
            ensure!(
                senders <= u64::from(clients),
                "{senders} publishers ({} in each of {} rooms) need as many reading --connections: there are {clients}",
                args.publishers,
                args.rooms
            );
        }
        check_ports(&targets, args.connections)?;
        let run = u32::from_ne_bytes(crate::secret::random());
        let mut remarks = Vec::new();
        let may_have_rings = engine::choose(engine).is_ok_and(|chosen| chosen.kind == Kind::Uring);
        let shares = shares(args, clients, may_have_rings, &mut remarks)?;
        let whole = Plan {
            scenario: fleet_scenario,
            sources: first_source(&targets, run),
            targets,
            run,
            app: AppId(args.app),
            first_user: args.first_user,
            first_client: 0,
            clients,
            json: args.encoding == Encoding::Json,
            biz_code: BizCode(args.biz_code.unwrap_or(match scenario {
                Scenario::Room => 5555,
                Scenario::Gift => 5560,
                Scenario::Idle | Scenario::Echo | Scenario::Chat | Scenario::Storm => 6001,
            })),
            gift: 0, // the backend names it
            receiver: None,
            payload_bytes: args.payload,
            rate,
            phase_ns: 0,
            warmup_ns: nanos(args.warmup),
            measure_ns: (!is_rolling).then(|| nanos(seconds)),
            split_ns: args.split.iter().copied().map(nanos).collect(),
            stay_ns: nanos(args.stay),
            repeat_ns: nanos(args.repeat),
            retry_busy: is_rolling || !strikes.is_empty(),
            heartbeat_ms: args.heartbeat.map(|seconds| (seconds * 1000.0).ceil() as u32),
            connect_rate: args.connect_rate,
            connect_window: args.connect_window.unwrap_or(if scenario == Scenario::Storm {
                4096
            } else {
                512
            }),
            rooms: args.rooms,
            first_room: args.first_room,
            publishers: args.publishers,
            drain_ns: nanos(drain),
        };
        let (plans, stopped_sources) = split(&whole, &shares);
        Ok(Self {
            scenario,
            plans,
            stopped,
            stopped_sources,
            addresses,
            trust: args.trust.clone(),
            resumes: !args.full_handshakes,
            engine,
            cores: args.core.clone(),
            server_pids: args.server_pid.clone(),
            json: args.json.clone(),
            rate,
            strikes,
            restarts: args.restart.clone(),
            stay: Duration::from_secs_f64(seconds),
            remarks,
        })
    }

    /// Whether the run causes faults on purpose.
    pub(super) fn makes_faults(&self) -> bool {
        !self.strikes.is_empty() || !self.restarts.is_empty()
    }

    /// Connections of all kinds.
    pub(super) fn connections(&self) -> u32 {
        self.plans.iter().map(|plan| plan.clients).sum::<u32>() + self.stopped
    }
}

fn check(args: &LoadArgs, scenario: Scenario, fleet_scenario: Scenario, rate: f64) -> anyhow::Result<()> {
    let within = |name: &str, value: f64, most: f64| {
        ensure!(value.is_finite() && (0.0..=most).contains(&value), "{name} {value}: want 0 to {most}");
        Ok(())
    };
    within("--rate", rate, RATE_MAX)?;
    within("--connect-rate", args.connect_rate.unwrap_or(1.0), RATE_MAX)?;
    within("--seconds", args.seconds.unwrap_or(0.0), SECONDS_MAX)?;
    within("--warmup", args.warmup, SECONDS_MAX)?;
    within("--drain", args.drain.unwrap_or(0.0), SECONDS_MAX)?;
    within("--repeat", args.repeat, SECONDS_MAX)?;
    within("--heartbeat", args.heartbeat.unwrap_or(0.0), SECONDS_MAX)?;
    within("--stopped-readers", args.stopped_readers, 100.0)?;
    within("--stay", args.stay, SECONDS_MAX)?;
    for split in &args.split {
        within("--split", *split, SECONDS_MAX)?;
    }
    ensure!(args.split.is_sorted(), "--split: want ascending seconds");
    ensure!(args.stay == 0.0 || scenario == Scenario::Storm, "--stay is for storm only");
    ensure!(args.connect_rate != Some(0.0), "--connect-rate 0 would never connect");
    ensure!(args.seconds != Some(0.0) || scenario == Scenario::Storm, "--seconds 0 would measure nothing");
    ensure!(
        rate > 0.0 || matches!(fleet_scenario, Scenario::Idle | Scenario::Storm),
        "--rate 0 would do nothing: try idle"
    );
    ensure!(args.connections > 0, "--connections 0 would load nothing");
    ensure!(args.processes > 0, "--processes 0 would load nothing");
    ensure!(args.rooms > 0 && args.publishers > 0, "--rooms and --publishers want at least 1");
    ensure!(
        args.payload as usize >= STAMP_BYTES && args.payload <= 1 << 20,
        "--payload {}: want {STAMP_BYTES} to {} bytes; a message carries its sender, its number and its time",
        args.payload,
        1 << 20
    );
    ensure!(
        fleet_scenario != Scenario::Chat || args.connections.is_multiple_of(2),
        "--connections {}: chat goes in pairs, want an even number",
        args.connections
    );
    ensure!(
        args.chaos.is_empty() || !matches!(scenario, Scenario::Idle | Scenario::Echo),
        "--chaos goes with chat, room, gift and storm: a heartbeat does not outlive its connection"
    );
    ensure!(args.restart.is_empty() || scenario == Scenario::Storm, "--restart goes with storm only");
    ensure!(
        args.server_pid.is_empty() || args.chaos.is_empty() && args.restart.is_empty(),
        "--server-pid does not go with --chaos or --restart: a process that ends cannot be measured"
    );
    ensure!(args.target.len() <= TARGETS_MAX, "--target: want {TARGETS_MAX} at most");
    ensure!(
        args.stopped_readers == 0.0 || scenario == Scenario::Room,
        "--stopped-readers goes with room only"
    );
    ensure!(
        scenario != Scenario::Gift || args.processes == 1,
        "--processes {}: gift runs in one, which knows all members of a room",
        args.processes
    );
    Ok(())
}

/// How many clients each process gets: even numbers, so that pairs stay together.
fn shares(
    args: &LoadArgs,
    clients: u32,
    may_have_rings: bool,
    remarks: &mut Vec<String>,
) -> anyhow::Result<Vec<u32>> {
    let files = Files::raise();
    let capacity = files.capacity(may_have_rings, 1, u32::MAX, Reserved::default());
    let most =
        capacity.map_or(0, |capacity| capacity.connections_max.saturating_sub(SURPLUS_CONNECTIONS)) & !1;
    let files = files.limit;
    ensure!(
        most >= 2,
        "{files} open files a process are too few: raise the hard limit (ulimit -Hn, or LimitNOFILE= of a systemd unit)"
    );
    let needed = clients.div_ceil(most);
    ensure!(
        needed <= PROCESSES_MAX.max(args.processes),
        "--connections {clients} takes {needed} processes of {files} open files each, more than {PROCESSES_MAX}; \
         raise the limit of open files, or ask for it with --processes {needed}"
    );
    let processes = args.processes.max(needed).min(clients.div_ceil(2)).max(1);
    if needed > args.processes {
        remarks.push(format!("{files} open files a process: {clients} connections take {needed} processes"));
    }
    let pairs = clients.div_ceil(2);
    let share = |i: u32| 2 * (pairs / processes + u32::from(i < pairs % processes));
    let mut shares: Vec<_> = (0..processes).map(share).collect();
    if clients % 2 == 1
        && let Some(last) = shares.last_mut()
    {
        *last -= 1;
    }
    Ok(shares)
}

/// The plan of each process, and the source addresses after the last one's.
fn split(whole: &Plan, shares: &[u32]) -> (Vec<Plan>, Option<Sources>) {
    let mut sources = whole.sources;
    let mut first_client = 0;
    let plans = shares.iter().map(|&clients| {
        let part = f64::from(clients) / f64::from(whole.clients.max(1));
        let plan = Plan {
            sources,
            first_client,
            clients,
            connect_rate: whole.connect_rate.map(|rate| rate * part),
            connect_window: (f64::from(whole.connect_window) * part).ceil() as u32,
            ..whole.clone()
        };
        first_client += clients;
        let addresses = clients.div_ceil(CONNECTIONS_PER_ADDRESS);
        sources = sources
            .map(|used| Sources { first: Ipv4Addr::from_bits(used.first.to_bits() + addresses), ..used });
        plan
    });
    let mut plans: Vec<_> = plans.collect();
    let all: u32 = plans.iter().map(Plan::senders).sum();
    let mut before = 0;
    for plan in &mut plans {
        let senders = plan.senders();
        if all > 0 {
            plan.rate = whole.rate * f64::from(senders) / f64::from(all);
            // Processes take turns.
            plan.phase_ns = (1e9 / plan.rate.max(1e-9) * f64::from(before) / f64::from(all)) as u64;
        }
        before += senders;
    }
    (plans, sources)
}

/// The source addresses of connections to loopback: a part of 127.0.0.0/8 for each run, so that two runs at
/// once do not share the server's limit of connections per address.
fn first_source(targets: &[SocketAddr], run: u32) -> Option<Sources> {
    let first = Ipv4Addr::new(127, 1 + (run % 200) as u8, 0, 1);
    targets.iter().all(is_ipv4_loopback).then_some(Sources { first, per_address: CONNECTIONS_PER_ADDRESS })
}

/// Outside of loopback there is one source address, and one port for each connection to one target.
fn check_ports(targets: &[SocketAddr], connections: u32) -> anyhow::Result<()> {
    if targets.iter().all(is_ipv4_loopback) {
        return Ok(());
    }
    let connections = connections.div_ceil(targets.len() as u32);
    let Ok(range) = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range") else { return Ok(()) };
    let ends: Vec<u32> = range.split_whitespace().filter_map(|port| port.parse().ok()).collect();
    let [first, last] = ends[..] else { return Ok(()) };
    let ports = (last + 1).saturating_sub(first);
    ensure!(
        connections <= ports,
        "{connections} connections to one address need as many local ports, and there are {ports}: widen \
         net.ipv4.ip_local_port_range, or use more load machines"
    );
    Ok(())
}

fn is_ipv4_loopback(target: &SocketAddr) -> bool {
    target.is_ipv4() && target.ip().is_loopback()
}

fn parse(target: &str) -> anyhow::Result<Address> {
    Address::parse(target, None).map_err(anyhow::Error::msg).context("--target")
}

/// TLS and WebSocket are checked before the first connection, too.
fn check_layers(args: &LoadArgs, addresses: &[Address]) -> anyhow::Result<()> {
    let has_layers = |address: &&Address| address.tls || address.websocket.is_some();
    ensure!(
        args.stopped_readers == 0.0 || !addresses.iter().any(|address| has_layers(&address)),
        "--stopped-readers goes with a --target HOST:PORT only"
    );
    ports(addresses, &args.trust, true).map(drop)
}

/// The layers of connections to each of these addresses; empty if none has any.
pub(super) fn ports(
    addresses: &[Address],
    trust: &TrustArgs,
    resumes: bool,
) -> anyhow::Result<Vec<ClientPort>> {
    if addresses.iter().all(|address| !address.tls && address.websocket.is_none()) {
        return Ok(Vec::new());
    }
    let trust = trust.trust()?;
    let tickets_max = if resumes { TICKETS_MAX } else { 0 };
    let port = |address: &Address| address.port(|host| trust.tls_client(host, tickets_max));
    addresses.iter().map(port).collect::<Result<_, _>>().map_err(anyhow::Error::msg)
}

fn resolve(address: &Address) -> anyhow::Result<SocketAddr> {
    let target = &address.authority;
    let mut addresses =
        target.to_socket_addrs().with_context(|| format!("--target {target}: want HOST:PORT"))?;
    let Some(address) = addresses.next() else { bail!("--target {target}: no such host") };
    Ok(address)
}

fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        load: LoadArgs,
    }

    fn settings(line: &str) -> anyhow::Result<Settings> {
        Settings::new(&Cli::parse_from(format!("load {line}").split_whitespace()).load)
    }

    #[test]
    fn processes_share_clients_rate_and_addresses() {
        let settings = settings("chat --connections 5002 --processes 3 --rate 3000").unwrap();
        let clients: Vec<_> = settings.plans.iter().map(|plan| (plan.first_client, plan.clients)).collect();
        assert_eq!(clients, [(0, 1668), (1668, 1668), (3336, 1666)]);
        let rate: f64 = settings.plans.iter().map(|plan| plan.rate).sum();
        assert!((rate - 3000.0).abs() < 1e-6);
        let phases: Vec<_> = settings.plans.iter().map(|plan| plan.phase_ns).collect();
        assert_eq!(phases, [0, 333_333, 667_466]);
        let first: Vec<_> =
            settings.plans.iter().map(|plan| plan.sources.unwrap().first.octets()[3]).collect();
        assert_eq!(first, [1, 3, 5]);
    }

    #[test]
    fn publishers_keep_the_rooms_rate() {
        let settings = settings("room --connections 1001 --processes 2 --rate 20 --publishers 3").unwrap();
        let rates: Vec<_> = settings.plans.iter().map(|plan| plan.rate).collect();
        assert_eq!(rates, [20.0, 0.0]);
        assert_eq!(settings.connections(), 1001);
    }

    #[test]
    fn stopped_readers_are_part_of_the_connections() {
        let settings = settings("room --connections 1000 --stopped-readers 1").unwrap();
        assert_eq!((settings.stopped, settings.plans[0].clients, settings.connections()), (10, 990, 1000));
    }

    #[test]
    fn targets_come_with_commas_or_repeated() {
        let settings = settings("chat --target 127.0.0.1:1,127.0.0.1:2 --target 127.0.0.1:3").unwrap();
        let ports: Vec<_> = settings.plans[0].targets.iter().map(SocketAddr::port).collect();
        assert_eq!(ports, [1, 2, 3]);
    }

    #[test]
    fn each_target_has_its_layers() {
        let settings = settings(
            "chat --insecure --target 127.0.0.1:1,ws://127.0.0.1:2,tls://127.0.0.1:3,wss://127.0.0.1:4/im",
        )
        .unwrap();
        let made = ports(&settings.addresses, &settings.trust, true).unwrap();
        let layers: Vec<_> = made.iter().map(|port| (port.tls.is_some(), port.websocket.is_some())).collect();
        assert_eq!(layers, [(false, false), (false, true), (true, false), (true, true)]);
        assert!(ports(&settings.addresses[..1], &settings.trust, true).unwrap().is_empty());
    }

    #[test]
    fn a_storm_with_restarts_chats_without_an_end() {
        let settings = settings("storm --restart true --restart true --repeat 5").unwrap();
        let plan = &settings.plans[0];
        assert_eq!((settings.scenario, plan.scenario), (Scenario::Storm, Scenario::Chat));
        assert_eq!((settings.rate, plan.measure_ns, plan.drain_ns), (1000.0, None, 20_000_000_000));
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_is_wanted() {
        for (line, wanted) in [
            ("chat --connections 3", "even"),
            ("chat --payload 39", "40"),
            ("chat --rate 0", "idle"),
            ("chat --rate NaN", "--rate"),
            ("echo --stopped-readers 1", "room"),
            ("room --stopped-readers 1 --target ws://127.0.0.1:1", "HOST:PORT only"),
            ("idle --target http://127.0.0.1:1", "wss://HOST:PORT"),
            ("idle --target tls://127.0.0.1:1 --ca /nowhere", "--ca /nowhere"),
            ("room --rooms 2000", "2000 publishers"),
            ("idle --target nowhere", "HOST:PORT"),
            ("idle --target 127.0.0.1:1,nowhere", "HOST:PORT"),
            ("chat --restart true", "storm"),
            ("storm --restart true --connections 3", "even"),
            ("chat --chaos 1:true --server-pid 1", "--server-pid"),
            ("echo --chaos 1:true", "chat, room, gift and storm"),
            ("gift --processes 2", "one"),
            ("chat --chaos true", "SECONDS:COMMAND"),
            ("chat --chaos x:true", "SECONDS:COMMAND"),
            ("chat --chaos 1:", "SECONDS:COMMAND"),
            ("chat --chaos 11:true", "0 to 10"),
            ("idle --engine kqueue", "kqueue"),
            ("idle --target 192.0.2.1:80 --connections 70000", "local ports"),
        ] {
            let error = settings(line).err().unwrap_or_else(|| panic!("{line} should be refused"));
            assert!(format!("{error:#}").contains(wanted), "{line}: {error:#}");
        }
    }
}
