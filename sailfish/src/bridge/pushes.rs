//! Pushes of the backend through Redis, sent as the control API sends them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use wire::client::{FailReason, Outcome};
use wire::node::Target;

use crate::control::{self, Fate, Shards};
use biz_bridge::{PushTarget, Pushed, Pushes};

/// How long a push waits for its owner.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends through the shards of this process, once they have started.
#[derive(Clone, Default)]
pub struct ByShards {
    shards: Arc<OnceLock<Arc<Shards>>>,
}

impl ByShards {
    /// Call this when the shards have started.
    pub fn set(&self, shards: Arc<Shards>) {
        self.shards.set(shards).ok().expect("it is set here only");
    }
}

impl Pushes for ByShards {
    async fn push(&self, pushes: Vec<biz_bridge::Push>) -> Vec<Pushed> {
        let Some(shards) = self.shards.get() else {
            return pushes.iter().map(|_| Pushed::Unavailable).collect();
        };
        // Messages to all are lossy, and go on their own; a message that is too long is refused.
        let mut answers: Vec<Option<Pushed>> = Vec::with_capacity(pushes.len());
        let mut targeted = Vec::new();
        for push in pushes {
            if let Err(wrong) = shards.check_push(&push.client_msg_id, &push.payload) {
                answers.push(Some(Pushed::Refused(wrong)));
                continue;
            }
            let biz_bridge::Push { app, target, biz_code, class, client_msg_id, sender, payload } = push;
            let (stored, device) = (false, None);
            let push = gateway::Push { app, sender, biz_code, class, client_msg_id, payload, stored, device };
            let target = match target {
                PushTarget::User(user) => Target::User(user),
                PushTarget::Room(room) => Target::Room(room),
                PushTarget::All => {
                    let told = shards.push_to_all(push).await;
                    answers.push(Some(told.map_or(Pushed::Unavailable, |_| Pushed::Sent)));
                    continue;
                }
            };
            answers.push(None);
            targeted.push((target, push));
        }
        let mut pushed = shards.push_all(targeted, PATIENCE).await.into_iter().map(|pushed| match pushed {
            Ok(pushed) => of(&pushed),
            Err(_) => Pushed::Unavailable,
        });
        let next =
            |answer: Option<Pushed>| answer.or_else(|| pushed.next()).expect("one answer to each push");
        answers.into_iter().map(next).collect()
    }
}

fn of(pushed: &control::Pushed) -> Pushed {
    match pushed.fate {
        Fate::Sent => Pushed::Sent,
        Fate::Pending => Pushed::Pending,
        Fate::Known(Outcome::Delivered) => Pushed::Delivered,
        Fate::Known(Outcome::Sequenced { .. }) => Pushed::Sequenced,
        Fate::Known(Outcome::Failed(reason)) => Pushed::Failed(reason),
        // The backend has it in its inbox: the receiver was offline, so it has been handed over.
        Fate::Known(Outcome::Stored | Outcome::Answered) => Pushed::Failed(FailReason::Offline),
    }
}
