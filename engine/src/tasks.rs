//! The engines that stand on an async runtime: `monoio`, `epoll` and `glommio`.
//!
//! A task for each connection waits for the socket and then receives into the one buffer of the shard, so an
//! idle connection holds none. What comes in goes to the core at once; what the core wants done is done by
//! [`turns`], which runs when all tasks that were ready have run. So what met in one turn leaves in one send.
//! A send that the socket does not take whole is finished by a task of its own.
//!
//! No task holds a borrow of the shared state while it waits. No task wakes itself, because monoio would run
//! it again before all others and without a look at the sockets: a task with more to do is woken by
//! [`turns`], and [`turns`] rings the shard's own bell.

mod ready;
mod turn;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use shard::{ConnId, ConnectError, Instant, SendBatch, Shard, ShardId};

use crate::seat::Seat;
use crate::socket::{self, ACCEPT_PAUSE, CONNECT_TIME};
pub(crate) use ready::{connected, receive, send};
use turn::{Job, Permit, Turn};

/// Connections taken from the listener in one turn.
const ACCEPTS_PER_TURN: usize = 64;

/// Receives of one connection in one turn.
const RECEIVES_PER_TURN: usize = 8;

/// Size of the buffer that a shard's connections receive into.
const RECEIVE_BYTES: usize = 64 * 1024;

/// How long tasks may take to end after their sockets are shut.
const END_TIME_MAX: Duration = Duration::from_secs(1);

/// The buffer all connections of a shard receive into. It is borrowed only between two waits.
pub(crate) type ReceiveBuffer = Rc<RefCell<Box<[u8]>>>;

/// What the tasks need of a runtime, always called from within it.
pub(crate) trait Runtime: 'static {
    /// A stream socket that can be waited for. Closes when dropped.
    type Socket: AsFd + 'static;
    /// Another descriptor that can be waited for: an eventfd, or a listener.
    type Watch: AsFd + 'static;

    /// Takes over a non-blocking stream socket.
    fn socket(fd: OwnedFd) -> io::Result<Self::Socket>;

    /// Takes over a non-blocking descriptor.
    fn watch(fd: OwnedFd) -> io::Result<Self::Watch>;

    /// Waits for bytes and puts them at the front of `buffer`, where they are until the task waits again.
    /// Answers how many; 0 at the peer's FIN.
    fn receive(socket: &Self::Socket, buffer: &ReceiveBuffer) -> impl Future<Output = io::Result<usize>>;

    /// Waits until the socket takes some of `bytes`, and answers how many.
    fn send(socket: &Self::Socket, bytes: &[u8]) -> impl Future<Output = io::Result<usize>>;

    /// Waits until a connect has come to an end.
    fn connected(socket: &Self::Socket) -> impl Future<Output = io::Result<()>>;

    /// Waits until there is something to read or accept.
    fn readable(watch: &Self::Watch) -> impl Future<Output = io::Result<()>>;

    /// Waits.
    fn sleep(time: Duration) -> impl Future<Output = ()> + 'static;

    /// Runs `task` beside the others. It may begin before this returns.
    fn spawn(task: impl Future<Output = ()> + 'static);
}

/// Runs the shard until its core stops. To be awaited as the main task of the runtime.
pub(crate) async fn run<S, R>(
    mut seat: Seat<S::Mail, S::Report>,
    build: impl FnOnce(ShardId) -> S,
) -> io::Result<()>
where
    S: Shard + 'static,
    R: Runtime,
{
    let core = build(seat.id);
    let bell = ready::duplicate(seat.post.bell())?;
    let watch = R::watch(bell.try_clone()?)?;
    let mut listeners = Vec::new();
    for listener in std::mem::take(&mut seat.listeners) {
        listener.set_nonblocking(true)?;
        listeners.push(R::watch(listener.into())?);
    }
    seat.ready();
    let Seat { post, stats, options, .. } = seat;
    let shared = Rc::new(Shared::<S, R> {
        turn: RefCell::new(Turn::new(core, post, stats, options)),
        buffer: Rc::new(RefCell::new(vec![0; RECEIVE_BYTES].into())),
        bell,
        due: Signal::default(),
        acceptors: listeners.iter().map(|_| Signal::default()).collect(),
        ringer: Signal::default(),
        ending: Cell::new(false),
    });
    R::spawn(ring(shared.clone(), watch));
    for (number, listener) in listeners.into_iter().enumerate() {
        R::spawn(accept(shared.clone(), listener, number));
    }
    turns(&shared).await;
    end(shared).await;
    Ok(())
}

/// What the tasks of a shard share.
struct Shared<S: Shard, R: Runtime> {
    turn: RefCell<Turn<S, R>>,
    buffer: ReceiveBuffer,
    /// An eventfd.
    bell: OwnedFd,
    /// For [`turns`]: something happened.
    due: Signal,
    /// For each [`accept`] and for [`ring`]: look whether to go on.
    acceptors: Box<[Signal]>,
    ringer: Signal,
    ending: Cell<bool>,
}

/// Wakes one task, once for any number of reasons.
#[derive(Default)]
struct Signal {
    raised: Cell<bool>,
    waiting: Cell<Option<Waker>>,
}

impl Signal {
    fn raise(&self) {
        self.raised.set(true);
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    /// Whether it was raised since the last time it was; if not, its next raise wakes the task.
    fn poll(&self, cx: &Context<'_>) -> bool {
        let raised = self.raised.take();
        if !raised {
            self.waiting.set(Some(cx.waker().clone()));
        }
        raised
    }
}

/// What makes the next turn come in time.
struct Alarm {
    at: Instant,
    sleep: Pin<Box<dyn Future<Output = ()>>>,
}

/// Runs a turn whenever something happened, until the core stops.
async fn turns<S: Shard + 'static, R: Runtime>(shared: &Rc<Shared<S, R>>) {
    let mut alarm: Option<Alarm> = None;
    loop {
        let (next, jobs) = {
            let mut turn = shared.turn.borrow_mut();
            (turn.run(), turn.take_jobs())
        };
        for job in jobs {
            match job {
                Job::Write { conn, socket, batch, written } => {
                    R::spawn(write(shared.clone(), conn, socket, batch, written));
                }
                Job::Connect { conn, socket, token } => {
                    R::spawn(connect(shared.clone(), conn, socket, token));
                }
            }
        }
        if next.stop {
            return;
        }
        if !shared.turn.borrow().is_accepting() {
            shared.acceptors.iter().for_each(Signal::raise);
        }
        if next.more {
            ready::signal(&shared.bell);
        }
        // An alarm that rings too early costs a turn; setting it anew in every turn would cost more.
        if let Some(deadline) = next.deadline
            && alarm.as_ref().is_none_or(|alarm| deadline < alarm.at)
        {
            let sleep = R::sleep(shared.turn.borrow().until(deadline));
            alarm = Some(Alarm { at: deadline, sleep: Box::pin(sleep) });
        }
        poll_fn(|cx| {
            if shared.due.poll(cx) || !shared.turn.borrow().park() {
                return Poll::Ready(());
            }
            match &mut alarm {
                Some(set) => set.sleep.as_mut().poll(cx).map(|()| alarm = None),
                None => Poll::Pending,
            }
        })
        .await;
        shared.turn.borrow().unpark();
    }
}

/// Waits for the shard's bell.
async fn ring<S: Shard, R: Runtime>(shared: Rc<Shared<S, R>>, bell: R::Watch) {
    loop {
        let rung = or_signal(&shared.ringer, R::readable(&bell)).await;
        if shared.ending.get() {
            return;
        }
        if matches!(rung, Some(Err(_))) {
            // A bell does not fail. If it did, mail would be looked for at this pace.
            R::sleep(ACCEPT_PAUSE).await;
        }
        ready::drain_eventfd(&bell);
        shared.due.raise();
    }
}

/// Takes connections from the listener of that number until the core wants no more.
async fn accept<S: Shard + 'static, R: Runtime>(shared: Rc<Shared<S, R>>, listener: R::Watch, number: usize) {
    loop {
        let ready = or_signal(&shared.acceptors[number], R::readable(&listener)).await;
        if !shared.turn.borrow().is_accepting() {
            break;
        }
        if matches!(ready, Some(Err(_))) {
            R::sleep(ACCEPT_PAUSE).await;
        }
        match accept_ready(&shared, &listener, number as u16) {
            Accepted::All => {}
            Accepted::SomeMore => wait_for_turn(&shared).await,
            Accepted::Exhausted => R::sleep(ACCEPT_PAUSE).await,
        }
    }
    // Waits for no task to drop the descriptor.
    ready::shutdown(&listener);
}

enum Accepted {
    All,
    SomeMore,
    /// The system has run out of descriptors or memory.
    Exhausted,
}

/// Takes the connections that are ready.
fn accept_ready<S: Shard + 'static, R: Runtime>(
    shared: &Rc<Shared<S, R>>,
    listener: &R::Watch,
    number: u16,
) -> Accepted {
    for _ in 0..ACCEPTS_PER_TURN {
        match ready::accept(listener) {
            Ok((fd, peer)) => begin(shared, fd, peer, number),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Accepted::All,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => {
                shared.turn.borrow_mut().accept_failed();
                return Accepted::Exhausted;
            }
        }
    }
    Accepted::SomeMore
}

/// Gives an accepted connection to the core and starts its reader.
fn begin<S: Shard + 'static, R: Runtime>(
    shared: &Rc<Shared<S, R>>,
    fd: OwnedFd,
    peer: IpAddr,
    listener: u16,
) {
    let added = shared.turn.borrow_mut().accepted(fd, peer, listener);
    if let Some((conn, socket)) = added {
        R::spawn(read(shared.clone(), conn, socket));
    }
    shared.due.raise();
}

/// Receives on a connection until it ends.
async fn read<S: Shard, R: Runtime>(shared: Rc<Shared<S, R>>, conn: ConnId, socket: Rc<R::Socket>) {
    let mut budget = RECEIVES_PER_TURN;
    loop {
        let mut receive = pin!(R::receive(&socket, &shared.buffer));
        let received = poll_fn(|cx| {
            let permit = shared.turn.borrow_mut().permit(conn, cx.waker());
            match permit {
                Permit::Granted => {}
                Permit::Held => return Poll::Pending,
                Permit::Gone => return Poll::Ready(None),
            }
            let received = receive.as_mut().poll(cx);
            if received.is_pending() {
                budget = RECEIVES_PER_TURN;
            }
            received.map(Some)
        });
        let Some(received) = received.await else { return };
        {
            let buffer = shared.buffer.borrow();
            let received = received.map(|bytes| &buffer[..bytes]);
            shared.turn.borrow_mut().received(conn, received);
        }
        shared.due.raise();
        budget -= 1;
        if budget == 0 {
            wait_for_turn(&shared).await;
            budget = RECEIVES_PER_TURN;
        }
    }
}

/// What comes of `task`, or `None` when `signal` is raised first.
async fn or_signal<T>(signal: &Signal, task: impl Future<Output = T>) -> Option<T> {
    let mut task = pin!(task);
    poll_fn(|cx| if signal.poll(cx) { Poll::Ready(None) } else { task.as_mut().poll(cx).map(Some) }).await
}

/// Returns after the next turn.
async fn wait_for_turn<S: Shard, R: Runtime>(shared: &Shared<S, R>) {
    let mut waited = false;
    poll_fn(|cx| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        shared.turn.borrow_mut().hold(cx.waker());
        Poll::Pending
    })
    .await;
}

/// Finishes a send that the socket did not take whole.
async fn write<S: Shard, R: Runtime>(
    shared: Rc<Shared<S, R>>,
    conn: ConnId,
    socket: Rc<R::Socket>,
    batch: SendBatch,
    mut written: usize,
) {
    let mut ended = Ok(());
    while let Some(piece) = ready::unwritten(&batch, written).next() {
        match R::send(&socket, piece).await {
            Ok(bytes) => written += bytes,
            Err(error) => {
                ended = Err(error);
                break;
            }
        }
        // It may take all the other pieces too; what keeps it from that is waited for, or found, by the next
        // send.
        if written < batch.len() {
            written += ready::send_batch(&*socket, &batch, written).unwrap_or(0);
        }
    }
    shared.turn.borrow_mut().written(conn, batch, ended);
    shared.due.raise();
}

/// Waits for a connect, and then reads.
async fn connect<S: Shard + 'static, R: Runtime>(
    shared: Rc<Shared<S, R>>,
    conn: ConnId,
    socket: Rc<R::Socket>,
    token: u64,
) {
    let mut connected = pin!(R::connected(&socket));
    let mut too_late = pin!(R::sleep(CONNECT_TIME));
    let ended = poll_fn(|cx| match connected.as_mut().poll(cx) {
        Poll::Ready(ended) => Poll::Ready(ended.map_err(|error| socket::why(&error))),
        Poll::Pending => too_late.as_mut().poll(cx).map(|()| Err(ConnectError::TimedOut)),
    });
    let ended = ended.await;
    let open = shared.turn.borrow_mut().connected(conn, token, ended);
    if open {
        R::spawn(read(shared.clone(), conn, socket.clone()));
    }
    shared.due.raise();
}

/// Shuts all sockets and waits until no task holds one.
async fn end<S: Shard, R: Runtime>(shared: Rc<Shared<S, R>>) {
    shared.ending.set(true);
    shared.turn.borrow_mut().shut_all();
    shared.acceptors.iter().for_each(Signal::raise);
    shared.ringer.raise();
    let interval = Duration::from_millis(1);
    for _ in 0..END_TIME_MAX.as_millis() / interval.as_millis() {
        if Rc::strong_count(&shared) == 1 {
            break;
        }
        R::sleep(interval).await;
    }
    R::sleep(interval).await; // monoio closes sockets through its ring
}
