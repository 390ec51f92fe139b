//! The door for the bridge's events. docs/BACKEND.md is the contract.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request as HttpRequest, State};
use axum::http::HeaderMap;
use hmac::{Hmac, KeyInit, Mac};
use http_server::body::read;
use logs::warn;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::Sha256;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::{Error, ErrorBody};
use crate::event::{Event, EventKind, Outcome, Request, Undelivered};
use crate::gift::{self, Answer, Contents, Decided, GiftRequest, Identity, Reason};
use crate::hooks::before_send;
use crate::inbox;
use crate::membership;
use crate::trace::{self, Trace};

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(events))
}

/// A batch of events.
#[derive(Deserialize, ToSchema)]
#[schema(as = Events, examples(json!({ "events": [{ "type": "online", "id": "210000-18a3f0c2b4d5e600-20", "app": 1, "user": 10001, "device": "phone", "login": "1763000042000000001" }] })))]
pub(crate) struct Batch {
    /// In the order in which they happened, as far as they are of one user.
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
    /// The event's.
    id: String,
    /// `ok`: it is done. `refused`: it will never be. `retry`: it is to be sent again.
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
    let outcomes = take(&app, events.iter().map(|event| event.get())).await;
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

/// The id of what may be no event besides.
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
    let signature = bytes_of(header("x-sailfish-signature")).unwrap_or_default();
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

/// The bytes of hexadecimal digits.
pub fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.bytes().map(|digit| char::from(digit).to_digit(16)).collect::<Option<Vec<u32>>>()?;
    (digits.len() % 2 == 0)
        .then(|| digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

/// Takes events, however they came; what became of each.
pub async fn take(app: &Arc<App>, events: impl ExactSizeIterator<Item = &str>) -> Vec<Outcome> {
    let mut outcomes = vec![Outcome::Done; events.len()];
    let mut requests = Vec::new();
    let (mut presence, mut presence_at) = (Vec::new(), Vec::new());
    let (mut undelivered, mut undelivered_at) = (Vec::new(), Vec::new());
    for (index, event) in events.enumerate() {
        match serde_json::from_str::<Event>(event) {
            Ok(Event { kind: EventKind::Request(request), id }) => requests.push((index, id, request)),
            Ok(Event { kind: EventKind::Undelivered(message), .. }) => {
                undelivered.push(message);
                undelivered_at.push(index);
            }
            Ok(event) => {
                presence.push(event);
                presence_at.push(index);
            }
            Err(error) => outcomes[index] = Outcome::Refused(format!("bad_event: {error}")),
        }
    }
    // A receiver whose session came in this batch is known by the time that its messages are judged.
    let sessions_first = async {
        let present = take_presence(app, &presence).await;
        let kept = match present {
            Outcome::Again => vec![Outcome::Again; undelivered.len()],
            _ => keep(app, &undelivered).await,
        };
        (present, kept)
    };
    let (answers, (present, kept)) = tokio::join!(take_requests(app, requests), sessions_first);
    presence_at.into_iter().for_each(|index| outcomes[index] = present.clone());
    undelivered_at.into_iter().zip(kept).for_each(|(index, outcome)| outcomes[index] = outcome);
    answers.into_iter().for_each(|(index, outcome)| outcomes[index] = outcome);
    outcomes
}

async fn take_presence(app: &App, events: &[Event]) -> Outcome {
    let take = async {
        membership::take(&app.store, events).await?;
        let came = events.iter().filter_map(|event| match &event.kind {
            EventKind::Online(session) => membership::device_of(session),
            _ => None,
        });
        inbox::came(&app.inbox, &came.collect()).await
    };
    match events.is_empty() {
        true => Outcome::Done,
        false => outcome_of(take.await, "presence"),
    }
}

async fn keep(app: &App, messages: &[Undelivered]) -> Vec<Outcome> {
    match inbox::keep(&app.inbox, messages).await {
        Ok(outcomes) => outcomes,
        Err(error) => vec![outcome_of(Err(error), "inbox"); messages.len()],
    }
}

/// A request with its place in the batch and the id of its event.
type Indexed = (usize, String, Request);

/// All at once: a request waits for its commit, which takes many together. One that takes too long is sent
/// again, and the rest of its batch is not.
async fn take_requests(app: &Arc<App>, requests: Vec<Indexed>) -> Vec<(usize, Outcome)> {
    let mut outcomes: BTreeMap<_, _> = requests.iter().map(|(index, ..)| (*index, Outcome::Again)).collect();
    let mut tasks = JoinSet::new();
    // Messages of one sender, which stay in their order.
    let mut asked: BTreeMap<(i32, i64), Vec<Indexed>> = BTreeMap::new();
    for (index, id, request) in requests {
        if is_asked_about(app, &request) {
            asked.entry((request.app, request.user)).or_default().push((index, id, request));
            continue;
        }
        let (app, trace) = (app.clone(), Trace::parse(request.traceparent.as_deref()));
        let taken = async move {
            let taken = tokio::time::timeout(REQUEST_TIME, take_request(&app, request)).await;
            vec![(index, taken.unwrap_or(Outcome::Again))]
        };
        tasks.spawn(taken.instrument(trace::span(&id, trace.as_ref())));
    }
    for (_, messages) in asked {
        tasks.spawn(take_asked(app.clone(), messages));
    }
    while let Some(taken) = tasks.join_next().await {
        // A task that panicked has no outcome.
        outcomes.extend(taken.unwrap_or_default());
    }
    outcomes.into_iter().collect()
}

fn is_asked_about(app: &App, request: &Request) -> bool {
    let before_send = app.hooks.before_send.as_ref();
    request.app == app.store.config.app && before_send.is_some_and(|hook| hook.covers(request.biz_code))
}

/// Messages of one sender that a service is asked about. Those behind one that is not decided wait for it.
async fn take_asked(app: Arc<App>, messages: Vec<Indexed>) -> Vec<(usize, Outcome)> {
    let Some(hook) = &app.hooks.before_send else { return Vec::new() };
    let mut outcomes: Vec<_> = messages.iter().map(|(index, ..)| (*index, Outcome::Waiting)).collect();
    let deadline = Instant::now() + REQUEST_TIME;
    for (place, (_, id, request)) in messages.iter().enumerate() {
        outcomes[place].1 = before_send::take(hook, id, request).await;
        let is_open = matches!(outcomes[place].1, Outcome::Again | Outcome::Waiting);
        if is_open || Instant::now() > deadline {
            break;
        }
    }
    outcomes
}

/// What a client says of a gift, in the spelling of packets or of the HTTP API. What it says besides is for
/// others.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GiftPayload {
    #[serde(alias = "gift_id")]
    gift_id: i64,
    #[serde(alias = "receiver_id")]
    receiver_id: i64,
    #[serde(default = "one")]
    count: i64,
    price: Option<i64>,
    /// The packet's target, if it says so too.
    #[serde(alias = "room_id")]
    room_id: Option<i64>,
}

fn one() -> i64 {
    1
}

async fn take_request(app: &App, request: Request) -> Outcome {
    match request.biz_code {
        _ if request.app != app.store.config.app => Outcome::Refused("unknown_app".into()),
        gift::SEND | gift::PK => take_gift(app, request).await,
        _ => Outcome::Refused("no_route".into()),
    }
}

/// Done means decided: paid, or refused and the sender told so.
async fn take_gift(app: &App, request: Request) -> Outcome {
    let Request { user, room, biz_code, client_msg_id, data, .. } = request;
    let payload = data.bytes().unwrap_or_default();
    let payload: GiftPayload = match serde_json::from_slice(&payload) {
        Ok(payload) => payload,
        Err(error) => return refuse_bad(app, user, client_msg_id, error),
    };
    // The gateway has checked that the session is in the packet's room. What the payload names, nobody has.
    let Some(room_id) = room.filter(|room| payload.room_id.is_none_or(|named| named == *room)) else {
        return refuse_bad(app, user, client_msg_id, "roomId: want the room that the packet is for");
    };
    let GiftPayload { gift_id, receiver_id, count, price, .. } = payload;
    let code = Contents::code_of_request(biz_code);
    let contents = Contents { gift_id, room_id, receiver_id, count, code };
    let identity = Identity { sender_id: user, key: client_msg_id };
    let request = GiftRequest { identity, contents, price, is_in_room: true };
    match app.gifts.submit(&request, gift::Limit::Told).await {
        // The sender was told so often that its send-ack has to do.
        Ok(Decided { answer: Answer::Refused(Reason::RateLimited), told: None }) => {
            Outcome::Refused("rate_limited".into())
        }
        Ok(Decided { told: None, .. }) => Outcome::Done,
        Ok(Decided { told: Some(told), .. }) => match tokio::time::timeout(TELL_TIME, told).await {
            Ok(Ok(())) => Outcome::Done,
            _ => Outcome::Again, // and the sender is told then
        },
        Err(error) if error.is_transient() => Outcome::Again,
        Err(error) => {
            let Identity { sender_id, key } = request.identity;
            refuse_bad(app, sender_id, key, error)
        }
    }
}

/// Refuses what is no gift.
fn refuse_bad(app: &App, sender_id: i64, key: String, error: impl Display) -> Outcome {
    app.gifts.refuse_bad(Identity { sender_id, key });
    Outcome::Refused(format!("bad_request: {error}"))
}

fn outcome_of(result: Result<(), Error>, what: &str) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(error) if error.is_transient() => {
            warn!(%error, what, "cannot store events now; the bridge will send them again");
            Outcome::Again
        }
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

/// How long a request may take: less than a bridge waits for its batch (5 s).
const REQUEST_TIME: Duration = Duration::from_secs(4);
/// How long a request waits until its sender is told of a refusal.
const TELL_TIME: Duration = Duration::from_secs(2);
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
