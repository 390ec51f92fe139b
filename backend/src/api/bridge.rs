//! The bridge's events. docs/BACKEND.md is the contract.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request as HttpRequest, State};
use axum::http::HeaderMap;
use hmac::{Hmac, KeyInit, Mac};
use http_server::body::read;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::Sha256;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::{Error, ErrorBody};
use crate::event::Outcome;
use crate::{hex, intake};

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(events))
}

/// A batch of events.
#[derive(Deserialize, ToSchema)]
#[schema(as = Events, examples(json!({ "events": [{ "type": "online", "id": "210000-18a3f0c2b4d5e600-20", "app": 1, "user": 10001, "device": "phone", "login": "1763000042000000001" }] })))]
pub(crate) struct Batch {
    /// The events of one user come in the order in which they happened.
    #[schema(value_type = Vec<Object>)]
    pub(crate) events: Vec<Box<RawValue>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = EventResults, examples(json!({ "results": [{ "id": "210000-18a3f0c2b4d5e600-20", "status": "ok" }] })))]
struct Results {
    /// One for each event.
    results: Vec<EventResult>,
}

#[derive(Serialize, ToSchema)]
struct EventResult {
    /// The event's id.
    id: String,
    /// `ok`: it is done. `refused`: it will never be. `retry`: send it again.
    status: &'static str,
    /// Why it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Takes events of the gateways. Signed by the bridge: `X-Sailfish-Signature` is the HMAC-SHA-256 of
/// `X-Sailfish-Timestamp`, a dot and the body, in hexadecimal.
#[utoipa::path(post, path = "/bridge/events", request_body = Batch, responses(
    (status = 200, body = Results), (status = 400, body = ErrorBody)))]
async fn events(State(app): State<Arc<App>>, request: HttpRequest) -> Result<Json<Results>, Error> {
    let headers = request.headers().clone();
    if app.store.config.bridge_secret.is_empty() {
        return Err(Error::unauthorized("no secret is set for the bridge's events"));
    }
    let body = read(request, BATCH_BYTES_MAX).await?;
    check_signature(app.store.config.bridge_secret.as_bytes(), app.store.clock.now_ms(), &headers, &body)?;
    let Batch { events } = serde_json::from_slice(&body).map_err(Error::bad_request)?;
    let ids: Vec<String> = events.iter().map(|event| id_of(event.get())).collect();
    let outcomes = intake::take(&app, events.iter().map(|event| event.get())).await;
    let result = |(id, outcome): (String, Outcome)| {
        let (status, reason) = match outcome {
            Outcome::Done => ("ok", None),
            Outcome::Refused(reason) => ("refused", Some(reason)),
            Outcome::Again | Outcome::Waiting => ("retry", None),
        };
        EventResult { id, status, reason }
    };
    Ok(Json(Results { results: ids.into_iter().zip(outcomes).map(result).collect() }))
}

/// The id of an entry that may be no valid event.
pub(crate) fn id_of(event: &str) -> String {
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    serde_json::from_str(event).map_or_else(|_| String::new(), |Named { id }| id)
}

/// Whether the bridge has sent this, within [`AGE_MS_MAX`].
pub(crate) fn check_signature(
    secret: &[u8],
    now_ms: i64,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), Error> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let timestamp = header("x-sailfish-timestamp");
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    let signature = hex::bytes(header("x-sailfish-signature")).unwrap_or_default();
    // In constant time.
    mac.verify_slice(&signature).map_err(|_| Error::unauthorized("X-Sailfish-Signature is not right"))?;
    let age_ms = timestamp.parse::<i64>().ok().and_then(|then_ms| now_ms.checked_sub(then_ms));
    match age_ms.is_some_and(|age_ms| (-AGE_MS_MAX..=AGE_MS_MAX).contains(&age_ms)) {
        true => Ok(()),
        false => Err(Error::unauthorized(
            "X-Sailfish-Timestamp differs too much from the server's time; set the clocks",
        )),
    }
}

/// The longest batch; a bridge halves what is longer.
const BATCH_BYTES_MAX: usize = 2 << 20;
/// How far the bridge's clock and ours may be apart, and how long a request is good.
const AGE_MS_MAX: i64 = 5 * 60 * 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(timestamp: &str, signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-sailfish-timestamp", timestamp.parse().unwrap());
        headers.insert("x-sailfish-signature", signature.parse().unwrap());
        headers
    }

    /// `printf '%s' '1763000000123.{"events":[]}' | openssl dgst -sha256 -hmac 'it is secret'`
    const SIGNATURE: &str = "2c1c8c0e5a4baf9fdad472a2b547dba17e8e5870b6d0c50a4098825baafad930";

    #[test]
    fn a_signature_is_what_openssl_computes_and_good_for_five_minutes() {
        let then_ms = 1_763_000_000_123;
        let check = |secret: &[u8], now_ms, timestamp: &str, signature: &str, body: &[u8]| {
            check_signature(secret, now_ms, &headers(timestamp, signature), body).is_ok()
        };
        let (secret, time, body) = (&b"it is secret"[..], "1763000000123", &br#"{"events":[]}"#[..]);
        assert!(check(secret, then_ms, time, SIGNATURE, body));
        assert!(check(secret, then_ms, time, &SIGNATURE.to_uppercase(), body));
        assert!(check(secret, then_ms + AGE_MS_MAX, time, SIGNATURE, body));
        assert!(check(secret, then_ms - AGE_MS_MAX, time, SIGNATURE, body));
        assert!(!check(secret, then_ms + AGE_MS_MAX + 1, time, SIGNATURE, body));
        assert!(!check(secret, then_ms - AGE_MS_MAX - 1, time, SIGNATURE, body));
        assert!(!check(b"it is secreT", then_ms, time, SIGNATURE, body));
        assert!(!check(secret, then_ms, "1763000000124", SIGNATURE, body));
        assert!(!check(secret, then_ms, time, SIGNATURE, br#"{"events":[1]}"#));
        for signature in ["", "00", "zz", &SIGNATURE[..62], &format!("{SIGNATURE}00")] {
            assert!(!check(secret, then_ms, time, signature, body), "{signature}");
        }
        for timestamp in ["", "-9223372036854775808", "9223372036854775807", "1e3"] {
            assert!(!check(secret, then_ms, timestamp, SIGNATURE, body), "{timestamp}");
        }
    }
}
