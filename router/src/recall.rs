//! What rooms said: shards with members that want it, and the owner that comes next.
//!
//! An answer takes the way of the room's broadcasts, all at once, so a shard knows which of them it has.
//! Answers and moves share a budget of bytes for each step, so a storm of them leaves the turn to messages.

use std::collections::VecDeque;

use shard::{Amount, Instant, ShardId, Shares};
use wire::client::Message;
use wire::node::{Owners, PART_BYTES, PART_MESSAGES_MAX};
use wire::{AppId, RoomId};

use crate::limits::{
    RECALL_BYTES, RECALL_BYTES_PER_STEP, RECALL_ENTRY_BYTES, RECALL_PAUSE, RECALLS_MAX, RECALLS_SHARD_MAX,
};

/// A shard wants what a room said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) from: ShardId,
    pub(crate) app: AppId,
    pub(crate) room: RoomId,
    pub(crate) ask: u32,
    pub(crate) since: u64,
    pub(crate) last: u32,
}

/// Who waits for what.
pub(crate) struct Recalls {
    me: ShardId,
    /// Those whose turn comes.
    queue: VecDeque<Asked>,
    /// Those whose room may hear of more from the owner before, by when they stop to wait for that.
    waiting: VecDeque<(Instant, Asked)>,
    /// What each shard has of both.
    of_shards: Shares<ShardId>,
    /// Histories that go to another owner, each by a shard that knows it.
    moving: VecDeque<(ShardId, AppId, RoomId)>,
    /// The end of this step, and what it has had so far.
    step_end: Instant,
    spent: usize,
    sweep_at: Instant,
    /// Those that all gateways are to go by.
    owners: Option<Owners>,
}

impl Recalls {
    pub(crate) fn new(me: ShardId, seed: u64) -> Self {
        Self {
            me,
            queue: VecDeque::new(),
            waiting: VecDeque::new(),
            of_shards: Shares::new(seed),
            moving: VecDeque::new(),
            step_end: Instant::default(),
            spent: 0,
            sweep_at: Instant::default(),
            owners: None,
        }
    }

    /// Shards that wait for an answer, once for each room.
    pub(crate) fn len(&self) -> u64 {
        self.of_shards.held().entries
    }

    pub(crate) fn set_owners(&mut self, routers: &[u32]) {
        self.owners = (!routers.is_empty()).then(|| Owners::new(routers.to_vec()));
    }

    /// Those that all gateways are to go by.
    pub(crate) fn owners(&self) -> Option<&Owners> {
        self.owners.as_ref()
    }

    /// The packed id of this router.
    pub(crate) fn me(&self) -> u32 {
        self.me.as_u32()
    }

    /// Whether another router is to own a room; unknown while there is none.
    pub(crate) fn is_of_another(&self, app: AppId, room: RoomId) -> Option<bool> {
        Some(self.owners.as_ref()?.of_room(app, room) != self.me.as_u32())
    }

    pub(crate) fn deadline(&self, sweeps: bool) -> Option<Instant> {
        let step = (!self.queue.is_empty() || !self.moving.is_empty()).then_some(self.step_end);
        let waiting = self.waiting.front().map(|(until, _)| *until);
        [step, waiting, sweeps.then_some(self.sweep_at)].into_iter().flatten().min()
    }

    /// When the rooms are looked at next that nobody is in.
    pub(crate) fn sweep_at(&mut self, at: Instant) {
        self.sweep_at = at;
    }

    pub(crate) fn is_sweep_due(&self, now: Instant) -> bool {
        now >= self.sweep_at
    }

    /// Whether this step has room for more.
    fn is_within(&mut self, now: Instant) -> bool {
        if now >= self.step_end {
            (self.step_end, self.spent) = (now + RECALL_PAUSE, 0);
        }
        self.spent < RECALL_BYTES_PER_STEP
    }

    /// Whether one may be answered at once.
    pub(crate) fn is_free(&mut self, now: Instant) -> bool {
        self.queue.is_empty() && self.is_within(now)
    }

    /// These messages leave in this step.
    pub(crate) fn spend(&mut self, messages: &[Message]) {
        self.spent += RECALL_BYTES + messages.iter().map(weight).sum::<usize>();
    }

    /// What a room said goes to its next owner, by a shard that knows that.
    pub(crate) fn move_by(&mut self, carrier: ShardId, app: AppId, room: RoomId) {
        self.moving.push_back((carrier, app, room));
    }

    /// The next history to move, if there is room for it in this step.
    pub(crate) fn next_move(&mut self, now: Instant) -> Option<(ShardId, AppId, RoomId)> {
        if self.is_within(now) { self.moving.pop_front() } else { None }
    }

    /// The next one whose turn has come, if there is room for it in this step. It keeps its place.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Asked> {
        if self.is_within(now) { self.queue.pop_front() } else { None }
    }

    /// One that has a place stands behind all others.
    pub(crate) fn line_up(&mut self, asked: Asked) {
        self.queue.push_back(asked);
    }

    /// One that has a place waits for more of its room, until then at most.
    pub(crate) fn wait(&mut self, until: Instant, asked: Asked) {
        let at = self.waiting.partition_point(|(other, _)| *other <= until);
        self.waiting.insert(at, (until, asked));
    }

    /// Those that have waited long enough have their turn.
    pub(crate) fn end_waits(&mut self, now: Instant) {
        while let Some((_, asked)) = self.waiting.pop_front_if(|(until, _)| *until <= now) {
            self.queue.push_back(asked);
        }
    }

    /// Those that wait for more of a room have their turn.
    pub(crate) fn wake(&mut self, app: AppId, room: RoomId) {
        let Self { waiting, queue, .. } = self;
        waiting.retain(|(_, asked)| {
            let waits = (asked.app, asked.room) != (app, room);
            if !waits {
                queue.push_back(*asked);
            }
            waits
        });
    }

    /// Forgets the questions of a shard that is gone. Its next life counts its own from the first again, and
    /// would take an answer for one of them.
    pub(crate) fn forget_shard(&mut self, shard: ShardId) {
        let Self { queue, waiting, of_shards, .. } = self;
        let mut stays = |asked: &Asked| {
            let is_of_another = asked.from != shard;
            if !is_of_another {
                of_shards.give_back(shard, 0);
            }
            is_of_another
        };
        queue.retain(|asked| stays(asked));
        waiting.retain(|(_, asked)| stays(asked));
    }

    /// Takes a place among those that wait; false when its shard has as many as it may, or all together.
    pub(crate) fn take_place(&mut self, from: ShardId) -> bool {
        let (total, share) = (Amount::of_entries(RECALLS_MAX), Amount::of_entries(RECALLS_SHARD_MAX));
        self.of_shards.take(from, 0, total, share)
    }

    /// One is answered.
    pub(crate) fn give_place_back(&mut self, from: ShardId) {
        self.of_shards.give_back(from, 0);
    }

    pub(crate) fn check_invariants(&self) {
        let waiting = self.waiting.iter().map(|(_, asked)| asked);
        self.of_shards.check_invariants(self.queue.iter().chain(waiting).map(|asked| (asked.from, 0)));
        assert!(self.waiting.iter().is_sorted_by_key(|(until, _)| *until));
    }
}

/// Messages in parts of a bounded size, in their order; one empty part for none.
pub(crate) fn in_parts(messages: Vec<Message>) -> Vec<Vec<Message>> {
    let (mut parts, mut bytes) = (vec![Vec::new()], 0);
    for message in messages {
        let part = parts.last_mut().expect("there is one at least");
        if part.len() >= PART_MESSAGES_MAX || bytes >= PART_BYTES {
            bytes = weight(&message);
            parts.push(vec![message]);
        } else {
            bytes += weight(&message);
            part.push(message);
        }
    }
    parts
}

fn weight(message: &Message) -> usize {
    RECALL_ENTRY_BYTES + message.client_msg_id.as_bytes().len() + message.payload.len()
}
