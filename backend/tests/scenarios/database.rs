//! What differs between databases, and what they say when they are in trouble.

use std::time::Duration;

use backend::{App, Error, Queue, Topic};
use sqlx::{AssertSqlSafe, Row};

use crate::common::{MariaDb, Stack, folder, until};

async fn run(app: &App, statement: &str) -> Result<u64, Error> {
    let done = sqlx::query(AssertSqlSafe(statement.to_owned())).execute(app.store.db.writer()).await?;
    Ok(done.rows_affected())
}

fn is_busy(error: Result<u64, Error>) -> bool {
    let error = error.expect_err("it fails");
    assert_eq!(error.status.as_u16(), 503, "{error}");
    error.code == "database_busy"
}

fn is_away(error: Result<u64, Error>) -> bool {
    let error = error.expect_err("it fails");
    assert_eq!(error.status.as_u16(), 503, "{error}");
    error.code == "database_unavailable"
}

both!(
    /// Keys are compared byte by byte, texts keep every character, and big numbers every digit.
    values_come_back_as_they_were,
    |stack| async move {
        let app = stack.app().await;
        let (key, end, text) =
            (app.store.db.dialect().key(96), app.store.db.dialect().table_end(), app.store.db.dialect().long_text());
        run(&app, &format!("CREATE TABLE t_probe (name {key} NOT NULL PRIMARY KEY, text {text} NOT NULL, number BIGINT NOT NULL{end}"))
            .await
            .unwrap();
        let keys: [&[u8]; 9] =
            [b"a", b"A", b"a ", "ä".as_bytes(), "a\u{308}".as_bytes(), b"", b"\0", b"a\0", &[255, 254, 0, 128]];
        let text = "\u{1f381}\u{0}'\\\" \u{e4}\u{fffd}%_";
        for (number, key) in keys.iter().enumerate() {
            let number = i64::MAX - number as i64;
            sqlx::query("INSERT INTO t_probe (name, text, number) VALUES (?, ?, ?)")
                .bind(key.to_vec())
                .bind(text)
                .bind(number)
                .execute(app.store.db.writer())
                .await
                .unwrap();
            let row = sqlx::query("SELECT name, text, number FROM t_probe WHERE name = ?")
                .bind(key.to_vec())
                .fetch_one(app.store.db.primary())
                .await
                .unwrap();
            assert_eq!(row.get::<Vec<u8>, _>(0), *key);
            assert_eq!((row.get::<String, _>(1), row.get::<i64, _>(2)), (text.to_owned(), number));
        }
        let select = format!("SELECT {} FROM t_probe WHERE number > ?", app.store.db.dialect().sum("number - 9223372036854775800"));
        let sum = sqlx::query(AssertSqlSafe(select)).bind(0_i64).fetch_one(app.store.db.primary()).await.unwrap();
        assert_eq!(sum.get::<i64, _>(0), (0..9).map(|number| 7 - number).sum::<i64>());
        let duplicate = sqlx::query("INSERT INTO t_probe (name, text, number) VALUES (?, '', 0)").bind(b"a".to_vec());
        let error = duplicate.execute(app.store.db.writer()).await.unwrap_err();
        assert!(error.as_database_error().unwrap().is_unique_violation());
    }
);

both!(
    /// A conditional update tells how many rows met its condition, also where nothing changed by it.
    affected_rows_are_matched_rows,
    |stack| async move {
        let app = stack.app().await;
        run(&app, "INSERT INTO t_account (user_id, balance) VALUES (1, 5), (2, 5)").await.unwrap();
        assert_eq!(run(&app, "UPDATE t_account SET balance = 5").await.unwrap(), 2);
        assert_eq!(run(&app, "UPDATE t_account SET balance = balance - 6 WHERE user_id = 1 AND balance >= 6").await.unwrap(), 0);
        let below = run(&app, "UPDATE t_account SET balance = -1 WHERE user_id = 1").await;
        assert_eq!(below.unwrap_err().status.as_u16(), 500, "the CHECK holds where a guard is forgotten");
    }
);

both!(
    /// Processes that start at once on an empty database bring it up to date once.
    several_processes_migrate_at_once,
    |stack| async move {
        let opens = (0..4).map(|_| {
            let (config, clock) = (stack.config(), stack.clock().source());
            tokio::spawn(async move { App::open(config, clock).await.map(|app| app.store.config.app) })
        });
        for open in opens.collect::<Vec<_>>() {
            open.await.unwrap().unwrap();
        }
        let app = stack.app().await;
        let rows = sqlx::query("SELECT COUNT(*), COUNT(DISTINCT name) FROM t_migration").fetch_one(app.store.db.primary());
        let rows = rows.await.unwrap();
        assert!(rows.get::<i64, _>(0) >= 3);
        assert_eq!(rows.get::<i64, _>(0), rows.get::<i64, _>(1));
    }
);

/// Two transactions that wait for each other; a lock that takes too long; a killed query and connection; too
/// many connections; a primary that has become read-only: all are 503 and pass. What is our own fault is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_in_trouble_is_503() {
    let server = MariaDb::primary();
    let stack = Stack::embedded().await.with_database(&server);
    let app = stack.app().await;
    run(&app, "INSERT INTO t_account (user_id, balance) VALUES (1, 5), (2, 5)").await.unwrap();

    // A deadlock: each has one row and wants the other's.
    let (mut first, mut second) = (app.store.db.begin().await.unwrap(), app.store.db.begin().await.unwrap());
    let update = |user_id: i64| {
        sqlx::query("UPDATE t_account SET balance = balance + 1 WHERE user_id = ?").bind(user_id)
    };
    update(1).execute(&mut *first).await.unwrap();
    update(2).execute(&mut *second).await.unwrap();
    let (one, other) = tokio::join!(update(2).execute(&mut *first), update(1).execute(&mut *second));
    let failed: Vec<Error> = [one, other].into_iter().filter_map(Result::err).map(Error::from).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(is_busy(Err(failed[0].clone())), "{failed:?}");
    drop((first, second));

    // A lock that takes too long.
    let mut holder = app.store.db.begin().await.unwrap();
    update(1).execute(&mut *holder).await.unwrap();
    let mut waiter = app.store.db.begin().await.unwrap();
    sqlx::query("SET SESSION innodb_lock_wait_timeout = 1").execute(&mut *waiter).await.unwrap();
    let error = update(1).execute(&mut *waiter).await.map(|done| done.rows_affected()).map_err(Error::from);
    assert!(is_busy(error));
    drop((holder, waiter));

    // An operator kills a query, and then a connection.
    for kill in ["KILL QUERY", "KILL"] {
        let mut connection = app.store.db.writer().acquire().await.unwrap();
        connection.close_on_drop();
        let row = sqlx::query("SELECT CONNECTION_ID()").fetch_one(&mut connection).await.unwrap();
        let id = row.try_get::<i64, _>(0).unwrap();
        let slow = tokio::spawn(async move {
            let done =
                sqlx::query("INSERT INTO t_account SELECT 9, SLEEP(30)").execute(&mut connection).await;
            done.map(|done| done.rows_affected()).map_err(Error::from)
        });
        server.until(
            &format!(
                "SELECT COUNT(*) FROM information_schema.processlist WHERE id = {id} AND info LIKE '%SLEEP%'"
            ),
            1,
        );
        server.sql(&format!("{kill} {id}"));
        is_busy(slow.await.unwrap());
    }

    // A statement that takes too long.
    let slow =
        run(&app, "SET STATEMENT max_statement_time = 0.2 FOR INSERT INTO t_account SELECT 9, SLEEP(30)")
            .await;
    assert!(is_busy(slow));

    // A table is full, as all are when the disk is.
    let small =
        "SET STATEMENT max_heap_table_size = 16384 FOR CREATE TABLE t_small (text CHAR(200)) ENGINE = MEMORY";
    run(&app, small).await.unwrap();
    assert!(is_away(run(&app, "INSERT INTO t_small SELECT REPEAT('x', 200) FROM seq_1_to_10000").await));

    // Another server takes over.
    server.sql("SET GLOBAL read_only = 1");
    assert!(is_away(run(&app, "UPDATE t_account SET balance = 6").await));
    server.sql("SET GLOBAL read_only = 0");
    run(&app, "UPDATE t_account SET balance = 6").await.unwrap();

    // Too many connections.
    server.sql("SET GLOBAL max_connections = 10");
    let mut held = Vec::new();
    let error = loop {
        match app.store.db.writer().acquire().await {
            Ok(connection) => held.push(connection),
            Err(error) => break Error::from(error),
        }
    };
    assert_eq!((error.status.as_u16(), error.code), (503, "database_busy"), "{error}");
    drop(held);
    server.sql("SET GLOBAL max_connections = 100");

    // Our own faults are not passing.
    for statement in [
        "SELEKT 1",
        "INSERT INTO t_nothing VALUES (1)",
        "INSERT INTO t_account (user_id, balance) VALUES (7, NULL)",
    ] {
        assert_eq!(run(&app, statement).await.unwrap_err().status.as_u16(), 500, "{statement}");
    }
}

/// A server that ends or is killed is 503 for those who are at it, and the pool comes back by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_is_killed_and_comes_back() {
    let server = MariaDb::primary();
    let stack = Stack::embedded().await.with_database(&server);
    let app = stack.app().await;
    run(&app, "INSERT INTO t_account (user_id, balance) VALUES (1, 5)").await.unwrap();
    for ends_well in [true, false] {
        let slow = tokio::spawn({
            let app = app.clone();
            async move { run(&app, "INSERT INTO t_account SELECT 9, SLEEP(30)").await }
        });
        server.until("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%SELECT 9, SLEEP%' AND info NOT LIKE '%processlist%'", 1);
        if ends_well {
            server.sql("SHUTDOWN");
            is_busy(slow.await.unwrap());
            server.start_again();
        } else {
            server.kill();
            let error = slow.await.unwrap().unwrap_err();
            assert_eq!((error.status.as_u16(), error.code), (503, "database_unavailable"), "{error}");
            let error = run(&app, "UPDATE t_account SET balance = 6").await.unwrap_err();
            assert_eq!((error.status.as_u16(), error.code), (503, "database_unavailable"), "{error}");
            server.start_again();
        }
        let update = "UPDATE t_account SET balance = balance + 1";
        until("it works again", async || run(&app, update).await.is_ok()).await;
    }
    app.store.queue.push(Topic::OrderExpiry, &["job".to_owned()], Duration::ZERO).await.unwrap();
    assert_eq!(app.store.queue.take(Topic::OrderExpiry, 1, Duration::ZERO).await.unwrap().len(), 1);
}

/// SQLite: another process that writes for long is 503 and passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_sqlite_is_503() {
    let mut config = Stack::embedded().await.config();
    config.database = format!("sqlite:{}", folder("busy").join("backend.db").display());
    let (app, other) = (
        App::open(config.clone(), Default::default()).await.unwrap(),
        App::open(config, Default::default()).await.unwrap(),
    );
    let mut connection = app.store.db.writer().acquire().await.unwrap();
    sqlx::query("PRAGMA busy_timeout = 50").execute(&mut connection).await.unwrap();
    let writing = other.store.db.begin().await.unwrap();
    let statement = "INSERT INTO t_account (user_id, balance) VALUES (1, 5)";
    let done = sqlx::query(statement).execute(&mut connection).await;
    assert!(is_busy(done.map(|done| done.rows_affected()).map_err(Error::from)));
    drop(writing);
    sqlx::query(statement).execute(&mut connection).await.unwrap();
}
