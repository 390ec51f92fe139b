//! `t_gift_order`: each gift that was decided. A sender's key names one gift: for good if it was committed,
//! else until the refusal is removed.

use std::collections::BTreeMap;

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};

use crate::db::{Connection, Dialect, Pool, marks, rows};
use crate::error::Error;
use crate::gift::{Answer, Contents, Identity, Order, Reason};

/// Rows of one statement.
const ROWS_MAX: usize = 512;
const COMMITTED: &str = "committed";

/// How the table is made.
pub fn create(dialect: Dialect) -> Vec<String> {
    let (serial, end, key) = (dialect.serial(), dialect.table_end(), dialect.key(64));
    vec![format!(
        "CREATE TABLE IF NOT EXISTS t_gift_order (id {serial}, sender_id BIGINT NOT NULL, name {key} NOT NULL, \
         gift_id BIGINT NOT NULL, room_id BIGINT NOT NULL, receiver_id BIGINT NOT NULL, pieces BIGINT NOT NULL, \
         code BIGINT NOT NULL, total BIGINT NOT NULL, answer VARCHAR(32) NOT NULL, at_ms BIGINT NOT NULL, \
         UNIQUE (sender_id, name){end}"
    )]
}

/// Those of these gifts that were decided.
pub async fn find(
    connection: &mut Connection,
    identities: &[&Identity],
) -> Result<BTreeMap<Identity, Order>, Error> {
    let mut found = BTreeMap::new();
    for chunk in identities.chunks(ROWS_MAX) {
        let wanted = vec!["(sender_id = ? AND name = ?)"; chunk.len()].join(" OR ");
        let statement = format!(
            "SELECT sender_id, name, gift_id, room_id, receiver_id, pieces, code, total, answer FROM t_gift_order WHERE {wanted}"
        );
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for identity in chunk {
            query = query.bind(identity.sender_id).bind(identity.key.clone().into_bytes());
        }
        for row in query.fetch_all(&mut *connection).await? {
            let key = String::from_utf8(row.try_get(1)?).map_err(Error::internal)?;
            let contents = Contents {
                gift_id: row.try_get(2)?,
                room_id: row.try_get(3)?,
                receiver_id: row.try_get(4)?,
                count: row.try_get(5)?,
                code: row.try_get::<i64, _>(6)? as i32,
            };
            let answer = match row.try_get::<String, _>(8)?.as_str() {
                COMMITTED => Answer::Committed { total: row.try_get(7)? },
                reason => Answer::Refused(Reason::named(reason)),
            };
            found.insert(Identity { sender_id: row.try_get(0)?, key }, Order { contents, answer });
        }
    }
    Ok(found)
}

/// Adds gifts that were decided.
pub async fn insert(
    connection: &mut Connection,
    orders: &[(Identity, Order)],
    at_ms: i64,
) -> Result<(), Error> {
    for chunk in orders.chunks(ROWS_MAX) {
        let statement = format!(
            "INSERT INTO t_gift_order (sender_id, name, gift_id, room_id, receiver_id, pieces, code, total, answer, at_ms) VALUES {}",
            rows(chunk.len(), 10)
        );
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for (identity, Order { contents, answer }) in chunk {
            let (total, answer) = match answer {
                Answer::Committed { total } => (*total, COMMITTED),
                Answer::Refused(reason) => (0, reason.name()),
            };
            query = query
                .bind(identity.sender_id)
                .bind(identity.key.clone().into_bytes())
                .bind(contents.gift_id)
                .bind(contents.room_id)
                .bind(contents.receiver_id)
                .bind(contents.count)
                .bind(i64::from(contents.code))
                .bind(total)
                .bind(answer)
                .bind(at_ms);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// A row as a sweep sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    pub id: i64,
    pub is_refusal: bool,
    pub at_ms: i64,
}

/// The next rows after `after`, in the order in which they were decided.
pub async fn next(pool: &Pool, after: i64, most: u32) -> Result<Vec<Swept>, Error> {
    let select = format!("SELECT id, answer, at_ms FROM t_gift_order WHERE id > ? ORDER BY id LIMIT {most}");
    let found = sqlx::query(AssertSqlSafe(select)).bind(after).fetch_all(pool).await?;
    let swept = |row: &AnyRow| {
        let is_refusal = row.try_get::<String, _>(1)? != COMMITTED;
        Ok(Swept { id: row.try_get(0)?, is_refusal, at_ms: row.try_get(2)? })
    };
    found.iter().map(swept).collect()
}

/// Removes gifts that were refused; one that was committed stays, whatever is asked.
pub async fn delete_refusals(connection: &mut Connection, ids: &[i64]) -> Result<(), Error> {
    for chunk in ids.chunks(ROWS_MAX) {
        let statement = format!(
            "DELETE FROM t_gift_order WHERE answer <> '{COMMITTED}' AND id IN ({})",
            marks(chunk.len())
        );
        let query = chunk.iter().fold(sqlx::query(AssertSqlSafe(statement)), |query, id| query.bind(*id));
        query.execute(&mut *connection).await?;
    }
    Ok(())
}
