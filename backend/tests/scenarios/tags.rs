//! Tags of users, and who may set them.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row};

use crate::common::{Node, Stack, call};
use crate::login::{log_in, phone};

/// The secret of the company's own services.
pub const INTERNAL: &str = "internal-secret";

async fn change(node: &Node, id: i64, what: &str, column: &str, bit: i64) -> bool {
    let url = format!("{}/internal/users/{id}/tags/{what}", node.url());
    let (status, body) =
        call("POST", url, Some(INTERNAL), Some(json!({ "column": column, "bit": bit }))).await;
    assert_eq!(status, 200, "{body}");
    body["changed"].as_bool().unwrap()
}

async fn contains(node: &Node, id: i64, column: &str, bit: i64) -> bool {
    let url = format!("{}/internal/users/{id}/tags/contains?column={column}&bit={bit}", node.url());
    let (status, body) = call("GET", url, Some(INTERNAL), None).await;
    assert_eq!(status, 200, "{body}");
    body["contains"].as_bool().unwrap()
}

const COLUMNS: [&str; 3] = ["tag_info_01", "tag_info_02", "tag_info_03"];

both!(
    /// B1, B6: each bit of each column is a tag of its own, in the table of the user's id modulo 100.
    every_bit_is_a_tag,
    |stack| async move {
        let node = stack.backend().await;
        let (id, _) = log_in(&node, &phone(1)).await;
        let bits = [1, 2, 1 << 31, 1 << 53, 1 << 62, i64::MIN];
        for column in COLUMNS {
            for bit in bits {
                assert!(!contains(&node, id, column, bit).await);
                assert!(change(&node, id, "set", column, bit).await, "{column} {bit}");
                assert!(!change(&node, id, "set", column, bit).await, "it is set");
                assert!(contains(&node, id, column, bit).await);
            }
        }
        let sum = bits.iter().fold(0, |all, bit| all | bit);
        let select = format!("SELECT tag_info_01, tag_info_02, tag_info_03 FROM t_user_tag_{:02} WHERE user_id = {id}", id % 100);
        let row = sqlx::query(AssertSqlSafe(select)).fetch_one(node.app().store.db.primary()).await.unwrap();
        assert_eq!([0, 1, 2].map(|column| row.get::<i64, _>(column)), [sum; 3]);
        for column in COLUMNS {
            for bit in bits {
                assert!(change(&node, id, "cancel", column, bit).await, "{column} {bit}");
                assert!(!change(&node, id, "cancel", column, bit).await, "it is cancelled");
                assert!(!contains(&node, id, column, bit).await);
            }
        }
        node.stop().await;
    }
);

both!(
    /// B6: only the first of concurrent sets answers true, and so of cancels; other tags of the same user are
    /// not lost.
    only_the_first_of_many_changes_it,
    |stack| async move {
        let nodes = [stack.backend().await, stack.backend().await];
        let (id, _) = log_in(&nodes[0], &phone(1)).await;
        for turn in 0..5 {
            for what in ["set", "cancel"] {
                let calls = (0..32).map(|call| {
                    let (url, column) = (nodes[call % 2].url(), COLUMNS[turn % 3]);
                    // Four tags, eight callers for each.
                    let body = json!({ "column": column, "bit": 1_i64 << (call / 8 + turn) });
                    let url = format!("{url}/internal/users/{id}/tags/{what}");
                    tokio::spawn(async move { crate::common::call("POST", url, Some(INTERNAL), Some(body)).await })
                });
                let mut changed = 0;
                for call in calls.collect::<Vec<_>>() {
                    let (status, body) = call.await.unwrap();
                    assert_eq!(status, 200, "{body}");
                    changed += u32::from(body["changed"] == json!(true));
                }
                assert_eq!(changed, 4, "{what}, turn {turn}");
            }
        }
        for node in nodes {
            node.stop().await;
        }
    }
);

both!(
    /// B6: a user's first tags may come at once, each of them the one that makes the row: none is lost.
    first_tags_at_once_are_all_set,
    |stack| async move {
        let node = stack.backend().await;
        for number in 0..5 {
            let (id, _) = log_in(&node, &phone(number)).await;
            let sets = (0..24).map(|set| {
                let url = format!("{}/internal/users/{id}/tags/set", node.url());
                let body = json!({ "column": COLUMNS[set % 3], "bit": 1 << (set / 3) });
                tokio::spawn(async move { call("POST", url, Some(INTERNAL), Some(body)).await.1 })
            });
            for set in sets.collect::<Vec<_>>() {
                assert_eq!(set.await.unwrap(), json!({ "changed": true }));
            }
            for set in 0..24 {
                assert!(contains(&node, id, COLUMNS[set % 3], 1 << (set / 3)).await, "{set}");
            }
        }
        node.stop().await;
    }
);

both!(
    /// B6: contains reads the cache first; a change deletes it only when it succeeded.
    the_cache_is_deleted_after_a_success_only,
    |stack| async move {
        // The second delete is another test's matter.
        let node = stack.backend_with(backend::Config { second_delete_ms: 600_000, ..stack.config() }).await;
        let (id, _) = log_in(&node, &phone(1)).await;
        assert!(change(&node, id, "set", "tag_info_01", 8).await);
        assert!(contains(&node, id, "tag_info_01", 8).await);
        let update = format!("UPDATE t_user_tag_{:02} SET tag_info_01 = 9 WHERE user_id = {id}", id % 100);
        sqlx::query(AssertSqlSafe(update)).execute(node.app().store.db.writer()).await.unwrap();
        assert!(!contains(&node, id, "tag_info_01", 1).await, "from the cache");
        assert!(!change(&node, id, "set", "tag_info_01", 1).await, "the database has it");
        assert!(!contains(&node, id, "tag_info_01", 1).await, "still from the cache");
        assert!(change(&node, id, "set", "tag_info_01", 2).await);
        assert!(contains(&node, id, "tag_info_01", 1).await, "from the database");
        node.stop().await;
    }
);

both!(
    /// What is no tag, no user and no service of the company's own is refused.
    bad_tags_and_strangers_are_refused,
    |stack| async move {
        let node = stack.backend().await;
        let (id, login) = log_in(&node, &phone(1)).await;
        let url = |id: &str, what: &str| format!("{}/internal/users/{id}/tags/{what}", node.url());
        let good = json!({ "column": "tag_info_01", "bit": 1 });
        for bad in [
            json!({ "column": "tag_info_01", "bit": 0 }), json!({ "column": "tag_info_01", "bit": 3 }),
            json!({ "column": "tag_info_01", "bit": -1 }), json!({ "column": "tag_info_04", "bit": 1 }),
            json!({ "column": "tag_info_01 = 7; --", "bit": 1 }), json!({ "column": "tag_info_01", "bit": "1" }),
            json!({ "column": "tag_info_01", "bit": 9_223_372_036_854_775_808_u64 }), json!({ "bit": 1 }),
            json!({ "column": "tag_info_01", "bit": 1, "user_id": 2 }),
        ] {
            for what in ["set", "cancel"] {
                assert_eq!(call("POST", url(&id.to_string(), what), Some(INTERNAL), Some(bad.clone())).await.0, 400, "{bad}");
            }
        }
        for query in ["", "?column=tag_info_01", "?column=x&bit=1", "?column=tag_info_01&bit=3", "?column=tag_info_01&bit=1&x=1"] {
            let url = url(&id.to_string(), "contains") + query;
            assert_eq!(call("GET", url, Some(INTERNAL), None).await.0, 400, "{query}");
        }
        for (id, wanted) in [("-1", 404), ("0", 404), ("9223372036854775807", 404), ("9223372036854775808", 400), ("x", 400)] {
            assert_eq!(call("POST", url(id, "set"), Some(INTERNAL), Some(good.clone())).await.0, wanted, "{id}");
        }
        assert!(!contains(&node, -1, "tag_info_01", 1).await, "nobody has no tag");
        for token in [None, Some(""), Some("internal-secre"), Some("internal-secret2"), Some(login.as_str())] {
            let (status, body) = call("POST", url(&id.to_string(), "set"), token, Some(good.clone())).await;
            assert_eq!((status, body["code"].as_str()), (401, Some("unauthorized")), "{token:?}");
        }
        assert!(!contains(&node, id, "tag_info_01", 1).await, "nobody of these has set it");
        node.stop().await;
    }
);

/// Without a secret there is no internal API, not one for everybody.
#[tokio::test]
async fn without_a_secret_everybody_is_refused() {
    let stack = Stack::embedded().await;
    let node = stack.backend_with(backend::Config { internal_secret: String::new(), ..stack.config() }).await;
    let body: Value = json!({ "name": "order", "count": 1 });
    for token in [None, Some(""), Some(" "), Some(INTERNAL)] {
        let (status, answer) =
            call("POST", format!("{}/internal/ids", node.url()), token, Some(body.clone())).await;
        assert_eq!((status, answer["code"].as_str()), (403, Some("internal_api_off")), "{token:?}");
    }
    node.stop().await;
}
