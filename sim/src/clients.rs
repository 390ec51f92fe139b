//! What clients do: what section 10 of docs/PROTOCOL.md asks of one, and the bad habits of some.

use std::borrow::Cow;

use gateway::{Claims, mint_hs256};
use shard::CloseReason;
use wire::client::{
    AckIds, Business, ClientFrame, Deframer, Encoding, FailReason, NoticeCode, Outcome, SendAck, ServerFrame,
};
use wire::node::Class;
use wire::{BizCode, DeviceClass, RoomId, UserId};

use crate::client::{APP, Client};
use crate::host::{EPOCH_NS, FRAME_BYTES_MAX, Power, RELIABLE_ROOM_CODE, SECRET};
use crate::layers::{Layered, Way};
use crate::model::{SessionNo, name_of, payload};
use crate::network::{CLIENTS, Host, Owner, Side, TcpId};
use crate::world::{Event, World};

/// Its frame may be sent, and is too long to be delivered.
const TOO_LONG: u64 = 65_400;
const TICK_NS: u64 = 40_000_000;
const HEARTBEAT_NS: u64 = 900_000_000;
const SILENCE_NS: u64 = 2_600_000_000;
const LOGIN_NS: u64 = 3_000_000_000;
/// How long it takes until a fault is noticed, and owners are chosen that work.
const FELT_NS: u64 = 2_000_000_000;
/// A message without an answer is sent again after this long.
const REPEAT_NS: u64 = 3_000_000_000;
/// Within this time a client is gone that goes while it connects.
const CONNECTING_NS: u64 = 60_000_000;
const ROOMS: u64 = 3;

impl World {
    pub(crate) fn make_clients(&mut self) {
        if let Some(cost) = self.plan.cost {
            return self.make_crowd(cost.gather_ms);
        }
        for user in 1..=self.plan.users {
            self.make_client(user, DeviceClass::Phone);
            if self.prng.below(3) == 0 {
                self.make_client(user, DeviceClass::Web);
            }
            if self.plan.rough_clients && self.prng.below(3) == 0 {
                // Somebody else's phone with the same login: it comes later, and takes over.
                let rival = self.make_client(user, DeviceClass::Phone);
                self.clients[rival].connect_at = 1_500_000_000 + self.prng.below(6_000_000_000);
            }
        }
    }

    /// Clients that are there, and nothing else.
    fn make_crowd(&mut self, gather_ms: u64) {
        for user in 1..=self.plan.users {
            let at = self.make_client(user, DeviceClass::Phone);
            let client = &mut self.clients[at];
            client.connect_at = 1_000_000_000 + gather_ms * 1_000_000 * user as u64 / self.plan.users as u64;
            client.rooms.clear();
            client.quieten();
        }
    }

    fn make_client(&mut self, user: i64, device: DeviceClass) -> usize {
        let encoding = [Encoding::Binary, Encoding::Binary, Encoding::Json][self.prng.below(3) as usize];
        // A crowd is there for what the nodes cost among themselves.
        let way = match self.plan.cost {
            Some(_) => Way::default(),
            None => Way::draw(&mut self.prng, self.plan.tls),
        };
        let mut client = Client::new(user, device, encoding, way);
        client.rooms = (1..=ROOMS as i64).filter(|_| self.prng.below(2) == 0).collect();
        client.connect_at = 300_000_000 + self.prng.below(500_000_000);
        client.forgets_acks = self.plan.rough_clients && self.prng.below(4) == 0;
        self.clients.push(client);
        let index = self.clients.len() - 1;
        let at = self.prng.below(TICK_NS);
        self.schedule(at, Event::Client { client: index });
        index
    }

    pub(crate) fn client_tick(&mut self, at: usize) {
        let now = self.now;
        let tick_ns = if self.plan.cost.is_some() { 10 * TICK_NS } else { TICK_NS };
        self.after(tick_ns, Event::Client { client: at });
        let client = &mut self.clients[at];
        let Some(tcp) = client.tcp else {
            if !client.is_kicked && now >= client.connect_at {
                self.client_connect(at);
            }
            return;
        };
        if client.session.is_none() {
            return; // connecting: the network tells how that ends
        }
        let released = client.layered.pass(now, Vec::new());
        self.client_writes(tcp, &released);
        let client = &mut self.clients[at];
        if now >= client.reads_from && !client.unread.is_empty() {
            let bytes = std::mem::take(&mut client.unread);
            self.client_reads(at, tcp, bytes);
        }
        let client = &self.clients[at];
        if client.tcp != Some(tcp) {
            return;
        }
        let too_slow = !client.is_live && now > client.began_at + LOGIN_NS;
        let too_silent = client.is_live && now > client.heard_at + SILENCE_NS && now > client.reads_from;
        if too_slow || too_silent {
            self.trace.line(now, || format!("client {at} gives up tcp {tcp}"));
            if too_slow {
                let found = self.check_login(at);
                self.check(found);
            }
            return self.client_leaves(at, self.clients[at].user % 2 == 0);
        }
        if client.is_live {
            self.client_acts(at);
        }
    }

    /// A login is answered in time, unless a fault has just begun or ended, or its gateway reaches no router.
    fn check_login(&self, at: usize) -> Result<(), String> {
        let session = self.clients[at].session.expect("it has connected");
        let gateway = self.model.sessions[session].shard.node();
        let runs = |host: &Host| {
            let node = &self.nodes[host];
            node.power == Power::Up && node.frozen.is_none() && !node.draining
        };
        let cuts = self.network.cuts();
        let is_cut = |a, b| cuts.contains(&(a, b)) || cuts.contains(&(b, a));
        let routers = self.plan.router_hosts();
        let has_owners = routers.iter().any(|router| runs(router) && !is_cut(*router, gateway));
        if self.model.has_turned(self.now - FELT_NS, self.now) || !runs(&gateway) || !has_owners {
            return Ok(());
        }
        Err(format!("client {at} was not logged in within {} s", LOGIN_NS / 1_000_000_000))
    }

    fn client_connect(&mut self, at: usize) {
        let gateways = self.plan.gateway_hosts();
        let to = gateways[self.prng.below(gateways.len() as u64) as usize];
        let tcp = self.open(CLIENTS, Owner::Client { client: at }, to, None, 0);
        let now = self.now;
        let client = &mut self.clients[at];
        (client.tcp, client.session, client.is_live, client.began_at) = (Some(tcp), None, false, now);
        client.deframer = Deframer::default();
        client.layered = Layered::default();
        client.unread.clear();
    }

    pub(crate) fn client_connected(&mut self, at: usize, tcp: TcpId) {
        if self.clients[at].tcp != Some(tcp) {
            return self.close_client_end(tcp);
        }
        let shard = match self.network.end(tcp, Side::Taker).owner {
            Owner::Shard { shard, .. } => shard,
            Owner::Client { .. } => unreachable!("clients connect to gateways"),
        };
        let client = &mut self.clients[at];
        (client.began_at, client.heard_at) = (self.now, self.now);
        let (user, device) = (UserId(client.user), client.device);
        let found = self.model.check_farewell(self.now, client.user, client.device);
        let session = self.model.login(self.now, client.user, client.device, shard);
        client.session = Some(session);
        self.check(found);
        self.trace.line(self.now, || {
            format!("client {at} (user {} {device:?}) session {session} at {shard:?}", user.0)
        });
        let client = &mut self.clients[at];
        let (layered, first) = Layered::open(client.way, client.tls.clone(), tcp);
        client.layered = layered;
        self.client_falters(at, tcp);
        self.client_passes(at, tcp, first);
        let exp = EPOCH_NS / 1_000_000_000 + 100_000;
        let token = mint_hs256(SECRET, &Claims { app: APP, user, device, exp });
        self.client_says(at, &ClientFrame::Login { token: token.into() });
        let rooms: Vec<i64> = self.clients[at].rooms.iter().copied().collect();
        for room in rooms {
            self.client_joins(at, room);
        }
        let pending: Vec<usize> = self.clients[at].pending.keys().copied().collect();
        for number in pending {
            self.client_repeats(at, number);
        }
    }

    /// Some rough clients with layers are slow while they connect, and some are gone before they have.
    fn client_falters(&mut self, at: usize, tcp: TcpId) {
        let client = &mut self.clients[at];
        if !self.plan.tls || !self.plan.rough_clients || self.is_quiet || client.way.is_bare() {
            return;
        }
        match self.prng.below(16) {
            0 => client.began_at = client.layered.stall(self.now, &mut self.prng),
            1 => {
                let wait = self.prng.below(CONNECTING_NS);
                self.after(wait, Event::ClientGoes { client: at, tcp });
            }
            _ => {}
        }
    }

    /// A client goes while it connects, or soon after.
    pub(crate) fn client_goes(&mut self, at: usize, tcp: TcpId) {
        if self.clients[at].tcp != Some(tcp) {
            return;
        }
        match self.prng.below(3) {
            0 => self.client_leaves(at, false),
            1 => self.client_leaves(at, true),
            _ => self.break_connection(tcp),
        }
    }

    /// A gateway has ended a connection in order. With layers it says so in them, or anybody between could
    /// have ended it.
    pub(crate) fn client_finished(&mut self, at: usize, tcp: TcpId) {
        let client = &self.clients[at];
        if client.tcp == Some(tcp) && client.unread.is_empty() && client.layered.is_cut() {
            self.check(Err(format!("client {at} was closed without a notice of its layers")));
        }
        self.client_lost(at, tcp);
    }

    /// The connection is gone, or did not come about.
    pub(crate) fn client_lost(&mut self, at: usize, tcp: TcpId) {
        if self.clients[at].tcp == Some(tcp) {
            self.trace.line(self.now, || format!("client {at} lost tcp {tcp}"));
            self.client_over(at);
        }
    }

    fn client_over(&mut self, at: usize) {
        let wait = 50_000_000 << self.clients[at].tries.min(4);
        let wait = wait + self.prng.below(wait);
        let client = &mut self.clients[at];
        client.tries += 1;
        client.connect_at = client.connect_at.max(self.now + wait);
        (client.tcp, client.is_live) = (None, false);
        client.late_acks.clear();
        if let Some(session) = client.session.take() {
            self.model.over(self.now, session);
        }
    }

    /// Closes, or vanishes without a word, as a phone does that loses its net.
    pub(crate) fn client_leaves(&mut self, at: usize, silently: bool) {
        let Some(tcp) = self.clients[at].tcp else { return };
        if silently {
            let end = self.network.end(tcp, Side::Opener);
            end.life.end(CloseReason::Local);
            end.drop_all();
            if let Some(session) = self.clients[at].session {
                self.model.vanishes(session);
            }
        } else {
            self.close_client_end(tcp);
        }
        self.client_over(at);
    }

    pub(crate) fn client_says(&mut self, at: usize, frame: &ClientFrame<'_>) {
        let client = &mut self.clients[at];
        let Some(tcp) = client.tcp else { return };
        client.said_at = self.now;
        let mut bytes = Vec::new();
        frame.encode(client.encoding, APP, UserId(client.user), &mut bytes);
        if client.way.is_tls() {
            self.trace.mix_bytes(&bytes);
        }
        let bytes = client.layered.put(bytes);
        self.client_passes(at, tcp, bytes);
    }

    /// Sends bytes of the layers of a client's connection, if it does not falter.
    fn client_passes(&mut self, at: usize, tcp: TcpId, bytes: Vec<u8>) {
        let bytes = self.clients[at].layered.pass(self.now, bytes);
        self.client_writes(tcp, &bytes);
    }

    fn client_writes(&mut self, tcp: TcpId, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.network.end(tcp, Side::Opener).outgoing.extend(bytes);
            self.pump(tcp, Side::Opener);
        }
    }

    fn client_acts(&mut self, at: usize) {
        let now = self.now;
        let client = &mut self.clients[at];
        if now > client.said_at + HEARTBEAT_NS {
            self.client_says(at, &ClientFrame::Heartbeat { echo: b"" });
        }
        let client = &mut self.clients[at];
        let due: Vec<u64> =
            client.late_acks.iter().filter(|(when, _)| *when <= now).map(|(_, id)| *id).collect();
        client.late_acks.retain(|(when, _)| *when > now);
        for id in due {
            self.client_acks(at, id);
        }
        let again: Vec<usize> = self.clients[at]
            .pending
            .iter()
            .filter(|(_, when)| **when <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in again {
            self.client_repeats(at, number);
        }
        if self.clients[at].busy {
            match self.prng.below(1000) {
                0..=249 => self.client_sends(at),
                250..=259 => self.client_changes_room(at),
                260..=263 if self.plan.rough_clients => self.client_misbehaves(at),
                _ => {}
            }
        }
    }

    fn client_sends(&mut self, at: usize) {
        let burst = if self.prng.below(12) == 0 { 1 + self.prng.below(20) } else { 1 };
        for _ in 0..burst {
            let in_rooms: Vec<i64> = self.clients[at].rooms.iter().copied().collect();
            let to_room = !in_rooms.is_empty() && self.prng.below(2) == 0;
            let (target, code) = if to_room {
                let room = in_rooms[self.prng.below(in_rooms.len() as u64) as usize];
                (
                    wire::node::Target::Room(RoomId(room)),
                    [5555, RELIABLE_ROOM_CODE][self.prng.below(2) as usize],
                )
            } else {
                let user = 1 + self.prng.below(self.plan.users as u64) as i64;
                (wire::node::Target::User(UserId(user)), [6001, 6001, 6002][self.prng.below(3) as usize])
            };
            let class = if matches!(code, 5555 | 6002) { Class::Lossy } else { Class::Reliable };
            let named = self.prng.below(8) > 0;
            let size = match self.prng.below(2_000) {
                0 => TOO_LONG,
                1..=100 => self.prng.below(20_000),
                _ => self.prng.below(80),
            };
            let session = self.clients[at].session.expect("it is live");
            let user = self.clients[at].user;
            let number = self.model.message(at, user, target, code, class, named, size as usize);
            self.trace.line(self.now, || {
                format!(
                    "client {at} sends m{number} {target:?} {code} {}",
                    if named { "" } else { "unnamed" }
                )
            });
            if named && !(class == Class::Lossy && matches!(target, wire::node::Target::User(_))) {
                self.clients[at].pending.insert(number, self.now + REPEAT_NS);
            }
            self.client_submits(at, session, number);
        }
    }

    fn client_repeats(&mut self, at: usize, number: usize) {
        self.trace.line(self.now, || format!("client {at} repeats m{number}"));
        let session = self.clients[at].session.expect("it has connected");
        let found = self.check_answer(number, session);
        self.check(found);
        self.clients[at].pending.insert(number, self.now + REPEAT_NS);
        self.client_submits(at, session, number);
    }

    /// Within a session an answer comes sooner than a client repeats, unless its client does not read.
    fn check_answer(&self, number: usize, session: SessionNo) -> Result<(), String> {
        let sent = self.model.get(number);
        let (last, its) = *sent.sends.last().expect("what is repeated was sent");
        let is_answered = sent.outcomes.last().is_some_and(|(at, _)| *at >= last);
        let is_late = its == session && !is_answered && self.now >= last + REPEAT_NS;
        if is_late && !self.model.sessions[session].reads_slowly && !self.model.is_disturbed(last, self.now) {
            return Err(format!("m{number} was not answered within {} s", REPEAT_NS / 1_000_000_000));
        }
        Ok(())
    }

    fn client_submits(&mut self, at: usize, session: SessionNo, number: usize) {
        self.model.sends(self.now, session, number);
        let message = self.model.get(number);
        let target = match message.target {
            wire::node::Target::User(user) => user.0,
            wire::node::Target::Room(room) => room.0,
        };
        let client_msg_id = name_of(message.name);
        let business = Business {
            biz_code: BizCode(message.code),
            target,
            client_msg_id: client_msg_id.into(),
            payload: Cow::Owned(payload(number, message.size)),
        };
        self.client_says(at, &ClientFrame::Business(business));
    }

    fn client_changes_room(&mut self, at: usize) {
        let room = 1 + self.prng.below(ROOMS) as i64;
        if self.clients[at].rooms.contains(&room) && self.prng.below(3) == 0 {
            self.client_suspects(at, room);
        } else if self.clients[at].rooms.remove(&room) {
            self.client_leaves_room(at, room);
        } else {
            self.clients[at].rooms.insert(room);
            self.client_joins(at, room);
        }
    }

    fn client_misbehaves(&mut self, at: usize) {
        let now = self.now;
        match self.prng.below(6) {
            0 => {
                let until = now + 200_000_000 + self.prng.below(1_500_000_000);
                let session = self.clients[at].session.expect("it is live");
                self.model.reads_slowly(session);
                self.clients[at].reads_from = until;
            }
            1 => {
                self.clients[at].connect_at = now + self.prng.below(3_000_000_000);
                self.client_says(at, &ClientFrame::Logout);
            }
            2 => self.client_leaves(at, false),
            3 | 4 => self.client_leaves(at, true),
            _ => {
                if let Some(tcp) = self.clients[at].tcp {
                    self.break_connection(tcp);
                }
            }
        }
    }

    fn client_acks(&mut self, at: usize, id: u64) {
        if let Some(session) = self.clients[at].session {
            self.model.acks(self.now, session, id);
        }
        self.client_says(at, &ClientFrame::Ack(AckIds::Packed(&id.to_be_bytes())));
    }

    pub(crate) fn client_bytes(&mut self, at: usize, tcp: TcpId, bytes: Vec<u8>) {
        if self.clients[at].tcp != Some(tcp) {
            return;
        }
        self.clients[at].unread.extend(bytes);
        if self.now >= self.clients[at].reads_from {
            let bytes = std::mem::take(&mut self.clients[at].unread);
            self.client_reads(at, tcp, bytes);
        }
    }

    fn client_reads(&mut self, at: usize, tcp: TcpId, bytes: Vec<u8>) {
        self.taken(tcp, Side::Opener, bytes.len());
        let frames = match self.clients[at].layered.take(bytes) {
            Ok((frames, answers)) => {
                self.client_passes(at, tcp, answers);
                frames
            }
            Err(broken) => return self.check(Err(format!("client {at} got what is wrong: {}", broken.text))),
        };
        if self.clients[at].way.is_tls() {
            self.trace.mix_bytes(&frames);
        }
        let mut input = &frames[..];
        let mut deframer = std::mem::take(&mut self.clients[at].deframer);
        while self.clients[at].tcp == Some(tcp) {
            let frame = match deframer.next(&mut input, FRAME_BYTES_MAX) {
                Ok(None) => break,
                Ok(Some(frame)) => ServerFrame::decode(&frame),
                Err(error) => Err(error),
            };
            match frame {
                Ok(frame) => self.client_hears(at, frame),
                Err(error) => return self.check(Err(format!("client {at} got what is no frame: {error:?}"))),
            }
        }
        if self.clients[at].tcp == Some(tcp) {
            self.clients[at].deframer = deframer;
        }
    }

    fn client_hears(&mut self, at: usize, frame: ServerFrame<'_>) {
        let now = self.now;
        let session = self.clients[at].session.expect("it has connected");
        self.clients[at].heard_at = now;
        match frame {
            ServerFrame::LoggedIn { .. } => {
                self.trace.line(now, || format!("client {at} is live in session {session}"));
                (self.clients[at].is_live, self.clients[at].tries) = (true, 0);
                self.clients[at].layered.end_stall();
                self.model.live(now, session);
            }
            ServerFrame::LoggedOut => self.model.logged_out(now, session),
            ServerFrame::Heartbeat { .. } => {}
            ServerFrame::Left { room } => self.model.left(session, room.0),
            ServerFrame::Deliver(message) => {
                self.trace.mix([7, now, at as u64, message.id.0]);
                self.trace.line(now, || {
                    let text = String::from_utf8_lossy(&message.payload[..message.payload.len().min(9)]);
                    format!("client {at} gets {text} id {:#x} seq {}", message.id.0, message.sequence)
                });
                if let Some(room) = message.room {
                    let position = self.clients[at].positions.entry(room.0).or_default();
                    *position = message.sequence.max(*position);
                }
                let found = self.model.delivered_to(now, session, &message);
                self.check(found);
                if message.ack_wanted {
                    match self.prng.below(100) {
                        0..=2 if self.clients[at].forgets_acks => {}
                        3..=19 => {
                            let when = now + self.prng.below(900_000_000);
                            self.clients[at].late_acks.push((when, message.id.0));
                        }
                        _ => self.client_acks(at, message.id.0),
                    }
                }
            }
            ServerFrame::SendAck(ack) => self.client_answered(at, session, &ack),
            ServerFrame::Notice { code, retry_after_ms, .. } => {
                self.trace.line(now, || format!("client {at} is told {code:?}"));
                self.client_noticed(at, session, code, retry_after_ms);
            }
            ServerFrame::Joined { room, sequence, recovery } => {
                self.client_joined(at, room.0, sequence, recovery);
            }
        }
    }

    fn client_answered(&mut self, at: usize, session: SessionNo, ack: &SendAck) {
        let now = self.now;
        self.trace
            .line(now, || format!("client {at} hears of {}: {:?}", ack.client_msg_id.as_str(), ack.outcome));
        let Some(number) = self.model.named(self.clients[at].user, ack.client_msg_id.as_str()) else {
            return self.check(Err(format!("client {at} got an answer to what it never sent: {ack:?}")));
        };
        let in_room = match self.model.get(number).target {
            wire::node::Target::Room(room) => self.clients[at].rooms.contains(&room.0),
            wire::node::Target::User(_) => false,
        };
        let found = self.model.answered(now, at, session, number, ack, in_room);
        self.check(found);
        if ack.outcome == Outcome::Failed(FailReason::Busy) {
            self.clients[at].pending.entry(number).and_modify(|when| *when = now + 700_000_000);
        } else {
            self.clients[at].pending.remove(&number);
        }
    }

    fn client_noticed(&mut self, at: usize, session: SessionNo, code: NoticeCode, retry_after_ms: u32) {
        match code {
            NoticeCode::Kicked => {
                if self.is_stamp_forgotten(session) {
                    self.model.gives_way(session);
                } else {
                    let found = self.model.kicked(self.now, session);
                    self.check(found);
                }
                self.clients[at].is_kicked = true;
            }
            NoticeCode::Draining => {
                self.clients[at].connect_at = self.now + u64::from(retry_after_ms) * 1_000_000;
            }
            // It says something within each heartbeat period, so a server that calls it idle has not read.
            NoticeCode::LoginTimeout | NoticeCode::SlowReader => {}
            NoticeCode::NotMember | NoticeCode::Busy | NoticeCode::TooLong => {}
            code => self.check(Err(format!("client {at} was told {code:?}"))),
        }
    }
}
