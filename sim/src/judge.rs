//! What must hold once everything has come to rest.

use std::collections::{BTreeMap, BTreeSet};

use edge::Refusal;
use shard::ShardId;
use wire::client::{FailReason, Outcome};
use wire::node::link::Role;
use wire::node::{Class, Target};
use wire::{DeviceClass, RoomId, UserId};

use crate::client::APP;
use crate::host::{FLIGHT_MS, LEASE_MS, ShardHost};
use crate::model::{Sent, Session, SessionNo};
use crate::network::Host;
use crate::plan::{Fault, GATEWAYS, Plan};
use crate::world::World;

const ROOMS: i64 = 3;
/// How long a client may be silent, and how long a tick, a packet and a close may take.
const SILENCE_NS: u64 = 2_000_000_000;
const CLOSING_NS: u64 = 500_000_000;
/// What the layers of a connection may hold that says nothing but heartbeats: a part of one, in a record.
const HEARTBEAT_BYTES: usize = 64;
/// How long an owner change, or a lost link, may be felt.
const ECHO_NS: u64 = 3 * LEASE_MS as u64 * 1_000_000;

impl World {
    /// Everything that must hold at the end.
    pub(crate) fn judge(&self) -> Result<(), String> {
        self.judge_clients()?;
        self.judge_cores()?;
        self.judge_presence()?;
        self.judge_rooms()?;
        self.judge_recoveries()?;
        for number in 0..self.model.sent.len() {
            self.judge_message(number)?;
        }
        if let Some(what) = self.model.late() {
            return Err(what.into());
        }
        self.judge_room_order()
    }

    fn live(&self) -> BTreeMap<(i64, DeviceClass), SessionNo> {
        let mut live = BTreeMap::new();
        for client in self.clients.iter().filter(|client| client.is_live) {
            if let Some(session) = client.session {
                live.insert((client.user, client.device), session);
            }
        }
        live
    }

    pub(crate) fn judge_clients(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for (at, client) in self.clients.iter().enumerate() {
            if client.is_kicked {
                continue;
            }
            if !client.is_live {
                return Err(format!("client {at} is not logged in at the end"));
            }
            if !seen.insert((client.user, client.device)) {
                return Err(format!("user {} is logged in twice on {:?}", client.user, client.device));
            }
            if let Some(number) = client.pending.keys().next() {
                return Err(format!("client {at} was never told what became of m{number}"));
            }
        }
        // A node that thaws takes up a login whose client has gone to another node meanwhile, and only then
        // reads that it went. No node can tell that from a newer login, so the live session is kicked, and
        // stays away as its notice says (seed 1647).
        let thaws = self.plan.faults.iter().any(|(_, fault)| matches!(fault, Fault::Freeze { .. }));
        for client in &self.clients {
            let name = (client.user, client.device);
            let last = self.model.sessions.iter().rev().find(|it| (it.user, it.device) == name);
            let gave_way = last.is_some_and(|session| session.gave_way);
            if !thaws && !gave_way && !seen.contains(&name) {
                return Err(format!("user {} was kicked from {:?} everywhere", client.user, client.device));
            }
        }
        Ok(())
    }

    pub(crate) fn judge_cores(&self) -> Result<(), String> {
        for shard in self.nodes.values().flat_map(|node| node.shards()) {
            let id = shard.id;
            shard.core.check_invariants();
            check_refusals(shard)?;
            if let Some(links) = shard.core.cores().links() {
                let metrics = links.metrics();
                if metrics.peers_away > 0 {
                    return Err(format!("{id:?} has lost sight of a peer"));
                }
                let peers = metrics.peers as u16;
                let Plan { gateways, routers, bridges, shards, .. } = self.plan;
                let want = shards
                    * match links.role() {
                        Role::Gateway => routers + bridges,
                        Role::Router => gateways + bridges,
                        Role::Bridge => gateways + routers,
                    };
                if peers != want {
                    return Err(format!("{id:?} has {peers} peers of {want}"));
                }
            }
            if let Some(router) = shard.core.cores().router() {
                let metrics = router.metrics();
                let held = [metrics.pending, metrics.handed, metrics.parked, metrics.unsettled];
                if held != [0; 4] {
                    return Err(format!(
                        "{id:?} holds pending, handed, parked, unsettled = {held:?} at the end"
                    ));
                }
            }
            if let Some(waiting) = shard.core.handover().map(|metrics| metrics.waiting).filter(|it| *it > 0) {
                return Err(format!("{id:?} has {waiting} events for a bridge at the end"));
            }
            if let Some(gateway) = shard.core.cores().gateway() {
                let metrics = gateway.metrics();
                if metrics.submitted != 0 {
                    return Err(format!("{id:?} waits for {} answers at the end", metrics.submitted));
                }
                let owners = gateway.owners().count() as u16;
                if owners != self.plan.routers * self.plan.shards {
                    return Err(format!("{id:?} sees {owners} owners at the end"));
                }
                let clients = self.clients.iter().filter_map(|client| client.session);
                let clients = clients.filter(|no| self.model.sessions[*no].shard == id).count() as u64;
                let held = [metrics.connections, metrics.sessions, metrics.timers, metrics.outbox_bytes];
                if held != [clients, clients, clients, 0] {
                    return Err(format!(
                        "{id:?} has connections, sessions, timers, bytes = {held:?} for {clients} clients at the end"
                    ));
                }
                let layers_bytes = gateway.layers_bytes();
                if layers_bytes > HEARTBEAT_BYTES * clients as usize {
                    return Err(format!("{id:?} holds {layers_bytes} bytes in layers at the end"));
                }
            }
        }
        Ok(())
    }

    /// Routers know the live sessions, each once, and the bridge was told of them.
    fn judge_presence(&self) -> Result<(), String> {
        let live = self.live();
        let mut bound: BTreeMap<(i64, DeviceClass), Vec<(ShardId, ShardId)>> = BTreeMap::new();
        for shard in self.nodes.values().flat_map(|node| node.shards()) {
            let Some(router) = shard.core.cores().router() else { continue };
            for user in 1..=self.plan.users {
                for seat in router.online(APP, UserId(user)) {
                    let place = (shard.id, ShardId::from_u32(seat.shard));
                    bound.entry((user, seat.device)).or_default().push(place);
                }
            }
        }
        for (key, session) in &live {
            let at = self.model.sessions[*session].shard;
            match bound.remove(key).as_deref() {
                Some([(_, shard)]) if *shard == at => {}
                other => return Err(format!("{key:?} is at {at:?}, but bound as {other:?}")),
            }
        }
        if let Some((key, places)) = bound.pop_first() {
            return Err(format!("{key:?} is bound as {places:?}, but not live"));
        }
        for (key, (_, online)) in &self.model.presence {
            let session = live.get(key);
            if *online != session.is_some() && !session.is_some_and(|it| self.is_stamp_forgotten(*it)) {
                return Err(format!(
                    "the bridge takes {key:?} for {}",
                    if *online { "online" } else { "offline" }
                ));
            }
        }
        match live.keys().find(|key| !self.model.presence.contains_key(key)) {
            Some(key) => Err(format!("the bridge never heard of {key:?}")),
            None => Ok(()),
        }
    }

    fn judge_rooms(&self) -> Result<(), String> {
        let live = self.live();
        for room in 1..=ROOMS {
            let mut want: Vec<ShardId> = Vec::new();
            for session in live.values().map(|session| &self.model.sessions[*session]) {
                if session.rooms.get(&room).is_some_and(|stay| stay.leaves.is_none()) {
                    want.push(session.shard);
                }
            }
            want.sort_unstable();
            want.dedup();
            let routers = self.nodes.values().flat_map(|node| node.shards());
            let known: Vec<(ShardId, Vec<ShardId>)> = routers
                .filter_map(|shard| {
                    Some((shard.id, shard.core.cores().router()?.room_shards(APP, RoomId(room)).to_vec()))
                })
                .filter(|(_, shards)| !shards.is_empty())
                .collect();
            let is_right = match &known[..] {
                [] => want.is_empty(),
                [(_, shards)] => *shards == want,
                _ => false,
            };
            if !is_right {
                return Err(format!("room {room} has members on {want:?}, but is known as {known:?}"));
            }
        }
        Ok(())
    }

    fn judge_message(&self, number: usize) -> Result<(), String> {
        let sent = self.model.get(number);
        if sent.is_too_long() {
            return match sent.copies.is_empty() && sent.handed.is_empty() {
                true => Ok(()),
                false => Err(format!("m{number} is too long, and was not refused to its sender")),
            };
        }
        match sent.target {
            Target::User(_) => self.judge_letter(number, sent),
            Target::Room(room) => self.judge_broadcast(number, sent, room.0),
        }
    }

    /// A reliable message to a user is acked or handed over, unless it may have been lost with its sender's
    /// connection.
    fn judge_letter(&self, number: usize, sent: &Sent) -> Result<(), String> {
        if sent.class == Class::Lossy {
            return Ok(());
        }
        self.judge_devices(number, sent)?;
        self.judge_reason(number, sent)?;
        if sent.name.is_some() {
            return self.judge_failure(number, sent);
        }
        let (at, session) = sent.sends[0];
        let is_safe = self.outlives(&self.model.sessions[session], at + ECHO_NS)
            && !self.crashed_within(&self.model.sessions[session], at, u64::MAX);
        if is_safe && sent.acks.is_empty() && !self.is_kept(sent, at) {
            return Err(format!("m{number}, reliable and without a name, was neither acked nor handed over"));
        }
        Ok(())
    }

    /// A message that one session got came to each that its user had throughout.
    fn judge_devices(&self, number: usize, sent: &Sent) -> Result<(), String> {
        let Some(until) = sent.acks.last().map(|(at, _)| at + ECHO_NS) else { return Ok(()) };
        let first = sent.sends[0].0;
        if self.model.is_moving(first, until) {
            return Ok(());
        }
        for (no, session) in self.model.sessions.iter().enumerate() {
            let was_there = sent.target == Target::User(UserId(session.user))
                && session.live.is_some_and(|live| live < first)
                && self.outlives(session, until)
                && !self.is_gateway_lost(session, first, until)
                && !session.reads_slowly;
            if was_there && !sent.copies.iter().any(|(_, of)| *of == no) {
                return Err(format!("m{number} never came to session {no}, but to another of its user"));
            }
        }
        Ok(())
    }

    /// `offline` is said of a user without a session, `disconnected` of one whose session has just ended.
    fn judge_reason(&self, number: usize, sent: &Sent) -> Result<(), String> {
        let first = sent.sends[0].0;
        for (at, user, _, reason) in &sent.handed {
            if self.model.is_moving(first, *at) {
                continue;
            }
            let mut its = self.model.sessions.iter().filter(|session| session.user == *user);
            let is_true = match reason {
                FailReason::Offline => !its.any(|it| {
                    it.live.is_some_and(|live| live < first)
                        && self.outlives(it, at + heard_ns(it))
                        && !self.is_gateway_lost(it, first, *at)
                }),
                FailReason::Disconnected => its.any(|it| {
                    let silence_ns = if it.vanished { SILENCE_NS } else { 0 };
                    let is_over = it.over.is_some_and(|over| {
                        over + silence_ns + CLOSING_NS >= first && over <= at + heard_ns(it)
                    });
                    is_over || self.is_gateway_lost(it, first, *at)
                }),
                _ => true,
            };
            if !is_true {
                return Err(format!(
                    "m{number} was handed over as {reason:?} of user {user}, which is not true"
                ));
            }
        }
        Ok(())
    }

    /// What has a name is repeated until it is answered, and the answers are checked as they come. What is
    /// said to have failed has gone to the bridge.
    fn judge_failure(&self, number: usize, sent: &Sent) -> Result<(), String> {
        let is_failure = |outcome: &Outcome| matches!(outcome, Outcome::Failed(reason) if !matches!(reason, FailReason::Busy | FailReason::NotMember));
        match sent.outcomes.iter().find(|(_, outcome)| is_failure(outcome)) {
            Some((at, _)) if !self.is_kept(sent, *at) => {
                Err(format!("m{number} is said to have failed, but was not handed over"))
            }
            // A bridge takes less time than it is waited for.
            Some((at, outcome))
                if self.model.is_bridged
                    && !sent.refused
                    && !self.model.is_disturbed(sent.sends[0].0, *at) =>
            {
                Err(format!("m{number} is said to have failed, but the bridge has it: {outcome:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the bridge was given a message, or a router died that had it for the bridge.
    fn is_kept(&self, sent: &Sent, from: u64) -> bool {
        let dies = |(at, of, gently): &(u64, Host, bool)| *of < GATEWAYS && !gently && *at >= from;
        !sent.handed.is_empty()
            || sent.refused
            || self.model.is_bridged && self.model.crashes.iter().any(dies)
    }

    fn outlives(&self, session: &Session, until: u64) -> bool {
        session.over.is_none_or(|over| over > until)
    }

    /// Whether its client may not know yet that the gateway of a session is gone.
    fn is_gateway_lost(&self, session: &Session, from: u64, until: u64) -> bool {
        self.model.is_troubled(from, until, |host| host == session.shard.node())
    }

    /// Whether the process of a session's gateway ended in that time.
    fn crashed_within(&self, session: &Session, from: u64, until: u64) -> bool {
        let host = session.shard.node();
        self.model.crashes.iter().any(|(at, of, _)| *of == host && (from..=until).contains(at))
    }

    /// A reliable room message that has its place comes to every member that was present throughout, or is
    /// handed over for it; a lossy one, too, to whoever reads fast, unless owners or links changed meanwhile.
    fn judge_broadcast(&self, number: usize, sent: &Sent, room: i64) -> Result<(), String> {
        let placed = sent.outcomes.iter().find(|(_, outcome)| matches!(outcome, Outcome::Sequenced { .. }));
        let Some((answered, _)) = placed else { return Ok(()) };
        let first = sent.sends[0].0;
        let until = answered + (FLIGHT_MS + 500) * 1_000_000;
        let is_moving = self.model.is_moving(first, until);
        for (no, session) in self.model.sessions.iter().enumerate() {
            let Some(stay) = session.rooms.get(&room) else { continue };
            let was_in = stay.joined.is_some_and(|joined| joined < first)
                && session.live.is_some_and(|live| live < first);
            let stayed = stay.leaves.is_none_or(|leaves| leaves > until) && self.outlives(session, until);
            // What a gateway has for the bridge dies with it.
            let lived_until = if self.model.is_bridged { u64::MAX } else { until };
            if !was_in || !stayed || self.crashed_within(session, session.began, lived_until) {
                continue;
            }
            let got = sent.copies.iter().any(|(_, of)| *of == no);
            let handed = sent.handed.iter().any(|(_, user, ..)| *user == session.user);
            let excused = match sent.class {
                Class::Reliable => self.is_owner_lost(session, first, until),
                Class::Lossy => is_moving || session.reads_slowly || sent.sends.len() > 1,
            };
            if !got && !handed && !sent.refused && !excused {
                return Err(format!("m{number} of room {room} never came to session {no}"));
            }
        }
        Ok(())
    }

    /// The exception to the promise of reliable room messages. The owner answers when it has sent a message
    /// to all shards with members, and keeps no copy: what is on a link whose session ends then, because the
    /// owner dies or because link or node stand still for longer than the lease, is lost to the members on
    /// the other end, and nobody is left who knows them and the message.
    fn is_owner_lost(&self, session: &Session, from: u64, until: u64) -> bool {
        let lease = u64::from(LEASE_MS) * 1_000_000;
        let host = session.shard.node();
        let is_router = |host: Host| host < GATEWAYS;
        let dies =
            |(at, of, gently): &(u64, Host, bool)| is_router(*of) && !gently && (from..=until).contains(at);
        // A connection is given up after a quarter of the lease.
        let overlaps = |a: u64, b: u64| b - a >= lease / 8 && a <= until && from <= b + lease;
        // With one router cut off from one gateway and another gone, no router is left that all gateways
        // reach, and they go by those that they do reach: then a room has two owners.
        let is_gone = |at: u64, of: Host| is_router(of) && at <= until && from <= at + 8 * lease;
        let two_owners = self.model.cuts.iter().any(|(a, b, ..)| overlaps(*a, *b))
            && (self.model.crashes.iter().any(|(at, of, _)| is_gone(*at, *of))
                || self.model.drains.iter().any(|(at, of)| is_gone(*at, *of)));
        let cut_off = |router: &Host| {
            self.model.cuts.iter().any(|(a, b, x, y)| (x == router || y == router) && overlaps(*a, *b))
        };
        let all_cut_off = self.plan.router_hosts().iter().all(cut_off);
        two_owners
            || all_cut_off
            || self.model.outages.was_apart(host, from, until)
            || self.model.crashes.iter().any(dies)
            || self.model.cuts.iter().any(|(a, b, x, y)| (*x == host || *y == host) && overlaps(*a, *b))
            || self.model.freezes.iter().any(|(a, b, of)| (*of == host || is_router(*of)) && overlaps(*a, *b))
    }

    /// Of two room messages that two members both got first-hand, both saw the same one first. While owners
    /// change, a message may be placed twice, and two owners may place messages of one room: then there are
    /// two orders.
    fn judge_room_order(&self) -> Result<(), String> {
        for room in 1..=ROOMS {
            let mut seen: BTreeMap<SessionNo, Vec<(u64, usize)>> = BTreeMap::new();
            for (number, sent) in self.model.sent.iter().enumerate() {
                let at = sent.sends[0].0;
                let is_placed_once = sent.sends.len() == 1 && !self.model.is_moving(at, at + ECHO_NS);
                if sent.target == Target::Room(RoomId(room)) && is_placed_once {
                    let in_order = |session: SessionNo| !self.model.sessions[session].is_given_again(room);
                    for (place, session) in sent.copies.iter().filter(|(_, session)| in_order(*session)) {
                        seen.entry(*session).or_default().push((*place, number));
                    }
                }
            }
            let orders: Vec<Vec<usize>> = seen.into_values().map(in_order).collect();
            for (a, b) in orders.iter().zip(orders.iter().skip(1)) {
                if let Some((x, y)) = disagreement(a, b) {
                    return Err(format!("members of room {room} saw m{x} and m{y} in different orders"));
                }
            }
        }
        Ok(())
    }
}

/// No layer refuses what clients say: all say what they may.
pub(crate) fn check_refusals(shard: &ShardHost) -> Result<(), String> {
    let Some(gateway) = shard.core.cores().gateway() else { return Ok(()) };
    let refusals = gateway.metrics().edge_refusals;
    match Refusal::ALL.iter().zip(refusals).find(|(_, count)| *count > 0) {
        Some((refusal, count)) => Err(format!("{:?} refused {count} times: {}", shard.id, refusal.name())),
        None => Ok(()),
    }
}

/// How much later than the server a client hears of its session's end: one that does not read then, when it
/// reads again.
fn heard_ns(session: &Session) -> u64 {
    CLOSING_NS + if session.reads_slowly { SILENCE_NS } else { 0 }
}

/// Messages in the order in which a session got them.
fn in_order(mut copies: Vec<(u64, usize)>) -> Vec<usize> {
    copies.sort_by_key(|(place, _)| *place);
    copies.into_iter().map(|(_, number)| number).collect()
}

/// Two messages that stand in both lists, in different orders.
fn disagreement(a: &[usize], b: &[usize]) -> Option<(usize, usize)> {
    let places: BTreeMap<usize, usize> =
        b.iter().enumerate().map(|(place, number)| (*number, place)).collect();
    let common: Vec<usize> = a.iter().copied().filter(|number| places.contains_key(number)).collect();
    common.windows(2).find(|pair| places[&pair[0]] > places[&pair[1]]).map(|pair| (pair[0], pair[1]))
}
