//! Live rooms: the list, and who is in them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::common::{Node, Prng, Stack, call, until};
use crate::events::{membership, send, session};
use crate::login::{log_in, phone};

/// Users that only events tell of have ids above this one: the backend draws those of who logs in from the
/// first thousand.
const USERS: i64 = 700_000;

async fn open(node: &Node, token: &str, title: &str) -> (u16, Value) {
    call("POST", format!("{}/rooms", node.url()), Some(token), Some(json!({ "title": title }))).await
}

async fn close(node: &Node, token: &str, id: i64) -> (u16, Value) {
    call("POST", format!("{}/rooms/{id}/close", node.url()), Some(token), None).await
}

/// Opens a room; its id.
pub async fn opened(node: &Node, token: &str) -> i64 {
    let (status, room) = open(node, token, "a room").await;
    assert_eq!(status, 200, "{room}");
    room["id"].as_i64().unwrap()
}

/// A page of the list: ids, and where the next one begins.
async fn page(node: &Node, query: &str) -> (Vec<i64>, Option<i64>) {
    let (status, body) = call("GET", format!("{}/rooms?{query}", node.url()), None, None).await;
    assert_eq!(status, 200, "{body}");
    let ids = body["rooms"].as_array().unwrap().iter().map(|room| room["id"].as_i64().unwrap()).collect();
    (ids, body["next_after"].as_i64())
}

pub async fn members(node: &Node, room: i64, query: &str) -> (Vec<i64>, Option<i64>) {
    let (status, body) =
        call("GET", format!("{}/rooms/{room}/members?{query}", node.url()), None, None).await;
    assert_eq!(status, 200, "{body}");
    let ids = body["user_ids"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
    (ids, body["next_after"].as_i64())
}

pub async fn devices(node: &Node, token: &str, user: i64) -> BTreeSet<String> {
    let (status, body) =
        call("GET", format!("{}/users/{user}/presence", node.url()), Some(token), None).await;
    assert_eq!(status, 200, "{body}");
    let devices: BTreeSet<String> =
        body["devices"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect();
    assert_eq!(body["is_online"], json!(!devices.is_empty()));
    devices
}

both!(
    /// E1: a room is opened by anybody, once; closed by who opened it; and in the list in between.
    a_room_is_opened_and_closed_by_its_owner,
    |stack| async move {
        let node = stack.backend().await;
        let ((owner_id, owner), (_, other)) = (log_in(&node, &phone(1)).await, log_in(&node, &phone(2)).await);
        assert_eq!(page(&node, "").await, (vec![], None));
        let find = |id: i64| call("GET", format!("{}/rooms/{id}", node.url()), None, None);
        assert_eq!(find(1).await.0, 404, "and that is remembered");
        let title = "'); DROP TABLE t_room; -- 🐟";
        let (one, two) = tokio::join!(open(&node, &owner, title), open(&node, &owner, title));
        assert_eq!((one.0, &one), (200, &two), "at once");
        let room = one.1;
        let id = room["id"].as_i64().unwrap();
        assert_eq!((&room["title"], &room["owner_id"], &room["is_open"]), (&json!(title), &json!(owner_id), &json!(true)));
        assert_eq!(open(&node, &owner, title).await.1, room, "and later");
        let (status, body) = open(&node, &owner, "another").await;
        assert!(status == 409 && body["code"] == "room_open" && body["message"].as_str().unwrap().contains(&id.to_string()));
        until("it is found", async || find(id).await == (200, room.clone())).await;
        until("it is listed", async || page(&node, "").await == (vec![id], None)).await;
        assert_eq!(close(&node, &other, id).await.0, 403);
        assert_eq!(close(&node, &owner, 404).await.0, 404);
        assert_eq!(call("POST", format!("{}/rooms/{id}/close", node.url()), None, None).await.0, 401);
        assert_eq!(open(&node, "nobody", title).await.0, 401);
        let (status, closed) = close(&node, &owner, id).await;
        assert!(status == 200 && closed["is_open"] == false && closed["closed_ms"].is_i64(), "{closed}");
        assert_eq!(close(&node, &owner, id).await, (200, closed.clone()), "once more");
        until("it is off the list", async || page(&node, "").await == (vec![], None)).await;
        until("it is found closed", async || find(id).await == (200, closed.clone())).await;
        let (status, next) = open(&node, &owner, "another").await;
        assert!(status == 200 && next["id"].as_i64().unwrap() > id, "{next}");
        for wrong in ["", "   ", &"🐟".repeat(65), "a\u{0}b", "a\nb"] {
            assert_eq!(open(&node, &other, wrong).await.0, 400, "{wrong:?}");
        }
        assert_eq!(open(&node, &other, &"🐟".repeat(64)).await.0, 200);
        for query in ["limit=0", "limit=101", "limit=x", "after=x", "before=1"] {
            assert_eq!(call("GET", format!("{}/rooms?{query}", node.url()), None, None).await.0, 400, "{query}");
        }
        node.stop().await;
    }
);

both!(
    /// E1: while rooms open and close between pages, none comes twice, and each that is open all the time
    /// comes once.
    pages_have_no_duplicates_while_rooms_open_and_close,
    |stack| async move {
        let node = stack.backend().await;
        let mut owners = Vec::new();
        for number in 0..40 {
            owners.push(log_in(&node, &phone(number)).await.1);
        }
        let mut rooms = Vec::new();
        for owner in &owners[..25] {
            rooms.push(opened(&node, owner).await);
        }
        rooms.reverse();
        until("all rooms are listed", async || page(&node, "limit=100").await.0 == rooms).await;
        let mut all_the_time: BTreeSet<i64> = rooms.iter().copied().collect();
        let (mut seen, mut query, mut turn) = (Vec::new(), "limit=4".to_owned(), 0);
        loop {
            let (ids, next) = page(&node, &query).await;
            assert!(ids.is_sorted_by(|one, two| one > two), "the latest first: {ids:?}");
            seen.extend(ids);
            let Some(next) = next else { break };
            query = format!("limit=4&after={next}");
            // One opens, one that was seen closes, and one that comes later does.
            opened(&node, &owners[25 + turn]).await;
            let closing = [rooms[turn], rooms[24 - turn]];
            for id in closing {
                let owner = &owners[24 - rooms.iter().position(|room| *room == id).unwrap()];
                assert_eq!(close(&node, owner, id).await.0, 200);
                all_the_time.remove(&id);
            }
            turn += 1;
        }
        assert!(turn >= 4, "{turn} pages are no test");
        let once: BTreeSet<i64> = seen.iter().copied().collect();
        assert_eq!(once.len(), seen.len(), "none twice: {seen:?}");
        assert!(all_the_time.is_subset(&once), "{all_the_time:?} of {once:?}");
        node.stop().await;
    }
);

both!(
    /// E1: who is in a room follows what the gateways tell; a user with two devices is in it once.
    members_follow_join_leave_and_offline,
    |stack| async move {
        let node = stack.backend().await;
        let (_, token) = log_in(&node, &phone(1)).await;
        let room = opened(&node, &token).await;
        let url = node.url();
        let mut events = Vec::new();
        for user in USERS + 1..=USERS + 25 {
            events.push(session("online", 1, user, "phone", 100));
            events.push(membership("join", 2, user, "phone", 100, room));
            events.push(membership("join", 3, user, "phone", 100, room + 1000));
        }
        events.push(session("online", 1, USERS + 3, "web", 100));
        events.push(membership("join", 2, USERS + 3, "web", 100, room));
        send(&stack, &url, &events).await;
        until("all are in it", async || members(&node, room, "").await.0.len() == 25).await;
        let (mut seen, mut query) = (Vec::new(), "limit=10".to_owned());
        loop {
            let (ids, next) = members(&node, room, &query).await;
            seen.extend(ids);
            let Some(next) = next else { break };
            query = format!("limit=10&after={next}");
        }
        assert_eq!(seen, (USERS + 1..=USERS + 25).collect::<Vec<_>>());
        until("they are online", async || devices(&node, &token, USERS + 3).await == ["phone", "web"].map(String::from).into()).await;
        send(&stack, &url, &[
            membership("leave", 4, USERS + 1, "phone", 100, room),
            session("offline", 4, USERS + 2, "phone", 100),
            session("offline", 4, USERS + 3, "phone", 100),
        ])
        .await;
        let left: Vec<i64> = (USERS + 3..=USERS + 25).collect();
        until("two are out of it", async || members(&node, room, "").await.0 == left).await;
        until("one device is left", async || devices(&node, &token, USERS + 3).await == BTreeSet::from(["web".to_owned()])).await;
        assert!(devices(&node, &token, USERS + 2).await.is_empty());
        assert!(devices(&node, &token, USERS + 404).await.is_empty());
        // What is too long for any device, or of another app, is in nobody's way.
        let mut foreign = membership("join", 9, USERS + 77, "phone", 100, room);
        foreign["app"] = json!(2);
        let long = membership("join", 9, USERS + 78, &"x".repeat(1_000), 100, room);
        let sql = membership("join", 9, USERS + 79, "' OR 1=1; --", 100, room);
        send(&stack, &url, &[foreign, long, sql]).await;
        until("one more", async || members(&node, room, "").await.0.last() == Some(&(USERS + 79))).await;
        assert_eq!(members(&node, room, "").await.0.len(), 24);
        let unknown = call("GET", format!("{url}/rooms/404/members"), None, None).await;
        assert_eq!(unknown.0, 404);
        assert_eq!(call("GET", format!("{url}/rooms/{room}/members?limit=1001"), None, None).await.0, 400);
        node.stop().await;
    }
);

/// What one device did, and where it is in the end.
fn history(prng: &mut Prng, user: i64, device: &str, rooms: &[i64]) -> (Vec<Value>, bool, BTreeSet<i64>) {
    let (mut events, mut is_online, mut is_in) = (Vec::new(), false, BTreeSet::new());
    let mut login = 1_763_000_000_000_000_000;
    let mut seq = 0;
    for _ in 0..1 + prng.below(3) {
        login += 1 << 30;
        seq += 1;
        events.push(session("online", seq, user, device, login));
        (is_online, is_in) = (true, BTreeSet::new());
        for _ in 0..prng.below(8) {
            let room = rooms[prng.below(rooms.len() as u64) as usize];
            seq += 1;
            match prng.below(3) {
                0 => {
                    events.push(membership("leave", seq, user, device, login, room));
                    is_in.remove(&room);
                }
                _ => {
                    events.push(membership("join", seq, user, device, login, room));
                    is_in.insert(room);
                }
            }
        }
        if prng.below(2) == 0 {
            seq += 1;
            events.push(session("offline", seq, user, device, login));
            (is_online, is_in) = (false, BTreeSet::new());
        }
    }
    (events, is_online, is_in)
}

async fn disorder(stack: &Stack, seed: u64) {
    let (one, two) = (stack.backend().await, stack.backend().await);
    let mut rooms = Vec::new();
    let (_, token) = log_in(&one, &phone(1)).await;
    for number in 2..5 {
        let (_, token) = log_in(&one, &phone(number)).await;
        rooms.push(opened(&one, &token).await);
    }
    let mut prng = Prng(seed);
    let (mut events, mut expected) = (Vec::new(), BTreeMap::<i64, BTreeSet<i64>>::new());
    let mut online = BTreeMap::<i64, BTreeSet<String>>::new();
    for user in USERS + 100..USERS + 130 {
        for device in ["phone", "web"] {
            let (more, is_online, is_in) = history(&mut prng, user, device, &rooms);
            events.extend(more);
            is_in.into_iter().for_each(|room| {
                expected.entry(room).or_default().insert(user);
            });
            online.entry(user).or_default().extend(is_online.then(|| device.to_owned()));
        }
    }
    for _ in 0..events.len() / 3 {
        events.push(events[prng.below(events.len() as u64) as usize].clone());
    }
    for index in (1..events.len()).rev() {
        events.swap(index, prng.below(index as u64 + 1) as usize);
    }
    // Batches to both backends at once.
    let batches: Vec<&[Value]> = events.chunks(37).collect();
    for pair in batches.chunks(4) {
        let at = |index: usize| pair.get(index).copied().unwrap_or_default();
        let (first, second) = (one.url(), two.url());
        tokio::join!(
            send(stack, &first, at(0)),
            send(stack, &second, at(1)),
            send(stack, &first, at(2)),
            send(stack, &second, at(3))
        );
    }
    for room in &rooms {
        let wanted: Vec<i64> = expected.remove(room).unwrap_or_default().into_iter().collect();
        let what = format!("seed {seed}: room {room} has {wanted:?}");
        until(&what, async || members(&one, *room, "").await.0 == wanted).await;
    }
    for (user, wanted) in online {
        let what = format!("seed {seed}: user {user} has {wanted:?}");
        until(&what, async || devices(&two, &token, user).await == wanted).await;
    }
    one.stop().await;
    two.stop().await;
}

both!(
    /// E1: events in any order, repeated, to two backends at once, end in the same members and the same
    /// presence.
    events_may_come_in_any_order_and_twice,
    |stack| async move { disorder(&stack, 4711).await }
);

both!(
    /// F2: a user opens so many rooms in a day, and others are not held up by it.
    a_user_opens_so_many_rooms_in_a_day,
    |stack| async move {
        let mut config = stack.config();
        config.rooms_per_day = 3;
        let node = stack.backend_with(config).await;
        let ((_, token), (_, other)) = (log_in(&node, &phone(1)).await, log_in(&node, &phone(2)).await);
        for _ in 0..3 {
            let id = opened(&node, &token).await;
            assert_eq!(opened(&node, &token).await, id, "again, which is none");
            assert_eq!(close(&node, &token, id).await.0, 200);
        }
        let (status, body) = open(&node, &token, "one more").await;
        assert_eq!((status, &body["code"]), (429, &json!("too_many_requests")), "{body}");
        opened(&node, &other).await;
        node.stop().await;
    }
);
