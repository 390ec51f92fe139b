//! The rows: what is measured, against what, and what it must reach.

use std::borrow::Cow;
use std::path::Path;

use super::server::{Running, Server};

/// What a judged number must reach, and what it is to reach then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// No more than this.
    AtMost {
        /// Otherwise the row falls short.
        must: f64,
        /// The aim.
        aim: f64,
    },
    /// No less than this.
    AtLeast {
        /// Otherwise the row falls short.
        must: f64,
        /// The aim.
        aim: f64,
    },
    /// Printed for information.
    None,
}

/// What drives a server in one run.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// `sailfish load echo`: heartbeats at a rate.
    Echo {
        /// Heartbeats a second.
        rate: u32,
    },
    /// `sailfish load chat`: pairs of users, reliable and acked.
    Chat {
        /// Messages a second; the tail finds its own.
        rate: u32,
    },
    /// `sailfish load idle`: logged-in connections, heartbeats at their period.
    Idle,
    /// The same with heartbeats at a rate, in the groups in which a generator sends them.
    Heartbeats {
        /// Heartbeats a second.
        rate: u32,
    },
    /// The same, those of `from` connections that a server has already: what it takes at first is not
    /// counted.
    Growth {
        /// Connections before.
        from: u32,
        /// And in the end.
        to: u32,
    },
    /// `sailfish load storm`: connect and log in, all at once.
    Storm,
    /// `sailfish load room`: one publisher, everybody a member.
    Room {
        /// Members, over all nodes.
        members: u32,
        /// Messages a second.
        rate: u32,
    },
    /// `peer`: one publisher, many receivers.
    FanOut {
        /// Connections that read.
        receivers: u32,
        /// Connections that take part and never read.
        stopped: u32,
        /// Messages a second.
        rate: u32,
    },
}

/// A server under a load.
#[derive(Clone, Copy, Debug)]
pub struct Contestant {
    /// The server.
    pub server: Server,
    /// What drives it.
    pub load: Load,
}

impl Contestant {
    /// Starts its server.
    pub fn start(self, programs: &Path, scratch: &Path) -> anyhow::Result<Running> {
        self.server.start(!matches!(self.load, Load::Growth { .. }), programs, scratch)
    }
}

/// A line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// For `--only` and JSON.
    pub name: &'static str,
    /// What is measured.
    pub title: &'static str,
    /// What is judged: the ratio if there is a floor, else the value.
    pub goal: Goal,
    /// Who is measured.
    pub contestant: Contestant,
}

/// How the figures of a group come about.
#[derive(Clone, Copy, Debug)]
pub enum Method {
    /// The metric of each row, divided by that of the floor.
    Ratio {
        /// What everything in the group is compared with.
        floor: Contestant,
        /// Which number of a run.
        metric: Metric,
    },
    /// The metric of each row by itself.
    Alone(Metric),
    /// The `wheel` program.
    Wheel,
    /// Steps up to the saturating rate, then p99.9 / p50 at 70 % of it.
    Tail,
    /// What the other connections lose when some stop to read.
    Stopped,
    /// What the nodes say that they sent to Redis.
    Redis,
}

/// A number of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Metric {
    /// Server CPU time per operation.
    CpuUs,
    /// Growth of the server's resident memory per connection.
    RssBytes,
    /// p99.9 of the latency, from the intended send time.
    P999Us,
    /// The load's CPU time per operation / the server's.
    LoadCpu,
    /// Logins a second.
    PerSecond,
    /// First logins that a second of server CPU time takes.
    FirstLogins,
    /// The same for those of clients that come back.
    LoginsAgain,
}

impl Metric {
    /// For the table.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::CpuUs | Self::P999Us => "us",
            Self::RssBytes => "B",
            Self::LoadCpu => "",
            Self::PerSecond | Self::FirstLogins | Self::LoginsAgain => "/s",
        }
    }
}

/// Rows that are measured together, in turns.
#[derive(Clone, Debug)]
pub struct Group {
    /// For messages.
    pub name: &'static str,
    /// How.
    pub method: Method,
    /// Never empty.
    pub rows: Cow<'static, [Row]>,
}

/// Every row, in the order of the table.
pub fn all() -> impl Iterator<Item = &'static Row> {
    GROUPS.iter().flat_map(|group| group.rows.iter())
}

const HEARTBEATS: Load = Load::Echo { rate: 20_000 };
/// Messages a second in the comparison of 1:1 with the echo loop, for both.
const CHAT_RATE: u32 = 10_000;
/// Few enough that one message is out before the next comes: nothing is coalesced, on either side.
const ROOM: Load = Load::FanOut { receivers: 5_000, stopped: 0, rate: 5 };
const DENSE: Load = Load::FanOut { receivers: 1_000, stopped: 0, rate: 200 };
const SPARSE: Load = Load::FanOut { receivers: 1_000, stopped: 0, rate: 10 };

/// Nearly as many as 20,000 open files allow.
const GROWTH: Load = Load::Growth { from: 5_000, to: 18_000 };
/// A backend in the process has some of the files.
const GROWTH_WITH_BACKEND: Load = Load::Growth { from: 5_000, to: 17_000 };

/// The table.
pub static GROUPS: &[Group] = &[
    Group {
        name: "heartbeat",
        method: Method::Ratio { floor: by(Server::RawUring, HEARTBEATS), metric: Metric::CpuUs },
        rows: Cow::Borrowed(&[
            row(
                "heartbeat",
                "heartbeat answered, CPU / raw io_uring echo",
                Goal::AtMost { must: 1.2, aim: 1.08 },
                Server::Uring,
                HEARTBEATS,
            ),
            row("heartbeat-monoio", "the same on monoio (io_uring)", Goal::None, Server::Monoio, HEARTBEATS),
            row("heartbeat-epoll", "the same on monoio (epoll)", Goal::None, Server::Epoll, HEARTBEATS),
            row("heartbeat-glommio", "the same on glommio", Goal::None, Server::Glommio, HEARTBEATS),
            row(
                "raw-echo-epoll",
                "raw epoll echo, CPU / raw io_uring echo",
                Goal::None,
                Server::RawEpoll,
                HEARTBEATS,
            ),
        ]),
    },
    Group {
        name: "edge",
        method: Method::Ratio { floor: by(Server::Uring, HEARTBEATS), metric: Metric::CpuUs },
        rows: Cow::Borrowed(&[
            row(
                "websocket",
                "heartbeat by WebSocket, CPU / the same over TCP",
                Goal::AtMost { must: 1.15, aim: 1.05 },
                Server::WebSocket,
                HEARTBEATS,
            ),
            row(
                "tls",
                "heartbeat by TLS 1.3, CPU / the same over TCP",
                Goal::AtMost { must: 1.6, aim: 1.3 },
                Server::Tls,
                HEARTBEATS,
            ),
            row(
                "tls-websocket",
                "heartbeat by WebSocket over TLS, CPU / the same over TCP",
                Goal::None,
                Server::TlsWebSocket,
                HEARTBEATS,
            ),
        ]),
    },
    Group {
        name: "room",
        method: Method::Ratio { floor: by(Server::RawUring, ROOM), metric: Metric::CpuUs },
        rows: Cow::Borrowed(&[
            row(
                "room",
                "room fan-out to 5,000, CPU a delivery / raw batched io_uring",
                Goal::AtMost { must: 1.2, aim: 1.05 },
                Server::Uring,
                ROOM,
            ),
            row("room-monoio", "the same on monoio (io_uring)", Goal::None, Server::Monoio, ROOM),
            row("room-epoll", "the same on monoio (epoll)", Goal::None, Server::Epoll, ROOM),
            row("room-glommio", "the same on glommio", Goal::None, Server::Glommio, ROOM),
            row(
                "raw-room-epoll",
                "raw epoll fan-out, CPU / raw batched io_uring",
                Goal::None,
                Server::RawEpoll,
                ROOM,
            ),
        ]),
    },
    Group {
        name: "history",
        method: Method::Ratio { floor: by(Server::Forgetful, ROOM), metric: Metric::CpuUs },
        rows: Cow::Borrowed(&[row(
            "history",
            "room fan-out to 5,000, CPU a delivery with 100 messages kept / with none",
            Goal::None,
            Server::Uring,
            ROOM,
        )]),
    },
    Group {
        name: "history-dense",
        method: Method::Ratio { floor: by(Server::Forgetful, DENSE), metric: Metric::CpuUs },
        rows: Cow::Borrowed(&[row(
            "history-dense",
            "the same of 200 messages a second to 1,000",
            Goal::None,
            Server::Uring,
            DENSE,
        )]),
    },
    Group {
        name: "history-memory",
        method: Method::Ratio { floor: by(Server::Forgetful, DENSE), metric: Metric::RssBytes },
        rows: Cow::Borrowed(&[row(
            "history-memory",
            "memory a member of a room of 1,000 with 100 messages kept / with none",
            Goal::None,
            Server::Uring,
            DENSE,
        )]),
    },
    Group {
        name: "dense",
        method: Method::Ratio { floor: by(Server::Nats, DENSE), metric: Metric::CpuUs },
        rows: Cow::Borrowed(&[
            row(
                "dense",
                "dense fan-out (200/s to 1,000), CPU a delivery / nats-server",
                Goal::AtMost { must: 0.25, aim: 0.15 },
                Server::Uring,
                DENSE,
            ),
            row(
                "dense-mosquitto",
                "mosquitto under the same load / nats-server",
                Goal::None,
                Server::Mosquitto,
                DENSE,
            ),
        ]),
    },
    Group {
        name: "sparse",
        method: Method::Ratio { floor: by(Server::Nats, SPARSE), metric: Metric::CpuUs },
        rows: Cow::Borrowed(&[
            row(
                "sparse",
                "sparse fan-out (10/s to 1,000), CPU a delivery / nats-server",
                Goal::AtMost { must: 0.35, aim: 0.2 },
                Server::Uring,
                SPARSE,
            ),
            row(
                "sparse-mosquitto",
                "mosquitto under the same load / nats-server",
                Goal::None,
                Server::Mosquitto,
                SPARSE,
            ),
        ]),
    },
    Group {
        name: "chat",
        method: Method::Ratio {
            floor: by(Server::RawUring, Load::Echo { rate: CHAT_RATE }),
            metric: Metric::CpuUs,
        },
        rows: Cow::Borrowed(&[
            row(
                "chat",
                "1:1 delivered, acked, send-acked across two nodes, total CPU / raw echo",
                Goal::AtMost { must: 2.5, aim: 2.0 },
                Server::Cluster,
                Load::Chat { rate: CHAT_RATE },
            ),
            row(
                "chat-one-node",
                "the same on one node",
                Goal::None,
                Server::Uring,
                Load::Chat { rate: CHAT_RATE },
            ),
        ]),
    },
    Group {
        name: "nodes",
        method: Method::Alone(Metric::CpuUs),
        rows: Cow::Borrowed(&[
            row(
                "router-forward",
                "router CPU per 1:1 message: submit, deliver, settle, send-ack",
                Goal::None,
                Server::ClusterRouter,
                Load::Chat { rate: CHAT_RATE },
            ),
            row(
                "room-two-nodes",
                "room of 5,000 over two nodes, total CPU a delivery",
                Goal::None,
                Server::Cluster,
                Load::Room { members: 5_000, rate: 5 },
            ),
            row(
                "room-router",
                "the same, router CPU a delivery",
                Goal::None,
                Server::ClusterRouter,
                Load::Room { members: 5_000, rate: 5 },
            ),
        ]),
    },
    Group {
        name: "redis",
        method: Method::Redis,
        rows: Cow::Borrowed(&[
            row(
                "redis-login",
                "Redis commands a login",
                Goal::AtMost { must: 1.0, aim: 1.0 },
                Server::ClusterRedis,
                Load::Idle,
            ),
            row(
                "redis-heartbeat",
                "Redis commands a heartbeat",
                Goal::AtMost { must: 0.0, aim: 0.0 },
                Server::ClusterRedis,
                Load::Echo { rate: 20_000 },
            ),
        ]),
    },
    Group {
        name: "memory",
        method: Method::Alone(Metric::RssBytes),
        rows: Cow::Borrowed(&[
            row(
                "memory",
                "user-space memory of an idle logged-in connection, from 5,000 to 18,000",
                Goal::AtMost { must: 300.0, aim: 200.0 },
                Server::Uring,
                GROWTH,
            ),
            row(
                "memory-whole",
                "the same with bridge and backend in the process, to 17,000",
                Goal::AtMost { must: 500.0, aim: 300.0 },
                Server::Whole,
                GROWTH_WITH_BACKEND,
            ),
            row(
                "memory-tls",
                "the same of a connection by TLS",
                Goal::AtMost { must: 8192.0, aim: 4096.0 },
                Server::Tls,
                GROWTH,
            ),
            row(
                "memory-websocket",
                "the same of a connection by WebSocket",
                Goal::None,
                Server::WebSocket,
                GROWTH,
            ),
            row(
                "memory-tls-websocket",
                "the same of a connection by WebSocket over TLS",
                Goal::None,
                Server::TlsWebSocket,
                GROWTH,
            ),
            row("memory-monoio", "the same on monoio (io_uring)", Goal::None, Server::Monoio, GROWTH),
            row("memory-epoll", "the same on monoio (epoll)", Goal::None, Server::Epoll, GROWTH),
            row("memory-glommio", "the same on glommio", Goal::None, Server::Glommio, GROWTH),
            row("memory-nats", "a connection of nats-server", Goal::None, Server::Nats, SPARSE),
            row("memory-mosquitto", "a connection of mosquitto", Goal::None, Server::Mosquitto, SPARSE),
        ]),
    },
    Group {
        name: "storm",
        method: Method::Ratio { floor: by(Server::RawUring, Load::Storm), metric: Metric::PerSecond },
        rows: Cow::Borrowed(&[row(
            "storm",
            "connect + login storm, connections a second / raw accept loop",
            Goal::AtLeast { must: 0.7, aim: 0.85 },
            Server::Uring,
            Load::Storm,
        )]),
    },
    Group {
        name: "storm-cpu",
        method: Method::Ratio { floor: by(Server::RawUring, Load::Storm), metric: Metric::CpuUs },
        rows: Cow::Borrowed(&[row(
            "storm-cpu",
            "connect + login, server CPU a connection / raw accept loop",
            Goal::AtMost { must: 1.3, aim: 1.15 },
            Server::Uring,
            Load::Storm,
        )]),
    },
    Group {
        name: "handshakes-full",
        method: Method::Alone(Metric::FirstLogins),
        rows: Cow::Borrowed(&[
            row(
                "handshakes-full",
                "connect, full TLS 1.3 handshake (ECDSA P-256) and login, on one core",
                Goal::None,
                Server::Tls,
                Load::Storm,
            ),
            row("handshakes-none", "the same without TLS", Goal::None, Server::Uring, Load::Storm),
        ]),
    },
    Group {
        name: "handshakes-resumed",
        method: Method::Alone(Metric::LoginsAgain),
        rows: Cow::Borrowed(&[row(
            "handshakes-resumed",
            "the same of clients that come back with a ticket",
            Goal::None,
            Server::Tls,
            Load::Storm,
        )]),
    },
    Group {
        name: "wheel",
        method: Method::Wheel,
        rows: Cow::Borrowed(&[
            row(
                "wheel",
                "timer wheel: arm + cancel as acks do, one million pending",
                Goal::AtMost { must: 20.0, aim: 10.0 },
                Server::Uring,
                Load::Idle,
            ),
            row(
                "wheel-random",
                "the same, cancelling any of the million",
                Goal::None,
                Server::Uring,
                Load::Idle,
            ),
        ]),
    },
    Group {
        name: "load-cpu",
        method: Method::Alone(Metric::LoadCpu),
        rows: Cow::Borrowed(&[row(
            "load-cpu",
            "load generator (idle): its CPU per heartbeat answered / the server's",
            Goal::AtMost { must: 1.0, aim: 0.5 },
            Server::Uring,
            Load::Heartbeats { rate: 20_000 },
        )]),
    },
    Group {
        name: "tail-1000",
        method: Method::Ratio {
            floor: by(Server::RawUring, Load::Echo { rate: 1_000 }),
            metric: Metric::P999Us,
        },
        rows: Cow::Borrowed(&[row(
            "tail-1000",
            "p99.9 of 1:1 at 1,000/s / that of the raw io_uring echo",
            Goal::AtMost { must: 1.5, aim: 1.1 },
            Server::Uring,
            Load::Chat { rate: 1_000 },
        )]),
    },
    Group {
        name: "tail-10000",
        method: Method::Ratio {
            floor: by(Server::RawUring, Load::Echo { rate: 10_000 }),
            metric: Metric::P999Us,
        },
        rows: Cow::Borrowed(&[row(
            "tail-10000",
            "p99.9 of 1:1 at 10,000/s / that of the raw io_uring echo",
            Goal::AtMost { must: 1.5, aim: 1.1 },
            Server::Uring,
            Load::Chat { rate: 10_000 },
        )]),
    },
    Group {
        name: "tail-30000",
        method: Method::Ratio {
            floor: by(Server::RawUring, Load::Echo { rate: 30_000 }),
            metric: Metric::P999Us,
        },
        rows: Cow::Borrowed(&[row(
            "tail-30000",
            "p99.9 of 1:1 at 30,000/s / that of the raw io_uring echo",
            Goal::AtMost { must: 1.5, aim: 1.1 },
            Server::Uring,
            Load::Chat { rate: 30_000 },
        )]),
    },
    Group {
        name: "tail",
        method: Method::Tail,
        rows: Cow::Borrowed(&[
            row(
                "tail",
                "p99.9 / p50 at 70 % of the saturating rate, 1:1",
                Goal::AtMost { must: 10.0, aim: 5.0 },
                Server::Uring,
                Load::Chat { rate: 0 },
            ),
            row(
                "tail-unqueued",
                "the same at 70 % of the last rate without a queue",
                Goal::None,
                Server::Uring,
                Load::Chat { rate: 0 },
            ),
        ]),
    },
    Group {
        name: "stopped",
        method: Method::Stopped,
        rows: Cow::Borrowed(&[row(
            "stopped-readers",
            "1 % stopped readers: throughput lost by the others",
            Goal::AtMost { must: 3.0, aim: 1.0 },
            Server::Uring,
            Load::FanOut { receivers: 1_000, stopped: 10, rate: 50 },
        )]),
    },
];

const fn by(server: Server, load: Load) -> Contestant {
    Contestant { server, load }
}

const fn row(name: &'static str, title: &'static str, goal: Goal, server: Server, load: Load) -> Row {
    Row { name, title, goal, contestant: by(server, load) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = all().map(|row| row.name).collect();
        assert_eq!(names.len(), all().count());
    }
}
