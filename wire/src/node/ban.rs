//! Users whose logins are refused for a while.
//!
//! Routers and gateways keep the same list. A node that links hears all of it, so a ban outlives the router
//! that was told of it first. Unlike a revocation a ban can be lifted: so each ban and each lifting has a
//! stamp, the later one counts, and a lifted ban is remembered as long as the ban would have lasted.

use rkyv::{Archive, Deserialize as Load, Serialize as Store};

use super::Login;
use super::ending::{ENTRIES_MAX, Ending, PER_MESSAGE};
use crate::{AppId, DeviceClass, UserId};

/// Bans of one message.
pub const BANS_PER_MESSAGE: usize = PER_MESSAGE;
/// Bans that are kept.
pub const BANS_MAX: usize = ENTRIES_MAX;
/// No ban lasts longer: a week.
pub const BAN_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1_000;

/// Refuses the logins of a user. Of two of one user and device class, the one said later counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Store, Load)]
pub struct Ban {
    /// The app.
    pub app: AppId,
    /// Whose logins.
    pub user: UserId,
    /// On this class of device only; `None` for all.
    pub device: Option<DeviceClass>,
    /// When it was said, by the clock of login stamps.
    pub said: Login,
    /// Until when logins are refused, in ms since the UNIX epoch; 0 when it is lifted.
    pub until_ms: u64,
    /// Until when it is remembered, in ms since the UNIX epoch: as long as any ban that it replaces.
    pub kept_ms: u64,
}

type Key = (AppId, UserId, Option<DeviceClass>);

/// When it was said, and until when logins are refused. It ends when it is forgotten.
type Said = (Login, u64);

/// A list of bans. Past [`BANS_MAX`], the one that is forgotten first anyway is dropped.
#[derive(Default)]
pub struct Bans(Ending<Key, Said>);

impl Bans {
    /// Makes the ban from `now_ms` on, or the lifting, with `ban_ms` 0, that replaces what is known of this
    /// user and device. Does not add it.
    pub fn next(
        &self,
        now_ms: u64,
        clock: Login,
        (app, user, device): (AppId, UserId, Option<DeviceClass>),
        ban_ms: u32,
    ) -> Ban {
        let known = self.0.get(&(app, user, device));
        let after_known = known.map_or(Login(0), |(_, (said, _))| Login(said.0.saturating_add(1)));
        let until_ms = if ban_ms == 0 { 0 } else { now_ms.saturating_add(u64::from(ban_ms)) };
        let kept_ms = known.map_or(until_ms, |(kept_ms, _)| kept_ms.max(until_ms));
        Ban { app, user, device, said: clock.max(after_known), until_ms, kept_ms }
    }

    /// Takes a ban; whether it says anything new.
    pub fn add(&mut self, now_ms: u64, ban: Ban) -> bool {
        let key = (ban.app, ban.user, ban.device);
        let known = self.0.get(&key);
        if known.is_some_and(|(_, (said, _))| ban.said <= said) {
            return false;
        }
        let end_max = now_ms.saturating_add(BAN_MS_MAX);
        let until_ms = ban.until_ms.min(end_max);
        let known_kept_ms = known.map_or(0, |(kept_ms, _)| kept_ms);
        let kept_ms = ban.kept_ms.min(end_max).max(until_ms).max(known_kept_ms);
        kept_ms > now_ms && self.0.put(now_ms, key, kept_ms, (ban.said, until_ms))
    }

    /// Whether the user may not log in on this device.
    pub fn refuses(&self, now_ms: u64, app: AppId, user: UserId, device: DeviceClass) -> bool {
        let is_on =
            |device| self.0.get(&(app, user, device)).is_some_and(|(_, (_, until_ms))| now_ms < until_ms);
        !self.0.is_empty() && (is_on(None) || is_on(Some(device)))
    }

    /// All of them, in messages of [`BANS_PER_MESSAGE`].
    pub fn messages(&self) -> impl Iterator<Item = Vec<Ban>> + '_ {
        let ban = |(app, user, device), kept_ms, (said, until_ms)| Ban {
            app,
            user,
            device,
            said,
            until_ms,
            kept_ms,
        };
        self.0.messages(ban)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;
    const APP: AppId = AppId(1);
    const USER: UserId = UserId(7);

    /// On all devices, said so many ms after [`NOW`], for so long.
    fn ban(said: u64, user: i64, ms: u64) -> Ban {
        let end = NOW + said + ms;
        let (said, until_ms) = (Login(said), if ms == 0 { 0 } else { end });
        Ban { app: APP, user: UserId(user), device: None, said, until_ms, kept_ms: until_ms }
    }

    fn has(bans: &Bans, now_ms: u64, user: i64) -> bool {
        bans.refuses(now_ms, APP, UserId(user), DeviceClass::Web)
    }

    #[test]
    fn a_ban_is_of_a_user_and_a_device_and_ends() {
        let mut bans = Bans::default();
        let of_web = Ban { device: Some(DeviceClass::Web), ..ban(1, 7, 600) };
        assert!(bans.add(NOW, of_web) && !bans.add(NOW, of_web));
        assert!(has(&bans, NOW + 600, 7) && !has(&bans, NOW + 601, 7) && !has(&bans, NOW, 8));
        assert!(!bans.refuses(NOW, APP, USER, DeviceClass::Phone));
        assert!(!bans.refuses(NOW, AppId(2), USER, DeviceClass::Web));
        assert!(!bans.add(NOW, ban(1, 7, 0)), "nothing to lift on all devices");
        assert!(has(&bans, NOW, 7));
        assert!(bans.add(NOW, ban(1, 7, 600)) && bans.refuses(NOW, APP, USER, DeviceClass::Phone));
    }

    #[test]
    fn the_word_said_later_counts_in_any_order() {
        let words = [ban(1, 7, 600_000), ban(2, 7, 60_000), ban(3, 7, 0)];
        for order in [[0_usize, 1, 2], [0, 2, 1], [1, 0, 2]] {
            let mut bans = Bans::default();
            for at in order {
                bans.add(NOW, words[at]);
            }
            assert!(!has(&bans, NOW, 7), "{order:?}");
            assert!(!bans.add(NOW + 599_000, words[0]), "an old word comes late: {order:?}");
        }
        // A node that has only heard of the end does not take the beginning either, if the end says how long.
        let mut first = Bans::default();
        assert!(first.add(NOW, words[0]));
        let lifted = first.next(NOW + 5, Login(0), (APP, USER, None), 0);
        assert_eq!(lifted, Ban { said: Login(2), until_ms: 0, kept_ms: words[0].kept_ms, ..words[0] });
        let mut other = Bans::default();
        assert!(other.add(NOW, lifted) && !other.add(NOW, words[0]) && !has(&other, NOW, 7));
        // One that does not know the ban may not know how long; one that knows it does.
        let lifted = other.next(NOW, Login(9), (APP, UserId(8), None), 0);
        assert!(!other.add(NOW, lifted));
        assert!(first.add(NOW, ban(1, 8, 600)) && first.add(NOW, lifted) && !has(&first, NOW, 8));
    }

    #[test]
    fn the_list_is_bounded_and_ends() {
        let mut bans = Bans::default();
        for user in 0..=BANS_MAX as i64 {
            assert!(bans.add(NOW, ban(1, user, 1 + user as u64)));
        }
        assert_eq!((bans.len(), bans.0.by_end.len()), (BANS_MAX, BANS_MAX));
        assert_eq!([0, 1, BANS_MAX as i64].map(|user| has(&bans, NOW, user)), [false, true, true]);
        assert!(!bans.add(NOW, ban(1, 0, 1)), "the one that ends first finds no place");
        let messages: Vec<_> = bans.messages().collect();
        assert_eq!(messages.len(), BANS_MAX / BANS_PER_MESSAGE);
        let mut other = Bans::default();
        assert!(messages.concat().into_iter().all(|one| other.add(NOW, one)));
        let long = Ban { until_ms: u64::MAX, kept_ms: u64::MAX, ..ban(1, -1, 1) };
        let later = NOW + BAN_MS_MAX;
        assert!(bans.add(later, long));
        assert!(has(&bans, later + BAN_MS_MAX - 1, -1) && !has(&bans, later + BAN_MS_MAX, -1));
        assert_eq!((bans.len(), bans.0.by_end.len()), (1, 1), "those that have ended are forgotten");
    }
}
