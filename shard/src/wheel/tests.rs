use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn at(nanos: u64) -> Instant {
    Instant::from_unix_nanos(nanos)
}

fn tick(number: u64) -> Instant {
    at(number * TICK_NANOS)
}

fn drain<T: Copy>(wheel: &mut Wheel<T>, now: Instant) -> Vec<T> {
    std::iter::from_fn(|| wheel.pop_expired(now)).collect()
}

#[test]
fn a_node_for_a_word_is_half_a_cache_line() {
    assert_eq!(size_of::<Node<u64>>(), 32);
    assert_eq!(size_of::<Node<(u32, u64)>>(), 40);
    assert_eq!(size_of::<Node<[u32; 3]>>(), 32);
    assert_eq!(size_of::<Option<TimerId>>(), 8);
}

#[test]
fn a_timer_expires_with_its_tick_and_not_before() {
    let mut wheel = Wheel::new(at(12_345));
    let deadline = at(5_000_000_000);
    wheel.arm(deadline, 'x');
    let due = tick(tick_ceil(deadline));
    assert!(due.since(deadline) < Duration::from_nanos(TICK_NANOS));
    assert_eq!(drain(&mut wheel, at(due.unix_nanos() - 1)), []);
    assert_eq!(wheel.next_deadline(), Some(due));
    assert_eq!(drain(&mut wheel, due), ['x']);
    assert_eq!((wheel.len(), wheel.next_deadline()), (0, None));
}

#[test]
fn a_deadline_on_a_tick_is_exact() {
    let mut wheel = Wheel::new(tick(7));
    wheel.arm(tick(9), 'x');
    assert_eq!(drain(&mut wheel, at(tick(9).unix_nanos() - 1)), []);
    assert_eq!(drain(&mut wheel, tick(9)), ['x']);
}

#[test]
fn a_deadline_in_the_past_is_due_at_once() {
    let mut wheel = Wheel::new(tick(1_000));
    wheel.arm(tick(3), 'x');
    wheel.arm(tick(1_000), 'y');
    assert!(wheel.next_deadline().is_some_and(|deadline| deadline <= tick(1_000)));
    assert_eq!(drain(&mut wheel, tick(1_000)), ['x', 'y']);
}

#[test]
fn a_stale_id_cancels_nothing() {
    let mut wheel = Wheel::new(at(0));
    let cancelled = wheel.arm(tick(5), 1);
    assert_eq!(wheel.cancel(cancelled), Some(1));
    assert_eq!(wheel.cancel(cancelled), None);
    let expired = wheel.arm(tick(5), 2);
    assert_eq!(expired.index, cancelled.index);
    assert_eq!(drain(&mut wheel, tick(5)), [2]);
    wheel.arm(tick(9), 3);
    assert_eq!((wheel.cancel(cancelled), wheel.cancel(expired), wheel.len()), (None, None, 1));
}

#[test]
fn generations_wrap_past_zero() {
    let mut wheel = Wheel::new(at(0));
    let id = wheel.arm(tick(1), 1);
    wheel.node_mut(id.index).generation = NonZeroU32::MAX;
    wheel.cancel(TimerId { generation: NonZeroU32::MAX, ..id });
    assert_eq!(wheel.arm(tick(1), 2), id);
}

#[test]
fn an_id_of_another_wheel_cancels_nothing() {
    let mut many = Wheel::new(at(0));
    let ids: Vec<TimerId> = (0..3_000).map(|value| many.arm(tick(1), value)).collect();
    let mut few = Wheel::new(at(0));
    few.arm(tick(1), 0);
    assert_eq!(few.cancel(ids[2_999]), None);
}

#[test]
fn one_tick_expires_together_whatever_the_levels() {
    let mut wheel = Wheel::new(tick(0));
    let due = tick(3 << (2 * LEVEL_BITS) | 5 << LEVEL_BITS | 7);
    wheel.arm(due, 1);
    assert_eq!(drain(&mut wheel, tick(3 << (2 * LEVEL_BITS))), []);
    wheel.arm(due, 2);
    assert_eq!(drain(&mut wheel, tick(3 << (2 * LEVEL_BITS) | 4 << LEVEL_BITS | 255)), []);
    wheel.arm(due, 3);
    assert_eq!(drain(&mut wheel, at(due.unix_nanos() - 1)), []);
    let mut expired = drain(&mut wheel, due);
    expired.sort();
    assert_eq!(expired, [1, 2, 3]);
}

#[test]
fn timers_of_a_minute_never_wait_in_one_slot_together() {
    // One tick before every byte of the clock turns over.
    let mut wheel = Wheel::new(tick((1 << 40) - 1));
    for ticks in 0..60_000 {
        wheel.arm(tick((1 << 40) - 1 + ticks), ());
    }
    let fullest = wheel.slots.iter().flatten().map(|ends| {
        let mut index = ends.first;
        let next = |index: &mut u32| (*index & SLOT_BIT == 0).then(|| *index = wheel.node(*index).next);
        std::iter::from_fn(|| next(&mut index)).count()
    });
    assert_eq!(fullest.max(), Some(LEVEL_SLOTS));
}

#[test]
fn the_ends_of_time_are_in_range() {
    let mut wheel = Wheel::new(at(0));
    wheel.arm(at(u64::MAX), "never");
    wheel.arm(at(u64::MAX - TICK_NANOS), "late");
    let year = Duration::from_secs(365 * 86_400);
    wheel.arm(at(0) + 100 * year, "century");
    assert_eq!(drain(&mut wheel, at(0) + 99 * year), [""; 0]);
    assert_eq!(drain(&mut wheel, at(0) + 101 * year), ["century"]);
    assert_eq!(drain(&mut wheel, at(u64::MAX)), ["late"]);
    assert_eq!((wheel.len(), wheel.next_deadline()), (1, Some(at(u64::MAX))));
}

#[test]
fn sleeping_until_next_deadline_finds_every_timer_in_few_wakes() {
    let mut wheel = Wheel::new(at(0));
    let hours = Duration::from_secs(5 * 3_600);
    wheel.arm(at(0) + hours, 'x');
    let mut wakes = 0;
    let now = loop {
        let now = wheel.next_deadline().expect("armed");
        wakes += 1;
        if wheel.pop_expired(now).is_some() {
            break now;
        }
    };
    assert!(now.since(at(0) + hours) < Duration::from_nanos(TICK_NANOS));
    assert!(wakes <= LEVELS, "one wake a level, not one a tick: {wakes}");
}

#[test]
fn chunks_are_reused() {
    let mut wheel = Wheel::new(at(0));
    for round in 0..100 {
        let ids: Vec<TimerId> =
            (0..5_000).map(|value| wheel.arm(tick(round * 50 + value % 97), value)).collect();
        for id in ids.iter().step_by(3) {
            wheel.cancel(*id);
        }
        drain(&mut wheel, tick(round * 50 + 200));
        assert!(wheel.is_empty());
    }
    assert_eq!(wheel.chunks.len(), 5_000_usize.div_ceil(CHUNK_ENTRIES));
}

/// What a wheel promises, in the plainest words: a heap of timers by tick and order of arming.
struct Model {
    armed: BinaryHeap<Reverse<(u64, usize)>>,
    current: u64,
}

impl Model {
    fn arm(&mut self, deadline: Instant, number: usize) {
        self.armed.push(Reverse((tick_ceil(deadline).max(self.current), number)));
    }

    fn cancel(&mut self, number: usize) -> Option<usize> {
        let before = self.armed.len();
        self.armed.retain(|Reverse((_, armed))| *armed != number);
        (self.armed.len() < before).then_some(number)
    }

    /// The tick of the next expired timer.
    fn peek_expired(&mut self, now: Instant) -> Option<u64> {
        match self.armed.peek() {
            Some(Reverse((due, _))) if tick(*due) <= now => Some(*due),
            _ => None,
        }
    }

    /// Whether `number` may be what the wheel gave out: any timer of the earliest tick, when that has come.
    fn pop_expired(&mut self, now: Instant, number: Option<usize>) -> bool {
        let expired = self.peek_expired(now);
        self.current = expired.unwrap_or(self.current.max(tick_floor(now)));
        let armed = self.armed.len();
        self.armed.retain(|Reverse(timer)| (Some(timer.0), Some(timer.1)) != (expired, number));
        expired.is_some() == number.is_some() && expired.is_some() == (self.armed.len() < armed)
    }

    fn earliest(&self) -> Option<Instant> {
        self.armed.peek().map(|Reverse((due, _))| at(due.saturating_mul(TICK_NANOS)))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Arm { in_nanos: u64 },
    ArmInThePast { nanos_ago: u64 },
    Cancel { pick: usize },
    Advance { nanos: u64 },
    AdvanceToNextDeadline,
    PopOnce { nanos: u64 },
}

/// Spans of every size: each level of the wheel is as likely as the others.
fn nanos() -> impl Strategy<Value = u64> + Clone {
    (0..62u32, any::<u64>()).prop_map(|(bits, random)| random % (1 << bits))
}

/// Spans as a gateway has them, up to a few seconds.
fn short() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![0..4 * TICK_NANOS, 0..5_000_000_000u64, (0..600u64).prop_map(|ticks| ticks * TICK_NANOS)]
}

fn step(span: impl Strategy<Value = u64> + Clone + 'static) -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => span.clone().prop_map(|in_nanos| Step::Arm { in_nanos }),
        1 => span.clone().prop_map(|nanos_ago| Step::ArmInThePast { nanos_ago }),
        4 => any::<usize>().prop_map(|pick| Step::Cancel { pick }),
        2 => span.clone().prop_map(|nanos| Step::Advance { nanos }),
        2 => Just(Step::AdvanceToNextDeadline),
        2 => span.prop_map(|nanos| Step::PopOnce { nanos }),
    ]
}

/// Runs the steps on a wheel and on the model, and compares everything they answer.
fn compare(start: u64, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut now = at(start);
    let mut wheel = Wheel::new(now);
    let mut model = Model { armed: BinaryHeap::new(), current: tick_floor(now) };
    let mut deadlines = Vec::new();
    let mut ids = Vec::new();
    for step in steps {
        match step {
            Step::Arm { .. } | Step::ArmInThePast { .. } => {
                let deadline = match step {
                    Step::Arm { in_nanos } => now + Duration::from_nanos(in_nanos),
                    Step::ArmInThePast { nanos_ago } => at(now.unix_nanos().saturating_sub(nanos_ago)),
                    _ => unreachable!("matched above"),
                };
                let number = deadlines.len();
                ids.push(wheel.arm(deadline, number));
                model.arm(deadline, number);
                deadlines.push(deadline);
            }
            Step::Cancel { pick } => {
                let number = pick % ids.len().max(1);
                if let Some(id) = ids.get(number) {
                    prop_assert_eq!(wheel.cancel(*id), model.cancel(number));
                }
            }
            Step::Advance { nanos } => now += Duration::from_nanos(nanos),
            Step::AdvanceToNextDeadline => now = wheel.next_deadline().unwrap_or(now).max(now),
            Step::PopOnce { nanos } => {
                now += Duration::from_nanos(nanos);
                let expired = wheel.pop_expired(now);
                prop_assert!(model.pop_expired(now, expired), "{expired:?} at {now:?}");
            }
        }
        if matches!(step, Step::Advance { .. } | Step::AdvanceToNextDeadline) {
            loop {
                let expired = wheel.pop_expired(now);
                prop_assert!(model.pop_expired(now, expired), "{expired:?} at {now:?}");
                let Some(number) = expired else { break };
                prop_assert!(deadlines[number] <= now, "never early");
            }
        }
        prop_assert_eq!(wheel.len(), model.armed.len());
        match (wheel.next_deadline(), model.earliest()) {
            (Some(next), Some(earliest)) => prop_assert!(next <= earliest, "next_deadline is a lower bound"),
            (next, earliest) => prop_assert_eq!(next, earliest),
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn agrees_with_a_heap_over_all_spans(
        start in any::<u64>().prop_map(|start| start >> 2),
        steps in prop::collection::vec(step(nanos()), 0..300),
    ) {
        compare(start, steps)?;
    }

    #[test]
    fn agrees_with_a_heap_over_short_spans(
        start in 0..1u64 << 40,
        steps in prop::collection::vec(step(short()), 0..600),
    ) {
        compare(start, steps)?;
    }
}
