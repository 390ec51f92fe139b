//! One order for all members of a room, checked over the members of a fleet, and what each of them is owed.
//!
//! Order is judged by the room's sequences, loss by what senders were told: a message that its publisher
//! knows to be sequenced is owed, at its place, to every member that was there. Sequences that no message of
//! the run got are owed to nobody: a room that changes its owner leaves some out. A message that its
//! publisher had to repeat may have two places, when the owner that gave it the first is gone; who has it at
//! one of them has it.

use hashbrown::{HashMap, HashSet};
use wire::MessageId;

use crate::client::PENDING_MAX;
use crate::mail::{Repeated, RoomEnd};
use crate::order::{IDS_MAX, Order, Recent};
use crate::places::Places;

/// What a fleet knows of one room.
#[derive(Debug, Default)]
pub(crate) struct Room {
    ids: Recent<IDS_MAX>,
    publishers: HashMap<u32, Publisher>,
    /// Sequences with a verdict other than `Right`.
    odd: HashMap<u64, Place>,
    /// Where messages are whose publishers know it.
    sequenced: Places,
    /// Of these, the messages that were repeated, by place.
    repeated: HashMap<u64, (u32, u32)>,
}

/// What a fleet's members saw of one publisher in a room.
#[derive(Debug, Default)]
struct Publisher {
    /// The highest number so far.
    last: u32,
    /// The place of each message. A publisher repeats none that is older than these.
    places: Recent<PENDING_MAX>,
    /// The other place of a message that has two.
    others: HashMap<u32, u64>,
    /// Numbers that came in a copy marked as a repeat.
    repeats: HashSet<u32>,
}

/// What a member got: a message at its place in the room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) sequence: u64,
    pub(crate) id: MessageId,
    pub(crate) publisher: u32,
    /// The publisher's own.
    pub(crate) number: u32,
    /// Its publisher had sent it before.
    pub(crate) repeat: bool,
}

/// What a message is at its place in the room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Nothing is wrong.
    Right,
    /// The same message has an earlier place too: its publisher repeated it, and another owner took it as a
    /// new one.
    Repeat {
        /// The other place.
        earlier: u64,
    },
    /// The same message has an earlier place too, and nobody repeated it.
    Duplicate,
    /// It is not the message that others got at this place, or a publisher's messages changed their order.
    Disordered,
}

impl Room {
    /// Judges a message that a member got.
    pub(crate) fn check(&mut self, message: Placed) -> Place {
        match self.ids.get(message.sequence) {
            Some(known) if known != message.id.0 => return Place::Disordered,
            Some(_) => {}
            None => self.enter(message),
        }
        if self.odd.is_empty() {
            return Place::Right;
        }
        self.odd.get(&message.sequence).copied().unwrap_or(Place::Right)
    }

    /// The first of the fleet's members got this message. A publisher's order is judged only as long as
    /// places come in order: when one was skipped, nothing is known about its message.
    fn enter(&mut self, message: Placed) {
        let Placed { sequence, id, number, repeat, .. } = message;
        let in_order = sequence >= self.ids.next();
        self.ids.put(sequence, id.0);
        let publisher = self.publishers.entry(message.publisher).or_default();
        let other = publisher.places.get(number.into());
        if other == Some(sequence) {
            return; // its id was forgotten
        }
        if let Some(other) = other {
            publisher.others.insert(number, sequence);
            let (earlier, later) = (sequence.min(other), sequence.max(other));
            let repeated = repeat || publisher.repeats.contains(&number);
            self.odd.insert(later, if repeated { Place::Repeat { earlier } } else { Place::Duplicate });
        } else {
            publisher.places.put(number.into(), sequence);
            if in_order && number < publisher.last && !repeat {
                self.odd.insert(sequence, Place::Disordered);
            }
        }
        if in_order {
            publisher.last = publisher.last.max(number);
        }
        if repeat {
            publisher.repeats.insert(number);
        }
    }

    /// A publisher of this fleet was told its message's place.
    pub(crate) fn sequenced(&mut self, sequence: u64, publisher: u32, number: u32, repeated: bool) {
        self.sequenced.insert(sequence);
        if repeated {
            self.repeated.insert(sequence, (publisher, number));
        }
    }

    /// What this fleet's publishers were told, if anything.
    pub(crate) fn end(&self, room: u32) -> Option<RoomEnd> {
        let mut repeated: Vec<_> = self
            .repeated
            .iter()
            .map(|(&sequence, &(publisher, number))| Repeated { sequence, publisher, number })
            .collect();
        repeated.sort_unstable_by_key(|message| message.sequence);
        (!self.sequenced.is_empty()).then(|| RoomEnd { room, sequenced: self.sequenced.clone(), repeated })
    }

    /// What another fleet's publishers were told, or this one's.
    pub(crate) fn expect(&mut self, end: &RoomEnd) {
        self.sequenced.merge(&end.sequenced);
        let repeated = end.repeated.iter();
        self.repeated.extend(repeated.map(|message| (message.sequence, (message.publisher, message.number))));
    }

    /// Messages that a member is owed and did not get. One that went for good is owed nothing past the last
    /// that it got.
    pub(crate) fn missing(&self, member: &Order, is_there: bool) -> u64 {
        let tail = member.tail();
        let gaps = member.gaps().chain(is_there.then_some(tail));
        let places = gaps.flat_map(|gap| self.sequenced.within(gap));
        if self.repeated.is_empty() {
            return places.map(|place| place.end - place.start).sum();
        }
        places.flatten().filter(|sequence| !self.has_elsewhere(member, *sequence)).count() as u64
    }

    /// Messages that passed while a member was away.
    pub(crate) fn passed_by(&self, member: &Order) -> u64 {
        let places = member.skipped().flat_map(|gap| self.sequenced.within(gap));
        places.map(|place| place.end - place.start).sum()
    }

    /// Whether a member has the message of this place at another one.
    fn has_elsewhere(&self, member: &Order, sequence: u64) -> bool {
        let Some((publisher, number)) = self.repeated.get(&sequence) else { return false };
        let Some(known) = self.publishers.get(publisher) else { return false };
        let places = [known.places.get(u64::from(*number)), known.others.get(number).copied()];
        places.into_iter().flatten().any(|place| member.has(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(sequence: u64, id: u64, publisher: u32, number: u32) -> Placed {
        Placed { sequence, id: MessageId(id), publisher, number, repeat: false }
    }

    fn repeat(sequence: u64, id: u64, publisher: u32, number: u32) -> Placed {
        Placed { repeat: true, ..placed(sequence, id, publisher, number) }
    }

    #[test]
    fn every_member_must_get_the_same_message_at_a_place() {
        let mut room = Room::default();
        assert_eq!(room.check(placed(1, 10, 0, 1)), Place::Right);
        assert_eq!(room.check(placed(1, 10, 0, 1)), Place::Right);
        assert_eq!(room.check(placed(1, 11, 0, 2)), Place::Disordered);
    }

    #[test]
    fn a_message_with_two_places_is_a_duplicate_for_every_member() {
        let mut room = Room::default();
        room.check(placed(1, 10, 0, 1));
        assert_eq!(room.check(placed(2, 11, 0, 1)), Place::Duplicate);
        assert_eq!(room.check(placed(2, 11, 0, 1)), Place::Duplicate);
        assert_eq!(room.check(placed(3, 12, 7, 1)), Place::Right);
    }

    #[test]
    fn a_repeat_with_two_places_is_known_as_one_whichever_came_first() {
        let mut room = Room::default();
        room.check(placed(1, 10, 0, 1));
        assert_eq!(room.check(repeat(9_000_000, 11, 0, 1)), Place::Repeat { earlier: 1 });
        assert_eq!(room.check(repeat(9_000_001, 12, 0, 2)), Place::Right);
        assert_eq!(room.check(placed(2, 13, 0, 2)), Place::Right);
        assert_eq!(room.check(repeat(9_000_001, 12, 0, 2)), Place::Repeat { earlier: 2 });
    }

    #[test]
    fn a_publishers_messages_keep_their_order_but_for_repeats() {
        let mut room = Room::default();
        room.check(placed(1, 10, 0, 1));
        assert_eq!(room.check(placed(2, 13, 0, 4)), Place::Right);
        assert_eq!(room.check(repeat(3, 12, 0, 3)), Place::Right);
        assert_eq!(room.check(placed(4, 11, 0, 2)), Place::Disordered);
    }

    #[test]
    fn a_place_that_comes_late_to_the_fleet_says_nothing_of_its_publisher() {
        let mut room = Room::default();
        room.check(placed(1, 10, 0, 1));
        room.check(placed(3, 12, 0, 3));
        assert_eq!(room.check(placed(2, 11, 0, 2)), Place::Right);
    }

    #[test]
    fn a_member_is_owed_what_publishers_know_to_be_sequenced() {
        let mut room = Room::default();
        [5, 6, 7, 1_000, 1_001].into_iter().for_each(|sequence| room.sequenced(sequence, 0, 1, false));
        let mut member = Order::new(5);
        for sequence in [5, 7, 1_000] {
            member.take(sequence);
        }
        assert_eq!((room.missing(&member, true), room.missing(&member, false)), (2, 1));
        // It comes back: 1,001 has passed.
        member.skip_to(1_500);
        assert_eq!((room.missing(&member, true), room.passed_by(&member)), (1, 1));
        let mut other = Room::default();
        other.expect(&room.end(3).unwrap());
        assert_eq!(other.missing(&member, true), 1);
        assert_eq!(Room::default().end(3), None);
    }

    #[test]
    fn a_member_that_has_a_repeated_message_at_its_first_place_misses_nothing() {
        let mut room = Room::default();
        let (mut first, mut second) = (Order::new(1), Order::new(2));
        room.check(placed(1, 10, 0, 1));
        first.take(1);
        // The owner dies before it answers; another gives it a second place, and neither member hears of it.
        room.sequenced(50, 0, 1, true);
        assert_eq!((room.missing(&first, true), room.missing(&second, true)), (0, 1));
        second.take(50);
        assert_eq!(room.missing(&second, true), 0);
    }
}
