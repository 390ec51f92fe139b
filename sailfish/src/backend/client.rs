//! The public API of a backend, for the demonstration and the load of gifts.

use anyhow::{Context, bail};
use serde_json::Value;

use super::internal_secret;
use crate::config::Config;
use crate::ctl::http::{Answer, Method, Request, Server, ask};
use crate::printable::printable;
use trust::Roots;

/// A backend somewhere.
pub struct Client {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub url: String,
    roots: Roots,
    internal_secret: String,
}

impl Client {
    /// The backend at `http://HOST:PORT`, with the given internal secret, or else that of the configuration.
    ///
    /// # Errors
    /// There is no secret, and none can be made.
    pub fn new(url: &str, given: Option<&str>, config: &Config) -> anyhow::Result<Self> {
        let internal_secret = match given {
            Some(secret) => secret.to_owned(),
            None => internal_secret(config)?,
        };
        let scheme = if url.contains("://") { "" } else { "http://" };
        let url = format!("{scheme}{}", url.trim_end_matches('/'));
        Ok(Self { url, roots: config.tls.trusted.clone(), internal_secret })
    }

    /// Its answer to a user with a token; with an empty token, to anybody.
    ///
    /// # Errors
    /// One line: it does not answer, or refuses.
    pub fn ask(&self, token: &str, method: Method, path: &str) -> anyhow::Result<Value> {
        let request = Request { method, path: path.into() };
        let Answer { status, body, .. } = ask(Server::backend(&self.url, &self.roots), token, &request)?;
        let value: Option<Value> = serde_json::from_str(&body).ok();
        if status == 200 {
            return value.with_context(|| format!("{} is no backend of Sailfish", self.url));
        }
        match value.as_ref().and_then(|value| value["message"].as_str()) {
            Some(message) => bail!("{path}: {}", printable(message)),
            None => bail!("{} is no backend of Sailfish: it answers {status} to {path}", self.url),
        }
    }

    /// Its answer to a service with the internal secret.
    ///
    /// # Errors
    /// As of [`Client::ask`].
    pub fn ask_internal(&self, method: Method, path: &str) -> anyhow::Result<Value> {
        self.ask(&self.internal_secret, method, path)
    }
}
