//! Readers that stop reading: plain sockets that log in, join their room and then sleep.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use loadgen::Plan;
use socket2::{Domain, Protocol, Socket, Type};
use wire::client::{ClientFrame, Deframer, Encoding, ServerFrame};
use wire::{DeviceClass, RoomId, UserId};

use super::settings::Settings;
use crate::secret::Secret;
use crate::token;

/// The kernel doubles it and has a floor of its own; a small one fills soon.
const RECV_BUFFER_BYTES: usize = 4096;
const ANSWER_TIME: Duration = Duration::from_secs(10);
const TOKEN_TTL: Duration = Duration::from_secs(24 * 60 * 60);
const BODY_BYTES_MAX: usize = 1 << 20;

/// Readers that do not read.
pub(super) struct Stopped {
    readers: Vec<(TcpStream, Deframer)>,
}

impl Stopped {
    /// Connects them, one after the other; they are the run's last clients.
    ///
    /// # Errors
    /// The first that cannot log in and join.
    pub(super) fn start(settings: &Settings, secret: &Secret) -> anyhow::Result<Self> {
        let Some(plan) = settings.plans.last() else { return Ok(Self { readers: Vec::new() }) };
        let first = plan.first_client + plan.clients;
        let readers = (0..settings.stopped).map(|index| {
            let source = settings.stopped_sources.map(|sources| SocketAddr::new(sources.address(index), 0));
            let client = first + index;
            let target = plan.targets[usize::from(plan.first_target(client))];
            let stream = connect(target, source).context("a reader to be stopped")?;
            join(stream, plan, client, secret).context("a reader to be stopped")
        });
        Ok(Self { readers: readers.collect::<anyhow::Result<_>>()? })
    }

    /// How they ended: how many were closed, by the notice that gave the reason.
    pub(super) fn end(self) -> BTreeMap<String, u64> {
        let mut ends = BTreeMap::new();
        for (stream, deframer) in self.readers {
            *ends.entry(end_of(stream, deframer)).or_default() += 1;
        }
        ends
    }
}

fn connect(target: SocketAddr, source: Option<SocketAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_recv_buffer_size(RECV_BUFFER_BYTES)?;
    if let Some(source) = source {
        socket.bind(&source.into())?;
    }
    socket.connect(&target.into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    Ok(stream)
}

fn join(
    mut stream: TcpStream,
    plan: &Plan,
    client: u32,
    secret: &Secret,
) -> anyhow::Result<(TcpStream, Deframer)> {
    let user = UserId(plan.first_user + i64::from(client));
    let room = RoomId(plan.first_room + i64::from(client % plan.rooms));
    let encoding = if plan.json { Encoding::Json } else { Encoding::Binary };
    let token = token::mint(secret, plan.app, user, DeviceClass::Phone, TOKEN_TTL);
    let mut bytes = Vec::new();
    ClientFrame::Login { token: Cow::Owned(token) }.encode(encoding, plan.app, user, &mut bytes);
    stream.write_all(&bytes)?;
    let mut deframer = Deframer::default();
    wait(&mut stream, &mut deframer, |frame| matches!(frame, ServerFrame::LoggedIn { .. }))?;
    bytes.clear();
    ClientFrame::Join { room, want: None }.encode(encoding, plan.app, user, &mut bytes);
    stream.write_all(&bytes)?;
    wait(&mut stream, &mut deframer, |frame| matches!(frame, ServerFrame::Joined { .. }))?;
    Ok((stream, deframer))
}

/// Reads until the wanted frame.
fn wait(
    stream: &mut TcpStream,
    deframer: &mut Deframer,
    wanted: impl Fn(&ServerFrame<'_>) -> bool,
) -> anyhow::Result<()> {
    let mut buffer = [0; 512];
    loop {
        let count = stream.read(&mut buffer)?;
        anyhow::ensure!(count > 0, "the server closed");
        let mut bytes = &buffer[..count];
        let mut found = false;
        while let Some(frame) = deframer.next(&mut bytes, BODY_BYTES_MAX).map_err(broken)? {
            let frame = ServerFrame::decode(&frame).map_err(broken)?;
            if let ServerFrame::Notice { code, .. } = frame {
                bail!("the server says {}", code.name());
            }
            found |= wanted(&frame);
        }
        if found {
            return Ok(());
        }
    }
}

fn broken(error: wire::client::DecodeError) -> anyhow::Error {
    anyhow::anyhow!("the server sent a broken frame: {error:?}")
}

/// Reads what is left: the last notice, or the state of the connection.
fn end_of(mut stream: TcpStream, mut deframer: Deframer) -> String {
    let mut buffer = vec![0; 64 * 1024];
    let mut notice = None;
    if stream.set_nonblocking(true).is_err() {
        return "socket_error".into();
    }
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => return notice.unwrap_or("closed").into(),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return notice.unwrap_or("open").into(),
            Err(_) => return notice.unwrap_or("reset").into(),
        };
        let mut bytes = &buffer[..count];
        while let Ok(Some(frame)) = deframer.next(&mut bytes, BODY_BYTES_MAX) {
            if let Ok(ServerFrame::Notice { code, .. }) = ServerFrame::decode(&frame) {
                notice = Some(code.name());
            }
        }
    }
}
