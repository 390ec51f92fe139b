//! The last sessions that ended, kept until nobody can need their ends any more.

use std::collections::VecDeque;

use shard::{ConnId, ShardId};
use wire::node::{Login, SessionId};
use wire::{AppId, DeviceClass, UserId};

use crate::limits::ENDS_MAX;
use crate::view::View;

/// A session that ended, and the router that got the report; none if this shard reported it to the bridge.
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
    /// Remembers an end for a while: a router that goes may not have got it, or not have passed it on.
    pub(crate) fn put(&mut self, end: End) {
        if self.0.len() >= ENDS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(end);
    }

    /// Takes the ends that a router got which is gone: now this shard must report them.
    pub(crate) fn take_over(&mut self, owner: ShardId) -> Vec<End> {
        let of_owner = self.0.iter_mut().filter(|end| end.owner == Some(owner));
        of_owner
            .map(|end| {
                end.owner = None;
                *end
            })
            .collect()
    }

    /// The ends that the present owners do not know, each with its owner, which gets it now.
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

/// What has yet to be reported to the bridge again.
#[derive(Default)]
pub(crate) struct Retelling {
    ends: Vec<End>,
    /// Connections, for the rooms of their sessions.
    conns: Vec<ConnId>,
}

impl Retelling {
    /// Begins with these ends, and with the rooms of all connections.
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
