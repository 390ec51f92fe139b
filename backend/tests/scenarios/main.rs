//! The backend from outside: over HTTP, and as the library that `sailfish` runs.
//!
//! One binary, so that it is linked once; one module a topic. What holds for every deployment is written with
//! `both!`, which runs it embedded (SQLite, all in the process) and in production's form (MariaDB with a
//! replica, Redis).
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

#[macro_use]
mod common;

mod bridge;
mod cache;
mod consistency;
mod database;
mod document;
mod events;
mod gift;
mod hooks;
mod ids;
mod inbox;
mod login;
mod login_limits;
mod pay;
mod pushes;
mod queue;
mod rooms;
mod sentinels;
mod service;
mod sessions;
mod tags;
mod trouble;
mod users;
