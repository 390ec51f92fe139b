//! The bridge between fake shards and real servers: a backend over TCP, a redis-server.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests wait for real servers, and may panic

mod backend;
mod contract;
mod http;
mod pushes;
mod redis;
mod world;
