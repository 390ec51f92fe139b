//! Seeded hashing: repeatable for a seed; who picks room ids, addresses or tokens cannot guess it.

use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use wire::{AppId, MessageId, RoomId};

/// The hash of a room.
pub(crate) fn room(seed: u64, app: AppId, room: RoomId) -> u64 {
    one(seed, (app, room))
}

/// The hash of an address.
pub(crate) fn address(seed: u64, address: IpAddr) -> u64 {
    one(seed, address)
}

/// The hash of a token.
pub(crate) fn token(seed: u64, token: &str) -> u64 {
    one(seed, token)
}

/// The hash of a message id, which no client chooses: one multiplication, its halves folded.
pub(crate) fn message(id: MessageId) -> u64 {
    let product = u128::from(id.0) * 0xa076_1d64_78bd_642f;
    product as u64 ^ (product >> 64) as u64
}

fn one(seed: u64, value: impl Hash) -> u64 {
    SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()).hash_one(value)
}
