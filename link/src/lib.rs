//! The link core: what one shard has to do with the shards of other nodes. Sans-IO.
//!
//! A link is one TCP connection between two shards. Gateway shards open links to router shards and to bridge
//! shards, bridge shards to router shards. Both ends prove that they know the cluster's secret, and then send
//! each other batches of [`wire::node::LinkMessage`]. A link may be encrypted ([`TlsMode`]).
//!
//! A link's **session** outlives its connection: batches are kept until the other end has received them, and
//! after a broken connection the next one goes on there. So within a session messages come once and in order,
//! whatever the network does, and the cores see only two states: a peer is [`News::Up`], with nothing
//! remembered, or [`News::Down`], gone with all messages in flight to it. [`News::Cut`] warns them that the
//! second may follow.
//!
//! Deliberately not here: what the messages mean, who owns what, sockets, clocks. One exception to
//! determinism: the keys of TLS use randomness of the system. What happens, and how many bytes it takes,
//! depends on none of it.

mod conn;
mod conns;
mod contract;
mod dial;
mod flaps;
mod incoming;
mod limits;
mod links;
mod metrics;
mod outgoing;
mod pace;
mod peer;
mod peers;
mod proof;
mod tls;

pub use contract::{Effect, News, PeerInfo, Setup};
pub use limits::Config;
pub use links::Links;
pub use metrics::{Metrics, SameNumber};
pub use tls::TlsMode;
