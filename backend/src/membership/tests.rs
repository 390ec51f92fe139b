use std::collections::BTreeSet;

use super::*;
use crate::event::Membership;

/// Xorshift; a failing seed is in the message of the assertion.
struct Prng(u64);

impl Prng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// The tables, without a database.
#[derive(Default)]
struct Tables {
    presence: BTreeMap<Device, Presence>,
    members: BTreeMap<(Device, i64), MemberRow>,
}

impl Tables {
    fn take(&mut self, events: &[Event]) {
        let told = told(events);
        for (device, told) in &told.presence {
            let known = self.presence.entry(device.clone()).or_default();
            known.online_login = known.online_login.max(told.online_login);
            known.offline_login = known.offline_login.max(told.offline_login);
        }
        let known = self.members.values().filter(|row| told.presence.contains_key(&row.device)).cloned();
        let known = known.collect();
        let changes = told.changes(&self.presence, known);
        self.members.extend(changes.put.into_iter().map(keyed));
        for key in changes.delete {
            self.members.remove(&key).expect("only what is there is deleted");
        }
    }

    fn rooms(&self) -> BTreeSet<(String, i64)> {
        let rooms = self.members.values().filter(|row| row.is_in);
        rooms.map(|row| (row.device.device.clone(), row.room_id)).collect()
    }

    fn online(&self) -> BTreeSet<String> {
        let online = self.presence.iter().filter(|(_, presence)| presence.is_online());
        online.map(|(device, _)| device.device.clone()).collect()
    }
}

fn session(device: &str, login: u64) -> Session {
    Session { app: 1, user: 7, device: device.into(), login }
}

fn event(seq: u64, kind: EventKind) -> Event {
    Event { id: format!("210000-18a3f0c2b4d5e600-{seq:x}"), kind }
}

fn online(seq: u64, login: u64) -> Event {
    event(seq, EventKind::Online(session("phone", login)))
}

fn offline(seq: u64, login: u64) -> Event {
    event(seq, EventKind::Offline(session("phone", login)))
}

fn join(seq: u64, login: u64, room: i64) -> Event {
    event(seq, EventKind::Join(Membership { session: session("phone", login), room }))
}

fn leave(seq: u64, login: u64, room: i64) -> Event {
    event(seq, EventKind::Leave(Membership { session: session("phone", login), room }))
}

/// What one device did, in order; and where it ends: whether online, and in which rooms.
fn history(prng: &mut Prng, device: &str) -> (Vec<Event>, bool, BTreeSet<i64>) {
    let (mut events, mut is_online, mut rooms) = (Vec::new(), false, BTreeSet::new());
    let (mut login, mut seq) = (1_763_000_000_000_000_000 + prng.below(1 << 40), 0);
    for _ in 0..1 + prng.below(4) {
        login += (1 << 20) + prng.below(1 << 32);
        // Each session is on a shard of its own, whose numbers are its own too.
        seq = if prng.below(2) == 0 { 0 } else { seq };
        let mut push = |login: u64, kind: fn(Session, i64) -> EventKind, room: i64| {
            seq += 1;
            events.push(event(seq, kind(session(device, login), room)));
        };
        push(login, |session, _| EventKind::Online(session), 0);
        (is_online, rooms) = (true, BTreeSet::new());
        for _ in 0..prng.below(12) {
            let room = prng.below(4) as i64;
            match prng.below(7) {
                0 => {
                    login += 1; // another owner
                    push(login, |session, _| EventKind::Online(session), 0);
                }
                1 | 2 => {
                    push(login, |session, room| EventKind::Leave(Membership { session, room }), room);
                    rooms.remove(&room);
                }
                _ => {
                    push(login, |session, room| EventKind::Join(Membership { session, room }), room);
                    rooms.insert(room);
                }
            }
        }
        // An end that nobody could tell is one all the same, once the next session has come.
        if prng.below(4) != 0 {
            push(login, |session, _| EventKind::Offline(session), 0);
            (is_online, rooms) = (false, BTreeSet::new());
        }
    }
    (events, is_online, rooms)
}

/// E1: the same events, in whatever order and however often, end in the same presence and the same members.
#[test]
fn events_end_in_the_same_state_in_any_order() {
    for seed in 1..=2_000 {
        let mut prng = Prng(seed);
        let (mut events, mut rooms, mut devices) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for device in ["phone", "web"] {
            let (more, is_online, in_rooms) = history(&mut prng, device);
            events.extend(more);
            rooms.extend(in_rooms.into_iter().map(|room| (device.to_owned(), room)));
            devices.extend(is_online.then(|| device.to_owned()));
        }
        for _ in 0..prng.below(10) {
            let again = events[prng.below(events.len() as u64) as usize].clone();
            events.push(again);
        }
        for index in (1..events.len()).rev() {
            events.swap(index, prng.below(index as u64 + 1) as usize);
        }
        let mut tables = Tables::default();
        let mut rest = events.as_slice();
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(1 + prng.below(rest.len() as u64) as usize);
            tables.take(batch);
            rest = after;
        }
        assert_eq!(tables.rooms(), rooms, "seed {seed}: {events:#?}");
        assert_eq!(tables.online(), devices, "seed {seed}: {events:#?}");
    }
}

#[test]
fn a_join_that_comes_after_the_end_of_its_session_is_ignored() {
    let mut tables = Tables::default();
    tables.take(&[online(1, 100), offline(2, 100), join(3, 100, 7), join(4, 99, 8)]);
    assert!(tables.rooms().is_empty() && tables.members.is_empty());
    tables.take(&[join(1, 101, 7)]);
    assert_eq!(tables.rooms().len(), 1, "a later session's");
}

#[test]
fn an_end_that_comes_late_ends_its_own_session_only() {
    let mut tables = Tables::default();
    let later = 100 + (1 << 21);
    tables.take(&[online(1, 100), join(2, 100, 7)]);
    tables.take(&[online(1, later), join(2, later, 8)]);
    assert_eq!(tables.rooms(), BTreeSet::from([("phone".into(), 8)]), "the one before has ended");
    tables.take(&[offline(3, 100), leave(4, 100, 8)]);
    assert_eq!(tables.rooms(), BTreeSet::from([("phone".into(), 8)]));
    assert_eq!(tables.online().len(), 1);
}

#[test]
fn a_session_keeps_its_rooms_when_its_stamp_rises() {
    let mut tables = Tables::default();
    tables.take(&[online(1, 100), join(2, 100, 7), online(3, 101), online(4, 102)]);
    assert_eq!(tables.rooms().len(), 1);
    tables.take(&[offline(5, 102)]);
    assert!(tables.rooms().is_empty());
}

#[test]
fn events_without_a_number_count_in_the_order_in_which_they_come() {
    let mut tables = Tables::default();
    let named = |event: Event| Event { id: "a".into(), ..event };
    tables.take(&[join(1, 100, 7), leave(2, 100, 7), join(3, 100, 7)].map(named));
    assert_eq!(tables.rooms().len(), 1);
    tables.take(&[named(leave(4, 100, 7))]);
    assert!(tables.rooms().is_empty());
}

#[test]
fn a_session_that_leaves_very_many_rooms_is_remembered_for_the_latest() {
    let mut tables = Tables::default();
    for seq in 1..=1_000 {
        tables.take(&[leave(seq, 100, seq as i64)]);
    }
    assert_eq!(tables.members.len(), LEFT_MAX);
    assert!(tables.members.values().all(|row| row.room_id > 1_000 - LEFT_MAX as i64));
    tables.take(&[offline(1_001, 100)]);
    assert!(tables.members.is_empty(), "and for nothing once it has ended");
}
