//! The server: it takes connections, and runs each of them.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Socket as Socket2, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::connection::{Answer, Connection, LINGER_TIME, Socket};
use crate::connections::{Admission, Connections};
use crate::limits::Limits;
use crate::peer::{self, Peer};
use crate::port::Port;
use crate::refusals::Refusals;
use crate::stats::{Counts, Cut, Refusal};
use crate::stream::Stream;
use crate::turns::{Class, Turn, Turns};
use edge::{TlsServer, share_of};

/// Connections past the limit that are told so at a time; others are closed without a word. They need files
/// beside those of [`Limits::connections_max`].
pub const REFUSED_CONNECTIONS_MAX: usize = 16;
/// The longest header, and what is read of a body before a handler wants it.
const BUFFER_BYTES: usize = 16 << 10;
/// How long to wait when a connection cannot be taken: the process may have no file left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Requests of [`Class::Services`] that are worked on at a time, and of these from one address.
const SERVICE_REQUESTS_MAX: u32 = 256;
const ADDRESS_SERVICE_REQUESTS_MAX: u32 = 64;

/// Connections that the kernel may hold ready, while a crowd comes at once. Those that find no place there
/// are not open: the callers' kernels try again.
const BACKLOG: i32 = 128;
/// How long nobody new is let in for the sake of those who just came, at a time; and how long not again. So a
/// crowd is served rather than pushed out by itself, and a flood keeps nobody out for long.
const PATIENCE: Duration = Duration::from_millis(250);
const PATIENCE_EVERY: Duration = Duration::from_millis(1_250);

const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n\
    Connection: close\r\nContent-Length: 84\r\n\r\n\
    {\"code\":\"too_many_connections\",\"message\":\"too many connections are open; try again\"}";

/// Listens at an address, for a [`Server`].
///
/// # Errors
/// Those of the system: the address is taken, or is none of this machine.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket2::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?; // connections of a process that was killed do not hold the port
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Serves one port.
pub struct Server {
    port: Arc<Port>,
    refusals: Refusals,
    class_of: fn(&str) -> Option<Class>,
    callers: Arc<Turns>,
    services: Arc<Turns>,
    connections: Mutex<Connections>,
    /// A connection has gone.
    has_room: Notify,
    refusing: Arc<Semaphore>,
}

impl Server {
    /// A server within `limits`, which are [valid](Limits::validate). `class_of` says of a path which
    /// requests its own are worked on with; `None`: as many as come.
    pub fn new(limits: Limits, class_of: fn(&str) -> Option<Class>) -> Arc<Self> {
        Arc::new(Self {
            refusals: Refusals::new(limits.address_refusals_per_second),
            class_of,
            callers: Turns::new(limits.requests_max, limits.address_requests_max),
            services: Turns::new(SERVICE_REQUESTS_MAX, ADDRESS_SERVICE_REQUESTS_MAX),
            connections: Mutex::new(Connections::new(&limits)),
            has_room: Notify::new(),
            refusing: Arc::new(Semaphore::new(REFUSED_CONNECTIONS_MAX)),
            port: Arc::new(Port::new(limits)),
        })
    }

    /// Serves `router`, by `tls` if there is one, until `stop`; then takes no more connections, finishes the
    /// requests under way, and returns. All connections end with the returned future.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Option<TlsServer>,
        router: Router,
        stop: impl Future<Output = ()>,
    ) {
        let tls = tls.map(|tls| TlsAcceptor::from(tls.config()));
        let (stop_connections, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut patience = Patience::default();
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                biased; // a flood of connections must not put off the end
                () = &mut stop => break,
                accepted = listener.accept() => accepted,
            };
            while tasks.try_join_next().is_some() {}
            match accepted {
                Ok((stream, from)) => match self.admit(from, &mut patience).await {
                    Ok(connection) => {
                        let seat = Seat { server: self.clone(), connection };
                        let _ = stream.set_nodelay(true); // a broken connection says so when it is read
                        let stream = Stream::new(stream, from.ip(), tls.clone());
                        tasks.spawn(run(seat, stream, from, router.clone(), stopping.clone()));
                    }
                    Err(refusal) => {
                        self.port.stats.refused(refusal);
                        // Who speaks TLS would not understand it.
                        if tls.is_none()
                            && let Ok(permit) = self.refusing.clone().try_acquire_owned()
                        {
                            tasks.spawn(async move {
                                // It was told, or would not hear.
                                let _ = timeout(LINGER_TIME, refuse(stream)).await;
                                drop(permit);
                            });
                        }
                    }
                },
                Err(error) => {
                    self.port.stats.accept_error();
                    logs::warn!(%error, "cannot accept an HTTP connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        stop_connections.send_replace(true);
        while tasks.join_next().await.is_some() {}
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        let requests = self.callers.at_work() + self.services.at_work();
        self.port.stats.counts(self.connections().count() as u64, requests as u64, self.port.bodies.bytes())
    }

    /// Finds a place for a connection, when another one has gone if need be, so that there are no more files
    /// than connections.
    async fn admit(&self, from: SocketAddr, patience: &mut Patience) -> Result<Arc<Connection>, Refusal> {
        self.port.stats.accepted();
        let is_proxy = self.port.limits.trusted_proxies.iter().any(|proxy| proxy.contains(from.ip()));
        loop {
            let now = Instant::now();
            let admission = self.connections().admit(share_of(from.ip()), is_proxy, now);
            match admission {
                Admission::Free(connection) => return Ok(connection),
                Admission::Refused(refusal) => return Err(refusal),
                Admission::InsteadOf(old) => match patience.until(old.grace_ends(), now) {
                    Some(until) => {
                        // Either way, it is looked again.
                        let _ = timeout_at(until, self.has_room.notified()).await;
                    }
                    None => {
                        yield_now().await; // what has come for `old` is known when its task is asked
                        old.ask_to_go().await;
                    }
                },
            }
        }
    }

    /// Waits for a request's turn; `None` if requests of its path have none.
    async fn turn(
        &self,
        path: &str,
        share: IpAddr,
        connection: &Connection,
    ) -> Result<Option<Turn>, Refusal> {
        let turn = match (self.class_of)(path) {
            None => return Ok(None),
            Some(Class::Callers) => self.callers.of(share),
            Some(Class::Services) => self.services.of(share),
        };
        if !turn.try_begin() {
            connection.queues();
            turn.begin().await?;
            connection.works();
        }
        Ok(Some(turn))
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For how long those who just came are waited for.
#[derive(Default)]
struct Patience {
    /// The last time: its end, and when the next one may begin.
    last: Option<(Instant, Instant)>,
}

impl Patience {
    /// Until when to wait for a connection that is not to go before `grace_ends`; `None`: it is to go now.
    fn until(&mut self, grace_ends: Instant, now: Instant) -> Option<Instant> {
        if grace_ends <= now {
            return None;
        }
        let (end, _) = match self.last {
            Some(last) if now < last.1 => last,
            _ => *self.last.insert((now + PATIENCE, now + PATIENCE_EVERY)),
        };
        (now < end).then_some(end.min(grace_ends))
    }
}

/// A connection's place among the others. It outlives the connection's socket.
struct Seat {
    server: Arc<Server>,
    connection: Arc<Connection>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.server.connections().remove(self.connection.id);
        self.connection.answer_to_go();
        self.server.has_room.notify_one();
    }
}

/// Runs a connection to its end. What can be read is read before time is judged, and before it goes for
/// another one: a process that stood still, or is behind a crowd, finds its callers' requests in the sockets.
async fn run(
    seat: Seat,
    stream: Stream,
    from: SocketAddr,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let Seat { server, connection } = &seat;
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: Request<Incoming>| {
        connection.asked(!request.body().is_end_stream());
        let address = peer::caller(from.ip(), request.headers(), &server.port.limits.trusted_proxies);
        let answer =
            answer(router.clone(), request.map(Body::new), address, server.clone(), connection.clone());
        let connection = connection.clone();
        async move {
            let response = answer.await;
            connection.answers();
            Ok::<_, Infallible>(response.map(|body| Answer::new(body, connection)))
        }
    });
    let socket = TokioIo::new(Socket::new(stream, connection.clone()));
    let mut builder = http1::Builder::new();
    builder.half_close(true).max_buf_size(BUFFER_BYTES);
    let mut http = pin!(builder.serve_connection(socket, service));
    let mut timer = pin!(sleep_until(connection.deadline(&server.port.limits)));
    let mut asked_to_go = pin!(connection.asked_to_go());
    let mut stop = pin!(stopping.wait_for(|stop| *stop));
    let mut is_stopping = false;
    let cut = poll_fn(|cx| {
        if !is_stopping && stop.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            http.as_mut().graceful_shutdown();
        }
        if http.as_mut().poll(cx).is_ready() || is_stopping && connection.awaits_request() {
            return Poll::Ready(None);
        }
        while asked_to_go.as_mut().poll(cx).is_ready() {
            if connection.is_to_go() {
                return Poll::Ready(Some(Cut::Evicted));
            }
            connection.answer_to_go();
            asked_to_go.set(connection.asked_to_go());
        }
        loop {
            let deadline = connection.deadline(&server.port.limits);
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(cx));
            if let Some(cut) = connection.overdue(&server.port.limits, Instant::now()) {
                return Poll::Ready(Some(cut));
            }
            timer.as_mut().reset(deadline); // it was set for an earlier phase
        }
    });
    if let Some(cut) = cut.await {
        server.port.stats.cut(cut);
    }
}

/// Has a request answered when its turn comes, unless too many of its caller's were refused. It counts as
/// refused before it is looked at, so that many at a time are no more than many in a row.
async fn answer(
    router: TowerToHyperService<Router>,
    mut request: Request<Body>,
    address: IpAddr,
    server: Arc<Server>,
    connection: Arc<Connection>,
) -> Response<Body> {
    let share = share_of(address);
    let turn = match server.turn(request.uri().path(), share, &connection).await {
        Ok(turn) => turn.map(Arc::new),
        Err(refusal) => {
            server.port.stats.refused(refusal);
            return refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "too many requests are under way; try again",
            );
        }
    };
    if !server.refusals.count(share, Instant::now()) {
        server.port.stats.refused(Refusal::AddressRefusals);
        logs::warn!(address = %share, "too many requests of one address were refused; if it is a proxy, add it to http.trusted_proxies");
        let message = "too many requests from this address were refused; try again later";
        return refused(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message);
    }
    request.extensions_mut().insert(Peer::new(address, server.port.clone(), turn.clone()));
    // In a task of its own: a caller that hangs up must not leave a write half-way, and what it asked for has
    // its turn to the end.
    let answer = tokio::spawn(async move {
        let _turn = turn;
        let Ok(response) = router.call(request).await;
        if !response.status().is_client_error() {
            server.refusals.forgive(share, Instant::now());
        }
        response
    });
    answer.await.unwrap_or_else(|error| {
        logs::error!(%error, "the handler of a request panicked or was ended; it is answered 500");
        refused(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request was not answered")
    })
}

fn refused(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!(r#"{{"code":"{code}","message":"{message}"}}"#)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Says that there is no room, and waits until the caller has heard it.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(BUSY).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
}
