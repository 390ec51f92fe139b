//! The router core: where users and rooms are, and what becomes of the messages sent to them. Sans-IO.
//!
//! One router runs on every shard, beside the gateway core of that shard. It owns the users and rooms that
//! [`wire::node::Owners`] gives it, and talks to gateway shards and to the bridge in [`wire::node`] messages
//! only. It holds:
//!
//! - the bindings: which session, on which shard, is a user's on each class of device;
//! - the rooms: which shards have members, and the sequence that orders a room's messages for everybody;
//! - the pending messages: reliable ones whose receivers have not acked, with the sender who waits for the
//!   outcome;
//! - the histories: the last messages of each room, for members who were away;
//! - the window of remembered outcomes, by which a repeated message gets the same answer and is delivered
//!   once.
//!
//! Deliberately not here: ownership (the sender decides it by a pure function), membership of single users (a
//! gateway shard fans out to its own members), retries and acks on the connection (the receiver's shard does
//! them and settles), and anything that lasts: all is soft state that gateway shards can announce again. A
//! sender is never assumed to be on the own node, so the same rules serve mailboxes between the shards of a
//! process and links between nodes.

mod away;
mod cluster;
mod dedupe;
mod ends;
mod hash;
mod history;
mod keep;
mod known;
mod limits;
mod metrics;
mod outbox;
mod partial;
mod pending;
mod recall;
mod rooms;
mod router;
mod stripes;
mod term;
mod users;

pub use keep::{Keep, Keeps};
pub use limits::{HISTORY_BYTES_CEILING, HISTORY_MESSAGES_CEILING, HISTORY_MS_CEILING, Limits};
pub use metrics::Metrics;
pub use outbox::Effect;
pub use router::{Config, Router};
