//! The figures of a run, as machines get them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::plan::Scenario;
use crate::tally::{Samples, Tally};

/// A load process that takes this share of a core has nothing left.
const BUSY: f64 = 0.9;

/// What is known of a run apart from what its fleets tell.
#[derive(Clone, Debug)]
pub struct Run {
    /// What kind of load.
    pub scenario: Scenario,
    /// Connections asked for.
    pub connections: u64,
    /// Operations a second asked for; 0 when the scenario has no rate.
    pub rate: f64,
    /// The measured time, in s.
    pub seconds: f64,
    /// When connecting began, in ns since the UNIX epoch.
    pub begun_ns: u64,
    /// When all were reset (storm), in ns since the UNIX epoch; `None` when nobody was.
    pub reset_ns: Option<u64>,
    /// Faults were made on purpose: messages that were handed over because their receiver was away do not
    /// fail the run.
    pub faults_made: bool,
    /// What became of the readers that were stopped on purpose, counted by how their connections ended.
    pub stopped_readers: BTreeMap<String, u64>,
    /// What the server used, if its process is known.
    pub server: Option<ServerUse>,
    /// What the load processes used over the measured time.
    pub generator: GeneratorUse,
}

/// What the load processes used over the measured time.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct GeneratorUse {
    /// User and system time, in us.
    pub cpu_us: f64,
    /// How many they are.
    pub processes: usize,
}

/// What the server's processes used.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct ServerUse {
    /// User and system time over the measured time, in us.
    pub cpu_us: f64,
    /// Of it, what it took until all had logged in for the first time (storm), in us.
    pub connect_cpu_us: f64,
    /// Growth of the resident memory from before the first connect to all being ready, in bytes.
    pub rss_bytes: f64,
}

/// The figures of a run. Its JSON has these keys in this order.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: &'static str,
    /// Connections asked for.
    pub connections: u64,
    /// Clients that were ready at some time.
    pub connected: u64,
    /// Clients that were not ready at the end.
    pub failed: u64,
    /// Operations sent, the warm-up included: messages, heartbeats or logins.
    pub sent: u64,
    /// Of these, those answered with success: a send-ack, a heartbeat, a login.
    pub accepted: u64,
    /// Arrivals: messages at each receiver, answered heartbeats, logins.
    pub delivered: u64,
    /// Messages whose sender was told that the receiver has acked.
    pub acked: u64,
    /// What should have arrived and did not, and whose sender was not told so. In a room: what its sender was
    /// told to be sequenced, and a member that was there did not get.
    pub lost: u64,
    /// Messages that arrived again under another server id, though nobody had repeated them.
    pub duplicated: u64,
    /// Messages that arrived after a later one.
    pub out_of_order: u64,
    /// Arrivals a second, over the measured time.
    pub per_second: f64,
    /// From the intended time to the arrival, in us. For `storm`, from the connect to the answered login.
    pub latency_us: Percentiles,
    /// The same for each part of the measured time, if it was split.
    pub parts: Vec<Percentiles>,
    /// From the intended time to the write, in us.
    pub schedule_lag_us: Lag,
    /// What the server used for it.
    pub server: ServerCost,
    /// What the load processes used for it.
    pub generator: GeneratorCost,
    /// From the intended time to the send-ack, in us.
    pub send_ack_us: Percentiles,
    /// From the connect to the answered login, in us.
    pub login_us: Percentiles,
    /// From the end of a connection to the answered login (and join) of the next, in us.
    pub reconnect_us: Percentiles,
    /// How often a client came back.
    pub reconnects: u64,
    /// What a reset of all (`storm`) is about.
    pub storm: Option<StormFigures>,
    /// Operations a second asked for.
    pub rate: f64,
    /// The measured time, in s.
    pub seconds: f64,
    /// Messages whose sender was told that they failed, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Gifts whose sender was told that they failed, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Of the rejected, messages whose receiver was away or did not ack: they are the backend's, as
    /// undelivered.
    pub handed_over: u64,
    /// Messages that got no send-ack.
    pub unanswered: u64,
    /// Operations that could not be sent.
    pub unsent: u64,
    /// Messages that arrived again and that a client knows to drop: under the same server id, after a
    /// reconnect, or because their sender had repeated them.
    pub redelivered: u64,
    /// Of these, those whose sender's repeat the server took for a message of its own: it had forgotten the
    /// first.
    pub renewed: u64,
    /// Messages sent once more by their senders.
    pub repeats: u64,
    /// Times that a server was too busy for a message, which was sent again.
    pub busy: u64,
    /// Deliveries that belong to no message of the run.
    pub stray: u64,
    /// Room messages that passed while a member was away, and were not promised to it.
    pub passed_by: u64,
    /// Connections that ended and should not have, by the last notice or by how they ended.
    pub disconnected: BTreeMap<String, u64>,
    /// Notices that came, by name.
    pub notices: BTreeMap<String, u64>,
    /// Connects that failed, by error.
    pub connect_errors: BTreeMap<String, u64>,
    /// Clients that are ready at the end, by target.
    pub on_targets: BTreeMap<String, u64>,
    /// What became of the readers that were stopped on purpose: `open`, or by the last notice or how they
    /// ended.
    pub stopped_readers: BTreeMap<String, u64>,
    /// Faults were made on purpose.
    pub faults_made: bool,
    #[serde(skip)]
    pub(crate) latency: Samples,
}

/// A distribution in six figures, in us.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Percentiles {
    /// Half do not pass it.
    pub p50: f64,
    /// 90 of 100 do not pass it.
    pub p90: f64,
    /// 99 of 100 do not pass it.
    pub p99: f64,
    /// 999 of 1,000 do not pass it.
    pub p999: f64,
    /// 9,999 of 10,000 do not pass it.
    pub p9999: f64,
    /// None passes it.
    pub max: f64,
}

/// How late the generator itself was, in us.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Lag {
    /// 99 of 100 operations were not later.
    pub p99: f64,
    /// None was later.
    pub max: f64,
}

/// What the server used for an operation and a connection; `None` when its process is not known.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct ServerCost {
    /// User and system time for each arrival, in us.
    pub cpu_us_per_op: Option<f64>,
    /// Resident memory for each connection, in bytes.
    pub rss_bytes_per_connection: Option<f64>,
}

/// What the load processes used for an operation, and how busy they were.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct GeneratorCost {
    /// User and system time for each arrival, in us; `None` without an arrival.
    pub cpu_us_per_op: Option<f64>,
    /// How many cores that is, over the measured time.
    pub cores: f64,
    /// Load processes; each can use one core.
    pub processes: usize,
}

/// What `storm` is about.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct StormFigures {
    /// From the first connect to the last login, in s.
    pub connect_seconds: f64,
    /// Logins a second over that time.
    pub connects_per_second: f64,
    /// From the reset of all to the last one's login, in s.
    pub reconnect_seconds: f64,
    /// Logins a second over that time.
    pub reconnects_per_second: f64,
    /// From the reset of all to each one's login, in us.
    pub reconnect_us: Percentiles,
    /// What the server used for each first login, in us; `None` when its process is not known.
    pub connect_cpu_us: Option<f64>,
    /// And for each later one, the reset included.
    pub reconnect_cpu_us: Option<f64>,
}

impl Report {
    /// The figures of a run from the sum of what its fleets tell.
    pub fn new(run: &Run, tally: Tally) -> Self {
        let storm = run.reset_ns.map(|reset_ns| StormFigures::new(run, reset_ns, &tally));
        let latency = if storm.is_some() { tally.login.clone() } else { tally.latency.clone() };
        let per_second = match &storm {
            Some(storm) => storm.connects_per_second,
            None => rounded(per(tally.measured, run.seconds), 1),
        };
        let server = run.server.map_or(ServerCost::default(), |used| ServerCost {
            cpu_us_per_op: quotient(used.cpu_us, tally.measured),
            rss_bytes_per_connection: quotient(used.rss_bytes, tally.connected),
        });
        let generator = GeneratorCost {
            cpu_us_per_op: quotient(run.generator.cpu_us, tally.measured),
            cores: rounded(if run.seconds > 0.0 { run.generator.cpu_us / 1e6 / run.seconds } else { 0.0 }, 2),
            processes: run.generator.processes,
        };
        Self {
            scenario: run.scenario.name(),
            connections: run.connections,
            connected: tally.connected,
            failed: tally.failed,
            sent: tally.sent,
            accepted: tally.accepted,
            delivered: tally.delivered,
            acked: tally.acked,
            lost: tally.lost,
            duplicated: tally.duplicated,
            out_of_order: tally.out_of_order,
            per_second,
            latency_us: Percentiles::new(&latency),
            parts: tally.parts.iter().map(Percentiles::new).collect(),
            schedule_lag_us: Lag { p99: tally.lag.quantile_us(0.99), max: tally.lag.max_us() },
            server,
            generator,
            send_ack_us: Percentiles::new(&tally.send_ack),
            login_us: Percentiles::new(&tally.login),
            reconnect_us: Percentiles::new(&tally.reconnect),
            reconnects: tally.reconnect.len(),
            storm,
            rate: run.rate,
            seconds: run.seconds,
            handed_over: tally.handed_over(),
            rejected: tally.rejected,
            refused: tally.refused,
            unanswered: tally.unanswered,
            unsent: tally.unsent,
            redelivered: tally.redelivered,
            renewed: tally.renewed,
            repeats: tally.repeats,
            busy: tally.busy,
            stray: tally.stray,
            passed_by: tally.passed_by,
            disconnected: tally.disconnected,
            notices: tally.notices,
            connect_errors: tally.connect_errors,
            on_targets: tally.on_targets,
            stopped_readers: run.stopped_readers.clone(),
            faults_made: run.faults_made,
            latency,
        }
    }

    /// Whether every connection stood at the end, and every message came once, in order, with its send-ack.
    /// When faults were made, a message may have been handed over instead, and a repeat may have become a
    /// message of its own.
    pub fn passed(&self) -> bool {
        let rejected: u64 = self.rejected.values().sum();
        let forgivable = if self.faults_made { [0; 2] } else { [self.handed_over, self.renewed] };
        let faults = [
            self.failed,
            self.lost,
            self.duplicated,
            self.out_of_order,
            self.unanswered,
            self.unsent,
            self.stray,
            rejected - self.handed_over,
        ];
        faults.iter().chain(&forgivable).all(|count| *count == 0)
    }

    /// What a reader of the figures should know, one sentence each.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let mut say = |count: u64, text: &str| {
            if count > 0 {
                remarks.push(format!("{count} {text}"));
            }
        };
        say(self.lost, "lost: they should have arrived and did not");
        say(self.duplicated, "duplicated: they arrived again under another server id");
        say(self.out_of_order, "out of order: they arrived after a later one");
        say(self.unanswered, "messages never got a send-ack");
        say(self.unsent, "operations could not be sent: not connected, or the server took no more");
        say(self.stray, "deliveries belong to no message of this run");
        say(self.redelivered, "arrived again in a way that a client knows to drop");
        say(self.renewed, "of these became new messages when their sender repeated them");
        say(self.repeats, "sent once more, because no send-ack had come");
        say(self.passed_by, "room messages passed while a member was away");
        say(self.busy, "refused as busy, and sent again");
        for (reason, count) in &self.rejected {
            remarks.push(format!("failed, and the sender was told: {reason} x {count}"));
        }
        for (reason, count) in &self.refused {
            let reason = reason.escape_debug();
            remarks
                .push(format!("gifts refused by the backend, and the sender was told: {reason} x {count}"));
        }
        for (error, count) in &self.connect_errors {
            remarks.push(format!("connect failed: {error} x {count}{}", connect_hint(error)));
        }
        for (why, count) in &self.disconnected {
            remarks.push(format!("closed by the server: {why} x {count}{}", close_hint(why)));
        }
        for (name, count) in &self.notices {
            if !self.disconnected.contains_key(name) {
                remarks.push(format!("notice: {name} x {count}"));
            }
        }
        for (end, count) in &self.stopped_readers {
            remarks.push(format!("stopped readers: {end} x {count}"));
        }
        let (lag, p50) = (self.schedule_lag_us.p99, self.latency_us.p50);
        if p50 > 0.0 && lag > p50 / 100.0 {
            let percent = lag / p50 * 100.0;
            remarks.push(format!(
                "the generator was late: schedule lag p99 {lag} us is {percent:.0} % of the latency's p50; {}",
                self.generator.bottleneck()
            ));
        }
        remarks
    }
}

impl GeneratorCost {
    /// What kept the generator from being in time.
    fn bottleneck(&self) -> String {
        let Self { cores, processes, .. } = *self;
        if cores >= BUSY * processes as f64 {
            format!(
                "its {processes} processes took {cores:.2} cores, all that one thread each can have: try more --processes"
            )
        } else {
            format!(
                "its {processes} processes got {cores:.2} cores: others, or the server itself, kept them waiting"
            )
        }
    }
}

impl Percentiles {
    fn new(samples: &Samples) -> Self {
        Self {
            p50: samples.quantile_us(0.5),
            p90: samples.quantile_us(0.9),
            p99: samples.quantile_us(0.99),
            p999: samples.quantile_us(0.999),
            p9999: samples.quantile_us(0.9999),
            max: samples.max_us(),
        }
    }
}

impl StormFigures {
    fn new(run: &Run, reset_ns: u64, tally: &Tally) -> Self {
        let seconds = |until_ns: u64, from_ns: u64| until_ns.saturating_sub(from_ns) as f64 / 1e9;
        let connect_seconds = seconds(tally.ready_at_ns, run.begun_ns);
        let reconnect_seconds = seconds(tally.back_at_ns, reset_ns);
        Self {
            connect_seconds: rounded(connect_seconds, 4),
            connects_per_second: rounded(per(tally.login.len(), connect_seconds), 1),
            reconnect_seconds: rounded(reconnect_seconds, 4),
            reconnects_per_second: rounded(per(tally.reconnect.len(), reconnect_seconds), 1),
            reconnect_us: Percentiles::new(&tally.reconnect),
            connect_cpu_us: run.server.and_then(|used| quotient(used.connect_cpu_us, tally.login.len())),
            reconnect_cpu_us: run
                .server
                .and_then(|used| quotient(used.cpu_us - used.connect_cpu_us, tally.reconnect.len())),
        }
    }
}

fn connect_hint(error: &str) -> &'static str {
    match error {
        "refused" => " (is a gateway listening there?)",
        "exhausted" => {
            " (out of file descriptors, ports or memory: more --processes, or a higher open-file limit)"
        }
        "unreachable" => " (no route, or the source address cannot be used)",
        "no_answer" => " (30 s without any login)",
        _ => "",
    }
}

fn close_hint(why: &str) -> &'static str {
    match why {
        "rate_limited" => " (more --connections, a lower --rate, or a higher limit in the server's config)",
        "address_limit" => " (the server's cap of connections from one address)",
        "server_full" => " (the server's cap of connections)",
        "token_invalid" => " (the server has another secret)",
        "http_port" => " (an HTTP server is there; want the address of clients that `sailfish up` prints)",
        "tls_port" => {
            " (a port with TLS is there: --target tls://HOST:PORT, or wss://HOST:PORT for WebSocket)"
        }
        "tls" => " (is a port without TLS there?)",
        "websocket_no_http" => " (no port for WebSocket is there)",
        "certificate_unknown_issuer" => {
            " (nobody that is trusted signed the certificate: --ca FILE, or --insecure)"
        }
        "certificate_other_host" => " (the certificate is another host's)",
        "broken_frame" => " (what is there does not speak the protocol of Sailfish)",
        "kicked" => " (somebody else logged in as the same users: another run? see --first-user)",
        _ => "",
    }
}

fn per(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

fn quotient(total: f64, count: u64) -> Option<f64> {
    (count > 0).then(|| rounded(total / count as f64, 3))
}

fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn run() -> Run {
        Run {
            scenario: Scenario::Chat,
            connections: 2,
            rate: 10.0,
            seconds: 10.0,
            begun_ns: 0,
            reset_ns: None,
            faults_made: false,
            stopped_readers: BTreeMap::new(),
            server: Some(ServerUse { cpu_us: 2500.0, connect_cpu_us: 0.0, rss_bytes: 8192.0 }),
            generator: GeneratorUse { cpu_us: 5000.0, processes: 1 },
        }
    }

    fn good() -> Tally {
        let mut tally = Tally { connected: 2, sent: 100, delivered: 100, measured: 100, ..Tally::default() };
        tally.latency.record(Duration::from_micros(100));
        tally
    }

    #[test]
    fn the_json_begins_with_the_agreed_keys() {
        let json = serde_json::to_string(&Report::new(&run(), good())).unwrap();
        let mut at = 0;
        for key in [
            "scenario",
            "connections",
            "connected",
            "failed",
            "sent",
            "accepted",
            "delivered",
            "acked",
            "lost",
            "duplicated",
            "out_of_order",
            "per_second",
            "latency_us",
            "p50",
            "p90",
            "p99",
            "p999",
            "p9999",
            "max",
            "schedule_lag_us",
            "p99",
            "max",
            "server",
            "cpu_us_per_op",
            "rss_bytes_per_connection",
            "generator",
            "cpu_us_per_op",
            "cores",
        ] {
            let found = json[at..]
                .find(&format!("\"{key}\":"))
                .unwrap_or_else(|| panic!("{key} after {at} in {json}"));
            at += found + key.len();
        }
        assert!(
            json.contains(r#""server":{"cpu_us_per_op":25.0,"rss_bytes_per_connection":4096.0}"#),
            "{json}"
        );
    }

    #[test]
    fn any_fault_fails_the_run_and_is_said() {
        let faults: [fn(&mut Tally); 8] = [
            |tally| tally.failed = 1,
            |tally| tally.lost = 1,
            |tally| tally.duplicated = 1,
            |tally| tally.out_of_order = 1,
            |tally| tally.unanswered = 1,
            |tally| tally.unsent = 1,
            |tally| tally.stray = 1,
            |tally| *tally.rejected.entry("offline".to_owned()).or_default() = 1,
        ];
        assert!(Report::new(&run(), good()).passed());
        for (i, fault) in faults.iter().enumerate() {
            let mut tally = good();
            fault(&mut tally);
            let report = Report::new(&run(), tally);
            assert!(!report.passed(), "fault {i}");
            assert!(i == 0 || report.remarks().len() == 1, "fault {i}: {:?}", report.remarks());
        }
    }

    #[test]
    fn a_late_generator_is_said() {
        let mut tally = good();
        assert!(Report::new(&run(), tally.clone()).remarks().is_empty());
        tally.lag.record(Duration::from_micros(2));
        let late = Report::new(&run(), tally.clone()).remarks().remove(0);
        assert!(late.contains("the generator was late") && late.contains("kept them waiting"), "{late}");
        let generator = GeneratorUse { cpu_us: 9_500_000.0, processes: 1 };
        let late = Report::new(&Run { generator, ..run() }, tally).remarks().remove(0);
        assert!(late.contains("took 0.95 cores"), "{late}");
    }
}
