//! A node's report at a moment: its metrics, and the nodes that it knows.

use serde_json::Value;

use super::page::{Histogram, Page};

/// What kind of process a node is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// All in one process.
    Up,
    Gateway,
    Router,
    Bridge,
    Backend,
}

impl Role {
    const ALL: [Self; 5] = [Self::Up, Self::Gateway, Self::Router, Self::Bridge, Self::Backend];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Gateway => "gateway",
            Self::Router => "router",
            Self::Bridge => "bridge",
            Self::Backend => "backend",
        }
    }

    /// The role with this name.
    fn named(name: &Value) -> Option<Self> {
        Self::ALL.into_iter().find(|role| name == role.name())
    }

    /// The role whose metrics these are: a bridge has those of gateways too, and `up` has all.
    fn of(page: &Page<'_>) -> Option<Self> {
        let has = |name| page.has(name);
        match (has("sailfish_router_bindings"), has("sailfish_frames_in_total")) {
            (true, true) => Some(Self::Up),
            (true, false) => Some(Self::Router),
            (false, true) if has("sailfish_bridge_batches_total") => Some(Self::Bridge),
            (false, true) => Some(Self::Gateway),
            (false, false) => has("sailfish_backend_build_info").then_some(Self::Backend),
        }
    }
}

/// Part of the samples of a family: its name and one of its labels, or none for all.
type Series = (&'static str, &'static str);

const BUSINESS: &str = "code=\"business\"";

/// A number that goes up and down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gauge {
    Connections,
    Sessions,
    Rooms,
    /// Bytes that wait for clients and for other nodes.
    QueuedBytes,
    RssBytes,
    OpenFiles,
    /// When the process started, in seconds since 1970.
    Started,
}

impl Gauge {
    const COUNT: usize = Self::Started as usize + 1;
    const ALL: [Self; Self::COUNT] = [
        Self::Connections,
        Self::Sessions,
        Self::Rooms,
        Self::QueuedBytes,
        Self::RssBytes,
        Self::OpenFiles,
        Self::Started,
    ];

    const fn series(self, role: Role) -> &'static [Series] {
        use Role::{Backend, Bridge, Gateway, Router, Up};
        match (self, role) {
            (Self::Connections, Up | Gateway) => &[("sailfish_connections", "")],
            (Self::Connections, Backend) => &[("sailfish_backend_http_connections", "")],
            (Self::Sessions, Up | Gateway) => &[("sailfish_sessions", "")],
            (Self::Sessions, Router) => &[("sailfish_router_bindings", "")],
            (Self::Rooms, Up | Gateway) => &[("sailfish_rooms", "")],
            (Self::Rooms, Router) => &[("sailfish_router_rooms", "")],
            (Self::QueuedBytes, Up | Gateway) => {
                &[("sailfish_outbox_bytes", ""), ("sailfish_link_queued_bytes", "")]
            }
            (Self::QueuedBytes, Router | Bridge) => &[("sailfish_link_queued_bytes", "")],
            (Self::Connections | Self::Rooms | Self::Sessions, Bridge)
            | (Self::Connections, Router)
            | (Self::Sessions | Self::Rooms | Self::QueuedBytes, Backend) => &[],
            (Self::RssBytes, _) => &[("process_resident_memory_bytes", "")],
            (Self::OpenFiles, _) => &[("process_open_fds", "")],
            (Self::Started, _) => &[("process_start_time_seconds", "")],
        }
    }
}

/// A number that only grows while the process lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counter {
    /// Messages from clients; of a router those submitted to it, of a bridge those that the backend took, of
    /// a backend its requests.
    In,
    /// Messages to clients; of a router those sent to gateways, of a bridge the pushes.
    Out,
    /// Messages refused to their sender.
    Refused,
    /// Lossy messages whose receiver was too slow.
    Lossy,
    /// Reliable messages whose connection ended before the ack.
    Undelivered,
    /// Connections closed because their client does not read or ack.
    SlowReaders,
    /// Messages to peers with a full queue.
    LinkOverflows,
    /// Messages that were lost with a link.
    LinkLosses,
    /// Mail to shards that have stopped, records for the directory, and messages of the backend.
    OtherDrops,
    /// CPU time in seconds.
    Cpu,
}

impl Counter {
    const COUNT: usize = Self::Cpu as usize + 1;
    const ALL: [Self; Self::COUNT] = [
        Self::In,
        Self::Out,
        Self::Refused,
        Self::Lossy,
        Self::Undelivered,
        Self::SlowReaders,
        Self::LinkOverflows,
        Self::LinkLosses,
        Self::OtherDrops,
        Self::Cpu,
    ];
    /// The drops: messages that nobody got, or that perhaps nobody got.
    pub const DROPS: [Self; 4] = [Self::Lossy, Self::LinkOverflows, Self::LinkLosses, Self::OtherDrops];

    const fn series(self, role: Role) -> &'static [Series] {
        use Role::{Backend, Bridge, Gateway, Router, Up};
        match (self, role) {
            (Self::In, Up | Gateway) => &[("sailfish_frames_in_total", BUSINESS)],
            (Self::In, Router) => &[("sailfish_router_submitted_total", "")],
            (Self::In, Bridge) => &[("sailfish_bridge_events_total", "outcome=\"taken\"")],
            (Self::In, Backend) => &[("sailfish_backend_requests_total", "")],
            (Self::Out, Up | Gateway) => &[("sailfish_frames_out_total", BUSINESS)],
            (Self::Out, Router) => {
                &[("sailfish_router_forwarded_total", ""), ("sailfish_router_broadcasts_total", "")]
            }
            (Self::Out, Bridge) => &[("sailfish_bridge_pushes_total", "")],
            (Self::Out, Backend) => &[],
            (Self::Refused, _) => &[("sailfish_refused_total", ""), ("sailfish_router_busy_total", "")],
            (Self::Lossy, _) => &[("sailfish_lossy_dropped_total", "")],
            (Self::Undelivered, _) => &[("sailfish_undelivered_total", "")],
            (Self::SlowReaders, _) => &[("sailfish_slow_reader_closes_total", "")],
            (Self::LinkOverflows, _) => &[("sailfish_link_overflows_total", "")],
            (Self::LinkLosses, _) => &[("sailfish_link_messages_lost_total", "")],
            (Self::OtherDrops, _) => &[
                ("sailfish_mail_dropped_total", ""),
                ("sailfish_directory_dropped_total", ""),
                ("sailfish_backend_outbox_lost_total", ""),
            ],
            (Self::Cpu, _) => &[("process_cpu_seconds_total", "")],
        }
    }
}

/// A part of a message's way that is timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// From the arrival to the outcome.
    Outcome,
    /// From the router's mail to the write.
    Write,
    /// From the router's mail to the client's ack.
    Ack,
}

impl Stage {
    /// All of them, in their order.
    pub const ALL: [Self; 3] = [Self::Outcome, Self::Write, Self::Ack];

    /// Its name on the screen.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Outcome => "outcome",
            Self::Write => "write",
            Self::Ack => "ack",
        }
    }
}

/// The classes of routes, as metrics name them.
pub const ROUTES: [&str; 4] = ["user_reliable", "user_lossy", "room_reliable", "room_lossy"];

/// Times of messages, by stage and class of route.
pub type Latency = [[Histogram; ROUTES.len()]; Stage::ALL.len()];

/// A link of the node with a shard of another one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    pub node: u16,
    pub shard: u64,
    pub role: Role,
    pub is_up: bool,
    pub is_owner: bool,
    pub since_ms: u64,
    pub queued_bytes: u64,
}

/// A node's report about another one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    pub node: u16,
    pub role: Option<Role>,
    pub state: KnownState,
    /// Only for a gateway.
    pub sessions: Option<u64>,
}

/// The state of a node, as another one reports it. A better state is lower.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum KnownState {
    Linked,
    /// Its link has no connection.
    Away,
    Gone,
}

/// A node's report at a moment.
#[derive(Clone, Debug)]
pub struct Reading {
    pub role: Role,
    /// Its number, if it reported one.
    pub id: Option<u16>,
    pub is_draining: bool,
    gauges: [Option<f64>; Gauge::COUNT],
    counters: [Option<f64>; Counter::COUNT],
    pub latency: Latency,
    pub links: Vec<Link>,
    pub known: Vec<Known>,
}

impl Reading {
    /// Reads the page of metrics, and the answer of `/v1/nodes` where there is one; `None` if it is no page
    /// of Sailfish.
    pub fn of(metrics: &str, nodes: Option<&Value>) -> Option<Self> {
        let page = Page::read(metrics);
        let nodes = nodes.unwrap_or(&Value::Null);
        let role = Role::named(&nodes["node"]["role"]).or_else(|| Role::of(&page))?;
        let sum = |series: &[Series]| {
            let sums = series.iter().filter_map(|(name, label)| page.sum(name, label));
            sums.reduce(|sum, part| sum + part)
        };
        let latency = Stage::ALL.map(|stage| {
            let name = format!("sailfish_delivery_{}_seconds", stage.name());
            ROUTES.map(|route| page.histogram(&name, &format!("route=\"{route}\"")))
        });
        Some(Self {
            role,
            id: number(&nodes["node"]["id"]),
            is_draining: page.sum("sailfish_draining", "") == Some(1.0),
            gauges: Gauge::ALL.map(|gauge| sum(gauge.series(role))),
            counters: Counter::ALL.map(|counter| sum(counter.series(role))),
            latency,
            links: links(nodes),
            known: known(nodes),
        })
    }

    /// The value of a gauge, if nodes of this role have it.
    pub const fn gauge(&self, gauge: Gauge) -> Option<f64> {
        self.gauges[gauge as usize]
    }

    /// The value of a counter, if nodes of this role have it.
    pub const fn counter(&self, counter: Counter) -> Option<f64> {
        self.counters[counter as usize]
    }

    /// Whether the process is another one than that of an earlier reading.
    pub fn is_restarted(&self, earlier: &Self) -> bool {
        let is_less = |(now, before): (&Option<f64>, &Option<f64>)| now < before;
        self.role != earlier.role
            || self.gauge(Gauge::Started) != earlier.gauge(Gauge::Started)
            || self.counters.iter().zip(&earlier.counters).any(is_less)
    }
}

fn links(nodes: &Value) -> Vec<Link> {
    let mut links = Vec::new();
    for (role, name) in [(Role::Router, "routers"), (Role::Bridge, "bridges")] {
        for link in list(&nodes[name]) {
            let Some(node) = number(&link["node"]) else { continue };
            links.push(Link {
                node,
                shard: link["shard"].as_u64().unwrap_or_default(),
                role,
                is_up: link["up"] == true,
                is_owner: link["owner"] == true,
                since_ms: link["since_ms"].as_u64().unwrap_or_default(),
                queued_bytes: link["queued_bytes"].as_u64().unwrap_or_default(),
            });
        }
    }
    links
}

fn known(nodes: &Value) -> Vec<Known> {
    let linked = links(nodes).into_iter().map(|link| Known {
        node: link.node,
        role: Some(link.role),
        state: if link.is_up { KnownState::Linked } else { KnownState::Away },
        sessions: None,
    });
    let gateways = list(&nodes["gateways"]).filter_map(|gateway| {
        let node = number(&gateway["node"])?;
        let (role, sessions) = (Some(Role::Gateway), gateway["sessions"].as_u64());
        Some(Known { node, role, state: KnownState::Linked, sessions })
    });
    let gone = list(&nodes["gone"]).filter_map(|gone| {
        let node = number(&gone["node"])?;
        Some(Known { node, role: Role::named(&gone["role"]), state: KnownState::Gone, sessions: None })
    });
    linked.chain(gateways).chain(gone).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_role_is_known_by_its_metrics() {
        for (names, role) in [
            (&["sailfish_router_bindings", "sailfish_frames_in_total"][..], Some(Role::Up)),
            (&["sailfish_router_bindings"], Some(Role::Router)),
            (&["sailfish_frames_in_total"], Some(Role::Gateway)),
            (&["sailfish_frames_in_total", "sailfish_bridge_batches_total"], Some(Role::Bridge)),
            (&["sailfish_backend_build_info"], Some(Role::Backend)),
            (&["node_load1"], None),
        ] {
            let page: String = names.iter().map(|name| format!("{name} 1\n")).collect();
            assert_eq!(Reading::of(&page, None).map(|reading| reading.role), role, "{names:?}");
        }
        assert!(Reading::of("<html>", None).is_none());
    }

    #[test]
    fn a_gateway_says_what_it_counts_and_whom_it_knows() {
        let page = "sailfish_frames_in_total{shard=\"0\",code=\"business\"} 5\n\
                    sailfish_frames_in_total{shard=\"0\",code=\"ack\"} 50\n\
                    sailfish_connections{shard=\"0\"} 3\nsailfish_connections{shard=\"1\"} 4\n\
                    sailfish_outbox_bytes{shard=\"0\"} 10\nsailfish_link_queued_bytes{shard=\"0\"} 5\n\
                    sailfish_draining 1\nprocess_resident_memory_bytes 1000\n";
        let nodes = json!({
            "node": { "id": 33, "role": "gateway" },
            "routers": [
                { "node": 1, "shard": 0, "up": true, "owner": true, "since_ms": 5, "queued_bytes": 9 },
                { "node": 70000, "shard": 0, "up": true },
            ],
            "bridges": [{ "node": 17, "shard": 0, "up": false, "owner": false }],
            "gateways": [{ "node": 33, "sessions": 6, "shards": [] }],
            "gone": [{ "node": 34, "role": "gateway", "seen_ms": 0 }],
        });
        let reading = Reading::of(page, Some(&nodes)).unwrap();
        assert_eq!((reading.id, reading.role, reading.is_draining), (Some(33), Role::Gateway, true));
        assert_eq!(reading.gauge(Gauge::Connections), Some(7.0));
        assert_eq!(reading.gauge(Gauge::QueuedBytes), Some(15.0));
        assert_eq!(reading.gauge(Gauge::Sessions), None, "the page does not have it");
        assert_eq!(reading.counter(Counter::In), Some(5.0));
        let links: Vec<_> =
            reading.links.iter().map(|link| (link.node, link.is_up, link.queued_bytes)).collect();
        assert_eq!(links, [(1, true, 9), (17, false, 0)]);
        let known: Vec<_> = reading.known.iter().map(|known| (known.node, known.state)).collect();
        use KnownState::{Away, Gone, Linked};
        assert_eq!(known, [(1, Linked), (17, Away), (33, Linked), (34, Gone)]);
    }

    #[test]
    fn an_answer_of_another_shape_is_no_trouble() {
        for nodes in [json!(null), json!([]), json!({ "node": 5, "routers": 7, "gone": [null, {}] })] {
            let reading = Reading::of("sailfish_frames_in_total 1", Some(&nodes)).unwrap();
            assert_eq!((reading.id, reading.links.len(), reading.known.len()), (None, 0, 0), "{nodes}");
        }
    }

    #[test]
    fn a_restart_is_seen() {
        let at = |started: u64, frames: u64| {
            let page = format!(
                "sailfish_frames_in_total{{{BUSINESS}}} {frames}\nprocess_start_time_seconds {started}\n"
            );
            Reading::of(&page, None).unwrap()
        };
        assert!(!at(5, 7).is_restarted(&at(5, 7)));
        assert!(!at(5, 8).is_restarted(&at(5, 7)));
        assert!(at(5, 6).is_restarted(&at(5, 7)));
        assert!(at(6, 8).is_restarted(&at(5, 7)));
    }
}
