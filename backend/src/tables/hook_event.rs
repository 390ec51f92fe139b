//! `t_hook_event`: events that webhooks have yet to get, written in the transaction of their cause.

use std::collections::BTreeMap;

use sqlx::AssertSqlSafe;

use super::from_row;
use crate::db::{Connection, Dialect, Pool, marks, padded, rows};
use crate::error::Error;

/// Rows of one statement.
const ROWS_MAX: usize = 200;

/// How the table is made. `user_id` is the user whose share an event counts against.
pub fn create(dialect: Dialect) -> Vec<String> {
    let (serial, end, hook) = (dialect.serial(), dialect.table_end(), dialect.key(32));
    let indexes = [("i_hook_event_due", "hook, due_ms"), ("i_hook_event_user", "hook, user_id")];
    let inline = match dialect {
        Dialect::Sqlite => String::new(),
        Dialect::MySql => indexes.map(|(name, of)| format!(", INDEX {name} ({of})")).concat(),
    };
    let mut statements = vec![format!(
        "CREATE TABLE IF NOT EXISTS t_hook_event (id {serial}, hook {hook} NOT NULL, user_id BIGINT NOT NULL, payload TEXT NOT NULL, \
         created_ms BIGINT NOT NULL, due_ms BIGINT NOT NULL, tries BIGINT NOT NULL DEFAULT 0{inline}{end}"
    )];
    if dialect == Dialect::Sqlite {
        statements.extend(
            indexes.map(|(name, of)| format!("CREATE INDEX IF NOT EXISTS {name} ON t_hook_event ({of})")),
        );
    }
    statements
}

/// An event to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// The user whose share it counts against.
    pub user_id: i64,
    /// Its JSON.
    pub payload: String,
}

/// An event that was taken.
#[derive(Clone, Debug)]
pub struct EventRow {
    pub id: i64,
    pub payload: String,
    pub created_ms: i64,
    /// How often it failed.
    pub tries: i64,
}

from_row!(EventRow { id, payload, created_ms, tries });

/// Adds events of one hook.
pub async fn insert(
    connection: &mut Connection,
    hook: &str,
    events: &[NewEvent],
    now_ms: i64,
) -> Result<(), Error> {
    for chunk in events.chunks(ROWS_MAX) {
        let statement = format!(
            "INSERT INTO t_hook_event (hook, user_id, payload, created_ms, due_ms) VALUES {}",
            rows(chunk.len(), 5)
        );
        let mut query = sqlx::query(AssertSqlSafe(statement)).persistent(chunk.len() == 1);
        for event in chunk {
            query = query.bind(hook.as_bytes().to_vec()).bind(event.user_id).bind(&event.payload);
            query = query.bind(now_ms).bind(now_ms);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// How many events of a hook wait that count against each of these users.
pub async fn waiting_of(
    connection: &mut Connection,
    hook: &str,
    users: &[i64],
) -> Result<BTreeMap<i64, u64>, Error> {
    let mut counts = BTreeMap::new();
    for chunk in users.chunks(ROWS_MAX) {
        let ids = padded(chunk);
        let statement = format!(
            "SELECT user_id, COUNT(*) FROM t_hook_event WHERE hook = ? AND user_id IN ({}) GROUP BY user_id",
            marks(ids.len())
        );
        let mut query = sqlx::query_as(AssertSqlSafe(statement)).bind(hook.as_bytes().to_vec());
        for id in ids {
            query = query.bind(id);
        }
        let rows: Vec<(i64, i64)> = query.fetch_all(&mut *connection).await?;
        counts.extend(rows.into_iter().map(|(user_id, count)| (user_id, count as u64)));
    }
    Ok(counts)
}

/// Whether an event is due.
pub async fn is_due(pool: &Pool, hook: &str, now_ms: i64) -> Result<bool, Error> {
    let select = "SELECT 1 FROM t_hook_event WHERE hook = ? AND due_ms <= ? LIMIT 1";
    let found = sqlx::query(select).bind(hook.as_bytes().to_vec()).bind(now_ms).fetch_optional(pool).await?;
    Ok(found.is_some())
}

/// Takes events that are due, in their order; nobody else takes them before `again_ms`.
pub async fn take(
    connection: &mut Connection,
    dialect: Dialect,
    hook: &str,
    now_ms: i64,
    again_ms: i64,
    most: usize,
) -> Result<Vec<EventRow>, Error> {
    let lock = match dialect {
        Dialect::Sqlite => "",
        Dialect::MySql => " FOR UPDATE SKIP LOCKED",
    };
    let select = format!(
        "SELECT id, payload, created_ms, tries FROM t_hook_event WHERE hook = ? AND due_ms <= ? \
         ORDER BY due_ms, id LIMIT {most}{lock}"
    );
    let query = sqlx::query_as(AssertSqlSafe(select)).bind(hook.as_bytes().to_vec()).bind(now_ms);
    let events: Vec<EventRow> = query.fetch_all(&mut *connection).await?;
    let ids: Vec<i64> = events.iter().map(|event| event.id).collect();
    due_at(connection, &ids, again_ms, "").await?;
    Ok(events)
}

/// Lets events that failed rest until `due_ms`.
pub async fn rest(connection: &mut Connection, ids: &[i64], due_ms: i64) -> Result<(), Error> {
    due_at(connection, ids, due_ms, ", tries = tries + 1").await
}

async fn due_at(connection: &mut Connection, ids: &[i64], due_ms: i64, besides: &str) -> Result<(), Error> {
    let set = format!("UPDATE t_hook_event SET due_ms = ?{besides} WHERE id IN");
    for chunk in ids.chunks(ROWS_MAX) {
        let ids = padded(chunk);
        let mut query = sqlx::query(AssertSqlSafe(format!("{set} ({})", marks(ids.len())))).bind(due_ms);
        for id in ids {
            query = query.bind(id);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Removes events.
pub async fn delete(connection: &mut Connection, ids: &[i64]) -> Result<(), Error> {
    for chunk in ids.chunks(ROWS_MAX) {
        let ids = padded(chunk);
        let statement = format!("DELETE FROM t_hook_event WHERE id IN ({})", marks(ids.len()));
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for id in ids {
            query = query.bind(id);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// How many events of a hook wait.
pub async fn count(pool: &Pool, hook: &str) -> Result<u64, Error> {
    let query = sqlx::query_scalar("SELECT COUNT(*) FROM t_hook_event WHERE hook = ?");
    let count: i64 = query.bind(hook.as_bytes().to_vec()).fetch_one(pool).await?;
    Ok(count as u64)
}
