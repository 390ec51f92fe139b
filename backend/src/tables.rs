//! SQL, one file a table (or a few that are only written together). Nothing here decides: rules stand in the
//! callers.

pub mod account;
pub mod gift;
pub mod gift_order;
pub mod hand_over;
pub mod hook_event;
pub mod id_segment;
pub mod inbox;
pub mod job;
pub mod login_token;
pub mod outbox;
pub mod pay_order;
pub mod presence;
pub mod product;
pub mod room;
pub mod room_member;
pub mod user;
pub mod user_phone;
pub mod user_tag;

use sqlx::Row;

use crate::db::Connection;
use crate::error::Error;

/// Into how many tables the rows of users are split.
pub const PARTS: i64 = 100;

/// The two digits that the names of a user's tables end with.
pub fn part(user_id: i64) -> String {
    format!("{:02}", user_id.rem_euclid(PARTS))
}

/// All of these.
pub fn parts() -> impl Iterator<Item = String> {
    (0..PARTS).map(part)
}

/// The ids of the rows that the last statement inserted. Both databases number the rows of one
/// `INSERT ... VALUES` in one go.
pub async fn last_ids(
    connection: &mut Connection,
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
