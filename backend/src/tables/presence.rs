//! `t_presence`: the last report about each user's device. Its row is locked while anything about that device
//! is changed.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, FromRow};

use super::{Column, from_row};
use crate::db::KeyType::{Bytes, Number};
use crate::db::{Connection, Dialect, Pool, rows};
use crate::error::Error;

/// How the table is made.
pub fn create(dialect: Dialect) -> Vec<String> {
    let (end, device) = (dialect.table_end(), dialect.key(DEVICE_BYTES_MAX as u32));
    vec![format!(
        "CREATE TABLE IF NOT EXISTS t_presence (app BIGINT NOT NULL, user_id BIGINT NOT NULL, device {device} NOT NULL, \
         online_login BIGINT NOT NULL, offline_login BIGINT NOT NULL, PRIMARY KEY (app, user_id, device){end}"
    )]
}

/// A user's device. Rows are locked in its order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    pub app: i32,
    pub user_id: i64,
    pub device: String,
}

/// The highest stamps that were reported for a device; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    pub online_login: i64,
    pub offline_login: i64,
}

impl Presence {
    /// Of equal stamps the end counts: a session that ended does not come back.
    pub fn is_online(self) -> bool {
        self.online_login > self.offline_login
    }
}

fn select_devices(dialect: Dialect, count: usize) -> String {
    format!(
        "SELECT app, user_id, device, online_login, offline_login FROM t_presence WHERE (app, user_id, device) IN ({})",
        dialect.tuples(count, &[Number, Number, Bytes])
    )
}

fn select_of_users(dialect: Dialect, count: usize) -> String {
    format!(
        "SELECT app, user_id, device, online_login, offline_login FROM t_presence WHERE (app, user_id) IN ({})",
        dialect.tuples(count, &[Number, Number])
    )
}

/// Statements for a number of tuples.
#[cfg(test)]
pub const OF_TUPLES: &[fn(Dialect, usize) -> String] = &[select_devices, select_of_users];

/// Raises the stamps of devices to those of the events, and locks the rows until the transaction ends.
/// Returns the stamps after that.
pub async fn raise(
    connection: &mut Connection,
    dialect: Dialect,
    told: &BTreeMap<Device, Presence>,
) -> Result<BTreeMap<Device, Presence>, Error> {
    let update = dialect.on_conflict_greatest("app, user_id, device", &["online_login", "offline_login"]);
    let statement = format!(
        "INSERT INTO t_presence (app, user_id, device, online_login, offline_login) VALUES {}{update}",
        rows(told.len(), 5)
    );
    let mut query = sqlx::query(AssertSqlSafe(statement));
    for (device, presence) in told {
        query = bind(query, device).bind(presence.online_login).bind(presence.offline_login);
    }
    query.execute(&mut *connection).await?;
    let mut query = sqlx::query(AssertSqlSafe(select_devices(dialect, told.len())));
    for device in told.keys() {
        query = bind(query, device);
    }
    query.fetch_all(connection).await?.iter().map(device_of).collect()
}

/// A user's devices, with the stamps of each.
pub async fn of_user(pool: &Pool, app: i32, user_id: i64) -> Result<Vec<(String, Presence)>, Error> {
    let select = "SELECT device, online_login, offline_login FROM t_presence WHERE app = ? AND user_id = ? ORDER BY device";
    let found = sqlx::query(select).bind(i64::from(app)).bind(user_id).fetch_all(pool).await?;
    let device = |row: &AnyRow| Ok((String::read(row, "device")?, Presence::from_row(row)?));
    found.iter().map(device).collect()
}

/// The devices of these users, each of an app, that are online.
pub async fn online(pool: &Pool, dialect: Dialect, users: &[(i32, i64)]) -> Result<BTreeSet<Device>, Error> {
    let mut online = BTreeSet::new();
    for (device, presence) in of_users(pool, dialect, users).await? {
        if presence.is_online() {
            online.insert(device);
        }
    }
    Ok(online)
}

/// Which of these users, each of an app, have ever had a session.
pub async fn seen(
    pool: &Pool,
    dialect: Dialect,
    users: &[(i32, i64)],
) -> Result<BTreeSet<(i32, i64)>, Error> {
    let devices = of_users(pool, dialect, users).await?;
    Ok(devices.into_iter().map(|(device, _)| (device.app, device.user_id)).collect())
}

async fn of_users(
    pool: &Pool,
    dialect: Dialect,
    users: &[(i32, i64)],
) -> Result<Vec<(Device, Presence)>, Error> {
    let mut found = Vec::new();
    for chunk in users.chunks(ROWS_MAX) {
        let mut query = sqlx::query(AssertSqlSafe(select_of_users(dialect, chunk.len())));
        for (app, user_id) in chunk {
            query = query.bind(i64::from(*app)).bind(*user_id);
        }
        for row in query.fetch_all(pool).await? {
            found.push(device_of(&row)?);
        }
    }
    Ok(found)
}

/// The devices of users above `after`, ascending by user, online or not: at most `most`, and all or none of a
/// user's. Empty after the last one.
pub async fn page(pool: &Pool, app: i32, after: i64, most: u32) -> Result<Vec<(Device, Presence)>, Error> {
    let select = format!(
        "SELECT app, user_id, device, online_login, offline_login FROM t_presence WHERE app = ? AND user_id > ? \
         ORDER BY user_id, device LIMIT {most}"
    );
    let found = sqlx::query(AssertSqlSafe(select)).bind(i64::from(app)).bind(after).fetch_all(pool).await?;
    let mut page = found.iter().map(device_of).collect::<Result<Vec<_>, _>>()?;
    let ends = page.last().map(|(device, _)| device.user_id);
    let is_whole = page.first().map(|(device, _)| device.user_id) == ends;
    if page.len() == most as usize && !is_whole {
        page.retain(|(device, _)| Some(device.user_id) != ends);
    }
    Ok(page)
}

fn device_of(row: &AnyRow) -> Result<(Device, Presence), Error> {
    Ok((Device::from_row(row)?, Presence::from_row(row)?))
}

from_row!(Device { app, user_id, device });
from_row!(Presence { online_login, offline_login });

type Query<'q> = sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments>;

/// Binds the columns of a device's key.
pub fn bind<'q>(query: Query<'q>, device: &Device) -> Query<'q> {
    query.bind(i64::from(device.app)).bind(device.user_id).bind(device.device.clone().into_bytes())
}

/// Users of one statement.
const ROWS_MAX: usize = 200;
/// The longest name of a device.
pub const DEVICE_BYTES_MAX: usize = 16;
