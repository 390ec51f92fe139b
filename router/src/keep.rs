//! How many messages rooms keep.

use wire::BizCode;

/// How much a room keeps of the messages of one business code. A bound of 0 keeps none of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    /// The number of messages, the last ones.
    pub messages: u32,
    /// Their bytes, of payloads and client message ids.
    pub bytes: u32,
    /// How long each is kept.
    pub ms: u32,
}

impl Keep {
    pub(crate) fn is_none(self) -> bool {
        self.messages == 0 || self.bytes == 0 || self.ms == 0
    }
}

/// How much rooms keep, by business code; for other codes [`Limits`](crate::Limits) say it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Keeps(Vec<(BizCode, Keep)>);

impl Keeps {
    /// The bounds of some codes; if a code comes twice, the first bounds count.
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
