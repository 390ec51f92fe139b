//! The tables, step by step. A step that was released is never changed; the next one is added below it.

use sqlx::{AssertSqlSafe, Row};
use tracing::info;

use super::{Db, Dialect};
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
    Migration { version: 20, name: "outbox", statements: tables::outbox::create },
    Migration { version: 30, name: "products", statements: tables::product::create },
    Migration { version: 31, name: "orders", statements: tables::pay_order::create },
    Migration { version: 32, name: "rooms", statements: tables::room::create },
    Migration { version: 33, name: "presence", statements: tables::presence::create },
    Migration { version: 34, name: "members of rooms", statements: tables::room_member::create },
    Migration { version: 35, name: "inbox", statements: tables::inbox::create },
    Migration { version: 36, name: "hand-overs of the inbox", statements: tables::hand_over::create },
];

/// Brings the tables up to date. Several processes may do so at once: all but the first wait, and find it done.
pub async fn migrate(db: &Db) -> Result<(), Error> {
    let dialect = db.dialect();
    let mut connection = db.writer().acquire().await?;
    if dialect == Dialect::MySql {
        // DDL commits by itself in MySQL, so a transaction could not keep others out.
        sqlx::query("SELECT GET_LOCK('sailfish_migration', 60)").fetch_one(&mut *connection).await?;
    }
    let end = dialect.table_end();
    let table = format!(
        "CREATE TABLE IF NOT EXISTS t_migration (version BIGINT PRIMARY KEY, name VARCHAR(64) NOT NULL{end}"
    );
    sqlx::query(AssertSqlSafe(table)).execute(&mut *connection).await?;
    let row =
        sqlx::query("SELECT COALESCE(MAX(version), 0) FROM t_migration").fetch_one(&mut *connection).await?;
    let done: i64 = row.try_get(0)?;
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > done) {
        if dialect == Dialect::Sqlite {
            sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        }
        // A step that was cut short in MySQL is done again from its beginning, so each statement allows for that.
        for statement in (migration.statements)(dialect) {
            sqlx::query(AssertSqlSafe(statement)).persistent(false).execute(&mut *connection).await?;
        }
        let insert = format!("{} t_migration (version, name) VALUES (?, ?)", dialect.insert_ignore());
        sqlx::query(AssertSqlSafe(insert))
            .bind(migration.version)
            .bind(migration.name)
            .execute(&mut *connection)
            .await?;
        if dialect == Dialect::Sqlite {
            sqlx::query("COMMIT").execute(&mut *connection).await?;
        }
        info!(version = migration.version, name = migration.name, "migrated");
    }
    if dialect == Dialect::MySql {
        sqlx::query("SELECT RELEASE_LOCK('sailfish_migration')").fetch_one(&mut *connection).await?;
    }
    Ok(())
}

fn heartbeat(dialect: Dialect) -> Vec<String> {
    let end = dialect.table_end();
    vec![
        format!("CREATE TABLE IF NOT EXISTS t_heartbeat (id BIGINT PRIMARY KEY, at_ms BIGINT NOT NULL{end}"),
        format!("{} t_heartbeat (id, at_ms) VALUES (1, 0)", dialect.insert_ignore()),
    ]
}
