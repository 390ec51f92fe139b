//! Connecting and logging in: as fast as it succeeds or at a rate, with a bounded number on the way.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use edge::ClientLayers;
use shard::{ConnId, ConnectError, Effect, Instant, Linger};
use wire::client::ClientFrame;

use super::{Fleet, Phase};
use crate::client::{Inbox, State};
use crate::plan::{Plan, Scenario};
use crate::schedule::Schedule;
use crate::tally::count;

/// Heartbeats that fall into this time leave together: each by itself would be a wake-up of the generator,
/// which then costs more than the server that it loads.
const HEARTBEAT_GROUP: Duration = Duration::from_millis(10);

/// Which client connects when.
pub(super) struct Arrivals {
    /// The first of those that have not tried.
    fresh: u32,
    /// When they do: `Begin` has come.
    begun: Option<Instant>,
    /// Their times, if they come at a rate.
    schedule: Option<Schedule>,
    /// Those that come again, and not before when.
    back: BinaryHeap<Reverse<(Instant, u32)>>,
    /// Between the connect and ready.
    on_the_way: u32,
    clients: u32,
    window: u32,
    rate: Option<f64>,
}

impl Arrivals {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            fresh: 0,
            begun: None,
            schedule: None,
            back: BinaryHeap::new(),
            on_the_way: 0,
            clients: plan.clients,
            window: plan.connect_window.max(1),
            rate: plan.connect_rate,
        }
    }

    pub(super) fn begin(&mut self, at: Instant) {
        self.begun = Some(at);
        self.schedule = self.rate.map(|rate| Schedule::new(at, rate, u64::MAX));
    }

    pub(super) fn come_back(&mut self, at: Instant, client: u32) {
        self.back.push(Reverse((at, client)));
    }

    /// A client on its way has arrived or failed.
    pub(super) fn left_the_way(&mut self) {
        self.on_the_way -= 1;
    }

    /// The next client that may connect, and since when it wants to.
    fn next(&mut self, now: Instant) -> Option<(u32, Instant)> {
        if self.on_the_way >= self.window {
            return None;
        }
        if let Some(Reverse((at, client))) = self.back.peek().copied()
            && at <= now
        {
            self.back.pop();
            return Some((client, at));
        }
        if self.fresh == self.clients || self.begun.is_none_or(|at| now < at) {
            return None;
        }
        let since = match &mut self.schedule {
            Some(schedule) => schedule.take(now)?.1,
            None => now,
        };
        self.fresh += 1;
        Some((self.fresh - 1, since))
    }

    /// When [`Arrivals::next`] can have somebody; `None` while the window is full.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.on_the_way >= self.window {
            return None;
        }
        let back = self.back.peek().map(|Reverse((at, _))| *at);
        let fresh = if self.fresh == self.clients {
            None
        } else {
            self.schedule.map_or(self.begun, |schedule| schedule.due())
        };
        [back, fresh].into_iter().flatten().min()
    }
}

impl Fleet {
    pub(super) fn start_connects(&mut self, now: Instant) {
        while let Some((client, since)) = self.arrivals.next(now) {
            self.arrivals.on_the_way += 1;
            if self.plan.scenario == Scenario::Storm {
                self.tally.sent += 1;
            }
            let state = &mut self.clients[client as usize];
            state.state = State::Connecting;
            state.since = since;
            self.effects.push_back(Effect::Connect {
                token: u64::from(client),
                peer: self.plan.targets[usize::from(state.target)],
                source: self.plan.sources.map(|sources| sources.address(client)),
            });
        }
    }

    pub(super) fn connected(&mut self, conn: ConnId, c: usize) {
        self.connected.insert(conn, c as u32);
        let client = &mut self.clients[c];
        client.conn = Some(conn);
        if client.state != State::Connecting {
            // It has been given up meanwhile.
            return self.end(c, "too_late");
        }
        client.state = State::LoggingIn;
        if let Some(port) = self.ports.get(usize::from(client.target)) {
            let seed = u64::from(self.plan.run) << 32 | c as u64;
            match ClientLayers::new(port, seed) {
                Ok(layers) => client.layers = layers.map(Box::new),
                Err(broken) => return self.end(c, broken.name),
            }
        }
        let token = (self.mint)(self.plan.app, self.plan.user(self.global(c)));
        self.write(c, &ClientFrame::Login { token: Cow::Owned(token) });
    }

    pub(super) fn connect_failed(&mut self, now: Instant, c: usize, error: ConnectError) {
        let (name, hopeless) = match error {
            ConnectError::Refused => ("refused", false),
            ConnectError::TimedOut => ("timed_out", false),
            ConnectError::Unreachable => ("unreachable", self.plan.targets.len() == 1),
            ConnectError::Exhausted => ("exhausted", true),
            ConnectError::Other => ("other", false),
        };
        count(&mut self.tally.connect_errors, name);
        self.arrivals.left_the_way();
        self.retry(now, c, hopeless);
    }

    /// The server has the login: goes on to the room, if there is one.
    pub(super) fn logged_in(&mut self, now: Instant, c: usize, heartbeat_ms: u32) {
        if self.clients[c].state != State::LoggingIn {
            return;
        }
        let period_ms = self.plan.heartbeat_ms.unwrap_or(heartbeat_ms);
        if self.heartbeats.is_none() && period_ms > 0 {
            let rate = f64::from(self.plan.clients) * 1000.0 / f64::from(period_ms);
            self.heartbeats = Some(Schedule::new(now, rate, u64::MAX).in_groups(HEARTBEAT_GROUP));
        }
        if self.plan.scenario.has_rooms() {
            self.clients[c].state = State::Joining;
            let room = self.plan.room(self.plan.room_index(self.global(c)));
            self.write(c, &ClientFrame::Join { room, want: None });
        } else {
            self.arrived(now, c);
        }
    }

    /// The client is in its room: everything past `sequence` will come.
    pub(super) fn joined(&mut self, now: Instant, c: usize, sequence: u64) {
        let client = &mut self.clients[c];
        if client.state != State::Joining {
            return;
        }
        match &mut client.inbox {
            None => client.inbox = Some(Box::new(Inbox::new(sequence + 1))),
            // What passed while it was away.
            Some(inbox) => inbox.order.skip_to(sequence + 1),
        }
        self.arrived(now, c);
    }

    fn arrived(&mut self, now: Instant, c: usize) {
        self.arrivals.left_the_way();
        self.ready += 1;
        self.ready_at = now;
        self.clients[c].ready();
        if let Some(inbox) = &mut self.clients[c].inbox {
            inbox.reconnect(now);
        }
        if self.plan.scenario == Scenario::Storm {
            self.tally.accepted += 1;
            self.tally.delivered += 1;
            self.tally.measured += 1;
        }
        match self.clients[c].lost.take() {
            Some(lost) => {
                self.tally.reconnect.record(now.since(lost));
                self.tally.back_at_ns = now.unix_nanos();
            }
            None => {
                self.tally.login.record(now.since(self.clients[c].since));
                self.tally.ready_at_ns = now.unix_nanos();
            }
        }
        let unanswered: Vec<_> = self.clients[c].outbox.unanswered().collect();
        for number in unanswered {
            self.write_message(now, c, number);
        }
        self.settle();
    }

    /// A connect or a connection failed: comes again later and at the next target, or never.
    pub(super) fn retry(&mut self, now: Instant, c: usize, hopeless: bool) {
        let targets = self.plan.targets.len() as u16;
        let wait = self.clients[c].back_off(c as u32, targets).filter(|_| !hopeless);
        self.clients[c].disconnect();
        if self.clients[c].state == State::Failed {
            return;
        }
        match wait {
            Some(wait) => {
                self.clients[c].state = State::Away;
                self.arrivals.come_back(now + wait, c as u32);
            }
            None => {
                self.clients[c].state = State::Failed;
                self.failed += 1;
                self.settle();
            }
        }
    }

    /// Whoever is not ready has failed.
    pub(super) fn give_up_waiting(&mut self) {
        self.arrivals.fresh = self.arrivals.clients;
        self.arrivals.back.clear();
        for c in 0..self.clients.len() {
            let client = &mut self.clients[c];
            if matches!(client.state, State::Ready | State::Failed) {
                continue;
            }
            client.state = State::Failed;
            self.failed += 1;
            count(&mut self.tally.connect_errors, "no_answer");
        }
        self.settle();
    }

    /// Resets every connection at once; each comes back as soon as it is closed.
    pub(super) fn reset_all(&mut self, at: Instant) {
        self.phase = Phase::Returning;
        self.ready_at = at;
        for client in &mut self.clients {
            if client.state != State::Ready {
                continue;
            }
            let Some(conn) = client.conn else { continue };
            client.state = State::Closing;
            client.since = at;
            client.lost = Some(at);
            self.ready -= 1;
            self.effects.push_back(Effect::Close { conn, linger: Linger::Abort });
        }
        self.settle();
    }
}
