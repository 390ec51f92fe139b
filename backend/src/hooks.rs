//! The webhooks of an operator's services: docs/BACKEND.md, "Webhooks".
//!
//! Two hooks ask before something happens, `before_send` and `login`, and have a rule for failures of the
//! service. Two report what has happened, `offline_push` and `after_gift`: their events are committed
//! together with it, and sent until the service has them.

pub mod after_gift;
pub mod before_send;
pub mod events;
mod login;
pub mod offline_push;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::error::Error;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::push::Push;
use crate::sms;
use crate::store::Store;
use crate::webhook::Webhook;
use before_send::BeforeSend;
use events::Events;
pub use login::{Login, LoginHook};

/// The hooks that are configured.
pub struct Hooks {
    pub before_send: Option<Arc<BeforeSend>>,
    pub login: Option<LoginHook>,
    pub offline_push: Option<Arc<Events>>,
    pub after_gift: Option<Arc<Events>>,
    sms: Option<Arc<Webhook>>,
}

impl Hooks {
    /// Opens the hooks of the configuration.
    pub fn open(
        store: &Arc<Store>,
        push: &Arc<Push>,
        outbox: &Arc<Outbox>,
        metrics: &Arc<Metrics>,
        sms: Option<&sms::Sender>,
    ) -> Self {
        let config = &store.config;
        let open = |name, url: &str, timeout_ms: u32| {
            let timeout = Duration::from_millis(u64::from(timeout_ms));
            let webhook = || Arc::new(Webhook::new(name, url, &config.hook_secret, timeout, &config.roots));
            (!url.is_empty()).then(webhook)
        };
        let events = |name, url: &str| {
            open(name, url, config.hook_timeout_ms)
                .map(|webhook| Arc::new(Events::new(webhook, config.hook_events_max)))
        };
        let before_send = open("before_send", &config.before_send_url, config.before_send_timeout_ms);
        let login = open("login", &config.login_hook_url, config.login_hook_timeout_ms);
        Self {
            before_send: before_send.map(|webhook| {
                Arc::new(BeforeSend::new(
                    webhook,
                    store.clone(),
                    push.clone(),
                    outbox.clone(),
                    metrics.clone(),
                ))
            }),
            login: login
                .map(|webhook| LoginHook::new(webhook, config.login_hook_failing, store.clock.clone())),
            offline_push: events("offline_push", &config.offline_push_url),
            after_gift: events("after_gift", &config.after_gift_url),
            sms: sms.and_then(sms::Sender::webhook).cloned(),
        }
    }

    /// All services, for the metrics.
    pub fn webhooks(&self) -> impl Iterator<Item = &Webhook> {
        let before_send = self.before_send.as_deref().map(BeforeSend::webhook);
        let [offline_push, after_gift] =
            [&self.offline_push, &self.after_gift].map(|events| events.as_deref());
        let others = [self.login.as_ref().map(LoginHook::webhook), self.sms.as_deref()];
        let events = [offline_push, after_gift].map(|events| events.map(Events::webhook));
        [before_send].into_iter().chain(others).chain(events).flatten()
    }

    /// The hooks that report.
    pub fn events(&self) -> impl Iterator<Item = &Arc<Events>> {
        [&self.offline_push, &self.after_gift].into_iter().flatten()
    }
}

/// The body of a question to a service.
fn question(hook: &str, event: &impl Serialize) -> Result<Vec<u8>, Error> {
    #[derive(Serialize)]
    struct Question<'a, T> {
        hook: &'a str,
        event: &'a T,
    }
    Ok(serde_json::to_vec(&Question { hook, event })?)
}

/// A reason in the words of the service, cut to what people read.
fn short(reason: Option<String>) -> String {
    reason.unwrap_or_else(|| "refused".into()).chars().take(REASON_CHARS_MAX).collect()
}

const REASON_CHARS_MAX: usize = 200;
