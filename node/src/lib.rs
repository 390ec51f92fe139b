//! One shard of a node: a gateway core, a router core, or both, and the links to other nodes, on one thread.
//! Sans-IO.
//!
//! Only composition: events go to the core they are for; what the cores send each other arrives within the
//! turn, at a sibling shard by mail, and at another node by its link. Events for the bridge are kept until it
//! has taken them. Two things lie outside and are passed in: the bridge of this process, and the directory.
//!
//! Deliberately not here: protocol rules and business rules, threads, sockets, configuration files.

mod bridging;
mod cores;
mod handover;
mod mail;
mod node;

pub use bridging::{Bridge, Origin};
pub use cores::Cores;
pub use handover::{EVENTS, HandoverLimits, HandoverMetrics, WINDOW_BYTES_MAX};
pub use mail::{Control, Mail, Peer, Report, ShardMetrics, Unbridged};
pub use node::{Node, Outside, Setup};
