//! How connections end.

use std::io;

use shard::{CloseReason, Closing, ConnId, Event, Instant, Linger, Shard};

use super::driver::{Driver, News};

impl<S: Shard> Driver<S> {
    /// Closes a connection as the core asks.
    pub(super) fn close(&mut self, now: Instant, conn: ConnId, linger: Linger) -> io::Result<()> {
        let Some(entry) = self.conns.get_mut(conn) else { return Ok(()) };
        match entry.life.close(linger) {
            Closing::Ignored => Ok(()),
            Closing::Reset => {
                self.kernel.reset(&entry.file)?;
                self.wind_up(conn)
            }
            Closing::Flush => {
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
        let is_cut = self.kernel.finish_writing(&entry.file).is_err();
        if entry.life.drain(is_cut) { self.wind_up(conn) } else { Ok(()) }
    }

    /// Cuts off the closing connections whose time is up.
    pub(super) fn end_lingers(&mut self, now: Instant) -> io::Result<()> {
        while let Some(&(due, conn)) = self.lingers.front() {
            let lingering = self.conns.get_mut(conn).filter(|entry| !entry.life.has_ended());
            match lingering {
                Some(_) if now < due => return Ok(()),
                Some(entry) => {
                    entry.life.end(CloseReason::Local);
                    self.kernel.reset(&entry.file)?;
                    self.wind_up(conn)?;
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
        let reason = match errno {
            libc::ECONNRESET | libc::EPIPE => CloseReason::Reset,
            _ => CloseReason::Failed,
        };
        if entry.life.fail(reason) { self.wind_up(conn) } else { Ok(()) }
    }

    /// Ends a connection: has its operations end, and reports it to the core as soon as they have.
    pub(super) fn wind_up(&mut self, conn: ConnId) -> io::Result<()> {
        let Some(entry) = self.conns.get_mut(conn) else { return Ok(()) };
        if entry.is_busy() {
            self.kernel.reset(&entry.file)?;
        }
        self.bury_if_idle(conn);
        Ok(())
    }

    /// After an operation of a connection that has ended.
    pub(super) fn bury_if_idle(&mut self, conn: ConnId) {
        if self.conns.get_mut(conn).is_some_and(|entry| !entry.is_busy()) {
            self.news.push_back(News::Gone(conn));
        }
    }

    /// Tells the core that the connection is gone, closes its socket and frees its name.
    pub(super) fn bury(&mut self, now: Instant, conn: ConnId) -> io::Result<()> {
        let Some(entry) = self.conns.remove(conn) else { return Ok(()) };
        self.count_connections();
        let reason = entry.life.ended().unwrap_or(CloseReason::Local);
        self.tell(now, Event::Closed { conn, reason });
        self.kernel.close(entry.file)
    }
}
