//! All SQL, one file a table (or a few that are only written together). Nothing here decides: rules stand in the callers.

pub mod account;
pub mod gift;
pub mod gift_order;
pub mod job;
pub mod outbox;

use sqlx::{AnyConnection, Row};

use crate::error::Error;

/// The ids of the rows that the last statement inserted. Both databases number the rows of one `INSERT ... VALUES` in one go.
pub async fn last_ids(
    connection: &mut AnyConnection,
    count: i64,
) -> Result<impl Iterator<Item = i64> + use<>, Error> {
    let is_sqlite = connection.backend_name() == "SQLite";
    let statement = match is_sqlite {
        true => "SELECT last_insert_rowid(), 1",
        false => {
            "SELECT CAST(LAST_INSERT_ID() AS SIGNED), CAST(@@session.auto_increment_increment AS SIGNED)"
        }
    };
    let row = sqlx::query(statement).fetch_one(connection).await?;
    let (id, step): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let first = if is_sqlite { id - count + 1 } else { id }; // SQLite tells the last one, MySQL the first
    Ok((0..count).map(move |index| first + index * step))
}
