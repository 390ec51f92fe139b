//! What a router knows of a gateway shard's sessions, in short: a digest for each range of users.
//!
//! When a link comes back, the router says these digests, the gateway shard compares them with those of its
//! sessions, and announces only sessions of ranges that differ. A digest is the XOR of the hashes of its
//! sessions, so it does not depend on their order and one login changes one word (the ranges of Dynamo's
//! Merkle trees, DeCandia et al., 2007, with one level: a thousand words are less than the answer to a
//! question about them).

use super::owners::mix;
use super::{Login, SessionId};
use crate::{AppId, DeviceClass, UserId};

/// How many ranges there are. A gateway shard with 20,000 sessions and two owners has ten sessions in each.
pub const RANGES: usize = 1024;
const WORD_BITS: usize = u64::BITS as usize;
/// Words of a [`RangeSet`].
pub const RANGE_WORDS: usize = RANGES / WORD_BITS;

/// Spreads what is hashed together; odd.
const FACTOR: u64 = 0x9fb2_1c65_1e98_df25;

/// The range of a user.
pub fn range_of(app: AppId, user: UserId) -> usize {
    let hash = mix(mix(user.0 as u64 ^ FACTOR).wrapping_add((app.0 as u64).wrapping_mul(FACTOR)));
    hash as usize % RANGES
}

/// The hash of one session. Stamps count without their lowest bits: announcements alone raise these.
pub fn session_digest(
    app: AppId,
    user: UserId,
    device: DeviceClass,
    session: SessionId,
    login: Login,
) -> u64 {
    let words = [user.0 as u64, app.0 as u64, device as u64, session.0, login.step()];
    words.into_iter().fold(FACTOR, |hash, word| mix((hash ^ word).wrapping_mul(FACTOR)))
}

/// Digests of all ranges.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Digests(Box<[u64; RANGES]>);

impl Default for Digests {
    fn default() -> Self {
        Self(Box::new([0; RANGES]))
    }
}

impl Digests {
    /// Those that a peer says; `None` unless there is one for each range.
    pub fn from_vec(digests: Vec<u64>) -> Option<Self> {
        digests.into_boxed_slice().try_into().ok().map(Self)
    }

    /// One for each range.
    pub fn to_vec(&self) -> Vec<u64> {
        self.0.to_vec()
    }

    /// Adds a session by its [`session_digest`], or takes it out again.
    pub fn toggle(&mut self, range: usize, session: u64) {
        self.0[range % RANGES] ^= session;
    }

    /// That of one range; 0 if it has no session.
    pub fn of(&self, range: usize) -> u64 {
        self.0[range % RANGES]
    }
}

/// Some of the ranges.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RangeSet([u64; RANGE_WORDS]);

impl RangeSet {
    /// Those that a peer says; `None` unless there is a bit for each range.
    pub fn from_words(words: &[u64]) -> Option<Self> {
        words.try_into().ok().map(Self)
    }

    /// One bit for each range, from the lowest on.
    pub fn words(&self) -> Vec<u64> {
        self.0.to_vec()
    }

    /// Adds a range.
    pub fn insert(&mut self, range: usize) {
        self.0[range % RANGES / WORD_BITS] |= 1 << (range % WORD_BITS);
    }

    /// Whether a range is one of them.
    pub fn contains(&self, range: usize) -> bool {
        self.0[range % RANGES / WORD_BITS] & 1 << (range % WORD_BITS) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: AppId = AppId(1);
    const PHONE: DeviceClass = DeviceClass::Phone;

    fn digest(user: i64, session: u64, login: u64) -> u64 {
        session_digest(APP, UserId(user), PHONE, SessionId(session), Login(login))
    }

    #[test]
    fn users_spread_evenly_over_ranges() {
        let mut users = [0u32; RANGES];
        for user in 0..100 * RANGES as i64 {
            users[range_of(APP, UserId(user))] += 1;
        }
        assert!(users.iter().all(|count| (40..160).contains(count)), "{users:?}");
    }

    #[test]
    fn a_digest_tells_sessions_apart_and_forgets_what_is_taken_out() {
        let one = digest(1, 2, 3 << 20);
        for other in
            [digest(2, 2, 3 << 20), digest(1, 3, 3 << 20), digest(1, 2, 4 << 20), digest(2, 1, 3 << 20)]
        {
            assert_ne!(one, other);
        }
        let mut digests = Digests::default();
        digests.toggle(5, one);
        digests.toggle(5, digest(2, 2, 9));
        digests.toggle(5, one);
        assert_eq!(digests.of(5), digest(2, 2, 9));
        assert_eq!(Digests::from_vec(digests.to_vec()), Some(digests));
        assert_eq!(Digests::from_vec(vec![0; RANGES - 1]), None);
    }

    /// An announcement raises a stamp by one, and a session that comes back to an owner is the one that it
    /// was.
    #[test]
    fn announcements_leave_a_digest_as_it_is_and_raised_stamps_do_not() {
        let login = Login(7 << 20);
        assert_eq!(digest(1, 2, login.0), digest(1, 2, login.0 + 1));
        assert_ne!(digest(1, 2, login.0), digest(1, 2, login.raised().0));
        assert_eq!(login.raised(), Login(login.0 + 1).raised());
        assert!(login.raised() > Login(login.0 + 1));
    }

    #[test]
    fn a_set_has_what_was_put_in() {
        let mut set = RangeSet::default();
        [0, 63, 64, RANGES - 1].into_iter().for_each(|range| set.insert(range));
        let has: Vec<usize> = (0..RANGES).filter(|range| set.contains(*range)).collect();
        assert_eq!(has, [0, 63, 64, RANGES - 1]);
        assert_eq!(RangeSet::from_words(&set.words()), Some(set));
        assert_eq!(RangeSet::from_words(&[0; RANGE_WORDS + 1]), None);
    }
}
