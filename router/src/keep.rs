//! How much rooms keep of what they said.

use wire::BizCode;

/// How much a room keeps of the messages of one business code. A bound of 0 keeps none of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    /// The last so many.
    pub messages: u32,
    /// As many as have so many bytes together, of payloads and names.
    pub bytes: u32,
    /// For how long.
    pub ms: u32,
}

impl Keep {
    pub(crate) fn is_none(self) -> bool {
        self.messages == 0 || self.bytes == 0 || self.ms == 0
    }
}

/// How much rooms keep, by business code; a code that is not here is kept as [`Limits`](crate::Limits) say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Keeps(Vec<(BizCode, Keep)>);

impl Keeps {
    /// The bounds of some codes; of a code that comes twice the first counts.
    pub fn new(keeps: impl IntoIterator<Item = (BizCode, Keep)>) -> Self {
        let mut keeps: Vec<(BizCode, Keep)> = keeps.into_iter().collect();
        keeps.sort_by_key(|(code, _)| *code);
        keeps.dedup_by_key(|(code, _)| *code);
        Self(keeps)
    }
    /// The codes that have bounds of their own, ascending.
    pub(crate) fn into_codes(self) -> Vec<(BizCode, Keep)> {
        self.0
    }
}
