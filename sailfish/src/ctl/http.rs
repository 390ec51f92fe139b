//! One request by HTTP/1.0: the response comes in one piece, and the server closes after it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;
use trust::{ClientConnection, Roots, StreamOwned};

use crate::admin::SECRET_UNUSED;
use crate::config::ConfigError;

/// How long a connect may take.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How long the answer to a reading request may take.
const READ_TIME: Duration = Duration::from_secs(10);
/// How long another answer may take: longer than the node waits for the outcome of a message.
const CHANGE_TIME: Duration = Duration::from_secs(40);
/// After how long without an answer the user gets a message.
const SILENT_TIME: Duration = Duration::from_secs(2);
/// The longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The server that is asked, and how the user named it.
#[derive(Clone, Copy)]
pub struct Server<'a> {
    kind: &'static Kind,
    /// `HOST:PORT`.
    address: &'a str,
    /// Set for one that is asked by TLS.
    roots: Option<&'a Roots>,
}

/// The parts of error lines about a server.
struct Kind {
    name: &'static str,
    port: &'static str,
    flag: &'static str,
    wants: &'static str,
}

const NODE: Kind =
    Kind { name: "node", port: "admin port", flag: "--admin", wants: "HOST:PORT or https://HOST:PORT" };
const BACKEND: Kind = Kind {
    name: "backend",
    port: "backend",
    flag: "--backend",
    wants: "http://HOST:PORT or https://HOST:PORT",
};

impl<'a> Server<'a> {
    /// The admin port of a node.
    pub fn node(url: &'a str, roots: &'a Roots) -> Self {
        Self::new(&NODE, url, roots)
    }

    /// A backend.
    pub fn backend(url: &'a str, roots: &'a Roots) -> Self {
        Self::new(&BACKEND, url, roots)
    }

    fn new(kind: &'static Kind, url: &'a str, roots: &'a Roots) -> Self {
        let url = url.trim_end_matches('/');
        match url.strip_prefix("https://") {
            Some(address) => Self { kind, address, roots: Some(roots) },
            None => Self { kind, address: url.trim_start_matches("http://"), roots: None },
        }
    }
}

/// A connection to a server.
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(space),
            Self::Tls(stream) => stream.read(space),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A request.
pub struct Request {
    /// The method, with the body.
    pub method: Method,
    /// The path.
    pub path: String,
}

/// The method of a request.
pub enum Method {
    /// Without a body.
    Get,
    /// With this body.
    Post(Value),
    /// With this body.
    Put(Value),
}

/// A response.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Whether the server got a secret and needs none.
    pub is_secret_unused: bool,
    /// The body.
    pub body: String,
}

/// The timeouts.
struct Waits {
    connect: Duration,
    /// For the whole answer.
    answer: Duration,
    /// After how long without an answer the user gets a message.
    silent: Option<Duration>,
}

/// Asks a server, with `secret` as bearer token unless it is empty.
///
/// # Errors
/// One line: nobody listens there, or another program than an HTTP server.
pub fn ask(server: Server<'_>, secret: &str, request: &Request) -> anyhow::Result<Answer> {
    let answer = request.method.answer_time();
    exchange(server, secret, request, &Waits { connect: CONNECT_TIME, answer, silent: Some(SILENT_TIME) })
}

/// The same for callers who ask again and again: waits for the connect and for the answer up to `within`
/// each, without a message meanwhile.
///
/// # Errors
/// As [`ask`].
pub fn ask_within(
    server: Server<'_>,
    secret: &str,
    request: &Request,
    within: Duration,
) -> anyhow::Result<Answer> {
    exchange(server, secret, request, &Waits { connect: within, answer: within, silent: None })
}

fn exchange(server: Server<'_>, secret: &str, request: &Request, waits: &Waits) -> anyhow::Result<Answer> {
    let Server { kind: Kind { port, flag, wants, .. }, address, roots } = server;
    let wish = format!("{flag} {address}: want {wants}");
    let addresses = address.to_socket_addrs().map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => ConfigError(format!("{wish}: {error}")).into(),
        _ => anyhow::Error::from(error).context(wish), // a name that is not known may be known later
    })?;
    let stream = connect(server, addresses, waits.connect)?;
    stream.set_write_timeout(Some(waits.answer))?;
    let mut stream = match roots {
        Some(roots) => tls(stream, address, roots, waits.answer.min(READ_TIME))?,
        None => Stream::Plain(stream),
    };
    // A node that refuses the request early may not read all of it; only its answer counts.
    let written = stream.write_all(request.text(address, secret).as_bytes());
    let mut answer = Vec::new();
    let start = Instant::now();
    let mut read = read_all(&mut stream, &mut answer, start + waits.silent.unwrap_or(waits.answer));
    let seconds = waits.answer.as_secs();
    if waits.silent.is_some() && is_late(&read) {
        eprintln!("sailfish: {address} has not answered yet; waiting for {seconds} s");
        read = read_all(&mut stream, &mut answer, start + waits.answer);
    }
    if is_late(&read) {
        anyhow::bail!("no complete answer from {address} within {seconds} s: is it the {port}?");
    }
    if answer.is_empty() {
        written.and(read).with_context(|| format!("no answer from {address}"))?;
    }
    parse(&answer).with_context(|| format!("{address} is no {port} of Sailfish: it does not speak HTTP"))
}

/// The same connection with TLS, after its handshake.
fn tls(stream: TcpStream, address: &str, roots: &Roots, time: Duration) -> anyhow::Result<Stream> {
    stream.set_read_timeout(Some(time))?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let mut stream = roots.over(host, stream).map_err(|why| anyhow::anyhow!("https://{address}: {why}"))?;
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).with_context(|| format!("no TLS with {address}"))?;
    }
    Ok(Stream::Tls(Box::new(stream)))
}

fn is_late(read: &io::Result<()>) -> bool {
    read.as_ref().is_err_and(|error| error.kind() == ErrorKind::TimedOut)
}

/// Reads until the server closes, `deadline`, or an answer that is too long.
fn read_all(stream: &mut Stream, answer: &mut Vec<u8>, deadline: Instant) -> io::Result<()> {
    let mut space = [0; 16 << 10];
    while answer.len() < ANSWER_BYTES_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.socket().set_read_timeout(Some(left))?;
        match stream.read(&mut space) {
            Ok(0) => return Ok(()),
            Ok(count) => answer.extend_from_slice(&space[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(ErrorKind::FileTooLarge, "the answer is too long"))
}

fn connect(
    Server { kind: Kind { name, flag, wants, .. }, address, .. }: Server<'_>,
    addresses: impl Iterator<Item = SocketAddr>,
    time: Duration,
) -> anyhow::Result<TcpStream> {
    let mut why = None;
    for at in addresses {
        match TcpStream::connect_timeout(&at, time) {
            Ok(stream) => return Ok(stream),
            Err(error) => why = Some(error),
        }
    }
    let wish =
        || format!("no {name} answers at {address}; start one, or say where it is with {flag} {wants}");
    Err(why.map_or_else(|| anyhow::anyhow!("no such address"), anyhow::Error::from).context(wish()))
}

impl Method {
    const fn answer_time(&self) -> Duration {
        match self {
            Self::Get => READ_TIME,
            Self::Post(_) | Self::Put(_) => CHANGE_TIME,
        }
    }
}

impl Request {
    fn text(&self, host: &str, secret: &str) -> String {
        let bearer = match secret {
            "" => String::new(),
            secret => format!("Authorization: Bearer {secret}\r\n"),
        };
        let path = &self.path;
        match &self.method {
            Method::Get => format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n{bearer}\r\n"),
            Method::Post(body) | Method::Put(body) => {
                let method = if matches!(self.method, Method::Put(_)) { "PUT" } else { "POST" };
                let body = body.to_string();
                let length = body.len();
                format!(
                    "{method} {path} HTTP/1.0\r\nHost: {host}\r\n{bearer}Content-Type: application/json\r\n\
                     Content-Length: {length}\r\n\r\n{body}"
                )
            }
        }
    }
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/"))?;
    let (name, value) = SECRET_UNUSED;
    let is_secret_unused = lines.filter_map(|line| line.split_once(':')).any(|(key, text)| {
        key.eq_ignore_ascii_case(name.as_str()) && text.trim().as_bytes() == value.as_bytes()
    });
    Some(Answer { status: words.next()?.parse().ok()?, is_secret_unused, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_never_ends_is_given_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let mut stream = Stream::Plain(TcpStream::connect(address).unwrap());
        let mut answer = Vec::new();
        let read = read_all(&mut stream, &mut answer, Instant::now() + Duration::from_millis(200));
        assert_eq!(read.unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(!answer.is_empty());
        drop(stream);
        server.join().unwrap();
    }

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let answer = parse(b"HTTP/1.0 404 Not Found\r\na: b\r\n\r\n{}\r\n\r\n").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (404, "{}\r\n\r\n"));
        for wrong in ["", "SSH-2.0-x\r\n\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n"] {
            assert!(parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }
}
