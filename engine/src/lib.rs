//! Thread-per-core I/O: runs any [`shard::Shard`] on sockets.
//!
//! Each shard has a thread of its own, pinned where each has a core, with its own listener (on the port that
//! all share by `SO_REUSEPORT`, or on one of its own), its own connections and its own pools. Shards share
//! nothing but mailboxes. An engine knows bytes, not frames: there is no protocol in here, no business rule
//! and no dependency on `wire`.
//!
//! Three policies of every engine, whatever its [`Kind`]:
//!
//! - **Backpressure.** A mailbox is bounded. Mail that does not fit waits with its sender, in order, and
//!   while any of it waits, no shard of the process reads accepted connections; all go on taking mail,
//!   sending and keeping time. So a slow shard slows the clients whose messages it cannot handle, and memory
//!   grows only by what has been read already. A core may ask for the same by
//!   [`shard::Shard::is_pushed_back`], for its own shard. Connections that a core opened itself go on in both
//!   cases, and unread bytes of the others take none of their receive buffers.
//! - **Standing still.** A shard that did not run, because its process was stopped, its machine paused or its
//!   core busy, reads before it judges: the time in which it stood still does not count for its core
//!   (`time.rs`).
//! - **Full shard.** A connection past [`Options::connections_max`], or one whose peer is gone before its
//!   address was read, is closed at once and counted; the listener goes on. Out of file descriptors,
//!   accepting pauses for 100 ms.
//!
//! The `uring` engine holds more connections than the process may have open files: those past
//! [`Options::open_connections_max`] are direct descriptors, each in the table of one of several rings.

mod choice;
mod clock;
#[cfg(feature = "glommio")]
mod glommio;
mod listener;
mod mailbox;
mod monoio;
mod options;
mod running;
mod seat;
mod socket;
mod stats;
mod stdout;
mod sys;
mod tasks;
mod time;
mod uring;

pub use choice::{Chosen, Kind, choose};
pub use clock::Clock;
pub use mailbox::{MAILBOX_CAPACITY, Remote};
pub use options::{Options, RING_CONNECTIONS_MAX};
pub use running::{Running, start};
pub use stats::{Counter, HISTOGRAM_BUCKETS, Histogram, Stats};
pub use stdout::stdout_was_closed;
pub use uring::{RING_LOCKED_BYTES, RINGS_MAX};
