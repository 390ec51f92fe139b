//! HTTP/1.1 for the admin port and the backend, with a limit on everything that a caller can hold:
//! connections, time, bytes of bodies, requests at work and refused ones; in all and for each address.
//!
//! [`Server::serve`] serves an axum router. A connection is in one phase at a time, and each phase but the
//! handler's own has a time-out. When there are too many connections, the one that has waited longest is
//! closed for the new one, so that silent callers keep nobody out, and callers of a crowd get a moment to say
//! what they want; if all are at work, the new one is answered 503. A handler reads its body by
//! [`body::read`], which knows the route's limit. A caller that closes its sending half gets its answer, and
//! one that hangs up does not stop what it has asked for. An address whose share of requests is at work waits
//! for its turn, and a request that waits for its body has none.
//!
//! A port may speak TLS, with the certificates of a [`TlsServer`]; it takes plain HTTP too then, from
//! programs of this machine. A handshake counts as the header of the first request.
//!
//! *Absent:* routes, secrets, HTTP/2, and what errors look like: the router's crate says all of that.
#![allow(clippy::disallowed_methods)] // a server reads the clock

mod bodies;
pub mod body;
mod connection;
mod connections;
mod limits;
mod peer;
mod port;
pub mod process;
mod refusals;
mod server;
pub mod site;
mod stats;
mod stream;
mod turns;

pub use edge::{Network, TlsServer};
pub use limits::Limits;
pub use peer::Peer;
pub use server::{REFUSED_CONNECTIONS_MAX, Server, listen};
pub use stats::Counts;
pub use turns::Class;
