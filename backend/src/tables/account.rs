//! `t_account`, each user's balance in coins, and `t_ledger`, every change of it. They are only written
//! together: a balance is the sum of its ledger rows at any moment.

use std::collections::BTreeMap;

use sqlx::AssertSqlSafe;

use super::from_row;
use crate::db::{Connection, Dialect, Pool, marks, rows};
use crate::error::Error;

/// How the tables are made.
pub fn create(dialect: Dialect) -> Vec<String> {
    let (serial, end, key) = (dialect.serial(), dialect.table_end(), dialect.key(96));
    let index = match dialect {
        Dialect::Sqlite => "",
        Dialect::MySql => ", INDEX i_ledger_user (user_id, id)",
    };
    let mut statements = vec![
        format!(
            "CREATE TABLE IF NOT EXISTS t_account (user_id BIGINT PRIMARY KEY, balance BIGINT NOT NULL, CHECK (balance >= 0){end}"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS t_ledger (id {serial}, user_id BIGINT NOT NULL, amount BIGINT NOT NULL, \
             kind VARCHAR(16) NOT NULL, reference {key} NOT NULL, at_ms BIGINT NOT NULL, \
             UNIQUE (user_id, kind, reference){index}{end}"
        ),
    ];
    if dialect == Dialect::Sqlite {
        statements.push("CREATE INDEX IF NOT EXISTS i_ledger_user ON t_ledger (user_id, id)".into());
    }
    statements
}

/// A change of a balance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The user.
    pub user_id: i64,
    /// In coins; negative for a debit.
    pub amount: i64,
    /// `gift`, `recharge`, `grant`.
    pub kind: &'static str,
    /// The gift's or the order's key, unique for user and kind.
    pub reference: Vec<u8>,
}

/// One user's balance; `None` without an account.
pub async fn balance(pool: &Pool, user_id: i64) -> Result<Option<i64>, Error> {
    let row = sqlx::query_scalar("SELECT balance FROM t_account WHERE user_id = ?")
        .bind(user_id)
        .fetch_optional(pool)
        .await?;
    Ok(row)
}

/// Reads balances and locks their accounts until the transaction ends, in the order of users, so that two
/// transactions never wait for each other.
pub async fn lock(
    connection: &mut Connection,
    dialect: Dialect,
    user_ids: &[i64],
) -> Result<BTreeMap<i64, i64>, Error> {
    let statement = format!(
        "SELECT user_id, balance FROM t_account WHERE user_id IN ({}) ORDER BY user_id{}",
        marks(user_ids.len()),
        dialect.for_update()
    );
    let mut query = sqlx::query_as(AssertSqlSafe(statement));
    for user_id in user_ids {
        query = query.bind(*user_id);
    }
    let balances: Vec<(i64, i64)> = query.fetch_all(connection).await?;
    Ok(balances.into_iter().collect())
}

/// Debits accounts, each only if it has enough. Returns whether all had: if not, the caller must roll back.
pub async fn debit(connection: &mut Connection, debits: &BTreeMap<i64, i64>) -> Result<bool, Error> {
    let cases = vec!["WHEN ? THEN ?"; debits.len()].join(" ");
    let guards = vec!["(user_id = ? AND balance >= ?)"; debits.len()].join(" OR ");
    let statement =
        format!("UPDATE t_account SET balance = balance - CASE user_id {cases} ELSE 0 END WHERE {guards}");
    let mut query = sqlx::query(AssertSqlSafe(statement));
    for (user_id, amount) in debits.iter().chain(debits) {
        query = query.bind(*user_id).bind(*amount);
    }
    Ok(query.execute(connection).await?.rows_affected() == debits.len() as u64)
}

/// Credits an account, and makes it if needed.
pub async fn credit(
    connection: &mut Connection,
    dialect: Dialect,
    user_id: i64,
    amount: i64,
) -> Result<(), Error> {
    // In one statement: an insert that finds an existing row would take a shared lock on it, and two such
    // transactions would block each other.
    let update = match dialect {
        Dialect::Sqlite => "ON CONFLICT(user_id) DO UPDATE SET balance = balance + excluded.balance",
        Dialect::MySql => "ON DUPLICATE KEY UPDATE balance = balance + VALUES(balance)",
    };
    let statement = format!("INSERT INTO t_account (user_id, balance) VALUES (?, ?) {update}");
    sqlx::query(AssertSqlSafe(statement)).bind(user_id).bind(amount).execute(connection).await?;
    Ok(())
}

/// Writes ledger rows.
pub async fn record(connection: &mut Connection, entries: &[Entry], at_ms: i64) -> Result<(), Error> {
    let statement = format!(
        "INSERT INTO t_ledger (user_id, amount, kind, reference, at_ms) VALUES {}",
        rows(entries.len(), 5)
    );
    let mut query = sqlx::query(AssertSqlSafe(statement));
    for entry in entries {
        query = query
            .bind(entry.user_id)
            .bind(entry.amount)
            .bind(entry.kind)
            .bind(entry.reference.clone())
            .bind(at_ms);
    }
    query.execute(connection).await?;
    Ok(())
}

/// The amount of a ledger row, if there is one.
pub async fn amount(
    connection: &mut Connection,
    user_id: i64,
    kind: &str,
    reference: &[u8],
) -> Result<Option<i64>, Error> {
    let row =
        sqlx::query_scalar("SELECT amount FROM t_ledger WHERE user_id = ? AND kind = ? AND reference = ?")
            .bind(user_id)
            .bind(kind)
            .bind(reference.to_vec())
            .fetch_optional(connection)
            .await?;
    Ok(row)
}

/// A ledger row.
pub struct LedgerRow {
    pub id: i64,
    pub amount: i64,
    pub kind: String,
    pub reference: Vec<u8>,
    pub at_ms: i64,
}

from_row!(LedgerRow { id, amount, kind, reference, at_ms });

/// A user's ledger rows before one, the latest first.
pub async fn page(pool: &Pool, user_id: i64, before: i64, most: u32) -> Result<Vec<LedgerRow>, Error> {
    let statement = format!(
        "SELECT id, amount, kind, reference, at_ms FROM t_ledger WHERE user_id = ? AND id < ? ORDER BY id DESC LIMIT {most}"
    );
    Ok(sqlx::query_as(AssertSqlSafe(statement)).bind(user_id).bind(before).fetch_all(pool).await?)
}

/// The ledger at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// The sum of all ledger rows.
    pub ledger: i64,
    /// The sum of all balances.
    pub balances: i64,
    /// Accounts that differ from the sum of their rows.
    pub differing: i64,
    /// Gifts that were ever committed.
    pub gifts_committed: i64,
}

from_row!(Audit { ledger, balances, differing, gifts_committed });

/// Reads the whole ledger in one statement, so that all sums are of one moment.
pub async fn audit(pool: &Pool, dialect: Dialect) -> Result<Audit, Error> {
    let (ledger, balances) = (dialect.sum("amount"), dialect.sum("balance"));
    let statement = format!(
        "SELECT (SELECT {ledger} FROM t_ledger) AS ledger, (SELECT {balances} FROM t_account) AS balances, \
         (SELECT COUNT(*) FROM t_account a WHERE a.balance <> (SELECT {ledger} FROM t_ledger l WHERE l.user_id = a.user_id)) AS differing, \
         (SELECT COUNT(*) FROM t_gift_order WHERE answer = 'committed') AS gifts_committed"
    );
    Ok(sqlx::query_as(AssertSqlSafe(statement)).fetch_one(pool).await?)
}
