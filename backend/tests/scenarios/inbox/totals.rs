//! What is counted of the inboxes, beside what is in them.

use std::sync::atomic::AtomicU64;

use super::*;
use crate::common::Prng;

/// Rows of totals that are not what a count says.
async fn wrong_totals(node: &Node) -> i64 {
    let all = -i64::MAX;
    let statement = format!(
        "SELECT COUNT(*) FROM (SELECT app, user_id, sender FROM \
         (SELECT app, user_id, sender, messages AS m, bytes AS b FROM t_inbox_total \
         UNION ALL SELECT app, user_id, sender, -1, -bytes FROM t_inbox \
         UNION ALL SELECT app, user_id, {all}, -1, -bytes FROM t_inbox WHERE sender <> 0 \
         UNION ALL SELECT app, {all}, sender, -1, -bytes FROM t_inbox WHERE sender <> 0) AS parts \
         GROUP BY app, user_id, sender HAVING SUM(m) <> 0 OR SUM(b) <> 0) AS wrong"
    );
    let count = sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(node.app().store.db.primary());
    count.await.unwrap()
}

async fn run(node: &Node, statement: &'static str) {
    sqlx::query(statement).execute(node.app().store.db.writer()).await.unwrap();
}

both!(
    /// Whatever is kept, told twice at two backends at once, handed over to one device or several, refused or
    /// too old: the totals are what a count would say.
    totals_are_what_a_count_says,
    |stack| async move {
        let turn = Arc::new(AtomicU64::new(0));
        let turns = turn.clone();
        let gateway = Gateway::start(move |_| match turns.fetch_add(1, Ordering::Relaxed) % 7 {
            3 => OFFLINE,
            5 => Reply::Outcome("failed", "too_long"),
            6 => Reply::Outcome("failed", "unacked"),
            _ => DELIVERED,
        })
        .await;
        let nodes = [gateway.node(&stack).await, gateway.node(&stack).await];
        let (mut prng, mut login) = (Prng(0x5eed), 100);
        for round in 0..12_u64 {
            let batch: Vec<Value> = (0..40)
                .map(|number| {
                    // Some were told in the round before. A message has one receiver and one sender.
                    let number = round * 25 + number;
                    let mut message = undelivered(number, 7 + (number % 5) as i64);
                    message["sender"] = json!((number % 4) as i64 * SENDER);
                    message
                })
                .collect();
            let (url, other) = (nodes[0].url(), nodes[1].url());
            let reversed: Vec<Value> = batch.iter().rev().cloned().collect();
            tokio::join!(send(&stack, &url, &batch), send(&stack, &other, &reversed));
            assert_eq!(wrong_totals(&nodes[0]).await, 0, "round {round}, kept");
            for _ in 0..3 {
                login += 200_000_000;
                let device = ["phone", "web"][prng.below(2) as usize];
                let kind = if prng.below(4) == 0 { "offline" } else { "online" };
                let user = 7 + prng.below(5) as i64;
                send(&stack, &other, &[session(kind, login, user, device, login)]).await;
            }
            assert_eq!(wrong_totals(&nodes[0]).await, 0, "round {round}, under way");
        }
        gateway.then(|_| DELIVERED);
        stack.clock().advance_ms(31 * 86_400_000);
        let none = async || count(&nodes[0], "t_inbox").await == 0 && count(&nodes[0], "t_inbox_total").await == 0;
        until("everything is gone, and counts nothing", none).await;
        for node in nodes {
            node.stop().await;
        }
    }
);

both!(
    /// A database of a version without totals has them after the start.
    totals_are_made_from_what_is_there,
    |stack| async move {
        let node = stack.backend().await;
        send(&stack, &node.url(), &messages(0..20, 7)).await;
        send(&stack, &node.url(), &from_sender(messages(20..25, 8), 0)).await;
        run(&node, "DELETE FROM t_migration WHERE version >= 42").await;
        run(&node, "DROP TABLE t_inbox_total").await;
        node.stop().await;
        let node = stack.backend().await;
        assert_eq!((wrong_totals(&node).await, count(&node, "t_inbox_total").await), (0, 4));
        node.stop().await;
    }
);

both!(
    /// However much senders and receivers have, what is kept is decided by what is counted, and nothing is
    /// counted for that.
    full_senders_are_refused_without_counting,
    |stack| async move {
        let mut config = stack.config();
        config.inbox_sender_messages_max = 5;
        let node = stack.backend_with(config).await;
        send(&stack, &node.url(), &messages(0..3, 7)).await;
        // Not what is there: so it is this that is looked at.
        run(&node, "UPDATE t_inbox_total SET messages = 5").await;
        assert_eq!(try_send(&stack, &node.url(), &messages(3..4, 8)).await, ["refused"]);
        run(&node, "UPDATE t_inbox_total SET messages = 1").await;
        assert_eq!(try_send(&stack, &node.url(), &messages(3..4, 8)).await, ["ok"]);
        node.stop().await;
    }
);
