//! SQL, one file a table (or a few that are only written together). Nothing here decides: the callers have
//! the rules.

pub mod account;
pub mod gift;
pub mod gift_order;
pub mod hand_over;
pub mod hook_event;
pub mod id_segment;
pub mod inbox;
pub mod inbox_total;
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

use sqlx::any::AnyRow;
use sqlx::{Any, Row, Type, ValueRef};

use crate::db::Connection;
use crate::error::Error;

/// Into how many tables the rows of users are split.
pub const PARTS: i64 = 100;

/// The last two digits in the names of a user's tables.
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
    let (id, step): (i64, i64) = sqlx::query_as(statement).fetch_one(connection).await?;
    let first = if is_sqlite { id - count + 1 } else { id }; // SQLite tells the last one, MySQL the first
    Ok((0..count).map(move |index| first + index * step))
}

/// What a column is read into.
pub trait Column: Sized {
    /// Reads the column of this name.
    fn read(row: &AnyRow, name: &str) -> Result<Self, sqlx::Error>;
}

/// Makes a struct of a row: its fields are the columns, by their names.
macro_rules! from_row {
    ($type:ident { $($field:ident),+ $(,)? }) => {
        impl sqlx::FromRow<'_, sqlx::any::AnyRow> for $type {
            fn from_row(row: &sqlx::any::AnyRow) -> Result<Self, sqlx::Error> {
                Ok(Self { $($field: $crate::tables::Column::read(row, stringify!($field))?),+ })
            }
        }
    };
}
pub(crate) use from_row;

impl Column for i64 {
    fn read(row: &AnyRow, name: &str) -> Result<Self, sqlx::Error> {
        row.try_get(name)
    }
}

/// All integers are BIGINT.
impl Column for i32 {
    fn read(row: &AnyRow, name: &str) -> Result<Self, sqlx::Error> {
        Ok(i64::read(row, name)? as i32)
    }
}

impl Column for bool {
    fn read(row: &AnyRow, name: &str) -> Result<Self, sqlx::Error> {
        Ok(i64::read(row, name)? != 0)
    }
}

impl Column for Vec<u8> {
    fn read(row: &AnyRow, name: &str) -> Result<Self, sqlx::Error> {
        row.try_get(name)
    }
}

/// Also of a column that is compared byte by byte.
impl Column for String {
    fn read(row: &AnyRow, name: &str) -> Result<Self, sqlx::Error> {
        match <Self as Type<Any>>::compatible(&row.try_get_raw(name)?.type_info()) {
            true => row.try_get(name),
            false => Ok(Self::from_utf8_lossy(&row.try_get::<Vec<u8>, _>(name)?).into_owned()),
        }
    }
}

impl<T: Column> Column for Option<T> {
    fn read(row: &AnyRow, name: &str) -> Result<Self, sqlx::Error> {
        match row.try_get_raw(name)?.is_null() {
            true => Ok(None),
            false => T::read(row, name).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Row};

    use super::*;
    use crate::config::Config;
    use crate::db::{Db, Dialect};
    use crate::migrations::migrate;

    /// SQLite walks through a whole table if it finds no index for a list of tuples.
    #[tokio::test]
    async fn lists_of_tuples_are_looked_up_in_an_index() {
        let lists = [inbox::OF_TUPLES, inbox_total::OF_TUPLES, presence::OF_TUPLES, room_member::OF_TUPLES];
        let statements = lists.concat();
        let folder = format!("{}/src/tables", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let text: String = files.map(|path| std::fs::read_to_string(path).unwrap()).collect();
        assert_eq!(text.matches(".tuples(").count(), statements.len(), "each is in a list OF_TUPLES");

        let folder = testbed::Folder::new("tuples");
        let database = format!("sqlite:{}", folder.path().join("backend.db").display());
        let db = Db::open(&Config { database, ..Config::default() }).await.unwrap();
        migrate(&db).await.unwrap();
        for (statement, count) in statements.iter().flat_map(|of| [(of, 1), (of, 2), (of, 100)]) {
            let statement = format!("EXPLAIN QUERY PLAN {}", statement(Dialect::Sqlite, count));
            let rows = sqlx::query(AssertSqlSafe(statement.clone())).fetch_all(db.primary()).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get(3)).collect();
            let is_found = |step: &&String| step.starts_with("SEARCH t_") && step.contains("=? AND ");
            assert!(plan.iter().any(|step| is_found(&step)), "{statement}: {plan:#?}");
            assert!(!plan.iter().any(|step| step.starts_with("SCAN t_")), "{statement}: {plan:#?}");
            if statement.contains("t_inbox_total") {
                assert!(plan.iter().any(|step| step.contains("sender=?")), "{statement}: {plan:#?}");
            }
        }
        db.close().await;
    }
}
