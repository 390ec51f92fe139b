//! `t_user_tag_00` to `t_user_tag_99`: tags of users, by user id modulo 100. A tag is one bit of one of three
//! 64-bit columns.
//!
//! MySQL's bit operators give unsigned numbers, which the casts make signed again; to SQLite these mean
//! nothing.

use serde::{Deserialize, Serialize};
use sqlx::AssertSqlSafe;
use utoipa::ToSchema;

use super::{part, parts};
use crate::db::{Dialect, Pool};
use crate::error::Error;

/// How the tables are made.
pub fn create(dialect: Dialect) -> Vec<String> {
    let end = dialect.table_end();
    let columns = COLUMNS.map(|column| format!("{} BIGINT NOT NULL DEFAULT 0", column.name())).join(", ");
    let table = |part| {
        format!("CREATE TABLE IF NOT EXISTS t_user_tag_{part} (user_id BIGINT PRIMARY KEY, {columns}{end}")
    };
    parts().map(table).collect()
}

/// Which column.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Column {
    /// The first.
    #[serde(rename = "tag_info_01")]
    One,
    /// The second.
    #[serde(rename = "tag_info_02")]
    Two,
    /// The third.
    #[serde(rename = "tag_info_03")]
    Three,
}

const COLUMNS: [Column; 3] = [Column::One, Column::Two, Column::Three];

impl Column {
    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "tag_info_01",
            Self::Two => "tag_info_02",
            Self::Three => "tag_info_03",
        }
    }
}

/// A user's tags.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Tags([i64; 3]);

impl Tags {
    /// Whether the user has the tag.
    pub fn has(self, column: Column, bit: i64) -> bool {
        self.0[column as usize] & bit == bit
    }
}

/// A user's tags; `None` for one who never had any.
pub async fn get(pool: &Pool, user_id: i64) -> Result<Option<Tags>, Error> {
    let columns = COLUMNS.map(Column::name).join(", ");
    let statement = format!("SELECT {columns} FROM t_user_tag_{} WHERE user_id = ?", part(user_id));
    let row = sqlx::query_as(AssertSqlSafe(statement)).bind(user_id).fetch_optional(pool).await?;
    Ok(row.map(|(one, two, three)| Tags([one, two, three])))
}

/// Sets a tag that is not set; whether it was not. Of several who try at once, one succeeds.
pub async fn set(
    pool: &Pool,
    dialect: Dialect,
    user_id: i64,
    column: Column,
    bit: i64,
) -> Result<bool, Error> {
    let (part, column) = (part(user_id), column.name());
    let update = format!(
        "UPDATE t_user_tag_{part} SET {column} = CAST({column} | ? AS SIGNED) WHERE user_id = ? AND {column} & ? = 0"
    );
    let update = async || -> Result<bool, Error> {
        let query = sqlx::query(AssertSqlSafe(update.clone())).bind(bit).bind(user_id).bind(bit);
        Ok(query.execute(pool).await?.rows_affected() == 1)
    };
    if update().await? {
        return Ok(true);
    }
    let insert = format!("{} t_user_tag_{part} (user_id, {column}) VALUES (?, ?)", dialect.insert_ignore());
    let query = sqlx::query(AssertSqlSafe(insert)).bind(user_id).bind(bit);
    if query.execute(pool).await?.rows_affected() == 1 {
        return Ok(true);
    }
    update().await // the row may have come in between, by another tag
}

/// Cancels a tag that is set; whether it was. Of several who try at once, one succeeds.
pub async fn cancel(pool: &Pool, user_id: i64, column: Column, bit: i64) -> Result<bool, Error> {
    let (part, column) = (part(user_id), column.name());
    let statement = format!(
        "UPDATE t_user_tag_{part} SET {column} = CAST({column} & ? AS SIGNED) \
         WHERE user_id = ? AND CAST({column} & ? AS SIGNED) = ?"
    );
    let query = sqlx::query(AssertSqlSafe(statement)).bind(!bit).bind(user_id).bind(bit).bind(bit);
    Ok(query.execute(pool).await?.rows_affected() == 1)
}
