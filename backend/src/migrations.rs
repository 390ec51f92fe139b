//! The tables, step by step. A step that was released is never changed; the next one is added below it.

use sqlx::AssertSqlSafe;
use sqlx::mysql::MySqlDatabaseError;
use tracing::{debug, info};

use crate::db::{Connection, Db, Dialect};
use crate::error::Error;
use crate::tables;

/// One step.
struct Migration {
    version: i64,
    name: &'static str,
    statements: fn(Dialect) -> Vec<String>,
}

/// All steps, ascending. Each table's file says how it is made.
const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "heartbeat", statements: heartbeat },
    Migration { version: 2, name: "job", statements: tables::job::create },
    Migration { version: 3, name: "account and ledger", statements: tables::account::create },
    Migration { version: 10, name: "id segments", statements: tables::id_segment::create },
    Migration { version: 11, name: "users", statements: tables::user::create },
    Migration { version: 12, name: "phones of users", statements: tables::user_phone::create },
    Migration { version: 13, name: "tags of users", statements: tables::user_tag::create },
    Migration { version: 14, name: "login tokens", statements: tables::login_token::create },
    Migration { version: 20, name: "outbox", statements: tables::outbox::create },
    Migration { version: 21, name: "gifts", statements: tables::gift::create },
    Migration { version: 22, name: "gift orders", statements: tables::gift_order::create },
    Migration { version: 30, name: "products", statements: tables::product::create },
    Migration { version: 31, name: "orders", statements: tables::pay_order::create },
    Migration { version: 32, name: "rooms", statements: tables::room::create },
    Migration { version: 33, name: "presence", statements: tables::presence::create },
    Migration { version: 34, name: "members of rooms", statements: tables::room_member::create },
    Migration { version: 35, name: "inbox", statements: tables::inbox::create },
    Migration { version: 36, name: "hand-overs of the inbox", statements: tables::hand_over::create },
    Migration { version: 37, name: "shares of the inbox", statements: tables::inbox::add_shares },
    Migration { version: 38, name: "hand-overs to devices", statements: tables::hand_over::add_device },
    Migration {
        version: 39,
        name: "when hand-overs were asked for",
        statements: tables::hand_over::add_since,
    },
    Migration {
        version: 40,
        name: "when messages were handed over",
        statements: tables::inbox::add_delivered,
    },
    Migration { version: 41, name: "events for webhooks", statements: tables::hook_event::create },
    Migration { version: 42, name: "totals of the inbox", statements: tables::inbox_total::create },
    Migration {
        version: 43,
        name: "no indexes for counting the inbox",
        statements: tables::inbox::drop_counting,
    },
];

/// Whether all steps are done.
pub async fn is_migrated(db: &Db) -> Result<bool, Error> {
    let last = MIGRATIONS.last().map_or(0, |migration| migration.version);
    let done: i64 =
        sqlx::query_scalar("SELECT MAX(version) FROM t_migration").fetch_one(db.primary()).await?;
    Ok(done >= last)
}

/// Brings the tables up to date. Several processes may do so at once: all but the first wait, and find it
/// done.
pub async fn migrate(db: &Db) -> Result<(), Error> {
    let dialect = db.dialect();
    let mut connection = db.writer().acquire().await?;
    // The connection is closed, so that its lock ends, and anything that a failed step has begun.
    connection.close_on_drop();
    if dialect == Dialect::MySql {
        lock(&mut connection).await?;
    }
    let end = dialect.table_end();
    let table = format!(
        "CREATE TABLE IF NOT EXISTS t_migration (version BIGINT PRIMARY KEY, name VARCHAR(64) NOT NULL{end}"
    );
    sqlx::query(AssertSqlSafe(table)).execute(&mut connection).await?;
    let done: Vec<i64> =
        sqlx::query_scalar("SELECT version FROM t_migration").fetch_all(&mut connection).await?;
    let mut steps = 0;
    for migration in MIGRATIONS.iter().filter(|migration| !done.contains(&migration.version)) {
        step(&mut connection, dialect, migration).await?;
        steps += 1;
    }
    if let Some(version) = MIGRATIONS.last().filter(|_| steps > 0).map(|migration| migration.version) {
        info!(version, steps, "migrated the database");
    }
    Ok(())
}

/// DDL commits by itself in MySQL, so a transaction could not keep others out. The lock is of the whole
/// server, so its name contains the database.
async fn lock(connection: &mut Connection) -> Result<(), Error> {
    let lock = "SELECT COALESCE(GET_LOCK(CONCAT('migrate.', MD5(DATABASE())), ?), 0)";
    for seconds in [0_i64, LOCK_SECONDS] {
        if seconds > 0 {
            info!(seconds, "another connection holds the lock of the migrations; waiting for it");
        }
        let is_ours: i64 = sqlx::query_scalar(lock).bind(seconds).fetch_one(&mut *connection).await?;
        if is_ours == 1 {
            return Ok(());
        }
    }
    let holder = "SELECT COALESCE(IS_USED_LOCK(CONCAT('migrate.', MD5(DATABASE()))), 0)";
    let holder: i64 = sqlx::query_scalar(holder).fetch_one(connection).await?;
    Err(Error::unavailable(
        "migrating",
        format!(
            "connection {holder} of the database server has held the lock of the migrations for {LOCK_SECONDS} s"
        ),
    ))
}

/// How long another process may take for the migrations.
const LOCK_SECONDS: i64 = 60;

/// In MySQL, a step that was cut short is done again from its beginning, so each statement allows for that.
async fn step(connection: &mut Connection, dialect: Dialect, migration: &Migration) -> Result<(), Error> {
    let Migration { version, name, statements } = migration;
    if dialect == Dialect::Sqlite {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        // Another process may have done it while this one waited.
        let known = sqlx::query_scalar("SELECT COUNT(*) FROM t_migration WHERE version = ?").bind(*version);
        let known: i64 = known.fetch_one(&mut *connection).await?;
        if known > 0 {
            sqlx::query("ROLLBACK").execute(&mut *connection).await?;
            return Ok(());
        }
    }
    for statement in statements(dialect) {
        match sqlx::query(AssertSqlSafe(statement)).persistent(false).execute(&mut *connection).await {
            Err(error) if !is_done(&error) => return Err(error.into()),
            _ => {}
        }
    }
    let insert = format!("{} t_migration (version, name) VALUES (?, ?)", dialect.insert_ignore());
    sqlx::query(AssertSqlSafe(insert)).bind(*version).bind(*name).execute(&mut *connection).await?;
    if dialect == Dialect::Sqlite {
        sqlx::query("COMMIT").execute(&mut *connection).await?;
    }
    debug!(version, name, "migrated");
    Ok(())
}

/// Whether a statement of MySQL that adds columns, or drops indexes, was done before the step was cut short.
fn is_done(error: &sqlx::Error) -> bool {
    const DUPLICATE_COLUMN: u16 = 1060;
    const NOTHING_TO_DROP: u16 = 1091;
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
    error.is_some_and(|error| [DUPLICATE_COLUMN, NOTHING_TO_DROP].contains(&error.number()))
}

fn heartbeat(dialect: Dialect) -> Vec<String> {
    let end = dialect.table_end();
    vec![
        format!("CREATE TABLE IF NOT EXISTS t_heartbeat (id BIGINT PRIMARY KEY, at_ms BIGINT NOT NULL{end}"),
        format!("{} t_heartbeat (id, at_ms) VALUES (1, 0)", dialect.insert_ignore()),
    ]
}
