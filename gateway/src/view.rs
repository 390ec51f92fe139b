//! Which router shards there are, and which of them own users and rooms.
//!
//! A shard tells every router it is linked with which routers it reaches, and each of them answers with what
//! everybody reaches. Owners are those that are reached from everywhere. When they change, this shard
//! announces what they do not know yet: rooms first, then the messages that wait for an answer, then
//! sessions, step by step (`announce.rs`).

use std::collections::BTreeMap;

use shard::ShardId;
use wire::node::{Owners, Target, ToRouter};
use wire::{AppId, RoomId, UserId};

use crate::effect::Effects;

/// What a gateway shard knows of routers.
#[derive(Default)]
pub(crate) struct View {
    /// The linked router shards, each with the routers that everybody reaches, as it says.
    routers: BTreeMap<ShardId, Option<Vec<u32>>>,
    /// Whether all routers of the configuration are linked, or had their time. Until then no reach is sent
    /// and there are no owners, for others may count on more of them.
    has_begun: bool,
    /// `None` while there is no router.
    owners: Option<Owners>,
    /// Whether something came that owners depend on. They are chosen once a turn, because the shards of a
    /// router come and go together.
    is_stale: bool,
    /// Routers that went since owners were chosen last; what they knew is gone, even if they are back.
    gone: Vec<ShardId>,
}

/// The owners before a change.
#[derive(Clone)]
pub(crate) struct Before {
    pub(crate) owners: Option<Owners>,
    /// Those of them that know nothing any more.
    pub(crate) gone: Vec<ShardId>,
}

impl Before {
    /// Which owner knows a target; none if it is gone.
    pub(crate) fn owner_of(&self, app: AppId, target: Target) -> Option<ShardId> {
        owner_of(self.owners.as_ref(), app, target).filter(|owner| !self.gone.contains(owner))
    }
}

/// The result of looking at the routers.
pub(crate) enum Look {
    /// These shall own users and rooms, once [`View::go_by`] gets them; none while there is no router.
    Others {
        owners: Option<Owners>,
        /// Routers that went.
        gone: Vec<ShardId>,
    },
    /// Owners stay. Routers that went may have been owners before.
    Same { gone: Vec<ShardId> },
}

/// Which routers are to be owners.
enum Choice {
    /// These; none while there is no router.
    Is(Option<Owners>),
    /// Some router has yet to send what everybody reaches.
    Waits,
}

impl View {
    /// Who owns a user; none while there is no router.
    pub(crate) fn owner_of_user(&self, app: AppId, user: UserId) -> Option<ShardId> {
        owner_of(self.owners.as_ref(), app, Target::User(user))
    }

    /// Who owns a room; none while there is no router.
    pub(crate) fn owner_of_room(&self, app: AppId, room: RoomId) -> Option<ShardId> {
        owner_of(self.owners.as_ref(), app, Target::Room(room))
    }

    /// Who owns a target; none while there is no router.
    pub(crate) fn owner_of(&self, app: AppId, target: Target) -> Option<ShardId> {
        owner_of(self.owners.as_ref(), app, target)
    }

    /// Whether a router shard is linked.
    pub(crate) fn is_up(&self, router: ShardId) -> bool {
        self.routers.contains_key(&router)
    }

    pub(crate) fn is_owner(&self, router: ShardId) -> bool {
        self.owners.as_ref().is_some_and(|owners| owners.contains(router.as_u32()))
    }

    /// The router shards that own users and rooms, ascending.
    pub(crate) fn owners(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.owners.iter().flat_map(|owners| owners.routers()).map(ShardId::from_u32)
    }

    /// The router shards that are linked, ascending.
    pub(crate) fn routers(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.routers.keys().copied()
    }

    /// The present owners, without these that are gone.
    pub(crate) fn now_without(&self, gone: Vec<ShardId>) -> Before {
        Before { owners: self.owners.clone(), gone }
    }

    /// A router shard is linked.
    pub(crate) fn up(&mut self, router: ShardId) {
        self.routers.insert(router, None);
        self.is_stale = true;
    }

    /// A router shard is gone.
    pub(crate) fn down(&mut self, router: ShardId) {
        self.routers.remove(&router);
        // Without routers, this is as at the start: the first router that comes is not all there are.
        self.has_begun &= !self.routers.is_empty();
        self.gone.push(router);
        self.is_stale = true;
    }

    /// Notes that all routers are linked or had their time. False if that was known.
    pub(crate) fn begin(&mut self) -> bool {
        let begins = !std::mem::replace(&mut self.has_begun, true);
        self.is_stale |= begins;
        begins
    }

    /// Notes the routers that everybody reaches, as a router says.
    pub(crate) fn hear(&mut self, router: ShardId, common: Vec<u32>) {
        if let Some(known) = self.routers.get_mut(&router) {
            *known = Some(common);
            self.is_stale = true;
        }
    }

    /// The routers that this shard reports as reached; none before [`View::begin`].
    pub(crate) fn told_reach(&self) -> Vec<u32> {
        if self.has_begun { self.reach() } else { Vec::new() }
    }

    /// Sends a router the owners of this shard, and whether it has announced everything to them.
    pub(crate) fn tell(&self, router: ShardId, done: bool, effects: &mut Effects) {
        if let Some(view) = self.owners.as_ref().map(Owners::name) {
            effects.router(router, ToRouter::View { view, done });
        }
    }

    /// Sends that to all routers.
    pub(crate) fn tell_all(&self, done: bool, effects: &mut Effects) {
        self.routers().for_each(|router| self.tell(router, done, effects));
    }

    /// Checks who shall own users and rooms, if anything came that this depends on. Every turn asks, and
    /// nearly always only the flag is read.
    #[inline]
    pub(crate) fn look(&mut self) -> Option<Look> {
        if std::mem::take(&mut self.is_stale) { self.look_anew() } else { None }
    }

    fn look_anew(&mut self) -> Option<Look> {
        let Choice::Is(owners) = self.choice() else { return None };
        let gone = std::mem::take(&mut self.gone);
        Some(match owners == self.owners && !gone.iter().any(|gone| self.is_owner(*gone)) {
            true => Look::Same { gone },
            false => Look::Others { owners, gone },
        })
    }

    /// Makes these the owners from here on; returns the ones before.
    pub(crate) fn go_by(&mut self, owners: Option<Owners>, gone: Vec<ShardId>) -> Before {
        Before { owners: std::mem::replace(&mut self.owners, owners), gone }
    }

    fn reach(&self) -> Vec<u32> {
        self.routers.keys().map(|router| router.as_u32()).collect()
    }

    /// The routers that everybody reaches, as far as the linked ones know. If two cut links leave no such
    /// router, those that this shard reaches must do.
    ///
    /// A router first sends what it knows of this shard's sessions. So one that has not sent anything yet is
    /// waited for, unless an owner is gone.
    fn choice(&self) -> Choice {
        let mut said = self.routers.values().flatten().peekable();
        if !self.has_begun || said.peek().is_none() {
            return Choice::Is(None);
        }
        let mut chosen = self.reach();
        for common in said {
            // Nearly always all say the same, in ascending order.
            if *common != chosen {
                chosen.retain(|router| common.binary_search(router).is_ok());
            }
        }
        if chosen.is_empty() {
            chosen = self.reach();
        }
        let all = chosen.len();
        chosen.retain(|router| self.routers.get(&ShardId::from_u32(*router)).is_some_and(Option::is_some));
        let is_owner_gone = self.gone.iter().any(|gone| self.is_owner(*gone));
        if chosen.is_empty() || chosen.len() < all && !is_owner_gone {
            return Choice::Waits;
        }
        Choice::Is(Some(Owners::new(chosen)))
    }
}

/// Who owns a target; none while there are no owners.
pub(crate) fn owner_of(owners: Option<&Owners>, app: AppId, target: Target) -> Option<ShardId> {
    let owners = owners?;
    Some(ShardId::from_u32(match target {
        Target::User(user) => owners.of_user(app, user),
        Target::Room(room) => owners.of_room(app, room),
    }))
}
