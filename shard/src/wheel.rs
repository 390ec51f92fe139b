//! Timers in constant time.

use std::num::NonZeroU32;

use crate::Instant;
use crate::chunk::{CHUNK_ENTRIES, join, split};

/// The wheel's resolution: 2^20 ns, about 1.05 ms.
const TICK_NANOS: u64 = 1 << TICK_BITS;
const TICK_BITS: u32 = 20;

/// A level tells ticks apart by one byte of their number.
const LEVEL_BITS: u32 = 8;
const LEVEL_SLOTS: usize = 1 << LEVEL_BITS;
/// So many that every instant has its slot: there is no range beyond which a timer would wait apart.
const LEVELS: usize = (u64::BITS - TICK_BITS + 1).div_ceil(LEVEL_BITS) as usize;

/// Links with this bit name a slot, the others a node.
const SLOT_BIT: u32 = 1 << 31;
/// The end of the free list.
const NONE: u32 = u32::MAX;

/// Names an armed timer of a [`Wheel`]. It goes stale when the timer expires or is cancelled (until a generation of 32 bits has wrapped).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimerId {
    index: u32,
    generation: NonZeroU32,
}

/// A hierarchical timing wheel: scheme 7 of Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (1987). Arming, cancelling and
/// expiring take constant time (a timer moves down at most once a level), and nothing is allocated unless
/// more timers are armed than ever before.
///
/// - A timer never expires early. Its deadline is rounded up to a tick of 2^20 ns; it is given out by the first
///   [`Wheel::pop_expired`] from then on.
/// - Expired timers come in the order of their ticks, and those of one tick in the order in which they were armed. The
///   wheel stands at the tick of the timer it gave out last, or of the last `now` when it had none left; a deadline
///   before that counts as that.
///
/// Time jumps cost no more than the timers they expire: bitmaps tell which slots hold any.
pub struct Wheel<T> {
    /// Where the wheel stands: no timer has an earlier tick, and those of this very tick are in its level-0 slot.
    current: u64,
    levels: Box<[Level; LEVELS]>,
    chunks: Vec<Box<Nodes<T>>>,
    free_head: u32,
    len: usize,
}

/// A timer in `slots[digit]` of level `l` has that digit in byte `l` of its tick, and the higher bytes of the tick are those of
/// `current`. The digit is greater than that of `current`; on level 0 it may be equal, for what is due.
struct Level {
    slots: [Ends; LEVEL_SLOTS],
    occupied: [u64; LEVEL_SLOTS / 64],
}

/// Of the list in a slot; both name the slot itself when the list is empty.
#[derive(Clone, Copy)]
struct Ends {
    first: u32,
    last: u32,
}

/// Aligned so that no 32-byte node straddles two cache lines.
#[repr(align(64))]
struct Nodes<T>([Node<T>; CHUNK_ENTRIES]);

#[derive(Clone, Copy)]
struct Node<T> {
    tick: u64,
    value: T,
    /// Of the armed timer, or of the next one when the node is free.
    generation: NonZeroU32,
    /// The next timer in the slot, or the slot; the next free node.
    next: u32,
    /// The previous timer in the slot, or the slot.
    previous: u32,
}

impl<T: Copy> Wheel<T> {
    /// A wheel without timers, at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            current: tick_floor(now),
            levels: Box::new(std::array::from_fn(Level::new)),
            chunks: Vec::new(),
            free_head: NONE,
            len: 0,
        }
    }

    /// Timers armed, the expired ones that wait to be popped included.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is armed.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Arms a timer that gives `value` out once `deadline` has come.
    ///
    /// # Panics
    ///
    /// When 2^31 timers are armed: the limits of a core keep far below.
    pub fn arm(&mut self, deadline: Instant, value: T) -> TimerId {
        if self.free_head == NONE {
            self.grow(value);
        }
        let index = self.free_head;
        let tick = tick_ceil(deadline).max(self.current);
        let node = self.node_mut(index);
        node.tick = tick;
        node.value = value;
        let generation = node.generation;
        self.free_head = node.next;
        self.append(index, tick);
        self.len += 1;
        TimerId { index, generation }
    }

    /// Disarms `timer` and gives its value back; `None` when it has expired or was cancelled before.
    pub fn cancel(&mut self, timer: TimerId) -> Option<T> {
        let (chunk, offset) = split(timer.index);
        let node = self.chunks.get(chunk)?.0[offset];
        if node.generation != timer.generation {
            return None;
        }
        self.unlink(&node);
        self.free(timer.index);
        Some(node.value)
    }

    /// The value of the next expired timer; to be called until it answers `None`. `now` must not go back.
    pub fn pop_expired(&mut self, now: Instant) -> Option<T> {
        let target = tick_floor(now);
        while let Some((level, tick)) = self.next_slot() {
            if tick > target {
                break;
            }
            self.current = tick;
            let digit = digit(tick, level);
            if level > 0 {
                self.cascade(level, digit);
                continue;
            }
            let index = self.levels[0].slots[digit].first;
            let node = *self.node(index);
            self.unlink(&node);
            self.free(index);
            return Some(node.value);
        }
        self.current = self.current.max(target);
        None
    }

    /// When [`Wheel::pop_expired`] has something to do next, at the earliest: the earliest deadline rounded up to its tick, or
    /// before that the instant when its slot moves down a level. `None` when no timer is armed.
    pub fn next_deadline(&self) -> Option<Instant> {
        let (_, tick) = self.next_slot()?;
        Some(Instant::from_unix_nanos(tick.saturating_mul(TICK_NANOS)))
    }

    /// The level of the occupied slot that comes first, and the tick that it begins with. Every slot of a level comes before
    /// those of the levels above.
    fn next_slot(&self) -> Option<(usize, u64)> {
        if self.len == 0 {
            return None;
        }
        self.levels.iter().enumerate().find_map(|(number, level)| {
            let digit = level.first_occupied(digit(self.current, number))?;
            let shift = LEVEL_BITS * number as u32;
            let above = self.current >> shift >> LEVEL_BITS << LEVEL_BITS;
            Some((number, (above | digit as u64) << shift))
        })
    }

    /// Moves the timers of a slot whose first tick is `current` to the levels below, in order.
    fn cascade(&mut self, level: usize, digit: usize) {
        let mut index = self.levels[level].take(level, digit).first;
        while index & SLOT_BIT == 0 {
            let Node { tick, next, .. } = *self.node(index);
            self.append(index, tick);
            index = next;
        }
    }

    /// Puts a node at the end of the slot of `tick`.
    fn append(&mut self, index: u32, tick: u64) {
        let differing = tick ^ self.current;
        let level = (u64::BITS - 1 - (differing | 1).leading_zeros()) / LEVEL_BITS;
        let level = level as usize;
        let digit = digit(tick, level);
        let slot = slot_link(level, digit);
        let last = std::mem::replace(&mut self.levels[level].slots[digit].last, index);
        if last == slot {
            self.levels[level].slots[digit].first = index;
            self.levels[level].occupied[digit / 64] |= 1 << (digit % 64);
        } else {
            self.node_mut(last).next = index;
        }
        let node = self.node_mut(index);
        node.next = slot;
        node.previous = last;
    }

    /// Takes `node` out of the list it stands in.
    fn unlink(&mut self, node: &Node<T>) {
        let Node { previous, next, .. } = *node;
        if previous & SLOT_BIT == 0 {
            self.node_mut(previous).next = next;
        } else {
            let (level, digit) = slot_of(previous);
            self.levels[level].slots[digit].first = next;
            if next == previous {
                self.levels[level].occupied[digit / 64] &= !(1 << (digit % 64));
            }
        }
        if next & SLOT_BIT == 0 {
            self.node_mut(next).previous = previous;
        } else {
            let (level, digit) = slot_of(next);
            self.levels[level].slots[digit].last = previous;
        }
    }

    /// Makes an unlinked node the next to be used, and its timer's id stale.
    fn free(&mut self, index: u32) {
        let after = self.free_head;
        let node = self.node_mut(index);
        node.generation = node.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        node.next = after;
        self.free_head = index;
        self.len -= 1;
    }

    /// Adds a chunk of free nodes, the lowest index at the head of the free list. `filler` stands in for their values.
    fn grow(&mut self, filler: T) {
        let number = self.chunks.len();
        assert!(number < SLOT_BIT as usize / CHUNK_ENTRIES, "a wheel holds fewer than 2^31 timers");
        let node = Node { tick: 0, value: filler, generation: NonZeroU32::MIN, next: NONE, previous: NONE };
        let mut nodes = Box::new(Nodes([node; CHUNK_ENTRIES]));
        for (offset, node) in nodes.0[..CHUNK_ENTRIES - 1].iter_mut().enumerate() {
            node.next = join(number, offset + 1);
        }
        self.chunks.push(nodes);
        self.free_head = join(number, 0);
    }

    fn node(&self, index: u32) -> &Node<T> {
        let (chunk, offset) = split(index);
        &self.chunks[chunk].0[offset]
    }

    fn node_mut(&mut self, index: u32) -> &mut Node<T> {
        let (chunk, offset) = split(index);
        &mut self.chunks[chunk].0[offset]
    }
}

impl Level {
    fn new(number: usize) -> Self {
        let slots = std::array::from_fn(|digit| Ends::empty(number, digit));
        Self { slots, occupied: [0; LEVEL_SLOTS / 64] }
    }

    /// The first occupied slot from `digit` on.
    fn first_occupied(&self, digit: usize) -> Option<usize> {
        let mut word = digit / 64;
        let mut bits = self.occupied[word] & (u64::MAX << (digit % 64));
        while bits == 0 {
            word += 1;
            bits = *self.occupied.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }

    /// Empties a slot.
    fn take(&mut self, number: usize, digit: usize) -> Ends {
        self.occupied[digit / 64] &= !(1 << (digit % 64));
        std::mem::replace(&mut self.slots[digit], Ends::empty(number, digit))
    }
}

impl Ends {
    fn empty(level: usize, digit: usize) -> Self {
        let slot = slot_link(level, digit);
        Self { first: slot, last: slot }
    }
}

/// The link that names a slot.
fn slot_link(level: usize, digit: usize) -> u32 {
    SLOT_BIT | (level << LEVEL_BITS | digit) as u32
}

/// The inverse of [`slot_link`]: level and digit.
fn slot_of(link: u32) -> (usize, usize) {
    let number = (link & !SLOT_BIT) as usize;
    (number >> LEVEL_BITS, number % LEVEL_SLOTS)
}

fn digit(tick: u64, level: usize) -> usize {
    (tick >> (LEVEL_BITS * level as u32)) as usize % LEVEL_SLOTS
}

/// The tick that `instant` lies in.
fn tick_floor(instant: Instant) -> u64 {
    instant.unix_nanos() / TICK_NANOS
}

/// The first tick that begins at `instant` or later.
fn tick_ceil(instant: Instant) -> u64 {
    instant.unix_nanos().div_ceil(TICK_NANOS)
}

#[cfg(test)]
mod tests;
