//! Bytes in and bytes out.

use std::io;
use std::ptr;

use io_uring::opcode;
use io_uring::types::Fd;
use shard::{ConnId, Event, Finishing, Instant, Shard};

use super::driver::Driver;
use super::group::Group;
use super::ring::Completion;
use super::sends;
use super::token::{Op, Token};

/// What a closing connection discards at once.
const DISCARD_BYTES: u32 = 1 << 20;

impl<S: Shard> Driver<S> {
    /// Arms the receive of a connection, unless it is armed or there is nothing to receive any more. A
    /// closing one only waits for the peer's FIN: it discards what comes before, and takes no buffer, of
    /// which there may be none while its group is pushed back.
    pub(super) fn receive(&mut self, conn: ConnId) -> io::Result<()> {
        let Some(entry) = self.conns.get_mut(conn) else { return Ok(()) };
        if entry.receiving || !entry.life.is_heard() {
            return Ok(());
        }
        entry.receiving = true;
        if !entry.life.is_open() {
            let discard = opcode::Recv::new(Fd(entry.file.number()), ptr::null_mut(), DISCARD_BYTES);
            // With this flag TCP copies nothing.
            let discard = discard.flags(libc::MSG_TRUNC).build();
            return self.kernel.push_plain(&entry.file, discard, Token::of(Op::Discard, conn));
        }
        let receive = opcode::RecvMulti::new(Fd(entry.file.number()), entry.group.id()).build();
        self.kernel.push_plain(&entry.file, receive, Token::of(Op::receive(entry.group), conn))
    }

    /// Takes in a receive. If it was the last of its operation, its end is noted already: `receiving` may be
    /// that of another since.
    pub(super) fn on_receive(
        &mut self,
        now: Instant,
        group: Group,
        completion: Completion,
    ) -> io::Result<()> {
        let conn = completion.token.conn();
        if completion.buffer().is_some() {
            self.deliver(now, group, completion);
        }
        if completion.has_more() { Ok(()) } else { self.on_receive_end(now, conn, completion.result) }
    }

    pub(super) fn on_discard(&mut self, now: Instant, completion: Completion) -> io::Result<()> {
        self.note_end(completion);
        self.on_receive_end(now, completion.token.conn(), completion.result)
    }

    /// Notes the end of an operation, if this was its last completion.
    pub(super) fn note_end(&mut self, completion: Completion) {
        if let Some(entry) = self.conns.get_mut(completion.token.conn()) {
            entry.receiving &= completion.has_more();
        }
    }

    fn on_receive_end(&mut self, now: Instant, conn: ConnId, result: i32) -> io::Result<()> {
        let Some(entry) = self.conns.get_mut(conn) else { return Ok(()) };
        let (life, group) = (entry.life, entry.group);
        if life.has_ended() {
            self.bury_if_idle(conn);
            return Ok(());
        }
        match result {
            0 => self.on_finish(now, conn)?,
            // A multishot receive ends now and then for reasons of its own.
            1.. => self.receive(conn)?,
            error => match -error {
                libc::ENOBUFS => {
                    self.seat.stats.receive_exhaustions.add(1);
                    match life.is_open() {
                        true => self.kernel.starve(conn, &entry.file, group),
                        false => self.receive(conn)?,
                    }
                }
                libc::EINTR | libc::EAGAIN => self.receive(conn)?,
                errno => self.fail(conn, errno)?,
            },
        }
        Ok(())
    }

    /// Hands received bytes to the core, or drops those of a closing connection, and lets go of the buffer.
    fn deliver(&mut self, now: Instant, group: Group, completion: Completion) {
        let conn = completion.token.conn();
        let Some(buffers) = self.kernel.buffers(completion.ring, group) else { return };
        let is_open = self.conns.get_mut(conn).is_some_and(|entry| entry.life.is_open());
        if let Some(bytes) = buffers.get(completion)
            && is_open
            && !bytes.is_empty()
        {
            let stats = &self.seat.stats;
            stats.events.add(1);
            stats.receives.add(1);
            stats.bytes_in.add(bytes.len() as u64);
            self.core.handle(now, Event::Received { conn, bytes });
        }
        buffers.done(completion);
    }

    fn on_finish(&mut self, now: Instant, conn: ConnId) -> io::Result<()> {
        let Some(entry) = self.conns.get_mut(conn) else { return Ok(()) };
        match entry.life.finish() {
            Finishing::Tell => self.tell(now, Event::Finished { conn }),
            Finishing::End => self.wind_up(conn)?,
            Finishing::Ignored => {}
        }
        Ok(())
    }

    /// Takes the next batch of an open connection, unless one is in flight.
    pub(super) fn transmit(&mut self, now: Instant, conn: ConnId) -> io::Result<()> {
        match self.conns.get_mut(conn) {
            Some(entry) if entry.life.is_open() && !entry.is_sending() => self.send_next(now, conn).map(drop),
            _ => Ok(()),
        }
    }

    /// Sends what the core has for `conn`. Returns whether it had anything.
    pub(super) fn send_next(&mut self, now: Instant, conn: ConnId) -> io::Result<bool> {
        let mut batch = self.kernel.sends.batch();
        self.core.poll_transmit(now, conn, &mut batch);
        if batch.is_empty() {
            self.kernel.sends.put_back(batch);
            return Ok(false);
        }
        let Some(entry) = self.conns.get_mut(conn) else { return Ok(false) };
        entry.send = self.kernel.sends.add(batch);
        self.seat.stats.sends.add(1);
        self.push_send(conn)?;
        Ok(true)
    }

    pub(super) fn on_send(&mut self, now: Instant, completion: Completion) -> io::Result<()> {
        let conn = completion.token.conn();
        let Some(entry) = self.conns.get_mut(conn) else { return Ok(()) };
        let life = entry.life;
        let written = usize::try_from(completion.result).unwrap_or(0);
        let through = self.kernel.sends.wrote(entry.send, written);
        let retry = written > 0 || matches!(-completion.result, libc::EINTR | libc::EAGAIN);
        if through.is_none() && retry && !life.has_ended() {
            return self.push_send(conn);
        }
        self.kernel.sends.remove(entry.send);
        entry.send = sends::NONE;
        if life.has_ended() {
            self.bury_if_idle(conn);
            return Ok(());
        }
        let Some(bytes) = through else {
            return self.fail(conn, -completion.result);
        };
        self.seat.stats.bytes_out.add(bytes as u64);
        self.tell(now, Event::Sent { conn, bytes });
        if life.is_flushing() {
            self.flush(now, conn)?;
        }
        Ok(())
    }

    fn push_send(&mut self, conn: ConnId) -> io::Result<()> {
        let Some(entry) = self.conns.get_mut(conn) else { return Ok(()) };
        self.kernel.send(entry.send, &entry.file, conn)
    }
}
