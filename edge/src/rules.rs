//! What an operator says of layers.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Network;

/// What an operator sets for layers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Networks of proxies, whose connections begin with a PROXY header.
    pub proxy_from: Vec<Network>,
    /// Origins of pages that may connect by WebSocket; empty: any. A client that sends no origin is no
    /// browser and may connect.
    pub origins: Vec<String>,
}

impl Rules {
    /// Whether connections from an address begin with a PROXY header.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxy_from.iter().any(|network| network.contains(address))
    }

    /// Checks what the types do not say; the error names what it wants.
    ///
    /// # Errors
    /// An origin that no browser would send.
    pub fn validate(&self) -> Result<(), String> {
        let is_origin = |origin: &&String| {
            let host = origin.split_once("://").map_or("", |(_, host)| host);
            !host.is_empty() && !host.contains(['/', '?', '#', ' ', '@', '*'])
        };
        match self.origins.iter().find(|origin| !is_origin(origin)) {
            Some(wrong) => Err(format!(
                "node.origins: {wrong:?}: want scheme, host and perhaps a port, like \"https://chat.example.com\""
            )),
            None => Ok(()),
        }
    }

    pub(crate) fn allows_origin(&self, origin: &[u8]) -> bool {
        self.origins.is_empty() || self.origins.iter().any(|one| one.as_bytes().eq_ignore_ascii_case(origin))
    }
}
