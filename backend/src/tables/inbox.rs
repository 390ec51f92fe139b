//! `t_inbox`: messages that did not reach their receivers, in the order in which they came.

use sqlx::{AssertSqlSafe, Row};

use crate::db::{Connection, Dialect, Pool, marks, rows};
use crate::error::Error;

/// Rows of one statement.
const ROWS_MAX: usize = 200;

/// How the table is made. A `message_id` is a 64-bit pattern, of which only equality counts.
pub fn create(dialect: Dialect) -> Vec<String> {
    let (serial, end, key) =
        (dialect.serial(), dialect.table_end(), dialect.key(CLIENT_MSG_ID_BYTES_MAX as u32));
    let (data, index) = match dialect {
        Dialect::Sqlite => ("BLOB", ""),
        Dialect::MySql => {
            ("MEDIUMBLOB", ", INDEX i_inbox_user (app, user_id, id), INDEX i_inbox_created (created_ms)")
        }
    };
    let mut statements = vec![format!(
        "CREATE TABLE IF NOT EXISTS t_inbox (id {serial}, app BIGINT NOT NULL, user_id BIGINT NOT NULL, \
         message_id BIGINT NOT NULL, sender BIGINT NOT NULL, biz_code BIGINT NOT NULL, client_msg_id {key} NOT NULL, \
         data {data} NOT NULL, created_ms BIGINT NOT NULL, UNIQUE (app, user_id, message_id){index}{end}"
    )];
    if dialect == Dialect::Sqlite {
        statements.push("CREATE INDEX IF NOT EXISTS i_inbox_user ON t_inbox (app, user_id, id)".into());
        statements.push("CREATE INDEX IF NOT EXISTS i_inbox_created ON t_inbox (created_ms)".into());
    }
    statements
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxRow {
    pub app: i32,
    /// The receiver.
    pub user_id: i64,
    pub message_id: u64,
    pub sender: i64,
    pub biz_code: i32,
    /// The sender's name for it; may be empty.
    pub client_msg_id: String,
    pub data: Vec<u8>,
}

/// Keeps messages; those that are kept already stay as they are.
pub async fn insert(
    connection: &mut Connection,
    dialect: Dialect,
    messages: &[InboxRow],
    created_ms: i64,
) -> Result<(), Error> {
    let update = dialect.on_conflict_update("app, user_id, message_id", &["app"]); // to what it is
    for chunk in messages.chunks(ROWS_MAX) {
        let statement = format!(
            "INSERT INTO t_inbox (app, user_id, message_id, sender, biz_code, client_msg_id, data, created_ms) VALUES {}{update}",
            rows(chunk.len(), 8)
        );
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for message in chunk {
            query = query
                .bind(i64::from(message.app))
                .bind(message.user_id)
                .bind(message.message_id.cast_signed())
                .bind(message.sender)
                .bind(i64::from(message.biz_code))
                .bind(message.client_msg_id.clone().into_bytes())
                .bind(message.data.clone())
                .bind(created_ms);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Which of the receivers, each of an app, have more than `most` messages, and how many.
pub async fn fuller_than(
    connection: &mut Connection,
    dialect: Dialect,
    users: &[(i32, i64)],
    most: i64,
) -> Result<Vec<(i32, i64, i64)>, Error> {
    let mut found = Vec::new();
    for chunk in users.chunks(ROWS_MAX) {
        let select = format!(
            "SELECT app, user_id, COUNT(*) FROM t_inbox WHERE (app, user_id) IN ({}) GROUP BY app, user_id HAVING COUNT(*) > ?",
            dialect.tuples(chunk.len(), 2)
        );
        let mut query = sqlx::query(AssertSqlSafe(select));
        for (app, user_id) in chunk {
            query = query.bind(i64::from(*app)).bind(*user_id);
        }
        for row in query.bind(most).fetch_all(&mut *connection).await? {
            found.push((row.try_get::<i64, _>(0)? as i32, row.try_get(1)?, row.try_get(2)?));
        }
    }
    Ok(found)
}

/// Removes a receiver's oldest messages.
pub async fn drop_oldest(
    connection: &mut Connection,
    (app, user_id): (i32, i64),
    count: i64,
) -> Result<(), Error> {
    let select = format!("SELECT id FROM t_inbox WHERE app = ? AND user_id = ? ORDER BY id LIMIT {count}");
    let query = sqlx::query(AssertSqlSafe(select)).bind(i64::from(app)).bind(user_id);
    let ids: Vec<i64> = ids(query.fetch_all(&mut *connection).await?)?;
    delete(connection, &ids).await
}

/// Which of the receivers, each of an app, have messages.
pub async fn waiting(pool: &Pool, dialect: Dialect, users: &[(i32, i64)]) -> Result<Vec<(i32, i64)>, Error> {
    let mut found = Vec::new();
    for chunk in users.chunks(ROWS_MAX) {
        let select = format!(
            "SELECT DISTINCT app, user_id FROM t_inbox WHERE (app, user_id) IN ({})",
            dialect.tuples(chunk.len(), 2)
        );
        let mut query = sqlx::query(AssertSqlSafe(select));
        for (app, user_id) in chunk {
            query = query.bind(i64::from(*app)).bind(*user_id);
        }
        for row in query.fetch_all(pool).await? {
            found.push((row.try_get::<i64, _>(0)? as i32, row.try_get(1)?));
        }
    }
    Ok(found)
}

/// A receiver's oldest messages, with their ids here.
pub async fn oldest(
    pool: &Pool,
    (app, user_id): (i32, i64),
    most: u32,
) -> Result<Vec<(i64, InboxRow)>, Error> {
    let select = format!(
        "SELECT id, message_id, sender, biz_code, client_msg_id, data FROM t_inbox WHERE app = ? AND user_id = ? \
         ORDER BY id LIMIT {most}"
    );
    let found = sqlx::query(AssertSqlSafe(select)).bind(i64::from(app)).bind(user_id).fetch_all(pool).await?;
    let mut messages = Vec::with_capacity(found.len());
    for row in found {
        let message = InboxRow {
            app,
            user_id,
            message_id: row.try_get::<i64, _>(1)?.cast_unsigned(),
            sender: row.try_get(2)?,
            biz_code: row.try_get::<i64, _>(3)? as i32,
            client_msg_id: String::from_utf8_lossy(&row.try_get::<Vec<u8>, _>(4)?).into_owned(),
            data: row.try_get(5)?,
        };
        messages.push((row.try_get(0)?, message));
    }
    Ok(messages)
}

/// How many messages a receiver has.
pub async fn count(pool: &Pool, app: i32, user_id: i64) -> Result<i64, Error> {
    let select = sqlx::query("SELECT COUNT(*) FROM t_inbox WHERE app = ? AND user_id = ?");
    Ok(select.bind(i64::from(app)).bind(user_id).fetch_one(pool).await?.try_get(0)?)
}

/// Messages that came before `before_ms`.
pub async fn older_than(pool: &Pool, before_ms: i64, most: u32) -> Result<Vec<i64>, Error> {
    let select = format!("SELECT id FROM t_inbox WHERE created_ms < ? LIMIT {most}");
    ids(sqlx::query(AssertSqlSafe(select)).bind(before_ms).fetch_all(pool).await?)
}

/// Removes messages.
pub async fn delete(connection: &mut Connection, ids: &[i64]) -> Result<(), Error> {
    for chunk in ids.chunks(ROWS_MAX) {
        let statement = format!("DELETE FROM t_inbox WHERE id IN ({})", marks(chunk.len()));
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for id in chunk {
            query = query.bind(*id);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

fn ids(rows: Vec<sqlx::any::AnyRow>) -> Result<Vec<i64>, Error> {
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// The longest name that a sender gives a message.
pub const CLIENT_MSG_ID_BYTES_MAX: usize = 64;
