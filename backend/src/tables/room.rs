//! `t_room`: live rooms. A later one has a higher id.

use std::collections::BTreeMap;

use sqlx::AssertSqlSafe;

use super::from_row;
use crate::db::{Connection, Dialect, Pool, marks, padded, rows};
use crate::error::Error;

/// Makes the table. `open_owner_id` is the owner's id while the room is open, then NULL: so an owner has one
/// open room.
pub fn create(dialect: Dialect) -> Vec<String> {
    let (serial, end) = (dialect.serial(), dialect.table_end());
    let index = match dialect {
        Dialect::Sqlite => "",
        Dialect::MySql => ", INDEX i_room_open (is_open, id)",
    };
    let mut statements = vec![format!(
        "CREATE TABLE IF NOT EXISTS t_room (id {serial}, owner_id BIGINT NOT NULL, open_owner_id BIGINT UNIQUE, \
         title VARCHAR(64) NOT NULL, is_open BIGINT NOT NULL, opened_ms BIGINT NOT NULL, closed_ms BIGINT{index}{end}"
    )];
    if dialect == Dialect::Sqlite {
        statements.push("CREATE INDEX IF NOT EXISTS i_room_open ON t_room (is_open, id)".into());
    }
    statements
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomRow {
    pub id: i64,
    pub owner_id: i64,
    pub title: String,
    pub is_open: bool,
    pub opened_ms: i64,
    pub closed_ms: Option<i64>,
}

const COLUMNS: &str = "id, owner_id, title, is_open, opened_ms, closed_ms";

from_row!(RoomRow { id, owner_id, title, is_open, opened_ms, closed_ms });

/// Opens a room; false if its owner has an open one.
pub async fn insert(pool: &Pool, owner_id: i64, title: &str, opened_ms: i64) -> Result<bool, Error> {
    let done = sqlx::query(
        "INSERT INTO t_room (owner_id, open_owner_id, title, is_open, opened_ms) VALUES (?, ?, ?, 1, ?)",
    )
    .bind(owner_id)
    .bind(owner_id)
    .bind(title)
    .bind(opened_ms)
    .execute(pool)
    .await;
    match done {
        Ok(_) => Ok(true),
        Err(error) if Error::is_duplicate(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A user's open room.
pub async fn open_of(pool: &Pool, owner_id: i64) -> Result<Option<RoomRow>, Error> {
    let select = format!("SELECT {COLUMNS} FROM t_room WHERE open_owner_id = ?");
    Ok(sqlx::query_as(AssertSqlSafe(select)).bind(owner_id).fetch_optional(pool).await?)
}

/// A room.
pub async fn get(pool: &Pool, id: i64) -> Result<Option<RoomRow>, Error> {
    let select = format!("SELECT {COLUMNS} FROM t_room WHERE id = ?");
    Ok(sqlx::query_as(AssertSqlSafe(select)).bind(id).fetch_optional(pool).await?)
}

/// Reads rooms that nobody can change until the transaction ends.
pub async fn keep(connection: &mut Connection, dialect: Dialect, ids: &[i64]) -> Result<Vec<RoomRow>, Error> {
    let ids = padded(ids);
    let select = format!(
        "SELECT {COLUMNS} FROM t_room WHERE id IN ({}) ORDER BY id{}",
        marks(ids.len()),
        dialect.for_share()
    );
    let mut query = sqlx::query_as(AssertSqlSafe(select));
    for id in ids {
        query = query.bind(id);
    }
    Ok(query.fetch_all(connection).await?)
}

/// Opens a room for each owner who has none; the ids of all, in the order of their owners.
pub async fn open_for(
    connection: &mut Connection,
    dialect: Dialect,
    owner_ids: &[i64],
    title: &str,
    opened_ms: i64,
) -> Result<Vec<i64>, Error> {
    let statement = format!(
        "{} t_room (owner_id, open_owner_id, title, is_open, opened_ms) VALUES {}",
        dialect.insert_ignore(),
        rows(owner_ids.len(), 5)
    );
    let mut insert = sqlx::query(AssertSqlSafe(statement)).persistent(false);
    for owner_id in owner_ids {
        insert = insert.bind(*owner_id).bind(*owner_id).bind(title).bind(1_i64).bind(opened_ms);
    }
    insert.execute(&mut *connection).await?;
    let select =
        format!("SELECT open_owner_id, id FROM t_room WHERE open_owner_id IN ({})", marks(owner_ids.len()));
    let mut query = sqlx::query_as(AssertSqlSafe(select)).persistent(false);
    for owner_id in owner_ids {
        query = query.bind(*owner_id);
    }
    let ids: Vec<(i64, i64)> = query.fetch_all(connection).await?;
    let ids = BTreeMap::from_iter(ids);
    let id = |owner_id| {
        ids.get(owner_id).copied().ok_or_else(|| Error::internal("a room that was opened is gone"))
    };
    owner_ids.iter().map(id).collect()
}

/// Open rooms below `before`, the latest first.
pub async fn open(pool: &Pool, before: i64, most: u32) -> Result<Vec<RoomRow>, Error> {
    let select =
        format!("SELECT {COLUMNS} FROM t_room WHERE is_open = 1 AND id < ? ORDER BY id DESC LIMIT {most}");
    Ok(sqlx::query_as(AssertSqlSafe(select)).bind(before).fetch_all(pool).await?)
}

/// Closes an open room; whether it was open.
pub async fn close(pool: &Pool, id: i64, closed_ms: i64) -> Result<bool, Error> {
    let update =
        "UPDATE t_room SET is_open = 0, open_owner_id = NULL, closed_ms = ? WHERE id = ? AND is_open = 1";
    Ok(sqlx::query(update).bind(closed_ms).bind(id).execute(pool).await?.rows_affected() == 1)
}
