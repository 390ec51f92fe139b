//! `t_id_segment`: up to where the ids of each name are given out.

use sqlx::AssertSqlSafe;

use crate::db::{Dialect, Pool};
use crate::error::Error;

/// How the table is made.
pub fn create(dialect: Dialect) -> Vec<String> {
    let (key, end) = (dialect.key(64), dialect.table_end());
    vec![format!(
        "CREATE TABLE IF NOT EXISTS t_id_segment (name {key} NOT NULL PRIMARY KEY, next_id BIGINT NOT NULL, \
         version BIGINT NOT NULL{end}"
    )]
}

/// The first id that nobody has, and the version of the row that says so.
pub async fn get(pool: &Pool, name: &str) -> Result<Option<(i64, i64)>, Error> {
    let row = sqlx::query_as("SELECT next_id, version FROM t_id_segment WHERE name = ?")
        .bind(name.as_bytes().to_vec())
        .fetch_optional(pool)
        .await?;
    Ok(row)
}

/// Makes the row of a name, unless it is there.
pub async fn insert(pool: &Pool, dialect: Dialect, name: &str, next_id: i64) -> Result<(), Error> {
    let statement =
        format!("{} t_id_segment (name, next_id, version) VALUES (?, ?, 0)", dialect.insert_ignore());
    sqlx::query(AssertSqlSafe(statement)).bind(name.as_bytes().to_vec()).bind(next_id).execute(pool).await?;
    Ok(())
}

/// Moves the first free id ahead, if the row still has `version`; whether it had.
pub async fn advance(pool: &Pool, name: &str, version: i64, next_id: i64) -> Result<bool, Error> {
    let done = sqlx::query(
        "UPDATE t_id_segment SET next_id = ?, version = version + 1 WHERE name = ? AND version = ?",
    )
    .bind(next_id)
    .bind(name.as_bytes().to_vec())
    .bind(version)
    .execute(pool)
    .await?;
    Ok(done.rows_affected() == 1)
}
