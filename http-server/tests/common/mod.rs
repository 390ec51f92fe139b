//! A site of one test, and callers that say what they are told to.
#![allow(dead_code)] // each test file uses a part

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use http_server::body::{BodyError, read};
use http_server::{Class, Counts, Limits, Peer, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

/// How long anything may take; machines are slow and busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a port of its own.
pub struct Site {
    server: Arc<Server>,
    address: SocketAddr,
    gate: Arc<Gate>,
    stop: Arc<Notify>,
    serving: JoinHandle<()>,
}

/// What handlers of `/wait` wait for.
struct Gate {
    waiting: AtomicUsize,
    done: AtomicUsize,
    open: Semaphore,
}

impl Site {
    pub async fn start(limits: Limits) -> Self {
        assert_eq!(limits.validate(), Ok(()));
        let listener = http_server::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new(limits, class_of);
        let gate = Arc::new(Gate {
            waiting: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            open: Semaphore::new(0),
        });
        let stop = Arc::new(Notify::new());
        let (stopping, router) = (stop.clone(), router(gate.clone()));
        let serving = server.clone().serve(listener, None, router, async move { stopping.notified().await });
        Self { server, address, gate, stop, serving: tokio::spawn(serving) }
    }

    /// A caller at 127.0.0.`host`.
    pub async fn connect(&self, host: u8) -> Caller {
        Caller::connect(self.address, host).await.unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn counts(&self) -> Counts {
        self.server.counts()
    }

    pub fn cut(&self, reason: &str) -> u64 {
        self.counts().cut.iter().find(|(name, _)| *name == reason).unwrap().1
    }

    pub fn refused(&self, reason: &str) -> u64 {
        self.counts().refused.iter().find(|(name, _)| *name == reason).unwrap().1
    }

    /// Handlers that wait.
    pub fn waiting(&self) -> usize {
        self.gate.waiting.load(Ordering::SeqCst)
    }

    /// Handlers that have waited to the end.
    pub fn done(&self) -> usize {
        self.gate.done.load(Ordering::SeqCst)
    }

    /// Lets all handlers go on.
    pub fn go_on(&self) {
        self.gate.open.add_permits(1_000);
    }

    pub fn stop(&self) {
        self.stop.notify_one();
    }

    pub async fn ended(self) {
        tokio::time::timeout(PATIENCE, self.serving).await.expect("it ends").unwrap();
    }
}

fn class_of(path: &str) -> Option<Class> {
    match path {
        "/ok" => None,
        "/service" => Some(Class::Services),
        _ => Some(Class::Callers),
    }
}

fn router(gate: Arc<Gate>) -> Router {
    Router::new()
        .route("/ok", get(async || "ok"))
        .route("/who", get(async |Extension(peer): Extension<Peer>| peer.address().to_string()))
        .route("/large", get(async || vec![0u8; 64 << 20]))
        .route("/short", post(async |request: Request| length(request, 1 << 10).await))
        .route("/long", post(async |request: Request| length(request, 2 << 20).await))
        .route("/service", get(async || "ok"))
        .route("/wait", post(wait))
        .with_state(gate)
}

async fn length(request: Request, bytes_max: usize) -> (StatusCode, String) {
    match read(request, bytes_max).await {
        Ok(bytes) => (StatusCode::OK, bytes.len().to_string()),
        Err(error) => {
            let status = match error {
                BodyError::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
                BodyError::TooSlow => StatusCode::REQUEST_TIMEOUT,
                BodyError::Busy => StatusCode::SERVICE_UNAVAILABLE,
                BodyError::Broken(_) => StatusCode::BAD_REQUEST,
            };
            (status, error.to_string())
        }
    }
}

async fn wait(State(gate): State<Arc<Gate>>, request: Request) -> &'static str {
    let _body = read(request, 1 << 10).await.unwrap();
    gate.waiting.fetch_add(1, Ordering::SeqCst);
    gate.open.acquire().await.unwrap().forget();
    gate.done.fetch_add(1, Ordering::SeqCst);
    "done"
}

/// A connection.
pub struct Caller(TcpStream);

impl From<TcpStream> for Caller {
    fn from(stream: TcpStream) -> Self {
        Self(stream)
    }
}

impl Caller {
    pub async fn connect(to: SocketAddr, host: u8) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::new(127, 0, 0, host), 0).into())?;
        Ok(Self(socket.connect(to).await?))
    }

    pub async fn send(&mut self, text: &str) {
        self.try_send(text).await.unwrap();
    }

    pub async fn try_send(&mut self, text: &str) -> io::Result<()> {
        self.0.write_all(text.as_bytes()).await
    }

    /// Closes the sending half.
    pub async fn end(&mut self) {
        self.0.shutdown().await.unwrap();
    }

    /// Status and body of the next answer.
    pub async fn answer(&mut self) -> (u16, String) {
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if body.len() == length.unwrap().parse::<usize>().unwrap() {
                    return (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned());
                }
            }
            let read = tokio::time::timeout(PATIENCE, self.0.read_buf(&mut bytes)).await.expect("an answer");
            assert_ne!(read.unwrap(), 0, "it ended after {:?}", String::from_utf8_lossy(&bytes));
        }
    }

    /// What comes until the server closes.
    pub async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        // A connection that the server drops with bytes unread is reset.
        let read =
            tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await.expect("it is closed");
        assert!(read.is_ok() || bytes.is_empty(), "{read:?}");
        String::from_utf8(bytes).unwrap()
    }
}

/// Polls until it holds.
pub async fn until(mut holds: impl FnMut() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.expect("it never holds");
}
