//! Users whom an operator keeps out for a while.

use std::collections::{BTreeMap, BTreeSet};

use shard::Instant;
use wire::{AppId, DeviceClass, UserId};

use crate::limits::BANS_MAX;

/// A user, on one class of device or on all.
type Banned = (AppId, UserId, Option<DeviceClass>);

/// Bans of users that this router owns. They are not handed on when owners change.
#[derive(Default)]
pub(crate) struct Bans {
    ends: BTreeMap<Banned, Instant>,
    by_end: BTreeSet<(Instant, Banned)>,
}

impl Bans {
    /// Keeps a user out until then; a later word replaces an earlier one. Past [`BANS_MAX`] the ban that ends
    /// first is dropped.
    pub(crate) fn set(&mut self, now: Instant, banned: Banned, end: Instant) {
        if let Some(before) = self.ends.insert(banned, end) {
            self.by_end.remove(&(before, banned));
        }
        self.by_end.insert((end, banned));
        while let Some((end, banned)) = self.by_end.first().copied()
            && (end <= now || self.by_end.len() > BANS_MAX)
        {
            self.by_end.remove(&(end, banned));
            self.ends.remove(&banned);
        }
    }

    /// Whether the user may not log in on this device.
    pub(crate) fn has(&self, now: Instant, app: AppId, user: UserId, device: DeviceClass) -> bool {
        let is_on = |device| self.ends.get(&(app, user, device)).is_some_and(|end| now < *end);
        is_on(None) || is_on(Some(device))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Instant = Instant::from_unix_nanos(1 << 60);
    const APP: AppId = AppId(1);

    #[test]
    fn bans_are_bounded_and_the_one_that_ends_first_goes() {
        let mut bans = Bans::default();
        let end = |user: usize| NOW + Duration::from_secs(1 + user as u64);
        for user in 0..=BANS_MAX {
            bans.set(NOW, (APP, UserId(user as i64), None), end(user));
        }
        let has = |bans: &Bans, user: usize| bans.has(NOW, APP, UserId(user as i64), DeviceClass::Web);
        assert_eq!([0, 1, BANS_MAX].map(|user| has(&bans, user)), [false, true, true]);
        assert_eq!((bans.ends.len(), bans.by_end.len()), (BANS_MAX, BANS_MAX));
        bans.set(end(BANS_MAX), (APP, UserId(-1), None), end(BANS_MAX + 9));
        assert_eq!((bans.ends.len(), bans.by_end.len()), (1, 1), "what has ended is forgotten");
    }

    #[test]
    fn a_later_word_replaces_an_earlier_one() {
        let mut bans = Bans::default();
        let banned = (APP, UserId(1), Some(DeviceClass::Web));
        bans.set(NOW, banned, NOW + Duration::from_secs(60));
        bans.set(NOW, banned, NOW);
        assert!(!bans.has(NOW, APP, UserId(1), DeviceClass::Web));
        assert_eq!((bans.ends.len(), bans.by_end.len()), (0, 0));
    }
}
