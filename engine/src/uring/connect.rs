//! Connections that the core opens.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};

use io_uring::opcode;
use shard::{ConnId, ConnectError, Event, Instant, Life, Shard};
use socket2::SockAddr;

use super::conns::Conn;
use super::driver::{Driver, News};
use super::group::Group;
use super::ring::Completion;
use super::token::{Op, Token};
use crate::socket::{self, CONNECT_TIME};

/// The connects under way.
#[derive(Default)]
pub(super) struct Connects {
    pending: HashMap<u32, Pending>,
    /// In the order of starting, and so of ending.
    dues: VecDeque<(Instant, ConnId)>,
}

struct Pending {
    token: u64,
    is_late: bool,
    /// Boxed, so that the kernel finds it where it was.
    peer: Box<SockAddr>,
}

impl Connects {
    /// When to look for late ones.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.dues.front().map(|(due, _)| *due)
    }

    pub(super) fn peer(&self, conn: ConnId) -> Option<&SockAddr> {
        self.pending.get(&conn.index).map(|pending| &*pending.peer)
    }
}

impl<S: Shard> Driver<S> {
    pub(super) fn connect(
        &mut self,
        now: Instant,
        token: u64,
        peer: SocketAddr,
        source: Option<IpAddr>,
    ) -> io::Result<()> {
        if !self.has_room() {
            self.news.push_back(News::ConnectFailed(token, ConnectError::Exhausted));
            return Ok(());
        }
        let socket = match socket::to_connect(peer, source, &self.seat.options) {
            Ok(socket) => socket,
            Err(error) => {
                self.news.push_back(News::ConnectFailed(token, error));
                return Ok(());
            }
        };
        let Ok(file) = self.kernel.adopt(socket, Group::Opened) else {
            self.news.push_back(News::ConnectFailed(token, ConnectError::Exhausted));
            return Ok(());
        };
        let conn = self.conns.insert(Conn::new(file, Life::connecting(), Group::Opened));
        self.count_connections();
        let connects = &mut self.kernel.connects;
        connects.dues.push_back((now + CONNECT_TIME, conn));
        connects.pending.insert(conn.index, Pending { token, is_late: false, peer: Box::new(peer.into()) });
        self.connect_out(conn)
    }

    fn connect_out(&mut self, conn: ConnId) -> io::Result<()> {
        self.conns.get_mut(conn).map_or(Ok(()), |entry| self.kernel.connect(conn, &entry.file))
    }

    pub(super) fn on_connect(&mut self, now: Instant, completion: Completion) -> io::Result<()> {
        let conn = completion.token.conn();
        let pending = self.kernel.connects.pending.remove(&conn.index);
        let (Some(Pending { token, is_late, .. }), Some(entry)) = (pending, self.conns.get_mut(conn)) else {
            return Ok(());
        };
        if completion.result == 0 {
            entry.life.connected();
            self.seat.stats.connects.add(1);
            self.tell(now, Event::Connected { conn, token });
            return self.receive(conn);
        }
        let error = match -completion.result {
            libc::ECANCELED if is_late => ConnectError::TimedOut,
            errno => socket::why(&io::Error::from_raw_os_error(errno)),
        };
        let failed = self.conns.remove(conn);
        self.count_connections();
        self.tell(now, Event::ConnectFailed { token, error });
        failed.map_or(Ok(()), |entry| self.kernel.close(entry.file))
    }

    /// Cancels the connects whose time is up.
    pub(super) fn give_up_connects(&mut self, now: Instant) -> io::Result<()> {
        while let Some(&(due, conn)) = self.kernel.connects.dues.front() {
            let is_pending = self.conns.get_mut(conn).is_some_and(|entry| entry.life.is_connecting());
            if is_pending && now < due {
                break;
            }
            self.kernel.connects.dues.pop_front();
            if is_pending && let Some(pending) = self.kernel.connects.pending.get_mut(&conn.index) {
                pending.is_late = true;
                let cancel = opcode::AsyncCancel::new(Token::of(Op::Connect, conn).as_u64()).build();
                if let Some(entry) = self.conns.get_mut(conn) {
                    self.kernel.push_beside(&entry.file, cancel, Token::new(Op::Cancel))?;
                }
            }
        }
        Ok(())
    }
}
