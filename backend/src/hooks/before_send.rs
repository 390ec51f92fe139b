//! `before_send`: asks a service about a message to a room before anybody gets it.
//!
//! The message comes as a `request` event. Its question is asked beside the batch that brought it: a batch
//! waits [`PATIENCE`] for the decision, and then answers `retry` for this event alone. The bridge sends the
//! event again, and it finds the decision. So a slow service delays only messages of the senders that it is
//! asked about. A decision that nobody fetches is forgotten; then the service is asked again, and the message
//! keeps its client message id, so members see it once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument;

use super::{question, short};
use crate::config::{Class, Failing};
use crate::error::Error;
use crate::event::{Data, Outcome, Request};
use crate::hex;
use crate::metrics::{Family, Metrics};
use crate::outbox::{Message, Outbox, Target};
use crate::push::{Push, PushItem, PushOutcome};
use crate::store::Store;
use crate::trace;
use crate::webhook::Webhook;

/// The hook, and its questions under way.
pub struct BeforeSend {
    webhook: Arc<Webhook>,
    store: Arc<Store>,
    push: Arc<Push>,
    outbox: Arc<Outbox>,
    metrics: Arc<Metrics>,
    codes: Vec<i32>,
    class: Class,
    failing: Failing,
    /// Questions by the ids of their events.
    asked: Mutex<HashMap<String, Asked>>,
    /// Whether the last answer was not there in time.
    is_slow: AtomicBool,
}

struct Asked {
    outcome: watch::Receiver<Option<Outcome>>,
    since: Instant,
}

/// What the service is asked.
#[derive(Serialize)]
struct Question<'a> {
    id: &'a str,
    app: i32,
    user: i64,
    device: &'a str,
    room: i64,
    biz_code: i32,
    client_msg_id: &'a str,
    #[serde(flatten)]
    data: &'a Data,
}

#[derive(Deserialize)]
struct Answer {
    action: Action,
    reason: Option<String>,
    #[serde(flatten)]
    data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Allow,
    Refuse,
    Replace,
}

/// The decision about a message.
enum Verdict {
    Send(Data),
    Refuse(String),
}

impl BeforeSend {
    pub fn new(
        webhook: Arc<Webhook>,
        store: Arc<Store>,
        push: Arc<Push>,
        outbox: Arc<Outbox>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let config = &store.config;
        Self {
            webhook,
            codes: config.before_send_codes.clone(),
            class: config.before_send_class,
            failing: config.before_send_failing,
            store,
            push,
            outbox,
            metrics,
            asked: Mutex::default(),
            is_slow: AtomicBool::new(false),
        }
    }

    pub fn webhook(&self) -> &Webhook {
        &self.webhook
    }

    /// Whether it is asked about messages of this code.
    pub fn covers(&self, biz_code: i32) -> bool {
        self.codes.contains(&biz_code)
    }

    /// Questions and decisions in memory.
    pub fn under_way(&self) -> usize {
        self.asked().len()
    }

    /// The question about this event; asks it if needed. `None` if there are too many.
    fn ask(self: &Arc<Self>, id: &str, request: &Request) -> Option<watch::Receiver<Option<Outcome>>> {
        let mut asked = self.asked();
        if let Some(asked) = asked.get(id) {
            return Some(asked.outcome.clone());
        }
        if asked.len() >= ASKED_MAX {
            asked.retain(|_, asked| asked.since.elapsed() < FORGET_TIME);
        }
        if asked.len() >= ASKED_MAX {
            return None;
        }
        let (decide, outcome) = watch::channel(None);
        asked.insert(id.to_owned(), Asked { outcome: outcome.clone(), since: Instant::now() });
        let (hook, id, request) = (self.clone(), id.to_owned(), request.clone());
        let span = trace::span(&id, trace::parse(request.traceparent.as_deref()).as_ref());
        let deciding = async move {
            let decided = decide_and_send(&hook, &id, request).await;
            let _ = decide.send(Some(decided)); // nobody may wait any more
        };
        tokio::spawn(deciding.instrument(span));
        Some(outcome)
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<String, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks about a message and sends it on. `Waiting` if that takes long; then the same event has to come again.
pub async fn take(hook: &Arc<BeforeSend>, id: &str, request: &Request) -> Outcome {
    let Some(mut outcome) = hook.ask(id, request) else {
        hook.metrics.add(MESSAGES, "busy", 1);
        return Outcome::Waiting;
    };
    let patience = if hook.is_slow.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
    let decided = tokio::time::timeout(patience, outcome.wait_for(Option::is_some)).await;
    let outcome = match decided {
        Ok(Ok(outcome)) => outcome.clone().unwrap_or(Outcome::Waiting),
        Ok(Err(_)) => Outcome::Again, // its task has panicked
        Err(_) => return Outcome::Waiting,
    };
    hook.asked().remove(id);
    outcome
}

async fn decide_and_send(hook: &BeforeSend, id: &str, request: Request) -> Outcome {
    let Some(room) = request.room else { return Outcome::Refused("no_room".into()) };
    let begun = Instant::now();
    let verdict = judge(hook, id, room, &request).await;
    hook.is_slow.store(begun.elapsed() > PATIENCE, Ordering::Relaxed);
    match verdict {
        Ok(Verdict::Send(data)) => send(hook, id, room, request, data).await,
        Ok(Verdict::Refuse(reason)) => {
            tell(hook, id, room, &request, &reason).await;
            Outcome::Refused(reason)
        }
        Err(_) => Outcome::Again,
    }
}

async fn judge(hook: &BeforeSend, id: &str, room: i64, request: &Request) -> Result<Verdict, Error> {
    let Request { app: of_app, user, device, biz_code, client_msg_id, data, .. } = request;
    let event =
        Question { id, app: *of_app, user: *user, device, room, biz_code: *biz_code, client_msg_id, data };
    let trace = trace::parse(request.traceparent.as_deref());
    let read = |bytes: &[u8]| {
        let answer: Answer = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match (&answer.action, answer.data.bytes()) {
            (_, None) => Err("data_base64: want base64".to_owned()),
            (Action::Replace, Some(_)) if answer.data == Data::default() => {
                Err("replace: want data or data_base64".to_owned())
            }
            _ => Ok(answer),
        }
    };
    let answer = hook
        .webhook
        .call(question("before_send", &event)?, hook.store.clock.now_ms(), trace.as_ref(), read)
        .await;
    let (verdict, counted) = match (answer, hook.failing) {
        (Ok(Answer { action: Action::Allow, .. }), _) => (Verdict::Send(data.clone()), "allowed"),
        (Ok(Answer { action: Action::Replace, data, .. }), _) => (Verdict::Send(data), "replaced"),
        (Ok(Answer { action: Action::Refuse, reason, .. }), _) => (Verdict::Refuse(short(reason)), "refused"),
        (Err(_), Failing::Allow) => (Verdict::Send(data.clone()), "allowed_unchecked"),
        (Err(_), Failing::Refuse) => (Verdict::Refuse(UNCHECKED.into()), "refused_unchecked"),
    };
    hook.metrics.add(MESSAGES, counted, 1);
    Ok(verdict)
}

/// Pushes the message to the room in the name of its sender.
async fn send(hook: &BeforeSend, id: &str, room: i64, request: Request, data: Data) -> Outcome {
    let client_msg_id = match request.client_msg_id.is_empty() {
        true => name("sent", id),
        false => request.client_msg_id.clone(),
    };
    let item = PushItem {
        app: request.app,
        user: None,
        room: Some(room),
        biz_code: request.biz_code,
        client_msg_id,
        data,
        sender: request.user,
        stored: false,
        device: None,
        class: (hook.class == Class::Lossy).then_some("lossy"),
    };
    for _ in 0..PUSH_TRIES {
        match hook.push.send_within(std::slice::from_ref(&item), PUSH_WAIT).await.as_deref() {
            Ok([PushOutcome { outcome, .. }]) if matches!(outcome.as_str(), "sequenced" | "sent") => {
                return Outcome::Done;
            }
            // The room is empty, or a replacement is too long.
            Ok([PushOutcome { outcome, reason: Some(reason) }])
                if outcome == "failed" && matches!(reason.as_str(), "not_member" | "too_long") =>
            {
                tell(hook, id, room, &request, reason).await;
                return Outcome::Refused(reason.clone());
            }
            Err(error) if error.status.is_client_error() => {
                tell(hook, id, room, &request, "bad_content").await;
                return Outcome::Refused("bad_content".into());
            }
            _ => tokio::time::sleep(PUSH_PAUSE).await,
        }
    }
    Outcome::Again
}

/// Informs the sender why its message is not shown.
async fn tell(hook: &BeforeSend, id: &str, room: i64, request: &Request, reason: &str) {
    let payload = serde_json::json!({ "id": request.client_msg_id, "bizCode": request.biz_code, "roomId": room, "reason": reason });
    let told = hook.outbox.mention(Message {
        key: name("refused", id),
        app: request.app,
        target: Target::User(request.user),
        biz_code: REFUSED,
        payload: payload.to_string(),
    });
    let _ = tokio::time::timeout(TELL_TIME, told).await; // its send-ack has to do
}

/// A client message id that is the same for the same event.
fn name(what: &str, id: &str) -> String {
    format!("{what}-{}", hex::text(&Sha256::digest(id)[..16]))
}

/// A message was refused: from the backend to its sender.
const REFUSED: i32 = 5562;
/// The reason when the service fails.
const UNCHECKED: &str = "unavailable";
/// How long the answer to a batch waits for a decision.
const PATIENCE: Duration = Duration::from_millis(50);
/// Questions and decisions in memory. One sender has one at a time on each of the bridge's lanes.
const ASKED_MAX: usize = 4_096;
/// How long a decision is kept for an event that does not come again.
const FORGET_TIME: Duration = Duration::from_secs(60);
const PUSH_TRIES: u32 = 8;
const PUSH_WAIT: Duration = Duration::from_millis(500);
const PUSH_PAUSE: Duration = Duration::from_millis(250);
const TELL_TIME: Duration = Duration::from_secs(2);

const MESSAGES: &Family = &Family {
    name: "sailfish_backend_before_send_messages_total",
    help: "Messages that the before_send webhook was asked about, by result.",
    label: "result",
};
