//! `t_gift_order`: each gift that was decided. A sender's key names one gift: for good if it was committed,
//! else until the refusal is removed.

use std::collections::BTreeMap;

use sqlx::AssertSqlSafe;

use super::from_row;
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

/// A row as it is looked for.
struct OrderRow {
    sender_id: i64,
    name: Vec<u8>,
    gift_id: i64,
    room_id: i64,
    receiver_id: i64,
    pieces: i64,
    code: i32,
    total: i64,
    answer: String,
}

from_row!(OrderRow { sender_id, name, gift_id, room_id, receiver_id, pieces, code, total, answer });

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
        let mut query = sqlx::query_as(AssertSqlSafe(statement));
        for identity in chunk {
            query = query.bind(identity.sender_id).bind(identity.key.clone().into_bytes());
        }
        let rows: Vec<OrderRow> = query.fetch_all(&mut *connection).await?;
        for row in rows {
            let OrderRow { sender_id, name, gift_id, room_id, receiver_id, pieces, code, total, answer } =
                row;
            let key = String::from_utf8(name).map_err(Error::internal)?;
            let contents = Contents { gift_id, room_id, receiver_id, count: pieces, code };
            let answer = match answer.as_str() {
                COMMITTED => Answer::Committed { total },
                reason => Answer::Refused(Reason::named(reason)),
            };
            found.insert(Identity { sender_id, key }, Order { contents, answer });
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
    let found: Vec<(i64, String, i64)> =
        sqlx::query_as(AssertSqlSafe(select)).bind(after).fetch_all(pool).await?;
    let swept =
        |(id, answer, at_ms): (i64, String, i64)| Swept { id, is_refusal: answer != COMMITTED, at_ms };
    Ok(found.into_iter().map(swept).collect())
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
