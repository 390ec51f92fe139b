//! Ids: never the same twice, whoever asks.

use std::collections::BTreeSet;

use backend::Order;
use serde_json::json;

use crate::common::call;
use crate::tags::INTERNAL;
use crate::users::count;

both!(
    /// B5: four nodes take 250,000 ids each: all differ, and each node's ordered ones rise.
    four_nodes_never_get_the_same_id,
    |stack| async move {
        const EACH: usize = 250_000;
        let mut nodes = Vec::new();
        for _ in 0..4 {
            nodes.push(stack.backend().await);
        }
        let takers = nodes.iter().enumerate().map(|(index, node)| {
            let app = node.app().clone();
            tokio::spawn(async move {
                let order = if index < 2 { Order::Ascending } else { Order::Shuffled };
                let mut ids = Vec::with_capacity(EACH);
                for most in [1_usize, 999, 17, 1_000, 483].into_iter().cycle() {
                    let count = most.min(EACH - ids.len());
                    if count == 0 {
                        break;
                    }
                    ids.extend(app.ids.take("probe", order, count as u32).await.unwrap());
                }
                let rises = ids.windows(2).all(|pair| pair[0] < pair[1]);
                assert_eq!(rises, order == Order::Ascending, "node {index}");
                ids
            })
        });
        let mut all = Vec::with_capacity(4 * EACH);
        for taker in takers.collect::<Vec<_>>() {
            all.extend(taker.await.unwrap());
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 4 * EACH);
        assert_eq!(all[0], 1);
        // Nothing is lost but what the nodes have left.
        assert!(all[all.len() - 1] <= (4 * EACH + 4 * 2 * 65_536) as i64);
        for node in nodes {
            node.stop().await;
        }
    }
);

both!(
    /// B5: the same over HTTP; each name has ids of its own, and a restart repeats none.
    a_restart_repeats_none,
    |stack| async move {
        let mut seen = BTreeSet::new();
        for (turn, ordered) in [json!(true), json!(false), json!(null)].into_iter().enumerate() {
            let node = stack.backend().await;
            let url = format!("{}/internal/ids", node.url());
            for count in [1_u32, 1_000, 7] {
                let body = json!({ "name": "order", "count": count, "ordered": ordered });
                let (status, answer) = call("POST", url.clone(), Some(INTERNAL), Some(body)).await;
                assert_eq!(status, 200, "{answer}");
                let ids = answer["ids"].as_array().unwrap();
                assert_eq!(ids.len(), count as usize);
                for id in ids {
                    assert!(seen.insert(id.as_i64().unwrap()), "{id} again");
                }
            }
            let body = json!({ "name": format!("other_{turn}"), "count": 1 });
            assert_eq!(call("POST", url, Some(INTERNAL), Some(body)).await.1, json!({ "ids": [1] }));
            node.stop().await;
        }
    }
);

both!(
    /// What is no name and no count is refused, and makes no row.
    bad_names_and_counts_are_refused,
    |stack| async move {
        let node = stack.backend().await;
        let url = format!("{}/internal/ids", node.url());
        let long = "a".repeat(65);
        for name in ["", "a b", "A", "é", "🐟", "a\u{0}", "'; DROP TABLE t_id_segment; --", &long] {
            let body = json!({ "name": name, "count": 1 });
            let (status, answer) = call("POST", url.clone(), Some(INTERNAL), Some(body)).await;
            assert_eq!(status, 400, "{name}");
            assert!(answer["message"].as_str().unwrap().starts_with("name: "), "{answer}");
        }
        for wrong in [json!(0), json!(1_001), json!(-1), json!(u64::MAX), json!("1"), json!(1.5), json!(null)] {
            let body = json!({ "name": "order", "count": wrong });
            let (status, answer) = call("POST", url.clone(), Some(INTERNAL), Some(body)).await;
            assert_eq!(status, 400, "{wrong}");
            assert!(answer["message"].as_str().unwrap().starts_with("count: "), "{answer}");
        }
        assert_eq!(count(&node, "t_id_segment").await, 0);
        let longest = json!({ "name": &long[1..], "count": 1 });
        assert_eq!(call("POST", url, Some(INTERNAL), Some(longest)).await.0, 200);
        node.stop().await;
    }
);

both!(
    /// Ids end at 2^63 - 1; what is beyond is refused, not begun anew.
    ids_end_and_do_not_begin_anew,
    |stack| async move {
        let node = stack.backend().await;
        assert_eq!(node.app().ids.next("short", Order::Ascending).await.unwrap(), 1);
        sqlx::query("UPDATE t_id_segment SET next_id = ? WHERE name = ?")
            .bind(i64::MAX - 10)
            .bind(b"short".to_vec())
            .execute(node.app().store.db.writer())
            .await
            .unwrap();
        node.app().ids.take("short", Order::Ascending, 999).await.unwrap();
        let error = node.app().ids.take("short", Order::Ascending, 1_000).await.unwrap_err();
        assert_eq!(error.code, "ids_exhausted");
        node.stop().await;
    }
);
