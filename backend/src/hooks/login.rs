//! `login`: whether a user may log in.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{question, short};
use crate::clock::Clock;
use crate::config::Failing;
use crate::error::Error;
use crate::webhook::Webhook;

/// The question to the service.
#[derive(Serialize)]
pub struct Login<'a> {
    pub app: i32,
    pub user: i64,
    pub phone: &'a str,
    pub address: &'a str,
    pub is_new: bool,
}

#[derive(Deserialize)]
struct Answer {
    action: Action,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Allow,
    Refuse,
}

/// The service that decides about logins.
pub struct LoginHook {
    webhook: Arc<Webhook>,
    /// What happens while it fails.
    failing: Failing,
    clock: Clock,
}

impl LoginHook {
    pub fn new(webhook: Arc<Webhook>, failing: Failing, clock: Clock) -> Self {
        Self { webhook, failing, clock }
    }

    pub fn webhook(&self) -> &Webhook {
        &self.webhook
    }

    /// Asks about a login.
    ///
    /// # Errors
    /// 403 if the service refuses; 503 if it fails, and logins are refused then.
    pub async fn ask(&self, login: &Login<'_>) -> Result<(), Error> {
        let body = question("login", login)?;
        let read = |bytes: &[u8]| serde_json::from_slice::<Answer>(bytes).map_err(|error| error.to_string());
        match (self.webhook.call(body, self.clock.now_ms(), None, read).await, self.failing) {
            (Ok(Answer { action: Action::Allow, .. }), _) | (Err(_), Failing::Allow) => Ok(()),
            (Ok(Answer { action: Action::Refuse, reason }), _) => {
                Err(Error::new(axum::http::StatusCode::FORBIDDEN, "login_refused", short(reason)))
            }
            (Err(_), Failing::Refuse) => {
                Err(Error::unavailable("login_hook_unavailable", "logins cannot be checked; try again later"))
            }
        }
    }
}
