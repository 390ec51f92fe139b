//! Links from outside: some nodes, a network of byte pipes, and a clock that jumps.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod flow;
mod handshake;
mod random;
mod sessions;
mod tls;
mod world;
