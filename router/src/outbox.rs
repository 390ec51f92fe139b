//! What a router says, until the engine takes it.

use std::collections::VecDeque;

use shard::ShardId;
use wire::node::{NodeMessage, SessionId, ToBridge, ToDirectory, ToGateway};
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

/// Mail in the order it was said. One event adds as much as it has receivers; an engine takes it all in the
/// same turn.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    mail: VecDeque<(ShardId, NodeMessage)>,
}

impl Outbox {
    /// To the gateway core of a shard.
    pub(crate) fn gateway(&mut self, to: ShardId, message: ToGateway) {
        self.mail.push_back((to, NodeMessage::ToGateway(message)));
    }

    /// To the bridge.
    pub(crate) fn bridge(&mut self, message: ToBridge) {
        self.mail.push_back((ShardId::BRIDGE, NodeMessage::ToBridge(message)));
    }

    /// To the directory.
    pub(crate) fn directory(&mut self, message: ToDirectory) {
        self.mail.push_back((ShardId::DIRECTORY, NodeMessage::ToDirectory(message)));
    }

    /// Drops what is for the gateway core of a shard that is gone.
    pub(crate) fn forget(&mut self, shard: ShardId) {
        self.mail.retain(|(to, mail)| *to != shard || !matches!(mail, NodeMessage::ToGateway(_)));
    }

    pub(crate) fn pop(&mut self) -> Option<(ShardId, NodeMessage)> {
        self.mail.pop_front()
    }
}
