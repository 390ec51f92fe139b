//! Private servers for tests and measurements: Redis, and MariaDB with replicas, on free ports of loopback in
//! a temporary folder.
//!
//! They end with the process that started them, however that ends, and can be killed and started again in
//! between. Nothing here skips: where a server cannot be had, whoever asks for it panics and says what is
//! missing.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests wait for real servers, and may panic

mod claim;
mod folder;
mod mariadb;
mod process;
mod redis;
mod sentinels;

pub use claim::{claim, free_port, is_free, listen};
pub use folder::Folder;
pub use mariadb::MariaDb;
pub use process::Server;
pub use redis::Redis;
pub use sentinels::{MASTER, SentinelPlan, Sentinels};
