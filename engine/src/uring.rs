//! The `uring` engine: one io_uring for each shard, no runtime.

mod probe;

use std::io;

use shard::{Shard, ShardId};

use crate::running::Seat;

pub(crate) use probe::probe;

/// Runs the shard until its core stops.
pub(crate) fn run<S: Shard>(seat: Seat<S::Mail>, build: impl FnOnce(ShardId) -> S) -> io::Result<()> {
    let _core = build(seat.id);
    seat.ready();
    Err(io::ErrorKind::Unsupported.into())
}
