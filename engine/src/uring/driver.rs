//! The loop.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Duration;

use io_uring::opcode;
use io_uring::types::Fd;
use shard::{ConnId, ConnectError, Effect, Event, Instant, Life, Shard, ShardId};

use super::conns::{Conn, Conns};
use super::file;
use super::group::{Group, PerGroup};
use super::held::Held;
use super::kernel::Kernel;
use super::ring::Completion;
use super::token::{CONNECTIONS_MAX, Op, Token};
use crate::seat::Seat;
use crate::socket::ACCEPT_PAUSE;
use crate::time::Time;

/// Completions worked off in one turn: enough to batch well, few enough that mail and timers wait a
/// millisecond at most.
const COMPLETIONS_PER_TURN: usize = 1024;
/// Mail worked off in one turn.
const MAIL_PER_TURN: usize = 1024;
/// How many accepts are armed at once, of all listeners together, if connections past the open files go to
/// rings: each accept holds an open file until its connection is in its ring. A multishot one takes all that
/// come, and with them the files of others.
const ACCEPTS_AT_ONCE: u16 = 64;
/// How long a shard whose mail waits sleeps at most before it tries again.
const PUSHED_BACK_PAUSE: Duration = Duration::from_micros(100);
/// How long a shard sleeps at most that reads no client because mail of others waits.
const READERS_PAUSE: Duration = Duration::from_millis(1);

/// One shard at work.
pub(super) struct Driver<S: Shard> {
    pub(super) core: S,
    pub(super) seat: Seat<S::Mail, S::Report>,
    time: Time,
    pub(super) kernel: Kernel,
    pub(super) conns: Conns,
    /// Events for the core at the start of the next turn.
    pub(super) news: VecDeque<News>,
    /// Closing connections with the end of their linger time.
    pub(super) lingers: VecDeque<(Instant, ConnId)>,
    pub(super) held: PerGroup<Held>,
    /// What the core said at the end of the last turn.
    pub(super) core_pushes_back: bool,
    /// What the core was told at the start of the turn.
    pub(super) mail_waits: bool,
    /// What the last [`Event::InputWaits`] said.
    input_waits: bool,
    /// Where the further rings begin in this turn.
    first_ring: usize,
    /// How many receives there were up to the last turn.
    receives: u64,
    /// Which listeners have an accept to be armed.
    idle_listeners: Vec<u16>,
    /// When to accept again after a failure.
    accept_at: Option<Instant>,
    stopped: bool,
}

/// Events for the core that no completion reports.
pub(super) enum News {
    /// A connection's operations have all ended.
    Gone(ConnId),
    /// A connect failed before it reached the kernel.
    ConnectFailed(u64, ConnectError),
}

impl<S: Shard> Driver<S> {
    pub(super) fn new(seat: Seat<S::Mail, S::Report>, build: impl FnOnce(ShardId) -> S) -> io::Result<Self> {
        let kernel = Kernel::new(&seat.options)?;
        let core = build(seat.id);
        let listeners = seat.listeners.len() as u16;
        let accepts = if seat.options.has_rings() { (ACCEPTS_AT_ONCE / listeners.max(1)).max(1) } else { 1 };
        Ok(Self {
            core_pushes_back: core.is_pushed_back(),
            mail_waits: false,
            input_waits: false,
            core,
            time: Time::new(seat.options.clock, seat.options.counts_stillness),
            seat,
            kernel,
            conns: Conns::default(),
            news: VecDeque::new(),
            lingers: VecDeque::new(),
            held: PerGroup::default(),
            first_ring: 0,
            receives: 0,
            idle_listeners: (0..accepts).flat_map(|_| 0..listeners).collect(),
            accept_at: None,
            stopped: false,
        })
    }

    pub(super) fn run(mut self) -> io::Result<()> {
        self.listen_for_mail()?;
        self.accept()?;
        self.kernel.submit()?;
        self.seat.ready();
        let mut now = self.time.now();
        loop {
            if let Some(clocks) = self.time.clocks_moved() {
                self.tell(now, Event::Clocks(clocks));
            }
            self.look_for_push_back(now);
            self.take_news(now)?;
            self.take_completions(now)?;
            self.look_for_input(now);
            self.take_mail(now);
            self.take_time(now)?;
            self.take_effects(now)?;
            self.seat.post.flush();
            if self.stopped || self.seat.post.is_halted() {
                return Ok(());
            }
            self.core_pushes_back = self.core.is_pushed_back();
            self.receive_again()?;
            now = self.wait()?;
        }
    }

    fn look_for_push_back(&mut self, now: Instant) {
        let mail_waits = self.seat.post.is_pushed_back();
        if std::mem::replace(&mut self.mail_waits, mail_waits) != mail_waits {
            self.tell(now, Event::MailWaits(mail_waits));
        }
    }

    /// Checks whether this turn leaves bytes of connections unread. The core gets that before it judges
    /// anybody by the time.
    fn look_for_input(&mut self, now: Instant) {
        let is_held = Group::ALL.into_iter().any(|group| !self.held[group].is_empty());
        let input_waits = is_held || self.kernel.has_unread();
        if std::mem::replace(&mut self.input_waits, input_waits) != input_waits {
            self.tell(now, Event::InputWaits(input_waits));
        }
    }

    fn take_news(&mut self, now: Instant) -> io::Result<()> {
        while let Some(news) = self.news.pop_front() {
            match news {
                News::Gone(conn) => self.bury(now, conn)?,
                News::ConnectFailed(token, error) => self.tell(now, Event::ConnectFailed { token, error }),
            }
        }
        Ok(())
    }

    fn take_completions(&mut self, now: Instant) -> io::Result<()> {
        for group in Group::ALL {
            self.receive_held(now, group, COMPLETIONS_PER_TURN)?;
        }
        let mut left = COMPLETIONS_PER_TURN;
        // The main ring goes first: it shows which others have something, and leads to other nodes. The
        // others take turns, in case they have more together than a turn takes.
        self.take_completions_of(now, 0, &mut left)?;
        let further = self.kernel.rings() - 1;
        for turn in 0..further {
            let ring = 1 + (self.first_ring + turn) % further;
            self.take_completions_of(now, ring, &mut left)?;
        }
        self.first_ring = self.first_ring.wrapping_add(1);
        Ok(())
    }

    /// Works off up to `left` completions of a ring, and counts them there.
    fn take_completions_of(&mut self, now: Instant, ring: usize, left: &mut usize) -> io::Result<()> {
        while *left > 0
            && let Some(completion) = self.kernel.next(ring)
        {
            *left -= 1;
            match completion.token.op() {
                Op::ReceiveAccepted => self.receive_or_hold(now, Group::Accepted, completion)?,
                Op::ReceiveOpened => self.receive_or_hold(now, Group::Opened, completion)?,
                Op::Discard => self.on_discard(now, completion)?,
                Op::Send => self.on_send(now, completion)?,
                Op::Accept => self.on_accept(now, completion)?,
                Op::Connect => self.on_connect(now, completion)?,
                Op::Bell if completion.has_more() => {}
                Op::Bell => self.listen_for_mail()?,
                Op::Ring => self.kernel.take_in(completion.token.ring_number())?,
                Op::Cancel | Op::Close | Op::Install => {}
            }
        }
        Ok(())
    }

    fn take_mail(&mut self, now: Instant) {
        for _ in 0..MAIL_PER_TURN {
            let Some((from, mail)) = self.seat.post.take() else { break };
            self.tell(now, Event::Mail { from, mail });
        }
    }

    fn take_time(&mut self, now: Instant) -> io::Result<()> {
        let receives = self.seat.stats.receives.get();
        let has_read = std::mem::replace(&mut self.receives, receives) != receives;
        if !self.time.may_judge(has_read) {
            return Ok(());
        }
        if self.core.poll_timeout().is_some_and(|due| due <= now) {
            self.tell(now, Event::Timeout);
        }
        if self.accept_at.is_some_and(|due| due <= now) {
            self.accept_at = None;
            self.accept()?;
        }
        self.end_lingers(now)?;
        self.give_up_connects(now)
    }

    fn take_effects(&mut self, now: Instant) -> io::Result<()> {
        while let Some(effect) = self.core.poll_effect(now) {
            match effect {
                Effect::Transmit { conn } => self.transmit(now, conn)?,
                Effect::Close { conn, linger } => self.close(now, conn, linger)?,
                Effect::Connect { token, peer, source } => self.connect(now, token, peer, source)?,
                Effect::Mail { to, mail } => self.seat.post.send(to, mail),
                Effect::Report(report) => self.seat.post.report(report),
                Effect::StopAccepting => self.stop_accepting(),
                Effect::Stop => self.stopped = true,
            }
        }
        Ok(())
    }

    /// Ends the turn: hands over what it queued and sleeps until there is something to do. Tells the time of
    /// the next turn.
    fn wait(&mut self) -> io::Result<Instant> {
        let now = self.time.now();
        self.seat.stats.turns.add(1);
        self.seat.stats.turn_time.record(self.time.gap());
        let has_work = self.core.has_more()
            || self.kernel.is_ready()
            || !self.news.is_empty()
            || self.mail_waits != self.seat.post.is_pushed_back()
            || Group::ALL.into_iter().any(|group| self.has_intake(group));
        let due = self.next_due(now);
        if has_work || due.is_some_and(|due| due <= now) || !self.seat.post.park() {
            self.kernel.submit()?;
        } else {
            self.time.rest_until(due);
            self.kernel.submit_and_wait(due.map(|due| due.since(now)))?;
            self.seat.post.unpark();
        }
        let now = self.time.now();
        self.seat.stats.stillness_ms.set(self.time.still().as_millis() as u64);
        Ok(now)
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        if let Some(look) = self.time.next_look() {
            return Some(look);
        }
        let due = [
            self.core.poll_timeout(),
            self.accept_at,
            self.lingers.front().map(|(due, _)| *due),
            self.kernel.connects.next_due(),
            self.seat.post.has_waiting().then(|| now + PUSHED_BACK_PAUSE),
            self.mail_waits.then(|| now + READERS_PAUSE),
        ];
        due.into_iter().flatten().min()
    }

    fn listen_for_mail(&mut self) -> io::Result<()> {
        // Multishot: every write to the eventfd completes it once more, so nobody has to read it.
        let poll = opcode::PollAdd::new(Fd(self.seat.post.bell()), libc::POLLIN as u32).multi(true).build();
        self.kernel.main.push_plain(poll, Token::new(Op::Bell))
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Some(number) = self.idle_listeners.pop() {
            let Some(listener) = self.seat.listeners.get(usize::from(number)) else { continue };
            let (listener, flags) = (Fd(listener.as_raw_fd()), libc::SOCK_CLOEXEC);
            let accept = if self.seat.options.has_rings() {
                opcode::Accept::new(listener, ptr::null_mut(), ptr::null_mut()).flags(flags).build()
            } else {
                opcode::AcceptMulti::new(listener).flags(flags).build()
            };
            self.kernel.main.push_plain(accept, Token::accept(number))?;
        }
        Ok(())
    }

    fn on_accept(&mut self, now: Instant, completion: Completion) -> io::Result<()> {
        if completion.result >= 0 {
            self.take_connection(now, completion.result, completion.token.listener())?;
        } else {
            self.on_accept_error(now, -completion.result);
        }
        if !completion.has_more() {
            self.idle_listeners.push(completion.token.listener());
            if self.accept_at.is_none() {
                self.accept()?;
            }
        }
        Ok(())
    }

    fn take_connection(&mut self, now: Instant, accepted: i32, listener: u16) -> io::Result<()> {
        let socket = file::received(accepted);
        if self.seat.listeners.is_empty() {
            return Ok(()); // it came while the listener closed
        }
        self.seat.stats.accepts.add(1);
        let adopted = match file::peer_of(&socket) {
            Ok(peer) if self.has_room() => {
                self.kernel.adopt(socket, Group::Accepted).map(|file| (peer, file))
            }
            Ok(_) => Err(io::ErrorKind::QuotaExceeded.into()),
            Err(error) => Err(error),
        };
        let Ok((peer, file)) = adopted else {
            self.seat.stats.accepts_refused.add(1);
            return Ok(());
        };
        let conn = self.conns.insert(Conn::new(file, Life::open(), Group::Accepted));
        self.count_connections();
        self.tell(now, Event::Accepted { conn, peer, listener });
        self.receive(conn)
    }

    fn on_accept_error(&mut self, now: Instant, errno: i32) {
        match errno {
            libc::ECANCELED | libc::EINVAL => {} // the listener is closed
            // The connection was gone before it was taken.
            libc::ECONNABORTED | libc::EINTR | libc::EAGAIN | libc::EPROTO | libc::EPERM => {}
            _ => {
                self.seat.stats.accept_errors.add(1);
                self.accept_at = Some(now + ACCEPT_PAUSE);
            }
        }
    }

    /// Shutting a listener down ends the accept that is armed.
    fn stop_accepting(&mut self) {
        self.accept_at = None;
        for listener in self.seat.listeners.drain(..) {
            let _ = listener.shutdown(std::net::Shutdown::Both); // closed either way
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.conns.len() < self.seat.options.connections_max.min(CONNECTIONS_MAX) as usize
    }

    pub(super) fn count_connections(&self) {
        self.seat.stats.connections.set(self.conns.len() as u64);
    }

    pub(super) fn tell(&mut self, now: Instant, event: Event<'_, S::Mail>) {
        self.seat.stats.events.add(1);
        self.core.handle(now, event);
    }
}
