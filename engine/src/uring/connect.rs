//! Connections that the core opens.

use std::io;
use std::net::{IpAddr, SocketAddr};

use io_uring::opcode;
use shard::{ConnId, ConnectError, Event, Instant, Life, Shard};

use super::connects::Pending;
use super::conns::Conn;
use super::driver::{Driver, News};
use super::group::Group;
use super::ring::Completion;
use super::token::{Op, Token};
use crate::socket;

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
        self.kernel.connects.begin(now, conn, token, peer.into());
        self.connect_out(conn)
    }

    fn connect_out(&mut self, conn: ConnId) -> io::Result<()> {
        self.conns.get_mut(conn).map_or(Ok(()), |entry| self.kernel.connect(conn, &entry.file))
    }

    pub(super) fn on_connect(&mut self, now: Instant, completion: Completion) -> io::Result<()> {
        let conn = completion.token.conn();
        let pending = self.kernel.connects.end(conn);
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
        let Self { conns, kernel, .. } = self;
        loop {
            let is_pending = |conn| conns.get_mut(conn).is_some_and(|entry| entry.life.is_connecting());
            let Some(conn) = kernel.connects.next_late(now, is_pending) else { return Ok(()) };
            let cancel = opcode::AsyncCancel::new(Token::of(Op::Connect, conn).as_u64()).build();
            if let Some(entry) = conns.get_mut(conn) {
                kernel.push_beside(&entry.file, cancel, Token::new(Op::Cancel))?;
            }
        }
    }
}
