//! `t_gift`: the catalogue.

use sqlx::AssertSqlSafe;

use crate::db::{Connection, Dialect, Pool, marks};
use crate::error::Error;
use crate::gift::Gift;
use crate::tables::{from_row, last_ids};

const COLUMNS: &str = "id, name, icon, price, is_on_sale";

/// How the table is made.
pub fn create(dialect: Dialect) -> Vec<String> {
    let (serial, end) = (dialect.serial(), dialect.table_end());
    vec![format!(
        "CREATE TABLE IF NOT EXISTS t_gift (id {serial}, name VARCHAR(64) NOT NULL, icon VARCHAR(512) NOT NULL, \
         price BIGINT NOT NULL, is_on_sale BIGINT NOT NULL{end}"
    )]
}

from_row!(Gift { id, name, icon, price, is_on_sale });

/// One gift.
pub async fn get(pool: &Pool, id: i64) -> Result<Option<Gift>, Error> {
    let statement = format!("SELECT {COLUMNS} FROM t_gift WHERE id = ?");
    Ok(sqlx::query_as(AssertSqlSafe(statement)).bind(id).fetch_optional(pool).await?)
}

/// Gifts, as a transaction sees them.
pub async fn get_many(connection: &mut Connection, ids: &[i64]) -> Result<Vec<Gift>, Error> {
    let statement = format!("SELECT {COLUMNS} FROM t_gift WHERE id IN ({})", marks(ids.len()));
    let mut query = sqlx::query_as(AssertSqlSafe(statement));
    for id in ids {
        query = query.bind(*id);
    }
    Ok(query.fetch_all(connection).await?)
}

/// All gifts that are on sale, the cheapest first.
pub async fn on_sale(pool: &Pool, most: usize) -> Result<Vec<Gift>, Error> {
    let statement =
        format!("SELECT {COLUMNS} FROM t_gift WHERE is_on_sale <> 0 ORDER BY price, id LIMIT {most}");
    Ok(sqlx::query_as(AssertSqlSafe(statement)).fetch_all(pool).await?)
}

/// All gifts after one, by their ids.
pub async fn page(pool: &Pool, after: i64, most: u32) -> Result<Vec<Gift>, Error> {
    let statement = format!("SELECT {COLUMNS} FROM t_gift WHERE id > ? ORDER BY id LIMIT {most}");
    Ok(sqlx::query_as(AssertSqlSafe(statement)).bind(after).fetch_all(pool).await?)
}

/// Adds a gift; its id. The one that it has does not count.
pub async fn insert(connection: &mut Connection, gift: &Gift) -> Result<i64, Error> {
    sqlx::query("INSERT INTO t_gift (name, icon, price, is_on_sale) VALUES (?, ?, ?, ?)")
        .bind(gift.name.as_str())
        .bind(gift.icon.as_str())
        .bind(gift.price)
        .bind(i64::from(gift.is_on_sale))
        .execute(&mut *connection)
        .await?;
    let mut ids = last_ids(connection, 1).await?;
    Ok(ids.next().expect("one row has one id"))
}

/// Puts a gift under its id, whatever was there.
pub async fn put(pool: &Pool, dialect: Dialect, gift: &Gift) -> Result<(), Error> {
    let update = dialect.on_conflict_update("id", &["name", "icon", "price", "is_on_sale"]);
    let statement = format!("INSERT INTO t_gift ({COLUMNS}) VALUES (?, ?, ?, ?, ?){update}");
    sqlx::query(AssertSqlSafe(statement))
        .bind(gift.id)
        .bind(gift.name.as_str())
        .bind(gift.icon.as_str())
        .bind(gift.price)
        .bind(i64::from(gift.is_on_sale))
        .execute(pool)
        .await?;
    Ok(())
}

/// Removes a gift; whether it was there.
pub async fn delete(pool: &Pool, id: i64) -> Result<bool, Error> {
    let done = sqlx::query("DELETE FROM t_gift WHERE id = ?").bind(id).execute(pool).await?;
    Ok(done.rows_affected() == 1)
}
