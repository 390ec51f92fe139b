//! Pushes to clients, by the control API of a bridge, gateway or `sailfish up` (docs/BACKEND.md, "Pushes").

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use serde::{Deserialize, Serialize};
use trust::{HttpClient, Kept};

use crate::config::Config;
use crate::error::Error;
use crate::event::Data;

/// Speaks with the control API. Connections are kept open.
pub struct Push {
    client: HttpClient,
    url: String,
    bearer: Option<HeaderValue>,
    counters: Counters,
}

/// A message on its way to clients.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PushItem {
    /// The app.
    pub app: i32,
    /// Whom it is for; or a room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<i64>,
    /// The room it is for; or a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<i64>,
    /// What it is about.
    pub biz_code: i32,
    /// Pushes with the same id to the same target are delivered once; up to 64 bytes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_msg_id: String,
    /// The payload.
    #[serde(flatten)]
    pub data: Data,
    /// Whom receivers see as its sender; 0 for the backend.
    #[serde(skip_serializing_if = "is_zero")]
    pub sender: i64,
    /// It comes from the inbox: it keeps the sender's id, and the backend keeps it if it fails.
    #[serde(skip_serializing_if = "is_false")]
    pub stored: bool,
    /// With `stored`: for the session on this class of device alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// `lossy`; reliable if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<&'static str>,
}

/// IM tokens to refuse.
#[derive(Serialize, Deserialize)]
pub struct Revoked {
    /// The app.
    pub app: i32,
    /// The user whose tokens they are.
    pub user: i64,
    /// Only those of this login, whenever they were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Otherwise those that were made before this time, in s since the UNIX epoch.
    pub before_s: i64,
    /// For how long, in s.
    pub ttl_s: u32,
}

/// Which devices of users are online.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct OnlineDevices {
    /// User and device of each session.
    pub sessions: BTreeSet<(i64, String)>,
    /// Whether a device that is not among them is surely offline.
    pub settled: bool,
}

/// The outcome of a push.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PushOutcome {
    /// `delivered`, `stored`, `sequenced`, `sent`, `pending`, `unavailable` or `failed`.
    pub outcome: String,
    /// The reason of a failure.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Counters for the metrics.
#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    requests_failed: AtomicU64,
    messages: AtomicU64,
    messages_done: AtomicU64,
}

impl Push {
    /// Connects as needed.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let kept = Kept { count: IDLE_MAX, time: IDLE_TIME };
        let client = config.roots.http_client(&config.push_url, CONNECT_TIME, kept);
        let client = client.map_err(|why| Error::internal(format!("push_url: {why}")))?;
        let bearer = match config.push_secret.as_str() {
            "" => None,
            secret => {
                let mut value = HeaderValue::try_from(format!("Bearer {secret}"))
                    .map_err(|_| Error::internal("push_secret: want printable characters"))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let url = config.push_url.trim_end_matches('/').to_owned();
        Ok(Self { client, url, bearer, counters: Counters::default() })
    }

    /// Pushes up to `PUSHES_MAX` messages, those to one target in order. Returns their outcomes in the same
    /// order. An outcome that is not known within three seconds is `pending`.
    pub async fn send(&self, items: &[PushItem]) -> Result<Vec<PushOutcome>, Error> {
        self.send_within(items, WAIT).await
    }

    /// The same with another wait. A 4xx that names a message as wrong is an error with that status; a 4xx
    /// that may pass is 503.
    pub async fn send_within(&self, items: &[PushItem], wait: Duration) -> Result<Vec<PushOutcome>, Error> {
        let sent = tokio::time::timeout(wait + ANSWER_TIME, self.ask(items, wait)).await;
        let outcomes = sent.unwrap_or_else(|_| Err(away("no answer in time")));
        let add = |counter: &AtomicU64, by: usize| counter.fetch_add(by as u64, Ordering::Relaxed);
        add(&self.counters.requests, 1);
        add(&self.counters.messages, items.len());
        match &outcomes {
            Ok(outcomes) => {
                add(&self.counters.messages_done, outcomes.iter().filter(|one| one.is_final()).count())
            }
            Err(_) => add(&self.counters.requests_failed, 1),
        };
        outcomes
    }

    /// Has all gateways refuse IM tokens, and end the sessions that have them.
    pub async fn revoke(&self, revoked: &Revoked) -> Result<(), Error> {
        let sent = tokio::time::timeout(ANSWER_TIME, self.post("/v1/revoke", revoked)).await;
        match sent.unwrap_or_else(|_| Err(away("no answer in time")))? {
            (StatusCode::OK, _) => Ok(()),
            (status, _) => Err(away(format!("status {status}"))),
        }
    }

    async fn ask(&self, items: &[PushItem], wait: Duration) -> Result<Vec<PushOutcome>, Error> {
        #[derive(Serialize)]
        struct Question<'a> {
            pushes: &'a [PushItem],
            wait_ms: u64,
        }
        #[derive(Deserialize)]
        struct Answer {
            results: Vec<PushOutcome>,
        }
        let question = Question { pushes: items, wait_ms: wait.as_millis() as u64 };
        let (status, bytes) = self.post("/v1/push", &question).await?;
        match status {
            StatusCode::OK => {
                let Answer { results } = serde_json::from_slice(&bytes).map_err(away)?;
                match results.len() == items.len() {
                    true => Ok(results),
                    false => Err(away(format!("{} results for {} pushes", results.len(), items.len()))),
                }
            }
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                Err(Error::new(status, "push_refused", String::from_utf8_lossy(&bytes)))
            }
            _ => Err(away(format!("status {status}"))),
        }
    }

    /// Asks which devices of up to `USERS_MAX` users of an app are online.
    pub async fn online(&self, app: i32, users: &[i64]) -> Result<OnlineDevices, Error> {
        #[derive(Serialize)]
        struct Question<'a> {
            app: i32,
            users: &'a [i64],
        }
        #[derive(Deserialize)]
        struct Answer {
            users: Vec<User>,
            #[serde(default)]
            settled: bool,
        }
        #[derive(Deserialize)]
        struct User {
            user: i64,
            devices: Vec<String>,
        }
        let question = Question { app, users };
        let asked = tokio::time::timeout(ANSWER_TIME, self.post("/v1/online", &question));
        let (status, bytes) = asked.await.unwrap_or_else(|_| Err(away("no answer in time")))?;
        if status != StatusCode::OK {
            return Err(away(format!("status {status}")));
        }
        let Answer { users, settled } = serde_json::from_slice(&bytes).map_err(away)?;
        let sessions = users
            .into_iter()
            .flat_map(|User { user, devices }| devices.into_iter().map(move |it| (user, it)));
        Ok(OnlineDevices { sessions: sessions.collect(), settled })
    }

    async fn post(&self, path: &str, question: &impl Serialize) -> Result<(StatusCode, Bytes), Error> {
        let body = serde_json::to_vec(question)?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{path}", self.url))
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(bearer) = &self.bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let request = request.body(Full::from(body)).map_err(|error| away(format!("push_url: {error}")))?;
        let response = trust::ask(&self.client, request).await.map_err(away)?;
        let status = response.status();
        let bytes = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(away)?;
        Ok((status, bytes.to_bytes()))
    }

    /// The counters, by name.
    pub fn counts(&self) -> [(&'static str, u64); 4] {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { requests, requests_failed, messages, messages_done } = &self.counters;
        [
            ("requests", get(requests)),
            ("requests_failed", get(requests_failed)),
            ("messages", get(messages)),
            ("messages_done", get(messages_done)),
        ]
    }
}

impl PushOutcome {
    /// Whether a client has it.
    pub fn is_delivered(&self) -> bool {
        self.outcome == "delivered"
    }

    /// Whether another try could change nothing: it is there, nobody is, or the router has handed it over as
    /// undelivered.
    pub fn is_final(&self) -> bool {
        match self.outcome.as_str() {
            "delivered" | "stored" | "sequenced" | "sent" => true,
            "failed" => matches!(
                self.reason.as_deref(),
                Some("not_member" | "offline" | "unacked" | "disconnected" | "overflow" | "too_long")
            ),
            _ => false,
        }
    }
}

fn away(error: impl std::fmt::Display) -> Error {
    Error::unavailable("push_unavailable", error)
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Messages in one call.
pub const PUSHES_MAX: usize = 500;
/// Users of one [`Push::online`].
pub const USERS_MAX: usize = 1_000;
/// How long the control API waits for outcomes.
const WAIT: Duration = Duration::from_secs(3);
/// How much longer than that a call may take.
const ANSWER_TIME: Duration = Duration::from_secs(5);
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// Shorter than what servers keep a connection for.
const IDLE_TIME: Duration = Duration::from_secs(20);
/// Connections that are kept open without a call.
const IDLE_MAX: usize = 16;
const ANSWER_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_has_the_fields_that_the_control_api_knows() {
        let item = PushItem {
            app: 1,
            user: None,
            room: Some(7),
            biz_code: 5556,
            client_msg_id: "gift-1".into(),
            data: Data::text("{}"),
            sender: 0,
            stored: false,
            device: None,
            class: None,
        };
        let json = r#"{"app":1,"room":7,"biz_code":5556,"client_msg_id":"gift-1","data":"{}"}"#;
        assert_eq!(serde_json::to_string(&item).unwrap(), json);
        let device = Some("web".into());
        let item = PushItem { user: Some(2), room: None, sender: 3, stored: true, device, ..item };
        let json = r#"{"app":1,"user":2,"biz_code":5556,"client_msg_id":"gift-1","data":"{}","sender":3,"stored":true,"device":"web"}"#;
        assert_eq!(serde_json::to_string(&item).unwrap(), json);
    }

    #[test]
    fn what_may_pass_is_not_final() {
        let outcome = |text: &str| serde_json::from_str::<PushOutcome>(text).unwrap();
        for done in [
            r#"{"outcome":"delivered","message_id":"1"}"#,
            r#"{"outcome":"sequenced","sequence":4}"#,
            r#"{"outcome":"stored"}"#,
            r#"{"outcome":"failed","reason":"not_member"}"#,
            r#"{"outcome":"failed","reason":"offline"}"#,
        ] {
            assert!(outcome(done).is_final(), "{done}");
        }
        for open in [
            r#"{"outcome":"pending"}"#,
            r#"{"outcome":"unavailable"}"#,
            r#"{"outcome":"failed","reason":"busy"}"#,
            r#"{"outcome":"failed","reason":"no_route"}"#,
            r#"{"outcome":"failed"}"#,
            r#"{"outcome":"of a later version"}"#,
        ] {
            assert!(!outcome(open).is_final(), "{open}");
        }
    }
}
