//! Databases in trouble that passes: it is 503, `/readyz` says so, and everything works again without a
//! restart.

use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

use backend::App;
use serde_json::json;
use sqlx::Executor;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::bridge::signature;
use crate::common::{MariaDb, Node, Stack, folder, request, until};
use crate::gift::{INTERNAL, audit, grant};

/// Set in a process that runs one test.
const ALONE: &str = "SAILFISH_TEST_ALONE";

/// Of `GET /readyz`.
async fn ready(node: &Node) -> u16 {
    request("GET", &format!("{}/readyz", node.url()), &[], Vec::new()).await.status
}

/// Runs a statement on the connection that writes; SQLite has one.
async fn on_writer(app: &App, statement: &'static str) {
    let mut connection = app.store.db.writer().acquire().await.unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
}

/// Grants are 503 while there is trouble, one after the other, and the process says that it is not ready.
async fn is_in_trouble(node: &Node) {
    for number in 0..3 {
        let (status, error) = grant(node, 1, 1, &format!("in trouble {number}")).await;
        assert_eq!((status, error["code"].as_str()), (503, Some("database_unavailable")), "{error}");
        assert_eq!(ready(node).await, 503);
    }
}

/// Everything works again, by itself.
async fn is_well(node: &Node, name: &str) {
    until("grants are made again", async || grant(node, 1, 1, name).await.0 == 200).await;
    until("it is ready again", async || ready(node).await == 200).await;
    for number in 0..20 {
        assert_eq!(grant(node, 1, 1, &format!("{name} {number}")).await.0, 200, "on every connection");
    }
    audit(node).await;
}

fn closed(app: &App) -> u64 {
    app.store.db.pools().iter().map(|(_, counts)| counts.closed).sum()
}

/// SQLite's file may not grow: SQLite rolls back by itself, and the connection must not believe in the
/// transaction any longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_is_full_for_a_moment() {
    let node = Stack::embedded().await.backend().await;
    assert_eq!(grant(&node, 1, 1, "before").await.0, 200);
    let app = node.app();
    // For each statement: a new connection has no such limit, so full is what the one in the pool is until it
    // is closed.
    let fill = "INSERT INTO t_job (topic, payload, due_ms, tries) VALUES ('full', randomblob(400000), 0, 0)";
    for round in 0..3 {
        on_writer(app, "PRAGMA max_page_count = 1").await; // not below what there is
        let before = closed(app);
        let mut tx = app.store.db.begin().await.unwrap();
        let error = sqlx::query(fill).execute(&mut *tx).await.map_err(backend::Error::from).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (503, "database_unavailable"), "{error}");
        assert!(error.message.contains("full"), "the cause is named: {error}");
        drop(tx);
        assert_eq!(ready(&node).await, 503, "a write has just failed");
        is_well(&node, &format!("after {round}")).await;
        until("its connection is closed", async || closed(app) == before + 1).await;
    }
    node.stop().await;
}

/// A connection that may only read, as after a remount of the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_is_read_only_for_a_moment() {
    let node = Stack::embedded().await.backend().await;
    on_writer(node.app(), "PRAGMA query_only = 1").await;
    let (status, error) = grant(&node, 1, 1, "read-only").await;
    assert_eq!((status, error["code"].as_str()), (503, Some("database_unavailable")), "{error}");
    assert_eq!(ready(&node).await, 503);
    is_well(&node, "after").await;
    node.stop().await;
}

/// Runs a test of this module in a process of its own, since its limits concern everything in a process.
/// Whether this is that process.
fn is_alone(test: &str, limits: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let done = Command::new("sh")
        .args(["-c", &format!("{limits}; exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("trouble::{test}"), "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = [done.stdout, done.stderr].map(|out| String::from_utf8_lossy(&out).into_owned()).concat();
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// A write of so many bytes.
async fn fill(app: &App, bytes: u32) -> Result<(), backend::Error> {
    let insert = format!(
        "INSERT INTO t_job (topic, payload, due_ms, tries) VALUES ('full', randomblob({bytes}), 0, 0)"
    );
    let mut tx = app.store.db.begin().await?;
    sqlx::query(sqlx::AssertSqlSafe(insert)).execute(&mut *tx).await?;
    tx.commit().await
}

/// The files may not grow over a size, and a write beyond it is another error than that of a full disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_of_sqlite_fails_for_a_moment() {
    // 6 MB, or 12 MB if the shell has blocks of 1 KiB.
    if !is_alone("the_disk_of_sqlite_fails_for_a_moment", "trap '' XFSZ; ulimit -f 12000") {
        return;
    }
    let node = Stack::embedded().await.backend().await;
    let app = node.app();
    let before = closed(app);
    let error = fill(app, 20_000_000).await.unwrap_err();
    assert_eq!((error.status.as_u16(), error.code), (503, "database_unavailable"), "{error}");
    assert!(error.message.contains("disk I/O error"), "the cause is named: {error}");
    until("its connection is closed", async || closed(app) == before + 1).await;
    assert_eq!(ready(&node).await, 503, "a write has just failed");
    is_well(&node, "after").await;
    node.stop().await;
}

/// A statement gets no memory; the next ones do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_is_out_of_memory_for_a_moment() {
    if !is_alone("sqlite_is_out_of_memory_for_a_moment", ":") {
        return;
    }
    let node = Stack::embedded().await.backend().await;
    let app = node.app();
    on_writer(app, "PRAGMA hard_heap_limit = 50000000").await;
    let before = closed(app);
    let error = fill(app, 100_000_000).await.unwrap_err();
    assert_eq!((error.status.as_u16(), error.code), (503, "database_unavailable"), "{error}");
    assert!(error.message.contains("out of memory"), "the cause is named: {error}");
    until("its connection is closed", async || closed(app) == before + 1).await;
    assert_eq!(ready(&node).await, 503, "a write has just failed");
    is_well(&node, "after").await;
    node.stop().await;
}

/// The file is damaged under a backend that works: no panic, no 500, and not ready, on each new connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_is_damaged_while_it_is_in_use() {
    let file = folder("damaged").join("backend.db");
    let mut config = Stack::embedded().await.config();
    config.database = format!("sqlite:{}", file.display());
    let node = Stack::embedded().await.backend_with(config).await;
    assert_eq!(grant(&node, 1, 1, "before").await.0, 200);
    on_writer(node.app(), "PRAGMA wal_checkpoint(TRUNCATE)").await;
    let all_but_first_page = std::fs::metadata(&file).unwrap().len() as usize - 4096;
    std::fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .write_all_at(&vec![0x5a; all_but_first_page], 4096)
        .unwrap();
    on_writer(node.app(), "PRAGMA shrink_memory").await; // what it had read is forgotten
    let before = closed(node.app());
    is_in_trouble(&node).await;
    // None opens from now on, so how many are closed depends on how many were open. The one that writes was.
    until("no connection that writes to it is kept", async || {
        let pools = node.app().store.db.pools();
        let (_, writing) = pools.iter().find(|(name, _)| *name == "primary").unwrap();
        closed(node.app()) > before && writing.used + writing.idle == 0
    })
    .await;
    node.stop().await;
}

/// The file is damaged while nobody has it open: it does not open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_sqlite_is_503() {
    let file = folder("damaged").join("backend.db");
    let mut config = Stack::embedded().await.config();
    config.database = format!("sqlite:{}", file.display());
    let app = App::open(config, Default::default()).await.unwrap();
    on_writer(&app, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    app.store.db.close().await;
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[4096..].fill(0x5a); // all but the schema's first page
    std::fs::write(&file, bytes).unwrap();
    let mut config = Stack::embedded().await.config();
    config.database = format!("sqlite:{}", file.display());
    let error = App::open(config, Default::default()).await.err().expect("it does not open");
    assert_eq!((error.status.as_u16(), error.code), (503, "database_unavailable"), "{error}");
}

/// MariaDB becomes read-only, as a primary does while another takes over; its connections are killed; it is
/// stopped; it stands still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_is_in_trouble_for_a_moment() {
    let server = MariaDb::primary();
    let node = Stack::embedded().await.with_database(&server).backend().await;
    assert_eq!(grant(&node, 1, 1, "before").await.0, 200);

    server.sql("SET GLOBAL read_only = 1");
    let before = closed(node.app());
    is_in_trouble(&node).await;
    until("none that leads to a server that may not write is kept", async || {
        closed(node.app()) >= before + 3
    })
    .await;
    server.sql("SET GLOBAL read_only = 0");
    is_well(&node, "writable").await;

    for round in 0..5 {
        server.sql("KILL USER sailfish");
        is_well(&node, &format!("killed {round}")).await;
    }

    server.kill();
    is_in_trouble(&node).await;
    server.start_again();
    is_well(&node, "started").await;

    node.app().store.db.limit_answers(Duration::from_secs(1));
    server.freeze(true);
    is_in_trouble(&node).await;
    server.freeze(false);
    node.app().store.db.limit_answers(Duration::from_secs(60));
    is_well(&node, "thawed").await;
    node.stop().await;
}

/// What MariaDB and MySQL say when the server itself is in trouble, and not what they were asked for.
#[rustfmt::skip]
const SERVER_IN_TROUBLE: &[u16] = &[
    1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 29, 30, 31, 32,
    33, 1004, 1012, 1013, 1015, 1016, 1017, 1018, 1021, 1023, 1024, 1026, 1028, 1030, 1033, 1034, 1035, 1036,
    1037, 1038, 1039, 1041, 1047, 1053, 1077, 1078, 1079, 1114, 1129, 1135, 1158, 1159, 1160, 1161, 1180, 1181,
    1194, 1195, 1206, 1290, 1296, 1297, 1712, 1792, 1812, 1814, 1817, 1836, 1874, 1877, 1878, 1881, 1927, 1932,
    3000, 3015, 3019, 3032, 3168, 3169, 4031,
];
/// What a statement brings on itself: an unknown character set, collation, column or table, a NULL, a syntax
/// error, a foreign key, a division by zero, and what nobody knows.
const STATEMENT_IS_WRONG: &[u16] = &[22, 28, 1048, 1054, 1064, 1105, 1115, 1146, 1273, 1364, 1365, 1452];

/// A server whose disk, memory or files fail is 503, whatever it calls that, and its connection is not used
/// again: after such an error nobody knows what is left of the transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_whose_disk_or_memory_fails_is_503() {
    let stack = Stack::production().await;
    let app = stack.app().await;
    let said = async |number: u16| {
        let before = closed(&app);
        let mut tx = app.store.db.begin().await.unwrap();
        let signal = format!("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'said so'");
        let done = (&mut *tx).execute(sqlx::AssertSqlSafe(signal)).await;
        drop(tx);
        let error = backend::Error::from(done.expect_err("it is an error"));
        ((error.status.as_u16(), error.code), closed(&app) - before)
    };
    for number in SERVER_IN_TROUBLE {
        assert_eq!(said(*number).await, ((503, "database_unavailable"), 1), "{number}");
    }
    for number in STATEMENT_IS_WRONG {
        assert_eq!(said(*number).await, ((500, "internal"), 0), "{number}");
    }
}

/// One who sends a request and hangs up.
async fn abort(address: &str, head: &str, body: &str, after: Duration) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST {head}\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(after).await;
}

both!(
    /// Callers that hang up cost no connection: what they asked for is done, and each connection is in the
    /// pool afterwards.
    callers_hang_up_and_connections_stay,
    |stack| async move {
        let node = stack.backend().await;
        let address = node.url().replace("http://", "");
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..8_u64 {
            let address = address.clone();
            callers.spawn(async move {
                for round in 0..40 {
                    let after = Duration::from_micros((caller * 1_000 + round * 211) % 8_000);
                    let name = format!("{caller}-{round}");
                    let grants: Vec<_> = (0..5).map(|user| json!({ "user_id": 10 + user, "amount": 1, "id": name })).collect();
                    let head = format!("/internal/wallet/grants HTTP/1.1\r\nAuthorization: Bearer {}", INTERNAL.unwrap());
                    abort(&address, &head, &json!({ "grants": grants }).to_string(), after).await;
                    let event = json!({ "id": format!("1-{caller}-{round}"), "type": "join", "app": 1, "user": caller + 1,
                        "device": "phone", "login": "17", "room": 7 });
                    let body = json!({ "events": [event] }).to_string();
                    let headers = signature("bridge-secret", 0, &body).map(|(name, value)| format!("{name}: {value}"));
                    let head = format!("/bridge/events HTTP/1.1\r\n{}", headers.join("\r\n"));
                    abort(&address, &head, &body, after).await;
                }
            });
        }
        callers.join_all().await;
        let app = node.app();
        until("all connections are back", async || app.store.db.pools().iter().all(|(_, counts)| counts.used == 0)).await;
        for number in 0..40 {
            assert_eq!(grant(&node, 1, 1, &format!("after {number}")).await.0, 200);
        }
        let (coins, _) = audit(&node).await;
        assert_eq!((coins - 40) % 5, 0, "all five of a call, or none");
        assert!(coins > 40, "some were made, though nobody waited");
        node.stop().await;
    }
);

both!(
    /// A statement that is given up half-way ends its connection: what it is answered is never taken for
    /// another one's answer.
    a_statement_that_is_given_up_ends_its_connection,
    |stack| async move {
        let app = stack.app().await;
        for round in 0..200_u64 {
            let (app, begun) = (app.clone(), Duration::from_micros(round * 7));
            // Of a length of its own, so that it is prepared anew.
            let select = format!("SELECT {round}, {}", vec!["0"; round as usize % 50 + 1].join(" + "));
            let ask = async { sqlx::query(sqlx::AssertSqlSafe(select)).fetch_one(app.store.db.writer()).await.map(drop) };
            let _ = tokio::time::timeout(begun, ask).await;
            let mut tx = app.store.db.begin().await.unwrap();
            let row = sqlx::query("SELECT 4711").fetch_one(&mut *tx).await.unwrap();
            assert_eq!(sqlx::Row::get::<i64, _>(&row, 0), 4711);
            tx.commit().await.unwrap();
        }
        until("all are back", async || app.store.db.pools().iter().all(|(_, counts)| counts.used == 0)).await;
    }
);
