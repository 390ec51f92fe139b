//! The kept messages of rooms: who gets them, which go to the next owner, and which are forgotten
//! (`history.rs`, `recall.rs`).

use std::collections::BTreeSet;

use shard::{Instant, ShardId};
use wire::client::Message;
use wire::node::{Answer, Entry, Kept, Recalled, Stream, ToDirectory, ToGateway};
use wire::{AppId, RoomId};

use super::Router;
use crate::history::{Fate, Part};
use crate::limits::{MOVED_WAIT, STREAM_WAIT, SWEEP_PAUSE, SWEEP_PAUSE_LEAVING};
use crate::recall::{Asked, in_parts};
use crate::rooms::Left;
use crate::term::Term;

impl Router {
    /// A shard has members in a room and has seen its messages up to `seen`. `clock_ns` is the time of the
    /// clock that all nodes share.
    pub(super) fn join(
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
        let sequence = entered.sequence;
        if entered.has_begun {
            let kept_upto = self.histories.begin(app, room, sequence, seen, self.cluster.term());
            let awaits = seen > 0 || self.cluster.is_unsettled();
            let until = self.cluster.deadline().unwrap_or(now).max(now) + MOVED_WAIT;
            if let Some(known) = self.rooms.find_mut(app, room) {
                known.linked = kept_upto.unwrap_or_default();
                if awaits {
                    known.awaits_until = until;
                }
            }
        }
        if entered.has_begun && self.writes_streams {
            // Before the first message, so that the next owner knows of messages that are not written.
            self.begin_stream(app, room, Entry::Gap(sequence));
        }
        if entered.has_lost {
            let base = self.rooms.find(app, room).map_or(sequence, |known| known.base);
            self.histories.lose(app, room, base);
            if self.writes_streams {
                self.begin_stream(app, room, Entry::Lost(sequence));
            }
        } else if let Some((base, seen)) = entered.heard.filter(|_| self.writes_streams) {
            // Whoever reads the stream later is to find as much in it as this owner.
            self.keep_in_stream(app, room, Entry::Seen { at: sequence, base, seen });
        }
        self.outbox.gateway(from, ToGateway::Joined { app, room, sequence });
    }

    /// A shard has no members in a room any more.
    pub(super) fn leave_room(&mut self, now: Instant, (app, room): (AppId, RoomId), from: ShardId) {
        let left = self.rooms.leave(app, room, from);
        // Perhaps it goes to another owner, and others may follow, or have used that one for a while.
        let may_move = self.cluster.is_unsettled();
        if let Some(left) = left {
            let term = if may_move { Term::UNSURE } else { self.cluster.term() };
            self.room_left(app, room, left, term);
        }
        if may_move {
            self.rooms.set_era(app, room, self.cluster.era());
        }
        let is_of_another = self.recalls.is_of_another(app, room) == Some(true);
        if left.is_some() && is_of_another && self.histories.set_moving(app, room) {
            self.recalls.move_by(from, app, room);
            self.recall_step(now);
        }
    }

    /// A room has no members any more. Its messages are kept for those who come back.
    pub(super) fn room_left(&mut self, app: AppId, room: RoomId, left: Left, term: Term) {
        let sequence = left.sequence;
        if self.writes_streams && left.stream_life == Some(self.stream_life) {
            self.keep_in_stream(app, room, Entry::Whole(sequence));
        }
        self.histories.leave(app, room, sequence, term);
    }

    /// This owner writes the room's messages to its stream from here on. What was written before may be
    /// incomplete ([`Entry::Gap`]), or is ([`Entry::Lost`]).
    fn begin_stream(&mut self, app: AppId, room: RoomId, beginning: Entry) {
        let Some(known) = self.rooms.find_mut(app, room) else { return };
        known.stream_life = Some(self.stream_life);
        self.keep_in_stream(app, room, beginning);
    }

    /// The directory refused what this owner wrote to a room's stream: another owner began above it, because
    /// some gateways used that one. This owner begins again above the other, counts its own messages as lost,
    /// and has the stream tell its readers so.
    pub fn stream_is_ahead(&mut self, now: Instant, app: AppId, room: RoomId, refused: u64) {
        let clock_ns = self.clock_ns(now);
        if let Some(sequence) = self.rooms.begin_again(clock_ns, app, room, refused) {
            self.histories.lose(app, room, sequence);
            self.begin_stream(app, room, Entry::Lost(sequence));
        }
    }

    /// Adds an entry for a room's message to its stream.
    pub(super) fn write_stream(&mut self, app: AppId, room: RoomId, entry: Entry) {
        let stream_life = self.rooms.find(app, room).and_then(|known| known.stream_life);
        if stream_life != Some(self.stream_life) {
            self.begin_stream(app, room, Entry::Lost(entry.sequence() - 1));
        }
        self.keep_in_stream(app, room, entry);
    }

    fn keep_in_stream(&mut self, app: AppId, room: RoomId, entry: Entry) {
        self.outbox.directory(ToDirectory::Keep { app, room, entry: Box::new(entry) });
    }

    /// The directory sends a room's stream: see [`wire::node::ToDirectory::Read`].
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

    /// A shard wants kept messages of a room in which it has members.
    pub(super) fn recall(&mut self, now: Instant, asked: Asked) {
        let awaits = self.must_await(now, &asked);
        if awaits.is_none() && self.recalls.is_free(now) {
            return self.answer_recall(now, asked);
        }
        if !self.recalls.take_place(asked.from) {
            self.metrics.recalls_refused += 1;
            return;
        }
        match awaits {
            Some(until) => self.recalls.wait(until, asked),
            None => self.recalls.line_up(asked),
        }
    }

    /// Until when the owner before, or the directory (which is asked once), may still send messages that a
    /// shard wants.
    fn must_await(&mut self, now: Instant, asked: &Asked) -> Option<Instant> {
        let (app, room) = (asked.app, asked.room);
        let known = self.rooms.find_mut(app, room)?;
        let gone = self.histories.find(app, room).map_or(known.base, |ring| ring.gone());
        let lacks = asked.since < gone || asked.last > 0 && gone >= known.base;
        // If the ring begins elsewhere than the room, it has all that this owner wrote.
        let may_read = self.writes_streams && gone == known.base && !known.has_read;
        if lacks && may_read && now >= known.awaits_until {
            // Whether a stream is complete is known only when all gateways have said what their members have
            // seen.
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

    /// Sends answers and moves histories as far as there is room.
    pub(super) fn recall_step(&mut self, now: Instant) {
        self.recalls.end_waits(now);
        while let Some((to, app, room)) = self.recalls.next_move(now) {
            self.send_history(to, app, room);
        }
        while let Some(asked) = self.recalls.next(now) {
            if let Some(until) = self.must_await(now, &asked) {
                self.recalls.wait(until, asked);
                continue;
            }
            self.recalls.give_place_back(asked.from);
            self.answer_recall(now, asked);
        }
    }

    fn answer_recall(&mut self, now: Instant, asked: Asked) {
        let Asked { from, app, room, ask, since, last } = asked;
        let Some(known) = self.rooms.find(app, room).filter(|known| known.has(from)) else { return };
        let (sequence, base) = (known.sequence, known.base);
        let Part { gone, messages } = self.histories.recall(now, (app, room), since, last, base);
        self.metrics.recalls += 1;
        self.recalls.spend(&messages);
        let to = self.picked(room, from).unwrap_or(from);
        let (router, shard, total) = (self.recalls.me(), from.index(), messages.len() as u32);
        let mut before = 0;
        for messages in in_parts(messages) {
            let next = before + messages.len() as u32;
            let part = Recalled { router, app, room, ask, shard, sequence, gone, total, before, messages };
            self.outbox.gateway(to, ToGateway::Recalled(Box::new(part)));
            before = next;
        }
    }

    /// Sends a room's history to its next owner, through a shard that knows the owner, newest part first.
    fn send_history(&mut self, to: ShardId, app: AppId, room: RoomId) {
        let Some(ring) = self.histories.find(app, room) else { return };
        let Some(left_at) = ring.left_at else { return }; // somebody is in it again
        let (router, gone) = (self.recalls.me(), ring.gone());
        let is_sure = ring.term.losses == self.cluster.term().losses;
        // Messages below a hole are of no use there.
        let messages: Vec<Message> = ring.messages().filter(|kept| kept.sequence > gone).cloned().collect();
        self.recalls.spend(&messages);
        let mut parts: Vec<Vec<Message>> = in_parts(messages);
        let mut upto = left_at;
        let mut is_first = true;
        while let Some(messages) = parts.pop() {
            let before = parts.last().and_then(|part| part.last()).map_or(gone, |last| last.sequence);
            let part = Kept { router, app, room, gone: before, upto, is_first, is_sure, messages };
            self.outbox.gateway(to, ToGateway::Moved(Box::new(part)));
            self.metrics.history_moved += 1;
            (upto, is_first) = (before, false);
        }
        self.histories.drop_room(app, room);
    }

    /// The owner before sends what it kept of a room.
    pub(super) fn take_in(&mut self, now: Instant, part: &Kept) {
        let (app, room, term) = (part.app, part.room, self.cluster.term());
        let known = self.rooms.find(app, room).map(|known| (known.base, known.seen));
        let (base, seen) = (known.map(|(base, _)| base), known.map_or(0, |(_, seen)| seen));
        if known.is_none() {
            self.rooms.begin_above(now, part.upto);
        }
        if !self.histories.take_in(now, part, base, seen, term) {
            return;
        }
        self.metrics.history_taken += 1;
        if let Some(known) = self.rooms.find_mut(app, room).filter(|_| part.is_first) {
            known.linked = part.upto;
        }
        self.wake_recalls(now, app, room);
    }

    /// Answers those that wait for a room's messages.
    fn wake_recalls(&mut self, now: Instant, app: AppId, room: RoomId) {
        self.recalls.wake(app, room);
        self.recall_step(now);
    }

    /// Gateways agree: the messages of empty rooms stay here, or move.
    pub(super) fn sweep_now(&mut self, now: Instant) {
        self.recalls.sweep_at(now);
        self.sweep_step(now);
    }

    /// Looks at some empty rooms: their messages are forgotten in time, or move to another owner.
    pub(super) fn sweep_step(&mut self, now: Instant) {
        if !self.recalls.is_sweep_due(now) || self.histories.is_empty() {
            return;
        }
        let is_leaving = self.cluster.is_leaving();
        self.recalls.sweep_at(now + if is_leaving { SWEEP_PAUSE_LEAVING } else { SWEEP_PAUSE });
        let (cluster, recalls) = (&self.cluster, &self.recalls);
        let agrees = recalls.owners().is_some_and(|owners| cluster.go_by(owners));
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
            moves.into_iter().for_each(|(app, room)| self.recalls.move_by(carrier, app, room));
        }
        self.recall_step(now);
    }

    /// Whether nothing is left to move to the next owners.
    pub(super) fn has_moved(&self) -> bool {
        self.histories.is_empty()
    }

    /// Answers an operator.
    pub(super) fn history(&mut self, now: Instant, app: AppId, room: RoomId, last: u32) -> Answer {
        let Part { mut messages, .. } = self.histories.recall(now, (app, room), u64::MAX, last, 0);
        let mut known = BTreeSet::new();
        messages.retain(|message| known.insert(message.id));
        let more = messages.len().saturating_sub(last as usize);
        messages.drain(..more);
        Answer::History { messages }
    }
}
