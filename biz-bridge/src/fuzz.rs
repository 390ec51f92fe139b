//! The readers of bodies and entries, for the fuzz targets.

use traces::Sampling;

use crate::event::Entry;
use crate::push_stream::{self, Raw};
use crate::{Item, http};

/// An event as the backend gets it.
pub fn event(item: &Item) -> Vec<u8> {
    Entry::new(item, Sampling::default()).json
}

/// What a backend answers to these events.
pub fn answer(items: &[Item], body: &[u8]) -> bool {
    let entries: Vec<Entry> = items.iter().map(|item| Entry::new(item, Sampling::default())).collect();
    http::read(&entries, body).is_ok()
}

/// An entry of the push stream.
pub fn push(bytes: &[u8]) -> bool {
    let raw = Raw { id: "17-0".into(), bytes: bytes.to_vec(), tries: 1, is_gone: false };
    push_stream::parse(&raw).is_ok()
}
