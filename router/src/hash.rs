//! The hash of the tables of users and rooms.

use wire::AppId;

use crate::outbox::Holder;

/// A seeded hash of (app, id): fast, for keys that a peer cannot choose freely. It is independent of the hash
/// of [`wire::node::Owners`], by which all keys of one router are alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdHash {
    seed: u64,
}

impl IdHash {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The hash of a holder; operators have that of a user that no app has.
    pub(crate) fn of_holder(self, holder: Holder) -> u64 {
        match holder {
            Holder::User(app, user) => self.of(app, user.0),
            Holder::Operator => self.of(AppId(0), 0),
        }
    }

    pub(crate) fn of(self, app: AppId, id: i64) -> u64 {
        // The factor is odd, so no two apps get the same value.
        mix(mix((id as u64) ^ self.seed).wrapping_add((app.0 as u64).wrapping_mul(0xff51_afd7_ed55_8ccd)))
    }
}

/// The finalizer of MurmurHash3 (Appleby): a bijection in which every bit of the input moves about half of
/// the output's.
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}
