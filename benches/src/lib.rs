//! What speed is measured against: the raw loops that are the floor, and the clients that drive the peers.
//!
//! The raw loops speak just enough of the client protocol that the same load drives them and the gateway:
//! what differs between the two is then the server alone. Nothing here is part of the product, and no figure
//! is judged here: `cargo xtask bench` runs these programs and draws the table.
#![allow(clippy::disallowed_methods, reason = "what measures time reads the clock")]

pub mod peer;
#[allow(unsafe_code, reason = "the floor is the bare system calls, with no safe wrapper's cost on top")]
pub mod raw;
