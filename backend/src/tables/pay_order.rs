//! `t_pay_order`: orders of coins, and what became of them.

use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::{Column, from_row};
use crate::db::{Connection, Dialect, Pool, marks};
use crate::error::Error;

/// How the table is made.
pub fn create(dialect: Dialect) -> Vec<String> {
    let (end, id, key, trade) =
        (dialect.table_end(), dialect.key(32), dialect.key(64), dialect.key(TRADE_NO_BYTES_MAX as u32));
    let columns = format!(
        "id {id} NOT NULL PRIMARY KEY, user_id BIGINT NOT NULL, client_key {key} NOT NULL, product_id BIGINT NOT NULL, \
         amount_cents BIGINT NOT NULL, coins BIGINT NOT NULL, status VARCHAR(16) NOT NULL, biz_code BIGINT NOT NULL, \
         created_ms BIGINT NOT NULL, expires_ms BIGINT NOT NULL, is_late BIGINT NOT NULL, paid_ms BIGINT, failed_ms BIGINT, \
         provider VARCHAR(16), provider_trade_no {trade}, flag VARCHAR(16), \
         UNIQUE (user_id, client_key), UNIQUE (provider_trade_no)"
    );
    let index = match dialect {
        Dialect::Sqlite => "",
        Dialect::MySql => {
            ", INDEX i_pay_order_due (status, expires_ms), INDEX i_pay_order_flag (flag, created_ms)"
        }
    };
    let mut statements = vec![format!("CREATE TABLE IF NOT EXISTS t_pay_order ({columns}{index}{end}")];
    if dialect == Dialect::Sqlite {
        statements
            .push("CREATE INDEX IF NOT EXISTS i_pay_order_due ON t_pay_order (status, expires_ms)".into());
        statements
            .push("CREATE INDEX IF NOT EXISTS i_pay_order_flag ON t_pay_order (flag, created_ms)".into());
    }
    statements
}

/// How far an order has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is made.
    Waiting,
    /// The payer has its link.
    Paying,
    /// The money came, and the coins went.
    Paid,
    /// No money came in time.
    Expired,
}

impl Status {
    const ALL: [Self; 4] = [Self::Waiting, Self::Paying, Self::Paid, Self::Expired];
    /// Those of an order that may still expire.
    pub const OPEN: [Self; 2] = [Self::Waiting, Self::Paying];

    /// Its name in the table and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Paying => "paying",
            Self::Paid => "paid",
            Self::Expired => "expired",
        }
    }

    fn of(name: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|status| status.name() == name);
        known.ok_or_else(|| Error::internal(format!("an order has the status {name}")))
    }
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRow {
    /// 32 hexadecimal digits.
    pub id: String,
    pub user_id: i64,
    /// The caller's id for it, unique for the user.
    pub client_key: String,
    pub product_id: i64,
    pub amount_cents: i64,
    pub coins: i64,
    pub status: Status,
    pub biz_code: i32,
    pub created_ms: i64,
    pub expires_ms: i64,
    /// Whether it had expired when it was paid.
    pub is_late: bool,
    pub paid_ms: Option<i64>,
    /// When a payment last failed.
    pub failed_ms: Option<i64>,
    pub provider_trade_no: Option<String>,
    /// Why people have to look at it.
    pub flag: Option<String>,
}

const COLUMNS: &str = "id, user_id, client_key, product_id, amount_cents, coins, status, biz_code, created_ms, expires_ms, \
                       is_late, paid_ms, failed_ms, provider_trade_no, flag";

from_row!(OrderRow {
    id,
    user_id,
    client_key,
    product_id,
    amount_cents,
    coins,
    status,
    biz_code,
    created_ms,
    expires_ms,
    is_late,
    paid_ms,
    failed_ms,
    provider_trade_no,
    flag
});

impl Column for Status {
    fn read(row: &AnyRow, name: &str) -> Result<Self, sqlx::Error> {
        Self::of(&String::read(row, name)?).map_err(|error| sqlx::Error::Decode(error.into()))
    }
}

/// Adds an order that nobody has paid; false if its user has one under this key.
pub async fn insert(pool: &Pool, order: &OrderRow) -> Result<bool, Error> {
    let done = sqlx::query(
        "INSERT INTO t_pay_order (id, user_id, client_key, product_id, amount_cents, coins, status, biz_code, created_ms, \
         expires_ms, is_late) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
    )
    .bind(order.id.clone().into_bytes())
    .bind(order.user_id)
    .bind(order.client_key.clone().into_bytes())
    .bind(order.product_id)
    .bind(order.amount_cents)
    .bind(order.coins)
    .bind(order.status.name())
    .bind(i64::from(order.biz_code))
    .bind(order.created_ms)
    .bind(order.expires_ms)
    .execute(pool)
    .await;
    match done {
        Ok(_) => Ok(true),
        Err(error) if Error::is_duplicate(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A user's order by the caller's name for it.
pub async fn of_key(pool: &Pool, user_id: i64, client_key: &str) -> Result<Option<OrderRow>, Error> {
    let select = format!("SELECT {COLUMNS} FROM t_pay_order WHERE user_id = ? AND client_key = ?");
    let query = sqlx::query_as(AssertSqlSafe(select)).bind(user_id).bind(client_key.as_bytes().to_vec());
    Ok(query.fetch_optional(pool).await?)
}

/// An order.
pub async fn get(pool: &Pool, id: &str) -> Result<Option<OrderRow>, Error> {
    let select = format!("SELECT {COLUMNS} FROM t_pay_order WHERE id = ?");
    let query = sqlx::query_as(AssertSqlSafe(select)).bind(id.as_bytes().to_vec());
    Ok(query.fetch_optional(pool).await?)
}

/// An order, which stays locked until the transaction ends.
pub async fn lock(
    connection: &mut Connection,
    dialect: Dialect,
    id: &str,
) -> Result<Option<OrderRow>, Error> {
    let select = format!("SELECT {COLUMNS} FROM t_pay_order WHERE id = ?{}", dialect.for_update());
    let query = sqlx::query_as(AssertSqlSafe(select)).bind(id.as_bytes().to_vec());
    Ok(query.fetch_optional(connection).await?)
}

/// Moves an order from one status to the next. Returns whether it had the first one.
pub async fn advance(pool: &Pool, id: &str, from: Status, to: Status) -> Result<bool, Error> {
    let done = sqlx::query("UPDATE t_pay_order SET status = ? WHERE id = ? AND status = ?")
        .bind(to.name())
        .bind(id.as_bytes().to_vec())
        .bind(from.name())
        .execute(pool)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// A payment.
pub struct Payment<'a> {
    pub provider: &'a str,
    pub trade_no: &'a str,
    pub paid_ms: i64,
}

/// The result of [`pay`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pay {
    /// The order is paid.
    Done,
    /// It had another status.
    Moved,
    /// The payment has paid another order.
    TradeTaken,
}

/// Moves an order from one status to paid.
pub async fn pay(
    connection: &mut Connection,
    id: &str,
    from: Status,
    payment: &Payment<'_>,
) -> Result<Pay, Error> {
    let done = sqlx::query(
        "UPDATE t_pay_order SET status = ?, is_late = ?, provider = ?, provider_trade_no = ?, paid_ms = ? \
         WHERE id = ? AND status = ?",
    )
    .bind(Status::Paid.name())
    .bind(i64::from(from == Status::Expired))
    .bind(payment.provider)
    .bind(payment.trade_no.as_bytes().to_vec())
    .bind(payment.paid_ms)
    .bind(id.as_bytes().to_vec())
    .bind(from.name())
    .execute(connection)
    .await;
    match done {
        Ok(done) if done.rows_affected() == 1 => Ok(Pay::Done),
        Ok(_) => Ok(Pay::Moved),
        Err(error) if Error::is_duplicate(&error) => Ok(Pay::TradeTaken),
        Err(error) => Err(error.into()),
    }
}

/// Notes that a try to pay failed.
pub async fn note_failure(connection: &mut Connection, id: &str, at_ms: i64) -> Result<(), Error> {
    let update = sqlx::query("UPDATE t_pay_order SET failed_ms = ? WHERE id = ?");
    update.bind(at_ms).bind(id.as_bytes().to_vec()).execute(connection).await?;
    Ok(())
}

/// Marks an order for people to look at.
pub async fn set_flag(connection: &mut Connection, id: &str, flag: &str) -> Result<(), Error> {
    let update = sqlx::query("UPDATE t_pay_order SET flag = ? WHERE id = ?");
    update.bind(flag).bind(id.as_bytes().to_vec()).execute(connection).await?;
    Ok(())
}

/// Orders that people have to look at, the latest first.
pub async fn flagged(pool: &Pool, most: u32) -> Result<Vec<OrderRow>, Error> {
    let select = format!(
        "SELECT {COLUMNS} FROM t_pay_order WHERE flag IS NOT NULL ORDER BY created_ms DESC LIMIT {most}"
    );
    Ok(sqlx::query_as(AssertSqlSafe(select)).fetch_all(pool).await?)
}

/// Lets those orders expire that are past their time and unpaid.
pub async fn expire(connection: &mut Connection, ids: &[String], now_ms: i64) -> Result<u64, Error> {
    let update = format!(
        "UPDATE t_pay_order SET status = ? WHERE id IN ({}) AND status = ? AND expires_ms <= ?",
        marks(ids.len())
    );
    let mut expired = 0;
    for from in Status::OPEN {
        let mut query = sqlx::query(AssertSqlSafe(update.clone())).bind(Status::Expired.name());
        for id in ids {
            query = query.bind(id.as_bytes().to_vec());
        }
        let done = query.bind(from.name()).bind(now_ms).execute(&mut *connection).await?;
        expired += done.rows_affected();
    }
    Ok(expired)
}

/// Which of the orders may still expire, and when.
pub async fn open(pool: &Pool, ids: &[String]) -> Result<Vec<(String, i64)>, Error> {
    let select = format!(
        "SELECT id, expires_ms FROM t_pay_order WHERE id IN ({}) AND status IN ({})",
        marks(ids.len()),
        marks(Status::OPEN.len())
    );
    let mut query = sqlx::query_as(AssertSqlSafe(select));
    for id in ids {
        query = query.bind(id.as_bytes().to_vec());
    }
    for status in Status::OPEN {
        query = query.bind(status.name());
    }
    let rows: Vec<(Vec<u8>, i64)> = query.fetch_all(pool).await?;
    Ok(rows.into_iter().map(|(id, expires_ms)| (text(&id), expires_ms)).collect())
}

/// How many orders of a user may still be paid in time.
pub async fn open_of_user(pool: &Pool, user_id: i64) -> Result<i64, Error> {
    let select = format!(
        "SELECT COUNT(*) FROM t_pay_order WHERE user_id = ? AND status IN ({})",
        marks(Status::OPEN.len())
    );
    let query = sqlx::query_scalar(AssertSqlSafe(select)).bind(user_id);
    let query = Status::OPEN.iter().fold(query, |query, status| query.bind(status.name()));
    Ok(query.fetch_one(pool).await?)
}

/// Orders that should have expired.
pub async fn overdue(pool: &Pool, now_ms: i64, most: u32) -> Result<Vec<String>, Error> {
    let select = format!("SELECT id FROM t_pay_order WHERE status = ? AND expires_ms <= ? LIMIT {most}");
    let mut ids = Vec::new();
    for status in Status::OPEN {
        let query = sqlx::query_scalar(AssertSqlSafe(select.clone())).bind(status.name()).bind(now_ms);
        let found: Vec<Vec<u8>> = query.fetch_all(pool).await?;
        ids.extend(found.iter().map(|id| text(id)));
    }
    Ok(ids)
}

fn text(id: &[u8]) -> String {
    String::from_utf8_lossy(id).into_owned()
}

/// The longest number that a provider gives a payment.
pub const TRADE_NO_BYTES_MAX: usize = 96;
