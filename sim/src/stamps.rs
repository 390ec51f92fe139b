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

/// When the processes of nodes began and ended.
#[derive(Default)]
pub(crate) struct Lives {
    /// In the order of their beginnings; no end while they run.
    of: Vec<(Host, u64, Option<u64>)>,
}

impl Lives {
    pub(crate) fn begin(&mut self, at: u64, host: Host) {
        self.of.push((host, at, None));
    }

    pub(crate) fn end(&mut self, at: u64, host: Host) {
        let runs = self.of.iter_mut().find(|(of, _, ended)| *of == host && ended.is_none());
        if let Some((_, _, ended)) = runs {
            *ended = Some(at);
        }
    }

    /// Whether one process of a node ran all that time.
    fn ran_throughout(&self, host: Host, from: u64, until: u64) -> bool {
        let is_it = |(of, began, ended): &(Host, u64, Option<u64>)| {
            *of == host && *began <= from && ended.is_none_or(|ended| ended > until)
        };
        self.of.iter().any(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_began_or_ended_meanwhile_did_not_run_throughout() {
        let mut lives = Lives::default();
        lives.begin(10, 1);
        lives.begin(10, 2);
        lives.end(20, 1);
        lives.begin(30, 1);
        let ran = |host, from, until| lives.ran_throughout(host, from, until);
        assert!(ran(1, 10, 19) && ran(1, 30, 99) && ran(2, 10, 99));
        assert!(!ran(1, 9, 15) && !ran(1, 15, 20) && !ran(1, 15, 35) && !ran(1, 22, 25) && !ran(1, 22, 35));
    }
}
