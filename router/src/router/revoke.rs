//! Tokens that are refused: operators or gateways report them, and all gateways get them.

use shard::{Instant, ShardId};
use wire::node::{Revocation, ToGateway};

use super::Router;

impl Router {
    /// Keeps revocations, and sends all gateways those that were not known here. Their users' sessions are
    /// checked.
    pub(super) fn revoke(&mut self, now: Instant, revocations: Vec<Revocation>) {
        let now_secs = self.clocks.wall_secs(now);
        let is_new = |revocation: &Revocation| self.revocations.add(now_secs, *revocation);
        let new: Vec<Revocation> = revocations.into_iter().filter(is_new).collect();
        if new.is_empty() {
            return;
        }
        for shard in self.cluster.shards() {
            self.outbox.gateway(shard, ToGateway::Revoked { revocations: new.clone() });
        }
        for Revocation { app, user, .. } in new {
            for (_, seat, _) in self.users.of(app, user) {
                self.outbox.gateway(seat.shard, ToGateway::Recheck { session: seat.session });
            }
        }
    }

    /// Sends all revocations to a gateway shard that has just linked.
    pub(super) fn tell_revocations(&mut self, shard: ShardId) {
        for revocations in self.revocations.messages() {
            self.outbox.gateway(shard, ToGateway::Revoked { revocations });
        }
    }
}
