//! What the tasks of a shard do to its core and its connections; nothing in here waits.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use shard::{
    CloseReason, Closing, ConnId, ConnectError, Effect, Event, Finishing, Instant, Key, Life, Linger,
    SendBatch, Shard, Slab,
};

use super::{Runtime, ready};
use crate::mailbox::Post;
use crate::time::Time;
use crate::{Options, Stats, socket};

/// Mail taken in one turn.
const MAIL_PER_TURN: usize = 1024;

/// Receives in one turn, of all connections: as many as `uring` takes completions.
const RECEIVES_PER_TURN: usize = 1024;

/// Rounds of effects and their outcomes in one turn, before sockets are looked at again.
const ROUNDS_PER_TURN: usize = 4;

/// Empty batches kept for the next sends.
const BATCHES_MAX: usize = 64;

/// How soon a full mailbox is tried again, and looked for whether mail still waits.
const PUSH_BACK_INTERVAL: Duration = Duration::from_millis(1);

/// The core, its connections and its mail.
pub(super) struct Turn<S: Shard, R: Runtime> {
    core: S,
    post: Post<S::Mail, S::Report>,
    stats: Arc<Stats>,
    options: Arc<Options>,
    time: Time,
    connections: Slab<Connection<R::Socket>>,
    /// What the core is told when it has no more effects, oldest first.
    outcomes: VecDeque<Outcome>,
    /// Gracefully closing connections and the end of their time, earliest first: all get the same span.
    lingering: VecDeque<(Instant, ConnId)>,
    batches: Vec<SendBatch>,
    jobs: Vec<Job<R::Socket>>,
    /// Tasks that wait for the end of a turn, the first come first.
    held: VecDeque<Waker>,
    /// Connections whose readers wait until nobody pushes back.
    held_back: Vec<ConnId>,
    /// What the core said at the end of the last turn.
    core_pushes_back: bool,
    /// What the core was told last.
    mail_waits: bool,
    /// What the last [`Event::InputWaits`] said.
    input_waits: bool,
    /// Receives that are left to this turn.
    receives_left: usize,
    /// How many receives there were up to the last turn.
    receives: u64,
    /// When the first event since the last turn came in, by the clock.
    began: Option<Instant>,
    accepting: bool,
    stopped: bool,
}

struct Connection<K> {
    /// `None` once it has ended.
    socket: Option<Rc<K>>,
    /// One that has ended is there until the core is told.
    life: Life,
    /// By the core, not by the peer.
    opened: bool,
    /// A batch is in flight: from its first send until the core is told of its end.
    sending: bool,
    /// Its reader, when it waits for the end of the connection, or until nobody pushes back.
    reader: Option<Waker>,
}

enum Outcome {
    Sent { conn: ConnId, bytes: usize },
    Closed { conn: ConnId, reason: CloseReason },
    ConnectFailed { token: u64, error: ConnectError },
}

/// What needs a task of its own.
pub(super) enum Job<K> {
    /// Wait until the socket takes `batch` from byte `written` on.
    Write { conn: ConnId, socket: Rc<K>, batch: SendBatch, written: usize },
    /// Wait until the socket has connected.
    Connect { conn: ConnId, socket: Rc<K>, token: u64 },
}

/// What is to follow a turn.
pub(super) struct Next {
    /// The core has stopped.
    pub(super) stop: bool,
    /// There is more to do as soon as the sockets had their chance.
    pub(super) more: bool,
    /// When there is something to do at the latest.
    pub(super) deadline: Option<Instant>,
}

/// Whether a reader may read.
pub(super) enum Permit {
    Granted,
    /// It is woken when it is time to ask again.
    Held,
    /// The connection has ended.
    Gone,
}

impl<S: Shard, R: Runtime> Turn<S, R> {
    pub(super) fn new(
        core: S,
        post: Post<S::Mail, S::Report>,
        stats: Arc<Stats>,
        options: Arc<Options>,
    ) -> Self {
        Self {
            core_pushes_back: core.is_pushed_back(),
            core,
            post,
            stats,
            time: Time::new(options.clock, options.counts_stillness),
            options,
            connections: Slab::new(),
            outcomes: VecDeque::new(),
            lingering: VecDeque::new(),
            batches: Vec::new(),
            jobs: Vec::new(),
            held: VecDeque::new(),
            held_back: Vec::new(),
            mail_waits: false,
            input_waits: false,
            receives_left: RECEIVES_PER_TURN,
            receives: 0,
            began: None,
            accepting: true,
            stopped: false,
        }
    }

    /// Ends a turn: mail and time go to the core, its effects are carried out.
    pub(super) fn run(&mut self) -> Next {
        let now = self.begin();
        self.look_for_waiting(now);
        let all_mail = self.take_mail(now);
        let receives = self.stats.receives.get();
        let has_read = std::mem::replace(&mut self.receives, receives) != receives;
        if self.time.may_judge(has_read) {
            if self.core.poll_timeout().is_some_and(|at| at <= now) {
                self.tell(now, Event::Timeout);
            }
            self.expire(now);
        }
        self.settle(now);
        self.post.flush();
        self.core_pushes_back = self.core.is_pushed_back();
        self.receives_left = RECEIVES_PER_TURN;
        self.wake_held();
        let ended = self.time.now();
        self.stats.turns.add(1);
        let clock = self.options.clock.now();
        self.stats.turn_time.record(clock.since(self.began.take().unwrap_or(clock)));
        self.stats.stillness_ms.set(self.time.still().as_millis() as u64);
        let deadline = self.deadline(ended);
        self.time.rest_until(deadline);
        Next {
            stop: self.stopped || self.post.is_halted(),
            more: !all_mail
                || self.core.has_more()
                || !self.outcomes.is_empty()
                || !self.held.is_empty()
                || self.mail_waits != self.post.is_pushed_back(),
            deadline,
        }
    }

    /// What the turn left to tasks.
    pub(super) fn take_jobs(&mut self) -> Vec<Job<R::Socket>> {
        std::mem::take(&mut self.jobs)
    }

    /// Before waiting for a task's notice: `false` when mail came in.
    pub(super) fn park(&self) -> bool {
        self.post.park()
    }

    /// After waiting.
    pub(super) fn unpark(&self) {
        self.post.unpark();
    }

    /// How long it is until `at`.
    pub(super) fn until(&self, at: Instant) -> Duration {
        at.since(self.time.told())
    }

    /// Whether new connections are wanted.
    pub(super) fn is_accepting(&self) -> bool {
        self.accepting
    }

    /// A connection came in. `None` when there is no room for it.
    pub(super) fn accepted(
        &mut self,
        fd: OwnedFd,
        peer: IpAddr,
        listener: u16,
    ) -> Option<(ConnId, Rc<R::Socket>)> {
        self.stats.accepts.add(1);
        let added = self.add(fd, Life::open());
        let Ok((conn, socket)) = added else {
            self.stats.accepts_refused.add(1);
            return None;
        };
        self.count_open(1);
        let now = self.begin();
        self.tell(now, Event::Accepted { conn, peer, listener });
        Some((conn, socket))
    }

    /// The listener had no connection to give, for want of something.
    pub(super) fn accept_failed(&mut self) {
        self.stats.accept_errors.add(1);
    }

    /// A connect ended, or ran out of time. Whether the connection is open.
    pub(super) fn connected(&mut self, conn: ConnId, token: u64, ended: Result<(), ConnectError>) -> bool {
        let Some(connection) = self.connections.get_mut(key(conn)) else { return false };
        if !connection.life.connected() {
            return false;
        }
        let now = self.begin();
        match ended {
            Ok(()) => {
                self.stats.connects.add(1);
                self.count_open(1);
                self.tell(now, Event::Connected { conn, token });
                true
            }
            Err(error) => {
                self.connections.remove(key(conn));
                self.tell(now, Event::ConnectFailed { token, error });
                false
            }
        }
    }

    /// Asks for a reader whether it may go on; `waker` is its own.
    pub(super) fn permit(&mut self, conn: ConnId, waker: &Waker) -> Permit {
        let pushed_back = self.is_pushed_back();
        let Some(connection) = self.connections.get_mut(key(conn)) else { return Permit::Gone };
        let (life, is_finished) = (connection.life, connection.life.has_finished());
        if life.has_ended() {
            return Permit::Gone;
        }
        if life.is_open() && pushed_back && !connection.opened && !is_finished {
            if connection.reader.replace(waker.clone()).is_none() {
                self.hold_back(conn);
            }
        } else if is_finished {
            connection.reader = Some(waker.clone());
        } else if self.receives_left == 0 {
            self.held.push_back(waker.clone());
        } else {
            return Permit::Granted;
        }
        Permit::Held
    }

    /// Wakes `waker` when a turn has run.
    pub(super) fn hold(&mut self, waker: &Waker) {
        self.held.push_back(waker.clone());
    }

    /// A reader got bytes, or none at the peer's FIN, or an error.
    pub(super) fn received(&mut self, conn: ConnId, received: io::Result<&[u8]>) {
        self.receives_left = self.receives_left.saturating_sub(1);
        let Some(connection) = self.connections.get_mut(key(conn)) else { return };
        match received {
            Ok([]) => match connection.life.finish() {
                Finishing::Tell => {
                    let now = self.begin();
                    self.tell(now, Event::Finished { conn });
                }
                Finishing::End => self.wind_up(conn),
                Finishing::Ignored => {}
            },
            Ok(bytes) if connection.life.is_open() => {
                self.stats.receives.add(1);
                self.stats.bytes_in.add(bytes.len() as u64);
                let now = self.begin();
                self.tell(now, Event::Received { conn, bytes });
            }
            Ok(_) => {} // the core has closed
            Err(error) => self.fail(conn, &error),
        }
    }

    /// A writer came to its end.
    pub(super) fn written(&mut self, conn: ConnId, batch: SendBatch, ended: io::Result<()>) {
        match ended {
            Ok(()) => self.sent(conn, batch),
            Err(error) => {
                self.recycle(batch);
                self.fail(conn, &error);
            }
        }
    }

    /// Shuts every connection, so that all tasks come to their ends.
    pub(super) fn shut_all(&mut self) {
        self.accepting = false;
        let all: Vec<ConnId> = self.connections.iter().map(|(key, _)| conn_id(key)).collect();
        for conn in all {
            if let Some(connection) = self.connections.get_mut(key(conn)) {
                connection.life.end(CloseReason::Local);
            }
            self.wind_up(conn);
        }
        self.outcomes.clear();
        self.held.drain(..).for_each(Waker::wake);
        self.stats.connections.set(0);
    }

    /// The time of an event, which may be the first of a turn.
    fn begin(&mut self) -> Instant {
        let now = self.time.now();
        self.began.get_or_insert_with(|| self.options.clock.now());
        if let Some(clocks) = self.time.clocks_moved() {
            self.tell(now, Event::Clocks(clocks));
        }
        now
    }

    fn tell(&mut self, now: Instant, event: Event<'_, S::Mail>) {
        self.stats.events.add(1);
        self.core.handle(now, event);
    }

    fn hold_back(&mut self, conn: ConnId) {
        // Those that have ended are forgotten before they outnumber the others.
        if self.held_back.len() >= 2 * self.connections.len() {
            self.held_back.retain(|&conn| self.connections.get(key(conn)).is_some());
        }
        self.held_back.push(conn);
    }

    /// Tells the core of mail and of bytes of connections that wait.
    fn look_for_waiting(&mut self, now: Instant) {
        let mail_waits = self.post.is_pushed_back();
        if std::mem::replace(&mut self.mail_waits, mail_waits) != mail_waits {
            self.tell(now, Event::MailWaits(mail_waits));
        }
        let input_waits = !self.held.is_empty();
        if std::mem::replace(&mut self.input_waits, input_waits) != input_waits {
            self.tell(now, Event::InputWaits(input_waits));
        }
    }

    /// Whether nothing is taken from accepted connections.
    fn is_pushed_back(&self) -> bool {
        self.core_pushes_back || self.mail_waits || self.post.is_pushed_back()
    }

    /// Wakes the tasks that waited for this turn, no more than may receive in the next, and the readers that
    /// nobody pushes back any more.
    fn wake_held(&mut self) {
        let count = self.held.len().min(RECEIVES_PER_TURN);
        self.held.drain(..count).for_each(Waker::wake);
        if !self.is_pushed_back() {
            for conn in self.held_back.drain(..) {
                let reader = self.connections.get_mut(key(conn)).and_then(|found| found.reader.take());
                reader.into_iter().for_each(Waker::wake);
            }
        }
    }

    /// Whether the mailbox is empty now.
    fn take_mail(&mut self, now: Instant) -> bool {
        for _ in 0..MAIL_PER_TURN {
            let Some((from, mail)) = self.post.take() else { return true };
            self.tell(now, Event::Mail { from, mail });
        }
        false
    }

    /// Resets the closing connections whose time is over.
    fn expire(&mut self, now: Instant) {
        while let Some(&(at, conn)) = self.lingering.front()
            && at <= now
        {
            self.lingering.pop_front();
            let found = self.connections.get_mut(key(conn));
            if found.is_some_and(|connection| connection.life.end(CloseReason::Local)) {
                self.reset(conn);
            }
        }
    }

    /// Carries out effects and tells the core what came of them, until there are none.
    fn settle(&mut self, now: Instant) {
        for _ in 0..ROUNDS_PER_TURN {
            while let Some(effect) = self.core.poll_effect(now) {
                self.carry_out(now, effect);
                if self.stopped {
                    return;
                }
            }
            if self.outcomes.is_empty() {
                return;
            }
            for _ in 0..self.outcomes.len() {
                let outcome = self.outcomes.pop_front().expect("as many as counted");
                self.tell_outcome(now, outcome);
            }
        }
        while let Some(effect) = self.core.poll_effect(now) {
            self.carry_out(now, effect);
        }
    }

    fn carry_out(&mut self, now: Instant, effect: Effect<S::Mail, S::Report>) {
        match effect {
            Effect::Transmit { conn } => {
                if let Some(connection) = self.connections.get(key(conn))
                    && connection.life.is_open()
                    && !connection.sending
                {
                    self.write(now, conn);
                }
            }
            Effect::Close { conn, linger } => self.close(now, conn, linger),
            Effect::Connect { token, peer, source } => self.connect(token, peer, source),
            Effect::Mail { to, mail } => self.post.send(to, mail),
            Effect::Report(report) => self.post.report(report),
            Effect::StopAccepting => self.accepting = false,
            Effect::Stop => self.stopped = true,
        }
    }

    fn tell_outcome(&mut self, now: Instant, outcome: Outcome) {
        match outcome {
            Outcome::Sent { conn, bytes } => {
                let Some(connection) = self.connections.get_mut(key(conn)) else { return };
                if connection.life.has_ended() {
                    return;
                }
                connection.sending = false;
                let flushing = connection.life.is_flushing();
                self.tell(now, Event::Sent { conn, bytes });
                if flushing {
                    self.flush(now, conn);
                }
            }
            Outcome::Closed { conn, reason } => {
                self.connections.remove(key(conn));
                self.tell(now, Event::Closed { conn, reason });
            }
            Outcome::ConnectFailed { token, error } => self.tell(now, Event::ConnectFailed { token, error }),
        }
    }

    /// Takes the core's next batch for `conn` and sends it. `false` when there is none.
    fn write(&mut self, now: Instant, conn: ConnId) -> bool {
        let mut batch = self.batches.pop().unwrap_or_default();
        self.core.poll_transmit(now, conn, &mut batch);
        if batch.is_empty() {
            self.recycle(batch);
            return false;
        }
        let connection = self.connections.get_mut(key(conn)).expect("the callers found it");
        connection.sending = true;
        let socket = connection.socket.clone().expect("it has not ended");
        self.stats.sends.add(1);
        let written = match ready::send_batch(&*socket, &batch, 0) {
            Ok(written) if written == batch.len() => {
                self.sent(conn, batch);
                return true;
            }
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => {
                self.recycle(batch);
                self.fail(conn, &error);
                return true;
            }
        };
        self.jobs.push(Job::Write { conn, socket, batch, written });
        true
    }

    fn sent(&mut self, conn: ConnId, batch: SendBatch) {
        let bytes = batch.len();
        self.recycle(batch);
        self.stats.bytes_out.add(bytes as u64);
        self.outcomes.push_back(Outcome::Sent { conn, bytes });
    }

    fn recycle(&mut self, mut batch: SendBatch) {
        batch.clear();
        if self.batches.len() < BATCHES_MAX {
            self.batches.push(batch);
        }
    }

    /// What the core asks for.
    fn close(&mut self, now: Instant, conn: ConnId, linger: Linger) {
        let Some(connection) = self.connections.get_mut(key(conn)) else { return };
        match connection.life.close(linger) {
            Closing::Ignored => {}
            Closing::Reset => self.reset(conn),
            Closing::Flush => {
                // From here on it only looks for the FIN.
                connection.reader.take().into_iter().for_each(Waker::wake);
                self.lingering.push_back((now + self.options.linger, conn));
                if !connection.sending {
                    self.flush(now, conn);
                }
            }
        }
    }

    /// Goes on with a graceful close; no batch is in flight.
    fn flush(&mut self, now: Instant, conn: ConnId) {
        if self.write(now, conn) {
            return;
        }
        let connection = self.connections.get_mut(key(conn)).expect("it was there to write to");
        let socket = connection.socket.as_ref().expect("it has not ended");
        let is_cut = socket::finish_writing(&**socket).is_err();
        if connection.life.drain(is_cut) {
            self.wind_up(conn);
        }
    }

    /// A connection has ended whose peer is to see a reset.
    fn reset(&mut self, conn: ConnId) {
        if let Some(socket) = self.connections.get(key(conn)).and_then(|it| it.socket.as_ref()) {
            socket::reset(&**socket);
        }
        self.wind_up(conn);
    }

    fn fail(&mut self, conn: ConnId, error: &io::Error) {
        let Some(connection) = self.connections.get_mut(key(conn)) else { return };
        if connection.life.fail(ready::close_reason(error)) {
            self.wind_up(conn);
        }
    }

    /// A connection has ended: its tasks wake up and drop the socket, and the core is told.
    fn wind_up(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(key(conn)) else { return };
        let Some(reason) = connection.life.ended() else { return };
        let Some(socket) = connection.socket.take() else { return };
        connection.reader.take().into_iter().for_each(Waker::wake);
        ready::shutdown(&*socket);
        self.count_open(-1);
        self.outcomes.push_back(Outcome::Closed { conn, reason });
    }

    fn connect(&mut self, token: u64, peer: SocketAddr, source: Option<IpAddr>) {
        let begun =
            ready::connect(peer, source, &self.options).and_then(|fd| self.add(fd, Life::connecting()));
        match begun {
            Ok((conn, socket)) => self.jobs.push(Job::Connect { conn, socket, token }),
            Err(error) => self.outcomes.push_back(Outcome::ConnectFailed { token, error }),
        }
    }

    fn add(&mut self, fd: OwnedFd, life: Life) -> Result<(ConnId, Rc<R::Socket>), ConnectError> {
        if self.connections.len() >= self.options.connections_max as usize {
            return Err(ConnectError::Exhausted);
        }
        let socket = Rc::new(R::socket(fd).map_err(|error| socket::why(&error))?);
        let connection = Connection {
            socket: Some(socket.clone()),
            life,
            opened: life.is_connecting(),
            sending: false,
            reader: None,
        };
        Ok((conn_id(self.connections.insert(connection)), socket))
    }

    fn count_open(&self, more: i64) {
        let open = &self.stats.connections;
        open.set(open.get().wrapping_add_signed(more));
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        if let Some(look) = self.time.next_look() {
            return Some(look);
        }
        let retry = self.mail_waits.then(|| now + PUSH_BACK_INTERVAL);
        let linger = self.lingering.front().map(|(at, _)| *at);
        [self.core.poll_timeout(), linger, retry].into_iter().flatten().min()
    }
}

fn key(conn: ConnId) -> Key {
    Key { index: conn.index, generation: conn.generation }
}

fn conn_id(key: Key) -> ConnId {
    ConnId { index: key.index, generation: key.generation }
}
