//! What a router says, until it is taken.

use std::collections::VecDeque;

use shard::ShardId;
use wire::node::{SessionId, ToBridge, ToDirectory, ToGateway};
use wire::{AppId, MessageId, UserId};

/// A session and the shard it lives on. A [`SessionId`] alone means something to its own shard only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seat {
    pub(crate) shard: ShardId,
    pub(crate) session: SessionId,
}

/// Who submitted a message, and under which id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sender {
    pub(crate) seat: Seat,
    pub(crate) submitted: MessageId,
}

/// In whose share of a pool a message counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Holder {
    /// The user whose session sent it.
    User(AppId, UserId),
    /// The operators and backends that push: the user in whose name they do has no part in it.
    Operator,
}

impl Sender {
    /// In whose share a message of this sender counts, which names that user.
    pub(crate) fn holder(self, app: AppId, user: UserId) -> Holder {
        match self.seat.session {
            SessionId::CONTROL => Holder::Operator,
            _ => Holder::User(app, user),
        }
    }
}

/// What a router core wants said.
#[derive(PartialEq, Eq, Debug)]
pub enum Effect {
    /// Tell the gateway core of a shard something.
    ToGateway {
        /// Which shard.
        to: ShardId,
        /// What.
        mail: ToGateway,
    },
    /// Keep an event for the bridge.
    ToBridge(ToBridge),
    /// Give the directory a record.
    ToDirectory(ToDirectory),
}

/// What is to be said, in order. One event adds as much as it has receivers; an engine takes it all in the
/// same turn.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    effects: VecDeque<Effect>,
}

impl Outbox {
    /// To the gateway core of a shard.
    pub(crate) fn gateway(&mut self, to: ShardId, mail: ToGateway) {
        self.effects.push_back(Effect::ToGateway { to, mail });
    }

    /// To the bridge.
    pub(crate) fn bridge(&mut self, event: ToBridge) {
        self.effects.push_back(Effect::ToBridge(event));
    }

    /// To the directory.
    pub(crate) fn directory(&mut self, record: ToDirectory) {
        self.effects.push_back(Effect::ToDirectory(record));
    }

    /// Drops what is for the gateway core of a shard that is gone.
    pub(crate) fn forget(&mut self, shard: ShardId) {
        self.effects.retain(|effect| !matches!(effect, Effect::ToGateway { to, .. } if *to == shard));
    }

    pub(crate) fn pop(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
}
