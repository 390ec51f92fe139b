//! How long a router can be sure that it alone owned what it owns.

/// A time in which nobody else can have owned what this router does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Term {
    /// That of agreement.
    pub(crate) era: u64,
    /// Gateway shards lost before.
    pub(crate) losses: u64,
}
