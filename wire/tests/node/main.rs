//! The node protocol from outside: every frame, every message, however the stream is cut or the bytes are
//! broken.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod batches;
mod frames;
mod golden;
mod samples;
mod stream;
