//! How long a router can be sure that it alone owned what it owns.

/// A time in which nobody else can have owned what this router does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Term {
    /// That of agreement.
    pub(crate) era: u64,
    /// Gateway shards lost before.
    pub(crate) losses: u64,
}

impl Term {
    /// None: another owner may own the same.
    pub(crate) const UNSURE: Self = Self { era: u64::MAX, losses: u64::MAX };
}
