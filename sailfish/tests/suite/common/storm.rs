//! A whole cluster whose nodes are killed in turns while clients chat.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::cluster::{Cluster, Node};
use super::proxy::Proxy;
use super::stack::{Stack, Store};

/// How long a node is gone, and how long all are there in between.
const GONE: Duration = Duration::from_millis(800);
const CALM: Duration = Duration::from_millis(700);

/// Two gateways behind a balancer, two routers with a Redis, a bridge and a backend.
pub struct Storm {
    stack: Stack,
    tcp: Proxy,
    websocket: Proxy,
}

impl Storm {
    pub fn gather() -> Self {
        // What is for a client that is away is kept for it, however much the others say.
        let flags = |api: SocketAddr| {
            vec![
                "--set=bridge.mode=http".into(),
                format!("--set=bridge.url=http://{api}"),
                "--set=backend.inbox_messages_max=100000".into(),
            ]
        };
        let mut stack = Stack::start_on(Cluster::with_redis_and_websocket(), (2, 2), Store::sqlite(), flags);
        let gateways = stack.cluster.gateways.iter_mut().map(Node::server);
        let (tcp, websocket) = gateways.map(|server| (server.clients, server.websocket.unwrap())).unzip();
        Self { stack, tcp: Proxy::to_any(tcp), websocket: Proxy::to_any(websocket) }
    }

    /// Where clients connect.
    pub fn tcp(&self) -> SocketAddr {
        self.tcp.address
    }

    /// Where clients connect by WebSocket.
    pub fn websocket(&self) -> SocketAddr {
        self.websocket.address
    }

    /// Kills gateways and routers in turns, and starts each again; connections are cut too. Ends with all of
    /// them there; how many were killed.
    pub fn rage(&mut self, time: Duration) -> usize {
        let end = Instant::now() + time;
        let mut kills = 0;
        while Instant::now() < end {
            std::thread::sleep(CALM);
            let cluster = &mut self.stack.cluster;
            let (of, at) = (kills % 2, kills / 2 % 2);
            let victim = if of == 0 { &mut cluster.gateways[at] } else { &mut cluster.routers[at] };
            victim.kill();
            std::thread::sleep(GONE);
            victim.start();
            cluster.wait_ready();
            self.tcp.cut();
            self.websocket.cut();
            kills += 1;
        }
        kills
    }
}
