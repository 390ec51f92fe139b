//! Clients that come back to their rooms with the last sequence that they have seen, and what they must hear
//! then.

use wire::RoomId;
use wire::client::{ClientFrame, Recovery, Want};

use crate::model::{Place, Promise, Session};
use crate::network::Host;
use crate::plan::GATEWAYS;
use crate::world::World;

/// How long what follows an answer may take to come.
const FOLLOWS_NS: u64 = 1_000_000_000;
/// Of joins, one in so many wants nothing, and one the last messages.
const WANTS: u64 = 5;

impl World {
    /// A client joins a room, maybe with what it has seen of it.
    pub(crate) fn client_joins(&mut self, at: usize, room: i64) {
        let session = self.clients[at].session.expect("it has connected");
        let seen = self.clients[at].positions.get(&room).copied();
        let want = match self.prng.below(WANTS) {
            0 => None,
            1 => Some(Want::Last(self.prng.below(30))),
            _ => seen.map(Want::Since),
        };
        self.model.joins(session, room, want);
        self.client_says(at, &ClientFrame::Join { room: RoomId(room), want });
    }

    pub(crate) fn client_leaves_room(&mut self, at: usize, room: i64) {
        let session = self.clients[at].session.expect("it is live");
        self.model.leaves(self.now, session, room);
        self.client_says(at, &ClientFrame::Leave { room: RoomId(room) });
    }

    /// A client suspects that it has missed something, unless it has yet to hear an answer of the room.
    pub(crate) fn client_suspects(&mut self, at: usize, room: i64) {
        let session = self.clients[at].session.expect("it is live");
        if self.model.is_answered(session, room) {
            self.client_joins(at, room);
        }
    }

    pub(crate) fn client_joined(&mut self, at: usize, room: i64, sequence: u64, recovery: Option<Recovery>) {
        let (now, session) = (self.now, self.clients[at].session.expect("it has connected"));
        self.trace.line(now, || format!("client {at} is in room {room} at {sequence} {recovery:?}"));
        let position = self.clients[at].positions.entry(room).or_default();
        match recovery {
            // It goes on from here, whatever it has missed.
            None => *position = sequence,
            // The owner is another, and counts from below.
            Some(_) => *position = (*position).min(sequence),
        }
        let found = self.model.joined(now, session, room, sequence, recovery);
        self.check(found);
    }

    /// What was promised to a client that came back has come to it, unless it went again, reads slowly, or
    /// its gateway ended.
    pub(crate) fn judge_recoveries(&self) -> Result<(), String> {
        for promise in &self.model.promises {
            let Promise { session, room, since, sequence, at } = *promise;
            let it = &self.model.sessions[session];
            let follows = at..self.follows_until(at, it.shard.node());
            let dies =
                |(when, host, _): &(u64, Host, bool)| *host == it.shard.node() && follows.contains(when);
            let is_over = it.over.is_some_and(|over| follows.contains(&over));
            if since >= sequence || it.reads_slowly || is_over || self.model.crashes.iter().any(dies) {
                continue;
            }
            for ((_, missed), place) in self.model.by_sequence.range((room, since + 1)..=(room, sequence)) {
                if !it.has_seen(place.id) && !self.is_known_to_none(place, at) {
                    return Err(format!(
                        "session {session} was told that all of room {room} from {since} to {sequence} follows, and missed {missed}"
                    ));
                }
            }
        }
        self.judge_answers()
    }

    /// By when what follows an answer has come: not while its gateway stands still.
    fn follows_until(&self, at: u64, gateway: Host) -> u64 {
        let until = at + FOLLOWS_NS;
        let freezes = self.model.freezes.iter().filter(|(_, _, host)| *host == gateway);
        let in_time = freezes.filter(|(from, to, _)| *from < until && *to > at);
        in_time.map(|(_, to, _)| to + FOLLOWS_NS).fold(until, u64::max)
    }

    /// The exception to what `complete` says: the owner of the room has died since it said this message, and
    /// all gateways have ended whose clients had got it or its send-ack.
    fn is_known_to_none(&self, place: &Place, at: u64) -> bool {
        let said = self.model.get(place.number).sends[0].0;
        let crashes = || self.model.crashes.iter().filter(|(when, ..)| (said..at).contains(when));
        let ends = |session: &Session| {
            crashes().any(|(when, host, _)| *host == session.shard.node() && *when >= session.began)
        };
        let early = place.told.iter().map(|session| &self.model.sessions[*session]);
        crashes().any(|(_, host, gently)| *host < GATEWAYS && !gently)
            && early.filter(|session| session.began < at).all(ends)
    }

    /// Each client was told that it is in the rooms that it wants to be in.
    fn judge_answers(&self) -> Result<(), String> {
        for client in &self.clients {
            let Some(session) = client.session else { continue };
            for room in &client.rooms {
                if !self.model.is_answered(session, *room) {
                    return Err(format!("session {session} was never told that it is in room {room}"));
                }
            }
        }
        Ok(())
    }
}
