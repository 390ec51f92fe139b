//! Members that want what their room said before they joined, or while they were away.
//!
//! The room's owner is asked once for all of them, and answers on the way of the room's broadcasts. So what
//! comes before the answer is not newer than it, and what comes after it is: a member that waits is passed
//! over by broadcasts, gets the answer's messages, and goes on with the next broadcast. Nothing is buffered
//! for it.

use std::collections::BTreeMap;

use bytes::Bytes;
use shard::{ConnId, Instant, Key, ShardId, TimerId};
use wire::client::{Encoding, Message, Recovery, ServerFrame, Want};
use wire::node::{HISTORY_BYTES_MAX, Kept, Recalled, ToGateway, ToRouter, sequence_believed_max};
use wire::{AppId, RoomId};

use crate::fan_out::encode;
use crate::gateway::{Gateway, Timer, mark_dirty};
use crate::limits::{CONTROL_BYTES_MIN, HELD_BYTES_MAX, RECALL_RETRY};
use crate::outbox::Owed;
use crate::rooms::Rooms;

/// The members of a room that wait, and what its owner was asked for them.
#[derive(Default)]
pub(crate) struct Recall {
    /// By [`ConnId::as_u64`].
    waiting: BTreeMap<u64, Want>,
    /// The question under way.
    asked: Option<Question>,
    /// What has come of its answer.
    messages: Vec<Message>,
    bytes: usize,
    /// An answer was older than what members have.
    was_behind: bool,
    /// Asks again if no answer comes.
    pub(crate) timer: Option<TimerId>,
}

/// All after a sequence, and so many of the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Question {
    ask: u32,
    since: u64,
    last: u32,
    at: Instant,
}

impl Question {
    /// Whether its answer has what a member wants.
    fn covers(&self, want: Want) -> bool {
        match want {
            Want::Since(sequence) => sequence >= self.since,
            Want::Last(count) => clipped(count) <= self.last,
        }
    }
}

impl Recall {
    pub(crate) fn waits(&self, conn: ConnId) -> bool {
        self.waiting.contains_key(&conn.as_u64())
    }

    /// A member is out of the room. Whether it was the last that waits.
    pub(crate) fn leave(&mut self, conn: ConnId) -> bool {
        self.waiting.remove(&conn.as_u64());
        self.waiting.is_empty()
    }

    /// Takes those out that an answer to the question under way is for.
    fn take_covered(&mut self) -> Vec<(ConnId, Want)> {
        let Some(asked) = self.asked.take() else { return Vec::new() };
        let covered = self.waiting.extract_if(.., |_, want| asked.covers(*want));
        covered.map(|(conn, want)| (ConnId::from_u64(conn), want)).collect()
    }
}

fn clipped(count: u64) -> u32 {
    count.min(u64::from(u32::MAX)) as u32
}

impl Gateway {
    /// A member wants what its room said. It hears of it, and of nothing else of that room until then.
    pub(crate) fn want(&mut self, now: Instant, conn: ConnId, (app, room): (AppId, RoomId), want: Want) {
        let Some(known) = self.rooms.find(app, room) else { return };
        let recall = known.recall.get_or_insert_default();
        recall.waiting.insert(conn.as_u64(), want);
        // One that the question under way does not cover has its turn after that.
        if recall.asked.is_none() {
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
        if recall.waiting.is_empty() {
            known.recall = None;
            return;
        }
        (recall.messages, recall.bytes) = (Vec::new(), 0);
        let mut asked = Question { ask, since: u64::MAX, last: 0, at: now };
        for want in recall.waiting.values() {
            match want {
                Want::Since(sequence) => asked.since = asked.since.min(*sequence),
                Want::Last(count) => asked.last = asked.last.max(clipped(*count)),
            }
        }
        recall.asked = Some(asked);
        let timer = Timer::Recall { index: key.index };
        recall.timer = Some(self.wheel.arm(now + RECALL_RETRY, timer.pack()));
        if let Some(owner) = owner {
            let Question { since, last, .. } = asked;
            self.tell_router(owner, ToRouter::Recall { app, room, ask, since, last });
        }
    }

    /// Members have left: nobody waits for some answers any more.
    pub(crate) fn forget_recalls(&mut self) {
        while let Some(timer) = self.rooms.unneeded.pop() {
            self.wheel.cancel(timer);
        }
    }

    /// A room has another owner, which has just been told that it has members here.
    pub(crate) fn recall_of_next_owner(&mut self, now: Instant, app: AppId, room: RoomId) {
        self.ask_recall(now, app, room);
    }

    /// The question of the room at `index` may have had no answer: a shard on its way has gone, or a link was
    /// full.
    pub(crate) fn recall_timeout(&mut self, now: Instant, index: u32) {
        let Some(key) = self.rooms.key_at(index) else { return };
        let known = self.rooms.get_mut(key);
        let (app, room) = (known.app, known.id);
        let asked = known.recall.as_ref().and_then(|recall| recall.asked);
        if asked.is_some_and(|asked| now >= asked.at + RECALL_RETRY) {
            self.metrics.recalls_repeated += 1;
            self.ask_recall(now, app, room);
        }
    }

    /// A part of an owner's answer, for this shard or a sibling.
    pub(crate) fn recalled(&mut self, now: Instant, part: Recalled) {
        if part.shard != self.id.index() {
            let to = ShardId::new(self.id.node(), part.shard);
            return self.effects.sibling(to, ToGateway::Recalled(Box::new(part)));
        }
        let (app, room, owner) = (part.app, part.room, ShardId::from_u32(part.router));
        if self.view.owner_of_room(app, room) != Some(owner) {
            return;
        }
        let Some(recall) = self.rooms.find(app, room).and_then(|known| known.recall.as_mut()) else { return };
        if recall.asked.is_none_or(|asked| asked.ask != part.ask) {
            return; // it was asked again since
        }
        let bytes: usize = part.messages.iter().map(|message| message.payload.len()).sum();
        if recall.messages.len() != part.before as usize || recall.bytes + bytes > HISTORY_BYTES_MAX {
            return; // it is asked again in time
        }
        recall.bytes += bytes;
        recall.messages.extend(part.messages);
        if recall.messages.len() == part.total as usize {
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
        if is_behind && !std::mem::replace(&mut recall.was_behind, true) {
            // Perhaps a newer broadcast came another way.
            self.metrics.recalls_repeated += 1;
            return self.ask_recall(now, app, room);
        }
        let (mut messages, members) = (std::mem::take(&mut recall.messages), recall.take_covered());
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
        let (recovery, from) = answer.for_member(want);
        match recovery {
            Recovery::Complete => self.metrics.recoveries_complete += 1,
            Recovery::TooOld => self.metrics.recoveries_too_old += 1,
        }
        self.say_in_order(
            conn,
            &ServerFrame::Joined { room, sequence: answer.sequence, recovery: Some(recovery) },
        );
        let mut at = from;
        while at < answer.messages.len() {
            let Some(session) = self.sessions.get(conn).filter(|session| session.is_logged_in()) else {
                return;
            };
            let frames = answer.frames(session.answer_encoding());
            if answer.messages[at].ack_wanted {
                let (id, frame) = (answer.messages[at].id, frames.slice(at, at + 1));
                if !frame.is_empty() {
                    self.queue_reliable(now, conn, id, frame, Owed::Nobody);
                }
                at += 1;
            } else {
                let end = frames.end_of_run(&answer.messages, at);
                let frames = frames.slice(at, end);
                if !frames.is_empty() {
                    self.queue_lossy(conn, frames, (end - at) as u32, None);
                }
                at = end;
            }
        }
    }

    /// Queues an answer about a room: none overtakes another.
    pub(crate) fn say_of_room(&mut self, conn: ConnId, frame: &ServerFrame<'_>) {
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
        let share = outboxes.share(&config.limits).max(CONTROL_BYTES_MIN);
        let bytes_max = config.limits.answers_bytes_max().min(share);
        let taken =
            outboxes.update(&mut session.outbox, |outbox| outbox.push_in_order(bytes.into(), bytes_max));
        if taken {
            mark_dirty(session, conn, dirty);
            self.metrics.count_out(frame.code(), 1);
        } else {
            self.close_with_notice(conn, wire::client::NoticeCode::SlowReader);
        }
    }

    /// An owner before has kept this of a room: the owner gets it.
    pub(crate) fn relay_kept(&mut self, part: Box<Kept>) {
        let owner = self.view.owner_of_room(part.app, part.room);
        let before = ShardId::from_u32(part.router);
        if let Some(owner) = owner.filter(|owner| *owner != before && self.view.is_up(*owner)) {
            self.tell_router(owner, ToRouter::Kept(part));
        }
    }
}

/// What an owner answered, with the frames that members share.
struct Answer {
    messages: Vec<Message>,
    sequence: u64,
    gone: u64,
    body_bytes_max: u32,
    frames: [Option<Encoded>; 3],
}

/// The frames of messages in one piece.
#[derive(Clone)]
struct Encoded {
    bytes: Bytes,
    /// Where each begins, and the end.
    ends: std::sync::Arc<[usize]>,
}

impl Answer {
    fn new(messages: Vec<Message>, sequence: u64, gone: u64, body_bytes_max: u32) -> Self {
        Self { messages, sequence, gone, body_bytes_max, frames: [None, None, None] }
    }

    /// What a member is told, and from which message on it gets them.
    fn for_member(&self, want: Want) -> (Recovery, usize) {
        match want {
            Want::Since(since) => {
                // One that has seen more than this owner has said has it from another.
                let is_complete = (self.gone..=self.sequence).contains(&since);
                let recovery = if is_complete { Recovery::Complete } else { Recovery::TooOld };
                (recovery, self.messages.partition_point(|message| message.sequence <= since))
            }
            Want::Last(count) => {
                (Recovery::Complete, self.messages.len().saturating_sub(clipped(count) as usize))
            }
        }
    }

    fn frames(&mut self, encoding: Encoding) -> Encoded {
        let at = match encoding {
            Encoding::Binary => 0,
            Encoding::Json => 1,
            Encoding::JsonOld => 2,
        };
        let (messages, most) = (&self.messages, self.body_bytes_max);
        self.frames[at].get_or_insert_with(|| Encoded::new(messages, encoding, most)).clone()
    }
}

impl Encoded {
    fn new(messages: &[Message], encoding: Encoding, body_bytes_max: u32) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), vec![0]);
        for message in messages {
            bytes.extend_from_slice(&encode(std::slice::from_ref(message), encoding, body_bytes_max));
            ends.push(bytes.len());
        }
        Self { bytes: bytes.into(), ends: ends.into() }
    }

    fn slice(&self, from: usize, to: usize) -> Bytes {
        self.bytes.slice(self.ends[from]..self.ends[to])
    }

    /// The end of the lossy messages from `at` on that leave as one: a slow reader loses no more at once than
    /// of a busy room.
    fn end_of_run(&self, messages: &[Message], at: usize) -> usize {
        let mut end = at + 1;
        while end < messages.len()
            && !messages[end].ack_wanted
            && self.ends[end + 1] - self.ends[at] <= HELD_BYTES_MAX
        {
            end += 1;
        }
        end
    }
}

impl Rooms {
    /// The members of a room that get its broadcasts now.
    pub(crate) fn listeners(&mut self, key: Key) -> Vec<crate::rooms::Member> {
        let room = self.get_mut(key);
        let waits = |conn| room.recall.as_ref().is_some_and(|recall| recall.waits(conn));
        room.members.iter().filter(|member| !waits(member.conn)).copied().collect()
    }
}
