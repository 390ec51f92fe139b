//! A scripted server with faults, which plays scenarios against a client and judges what the server saw and
//! what the client printed. The contract between the two stands in `clients/README.md`.
//!
//! The server's side is written with blocking sockets and one script for each scenario, in the order in which
//! things happen. It is deliberately no gateway: it says what its script says, also what no gateway would.
#![allow(clippy::disallowed_methods)] // the scripts wait for a real program

mod connection;
mod play;
mod program;
mod scenarios;
mod token;
mod transport;

pub use play::{Over, Scenario, play, serve};
pub use program::Command;
pub use scenarios::SCENARIOS;

/// What a script ends with: the fault that it found, in words for the author of the client.
pub type Verdict<T = ()> = Result<T, String>;

/// Ends a script with a fault unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err(format!($($why)+));
        }
    };
}
pub(crate) use ensure;
