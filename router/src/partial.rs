//! Messages that went to some devices of a user while others may have yet to be announced.
//!
//! While gateways change owners, a user may be known here by one device and not yet by another. A message
//! goes at once to those that are known, and is kept here until gateways agree, for the others to get it when
//! they are announced. The same is done for devices that are away.

use std::collections::BTreeMap;

use shard::Shares;
use wire::client::Message;
use wire::node::DeliveryId;
use wire::{AppId, MessageId, UserId};

use crate::limits::Limits;
use crate::outbox::Seat;

/// A reliable message that some devices of its receiver were sent.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    /// Its pending letter, which may have its outcome already.
    pub(crate) delivery: DeliveryId,
    pub(crate) message: Message,
    /// The session that acked it. A gateway whose link was lost may announce it once more, and it has the
    /// message.
    pub(crate) acked_by: Option<Seat>,
    /// Its sender's shard has given it to another owner, which gives it to all devices.
    pub(crate) is_withdrawn: bool,
}

/// The bytes of a message's payload and client message id.
pub(crate) fn message_bytes(message: &Message) -> u64 {
    (message.client_msg_id.as_bytes().len() + message.payload.len()) as u64
}

/// The partly delivered messages of every user, in the order they were sent.
pub(crate) struct Partial {
    given: BTreeMap<(AppId, UserId), Vec<Given>>,
    for_receivers: Shares<(AppId, UserId)>,
}

impl Partial {
    pub(crate) fn new(seed: u64) -> Self {
        Self { given: BTreeMap::new(), for_receivers: Shares::new(seed) }
    }

    /// Takes room for a message; false if its receiver, or all of them together, have no room for it.
    pub(crate) fn take_room(&mut self, app: AppId, user: UserId, bytes: u64, limits: &Limits) -> bool {
        self.for_receivers.take((app, user), bytes, limits.pending_total(), limits.receiver_share())
    }

    /// Keeps a message that room was taken for.
    pub(crate) fn keep(&mut self, app: AppId, user: UserId, given: Given) {
        self.given.entry((app, user)).or_default().push(given);
    }

    /// Gives back the room that was taken for a message that is not kept after all.
    pub(crate) fn give_back(&mut self, app: AppId, user: UserId, bytes: u64) {
        self.for_receivers.give_back((app, user), bytes);
    }

    /// The messages that a newly announced device of a user has missed.
    pub(crate) fn of(&self, app: AppId, user: UserId) -> Vec<Given> {
        let its = self.given.get(&(app, user)).into_iter().flatten();
        its.filter(|given| !given.is_withdrawn).cloned().collect()
    }

    /// Whether the shard of its sender has withdrawn a message.
    pub(crate) fn is_withdrawn(&self, app: AppId, user: UserId, delivery: DeliveryId) -> bool {
        let its = self.given.get(&(app, user)).into_iter().flatten();
        its.into_iter().any(|given| given.delivery == delivery && given.is_withdrawn)
    }

    /// The shard of its sender withdraws a message.
    pub(crate) fn withdraw(&mut self, app: AppId, user: UserId, is_it: impl Fn(DeliveryId) -> bool) {
        let its = self.given.get_mut(&(app, user)).into_iter().flatten();
        its.filter(|given| is_it(given.delivery)).for_each(|given| given.is_withdrawn = true);
    }

    /// A message is submitted again.
    pub(crate) fn resubmit(&mut self, app: AppId, user: UserId, id: MessageId) {
        let its = self.given.get_mut(&(app, user)).into_iter().flatten();
        its.filter(|given| given.message.id == id).for_each(|given| given.is_withdrawn = false);
    }

    /// Stops keeping a message, because a session has acked it or all have failed. False if it was not kept
    /// here.
    pub(crate) fn settle(
        &mut self,
        app: AppId,
        user: UserId,
        delivery: DeliveryId,
        acked_by: Option<Seat>,
    ) -> bool {
        let Some(its) = self.given.get_mut(&(app, user)) else { return false };
        let is_it = |given: &Given| given.delivery == delivery;
        if acked_by.is_some() {
            let acked = its.iter_mut().find(|given| is_it(given)).map(|given| given.acked_by = acked_by);
            return acked.is_some();
        }
        let Some(at) = its.iter().position(is_it) else { return false };
        let given = its.remove(at);
        if its.is_empty() {
            self.given.remove(&(app, user));
        }
        self.for_receivers.give_back((app, user), message_bytes(&given.message));
        true
    }

    /// The users with such messages.
    pub(crate) fn users(&self) -> impl Iterator<Item = (AppId, UserId)> + '_ {
        self.given.keys().copied()
    }

    /// Forgets all messages: gateways agree, so every device is announced.
    pub(crate) fn clear(&mut self) {
        for ((app, user), its) in std::mem::take(&mut self.given) {
            its.iter()
                .for_each(|given| self.for_receivers.give_back((app, user), message_bytes(&given.message)));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.for_receivers.held().entries as usize
    }

    pub(crate) fn check_invariants(&self) {
        let all = self.given.iter().flat_map(|(user, its)| its.iter().map(move |given| (*user, given)));
        self.for_receivers.check_invariants(all.map(|(user, given)| (user, message_bytes(&given.message))));
    }
}
