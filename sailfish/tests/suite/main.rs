//! What the binary does, tried from outside: processes on real sockets, with the servers and clients that
//! they meet in use. One binary for all, since each would be linked with the whole of Sailfish.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests wait for real processes, and may panic

mod common;

mod admin;
mod backend;
mod backend_log;
mod bad_input;
mod bridge;
mod browser;
mod chat;
mod clients_java;
mod clients_typescript;
mod cluster;
mod control;
mod engines;
mod exit_codes;
mod faults;
mod history;
mod http;
mod inbox;
mod load;
mod manual;
mod netns;
mod outsiders;
mod sdk;
mod secrets;
mod shares;
mod stdout;
mod stillness;
mod tls;
mod tls_links;
mod tls_outward;
mod tokens;
mod top;
mod traces;
mod up;
mod websocket;
