//! What a router sends, until the engine takes it.

use std::collections::VecDeque;

use shard::ShardId;
use wire::node::{SessionId, ToBridge, ToDirectory, ToGateway};
use wire::{AppId, MessageId, UserId};

/// A session and its shard. A [`SessionId`] alone means something to its own shard only.
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
    /// Operators and backends that push; the user whom they name as the sender does not count.
    Operator,
}

impl Sender {
    /// In whose share a message of this sender counts, in an app and for a user.
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
    /// Send mail to the gateway core of a shard.
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

/// Effects in order. One event adds as many as it has receivers; an engine takes all of them in the same
/// turn.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    effects: VecDeque<Effect>,
}

impl Outbox {
    /// Sends mail to the gateway core of a shard.
    pub(crate) fn gateway(&mut self, to: ShardId, mail: ToGateway) {
        self.effects.push_back(Effect::ToGateway { to, mail });
    }

    /// Gives an event to the bridge.
    pub(crate) fn bridge(&mut self, event: ToBridge) {
        self.effects.push_back(Effect::ToBridge(event));
    }

    /// Gives a record to the directory.
    pub(crate) fn directory(&mut self, record: ToDirectory) {
        self.effects.push_back(Effect::ToDirectory(record));
    }

    /// Drops mail for the gateway core of a shard that is gone.
    pub(crate) fn forget(&mut self, shard: ShardId) {
        self.effects.retain(|effect| !matches!(effect, Effect::ToGateway { to, .. } if *to == shard));
    }

    pub(crate) fn pop(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
}
