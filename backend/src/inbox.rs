//! Delivers inboxes to sessions that came: message by message, in order. Each leaves the inbox once a client
//! has it.
//!
//! Each session has an inbox delivery of its own, so a silent device delays no other. A device has one under
//! way at a time, in any process, which holds the device's row in `t_hand_over`, renews it, and begins again
//! if a session came there once more meanwhile. A message that was delivered and not yet removed when a
//! process died is pushed again under the same client message id, by which router and receiver drop it.
//!
//! A message that one device got stays for the deliveries to the user's other devices that were requested by
//! then, and for no later one. Sessions that the gateways know, and no event has reported yet, are requested
//! first, so that all devices that were there at the same time get the same.
//!
//! A message that its session does not ack steps aside, and those behind it are delivered; it stays for the
//! next session, behind those that stepped aside less often. If a session acks nothing, its delivery ends
//! after [`UNACKED_MAX`] messages, and their order stays.
//!
//! [`mod@keep`] says what is kept, and how much.

mod keep;
mod share;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use logs::{error, info, warn};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;

use crate::db::insist;
use crate::error::Error;
use crate::event::Data;
use crate::hooks::events::Events;
use crate::metrics::{Family, Metrics};
use crate::push::{Push, PushItem};
use crate::random;
use crate::stop::Stop;
use crate::store::Store;
use crate::tables::hand_over::{self, Lease};
use crate::tables::inbox::{self, InboxRow, Turn};
use crate::tables::presence::{self, Device};

pub use keep::{came, keep};

/// The part of the inbox in this process.
pub struct Inbox {
    store: Arc<Store>,
    push: Arc<Push>,
    metrics: Arc<Metrics>,
    /// Gets the messages that are kept.
    offline_push: Option<Arc<Events>>,
    asked: Notify,
    /// Calls under way for sessions that acked their last message.
    calls_of_acking: Semaphore,
    /// The same for other sessions, and for questions.
    calls: Semaphore,
}

impl Inbox {
    /// Delivers the inboxes in the store by `push`.
    pub fn new(
        store: &Arc<Store>,
        push: &Arc<Push>,
        metrics: &Arc<Metrics>,
        offline_push: Option<Arc<Events>>,
    ) -> Self {
        Self {
            store: store.clone(),
            push: push.clone(),
            metrics: metrics.clone(),
            offline_push,
            asked: Notify::new(),
            calls_of_acking: Semaphore::new(CALLS_MAX),
            calls: Semaphore::new(CALLS_MAX),
        }
    }

    /// Notes that a delivery was requested. Another process may take it first.
    pub fn look(&self) {
        self.asked.notify_one();
    }
}

/// Starts unclaimed deliveries, and removes messages that are too old, until it is time to end.
pub(crate) async fn run(inbox: Arc<Inbox>, mut stop: Stop) {
    tokio::select! {
        biased; // nothing more is taken up once it is time to end
        () = stop.wait() => {}
        () = hand_over_all(&inbox) => {}
        () = sweep_all(&inbox) => {}
    }
}

async fn hand_over_all(inbox: &Arc<Inbox>) {
    let (mut tasks, mut under_way) = (JoinSet::new(), BTreeSet::new());
    loop {
        let due = hand_over::due(inbox.store.db.primary(), inbox.store.clock.now_ms(), DUE_MAX).await;
        let due = due.unwrap_or_else(|error| {
            warn!(%error, "cannot read which inboxes to deliver");
            Vec::new()
        });
        for device in due {
            // A device without a turn is found again.
            if under_way.len() < HAND_OVERS_MAX && under_way.insert(device.clone()) {
                tasks.spawn(hand_over(inbox.clone(), device));
            }
        }
        tokio::select! {
            biased; // an end makes room for what is looked for next
            Some(ended) = tasks.join_next() => match ended {
                Ok(device) => drop(under_way.remove(&device)),
                // A task has panicked, and it is not known which; starting a delivery twice does no harm.
                Err(_) => under_way.clear(),
            },
            () = inbox.asked.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn sweep_all(inbox: &Inbox) {
    let mut swept_ms = i64::MIN;
    loop {
        let now_ms = inbox.store.clock.now_ms();
        if now_ms.saturating_sub(swept_ms) >= SWEEP_PAUSE_MS {
            match sweep(inbox, now_ms - AGE_MS_MAX).await {
                Ok(()) => swept_ms = now_ms,
                Err(error) => warn!(%error, "cannot delete old messages from inboxes; tried again later"),
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn sweep(inbox: &Inbox, before_ms: i64) -> Result<(), Error> {
    loop {
        let ids = inbox::older_than(inbox.store.db.primary(), before_ms, SWEEP_MAX).await?;
        if ids.is_empty() {
            return Ok(());
        }
        remove(inbox, &ids).await?;
        inbox.metrics.add(MESSAGES, "dropped", ids.len() as u64);
        info!(messages = ids.len(), "deleted messages that waited in inboxes for 30 days");
    }
}

/// Delivers an inbox to a device, unless another process does. Returns the device.
async fn hand_over(inbox: Arc<Inbox>, device: Device) -> Device {
    if let Err(error) = try_hand_over(&inbox, &device).await {
        warn!(%error, app = device.app, user_id = device.user_id, "cannot deliver an inbox now; tried again later");
    }
    device
}

async fn try_hand_over(inbox: &Inbox, device: &Device) -> Result<(), Error> {
    let lease = Lease { to: device.clone(), holder: random::hex::<16>() };
    let now_ms = inbox.store.clock.now_ms();
    if !hand_over::take(inbox.store.db.writer(), &lease, now_ms, now_ms + LEASE_MS).await? {
        return Ok(()); // whoever holds it sees that it was asked for once more
    }
    ask_for_unheard(inbox, device).await;
    let mut handing = Handing {
        inbox,
        lease: &lease,
        acks: false,
        renewed_ms: i64::MIN,
        delivered: Vec::new(),
        done: BTreeSet::new(),
    };
    while let Some(asked) = hand_over::asked(inbox.store.db.primary(), &lease).await? {
        let handed = handing.push_all(asked.since_ms).await;
        handing.remove_delivered().await?;
        if let Err(error) = handed {
            hand_over::renew(inbox.store.db.writer(), &lease, inbox.store.clock.now_ms() + LATER_MS).await?;
            return Err(error);
        }
        if hand_over::end(inbox.store.db.writer(), &lease, asked.asks).await? {
            return insist(|| async move {
                let db = &inbox.store.db;
                let mut tx = db.begin().await?;
                inbox::delete_delivered(&mut tx, db.dialect(), device.app, device.user_id).await?;
                tx.commit().await
            })
            .await;
        }
    }
    Ok(())
}

/// Requests deliveries for a user's other sessions that gateways have and no event has reported yet. If the
/// push API is away, it knows none. A session that no event has reported requests nobody, or two of them
/// would request each other in turn.
async fn ask_for_unheard(inbox: &Inbox, device: &Device) {
    let asked = async {
        let known = presence::of_user(inbox.store.db.primary(), device.app, device.user_id).await?;
        let is_known =
            |name: &str| known.iter().any(|(known, presence)| known == name && presence.is_online());
        if !is_known(&device.device) {
            return Ok(());
        }
        let _call = inbox.calls.acquire().await.map_err(Error::internal)?;
        let sessions = inbox.push.online(device.app, &[device.user_id]).await?.sessions;
        let unheard = sessions.into_iter().filter(|(_, name)| !is_known(name));
        let unheard: Vec<Device> =
            unheard.map(|(_, name)| Device { device: name, ..device.clone() }).collect();
        keep::ask(inbox, &unheard.iter().collect::<Vec<_>>()).await
    };
    if let Err(error) = asked.await {
        debug!(%error, "cannot find out where else a receiver is online");
    }
}

/// The outcome of a message.
enum Pushed {
    /// A client has it.
    Delivered,
    /// No client may ever get it.
    Refused,
    /// The session is there, and does not ack it.
    Unacked,
    /// The session is gone, or takes no more; or another process has the delivery.
    Ended,
}

/// An inbox delivery that is under way.
struct Handing<'a> {
    inbox: &'a Inbox,
    lease: &'a Lease,
    /// Whether the session acked the message before.
    acks: bool,
    renewed_ms: i64,
    /// Delivered messages that are not yet removed from the inbox.
    delivered: Vec<i64>,
    /// Delivered messages that stay for other devices.
    done: BTreeSet<i64>,
}

impl Handing<'_> {
    /// Pushes until the inbox is empty, the session takes no more, or the lease is lost. An error may pass
    /// while the session is there.
    async fn push_all(&mut self, since_ms: i64) -> Result<(), Error> {
        let receiver = (self.lease.to.app, self.lease.to.user_id);
        let (mut after, mut unacked, mut set_aside) = (Turn::FIRST, Vec::new(), BTreeSet::new());
        loop {
            let page = inbox::next(self.inbox.store.db.primary(), receiver, since_ms, after, PAGE).await?;
            if page.is_empty() {
                return Ok(());
            }
            for (turn, message) in page {
                after = turn;
                if set_aside.contains(&turn.id) || self.done.contains(&turn.id) {
                    continue;
                }
                match self.push(message).await? {
                    Pushed::Delivered => {
                        self.inbox.metrics.add(MESSAGES, "handed_over", 1);
                        self.delivered.push(turn.id);
                        if !unacked.is_empty() {
                            self.set_aside(&unacked).await?;
                            set_aside.extend(unacked.drain(..));
                        }
                    }
                    Pushed::Refused => {
                        self.inbox.metrics.add(MESSAGES, "undeliverable", 1);
                        self.delivered.push(turn.id);
                    }
                    Pushed::Unacked => {
                        unacked.push(turn.id);
                        if unacked.len() >= UNACKED_MAX {
                            return Ok(());
                        }
                    }
                    Pushed::Ended => return Ok(()),
                }
            }
            self.remove_delivered().await?;
        }
    }

    /// One at a time: if several were under way, one could fail and a later one be delivered before it. While
    /// the ack is awaited, no shared resource is held: after a while the push is repeated under the same id,
    /// which asks for the outcome. Sessions that ack do not wait for those that do not.
    async fn push(&mut self, message: InboxRow) -> Result<Pushed, Error> {
        let (user_id, message_id) = (message.user_id, message.message_id);
        let item = item(message, &self.lease.to.device);
        let (begun, mut pause) = (Instant::now(), PAUSE_FIRST);
        let mut acks = std::mem::take(&mut self.acks);
        loop {
            let outcomes = {
                let (calls, wait) = match acks {
                    true => (&self.inbox.calls_of_acking, WAIT_ACKING),
                    false => (&self.inbox.calls, WAIT),
                };
                let _call = calls.acquire().await.map_err(Error::internal)?;
                if !self.renew().await? {
                    return Ok(Pushed::Ended);
                }
                self.inbox.push.send_within(std::slice::from_ref(&item), wait).await
            };
            let outcomes = match outcomes {
                Ok(outcomes) => outcomes,
                Err(error) if error.status.is_client_error() => {
                    error!(%error, user_id, message_id, "the push API refuses a stored message as invalid; it is dropped");
                    return Ok(Pushed::Refused);
                }
                Err(error) => return Err(error),
            };
            let outcome = outcomes.first().ok_or_else(|| Error::internal("a push without an outcome"))?;
            match (outcome.outcome.as_str(), outcome.reason.as_deref()) {
                ("delivered", _) => {
                    self.acks = true;
                    return Ok(Pushed::Delivered);
                }
                ("failed", Some("too_long")) => return Ok(Pushed::Refused),
                ("failed", Some("unacked")) => return Ok(Pushed::Unacked),
                ("failed", Some("busy" | "no_route")) | ("unavailable", _) => {
                    return Err(Error::unavailable("push_unavailable", "a message was not taken"));
                }
                ("pending", _) if begun.elapsed() < UNACKED_TIME => {}
                ("pending", _) => return Ok(Pushed::Unacked),
                _ => return Ok(Pushed::Ended),
            }
            self.remove_delivered().await?;
            tokio::time::sleep(pause).await;
            (acks, pause) = (false, PAUSE_MAX.min(pause * 2));
        }
    }

    /// Renews the lease. Returns whether this process still has it.
    async fn renew(&mut self) -> Result<bool, Error> {
        let now_ms = self.inbox.store.clock.now_ms();
        if now_ms.saturating_sub(self.renewed_ms) >= LEASE_MS / 4 {
            self.renewed_ms = now_ms;
            return hand_over::renew(self.inbox.store.db.writer(), self.lease, now_ms + LEASE_MS).await;
        }
        Ok(true)
    }

    async fn remove_delivered(&mut self) -> Result<(), Error> {
        if !self.delivered.is_empty() {
            let (inbox, to, ids) = (self.inbox, &self.lease.to, &self.delivered);
            let stay = insist(|| async move {
                let mut tx = inbox.store.db.begin().await?;
                let (dialect, now_ms) = (inbox.store.db.dialect(), inbox.store.clock.now_ms());
                let stay = inbox::delivered(&mut tx, dialect, to, ids, now_ms).await?;
                tx.commit().await?;
                Ok(stay)
            })
            .await?;
            if stay {
                self.done.extend(&self.delivered);
            }
            self.delivered.clear();
        }
        Ok(())
    }

    /// Sets messages aside that a session does not ack while it acks others.
    async fn set_aside(&self, ids: &[i64]) -> Result<(), Error> {
        let mut tx = self.inbox.store.db.begin().await?;
        inbox::set_aside(&mut tx, ids).await?;
        self.inbox.metrics.add(MESSAGES, "set_aside", ids.len() as u64);
        tx.commit().await
    }
}

fn item(message: InboxRow, device: &str) -> PushItem {
    let client_msg_id = match message.client_msg_id.is_empty() {
        true => format!("inbox-{}", message.message_id),
        false => message.client_msg_id,
    };
    PushItem {
        app: message.app,
        user: Some(message.user_id),
        room: None,
        biz_code: message.biz_code,
        client_msg_id,
        data: Data::of(message.data),
        sender: message.sender,
        stored: true,
        device: (!device.is_empty()).then(|| device.to_owned()),
        class: None,
    }
}

async fn remove(inbox: &Inbox, ids: &[i64]) -> Result<(), Error> {
    insist(|| async move {
        let mut tx = inbox.store.db.begin().await?;
        inbox::delete(&mut tx, inbox.store.db.dialect(), ids).await?;
        tx.commit().await
    })
    .await
}

/// `kept` (reported twice, one counts twice), `room` (not kept), `refused` (not kept, and the sender is
/// told), `dropped` (too old), `handed_over`, `set_aside`, `undeliverable` (the push API calls it wrong).
pub const MESSAGES: &Family = &Family {
    name: "sailfish_backend_inbox_messages_total",
    help: "Messages that did not reach their receivers, by result.",
    label: "result",
};
/// Deliveries under way in a process; the others wait for their turn. Those of silent sessions end after
/// [`UNACKED_MAX`] messages.
const HAND_OVERS_MAX: usize = 4_096;
/// How many unclaimed deliveries are read at a time.
const DUE_MAX: u32 = 256;
/// Calls under way in a process for sessions that ack, and for others.
const CALLS_MAX: usize = 64;
/// Messages that are read at a time.
const PAGE: u32 = 50;
/// How long a delivery is left to its holder unless that renews it. Far longer than a push may take.
const LEASE_MS: i64 = 60_000;
/// How long a delivery rests after an error.
const LATER_MS: i64 = 5_000;
/// How long a call waits for the ack of a session that acks, and of another.
const WAIT_ACKING: Duration = Duration::from_millis(500);
const WAIT: Duration = Duration::from_millis(100);
/// The pause between calls; it doubles each time.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// How long an ack is waited for if the gateways never say that it does not come.
const UNACKED_TIME: Duration = Duration::from_secs(120);
/// After how many unacked messages in a row the delivery to a session ends.
const UNACKED_MAX: usize = 3;
/// How often unclaimed deliveries are looked for.
const LOOK: Duration = Duration::from_secs(2);
const SWEEP_PAUSE_MS: i64 = 3_600_000;
const SWEEP_MAX: u32 = 1_000;
/// How long a message is kept: `stored` is a promise for this long.
const AGE_MS_MAX: i64 = 30 * 24 * 3_600_000;
