//! One order for all members of a room, checked over the members of a fleet.

use hashbrown::{HashMap, HashSet};
use wire::MessageId;

use crate::order::{Ids, Order, Seen};

/// What a fleet knows of one room.
#[derive(Debug, Default)]
pub(crate) struct Room {
    ids: Ids,
    /// Each publisher's messages, in the order of the room.
    publishers: HashMap<u32, Order>,
    /// Sequences that hold a message which had another place before.
    duplicates: HashSet<u64>,
    /// Sequences that hold a message which its publisher sent before an earlier one.
    late: HashSet<u64>,
    /// The last sequence that anyone knows of.
    pub(crate) last: u64,
}

/// What is wrong with a message at its place in the room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Nothing.
    Right,
    /// The same message has another place too.
    Duplicate,
    /// It is not the message that others got at this place, or a publisher's messages changed their order.
    Disordered,
}

impl Room {
    /// Judges a message that a member got: its room sequence, its server id, its publisher and that one's own sequence.
    pub(crate) fn check(&mut self, sequence: u64, id: MessageId, publisher: u32, number: u32) -> Place {
        match self.ids.get(sequence) {
            Some(known) if known != id => return Place::Disordered,
            Some(_) => {}
            None => self.enter(sequence, id, publisher, number),
        }
        if !self.duplicates.is_empty() && self.duplicates.contains(&sequence) {
            return Place::Duplicate;
        }
        if !self.late.is_empty() && self.late.contains(&sequence) {
            return Place::Disordered;
        }
        Place::Right
    }

    /// The first of the fleet's members got this message. Publishers are judged only as long as places come in order: when
    /// one was skipped, nothing is known about its message.
    fn enter(&mut self, sequence: u64, id: MessageId, publisher: u32, number: u32) {
        let in_order = sequence >= self.ids.next();
        self.ids.put(sequence, id);
        self.last = self.last.max(sequence);
        if !in_order {
            return;
        }
        let numbers = self.publishers.entry(publisher).or_insert_with(|| Order::new(1));
        match numbers.take(u64::from(number)) {
            Seen::Next => {}
            Seen::Late => {
                self.late.insert(sequence);
            }
            Seen::Again => {
                self.duplicates.insert(sequence);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_must_get_the_same_message_at_a_place() {
        let mut room = Room::default();
        assert_eq!(room.check(1, MessageId(10), 0, 1), Place::Right);
        assert_eq!(room.check(1, MessageId(10), 0, 1), Place::Right);
        assert_eq!(room.check(1, MessageId(11), 0, 2), Place::Disordered);
    }

    #[test]
    fn a_message_with_two_places_is_a_duplicate_for_every_member() {
        let mut room = Room::default();
        room.check(1, MessageId(10), 0, 1);
        assert_eq!(room.check(2, MessageId(11), 0, 1), Place::Duplicate);
        assert_eq!(room.check(2, MessageId(11), 0, 1), Place::Duplicate);
        assert_eq!(room.check(3, MessageId(12), 7, 1), Place::Right);
    }

    #[test]
    fn a_publishers_messages_keep_their_order() {
        let mut room = Room::default();
        room.check(1, MessageId(10), 0, 1);
        assert_eq!(room.check(2, MessageId(12), 0, 3), Place::Right);
        assert_eq!(room.check(3, MessageId(11), 0, 2), Place::Disordered);
    }

    #[test]
    fn a_place_that_comes_late_to_the_fleet_says_nothing_of_its_publisher() {
        let mut room = Room::default();
        room.check(1, MessageId(10), 0, 1);
        room.check(3, MessageId(12), 0, 3);
        assert_eq!(room.check(2, MessageId(11), 0, 2), Place::Right);
    }
}
