//! Hands inboxes over to receivers who came: message by message, in order, each gone from the inbox once a client has it.
//!
//! The first one that fails ends it, and the rest waits for the receiver's next session. One hand-over of a receiver is under way at a
//! time, in whatever process: it holds the receiver's row in `t_hand_over`, renews it, and begins again if the receiver came once more
//! meanwhile. A message that was delivered and not yet removed when a process died is pushed again under the same name, by which
//! router and receiver drop it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use logs::{error, info, warn};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::app::App;
use crate::error::Error;
use crate::event::Data;
use crate::metrics::Family;
use crate::push::PushItem;
use crate::random;
use crate::run::Stop;
use crate::tables::hand_over::{self, Lease};
use crate::tables::inbox::{self, InboxRow};

/// The process's part of it.
#[derive(Default)]
pub struct Inbox {
    asked: Notify,
}

impl Inbox {
    /// A hand-over was asked for. Another process may be about it first.
    pub fn look(&self) {
        self.asked.notify_one();
    }
}

/// Takes up hand-overs that nobody is about, and removes what is too old, until it is time to end.
pub(crate) async fn run(app: Arc<App>, mut stop: Stop) {
    tokio::select! {
        biased; // nothing more is taken up once it is time to end
        () = stop.wait() => {}
        () = hand_over_all(&app) => {}
        () = sweep_all(&app) => {}
    }
}

async fn hand_over_all(app: &Arc<App>) {
    let (mut tasks, mut under_way) = (JoinSet::new(), BTreeSet::new());
    loop {
        let due = hand_over::due(app.db.primary(), app.clock.now_ms(), 2 * TURNS as u32).await;
        let due = due.unwrap_or_else(|error| {
            warn!(%error, "it is not known whose inbox is to be handed over");
            Vec::new()
        });
        for user in due {
            // Whoever has no turn yet is found again.
            if under_way.len() < TURNS && under_way.insert(user) {
                tasks.spawn(hand_over(app.clone(), user));
            }
        }
        tokio::select! {
            biased; // an end makes room for what is looked for next
            Some(ended) = tasks.join_next() => match ended {
                Ok(user) => drop(under_way.remove(&user)),
                Err(_) => under_way.clear(), // one has panicked; which, nobody knows, and to begin one twice harms nobody
            },
            () = app.inbox.asked.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn sweep_all(app: &App) {
    let mut swept_ms = i64::MIN;
    loop {
        let now_ms = app.clock.now_ms();
        if now_ms.saturating_sub(swept_ms) >= SWEEP_PAUSE_MS {
            match sweep(app, now_ms - AGE_MS_MAX).await {
                Ok(()) => swept_ms = now_ms,
                Err(error) => warn!(%error, "old messages stay in the inbox"),
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn sweep(app: &App, before_ms: i64) -> Result<(), Error> {
    loop {
        let ids = inbox::older_than(app.db.primary(), before_ms, SWEEP_MAX).await?;
        if ids.is_empty() {
            return Ok(());
        }
        remove(app, &ids).await?;
        app.metrics.add(MESSAGES, "dropped", ids.len() as u64);
        info!(messages = ids.len(), "the inbox dropped what nobody came for");
    }
}

/// Hands over a receiver's inbox, unless another process is about it; the receiver.
async fn hand_over(app: Arc<App>, user: (i32, i64)) -> (i32, i64) {
    let (of_app, user_id) = user;
    if let Err(error) = try_hand_over(&app, of_app, user_id).await {
        warn!(%error, app = of_app, user_id, "an inbox is handed over later");
    }
    user
}

async fn try_hand_over(app: &App, of_app: i32, user_id: i64) -> Result<(), Error> {
    let lease = Lease { app: of_app, user_id, holder: random::hex::<16>() };
    let now_ms = app.clock.now_ms();
    if !hand_over::take(app.db.writer(), &lease, now_ms, now_ms + LEASE_MS).await? {
        return Ok(()); // whoever holds it sees that it was asked for once more
    }
    while let Some(asks) = hand_over::asks(app.db.primary(), &lease).await? {
        if let Err(error) = push_all(app, &lease).await {
            hand_over::renew(app.db.writer(), &lease, app.clock.now_ms() + LATER_MS).await?;
            return Err(error);
        }
        if hand_over::end(app.db.writer(), &lease, asks).await? {
            break;
        }
    }
    Ok(())
}

/// What became of a message.
enum Pushed {
    /// A client has it.
    Delivered,
    /// No client may ever get it.
    Refused,
    /// The receiver did not take it.
    Failed,
}

/// Pushes until the inbox is empty, the receiver takes no more, or the lease is lost. An error may pass while the receiver is there.
async fn push_all(app: &App, lease: &Lease) -> Result<(), Error> {
    loop {
        let page = inbox::oldest(app.db.primary(), (lease.app, lease.user_id), PAGE).await?;
        if page.is_empty() {
            return Ok(());
        }
        let (mut done, mut end) = (Vec::with_capacity(page.len()), None);
        let mut renewed_ms = i64::MIN;
        for (id, message) in page {
            let now_ms = app.clock.now_ms();
            if now_ms.saturating_sub(renewed_ms) >= LEASE_MS / 4 {
                if !hand_over::renew(app.db.writer(), lease, now_ms + LEASE_MS).await? {
                    end = Some(Ok(()));
                    break;
                }
                renewed_ms = now_ms;
            }
            match push(app, message).await {
                Ok(Pushed::Delivered) => app.metrics.add(MESSAGES, "handed_over", 1),
                Ok(Pushed::Refused) => app.metrics.add(MESSAGES, "refused", 1),
                Ok(Pushed::Failed) => {
                    end = Some(Ok(()));
                    break;
                }
                Err(error) => {
                    end = Some(Err(error));
                    break;
                }
            }
            done.push(id);
        }
        if !done.is_empty() {
            remove(app, &done).await?;
        }
        if let Some(end) = end {
            return end;
        }
    }
}

/// One at a time: of several under way one could fail, and a later one be delivered before it.
async fn push(app: &App, message: InboxRow) -> Result<Pushed, Error> {
    let client_msg_id = match message.client_msg_id.is_empty() {
        true => format!("inbox-{}", message.message_id),
        false => message.client_msg_id,
    };
    let item = PushItem {
        app: message.app,
        user: Some(message.user_id),
        room: None,
        biz_code: message.biz_code,
        client_msg_id,
        data: Data::of(message.data),
        sender: message.sender,
        stored: true,
    };
    for _ in 0..PENDING_MAX {
        let outcomes = match app.push.send_within(std::slice::from_ref(&item), WAIT).await {
            Ok(outcomes) => outcomes,
            Err(error) if error.status.is_client_error() => {
                error!(%error, user_id = message.user_id, message = message.message_id, "a kept message cannot be pushed, and is dropped");
                return Ok(Pushed::Refused);
            }
            Err(error) => return Err(error),
        };
        let outcome = outcomes.first().ok_or_else(|| Error::internal("a push without an outcome"))?;
        match (outcome.outcome.as_str(), outcome.reason.as_deref()) {
            ("delivered", _) => return Ok(Pushed::Delivered),
            ("pending", _) => {} // the same name asks for the outcome of what is under way
            ("failed", Some("busy" | "no_route")) | ("unavailable", _) => {
                return Err(Error::unavailable("push_unavailable", "a message was not taken"));
            }
            _ => return Ok(Pushed::Failed),
        }
    }
    Ok(Pushed::Failed)
}

async fn remove(app: &App, ids: &[i64]) -> Result<(), Error> {
    let mut tx = app.db.begin().await?;
    inbox::delete(&mut tx, ids).await?;
    Ok(tx.commit().await?)
}

/// `kept` (those that were told twice count twice), `room` (not kept), `dropped` (to make room, or too old), `refused` (never to be
/// delivered), `handed_over`.
pub const MESSAGES: &Family = &Family {
    name: "sailfish_backend_inbox_messages_total",
    help: "Messages that did not reach their receivers, by what became of them.",
    label: "result",
};
/// Receivers who are handed their inboxes at a time.
const TURNS: usize = 64;
/// Messages that are read at a time.
const PAGE: u32 = 50;
/// How long a hand-over is left to its holder unless that renews it. Far longer than a push may take.
const LEASE_MS: i64 = 60_000;
/// How long a hand-over rests after an error.
const LATER_MS: i64 = 5_000;
/// How long a call waits for the receiver's ack.
const WAIT: Duration = Duration::from_secs(10);
/// Calls until an ack that does not come has failed.
const PENDING_MAX: u32 = 3;
/// How often it is looked for hand-overs that nobody is about.
const LOOK: Duration = Duration::from_secs(2);
const SWEEP_PAUSE_MS: i64 = 3_600_000;
const SWEEP_MAX: u32 = 1_000;
/// How long a message is kept.
const AGE_MS_MAX: i64 = 30 * 24 * 3_600_000;
