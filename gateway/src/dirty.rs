//! Connections that have something to write.
//!
//! Answers and reliable messages go first, and lossy ones after them: when a room of 50,000 hears something,
//! writing to all of them takes longer than a client waits for an answer. And a turn writes to
//! [`PER_TURN`] connections at most, since links and clients are not read while it writes.

use std::collections::VecDeque;

use shard::ConnId;

use crate::session::Session;

/// Connections that one turn writes to: some 4 ms with sockets of a busy machine.
const PER_TURN: u32 = 512;
/// Of these, how many are kept for lossy messages while such wait: many answers do not hold them for ever.
const PER_TURN_OF_LOSSY: u32 = PER_TURN / 4;

/// What a connection waits to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dirt {
    /// Nothing.
    None,
    /// Lossy messages.
    Lossy,
    /// Answers or reliable messages, too.
    First,
}

/// Each connection that waits is in the list of its [`Dirt`]. In the other one it may have an old place, which
/// says nothing.
#[derive(Default)]
pub(crate) struct Dirty {
    first: VecDeque<ConnId>,
    lossy: VecDeque<ConnId>,
    /// How many were given out in this turn.
    given: u32,
    /// The turn has ended before all was given out.
    has_more: bool,
}

impl Dirty {
    /// Something is to be written to a connection. While a batch of it is being written, the end of that will
    /// say so again.
    pub(crate) fn mark(&mut self, session: &mut Session, conn: ConnId, dirt: Dirt) {
        if session.is_writing {
            return;
        }
        match (session.dirt, dirt) {
            (Dirt::None | Dirt::Lossy, Dirt::First) => self.first.push_back(conn),
            (Dirt::None, Dirt::Lossy) => self.lossy.push_back(conn),
            (Dirt::Lossy | Dirt::First, Dirt::Lossy | Dirt::None) | (Dirt::First, Dirt::First) => return,
            (Dirt::None, Dirt::None) => return,
        }
        session.dirt = dirt;
    }

    /// The next place in a list, and which list it is; `None` when there is none, or none in this turn.
    pub(crate) fn next(&mut self) -> Option<(ConnId, Dirt)> {
        let of_lossy = if self.lossy.is_empty() { 0 } else { PER_TURN_OF_LOSSY };
        let next = if self.given < PER_TURN - of_lossy { self.first.pop_front() } else { None };
        match next {
            Some(conn) => Some((conn, Dirt::First)),
            None if self.given < PER_TURN => Some((self.lossy.pop_front()?, Dirt::Lossy)),
            None => None,
        }
    }

    /// A connection was given out.
    pub(crate) fn count(&mut self) {
        self.given += 1;
    }

    /// [`Dirty::next`] was `None`.
    pub(crate) fn end_turn(&mut self) {
        self.given = 0;
        self.has_more = !self.first.is_empty() || !self.lossy.is_empty();
    }

    /// Whether the last turn has left something.
    pub(crate) fn has_more(&self) -> bool {
        self.has_more
    }
}
