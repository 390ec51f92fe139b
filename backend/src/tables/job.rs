//! `t_job`: the durable queue, where there is no Redis. A job is taken for a while by moving its time ahead.

use sqlx::AssertSqlSafe;

use super::from_row;
use crate::db::{Connection, Dialect, Pool, marks, padded, rows};
use crate::error::Error;

/// Rows of one `INSERT`.
const ROWS_MAX: usize = 500;

/// How the table is made.
pub fn create(dialect: Dialect) -> Vec<String> {
    let (serial, end) = (dialect.serial(), dialect.table_end());
    let text = dialect.long_text();
    let columns = format!(
        "topic VARCHAR(64) NOT NULL, payload {text} NOT NULL, due_ms BIGINT NOT NULL, tries BIGINT NOT NULL"
    );
    let index = match dialect {
        Dialect::Sqlite => "",
        Dialect::MySql => ", INDEX i_job_due (topic, due_ms, id)",
    };
    let mut statements =
        vec![format!("CREATE TABLE IF NOT EXISTS t_job (id {serial}, {columns}{index}{end}")];
    if dialect == Dialect::Sqlite {
        statements.push("CREATE INDEX IF NOT EXISTS i_job_due ON t_job (topic, due_ms, id)".into());
    }
    statements
}

/// A row.
pub struct JobRow {
    pub id: i64,
    pub payload: String,
    /// How often it was taken, this time included.
    pub tries: i64,
}

from_row!(JobRow { id, payload, tries });

/// Adds jobs of one topic.
pub async fn insert(
    connection: &mut Connection,
    topic: &str,
    payloads: &[String],
    due_ms: i64,
) -> Result<(), Error> {
    for chunk in payloads.chunks(ROWS_MAX) {
        let statement =
            format!("INSERT INTO t_job (topic, payload, due_ms, tries) VALUES {}", rows(chunk.len(), 4));
        // A statement for each number of texts would push all others out of the cache of prepared statements,
        // and save little.
        let mut query = sqlx::query(AssertSqlSafe(statement)).persistent(chunk.len() == 1);
        for payload in chunk {
            query = query.bind(topic).bind(payload).bind(due_ms).bind(0_i64);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Whether a job is due.
pub async fn is_due(pool: &Pool, topic: &str, now_ms: i64) -> Result<bool, Error> {
    let select = "SELECT 1 FROM t_job WHERE topic = ? AND due_ms <= ? LIMIT 1";
    let found = sqlx::query(select).bind(topic).bind(now_ms).fetch_optional(pool).await?;
    Ok(found.is_some())
}

/// Jobs that are due, the longest due first; they are due again at `again_ms`.
pub async fn take(
    connection: &mut Connection,
    dialect: Dialect,
    topic: &str,
    now_ms: i64,
    again_ms: i64,
    most: u32,
) -> Result<Vec<JobRow>, Error> {
    let lock = match dialect {
        Dialect::Sqlite => "",
        Dialect::MySql => " FOR UPDATE SKIP LOCKED",
    };
    let select = format!(
        "SELECT id, payload, tries FROM t_job WHERE topic = ? AND due_ms <= ? ORDER BY due_ms, id LIMIT {most}{lock}"
    );
    let mut jobs: Vec<JobRow> =
        sqlx::query_as(AssertSqlSafe(select)).bind(topic).bind(now_ms).fetch_all(&mut *connection).await?;
    jobs.iter_mut().for_each(|job| job.tries += 1);
    if !jobs.is_empty() {
        let ids = padded(&jobs.iter().map(|job| job.id).collect::<Vec<_>>());
        let update =
            format!("UPDATE t_job SET due_ms = ?, tries = tries + 1 WHERE id IN ({})", marks(ids.len()));
        let mut query = sqlx::query(AssertSqlSafe(update)).bind(again_ms);
        for id in ids {
            query = query.bind(id);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(jobs)
}

/// Removes jobs.
pub async fn delete(connection: &mut Connection, ids: &[i64]) -> Result<(), Error> {
    for chunk in ids.chunks(ROWS_MAX) {
        let ids = padded(chunk);
        let delete = format!("DELETE FROM t_job WHERE id IN ({})", marks(ids.len()));
        let mut query = sqlx::query(AssertSqlSafe(delete));
        for id in ids {
            query = query.bind(id);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Moves a job to another topic.
pub async fn move_to(connection: &mut Connection, id: i64, topic: &str) -> Result<(), Error> {
    sqlx::query("UPDATE t_job SET topic = ? WHERE id = ?").bind(topic).bind(id).execute(connection).await?;
    Ok(())
}

/// How many jobs a topic has.
pub async fn count(connection: &mut Connection, topic: &str) -> Result<i64, Error> {
    let count = sqlx::query_scalar("SELECT COUNT(*) FROM t_job WHERE topic = ?").bind(topic);
    Ok(count.fetch_one(connection).await?)
}
