//! What rooms said: shards with members that want it, and the owner that comes next.
//!
//! An answer takes the way of the room's broadcasts, all at once, so a shard knows which of them it has.
//! Answers and moves share a budget of bytes for each step, so a storm of them leaves the turn to messages.

use std::collections::VecDeque;

use shard::{Amount, Instant, ShardId, Shares};
use wire::client::Message;
use wire::node::{
    Answer, Entry, Kept, Owners, PART_BYTES, PART_MESSAGES_MAX, Recalled, Stream, ToDirectory, ToGateway,
};
use wire::{AppId, RoomId};

use crate::history::{Fate, Part};
use crate::limits::{
    ENTRY_BYTES, MOVED_WAIT, RECALL_BYTES, RECALL_BYTES_PER_STEP, RECALL_PAUSE, RECALLS_MAX,
    RECALLS_SHARD_MAX, STREAM_WAIT, SWEEP_PAUSE, SWEEP_PAUSE_LEAVING,
};
use crate::rooms::Left;
use crate::router::Router;
use crate::term::Term;

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

    /// Whether another router is to own a room; unknown while there is none.
    fn is_of_another(&self, app: AppId, room: RoomId) -> Option<bool> {
        Some(self.owners.as_ref()?.of_room(app, room) != self.me.as_u32())
    }

    pub(crate) fn deadline(&self, sweeps: bool) -> Option<Instant> {
        let step = (!self.queue.is_empty() || !self.moving.is_empty()).then_some(self.step_end);
        let waiting = self.waiting.front().map(|(until, _)| *until);
        [step, waiting, sweeps.then_some(self.sweep_at)].into_iter().flatten().min()
    }

    fn is_within(&mut self, now: Instant) -> bool {
        if now >= self.step_end {
            (self.step_end, self.spent) = (now + RECALL_PAUSE, 0);
        }
        self.spent < RECALL_BYTES_PER_STEP
    }

    fn wait(&mut self, until: Instant, asked: Asked) {
        let at = self.waiting.partition_point(|(other, _)| *other <= until);
        self.waiting.insert(at, (until, asked));
    }

    fn take_place(&mut self, from: ShardId) -> bool {
        let (total, share) = (Amount::of_entries(RECALLS_MAX), Amount::of_entries(RECALLS_SHARD_MAX));
        self.of_shards.take(from, 0, total, share)
    }

    pub(crate) fn check_invariants(&self) {
        let waiting = self.waiting.iter().map(|(_, asked)| asked);
        self.of_shards.check_invariants(self.queue.iter().chain(waiting).map(|asked| (asked.from, 0)));
        assert!(self.waiting.iter().is_sorted_by_key(|(until, _)| *until));
    }
}

impl Router {
    /// A shard has members in a room, of whose messages it has seen those up to `seen`. `clock_ns` is what
    /// the clock shows that all nodes share.
    pub(crate) fn join(
        &mut self,
        now: Instant,
        clock_ns: u64,
        (app, room): (AppId, RoomId),
        from: ShardId,
        seen: u64,
    ) {
        let era = self.cluster.era();
        let Some(entered) = self.rooms.join(clock_ns, (app, room), from, seen, era) else {
            self.metrics.joins_refused += 1;
            return self.outbox.gateway(from, ToGateway::Full { app, room });
        };
        let mut sequence = entered.sequence;
        if entered.has_begun {
            self.histories.begin(app, room, sequence, seen, self.cluster.term());
            if seen > 0 || self.cluster.is_unsettled() {
                let until = self.cluster.deadline().unwrap_or(now).max(now) + MOVED_WAIT;
                if let Some(known) = self.rooms.find_mut(app, room) {
                    known.awaits_until = until;
                }
            }
        }
        if entered.has_begun && self.writes_streams {
            // Before it says anything: of what it does not come to write the next one knows.
            self.begin_stream(app, room, sequence);
        }
        if entered.has_lost {
            let base = self.rooms.find(app, room).map_or(sequence, |known| known.base);
            self.histories.lose(app, room, base);
            if self.writes_streams {
                sequence += 1; // a place of its own, above whatever says that nothing is missing
                self.begin_stream(app, room, sequence);
            }
        }
        self.outbox.gateway(from, ToGateway::Joined { app, room, sequence });
    }

    /// A shard has no members in a room any more.
    pub(crate) fn leave_room(&mut self, now: Instant, (app, room): (AppId, RoomId), from: ShardId) {
        let left = self.rooms.leave(app, room, from);
        if let Some(left) = left {
            self.room_left(app, room, left, self.cluster.term());
        }
        // Maybe to another owner, and others may follow.
        if self.cluster.is_unsettled() {
            self.rooms.set_era(app, room, self.cluster.era());
        }
        let is_of_another = self.recalls.is_of_another(app, room) == Some(true);
        if left.is_some() && is_of_another && self.histories.set_moving(app, room) {
            self.recalls.moving.push_back((from, app, room));
            self.recall_step(now);
        }
    }

    /// A room has no members any more. What it said is kept for those who come back.
    pub(crate) fn room_left(&mut self, app: AppId, room: RoomId, left: Left, term: Term) {
        let sequence = left.sequence;
        if self.writes_streams && left.stream_life == Some(self.stream_life) {
            self.keep_in_stream(app, room, Entry::Whole(sequence));
        }
        self.histories.leave(app, room, sequence, term);
    }

    /// This owner writes what a room says after `sequence` to its stream. What other owners have written
    /// before is not known to be all.
    fn begin_stream(&mut self, app: AppId, room: RoomId, sequence: u64) {
        let Some(known) = self.rooms.find_mut(app, room) else { return };
        (known.sequence, known.stream_life) = (known.sequence.max(sequence), Some(self.stream_life));
        self.keep_in_stream(app, room, Entry::Gap(sequence));
    }

    /// Adds to the stream of a room what it has said.
    pub(crate) fn write_stream(&mut self, app: AppId, room: RoomId, entry: Entry) {
        let stream_life = self.rooms.find(app, room).and_then(|known| known.stream_life);
        if stream_life != Some(self.stream_life) {
            self.begin_stream(app, room, entry.sequence() - 1);
        }
        self.keep_in_stream(app, room, entry);
    }

    fn keep_in_stream(&mut self, app: AppId, room: RoomId, entry: Entry) {
        self.outbox.directory(ToDirectory::Keep { app, room, entry: Box::new(entry) });
    }

    /// The directory has this of a room: see [`wire::node::ToDirectory::Read`].
    pub fn take_stream(&mut self, now: Instant, stream: Stream) {
        let (app, room) = (stream.app, stream.room);
        let Some(known) = self.rooms.find_mut(app, room).filter(|known| known.has_read) else { return };
        known.awaits_until = now;
        let (base, seen) = (known.base, known.seen);
        let is_settled = !self.cluster.is_unsettled();
        let whole_upto = self.histories.take_stream(now, stream, base, seen, is_settled);
        if let (Some(upto), Some(known)) = (whole_upto, self.rooms.find_mut(app, room)) {
            known.linked = upto;
            self.keep_in_stream(app, room, Entry::NoGap(base)); // too late if it has said something since
        }
        self.metrics.streams_read += 1;
        self.wake_recalls(now, app, room);
    }

    /// A shard wants what a room said, in which it has members.
    pub(crate) fn recall(&mut self, now: Instant, asked: Asked) {
        let awaits = self.must_await(now, &asked);
        if awaits.is_none() && self.recalls.queue.is_empty() && self.recalls.is_within(now) {
            return self.answer_recall(now, asked);
        }
        if !self.recalls.take_place(asked.from) {
            self.metrics.recalls_refused += 1;
            return;
        }
        match awaits {
            Some(until) => self.recalls.wait(until, asked),
            None => self.recalls.queue.push_back(asked),
        }
    }

    /// Until when what a shard wants may still come from the owner before, if it may.
    /// or from the directory, which is then asked, once.
    fn must_await(&mut self, now: Instant, asked: &Asked) -> Option<Instant> {
        let (app, room) = (asked.app, asked.room);
        let known = self.rooms.find_mut(app, room)?;
        let gone = self.histories.find(app, room).map_or(known.base, |ring| ring.gone());
        let lacks = asked.since < gone || asked.last > 0 && gone >= known.base;
        // It wrote nothing that is not here, if the ring begins where the room does not.
        let may_read = self.writes_streams && gone == known.base && !known.has_read;
        if lacks && may_read && now >= known.awaits_until {
            // Only when all gateways have said what their members have seen can one tell whether a stream has
            // all.
            match self.cluster.deadline().filter(|_| self.cluster.is_unsettled()) {
                Some(settled) => known.awaits_until = settled,
                None => {
                    known.has_read = true;
                    known.awaits_until = now + STREAM_WAIT;
                    self.outbox.directory(ToDirectory::Read { app, room });
                }
            }
        }
        (lacks && now < known.awaits_until).then_some(known.awaits_until)
    }

    /// Answers and moves as much as there is room for.
    pub(crate) fn recall_step(&mut self, now: Instant) {
        while let Some((_, asked)) = self.recalls.waiting.pop_front_if(|(until, _)| *until <= now) {
            self.recalls.queue.push_back(asked);
        }
        while self.recalls.is_within(now)
            && let Some((to, app, room)) = self.recalls.moving.pop_front()
        {
            self.send_history(to, app, room);
        }
        while self.recalls.is_within(now)
            && let Some(asked) = self.recalls.queue.pop_front()
        {
            if let Some(until) = self.must_await(now, &asked) {
                self.recalls.wait(until, asked);
                continue;
            }
            self.recalls.of_shards.give_back(asked.from, 0);
            self.answer_recall(now, asked);
        }
    }

    fn answer_recall(&mut self, now: Instant, asked: Asked) {
        let Asked { from, app, room, ask, since, last } = asked;
        let Some(known) = self.rooms.find(app, room).filter(|known| known.has(from)) else { return };
        let (sequence, base) = (known.sequence, known.base);
        let Part { gone, messages } = self.histories.recall(now, (app, room), since, last, base);
        self.metrics.recalls += 1;
        self.recalls.spent += RECALL_BYTES + messages.iter().map(weight).sum::<usize>();
        let to = self.picked(room, from).unwrap_or(from);
        let (router, shard, total) = (self.recalls.me.as_u32(), from.index(), messages.len() as u32);
        let mut before = 0;
        for messages in in_parts(messages) {
            let next = before + messages.len() as u32;
            let part = Recalled { router, app, room, ask, shard, sequence, gone, total, before, messages };
            self.outbox.gateway(to, ToGateway::Recalled(Box::new(part)));
            before = next;
        }
    }

    /// Sends what is kept of a room to its next owner, by a shard that knows that: the newest first.
    fn send_history(&mut self, to: ShardId, app: AppId, room: RoomId) {
        let Some(ring) = self.histories.find(app, room) else { return };
        let Some(left_at) = ring.left_at else { return }; // somebody is in it again
        let (router, gone) = (self.recalls.me.as_u32(), ring.gone());
        // What lies below a hole is of no use there.
        let messages: Vec<Message> = ring.messages().filter(|kept| kept.sequence > gone).cloned().collect();
        self.recalls.spent += RECALL_BYTES + messages.iter().map(weight).sum::<usize>();
        let mut parts: Vec<Vec<Message>> = in_parts(messages);
        let mut upto = left_at;
        let mut is_first = true;
        while let Some(messages) = parts.pop() {
            let before = parts.last().and_then(|part| part.last()).map_or(gone, |last| last.sequence);
            let part = Kept { router, app, room, gone: before, upto, is_first, messages };
            self.outbox.gateway(to, ToGateway::Moved(Box::new(part)));
            self.metrics.history_moved += 1;
            (upto, is_first) = (before, false);
        }
        self.histories.drop_room(app, room);
    }

    /// The owner before has kept this of a room.
    pub(crate) fn take_in(&mut self, now: Instant, part: &Kept) {
        let (app, room, term) = (part.app, part.room, self.cluster.term());
        let known = self.rooms.find(app, room).map(|known| (known.base, known.seen));
        let (base, seen) = (known.map(|(base, _)| base), known.map_or(0, |(_, seen)| seen));
        if !self.histories.take_in(now, part, base, seen, term) {
            return;
        }
        self.metrics.history_taken += 1;
        match self.rooms.find_mut(app, room) {
            Some(known) if part.is_first => known.linked = part.upto,
            Some(_) => {}
            None => self.rooms.begin_above(now, part.upto),
        }
        self.wake_recalls(now, app, room);
    }

    /// Answers those that wait for what a room said.
    fn wake_recalls(&mut self, now: Instant, app: AppId, room: RoomId) {
        let Recalls { waiting, queue, .. } = &mut self.recalls;
        waiting.retain(|(_, asked)| {
            let waits = (asked.app, asked.room) != (app, room);
            if !waits {
                queue.push_back(*asked);
            }
            waits
        });
        self.recall_step(now);
    }

    /// Gateways agree: what rooms said that nobody is in stays here, or goes.
    pub(crate) fn sweep_now(&mut self, now: Instant) {
        self.recalls.sweep_at = now;
        self.sweep_step(now);
    }

    /// Looks at some rooms that nobody is in: what they said is forgotten in time, or goes to another owner.
    pub(crate) fn sweep_step(&mut self, now: Instant) {
        if now < self.recalls.sweep_at || self.histories.is_empty() {
            return;
        }
        let is_leaving = self.cluster.is_leaving();
        self.recalls.sweep_at = now + if is_leaving { SWEEP_PAUSE_LEAVING } else { SWEEP_PAUSE };
        let (cluster, recalls) = (&self.cluster, &self.recalls);
        let agrees = recalls.owners.as_ref().is_some_and(|owners| cluster.go_by(owners));
        let is_settled = agrees && !cluster.is_unsettled();
        let carrier = cluster.shards().next();
        let moves = self.histories.sweep(now, |ring| match recalls.is_of_another(ring.app, ring.room) {
            None if is_leaving => Fate::Goes,
            _ if carrier.is_none() && is_leaving => Fate::Goes,
            Some(true) if is_settled => Fate::Moves,
            Some(false) if is_settled => Fate::Stays { term: cluster.term() },
            Some(_) | None => Fate::Waits,
        });
        if let Some(carrier) = carrier {
            self.recalls.moving.extend(moves.into_iter().map(|(app, room)| (carrier, app, room)));
        }
        self.recall_step(now);
    }

    /// Whether nothing is left that the next owners are to have.
    pub(crate) fn has_moved(&self) -> bool {
        self.histories.is_empty()
    }

    /// Answers an operator.
    pub(crate) fn history(&mut self, now: Instant, app: AppId, room: RoomId, last: u32) -> Answer {
        let Part { messages, .. } = self.histories.recall(now, (app, room), u64::MAX, last, 0);
        Answer::History { messages }
    }
}

/// Messages in parts of a bounded size, in their order; one empty part for none.
fn in_parts(messages: Vec<Message>) -> Vec<Vec<Message>> {
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
    ENTRY_BYTES + message.client_msg_id.as_bytes().len() + message.payload.len()
}
