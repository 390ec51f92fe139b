//! Text messages: how a login code reaches its phone.

use std::time::Duration;

use axum::http::{Method, Request, header};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use logs::{info, warn};
use serde::Serialize;
use sha2::Sha256;

use crate::config::Config;
use crate::error::Error;
use crate::phone::Phone;

/// The way to phones.
pub enum Sender {
    /// An operator's service, which is told by HTTP.
    Webhook(Webhook),
    /// The log, and `/mock/sms/{phone}`.
    Mock,
}

/// A service that sends text messages.
pub struct Webhook {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    secret: Vec<u8>,
}

/// What the service is told.
#[derive(Serialize)]
struct Message<'a> {
    phone: &'a str,
    code: &'a str,
    expires_ms: i64,
}

impl Sender {
    /// The sender that is configured, if there is one.
    pub fn open(config: &Config) -> Option<Self> {
        match (config.sms_url.as_str(), config.mock) {
            ("", true) => Some(Self::Mock),
            ("", false) => None,
            (url, _) => Some(Self::Webhook(Webhook::new(url, &config.sms_secret))),
        }
    }

    /// Tells a phone its login code.
    ///
    /// # Errors
    /// 503: it is not known to be sent.
    pub async fn send_code(
        &self,
        phone: &Phone,
        code: &str,
        expires_ms: i64,
        now_ms: i64,
    ) -> Result<(), Error> {
        match self {
            Self::Webhook(webhook) => {
                webhook.send(&Message { phone: phone.number(), code, expires_ms }, now_ms).await
            }
            Self::Mock => {
                info!(%phone, code, "mock SMS: a login code");
                Ok(())
            }
        }
    }
}

impl Webhook {
    fn new(url: &str, secret: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(SEND_TIME));
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Self { client, url: url.to_owned(), secret: secret.as_bytes().to_vec() }
    }

    async fn send(&self, message: &Message<'_>, now_ms: i64) -> Result<(), Error> {
        let sent = tokio::time::timeout(SEND_TIME, self.post(message, now_ms)).await;
        sent.unwrap_or_else(|_| Err(format!("no answer within {} s", SEND_TIME.as_secs()))).map_err(|why| {
            warn!(why, "the SMS service does not accept login codes");
            Error::unavailable("sms_unavailable", why)
        })
    }

    async fn post(&self, message: &Message<'_>, now_ms: i64) -> Result<(), String> {
        let body = serde_json::to_vec(message).map_err(|error| error.to_string())?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-sailfish-timestamp", now_ms)
            .header("x-sailfish-signature", sign(&self.secret, now_ms, &body))
            .body(Full::from(body))
            .map_err(|error| error.to_string())?;
        let response = self.client.request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        // A body that is not read to its end costs the connection.
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        body.map_err(|error| format!("the answer broke off: {error}"))?;
        if status.is_success() { Ok(()) } else { Err(format!("status {status}")) }
    }
}

/// The signature of the bridge's events: HMAC-SHA-256 of `timestamp "." body`, in lower-case hexadecimal.
fn sign(secret: &[u8], timestamp_ms: i64, body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    let mac = mac.chain_update(timestamp_ms.to_string()).chain_update(b".").chain_update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How long the service may take.
const SEND_TIME: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf '%s' '1763000000123.{"events":[]}' | openssl dgst -sha256 -hmac 'it is secret'`
    #[test]
    fn it_is_signed_as_the_bridges_events_are() {
        assert_eq!(
            sign(b"it is secret", 1_763_000_000_123, br#"{"events":[]}"#),
            "2c1c8c0e5a4baf9fdad472a2b547dba17e8e5870b6d0c50a4098825baafad930"
        );
    }
}
