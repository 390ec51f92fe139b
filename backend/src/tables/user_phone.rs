//! `t_user_phone`: which user has which phone. The number itself is not kept: the key is its SHA-256, beside
//! its last digits for support.

use sqlx::AssertSqlSafe;

use crate::db::{Connection, Dialect, Pool};
use crate::error::Error;

/// How the table is made.
pub fn create(dialect: Dialect) -> Vec<String> {
    let (key, end) = (dialect.key(32), dialect.table_end());
    vec![format!(
        "CREATE TABLE IF NOT EXISTS t_user_phone (phone_hash {key} NOT NULL PRIMARY KEY, user_id BIGINT NOT NULL UNIQUE, \
         last_digits VARCHAR(4) NOT NULL, created_ms BIGINT NOT NULL{end}"
    )]
}

/// The user of a phone.
pub async fn user_of(pool: &Pool, phone_hash: &[u8; 32]) -> Result<Option<i64>, Error> {
    let row = sqlx::query_scalar("SELECT user_id FROM t_user_phone WHERE phone_hash = ?")
        .bind(phone_hash.to_vec())
        .fetch_optional(pool)
        .await?;
    Ok(row)
}

/// The last digits of a user's phone.
pub async fn last_digits(pool: &Pool, user_id: i64) -> Result<Option<String>, Error> {
    let row = sqlx::query_scalar("SELECT last_digits FROM t_user_phone WHERE user_id = ?")
        .bind(user_id)
        .fetch_optional(pool)
        .await?;
    Ok(row)
}

/// Gives a phone to a user, unless it has one. Returns whether it had none.
pub async fn insert(
    connection: &mut Connection,
    dialect: Dialect,
    phone_hash: &[u8; 32],
    user_id: i64,
    last_digits: &str,
    created_ms: i64,
) -> Result<bool, Error> {
    let statement = format!(
        "{} t_user_phone (phone_hash, user_id, last_digits, created_ms) VALUES (?, ?, ?, ?)",
        dialect.insert_ignore()
    );
    let done = sqlx::query(AssertSqlSafe(statement))
        .bind(phone_hash.to_vec())
        .bind(user_id)
        .bind(last_digits)
        .bind(created_ms)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}
