//! Connections that have something to write.
//!
//! Answers and reliable messages go first, and lossy ones after them: when a room of 50,000 gets a message,
//! writing to all of them takes longer than a client waits for an answer. And a turn writes to [`PER_TURN`]
//! connections at most, since it reads no links and clients while it writes.

use std::collections::{HashSet, VecDeque};

use shard::{ConnId, Instant};

/// Connections that one turn writes to: some 4 ms with sockets of a busy machine.
const PER_TURN: u32 = 512;
/// How many of these are kept for lossy messages while some wait, so that answers cannot block them for ever.
const PER_TURN_OF_LOSSY: u32 = PER_TURN / 4;

/// What kind of output waits for a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Dirt {
    /// Nothing.
    None,
    /// Lossy messages.
    Lossy,
    /// Answers or reliable messages, too.
    First,
}

/// How far a connection is with writing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// What waits.
    pub(crate) dirt: Dirt,
    /// A batch is with the engine.
    pub(crate) is_writing: bool,
}

impl Output {
    /// Nothing waits and nothing is being written.
    pub(crate) const NONE: Self = Self { dirt: Dirt::None, is_writing: false };
}

/// Each connection that waits is in the list of its [`Dirt`]. An entry in the other list is outdated.
#[derive(Default)]
pub(crate) struct Dirty {
    first: VecDeque<ConnId>,
    lossy: VecDeque<ConnId>,
    /// The turn, and how many connections it has written to.
    turn: Instant,
    given: u32,
}

impl Dirty {
    /// Notes that a connection has something to write. While a batch of it is being written, the end of that
    /// notes it again.
    pub(crate) fn mark(&mut self, output: &mut Output, conn: ConnId, dirt: Dirt) {
        if output.is_writing || dirt <= output.dirt {
            return;
        }
        output.dirt = dirt;
        match dirt {
            Dirt::None => {}
            Dirt::Lossy => self.lossy.push_back(conn),
            Dirt::First => self.first.push_back(conn),
        }
    }

    /// The next entry, and which list it was in; `None` when there is none, or none for this turn.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(ConnId, Dirt)> {
        if now != self.turn {
            (self.turn, self.given) = (now, 0);
        }
        let of_lossy = if self.lossy.is_empty() { 0 } else { PER_TURN_OF_LOSSY };
        let next = if self.given < PER_TURN - of_lossy { self.first.pop_front() } else { None };
        match next {
            Some(conn) => Some((conn, Dirt::First)),
            None if self.given < PER_TURN => Some((self.lossy.pop_front()?, Dirt::Lossy)),
            None => None,
        }
    }

    /// Counts an entry that was not outdated: its connection is written to.
    pub(crate) fn count(&mut self) {
        self.given += 1;
    }

    /// Whether something is left for another turn.
    pub(crate) fn has_more(&self) -> bool {
        !self.first.is_empty() || !self.lossy.is_empty()
    }

    pub(crate) fn check_invariants(&self, outputs: impl Iterator<Item = (ConnId, Output)>) {
        let entries = |list: &VecDeque<ConnId>| list.iter().copied().collect::<HashSet<_>>();
        let (first, lossy) = (entries(&self.first), entries(&self.lossy));
        for (conn, output) in outputs {
            let stands = match output.dirt {
                Dirt::None => true,
                Dirt::Lossy => lossy.contains(&conn),
                Dirt::First => first.contains(&conn),
            };
            assert!(stands, "{conn:?} waits to write, and nobody knows");
        }
    }
}
