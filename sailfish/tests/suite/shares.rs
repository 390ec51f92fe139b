//! What a sender may send fits what a receiver that reads may get, and what one user holds is not taken from
//! others.

use std::collections::BTreeSet;
use std::io::Write;

use wire::client::{Business, ClientFrame, FailReason, Outcome, ServerFrame};
use wire::{BizCode, MessageId};

use crate::common::{Client, Server, until};

const ROUTES: &str =
    "routes=[{biz_code=7001,to=\"room\",class=\"reliable\"},{biz_code=6001,to=\"user\",class=\"reliable\"}]";

/// Sends so many messages in one write.
fn burst(sender: &mut Client, biz_code: i32, target: i64, count: usize, payload: &str) {
    let mut bytes = Vec::new();
    for n in 0..count {
        bytes.extend(sender.encoded(&ClientFrame::Business(Business {
            biz_code: BizCode(biz_code),
            target,
            client_msg_id: format!("m{n}").into(),
            payload: payload.as_bytes().into(),
        })));
    }
    sender.stream.write_all(&bytes).unwrap();
}

/// Reads and acks until so many messages have come.
fn read_and_ack(client: &mut Client, count: usize) {
    let mut seen: BTreeSet<MessageId> = BTreeSet::new();
    while seen.len() < count {
        match client.next() {
            Some(ServerFrame::Deliver(message)) => {
                client.ack(message.id);
                seen.insert(message.id);
            }
            other => panic!("after {} of {count} messages: {other:?}", seen.len()),
        }
    }
}

/// The outcomes of so many messages, messages that come in between apart.
fn outcomes(client: &mut Client, count: usize) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    while outcomes.len() < count {
        match client.next() {
            Some(ServerFrame::SendAck(ack)) => outcomes.push(ack.outcome),
            Some(ServerFrame::Deliver(message)) => client.ack(message.id),
            other => panic!("after {} of {count} answers: {other:?}", outcomes.len()),
        }
    }
    outcomes
}

#[test]
fn a_burst_into_a_room_comes_to_every_member_that_reads() {
    const COUNT: usize = 1_500;
    let server = Server::start(&["--set", ROUTES]);
    let mut members: Vec<Client> = (100..108).map(|user| server.login(user)).collect();
    let mut sender = server.login(1);
    members.iter_mut().chain([&mut sender]).for_each(|client| client.join(7));
    std::thread::scope(|scope| {
        for member in &mut members {
            scope.spawn(move || read_and_ack(member, COUNT));
        }
        burst(&mut sender, 7001, 7, COUNT, "");
        let outcomes = outcomes(&mut sender, COUNT);
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Sequenced { .. })));
    });
    members.iter_mut().for_each(Client::heartbeat);
    assert_eq!(server.metric("sailfish_slow_reader_closes_total", ""), 0.0);
}

#[test]
fn a_burst_to_a_user_is_delivered() {
    let server = Server::start(&[]);
    let long = "x".repeat(60_000);
    for (round, (count, payload)) in [(1_100, ""), (1_990, ""), (12, long.as_str())].into_iter().enumerate() {
        let user = 10 * round as i64;
        let (mut sender, mut receiver) = (server.login(user + 1), server.login(user + 2));
        std::thread::scope(|scope| {
            scope.spawn(|| read_and_ack(&mut receiver, count));
            burst(&mut sender, 6001, user + 2, count, payload);
            assert!(outcomes(&mut sender, count).iter().all(|outcome| *outcome == Outcome::Delivered));
        });
        receiver.heartbeat();
    }
}

/// More than a receiver can be given at once is the sender's to send again.
#[test]
fn a_burst_that_is_too_much_pushes_its_sender_back() {
    let server = Server::start(&["--set", "router.pending_receiver_bytes_max=524288"]);
    let (mut sender, mut receiver) = (server.login(1), server.login(2));
    let payload = "x".repeat(60_000);
    burst(&mut sender, 6001, 2, 12, &payload);
    let busy = outcomes(&mut sender, 4);
    assert!(busy.iter().all(|outcome| *outcome == Outcome::Failed(FailReason::Busy)), "{busy:?}");
    read_and_ack(&mut receiver, 8);
    assert!(outcomes(&mut sender, 8).iter().all(|outcome| *outcome == Outcome::Delivered));
}

#[test]
fn a_user_whose_receivers_never_ack_takes_no_place_of_others() {
    let server = Server::start(&[
        "--set",
        "limits.submitted_max=200",
        "--set",
        "limits.submitted_user_max=50",
        "--set",
        "router.pending_max=200",
        "--set",
        "router.pending_sender_max=50",
    ]);
    let silent: Vec<Client> = (10..14).map(|user| server.login(user)).collect();
    let mut greedy = server.login(1);
    for receiver in 10..14 {
        burst(&mut greedy, 6001, receiver, 100, "x");
    }
    let busy = outcomes(&mut greedy, 350);
    assert!(busy.iter().all(|outcome| *outcome == Outcome::Failed(FailReason::Busy)));
    assert_eq!(server.metric("sailfish_submitted", ""), 50.0);
    let (mut sender, mut receiver) = (server.login(2), server.login(3));
    burst(&mut sender, 6001, 3, 50, "x");
    read_and_ack(&mut receiver, 50);
    assert!(outcomes(&mut sender, 50).iter().all(|outcome| *outcome == Outcome::Delivered));
    drop(silent);
    until("what waited for them is done with", || server.metric("sailfish_router_pending", "") == 0.0);
}
