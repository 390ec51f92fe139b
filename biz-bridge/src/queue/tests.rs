//! The queue against backends of all tempers.

use std::collections::BTreeMap;
use std::time::Duration;

use wire::client::FailReason;

use super::*;
use crate::event::EventKind;

const BATCH_MAX: usize = 16;
const FIRST: Duration = Duration::from_millis(100);
const MAX: Duration = Duration::from_secs(10);

struct World {
    queue: Queue,
    now: Instant,
    pushed: u64,
    done: Vec<Done>,
    batches: usize,
}

impl World {
    fn new() -> Self {
        let queue = Queue::new(BATCH_MAX, Backoff::new(FIRST, MAX), Random::new(1));
        Self { queue, now: Instant::now(), pushed: 0, done: Vec::new(), batches: 0 }
    }

    /// One event of each of these users.
    fn push(&mut self, users: &[i64]) {
        for user in users {
            self.pushed += 1;
            self.queue.push(entry(self.pushed, *user));
        }
    }

    /// Lets the backend answer one batch, after as much time as it takes until there is one.
    fn step(&mut self, backend: &mut dyn FnMut(&[Entry]) -> Verdict) {
        let batch = loop {
            if let Some(batch) = self.queue.take(self.now) {
                break batch;
            }
            let due = self.queue.next_due().expect("what waits is due at some time");
            assert!(due > self.now, "whoever waits for it would spin");
            self.now = due;
        };
        self.batches += 1;
        let verdict = backend(&batch.entries);
        self.done.extend(self.queue.settle(batch, verdict, self.now));
    }

    fn run(&mut self, backend: &mut dyn FnMut(&[Entry]) -> Verdict) {
        for _ in 0..100_000 {
            if self.queue.is_empty() {
                return;
            }
            self.step(backend);
        }
        panic!("it never ends");
    }

    /// The numbers of a user's events, in the order in which they were done.
    fn done_of(&self, user: i64) -> Vec<u64> {
        let of = |done: &&Done| done.entry.user.1 == UserId(user);
        self.done.iter().filter(of).map(|done| done.entry.key.seq).collect()
    }

    fn refused(&self) -> Vec<u64> {
        let refused = |done: &&Done| done.taken == Taken::Refused(FailReason::NoRoute);
        self.done.iter().filter(refused).map(|done| done.entry.key.seq).collect()
    }
}

fn entry(seq: u64, user: i64) -> Entry {
    Entry {
        key: EventKey { shard: 1, incarnation: 1, seq },
        user: (AppId(1), UserId(user)),
        kind: EventKind::Request,
        refusal: FailReason::NoRoute,
        json: vec![b'x'; 100],
        tries: 0,
        trace: None,
    }
}

fn seqs(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.key.seq).collect()
}

fn all_ok(entries: &[Entry]) -> Verdict {
    Verdict::Answered(vec![Answer::Ok; entries.len()])
}

#[test]
fn batches_are_full_and_in_order() {
    let mut world = World::new();
    world.push(&[1; 40]);
    let mut seen = Vec::new();
    world.run(&mut |entries| {
        seen.push(entries.len());
        all_ok(entries)
    });
    assert_eq!(seen, [16, 16, 8]);
    assert_eq!(world.done_of(1), (1..=40).collect::<Vec<_>>());
    assert!(world.queue.take(world.now).is_none() && world.queue.next_due().is_none());
}

#[test]
fn a_batch_is_bounded_in_bytes_and_takes_one_event_of_any_size() {
    let mut world = World::new();
    for (seq, bytes) in
        [(1, BATCH_BYTES_MAX / 2), (2, BATCH_BYTES_MAX / 2), (3, 1), (4, 3 * BATCH_BYTES_MAX), (5, 1)]
    {
        world.queue.push(Entry { json: vec![b'x'; bytes], ..entry(seq, 1) });
    }
    let mut seen = Vec::new();
    world.run(&mut |entries| {
        seen.push(seqs(entries));
        all_ok(entries)
    });
    assert_eq!(seen, [vec![1, 2], vec![3], vec![4], vec![5]]);
}

#[test]
fn a_failed_batch_comes_again_after_a_growing_wait() {
    let mut world = World::new();
    world.push(&[1, 2, 1, 3]);
    let (mut waits, mut from) = (Vec::new(), world.now);
    for _ in 0..3 {
        world.step(&mut |entries| {
            assert_eq!(entries[0].key.seq, 1);
            Verdict::Failed("500".into())
        });
        let due = world.queue.next_due().unwrap();
        waits.push(due - from);
        from = due;
        assert!(world.queue.take(world.now).is_none(), "nothing leaves before");
    }
    assert!(waits[0] <= FIRST && waits[1] > waits[0], "{waits:?}");
    world.run(&mut all_ok);
    assert_eq!(world.done_of(1), [1, 3]);
    assert_eq!(world.done.len(), 4);
}

/// A user who goes on must not make the backend see every 100 ms what it cannot do.
#[test]
fn later_events_of_a_user_do_not_make_the_wait_short_again() {
    let mut world = World::new();
    let mut waits = Vec::new();
    for _ in 0..6 {
        world.push(&[1]);
        world.step(&mut |entries| {
            assert_eq!(entries[0].key.seq, 1);
            Verdict::Answered(vec![Answer::Again; entries.len()])
        });
        waits.push(world.queue.next_due().unwrap() - world.now);
    }
    assert!(waits[5] >= FIRST * 16, "{waits:?}");
    world.run(&mut all_ok);
    assert_eq!(world.done_of(1), (1..=6).collect::<Vec<_>>());
}

#[test]
fn an_event_that_makes_its_batch_rejected_is_found_and_refused_alone() {
    let mut world = World::new();
    let users: Vec<i64> = (0..100).collect();
    world.push(&users);
    let mut backend =
        |entries: &[Entry]| match entries.iter().any(|entry| [37, 38, 90].contains(&entry.key.seq)) {
            true => Verdict::Rejected("422".into()),
            false => all_ok(entries),
        };
    let from = world.now;
    world.run(&mut backend);
    assert_eq!(world.refused(), [37, 38, 90]);
    assert_eq!(world.done.len(), 100);
    assert_eq!(world.now, from, "nobody waits");
    assert!(world.batches < 50, "{} batches", world.batches);
}

#[test]
fn an_event_on_which_the_backend_fails_holds_up_its_user_only() {
    let mut world = World::new();
    let users: Vec<i64> = (0..200).map(|at| at % 20).collect();
    world.push(&users);
    let poison = 45; // of user 4
    let mut backend = |entries: &[Entry]| match entries.iter().any(|entry| entry.key.seq == poison) {
        true => Verdict::Failed("500".into()),
        false => all_ok(entries),
    };
    for _ in 0..300 {
        world.step(&mut backend);
        if world.done.len() == 192 {
            break;
        }
    }
    assert_eq!(world.done.len(), 192, "all but those behind it are done");
    assert_eq!(world.done_of(4), [5, 25]);
    world.run(&mut all_ok);
    assert_eq!(world.done_of(4), (0..10).map(|at| 5 + 20 * at).collect::<Vec<_>>());
}

#[test]
fn an_event_to_be_sent_again_keeps_its_place_before_later_ones_of_its_user() {
    let mut world = World::new();
    world.push(&[1, 2, 1]);
    let mut answers = vec![
        vec![Answer::Again, Answer::Ok, Answer::Again],
        // 2 goes on at once; 1 has its own batches.
        vec![Answer::Ok],
        vec![Answer::Ok, Answer::Again, Answer::Again],
    ]
    .into_iter();
    let mut seen = Vec::new();
    let mut backend = |entries: &[Entry]| {
        seen.push(seqs(entries));
        Verdict::Answered(answers.next().unwrap_or_else(|| vec![Answer::Ok; entries.len()]))
    };
    world.step(&mut backend);
    world.push(&[1, 2]);
    world.run(&mut backend);
    assert_eq!(seen, [vec![1, 2, 3], vec![5], vec![1, 3, 4], vec![3, 4]]);
    assert_eq!(world.done_of(1), [1, 3, 4]);
}

#[test]
fn whoever_is_held_for_long_gets_a_turn_while_others_never_pause() {
    let mut world = World::new();
    world.push(&[1]);
    let mut tries = 0;
    let mut backend = |entries: &[Entry]| {
        let answer = |entry: &Entry| {
            let is_it = entry.key.seq == 1;
            tries += u32::from(is_it);
            if is_it && tries < 5 { Answer::Again } else { Answer::Ok }
        };
        Verdict::Answered(entries.iter().map(answer).collect())
    };
    while world.done_of(1).is_empty() {
        world.push(&[2; BATCH_MAX * 2]);
        world.step(&mut backend);
        world.now += FIRST;
        assert!(world.batches < 500, "it starves");
    }
}

/// Whatever the backend does, nothing is lost, done twice, or overtakes another event of its user.
#[test]
fn nothing_is_lost_and_users_stay_in_order_whatever_the_backend_does() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut world = World::new();
        let backend = |entries: &[Entry], random: &mut Random| match random.up_to(9) {
            0 => Verdict::Failed("500".into()),
            1 => Verdict::Rejected("413".into()),
            2..=5 => {
                let mut held: BTreeMap<User, Answer> = BTreeMap::new();
                let answer = |entry: &Entry| {
                    let drawn = match random.up_to(5) {
                        0 => Answer::Again,
                        1 => Answer::Refused(String::new()),
                        _ => Answer::Ok,
                    };
                    // A backend that wants order sends back what follows for the same user, too.
                    let answer = held.get(&entry.user).cloned().unwrap_or(drawn);
                    if answer == Answer::Again {
                        held.insert(entry.user, Answer::Again);
                    }
                    answer
                };
                Verdict::Answered(entries.iter().map(answer).collect())
            }
            _ => all_ok(entries),
        };
        for _ in 0..60 {
            let users: Vec<i64> = (0..random.up_to(20)).map(|_| random.up_to(8).cast_signed()).collect();
            world.push(&users);
            if !world.queue.is_empty() {
                world.step(&mut |entries| backend(entries, &mut random));
            }
        }
        world.run(&mut |entries| backend(entries, &mut random));
        let mut all: Vec<u64> = world.done.iter().map(|done| done.entry.key.seq).collect();
        for user in 0..=8 {
            assert!(world.done_of(user).is_sorted(), "seed {seed}: {:?} of user {user}", world.done_of(user));
        }
        all.sort_unstable();
        assert_eq!(all, (1..=world.pushed).collect::<Vec<_>>(), "seed {seed}");
        assert!(world.queue.held.is_empty() && world.queue.due.is_empty() && world.queue.fresh.is_empty());
    }
}
