//! One client: its connection, what it has sent and nobody answered, what it has got.

use std::collections::VecDeque;
use std::time::Duration;

use edge::ClientLayers;
use hashbrown::HashSet;
use shard::{ConnId, Instant};
use wire::MessageId;
use wire::client::Deframer;

use crate::gifts::Sightings;
use crate::order::{IDS_MAX, Order, Recent, Seen};

/// Unanswered messages that a client keeps; past them it sends no more.
pub(crate) const PENDING_MAX: usize = 65_536;
/// Unanswered heartbeats that a client remembers.
pub(crate) const HEARTBEATS_MAX: usize = 4_096;
/// Rounds of connects and logins, one at each target, that may fail before a client gives up that was never
/// ready.
const ROUNDS_MAX: u32 = 5;
/// The same for one that was: a server that restarts gets about 30 s.
const ROUNDS_AGAIN_MAX: u32 = 19;
/// The wait after a failure of the first round; it doubles with each round, up to the longest.
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
    /// The target that it is connected to or tries next.
    pub(crate) target: u16,
    /// Since when it wants to be ready.
    pub(crate) since: Instant,
    /// When it last stopped being ready, until it is so again.
    pub(crate) lost: Option<Instant>,
    /// Failures since it was last ready.
    tries: u32,
    /// Why this connection ends, once that is known.
    pub(crate) ended: Option<&'static str>,
    pub(crate) retry_after_ms: u32,
    /// The engine has been asked to transmit.
    pub(crate) asked: bool,
    /// A batch is on its way.
    pub(crate) in_flight: bool,
    /// It has been ready at some time.
    pub(crate) was_ready: bool,
    /// TLS and WebSocket; a connection without them has none.
    pub(crate) layers: Option<Box<ClientLayers>>,
    /// Frames not yet written; without heap while there are none.
    pub(crate) out: Vec<u8>,
    pub(crate) deframer: Deframer,
    pub(crate) heartbeats: VecDeque<Heartbeat>,
    /// The number of the last heartbeat.
    pub(crate) heartbeat_number: u32,
    /// The highest number that was answered.
    pub(crate) heartbeat_answered: u32,
    pub(crate) outbox: Outbox,
    /// Which gifts of its room it has seen.
    pub(crate) seen: Sightings,
    /// It was not ready at some time since it first was.
    pub(crate) was_away: bool,
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
    /// A client that begins at that target.
    pub(crate) fn new(target: u16) -> Self {
        Self {
            state: State::Away,
            conn: None,
            target,
            since: Instant::default(),
            lost: None,
            tries: 0,
            ended: None,
            retry_after_ms: 0,
            asked: false,
            in_flight: false,
            was_ready: false,
            layers: None,
            out: Vec::new(),
            deframer: Deframer::default(),
            heartbeats: VecDeque::new(),
            heartbeat_number: 0,
            heartbeat_answered: 0,
            outbox: Outbox::default(),
            seen: Sightings::default(),
            was_away: false,
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
        self.layers = None;
        self.out = Vec::new();
        self.deframer = Deframer::default();
    }

    /// A connect or a connection failed: how long to wait before the try at the next of the targets, or
    /// `None` to give up. `spread` keeps those who failed together from coming back together.
    pub(crate) fn back_off(&mut self, spread: u32, targets: u16) -> Option<Duration> {
        let targets = u32::from(targets);
        let round = self.tries / targets;
        self.tries += 1;
        self.target = ((u32::from(self.target) + 1) % targets) as u16;
        let asked_for = Duration::from_millis(u64::from(self.retry_after_ms));
        let wait = (BACK_OFF * (1 << round.min(8))).min(BACK_OFF_MAX).max(asked_for);
        let rounds_max = if self.was_ready { ROUNDS_AGAIN_MAX } else { ROUNDS_MAX };
        (self.tries < rounds_max * targets).then_some(wait + Duration::from_millis(u64::from(spread % 64)))
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
    /// When it was last written, if ever.
    written: Option<Instant>,
    answered: bool,
    repeated: bool,
}

/// A message to be written: what its stamp says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Writing {
    pub(crate) intended: Instant,
    /// It was written before.
    pub(crate) repeat: bool,
}

/// A message whose first send-ack has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Answered {
    pub(crate) intended: Instant,
    /// It was written more than once.
    pub(crate) repeated: bool,
}

impl Outbox {
    /// Takes on a message; its number.
    pub(crate) fn push(&mut self, intended: Instant) -> u32 {
        self.last += 1;
        self.pending.push_back(Pending { intended, written: None, answered: false, repeated: false });
        self.last
    }

    pub(crate) fn is_full(&self) -> bool {
        self.pending.len() >= PENDING_MAX
    }

    /// The last number given; 0 for none.
    pub(crate) fn last(&self) -> u32 {
        self.last
    }

    /// Notes that an unanswered message is written.
    pub(crate) fn write(&mut self, number: u32, now: Instant) -> Option<Writing> {
        let pending = self.get_mut(number).filter(|pending| !pending.answered)?;
        pending.repeated = pending.written.replace(now).is_some();
        Some(Writing { intended: pending.intended, repeat: pending.repeated })
    }

    /// Notes that a message counts as written at that time, to put off the next repeat or to hasten it.
    pub(crate) fn count_as_written(&mut self, number: u32, at: Instant) {
        if let Some(pending) = self.get_mut(number) {
            pending.written = Some(at);
        }
    }

    /// Notes the send-ack of a message; what it was when this is the first one.
    pub(crate) fn answer(&mut self, number: u32) -> Option<Answered> {
        let pending = self.get_mut(number).filter(|pending| !pending.answered)?;
        pending.answered = true;
        let answered = Answered { intended: pending.intended, repeated: pending.repeated };
        while self.pending.front().is_some_and(|pending| pending.answered) {
            self.pending.pop_front();
        }
        Some(answered)
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

    /// The messages without a send-ack, oldest first.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = u32> + '_ {
        self.unanswered_since(Instant::from_unix_nanos(u64::MAX))
    }

    /// Those of them that were not written after `since`.
    pub(crate) fn unanswered_since(&self, since: Instant) -> impl Iterator<Item = u32> + '_ {
        let first = self.first();
        let is_due = move |pending: &Pending| {
            !pending.answered && pending.written.is_none_or(|written| written <= since)
        };
        let due = self.pending.iter().enumerate().filter(move |(_, pending)| is_due(pending));
        due.map(move |(at, _)| first + at as u32)
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
    ids: Recent<IDS_MAX>,
    /// Numbers that came in a copy marked as a repeat.
    repeats: HashSet<u64>,
    /// Numbers below this came over an earlier connection.
    this_connection: u64,
    /// Since when it has this connection, if it had another before.
    back_at: Instant,
}

/// What a delivered message is to its receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// It had not come yet; `late` when one after it had.
    First {
        /// A later one was faster.
        late: bool,
    },
    /// The server repeats it, under the same id; or under another id, but the receiver was away in between,
    /// and knows it by its sender and client message id.
    Redelivered,
    /// It came before under another id, and its sender had repeated it: the server that knew the first is
    /// gone.
    Renewed,
    /// It came before under another id, and nobody repeated it.
    Duplicate,
}

impl Inbox {
    /// A stream whose first number is `first`.
    pub(crate) fn new(first: u64) -> Self {
        Self {
            order: Order::new(first),
            ids: Recent::default(),
            repeats: HashSet::new(),
            this_connection: 0,
            back_at: Instant::default(),
        }
    }

    /// The receiver is back: another node may repeat what came before.
    pub(crate) fn reconnect(&mut self, now: Instant) {
        self.this_connection = self.order.next();
        self.back_at = now;
    }

    /// Takes a message that came, which was to be sent at that time; `repeat` when its sender had sent it
    /// before. Such a one may be late, and so may one that was sent before the receiver was back.
    pub(crate) fn take(&mut self, number: u64, id: MessageId, sent: Instant, repeat: bool) -> Arrival {
        let seen = self.order.take(number);
        let repeated = repeat || !self.repeats.is_empty() && self.repeats.contains(&number);
        if repeat {
            self.repeats.insert(number);
        }
        match seen {
            Seen::Again if number < self.this_connection => Arrival::Redelivered,
            Seen::Again if self.ids.get(number) == Some(id.0) => Arrival::Redelivered,
            Seen::Again if repeated => Arrival::Renewed,
            Seen::Again => Arrival::Duplicate,
            Seen::Next | Seen::Late => {
                self.ids.put(number, id.0);
                Arrival::First { late: seen == Seen::Late && !repeat && sent >= self.back_at }
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
        let answered = |nanos| Some(Answered { intended: at(nanos), repeated: false });
        assert_eq!(outbox.answer(2), answered(2));
        assert_eq!(outbox.answer(2), None);
        let unanswered = |outbox: &Outbox| outbox.unanswered().collect::<Vec<_>>();
        assert_eq!(unanswered(&outbox), [1, 3]);
        assert_eq!(outbox.answer(1), answered(1));
        assert_eq!(outbox.answer(1), None);
        assert_eq!(unanswered(&outbox), [3]);
        assert_eq!([0, 4, u32::MAX].map(|number| outbox.answer(number)), [None; 3]);
        outbox.reject(3);
        assert!(outbox.is_rejected(3) && !outbox.is_rejected(2));
    }

    #[test]
    fn what_is_written_again_is_a_repeat() {
        let mut outbox = Outbox::default();
        let at = Instant::from_unix_nanos;
        outbox.push(at(1));
        outbox.push(at(2));
        let writing = |nanos, repeat| Some(Writing { intended: at(nanos), repeat });
        assert_eq!(
            [outbox.write(1, at(10)), outbox.write(2, at(20))],
            [writing(1, false), writing(2, false)]
        );
        let due = |outbox: &Outbox, since| outbox.unanswered_since(at(since)).collect::<Vec<_>>();
        assert_eq!([due(&outbox, 9), due(&outbox, 10), due(&outbox, 20)], [vec![], vec![1], vec![1, 2]]);
        assert_eq!(outbox.write(1, at(30)), writing(1, true));
        assert_eq!(due(&outbox, 20), [2]);
        assert_eq!(outbox.answer(1), Some(Answered { intended: at(1), repeated: true }));
        assert_eq!((outbox.write(1, at(40)), due(&outbox, 40)), (None, vec![2]));
    }

    #[test]
    fn a_repeat_is_told_from_a_duplicate_by_the_servers_id() {
        let mut inbox = Inbox::new(1);
        let at = Instant::from_unix_nanos;
        let mut take = |number, id| inbox.take(number, MessageId(id), at(5), false);
        assert_eq!(take(1, 10), Arrival::First { late: false });
        assert_eq!(take(1, 10), Arrival::Redelivered);
        assert_eq!(take(1, 11), Arrival::Duplicate);
        assert_eq!(take(3, 30), Arrival::First { late: false });
        assert_eq!(take(2, 20), Arrival::First { late: true });
        assert_eq!(take(2, 20), Arrival::Redelivered);
        inbox.reconnect(at(100));
        let mut take = |number, id, sent| inbox.take(number, MessageId(id), at(sent), false);
        assert_eq!(take(3, 31, 99), Arrival::Redelivered);
        assert_eq!(take(4, 40, 100), Arrival::First { late: false });
        assert_eq!(take(4, 41, 100), Arrival::Duplicate);
        assert_eq!(take(8, 80, 101), Arrival::First { late: false });
        assert_eq!(take(5, 50, 99), Arrival::First { late: false }, "sent before it was back");
        assert_eq!(take(6, 60, 100), Arrival::First { late: true });
    }

    #[test]
    fn a_senders_repeat_may_be_late_and_have_another_id() {
        let mut inbox = Inbox::new(1);
        let mut take = |number, id, repeat| inbox.take(number, MessageId(id), Instant::default(), repeat);
        assert_eq!(take(2, 20, false), Arrival::First { late: false });
        assert_eq!(take(1, 10, true), Arrival::First { late: false });
        // The mark is on the copy that came first, or on the other.
        assert_eq!(take(1, 11, false), Arrival::Renewed);
        assert_eq!(take(2, 21, true), Arrival::Renewed);
        assert_eq!(take(2, 20, true), Arrival::Redelivered);
    }

    #[test]
    fn a_client_gives_up_after_a_while() {
        let mut client = Client::new(0);
        let waits: Vec<_> =
            std::iter::from_fn(|| client.back_off(0, 1)).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800]);
        client.ready();
        client.retry_after_ms = 5000;
        assert_eq!(client.back_off(3, 1), Some(Duration::from_millis(5003)));
        client.ready();
        client.retry_after_ms = 0;
        let patience: Duration = std::iter::from_fn(|| client.back_off(0, 1)).sum();
        assert!((25..35).contains(&patience.as_secs()), "{patience:?}");
    }

    #[test]
    fn every_target_is_tried_before_the_wait_grows() {
        let mut client = Client::new(1);
        let tries = std::iter::from_fn(|| {
            let wait = client.back_off(0, 3)?;
            Some((client.target, wait.as_millis()))
        });
        assert_eq!(tries.take(5).collect::<Vec<_>>(), [(2, 100), (0, 100), (1, 100), (2, 200), (0, 200)]);
    }
}
