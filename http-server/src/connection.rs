//! One connection: its phase, and how long it may be in it.

use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits::Limits;
use crate::stats::Cut;
use crate::stream::Stream;

/// How long a connection that is closed reads what is still on its way, so that the kernel does not throw the
/// answer away.
pub const LINGER_TIME: Duration = Duration::from_secs(2);
/// How much it reads.
const LINGER_BYTES_MAX: usize = 16 << 20;
/// How long a connection may wait for its caller before it goes for another one.
const GRACE: Duration = Duration::from_millis(250);
/// Longer than any handler takes.
const NO_TIMEOUT: Duration = Duration::from_secs(86_400);

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The header of a request comes, or the first one is awaited.
    Header,
    /// The request waits for its turn.
    Queue,
    /// A handler works. It reads the body, within a time of its own.
    Request,
    /// The answer leaves.
    Answer,
    /// No request is under way.
    Idle,
    /// The answer has left, and what the caller still sends is thrown away.
    Closing,
}

/// One connection, as the table of all and its own task see it.
pub struct Connection {
    /// Connections are numbered as they come.
    pub id: u64,
    /// The caller whose share it takes from.
    pub address: IpAddr,
    state: Mutex<State>,
    asked_to_go: Notify,
    has_answered: Notify,
}

struct State {
    phase: Phase,
    since: Instant,
    /// The answer is in the hands of the writer.
    answer_ended: bool,
    /// The caller may be sending what nobody reads.
    may_send: bool,
    /// It was asked to go while its request waited for its turn.
    may_leave_queue: bool,
}

impl Connection {
    pub fn new(id: u64, address: IpAddr, now: Instant) -> Self {
        let state = State {
            phase: Phase::Header,
            since: now,
            answer_ended: false,
            may_send: false,
            may_leave_queue: false,
        };
        Self {
            id,
            address,
            state: Mutex::new(state),
            asked_to_go: Notify::new(),
            has_answered: Notify::new(),
        }
    }

    /// How dispensable a connection is that waits, and since when; the least goes first. `None` for one at
    /// work.
    pub fn waits(&self) -> Option<(u8, Instant)> {
        let State { phase, since, .. } = *self.state();
        match phase {
            Phase::Closing => Some((0, since)),
            Phase::Header => Some((1, since)),
            Phase::Idle => Some((2, since)),
            Phase::Queue => Some((3, since)),
            Phase::Request | Phase::Answer => None,
        }
    }

    /// Whether it waits for a request.
    pub fn awaits_request(&self) -> bool {
        matches!(self.state().phase, Phase::Header | Phase::Idle)
    }

    /// When it has waited long enough to go for another one.
    pub fn grace_ends(&self) -> Instant {
        self.state().since + GRACE
    }

    /// Asks its task to end it, unless its caller has asked for something meanwhile. Returns when it has
    /// ended, or stays.
    pub async fn ask_to_go(&self) {
        let was_in_queue = self.is_in_queue();
        self.state().may_leave_queue = was_in_queue;
        self.asked_to_go.notify_one();
        self.has_answered.notified().await;
    }

    /// Whether it goes when it is asked. One that was asked before its request came does not leave the queue
    /// for that.
    pub fn is_to_go(&self) -> bool {
        let may_leave_queue = self.state().may_leave_queue;
        self.waits().is_some() && (may_leave_queue || !self.is_in_queue())
    }

    /// Waits until it is asked to go.
    pub async fn asked_to_go(&self) {
        self.asked_to_go.notified().await;
    }

    /// It has ended, or stays.
    pub fn answer_to_go(&self) {
        self.has_answered.notify_one();
    }

    /// When its phase has lasted too long.
    pub fn deadline(&self, limits: &Limits) -> Instant {
        let State { phase, since, .. } = *self.state();
        since + timeout(phase, limits).map_or(NO_TIMEOUT, |(timeout, _)| timeout)
    }

    /// Why it is to be closed, if its phase has lasted too long.
    pub fn overdue(&self, limits: &Limits, now: Instant) -> Option<Cut> {
        let State { phase, since, .. } = *self.state();
        timeout(phase, limits).filter(|(timeout, _)| since + *timeout <= now).map(|(_, cut)| cut)
    }

    /// A request has come, with or without a body.
    pub fn asked(&self, has_body: bool) {
        let mut state = self.state();
        state.enter(Phase::Request);
        state.may_send = has_body;
    }

    /// Its request waits for its turn.
    pub fn queues(&self) {
        self.state().enter(Phase::Queue);
    }

    /// Its request's turn has come.
    pub fn works(&self) {
        self.state().enter(Phase::Request);
    }

    /// Whether it waits for that.
    pub fn is_in_queue(&self) -> bool {
        self.state().phase == Phase::Queue
    }

    /// The handler has answered.
    pub fn answers(&self) {
        let mut state = self.state();
        state.answer_ended = false;
        state.enter(Phase::Answer);
    }

    /// All of the answer is in the writer's hands.
    pub fn answer_ended(&self) {
        self.state().answer_ended = true;
    }

    /// All that was in the writer's hands has left.
    pub fn flushed(&self) {
        let mut state = self.state();
        if state.phase == Phase::Answer && state.answer_ended {
            state.enter(Phase::Idle);
        }
    }

    fn received(&self) {
        let mut state = self.state();
        match state.phase {
            Phase::Idle => {
                state.enter(Phase::Header);
                state.may_send = true;
            }
            Phase::Header => state.may_send = true,
            Phase::Queue | Phase::Request | Phase::Answer | Phase::Closing => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }
}

/// How long a phase may last, and what its end is counted as.
fn timeout(phase: Phase, limits: &Limits) -> Option<(Duration, Cut)> {
    match phase {
        Phase::Header => Some((limits.header_timeout(), Cut::Header)),
        Phase::Queue | Phase::Request => None,
        Phase::Answer => Some((limits.answer_timeout(), Cut::Answer)),
        Phase::Idle => Some((limits.idle_timeout(), Cut::Idle)),
        Phase::Closing => Some((LINGER_TIME, Cut::Answer)),
    }
}

/// The socket of a connection, which tells it what was read and written.
pub struct Socket {
    stream: Stream,
    connection: Arc<Connection>,
    is_shut: bool,
    linger_bytes: usize,
}

impl Socket {
    pub fn new(stream: Stream, connection: Arc<Connection>) -> Self {
        Self { stream, connection, is_shut: false, linger_bytes: LINGER_BYTES_MAX }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.connection.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes once all that it had to write is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.connection.flushed();
        Poll::Ready(Ok(()))
    }

    /// A socket that is closed with bytes in it unread resets the connection, and the caller may never see
    /// the answer to what it was still sending. So they are read first.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.is_shut = true;
            let mut state = self.connection.state();
            if !state.may_send {
                return Poll::Ready(Ok(()));
            }
            state.enter(Phase::Closing);
        }
        let mut space = [MaybeUninit::uninit(); 4_096];
        while self.linger_bytes > 0 {
            let mut buffer = ReadBuf::uninit(&mut space);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    self.linger_bytes = self.linger_bytes.saturating_sub(buffer.filled().len());
                }
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The body of an answer, which tells its connection when it has ended.
pub struct Answer {
    body: Body,
    connection: Arc<Connection>,
}

impl Answer {
    pub fn new(body: Body, connection: Arc<Connection>) -> Self {
        Self { body, connection }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.answer_ended();
    }
}
