//! Connects everybody, publishes at a fixed rate whatever comes back, and counts.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::epoll::Epoll;
use super::{Dialect, Item, Role, Usage};

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The server.
    pub target: SocketAddr,
    /// Connections that read.
    pub receivers: usize,
    /// Connections that take part and never read.
    pub stopped: usize,
    /// Messages a second.
    pub rate: f64,
    /// How long to measure.
    pub seconds: f64,
    /// How long to publish before that.
    pub warm_up_seconds: f64,
    /// Bytes of a message.
    pub payload: usize,
    /// The server's process, for its CPU time and memory.
    pub server_pid: Option<u32>,
}

/// What came out; the names are those of `sailfish load --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Connections that read, the publisher not counted.
    pub connections: usize,
    /// Messages published while measuring.
    pub sent: u64,
    /// Deliveries that came in while measuring.
    pub delivered: u64,
    /// Deliveries that should have come and did not.
    pub lost: u64,
    /// Deliveries a second.
    pub per_second: f64,
    /// What the server used.
    pub server: Option<ServerReport>,
}

/// What the server used.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ServerReport {
    /// CPU time per delivery.
    pub cpu_us_per_op: f64,
    /// Growth of resident memory from before the first connection to the idle state with all of them.
    pub rss_bytes_per_connection: f64,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// After the last message: as long as something still comes in within this time, it is waited for.
const DRAIN_SILENCE: Duration = Duration::from_millis(500);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections whose answers may be outstanding at once: fewer than any server's backlog.
const CONNECTING_MAX: usize = 128;
const READ_BYTES: usize = 64 * 1024;
/// Servers cap the connections of one address.
const CONNECTIONS_PER_ADDRESS: usize = 2_000;
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Small, so that a stopped reader stops its sender soon.
const STOPPED_RECEIVE_BYTES: usize = 4096;

/// Runs `plan` with one thread.
pub fn run(dialect: &dyn Dialect, plan: &Plan) -> anyhow::Result<Report> {
    let before = plan.server_pid.map(Usage::of).transpose().context("reading the server's usage")?;
    let mut client = Client::new(dialect)?;
    client.connect_all(plan)?;
    let idle = plan.server_pid.map(Usage::of).transpose()?;
    let payload = vec![b'x'; plan.payload];

    client.publish(plan.rate, plan.warm_up_seconds, &payload)?;
    client.drain()?;
    let start = Instant::now();
    let (sent_before, delivered_before) = (client.sent, client.delivered);
    let cpu_before = plan.server_pid.map(Usage::of).transpose()?;
    client.publish(plan.rate, plan.seconds, &payload)?;
    let last_delivery = client.drain()?;
    let cpu_after = plan.server_pid.map(Usage::of).transpose()?;

    let sent = client.sent - sent_before;
    let delivered = client.delivered - delivered_before;
    ensure!(delivered > 0, "nothing was delivered");
    let connections = plan.receivers + plan.stopped;
    let server = match (before, idle, cpu_before, cpu_after) {
        (Some(before), Some(idle), Some(cpu_before), Some(cpu_after)) => Some(ServerReport {
            cpu_us_per_op: (cpu_after.cpu_us - cpu_before.cpu_us) as f64 / delivered as f64,
            rss_bytes_per_connection: idle.rss_bytes.saturating_sub(before.rss_bytes) as f64
                / connections as f64,
        }),
        _ => None,
    };
    Ok(Report {
        connections: plan.receivers,
        sent,
        delivered,
        lost: (sent * plan.receivers as u64).saturating_sub(delivered),
        per_second: delivered as f64 / last_delivery.duration_since(start).as_secs_f64(),
        server,
    })
}

struct Connection {
    stream: TcpStream,
    /// The incomplete end of what was read.
    unparsed: Vec<u8>,
    ready: bool,
}

struct Client<'a> {
    dialect: &'a dyn Dialect,
    epoll: Epoll,
    /// The publisher is the last one.
    connections: Vec<Connection>,
    ready: usize,
    sent: u64,
    delivered: u64,
    buffer: Vec<u8>,
}

impl<'a> Client<'a> {
    fn new(dialect: &'a dyn Dialect) -> anyhow::Result<Self> {
        Ok(Self {
            dialect,
            epoll: Epoll::new()?,
            connections: Vec::new(),
            ready: 0,
            sent: 0,
            delivered: 0,
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Comes back when every connection is ready; stopped readers read until then.
    fn connect_all(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        for index in 0..plan.receivers + plan.stopped + 1 {
            while index - self.ready >= CONNECTING_MAX {
                self.step(deadline)?;
            }
            let stopped = index < plan.stopped;
            let publisher = index == plan.receivers + plan.stopped;
            self.connect(
                plan.target,
                index,
                stopped,
                if publisher { Role::Publisher } else { Role::Receiver },
            )?;
        }
        while self.ready < self.connections.len() {
            self.step(deadline)?;
        }
        for stopped in &self.connections[..plan.stopped] {
            self.epoll.forget(&stopped.stream)?;
        }
        Ok(())
    }

    fn connect(&mut self, target: SocketAddr, index: usize, stopped: bool, role: Role) -> anyhow::Result<()> {
        let stream = open(target, index).with_context(|| format!("connection {index} to {target}"))?;
        stream.set_nodelay(true)?;
        if stopped {
            SockRef::from(&stream).set_recv_buffer_size(STOPPED_RECEIVE_BYTES)?;
        }
        let mut hello = Vec::new();
        self.dialect.hello(role, index, &mut hello);
        (&stream).write_all(&hello)?;
        stream.set_nonblocking(true)?;
        self.epoll.watch(&stream, index)?;
        self.connections.push(Connection { stream, unparsed: Vec::new(), ready: false });
        Ok(())
    }

    fn step(&mut self, deadline: Instant) -> anyhow::Result<()> {
        ensure!(
            Instant::now() < deadline,
            "{} of {} connections got ready",
            self.ready,
            self.connections.len()
        );
        self.poll(Duration::from_millis(100)).map(drop)
    }

    /// Publishes `rate * seconds` messages, each at its own time however late the ones before it were.
    fn publish(&mut self, rate: f64, seconds: f64, payload: &[u8]) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut message = Vec::new();
        for number in 0..(rate * seconds) as u64 {
            let due = start + Duration::from_secs_f64(number as f64 / rate);
            loop {
                let left = due.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                self.poll(left)?;
            }
            message.clear();
            self.sent += 1;
            self.dialect.publish(self.sent, payload, &mut message);
            self.write_publisher(&message)?;
        }
        Ok(())
    }

    /// Writes all, reading on meanwhile when the server takes no more.
    fn write_publisher(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        let publisher = self.connections.len() - 1;
        while !bytes.is_empty() {
            match (&self.connections[publisher].stream).write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.poll(Duration::from_millis(1))?;
                }
                Err(error) => return Err(error).context("publishing"),
            }
        }
        Ok(())
    }

    /// Reads until nothing comes any more; the time of the last delivery.
    fn drain(&mut self) -> anyhow::Result<Instant> {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        let mut last = Instant::now();
        while last.elapsed() < DRAIN_SILENCE && Instant::now() < deadline {
            if self.poll(DRAIN_SILENCE / 10)? > 0 {
                last = Instant::now();
            }
        }
        Ok(last)
    }

    /// Reads what is there, waiting up to `timeout`; how many messages were delivered.
    fn poll(&mut self, timeout: Duration) -> anyhow::Result<u64> {
        let before = self.delivered;
        for index in self.epoll.wait(timeout)? {
            self.read(index)?;
        }
        Ok(self.delivered - before)
    }

    fn read(&mut self, index: usize) -> anyhow::Result<()> {
        let connection = &mut self.connections[index];
        let len = match (&connection.stream).read(&mut self.buffer) {
            Ok(0) => bail!("the server closed connection {index}"),
            Ok(len) => len,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("connection {index}")),
        };
        let joined;
        let mut input = &self.buffer[..len];
        if !connection.unparsed.is_empty() {
            connection.unparsed.extend_from_slice(input);
            joined = std::mem::take(&mut connection.unparsed);
            input = &joined;
        }
        while let Some((bytes, item)) = self.dialect.next(input) {
            input = &input[bytes..];
            match item {
                Item::Delivered => self.delivered += 1,
                Item::Ready if !connection.ready => {
                    connection.ready = true;
                    self.ready += 1;
                }
                Item::Ready | Item::Other => {}
                Item::Asked(answer) => (&connection.stream).write_all(answer)?,
                Item::Refused(how) => bail!("connection {index} was refused: {how}"),
            }
        }
        connection.unparsed = input.to_vec();
        Ok(())
    }
}

/// A connection from a loopback address of its own for every `CONNECTIONS_PER_ADDRESS`, when the target is on
/// loopback.
fn open(target: SocketAddr, index: usize) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    if target.ip() == Ipv4Addr::LOCALHOST {
        let source = Ipv4Addr::from_bits(FIRST_SOURCE.to_bits() + (index / CONNECTIONS_PER_ADDRESS) as u32);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    socket.connect_timeout(&target.into(), CONNECT_TIMEOUT)?;
    Ok(socket.into())
}
