//! What hostile bytes may come to: the fuzz targets.
//!
//! Each [`Target`] takes any bytes, and must neither panic nor find that what it checks does not hold.
//! `fuzz/` runs them by libFuzzer, guided by coverage (`cargo xtask fuzz`); `tests/replay.rs` runs them on
//! the corpus that is kept, and on mutations of it by seed, as an ordinary test.
//!
//! Deliberately not here: what is right for well-formed input, which the crates' own tests say.

mod client;
mod config;
mod edge;
#[cfg(feature = "http")]
mod http;
mod input;
mod mutate;
mod peer;
mod said;
mod shake;
mod token;

pub use mutate::mutate;

/// Something that takes bytes from outside.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus in `fuzz/corpus/`.
    pub name: &'static str,
    /// Runs it; panics when it finds fault.
    pub run: fn(&[u8]),
    /// Inputs that are well formed, from which a corpus begins.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "client_stream", run: client::run, seeds: client::seeds },
    Target { name: "config", run: config::run, seeds: config::seeds },
    Target { name: "edge", run: edge::run, seeds: edge::seeds },
    #[cfg(feature = "http")]
    Target { name: "http_bodies", run: http::run, seeds: http::seeds },
    Target { name: "link_frames", run: shake::run_frames, seeds: shake::seeds_of_frames },
    Target { name: "link_handshake", run: shake::run_handshake, seeds: shake::seeds_of_handshake },
    Target { name: "link_peer", run: peer::run, seeds: peer::seeds },
    Target { name: "token", run: token::run, seeds: token::seeds },
];

/// Runs the target of that name.
///
/// # Panics
/// When there is none, or it finds fault.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of that name");
    (target.run)(bytes);
}
