//! The ports for clients: their addresses, the layers of their connections, and the certificates of TLS.

use std::net::SocketAddr;

use gateway::{Port, TlsServer};

use crate::certificates;
use crate::config::{Config, ConfigError};
use crate::role::Role;

/// A port for clients.
#[derive(Clone, Copy)]
pub struct ClientPort {
    /// Its name in the line for programs.
    pub name: &'static str,
    /// How people write its address.
    pub scheme: &'static str,
    pub address: SocketAddr,
    /// The flag that chooses it.
    pub chosen_by: &'static str,
    is_tls: bool,
    is_websocket: bool,
}

impl ClientPort {
    /// The same with port 0 resolved.
    pub fn at(self, address: SocketAddr) -> Self {
        Self { address, ..self }
    }

    /// The layers of its connections, for a gateway.
    pub fn layers(self, tls: Option<&TlsServer>) -> Port {
        Port { tls: tls.filter(|_| self.is_tls).cloned(), websocket: self.is_websocket }
    }
}

/// The ports for clients beside `node.listen`, in the order in which an engine listens on them.
pub fn ports(role: Role, config: &Config) -> Vec<ClientPort> {
    if role.takes_links() {
        return Vec::new();
    }
    let node = &config.node;
    let port = |name, scheme, address: Option<SocketAddr>, chosen_by, is_tls, is_websocket| {
        address.map(|address| ClientPort { name, scheme, address, chosen_by, is_tls, is_websocket })
    };
    let all = [
        port("websocket", "ws://", node.listen_ws(role == Role::Up), "--listen-ws", false, true),
        port("tls", "tls://", node.listen_tls(), "--listen-tls", true, false),
        port("wss", "wss://", node.listen_wss(), "--listen-wss", true, true),
    ];
    all.into_iter().flatten().collect()
}

/// The keys and certificates of a node, if a port needs them.
pub fn tls(role: Role, config: &Config) -> Result<Option<TlsServer>, ConfigError> {
    let is_wanted = ports(role, config).iter().any(|port| port.is_tls)
        || config.node.admin_tls
        || super::has_own_backend(role, config) && config.backend.tls;
    is_wanted.then(|| certificates::server(config)).transpose()
}
