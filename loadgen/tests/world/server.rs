//! The simplest gateway that keeps its promises, and breaks one when told to.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use shard::Instant;
use wire::client::{
    Business, ClientFrame, Deframer, Encoding, FailReason, Message, NoticeCode, Outcome, SendAck, ServerFrame,
};
use wire::{AppId, BizCode, ClientMsgId, MessageId, RoomId, UserId};

/// A promise to break, at the delivery of that number (from 1, over all receivers).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The receiver never gets it; the sender is told that it did.
    Lose(u64),
    /// The receiver never gets it; the sender is told so.
    Refuse(u64),
    /// The receiver gets it twice, under two ids.
    Duplicate(u64),
    /// The receiver gets it twice, under one id.
    Redeliver(u64),
    /// The receiver gets it after the next one.
    Delay(u64),
    /// The receiver gets it twice, under two client message ids too.
    Rename(u64),
    /// The receiver gets another payload.
    Alter(u64),
    /// The receiver gets it from another sender.
    Forge(u64),
    /// The sender is told nothing.
    KeepQuiet(u64),
    /// The receiver's connection is reset before it.
    Reset(u64),
    /// The sender's connection is reset before its send-ack.
    ResetSender(u64),
    /// The receiver is told that it is over its rate, and reset.
    Limit(u64),
    /// The receiver is told that somebody else took over, and reset.
    Kick(u64),
}

#[derive(Default)]
struct Peer {
    deframer: Deframer,
    user: Option<UserId>,
    room: Option<RoomId>,
    out: Vec<u8>,
    delayed: Vec<Message>,
}

/// The model.
pub struct Server {
    pub fault: Option<Fault>,
    /// While this lasts, the server does nothing.
    pub stall: Option<(Instant, Instant)>,
    /// Heartbeats to leave unanswered: those of this number in all.
    pub swallow_heartbeat: Option<u64>,
    /// Answer every heartbeat twice.
    pub double_heartbeats: bool,
    /// Forgets what it has answered before: repeats go out as new messages.
    pub no_dedupe: bool,
    pub heartbeats: u64,
    /// Say no send-ack, but keep it for repeats.
    pub mute: bool,
    /// Refuse every message as busy, without taking note of it.
    pub busy: bool,
    /// Lose every message on its way in.
    pub swallow: bool,
    /// It is no gateway, but an HTTP server.
    pub speaks_http: bool,
    /// The gift of that number (from 1) fails, as its sender is told.
    pub refuse_gift: Option<u64>,
    gifts: u64,
    encoding: Encoding,
    peers: BTreeMap<u64, Peer>,
    users: BTreeMap<UserId, u64>,
    rooms: BTreeMap<RoomId, (u64, BTreeSet<u64>)>,
    inputs: VecDeque<(u64, Vec<u8>)>,
    closed: Vec<u64>,
    /// The outcome of each message by sender and client message id.
    answers: BTreeMap<(UserId, String), (MessageId, Option<Outcome>)>,
    /// Who waits for the ack of a message.
    waiting: BTreeMap<MessageId, (UserId, ClientMsgId)>,
    deliveries: u64,
    next_id: u64,
}

impl Server {
    pub fn new() -> Self {
        Self {
            fault: None,
            stall: None,
            swallow_heartbeat: None,
            double_heartbeats: false,
            no_dedupe: false,
            heartbeats: 0,
            mute: false,
            busy: false,
            swallow: false,
            speaks_http: false,
            refuse_gift: None,
            gifts: 0,
            encoding: Encoding::Binary,
            peers: BTreeMap::new(),
            users: BTreeMap::new(),
            rooms: BTreeMap::new(),
            inputs: VecDeque::new(),
            closed: Vec::new(),
            answers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            deliveries: 0,
            next_id: 1000,
        }
    }

    /// Other owners take over: repeats are new to them, and rooms go on at a higher base.
    pub fn forget(&mut self) {
        self.answers.clear();
        self.waiting.clear();
        self.rooms.values_mut().for_each(|(sequence, _)| *sequence += 1_000_000_000);
    }

    /// How many are logged in.
    pub fn online(&self) -> usize {
        self.users.len()
    }

    pub fn receive(&mut self, conn: u64, bytes: &[u8]) {
        self.inputs.push_back((conn, bytes.to_vec()));
    }

    pub fn disconnect(&mut self, conn: u64) {
        let Some(peer) = self.peers.remove(&conn) else { return };
        if let Some(user) = peer.user.filter(|user| self.users.get(user) == Some(&conn)) {
            self.users.remove(&user);
        }
        for (_, members) in self.rooms.values_mut() {
            members.remove(&conn);
        }
    }

    pub fn take_closed(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.closed)
    }

    /// Works off what came in; what goes out.
    pub fn answer(&mut self, now: Instant) -> Vec<(u64, Vec<u8>)> {
        if self.stall.is_some_and(|(from, until)| (from..until).contains(&now)) {
            return Vec::new();
        }
        while let Some((conn, bytes)) = self.inputs.pop_front() {
            self.input(conn, &bytes);
        }
        let outputs = self.peers.iter_mut().filter(|(_, peer)| !peer.out.is_empty());
        outputs.map(|(conn, peer)| (*conn, std::mem::take(&mut peer.out))).collect()
    }

    fn input(&mut self, conn: u64, mut bytes: &[u8]) {
        if self.closed.contains(&conn) {
            return;
        }
        let peer = self.peers.entry(conn).or_default();
        if self.speaks_http {
            return peer.out.extend_from_slice(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
        }
        let mut deframer = std::mem::take(&mut peer.deframer);
        while let Some(frame) = deframer.next(&mut bytes, 1 << 20).unwrap() {
            self.encoding = frame.encoding;
            let frame = ClientFrame::decode(&frame).unwrap();
            self.frame(conn, frame);
        }
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.deframer = deframer;
        }
    }

    fn frame(&mut self, conn: u64, frame: ClientFrame<'_>) {
        match frame {
            ClientFrame::Login { token } => {
                let user = token.split(' ').nth(2).unwrap().parse().unwrap();
                self.users.insert(UserId(user), conn);
                if let Some(peer) = self.peers.get_mut(&conn) {
                    peer.user = Some(UserId(user));
                }
                self.put(conn, &ServerFrame::LoggedIn { heartbeat_ms: 500 });
            }
            ClientFrame::Heartbeat { echo } => {
                self.heartbeats += 1;
                if self.swallow_heartbeat != Some(self.heartbeats) {
                    self.put(conn, &ServerFrame::Heartbeat { echo });
                }
                if self.double_heartbeats {
                    self.put(conn, &ServerFrame::Heartbeat { echo });
                }
            }
            ClientFrame::Join { room, .. } => {
                let (sequence, members) = self.rooms.entry(room).or_default();
                members.insert(conn);
                let sequence = *sequence;
                if let Some(peer) = self.peers.get_mut(&conn) {
                    peer.room = Some(room);
                }
                self.put(conn, &ServerFrame::Joined { room, sequence, recovery: None });
            }
            ClientFrame::Ack(ids) => {
                for id in ids.iter().collect::<Vec<_>>() {
                    if let Some((sender, name)) = self.waiting.remove(&id) {
                        self.settle(sender, name, id, Outcome::Delivered);
                    }
                }
            }
            ClientFrame::Business(business) => self.business(conn, business),
            ClientFrame::Logout | ClientFrame::Leave { .. } => panic!("a fleet does not do that"),
        }
    }

    fn business(&mut self, conn: u64, business: Business<'_>) {
        if self.swallow {
            return;
        }
        let sender = self.peers[&conn].user.unwrap();
        let name = ClientMsgId::new(Bytes::copy_from_slice(business.client_msg_id.as_bytes()));
        if self.busy {
            let outcome = Outcome::Failed(FailReason::Busy);
            let ack = SendAck { client_msg_id: name, id: MessageId(0), outcome };
            return self.put(conn, &ServerFrame::SendAck(ack));
        }
        let key = (sender, business.client_msg_id.clone().into_owned());
        if let Some((id, outcome)) = self.answers.get(&key).cloned()
            && !self.no_dedupe
        {
            if let Some(outcome) = outcome {
                self.put(conn, &ServerFrame::SendAck(SendAck { client_msg_id: name, id, outcome }));
            }
            return;
        }
        self.next_id += 1;
        let id = MessageId(self.next_id);
        self.answers.insert(key, (id, None));
        let mut message = Message {
            id,
            app: AppId(1),
            sender,
            biz_code: business.biz_code,
            room: None,
            sequence: 0,
            ack_wanted: false,
            client_msg_id: name.clone(),
            payload: Bytes::copy_from_slice(&business.payload),
        };
        if business.biz_code.0 == 5555 {
            let room = RoomId(business.target);
            let (sequence, members) = self.rooms.get_mut(&room).unwrap();
            *sequence += 1;
            message.room = Some(room);
            message.sequence = *sequence;
            let members: Vec<_> = members.iter().copied().collect();
            self.settle(sender, name, id, Outcome::Sequenced { sequence: message.sequence });
            members.into_iter().for_each(|member| self.deliver(member, message.clone()));
            return;
        }
        message.ack_wanted = true;
        if business.biz_code.0 == 5560 {
            return self.gift(conn, message, RoomId(business.target));
        }
        match self.users.get(&UserId(business.target)).copied() {
            Some(receiver) => {
                self.waiting.insert(id, (sender, name));
                self.deliver(receiver, message);
            }
            None => self.settle(sender, name, id, Outcome::Failed(FailReason::Offline)),
        }
    }

    /// The backend takes a gift, and the room is shown it; or the sender is told that it failed.
    fn gift(&mut self, conn: u64, gift: Message, room: RoomId) {
        let (sender, name) = (gift.sender, gift.client_msg_id.clone());
        let contents: serde_json::Value = serde_json::from_slice(&gift.payload).unwrap();
        let receiver = UserId(contents["receiverId"].as_i64().unwrap());
        assert_ne!(receiver, sender);
        assert!(self.rooms[&room].1.contains(&self.users[&receiver]), "{receiver:?} is not in {room:?}");
        self.gifts += 1;
        let id = name.as_str();
        let said = Message { sender: UserId(0), client_msg_id: ClientMsgId::default(), ..gift.clone() };
        if self.refuse_gift == Some(self.gifts) {
            let payload = format!(r#"{{"id":"{id}","reason":"insufficient_balance"}}"#).into();
            self.put_message(conn, Message { biz_code: BizCode(5557), payload, ..said });
        } else {
            let (sequence, members) = self.rooms.get_mut(&room).unwrap();
            *sequence += 1;
            let payload = format!(r#"{{"senderId":{},"id":"{id}","count":1}}"#, sender.0).into();
            let shown = ClientMsgId::new(Bytes::from(format!("{}:{id}", sender.0)));
            let (biz_code, sequence) = (BizCode(5556), *sequence);
            let effect =
                Message { biz_code, room: Some(room), sequence, client_msg_id: shown, payload, ..said };
            for member in members.iter().copied().collect::<Vec<_>>() {
                self.deliver(member, effect.clone());
            }
        }
        self.settle(sender, name, gift.id, Outcome::Answered);
    }

    fn deliver(&mut self, conn: u64, message: Message) {
        self.deliveries += 1;
        let n = self.deliveries;
        let another =
            |message: &Message| Message { id: MessageId(message.id.0 + 1_000_000), ..message.clone() };
        match self.fault {
            Some(Fault::Lose(at)) if at == n => return self.outcome(&message, Outcome::Delivered),
            Some(Fault::Refuse(at)) if at == n => {
                return self.outcome(&message, Outcome::Failed(FailReason::Unacked));
            }
            Some(Fault::Duplicate(at)) if at == n => self.put_message(conn, another(&message)),
            Some(Fault::Rename(at)) if at == n => {
                let client_msg_id = ClientMsgId::new(Bytes::from_static(b"another"));
                self.put_message(conn, Message { client_msg_id, ..another(&message) });
            }
            Some(Fault::Redeliver(at)) if at == n => self.put_message(conn, message.clone()),
            Some(Fault::Delay(at)) if at == n => {
                return self.peers.get_mut(&conn).unwrap().delayed.push(message);
            }
            Some(Fault::Alter(at)) if at == n => {
                let payload = Bytes::from(message.payload.to_ascii_uppercase());
                return self.put_message(conn, Message { payload, ..message });
            }
            Some(Fault::Forge(at)) if at == n => {
                return self.put_message(conn, Message { sender: UserId(message.sender.0 + 1), ..message });
            }
            Some(Fault::KeepQuiet(at)) if at == n => drop(self.waiting.remove(&message.id)),
            Some(Fault::Reset(at)) if at == n => {
                self.reset(conn);
                return self.outcome(&message, Outcome::Failed(FailReason::Disconnected));
            }
            Some(Fault::ResetSender(at)) if at == n => {
                let sender = self.users[&message.sender];
                self.reset(sender);
            }
            Some(Fault::Limit(at) | Fault::Kick(at)) if at == n => {
                let is_kick = matches!(self.fault, Some(Fault::Kick(_)));
                let code = if is_kick { NoticeCode::Kicked } else { NoticeCode::RateLimited };
                let text = Cow::Borrowed("slow");
                let alternatives = Vec::new();
                self.put(conn, &ServerFrame::Notice { code, text, retry_after_ms: 50, alternatives });
                self.outcome(&message, Outcome::Failed(FailReason::Disconnected));
                return self.closed.push(conn);
            }
            _ => {}
        }
        self.put_message(conn, message);
        if let Some(peer) = self.peers.get_mut(&conn) {
            let delayed = std::mem::take(&mut peer.delayed);
            delayed.into_iter().for_each(|message| self.put_message(conn, message));
        }
    }

    pub fn reset(&mut self, conn: u64) {
        self.disconnect(conn);
        self.closed.push(conn);
    }

    fn outcome(&mut self, message: &Message, outcome: Outcome) {
        if let Some((sender, name)) = self.waiting.remove(&message.id) {
            self.settle(sender, name, message.id, outcome);
        }
    }

    fn settle(&mut self, sender: UserId, name: ClientMsgId, id: MessageId, outcome: Outcome) {
        self.answers.insert((sender, name.as_str().to_owned()), (id, Some(outcome)));
        if let Some(conn) = self.users.get(&sender).copied().filter(|_| !self.mute) {
            self.put(conn, &ServerFrame::SendAck(SendAck { client_msg_id: name, id, outcome }));
        }
    }

    fn put_message(&mut self, conn: u64, message: Message) {
        self.put(conn, &ServerFrame::Deliver(Cow::Owned(message)));
    }

    fn put(&mut self, conn: u64, frame: &ServerFrame<'_>) {
        if let Some(peer) = self.peers.get_mut(&conn) {
            frame.encode(self.encoding, AppId(1), peer.user.unwrap_or(UserId(0)), &mut peer.out);
        }
    }
}
