//! The ports for clients: where they are, which layers their connections have, and what TLS shows on them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use gateway::{CertificatePem, Port, TlsServer};

use super::Role;
use crate::config::{CertificateFiles, Config, ConfigError};
use crate::secret;

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

    /// What a gateway knows of it.
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

/// The keys and certificates of a node, if a port wants any.
pub fn tls(role: Role, config: &Config) -> Result<Option<TlsServer>, ConfigError> {
    if !ports(role, config).iter().any(|port| port.is_tls) {
        return Ok(None);
    }
    let server = read(&config.node.certificates).and_then(|read| TlsServer::new(&read, now_secs()));
    server.map(Some).map_err(of_certificates)
}

/// Reads the certificates of a configuration, and puts them in the place of those of a server that runs.
pub fn reload(server: &TlsServer, config: &Config) -> Result<(), ConfigError> {
    let replaced = read(&config.node.certificates).and_then(|read| server.replace(&read, now_secs()));
    replaced.map_err(of_certificates)
}

/// The files of certificates, for a watch.
pub fn certificate_files(config: &Config) -> Vec<PathBuf> {
    let files = config.node.certificates.iter();
    files.flat_map(|files| [files.chain.clone(), files.key.clone()]).collect()
}

fn of_certificates(why: String) -> ConfigError {
    ConfigError(format!("node.certificates: {why}"))
}

fn read(files: &[CertificateFiles]) -> Result<Vec<CertificatePem>, String> {
    let read = |files: &CertificateFiles| {
        let (chain_name, key_name) = (files.chain.display().to_string(), files.key.display().to_string());
        let chain = std::fs::read(&files.chain).map_err(|error| format!("{chain_name}: {error}"))?;
        let key = secret::read_private(&files.key).map_err(|error| format!("{key_name}: {error}"))?;
        Ok(CertificatePem { chain, chain_name, key, key_name })
    };
    files.iter().map(read).collect()
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
