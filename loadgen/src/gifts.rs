//! Gifts: what their senders were told, and who of a room has seen them.
//!
//! A gift that its sender knows to be answered, and was not told to be refused, is owed to every member of
//! its room that was there all the time. All copies of its effect must have one client message id, by which a
//! client drops repeats.

use hashbrown::{HashMap, HashSet};
use serde::Deserialize;
use shard::Instant;
use wire::BizCode;

/// The business code under which an effect comes to a room.
pub(crate) const SHOWN: BizCode = BizCode(5556);
/// The business code under which a sender is told that a gift failed.
pub(crate) const REFUSED: BizCode = BizCode(5557);

/// What an effect says of its gift; it says more.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Effect {
    pub(crate) sender_id: i64,
    /// The sender's name for the gift.
    pub(crate) id: String,
}

/// What a sender is told of a gift that failed; it says more.
#[derive(Deserialize)]
pub(crate) struct Refusal {
    pub(crate) id: String,
    pub(crate) reason: String,
}

/// A gift: its sender, as counted from the fleet's first client, and the sender's number for it.
pub(crate) type Name = (u32, u32);

/// The gifts of one room.
#[derive(Debug, Default)]
pub(crate) struct Gifts {
    /// Each gift that was shown, in the order of their first effects, with the client message id of that.
    shown: HashMap<Name, (u32, String)>,
    /// When each gift was due whose sender has not seen it yet.
    due: HashMap<Name, Instant>,
    /// Gifts whose senders were told that the backend has them.
    answered: HashSet<Name>,
    /// Gifts whose senders were told that they failed.
    refused: HashSet<Name>,
}

/// What one member has seen: a bit for each gift that was shown.
#[derive(Debug, Default)]
pub(crate) struct Sightings(Vec<u64>);

/// What an effect is to a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sight {
    First,
    /// It came before, under the same client message id.
    Again,
    /// It came to somebody under another client message id: nobody can tell that it is the same.
    Duplicate,
}

impl Gifts {
    /// An effect comes to a member.
    pub(crate) fn show(&mut self, seen: &mut Sightings, gift: Name, client_msg_id: &str) -> Sight {
        let next = self.shown.len() as u32;
        let (at, known) = self.shown.entry(gift).or_insert_with(|| (next, client_msg_id.to_owned()));
        match (known == client_msg_id, seen.put(*at)) {
            (false, _) => Sight::Duplicate,
            (true, true) => Sight::First,
            (true, false) => Sight::Again,
        }
    }

    /// A gift is sent, which was due at that time.
    pub(crate) fn send(&mut self, gift: Name, intended: Instant) {
        self.due.insert(gift, intended);
    }

    /// A sender sees its own gift for the first time; when that was due.
    pub(crate) fn arrive(&mut self, gift: Name) -> Option<Instant> {
        self.due.remove(&gift)
    }

    /// The sender was told that the backend has the gift.
    pub(crate) fn answer(&mut self, gift: Name) {
        self.answered.insert(gift);
    }

    /// The sender was told that the gift failed; whether it had not been told yet.
    pub(crate) fn refuse(&mut self, gift: Name) -> bool {
        self.refused.insert(gift)
    }

    /// Gifts that are owed to a member and did not come.
    pub(crate) fn missing(&self, seen: &Sightings) -> u64 {
        let owed = self.answered.difference(&self.refused);
        let came = |gift: &Name| self.shown.get(gift).is_some_and(|(at, _)| seen.has(*at));
        owed.filter(|gift| !came(gift)).count() as u64
    }

    /// Gifts that were shown though they failed.
    pub(crate) fn contradictions(&self) -> u64 {
        self.refused.iter().filter(|gift| self.shown.contains_key(*gift)).count() as u64
    }
}

impl Sightings {
    /// Whether it was not there yet.
    fn put(&mut self, at: u32) -> bool {
        let word = at as usize / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let bit = 1 << (at % 64);
        let is_first = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_first
    }

    fn has(&self, at: u32) -> bool {
        self.0.get(at as usize / 64).is_some_and(|word| word & (1 << (at % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_owed_what_was_answered_and_not_refused() {
        let (mut gifts, mut seen, mut other) = (Gifts::default(), Sightings::default(), Sightings::default());
        assert_eq!(gifts.show(&mut seen, (0, 1), "a"), Sight::First);
        assert_eq!(gifts.missing(&other), 0, "nobody was told anything yet");
        for number in 1..=3 {
            gifts.answer((0, number));
        }
        assert!(gifts.refuse((0, 3)) && !gifts.refuse((0, 3)));
        assert_eq!((gifts.missing(&seen), gifts.missing(&other)), (1, 2));
        for number in (1..=2).rev() {
            let name = if number == 1 { "a" } else { "b" };
            assert_eq!(gifts.show(&mut other, (0, number), name), Sight::First);
        }
        assert_eq!((gifts.missing(&seen), gifts.missing(&other)), (1, 0));
        assert_eq!(gifts.contradictions(), 0);
        gifts.show(&mut seen, (0, 3), "c");
        assert_eq!(gifts.contradictions(), 1);
    }

    #[test]
    fn a_repeat_is_told_from_a_duplicate_by_the_client_message_id() {
        let (mut gifts, mut seen, mut other) = (Gifts::default(), Sightings::default(), Sightings::default());
        assert_eq!(gifts.show(&mut seen, (7, 1), "a"), Sight::First);
        assert_eq!(gifts.show(&mut seen, (7, 1), "a"), Sight::Again);
        assert_eq!(gifts.show(&mut seen, (7, 1), "b"), Sight::Duplicate);
        assert_eq!(gifts.show(&mut other, (7, 1), "b"), Sight::Duplicate);
        assert_eq!(gifts.show(&mut seen, (8, 1), "c"), Sight::First);
    }
}
