//! Logins whose stamps are below those of earlier ones: the exception to "the newest login wins".

use crate::model::{Session, SessionNo};
use crate::network::Host;
use crate::world::World;

impl World {
    /// A login that waits for the first router is stamped by what its node has heard of other clocks. If that
    /// node and every router have started since an earlier login of its user, none of them knows the clock of
    /// that one, and its own may be behind by more than the time between the two. A node that knows better is
    /// linked a moment too late, and the newer session gives way.
    pub(crate) fn is_stamp_forgotten(&self, newer: SessionNo) -> bool {
        let (before, newer) = (&self.model.sessions[..newer], &self.model.sessions[newer]);
        let behind_ns = self.plan.behind_ns(newer.shard.node());
        let is_above = |older: &Session| {
            let said = older.live.unwrap_or(older.began);
            let bound = newer.live.unwrap_or(self.now);
            let is_new = |host: Host, until: u64| !self.model.lives.ran_throughout(host, said, until);
            (older.user, older.device) == (newer.user, newer.device)
                && behind_ns > newer.began.saturating_sub(said)
                && is_new(newer.shard.node(), newer.began)
                && self.plan.router_hosts().into_iter().all(|router| is_new(router, bound))
        };
        before.iter().any(is_above)
    }
}
