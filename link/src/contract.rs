//! What goes in and out: the setup, effects for the engine, news for the cores, peers for operators.

use std::net::SocketAddr;

use shard::{ConnId, Instant, Linger, ShardId};
use wire::node::LinkMessage;
use wire::node::link::{Identity, Role};

use crate::limits::Config;
use crate::tls::TlsMode;

/// What the links of a shard are made of.
pub struct Setup {
    /// Who this shard is.
    pub identity: Identity,
    /// What all nodes of the cluster know, and nobody else.
    pub secret: Vec<u8>,
    /// Whether links are encrypted.
    pub tls: TlsMode,
    /// Seeds everything that is random here; fresh at each start.
    pub seed: u64,
    /// Checked by [`Config::validate`].
    pub config: Config,
}

/// What the engine is to do for the links.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// There are bytes for this connection.
    Transmit {
        /// Which connection.
        conn: ConnId,
    },
    /// End it.
    Close {
        /// Which connection.
        conn: ConnId,
        /// What becomes of its unwritten bytes.
        linger: Linger,
    },
    /// Open one.
    Connect {
        /// Comes back with the result of the connect.
        token: u64,
        /// The address to connect to.
        peer: SocketAddr,
    },
}

/// What the cores of this shard are to know, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// A peer is up, and remembers nothing that was sent to it before.
    Up {
        /// Who.
        peer: ShardId,
        /// What it is.
        role: Role,
        /// How many shards its node has.
        shards: u16,
        /// Which life of its process it is.
        incarnation: u64,
    },
    /// A peer's connection is gone. Nothing is lost if another one carries the session on in time.
    Cut {
        /// Who.
        peer: ShardId,
    },
    /// A peer is gone, with everything that was on its way to it.
    Down {
        /// Who.
        peer: ShardId,
    },
    /// A process that started earlier than this peer has the same number, and was refused.
    SameNumber {
        /// Who.
        peer: ShardId,
    },
    /// A peer sends a message.
    Message {
        /// Who.
        from: ShardId,
        /// What.
        message: LinkMessage,
    },
}

/// A peer, for operators.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerInfo {
    /// Who.
    pub shard: ShardId,
    /// What it is.
    pub role: Role,
    /// Which life of its process it is.
    pub incarnation: u64,
    /// Since when the session lasts.
    pub since: Instant,
    /// Whether there is a connection at the moment.
    pub is_connected: bool,
    /// Bytes that wait, or are in flight and have no credit yet.
    pub queued_bytes: u64,
}
