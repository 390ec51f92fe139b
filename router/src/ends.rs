//! The last reported ends of sessions, with the stamps under which they were reported.

use std::collections::{BTreeMap, VecDeque};

use shard::ShardId;
use wire::node::Login;
use wire::{AppId, DeviceClass, UserId};

use crate::limits::ENDS_MAX;
use crate::outbox::Seat;

/// A class of device of a user.
pub(crate) type Device = (AppId, UserId, DeviceClass);

/// The highest stamp of each user and class of device that went offline. What is reported of it later needs a
/// higher stamp to be believed; a session that was out of sight meanwhile comes back under a lower one.
/// Beyond [`ENDS_MAX`] the oldest is forgotten.
#[derive(Default)]
pub(crate) struct Ends {
    stamps: BTreeMap<Device, Login>,
    /// In the order of the reports.
    order: VecDeque<(Device, Login)>,
    /// Ends of sessions that only the directory knew, on shards that were lost: they may live on with another
    /// owner, which does not know that this router reported an end.
    presumed: VecDeque<(Seat, Login)>,
}

impl Ends {
    /// Notes an end.
    pub(crate) fn put(&mut self, device: Device, login: Login) {
        if self.last(device) >= login {
            return;
        }
        self.stamps.insert(device, login);
        self.order.push_back((device, login));
        if self.order.len() > ENDS_MAX
            && let Some((device, login)) = self.order.pop_front()
            && self.stamps.get(&device) == Some(&login)
        {
            self.stamps.remove(&device);
        }
    }

    /// Notes a reported end of a session whose shard may contradict it when it links again.
    pub(crate) fn presume(&mut self, seat: Seat, login: Login) {
        self.presumed.push_back((seat, login));
        if self.presumed.len() > ENDS_MAX {
            self.presumed.pop_front();
        }
    }

    /// Takes out the presumed ends of a shard that is linked again.
    pub(crate) fn take_presumed(&mut self, shard: ShardId) -> Vec<(Seat, Login)> {
        let (of_shard, rest): (Vec<_>, Vec<_>) =
            self.presumed.drain(..).partition(|(seat, _)| seat.shard == shard);
        self.presumed = rest.into();
        of_shard
    }

    /// The highest stamp of an end of a device; 0 if none is known.
    pub(crate) fn last(&self, device: Device) -> Login {
        self.stamps.get(&device).copied().unwrap_or_default()
    }

    /// All that are remembered, oldest first.
    pub(crate) fn all(&self) -> Vec<(Device, Login)> {
        self.order.iter().copied().collect()
    }

    pub(crate) fn check_invariants(&self) {
        assert!(self.order.len() <= ENDS_MAX && self.stamps.len() <= self.order.len());
        assert!(self.presumed.len() <= ENDS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: AppId = AppId(1);
    const PHONE: DeviceClass = DeviceClass::Phone;

    #[test]
    fn the_highest_stamp_counts_and_the_oldest_end_is_forgotten() {
        let mut ends = Ends::default();
        let device = |user: usize| (APP, UserId(user as i64), PHONE);
        ends.put(device(0), Login(0)); // no session has it, but a gateway may say it
        ends.check_invariants();
        ends.put(device(0), Login(7));
        ends.put(device(0), Login(5));
        assert_eq!((ends.last(device(0)), ends.last(device(1))), (Login(7), Login(0)));
        (1..ENDS_MAX).for_each(|user| ends.put(device(user), Login(1)));
        ends.put(device(0), Login(9)); // the place of its first end goes
        ends.check_invariants();
        assert_eq!((ends.last(device(0)), ends.last(device(1))), (Login(9), Login(1)));
        ends.put(device(ENDS_MAX), Login(1));
        ends.check_invariants();
        assert_eq!((ends.last(device(0)), ends.last(device(1))), (Login(9), Login(0)));
    }
}
