//! Who has been silent for too long, as far as what they have said was read.

use shard::{ConnId, Instant};
use wire::client::NoticeCode;

use super::Gateway;
use crate::dirty::Dirt;
use crate::limits::HEARING_TIME;
use crate::session::Phase;
use crate::timer::Timer;

impl Gateway {
    /// From here on, what clients say is left in their sockets, or read again. Until it has been read for a
    /// while, nobody is silent.
    pub fn set_unread(&mut self, now: Instant, are_unread: bool) {
        self.are_unread = are_unread;
        self.hears_from = now + HEARING_TIME;
    }

    /// From here on, turns leave something unread, or nothing. While they do, what a client has said may lie
    /// in its socket, and it may be silent for twice as long: everybody is read in turn, so that is enough.
    pub fn set_input_waits(&mut self, waits: bool) {
        self.is_behind = waits;
    }

    /// When to look again for a client that has been silent, or has not acked; `None` when it may be judged.
    pub(super) fn judges_later(&self, now: Instant) -> Option<Instant> {
        if self.are_unread {
            return Some(now + HEARING_TIME);
        }
        Some(self.hears_from).filter(|from| now < *from)
    }

    /// The login deadline has passed, or it is time to look at a client that is logged in.
    pub(super) fn session_timeout(&mut self, now: Instant, conn_index: u32) {
        let login_max = self.config.limits.login_deadline();
        let later = self.judges_later(now);
        let Some((conn, session)) = self.sessions.get_mut_by_index(conn_index) else { return };
        if let Some(later) = later {
            session.timer = self.wheel.arm(later, Timer::Session { conn_index }.pack());
            return;
        }
        match session.phase {
            Phase::Live => self.live_timeout(now, conn),
            Phase::Waiting => self.close_crowded(conn),
            Phase::Fresh if self.is_behind && now < session.last_seen + 2 * login_max => {
                session.timer = self.wheel.arm(now + HEARING_TIME, Timer::Session { conn_index }.pack());
            }
            Phase::Fresh | Phase::Binding | Phase::Closing => {
                self.close_with_notice(conn, NoticeCode::LoginTimeout);
            }
        }
    }

    /// Looks whether a client is still there and its token still good. Neither a heartbeat nor a renewal
    /// re-arms anything, so the timer fires early and is set anew to the moment that these allow.
    fn live_timeout(&mut self, now: Instant, conn: ConnId) {
        let silence_max = self.config.heartbeat.silence_max();
        let clocks = self.clocks;
        let Some(session) = self.sessions.get_mut(conn) else { return };
        let mut deadline = session.last_seen + silence_max;
        if now >= deadline {
            if !self.is_behind || now >= deadline + silence_max {
                return self.close_with_notice(conn, NoticeCode::IdleTimeout);
            }
            deadline = now + HEARING_TIME;
        }
        if let Some(notice) = session.token_is_over(&self.revocations, clocks.wall_secs(now)) {
            return self.close_with_notice(conn, notice);
        }
        if session.has_layers {
            let quiet = session.last_seen + self.config.heartbeat.period();
            if now < quiet {
                deadline = quiet;
            } else if self.layered.ping(conn) {
                self.dirty.mark(&mut session.output, conn, Dirt::First);
            }
        }
        let deadline = deadline.min(clocks.at_wall_secs(now, session.token.end_secs()));
        session.timer = self.wheel.arm(deadline, Timer::Session { conn_index: conn.index }.pack());
    }
}
