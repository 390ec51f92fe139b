//! Gifts and the wallet.

use std::collections::BTreeMap;
use std::time::Duration;

use backend::{Answer, Contents, GiftRequest, Identity, Queue, Reason, Topic};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tokio::task::JoinSet;

use crate::bridge::{self, gift_event};
use crate::common::{Node, Redis, Servers, Stack, call, until};
use crate::login::log_in;
use crate::pushes::{FakePush, Mood, payload};

pub const INTERNAL: Option<&str> = Some("internal-secret");

/// Users 3 and 4 and rooms 7 and 8, whom tests know by these numbers, and a backend that gives none of them
/// to anybody else.
pub async fn people(node: &Node) {
    let app = node.app();
    let ignore = app.store.db.dialect().insert_ignore();
    let mut statements =
        vec![format!("{ignore} t_id_segment (name, next_id, version) VALUES (X'75736572', 1000000001, 0)")];
    for user_id in [3, 4] {
        statements.push(format!(
            "{ignore} t_user_{user_id:02} (id, name, avatar, sex, city, bio, created_ms) VALUES ({user_id}, 'a', '', 0, '', '', 0)"
        ));
    }
    for room_id in [7, 8] {
        let owner_id = 1_000 + room_id;
        statements.push(format!(
            "{ignore} t_room (id, owner_id, open_owner_id, title, is_open, opened_ms) VALUES ({room_id}, {owner_id}, {owner_id}, 'a', 1, 0)"
        ));
    }
    for statement in statements {
        sqlx::query(AssertSqlSafe(statement)).execute(app.store.db.writer()).await.unwrap();
    }
}

/// Adds a gift to the catalogue, and those who may be given it; its id.
pub async fn new_gift(node: &Node, price: i64) -> i64 {
    people(node).await;
    let body = json!({ "name": "玫瑰 🌹'; --", "price": price, "is_on_sale": true });
    let (status, gift) = call("POST", format!("{}/internal/gifts", node.url()), INTERNAL, Some(body)).await;
    assert_eq!(status, 200, "{gift}");
    gift["id"].as_i64().unwrap()
}

pub async fn grant(node: &Node, user_id: i64, amount: i64, id: &str) -> (u16, Value) {
    let body = json!({ "user_id": user_id, "amount": amount, "id": id });
    call("POST", format!("{}/internal/wallet/grant", node.url()), INTERNAL, Some(body)).await
}

/// The sum of all balances, which must be that of the ledger; and how many gifts were committed.
pub async fn audit(node: &Node) -> (i64, i64) {
    let (status, audit) = call("GET", format!("{}/internal/audit", node.url()), INTERNAL, None).await;
    assert_eq!(status, 200, "{audit}");
    assert_eq!((&audit["ledger"], audit["differing"].as_i64()), (&audit["balances"], Some(0)), "{audit}");
    (audit["balances"].as_i64().unwrap(), audit["gifts_committed"].as_i64().unwrap())
}

pub fn request(sender_id: i64, key: &str, gift_id: i64) -> GiftRequest {
    GiftRequest {
        trace: None,
        identity: Identity { sender_id, key: key.into() },
        contents: Contents { gift_id, room_id: 7, receiver_id: 3, count: 1, code: 5556 },
        price: None,
        is_in_room: true,
    }
}

/// Sends at once; the answers, in any order.
async fn send_all(requests: Vec<(&Node, GiftRequest)>) -> Vec<Answer> {
    let mut sends = JoinSet::new();
    for (node, request) in requests {
        let app = node.app().clone();
        sends.spawn(async move { app.gifts.send(&request).await.unwrap() });
    }
    sends.join_all().await
}

pub fn unlimited(stack: &Stack) -> backend::Config {
    let mut config = stack.config();
    (config.gifts_per_second, config.gift_refusals_per_minute) = (1_000_000, 1_000_000);
    config.gift_wait_ms = 20_000; // on a machine that does much else
    config
}

const SHORT: Answer = Answer::Refused(Reason::InsufficientBalance);

both!(
    /// C1: the list and each gift are cached, that there is none too; a change is seen at once.
    the_catalogue_is_cached_and_so_is_what_is_not_in_it,
    |stack| async move {
        let node = stack.backend().await;
        let get = async |path: &str| call("GET", format!("{}{path}", node.url()), None, None).await;
        let misses = || node.app().store.cache.counts().1;
        let before = misses();
        for _ in 0..50 {
            assert_eq!(get("/gifts/4711").await.0, 404);
            assert_eq!(get("/gifts").await.1, json!({ "gifts": [] }));
        }
        assert_eq!(misses() - before, 2, "one read of the database each");
        let put = async |body: Value| {
            call("PUT", format!("{}/internal/gifts/4711", node.url()), INTERNAL, Some(body)).await
        };
        let body = json!({ "name": "x'); DROP TABLE t_gift; --", "price": 5, "is_on_sale": true });
        assert_eq!(put(body.clone()).await.0, 200);
        let gift = get("/gifts/4711").await.1;
        assert_eq!((&gift["name"], &gift["price"]), (&body["name"], &json!(5)));
        assert_eq!(get("/gifts").await.1["gifts"], json!([gift]));
        put(json!({ "name": "b", "price": 6, "is_on_sale": true })).await;
        assert_eq!(get("/gifts/4711").await.1["price"], 6);
        put(json!({ "name": "b", "price": 6, "is_on_sale": false })).await;
        assert_eq!(get("/gifts").await.1, json!({ "gifts": [] }));
        let before = misses();
        for _ in 0..50 {
            assert_eq!(get("/gifts/4711").await.1["is_on_sale"], false);
            get("/gifts").await;
        }
        assert!(misses() - before <= 4, "second deletes may come in between");
        let url = format!("{}/internal/gifts/4711", node.url());
        assert_eq!(call("DELETE", url.clone(), INTERNAL, None).await.0, 204);
        assert_eq!(call("DELETE", url, INTERNAL, None).await.0, 404);
        assert_eq!(get("/gifts/4711").await.0, 404);
        node.stop().await;
    }
);

both!(
    /// Who may change the catalogue and give coins, and what is no gift.
    the_internal_api_wants_its_secret_and_sense,
    |stack| async move {
        let node = stack.backend().await;
        let good = json!({ "name": "a", "price": 1, "is_on_sale": true });
        let url = format!("{}/internal/gifts", node.url());
        assert_eq!(call("POST", url.clone(), None, Some(good.clone())).await.0, 401);
        assert_eq!(call("POST", url.clone(), Some("internal-secreT"), Some(good)).await.0, 401);
        for (bad, field) in [
            (json!({ "name": "", "price": 1, "is_on_sale": true }), "name"),
            (json!({ "name": "🌹".repeat(65), "price": 1, "is_on_sale": true }), "name"),
            (json!({ "name": "a\u{0}", "price": 1, "is_on_sale": true }), "name"),
            (json!({ "name": "a", "price": 0, "is_on_sale": true }), "price"),
            (json!({ "name": "a", "price": -5, "is_on_sale": true }), "price"),
            (json!({ "name": "a", "price": i64::MAX, "is_on_sale": true }), "price"),
            (json!({ "name": "a", "price": 1.5, "is_on_sale": true }), "price"),
            (json!({ "name": "a", "price": 1, "is_on_sale": true, "more": 1 }), "more"),
        ] {
            let (status, body) = call("POST", url.clone(), INTERNAL, Some(bad.clone())).await;
            assert!(status == 400 && body["message"].as_str().unwrap().contains(field), "{bad}: {body}");
        }
        for (user_id, amount, id) in [(0, 1, "a"), (1, 0, "a"), (1, -1, "a"), (1, 1, ""), (1, i64::MAX, "a")] {
            assert_eq!(grant(&node, user_id, amount, id).await.0, 400);
        }
        assert_eq!(audit(&node).await, (0, 0));
        node.stop().await;
    }
);

both!(
    /// Coins are given once under one id, however often it is asked for, at once too.
    a_grant_is_given_once,
    |stack| async move {
        let (one, two) = (stack.backend().await, stack.backend().await);
        let mut grants = JoinSet::new();
        for node in [&one, &two].into_iter().cycle().take(20) {
            let url = format!("{}/internal/wallet/grant", node.url());
            let body = json!({ "user_id": 5, "amount": 100, "id": "'; DELETE FROM t_ledger" });
            grants.spawn(async move { call("POST", url, INTERNAL, Some(body)).await });
        }
        let answers = grants.join_all().await;
        assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
        let granted: i64 = answers.iter().map(|(_, body)| body["granted"].as_i64().unwrap()).sum();
        assert_eq!((granted, audit(&one).await), (1, (100, 0)));
        let (status, body) = grant(&one, 5, 101, "'; DELETE FROM t_ledger").await;
        assert_eq!((status, &body["code"]), (409, &json!("id_reused")));
        let many = json!({ "grants": [{ "user_id": 6, "amount": 1, "id": "b" }, { "user_id": 5, "amount": 2, "id": "b" }] });
        let url = format!("{}/internal/wallet/grants", one.url());
        assert_eq!(call("POST", url.clone(), INTERNAL, Some(many.clone())).await.1["granted"], 2);
        assert_eq!(call("POST", url, INTERNAL, Some(many)).await.1["granted"], 0);
        assert_eq!(audit(&two).await, (103, 0));
        one.stop().await;
        two.stop().await;
    }
);

both!(
    /// C3: a thousand gifts at once from one wallet with coins for a hundred: exactly a hundred are paid.
    a_thousand_gifts_with_money_for_a_hundred,
    |stack| async move {
        let fake = FakePush::start().await;
        let mut config = unlimited(&stack);
        config.push_url = fake.url();
        let node = stack.backend_with(config).await;
        let gift = new_gift(&node, 10).await;
        grant(&node, 1, 1_009, "a").await;
        let requests = (0..1_000).map(|number| (&node, request(1, &format!("g{number}"), gift))).collect();
        let answers = send_all(requests).await;
        let paid = answers.iter().filter(|answer| **answer == Answer::Committed { total: 10 }).count();
        let short = answers.iter().filter(|answer| **answer == SHORT).count();
        assert_eq!((paid, short), (100, 900));
        assert_eq!(audit(&node).await, (9, 100));
        until("effects are shown", || async { fake.shown(5556).len() == 100 }).await;
        until("failures are told", || async { fake.shown(5557).len() == 900 }).await;
        // And once more: everybody is answered what they were.
        let requests = (0..1_000).map(|number| (&node, request(1, &format!("g{number}"), gift))).collect();
        let again = send_all(requests).await;
        assert_eq!(again.iter().filter(|answer| **answer != SHORT).count(), 100);
        assert_eq!(audit(&node).await, (9, 100));
        assert_eq!(fake.shown(5556).len(), 100);
        node.stop().await;
    }
);

both!(
    /// C2: the same gift many times at once, from two processes, is paid once, and shown once; everybody gets
    /// the same answer.
    the_same_gift_from_two_processes_is_paid_once,
    |stack| async move {
        let fake = FakePush::start().await;
        let mut config = unlimited(&stack);
        config.push_url = fake.url();
        let (one, two) = (stack.backend_with(config.clone()).await, stack.backend_with(config).await);
        let gift = new_gift(&one, 10).await;
        grant(&one, 1, 1_000, "a").await;
        for key in ["k", "'; DELETE FROM t_gift_order; --", "🎁\u{1}"] {
            let nodes = [&one, &two].into_iter().cycle().take(100);
            let answers = send_all(nodes.map(|node| (node, request(1, key, gift))).collect()).await;
            assert!(answers.iter().all(|answer| *answer == Answer::Committed { total: 10 }), "{answers:?}");
        }
        assert_eq!(audit(&one).await, (970, 3));
        until("effects are shown", || async { fake.shown(5556).len() == 3 }).await;
        one.stop().await;
        two.stop().await;
    }
);

both!(
    /// Another gift under a known id is refused, the first answer stands, and keys are compared byte by byte.
    an_id_is_one_gifts_for_good,
    |stack| async move {
        let node = stack.backend().await;
        let (gift, other) = (new_gift(&node, 10).await, new_gift(&node, 10).await);
        grant(&node, 1, 1_000, "a").await;
        let app = node.app();
        let first = request(1, "k", gift);
        let paid = Answer::Committed { total: 10 };
        assert_eq!(app.gifts.send(&first).await.unwrap(), paid);
        let reused = Answer::Refused(Reason::IdReused);
        let with = |change: fn(&mut Contents)| {
            let mut request = first.clone();
            change(&mut request.contents);
            request
        };
        let others = [
            request(1, "k", other),
            with(|contents| contents.room_id = 8),
            with(|contents| contents.receiver_id = 4),
            with(|contents| contents.count = 2),
            with(|contents| contents.code = 5558),
        ];
        for request in &others {
            assert_eq!(app.gifts.send(request).await.unwrap(), reused);
        }
        assert_eq!(app.gifts.send(&first).await.unwrap(), paid);
        for key in ["K", "k ", "ｋ", "k\u{0}"] {
            assert_eq!(app.gifts.send(&request(1, key, gift)).await.unwrap(), paid, "{key:?} is another");
        }
        assert_eq!(app.gifts.send(&request(2, "k", gift)).await.unwrap(), SHORT, "another sender's");
        grant(&node, 5, 10, "a").await;
        let all = request(5, "all", gift);
        assert_eq!(app.gifts.send(&all).await.unwrap(), paid);
        assert_eq!(audit(&node).await, (950, 6));
        node.stop().await;
        // A process that knows nothing but the database answers the same.
        let mut config = stack.config();
        config.prefix += "_flushed";
        let node = stack.backend_with(config).await;
        assert_eq!(node.app().gifts.send(&first).await.unwrap(), paid);
        for request in &others {
            assert_eq!(node.app().gifts.send(request).await.unwrap(), reused);
        }
        assert_eq!(node.app().gifts.send(&all).await.unwrap(), paid, "though nothing is left to pay with");
        assert_eq!(audit(&node).await, (950, 6));
        node.stop().await;
    }
);

both!(
    /// A refusal is for good: coins that come later do not change it.
    a_refusal_stands_when_coins_have_come,
    |stack| async move {
        let node = stack.backend().await;
        let gift = new_gift(&node, 10).await;
        let app = node.app();
        assert_eq!(app.gifts.send(&request(1, "a", gift)).await.unwrap(), SHORT, "no account");
        grant(&node, 1, 5, "a").await;
        assert_eq!(app.gifts.send(&request(1, "b", gift)).await.unwrap(), SHORT, "too little");
        grant(&node, 1, 100, "b").await;
        for key in ["a", "b"] {
            assert_eq!(app.gifts.send(&request(1, key, gift)).await.unwrap(), SHORT);
        }
        assert_eq!(app.gifts.send(&request(1, "c", gift)).await.unwrap(), Answer::Committed { total: 10 });
        assert_eq!(audit(&node).await, (95, 1));
        node.stop().await;
    }
);

both!(
    /// A gift costs what its sender saw, or is refused; and what was paid stays paid when the price changes.
    a_changed_price_is_refused,
    |stack| async move {
        let node = stack.backend().await;
        let gift = new_gift(&node, 10).await;
        grant(&node, 1, 1_000, "a").await;
        let priced = |key: &str, price| GiftRequest { price: Some(price), ..request(1, key, gift) };
        let app = node.app();
        assert_eq!(app.gifts.send(&priced("a", 10)).await.unwrap(), Answer::Committed { total: 10 });
        let body = json!({ "name": "a", "price": 11, "is_on_sale": true });
        let url = format!("{}/internal/gifts/{gift}", node.url());
        assert_eq!(call("PUT", url.clone(), INTERNAL, Some(body)).await.0, 200);
        let changed = Answer::Refused(Reason::PriceChanged);
        assert_eq!(app.gifts.send(&priced("b", 10)).await.unwrap(), changed);
        assert_eq!(app.gifts.send(&priced("a", 10)).await.unwrap(), Answer::Committed { total: 10 });
        assert_eq!(app.gifts.send(&priced("c", 11)).await.unwrap(), Answer::Committed { total: 11 });
        // A job that was accepted at a price that is no longer so, and one that is no gift.
        let job = json!({ "identity": { "sender_id": 1, "key": "f" }, "price": 10,
            "contents": { "gift_id": gift, "room_id": 7, "receiver_id": 3, "count": 1, "code": 5556 } });
        app.store.queue.push(Topic::Gift, &[job.to_string(), "poison".into()], Duration::ZERO).await.unwrap();
        let count = |event| app.gifts.counts().into_iter().find(|(name, _)| *name == event).unwrap().1;
        until("the jobs were looked at", || async { count("batch") >= 3 && count("poison") >= 1 }).await;
        assert_eq!(app.gifts.send(&priced("f", 10)).await.unwrap(), changed);
        assert_eq!(audit(&node).await, (979, 2));
        let body = json!({ "name": "a", "price": 10, "is_on_sale": false });
        assert_eq!(call("PUT", url.clone(), INTERNAL, Some(body)).await.0, 200);
        assert_eq!(app.gifts.send(&priced("b", 10)).await.unwrap(), changed, "the first answer stands");
        assert_eq!(app.gifts.send(&priced("d", 10)).await.unwrap(), Answer::Refused(Reason::NotOnSale));
        assert_eq!(call("DELETE", url, INTERNAL, None).await.0, 204);
        assert_eq!(app.gifts.send(&priced("e", 10)).await.unwrap(), Answer::Refused(Reason::NoSuchGift));
        assert_eq!(app.gifts.send(&priced("c", 11)).await.unwrap(), Answer::Committed { total: 11 });
        assert_eq!(audit(&node).await, (979, 2));
        node.stop().await;
    }
);

both!(
    /// What is no gift is told so, and costs nothing.
    what_is_no_gift_is_a_bad_request,
    |stack| async move {
        let node = stack.backend().await;
        let gift = new_gift(&node, 10).await;
        grant(&node, 1, 1_000, "a").await;
        let with = |change: fn(&mut GiftRequest)| {
            let mut request = request(1, "k", gift);
            change(&mut request);
            request
        };
        for (bad, field) in [
            (with(|request| request.identity.key.clear()), "id"),
            (with(|request| request.identity.key = "x".repeat(65)), "id"),
            (with(|request| request.contents.count = 0), "count"),
            (with(|request| request.contents.count = -1), "count"),
            (with(|request| request.contents.count = 10_000), "count"),
            (with(|request| request.contents.room_id = 0), "room_id"),
            (with(|request| request.contents.receiver_id = -3), "receiver_id"),
            (with(|request| request.contents.gift_id = i64::MIN), "gift_id"),
            (with(|request| request.price = Some(-1)), "price"),
        ] {
            let error = node.app().gifts.send(&bad).await.unwrap_err();
            assert!(error.status == 400 && error.message.starts_with(field), "{error}");
        }
        assert_eq!(audit(&node).await, (1_000, 0));
        node.stop().await;
    }
);

both!(
    /// Too many gifts within a second are told so, and cost nothing.
    too_many_gifts_are_refused,
    |stack| async move {
        let mut config = stack.config();
        config.gifts_per_second = 3;
        let node = stack.backend_with(config).await;
        let gift = new_gift(&node, 10).await;
        grant(&node, 1, 1_000, "a").await;
        let mut statuses = BTreeMap::new();
        for number in 0..30 {
            let sent = node.app().gifts.send(&request(1, &format!("g{number}"), gift)).await;
            let status = sent.map_or_else(|error| error.status.as_u16(), |_| 200);
            *statuses.entry(status).or_insert(0) += 1;
        }
        assert!(statuses.contains_key(&429), "{statuses:?}");
        assert_eq!(audit(&node).await, (1_000 - 10 * statuses[&200], statuses[&200]));
        node.stop().await;
    }
);

both!(
    /// C2: by HTTP: who calls is the sender, whatever a body says; the wallet and its ledger tell what was
    /// paid.
    gifts_are_sent_by_http_and_the_ledger_tells_of_them,
    |stack| async move {
        let node = stack.backend_with(unlimited(&stack)).await;
        let gift = new_gift(&node, 10).await;
        let (user_id, token) = log_in(&node, "+8613800004711").await;
        let token = Some(token.as_str());
        let get = async |path: &str| call("GET", format!("{}{path}", node.url()), token, None).await;
        let send = async |token, body| call("POST", format!("{}/gift/send", node.url()), token, Some(body)).await;
        let body = |id: &str, count: i64| {
            json!({ "id": id, "gift_id": gift, "room_id": 7, "receiver_id": 3, "count": count, "price": 10 })
        };
        assert_eq!(get("/wallet").await.1, json!({ "user_id": user_id, "balance": 0 }));
        assert_eq!(send(None, body("a", 1)).await.0, 401);
        assert_eq!(send(Some("0"), body("a", 1)).await.0, 401);
        grant(&node, user_id, 1_000, "g").await;
        let (status, refused) = send(token, body("too early", 2)).await;
        assert_eq!((status, refused["code"].as_str()), (409, Some("not_member")), "{refused}");
        assert_eq!(bridge::send(&node, json!({ "events": [join(user_id, 7)] })).await[0].1, "ok");
        for number in 0..25 {
            let (status, sent) = send(token, body(&format!("n{number}"), 2)).await;
            assert_eq!((status, &sent["total"]), (200, &json!(20)), "{sent}");
        }
        assert_eq!(send(token, body("n3", 2)).await.0, 200, "a repeat");
        let as_in_packets = json!({ "id": "n3", "giftId": gift, "roomId": 7, "receiverId": 3, "count": 2 });
        assert_eq!(send(token, as_in_packets).await.0, 200, "a repeat in the spelling of packets");
        let code = async |body: Value| {
            let (status, body) = send(token, body).await;
            (status, body["code"].as_str().unwrap_or_default().to_owned())
        };
        assert_eq!(code(body("n3", 3)).await, (409, "id_reused".into()));
        assert_eq!(code(body("o", 1_000)).await, (409, "insufficient_balance".into()));
        assert_eq!(code(body("", 1)).await, (400, "bad_request".into()));
        assert_eq!(code(body("p", 0)).await, (400, "bad_request".into()));
        let mut forged = body("q", 1);
        forged["sender_id"] = json!(1);
        assert_eq!(code(forged).await, (400, "bad_request".into()));
        let mut changed = body("r", 1);
        changed["price"] = json!(9);
        assert_eq!(code(changed).await, (409, "price_changed".into()));
        assert_eq!(get("/wallet").await.1["balance"], 500);
        let (mut seen, mut before) = (Vec::new(), i64::MAX);
        loop {
            let (status, page) = get(&format!("/wallet/ledger?limit=10&before={before}")).await;
            assert_eq!(status, 200, "{page}");
            let entries = page["entries"].as_array().unwrap().clone();
            let Some(last) = entries.last() else { break };
            before = last["id"].as_i64().unwrap();
            seen.extend(entries);
        }
        let amounts: Vec<_> = seen.iter().map(|entry| entry["amount"].as_i64().unwrap()).collect();
        assert_eq!((amounts.len(), amounts.iter().sum::<i64>(), amounts[25]), (26, 500, 1_000));
        assert_eq!((&seen[0]["reference"], &seen[25]["kind"]), (&json!("n24"), &json!("grant")));
        for bad in ["limit=0", "limit=101", "before=x", "more=1"] {
            assert_eq!(get(&format!("/wallet/ledger?{bad}")).await.0, 400, "{bad}");
        }
        assert_eq!(audit(&node).await, (500, 25));
        node.stop().await;
    }
);

/// A session of a user joins a room.
pub fn join(user_id: i64, room_id: i64) -> Value {
    json!({ "id": "1-1-1", "type": "join", "app": 1, "user": user_id, "device": "phone", "login": "17", "room": room_id })
}

both!(
    /// C4: by the bridge's events: success is shown to the room, failure told to the sender, with the reason;
    /// a repeat does neither again.
    gifts_come_by_the_bridge_and_effects_go_to_the_room,
    |stack| async move {
        let fake = FakePush::start().await;
        let node = fake.node(&stack).await;
        let gift = new_gift(&node, 10).await;
        grant(&node, 1, 25, "a").await;
        let events = vec![
            gift_event("e1", 1, "g1", 5560, &json!({ "giftId": gift, "receiverId": 3, "count": 2, "roomId": 7 })),
            gift_event("e2", 1, "g2", 5560, &json!({ "gift_id": gift, "receiver_id": 3, "price": 11, "room_id": 7 })),
            gift_event("e3", 2, "g1", 5560, &json!({ "giftId": gift, "receiverId": 3, "more": "'; --" })),
            gift_event("e4", 1, "g3", 4711, &json!({})),
            gift_event("e5", 1, "g4", 5560, &json!({ "giftId": "x" })),
            // The session is in room 7, where the packet goes; of room 9 nobody knows that.
            gift_event("e7", 1, "g7", 5560, &json!({ "giftId": gift, "receiverId": 3, "roomId": 9 })),
        ];
        for _ in 0..3 {
            let results = bridge::send(&node, json!({ "events": events })).await;
            let statuses: Vec<_> = results.iter().map(|(_, status)| status.as_str()).collect();
            assert_eq!(statuses, ["ok", "ok", "ok", "refused", "refused", "refused"], "{results:?}");
        }
        until("all is told", || async { fake.shown(5556).len() == 1 && fake.shown(5557).len() == 4 }).await;
        let effect = &fake.shown(5556)[0];
        assert_eq!((&effect["room"], &effect["app"]), (&json!(7), &json!(1)));
        let expected = json!({ "id": "g1", "senderId": 1, "receiverId": 3, "roomId": 7, "giftId": gift, "count": 2, "total": 20 });
        assert_eq!(payload(effect), expected);
        let failures: BTreeMap<_, _> = fake
            .shown(5557)
            .iter()
            .map(|push| {
                let payload = payload(push);
                let name = (push["user"].as_i64().unwrap(), payload["id"].as_str().unwrap().to_owned());
                (name, (payload["reason"].as_str().unwrap().to_owned(), payload["roomId"].as_i64()))
            })
            .collect();
        assert_eq!(failures[&(1, "g2".into())], ("price_changed".into(), Some(7)));
        assert_eq!(failures[&(2, "g1".into())], ("insufficient_balance".into(), Some(7)), "the session's room");
        assert_eq!(failures[&(1, "g4".into())].0, "bad_request");
        assert_eq!(failures[&(1, "g7".into())].0, "bad_request");
        // A PK's gift is shown as such.
        grant(&node, 1, 25, "b").await;
        let pk = gift_event("e6", 1, "g6", 5558, &json!({ "giftId": gift, "receiverId": 3 }));
        assert_eq!(bridge::send(&node, json!({ "events": [pk] })).await[0].1, "ok");
        until("it is shown", || async { fake.shown(5558).len() == 1 }).await;
        assert_eq!(audit(&node).await, (20, 2));
        node.stop().await;
    }
);

both!(
    /// A refusal is answered when it is committed with the message that tells its sender: that comes once it
    /// can be pushed.
    a_refusal_is_told_once_that_is_possible,
    |stack| async move {
        let fake = FakePush::start().await;
        let node = fake.node(&stack).await;
        let gift = new_gift(&node, 10).await;
        grant(&node, 1, 5, "a").await;
        fake.set(Mood::Fails);
        let event = gift_event("e", 1, "g", 5560, &json!({ "giftId": gift, "receiverId": 3 }));
        let batch = json!({ "events": [event] });
        assert_eq!(bridge::send(&node, batch.clone()).await[0].1, "ok");
        assert_eq!(fake.shown(5557).len(), 0);
        fake.set(Mood::Offline);
        until("it is told", async || fake.shown(5557).len() == 1).await;
        assert_eq!(payload(&fake.shown(5557)[0])["reason"], "insufficient_balance");
        node.stop().await;
    }
);

/// Sends a gift until it is answered, as a client does.
pub async fn insist(node: &Node, request: GiftRequest) -> impl Future<Output = Answer> + use<> {
    let app = node.app().clone();
    async move {
        loop {
            match app.gifts.send(&request).await {
                Ok(answer) => return answer,
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

both!(
    /// C1: who names no price pays the one that there is, also right after it was changed.
    a_changed_price_is_paid_at_once,
    |stack| async move {
        let node = stack.backend().await;
        let gift = new_gift(&node, 10).await;
        grant(&node, 1, 100, "a").await;
        let send = async |key: &str| node.app().gifts.send(&request(1, key, gift)).await.unwrap();
        assert_eq!(send("a").await, Answer::Committed { total: 10 });
        let url = format!("{}/internal/gifts/{gift}", node.url());
        let body = json!({ "name": "a", "price": 7, "is_on_sale": true });
        assert_eq!(call("PUT", url.clone(), INTERNAL, Some(body)).await.0, 200);
        assert_eq!(send("b").await, Answer::Committed { total: 7 });
        assert_eq!(call("DELETE", url, INTERNAL, None).await.0, 204);
        assert_eq!(send("c").await, Answer::Refused(Reason::NoSuchGift));
        assert_eq!(audit(&node).await, (83, 2));
        node.stop().await;
    }
);

both!(
    /// C1: who names no price pays the catalogue's, also where this process has not heard yet that another
    /// one has changed it.
    a_price_that_another_process_has_changed_is_paid,
    |stack| async move {
        let (one, two) = (stack.backend().await, stack.backend().await);
        let gift = new_gift(&one, 10).await;
        grant(&one, 1, 100, "a").await;
        let send = async |key: &str| one.app().gifts.send(&request(1, key, gift)).await.unwrap();
        for (round, price) in [(0, 7), (1, 6), (2, 5)] {
            send(&format!("before {round}")).await; // and the price is remembered
            let body = json!({ "name": "a", "price": price, "is_on_sale": true });
            let url = format!("{}/internal/gifts/{gift}", two.url());
            assert_eq!(call("PUT", url, INTERNAL, Some(body)).await.0, 200);
            assert_eq!(send(&format!("after {round}")).await, Answer::Committed { total: price });
        }
        assert_eq!(audit(&one).await, (100 - 10 - 7 - 7 - 6 - 6 - 5, 6));
        one.stop().await;
        two.stop().await;
    }
);

both!(
    /// Nothing is paid for a receiver or a room that there is not, in a room that is closed, or in one that
    /// the sender is not in; by no way.
    a_gift_needs_its_receiver_and_its_room,
    |stack| async move {
        let fake = FakePush::start().await;
        let node = fake.node(&stack).await;
        let gift = new_gift(&node, 10).await;
        let (user_id, token) = log_in(&node, "+8613800004712").await;
        let (owner_id, owner) = log_in(&node, "+8613800004713").await;
        for user_id in [1, user_id, owner_id] {
            grant(&node, user_id, 100, "a").await;
        }
        let post = async |token: &str, path: &str, body| call("POST", format!("{}{path}", node.url()), Some(token), Some(body)).await;
        let room = post(&owner, "/rooms", json!({ "title": "news" })).await.1["id"].as_i64().unwrap();
        let packet = |key: &str, receiver: i64, room: i64| {
            let mut event = gift_event(key, 1, key, 5560, &json!({ "giftId": gift, "receiverId": receiver }));
            event["room"] = json!(room);
            event
        };
        let said = async |key: &str, receiver, room| {
            let before = fake.shown(5557).len();
            assert_eq!(bridge::send(&node, json!({ "events": [packet(key, receiver, room)] })).await[0].1, "ok");
            until("it is told", async || fake.shown(5557).len() > before).await;
            let told = payload(&fake.shown(5557)[before]);
            assert_eq!(told["final"], true);
            told["reason"].as_str().unwrap().to_owned()
        };
        assert_eq!(said("p1", 999_999, room).await, "no_such_receiver");
        assert_eq!(said("p2", 3, 999_999).await, "no_such_room");
        let send = async |token: &str, id: &str, receiver, room| {
            let body = json!({ "id": id, "gift_id": gift, "room_id": room, "receiver_id": receiver, "count": 1 });
            let (status, answer) = post(token, "/gift/send", body).await;
            (status, answer["code"].as_str().unwrap_or_default().to_owned())
        };
        let refused = |code: &str| (409, code.to_owned());
        assert_eq!(send(&token, "h1", 3, room).await, refused("not_member"));
        bridge::send(&node, json!({ "events": [join(user_id, room)] })).await;
        assert_eq!(send(&token, "h1", 3, room).await, refused("not_member"), "the first answer stands");
        assert_eq!(send(&token, "h2", 3, room).await, (200, String::new()));
        assert_eq!(send(&owner, "h2", user_id, room).await, (200, String::new()), "its owner is in it");
        assert_eq!(send(&token, "h3", 999_999, room).await, refused("no_such_receiver"));
        assert_eq!(send(&token, "h4", 3, 999_999).await, refused("no_such_room"));
        assert_eq!(post(&owner, &format!("/rooms/{room}/close"), json!({})).await.0, 200);
        assert_eq!(send(&token, "h5", 3, room).await, refused("room_closed"));
        assert_eq!(said("p3", 3, room).await, "room_closed");
        // A user who comes later can be given something.
        let (late, _) = log_in(&node, "+8613800004714").await;
        let contents = Contents { receiver_id: late, ..request(1, "p4", gift).contents };
        let gift_to_late = GiftRequest { contents, ..request(1, "p4", gift) };
        assert_eq!(node.app().gifts.send(&gift_to_late).await.unwrap(), Answer::Committed { total: 10 });
        assert_eq!(audit(&node).await, (270, 3));
        node.stop().await;
    }
);

both!(
    /// What a sender was told to be refused stays refused under its id, though the process dies and the cache
    /// is emptied, and coins have come.
    what_was_told_to_be_refused_is_not_paid_later,
    |stack| async move {
        let node = stack.backend_with(unlimited(&stack)).await;
        let gift = new_gift(&node, 10).await;
        grant(&node, 1, 9, "a").await;
        let dear = |key: &str| GiftRequest { price: Some(11), ..request(1, key, gift) };
        let changed = Answer::Refused(Reason::PriceChanged);
        let keys: Vec<String> = (0..40).map(|number| format!("g{number}")).collect();
        for key in &keys {
            assert_eq!(node.app().gifts.send(&request(1, key, gift)).await.unwrap(), SHORT);
            assert_eq!(node.app().gifts.send(&dear(&format!("d{key}"))).await.unwrap(), changed);
        }
        node.kill().await;
        let mut config = unlimited(&stack);
        config.prefix += "_flushed";
        let node = stack.backend_with(config).await;
        grant(&node, 1, 10_000, "b").await;
        let body = json!({ "name": "a", "price": 11, "is_on_sale": true });
        assert_eq!(call("PUT", format!("{}/internal/gifts/{gift}", node.url()), INTERNAL, Some(body)).await.0, 200);
        for key in &keys {
            assert_eq!(node.app().gifts.send(&request(1, key, gift)).await.unwrap(), SHORT);
            assert_eq!(node.app().gifts.send(&dear(&format!("d{key}"))).await.unwrap(), changed);
        }
        assert_eq!(audit(&node).await, (10_009, 0));
        node.stop().await;
    }
);

both!(
    /// A refusal is remembered for 30 days, and a gift that was paid for good.
    old_refusals_go_and_what_was_paid_stays,
    |stack| async move {
        let node = stack.backend_with(unlimited(&stack)).await;
        let gift = new_gift(&node, 10).await;
        grant(&node, 1, 10, "a").await;
        let paid = Answer::Committed { total: 10 };
        assert_eq!(node.app().gifts.send(&request(1, "paid", gift)).await.unwrap(), paid);
        assert_eq!(node.app().gifts.send(&request(1, "old", gift)).await.unwrap(), SHORT);
        stack.clock().advance_ms(29 * 86_400_000);
        assert_eq!(node.app().gifts.send(&request(1, "young", gift)).await.unwrap(), SHORT);
        node.stop().await;
        let node = stack.backend_with(unlimited(&stack)).await;
        let names = async || {
            let select = sqlx::query("SELECT name FROM t_gift_order ORDER BY id");
            let rows = select.fetch_all(node.app().store.db.primary()).await.unwrap();
            let name = |row| String::from_utf8(sqlx::Row::get::<Vec<u8>, _>(row, 0)).unwrap();
            rows.iter().map(name).collect::<Vec<_>>()
        };
        tokio::time::sleep(Duration::from_millis(300)).await; // in which a sweep would have removed it
        assert_eq!(names().await, ["paid", "old", "young"]);
        stack.clock().advance_ms(2 * 86_400_000);
        until("the old one is gone", async || names().await == ["paid", "young"]).await;
        assert_eq!(node.app().gifts.send(&request(1, "paid", gift)).await.unwrap(), paid);
        assert_eq!(node.app().gifts.send(&request(1, "young", gift)).await.unwrap(), SHORT);
        assert_eq!(audit(&node).await, (0, 1));
        node.stop().await;
    }
);

both!(
    /// A flood of gifts that are refused ends before the database: it counts against the sender's rate, and
    /// beyond a minute's share nothing is looked at and nothing remembered. What the sender is told then is
    /// not for good, and it says so.
    a_flood_of_refusals_does_not_reach_the_database,
    |stack| async move {
        let fake = FakePush::start().await;
        let mut config = stack.config();
        (config.gifts_per_second, config.gift_refusals_per_minute, config.push_url) = (1_000_000, 5, fake.url());
        let node = stack.backend_with(config).await;
        let gift = new_gift(&node, 10).await;
        let status = async |request: GiftRequest| node.app().gifts.send(&request).await.map_or_else(|error| error.status.as_u16(), |_| 200);
        let mut statuses = BTreeMap::new();
        for number in 0..300 {
            // Of all kinds: no coins, no gift.
            let request = request(1, &format!("g{number}"), if number % 2 == 0 { gift } else { 1_000_000 + number });
            *statuses.entry(status(request).await).or_insert(0) += 1;
        }
        // One whose coins are not known at the moment, as just after a refusal, goes to the database.
        assert!((5..10).contains(&statuses[&200]), "{statuses:?}");
        assert_eq!(statuses[&200] + statuses[&429], 300);
        let rows = async || {
            let count = "SELECT COUNT(*) FROM t_gift_order WHERE sender_id = 1";
            sqlx::Row::get::<i64, _>(&sqlx::query(count).fetch_one(node.app().store.db.primary()).await.unwrap(), 0)
        };
        assert_eq!(rows().await, statuses[&200]);
        let event = gift_event("e", 1, "packet", 5560, &json!({ "giftId": gift, "receiverId": 3 }));
        assert_eq!(bridge::send(&node, json!({ "events": [event.clone()] })).await[0].1, "ok");
        until("it is told", async || fake.shown(5557).iter().any(|push| payload(push)["id"] == "packet")).await;
        let told = fake.shown(5557).iter().map(payload).find(|told| told["id"] == "packet").unwrap();
        assert_eq!((&told["reason"], &told["final"]), (&json!("rate_limited"), &json!(false)));
        // Others are not in its way, and it is not in its own once it has coins.
        assert_eq!(status(request(2, "g", gift)).await, 200);
        grant(&node, 1, 100, "a").await;
        assert_eq!(node.app().gifts.send(&request(1, "packet", gift)).await.unwrap(), Answer::Committed { total: 10 });
        // What only the database can refuse, is refused no more often; then the sender waits with all that it
        // sends.
        grant(&node, 4, 100, "a").await;
        let nowhere = |number: i64| {
            let mut request = request(4, &format!("n{number}"), gift);
            request.contents.receiver_id = 1_000_000 + number;
            request
        };
        for number in 0..20 {
            assert_eq!(status(nowhere(number)).await, if number < 5 { 200 } else { 429 });
        }
        assert_eq!(status(request(4, "good", gift)).await, 429);
        assert_eq!(audit(&node).await, (190, 1));
        node.stop().await;
    }
);

both!(
    /// Packets that are no gifts count against the sender's rate of refusals, and who sends very many is not
    /// told of each.
    a_flood_of_bad_packets_is_told_once_in_a_while,
    |stack| async move {
        let fake = FakePush::start().await;
        let node = fake.node(&stack).await;
        let gift = new_gift(&node, 10).await;
        let flood = |kind: &str, payload: Value| {
            let event = |number| gift_event(&format!("{kind}{number}"), 1, &format!("{kind}{number}"), 5560, &payload);
            json!({ "events": (0..500).map(event).collect::<Vec<_>>() })
        };
        let count = |results: &[(String, String)], status: &str| results.iter().filter(|(_, it)| it == status).count();
        let told = |user: i64| fake.shown(5557).iter().filter(|push| push["user"] == user).count();
        // A minute may end meanwhile, and another one begin.
        let bad = bridge::send(&node, flood("bad", json!({ "giftId": "x" }))).await;
        assert_eq!(count(&bad, "refused"), 500);
        let event = gift_event("other", 2, "other", 5560, &json!({ "giftId": gift, "receiverId": 3 }));
        assert_eq!(bridge::send(&node, json!({ "events": [event] })).await[0].1, "ok");
        until("both senders are told", async || told(1) > 0 && told(2) > 0).await;
        assert!(told(1) <= 2 * 20, "{}", told(1));
        // Gifts past the rate: the send-ack of what nobody is told of says that it has failed.
        let many = bridge::send(&node, flood("many", json!({ "giftId": gift, "receiverId": 3 }))).await;
        assert!(count(&many, "refused") >= 300, "{}", count(&many, "refused"));
        assert!(told(1) <= 2 * 60 + 2 * 20, "{}", told(1));
        assert_eq!(audit(&node).await, (0, 0));
        node.stop().await;
    }
);

both!(
    /// An id that a caller chooses does not use up those that the database gives.
    ids_of_callers_are_bounded,
    |stack| async move {
        let node = stack.backend().await;
        let put = async |path: &str, body: &Value| {
            call("PUT", format!("{}/internal/{path}", node.url()), INTERNAL, Some(body.clone())).await.0
        };
        let body = json!({ "name": "a", "price": 5, "is_on_sale": true });
        let product = json!({ "name": "a", "price_cents": 5, "coins": 5, "is_on_sale": true });
        for id in [i64::MAX, 1_000_000_001, 0, -1] {
            assert_eq!(put(&format!("gifts/{id}"), &body).await, 400, "{id}");
        }
        for id in [i64::MAX, 1 << 53, 0] {
            assert_eq!(put(&format!("products/{id}"), &product).await, 400, "{id}");
        }
        assert_eq!(put("gifts/1000000000", &body).await, 200);
        let gift = new_gift(&node, 10).await;
        assert!(gift > 1_000_000_000, "{gift}");
        assert_eq!(put(&format!("gifts/{gift}"), &body).await, 200, "one that there is");
        node.stop().await;
    }
);

/// C2: what the consumer has no place for waits in the durable queue, and is decided from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_for_the_consumer_waits_in_the_queue() {
    let stack = Stack::production().await;
    let mut config = unlimited(&stack);
    config.gift_wait_ms = 500;
    let node = stack.backend_with(config).await;
    let gift = new_gift(&node, 10).await;
    grant(&node, 1, 40_000, "a").await;
    // The consumer waits for the sender's account.
    let mut tx = node.app().store.db.begin().await.unwrap();
    sqlx::query("UPDATE t_account SET balance = balance + 0 WHERE user_id = 1")
        .execute(&mut *tx)
        .await
        .unwrap();
    let sends: JoinSet<_> = (0..4_000)
        .map(|number| {
            let app = node.app().clone();
            async move { app.gifts.send(&request(1, &format!("g{number}"), gift)).await }
        })
        .collect();
    let undecided = sends.join_all().await.into_iter().filter(Result::is_err).count();
    assert_eq!(undecided, 4_000);
    let (waiting, _) = node.app().store.queue.count(Topic::Gift).await.unwrap();
    assert!((500..2_000).contains(&waiting), "{waiting} wait in the queue, and the others in memory");
    tx.rollback().await.unwrap();
    until("all are decided", async || node.app().store.queue.count(Topic::Gift).await.unwrap() == (0, 0))
        .await;
    until("all are paid", async || audit(&node).await == (0, 4_000)).await;
    node.stop().await;
}

both!(
    /// Who sends a refused gift again is told of it beside all that waits for its acks, so its batch is not
    /// held up.
    a_refusal_is_told_again_to_who_acks_nothing,
    |stack| async move {
        let fake = FakePush::start().await;
        let node = fake.node(&stack).await;
        let gift = new_gift(&node, 10).await;
        let event = |id: &str| gift_event(id, 1, "g", 5560, &json!({ "giftId": gift, "receiverId": 3 }));
        let send = async |id: &str| {
            bridge::send(&node, json!({ "events": [event(id)] })).await[0].1.clone()
        };
        assert_eq!(send("a").await, "ok");
        fake.set(Mood::OneIsSilent);
        let message = |number: i64| backend::Message {
            key: format!("m-{number}"),
            app: 1,
            target: backend::Target::User(1),
            biz_code: 5561,
            payload: "{}".into(),
        };
        node.app().outbox.commit(&node.app().store, (0..2_000).map(message).collect()).await.unwrap();
        let pushed = || fake.all().iter().filter(|push| push["biz_code"] == 5561).count();
        until("the first messages are pushed", async || pushed() > 0).await;
        let told = || fake.all().iter().filter(|push| push["biz_code"] == 5557).count();
        let before = told();
        until("the batch is done", async || send("b").await == "ok").await;
        assert!(told() > before && pushed() < 1_000, "{} pushed before that, in calls of 500 ms", pushed());
        node.stop().await;
    }
);

/// C5 in small: while the database is killed, and Redis flushed and killed, in the middle of gifts, senders
/// are told nothing that does not hold, and each gift is paid once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_die_and_each_gift_is_paid_once() {
    let servers = Servers::start();
    let stack = Stack::on(&servers);
    let Servers { primary, redis, .. } = &servers;
    let fake = FakePush::start().await;
    let mut config = unlimited(&stack);
    (config.push_url, config.gift_wait_ms) = (fake.url(), 1_000);
    let node = stack.backend_with(config).await;
    let gift = new_gift(&node, 10).await;
    for user_id in 1..=20 {
        grant(&node, user_id, 1_000, "a").await;
    }
    let mut sends = JoinSet::new();
    for number in 0..1_000 {
        sends.spawn(insist(&node, request(1 + number % 20, &format!("g{number}"), gift)).await);
        if number % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        match number {
            200 => drop(redis.command(&["FLUSHALL"])),
            400 => primary.kill(),
            600 => primary.start_again(),
            700 => redis.kill(),
            800 => redis.start_again(),
            _ => {}
        }
    }
    let answers = sends.join_all().await;
    assert!(answers.iter().all(|answer| *answer == Answer::Committed { total: 10 }), "{answers:?}");
    assert_eq!(audit(&node).await, (10_000, 1_000));
    until("effects are shown", || async { fake.shown(5556).len() == 1_000 }).await;
    // While the database is away nothing is promised, by either way.
    primary.kill();
    let error = node.app().gifts.send(&request(1, "h", gift)).await.unwrap_err();
    assert_eq!(error.status, 503, "{error}");
    let event = gift_event("e", 2, "h", 5560, &json!({ "giftId": gift, "receiverId": 3 }));
    assert_eq!(bridge::send(&node, json!({ "events": [event] })).await[0].1, "retry");
    primary.start_again();
    assert_eq!(insist(&node, request(1, "h", gift)).await.await, Answer::Committed { total: 10 });
    assert_eq!(bridge::send(&node, json!({ "events": [event_again()] })).await[0].1, "refused");
    let (balances, committed) = audit(&node).await;
    assert_eq!(balances, 20_000 - 10 * committed);
    node.stop().await;
}

/// Redis is dead: gifts are committed all the same, by either way, and once, also when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gifts_are_committed_while_redis_is_dead() {
    for stack in [Stack::embedded().await, Stack::production().await] {
        let redis = Redis::start();
        let stack = stack.with_redis(&redis);
        let node = stack.backend_with(unlimited(&stack)).await;
        let gift = new_gift(&node, 10).await;
        grant(&node, 1, 1_000, "a").await;
        redis.kill();
        let keys: Vec<String> = (0..20).map(|number| format!("g{number}")).collect();
        let all = || keys.iter().map(|key| (&node, request(1, key, gift))).collect::<Vec<_>>();
        let paid =
            |answers: &[Answer]| answers.iter().all(|answer| *answer == Answer::Committed { total: 10 });
        let answers = send_all(all()).await;
        assert!(paid(&answers), "{answers:?}");
        let event = gift_event("e", 1, "packet", 5560, &json!({ "giftId": gift, "receiverId": 3 }));
        assert_eq!(bridge::send(&node, json!({ "events": [event] })).await[0].1, "ok");
        assert_eq!(audit(&node).await, (1_000 - 21 * 10, 21), "at once, not when Redis is back");
        assert!(paid(&send_all(all()).await), "again");
        redis.start_again();
        assert!(paid(&send_all(all()).await), "and again");
        assert_eq!(audit(&node).await, (1_000 - 21 * 10, 21));
        node.stop().await;
    }
}

fn event_again() -> Value {
    gift_event("e", 2, "h", 9_999, &json!({}))
}

both!(
    /// C2, money rule 1: a process dies in the middle of gifts; whoever sends them again to the next one is
    /// debited once.
    a_process_dies_and_each_gift_is_paid_once,
    |stack| async move {
        let fake = FakePush::start().await;
        let mut config = unlimited(&stack);
        (config.push_url, config.gift_wait_ms) = (fake.url(), 1_000);
        let node = stack.backend_with(config.clone()).await;
        let gift = new_gift(&node, 10).await;
        for user_id in 1..=10 {
            grant(&node, user_id, 500, "a").await;
        }
        let all: Vec<_> = (0..500).map(|number| request(1 + number % 10, &format!("g{number}"), gift)).collect();
        let mut sends = JoinSet::new();
        for request in all.clone() {
            sends.spawn(insist(&node, request).await);
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
        sends.shutdown().await;
        node.kill().await;
        let node = stack.backend_with(config).await;
        let mut sends = JoinSet::new();
        for request in all {
            sends.spawn(insist(&node, request).await);
        }
        let answers = sends.join_all().await;
        assert!(answers.iter().all(|answer| *answer == Answer::Committed { total: 10 }));
        assert_eq!(audit(&node).await, (0, 500));
        stack.clock().advance_ms(6_000);
        until("effects are shown", || async { fake.shown(5556).len() == 500 }).await;
        assert_eq!(audit(&node).await, (0, 500));
        node.stop().await;
    }
);
