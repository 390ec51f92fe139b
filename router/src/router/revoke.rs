//! Tokens that are refused: told by operators or by gateways that know, and passed on to all gateways.

use shard::{Instant, ShardId};
use wire::node::{Revocation, ToGateway};

use super::Router;

impl Router {
    /// Keeps revocations, and tells all gateways of those that it did not know. Sessions of their users are
    /// looked at.
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

    /// Tells a gateway shard that has come of all that it is to refuse.
    pub(super) fn tell_revocations(&mut self, shard: ShardId) {
        for revocations in self.revocations.messages() {
            self.outbox.gateway(shard, ToGateway::Revoked { revocations });
        }
    }
}
