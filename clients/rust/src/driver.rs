//! Runs a core on tokio.
#![allow(clippy::disallowed_methods)] // a driver has the clock and the randomness that a core has not

mod connection;
#[cfg(feature = "layers")]
mod layers;

use std::future::{Future, pending};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use self::connection::{Connection, Turn};
use crate::config::Config;
use crate::core::{Action, Core};
use crate::event::Event;
use crate::outgoing::{Outgoing, Refused};
use shard::Instant;
use wire::RoomId;
use wire::client::Want;

/// Events that wait for the application before the driver stops to read.
const EVENTS_MAX: usize = 1_024;
/// How much is read at once.
const READ_BYTES: usize = 16 << 10;

/// Gives login tokens: the first one, one before each ends, and one after the server refused one. `None` when
/// there is none at the moment; the client asks again later.
pub trait TokenProvider: Send + 'static {
    /// The next token.
    fn token(&mut self) -> impl Future<Output = Option<String>> + Send;
}

impl<F, R> TokenProvider for F
where
    F: FnMut() -> R + Send + 'static,
    R: Future<Output = Option<String>> + Send,
{
    fn token(&mut self) -> impl Future<Output = Option<String>> + Send {
        self()
    }
}

/// One token that is used until it ends.
impl TokenProvider for String {
    async fn token(&mut self) -> Option<String> {
        Some(self.clone())
    }
}

/// Starts a client on the runtime of the caller. It ends when its [`Events`] are dropped, too.
///
/// # Panics
/// Outside of a runtime of tokio.
pub fn start(config: Config, provider: impl TokenProvider) -> (Client, Events) {
    let clock = Clock::start();
    let home = config.address.clone();
    #[cfg(feature = "layers")]
    let security = layers::Security::new(config.trust.clone());
    let core = Mutex::new(Core::new(config, random(), clock.now()));
    let shared = Arc::new(Shared {
        clock,
        home,
        #[cfg(feature = "layers")]
        security,
        core,
        work: Notify::new(),
        news: Notify::new(),
    });
    let task = tokio::spawn(run(shared.clone(), provider));
    (Client { shared: shared.clone() }, Events { shared, task })
}

/// What an application says to its client. Clones are of the same client.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Sends a message: see [`Core::send`]. Returns its name.
    ///
    /// # Errors
    /// The store is full, or the message cannot be sent as it is.
    pub fn send(&self, message: Outgoing) -> Result<String, Refused> {
        self.with(|core, now| core.send(now, message))
    }

    /// Sends a message at once or never: see [`Core::send_once`].
    ///
    /// # Errors
    /// There is no connection, or the message cannot be sent as it is.
    pub fn send_once(&self, message: &Outgoing) -> Result<(), Refused> {
        self.with(|core, now| core.send_once(now, message))
    }

    /// Joins a room, and joins it again after each reconnect and each gap. `first` says which messages from
    /// before the first join asks for; later joins ask for what was missed.
    pub fn join(&self, room: RoomId, first: Option<Want>) {
        self.with(|core, now| core.join(now, room, first));
    }

    /// Leaves a room.
    pub fn leave(&self, room: RoomId) {
        self.with(|core, now| core.leave(now, room));
    }

    /// Ends the session, then the client.
    pub fn log_out(&self) {
        self.with(Core::log_out);
    }

    /// Messages that have no send-ack yet.
    pub fn unanswered(&self) -> usize {
        self.shared.core().unanswered()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Core, Instant) -> T) -> T {
        let result = act(&mut self.shared.core(), self.shared.clock.now());
        self.shared.work.notify_one();
        self.shared.news.notify_one();
        result
    }
}

/// What a client tells its application, in order. A client whose events are not taken stops to read.
#[derive(Debug)]
pub struct Events {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Events {
    /// The next event; `None` after [`Event::Ended`].
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            {
                let mut core = self.shared.core();
                if let Some(event) = core.poll_event() {
                    if core.events() == EVENTS_MAX - 1 {
                        self.shared.work.notify_one();
                    }
                    return Some(event);
                }
                if core.has_ended() {
                    return None;
                }
            }
            self.shared.news.notified().await;
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    /// The address that the application gave; alternatives are reached in the same way.
    home: String,
    #[cfg(feature = "layers")]
    security: layers::Security,
    core: Mutex<Core>,
    /// The core may have something for the driver.
    work: Notify,
    /// The core may have something for the application.
    news: Notify,
}

impl Shared {
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wall clock at the start, advanced by the monotonic clock.
#[derive(Debug)]
struct Clock {
    wall: Instant,
    start: std::time::Instant,
}

impl Clock {
    fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = Instant::from_unix_nanos(u64::try_from(wall.as_nanos()).unwrap_or_default());
        Self { wall, start: std::time::Instant::now() }
    }

    fn now(&self) -> Instant {
        self.wall + self.start.elapsed()
    }
}

/// Runs the core until it has ended.
async fn run(shared: Arc<Shared>, provider: impl TokenProvider) {
    let mut provider = Some(provider);
    let mut asking = None;
    let mut opening = None;
    let mut connection: Option<Connection> = None;
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        let (timeout, may_read) = {
            let mut core = shared.core();
            while let Some(action) = core.poll_action() {
                match action {
                    Action::Connect(address) => {
                        opening = Some(Box::pin(Connection::open(address, shared.clone())))
                    }
                    Action::Disconnect => (opening, connection) = (None, None),
                    Action::AskToken => asking = provider.take().map(|provider| Box::pin(ask(provider))),
                }
            }
            let output = core.take_output();
            if let Some(connection) = &mut connection {
                connection.queue(&output);
            }
            if core.has_ended() {
                break;
            }
            (core.next_timeout(), core.events() < EVENTS_MAX)
        };
        let woken = tokio::select! {
            biased; // input before timeouts, so that a machine that slept takes no server for silent
            turn = turn(&mut connection, &mut buffer, may_read) => Woken::Turn(turn),
            opened = maybe(&mut opening) => Woken::Opened(opened),
            (given_back, token) = maybe(&mut asking) => {
                provider = Some(given_back);
                Woken::Token(token)
            }
            () = shared.work.notified() => Woken::Work,
            () = sleep_until(&shared.clock, timeout) => Woken::Timeout,
        };
        let now = shared.clock.now();
        let mut core = shared.core();
        match woken {
            Woken::Turn(Ok(Turn::Read)) => core.received(now, &buffer),
            Woken::Turn(Ok(Turn::Wrote)) | Woken::Work => {}
            Woken::Turn(Err(error)) => core.disconnected(now, error.to_string()),
            Woken::Opened(opened) => {
                opening = None;
                match opened {
                    Ok(opened) => {
                        connection = Some(opened);
                        core.connected(now);
                    }
                    Err(error) => core.not_connected(now, error.to_string()),
                }
            }
            Woken::Token(token) => {
                asking = None;
                core.token(now, token);
            }
            Woken::Timeout => core.handle_timeout(now),
        }
        shared.news.notify_one();
    }
    shared.news.notify_one();
}

/// What the driver has waited for.
enum Woken {
    Turn(io::Result<Turn>),
    Opened(io::Result<Connection>),
    Token(Option<String>),
    /// The application wants something.
    Work,
    Timeout,
}

/// A number that nobody else knows.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

async fn ask<P: TokenProvider>(mut provider: P) -> (P, Option<String>) {
    let token = provider.token().await;
    (provider, token)
}

async fn turn(connection: &mut Option<Connection>, buffer: &mut Vec<u8>, may_read: bool) -> io::Result<Turn> {
    match connection {
        Some(connection) => connection.turn(buffer, may_read).await,
        None => pending().await,
    }
}

async fn maybe<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

async fn sleep_until(clock: &Clock, timeout: Option<Instant>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout.since(clock.now())).await,
        None => pending().await,
    }
}
