//! The roles of a node.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use wire::node::link::Role as LinkRole;

use crate::config::{self, Config};
use crate::keys::Whose;

/// The role of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, alone: each shard is gateway and router.
    Up,
    /// It holds clients, and links to routers.
    Gateway,
    /// It owns users and rooms, and takes links.
    Router,
    /// It passes events on to a backend; it takes links of gateways, and links to routers.
    Bridge,
}

impl Role {
    /// The name of the subcommand, as in metrics and in the directory.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Gateway => "gateway",
            Self::Router => "router",
            Self::Bridge => "bridge",
        }
    }

    /// Whether others link with it, and no client connects.
    pub const fn takes_links(self) -> bool {
        matches!(self, Self::Router | Self::Bridge)
    }

    /// Which keys it needs.
    pub const fn whose_keys(self) -> Whose {
        match self {
            Self::Up => Whose::Up,
            Self::Gateway => Whose::Clients,
            Self::Router | Self::Bridge => Whose::Links,
        }
    }

    /// Its role on links, if it has any.
    pub const fn of_link(self) -> Option<LinkRole> {
        match self {
            Self::Up => None,
            Self::Gateway => Some(LinkRole::Gateway),
            Self::Router => Some(LinkRole::Router),
            Self::Bridge => Some(LinkRole::Bridge),
        }
    }

    /// Where it listens.
    pub fn listen(self, config: &Config) -> SocketAddr {
        let default = |address: &str| address.parse().expect("a socket address");
        match self {
            Self::Up | Self::Gateway => config.node.listen,
            Self::Bridge if config.cluster.listen == default(config::LINKS_DEFAULT) => {
                default(config::BRIDGE_LINKS_DEFAULT)
            }
            Self::Router | Self::Bridge => config.cluster.listen,
        }
    }

    /// The node number of a configuration.
    pub fn node(self, config: &Config) -> u16 {
        match (self, config.cluster.node) {
            (Self::Up, node) => node,
            (Self::Router, 0) => 1,
            (Self::Gateway, 0) => 2,
            (Self::Bridge, 0) => 3,
            (Self::Gateway | Self::Router | Self::Bridge, node) => node,
        }
    }
}
