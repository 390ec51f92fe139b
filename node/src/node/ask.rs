//! The questions of the control thread, and the router shards that answer them.

use std::collections::BTreeMap;

use gateway::{Gateway, Push};
use shard::{Instant, ShardId};
use wire::UserId;
use wire::client::{FailReason, Outcome};
use wire::node::{Question, Target, ToControl};

use super::{Node, Outside};
use crate::mail::Report;

/// A question in parts, each for one router shard.
type Parts = Vec<(ShardId, Question)>;

impl<O: Outside> Node<O> {
    /// Asks the routers that own what the question is about. A node without a gateway asks its own router,
    /// which knows only its own users.
    pub(super) fn ask(&mut self, now: Instant, ask: u64, question: Question) {
        let Some(gateway) = self.cores.gateway_mut() else {
            let answer = self.cores.router_mut().map(|router| router.answer(now, question));
            self.report(Report::Asked { ask, parts: usize::from(answer.is_some()) });
            if let Some(answer) = answer {
                self.report(Report::Answer { ask, answer });
            }
            return;
        };
        let parts = parts(gateway, self.id, question);
        let count = parts.len();
        for (router, question) in parts {
            gateway.ask(router, ask, question);
        }
        self.report(Report::Asked { ask, parts: count });
    }

    /// Sends a message to all by the routers.
    pub(super) fn push_all(&mut self, now: Instant, ask: u64, push: Push) {
        let Some(gateway) = self.cores.gateway_mut() else {
            return self.report(Report::Asked { ask, parts: 0 });
        };
        let message = gateway.message_to_all(now, push);
        self.ask(now, ask, Question::PushAll { message });
    }

    pub(super) fn push(&mut self, now: Instant, ask: u64, target: Target, push: Push) {
        let gateway = self.cores.gateway_mut().filter(|gateway| gateway.owners().next().is_some());
        let Some(gateway) = gateway else {
            return self.report(Report::Asked { ask, parts: 0 });
        };
        let is_answered = push.is_answered(target);
        match gateway.push(now, target, push) {
            None => {
                let outcome = Some(Outcome::Failed(FailReason::Busy));
                self.report(Report::Pushed { ask, id: 0, outcome });
            }
            Some(id) if is_answered => {
                self.pushed.insert(id, ask);
                self.report(Report::Taken { ask, id: id.0 });
            }
            Some(id) => self.report(Report::Pushed { ask, id: id.0, outcome: None }),
        }
    }

    /// Handles what the gateway core sends to the control thread.
    pub(super) fn tell_control(&mut self, mail: ToControl) {
        match mail {
            ToControl::Answer { ask, answer } => self.report(Report::Answer { ask, answer }),
            ToControl::SendAck { submitted, ack } => {
                if let Some(ask) = self.pushed.remove(&submitted) {
                    self.report(Report::Pushed { ask, id: ack.id.0, outcome: Some(ack.outcome) });
                }
            }
            // The push that repeats it gets the answer.
            ToControl::Superseded { submitted } => {
                self.pushed.remove(&submitted);
            }
            ToControl::Drain => self.report(Report::DrainAsked),
            ToControl::SameNumber => self.report(Report::SameNumber),
        }
    }
}

/// Which routers a question goes to.
fn parts(gateway: &Gateway, me: ShardId, question: Question) -> Parts {
    let owners: Vec<ShardId> = gateway.owners().collect();
    match question {
        Question::Online { app, users } => {
            let mut of_owner: BTreeMap<ShardId, Vec<UserId>> = BTreeMap::new();
            for user in users {
                if let Some(owner) = gateway.owner_of(app, Target::User(user)) {
                    of_owner.entry(owner).or_default().push(user);
                }
            }
            of_owner.into_iter().map(|(owner, users)| (owner, Question::Online { app, users })).collect()
        }
        // Each keeps the ban, and sends it to all gateways; one that owns nothing now may own the user later.
        // One of them has the sessions.
        Question::Kick { app, user, device, ban_ms: Some(ban_ms) } => gateway
            .routers()
            .map(|owner| (owner, Question::Kick { app, user, device, ban_ms: Some(ban_ms) }))
            .collect(),
        Question::Kick { app, user, device, ban_ms: None } => {
            let owner = gateway.owner_of(app, Target::User(user));
            owner
                .into_iter()
                .map(|owner| (owner, Question::Kick { app, user, device, ban_ms: None }))
                .collect()
        }
        // Each keeps them, and sends them to all gateways.
        Question::Revoke { revocations } => gateway
            .routers()
            .map(|owner| (owner, Question::Revoke { revocations: revocations.clone() }))
            .collect(),
        // Every gateway is linked with every owner, so one owner reaches all.
        Question::PushAll { message } => {
            owners.first().map(|owner| (*owner, Question::PushAll { message })).into_iter().collect()
        }
        Question::Drain { node } => {
            let itself = gateway.routers().find(|router| router.node() == node && router.node() != me.node());
            let asked = itself.or(owners.first().copied());
            asked.into_iter().map(|router| (router, Question::Drain { node })).collect()
        }
        Question::History { app, room, last } => {
            let owner = gateway.owner_of(app, Target::Room(room));
            owner.into_iter().map(|owner| (owner, Question::History { app, room, last })).collect()
        }
        Question::Nodes => owners.into_iter().map(|owner| (owner, Question::Nodes)).collect(),
    }
}
