//! A client of Sailfish: everything that section 10 of docs/PROTOCOL.md asks of a client.
//!
//! [`Core`] is the state machine. It knows no I/O and no clock: time, bytes and what the application wants go
//! in; bytes, timers, actions and events come out. The same inputs and the same seed give the same outputs.
//! [`start`] runs a core on tokio, over TCP, TLS or WebSocket (features `tokio` and `layers`, both on by
//! default):
//!
//! ```no_run
//! # #[cfg(feature = "tokio")]
//! # async fn run(token: String) {
//! use sailfish_client::{Config, Event, Outgoing, RoomId, Want, start};
//!
//! let (client, mut events) = start(Config::new("127.0.0.1:7777"), token);
//! client.join(RoomId(7), Some(Want::Last(20)));
//! while let Some(event) = events.next().await {
//!     if let Event::Message(message) = event
//!         && message.payload == "ping"
//!     {
//!         // The store of unsent messages may be full.
//!         let _ = client.send(Outgoing::to_room(RoomId(7), "pong"));
//!     }
//! }
//! # }
//! ```
//!
//! The core connects again when a connection is lost, logs in with tokens that it asks its provider for,
//! sends heartbeats, acks what it gets and shows it once, keeps each message until its send-ack, and joins
//! its rooms again where it left off.

mod address;
mod config;
mod core;
#[cfg(feature = "tokio")]
mod driver;
mod event;
mod outgoing;

pub use address::Address;
pub use config::{Config, Trust};
pub use core::{Action, Core};
#[cfg(feature = "tokio")]
pub use driver::{Client, Events, TokenProvider, start};
pub use event::{End, Event, Loss};
pub use outgoing::{Outgoing, Refused, To};
pub use shard::Instant;
pub use wire::client::{Encoding, FailReason, Message, NoticeCode, Outcome, Recovery, Want};
pub use wire::{AppId, BizCode, MessageId, RoomId, UserId};
