//! The options of an engine.

use std::net::SocketAddr;
use std::time::Duration;

use crate::Clock;

/// Connections of one ring beside a shard's main one; the limit of open files, if that is less.
pub const RING_CONNECTIONS_MAX: u32 = 1 << 15;

/// How to run shards. The same for all of them.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; nowhere, if empty. Port 0 takes a free one; all shards share each. `Event::Accepted`
    /// tells a core which of them took a connection.
    pub listen: Vec<SocketAddr>,
    /// The shards share no port: shard `i` listens alone, on each port of `listen` plus `i`. Port 0 takes
    /// free ones in a row.
    pub listen_each: bool,
    /// The core of each shard. `None` pins shard `i` to the `i`-th core the process may use if these are as
    /// many as its shards, and pins nothing otherwise; an empty list pins nothing.
    pub pin: Option<Vec<usize>>,
    /// Connections of one shard, accepted and opened ones together.
    pub connections_max: u32,
    /// How many of these may be open files of the process. The `uring` engine keeps the others as direct
    /// descriptors, which are no open files. The other engines know only open files, so their caller must
    /// count these.
    pub open_connections_max: u32,
    /// Direct descriptors in one ring, at most the limit of open files. A shard has up to
    /// [`RINGS_MAX`](crate::RINGS_MAX) rings for them.
    pub ring_connections_max: u32,
    /// How long a closing connection may take to flush and to see the peer's FIN.
    pub linger: Duration,
    /// `SO_SNDBUF` of accepted connections, in bytes; `None` leaves it to the kernel.
    pub send_buffer_bytes: Option<u32>,
    /// `SO_RCVBUF` of every connection, in bytes; `None` leaves it to the kernel.
    pub recv_buffer_bytes: Option<u32>,
    /// Receive buffers of one shard, shared by its accepted connections: a power of two, at most 32,768. A
    /// shard that listens nowhere has them for the connections that its core opens.
    pub recv_buffers: u16,
    /// Size of one receive buffer. The `uring` engine puts several small receives into one, from Linux 6.12
    /// on.
    pub recv_buffer_size_bytes: u32,
    /// Receive buffers of one shard that listens, shared by the connections that its core opens, from the
    /// first on: a power of two, at most 32,768.
    pub opened_recv_buffers: u16,
    /// Size of one of them.
    pub opened_recv_buffer_size_bytes: u32,
    /// Connections the kernel may hold ready for one listener.
    pub backlog: u32,
    /// The clock that gives cores the time.
    pub clock: Clock,
    /// Whether the time in which a shard stood still counts for its core, too: for one that measures. Else
    /// deadlines wait.
    pub counts_stillness: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            listen_each: false,
            pin: None,
            connections_max: 1 << 20,
            open_connections_max: u32::MAX,
            ring_connections_max: RING_CONNECTIONS_MAX,
            linger: Duration::from_secs(1),
            send_buffer_bytes: None,
            recv_buffer_bytes: None,
            recv_buffers: 512,
            recv_buffer_size_bytes: 4096,
            opened_recv_buffers: 64,
            opened_recv_buffer_size_bytes: 16 << 10,
            backlog: 4096,
            clock: Clock::start(),
            counts_stillness: false,
        }
    }
}

impl Options {
    /// Whether some connections are to be direct descriptors.
    pub(crate) fn has_rings(&self) -> bool {
        self.open_connections_max < self.connections_max
    }

    /// Number and size of the receive buffers that the main ring has for accepted connections, or for those
    /// that the core opens.
    pub(crate) fn recv_buffers_of(&self, accepted: bool) -> (u16, u32) {
        if accepted || self.listen.is_empty() {
            (self.recv_buffers, self.recv_buffer_size_bytes)
        } else {
            (self.opened_recv_buffers, self.opened_recv_buffer_size_bytes)
        }
    }
}
