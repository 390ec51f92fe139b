//! The service as such: it starts, says how it is, and ends.

use std::time::Duration;

use backend::{Queue, Topic};
use serde_json::{Value, json};

use crate::bridge;
use crate::common::{MariaDb, Stack, call, request, until};
use crate::gift::{grant, join, new_gift};
use crate::login::log_in;

both!(
    /// What there is not is said in the shape of every error.
    unknown_paths_are_said_in_the_shape_of_errors,
    |stack| async move {
        let node = stack.backend().await;
        let (status, body) = call("GET", format!("{}/nothing", node.url()), None, None).await;
        assert_eq!((status, body["code"].as_str()), (404, Some("not_found")));
        assert_eq!(body["request_id"].as_str().unwrap().len(), 16);
        let (status, body) = call("POST", format!("{}/healthz", node.url()), None, Some(Value::Null)).await;
        assert_eq!((status, body["code"].as_str()), (405, Some("method_not_allowed")));
        node.stop().await;
    }
);

both!(
    /// What was asked for before the end is done and answered: the workers end after those who wait for them.
    a_gift_that_waits_when_the_backend_stops_is_paid,
    |stack| async move {
        let mut config = stack.config();
        config.gift_wait_ms = 20_000;
        let node = stack.backend_with(config).await;
        let gift = new_gift(&node, 10).await;
        let (user_id, token) = log_in(&node, "+8613800004713").await;
        grant(&node, user_id, 10, "g").await;
        bridge::send(&node, json!({ "events": [join(user_id, 7)] })).await;
        // The consumer waits for the sender's account.
        let mut tx = node.app().store.db.begin().await.unwrap();
        let hold = sqlx::query("UPDATE t_account SET balance = balance + 0 WHERE user_id = ?").bind(user_id);
        hold.execute(&mut *tx).await.unwrap();
        let url = node.url();
        let body = json!({ "id": "late", "gift_id": gift, "room_id": 7, "receiver_id": 3, "count": 1 });
        let path = format!("{url}/gift/send");
        let sent = tokio::spawn(async move { call("POST", path, Some(token.as_str()), Some(body)).await });
        until("it waits", async || {
            let page = request("GET", &format!("{url}/metrics"), &[], Vec::new()).await.text();
            page.lines().any(|line| line == "sailfish_backend_gifts_under_way 1")
        })
        .await;
        let stopping = tokio::spawn(node.stop());
        // In which a worker that does not wait would be gone.
        tokio::time::sleep(Duration::from_millis(300)).await;
        tx.rollback().await.unwrap();
        let (status, sent) = sent.await.unwrap();
        assert_eq!((status, &sent["total"]), (200, &json!(10)), "{sent}");
        stopping.await.unwrap();
    }
);

both!(
    /// Requests, queue, cache, connections and replicas are on the page of metrics, in Prometheus' format.
    metrics_are_there,
    |stack| async move {
        let node = stack.backend().await;
        for _ in 0..3 {
            let (status, _) = call("GET", format!("{}/wallet", node.url()), None, None).await;
            assert_eq!(status, 401);
        }
        call("GET", format!("{}/unknown/path", node.url()), None, None).await;
        call("BREW", format!("{}/wallet", node.url()), None, None).await;
        let payloads = ["order".to_owned(), "order".to_owned()];
        node.app().store.queue.push(Topic::OrderExpiry, &payloads, Duration::from_secs(60)).await.unwrap();
        let page = request("GET", &format!("{}/metrics", node.url()), &[], Vec::new()).await;
        assert_eq!(page.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        let text = page.text();
        for line in [
            r#"sailfish_backend_requests_total{method="GET",path="/wallet",status="401"} 3"#,
            r#"sailfish_backend_requests_total{method="GET",path="",status="404"} 1"#,
            r#"sailfish_backend_requests_total{method="other",path="/wallet",status="405"} 1"#,
            r#"sailfish_backend_request_seconds_bucket{method="GET",path="/wallet",le="+Inf"} 3"#,
            r#"sailfish_backend_request_seconds_count{method="GET",path="/wallet"} 3"#,
            "sailfish_backend_queue_up 1",
            r#"sailfish_backend_queue_jobs{topic="order_expiry"} 2"#,
            r#"sailfish_backend_queue_dead_letters{topic="order_expiry"} 0"#,
            r#"sailfish_backend_cache_reads_total{result="hit"} 0"#,
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
        assert!(text.contains(r#"sailfish_backend_database_connections{pool="primary",state="idle"} "#));
        assert_eq!(text.contains("sailfish_backend_replica_up{replica=\"0\"} "), !stack.config().replicas.is_empty());
        // Each family is there once, before its samples.
        let families: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let distinct: std::collections::BTreeSet<_> = families.iter().collect();
        assert_eq!(families.len(), distinct.len());
        node.stop().await;
    }
);

both!(
    /// A request that is under way when the end comes is answered, and nobody is let in after.
    the_end_lets_requests_finish,
    |stack| async move {
        let mut config = stack.config();
        config.database_connections_max = 2;
        let node = stack.backend_with(config).await;
        let (url, app) = (node.url(), node.app().clone());
        let held = [app.store.db.primary().acquire().await.unwrap(), app.store.db.primary().acquire().await.unwrap()];
        let asking = tokio::spawn({
            let url = format!("{url}/readyz");
            async move { request("GET", &url, &[], Vec::new()).await.status }
        });
        tokio::time::sleep(Duration::from_millis(300)).await; // it waits for a connection
        let stopping = tokio::spawn(node.stop());
        let address = url.trim_start_matches("http://").to_owned();
        until("nobody is let in", async || tokio::net::TcpStream::connect(&address).await.is_err()).await;
        assert!(!stopping.is_finished(), "it waits for the request");
        drop(held);
        assert_eq!(asking.await.unwrap(), 200);
        stopping.await.unwrap();
    }
);

/// Ready is who has a database; alive is who answers. A database that is down is 503, and all works again
/// when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_and_comes_is_told() {
    let primary = MariaDb::primary();
    let stack = Stack::embedded().await.with_database(&primary);
    let node = stack.backend().await;
    let status =
        async |path: &str| request("GET", &format!("{}{path}", node.url()), &[], Vec::new()).await.status;
    assert_eq!((status("/healthz").await, status("/readyz").await), (200, 200));
    primary.kill();
    assert_eq!((status("/healthz").await, status("/readyz").await), (200, 503));
    let page = request("GET", &format!("{}/metrics", node.url()), &[], Vec::new()).await;
    assert!(page.text().contains("sailfish_backend_queue_up 0\n"), "the table is away too: {}", page.text());
    primary.start_again();
    until("it is ready", async || status("/readyz").await == 200).await;
    node.stop().await;
}
