//! The layers between a client's socket and its frames, for clients that come over the public Internet:
//! bytes -> (PROXY) -> (TLS) -> (WebSocket) -> frames.
//!
//! Sans-IO like the cores: bytes in, bytes out. The port of a connection decides its layers ([`Port`]); a
//! connection without layers never meets this crate. All input has a limit, and memory is allocated only for
//! bytes that came. [`ClientLayers`] are the other end of TLS and WebSocket.
//!
//! Deliberately not here: what a frame is, sessions, time. The login deadline of a connection bounds its
//! handshakes too.

mod client;
mod input;
mod layers;
mod network;
mod proxy;
mod refusal;
mod rules;
mod tls;
mod websocket;

pub use client::{Broken, ClientLayers, ClientPort, TlsClient, Upgrade};
pub use input::{Form, Input};
pub use layers::{Layers, Port, Scratch};
pub use network::{Network, share_of};
pub use refusal::Refusal;
pub use rules::Rules;
pub use tls::{AuthoritiesPem, CertificatePem, HELLOS_PER_TURN, SharedKey, Tls, TlsServer};
pub use websocket::{TEXT_HEADER_BYTES_MAX, put_text_header};
