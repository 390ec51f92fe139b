//! The gateway core: sessions, heartbeats, rooms, delivery, acks, outboxes, admission.
//!
//! Sans-IO: events in, effects out, by the contract of [`shard::Shard`]. It opens no socket, reads no clock and calls
//! nobody: tokens are verified here, and users and rooms are found by the router shard that owns them.

mod config;
mod limits;
mod token;

pub use config::{Config, Delivery, Destination, Drain, Heartbeat, Limits, Route, Routes};
pub use token::{Claims, TOKEN_BYTES_MAX, TokenError, TokenKeys, mint_hs256};
