//! `t_room_member`: which devices are in which rooms, as gateways report; and for a while, which have left.

use std::collections::BTreeSet;

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, FromRow};

use super::Column;
use super::presence::{Device, bind};
use crate::db::KeyType::{Bytes, Number};
use crate::db::{Connection, Dialect, Pool, rows};
use crate::error::Error;

/// Rows of one statement.
const ROWS_MAX: usize = 500;

/// How the table is made.
pub fn create(dialect: Dialect) -> Vec<String> {
    let (end, device) = (dialect.table_end(), dialect.key(super::presence::DEVICE_BYTES_MAX as u32));
    let index = match dialect {
        Dialect::Sqlite => "",
        Dialect::MySql => ", INDEX i_room_member_device (app, user_id, device)",
    };
    let mut statements = vec![format!(
        "CREATE TABLE IF NOT EXISTS t_room_member (app BIGINT NOT NULL, room_id BIGINT NOT NULL, user_id BIGINT NOT NULL, \
         device {device} NOT NULL, login BIGINT NOT NULL, seq BIGINT NOT NULL, is_in BIGINT NOT NULL, \
         PRIMARY KEY (app, room_id, user_id, device){index}{end}"
    )];
    if dialect == Dialect::Sqlite {
        let index = "CREATE INDEX IF NOT EXISTS i_room_member_device ON t_room_member (app, user_id, device)";
        statements.push(index.into());
    }
    statements
}

/// The last report about a device and a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    pub device: Device,
    pub room_id: i64,
    /// The session's stamp.
    pub login: i64,
    /// Its shard's number of the event.
    pub seq: i64,
    /// Whether it joined, or left.
    pub is_in: bool,
}

impl FromRow<'_, AnyRow> for MemberRow {
    fn from_row(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            device: Device::from_row(row)?,
            room_id: Column::read(row, "room_id")?,
            login: Column::read(row, "login")?,
            seq: Column::read(row, "seq")?,
            is_in: Column::read(row, "is_in")?,
        })
    }
}

fn select_of_devices(dialect: Dialect, count: usize) -> String {
    format!(
        "SELECT app, user_id, device, room_id, login, seq, is_in FROM t_room_member WHERE (app, user_id, device) IN ({})",
        dialect.tuples(count, &[Number, Number, Bytes])
    )
}

fn delete_rows(dialect: Dialect, count: usize) -> String {
    format!(
        "DELETE FROM t_room_member WHERE (app, user_id, device, room_id) IN ({})",
        dialect.tuples(count, &[Number, Number, Bytes, Number])
    )
}

fn select_among(dialect: Dialect, count: usize) -> String {
    format!(
        "SELECT DISTINCT room_id, user_id FROM t_room_member WHERE is_in = 1 AND (app, room_id, user_id) IN ({})",
        dialect.tuples(count, &[Number; 3])
    )
}

/// Statements for a number of tuples.
#[cfg(test)]
pub const OF_TUPLES: &[fn(Dialect, usize) -> String] = &[select_of_devices, delete_rows, select_among];

/// All that is known of devices whose presence is locked.
pub async fn of_devices(
    connection: &mut Connection,
    dialect: Dialect,
    devices: &[&Device],
) -> Result<Vec<MemberRow>, Error> {
    let mut members = Vec::new();
    for chunk in devices.chunks(ROWS_MAX) {
        let mut query = sqlx::query(AssertSqlSafe(select_of_devices(dialect, chunk.len())));
        for device in chunk {
            query = bind(query, device);
        }
        for row in query.fetch_all(&mut *connection).await? {
            members.push(MemberRow::from_row(&row)?);
        }
    }
    Ok(members)
}

/// Writes rows, over those that are there.
pub async fn put(connection: &mut Connection, dialect: Dialect, members: &[MemberRow]) -> Result<(), Error> {
    let update = dialect.on_conflict_update("app, room_id, user_id, device", &["login", "seq", "is_in"]);
    for chunk in members.chunks(ROWS_MAX) {
        let statement = format!(
            "INSERT INTO t_room_member (app, user_id, device, room_id, login, seq, is_in) VALUES {}{update}",
            rows(chunk.len(), 7)
        );
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for member in chunk {
            query = bind(query, &member.device).bind(member.room_id).bind(member.login);
            query = query.bind(member.seq).bind(i64::from(member.is_in));
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Removes rows.
pub async fn delete(
    connection: &mut Connection,
    dialect: Dialect,
    members: &[(Device, i64)],
) -> Result<(), Error> {
    for chunk in members.chunks(ROWS_MAX) {
        let mut query = sqlx::query(AssertSqlSafe(delete_rows(dialect, chunk.len())));
        for (device, room_id) in chunk {
            query = bind(query, device).bind(*room_id);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Users in a room above `after`, ascending, each once.
pub async fn users(pool: &Pool, app: i32, room_id: i64, after: i64, most: u32) -> Result<Vec<i64>, Error> {
    let select = format!(
        "SELECT DISTINCT user_id FROM t_room_member WHERE app = ? AND room_id = ? AND user_id > ? AND is_in = 1 \
         ORDER BY user_id LIMIT {most}"
    );
    let query = sqlx::query_scalar(AssertSqlSafe(select)).bind(i64::from(app)).bind(room_id).bind(after);
    Ok(query.fetch_all(pool).await?)
}

/// Which of these (room, user) pairs are members.
pub async fn among(
    connection: &mut Connection,
    dialect: Dialect,
    app: i32,
    pairs: &[(i64, i64)],
) -> Result<BTreeSet<(i64, i64)>, Error> {
    let mut found = BTreeSet::new();
    for chunk in pairs.chunks(ROWS_MAX) {
        let select = select_among(dialect, chunk.len());
        let mut query = sqlx::query_as(AssertSqlSafe(select)).persistent(chunk.len() == 1);
        for (room_id, user_id) in chunk {
            query = query.bind(i64::from(app)).bind(*room_id).bind(*user_id);
        }
        let pairs: Vec<(i64, i64)> = query.fetch_all(&mut *connection).await?;
        found.extend(pairs);
    }
    Ok(found)
}
