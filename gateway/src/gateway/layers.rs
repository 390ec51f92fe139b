//! What becomes of what the layers of connections say (`layered.rs`).

use std::net::IpAddr;

use edge::{Form, Input, Refusal};
use shard::{ConnId, Instant};
use wire::client::{Code, Encoding, Frame, NoticeCode, frame_of_java, frame_of_text};

use super::Gateway;
use crate::dirty::Dirt;
use crate::limits::{LOGIN_BYTES_MAX, SILENT_FRAMES};
use crate::session::Phase;

impl Gateway {
    /// Bytes came on a connection with layers.
    pub(super) fn received_layered(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        let Some(mut lent) = self.layered.take_out(conn) else { return };
        let text_bytes_max = self.config.limits.frame_bytes_max as usize;
        let taken =
            lent.received(text_bytes_max, bytes, &mut |input: Input<'_>| self.layer_says(now, conn, input));
        let (has_output, are_done) = (lent.has_output(), lent.are_done());
        self.layered.put_back(now, conn, lent);
        match taken {
            Ok(()) if are_done => {
                self.layered.closed(conn);
                if let Some(session) = self.sessions.get_mut(conn) {
                    session.has_layers = false;
                }
            }
            Ok(()) if has_output => {
                if let Some(session) = self.sessions.get_mut(conn) {
                    self.dirty.mark(&mut session.output, conn, Dirt::First);
                }
            }
            Ok(()) => {}
            Err(refusal) => self.layers_refuse(conn, refusal),
        }
        while let Some((evicted, refusal)) = self.layered.next_evicted() {
            self.layers_refuse(evicted, refusal);
        }
    }

    /// When [`Gateway::timeout`] is wanted: at once, while hellos wait for a turn.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.layered.waiting_since().or_else(|| self.wheel.next_deadline())
    }

    /// Answers hellos that wait, as many as a turn may.
    pub(super) fn answer_hellos(&mut self, now: Instant) {
        if !self.layered.begin_hellos() {
            return;
        }
        while let Some(conn) = self.layered.next_hello() {
            self.received_layered(now, conn, &[]);
        }
    }

    /// Ends a connection that its layers refuse. They have queued what there is to say.
    fn layers_refuse(&mut self, conn: ConnId, refusal: Refusal) {
        self.metrics.count_edge_refusal(refusal);
        if self.end(conn) {
            self.effects.close(conn);
        }
    }

    /// Takes in what the layers of a connection say. Whether it goes on.
    fn layer_says(&mut self, now: Instant, conn: ConnId, input: Input<'_>) -> bool {
        match input {
            Input::Client(client) => self.passed_on(conn, client),
            Input::Open(form) => self.websocket_opens(conn, form),
            Input::Login { token, room } => self.path_logs_in(now, conn, token, room),
            Input::Frames(bytes) => self.received_frames(now, conn, bytes),
            Input::MessageEnd => {
                let session = self.sessions.get(conn);
                if session.is_some_and(|session| session.deframer.has_partial()) {
                    self.close_with_notice(conn, NoticeCode::BadLength);
                }
            }
            Input::Text(text) => self.text(now, conn, text),
            Input::Piece if self.layered.counts_as_frame(conn) => self.charge(now, conn, 1),
            Input::Piece => {}
            Input::Silent => self.charge(now, conn, SILENT_FRAMES),
            Input::Alive => self.is_alive(now, conn),
            Input::Close => self.finished(conn),
        }
        self.sessions.get(conn).is_some_and(|session| session.phase != Phase::Closing)
    }

    fn websocket_opens(&mut self, conn: ConnId, form: Form) {
        self.metrics.websockets += 1;
        self.layered.set_java(conn, form == Form::Java);
        if let (Form::Json | Form::Java, Some(session)) = (form, self.sessions.get_mut(conn)) {
            session.encoding = Some(Encoding::Json);
        }
    }

    /// The request of a client of the Java platform is its login, and its join of a room.
    fn path_logs_in(&mut self, now: Instant, conn: ConnId, token: &str, room: Option<i64>) {
        let login = (Code::Login, format!(r#"{{"token":"{token}"}}"#));
        let join = room.map(|room| (Code::Join, format!(r#"{{"target":{room}}}"#)));
        for (code, body) in std::iter::once(login).chain(join) {
            let frame = Frame { encoding: Encoding::Json, code, body: body.as_bytes() };
            if let Err(notice) = self.frame(now, conn, &frame) {
                return self.close_with_notice(conn, notice);
            }
        }
    }

    /// Takes a text message: one frame.
    fn text(&mut self, now: Instant, conn: ConnId, text: &[u8]) {
        let taken = if self.layered.is_java(conn) {
            self.java_text(now, conn, text)
        } else {
            let is_fresh = self.sessions.get(conn).is_some_and(|session| session.phase == Phase::Fresh);
            let is_too_long = is_fresh && text.len() > LOGIN_BYTES_MAX;
            let frame = if is_too_long {
                Err(NoticeCode::BadLength)
            } else {
                frame_of_text(text).map_err(NoticeCode::from)
            };
            frame.and_then(|frame| self.frame(now, conn, &frame))
        };
        if let Err(notice) = taken {
            self.close_with_notice(conn, notice);
        }
    }

    fn java_text(&mut self, now: Instant, conn: ConnId, text: &[u8]) -> Result<(), NoticeCode> {
        let (code, body) = frame_of_java(text).map_err(NoticeCode::from)?;
        if body.len() > self.config.limits.frame_bytes_max as usize {
            return Err(NoticeCode::BadLength);
        }
        self.frame(now, conn, &Frame { encoding: Encoding::Json, code, body: body.as_bytes() })
    }

    /// A proxy says whose connection it passes on: limits for an address are the client's.
    fn passed_on(&mut self, conn: ConnId, client: Option<IpAddr>) {
        let (Some(client), Some(session)) = (client, self.sessions.get_mut(conn)) else { return };
        self.addresses.exit(session.address); // first, for the client may be where the proxy is
        let from_address;
        let before = session.address;
        (session.address, from_address) = self.addresses.enter(client);
        self.outboxes.set_address(session.outbox, before, session.address);
        if from_address > self.config.limits.address_connections_max {
            self.close_with_notice(conn, NoticeCode::AddressLimit);
        }
    }

    /// A ping or a pong is one of the frames that a connection may send, and from the login on a sign of
    /// life.
    fn is_alive(&mut self, now: Instant, conn: ConnId) {
        let Some(session) = self.sessions.get_mut(conn) else { return };
        if session.phase != Phase::Fresh {
            session.last_seen = now;
        }
        self.layered.has_frame(conn);
        self.charge(now, conn, 1);
    }

    /// What comes counts as so many frames.
    fn charge(&mut self, now: Instant, conn: ConnId, frames: u32) {
        let Some(session) = self.sessions.get_mut(conn) else { return };
        if !session.bucket.take(now, self.rate, frames) {
            self.close_with_notice(conn, NoticeCode::RateLimited);
        }
    }
}
