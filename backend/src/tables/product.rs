//! `t_product`: what coins cost.

use sqlx::AssertSqlSafe;

use super::from_row;
use crate::db::{Dialect, Pool};
use crate::error::Error;

/// How the table is made.
pub fn create(dialect: Dialect) -> Vec<String> {
    let end = dialect.table_end();
    vec![format!(
        "CREATE TABLE IF NOT EXISTS t_product (id BIGINT PRIMARY KEY, name VARCHAR(64) NOT NULL, \
         price_cents BIGINT NOT NULL, coins BIGINT NOT NULL, is_on_sale BIGINT NOT NULL{end}"
    )]
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductRow {
    pub id: i64,
    pub name: String,
    pub price_cents: i64,
    pub coins: i64,
    pub is_on_sale: bool,
}

const COLUMNS: &str = "id, name, price_cents, coins, is_on_sale";

from_row!(ProductRow { id, name, price_cents, coins, is_on_sale });

/// One product.
pub async fn get(pool: &Pool, id: i64) -> Result<Option<ProductRow>, Error> {
    let select = format!("SELECT {COLUMNS} FROM t_product WHERE id = ?");
    Ok(sqlx::query_as(AssertSqlSafe(select)).bind(id).fetch_optional(pool).await?)
}

/// Products by their price, `most` of them.
pub async fn all(pool: &Pool, only_on_sale: bool, most: u32) -> Result<Vec<ProductRow>, Error> {
    let select = format!(
        "SELECT {COLUMNS} FROM t_product WHERE is_on_sale >= ? ORDER BY price_cents, id LIMIT {most}"
    );
    Ok(sqlx::query_as(AssertSqlSafe(select)).bind(i64::from(only_on_sale)).fetch_all(pool).await?)
}

/// Makes a product, or overwrites the one with its id.
pub async fn put(pool: &Pool, dialect: Dialect, product: &ProductRow) -> Result<(), Error> {
    let update = dialect.on_conflict_update("id", &["name", "price_cents", "coins", "is_on_sale"]);
    let statement = format!("INSERT INTO t_product ({COLUMNS}) VALUES (?, ?, ?, ?, ?){update}");
    sqlx::query(AssertSqlSafe(statement))
        .bind(product.id)
        .bind(product.name.clone())
        .bind(product.price_cents)
        .bind(product.coins)
        .bind(i64::from(product.is_on_sale))
        .execute(pool)
        .await?;
    Ok(())
}

/// Removes a product; whether it was there.
pub async fn delete(pool: &Pool, id: i64) -> Result<bool, Error> {
    let done = sqlx::query("DELETE FROM t_product WHERE id = ?").bind(id).execute(pool).await?;
    Ok(done.rows_affected() == 1)
}
