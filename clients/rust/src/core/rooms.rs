//! The rooms that the application wants to be in, and how far it has seen each.

use std::collections::BTreeMap;
use std::time::Duration;

use shard::{Instant, Prng};
use wire::RoomId;
use wire::client::{Recovery, Want};

/// All members of a room see a gap at the same time, so each waits a random time up to this before it asks
/// for what is missing.
const GAP_WAIT_MAX: Duration = Duration::from_secs(1);
/// A client that reads too slowly misses messages again and again, so it asks for them no more often than
/// this.
const GAP_INTERVAL: Duration = Duration::from_secs(5);

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
    first: Option<Want>,
    /// The application has seen everything up to this sequence, or it cannot be had.
    seen: Option<u64>,
    is_joined: bool,
    /// Kept messages are still to come, up to this sequence.
    kept_until: Option<u64>,
    /// The next message says how far the client has seen the room, also if its sequence is lower than `seen`.
    begins_anew: bool,
    /// Messages after `seen` are missing.
    gap: Option<Gap>,
    /// The next gap is not asked for before this.
    gap_at: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gap {
    /// The client asks for the missing messages at this time.
    Due(Instant),
    /// It has asked. Until the answer comes, messages do not count as seen: they come again.
    Asked,
}

/// The answer to a join, as the application sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Joined {
    /// The application does not want to be in this room any more.
    Unwanted,
    /// The client was in the room, and asked for messages that it had missed.
    Again,
    /// The client was not in the room on this connection.
    Anew,
}

impl Rooms {
    /// Adds a room; false when it is there.
    pub fn add(&mut self, room: RoomId, first: Option<Want>) -> bool {
        if self.rooms.contains_key(&room) {
            return false;
        }
        let (seen, gap, gap_at) = (None, None, None);
        let new = Room { first, seen, is_joined: false, kept_until: None, begins_anew: false, gap, gap_at };
        self.rooms.insert(room, new);
        true
    }

    /// Removes a room; false when it is not there.
    pub fn remove(&mut self, room: RoomId) -> bool {
        self.rooms.remove(&room).is_some()
    }

    /// What a join of a room asks for.
    pub fn want(&self, room: RoomId) -> Option<Want> {
        let room = self.rooms.get(&room)?;
        room.seen.map(Want::Since).or(room.first)
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

    /// Notes the answer to a join.
    pub fn joined(&mut self, id: RoomId, sequence: u64, recovery: Option<Recovery>) -> Joined {
        let Some(room) = self.rooms.get_mut(&id) else { return Joined::Unwanted };
        let was_joined = std::mem::replace(&mut room.is_joined, true);
        room.gap = None;
        // The kept messages follow, and raise `seen` one by one: the connection may break in between.
        room.kept_until = recovery.map(|_| sequence);
        room.begins_anew = recovery == Some(Recovery::TooOld);
        if recovery.is_none() {
            room.seen = Some(sequence);
        }
        if was_joined { Joined::Again } else { Joined::Anew }
    }

    /// The server says that the client is not in that room; false when the application does not want to be
    /// either.
    pub fn not_joined(&mut self, id: RoomId) -> bool {
        let Some(room) = self.rooms.get_mut(&id) else { return false };
        room.is_joined = false;
        room.gap = None;
        true
    }

    /// Notes that a message came. If it shows a gap, the client asks for the missing messages after a while.
    pub fn saw(&mut self, now: Instant, id: RoomId, sequence: u64, prng: &mut Prng) {
        let Some(room) = self.rooms.get_mut(&id).filter(|room| room.is_joined && room.gap.is_none()) else {
            return;
        };
        match room.kept_until {
            Some(until) if sequence < until => return room.raise(sequence),
            Some(until) => {
                room.raise(until);
                room.kept_until = None;
            }
            None => {}
        }
        if room.seen.is_some_and(|seen| sequence > seen.saturating_add(1)) {
            let wait = Duration::from_millis(prng.below(GAP_WAIT_MAX.as_millis() as u64));
            room.gap = Some(Gap::Due((now + wait).max(room.gap_at.unwrap_or(now))));
        } else {
            room.raise(sequence);
        }
    }

    /// When the next gap is to be asked for.
    pub fn gap_due_at(&self) -> Option<Instant> {
        self.rooms.values().filter_map(Room::gap_due_at).min()
    }

    /// The rooms whose missing messages are to be asked for now; they count as asked.
    pub fn take_due_gaps(&mut self, now: Instant) -> Vec<RoomId> {
        let is_due = |room: &Room| room.gap_due_at().is_some_and(|at| now >= at);
        let due = self.rooms.iter_mut().filter(|(_, room)| is_due(room));
        let asked = due.map(|(id, room)| {
            (room.gap, room.gap_at) = (Some(Gap::Asked), Some(now + GAP_INTERVAL));
            *id
        });
        asked.collect()
    }

    /// The server was too busy for a join, and does not say for which: gaps are asked for again then. False
    /// if there are none.
    pub fn put_off_gaps(&mut self, at: Instant) -> bool {
        let mut is_any = false;
        for room in self.rooms.values_mut().filter(|room| room.gap == Some(Gap::Asked)) {
            room.gap = Some(Gap::Due(at));
            is_any = true;
        }
        is_any
    }

    /// The server keeps no messages: what is missing cannot be had.
    pub fn forget_gaps(&mut self) {
        self.rooms.values_mut().for_each(|room| room.gap = None);
    }

    /// The connection is gone, and all memberships with it.
    pub fn disconnect(&mut self) {
        for room in self.rooms.values_mut() {
            room.is_joined = false;
            room.gap = None;
        }
        self.again_at = None;
    }
}

impl Room {
    fn raise(&mut self, sequence: u64) {
        let is_lower = self.seen.is_some_and(|seen| sequence < seen);
        if !is_lower || self.begins_anew {
            self.seen = Some(sequence);
        }
        self.begins_anew = false;
    }

    fn gap_due_at(&self) -> Option<Instant> {
        match self.gap {
            Some(Gap::Due(at)) => Some(at),
            Some(Gap::Asked) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: RoomId = RoomId(7);

    struct Test {
        rooms: Rooms,
        now: Instant,
        prng: Prng,
    }

    impl Test {
        fn new(first: Option<Want>) -> Self {
            let mut rooms = Rooms::default();
            assert!(rooms.add(ROOM, first) && !rooms.add(ROOM, None));
            Self { rooms, now: Instant::from_unix_nanos(1_800_000_000_000_000_000), prng: Prng::new(1) }
        }

        fn saw(&mut self, sequences: &[u64]) {
            for sequence in sequences {
                self.rooms.saw(self.now, ROOM, *sequence, &mut self.prng);
            }
        }

        /// The rooms that are asked for within that time.
        fn asked_within(&mut self, time: Duration) -> Vec<RoomId> {
            self.now += time;
            self.rooms.take_due_gaps(self.now)
        }

        fn want(&self) -> Option<Want> {
            self.rooms.want(ROOM)
        }
    }

    #[test]
    fn a_join_asks_for_what_was_not_seen() {
        let mut test = Test::new(Some(Want::Last(3)));
        assert_eq!((test.want(), test.rooms.unjoined()), (Some(Want::Last(3)), vec![ROOM]));
        assert_eq!(test.rooms.joined(ROOM, 9, Some(Recovery::Complete)), Joined::Anew);
        assert!(test.rooms.is_open(ROOM));
        // The kept messages may be cut off: what has not come is asked for again.
        test.saw(&[7]);
        test.rooms.disconnect();
        assert_eq!((test.want(), test.rooms.unjoined()), (Some(Want::Since(7)), vec![ROOM]));
        assert!(!test.rooms.is_open(ROOM) && test.rooms.is_open(RoomId(8)));
        test.rooms.joined(ROOM, 20, None);
        test.saw(&[19]);
        assert_eq!(test.want(), Some(Want::Since(20)));
        assert!(test.rooms.remove(ROOM));
        assert_eq!(test.rooms.joined(ROOM, 21, None), Joined::Unwanted);
    }

    #[test]
    fn a_room_that_begins_anew_is_followed_by_its_lower_sequences() {
        let mut test = Test::new(None);
        test.rooms.joined(ROOM, 5_000, None);
        test.rooms.joined(ROOM, 20, Some(Recovery::TooOld));
        assert_eq!(test.want(), Some(Want::Since(5_000)), "nothing has come yet");
        test.saw(&[18]);
        assert_eq!(test.want(), Some(Want::Since(18)));
        test.saw(&[20, 21]);
        assert_eq!(test.want(), Some(Want::Since(21)));
        // It may keep nothing.
        test.rooms.joined(ROOM, 3, Some(Recovery::TooOld));
        test.saw(&[4]);
        assert_eq!((test.want(), test.asked_within(GAP_WAIT_MAX)), (Some(Want::Since(4)), vec![]));
    }

    #[test]
    fn a_gap_is_asked_for_once_in_a_while_and_never_again_after_the_answer() {
        let mut test = Test::new(None);
        test.rooms.joined(ROOM, 9, None);
        test.saw(&[10, 13, 14]);
        assert_eq!(test.asked_within(GAP_WAIT_MAX), [ROOM]);
        assert_eq!((test.want(), test.asked_within(GAP_INTERVAL)), (Some(Want::Since(10)), vec![]));
        assert_eq!(test.rooms.joined(ROOM, 15, Some(Recovery::Complete)), Joined::Again);
        // 13 was never kept.
        test.saw(&[11, 12, 14, 15, 16]);
        assert_eq!((test.want(), test.asked_within(GAP_INTERVAL)), (Some(Want::Since(16)), vec![]));
        // Two gaps right after each other: the second one waits.
        test.saw(&[18]);
        assert_eq!(test.asked_within(GAP_WAIT_MAX), [ROOM]);
        test.rooms.joined(ROOM, 18, Some(Recovery::TooOld));
        test.saw(&[18, 20]);
        assert_eq!(test.asked_within(GAP_WAIT_MAX), []);
        assert_eq!((test.want(), test.asked_within(GAP_INTERVAL)), (Some(Want::Since(18)), vec![ROOM]));
        // A server that is busy is asked again later.
        let later = test.now + GAP_WAIT_MAX;
        assert!(test.rooms.put_off_gaps(later));
        assert_eq!(test.rooms.gap_due_at(), Some(later));
        assert_eq!(test.asked_within(GAP_WAIT_MAX), [ROOM]);
        test.rooms.forget_gaps();
        assert!(!test.rooms.put_off_gaps(later));
    }
}
