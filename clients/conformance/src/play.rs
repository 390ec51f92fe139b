//! One scenario with one client: its server's ports, and the client's program.

use std::fmt;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::connection::{Connection, PATIENCE, pause};
use crate::program::{Command, Program};
use crate::transport::{Transport, refuse_upgrade};
use crate::{Verdict, ensure};

/// How long a program may take to start and connect: a virtual machine on a busy host is slow.
const START_TIME: Duration = Duration::from_secs(20);
/// How often a port is looked at.
const LOOK_TIME: Duration = Duration::from_millis(1);

/// A scenario.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it wants of a client.
    pub wants: &'static str,
    pub(crate) arguments: fn() -> Vec<String>,
    pub(crate) script: fn(&mut Play) -> Verdict,
}

/// The transport that a client is told to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Over {
    /// Frames on TCP.
    Tcp,
    /// Messages on WebSocket.
    Ws,
}

impl fmt::Display for Over {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Ws => "ws",
        })
    }
}

/// Plays a scenario with a program that is started for it.
///
/// # Errors
/// What the client did wrong, with all that it printed.
pub fn play(scenario: &Scenario, over: Over, command: &Command, verbose: bool) -> Verdict {
    let port = Port::open()?;
    let mut arguments = match over {
        Over::Tcp => vec!["--tcp".to_owned(), port.address.to_string()],
        Over::Ws => vec!["--ws".to_owned(), format!("ws://{}", port.address)],
    };
    arguments.extend(["--scenario".into(), scenario.name.into()]);
    arguments.extend((scenario.arguments)());
    let program = Program::start(command, &arguments, verbose)?;
    run(scenario, Play::new(over, port, program, arguments, verbose))
}

/// Plays a scenario with a client that somebody else starts, over the transport by which it comes first.
///
/// # Errors
/// The same.
pub fn serve(scenario: &Scenario) -> Verdict {
    let (mut tcp, mut ws) = (Port::open()?, Port::open()?);
    let arguments = (scenario.arguments)();
    let addresses = json!({
        "tcp": tcp.address.to_string(),
        "ws": format!("ws://{}", ws.address),
        "arguments": arguments.iter().map(String::as_str).chain(["--scenario", scenario.name]).collect::<Vec<_>>(),
    });
    println!("{addresses}");
    let (over, port) = loop {
        if tcp.is_called() {
            break (Over::Tcp, tcp);
        }
        if ws.is_called() {
            break (Over::Ws, ws);
        }
        pause(LOOK_TIME);
    };
    run(scenario, Play::new(over, port, Program::foreign(true), arguments, true))
}

fn run(scenario: &Scenario, mut play: Play) -> Verdict {
    (scenario.script)(&mut play).map_err(|fault| format!("{fault}\n{}", play.program.story()))
}

/// A port of loopback.
pub struct Port {
    /// `None` while nobody listens.
    listener: Option<TcpListener>,
    waiting: Option<(Instant, TcpStream)>,
    pub address: SocketAddr,
}

impl Port {
    /// Opens a port of an address of its own, where the system has that many. On an address that all share,
    /// the number of a port that is shut for a while would be free for others.
    pub fn open() -> Verdict<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = (std::process::id() << 6).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let [_, a, b, c] = number.to_be_bytes();
        let own = Ipv4Addr::new(127, a, b, c.clamp(2, 254));
        Self::open_at(own).or_else(|_| Self::open_at(Ipv4Addr::LOCALHOST))
    }

    fn open_at(address: Ipv4Addr) -> Verdict<Self> {
        let mut port = Self { listener: None, waiting: None, address: SocketAddr::from((address, 0)) };
        port.reopen()?;
        Ok(port)
    }

    /// Listens no longer: connects are refused.
    pub fn shut(&mut self) {
        self.listener = None;
    }

    pub fn reopen(&mut self) -> Verdict {
        let wrong = |error| format!("the server cannot listen: {error}");
        let listener = TcpListener::bind(self.address).map_err(wrong)?;
        listener.set_nonblocking(true).map_err(wrong)?;
        self.address = listener.local_addr().map_err(wrong)?;
        self.listener = Some(listener);
        Ok(())
    }

    /// Whether a client has come. It is accepted, and waits for the script.
    fn is_called(&mut self) -> bool {
        self.waiting = self.accept("a connection", Duration::ZERO, || Ok(())).ok();
        self.waiting.is_some()
    }

    /// Waits for a connection, as long as `go_on` has no reason not to.
    fn accept(
        &mut self,
        what: &str,
        within: Duration,
        mut go_on: impl FnMut() -> Verdict,
    ) -> Verdict<(Instant, TcpStream)> {
        if let Some(waiting) = self.waiting.take() {
            return Ok(waiting);
        }
        let listener = self.listener.as_ref().ok_or("the script closed this port")?;
        let deadline = Instant::now() + within;
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).map_err(|error| error.to_string())?;
                    return Ok((Instant::now(), stream));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let within = within.as_millis();
                    ensure!(Instant::now() < deadline, "wanted {what} within {within} ms, but none came");
                    go_on()?;
                }
                Err(error) => return Err(format!("the server cannot accept: {error}")),
            }
            pause(LOOK_TIME);
        }
    }
}

/// A scenario under way.
pub struct Play {
    pub over: Over,
    pub port: Port,
    pub program: Program,
    arguments: Vec<String>,
    verbose: bool,
    was_called: bool,
}

impl Play {
    fn new(over: Over, port: Port, program: Program, arguments: Vec<String>, verbose: bool) -> Self {
        Self { over, port, program, arguments, verbose, was_called: false }
    }

    /// The tokens that the client was given, in their order.
    pub fn token(&self, at: usize) -> Verdict<&str> {
        let mut tokens = self.arguments.windows(2).filter(|pair| pair[0] == "--token");
        Ok(&tokens.nth(at).ok_or("the scenario gives fewer tokens")?[1])
    }

    /// Waits for the client's next connection.
    pub fn accept(&mut self) -> Verdict<Connection> {
        self.accept_within(self.patience())
    }

    pub fn accept_within(&mut self, within: Duration) -> Verdict<Connection> {
        let (at, stream) = self.call(within)?;
        self.take(stream, at)
    }

    /// Waits for the client at another port.
    pub fn accept_at(&mut self, port: &mut Port, within: Duration) -> Verdict<Connection> {
        let (at, stream) = port.accept("a connection at the alternative", within, || self.program.runs())?;
        self.take(stream, at)
    }

    /// Accepts a connection, logs the client in, and waits until it says so.
    pub fn log_in(&mut self) -> Verdict<Connection> {
        let mut connection = self.accept()?;
        connection.login()?;
        self.program.event("logged_in", PATIENCE, |_| true)?;
        Ok(connection)
    }

    /// Waits for a connection, and ends it before the client could say anything: the time right before that.
    pub fn refuse(&mut self) -> Verdict<Instant> {
        let (_, stream) = self.call(self.patience())?;
        let at = Instant::now();
        drop(stream);
        Ok(at)
    }

    /// Waits for a request to upgrade, and answers it with 503 and that name of a notice.
    pub fn refuse_upgrade(&mut self, name: &str) -> Verdict<Instant> {
        let (at, stream) = self.call(self.patience())?;
        refuse_upgrade(stream, name).map_err(|error| format!("no request to upgrade came: {error}"))?;
        Ok(at)
    }

    /// Fails if the client connects within that time.
    pub fn nobody_comes(&mut self, for_time: Duration) -> Verdict {
        let came = self.port.accept("no connection", for_time, || Ok(())).is_ok();
        ensure!(!came, "the client connected again within {} ms, and should stay away", for_time.as_millis());
        Ok(())
    }

    /// Waits for the outcome of a message; the event.
    pub fn outcome(&mut self, client_msg_id: &str, outcome: &str) -> Verdict<Value> {
        let (_, event) =
            self.program.event("outcome", PATIENCE, |event| event["client_msg_id"] == client_msg_id)?;
        ensure!(
            event["outcome"] == outcome,
            "wanted the outcome {outcome} of {client_msg_id}, printed was {event}"
        );
        Ok(event)
    }

    /// Waits for the message that comes next, and checks its text.
    pub fn message(&mut self, text: &str) -> Verdict<Value> {
        let (_, event) = self.program.event("message", PATIENCE, |_| true)?;
        ensure!(event["data"] == text, "wanted a message {text:?}, printed was {event}");
        Ok(event)
    }

    /// Fails when more outcomes were printed than these, or others.
    pub fn all_outcomes(&mut self, count: usize) -> Verdict {
        let outcomes = self.program.events("outcome")?;
        ensure!(outcomes.len() == count, "wanted {count} outcomes in all, printed were {outcomes:?}");
        Ok(())
    }

    /// Fails when more messages were shown than these.
    pub fn all_messages(&mut self, texts: &[&str]) -> Verdict {
        let messages = self.program.events("message")?;
        let shown: Vec<&str> =
            messages.iter().map(|event| event["data"].as_str().unwrap_or_default()).collect();
        ensure!(shown == texts, "wanted the messages {texts:?} in all, printed were {shown:?}");
        Ok(())
    }

    fn patience(&self) -> Duration {
        if self.was_called { PATIENCE } else { START_TIME }
    }

    fn call(&mut self, within: Duration) -> Verdict<(Instant, TcpStream)> {
        let what = if self.was_called { "another connection" } else { "a connection" };
        let called = self.port.accept(what, within, || self.program.runs())?;
        self.was_called = true;
        Ok(called)
    }

    fn take(&self, stream: TcpStream, at: Instant) -> Verdict<Connection> {
        if self.verbose {
            eprintln!("    server: accepts a connection");
        }
        let transport = match self.over {
            Over::Tcp => Transport::tcp(stream).map_err(|error| error.to_string())?,
            Over::Ws => Transport::websocket(stream)?,
        };
        Ok(Connection::new(transport, at, self.verbose))
    }
}
