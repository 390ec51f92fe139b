//! `t_login_token`: who is logged in. The token itself is not kept: the key is its SHA-256.

use serde::{Deserialize, Serialize};
use sqlx::AssertSqlSafe;

use super::from_row;
use crate::db::{Dialect, Pool, marks, padded};
use crate::error::Error;

/// How the table is made.
pub fn create(dialect: Dialect) -> Vec<String> {
    let (key, end) = (dialect.key(32), dialect.table_end());
    let columns =
        format!("token_hash {key} NOT NULL PRIMARY KEY, user_id BIGINT NOT NULL, expires_ms BIGINT NOT NULL");
    match dialect {
        Dialect::Sqlite => vec![
            format!("CREATE TABLE IF NOT EXISTS t_login_token ({columns}{end}"),
            "CREATE INDEX IF NOT EXISTS i_login_token_user ON t_login_token (user_id, expires_ms)".into(),
        ],
        Dialect::MySql => vec![format!(
            "CREATE TABLE IF NOT EXISTS t_login_token ({columns}, INDEX i_login_token_user (user_id, expires_ms){end}"
        )],
    }
}

/// A login.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Login {
    pub user_id: i64,
    pub expires_ms: i64,
}

from_row!(Login { user_id, expires_ms });

/// The login of a token.
pub async fn get(pool: &Pool, token_hash: &[u8; 32]) -> Result<Option<Login>, Error> {
    let login = sqlx::query_as("SELECT user_id, expires_ms FROM t_login_token WHERE token_hash = ?")
        .bind(token_hash.to_vec())
        .fetch_optional(pool)
        .await?;
    Ok(login)
}

/// Adds a login.
pub async fn insert(pool: &Pool, token_hash: &[u8; 32], login: Login) -> Result<(), Error> {
    sqlx::query("INSERT INTO t_login_token (token_hash, user_id, expires_ms) VALUES (?, ?, ?)")
        .bind(token_hash.to_vec())
        .bind(login.user_id)
        .bind(login.expires_ms)
        .execute(pool)
        .await?;
    Ok(())
}

/// A user's tokens except the `newest` ones; expired ones count too.
pub async fn older(pool: &Pool, user_id: i64, newest: u32) -> Result<Vec<Vec<u8>>, Error> {
    let statement = format!(
        "SELECT token_hash FROM t_login_token WHERE user_id = ? ORDER BY expires_ms DESC, token_hash LIMIT 1000 OFFSET {newest}"
    );
    Ok(sqlx::query_scalar(AssertSqlSafe(statement)).bind(user_id).fetch_all(pool).await?)
}

/// Ends logins.
pub async fn delete(pool: &Pool, token_hashes: &[Vec<u8>]) -> Result<(), Error> {
    if token_hashes.is_empty() {
        return Ok(());
    }
    let hashes = padded(token_hashes);
    let statement = format!("DELETE FROM t_login_token WHERE token_hash IN ({})", marks(hashes.len()));
    let mut query = sqlx::query(AssertSqlSafe(statement));
    for hash in hashes {
        query = query.bind(hash);
    }
    query.execute(pool).await?;
    Ok(())
}
