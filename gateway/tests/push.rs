//! What operators and backends send, and what they are told.

mod common;

use bytes::Bytes;
use common::{APP, SECRET, World};
use gateway::{Claims, Push, mint_hs256};
use wire::client::{ClientFrame, FailReason, Outcome, SendAck, ServerFrame};
use wire::node::{Answer, Class, Question, SessionId, Target, ToControl, ToGateway, ToRouter};
use wire::{AppId, BizCode, ClientMsgId, DeviceClass, MessageId, UserId};

fn push(class: Class) -> Push {
    Push {
        app: APP,
        sender: UserId(0),
        biz_code: BizCode(6001),
        class,
        client_msg_id: ClientMsgId::default(),
        payload: Bytes::from_static(b"news"),
        stored: false,
        device: None,
    }
}

fn pushed(world: &mut World, user: i64, class: Class) -> Option<MessageId> {
    let id = world.gateway.push(world.now, Target::User(UserId(user)), push(class));
    world.run();
    id
}

#[test]
fn a_push_goes_to_the_owner_and_its_outcome_to_the_control_thread() {
    let mut world = World::new();
    let id = pushed(&mut world, 9, Class::Reliable).unwrap();
    let told = world.to_router.make_contiguous();
    let [ToRouter::Submit { session: SessionId::CONTROL, submission }] = told else { panic!("{told:?}") };
    assert_eq!((submission.id, submission.sender, &submission.payload[..]), (id, UserId(0), &b"news"[..]));
    assert!(submission.is_answered());
    let ack =
        SendAck { client_msg_id: ClientMsgId::default(), id, outcome: Outcome::Failed(FailReason::Offline) };
    let answer = ToControl::SendAck { submitted: id, ack: ack.clone() };
    world.tell(ToGateway::SendAck { session: SessionId::CONTROL, submitted: id, ack });
    assert_eq!((world.to_control, world.gateway.metrics().submitted), (vec![answer], 0));
}

#[test]
fn a_push_that_finds_no_place_is_refused_and_a_lossy_one_needs_none() {
    let mut world = World::with(|config| config.limits.submitted_max = 1);
    assert!(pushed(&mut world, 9, Class::Reliable).is_some());
    assert_eq!(pushed(&mut world, 9, Class::Reliable), None);
    assert!(pushed(&mut world, 9, Class::Lossy).is_some());
    assert_eq!((world.submissions().len(), world.metrics().submitted), (2, 1));
}

#[test]
fn a_lossy_message_that_meets_no_router_is_counted() {
    let mut world = World::without_routers(|_| {});
    pushed(&mut world, 9, Class::Lossy);
    pushed(&mut world, 9, Class::Reliable);
    assert_eq!((world.metrics().lossy_unowned, world.metrics().submitted), (1, 1));
}

#[test]
fn a_message_to_all_reaches_every_session_of_its_app_and_is_lossy() {
    let mut world = World::new();
    let (one, two) = (world.login(1), world.login(2));
    let stranger = world.connect();
    let exp = world.now.unix_secs() + 60;
    let claims = Claims { app: AppId(2), user: UserId(1), device: DeviceClass::Phone, exp };
    let token = mint_hs256(SECRET, &claims);
    world.say(stranger, ClientFrame::Login { token: token.into() });
    let nobody = world.connect();
    world.hear(stranger);
    let message = world.gateway.message_to_all(world.now, push(Class::Reliable));
    assert!(!message.ack_wanted && message.room.is_none());
    world.tell(ToGateway::All { message: message.clone() });
    for client in [one, two] {
        let [heard] = world.messages(client).try_into().unwrap();
        assert_eq!((heard.id, &heard.payload), (message.id, &message.payload));
    }
    assert_eq!((world.hear(stranger), world.hear(nobody)), (vec![], vec![]));
    assert_eq!(world.metrics().deliveries_lossy, 2);
}

#[test]
fn what_is_for_the_control_thread_passes_through() {
    let mut world = World::new();
    world.gateway.ask(common::ROUTER, 5, Question::Nodes);
    world.run();
    assert_eq!(world.to_router, [ToRouter::Ask { ask: 5, question: Question::Nodes }]);
    let told = Answer::Told { shards: 3 };
    world.tell(ToGateway::Answer { ask: 5, answer: told.clone() });
    world.tell(ToGateway::Drain);
    world.tell(ToGateway::SameNumber);
    let passed = [ToControl::Answer { ask: 5, answer: told }, ToControl::Drain, ToControl::SameNumber];
    assert_eq!(world.to_control, passed);
    assert!(!world.gateway.is_drained());
}

#[test]
fn a_push_has_another_id_than_any_other_message_of_its_shard() {
    let mut world = World::new();
    let client = world.login(1);
    let mut ids = Vec::new();
    for name in ["a", "b"] {
        world.send(client, 6001, 9, name, "x");
        ids.push(world.submissions().pop().unwrap().id);
        ids.extend(pushed(&mut world, 9, Class::Reliable));
        world.to_router.clear();
        ids.push(world.gateway.message_to_all(world.now, push(Class::Lossy)).id);
    }
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    assert!(!matches!(world.hear(client)[..], [ServerFrame::Notice { .. }, ..]));
}
