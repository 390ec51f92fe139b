//! `t_user_00` to `t_user_99`: users, by id modulo 100.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::AssertSqlSafe;

use super::{from_row, part, parts};
use crate::db::{Connection, Dialect, Pool, marks, padded};
use crate::error::Error;

/// How the tables are made.
pub fn create(dialect: Dialect) -> Vec<String> {
    let end = dialect.table_end();
    let table = |part| {
        format!(
            "CREATE TABLE IF NOT EXISTS t_user_{part} (id BIGINT PRIMARY KEY, name VARCHAR(64) NOT NULL, \
             avatar VARCHAR(255) NOT NULL, sex BIGINT NOT NULL, city VARCHAR(64) NOT NULL, bio VARCHAR(255) NOT NULL, \
             created_ms BIGINT NOT NULL{end}"
        )
    };
    parts().map(table).collect()
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRow {
    pub id: i64,
    pub name: String,
    pub avatar: String,
    pub sex: i64,
    pub city: String,
    pub bio: String,
    pub created_ms: i64,
}

/// What to change; `None` leaves a column as it is.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub name: Option<String>,
    pub avatar: Option<String>,
    pub sex: Option<i64>,
    pub city: Option<String>,
    pub bio: Option<String>,
}

const COLUMNS: &str = "id, name, avatar, sex, city, bio, created_ms";

from_row!(UserRow { id, name, avatar, sex, city, bio, created_ms });

/// Adds a user.
pub async fn insert(connection: &mut Connection, user: &UserRow) -> Result<(), Error> {
    let statement = format!("INSERT INTO t_user_{} ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", part(user.id));
    sqlx::query(AssertSqlSafe(statement))
        .bind(user.id)
        .bind(user.name.as_str())
        .bind(user.avatar.as_str())
        .bind(user.sex)
        .bind(user.city.as_str())
        .bind(user.bio.as_str())
        .bind(user.created_ms)
        .execute(connection)
        .await?;
    Ok(())
}

/// One user.
pub async fn get(pool: &Pool, id: i64) -> Result<Option<UserRow>, Error> {
    let statement = format!("SELECT {COLUMNS} FROM t_user_{} WHERE id = ?", part(id));
    Ok(sqlx::query_as(AssertSqlSafe(statement)).bind(id).fetch_optional(pool).await?)
}

/// The existing ones of many users, by one statement for each table that has any.
pub async fn get_many(pool: &Pool, ids: &[i64]) -> Result<BTreeMap<i64, UserRow>, Error> {
    let mut by_part: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for id in ids {
        by_part.entry(part(*id)).or_default().push(*id);
    }
    let mut found = BTreeMap::new();
    for (part, ids) in by_part {
        let ids = padded(&ids);
        let statement = format!("SELECT {COLUMNS} FROM t_user_{part} WHERE id IN ({})", marks(ids.len()));
        let mut query = sqlx::query_as(AssertSqlSafe(statement));
        for id in ids {
            query = query.bind(id);
        }
        let users: Vec<UserRow> = query.fetch_all(pool).await?;
        found.extend(users.into_iter().map(|user| (user.id, user)));
    }
    Ok(found)
}

/// Which of these users exist, by one statement for all tables.
pub async fn among(connection: &mut Connection, ids: &[i64]) -> Result<Vec<i64>, Error> {
    let mut by_part: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for id in ids {
        by_part.entry(part(*id)).or_default().push(*id);
    }
    let select = |(part, ids): (&String, &Vec<i64>)| {
        format!("SELECT id FROM t_user_{part} WHERE id IN ({})", marks(ids.len()))
    };
    let statement = by_part.iter().map(select).collect::<Vec<_>>().join(" UNION ALL ");
    let mut query = sqlx::query_scalar(AssertSqlSafe(statement)).persistent(false);
    for id in by_part.values().flatten() {
        query = query.bind(*id);
    }
    Ok(query.fetch_all(connection).await?)
}

/// Changes a user; whether there is one.
pub async fn update(pool: &Pool, id: i64, change: &Change) -> Result<bool, Error> {
    let statement = format!(
        "UPDATE t_user_{} SET name = COALESCE(?, name), avatar = COALESCE(?, avatar), sex = COALESCE(?, sex), \
         city = COALESCE(?, city), bio = COALESCE(?, bio) WHERE id = ?",
        part(id)
    );
    let done = sqlx::query(AssertSqlSafe(statement))
        .bind(change.name.clone())
        .bind(change.avatar.clone())
        .bind(change.sex)
        .bind(change.city.clone())
        .bind(change.bio.clone())
        .bind(id)
        .execute(pool)
        .await?;
    Ok(done.rows_affected() == 1)
}
