//! Members that want what their room said before they joined, or while they were away.
//!
//! The room's owner is asked once for all of them, and answers on the way of the room's broadcasts. So what
//! comes before the answer is not newer than it, and what comes after it is: a member that waits is passed
//! over by broadcasts, gets the answer's messages, and goes on with the next broadcast. Nothing is buffered
//! for it.

use bytes::Bytes;
use shard::{ConnId, Instant, ShardId};
use wire::client::{Code, NoticeCode, Recovery, ServerFrame, Want};
use wire::node::{Kept, Recalled, ToGateway, ToRouter, sequence_believed_max};
use wire::{AppId, RoomId};

use super::Gateway;
use crate::dirty::Dirt;
use crate::encoded::Answer;
use crate::limits::{CONTROL_BYTES_MIN, RECALL_RETRY};
use crate::outbox::Owed;
use crate::recall::Question;
use crate::session::Session;
use crate::timer::Timer;

impl Gateway {
    /// A member wants what its room said. It hears of it, and of nothing else of that room until then.
    pub(super) fn want(&mut self, now: Instant, conn: ConnId, (app, room): (AppId, RoomId), want: Want) {
        let Some(known) = self.rooms.find(app, room) else { return };
        if known.recall.get_or_insert_default().enter(conn, want) {
            self.ask_recall(now, app, room);
        }
    }

    /// Asks the owner of a room for what its members wait for, if there are any.
    fn ask_recall(&mut self, now: Instant, app: AppId, room: RoomId) {
        let ask = self.rooms.next_ask();
        let owner = self.view.owner_of_room(app, room);
        let Some(key) = self.rooms.key(app, room) else { return };
        let known = self.rooms.get_mut(key);
        let Some(recall) = &mut known.recall else { return };
        if let Some(timer) = recall.timer.take() {
            self.wheel.cancel(timer);
        }
        let Some(Question { since, last, .. }) = recall.ask(now, ask) else {
            known.recall = None;
            return;
        };
        let timer = Timer::Recall { index: key.index };
        recall.timer = Some(self.wheel.arm(now + RECALL_RETRY, timer.pack()));
        if let Some(owner) = owner {
            self.tell_router(owner, ToRouter::Recall { app, room, ask, since, last });
        }
    }

    /// Members have left: nobody waits for some answers any more.
    pub(super) fn forget_recalls(&mut self) {
        while let Some(timer) = self.rooms.unneeded.pop() {
            self.wheel.cancel(timer);
        }
    }

    /// A room has another owner, which has just been told that it has members here.
    pub(super) fn recall_of_next_owner(&mut self, now: Instant, app: AppId, room: RoomId) {
        self.ask_recall(now, app, room);
    }

    /// The question of the room at `index` may have had no answer: a shard on its way has gone, or a link was
    /// full.
    pub(super) fn recall_timeout(&mut self, now: Instant, index: u32) {
        let Some(key) = self.rooms.key_at(index) else { return };
        let known = self.rooms.get_mut(key);
        let (app, room) = (known.app, known.id);
        if known.recall.as_ref().is_some_and(|recall| recall.is_unanswered(now)) {
            self.metrics.recalls_repeated += 1;
            self.ask_recall(now, app, room);
        }
    }

    /// A part of an owner's answer, for this shard or a sibling.
    pub(super) fn recalled(&mut self, now: Instant, part: Recalled) {
        if part.shard != self.id.index() {
            let to = ShardId::new(self.id.node(), part.shard);
            return self.effects.sibling(to, ToGateway::Recalled(Box::new(part)));
        }
        let (app, room, owner) = (part.app, part.room, ShardId::from_u32(part.router));
        if self.view.owner_of_room(app, room) != Some(owner) {
            return;
        }
        let Some(recall) = self.rooms.find(app, room).and_then(|known| known.recall.as_mut()) else { return };
        if recall.take_in(part.ask, part.before, part.total, part.messages) {
            let sequence = part.sequence.min(sequence_believed_max(now.unix_nanos()));
            self.recover(now, owner, (app, room), sequence, part.gone);
        }
    }

    /// The answer is whole: members go on from `sequence`. Not all messages up to `gone` are in it.
    fn recover(
        &mut self,
        now: Instant,
        owner: ShardId,
        (app, room): (AppId, RoomId),
        sequence: u64,
        gone: u64,
    ) {
        // The owner's answer to the join went another way; this one is newer.
        self.joined(now, owner, app, room, sequence);
        self.fan_out_before(now, app, room);
        let Some(known) = self.rooms.find(app, room) else { return };
        let (known_sequence, Some(recall)) = (known.sequence, &mut known.recall) else { return };
        let is_behind = sequence < known_sequence;
        if is_behind && recall.is_first_behind() {
            // Perhaps a newer broadcast came another way.
            self.metrics.recalls_repeated += 1;
            return self.ask_recall(now, app, room);
        }
        let (mut messages, members) = recall.take_answer();
        known.sequence = sequence.max(known_sequence);
        let (mut sequence, mut gone) = (sequence, gone);
        if is_behind {
            // The owner counts from below what one before it gave: nothing of it could be told in order.
            (sequence, gone) = (known_sequence, u64::MAX);
            messages.clear();
        }
        let mut answer = Answer::new(messages, sequence, gone, self.config.limits.frame_bytes_max);
        for (conn, want) in members {
            self.give_history(now, conn, room, want, &mut answer);
        }
        self.ask_recall(now, app, room);
    }

    /// Tells a member that it is in, and what it has missed.
    fn give_history(&mut self, now: Instant, conn: ConnId, room: RoomId, want: Want, answer: &mut Answer) {
        let (mut recovery, from) = answer.for_member(want);
        let Some(session) = self.sessions.get(conn).filter(|session| session.is_logged_in()) else { return };
        let bytes = answer.frames(session.answer_encoding()).bytes_from(from);
        let has_room = self.has_room(session, bytes);
        self.told.count(now, (session.app, session.user), bytes);
        if !has_room {
            recovery = Recovery::TooOld;
        }
        match recovery {
            Recovery::Complete => self.metrics.recoveries_complete += 1,
            Recovery::TooOld => self.metrics.recoveries_too_old += 1,
        }
        self.say_in_order(
            conn,
            &ServerFrame::Joined { room, sequence: answer.sequence(), recovery: Some(recovery) },
        );
        let mut at = from;
        while at < answer.messages().len() {
            let repeat = answer.repeat_from(at).filter(|_| matches!(want, Want::Last(_)));
            if repeat == Some(at) {
                at += 1;
                continue;
            }
            let Some(session) = self.sessions.get(conn).filter(|session| session.is_logged_in()) else {
                return;
            };
            let frames = answer.frames(session.answer_encoding());
            if answer.messages()[at].ack_wanted {
                let (id, frame) = (answer.messages()[at].id, frames.slice(at, at + 1));
                if !frame.is_empty() {
                    self.queue_reliable(now, conn, id, frame, Owed::Nobody);
                }
                at += 1;
            } else {
                let end = frames.end_of_run(answer.messages(), at).min(repeat.unwrap_or(usize::MAX));
                let frames = frames.slice(at, end);
                match (frames.is_empty(), has_room) {
                    (true, _) => {}
                    (false, true) => self.queue_kept(conn, frames, (end - at) as u32),
                    (false, false) => self.queue_lossy(conn, frames, (end - at) as u32, None),
                }
                at = end;
            }
        }
    }

    /// Whether a member's outbox takes so many bytes of what its room keeps. Then none of them is dropped.
    fn has_room(&self, session: &Session, bytes: usize) -> bool {
        let limits = &self.config.limits;
        let waiting = self.outboxes.answer_bytes(session.outbox);
        let share = self.outboxes.share(limits, session.outbox, session.address);
        // The other half is for the answers themselves, which close a connection that has no room for them.
        waiting + bytes <= share.min(limits.answers_bytes_max() / 2)
    }

    /// Queues the frames of so many lossy messages that a room keeps. They have room: see
    /// [`Gateway::has_room`].
    fn queue_kept(&mut self, conn: ConnId, frames: Bytes, messages: u32) {
        let Self { sessions, outboxes, dirty, metrics, .. } = self;
        let Some(session) = sessions.get_mut(conn) else { return };
        outboxes.update(session.owner(conn), &mut session.outbox, |outbox| {
            outbox.push_in_order(frames, usize::MAX)
        });
        metrics.deliveries_lossy += u64::from(messages);
        metrics.count_out(Code::Business, u64::from(messages));
        dirty.mark(&mut session.output, conn, Dirt::Lossy);
    }

    /// Queues an answer about a room: none overtakes another.
    pub(super) fn say_of_room(&mut self, conn: ConnId, frame: &ServerFrame<'_>) {
        let outbox = self.sessions.get(conn).and_then(|session| self.outboxes.get_mut(session.outbox));
        if outbox.is_some_and(|outbox| outbox.has_answers_in_order()) {
            self.say_in_order(conn, frame);
        } else {
            self.say(conn, frame);
        }
    }

    /// Queues an answer behind the messages that wait. A client that asks and does not read is closed.
    fn say_in_order(&mut self, conn: ConnId, frame: &ServerFrame<'_>) {
        let Self { sessions, outboxes, dirty, config, .. } = self;
        let Some(session) = sessions.get_mut(conn) else { return };
        let mut bytes = Vec::new();
        frame.encode(session.answer_encoding(), session.app, session.user, &mut bytes);
        let share = outboxes.share(&config.limits, session.outbox, session.address).max(CONTROL_BYTES_MIN);
        let bytes_max = config.limits.answers_bytes_max().min(share);
        let taken = outboxes.update(session.owner(conn), &mut session.outbox, |outbox| {
            outbox.push_in_order(bytes.into(), bytes_max)
        });
        if taken {
            dirty.mark(&mut session.output, conn, Dirt::First);
            self.metrics.count_out(frame.code(), 1);
        } else {
            self.close_with_notice(conn, NoticeCode::SlowReader);
        }
    }

    /// An owner before has kept this of a room: the owner gets it.
    pub(super) fn relay_kept(&mut self, part: Box<Kept>) {
        let owner = self.view.owner_of_room(part.app, part.room);
        let before = ShardId::from_u32(part.router);
        if let Some(owner) = owner.filter(|owner| *owner != before && self.view.is_up(*owner)) {
            self.tell_router(owner, ToRouter::Kept(part));
        }
    }
}
