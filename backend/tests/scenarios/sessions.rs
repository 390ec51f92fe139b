//! Sessions that the tables have, against a push API that says which there are.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::common::{Node, Stack, until};
use crate::events::{membership, send, session};
use crate::login::{log_in, phone};
use crate::rooms::{devices, members, opened};

/// What the gateways say.
#[derive(Default)]
struct Gateways {
    sessions: BTreeSet<(i64, &'static str)>,
    settled: bool,
    is_away: bool,
    /// Calls so far that asked for users.
    calls: usize,
}

type Shared = Arc<Mutex<Gateways>>;

async fn online(State(gateways): State<Shared>, Json(body): Json<Value>) -> Result<Json<Value>, StatusCode> {
    let mut gateways = gateways.lock().unwrap();
    gateways.calls += 1;
    if gateways.is_away {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let users = body["users"].as_array().unwrap().iter().map(|user| {
        let user = user.as_i64().unwrap();
        let here = gateways.sessions.iter().filter(|(known, _)| *known == user);
        json!({ "user": user, "devices": here.map(|(_, device)| *device).collect::<Vec<_>>() })
    });
    Ok(Json(json!({ "app": body["app"], "users": users.collect::<Vec<_>>(), "settled": gateways.settled })))
}

async fn start(gateways: &Shared) -> SocketAddr {
    let router = Router::new().route("/v1/online", post(online)).with_state(gateways.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

async fn node(stack: &Stack, address: SocketAddr) -> Node {
    let mut config = stack.config();
    config.push_url = format!("http://{address}");
    stack.backend_with(config).await
}

/// What was asked since has been answered, once at least.
async fn asked_again(gateways: &Shared) {
    let calls = gateways.lock().unwrap().calls;
    until("it was asked again", async || gateways.lock().unwrap().calls >= calls + 2).await;
}

both!(
    /// F6: a session whose end nobody could tell, since all that knew of it died at once, is ended; those
    /// that are there stay.
    sessions_that_no_gateway_has_end,
    |stack| async move {
        let gateways = Shared::default();
        let address = start(&gateways).await;
        let node = node(&stack, address).await;
        let (_, token) = log_in(&node, &phone(1)).await;
        let room = opened(&node, &token).await;
        let (here, gone, back, unheard) = (700_001, 700_002, 700_003, 700_004);
        let mut events = Vec::new();
        for user in [here, gone, back] {
            events.push(session("online", 1, user, "phone", 100));
            events.push(membership("join", 2, user, "phone", 100, room));
        }
        events.push(session("online", 1, here, "web", 100));
        // The router that was to tell of this one died before.
        events.push(membership("join", 1, unheard, "phone", 100, room));
        gateways.lock().unwrap().sessions = BTreeSet::from([(here, "phone")]);
        send(&stack, &node.url(), &events).await;
        until("all are in it", async || members(&node, room, "").await.0 == [here, gone, back, unheard]).await;
        // While gateways announce themselves, or cannot be asked, nothing is known.
        asked_again(&gateways).await;
        stack.clock().advance_ms(6_000);
        asked_again(&gateways).await;
        assert_eq!(members(&node, room, "").await.0.len(), 4);
        gateways.lock().unwrap().settled = true;
        asked_again(&gateways).await;
        assert_eq!(members(&node, room, "").await.0.len(), 4, "once is not enough");
        gateways.lock().unwrap().is_away = true;
        stack.clock().advance_ms(6_000);
        asked_again(&gateways).await;
        assert_eq!(members(&node, room, "").await.0.len(), 4);
        // One comes back meanwhile, and joins again.
        let later = 1 << 40;
        send(&stack, &node.url(), &[session("online", 3, back, "phone", later)]).await;
        send(&stack, &node.url(), &[membership("join", 4, back, "phone", later, room)]).await;
        {
            let mut gateways = gateways.lock().unwrap();
            gateways.sessions.insert((back, "phone"));
            gateways.is_away = false;
        }
        until("two are left", async || members(&node, room, "").await.0 == [here, back]).await;
        let on = async |user: i64| Vec::from_iter(devices(&node, &token, user).await);
        until("one device is left", async || on(here).await == ["phone"]).await;
        assert_eq!((on(back).await, on(gone).await, on(unheard).await), (vec!["phone".to_owned()], vec![], vec![]));
        // The next session of one that was ended is one like any other.
        gateways.lock().unwrap().sessions.insert((gone, "phone"));
        send(&stack, &node.url(), &[session("online", 9, gone, "phone", later)]).await;
        until("it is online", async || on(gone).await == ["phone"]).await;
        node.stop().await;
    }
);

both!(
    /// F6: it holds for more sessions than one question names, and more rows than are read at once.
    many_sessions_end,
    |stack| async move {
        let gateways = Shared::default();
        gateways.lock().unwrap().settled = true;
        let address = start(&gateways).await;
        let node = node(&stack, address).await;
        for users in (0..5_500).collect::<Vec<i64>>().chunks(500) {
            let events: Vec<Value> =
                users.iter().map(|user| session("online", 1, 700_000 + user, "phone", 100)).collect();
            send(&stack, &node.url(), &events).await;
        }
        let online = async || {
            let count = "SELECT COUNT(*) FROM t_presence WHERE online_login > offline_login";
            let row = sqlx::query(count).fetch_one(node.app().store.db.primary()).await.unwrap();
            sqlx::Row::get::<i64, _>(&row, 0)
        };
        assert_eq!(online().await, 5_500);
        until("none is left", async || {
            stack.clock().advance_ms(1_000);
            online().await == 0
        })
        .await;
        node.stop().await;
    }
);
