//! What the timing wheel asks of the allocator.

#![expect(unsafe_code, reason = "a global allocator that counts is an unsafe impl")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use shard::{Instant, Prng, TimerId, Wheel};

thread_local! {
    /// Of this thread, so that the test harness is not counted.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TIMERS: usize = 100_000;
const SECOND: u64 = 1_000_000_000;

#[test]
fn a_warm_wheel_allocates_nothing() {
    let mut prng = Prng::new(1);
    let mut now = Instant::from_unix_nanos(1_700_000_000 * SECOND);
    let mut wheel = Wheel::new(now);
    let mut ids: Vec<TimerId> = Vec::with_capacity(TIMERS);
    let mut later = |now: Instant| now + Duration::from_nanos(prng.below(100_000 * SECOND));

    let before = ALLOCATIONS.get();
    ids.extend((0..TIMERS).map(|number| wheel.arm(later(now), number)));
    let warming = ALLOCATIONS.get() - before;
    assert!((1..=200).contains(&warming), "chunks of a thousand, not a timer each: {warming}");

    let before = ALLOCATIONS.get();
    for _ in 0..500 {
        for number in (0..TIMERS).step_by(97) {
            if wheel.cancel(ids[number]).is_some() {
                ids[number] = wheel.arm(later(now), number);
            }
        }
        now = wheel.next_deadline().expect("armed").max(now + Duration::from_secs(1_000));
        while let Some(number) = wheel.pop_expired(now) {
            ids[number] = wheel.arm(later(now), number);
        }
    }
    assert_eq!(wheel.len(), TIMERS);
    assert_eq!(ALLOCATIONS.get() - before, 0);
}
