//! Tokens that connections have shown, so that the same one need not be verified again.

use shard::ConnId;

use crate::hash;

/// One entry for each index of a connection modulo this: its last token.
const ENTRIES: usize = 1024;

/// The last good token of some connections, by a hash that nobody can guess.
pub(crate) struct KnownTokens {
    seed: u64,
    entries: Box<[Option<(ConnId, u64)>]>,
}

impl KnownTokens {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, entries: vec![None; ENTRIES].into() }
    }

    /// Notes the token of a connection's session.
    pub(crate) fn put(&mut self, conn: ConnId, token: &str) {
        self.entries[conn.index as usize % ENTRIES] = Some((conn, hash::token(self.seed, token)));
    }

    /// Whether this is the token of a connection's session. False also if the entry was overwritten.
    pub(crate) fn has(&self, conn: ConnId, token: &str) -> bool {
        self.entries[conn.index as usize % ENTRIES]
            .is_some_and(|(known, hash)| known == conn && hash == hash::token(self.seed, token))
    }

    /// Forgets all tokens, because they are checked in another way from here on.
    pub(crate) fn forget(&mut self) {
        self.entries.fill(None);
    }
}
