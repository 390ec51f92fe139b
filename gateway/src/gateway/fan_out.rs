//! Messages for a room's members on this shard.
//!
//! Between two fan-outs of a room lies an interval. A lossy message that comes sooner waits for its end with
//! those that follow, and they leave as one write to each member: a dense room costs a write an interval, not
//! one a message. A quiet room's messages leave at once. Reliable messages never wait, and take what waits
//! along, so the room's order holds.

use std::sync::Arc;
use std::time::Duration;

use shard::{Instant, Key, ShardId};
use wire::client::{FailReason, Message};
use wire::node::{DeliveryId, ToBridge, ToGateway, ToRouter};
use wire::{AppId, RoomId};

use super::Gateway;
use crate::encoded::Frames;
use crate::latency::RouteClass;
use crate::outbox::Owed;
use crate::rooms::{Early, Place};
use crate::timer::Timer;

impl Gateway {
    /// A message for the members of its room on some shards of this node; on none but this when none is
    /// named.
    pub(super) fn broadcast_to(&mut self, now: Instant, message: Message, shards: &[u16]) {
        let me = self.id.index();
        for &index in shards.iter().filter(|index| **index != me) {
            let broadcast = ToGateway::Broadcast { message: message.clone(), shards: Vec::new() };
            let to = ShardId::new(self.id.node(), index);
            self.effects.sibling(to, broadcast);
        }
        if shards.is_empty() || shards.contains(&me) {
            self.broadcast(now, message);
        }
    }

    /// A message for every local member of its room.
    fn broadcast(&mut self, now: Instant, message: Message) {
        let found = message.room.and_then(|room| self.rooms.key(message.app, room));
        let Some(key) = found else { return };
        let room = self.rooms.get_mut(key);
        match room.place(now, &message) {
            Place::Early => room.early.push(message),
            Place::Before => self.metrics.room_late += 1,
            Place::Late { is_behind } => {
                if is_behind {
                    self.tell_seen(key);
                }
                self.hand_over_late(key, message);
            }
            Place::Next if message.ack_wanted => {
                self.fan_out_held(now, key);
                self.fan_out_reliable(now, key, message);
            }
            Place::Next => {
                let hold = room.hold(now, message);
                if hold.begins {
                    self.wheel.arm(room.next_fan_out, Timer::Room { index: key.index }.pack());
                }
                if hold.is_due {
                    self.fan_out_held(now, key);
                }
            }
        }
    }

    /// The owner has answered: members get what they were told that comes.
    pub(super) fn fan_out_early(&mut self, now: Instant, app: AppId, room: RoomId, sequence: u64) {
        let early = self.rooms.find(app, room).map(|room| std::mem::take(&mut room.early));
        let early = early.into_iter().flat_map(Early::into_messages);
        for message in early.filter(|message| message.sequence > sequence) {
            self.broadcast(now, message);
        }
        let found = self.rooms.key(app, room);
        if let Some(key) = found.filter(|key| self.rooms.get_mut(*key).sequence > sequence) {
            self.tell_seen(key);
        }
    }

    /// Tells the owner of a room what its members have seen.
    fn tell_seen(&mut self, key: Key) {
        let room = self.rooms.get_mut(key);
        let (app, id, sequence) = (room.app, room.id, room.sequence);
        room.told = sequence; // as the owner will answer
        if let Some(owner) = self.view.owner_of_room(app, id) {
            self.tell_router(owner, ToRouter::Join { app, room: id, sequence });
        }
    }

    fn hand_over_late(&mut self, key: Key, message: Message) {
        self.metrics.room_late += 1;
        if !message.ack_wanted {
            return;
        }
        for member in self.rooms.listeners(key) {
            let session = self.sessions.get(member.conn).expect("a member has a session");
            let (user, message, reason) = (session.user, message.clone(), FailReason::Unacked);
            self.tell_bridge(ToBridge::Undelivered { user, reason, message, delivery: DeliveryId::NONE });
        }
    }

    /// The interval of the room at `index` is over. A room may have been forgotten and another have taken its
    /// index since: that one's messages then leave a little sooner than they might.
    pub(super) fn room_timeout(&mut self, now: Instant, index: u32) {
        if let Some(key) = self.rooms.key_at(index) {
            self.fan_out_held(now, key);
        }
    }

    /// Sends what waits in a room, before something that must come after it.
    pub(super) fn fan_out_before(&mut self, now: Instant, app: AppId, room: RoomId) {
        if let Some(key) = self.rooms.key(app, room) {
            self.fan_out_held(now, key);
        }
    }

    fn fan_out_held(&mut self, now: Instant, key: Key) {
        let interval = Duration::from_millis(u64::from(self.config.delivery.room_interval_ms));
        let room = self.rooms.get_mut(key);
        if room.held.is_empty() {
            return;
        }
        room.next_fan_out = now + interval;
        room.held_bytes = 0;
        let waited = Some((RouteClass::RoomLossy, room.held_since));
        let held = std::mem::take(&mut room.held);
        let (members, recall) = (std::mem::take(&mut room.members), room.recall.take());
        let mut frames = Frames::new(&held, self.config.limits.frame_bytes_max);
        for member in &members {
            if recall.as_ref().is_some_and(|recall| recall.waits(member.conn)) {
                continue;
            }
            let session = self.sessions.get(member.conn).expect("a member has a session");
            let frames = frames.get(session.answer_encoding());
            self.queue_lossy(member.conn, frames, held.len() as u32, waited);
        }
        let room = self.rooms.get_mut(key);
        (room.members, room.recall) = (members, recall);
    }

    fn fan_out_reliable(&mut self, now: Instant, key: Key, message: Message) {
        let message = Arc::new(message);
        let mut frames = Frames::new(std::slice::from_ref(&*message), self.config.limits.frame_bytes_max);
        // A copy: a member that does not read is closed, and leaves the room.
        for member in self.rooms.listeners(key) {
            let session = self.sessions.get(member.conn).expect("a member has a session");
            let frame = frames.get(session.answer_encoding());
            self.queue_reliable(now, member.conn, message.id, frame, Owed::Bridge(message.clone()));
        }
    }
}
