//! The core against a scripted server, with time that jumps; and against a server that loses connections by
//! chance.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use wire::client::{Encoding, Outcome};
use wire::{AppId, BizCode, ClientMsgId, MessageId, UserId};

use super::*;

const ENCODING: Encoding = Encoding::Binary;
const START: Instant = Instant::from_unix_nanos(1_800_000_000_000_000_000);

/// A core, its time, and the frames that it said.
struct World {
    core: Core,
    now: Instant,
    actions: Vec<Action>,
    events: Vec<Event>,
    deframer: Deframer,
}

impl World {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new("home:1");
        change(&mut config);
        let core = Core::new(config, 7, START);
        let mut world =
            Self { core, now: START, actions: Vec::new(), events: Vec::new(), deframer: Deframer::default() };
        world.take();
        world
    }

    /// One that is logged in.
    fn ready(change: impl FnOnce(&mut Config)) -> Self {
        let mut world = Self::new(change);
        assert_eq!(world.actions, [Action::AskToken]);
        world.core.token(world.now, Some("t".into()));
        world.log_in();
        world
    }

    /// Waits for the connect, and logs in.
    fn log_in(&mut self) {
        self.take();
        while self.actions.last() != Some(&Action::Connect(self.address())) {
            self.sleep();
        }
        self.core.connected(self.now);
        assert!(matches!(self.said()[..], [Said::Login(_)]));
        self.hear(&[ServerFrame::LoggedIn { heartbeat_ms: 30_000 }]);
    }

    fn address(&self) -> String {
        self.core.addresses.current().to_owned()
    }

    fn take(&mut self) {
        self.actions.extend(std::iter::from_fn(|| self.core.poll_action()));
        self.events.extend(std::iter::from_fn(|| self.core.poll_event()));
    }

    /// Lets time pass until the core's next timeout; how long that took.
    fn sleep(&mut self) -> Duration {
        let next = self.core.next_timeout().expect("the core waits for something");
        let slept = next.since(self.now);
        self.now = self.now.max(next);
        self.core.handle_timeout(self.now);
        self.take();
        slept
    }

    fn hear(&mut self, frames: &[ServerFrame<'_>]) {
        let bytes = bytes(frames);
        self.core.received(self.now, &bytes);
        self.take();
    }

    fn hear_joined(&mut self, room: i64, sequence: u64, recovery: Option<u8>) {
        let mut body = [room.to_be_bytes(), sequence.to_be_bytes()].concat();
        body.extend(recovery);
        let mut frame = [0x53, 0x46, 0, 0, 3, 0xf2, 0, 0, 0, body.len() as u8].to_vec();
        frame.extend(body);
        self.core.received(self.now, &frame);
        self.take();
    }

    fn said(&mut self) -> Vec<Said> {
        self.take();
        let out = self.core.take_output();
        decode(&mut self.deframer, &out)
    }

    fn events(&mut self) -> Vec<Event> {
        self.take();
        std::mem::take(&mut self.events)
    }

    /// The connection breaks; how the core takes it.
    fn cut(&mut self) -> Event {
        self.core.disconnected(self.now, "cut".into());
        self.take();
        self.deframer = Deframer::default();
        self.events.pop().expect("a loss is told")
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Said {
    Login(String),
    Send(String),
    Heartbeat,
    Ack(Vec<u64>),
    /// A join with all its body.
    Join(Vec<u8>),
    Leave(i64),
    Logout,
}

fn decode(deframer: &mut Deframer, mut bytes: &[u8]) -> Vec<Said> {
    let mut said = Vec::new();
    while let Some(frame) = deframer.next(&mut bytes, 1 << 20).unwrap() {
        if frame.code == wire::client::Code::Join {
            said.push(Said::Join(frame.body.to_vec()));
            continue;
        }
        said.push(match ClientFrame::decode(&frame).unwrap() {
            ClientFrame::Login { token } => Said::Login(token.into_owned()),
            ClientFrame::Business(business) => Said::Send(business.client_msg_id.into_owned()),
            ClientFrame::Heartbeat { .. } => Said::Heartbeat,
            ClientFrame::Ack(ids) => Said::Ack(ids.iter().map(|id| id.0).collect()),
            ClientFrame::Leave { room } => Said::Leave(room.0),
            ClientFrame::Logout => Said::Logout,
            ClientFrame::Join { .. } => unreachable!("taken above"),
        });
    }
    said
}

fn bytes(frames: &[ServerFrame<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    frames.iter().for_each(|frame| frame.encode(ENCODING, AppId(1), UserId(1), &mut out));
    out
}

fn notice(code: NoticeCode, retry_after_ms: u32, alternatives: &[&'static str]) -> ServerFrame<'static> {
    let alternatives = alternatives.iter().map(|one| (*one).into()).collect();
    ServerFrame::Notice { code, text: "".into(), retry_after_ms, alternatives }
}

fn message(id: u64, name: &str, room: Option<(i64, u64)>) -> ServerFrame<'static> {
    ServerFrame::Deliver(std::borrow::Cow::Owned(Message {
        id: MessageId(id),
        app: AppId(0),
        sender: UserId(2),
        biz_code: BizCode(6_001),
        room: room.map(|(room, _)| RoomId(room)),
        sequence: room.map_or(0, |(_, sequence)| sequence),
        ack_wanted: true,
        client_msg_id: ClientMsgId::new(Bytes::copy_from_slice(name.as_bytes())),
        payload: Bytes::new(),
    }))
}

fn send_ack(name: &str, outcome: Outcome) -> ServerFrame<'static> {
    let client_msg_id = ClientMsgId::new(Bytes::copy_from_slice(name.as_bytes()));
    ServerFrame::SendAck(SendAck { client_msg_id, id: MessageId(1), outcome })
}

fn hello(name: &str) -> Outgoing {
    Outgoing::to_user(UserId(2), "hello").named(name)
}

fn join(room: i64, past: Option<(u8, u64)>) -> Said {
    let mut body = room.to_be_bytes().to_vec();
    if let Some((want, value)) = past {
        body.push(want);
        body.extend(value.to_be_bytes());
    }
    Said::Join(body)
}

#[test]
fn a_silent_server_is_left_after_a_heartbeat_and_a_period() {
    let mut world = World::ready(|_| {});
    assert_eq!(world.sleep(), Duration::from_secs(30));
    assert_eq!(world.said(), [Said::Heartbeat]);
    world.hear(&[ServerFrame::Heartbeat { echo: &[] }]);
    // What the client says puts its heartbeat off, unless the server has been silent as long.
    world.now += Duration::from_secs(20);
    world.core.send(world.now, hello("m1")).unwrap();
    assert_eq!(world.sleep(), Duration::from_secs(10));
    assert_eq!(world.said(), [Said::Send("m1".into()), Said::Heartbeat]);
    world.events();
    assert_eq!(world.sleep(), Duration::from_secs(30));
    assert!(matches!(world.events()[..], [Event::Disconnected { why: Loss::Silent, .. }]));
    assert_eq!(world.actions.pop(), Some(Action::Disconnect));
}

#[test]
fn a_machine_that_slept_asks_before_it_takes_the_server_for_silent() {
    let mut world = World::ready(|_| {});
    world.now += Duration::from_secs(8 * 3_600);
    world.core.handle_timeout(world.now);
    assert_eq!(world.said(), [Said::Heartbeat]);
    assert_eq!(world.core.next_timeout(), Some(world.now + Duration::from_secs(30)));
}

#[test]
fn a_message_is_said_until_its_send_ack_and_told_once() {
    let mut world = World::new(|_| {});
    world.core.send(world.now, hello("m1")).unwrap();
    let name = world.core.send(world.now, Outgoing::to_user(UserId(2), "hello")).unwrap();
    assert!(name.ends_with("-1") && name.len() > 16, "{name}");
    world.core.token(world.now, Some("t".into()));
    world.log_in();
    let both = [Said::Send("m1".into()), Said::Send(name.clone())];
    assert_eq!(world.said(), both);
    world.cut();
    world.log_in();
    assert_eq!(world.said(), both, "after a reconnect, in order");
    world.hear(&[send_ack(&name, Outcome::Delivered), send_ack(&name, Outcome::Delivered)]);
    world.events();
    while world.sleep() < Duration::from_secs(1) {}
    world.hear(&[ServerFrame::Heartbeat { echo: &[] }]);
    assert_eq!(world.said(), [Said::Heartbeat]);
    while world.core.next_timeout().unwrap() <= START + Duration::from_secs(67) {
        world.sleep();
        world.hear(&[ServerFrame::Heartbeat { echo: &[] }]);
    }
    assert!(world.said().contains(&Said::Send("m1".into())), "after 65 s on the same connection");
    world.hear(&[send_ack("m1", Outcome::Failed(FailReason::Offline)), send_ack("m1", Outcome::Delivered)]);
    let outcomes = world.events();
    assert!(
        matches!(&outcomes[..], [Event::Outcome { client_msg_id, outcome: Outcome::Failed(FailReason::Offline), .. }] if client_msg_id == "m1")
    );
    assert_eq!(world.core.unanswered(), 0);
}

#[test]
fn the_store_has_bounds() {
    let mut world = World::new(|config| {
        config.store_messages_max = 3;
        config.store_bytes_max = 12;
    });
    let mut send = |message: Outgoing| world.core.send(world.now, message).err();
    assert_eq!(send(hello("m1")), None);
    assert_eq!(send(hello("m1")), Some(Refused::SameName));
    assert_eq!(send(hello("")), Some(Refused::BadName));
    assert_eq!(send(hello(&"x".repeat(65))), Some(Refused::BadName));
    assert_eq!(send(Outgoing::to_user(UserId(2), vec![0; 61_441])), Some(Refused::TooLong));
    assert_eq!(send(hello("m2")), None);
    assert_eq!(send(hello("m3")), Some(Refused::Full), "15 bytes are too many");
    assert_eq!(send(Outgoing::to_user(UserId(2), "")), None);
    assert_eq!(send(Outgoing::to_user(UserId(2), "")), Some(Refused::Full), "four messages are too many");
    assert_eq!(world.core.send_once(world.now, &hello("m4")), Err(Refused::Away));
    world.core.token(world.now, Some("t".into()));
    world.log_in();
    world.hear(&[send_ack("m1", Outcome::Delivered)]);
    assert_eq!(world.core.send(world.now, hello("m5")), Ok("m5".into()));
    world.core.log_out(world.now);
    world.hear(&[ServerFrame::LoggedOut]);
    assert_eq!(world.core.send(world.now, hello("m6")), Err(Refused::Ended));
    assert_eq!((world.events().pop(), world.core.next_timeout()), (Some(Event::Ended(End::Logout)), None));
}

#[test]
fn a_room_is_joined_again_where_it_was_left() {
    let mut world = World::ready(|_| {});
    world.core.join(world.now, RoomId(7), Some(Want::Last(5)));
    world.core.send(world.now, Outgoing::to_room(RoomId(7), "x").named("m1")).unwrap();
    assert_eq!(world.said(), [join(7, Some((2, 5)))], "the message waits for the room");
    world.hear_joined(7, 9, None);
    assert_eq!(world.said(), [Said::Send("m1".into())]);
    world.hear(&[
        message(1, "a", Some((7, 10))),
        message(2, "b", Some((7, 12))),
        message(1, "a", Some((7, 10))),
    ]);
    assert_eq!(world.said(), [Said::Ack(vec![1, 2, 1])]);
    world.cut();
    world.log_in();
    assert_eq!(world.said(), [join(7, Some((1, 10)))], "11 has not come");
    // A server that says that the client is not in the room, is asked again.
    world.hear_joined(7, 12, None);
    assert_eq!(world.said(), [Said::Send("m1".into())]);
    world.hear(&[send_ack("m1", Outcome::Failed(FailReason::NotMember))]);
    assert_eq!(world.said(), [join(7, Some((1, 12)))]);
    world.hear_joined(7, 12, None);
    assert_eq!(world.said(), [Said::Send("m1".into())]);
    world.core.leave(world.now, RoomId(7));
    assert_eq!(world.said(), [Said::Leave(7)]);
    world.events();
    world.hear(&[send_ack("m1", Outcome::Failed(FailReason::NotMember))]);
    assert!(matches!(world.events()[..], [Event::Outcome { .. }]), "nobody wants to be in the room");
}

#[test]
fn a_room_that_counts_from_below_again_is_followed() {
    let mut world = World::ready(|_| {});
    world.core.join(world.now, RoomId(7), None);
    world.hear_joined(7, 900, None);
    world.cut();
    world.log_in();
    assert_eq!(world.said(), [join(7, Some((1, 900)))]);
    world.hear_joined(7, 12, Some(2));
    world.hear(&[message(1, "a", Some((7, 13)))]);
    world.cut();
    world.log_in();
    assert_eq!(world.said(), [join(7, Some((1, 13)))]);
}

#[test]
fn a_server_without_room_history_is_not_asked_for_it_again() {
    let mut world = World::ready(|_| {});
    world.core.join(world.now, RoomId(7), Some(Want::Last(5)));
    assert_eq!(world.said(), [join(7, Some((2, 5)))]);
    world.events();
    world.hear(&[notice(NoticeCode::BadBody, 0, &[])]);
    assert!(matches!(world.events()[..], [Event::Disconnected { why: Loss::Closed(_), .. }]));
    world.log_in();
    assert_eq!(world.said(), [join(7, None)]);
    world.hear(&[notice(NoticeCode::BadBody, 0, &[])]);
    let events = world.events();
    let why = Loss::Notice(NoticeCode::BadBody);
    assert!(
        matches!(events.last(), Some(Event::Disconnected { why: last, .. }) if *last == why),
        "{events:?}"
    );
}

#[test]
fn notices_say_where_and_when_to_come_back() {
    let mut world = World::ready(|_| {});
    world.events();
    world.hear(&[notice(NoticeCode::Draining, 1_500, &["b:2", "c:3"])]);
    let waits = |events: &[Event]| match events {
        [Event::Notice { .. }, Event::Disconnected { next, wait, .. }] => (next.clone(), wait.as_millis()),
        other => panic!("{other:?}"),
    };
    assert_eq!(waits(&world.events()), ("b:2".to_owned(), 1_500));
    world.sleep();
    world.core.not_connected(world.now, "refused".into());
    assert!(
        matches!(&world.events()[..], [Event::Disconnected { address, next, .. }] if address == "b:2" && next == "c:3")
    );
    world.sleep();
    world.core.not_connected(world.now, "refused".into());
    world.log_in();
    assert_eq!(world.address(), "home:1");
    // A fault that the server finds would be found again at once.
    world.events();
    world.hear(&[notice(NoticeCode::BadBody, 0, &[])]);
    assert_eq!(waits(&world.events()), ("home:1".to_owned(), 5_000));
    world.log_in();
    world.hear(&[notice(NoticeCode::Kicked, 0, &[]), ServerFrame::LoggedIn { heartbeat_ms: 1 }]);
    assert_eq!(world.events().pop(), Some(Event::Ended(End::Kicked)));
    assert_eq!((world.core.next_timeout(), world.core.has_ended()), (None, true));
}

#[test]
fn a_server_that_does_not_answer_the_login_is_left() {
    let mut world = World::new(|_| {});
    world.core.token(world.now, Some("t".into()));
    world.take();
    assert_eq!(world.sleep(), Duration::from_secs(10));
    assert!(matches!(world.events()[..], [Event::Disconnected { why: Loss::NotConnected(_), .. }]));
    world.sleep();
    world.core.connected(world.now);
    assert_eq!(world.sleep(), Duration::from_secs(10));
    assert!(matches!(world.events()[..], [Event::Disconnected { why: Loss::Late, .. }]));
}

#[test]
fn a_provider_without_a_token_is_asked_again() {
    let mut world = World::new(|_| {});
    assert_eq!((world.actions.len(), world.core.next_timeout()), (1, None));
    world.core.token(world.now, None);
    assert!(matches!(world.events()[..], [Event::Disconnected { why: Loss::NoToken, .. }]));
    world.sleep();
    assert_eq!(world.actions, [Action::AskToken, Action::AskToken]);
    world.core.token(world.now, Some("t".into()));
    world.log_in();
    world.hear(&[notice(NoticeCode::TokenExpired, 0, &[])]);
    world.sleep();
    assert_eq!(world.actions.last(), Some(&Action::AskToken));
}

/// What a server does that loses connections and says things twice by chance.
struct Chaos {
    prng: Prng,
    /// The messages that the client sent, by name, in the order of their first copies.
    got: Vec<String>,
    answered: BTreeMap<String, Outcome>,
    /// Messages to the client that it has not acked.
    unacked: BTreeSet<u64>,
    last: u64,
    deframer: Deframer,
}

impl Chaos {
    fn is_unlucky(&mut self, one_in: u64) -> bool {
        self.prng.below(one_in) == 0
    }

    /// The bytes with which the server answers what it heard.
    fn answer(&mut self, out: &[u8]) -> Vec<u8> {
        let mut frames = Vec::new();
        for said in decode(&mut self.deframer, out) {
            match said {
                Said::Login(_) => frames.push(ServerFrame::LoggedIn { heartbeat_ms: 30_000 }),
                Said::Send(name) => {
                    if !self.answered.contains_key(&name) {
                        self.got.push(name.clone());
                        let busy = self.is_unlucky(8);
                        let outcome =
                            if busy { Outcome::Failed(FailReason::Busy) } else { Outcome::Delivered };
                        if busy {
                            self.got.pop();
                        } else {
                            self.answered.insert(name.clone(), outcome);
                        }
                        frames.push(send_ack(&name, outcome));
                    } else if !self.is_unlucky(2) {
                        frames.push(send_ack(&name, Outcome::Delivered));
                    }
                }
                Said::Heartbeat => frames.push(ServerFrame::Heartbeat { echo: &[] }),
                Said::Ack(ids) => ids.iter().for_each(|id| {
                    self.unacked.remove(id);
                }),
                Said::Join(_) | Said::Leave(_) | Said::Logout => {}
            }
        }
        if self.last < 100 && self.is_unlucky(3) {
            self.last += 1;
            self.unacked.insert(self.last);
        }
        frames.extend(self.unacked.iter().map(|id| message(*id, &format!("s{id}"), None)));
        bytes(&frames)
    }
}

#[test]
fn nothing_is_lost_or_told_twice_whatever_the_network_does() {
    for seed in 0..200 {
        let chaos = Chaos {
            prng: Prng::new(seed),
            got: Vec::new(),
            answered: BTreeMap::new(),
            unacked: BTreeSet::new(),
            last: 0,
            deframer: Deframer::default(),
        };
        let (world, chaos, sent) = live(World::ready(|_| {}), chaos);
        let mut outcomes = BTreeMap::new();
        let mut shown = Vec::new();
        for event in world.events {
            match event {
                Event::Outcome { client_msg_id, outcome, .. } => {
                    assert_eq!(outcomes.insert(client_msg_id, outcome), None, "seed {seed}");
                }
                Event::Message(message) => shown.push(message.id.0),
                _ => {}
            }
        }
        assert_eq!(outcomes, chaos.answered, "seed {seed}: every outcome is told, and told once");
        assert_eq!(outcomes.len(), sent, "seed {seed}");
        let all: Vec<u64> = (1..=chaos.last).collect();
        shown.sort_unstable();
        assert_eq!(shown, all, "seed {seed}: every message is shown, and shown once");
    }
}

/// Lets a client and the server of chance live until neither has anything to say; how many messages the
/// client sent.
fn live(mut world: World, mut chaos: Chaos) -> (World, Chaos, usize) {
    let mut sent = 0;
    for round in 0..4_000 {
        if sent < 50 && chaos.is_unlucky(4) {
            sent += 1;
            world.core.send(world.now, hello(&format!("m{sent}"))).unwrap();
        }
        let is_open = world.core.has_connection();
        let out = world.core.take_output();
        if is_open {
            let answer = chaos.answer(&out);
            let is_cut = round < 3_000 && chaos.is_unlucky(10);
            let until =
                if is_cut { chaos.prng.below(answer.len() as u64 + 1) as usize } else { answer.len() };
            let middle = chaos.prng.below(until as u64 + 1) as usize;
            world.core.received(world.now, &answer[..middle]);
            world.core.received(world.now, &answer[middle..until]);
            if is_cut {
                world.core.disconnected(world.now, "cut".into());
                chaos.deframer = Deframer::default();
            }
            world.now += Duration::from_millis(20);
            world.core.handle_timeout(world.now);
            world.take();
        } else {
            world.sleep();
            if world.actions.pop().is_some_and(|action| matches!(action, Action::Connect(_))) {
                world.core.connected(world.now);
            }
        }
    }
    (world, chaos, sent)
}

#[test]
fn what_is_no_frame_ends_the_connection_and_nothing_else() {
    for seed in 0..300 {
        let mut prng = Prng::new(seed);
        let mut world = World::ready(|_| {});
        let mut garbage = bytes(&[
            message(1, "a", None),
            send_ack("x", Outcome::Delivered),
            notice(NoticeCode::Busy, 0, &[]),
        ]);
        let at = prng.below(garbage.len() as u64) as usize;
        garbage[at] ^= 1 << prng.below(8);
        garbage.extend((0..prng.below(200)).map(|_| prng.next_u64() as u8));
        for piece in garbage.chunks(1 + prng.below(40) as usize) {
            world.core.received(world.now, piece);
        }
        world.core.disconnected(world.now, "cut".into());
        world.take();
        if !world.core.has_ended() {
            world.log_in();
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_life() {
    let life = || {
        let chaos = Chaos {
            prng: Prng::new(3),
            got: Vec::new(),
            answered: BTreeMap::new(),
            unacked: BTreeSet::new(),
            last: 0,
            deframer: Deframer::default(),
        };
        let (world, chaos, _) = live(World::ready(|_| {}), chaos);
        (world.events, chaos.got, world.now)
    };
    assert_eq!(life(), life());
}
