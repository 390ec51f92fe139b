//! `t_hand_over`: receivers whose inbox is to be handed over, and who is about it.
//!
//! A row is asked for as often as its receiver came, and belongs to one holder at a time, who renews it. It goes when all that was
//! asked for is done; what a holder that died has left is taken up by another one.

use sqlx::{AssertSqlSafe, Row};

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

/// A receiver's hand-over, as one holder has it.
#[derive(Clone, Debug)]
pub struct Lease {
    pub app: i32,
    pub user_id: i64,
    pub holder: String,
}

/// Asks once more for receivers, each of an app.
pub async fn ask(connection: &mut Connection, dialect: Dialect, users: &[(i32, i64)]) -> Result<(), Error> {
    let update = dialect.on_conflict_set("app, user_id", "asks = asks + 1");
    for chunk in users.chunks(ROWS_MAX) {
        let statement = format!(
            "INSERT INTO t_hand_over (app, user_id, asks, holder, until_ms) VALUES {}{update}",
            rows(chunk.len(), 5)
        );
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for (app, user_id) in chunk {
            query = query.bind(i64::from(*app)).bind(*user_id).bind(1_i64).bind(Vec::new()).bind(0_i64);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Takes what nobody holds, until `until_ms`; whether nobody did.
pub async fn take(pool: &Pool, lease: &Lease, now_ms: i64, until_ms: i64) -> Result<bool, Error> {
    let update =
        "UPDATE t_hand_over SET holder = ?, until_ms = ? WHERE app = ? AND user_id = ? AND until_ms <= ?";
    let query = sqlx::query(update).bind(lease.holder.as_bytes().to_vec()).bind(until_ms);
    let query = query.bind(i64::from(lease.app)).bind(lease.user_id).bind(now_ms);
    Ok(query.execute(pool).await?.rows_affected() == 1)
}

/// Holds it until `until_ms`; false if it is held no more.
pub async fn renew(pool: &Pool, lease: &Lease, until_ms: i64) -> Result<bool, Error> {
    let update = "UPDATE t_hand_over SET until_ms = ? WHERE app = ? AND user_id = ? AND holder = ?";
    let query = sqlx::query(update).bind(until_ms).bind(i64::from(lease.app)).bind(lease.user_id);
    Ok(query.bind(lease.holder.as_bytes().to_vec()).execute(pool).await?.rows_affected() == 1)
}

/// How often it was asked for; `None` if it is held no more.
pub async fn asks(pool: &Pool, lease: &Lease) -> Result<Option<i64>, Error> {
    let select = "SELECT asks FROM t_hand_over WHERE app = ? AND user_id = ? AND holder = ?";
    let query = sqlx::query(select).bind(i64::from(lease.app)).bind(lease.user_id);
    let row = query.bind(lease.holder.as_bytes().to_vec()).fetch_optional(pool).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Ends it, unless it was asked for more often than that; whether it is ended.
pub async fn end(pool: &Pool, lease: &Lease, asks: i64) -> Result<bool, Error> {
    let delete = "DELETE FROM t_hand_over WHERE app = ? AND user_id = ? AND holder = ? AND asks = ?";
    let query = sqlx::query(delete).bind(i64::from(lease.app)).bind(lease.user_id);
    let query = query.bind(lease.holder.as_bytes().to_vec()).bind(asks);
    Ok(query.execute(pool).await?.rows_affected() == 1)
}

/// Receivers whose hand-over nobody holds.
pub async fn due(pool: &Pool, now_ms: i64, most: u32) -> Result<Vec<(i32, i64)>, Error> {
    let select = format!("SELECT app, user_id FROM t_hand_over WHERE until_ms <= ? LIMIT {most}");
    let found = sqlx::query(AssertSqlSafe(select)).bind(now_ms).fetch_all(pool).await?;
    found.iter().map(|row| Ok((row.try_get::<i64, _>(0)? as i32, row.try_get(1)?))).collect()
}
