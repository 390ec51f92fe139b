//! Which gateway shards are there, what they agree about, and the messages that are parked until they do.
//!
//! Every gateway shard says which routers it reaches; a router tells all of them which routers everybody
//! reaches, and gateways choose owners among those only. So a broken link between any two nodes soon has the
//! same effect everywhere. Meanwhile gateways have different views. A router then parks messages whose target
//! it may not know yet, or not completely, until all gateways have the same view and have announced what they
//! have.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use shard::{Instant, ShardId, Shares};
use wire::node::{Owners, Submission, Target};
use wire::{AppId, MessageId, UserId};

use crate::limits::{Limits, SETTLE_TIMES_MAX, WARM_UP_MAX};
use crate::outbox::{Holder, Sender};
use crate::term::Term;

/// Parked messages for one target, in the order they came.
pub(crate) type Parked = VecDeque<(Sender, Submission)>;

pub(crate) struct Cluster {
    me: ShardId,
    settle: Duration,
    gateways: BTreeMap<ShardId, Gateway>,
    reached: Reached,
    /// The routers that all gateways reach that have said so, ascending, without a router that leaves.
    common: Vec<u32>,
    is_leaving: bool,
    /// Counts the periods without agreement.
    era: u64,
    /// How often a gateway shard was lost that may have used other owners without telling this router.
    losses: u64,
    /// Lost gateway shards: their life, and until when they may turn out to live. While one of them uses
    /// other routers, those make all gateways do without this router.
    lost: BTreeMap<ShardId, (u64, Instant)>,
    /// Until when, at most, messages are parked.
    unsettled_until: Option<Instant>,
    /// The latest that this may be moved to: gateways whose views never agree park nothing for ever.
    unsettled_max: Instant,
    /// Until when this router, which has just started, waits for gateways that it does not know: they may
    /// disagree with those it knows.
    warm_until: Option<Instant>,
    parked: BTreeMap<(AppId, Target), Parked>,
    /// How many parked messages each sender has.
    of_senders: Shares<Holder>,
}

/// A gateway shard that is linked.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// How many shards its node has.
    pub(crate) shards: u16,
    /// Whether it is in this process: then mail to each of its siblings goes by itself.
    pub(crate) is_local: bool,
    /// Which life of its process.
    pub(crate) incarnation: u64,
    /// It is a shard of a bridge.
    pub(crate) is_bridge: bool,
    /// `None` until it has said so.
    reach: Option<Vec<u32>>,
    /// The id of its owners, and whether it has announced everything to them; `None` while it has none.
    view: Option<(u64, bool)>,
}

/// By how many gateways each router is reached, updated with each report: with 1,280 gateways and 320
/// routers, a walk through all reports took milliseconds for each new one.
#[derive(Default, PartialEq, Eq, Debug)]
struct Reached {
    /// Gateways that have said what they reach.
    said: usize,
    by: BTreeMap<u32, usize>,
}

impl Reached {
    /// Adds a gateway's report: which routers it reaches, each once.
    fn add(&mut self, routers: &[u32]) {
        self.said += 1;
        for router in routers {
            *self.by.entry(*router).or_default() += 1;
        }
    }

    /// Takes a gateway's report back.
    fn remove(&mut self, routers: &[u32]) {
        self.said -= 1;
        for router in routers {
            if let Some(count) = self.by.get_mut(router) {
                *count -= 1;
                if *count == 0 {
                    self.by.remove(router);
                }
            }
        }
    }

    /// The routers that all gateways reach, ascending.
    fn by_all(&self) -> impl Iterator<Item = u32> + '_ {
        self.by.iter().filter(|(_, count)| **count == self.said).map(|(router, _)| *router)
    }
}

impl Gateway {
    pub(crate) fn new(shards: u16, is_local: bool, incarnation: u64) -> Self {
        Self { shards, is_local, incarnation, is_bridge: false, reach: None, view: None }
    }
}

impl Cluster {
    pub(crate) fn new(me: ShardId, settle: Duration, seed: u64) -> Self {
        Self {
            me,
            settle,
            gateways: BTreeMap::new(),
            reached: Reached::default(),
            common: Vec::new(),
            is_leaving: false,
            era: 1,
            losses: 0,
            lost: BTreeMap::new(),
            unsettled_until: None,
            unsettled_max: Instant::default(),
            warm_until: None,
            parked: BTreeMap::new(),
            of_senders: Shares::new(seed),
        }
    }

    /// Notes that a gateway shard is linked. The first one begins the time in which others may follow. One
    /// that comes while others have owners may have sessions that it has yet to announce.
    pub(crate) fn up(&mut self, now: Instant, shard: ShardId, gateway: Gateway) {
        if self.gateways.is_empty() && !gateway.is_local {
            self.begin(now);
            self.warm_until = Some(now + self.settle.min(WARM_UP_MAX));
            self.unsettled_until = self.warm_until;
        } else if self.gateways.values().any(|known| known.view.is_some()) {
            self.begin(now);
            self.prolong(now);
        }
        self.forget(shard); // what its life before has said does not count
        let is_back = self.lost.remove(&shard).is_some_and(|(life, _)| life == gateway.incarnation);
        self.losses += u64::from(is_back);
        self.gateways.insert(shard, gateway);
    }

    /// Notes that a gateway shard is gone; returns its last state. If all gateways had the same owners, it
    /// counts as dead until it is seen to live; else it may live, and have other owners.
    pub(crate) fn down(&mut self, now: Instant, shard: ShardId) -> Option<Gateway> {
        let was_agreed = self.is_agreed();
        let gateway = self.forget(shard)?;
        if was_agreed && !self.gateways.is_empty() {
            let until = now + self.settle * SETTLE_TIMES_MAX;
            self.lost.retain(|_, (_, until)| now < *until);
            self.lost.insert(shard, (gateway.incarnation, until));
        } else {
            self.losses += 1;
        }
        Some(gateway)
    }

    fn forget(&mut self, shard: ShardId) -> Option<Gateway> {
        let gateway = self.gateways.remove(&shard)?;
        if let Some(reach) = &gateway.reach {
            self.reached.remove(reach);
        }
        Some(gateway)
    }

    pub(crate) fn get(&self, shard: ShardId) -> Option<&Gateway> {
        self.gateways.get(&shard)
    }

    /// The gateway shards, ascending.
    pub(crate) fn shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.gateways.keys().copied()
    }

    /// The gateway shards that have announced everything to their owners.
    pub(crate) fn announced(&self) -> impl Iterator<Item = ShardId> + '_ {
        let is_done = |gateway: &Gateway| gateway.view.is_some_and(|(_, done)| done);
        self.gateways.iter().filter(move |(_, gateway)| is_done(gateway)).map(|(shard, _)| *shard)
    }

    /// Notes that a linked shard belongs to a bridge.
    pub(crate) fn set_bridge(&mut self, shard: ShardId) {
        if let Some(gateway) = self.gateways.get_mut(&shard) {
            gateway.is_bridge = true;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.gateways.len()
    }

    /// What all gateways reach.
    pub(crate) fn common(&self) -> &[u32] {
        &self.common
    }

    pub(crate) fn set_reach(&mut self, shard: ShardId, routers: Vec<u32>) {
        let Some(gateway) = self.gateways.get_mut(&shard) else { return };
        self.reached.add(&routers);
        if let Some(before) = gateway.reach.replace(routers) {
            self.reached.remove(&before);
        }
    }

    /// Makes gateways choose other owners from here on.
    pub(crate) fn leave(&mut self) {
        self.is_leaving = true;
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// Computes again what all gateways reach. Returns whether it has changed.
    pub(crate) fn agree(&mut self) -> bool {
        // The other shards of this node leave too. If each counted on the others, none would ever see all
        // gateways go by its owners, and all would keep what is to move.
        let is_of_this_node = |router: &u32| ShardId::from_u32(*router).node() == self.me.node();
        let is_one = |router: &u32| !(self.is_leaving && is_of_this_node(router));
        let common: Vec<u32> = self.reached.by_all().filter(is_one).collect();
        let changed = common != self.common;
        self.common = common;
        changed
    }

    /// Notes a gateway's view. The first that differs, or has yet to announce something, begins a period
    /// without agreement, and every further one lengthens it, within bounds. Returns whether the view has
    /// changed.
    pub(crate) fn set_view(&mut self, now: Instant, shard: ShardId, view: u64, done: bool) -> bool {
        let Some(gateway) = self.gateways.get_mut(&shard) else { return false };
        let before = gateway.view.replace((view, done));
        let has_changed = before.is_some_and(|(name, _)| name != view);
        if has_changed && std::mem::take(&mut self.lost).values().any(|(_, until)| now < *until) {
            self.losses += 1;
        }
        if !self.has_one_view() {
            self.begin(now);
            if before.is_none_or(|(name, _)| name != view) {
                self.prolong(now);
            }
        }
        has_changed
    }

    /// Drops a shard's parked messages that get no answer, and returns their number. The shard keeps no copy
    /// of them, and has found other owners: they would come late.
    pub(crate) fn drop_unanswered(&mut self, shard: ShardId) -> usize {
        self.drop_parked(|known| known.0.seat.shard == shard && !known.1.is_answered())
    }

    /// Drops all parked messages of a shard that is gone, and returns their number. If it lives, it submits
    /// those that get an answer to other owners, or here again.
    pub(crate) fn drop_all_of(&mut self, shard: ShardId) -> usize {
        self.drop_parked(|known| known.0.seat.shard == shard)
    }

    fn drop_parked(&mut self, is_it: impl Fn(&(Sender, Submission)) -> bool) -> usize {
        let Self { parked, of_senders, .. } = self;
        let before = of_senders.held().entries;
        for parked in parked.values_mut() {
            parked.retain(|known| {
                let stays = !is_it(known);
                if !stays {
                    of_senders.give_back(holder(known), 0);
                }
                stays
            });
        }
        parked.retain(|_, parked| !parked.is_empty());
        (before - of_senders.held().entries) as usize
    }

    fn begin(&mut self, now: Instant) {
        if self.unsettled_until.is_none() {
            self.era += 1;
            self.unsettled_until = Some(now + self.settle);
            self.unsettled_max = now + self.settle * SETTLE_TIMES_MAX;
        }
    }

    /// Gives a gateway that has just come the full time to announce itself.
    fn prolong(&mut self, now: Instant) {
        self.unsettled_until = Some((now + self.settle).min(self.unsettled_max));
    }

    /// Whether the period without agreement is over: by agreement, or by the clock.
    pub(crate) fn settles(&mut self, now: Instant) -> bool {
        let Some(until) = self.unsettled_until else { return false };
        self.warm_until = self.warm_until.filter(|until| now < *until);
        if now < until && (self.warm_until.is_some() || !self.has_one_view()) {
            return false;
        }
        (self.unsettled_until, self.warm_until) = (None, None);
        true
    }

    pub(crate) fn is_unsettled(&self) -> bool {
        self.unsettled_until.is_some()
    }

    /// Whether all gateways have announced what they have.
    pub(crate) fn is_agreed(&self) -> bool {
        !self.is_unsettled() && self.has_one_view()
    }

    /// Whether this router owns a user by the view that all gateways agree about.
    pub(crate) fn owns(&self, app: AppId, user: UserId) -> bool {
        if self.common.is_empty() {
            return false;
        }
        let owners = Owners::new(self.common.clone());
        self.go_by(&owners) && owners.of_user(app, user) == self.me.as_u32()
    }

    /// Whether all gateways have these owners, and have announced everything to them.
    pub(crate) fn go_by(&self, owners: &Owners) -> bool {
        let view = self.gateways.values().find_map(|gateway| gateway.view);
        self.has_one_view() && view == Some((owners.name(), true))
    }

    pub(crate) fn era(&self) -> u64 {
        self.era
    }

    pub(crate) fn term(&self) -> Term {
        Term { era: self.era, losses: self.losses }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.unsettled_until.into_iter().chain(self.warm_until).min()
    }

    /// Parks a message until there is agreement. Returns it if its sender, its target or all targets together
    /// have no room for it.
    pub(crate) fn park(
        &mut self,
        sender: Sender,
        submission: Submission,
        limits: &Limits,
    ) -> Result<(), Box<Submission>> {
        let target = (submission.app, submission.target);
        let for_target = self.parked.get(&target).map_or(0, VecDeque::len);
        let holder = sender.holder(submission.app, submission.sender);
        if for_target >= limits.pending_receiver_max as usize
            || !self.of_senders.take(holder, 0, limits.pending_total(), limits.sender_share(holder))
        {
            return Err(Box::new(submission));
        }
        let parked = self.parked.entry(target).or_default();
        // A message that was withdrawn and is here again goes before what its shard submitted later. A
        // shard's ids ascend.
        let of_shard = |(known, _): &&(Sender, Submission)| known.seat.shard == sender.seat.shard;
        let last = parked.iter().rev().find(of_shard);
        let is_last = last.is_none_or(|(last, _)| last.submitted < sender.submitted);
        let later = |known: &(Sender, Submission)| of_shard(&known) && known.0.submitted > sender.submitted;
        let at = if is_last { None } else { parked.iter().position(later) };
        parked.insert(at.unwrap_or(parked.len()), (sender, submission));
        Ok(())
    }

    pub(crate) fn is_parked(&self, app: AppId, target: Target) -> bool {
        self.parked.contains_key(&(app, target))
    }

    /// The users for whom messages are parked.
    pub(crate) fn parked_users(&self) -> impl Iterator<Item = (AppId, UserId)> + '_ {
        self.parked.keys().filter_map(|(app, target)| match target {
            Target::User(user) => Some((*app, *user)),
            Target::Room(_) => None,
        })
    }

    /// Takes the parked messages for one target.
    pub(crate) fn unpark(&mut self, app: AppId, target: Target) -> Parked {
        let parked = self.parked.remove(&(app, target)).unwrap_or_default();
        self.give_back(&parked);
        parked
    }

    fn give_back(&mut self, parked: &Parked) {
        parked.iter().for_each(|known| self.of_senders.give_back(holder(known), 0));
    }

    /// Drops one message that is held back. One to a user without a name may be here twice: submitted again,
    /// and held back once more when its first receivers were lost.
    pub(crate) fn withdraw(&mut self, from: ShardId, app: AppId, target: Target, id: MessageId) {
        let Some(parked) = self.parked.get_mut(&(app, target)) else { return };
        // A shard withdraws its messages in their order, so the first is near the front.
        let is_it = |(sender, _): &(Sender, Submission)| (sender.seat.shard, sender.submitted) == (from, id);
        let copies_max = if matches!(target, Target::User(_)) { 2 } else { 1 };
        for _ in 0..copies_max {
            let Some(withdrawn) = parked.iter().position(is_it).and_then(|at| parked.remove(at)) else {
                break;
            };
            self.of_senders.give_back(holder(&withdrawn), 0);
        }
        if parked.is_empty() {
            self.parked.remove(&(app, target));
        }
    }

    /// Takes the parked messages for any one target.
    pub(crate) fn unpark_any(&mut self) -> Option<Parked> {
        let (_, parked) = self.parked.pop_first()?;
        self.give_back(&parked);
        Some(parked)
    }

    pub(crate) fn parked_len(&self) -> usize {
        self.of_senders.held().entries as usize
    }

    /// A gateway that has yet to say which owners it has differs from those that have said so: it may have
    /// sessions to announce.
    fn has_one_view(&self) -> bool {
        let Some((first, _)) = self.gateways.values().find_map(|gateway| gateway.view) else { return true };
        self.gateways.values().all(|gateway| gateway.view == Some((first, true)))
    }

    pub(crate) fn check_invariants(&self) {
        let mut reached = Reached::default();
        self.gateways
            .values()
            .filter_map(|gateway| gateway.reach.as_deref())
            .for_each(|reach| reached.add(reach));
        assert_eq!(reached, self.reached, "the counts are of what gateways have said last");
        self.of_senders.check_invariants(self.parked.values().flatten().map(|known| (holder(known), 0)));
        assert!(
            self.parked.values().all(|parked| !parked.is_empty()),
            "a target without messages is forgotten"
        );
        assert!(
            self.parked.is_empty() || self.is_unsettled(),
            "nothing is held back once there is agreement"
        );
    }
}

/// Which holder's share of the parked messages a message counts in.
fn holder((sender, submission): &(Sender, Submission)) -> Holder {
    sender.holder(submission.app, submission.sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(2);

    /// Three gateways that go by the same owners.
    fn three(now: Instant) -> (Cluster, [ShardId; 3]) {
        let mut cluster = Cluster::new(ShardId::new(1, 0), SETTLE, 1);
        let gateways = [32, 33, 34].map(|node| ShardId::new(node, 0));
        for gateway in gateways {
            cluster.up(now, gateway, Gateway::new(1, false, 5));
        }
        for gateway in gateways {
            cluster.set_view(now, gateway, 7, true);
        }
        assert!(cluster.settles(now + SETTLE));
        assert_eq!(cluster.term().losses, 0);
        (cluster, gateways)
    }

    /// One that dies says nothing anywhere. One that lives and goes by other routers has these tell all
    /// others to go by them.
    #[test]
    fn a_gateway_that_is_lost_counts_if_it_may_have_gone_by_others() {
        let now = Instant::from_unix_nanos(1_000_000_000_000);
        let later = now + SETTLE;
        let (mut cluster, [a, b, c]) = three(now);
        cluster.down(now, a);
        cluster.up(later, a, Gateway::new(1, false, 6));
        cluster.set_view(later, a, 7, true);
        assert!(cluster.settles(later + SETTLE));
        assert_eq!(cluster.term().losses, 0, "it has died, and its next life is here");
        cluster.down(now, b);
        cluster.set_view(now + SETTLE * SETTLE_TIMES_MAX, c, 8, true);
        assert_eq!(cluster.term().losses, 0, "that has another reason");

        let (mut cluster, [a, b, c]) = three(now);
        cluster.down(now, a);
        cluster.set_view(later, b, 8, true);
        cluster.set_view(later, c, 8, true);
        assert_eq!(cluster.term().losses, 1, "the others go by other owners");

        let (mut cluster, [a, ..]) = three(now);
        cluster.down(now, a);
        cluster.up(later, a, Gateway::new(1, false, 5));
        assert_eq!(cluster.term().losses, 1, "it has lived");

        let (mut cluster, [a, b, c]) = three(now);
        cluster.set_view(now, b, 8, true);
        cluster.down(now, a);
        cluster.set_view(now, c, 8, true);
        assert_eq!(cluster.term().losses, 1, "they were first to hear");

        let (mut cluster, gateways) = three(now);
        for gateway in gateways {
            cluster.down(now, gateway);
        }
        assert_eq!(cluster.term().losses, 1, "nobody is left to tell of the last one");
    }
}
