//! One client: its connection, what it has sent and nobody answered, what it has got.

use std::collections::VecDeque;
use std::time::Duration;

use shard::{ConnId, Instant};
use wire::MessageId;
use wire::client::Deframer;

use crate::order::{Ids, Order, Seen};

/// Unanswered messages that a client keeps; past them it sends no more.
pub(crate) const PENDING_MAX: usize = 65_536;
/// Unanswered heartbeats that a client remembers.
pub(crate) const HEARTBEATS_MAX: usize = 4_096;
/// Connects and logins in a row that may fail before a client gives up that was never ready.
const TRIES_MAX: u8 = 5;
/// The same for one that was: a server that restarts gets about 30 s.
const TRIES_AGAIN_MAX: u8 = 19;
/// The wait after the first failure; it doubles with each, up to the longest.
const BACK_OFF: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

/// Where a client is between connecting and ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Not connected, and will be.
    Away,
    /// The engine is connecting.
    Connecting,
    /// The login is on its way.
    LoggingIn,
    /// The join is on its way.
    Joining,
    /// It can send and receive.
    Ready,
    /// The engine is closing its connection; it comes back after that.
    Closing,
    /// It has given up.
    Failed,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) state: State,
    pub(crate) conn: Option<ConnId>,
    /// Since when it wants to be ready.
    pub(crate) since: Instant,
    /// Failures since it was last ready.
    tries: u8,
    /// Why this connection ends, once that is known.
    pub(crate) ended: Option<&'static str>,
    pub(crate) retry_after_ms: u32,
    /// The engine has been asked to transmit.
    pub(crate) asked: bool,
    /// A batch is on its way.
    pub(crate) in_flight: bool,
    /// It has been ready at some time.
    pub(crate) was_ready: bool,
    /// Frames not yet written; without heap while there are none.
    pub(crate) out: Vec<u8>,
    pub(crate) deframer: Deframer,
    pub(crate) heartbeats: VecDeque<Heartbeat>,
    /// The number of the last heartbeat.
    pub(crate) heartbeat_number: u32,
    /// The highest number that was answered.
    pub(crate) heartbeat_answered: u32,
    pub(crate) outbox: Outbox,
    /// What came: from the partner, or in the room.
    pub(crate) inbox: Option<Box<Inbox>>,
}

/// A heartbeat that waits for its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Heartbeat {
    pub(crate) intended: Instant,
    pub(crate) number: u32,
    /// It is an operation of the scenario, not just a sign of life.
    pub(crate) operation: bool,
}

impl Client {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Away,
            conn: None,
            since: Instant::default(),
            tries: 0,
            ended: None,
            retry_after_ms: 0,
            asked: false,
            in_flight: false,
            was_ready: false,
            out: Vec::new(),
            deframer: Deframer::default(),
            heartbeats: VecDeque::new(),
            heartbeat_number: 0,
            heartbeat_answered: 0,
            outbox: Outbox::default(),
            inbox: None,
        }
    }

    /// Logged in, and in its room.
    pub(crate) fn ready(&mut self) {
        self.state = State::Ready;
        self.was_ready = true;
        self.tries = 0;
    }

    /// The connection is gone: what was half written or half read goes with it.
    pub(crate) fn disconnect(&mut self) {
        self.conn = None;
        self.ended = None;
        self.retry_after_ms = 0;
        self.asked = false;
        self.in_flight = false;
        self.out = Vec::new();
        self.deframer = Deframer::default();
    }

    /// A connect or a connection failed: how long to wait before the next try, or `None` to give up. `spread` keeps those who
    /// failed together from coming back together.
    pub(crate) fn back_off(&mut self, spread: u32) -> Option<Duration> {
        self.tries += 1;
        let asked_for = Duration::from_millis(u64::from(self.retry_after_ms));
        let wait = (BACK_OFF * (1 << (self.tries - 1).min(8))).min(BACK_OFF_MAX).max(asked_for);
        let tries_max = if self.was_ready { TRIES_AGAIN_MAX } else { TRIES_MAX };
        (self.tries < tries_max).then_some(wait + Duration::from_millis(u64::from(spread % 64)))
    }
}

/// The messages of one client, numbered from 1, that wait for their send-acks.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// The last number given.
    last: u32,
    /// The messages up to `last`; those before the first unanswered one are gone.
    pending: VecDeque<Pending>,
    /// Numbers whose sender was told that they failed.
    rejected: Vec<u32>,
}

/// A message that waits for its send-ack.
#[derive(Clone, Copy, Debug)]
struct Pending {
    intended: Instant,
    answered: bool,
    /// It came back to its sender, as a member of the room.
    seen: bool,
}

impl Outbox {
    /// Takes on a message; its number.
    pub(crate) fn push(&mut self, intended: Instant) -> u32 {
        self.last += 1;
        self.pending.push_back(Pending { intended, answered: false, seen: false });
        self.last
    }

    pub(crate) fn is_full(&self) -> bool {
        self.pending.len() >= PENDING_MAX
    }

    /// The last number given; 0 for none.
    pub(crate) fn last(&self) -> u32 {
        self.last
    }

    /// Notes the send-ack of a message; its intended time when it was the first one.
    pub(crate) fn answer(&mut self, number: u32) -> Option<Instant> {
        let pending = self.get_mut(number).filter(|pending| !pending.answered)?;
        pending.answered = true;
        let intended = pending.intended;
        while self.pending.front().is_some_and(|pending| pending.answered) {
            self.pending.pop_front();
        }
        Some(intended)
    }

    /// Notes that its sender was told that a message failed.
    pub(crate) fn reject(&mut self, number: u32) {
        if let Err(at) = self.rejected.binary_search(&number) {
            self.rejected.insert(at, number);
        }
    }

    pub(crate) fn is_rejected(&self, number: u32) -> bool {
        self.rejected.binary_search(&number).is_ok()
    }

    /// Notes that a message came back to its sender.
    pub(crate) fn see(&mut self, number: u32) {
        if let Some(pending) = self.get_mut(number) {
            pending.seen = true;
        }
    }

    /// The messages without a send-ack, oldest first: number, intended time, and whether it came back.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = (u32, Instant, bool)> + '_ {
        let first = self.first();
        let numbered = self.pending.iter().enumerate().filter(|(_, pending)| !pending.answered);
        numbered.map(move |(at, pending)| (first + at as u32, pending.intended, pending.seen))
    }

    fn first(&self) -> u32 {
        self.last + 1 - self.pending.len() as u32
    }

    fn get_mut(&mut self, number: u32) -> Option<&mut Pending> {
        let at = number.checked_sub(self.first())?;
        self.pending.get_mut(at as usize)
    }
}

/// The messages one client got, from its partner or in its room.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) order: Order,
    ids: Ids,
    /// Numbers below this came over an earlier connection.
    this_connection: u64,
}

/// What a delivered message is to its receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// It had not come yet; `late` when one after it had.
    First {
        /// A later one was faster.
        late: bool,
    },
    /// The server repeats it, under the same id; or under another id, but the receiver was away in between, and knows it by
    /// its sender and client message id.
    Redelivered,
    /// It came before, under another id.
    Duplicate,
}

impl Inbox {
    /// A stream whose first number is `first`.
    pub(crate) fn new(first: u64) -> Self {
        Self { order: Order::new(first), ids: Ids::default(), this_connection: 0 }
    }

    /// The receiver is back: another node may repeat what came before.
    pub(crate) fn reconnect(&mut self) {
        self.this_connection = self.order.next();
    }

    /// Takes a message that came.
    pub(crate) fn take(&mut self, number: u64, id: MessageId) -> Arrival {
        let seen = self.order.take(number);
        match seen {
            Seen::Again if number < self.this_connection => Arrival::Redelivered,
            Seen::Again if self.ids.get(number) == Some(id) => Arrival::Redelivered,
            Seen::Again => Arrival::Duplicate,
            Seen::Next | Seen::Late => {
                self.ids.put(number, id);
                Arrival::First { late: seen == Seen::Late }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbox_keeps_what_is_unanswered() {
        let mut outbox = Outbox::default();
        let at = Instant::from_unix_nanos;
        assert_eq!([outbox.push(at(1)), outbox.push(at(2)), outbox.push(at(3))], [1, 2, 3]);
        assert_eq!(outbox.answer(2), Some(at(2)));
        assert_eq!(outbox.answer(2), None);
        let unanswered = |outbox: &Outbox| outbox.unanswered().map(|(number, ..)| number).collect::<Vec<_>>();
        assert_eq!(unanswered(&outbox), [1, 3]);
        assert_eq!(outbox.answer(1), Some(at(1)));
        assert_eq!(outbox.answer(1), None);
        assert_eq!(unanswered(&outbox), [3]);
        assert_eq!([0, 4, u32::MAX].map(|number| outbox.answer(number)), [None; 3]);
        outbox.see(3);
        assert_eq!(outbox.unanswered().collect::<Vec<_>>(), [(3, at(3), true)]);
        outbox.reject(3);
        assert!(outbox.is_rejected(3) && !outbox.is_rejected(2));
    }

    #[test]
    fn a_repeat_is_told_from_a_duplicate_by_the_servers_id() {
        let mut inbox = Inbox::new(1);
        let id = |id| MessageId(id);
        assert_eq!(inbox.take(1, id(10)), Arrival::First { late: false });
        assert_eq!(inbox.take(1, id(10)), Arrival::Redelivered);
        assert_eq!(inbox.take(1, id(11)), Arrival::Duplicate);
        assert_eq!(inbox.take(3, id(30)), Arrival::First { late: false });
        assert_eq!(inbox.take(2, id(20)), Arrival::First { late: true });
        assert_eq!(inbox.take(2, id(20)), Arrival::Redelivered);
        inbox.reconnect();
        assert_eq!(inbox.take(3, id(31)), Arrival::Redelivered);
        assert_eq!(inbox.take(4, id(40)), Arrival::First { late: false });
        assert_eq!(inbox.take(4, id(41)), Arrival::Duplicate);
    }

    #[test]
    fn a_client_gives_up_after_a_while() {
        let mut client = Client::new();
        let waits: Vec<_> = std::iter::from_fn(|| client.back_off(0)).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800]);
        client.ready();
        client.retry_after_ms = 5000;
        assert_eq!(client.back_off(3), Some(Duration::from_millis(5003)));
        client.ready();
        client.retry_after_ms = 0;
        let patience: Duration = std::iter::from_fn(|| client.back_off(0)).sum();
        assert!((25..35).contains(&patience.as_secs()), "{patience:?}");
    }
}
