//! Text messages: how a login code reaches its phone.

use std::sync::Arc;
use std::time::Duration;

use logs::info;
use serde::Serialize;

use crate::config::Config;
use crate::error::Error;
use crate::phone::Phone;
use crate::webhook::Webhook;

/// How login codes reach phones.
pub enum Sender {
    /// An operator's service, called by HTTP.
    Webhook(Arc<Webhook>),
    /// The log, and `/mock/sms/{phone}`.
    Mock,
}

/// The body of a call of the service.
#[derive(Serialize)]
struct Message<'a> {
    phone: &'a str,
    code: &'a str,
    expires_ms: i64,
}

impl Sender {
    /// The configured sender, if there is one.
    pub fn open(config: &Config) -> Option<Self> {
        match (config.sms_url.as_str(), config.mock) {
            ("", true) => Some(Self::Mock),
            ("", false) => None,
            (url, _) => Some(Self::Webhook(Arc::new(Webhook::new(
                "login_code",
                url,
                &config.sms_secret,
                SEND_TIME,
                &config.roots,
            )))),
        }
    }

    /// Sends a phone its login code.
    ///
    /// # Errors
    /// 503: perhaps it was not sent.
    pub async fn send_code(
        &self,
        phone: &Phone,
        code: &str,
        expires_ms: i64,
        now_ms: i64,
    ) -> Result<(), Error> {
        match self {
            Self::Webhook(webhook) => {
                let body = serde_json::to_vec(&Message { phone: phone.number(), code, expires_ms })?;
                let sent = webhook.call(body, now_ms, None, |_| Ok(())).await;
                sent.map_err(|failure| Error::unavailable("sms_unavailable", failure))
            }
            Self::Mock => {
                info!(%phone, code, "mock SMS: a login code");
                Ok(())
            }
        }
    }

    /// The operator's service.
    pub fn webhook(&self) -> Option<&Arc<Webhook>> {
        match self {
            Self::Webhook(webhook) => Some(webhook),
            Self::Mock => None,
        }
    }
}

/// How long the service may take.
const SEND_TIME: Duration = Duration::from_secs(5);
