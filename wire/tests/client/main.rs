//! The client protocol from outside: every frame, both encodings, both directions, however the stream is cut.

mod frames;
mod fuzz;
mod golden;
mod java;
mod samples;
mod stream;
