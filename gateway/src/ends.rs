//! Sessions that ended last, until it is sure that nobody needs to hear of them again.

use std::collections::VecDeque;

use shard::{ConnId, ShardId};
use wire::node::{Login, SessionId};
use wire::{AppId, DeviceClass, UserId};

use crate::limits::ENDS_MAX;
use crate::view::View;

/// A session that ended, and the router that was told; none when this shard told the bridge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) owner: Option<ShardId>,
    pub(crate) app: AppId,
    pub(crate) user: UserId,
    pub(crate) device: DeviceClass,
    pub(crate) session: SessionId,
    pub(crate) login: Login,
}

/// The sessions that ended last, oldest first.
#[derive(Default)]
pub(crate) struct Ends(VecDeque<End>);

impl Ends {
    /// A router that goes may not have heard of the end, or told it on, so it is remembered for a while.
    pub(crate) fn put(&mut self, end: End) {
        if self.0.len() >= ENDS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(end);
    }

    /// The ends that a router was told of, which is gone: they are this shard's to tell.
    pub(crate) fn take_over(&mut self, owner: ShardId) -> Vec<End> {
        let of_owner = self.0.iter_mut().filter(|end| end.owner == Some(owner));
        of_owner
            .map(|end| {
                end.owner = None;
                *end
            })
            .collect()
    }

    /// The ends that the owners of now have not heard of, each with its owner, who is told.
    pub(crate) fn give(&mut self, view: &View) -> Vec<(ShardId, End)> {
        let moved = self.0.iter_mut().filter_map(|end| {
            let owner = view.owner_of_user(end.app, end.user)?;
            (end.owner.replace(owner) != Some(owner)).then_some((owner, *end))
        });
        moved.collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &End> + '_ {
        self.0.iter()
    }
}

/// What the bridge has yet to be told again.
#[derive(Default)]
pub(crate) struct Retelling {
    ends: Vec<End>,
    /// Connections, for the rooms of their sessions.
    conns: Vec<ConnId>,
}

impl Retelling {
    /// Of these ends, and of the rooms of all connections.
    pub(crate) fn new(ends: &Ends, conns: Vec<ConnId>) -> Self {
        Self { ends: ends.iter().copied().collect(), conns }
    }

    /// The next `ends_max` ends.
    pub(crate) fn take_ends(&mut self, ends_max: usize) -> Vec<End> {
        self.ends.split_off(self.ends.len().saturating_sub(ends_max))
    }

    /// The next `conns_max` connections.
    pub(crate) fn take_conns(&mut self, conns_max: usize) -> Vec<ConnId> {
        self.conns.split_off(self.conns.len().saturating_sub(conns_max))
    }
}
