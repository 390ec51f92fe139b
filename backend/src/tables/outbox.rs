//! `t_outbox`: messages to clients, written in the transaction of their cause, and not known to be pushed.

use sqlx::AssertSqlSafe;

use super::from_row;
use crate::db::{Connection, Dialect, Pool, marks, padded, rows};
use crate::error::Error;
use crate::outbox::{Message, Target};
use crate::tables::last_ids;

/// Rows of one statement.
const ROWS_MAX: usize = 512;

/// Makes the table. It has no index but its key: it is nearly empty, and is read in the order of its key.
pub fn create(dialect: Dialect) -> Vec<String> {
    let (serial, end, key) = (dialect.serial(), dialect.table_end(), dialect.key(64));
    vec![format!(
        "CREATE TABLE IF NOT EXISTS t_outbox (id {serial}, name {key} NOT NULL, app BIGINT NOT NULL, \
         is_room BIGINT NOT NULL, target_id BIGINT NOT NULL, biz_code BIGINT NOT NULL, payload TEXT NOT NULL, \
         due_ms BIGINT NOT NULL{end}"
    )]
}

/// Adds messages. Returns their ids, ascending. The process that commits them pushes them; from
/// [`OWN_TIME_MS`] on any process may.
pub async fn insert(
    connection: &mut Connection,
    messages: &[Message],
    now_ms: i64,
) -> Result<Vec<i64>, Error> {
    let mut ids = Vec::with_capacity(messages.len());
    for chunk in messages.chunks(ROWS_MAX) {
        let statement = format!(
            "INSERT INTO t_outbox (name, app, is_room, target_id, biz_code, payload, due_ms) VALUES {}",
            rows(chunk.len(), 7)
        );
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for message in chunk {
            let (is_room, target_id) = match message.target {
                Target::User(user_id) => (0_i64, user_id),
                Target::Room(room_id) => (1, room_id),
            };
            query = query
                .bind(message.key.clone().into_bytes())
                .bind(i64::from(message.app))
                .bind(is_room)
                .bind(target_id)
                .bind(i64::from(message.biz_code))
                .bind(message.payload.clone())
                .bind(now_ms + OWN_TIME_MS);
        }
        query.execute(&mut *connection).await?;
        ids.extend(last_ids(connection, chunk.len() as i64).await?);
    }
    Ok(ids)
}

/// A row.
struct MessageRow {
    id: i64,
    name: String,
    app: i32,
    is_room: bool,
    target_id: i64,
    biz_code: i32,
    payload: String,
}

from_row!(MessageRow { id, name, app, is_room, target_id, biz_code, payload });

/// Messages that nobody has pushed in time, the oldest first.
pub async fn due(pool: &Pool, now_ms: i64, most: u32) -> Result<Vec<(i64, Message)>, Error> {
    let statement = format!(
        "SELECT id, name, app, is_room, target_id, biz_code, payload FROM t_outbox WHERE due_ms <= ? ORDER BY id LIMIT {most}"
    );
    let found: Vec<MessageRow> =
        sqlx::query_as(AssertSqlSafe(statement)).bind(now_ms).fetch_all(pool).await?;
    let message = |row: MessageRow| {
        let MessageRow { id, name, app, is_room, target_id, biz_code, payload } = row;
        let target = if is_room { Target::Room(target_id) } else { Target::User(target_id) };
        (id, Message { key: name, app, target, biz_code, payload })
    };
    Ok(found.into_iter().map(message).collect())
}

/// Reserves messages for the caller, until `until_ms`.
pub async fn claim(pool: &Pool, ids: &[i64], until_ms: i64) -> Result<(), Error> {
    for chunk in ids.chunks(ROWS_MAX) {
        let statement = format!("UPDATE t_outbox SET due_ms = ? WHERE id IN ({})", marks(chunk.len()));
        let mut query = sqlx::query(AssertSqlSafe(statement)).bind(until_ms);
        for id in chunk {
            query = query.bind(*id);
        }
        query.execute(pool).await?;
    }
    Ok(())
}

/// Removes messages.
pub async fn delete(connection: &mut Connection, ids: &[i64]) -> Result<(), Error> {
    for chunk in ids.chunks(ROWS_MAX) {
        let ids = padded(chunk);
        let statement = format!("DELETE FROM t_outbox WHERE id IN ({})", marks(ids.len()));
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for id in ids {
            query = query.bind(id);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// How many messages there are.
pub async fn count(pool: &Pool) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("SELECT COUNT(*) FROM t_outbox").fetch_one(pool).await?)
}

/// How long a message is left to the process that wrote it.
pub const OWN_TIME_MS: i64 = 5_000;
