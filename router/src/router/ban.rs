//! Users whose logins are refused: operators or gateways report them, and all gateways get them.

use shard::{Instant, ShardId};
use wire::node::{Ban, Login, ToGateway};
use wire::{AppId, DeviceClass, UserId};

use super::Router;

impl Router {
    /// An operator keeps a user out for some time; 0 lifts that. Each router that is asked gives its own
    /// stamp, so a node may get one ban under several stamps.
    pub(super) fn ban(&mut self, now: Instant, who: (AppId, UserId, Option<DeviceClass>), ban_ms: u32) {
        let (now_ms, clock) = (self.clocks.wall_millis(now), Login(self.clock_ns(now)));
        let ban = self.bans.next(now_ms, clock, who, ban_ms);
        self.bans.add(now_ms, ban);
        // A gateway may know of a ban that this router does not know of, and that is lifted here.
        self.tell_bans(vec![ban]);
    }

    /// Keeps bans that a gateway knew, and sends all gateways those that were not known here.
    pub(super) fn hear_bans(&mut self, now: Instant, bans: Vec<Ban>) {
        let now_ms = self.clocks.wall_millis(now);
        let new: Vec<Ban> = bans.into_iter().filter(|ban| self.bans.add(now_ms, *ban)).collect();
        if !new.is_empty() {
            self.tell_bans(new);
        }
    }

    fn tell_bans(&mut self, bans: Vec<Ban>) {
        for shard in self.cluster.shards() {
            self.outbox.gateway(shard, ToGateway::Banned { bans: bans.clone() });
        }
    }

    /// Sends all bans to a gateway shard that has just linked.
    pub(super) fn tell_all_bans(&mut self, shard: ShardId) {
        for bans in self.bans.messages() {
            self.outbox.gateway(shard, ToGateway::Banned { bans });
        }
    }
}
