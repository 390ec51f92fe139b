//! The backend: the conventional service that holds users and money.
//!
//! It speaks HTTP with apps (JSON, one file a resource in `api/`), takes the gateway's events through the
//! bridge, and pushes to clients through it. State lives in a database (MySQL or MariaDB; SQLite embedded), a
//! cache (Redis; in the process) and a durable queue (Redis Streams; a table). The money rules stand in
//! `gift/`, `payment.rs` and, for coins that are given away, `wallet.rs`.
//!
//! *Absent:* connections of clients, and where they are: that is the gateway's and the router's.
#![allow(clippy::disallowed_methods)] // a service reads clocks and starts tasks

mod api;
mod app;
mod batches;
mod cache;
mod clock;
mod config;
mod connection;
mod db;
mod error;
mod event;
mod event_streams;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod gift;
mod hex;
mod hooks;
mod http;
mod ids;
mod inbox;
mod intake;
mod login;
mod login_code;
mod membership;
mod metrics;
mod migrations;
mod order_expiry;
mod orders;
mod outbox;
mod pages;
mod payment;
mod phone;
mod push;
mod queue;
mod random;
mod request_id;
mod revocations;
mod rooms;
mod run;
mod session_check;
mod sms;
mod stop;
mod store;
mod tables;
mod trace;
mod urls;
mod users;
mod wallet;
mod webhook;

pub use app::App;
pub use cache::{Cache, Hold, HoldAsk};
pub use clock::Clock;
pub use config::{Class, Config, Failing};
pub use connection::Servers;
pub use db::{Db, Dialect, Pool};
pub use error::Error;
pub use gift::{Answer, Contents, GiftRequest, Gifts, Identity, Reason};
pub use ids::{Ids, Order};
pub use outbox::{Message, Outbox, Target};
pub use push::{Push, PushItem, PushOutcome};
pub use queue::{AnyQueue, Job, JobId, Queue, TAKE_TIME, TRIES_MAX, Topic};
pub use run::Backend;
pub use store::Store;
