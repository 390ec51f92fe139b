//! The master of a Redis with sentinels: which server it is, and connections to it.
//!
//! All sentinels are asked, and one that has seen a later failover is believed first. The server that it
//! names is connected to, and must confirm that it is the master. So a demoted server gets no writes, except
//! in the moment before the sentinels have informed it or us: it then refuses them, or loses them.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::join_all;
use logs::warn;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError,
    RedisResult, Value, cmd,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Mutex as Turn;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use trust::Roots;

use super::{COMMANDS_MAX, CONNECT_TIME};

/// How long a sentinel may take to answer.
const ASK_TIME: Duration = Duration::from_millis(500);
/// The longest answer of a sentinel in clear; the longest useful one has a few KiB.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How often they are asked whether the master has changed.
const WATCH_TIME: Duration = Duration::from_secs(1);
/// How long no new search for the master begins after one: callers get its error at once.
const AGAIN_TIME: Duration = Duration::from_millis(200);
/// The errors of a server that is no master, or takes no writes yet.
const NO_MASTER: [&str; 6] = ["READONLY", "MASTERDOWN", "LOADING", "NOREPLICAS", "UNBLOCKED", "EXECABORT"];

/// Host and port of a server.
type Address = (String, u16);

/// The sentinels, and their last answers. One for each process.
pub struct Sentinels {
    sentinels: Vec<Sentinel>,
    /// Their name for the master.
    name: String,
    /// How to connect to the master, wherever it is.
    server: ConnectionInfo,
    roots: Roots,
    named: Mutex<Named>,
}

/// The master, as the sentinels last named it.
#[derive(Default)]
struct Named {
    address: Option<Address>,
    /// Counts the masters that they have named.
    era: u64,
}

struct Sentinel {
    client: Client,
    kept: Turn<Option<Kept>>,
}

/// A connection to a sentinel. The task that drives it, if that is ours, ends with it.
struct Kept {
    connection: MultiplexedConnection,
    _driver: JoinSet<()>,
}

impl Sentinels {
    /// Sentinels at these URLs. `server` has the master's name in the place of a host, and the settings of
    /// its connections. A task watches for another master as long as the value is held.
    pub fn open(urls: &[String], server: &str, roots: &Roots) -> RedisResult<Arc<Self>> {
        let server = server.into_connection_info()?;
        let (ConnectionAddr::Tcp(name, _) | ConnectionAddr::TcpTls { host: name, .. }) = server.addr() else {
            return Err(failure("want redis://NAME"));
        };
        let name = name.clone();
        let sentinel = |url: &String| {
            let client = roots.redis_client(url.as_str().into_connection_info()?)?;
            Ok(Sentinel { client, kept: Turn::default() })
        };
        let sentinels = urls.iter().map(sentinel).collect::<RedisResult<_>>()?;
        let sentinels =
            Arc::new(Self { sentinels, name, server, roots: roots.clone(), named: Mutex::default() });
        tokio::spawn(watch(Arc::downgrade(&sentinels)));
        Ok(sentinels)
    }

    /// Changes when the sentinels name another master than before.
    pub fn era(&self) -> u64 {
        self.named.lock().unwrap_or_else(PoisonError::into_inner).era
    }

    /// Connects to the master.
    pub async fn connect(&self, config: &AsyncConnectionConfig) -> RedisResult<MultiplexedConnection> {
        let mut why = failure("no sentinel answers, or none knows the master by this name");
        for address in self.ask().await {
            match self.connect_to(&address, config).await {
                Ok(connection) => return Ok(connection),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    async fn connect_to(
        &self,
        (host, port): &Address,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        let (host, port) = (host.clone(), *port);
        let address = match self.server.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                let (insecure, tls_params) = (*insecure, tls_params.clone());
                ConnectionAddr::TcpTls { host, port, insecure, tls_params }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        let client = self.roots.redis_client(self.server.clone().set_addr(address))?;
        let mut connection = client.get_multiplexed_async_connection_with_config(config).await?;
        let role: Vec<Value> = cmd("ROLE").query_async(&mut connection).await?;
        let is_master =
            matches!(role.first(), Some(Value::BulkString(role)) if role.as_slice() == b"master".as_slice());
        if is_master { Ok(connection) } else { Err(failure("the sentinels name a server that is no master")) }
    }

    /// Asks all sentinels. Returns the servers that they name, the likeliest first.
    async fn ask(&self) -> Vec<Address> {
        let mut told: Vec<(u64, Address)> = join_all(self.sentinels.iter().map(|it| it.ask(&self.name)))
            .await
            .into_iter()
            .flatten()
            .collect();
        told.sort_by_key(|(epoch, _)| std::cmp::Reverse(*epoch));
        let mut addresses: Vec<Address> = Vec::new();
        for (_, address) in told {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if let Some(first) = addresses.first() {
            self.note(first);
        }
        addresses
    }

    fn note(&self, address: &Address) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.address.as_ref() != Some(address) {
            if let Some(before) = named.address.replace(address.clone()) {
                let before = format!("{}:{}", before.0, before.1);
                let master = format!("{}:{}", address.0, address.1);
                warn!(name = self.name, before, master, "the sentinels of Redis name another master");
            }
            named.era += 1;
        }
    }
}

async fn watch(sentinels: Weak<Sentinels>) {
    loop {
        sleep(WATCH_TIME).await;
        let Some(sentinels) = sentinels.upgrade() else { return };
        sentinels.ask().await;
    }
}

impl Sentinel {
    /// The master of that name, and the failover that made it one.
    async fn ask(&self, name: &str) -> Option<(u64, Address)> {
        timeout(ASK_TIME, async {
            let mut kept = self.kept.lock().await;
            let mut open = match kept.take() {
                Some(open) => open,
                None => self.connect().await.ok()?,
            };
            let told = told_by(&mut open.connection, name).await.ok()?;
            *kept = Some(open);
            told
        })
        .await
        .ok()?
    }

    /// Connects. The client of the crate keeps an answer of any length. So a connection in clear, which
    /// anybody on the way can change, comes through a stream with a limit.
    async fn connect(&self) -> RedisResult<Kept> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(ASK_TIME));
        let mut driver = JoinSet::new();
        let server = self.client.get_connection_info();
        let connection = match server.addr() {
            ConnectionAddr::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                let stream = Limited { stream, left: ANSWER_BYTES_MAX };
                let settings = server.redis_settings();
                let (connection, task) =
                    MultiplexedConnection::new_with_config(settings, stream, config).await?;
                driver.spawn(task);
                connection
            }
            _ => self.client.get_multiplexed_async_connection_with_config(&config).await?,
        };
        Ok(Kept { connection, _driver: driver })
    }
}

/// A stream that ends with an error if the other end sends too much at once.
struct Limited {
    stream: TcpStream,
    /// Bytes that may be read until the next write.
    left: usize,
}

impl AsyncRead for Limited {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = bytes.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, bytes);
        let count = bytes.filled().len() - before;
        match self.left.checked_sub(count) {
            Some(left) => self.left = left,
            None => {
                self.left = 0;
                return Poll::Ready(Err(io::Error::other("a sentinel's answer is too long")));
            }
        }
        read
    }
}

impl AsyncWrite for Limited {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.left = ANSWER_BYTES_MAX;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

async fn told_by(connection: &mut MultiplexedConnection, name: &str) -> RedisResult<Option<(u64, Address)>> {
    // At the end of a failover, this command names the new master already, and the later fields the old one.
    let mut ask = cmd("SENTINEL");
    let address: Option<Address> =
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(name).query_async(connection).await?;
    let Some(address) = address else { return Ok(None) };
    let mut ask = cmd("SENTINEL");
    let fields: std::collections::BTreeMap<String, String> =
        ask.arg("MASTER").arg(name).query_async(connection).await?;
    let epoch = fields.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    Ok(Some((epoch, address)))
}

/// A connection to the master that many share, and that follows it.
pub struct Master {
    sentinels: Arc<Sentinels>,
    config: AsyncConnectionConfig,
    open: Turn<Open>,
}

#[derive(Default)]
struct Open {
    /// The connection, with the era in which it was opened.
    connection: Option<(u64, MultiplexedConnection)>,
    /// Counts connections.
    count: u64,
    /// When a connect last failed, and why.
    failed: Option<(Instant, String)>,
}

impl Master {
    pub fn new(sentinels: Arc<Sentinels>, command_time: Duration) -> Self {
        Self { sentinels, config: config(command_time), open: Turn::default() }
    }

    /// The connection, and its number. The first of those who wait connects.
    pub async fn connection(&self) -> RedisResult<(u64, MultiplexedConnection)> {
        let mut open = self.open.lock().await;
        let era = self.sentinels.era();
        match &open.connection {
            Some((of, connection)) if *of == era => return Ok((open.count, connection.clone())),
            _ => open.connection = None,
        }
        if let Some((at, why)) = &open.failed
            && at.elapsed() < AGAIN_TIME
        {
            return Err(RedisError::from((ErrorKind::Io, "no master", why.clone())));
        }
        match self.sentinels.connect(&self.config).await {
            Ok(connection) => {
                open.count += 1;
                open.failed = None;
                open.connection = Some((self.sentinels.era(), connection.clone()));
                Ok((open.count, connection))
            }
            Err(error) => {
                open.failed = Some((Instant::now(), error.to_string()));
                Err(error)
            }
        }
    }

    /// Checks an answer of the connection with that number: a lost connection, or one whose server takes no
    /// writes, is used no more.
    pub async fn look_at(&self, number: u64, answer: Result<&[Value], &RedisError>) {
        let is_over = match answer {
            Ok(values) => values.iter().any(|value| match value {
                Value::ServerError(error) => is_of_no_master(error.code(), error.details()),
                _ => false,
            }),
            Err(error) => {
                error.is_io_error() || is_of_no_master(error.code().unwrap_or_default(), error.detail())
            }
        };
        if is_over {
            let mut open = self.open.lock().await;
            if open.count == number {
                open.connection = None;
            }
        }
    }
}

/// Whether this is an error of a server that is no master. Redis 6 puts an error of a script into its text.
fn is_of_no_master(code: &str, text: Option<&str>) -> bool {
    NO_MASTER.contains(&code) || text.is_some_and(|text| text.contains("READONLY"))
}

/// How the master is connected to.
pub fn config(command_time: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_pipeline_buffer_size(COMMANDS_MAX)
        .set_response_timeout(Some(command_time))
        .set_connection_timeout(Some(CONNECT_TIME))
}

fn failure(why: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Io, why))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_answer_without_end_is_read_up_to_a_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let flood = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0, "a question");
            stream.write_all(b"$500000000\r\n").await.unwrap();
            let (piece, mut written) = (vec![b'a'; 64 << 10], 0);
            while let Ok(count) = stream.write(&piece).await {
                written += count;
            }
            written
        });
        let sentinel = Sentinel { client: Client::open(url).unwrap(), kept: Turn::default() };
        assert_eq!(sentinel.ask("master").await, None);
        assert!(sentinel.kept.lock().await.is_none());
        let written = timeout(Duration::from_secs(20), flood).await.expect("it is closed").unwrap();
        assert!(written < 24 << 20, "{written}: the limit, and what buffers of the kernel hold");
    }
}
