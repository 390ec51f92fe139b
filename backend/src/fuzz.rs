//! The readers of bodies of requests and answers, for the fuzz targets. Nothing is done with the result, as
//! there is no database.

use axum::http::HeaderMap;

use crate::api::bridge;
use crate::event::{Event, EventKind};
use crate::{PushOutcome, intake, membership, payment};

/// Reads a body of `POST /bridge/events`, and the presence in it. Returns the number of events.
pub fn events(body: &[u8]) -> usize {
    let Ok(bridge::Batch { events }) = serde_json::from_slice(body) else { return 0 };
    let read = |text: &str| {
        let id = bridge::id_of(text);
        let event: Event = serde_json::from_str(text).ok()?;
        assert_eq!(id, event.id, "an event is answered under its id");
        if let EventKind::Request(request) = &event.kind {
            let _ = request.data.bytes().map(|payload| gift(&payload));
        }
        Some(event)
    };
    let events: Vec<Event> = events.iter().filter_map(|event| read(event.get())).collect();
    let told = membership::told(&events);
    let presence = told.presence.clone();
    let _ = told.changes(&presence, Vec::new());
    events.len()
}

/// The payload of a gift.
pub fn gift(payload: &[u8]) -> bool {
    serde_json::from_slice::<intake::GiftPayload>(payload).is_ok()
}

/// The signature of a request of a bridge.
pub fn signature(timestamp: &str, signature: &str, body: &[u8]) {
    let mut headers = HeaderMap::new();
    for (name, text) in [("x-sailfish-timestamp", timestamp), ("x-sailfish-signature", signature)] {
        if let Ok(value) = text.parse() {
            headers.insert(name, value);
        }
    }
    assert!(bridge::check_signature(b"a secret", i64::MAX, &headers, body).is_err(), "nobody has signed it");
}

/// A callback of a payment provider.
pub fn callback(body: &[u8]) -> bool {
    serde_json::from_slice::<payment::Callback>(body).is_ok()
}

/// The push API's outcome of a message.
pub fn push_outcome(body: &[u8]) -> bool {
    serde_json::from_slice::<PushOutcome>(body).is_ok()
}
