//! Bytes as choices: what a target with a structure reads its steps from.

use shard::Instant;

/// When every run begins.
pub(crate) const NOW: Instant = Instant::from_unix_nanos(1_767_225_600_000_000_000);

/// What is left of an input. At its end every choice is the first.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.byte() as usize % from.len()]
    }

    /// A number of those at which arithmetic goes wrong, or any.
    pub(crate) fn number(&mut self) -> u64 {
        const EDGES: [u64; 12] = [
            0,
            1,
            2,
            3,
            1 << 15,
            1 << 31,
            u32::MAX as u64,
            1 << 32,
            i64::MAX as u64,
            1 << 63,
            u64::MAX - 1,
            u64::MAX,
        ];
        let choice = self.byte() as usize;
        EDGES.get(choice).copied().unwrap_or_else(|| u64::from_be_bytes(std::array::from_fn(|_| self.byte())))
    }

    /// Up to `most` bytes, as many as a first one says.
    pub(crate) fn some(&mut self, most: usize) -> &'a [u8] {
        let count = (self.byte() as usize).min(most).min(self.0.len());
        let (some, rest) = self.0.split_at(count);
        self.0 = rest;
        some
    }
}
