//! Users: where they lie, what they say of themselves, what is refused.

use serde_json::{Value, json};
use sqlx::Row;

use crate::common::{Node, call, request};
use crate::login::{log_in, phone};

/// What an attacker, a poet and a fish would write.
const TEXTS: [&str; 7] = [
    "Robert'); DROP TABLE t_user_00; --",
    "\" OR \"\"=\"",
    "100% _ \\ \\' \\\\",
    "李雷 и Мария",
    "🐟🎁👨‍👩‍👧",
    "?1 $1 :name {} %s",
    "<script>alert(1)</script>",
];

/// How many rows a table has.
pub async fn count(node: &Node, table: &str) -> i64 {
    let statement = format!("SELECT COUNT(*) FROM {table}");
    let row = sqlx::query(sqlx::AssertSqlSafe(statement)).fetch_one(node.app().store.db.primary()).await;
    row.unwrap().get(0)
}

both!(
    /// B1: a user's row lies in the table of its id modulo 100, its phone only as a hash.
    rows_lie_in_the_right_table,
    |stack| async move {
        let node = stack.backend().await;
        for number in 0..20 {
            let (id, _) = log_in(&node, &phone(number)).await;
            for part in [id % 100, (id + 1) % 100] {
                let statement = format!("SELECT COUNT(*) FROM t_user_{part:02} WHERE id = {id}");
                let row = sqlx::query(sqlx::AssertSqlSafe(statement)).fetch_one(node.app().store.db.primary()).await;
                assert_eq!(row.unwrap().get::<i64, _>(0), i64::from(part == id % 100), "{id} in {part:02}");
            }
            let row = sqlx::query("SELECT phone_hash, last_digits FROM t_user_phone WHERE user_id = ?")
                .bind(id)
                .fetch_one(node.app().store.db.primary())
                .await
                .unwrap();
            let hash = <sha2::Sha256 as sha2::Digest>::digest(phone(number)).to_vec();
            assert_eq!(row.get::<Vec<u8>, _>(0), hash);
            assert_eq!(row.get::<String, _>(1), phone(number)[10..]);
        }
        node.stop().await;
    }
);

both!(
    /// B2, B4: who has changed its profile sees that, by every way there is, and all texts come back as they
    /// were.
    a_change_is_seen_at_once,
    |stack| async move {
        let node = stack.backend().await;
        let (id, token) = log_in(&node, &phone(1)).await;
        let me = format!("{}/users/me", node.url());
        let (one, batch) = (format!("{}/users/{id}", node.url()), format!("{}/users/batch", node.url()));
        let (status, before) = call("GET", one.clone(), None, None).await;
        assert_eq!((status, &before["name"]), (200, &json!(format!("user{id}"))));
        for (turn, text) in TEXTS.into_iter().enumerate() {
            let sex = ["male", "female", "unknown"][turn % 3];
            let change =
                json!({ "name": text, "city": text, "bio": text, "sex": sex, "avatar": format!("https://example.org/{turn}.png") });
            let (status, changed) = call("PUT", me.clone(), Some(&token), Some(change.clone())).await;
            // A city may have 32 characters, so may a name.
            if text.chars().count() > 32 {
                assert_eq!(status, 400, "{changed}");
                continue;
            }
            assert_eq!(status, 200, "{changed}");
            for (field, value) in change.as_object().unwrap() {
                assert_eq!(&changed[field], value);
            }
            assert_eq!(call("GET", one.clone(), None, None).await.1, changed);
            let (_, many) = call("POST", batch.clone(), Some(&token), Some(json!({ "ids": [id] }))).await;
            assert_eq!(many, json!({ "users": [changed] }));
            let (_, mine) = call("GET", me.clone(), Some(&token), None).await;
            assert_eq!((&mine["bio"], &mine["phone_last_digits"]), (&json!(text), &json!("0001")));
        }
        let (_, left) = call("GET", one.clone(), None, None).await;
        let (_, changed) = call("PUT", me.clone(), Some(&token), Some(json!({ "city": "杭州" }))).await;
        assert_eq!((&changed["city"], &changed["name"], &changed["bio"]), (&json!("杭州"), &left["name"], &left["bio"]));
        assert!(changed.get("phone_last_digits").is_none(), "a profile has no phone");
        node.stop().await;
    }
);

both!(
    /// Changes at once of different fields do not undo each other.
    changes_at_once_do_not_undo_each_other,
    |stack| async move {
        let node = stack.backend().await;
        let (_, token) = log_in(&node, &phone(1)).await;
        for turn in 0..10 {
            let fields = ["name", "city", "bio"];
            let changes = fields.map(|field| {
                let (url, token) = (format!("{}/users/me", node.url()), token.clone());
                let body = json!({ field: format!("{field} {turn}") });
                tokio::spawn(async move { call("PUT", url, Some(&token), Some(body)).await.0 })
            });
            for change in changes {
                assert_eq!(change.await.unwrap(), 200);
            }
            let (_, user) = call("GET", format!("{}/users/me", node.url()), Some(&token), None).await;
            for field in fields {
                assert_eq!(user[field], format!("{field} {turn}"));
            }
        }
        node.stop().await;
    }
);

both!(
    /// B3: a batch has those that there are, once each, and asks the database for what is not cached only.
    a_batch_has_those_that_there_are,
    |stack| async move {
        let node = stack.backend().await;
        let mut users = Vec::new();
        let mut token = String::new();
        for number in 0..5 {
            let (id, of_user) = log_in(&node, &phone(number)).await;
            users.push(id);
            token = of_user;
        }
        users.sort_unstable();
        let url = format!("{}/users/batch", node.url());
        let ids = |body: &Value| -> Vec<i64> {
            body["users"].as_array().unwrap().iter().map(|user| user["id"].as_i64().unwrap()).collect()
        };
        let mut asked: Vec<i64> = users.iter().chain(&users).copied().collect();
        asked.extend([0, -1, i64::MIN, i64::MAX, 999_999]);
        let (status, body) = call("POST", url.clone(), Some(&token), Some(json!({ "ids": asked }))).await;
        assert_eq!((status, ids(&body)), (200, users.clone()));

        let gone = users[0];
        let delete = format!("DELETE FROM t_user_{:02} WHERE id = {gone}", gone % 100);
        sqlx::query(sqlx::AssertSqlSafe(delete)).execute(node.app().store.db.writer()).await.unwrap();
        let (_, body) = call("POST", url.clone(), Some(&token), Some(json!({ "ids": users }))).await;
        assert_eq!(ids(&body), users, "cached");
        node.app().store.cache.delete(&format!("user:{gone}")).await.unwrap();
        let (_, body) = call("POST", url.clone(), Some(&token), Some(json!({ "ids": users }))).await;
        assert_eq!(ids(&body), users[1..]);

        let many: Vec<i64> = (0..1_000).map(|id| 1_000_000 + id).collect();
        let (status, body) = call("POST", url.clone(), Some(&token), Some(json!({ "ids": many }))).await;
        assert_eq!((status, body), (200, json!({ "users": [] })));
        let many: Vec<i64> = (0..1_001).collect();
        let (status, body) = call("POST", url.clone(), Some(&token), Some(json!({ "ids": many }))).await;
        assert_eq!((status, body["message"].as_str()), (400, Some("ids: want at most 1000, not 1001")));
        let (status, body) = call("POST", url, Some(&token), Some(json!({ "ids": [] }))).await;
        assert_eq!((status, body), (200, json!({ "users": [] })));
        node.stop().await;
    }
);

both!(
    /// Many users are for those who have logged in, and each that is asked for counts, though nobody has its
    /// id; so do changes of a profile.
    what_one_user_may_ask_for_is_limited,
    |stack| async move {
        let mut config = stack.config();
        (config.users_read_per_minute, config.profile_changes_per_minute) = (1_500, 3);
        let node = stack.backend_with(config).await;
        let (_, token) = log_in(&node, &phone(1)).await;
        let (_, other) = log_in(&node, &phone(2)).await;
        let batch = format!("{}/users/batch", node.url());
        let ask = async |token: Option<&str>, ids: std::ops::Range<i64>| {
            let ids: Vec<i64> = ids.collect();
            call("POST", batch.clone(), token, Some(json!({ "ids": ids }))).await.0
        };
        assert_eq!(ask(None, 1..2).await, 401);
        assert_eq!(ask(Some(&token), 1_000_000..1_001_000).await, 200);
        assert_eq!(ask(Some(&token), 2_000_000..2_000_501).await, 429);
        assert_eq!(ask(Some(&token), 1..2).await, 429);
        assert_eq!(ask(Some(&other), 1_000_000..1_001_000).await, 200, "another has a rate of its own");
        let me = format!("{}/users/me", node.url());
        let change = async |token: &str| call("PUT", me.clone(), Some(token), Some(json!({ "bio": "x" }))).await.0;
        for wanted in [200, 200, 200, 429] {
            assert_eq!(change(&token).await, wanted);
        }
        assert_eq!(change(&other).await, 200);
        node.stop().await;
    }
);

both!(
    /// Whatever is wrong with an id or a body is said, and changes nothing.
    bad_input_is_refused,
    |stack| async move {
        let node = stack.backend().await;
        let (id, token) = log_in(&node, &phone(1)).await;
        let url = node.url();
        let (_, before) = call("GET", format!("{url}/users/{id}"), None, None).await;
        for (path, wanted) in [
            ("-1", 404), ("0", 404), ("9223372036854775807", 404), ("-9223372036854775808", 404),
            ("9223372036854775808", 400), ("1e3", 400), ("1.5", 400), ("abc", 400), ("1%20OR%201=1", 400), ("%00", 400), ("%F0%9F%90%9F", 400),
        ] {
            assert_eq!(call("GET", format!("{url}/users/{path}"), None, None).await.0, wanted, "{path}");
        }
        let me = format!("{url}/users/me");
        let long = "🐟".repeat(33);
        for (field, value) in [
            ("name", json!("")), ("name", json!("   ")), ("name", json!(long)), ("name", json!("a\u{0}b")), ("name", json!(7)),
            ("name", json!("line\nbreak")), ("city", json!("\u{1b}[2J")), ("city", json!(long)), ("bio", json!("x".repeat(201))),
            ("sex", json!("fish")), ("sex", json!(1)), ("avatar", json!("javascript:alert(1)")), ("avatar", json!("https://a b")),
            ("id", json!(1)), ("created_ms", json!(0)), ("balance", json!(1)),
        ] {
            let (status, body) = call("PUT", me.clone(), Some(&token), Some(json!({ field: value }))).await;
            assert_eq!(status, 400, "{field} {value}: {body}");
            assert!(body["message"].as_str().unwrap().contains(field), "{body}");
        }
        let kind = |kind: &str| vec![("content-type", kind.to_owned()), ("authorization", format!("Bearer {token}"))];
        for (kind, body, wanted) in [
            (kind("application/json"), b"{\"name\":".to_vec(), 400),
            (kind("application/json"), b"{\"name\":\"a\"} x".to_vec(), 400),
            (kind("application/json"), b"{\"name\":\"\xff\xfe\"}".to_vec(), 400),
            (kind("application/json"), b"{\"name\":\"\\ud800\"}".to_vec(), 400),
            (kind("application/json"), Vec::new(), 400),
            (kind("application/json"), b"[[[[[[[[".repeat(1_000), 400),
            (kind("text/plain"), b"{\"name\":\"a\"}".to_vec(), 415),
        ] {
            assert_eq!(request("PUT", &me, &kind, body).await.status, wanted);
        }
        assert_eq!(call("PUT", me.clone(), None, Some(json!({ "name": "a" }))).await.0, 401);
        assert_eq!(call("DELETE", me, Some(&token), None).await.0, 405);
        assert_eq!(call("GET", format!("{url}/users/{id}"), None, None).await.1, before);
        node.stop().await;
    }
);

both!(
    /// A body of 10 MB is refused, and who sent it gets to read that.
    a_huge_body_is_refused,
    |stack| async move {
        let node = stack.backend().await;
        let (_, token) = log_in(&node, &phone(1)).await;
        let huge = json!({ "name": "x".repeat(10 << 20) }).to_string().into_bytes();
        for (method, path) in [("PUT", "users/me"), ("POST", "users/batch"), ("POST", "login"), ("POST", "login/code")] {
            let headers =
                [("content-type", "application/json".to_owned()), ("authorization", format!("Bearer {token}"))];
            let answer = request(method, &format!("{}/{path}", node.url()), &headers, huge.clone()).await;
            assert_eq!((answer.status, answer.json()["code"].as_str()), (413, Some("too_large")), "{path}");
        }
        node.stop().await;
    }
);
