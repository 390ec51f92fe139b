//! The rooms that the application wants to be in.

use std::collections::BTreeMap;

use shard::Instant;
use wire::RoomId;

use crate::event::{Past, Recovery};

/// The rooms, and how far the client has seen each.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    rooms: BTreeMap<RoomId, Room>,
    /// When joins that the server refused as `busy` are tried again.
    pub again_at: Option<Instant>,
}

#[derive(Debug)]
struct Room {
    /// What the first join asks for.
    past: Past,
    /// The highest sequence seen.
    seen: Option<u64>,
    is_joined: bool,
}

impl Rooms {
    /// Adds a room; false when it is there.
    pub fn add(&mut self, room: RoomId, past: Past) -> bool {
        if self.rooms.contains_key(&room) {
            return false;
        }
        self.rooms.insert(room, Room { past, seen: None, is_joined: false });
        true
    }

    /// Removes a room; false when it is not there.
    pub fn remove(&mut self, room: RoomId) -> bool {
        self.rooms.remove(&room).is_some()
    }

    /// What a join of a room asks for.
    pub fn past(&self, room: RoomId) -> Past {
        self.rooms.get(&room).map_or(Past::None, |room| room.seen.map_or(room.past, Past::Since))
    }

    /// The rooms that are not joined on this connection.
    pub fn unjoined(&self) -> Vec<RoomId> {
        self.rooms.iter().filter(|(_, room)| !room.is_joined).map(|(id, _)| *id).collect()
    }

    /// Whether a message to that room may be written. The server says what is wrong with one to a room that
    /// the application does not want to be in.
    pub fn is_open(&self, room: RoomId) -> bool {
        self.rooms.get(&room).is_none_or(|room| room.is_joined)
    }

    /// Notes the answer to a join; false when the application wants to be in that room no more.
    pub fn joined(&mut self, id: RoomId, sequence: u64, recovery: Option<Recovery>) -> bool {
        let Some(room) = self.rooms.get_mut(&id) else { return false };
        room.is_joined = true;
        match recovery {
            // The kept messages follow, and raise it one by one: the connection may break in between.
            Some(Recovery::Complete) => {}
            // The room may have begun anew, with lower sequences than it had.
            Some(Recovery::TooOld) => room.seen = Some(sequence),
            None => room.seen = room.seen.max(Some(sequence)),
        }
        true
    }

    /// The server says that the client is not in that room; false when the application does not want to be
    /// either.
    pub fn not_joined(&mut self, id: RoomId) -> bool {
        let Some(room) = self.rooms.get_mut(&id) else { return false };
        room.is_joined = false;
        true
    }

    /// Notes that a message came.
    pub fn saw(&mut self, id: RoomId, sequence: u64) {
        if let Some(room) = self.rooms.get_mut(&id) {
            room.seen = room.seen.max(Some(sequence));
        }
    }

    /// The connection is gone, and all memberships with it.
    pub fn disconnect(&mut self) {
        self.rooms.values_mut().for_each(|room| room.is_joined = false);
        self.again_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_asks_for_what_was_not_seen() {
        let (mut rooms, room) = (Rooms::default(), RoomId(7));
        assert!(rooms.add(room, Past::Last(3)) && !rooms.add(room, Past::None));
        assert_eq!((rooms.past(room), rooms.unjoined()), (Past::Last(3), vec![room]));
        assert!(rooms.joined(room, 9, Some(Recovery::Complete)) && rooms.is_open(room));
        // The kept messages may be cut off: what has not come is asked for again.
        rooms.saw(room, 7);
        rooms.disconnect();
        assert_eq!((rooms.past(room), rooms.unjoined()), (Past::Since(7), vec![room]));
        assert!(!rooms.is_open(room) && rooms.is_open(RoomId(8)));
        rooms.joined(room, 20, None);
        rooms.saw(room, 19);
        assert_eq!(rooms.past(room), Past::Since(20));
        rooms.joined(room, 500, Some(Recovery::TooOld));
        assert_eq!(rooms.past(room), Past::Since(500));
        assert!(rooms.remove(room) && !rooms.joined(room, 21, None));
    }
}
