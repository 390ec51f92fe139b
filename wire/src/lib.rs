//! Every byte layout of Sailfish: the client protocol, and the messages between gateway and router shards.
//!
//! Pure: no I/O, no clock, no async. Decoding borrows from the input and cannot panic on any bytes; encoding
//! appends to a buffer of the caller. docs/PROTOCOL.md draws every frame.

pub mod client;
mod ids;
pub mod node;

pub use ids::{AppId, BizCode, ClientMsgId, DeviceClass, EPOCH_UNIX_MS, MessageId, RoomId, UserId};
