//! The client protocol from outside: every frame, both encodings, both directions, however the stream is cut.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod frames;
mod fuzz;
mod golden;
mod java;
mod samples;
mod stream;
