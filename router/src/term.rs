//! How long a router can be sure that no other router owned the same.

/// A period in which no other router can have owned the same as this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Term {
    /// The era of agreement.
    pub(crate) era: u64,
    /// How many gateway shards were lost before.
    pub(crate) losses: u64,
}

impl Term {
    /// No such period: another owner may own the same.
    pub(crate) const UNSURE: Self = Self { era: u64::MAX, losses: u64::MAX };
}
