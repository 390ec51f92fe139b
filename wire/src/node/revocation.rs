//! Tokens that are refused though they are good: those of a user that were made before some time, and those
//! of a login.
//!
//! Routers and gateways keep the same list. What one is told and did not know, it passes on, so that a node
//! that starts later has it too.

use rkyv::{Archive, Deserialize as Load, Serialize as Store};

use super::ending::{ENTRIES_MAX, Ending, PER_MESSAGE};
use crate::{AppId, UserId};

/// Revocations of one message.
pub const REVOCATIONS_PER_MESSAGE: usize = PER_MESSAGE;
/// Revocations that are kept.
pub const REVOCATIONS_MAX: usize = ENTRIES_MAX;
/// No revocation lasts longer, and no token that may be revoked should: a week.
pub const REVOCATION_SECS_MAX: u64 = 7 * 24 * 60 * 60;

/// Refuses tokens of a user. Two of one user and login are one, with the later of each time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Store, Load)]
pub struct Revocation {
    /// The app.
    pub app: AppId,
    /// Whose tokens.
    pub user: UserId,
    /// The tag of the login that they came from; 0 for tokens of any login, and of none.
    pub login: u64,
    /// Those that were made before, in seconds since the UNIX epoch; `u64::MAX` for all.
    pub before_secs: u64,
    /// How long, in seconds since the UNIX epoch.
    pub until_secs: u64,
}

type Key = (AppId, UserId, u64);

/// A list of revocations. Past [`REVOCATIONS_MAX`], the one that ends first is dropped.
#[derive(Default)]
pub struct Revocations(Ending<Key, u64>);

impl Revocations {
    /// Takes a revocation; whether it says anything new.
    pub fn add(&mut self, now_secs: u64, revocation: Revocation) -> bool {
        let Revocation { app, user, login, before_secs, until_secs } = revocation;
        let until_secs = until_secs.min(now_secs.saturating_add(REVOCATION_SECS_MAX));
        if until_secs <= now_secs {
            return false;
        }
        let key = (app, user, login);
        let (until, before) = self.0.get(&key).unwrap_or_default();
        if before_secs <= before && until_secs <= until {
            return false;
        }
        self.0.put(now_secs, key, until_secs.max(until), before_secs.max(before))
    }

    /// Whether a token is refused that was made then and came from a login for which `is_login` holds. A
    /// token that has no login has the tag 0.
    pub fn refuses(
        &self,
        now_secs: u64,
        (app, user): (AppId, UserId),
        issued_secs: u64,
        is_login: impl Fn(u64) -> bool,
    ) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let mut of_user = self.0.range((app, user, 0)..=(app, user, u64::MAX));
        of_user.any(|((.., login), until_secs, before_secs)| {
            (login == 0 || is_login(login)) && now_secs < until_secs && issued_secs < before_secs
        })
    }

    /// All of them, in messages of [`REVOCATIONS_PER_MESSAGE`].
    pub fn messages(&self) -> impl Iterator<Item = Vec<Revocation>> + '_ {
        self.0.messages(|(app, user, login), until_secs, before_secs| Revocation {
            app,
            user,
            login,
            before_secs,
            until_secs,
        })
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

    const NOW: u64 = 1_800_000_000;
    const USER: (AppId, UserId) = (AppId(1), UserId(7));

    fn of_user(before_secs: u64) -> Revocation {
        Revocation { app: USER.0, user: USER.1, login: 0, before_secs, until_secs: NOW + 600 }
    }

    fn of_login(login: u64) -> Revocation {
        Revocation { login, ..of_user(u64::MAX) }
    }

    #[test]
    fn tokens_that_a_user_had_before_are_refused() {
        let mut list = Revocations::default();
        let refuses = |list: &Revocations, user, issued, now| list.refuses(now, user, issued, |_| false);
        assert!(!refuses(&list, USER, 0, NOW));
        assert!(list.add(NOW, of_user(NOW)));
        assert!(refuses(&list, USER, 0, NOW) && refuses(&list, USER, NOW - 1, NOW));
        assert!(!refuses(&list, USER, NOW, NOW), "one that was made after it");
        assert!(
            !refuses(&list, (AppId(1), UserId(8)), 0, NOW) && !refuses(&list, (AppId(2), UserId(7)), 0, NOW)
        );
        assert!(!refuses(&list, USER, 0, NOW + 600), "it has ended");
        assert!(list.add(NOW, of_user(NOW + 5)) && refuses(&list, USER, NOW, NOW));
        assert!(!list.add(NOW, of_user(NOW)), "it says nothing new");
        assert!(refuses(&list, USER, NOW, NOW), "an earlier word takes nothing back");
        assert_eq!(list.len(), 1);
    }

    #[test]
    fn tokens_of_a_login_are_refused_whenever_they_were_made() {
        let mut list = Revocations::default();
        assert!(list.add(NOW, of_login(5)) && !list.add(NOW, of_login(5)));
        let refuses = |user, login: u64| list.refuses(NOW, user, NOW + 60, |revoked| revoked == login);
        assert!(refuses(USER, 5));
        assert!(!refuses(USER, 6) && !refuses(USER, 0) && !refuses((AppId(1), UserId(8)), 5));
    }

    #[test]
    fn the_list_is_bounded_and_ends() {
        let mut list = Revocations::default();
        let at = |number: u64| Revocation { until_secs: NOW + 1 + number, ..of_login(number + 1) };
        for number in 0..=REVOCATIONS_MAX as u64 {
            assert!(list.add(NOW, at(number)));
        }
        assert_eq!((list.len(), list.0.by_end.len()), (REVOCATIONS_MAX, REVOCATIONS_MAX));
        assert!(!list.add(NOW, at(0)), "the one that ends first finds no place");
        assert!(!list.add(NOW, Revocation { until_secs: NOW, ..of_login(9) }), "it ended before it came");
        let messages: Vec<_> = list.messages().collect();
        assert_eq!(messages.len(), REVOCATIONS_MAX / REVOCATIONS_PER_MESSAGE);
        let mut other = Revocations::default();
        assert!(messages.concat().into_iter().all(|one| other.add(NOW, one)));
        assert_eq!(other.len(), REVOCATIONS_MAX);
        let long = Revocation { until_secs: u64::MAX, ..of_login(1 << 40) };
        assert!(list.add(NOW + REVOCATION_SECS_MAX - 1, long));
        let end = |list: &Revocations| list.0.by_end.last().map(|(end, _)| *end);
        assert_eq!(end(&list), Some(NOW + 2 * REVOCATION_SECS_MAX - 1), "no longer than a week");
        assert_eq!(list.len(), 1, "those that have ended are forgotten");
    }
}
