//! A gateway core with clients on its connections, a router that answers, and time that jumps.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses its part, and a failing unwrap is a failing test"
)]

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use gateway::{
    CertificatePem, Claims, Config, Effect, Gateway, Metrics, Port, Setup, TlsServer, TokenKeys, mint_hs256,
};
use shard::{CloseReason, ConnId, Event, Instant, Linger, SendBatch, ShardId};
use wire::client::{
    AckIds, Business, ClientFrame, Deframer, Encoding, Message, NoticeCode, Outcome, SendAck, ServerFrame,
};
use wire::node::{DeliveryId, Login, SessionId, ToBridge, ToControl, ToGateway, ToRouter};
use wire::{AppId, BizCode, ClientMsgId, DeviceClass, MessageId, RoomId, UserId};

pub const APP: AppId = AppId(1);
pub const SECRET: &[u8] = b"a secret of the tests";
/// The gateway shard itself.
pub const ME: ShardId = ShardId::new(0, 1);
pub const ROUTER: ShardId = ShardId::new(0, 3);
/// Two more, of other nodes.
pub const ROUTER_2: ShardId = ShardId::new(2, 0);
pub const ROUTER_3: ShardId = ShardId::new(3, 0);

/// The listeners: without layers, with WebSocket, with TLS, and with both.
pub const PLAIN: u16 = 0;
pub const WEBSOCKET: u16 = 1;
pub const TLS: u16 = 2;
pub const TLS_WEBSOCKET: u16 = 3;

/// The sequence that the router tells of every room that is joined.
pub const SEQUENCE: u64 = 40;

pub struct World {
    pub gateway: Gateway,
    pub now: Instant,
    /// What the gateway told routers and bridge, in order; `Bind`, `Join` and `Reach` are answered besides,
    /// and some `Submit`.
    pub to_router: VecDeque<ToRouter>,
    pub to_bridge: VecDeque<ToBridge>,
    /// The same, with the router of each.
    pub to_routers: Vec<(ShardId, ToRouter)>,
    pub to_siblings: Vec<(ShardId, ToGateway)>,
    pub to_control: Vec<ToControl>,
    /// What routers say that everybody reaches; `None` for what this gateway does.
    pub common: Option<Vec<ShardId>>,
    /// What routers answer to every message; nothing at first.
    pub answer_submit: Option<Outcome>,
    router_mail: VecDeque<(ShardId, ToGateway)>,
    pub router_answers: bool,
    pub stopped_accepting: bool,
    /// Checks the core's invariants after every so many steps.
    pub check_every: u64,
    /// What a turn leaves is done with the next event, and not at once.
    pub one_turn_at_a_time: bool,
    steps: u64,
    clients: BTreeMap<u32, Client>,
    generations: u32,
    /// Indexes of clients that are gone.
    free: Vec<u32>,
}

pub struct Client {
    pub conn: ConnId,
    pub user: UserId,
    /// It reads: writes to it end at once.
    pub reads: bool,
    /// The server has closed.
    pub closed: Option<Linger>,
    /// Batches written to it, and their bytes.
    pub writes: usize,
    pub encoding: Encoding,
    deframer: Deframer,
    unread: Vec<u8>,
    /// The batch that a stopped reader has not taken.
    stuck: Option<usize>,
}

/// A server whose certificate is for one.example.
static TLS_SERVER: LazyLock<TlsServer> = LazyLock::new(|| {
    let one = CertificatePem {
        chain: include_bytes!("../../../edge/tests/pem/one.pem").to_vec(),
        chain_name: "one.pem".into(),
        key: include_bytes!("../../../edge/tests/pem/one.key").to_vec(),
        key_name: "one.key".into(),
    };
    TlsServer::new(&[one], None, 1_800_000_000).unwrap()
});

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// With the default configuration, changed; rooms do not wait unless the change says so.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut world = Self::without_routers(change);
        world.router_up(ROUTER);
        world.begin();
        world.forget();
        world
    }

    pub fn without_routers(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.delivery.room_interval_ms = 0;
        change(&mut config);
        config.validate().unwrap();
        let now = Instant::from_unix_nanos(1_800_000_000_000_000_000);
        let websocket = |tls| Port { tls, websocket: true };
        let tls = || Some(TLS_SERVER.clone());
        let ports =
            vec![Port::default(), websocket(None), Port { tls: tls(), websocket: false }, websocket(tls())];
        let setup = Setup { id: ME, keys: TokenKeys::hs256(SECRET), config, ports, seed: 7 };
        Self {
            gateway: Gateway::new(now, setup),
            now,
            to_router: VecDeque::new(),
            to_bridge: VecDeque::new(),
            to_routers: Vec::new(),
            to_siblings: Vec::new(),
            to_control: Vec::new(),
            common: None,
            answer_submit: None,
            router_mail: VecDeque::new(),
            router_answers: true,
            stopped_accepting: false,
            check_every: 1,
            one_turn_at_a_time: false,
            steps: 0,
            clients: BTreeMap::new(),
            generations: 0,
            free: Vec::new(),
        }
    }

    // -- clients

    pub fn connect(&mut self) -> u32 {
        self.connect_from([127, 0, 0, 1].into())
    }

    pub fn connect_from(&mut self, peer: IpAddr) -> u32 {
        self.connect_by(PLAIN, peer)
    }

    pub fn connect_by(&mut self, listener: u16, peer: IpAddr) -> u32 {
        let index = self.free.pop().unwrap_or(self.generations);
        self.generations += 1;
        let conn = ConnId { index, generation: self.generations };
        let client = Client {
            conn,
            user: UserId(0),
            reads: true,
            closed: None,
            writes: 0,
            encoding: Encoding::Binary,
            deframer: Deframer::default(),
            unread: Vec::new(),
            stuck: None,
        };
        self.clients.insert(index, client);
        self.handle(Event::Accepted { conn, peer, listener });
        index
    }

    /// Connected and logged in, the answer read.
    pub fn login(&mut self, user: i64) -> u32 {
        self.login_as(user, DeviceClass::Phone, Encoding::Binary)
    }

    pub fn login_as(&mut self, user: i64, device: DeviceClass, encoding: Encoding) -> u32 {
        self.login_from([127, 0, 0, 1].into(), user, device, encoding)
    }

    pub fn login_from(&mut self, peer: IpAddr, user: i64, device: DeviceClass, encoding: Encoding) -> u32 {
        let client = self.connect_from(peer);
        self.client(client).encoding = encoding;
        self.client(client).user = UserId(user);
        let token = self.token(user, device);
        self.say(client, ClientFrame::Login { token: token.into() });
        let heard = self.hear(client);
        assert!(matches!(heard.as_slice(), [ServerFrame::LoggedIn { .. }]), "{heard:?}, not a login answer");
        client
    }

    /// Connected and logged in, while routers answer nothing by themselves.
    pub fn login_slowly(&mut self, user: i64) -> u32 {
        let client = self.connect();
        self.client(client).user = UserId(user);
        let token = self.token(user, DeviceClass::Phone);
        self.say(client, ClientFrame::Login { token: token.into() });
        let (session, login) = (self.session(client), Login(self.now.unix_nanos()));
        self.tell(ToGateway::Bound { session, login });
        self.hear(client);
        client
    }

    pub fn token(&self, user: i64, device: DeviceClass) -> String {
        let exp = self.now.unix_secs() + 86_400;
        mint_hs256(SECRET, &Claims { app: APP, user: UserId(user), device, exp })
    }

    pub fn client(&mut self, client: u32) -> &mut Client {
        self.clients.get_mut(&client).unwrap()
    }

    pub fn is_open(&self, client: u32) -> bool {
        self.clients[&client].closed.is_none()
    }

    pub fn say(&mut self, client: u32, frame: ClientFrame<'_>) {
        let it = self.client(client);
        let mut bytes = Vec::new();
        frame.encode(it.encoding, APP, it.user, &mut bytes);
        self.say_bytes(client, &bytes);
    }

    pub fn say_bytes(&mut self, client: u32, bytes: &[u8]) {
        let conn = self.client(client).conn;
        if self.client(client).closed.is_none() && !bytes.is_empty() {
            self.handle(Event::Received { conn, bytes });
        }
    }

    pub fn send(&mut self, client: u32, biz_code: i32, target: i64, id: &str, payload: &str) {
        self.say(
            client,
            ClientFrame::Business(Business {
                biz_code: BizCode(biz_code),
                target,
                client_msg_id: id.into(),
                payload: payload.as_bytes().into(),
            }),
        );
    }

    pub fn ack(&mut self, client: u32, id: u64) {
        let encoding = self.client(client).encoding;
        let packed = id.to_be_bytes();
        self.say(
            client,
            ClientFrame::Ack(match encoding {
                Encoding::Binary => AckIds::Packed(&packed),
                Encoding::Json | Encoding::JsonOld => AckIds::One(MessageId(id)),
            }),
        );
    }

    pub fn join(&mut self, client: u32, room: i64) {
        self.say(client, ClientFrame::Join { room: RoomId(room), want: None });
    }

    /// What the client got since it last listened.
    pub fn hear(&mut self, client: u32) -> Vec<ServerFrame<'static>> {
        let it = self.client(client);
        let unread = std::mem::take(&mut it.unread);
        let mut input = &unread[..];
        let mut heard = Vec::new();
        while let Some(frame) = it.deframer.next(&mut input, 1 << 20).unwrap() {
            heard.push(into_static(ServerFrame::decode(&frame).unwrap()));
        }
        heard
    }

    /// The bytes that the client got since it last listened.
    pub fn hear_bytes(&mut self, client: u32) -> Vec<u8> {
        std::mem::take(&mut self.client(client).unread)
    }

    /// The messages among what the client got.
    pub fn messages(&mut self, client: u32) -> Vec<Message> {
        let frames = self.hear(client).into_iter();
        frames
            .filter_map(|frame| match frame {
                ServerFrame::Deliver(message) => Some(message.into_owned()),
                _ => None,
            })
            .collect()
    }

    /// The code of the notice that closed the connection.
    pub fn closing_notice(&mut self, client: u32) -> NoticeCode {
        assert_eq!(self.client(client).closed, Some(Linger::Flush), "the server has not closed");
        match self.hear(client).pop() {
            Some(ServerFrame::Notice { code, .. }) => code,
            last => panic!("the last frame is no notice but {last:?}"),
        }
    }

    /// The socket of this client takes no byte any more.
    pub fn stop_reading(&mut self, client: u32) {
        self.client(client).reads = false;
    }

    /// The socket takes what it was given, and goes on.
    pub fn go_on_reading(&mut self, client: u32) {
        let it = self.client(client);
        it.reads = true;
        let conn = it.conn;
        if let Some(bytes) = it.stuck.take() {
            self.handle(Event::Sent { conn, bytes });
        }
    }

    /// The client's side is reset.
    pub fn reset(&mut self, client: u32) {
        let conn = self.clients.remove(&client).unwrap().conn;
        self.free.push(client);
        self.handle(Event::Closed { conn, reason: CloseReason::Reset });
    }

    pub fn finish(&mut self, client: u32) {
        let conn = self.client(client).conn;
        self.handle(Event::Finished { conn });
    }

    // -- the router

    pub fn router_up(&mut self, router: ShardId) {
        self.gateway.router_up(self.now, router);
        self.run();
    }

    pub fn router_down(&mut self, router: ShardId) {
        self.gateway.router_down(self.now, router);
        self.run();
    }

    pub fn begin(&mut self) {
        self.gateway.begin(self.now);
        self.run();
    }

    /// Forgets what the gateway told so far.
    pub fn forget(&mut self) {
        self.to_router.clear();
        self.to_bridge.clear();
        self.to_routers.clear();
    }

    /// What the gateway told one router, oldest first; the rest stays.
    pub fn told(&mut self, router: ShardId) -> Vec<ToRouter> {
        let all = std::mem::take(&mut self.to_routers);
        let (its, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(to, _)| *to == router);
        self.to_routers = rest;
        its.into_iter().map(|(_, mail)| mail).collect()
    }

    pub fn session(&mut self, client: u32) -> SessionId {
        let conn = self.client(client).conn;
        self.gateway.session_of(conn)
    }

    pub fn deliver(&mut self, client: u32, id: u64, payload: &str) {
        let session = self.session(client);
        let message = message(id, None, true, payload);
        self.tell(ToGateway::Deliver {
            session,
            delivery: Some(DeliveryId(id + 1000)),
            again: false,
            message,
        });
    }

    pub fn deliver_lossy(&mut self, client: u32, id: u64, payload: &str) {
        let session = self.session(client);
        let message = message(id, None, false, payload);
        self.tell(ToGateway::Deliver { session, delivery: None, again: false, message });
    }

    pub fn broadcast(&mut self, room: i64, id: u64, ack_wanted: bool, payload: &str) {
        let message = message(id, Some(room), ack_wanted, payload);
        self.tell(ToGateway::Broadcast { message, shards: Vec::new() });
    }

    pub fn tell(&mut self, mail: ToGateway) {
        self.tell_from(ROUTER, mail);
    }

    pub fn tell_from(&mut self, from: ShardId, mail: ToGateway) {
        self.handle(Event::Mail { from, mail });
    }

    /// The settlements the gateway sent, oldest first, and forgets the rest.
    pub fn settled(&mut self) -> Vec<(u64, Outcome)> {
        let mail = self.to_router.drain(..);
        mail.filter_map(|mail| match mail {
            ToRouter::Settle { delivery, outcome, .. } => Some((delivery.0 - 1000, outcome)),
            _ => None,
        })
        .collect()
    }

    pub fn submissions(&mut self) -> Vec<wire::node::Submission> {
        let mail = self.to_router.drain(..);
        mail.filter_map(|mail| match mail {
            ToRouter::Submit { submission, .. } => Some(submission),
            _ => None,
        })
        .collect()
    }

    // -- time

    /// Lets time pass, waking the core exactly when it asks.
    pub fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(due) = self.gateway.poll_timeout()
            && due <= until
        {
            self.now = self.now.max(due);
            self.handle(Event::Timeout);
        }
        self.now = until;
    }

    pub fn metrics(&self) -> Metrics {
        self.gateway.metrics()
    }

    // -- the engine

    pub fn handle(&mut self, event: Event<'_, ToGateway>) {
        let (gateway, now) = (&mut self.gateway, self.now);
        match event {
            Event::Accepted { conn, peer, listener } => gateway.accepted(now, conn, peer, listener),
            Event::Received { conn, bytes } => gateway.received(now, conn, bytes),
            Event::Sent { conn, bytes: _ } => gateway.sent(conn),
            Event::Finished { conn } => gateway.finished(conn),
            Event::Closed { conn, reason: _ } => gateway.closed(conn),
            Event::Mail { from, mail } => gateway.mail(now, from, mail),
            Event::Timeout => gateway.timeout(now),
            Event::Clocks(clocks) => gateway.set_clocks(clocks),
            Event::MailWaits(waits) => gateway.set_unread(now, waits),
            Event::InputWaits(waits) => gateway.set_input_waits(waits),
            Event::Connected { .. } | Event::ConnectFailed { .. } => panic!("a gateway opens no connection"),
        }
        self.run();
    }

    pub fn run(&mut self) {
        loop {
            while let Some(effect) = self.gateway.poll_effect(self.now) {
                self.carry_out(effect);
            }
            // Routers answer when all is said, as they do when they are elsewhere.
            match self.router_mail.pop_front() {
                Some((from, mail)) => self.gateway.mail(self.now, from, mail),
                None if self.gateway.has_more() && !self.one_turn_at_a_time => {
                    self.now += Duration::from_nanos(1);
                }
                None => break,
            }
        }
        self.steps += 1;
        if self.steps.is_multiple_of(self.check_every) {
            self.gateway.check_invariants();
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Transmit { conn } => {
                self.transmit(conn);
            }
            Effect::Close { conn, linger } => {
                if linger == Linger::Flush && self.clients.get(&conn.index).is_some_and(|it| it.reads) {
                    while self.transmit(conn) {}
                }
                if let Some(it) = self.clients.get_mut(&conn.index) {
                    assert_eq!(it.closed.replace(linger), None, "closed twice");
                }
                self.gateway.closed(conn);
            }
            Effect::ToRouter { to, mail } => self.hear_router(to, mail),
            Effect::ToSibling { to, mail } => self.to_siblings.push((to, mail)),
            Effect::ToBridge(event) => self.to_bridge.push_back(event),
            Effect::ToControl(mail) => self.to_control.push(mail),
            Effect::StopAccepting => self.stopped_accepting = true,
        }
    }

    fn transmit(&mut self, conn: ConnId) -> bool {
        let Some(it) = self.clients.get_mut(&conn.index) else { return false };
        assert_eq!((it.conn, it.stuck), (conn, None), "one batch in flight at most");
        let mut batch = SendBatch::new();
        self.gateway.poll_transmit(self.now, conn, &mut batch);
        if batch.is_empty() {
            return false;
        }
        it.writes += 1;
        it.unread.extend(batch.segments().flatten());
        if it.reads {
            self.gateway.sent(conn);
        } else {
            it.stuck = Some(batch.len());
        }
        true
    }

    fn hear_router(&mut self, to: ShardId, mail: ToRouter) {
        assert!([ROUTER, ROUTER_2, ROUTER_3].contains(&to));
        if let Some(answer) = self.answer(&mail).filter(|_| self.router_answers) {
            self.router_mail.push_back((to, answer));
        }
        self.to_router.push_back(mail.clone());
        self.to_routers.push((to, mail));
    }

    /// What a router says to it.
    fn answer(&self, mail: &ToRouter) -> Option<ToGateway> {
        match mail {
            ToRouter::Bind { session, login, .. } => {
                Some(ToGateway::Bound { session: *session, login: *login })
            }
            ToRouter::Join { app, room, .. } => {
                Some(ToGateway::Joined { app: *app, room: *room, sequence: SEQUENCE })
            }
            ToRouter::Reach { routers, clock } => {
                let common = self.common.as_ref().map(|common| common.iter().map(|it| it.as_u32()).collect());
                Some(ToGateway::Common { routers: common.unwrap_or_else(|| routers.clone()), clock: *clock })
            }
            ToRouter::Submit { session, submission } if submission.is_answered() => {
                let (submitted, client_msg_id) = (submission.id, submission.client_msg_id.clone());
                let ack = |outcome| SendAck { client_msg_id, id: submitted, outcome };
                let ack = self.answer_submit.map(ack)?;
                Some(ToGateway::SendAck { session: *session, submitted, ack })
            }
            _ => None,
        }
    }
}

pub fn message(id: u64, room: Option<i64>, ack_wanted: bool, payload: &str) -> Message {
    Message {
        id: MessageId(id),
        app: APP,
        sender: UserId(77),
        biz_code: BizCode(6001),
        room: room.map(RoomId),
        sequence: room.map_or(0, |_| SEQUENCE + id),
        ack_wanted,
        client_msg_id: ClientMsgId::new(Bytes::from(format!("c{id}"))),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

pub fn send_ack(id: &'static str, outcome: Outcome) -> SendAck {
    SendAck { client_msg_id: ClientMsgId::new(Bytes::from_static(id.as_bytes())), id: MessageId(9), outcome }
}

/// Free of the bytes it was decoded from, the echo of a heartbeat too.
fn into_static(frame: ServerFrame<'_>) -> ServerFrame<'static> {
    match frame {
        ServerFrame::Heartbeat { echo } => ServerFrame::Heartbeat { echo: Vec::leak(echo.to_vec()) },
        other => other.into_owned(),
    }
}
