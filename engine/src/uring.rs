//! The `uring` engine: one io_uring for each shard, and more past the limit of open files; no runtime.
//!
//! A turn waits in one system call, which also hands over everything that the turn before it queued. Accepts
//! and receives are multishot: armed once for a connection, they go on by themselves. Received bytes land in
//! buffers that all accepted connections of the shard share, or all opened ones ([`buffers`]), so that an
//! idle connection costs a table entry ([`conns`]) and kernel memory only. Receives that the shard may not
//! take in yet wait in [`intake`]. A connection has one send in flight at most ([`sends`]).
//!
//! A connection is freed only when all its operations have ended, so a late completion never meets the next
//! user of its index; the generation in the [`token`] checks that once more.

mod buffers;
mod close;
mod connect;
mod connects;
mod conns;
mod driver;
mod file;
mod file_ring;
mod group;
mod held;
mod intake;
mod kernel;
mod probe;
mod receive;
mod ring;
mod sends;
mod token;

use std::io;

use shard::{Shard, ShardId};

use crate::seat::Seat;

pub(crate) use probe::probe;

/// Rings of a shard beside its main one, for connections past
/// [`Options::open_connections_max`](crate::Options::open_connections_max).
pub const RINGS_MAX: u32 = file_ring::FURTHER_RINGS_MAX as u32;
/// Memory that the kernel locks for a ring: 168 KiB for its entries and completions, and two pages to spare.
pub const RING_LOCKED_BYTES: u64 = 176 << 10;

/// Runs the shard until its core stops.
pub(crate) fn run<S: Shard>(
    seat: Seat<S::Mail, S::Report>,
    build: impl FnOnce(ShardId) -> S,
) -> io::Result<()> {
    driver::Driver::new(seat, build)?.run()
}
