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
/// Enough that every instant has its slot: there is no range beyond which a timer would wait apart.
const LEVELS: usize = (u64::BITS - TICK_BITS + 1).div_ceil(LEVEL_BITS) as usize;

/// Links with this bit name a slot, the others a node.
const SLOT_BIT: u32 = 1 << 31;
/// The end of the free list.
const NONE: u32 = u32::MAX;

/// Names an armed timer of a [`Wheel`]. It goes stale when the timer expires or is cancelled (until a
/// generation of 32 bits has wrapped).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimerId {
    index: u32,
    generation: NonZeroU32,
}

/// A hierarchical timing wheel: scheme 7 of Varghese and Lauck, "Hashed and Hierarchical Timing Wheels"
/// (1987). Arming, cancelling and expiring take constant time (a timer moves down at most once a level), and
/// nothing is allocated unless more timers are armed than ever before.
///
/// - A timer never expires early. Its deadline is rounded up to a tick of 2^20 ns; it is given out by the
///   first [`Wheel::pop_expired`] from then on.
/// - Expired timers come in the order of their ticks. Those of one tick come in an order that the same calls
///   repeat, mostly that of arming.
/// - The wheel stands at the tick of the timer it gave out last, or of the last `now` when it had none left;
///   a deadline before that counts as that.
///
/// Time jumps cost no more than the timers they expire: bitmaps tell which slots hold any.
pub struct Wheel<T> {
    /// Where the wheel stands: no timer has an earlier tick, and those of this very tick are on level 0.
    current: u64,
    /// Which slots hold timers, a bit each: `occupied` of level `l` at `digit / 64`.
    occupied: [[u64; LEVEL_SLOTS / 64]; LEVELS],
    /// A slot of level `l` holds the timers of 256^l ticks that differ in the lower `l` bytes only, and
    /// stands at the place that byte `l` tells. A timer is on the lowest level on which its slot lies less
    /// than a turn ahead of the slot of `current`; so the timers of a minute from now never wait in one slot
    /// together, wherever `current` stands.
    slots: Box<[[Ends; LEVEL_SLOTS]; LEVELS]>,
    chunks: Vec<Box<Nodes<T>>>,
    free_head: u32,
    len: usize,
}

/// The list in a slot; both name the slot itself when the list is empty.
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
            occupied: [[0; LEVEL_SLOTS / 64]; LEVELS],
            slots: Box::new(std::array::from_fn(|level| {
                std::array::from_fn(|digit| Ends::empty(level, digit))
            })),
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
        if target < self.current {
            return None;
        }
        loop {
            let index = self.slots[0][digit(self.current, 0)].first;
            if index & SLOT_BIT == 0 {
                let node = *self.node(index);
                self.unlink(&node);
                self.free(index);
                return Some(node.value);
            }
            match self.next_slot() {
                Some((level, tick)) if tick <= target => {
                    self.current = tick;
                    self.cascade(level);
                }
                _ => {
                    self.current = target;
                    return None;
                }
            }
        }
    }

    /// When [`Wheel::pop_expired`] has something to do next, at the earliest: the earliest deadline rounded
    /// up to its tick, or before that the instant when its slot moves down a level. `None` when no timer is
    /// armed.
    pub fn next_deadline(&self) -> Option<Instant> {
        let (_, tick) = self.next_slot()?;
        Some(Instant::from_unix_nanos(tick.saturating_mul(TICK_NANOS)))
    }

    /// The occupied slot that begins first, as its level and first tick. Of several the highest: its timers
    /// were armed first.
    fn next_slot(&self) -> Option<(usize, u64)> {
        let firsts = self.occupied.iter().enumerate().filter_map(|(level, bits)| {
            let shift = LEVEL_BITS * level as u32;
            let slot = self.current >> shift;
            let ahead = first_from(bits, slot as usize % LEVEL_SLOTS)?;
            Some((level, (slot + ahead as u64) << shift))
        });
        firsts.reduce(|first, other| if other.1 <= first.1 { other } else { first })
    }

    /// Moves the timers of the slot that begins at `current` to the levels below, in order. On level 0 they
    /// stay: they are due.
    fn cascade(&mut self, level: usize) {
        if level == 0 {
            return;
        }
        let digit = digit(self.current, level);
        self.occupied[level][digit / 64] &= !(1 << (digit % 64));
        let ends = std::mem::replace(&mut self.slots[level][digit], Ends::empty(level, digit));
        let mut index = ends.first;
        while index & SLOT_BIT == 0 {
            let Node { tick, next, .. } = *self.node(index);
            self.append(index, tick);
            index = next;
        }
    }

    /// Puts a node at the end of the slot of `tick`.
    fn append(&mut self, index: u32, tick: u64) {
        let level = self.level(tick);
        let digit = digit(tick, level);
        let slot = slot_link(level, digit);
        let last = std::mem::replace(&mut self.slots[level][digit].last, index);
        if last == slot {
            self.slots[level][digit].first = index;
            self.occupied[level][digit / 64] |= 1 << (digit % 64);
        } else {
            self.node_mut(last).next = index;
        }
        let node = self.node_mut(index);
        node.next = slot;
        node.previous = last;
    }

    /// The lowest level on which the slot of `tick` lies less than a turn ahead: that of the highest byte of
    /// the distance, or the one above when the distance in slots, each end rounded down, comes to a whole
    /// turn.
    fn level(&self, tick: u64) -> usize {
        let distance = tick - self.current;
        let level = (u64::BITS - 1 - (distance | 1).leading_zeros()) / LEVEL_BITS;
        let shift = LEVEL_BITS * level;
        let slots_ahead = (tick >> shift) - (self.current >> shift);
        level as usize + usize::from(slots_ahead == LEVEL_SLOTS as u64)
    }

    /// Takes `node` out of the list it stands in.
    fn unlink(&mut self, node: &Node<T>) {
        let Node { previous, next, .. } = *node;
        if previous & SLOT_BIT == 0 {
            self.node_mut(previous).next = next;
        } else {
            let (level, digit) = slot_of(previous);
            self.slots[level][digit].first = next;
            if next == previous {
                self.occupied[level][digit / 64] &= !(1 << (digit % 64));
            }
        }
        if next & SLOT_BIT == 0 {
            self.node_mut(next).previous = previous;
        } else {
            let (level, digit) = slot_of(next);
            self.slots[level][digit].last = previous;
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

    /// Adds a chunk of free nodes, the lowest index at the head of the free list. `filler` stands in for
    /// their values.
    ///
    /// Kept out of `arm`, which would touch stack pages for the whole chunk on every call.
    #[cold]
    #[inline(never)]
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

/// How many slots after `digit` the first occupied one stands, going round.
fn first_from(occupied: &[u64; LEVEL_SLOTS / 64], digit: usize) -> Option<usize> {
    let (word, bit) = (digit / 64, digit % 64);
    let ahead = occupied[word] >> bit;
    if ahead != 0 {
        return Some(ahead.trailing_zeros() as usize);
    }
    // The last round comes back to the bits of the first word that stand below `digit`.
    (1..=occupied.len()).find_map(|step| {
        let bits = occupied[(word + step) % occupied.len()];
        (bits != 0).then(|| 64 * step - bit + bits.trailing_zeros() as usize)
    })
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
