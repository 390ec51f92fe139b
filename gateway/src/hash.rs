//! Seeded hashing: repeatable for a seed, and not to be guessed by who chooses room ids or addresses.

use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use wire::{AppId, RoomId};

/// The hash of a room.
pub(crate) fn room(seed: u64, app: AppId, room: RoomId) -> u64 {
    one(seed, (app, room))
}

/// The hash of an address.
pub(crate) fn address(seed: u64, address: IpAddr) -> u64 {
    one(seed, address)
}

fn one(seed: u64, value: impl Hash) -> u64 {
    SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()).hash_one(value)
}
