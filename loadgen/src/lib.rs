//! A load generator for the gateway: a great many clients in one core, an open-loop scheduler, and the proof
//! of what became of every message.
//!
//! [`Fleet`] is a [`shard::Shard`], so it runs on the engines that the server runs on, and in memory in
//! tests. It keeps to what a real client does: it logs in, sends heartbeats at the period the server told,
//! acks what it gets, keeps a message until its send-ack comes and repeats it, after a while and after a
//! reconnect, with the same client message id. Of several targets it tries one after the other.
//!
//! What comes twice is judged by who is to blame. Under one server id, the server repeats it, as it may.
//! Under two, a message is `duplicated`, unless its receiver had reconnected in between or its sender had
//! repeated it, which the copies' stamps say: then it is `redelivered`, and, in the second case, also
//! `renewed`. What a member of a room is owed stands in `rooms.rs`.
//!
//! Operation `i` has the intended time `start + i / rate`, whatever the server does meanwhile. Latency is
//! measured from there, so a server that stalls is charged for every operation it kept waiting (no
//! coordinated omission).
//!
//! Not in here: processes, sockets, clocks, the terminal. Several fleets on one clock make one run;
//! [`Report`] merges what they say.

mod client;
mod fleet;
mod gifts;
mod mail;
mod order;
mod places;
mod plan;
mod render;
mod report;

mod rooms;
mod schedule;
mod stamp;
mod tally;

pub use fleet::{Fleet, Mint};
pub use mail::{Mail, Progress, Repeated, RoomEnd, Word};
pub use places::Places;
pub use plan::{Plan, Scenario, Sources};
pub use render::render;
pub use report::{
    GeneratorCost, GeneratorUse, Percentiles, Report, Run, ServerCost, ServerUse, StormFigures,
};

pub use stamp::STAMP_BYTES;
pub use tally::{Samples, Tally};
