//! The connections of all links, and what the engine is to do for them.

use std::collections::VecDeque;
use std::net::SocketAddr;

use shard::{ConnId, ConnMap, Linger};
use wire::node::link::Frame;

use crate::conn::{Conn, Stage};
use crate::contract::Effect;
use crate::limits::STRANGERS_MAX;

/// All connections.
#[derive(Default)]
pub(crate) struct Conns {
    conns: ConnMap<Box<Conn>>,
    /// Those that were accepted last, in that order; some have ended or are linked.
    strangers: VecDeque<ConnId>,
    effects: VecDeque<Effect>,
    dirty: VecDeque<ConnId>,
}

impl Conns {
    pub(crate) fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnId, &Conn)> {
        self.conns.iter().map(|(conn, entry)| (conn, &**entry))
    }

    pub(crate) fn get(&self, conn: ConnId) -> Option<&Conn> {
        self.conns.get(conn).map(|entry| &**entry)
    }

    pub(crate) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(conn).map(|entry| &mut **entry)
    }

    pub(crate) fn insert(&mut self, conn: ConnId, entry: Conn) {
        self.conns.insert(conn, Box::new(entry));
    }

    pub(crate) fn remove(&mut self, conn: ConnId) -> Option<Box<Conn>> {
        self.conns.remove(conn)
    }

    /// Adds an accepted connection: nobody knows yet who is at its other end.
    pub(crate) fn put_stranger(&mut self, conn: ConnId) {
        self.strangers.push_back(conn);
    }

    /// Takes the oldest connection that is still a stranger if there are more than the limit.
    pub(crate) fn pop_stranger(&mut self) -> Option<ConnId> {
        while self.strangers.len() > STRANGERS_MAX
            && let Some(oldest) = self.strangers.pop_front()
        {
            if self.get(oldest).is_some_and(|entry| entry.peer().is_none()) {
                return Some(oldest);
            }
        }
        None
    }

    /// Asks the engine to open a connection.
    pub(crate) fn connect(&mut self, token: u64, peer: SocketAddr) {
        self.effects.push_back(Effect::Connect { token, peer });
    }

    /// Notes that a connection has bytes to write.
    pub(crate) fn mark_dirty(&mut self, conn: ConnId) {
        if let Some(entry) = self.conns.get_mut(conn)
            && !entry.is_dirty
            && !entry.is_writing
            && !matches!(entry.stage, Stage::Closing)
        {
            entry.is_dirty = true;
            self.dirty.push_back(conn);
        }
    }

    /// Notes that a connection owes a credit, even if there is nothing else to send.
    pub(crate) fn owe_credit(&mut self, conn: ConnId) {
        if let Some(entry) = self.conns.get_mut(conn) {
            entry.owes_credit = true;
            self.mark_dirty(conn);
        }
    }

    /// Sends the next frame of the handshake and moves on to `stage`.
    pub(crate) fn go_on(&mut self, conn: ConnId, stage: Stage, say: &Frame<'_>) {
        if let Some(entry) = self.conns.get_mut(conn) {
            entry.stage = stage;
            say.encode(&mut entry.out);
            self.mark_dirty(conn);
        }
    }

    /// Closes a connection after this last frame.
    pub(crate) fn close_with(&mut self, conn: ConnId, last: &Frame<'_>) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        if matches!(entry.stage, Stage::Closing) {
            return;
        }
        entry.stage = Stage::Closing;
        last.encode(&mut entry.out);
        self.effects.push_back(Effect::Close { conn, linger: Linger::Flush });
    }

    /// Closes a connection after the end of its TLS.
    pub(crate) fn close(&mut self, conn: ConnId) {
        let Some(entry) = self.conns.get_mut(conn) else { return };
        if matches!(entry.stage, Stage::Closing) {
            return;
        }
        entry.stage = Stage::Closing;
        entry.out.clear();
        self.effects.push_back(Effect::Close { conn, linger: Linger::Flush });
    }

    /// Closes a connection at once; false if it was closing already.
    pub(crate) fn abort(&mut self, conn: ConnId) -> bool {
        let Some(entry) = self.conns.get_mut(conn) else { return false };
        if matches!(entry.stage, Stage::Closing) {
            return false;
        }
        entry.stage = Stage::Closing;
        entry.out.clear();
        self.effects.push_back(Effect::Close { conn, linger: Linger::Abort });
        true
    }

    /// The next effect for the engine.
    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        if let Some(effect) = self.effects.pop_front() {
            return Some(effect);
        }
        while let Some(conn) = self.dirty.pop_front() {
            let Some(entry) = self.conns.get_mut(conn) else { continue };
            entry.is_dirty = false;
            if !entry.is_writing && !matches!(entry.stage, Stage::Closing) {
                return Some(Effect::Transmit { conn });
            }
        }
        None
    }
}
