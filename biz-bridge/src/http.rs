//! Events to a backend by HTTP/1.1: one POST a batch, signed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode, Uri};
use serde::Deserialize;
use traces::Sampling;
use trust::{HttpClient, Kept, ask, chain};

use crate::config::{Config, events_uri};
use crate::event::Entry;
use crate::queue::{Answer, Verdict};
use crate::signature::sign;

/// The longest answer to a batch.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How long an unused connection is kept: shorter than servers and proxies commonly do, so that they rarely
/// close it first.
const IDLE: Duration = Duration::from_secs(15);

/// Sends batches. Clones share their connections.
#[derive(Clone)]
pub struct Http {
    client: HttpClient,
    uri: Uri,
    secret: Arc<[u8]>,
    timeout: Duration,
    sampling: Sampling,
}

impl Http {
    pub fn new(url: &str, secret: &[u8], config: &Config) -> Result<Self, String> {
        let kept = Kept { count: config.lanes, time: IDLE };
        let client = config.roots.http_client(url, config.timeout, kept)?;
        let uri = events_uri(url).expect("the configuration was checked");
        Ok(Self {
            client,
            uri,
            secret: secret.into(),
            timeout: config.timeout,
            sampling: config.trace.sampling(),
        })
    }

    pub async fn send(&self, entries: &[Entry]) -> Verdict {
        match tokio::time::timeout(self.timeout, self.post(entries)).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(why)) => Verdict::Failed(why),
            Err(_) => Verdict::Failed(format!("no answer within {} ms", self.timeout.as_millis())),
        }
    }

    async fn post(&self, entries: &[Entry]) -> Result<Verdict, String> {
        let response = ask(&self.client, self.request(entries)).await?;
        let status = response.status();
        // A body that is not read to its end costs the connection.
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body =
            body.map_err(|error| format!("the answer broke off: {}", chain(error.as_ref())))?.to_bytes();
        match status {
            StatusCode::OK => read(entries, &body),
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                Ok(Verdict::Rejected(status.to_string()))
            }
            _ => Err(format!("status {status}")),
        }
    }

    fn request(&self, entries: &[Entry]) -> Request<Full<Bytes>> {
        let body = body(entries);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).expect("64 bits of ms hold half a billion years");
        let signature = sign(&self.secret, now_ms, &body);
        let host = self.uri.authority().expect("the configuration was checked").as_str();
        let traceparent = |entry: &Entry| entry.key.context(self.sampling).to_string();
        Request::post(self.uri.clone())
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json")
            .header("x-sailfish-timestamp", now_ms)
            .header("x-sailfish-signature", signature)
            .header("traceparent", entries.first().map_or_else(String::new, traceparent))
            .body(Full::new(body))
            .expect("all of it is made of sound parts")
    }
}

/// `{"events":[...]}`.
fn body(entries: &[Entry]) -> Bytes {
    let bytes: usize = entries.iter().map(|entry| entry.json.len() + 1).sum();
    let mut body = Vec::with_capacity(bytes + 16);
    body.extend_from_slice(br#"{"events":["#);
    for (at, entry) in entries.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&entry.json);
    }
    body.extend_from_slice(b"]}");
    body.into()
}

#[derive(Deserialize)]
struct Results<'a> {
    #[serde(borrow)]
    results: Vec<ResultOf<'a>>,
}

#[derive(Deserialize)]
struct ResultOf<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
}

/// Reads the answer for each event. An event without an answer, or with an unknown one, is sent again.
pub fn read(entries: &[Entry], body: &[u8]) -> Result<Verdict, String> {
    let Results { results } =
        serde_json::from_slice(body).map_err(|error| format!("the answer is wrong: {error}"))?;
    let places: HashMap<String, usize> =
        entries.iter().enumerate().map(|(at, entry)| (entry.key.id(), at)).collect();
    let mut answers = vec![Answer::Again; entries.len()];
    for ResultOf { id, status, reason } in results {
        let Some(at) = places.get(id.as_ref()) else { continue };
        answers[*at] = match status.as_ref() {
            "ok" => Answer::Ok,
            "refused" => Answer::Refused(reason.unwrap_or_default().into_owned()),
            _ => Answer::Again,
        };
    }
    Ok(Verdict::Answered(answers))
}

#[cfg(test)]
mod tests {
    use wire::client::FailReason;
    use wire::{AppId, UserId};

    use super::*;
    use crate::event::{EventKey, EventKind};

    fn entries(count: u64) -> Vec<Entry> {
        let entry = |seq| Entry {
            key: EventKey { shard: 1, incarnation: 2, seq },
            user: (AppId(1), UserId(1)),
            kind: EventKind::Request,
            refusal: FailReason::NoRoute,
            json: format!("{{\"n\":{seq}}}").into_bytes(),
            tries: 0,
            trace: None,
        };
        (1..=count).map(entry).collect()
    }

    #[test]
    fn a_body_is_json() {
        assert_eq!(body(&entries(0)), r#"{"events":[]}"#);
        assert_eq!(body(&entries(2)), r#"{"events":[{"n":1},{"n":2}]}"#);
    }

    #[test]
    fn what_an_answer_does_not_settle_is_sent_again() {
        let answer = br#"{"more":1,"results":[{"id":"1-2-3","status":"ok","x":[]},{"id":"1-2-1","status":"refused","reason":"\"no\""},
            {"id":"1-2-2","status":"retry"},{"id":"1-2-4","status":"perhaps"},{"id":"1-2-9","status":"ok"}]}"#;
        let Ok(Verdict::Answered(answers)) = read(&entries(5), answer) else { panic!("it is sound") };
        let refused = Answer::Refused("\"no\"".into());
        assert_eq!(answers, [refused, Answer::Again, Answer::Ok, Answer::Again, Answer::Again]);
        for wrong in
            [r#""#, r#"{}"#, r#"[]"#, r#"{"results":[{"id":1,"status":"ok"}]}"#, r#"{"results":[]"#, "\u{0}"]
        {
            assert!(read(&entries(1), wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
