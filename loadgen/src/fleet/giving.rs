//! Gifts, as clients send and see them.

use shard::Instant;
use wire::client::{FailReason, Message, Outcome, SendAck};

use super::Fleet;
use crate::client::State;
use crate::gifts::{Effect, REFUSED, Refusal, SHOWN, Sight};
use crate::plan::Scenario;
use crate::stamp::sequence_of;
use crate::tally::count;

impl Fleet {
    /// The payload that sends a gift to the plan's receiver, or to the next member of the room in this fleet;
    /// the last one gives to the first.
    pub(super) fn gift_payload(&self, client: u32) -> Vec<u8> {
        let room = self.plan.room(self.plan.room_index(client)).0;
        let (rooms, first) = (self.plan.rooms.max(1), self.plan.first_client);
        let next = client.checked_add(rooms).filter(|next| next - first < self.plan.clients);
        let receiver =
            self.plan.receiver.unwrap_or(self.plan.user(next.unwrap_or(first + (client - first) % rooms)).0);
        let gift = self.plan.gift;
        format!(r#"{{"giftId":{gift},"receiverId":{receiver},"count":1,"roomId":{room}}}"#).into_bytes()
    }

    /// The send-ack of a gift has come for the first time.
    pub(super) fn gift_answered(
        &mut self,
        now: Instant,
        c: usize,
        number: u32,
        intended: Instant,
        ack: &SendAck,
    ) {
        if let Outcome::Failed(reason) = ack.outcome {
            self.clients[c].outbox.reject(number);
            return count(&mut self.tally.rejected, FailReason::name(reason));
        }
        self.tally.accepted += 1;
        let room = self.plan.room_index(self.global(c)) as usize;
        self.gifts[room].answer((c as u32, number));
        if self.measured.contains(&intended) {
            self.tally.send_ack.record(now.since(intended));
        }
    }

    /// An effect, or word that a gift failed.
    pub(super) fn gift_delivered(&mut self, now: Instant, c: usize, message: &Message) {
        let known = match message.biz_code {
            SHOWN if message.room.is_some() => self.gift_shown(now, c, message),
            REFUSED if message.room.is_none() => self.gift_refused(c, message),
            _ => None,
        };
        if known.is_none() {
            self.tally.stray += 1;
        }
    }

    fn gift_shown(&mut self, now: Instant, c: usize, message: &Message) -> Option<()> {
        let effect: Effect = serde_json::from_slice(&message.payload).ok()?;
        let number = sequence_of(self.plan.run, effect.id.as_bytes())?;
        let sender =
            self.plan.client_of(wire::UserId(effect.sender_id))?.checked_sub(self.plan.first_client)?;
        let room = self.plan.room_index(self.global(c));
        if sender >= self.plan.clients || message.room != Some(self.plan.room(room)) || message.sender.0 != 0
        {
            return None;
        }
        let gifts = &mut self.gifts[room as usize];
        match gifts.show(&mut self.clients[c].seen, (sender, number), message.client_msg_id.as_str()) {
            Sight::First => {}
            Sight::Again => {
                self.tally.redelivered += 1;
                return Some(());
            }
            Sight::Duplicate => {
                self.tally.duplicated += 1;
                return Some(());
            }
        }
        self.tally.delivered += 1;
        if self.measured.contains(&now) {
            self.tally.measured += 1;
        }
        // The sender sees it too, and knows when it was due.
        if sender as usize == c
            && let Some(intended) = self.gifts[room as usize].arrive((sender, number))
            && self.measured.contains(&intended)
        {
            self.tally.latency.record(now.since(intended));
        }
        Some(())
    }

    fn gift_refused(&mut self, c: usize, message: &Message) -> Option<()> {
        let refusal: Refusal = serde_json::from_slice(&message.payload).ok()?;
        let number = sequence_of(self.plan.run, refusal.id.as_bytes())?;
        let room = self.plan.room_index(self.global(c)) as usize;
        match self.gifts[room].refuse((c as u32, number)) {
            true => count(&mut self.tally.refused, &refusal.reason),
            false => self.tally.redelivered += 1,
        }
        Some(())
    }

    /// Effects that are owed to members and did not come. Whoever was away in between is owed nothing.
    pub(super) fn gifts_missing(&self) -> u64 {
        let present = self
            .clients
            .iter()
            .enumerate()
            .filter(|(_, client)| client.state == State::Ready && !client.was_away);
        let missing = present.map(|(c, client)| {
            let room = self.plan.room_index(self.global(c)) as usize;
            self.gifts[room].missing(&client.seen)
        });
        if self.plan.scenario == Scenario::Gift { missing.sum() } else { 0 }
    }
}
