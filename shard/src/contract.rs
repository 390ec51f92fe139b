//! The contract between a core and the engine that runs it.
//!
//! One turn of an engine:
//!
//! 1. take a bounded batch of ready completions and mail, and hand each to [`Shard::handle`];
//! 2. when [`Shard::poll_timeout`] is due, hand over [`Event::Timeout`];
//! 3. call [`Shard::poll_effect`] until it answers `None`, and carry out each effect;
//! 4. wait for completions, mail, or the instant that [`Shard::poll_timeout`] names; but not at all when
//!    [`Shard::has_more`].
//!
//! A core that has bytes for a connection sends [`Effect::Transmit`] once; the engine then takes them with
//! [`Shard::poll_transmit`], as one write. So all that one turn produced for a connection leaves in one send.
//!
//! `now` is the time in which the shard ran: it never goes back, and when a shard stood still (its process
//! was stopped, its machine paused), that time does not count, and `Timeout` waits until nothing is left to
//! read (for a second at most). So a core judges no peer whose bytes it could not read. For the wall clock
//! there is [`Event::Clocks`].
//!
//! The life of a [`ConnId`] begins with `Accepted` or `Connected` and ends with exactly one `Closed`,
//! whichever side ended it. Between the core's [`Effect::Close`] and that `Closed` no `Received` comes any
//! more.
//!
//! A core whose own queues are full says so by [`Shard::is_pushed_back`], and the engine leaves what accepted
//! connections send in their sockets until it says otherwise. It does the same while a mailbox of the process
//! is full, and tells the core by [`Event::MailWaits`].

use std::net::{IpAddr, SocketAddr};

use crate::{Clocks, ConnId, Instant, SendBatch, ShardId};

/// One core's share of the work: single-threaded, deterministic, without I/O.
pub trait Shard {
    /// What this shard can be sent: by other shards of its process, and by the control thread.
    type Mail: Send + 'static;
    /// What this shard tells the control thread.
    type Report: Send + 'static;

    /// Takes in one event. `now` never goes back from call to call.
    fn handle(&mut self, now: Instant, event: Event<'_, Self::Mail>);

    /// The next effect for the engine, in order; `None` when there is nothing left in this turn.
    fn poll_effect(&mut self, now: Instant) -> Option<Effect<Self::Mail, Self::Report>>;

    /// Whether the core left work for the next turn, which the engine then begins without waiting.
    fn has_more(&self) -> bool {
        false
    }

    /// Moves the bytes to write next on `conn` into `batch`, which comes empty. Called once for a `Transmit`,
    /// and again before the engine closes a connection gracefully, until the batch stays empty. At most one
    /// batch of a connection is in flight; `Event::Sent` tells its end.
    fn poll_transmit(&mut self, now: Instant, conn: ConnId, batch: &mut SendBatch);

    /// When the core wants `Event::Timeout`, at the latest; `None` for never.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Whether the engine is to take nothing from accepted connections: no `Received`, no `Finished`. All
    /// else goes on, the connections that the core opened itself among it, and accepting. Nothing is lost and
    /// order is kept: what waits comes when this is false again. Looked at once a turn, after the effects; so
    /// the events of a turn that began before still come, and only an event or a call of the engine may
    /// change the answer.
    fn is_pushed_back(&self) -> bool {
        false
    }
}

/// What happened, for a core.
#[derive(Debug)]
pub enum Event<'a, M> {
    /// A listener took a connection from `peer`.
    Accepted {
        /// The connection's name from here on.
        conn: ConnId,
        /// The remote address.
        peer: IpAddr,
        /// Which listener it was, counted from 0 in the order in which the engine was given them.
        listener: u16,
    },
    /// An [`Effect::Connect`] succeeded.
    Connected {
        /// The connection's name from here on.
        conn: ConnId,
        /// The token of the `Connect`.
        token: u64,
    },
    /// An [`Effect::Connect`] failed; there is no connection.
    ConnectFailed {
        /// The token of the `Connect`.
        token: u64,
        /// Why.
        error: ConnectError,
    },
    /// Bytes came in, in order, split anywhere. They are gone when `handle` returns.
    Received {
        /// From which connection.
        conn: ConnId,
        /// Never empty.
        bytes: &'a [u8],
    },
    /// The batch in flight on this connection is written to the socket; the next `Transmit` may be asked for.
    /// It does not come for a batch that a close cut off.
    Sent {
        /// Which connection.
        conn: ConnId,
        /// The size of the batch.
        bytes: usize,
    },
    /// The peer will send no more (FIN). The core may still transmit, and closes when it is done.
    Finished {
        /// Which connection.
        conn: ConnId,
    },
    /// The connection is gone and its name is free for reuse.
    Closed {
        /// Which connection.
        conn: ConnId,
        /// How it ended.
        reason: CloseReason,
    },
    /// Mail of another shard, or of the control thread.
    Mail {
        /// Its sender.
        from: ShardId,
        /// Its contents.
        mail: M,
    },
    /// The instant of [`Shard::poll_timeout`] has come.
    Timeout,
    /// What other clocks show from here on. Until this comes for the first time, they show the same as `now`.
    Clocks(Clocks),
    /// Whether mail of some shard of this process waits, from here on, for room in a mailbox. While it does,
    /// no accepted connection is read, on any shard; those that the core opened are. At the start none waits.
    MailWaits(bool),
    /// Whether a turn leaves bytes of connections unread, because it takes no more or buffers are full; sent
    /// before [`Event::Timeout`]. While it does, a peer's bytes may lie in its socket. At the start all is
    /// read.
    InputWaits(bool),
}

/// What the engine shall do for a core.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect<M, R> {
    /// There are bytes for `conn`; take them with [`Shard::poll_transmit`]. Ignored while a batch is in
    /// flight.
    Transmit {
        /// Which connection.
        conn: ConnId,
    },
    /// End the connection.
    Close {
        /// Which connection.
        conn: ConnId,
        /// What becomes of the bytes not yet written.
        linger: Linger,
    },
    /// Open a connection.
    Connect {
        /// Comes back in `Connected` or `ConnectFailed`.
        token: u64,
        /// The address to connect to.
        peer: SocketAddr,
        /// The source address, or any.
        source: Option<IpAddr>,
    },
    /// Send mail to another shard. Order is kept per pair.
    Mail {
        /// The receiver.
        to: ShardId,
        /// The mail.
        mail: M,
    },
    /// Send a report to the control thread. Order is kept.
    Report(R),
    /// Close the listener: no `Accepted` comes any more.
    StopAccepting,
    /// Close everything and return from the engine's loop.
    Stop,
}

/// What becomes of a closing connection's unwritten bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Linger {
    /// Write what the core still has, shut the write side, drain the peer until its FIN, then close: the last
    /// notice gets through. Bounded by the engine's linger time.
    Flush,
    /// Drop everything and reset.
    Abort,
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The core asked for it.
    Local,
    /// The peer reset it.
    Reset,
    /// The socket reported another error.
    Failed,
}

/// Why a connect failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectError {
    /// Nobody listens there, or the peer reset.
    Refused,
    /// No answer in time.
    TimedOut,
    /// No route, no such address, or the source address cannot be bound.
    Unreachable,
    /// Out of file descriptors, ports or memory.
    Exhausted,
    /// Anything else.
    Other,
}
