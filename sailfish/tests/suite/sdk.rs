//! The Rust client with a real server, over connections that break.

use std::collections::BTreeSet;
use std::time::Duration;

use sailfish_client::{Client, Config, Event, Events, Outcome, Outgoing, RoomId, UserId, start};
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

use crate::common::proxy::Proxy;
use crate::common::{APP, PATIENCE, Server, token};

const MESSAGES: u64 = 300;

fn client(address: String, user: i64) -> (Client, Events) {
    let config = Config {
        app: APP,
        user: UserId(user),
        backoff: Duration::from_millis(10),
        busy_after: Duration::from_millis(50),
        ..Config::new(address)
    };
    start(config, token(user, 3_600))
}

/// The connection of the sender is cut every 50 ms. Each message has one outcome, and its receiver gets it
/// once and in order.
#[test]
fn nothing_is_lost_doubled_or_out_of_order_over_connections_that_break() {
    let server = Server::start(&[]);
    let proxy = Proxy::to(server.clients);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let life = async {
        let (receiver, mut received) = client(server.clients.to_string(), 2);
        receiver.join(RoomId(7), None);
        let mut is_joined = false;
        while !is_joined {
            is_joined = matches!(received.next().await.unwrap(), Event::Joined { .. });
        }
        let (sender, mut told) = client(proxy.address.to_string(), 1);
        sender.join(RoomId(7), None);
        let sending = async {
            for number in 0..MESSAGES {
                let text = number.to_string();
                sender.send(Outgoing::to_user(UserId(2), text.clone()).named(format!("u{number}"))).unwrap();
                sender.send(Outgoing::to_room(RoomId(7), text).named(format!("r{number}"))).unwrap();
                sleep(Duration::from_millis(5)).await;
                if number % 10 == 9 && number < MESSAGES - 20 {
                    proxy.cut();
                }
            }
        };
        let outcomes = async {
            let (mut names, mut logins) = (BTreeSet::new(), 0);
            while names.len() < 2 * MESSAGES as usize {
                match told.next().await.unwrap() {
                    Event::Outcome { client_msg_id, outcome, .. } => {
                        assert!(!matches!(outcome, Outcome::Failed(_)), "{client_msg_id}: {outcome:?}");
                        assert!(names.insert(client_msg_id.clone()), "{client_msg_id} has two outcomes");
                    }
                    Event::LoggedIn { .. } => logins += 1,
                    _ => {}
                }
            }
            logins
        };
        let receiving = async {
            let (mut direct, mut in_room) = (Vec::new(), Vec::new());
            while direct.len() + in_room.len() < 2 * MESSAGES as usize {
                if let Event::Message(message) = received.next().await.unwrap() {
                    let list = if message.room.is_some() { &mut in_room } else { &mut direct };
                    list.push(String::from_utf8(message.payload.to_vec()).unwrap());
                }
            }
            (direct, in_room)
        };
        let ((), logins, (direct, in_room)) = tokio::join!(sending, outcomes, receiving);
        let all: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
        assert_eq!((direct, in_room), (all.clone(), all));
        assert!(logins > 10, "the connection was cut, and the client logged in {logins} times only");
        assert_eq!(sender.unanswered(), 0);
    };
    runtime.block_on(async { timeout(3 * PATIENCE, life).await.expect("in time") });
}
