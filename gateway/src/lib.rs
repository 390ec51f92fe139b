//! The gateway core: sessions, heartbeats, rooms, delivery, acks, outboxes, admission.
//!
//! Sans-IO: events in, effects out, as `Node` in the crate `node` passes them on. It opens no socket, reads
//! no clock and calls nobody: tokens are verified here, and users and rooms are found by the router shard
//! that owns them.

mod admission;
mod announce;
mod announce_window;
mod config;
mod dirty;
mod effect;
mod encoded;
mod ends;
mod gateway;
mod hash;
mod known_tokens;
mod latency;
mod layered;
mod limits;
mod login_window;
mod message_ids;
mod metrics;
mod notices;
mod outbox;
mod recall;
mod rooms;
mod session;
mod stay;
mod submitted;
mod telling;
mod timer;
mod token;
mod told;
mod unchanged;
mod unfinished;
mod view;

pub use config::{BACKEND_CODES, Config, Delivery, Destination, Drain, Heartbeat, Limits, Route, Routes};
pub use edge::{AuthoritiesPem, CertificatePem, HELLOS_PER_TURN, Port, Refusal, Rules, TlsServer};
pub use effect::Effect;
pub use gateway::{Gateway, Push, Setup};
pub use latency::{Histogram, Latency, RouteClass};
pub use limits::ENTRY_BYTES;
pub use metrics::Metrics;
pub use token::{
    Claims, JWKS_BYTES_MAX, Jwks, MoreClaims, Secrets, TokenError, TokenKeys, Verified, login_tag,
    mint_hs256, mint_hs256_with,
};
