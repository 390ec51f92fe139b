//! What a session has asked of rooms and not heard the answer of.

use std::collections::{BTreeMap, VecDeque};

use wire::client::{Recovery, Want};

/// What is asked of a room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ask {
    Join(Option<Want>),
    Leave,
}

/// By room, in the order of asking.
#[derive(Default)]
pub(crate) struct Asks {
    rooms: BTreeMap<i64, VecDeque<Ask>>,
}

impl Asks {
    pub(crate) fn add(&mut self, room: i64, ask: Ask) {
        self.rooms.entry(room).or_default().push_back(ask);
    }

    pub(crate) fn first(&self, room: i64) -> Option<Ask> {
        self.rooms.get(&room)?.front().copied()
    }

    /// Nothing is asked of a room any more.
    pub(crate) fn is_answered(&self, room: i64) -> bool {
        self.first(room).is_none()
    }

    /// A client is out of a room: a join before that has no answer any more.
    pub(crate) fn left(&mut self, room: i64) {
        while self.take(room).is_some_and(|ask| ask != Ask::Leave) {}
    }

    /// A join is answered: what it wanted.
    ///
    /// # Errors
    /// It is not what was asked.
    pub(crate) fn joined(&mut self, room: i64, recovery: Option<Recovery>) -> Result<Option<Want>, String> {
        match (self.take(room), recovery) {
            (Some(Ask::Join(want)), _) if want.is_some() == recovery.is_some() => Ok(want),
            (None, None) => Ok(None), // a repeated join
            (ask, _) => Err(format!("hears {recovery:?} of room {room}, having asked {ask:?}")),
        }
    }

    fn take(&mut self, room: i64) -> Option<Ask> {
        self.rooms.get_mut(&room)?.pop_front()
    }
}
