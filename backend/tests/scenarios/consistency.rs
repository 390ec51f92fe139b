//! Cache and database, primary and replicas: who sees what was written.

use std::time::Duration;

use backend::{App, Error, Pool, Queue, Topic};
use sqlx::Row;

use crate::common::{Servers, Stack, until};

const TTL: Duration = Duration::from_secs(600);
const KEY: &str = "balance:1";

/// A row that stands for any: user 1's account.
async fn write(app: &App, balance: i64) -> Result<(), Error> {
    let statement = if balance == 0 {
        "INSERT INTO t_account (balance, user_id) VALUES (?, 1)"
    } else {
        "UPDATE t_account SET balance = ? WHERE user_id = 1"
    };
    sqlx::query(statement).bind(balance).execute(app.store.db.writer()).await?;
    Ok(())
}

async fn load(pool: Pool) -> Result<Option<i64>, Error> {
    let row = sqlx::query("SELECT balance FROM t_account WHERE user_id = 1").fetch_optional(&pool).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

async fn cached(app: &App) -> Option<String> {
    app.store.cache.get(KEY).await.unwrap()
}

fn keys() -> Vec<String> {
    vec![KEY.to_owned()]
}

both!(
    /// B4: what a slow reader puts into the cache after the write has deleted it is gone after the second
    /// delete.
    a_racing_stale_fill_ends_with_the_second_delete,
    |stack| async move {
        let node = stack.backend().await;
        let app = node.app();
        write(app, 0).await.unwrap();
        app.store.write_through(&keys(), write(app, 5)).await.unwrap();
        // Another process has read 0 before the write, and comes with it after the first delete.
        app.store.cache.set(KEY, "0", TTL).await.unwrap();
        let stale = app.store.cache.read(KEY, TTL, || load(app.store.db.primary().clone())).await.unwrap();
        assert_eq!(stale, Some(0), "so it is until the second delete");
        stack.clock().advance_ms(10_000);
        until("the stale entry is gone", async || cached(app).await.is_none()).await;
        let read = app.store.cache.read(KEY, TTL, || load(app.store.db.primary().clone())).await.unwrap();
        assert_eq!(read, Some(5));
        until("the job is done", async || app.store.queue.count(Topic::CacheDelete).await.unwrap() == (0, 0)).await;
        node.stop().await;
    }
);

both!(
    /// B4: the same when the process was killed between the two deletes: the job is in the durable queue
    /// before the write.
    the_second_delete_comes_when_the_process_was_killed,
    |stack| async move {
        let node = stack.backend().await;
        write(node.app(), 0).await.unwrap();
        node.app().store.write_through(&keys(), write(node.app(), 5)).await.unwrap();
        node.kill().await;
        let node = stack.backend().await;
        let app = node.app();
        app.store.cache.set(KEY, "0", TTL).await.unwrap();
        stack.clock().advance_ms(10_000);
        until("the stale entry is gone", async || cached(app).await.is_none()).await;
        node.stop().await;
    }
);

both!(
    /// B4: killed after the write and before the first delete; and while the write was under way.
    the_delete_comes_when_the_process_was_killed_before_the_first,
    |stack| async move {
        let node = stack.backend().await;
        let app = node.app().clone();
        write(&app, 0).await.unwrap();
        let (written, mut is_written) = tokio::sync::mpsc::channel(1);
        let writing = tokio::spawn(async move {
            let write = async {
                write(&app, 5).await?;
                written.send(()).await.unwrap();
                std::future::pending::<Result<(), Error>>().await
            };
            app.store.write_through(&keys(), write).await
        });
        is_written.recv().await.unwrap();
        writing.abort();
        let _ = writing.await;
        node.kill().await;
        let node = stack.backend().await;
        let app = node.app();
        app.store.cache.set(KEY, "0", TTL).await.unwrap();
        stack.clock().advance_ms(10_000);
        until("the stale entry is gone", async || cached(app).await.is_none()).await;
        node.stop().await;
    }
);

both!(
    /// A read that began before the write does not bring the old row back into the cache, and nobody who
    /// comes after the write gets it.
    a_load_that_was_overtaken_is_not_cached,
    |stack| async move {
        let app = stack.app().await;
        write(&app, 0).await.unwrap();
        let (loaded, is_loaded) = tokio::sync::oneshot::channel();
        let (go, going) = tokio::sync::oneshot::channel::<()>();
        let slow = tokio::spawn({
            let app = app.clone();
            async move {
                let slow = async || {
                    let value = load(app.store.db.primary().clone()).await;
                    loaded.send(()).unwrap();
                    going.await.unwrap();
                    value
                };
                app.store.cache.read(KEY, TTL, slow).await.unwrap()
            }
        });
        is_loaded.await.unwrap();
        app.store.write_through(&keys(), write(&app, 5)).await.unwrap();
        let read = app.store.cache.read(KEY, TTL, || load(app.store.db.primary().clone()));
        let read = tokio::time::timeout(Duration::from_secs(30), read).await;
        assert_eq!(read.expect("not the flight of before").unwrap(), Some(5));
        go.send(()).unwrap();
        assert_eq!(slow.await.unwrap(), Some(0));
        assert_eq!(cached(&app).await.as_deref(), Some("5"));
    }
);

both!(
    /// A write that fails changes nothing, and its error is the caller's.
    a_failed_write_is_told,
    |stack| async move {
        let app = stack.app().await;
        let failed = app.store.write_through(&keys(), async { Err::<(), _>(Error::conflict("no", "no")) }).await;
        assert_eq!(failed.unwrap_err().code, "no");
    }
);

/// B2: while the primary is away, replicas go on serving what is read from them, and one that dies too is not
/// read from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_without_the_primary() {
    let servers = Servers::start();
    let Servers { primary, replica, .. } = &servers;
    let node = Stack::on(&servers).backend().await;
    let app = node.app();
    write(app, 0).await.unwrap();
    let read = async || load(app.store.reader("a name").await.clone()).await;
    until("the replica has it", async || {
        app.store.db.good_replicas() == 1 && read().await.unwrap() == Some(0)
    })
    .await;
    primary.kill();
    until("it is noticed", async || !app.store.db.is_up().await).await;
    tokio::time::sleep(Duration::from_millis(3_000)).await; // longer than a replica may lag
    assert_eq!((app.store.db.good_replicas(), read().await.unwrap()), (1, Some(0)));
    replica.kill();
    until("it is given up", async || app.store.db.good_replicas() == 0).await;
    primary.start_again();
    until("the primary is back", async || read().await.is_ok_and(|value| value == Some(0))).await;
}

/// B2: with a replica that lags, the user who has written sees the write at once, and others see it when it
/// has come there. A replica that is too far behind, stopped or gone is not read from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_reads_its_own_writes() {
    let servers = Servers::start();
    let stack = Stack::on(&servers);
    let Servers { replica, redis, .. } = &servers;
    let mut config = stack.config();
    config.replica_lag_ms_max = 10_000;
    let (node, other) = (stack.backend_with(config.clone()).await, stack.backend_with(config).await);
    let app = node.app();
    write(app, 0).await.unwrap();
    let of = async |app: &App, name: &str| load(app.store.reader(name).await.clone()).await.unwrap();
    until("the replica has it", async || {
        of(app, "user 2").await == Some(0) && app.store.db.good_replicas() == 1
    })
    .await;

    replica.delay(3);
    write(app, 5).await.unwrap();
    app.store.wrote("user 1").await;
    assert_eq!(of(app, "user 1").await, Some(5), "who wrote");
    assert_eq!(of(other.app(), "user 1").await, Some(5), "who wrote, in another process");
    assert_eq!(of(app, "user 2").await, Some(0), "others, for a moment");
    // What all users share is read from the primary after a change, in every process, so nothing old comes
    // back into the cache.
    app.store.write_through(&keys(), write(app, 5)).await.unwrap();
    assert_eq!(app.store.read(KEY, TTL, load).await.unwrap(), Some(5));
    app.store.cache.delete(KEY).await.unwrap();
    assert_eq!(other.app().store.read(KEY, TTL, load).await.unwrap(), Some(5));
    app.store.cache.delete("another").await.unwrap();
    assert_eq!(
        app.store.read("another", TTL, load).await.unwrap(),
        Some(0),
        "what has not changed is read there"
    );
    until("others see it", async || of(app, "user 2").await == Some(5)).await;

    // Too far behind: nobody reads there.
    replica.delay(30);
    until("it is given up", async || app.store.db.good_replicas() == 0).await;
    write(app, 6).await.unwrap();
    assert_eq!(of(app, "user 2").await, Some(6));
    replica.delay(0);
    until("it is back", async || app.store.db.good_replicas() == 1).await;

    replica.kill();
    until("it is gone", async || app.store.db.good_replicas() == 0).await;
    assert_eq!(of(app, "user 2").await, Some(6));
    replica.start_again();
    // Each process judges the replica by itself.
    until("it is back", async || {
        app.store.db.good_replicas() == 1 && other.app().store.db.good_replicas() == 1
    })
    .await;

    // Without the marks in the cache, all reads are the primary's.
    replica.delay(6);
    redis.kill();
    write(app, 7).await.unwrap();
    app.store.wrote("user 3").await;
    assert_eq!(of(app, "user 3").await, Some(7));
    assert_eq!(of(app, "user 2").await, Some(7));
    redis.start_again();
    until("the cache is back", async || app.store.cache.get(KEY).await.is_ok()).await;
    until("the other's too", async || other.app().store.cache.get(KEY).await.is_ok()).await;
    assert_eq!(other.app().store.db.good_replicas(), 1);
    assert_eq!(of(other.app(), "user 2").await, Some(6), "the replica is behind and read from");
    assert_eq!(of(app, "user 3").await, Some(7), "the mark was not kept, and this process knows that");
}
