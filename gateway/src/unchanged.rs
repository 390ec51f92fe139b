//! What a router that was lost still knows of this shard's sessions, and which of that is unchanged.
//!
//! A router keeps the sessions of a gateway shard for a while after their link was lost, and sends their
//! digests when it is linked again. Sessions in ranges with the same digests here are not announced to it.

use std::collections::BTreeMap;

use shard::{ConnId, ShardId};
use wire::node::{Digests, RANGES, RangeSet, ToRouter, range_of, session_digest};
use wire::{AppId, UserId};

use crate::ends::Ends;
use crate::session::Phase;
use crate::telling::Telling;

/// How many sessions of a range may be uncertain for the router; with more, the range is announced.
const UNSURE_MAX: usize = 4;

/// What routers know of this shard, apart from its announcements.
#[derive(Default)]
pub(crate) struct Remembered {
    /// The digests of linked routers that have yet to get the list of unchanged ranges.
    digests: BTreeMap<ShardId, Digests>,
    /// The first owner in this shard's life.
    first: Option<ShardId>,
    /// Whether there were others: what one of them knows, another may have known under a later stamp.
    several: bool,
}

impl Remembered {
    /// A router is gone.
    pub(crate) fn lose(&mut self, router: ShardId) {
        self.digests.remove(&router);
    }

    /// Routers are chosen as owners.
    pub(crate) fn choose(&mut self, owners: impl Iterator<Item = ShardId>) {
        for owner in owners {
            self.several |= *self.first.get_or_insert(owner) != owner;
        }
    }

    /// Notes the digests of a router.
    pub(crate) fn hear(&mut self, router: ShardId, digests: Vec<u64>) {
        if let Some(digests) = Digests::from_vec(digests) {
            self.digests.insert(router, digests);
        }
    }
    /// Sends owners that still know sessions of this shard the ranges that are unchanged.
    pub(crate) fn tell(&mut self, ends: &Ends, telling: &mut Telling<'_>) -> Unchanged {
        let asked = self.digests.keys().copied().filter(|router| telling.view.is_owner(*router));
        let mut own: BTreeMap<ShardId, Own> = asked.map(|router| (router, Own::default())).collect();
        if own.is_empty() {
            return Unchanged::new();
        }
        let owner_of = |app: AppId, user: UserId| telling.view.owner_of_user(app, user);
        for (conn, session) in telling.sessions.iter() {
            let (app, user, device, login) = (session.app, session.user, session.device, session.login);
            let is_sure = match session.phase {
                Phase::Live => true,
                Phase::Binding => false,
                Phase::Fresh | Phase::Waiting | Phase::Closing => continue,
            };
            let Some(own) = owner_of(app, user).and_then(|owner| own.get_mut(&owner)) else { continue };
            let range = range_of(app, user);
            let digest = session_digest(app, user, device, telling.names.of(conn), login);
            if is_sure { own.live.toggle(range, digest) } else { own.unsure.push((range, digest)) }
        }
        for end in ends.iter() {
            let Some(own) = owner_of(end.app, end.user).and_then(|owner| own.get_mut(&owner)) else {
                continue;
            };
            let range = range_of(end.app, end.user);
            let session = telling.sessions.get(telling.names.conn(end.session));
            if session.is_some_and(|session| session.phase == Phase::Live) {
                own.denied.push(range);
            } else {
                let digest = session_digest(end.app, end.user, end.device, end.session, end.login);
                own.unsure.push((range, digest));
            }
        }
        let mut unchanged = Unchanged::new();
        for (router, own) in own {
            let known = self.digests.remove(&router).unwrap_or_default();
            let moved = self.several;
            let ranges = own.compare(&known);
            telling.effects.router(router, ToRouter::Unchanged { ranges: ranges.words(), moved });
            if moved {
                raise_stamps(router, &ranges, telling);
            }
            unchanged.insert(router, ranges);
        }
        unchanged
    }
}

/// The ranges of each owner whose sessions it knows already.
pub(crate) type Unchanged = BTreeMap<ShardId, RangeSet>;

/// This shard's sessions of one owner.
#[derive(Default)]
struct Own {
    live: Digests,
    /// Sessions that the owner may know or not, by range: they wait for its answer, or have ended.
    unsure: Vec<(usize, u64)>,
    /// Ranges of sessions whose end another owner reported and this shard denied. The owner gets that end as
    /// well, so they are announced to it again.
    denied: Vec<usize>,
}

impl Own {
    fn compare(mut self, known: &Digests) -> RangeSet {
        self.unsure.sort_unstable();
        let mut unchanged = RangeSet::default();
        for range in 0..RANGES {
            let difference = known.of(range) ^ self.live.of(range);
            let is_known = difference == 0 || self.explains(range, difference);
            if is_known && !self.denied.contains(&range) {
                unchanged.insert(range);
            }
        }
        unchanged
    }

    /// Whether some of the uncertain sessions account for the difference.
    fn explains(&self, range: usize, difference: u64) -> bool {
        let from = self.unsure.partition_point(|(of, _)| *of < range);
        let unsure = self.unsure.get(from..).unwrap_or_default();
        let unsure = unsure.get(..unsure.partition_point(|(of, _)| *of == range)).unwrap_or_default();
        let of_subset = |subset: usize| {
            let chosen = unsure.iter().enumerate().filter(|(at, _)| subset >> at & 1 == 1);
            chosen.fold(0, |sum, (_, (_, digest))| sum ^ digest)
        };
        unsure.len() <= UNSURE_MAX && (1..1 << unsure.len()).any(|subset| of_subset(subset) == difference)
    }
}

/// Raises the stamps of an owner's sessions, as the owner does.
fn raise_stamps(owner: ShardId, ranges: &RangeSet, telling: &mut Telling<'_>) {
    let conns: Vec<ConnId> = telling.sessions.iter().map(|(conn, _)| conn).collect();
    for conn in conns {
        let session = telling.sessions.get_mut(conn).filter(|session| session.phase == Phase::Live);
        let Some(session) = session else { continue };
        let is_its = telling.view.owner_of_user(session.app, session.user) == Some(owner);
        if is_its && ranges.contains(range_of(session.app, session.user)) {
            session.login = session.login.raised();
        }
    }
}
