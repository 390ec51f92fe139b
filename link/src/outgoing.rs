//! What is on its way to one peer: messages that wait, and batches that were written and may have to be written again.

use std::collections::VecDeque;

use shard::SendBatch;
use wire::node::link::Frame;
use wire::node::{NodeMessage, ToGateway, ToRouter, encode_batch};

use crate::limits::{BATCH_BYTES, BATCH_MESSAGES_MAX, MESSAGE_BYTES};

/// Batches are numbered from 0 within a session. `first` is the number of the oldest that is kept, `next` that of the next to
/// write on this connection: `first <= next <= first + kept.len()`.
#[derive(Default)]
pub(crate) struct Outgoing {
    queue: VecDeque<NodeMessage>,
    queue_bytes: usize,
    kept: VecDeque<Batch>,
    kept_bytes: usize,
    first: u64,
    next: u64,
}

struct Batch {
    archive: bytes::Bytes,
}

/// What one [`Outgoing::fill`] wrote for the first time.
#[derive(Clone, Copy, Default)]
pub(crate) struct Filled {
    pub(crate) batches: u64,
    pub(crate) messages: u64,
    /// A frame that says how many batches came was among them.
    pub(crate) says_received: bool,
}

impl Outgoing {
    pub(crate) fn push(&mut self, message: NodeMessage) {
        self.queue_bytes += weight(&message);
        self.queue.push_back(message);
    }

    /// Bytes that wait, or are on their way and not taken in.
    pub(crate) fn bytes(&self) -> usize {
        self.queue_bytes + self.kept_bytes
    }

    /// Whether `fill` would write something.
    pub(crate) fn can_fill(&self, window_bytes: usize) -> bool {
        self.next < self.first + self.kept.len() as u64 || self.can_encode(window_bytes)
    }

    /// Whether the other end has taken in everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.kept.is_empty()
    }

    /// The other end has taken in the batches before `received`. False when it cannot have.
    pub(crate) fn credit(&mut self, received: u64) -> bool {
        if received > self.next {
            return false;
        }
        while self.first < received {
            let taken = self.kept.pop_front().expect("first is before next, so a batch is kept");
            self.kept_bytes -= taken.archive.len();
            self.first += 1;
        }
        true
    }

    /// Begins anew at `received`, on another connection. False when that batch is not kept any more.
    pub(crate) fn resume(&mut self, received: u64) -> bool {
        self.next = self.first + self.kept.len() as u64;
        if received < self.first || !self.credit(received) {
            return false;
        }
        self.next = received;
        true
    }

    /// Writes what may be written: first what is kept from an earlier connection, then what waits, within the window.
    pub(crate) fn fill(&mut self, batch: &mut SendBatch, window_bytes: usize, received: u64) -> Filled {
        let mut filled = Filled::default();
        while !batch.is_full() {
            let at = (self.next - self.first) as usize;
            if at == self.kept.len() {
                if !self.can_encode(window_bytes) {
                    break;
                }
                filled.messages += self.encode();
                filled.batches += 1;
            }
            let archive = &self.kept[at].archive;
            batch.copy(&Frame::batch_head(received, archive.len()));
            batch.share(archive.clone());
            filled.says_received = true;
            self.next += 1;
        }
        filled
    }

    fn can_encode(&self, window_bytes: usize) -> bool {
        !self.queue.is_empty() && (self.kept_bytes < window_bytes || self.kept.is_empty())
    }

    /// Makes a batch of what waits longest; how many messages it has.
    fn encode(&mut self) -> u64 {
        let mut messages = Vec::new();
        let mut bytes = 0;
        while messages.len() < BATCH_MESSAGES_MAX && bytes < BATCH_BYTES {
            let Some(message) = self.queue.pop_front() else { break };
            bytes += weight(&message);
            messages.push(message);
        }
        self.queue_bytes -= bytes;
        let archive = bytes::Bytes::from_owner(encode_batch(&messages));
        self.kept_bytes += archive.len();
        self.kept.push_back(Batch { archive });
        messages.len() as u64
    }
}

/// About how many bytes a message takes, here and on the wire.
fn weight(message: &NodeMessage) -> usize {
    let payload = match message {
        NodeMessage::ToRouter(ToRouter::Submit { submission, .. }) => submission.payload.len(),
        NodeMessage::ToRouter(ToRouter::Reach { routers }) => 4 * routers.len(),
        NodeMessage::ToGateway(
            ToGateway::Deliver { message, .. }
            | ToGateway::Broadcast { message, .. }
            | ToGateway::All { message },
        ) => message.payload.len(),
        NodeMessage::ToRouter(_)
        | NodeMessage::ToGateway(_)
        | NodeMessage::ToBridge(_)
        | NodeMessage::ToDirectory(_) => 0,
    };
    MESSAGE_BYTES + payload
}

#[cfg(test)]
mod tests {
    use wire::AppId;
    use wire::RoomId;

    use super::*;

    fn message(room: i64) -> NodeMessage {
        NodeMessage::ToRouter(ToRouter::Leave { app: AppId(1), room: RoomId(room) })
    }

    fn written(outgoing: &mut Outgoing, window_bytes: usize) -> (u64, u64) {
        let mut batch = SendBatch::new();
        let filled = outgoing.fill(&mut batch, window_bytes, 0);
        (filled.batches, filled.messages)
    }

    #[test]
    fn what_was_not_taken_in_is_written_again() {
        let mut outgoing = Outgoing::default();
        for room in 0..3 {
            outgoing.push(message(room));
            assert_eq!(written(&mut outgoing, 1 << 20), (1, 1));
        }
        assert!(outgoing.credit(1) && !outgoing.can_fill(1 << 20));
        assert!(outgoing.resume(2));
        assert!(outgoing.can_fill(1 << 20));
        assert_eq!(written(&mut outgoing, 1 << 20), (0, 0));
        assert_eq!((outgoing.first, outgoing.next, outgoing.kept.len()), (2, 3, 1));
        assert!(!outgoing.resume(1), "that batch is gone");
        assert!(!outgoing.resume(4), "that batch was never sent");
        assert!(outgoing.resume(3) && outgoing.is_empty());
        assert_eq!(outgoing.bytes(), 0);
    }

    #[test]
    fn the_window_bounds_what_is_on_its_way() {
        let mut outgoing = Outgoing::default();
        for room in 0..10 * BATCH_MESSAGES_MAX as i64 {
            outgoing.push(message(room));
        }
        let before = outgoing.bytes();
        let (batches, messages) = written(&mut outgoing, 1);
        assert_eq!(batches, 1, "one goes always");
        assert_eq!(written(&mut outgoing, 1), (0, 0));
        assert!(outgoing.credit(1) && !outgoing.credit(2));
        assert_eq!(outgoing.bytes(), before - messages as usize * MESSAGE_BYTES);
    }
}
