//! `t_hand_over`: devices that an inbox is to be delivered to, and which process does it.
//!
//! A receiver has a row for each class of device. Each session that comes there requests it once more, and it
//! belongs to one holder at a time, who renews it. It goes when all requests are done; if a holder dies,
//! another one takes it over.

use sqlx::{AssertSqlSafe, FromRow};

use super::from_row;
use super::presence::{DEVICE_BYTES_MAX, Device, bind};
use crate::db::{Connection, Dialect, Pool, rows};
use crate::error::Error;

/// Rows of one statement.
const ROWS_MAX: usize = 200;

/// How the table is made.
pub fn create(dialect: Dialect) -> Vec<String> {
    let (end, holder) = (dialect.table_end(), dialect.key(32));
    vec![format!(
        "CREATE TABLE IF NOT EXISTS t_hand_over (app BIGINT NOT NULL, user_id BIGINT NOT NULL, asks BIGINT NOT NULL, \
         holder {holder} NOT NULL, until_ms BIGINT NOT NULL, PRIMARY KEY (app, user_id){end}"
    )]
}

/// Makes it a row for each device. Existing rows have no device, and count for all.
pub fn add_device(dialect: Dialect) -> Vec<String> {
    match dialect {
        Dialect::MySql => vec![format!(
            "ALTER TABLE t_hand_over ADD COLUMN device VARBINARY({DEVICE_BYTES_MAX}) NOT NULL DEFAULT '', DROP PRIMARY KEY, \
             ADD PRIMARY KEY (app, user_id, device)"
        )],
        Dialect::Sqlite => [
            "ALTER TABLE t_hand_over RENAME TO t_hand_over_before",
            "CREATE TABLE t_hand_over (app BIGINT NOT NULL, user_id BIGINT NOT NULL, device BLOB NOT NULL DEFAULT x'', \
             asks BIGINT NOT NULL, holder BLOB NOT NULL, until_ms BIGINT NOT NULL, PRIMARY KEY (app, user_id, device))",
            "INSERT INTO t_hand_over (app, user_id, asks, holder, until_ms) \
             SELECT app, user_id, asks, holder, until_ms FROM t_hand_over_before",
            "DROP TABLE t_hand_over_before",
        ]
        .map(String::from)
        .to_vec(),
    }
}

/// Adds the time of the first request.
pub fn add_since(_: Dialect) -> Vec<String> {
    vec!["ALTER TABLE t_hand_over ADD COLUMN since_ms BIGINT NOT NULL DEFAULT 0".into()]
}

/// A hand-over to a device, as one holder has it.
#[derive(Clone, Debug)]
pub struct Lease {
    pub to: Device,
    pub holder: String,
}

/// Requests deliveries to devices once more.
pub async fn ask(
    connection: &mut Connection,
    dialect: Dialect,
    devices: &[&Device],
    now_ms: i64,
) -> Result<(), Error> {
    let update = dialect.on_conflict_set("app, user_id, device", "asks = asks + 1");
    for chunk in devices.chunks(ROWS_MAX) {
        let statement = format!(
            "INSERT INTO t_hand_over (app, user_id, device, asks, holder, until_ms, since_ms) VALUES {}{update}",
            rows(chunk.len(), 7)
        );
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for device in chunk {
            query = bind(query, device).bind(1_i64).bind(Vec::new()).bind(0_i64).bind(now_ms);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Takes an unclaimed row until `until_ms`. Returns whether it was unclaimed.
pub async fn take(pool: &Pool, lease: &Lease, now_ms: i64, until_ms: i64) -> Result<bool, Error> {
    let update = "UPDATE t_hand_over SET holder = ?, until_ms = ? WHERE app = ? AND user_id = ? AND device = ? AND until_ms <= ?";
    let query = sqlx::query(update).bind(lease.holder.as_bytes().to_vec()).bind(until_ms);
    Ok(bind(query, &lease.to).bind(now_ms).execute(pool).await?.rows_affected() == 1)
}

/// Renews it until `until_ms`; false if it was lost.
pub async fn renew(pool: &Pool, lease: &Lease, until_ms: i64) -> Result<bool, Error> {
    let update =
        "UPDATE t_hand_over SET until_ms = ? WHERE app = ? AND user_id = ? AND device = ? AND holder = ?";
    let query = bind(sqlx::query(update).bind(until_ms), &lease.to);
    Ok(query.bind(lease.holder.as_bytes().to_vec()).execute(pool).await?.rows_affected() == 1)
}

/// The requests of a holder's row.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// How often it was requested.
    pub asks: i64,
    /// When it was requested first.
    pub since_ms: i64,
}

from_row!(Asked { asks, since_ms });

/// The requests; `None` if the row was lost.
pub async fn asked(pool: &Pool, lease: &Lease) -> Result<Option<Asked>, Error> {
    let select =
        "SELECT asks, since_ms FROM t_hand_over WHERE app = ? AND user_id = ? AND device = ? AND holder = ?";
    let query = bind(sqlx::query(select), &lease.to);
    let row = query.bind(lease.holder.as_bytes().to_vec()).fetch_optional(pool).await?;
    Ok(row.as_ref().map(Asked::from_row).transpose()?)
}

/// Ends it, unless it was requested more often than that. Returns whether it has ended.
pub async fn end(pool: &Pool, lease: &Lease, asks: i64) -> Result<bool, Error> {
    let delete =
        "DELETE FROM t_hand_over WHERE app = ? AND user_id = ? AND device = ? AND holder = ? AND asks = ?";
    let query = bind(sqlx::query(delete), &lease.to);
    let query = query.bind(lease.holder.as_bytes().to_vec()).bind(asks);
    Ok(query.execute(pool).await?.rows_affected() == 1)
}

/// Devices with unclaimed rows.
pub async fn due(pool: &Pool, now_ms: i64, most: u32) -> Result<Vec<Device>, Error> {
    let select = format!("SELECT app, user_id, device FROM t_hand_over WHERE until_ms <= ? LIMIT {most}");
    Ok(sqlx::query_as(AssertSqlSafe(select)).bind(now_ms).fetch_all(pool).await?)
}
