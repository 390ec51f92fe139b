//! How connections end.

use std::io;

use shard::{CloseReason, ConnId, Event, Instant, Linger, Shard};

use super::conns::State;
use super::driver::{Driver, News};

impl<S: Shard> Driver<S> {
    /// What the core asks for. A flush may still be turned into an abort.
    pub(super) fn close(&mut self, now: Instant, conn: ConnId, linger: Linger) -> io::Result<()> {
        let Some(entry) = self.conns.get_mut(conn) else { return Ok(()) };
        match (linger, entry.state) {
            (_, State::Connecting | State::Dying) | (Linger::Flush, State::Flushing | State::Draining) => {
                Ok(())
            }
            (Linger::Abort, State::Open | State::Flushing | State::Draining) => {
                self.kernel.reset(&entry.file)?;
                self.die(conn, CloseReason::Local)
            }
            (Linger::Flush, State::Open) => {
                entry.state = State::Flushing;
                let is_sending = entry.is_sending();
                self.lingers.push_back((now + self.seat.options.linger, conn));
                self.receive(conn)?; // its receive may have ended for want of a buffer, or while it was held
                if is_sending { Ok(()) } else { self.flush(now, conn) }
            }
        }
    }

    /// Sends the next batch of a flushing connection, or the FIN when there is none.
    pub(super) fn flush(&mut self, now: Instant, conn: ConnId) -> io::Result<()> {
        if self.send_next(now, conn)? {
            return Ok(());
        }
        let Some(entry) = self.conns.get_mut(conn) else { return Ok(()) };
        entry.state = State::Draining;
        let is_cut = self.kernel.finish_writing(&entry.file).is_err();
        if is_cut || entry.finished { self.die(conn, CloseReason::Local) } else { Ok(()) }
    }

    /// Cuts off the closing connections whose time is up.
    pub(super) fn end_lingers(&mut self, now: Instant) -> io::Result<()> {
        while let Some(&(due, conn)) = self.lingers.front() {
            let lingering = self.conns.get_mut(conn).filter(|entry| entry.state != State::Dying);
            match lingering {
                Some(_) if now < due => return Ok(()),
                Some(entry) => {
                    self.kernel.reset(&entry.file)?;
                    self.die(conn, CloseReason::Local)?;
                }
                None => {}
            }
            self.lingers.pop_front();
        }
        Ok(())
    }

    /// The socket failed under a receive or a send.
    pub(super) fn fail(&mut self, conn: ConnId, errno: i32) -> io::Result<()> {
        let Some(entry) = self.conns.get_mut(conn) else { return Ok(()) };
        let reason = match (entry.state, errno) {
            (State::Flushing | State::Draining, _) => CloseReason::Local, // the core asked first
            (_, libc::ECONNRESET | libc::EPIPE) => CloseReason::Reset,
            _ => CloseReason::Failed,
        };
        self.die(conn, reason)
    }

    /// Ends a connection as soon as its operations have ended, and makes them end.
    pub(super) fn die(&mut self, conn: ConnId, reason: CloseReason) -> io::Result<()> {
        let Some(entry) = self.conns.get_mut(conn) else { return Ok(()) };
        if entry.state == State::Dying {
            return Ok(());
        }
        entry.state = State::Dying;
        entry.reason = reason;
        if entry.is_busy() {
            self.kernel.reset(&entry.file)?;
        }
        self.bury_if_idle(conn);
        Ok(())
    }

    /// After an operation of a dying connection has ended.
    pub(super) fn bury_if_idle(&mut self, conn: ConnId) {
        if self.conns.get_mut(conn).is_some_and(|entry| !entry.is_busy()) {
            self.news.push_back(News::Gone(conn));
        }
    }

    /// Tells the core that the connection is gone, closes its socket and frees its name.
    pub(super) fn bury(&mut self, now: Instant, conn: ConnId) -> io::Result<()> {
        let Some(entry) = self.conns.remove(conn) else { return Ok(()) };
        self.count_connections();
        self.tell(now, Event::Closed { conn, reason: entry.reason });
        self.kernel.close(entry.file)
    }
}
