//! `t_inbox`: messages that did not reach their receivers, in the order in which they came.

use std::collections::BTreeSet;

use sqlx::{AssertSqlSafe, FromRow};

use super::from_row;
use super::inbox_total::{self, Share, Totals};
use super::presence::{Device, bind};
use crate::db::KeyType::Number;
use crate::db::{Connection, Dialect, Pool, marks, rows};
use crate::error::Error;

/// Rows of one statement.
const ROWS_MAX: usize = 200;

/// How the table is made. A `message_id` is a 64-bit pattern, of which only equality counts.
pub fn create(dialect: Dialect) -> Vec<String> {
    let (serial, end, key) =
        (dialect.serial(), dialect.table_end(), dialect.key(CLIENT_MSG_ID_BYTES_MAX as u32));
    let (data, index) = match dialect {
        Dialect::Sqlite => ("BLOB", ""),
        Dialect::MySql => {
            ("MEDIUMBLOB", ", INDEX i_inbox_user (app, user_id, id), INDEX i_inbox_created (created_ms)")
        }
    };
    let mut statements = vec![format!(
        "CREATE TABLE IF NOT EXISTS t_inbox (id {serial}, app BIGINT NOT NULL, user_id BIGINT NOT NULL, \
         message_id BIGINT NOT NULL, sender BIGINT NOT NULL, biz_code BIGINT NOT NULL, client_msg_id {key} NOT NULL, \
         data {data} NOT NULL, created_ms BIGINT NOT NULL, UNIQUE (app, user_id, message_id){index}{end}"
    )];
    if dialect == Dialect::Sqlite {
        statements.push("CREATE INDEX IF NOT EXISTS i_inbox_user ON t_inbox (app, user_id, id)".into());
        statements.push("CREATE INDEX IF NOT EXISTS i_inbox_created ON t_inbox (created_ms)".into());
    }
    statements
}

/// Adds the columns for shares, and for the order of delivery.
pub fn add_shares(dialect: Dialect) -> Vec<String> {
    let columns = ["bytes BIGINT NOT NULL DEFAULT 0", "tries BIGINT NOT NULL DEFAULT 0"];
    let indexes = [
        ("i_inbox_turn", "app, user_id, tries, id"),
        ("i_inbox_share", "app, user_id, sender, bytes"),
        ("i_inbox_sender", "app, sender, bytes"),
    ];
    let mut statements = match dialect {
        Dialect::Sqlite => columns.map(|column| format!("ALTER TABLE t_inbox ADD COLUMN {column}")).to_vec(),
        // One statement, which is done or not.
        Dialect::MySql => {
            let columns = columns.map(|column| format!("ADD COLUMN {column}"));
            let indexes = indexes.map(|(name, of)| format!("ADD INDEX {name} ({of})"));
            let changes = [&columns[..], &indexes[..]].concat().join(", ");
            vec![format!("ALTER TABLE t_inbox {changes}, DROP INDEX i_inbox_user")]
        }
    };
    if dialect == Dialect::Sqlite {
        statements.push("DROP INDEX i_inbox_user".into());
        statements.extend(indexes.map(|(name, of)| format!("CREATE INDEX {name} ON t_inbox ({of})")));
    }
    statements.push("UPDATE t_inbox SET bytes = LENGTH(data) WHERE bytes = 0".into());
    statements
}

/// Adds the time when a device got a message that others have yet to get.
pub fn add_delivered(_: Dialect) -> Vec<String> {
    vec!["ALTER TABLE t_inbox ADD COLUMN delivered_ms BIGINT NOT NULL DEFAULT 0".into()]
}

/// Drops the indexes for counting, as [`inbox_total`] has the numbers.
pub fn drop_counting(dialect: Dialect) -> Vec<String> {
    match dialect {
        Dialect::MySql => {
            vec!["ALTER TABLE t_inbox DROP INDEX i_inbox_share, DROP INDEX i_inbox_sender".into()]
        }
        Dialect::Sqlite => {
            ["i_inbox_share", "i_inbox_sender"].map(|name| format!("DROP INDEX IF EXISTS {name}")).to_vec()
        }
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxRow {
    pub app: i32,
    /// The receiver.
    pub user_id: i64,
    pub message_id: u64,
    pub sender: i64,
    pub biz_code: i32,
    /// The sender's name for it; may be empty.
    pub client_msg_id: String,
    pub data: Vec<u8>,
}

impl InboxRow {
    /// Bytes that it counts for in its sender's share.
    pub fn bytes(&self) -> i64 {
        self.data.len() as i64
    }

    /// Where it is counted: its app, its receiver and its sender.
    pub fn place(&self) -> (i32, i64, i64) {
        (self.app, self.user_id, self.sender)
    }
}

fn select_known(dialect: Dialect, count: usize) -> String {
    format!(
        "SELECT app, user_id, message_id FROM t_inbox WHERE (app, user_id, message_id) IN ({})",
        dialect.tuples(count, &[Number; 3])
    )
}

fn select_waiting(dialect: Dialect, count: usize) -> String {
    format!(
        "SELECT DISTINCT app, user_id FROM t_inbox WHERE (app, user_id) IN ({}) AND delivered_ms = 0",
        dialect.tuples(count, &[Number; 2])
    )
}

/// Statements for a number of tuples.
#[cfg(test)]
pub const OF_TUPLES: &[fn(Dialect, usize) -> String] = &[select_known, select_waiting];

/// Keeps messages that are not kept yet, and counts them. If another batch has kept one of them meanwhile,
/// the database counts as busy: the next try of the transaction sees it.
pub async fn insert(
    connection: &mut Connection,
    dialect: Dialect,
    messages: &[InboxRow],
    created_ms: i64,
) -> Result<(), Error> {
    let mut sums = Totals::new();
    for chunk in messages.chunks(ROWS_MAX) {
        let statement = format!(
            "INSERT INTO t_inbox (app, user_id, message_id, sender, biz_code, client_msg_id, data, bytes, created_ms) VALUES {}",
            rows(chunk.len(), 9)
        );
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for message in chunk {
            query = query
                .bind(i64::from(message.app))
                .bind(message.user_id)
                .bind(message.message_id.cast_signed())
                .bind(message.sender)
                .bind(i64::from(message.biz_code))
                .bind(message.client_msg_id.clone().into_bytes())
                .bind(message.data.clone())
                .bind(message.bytes())
                .bind(created_ms);
            inbox_total::count(&mut sums, message.place(), Share { messages: 1, bytes: message.bytes() });
        }
        match query.execute(&mut *connection).await {
            Err(error) if Error::is_duplicate(&error) => {
                return Err(Error::unavailable(
                    "database_busy",
                    "another batch has kept one of the messages",
                ));
            }
            done => done.map(drop)?,
        }
    }
    inbox_total::add(connection, dialect, &sums).await
}

/// Which of these messages are kept already.
pub async fn known(
    connection: &mut Connection,
    dialect: Dialect,
    messages: &[InboxRow],
) -> Result<BTreeSet<(i32, i64, u64)>, Error> {
    let mut found = BTreeSet::new();
    for chunk in messages.chunks(ROWS_MAX) {
        let mut query = sqlx::query_as(AssertSqlSafe(select_known(dialect, chunk.len())));
        for message in chunk {
            query = query.bind(i64::from(message.app)).bind(message.user_id);
            query = query.bind(message.message_id.cast_signed());
        }
        let rows: Vec<(i64, i64, i64)> = query.fetch_all(&mut *connection).await?;
        found.extend(rows.into_iter().map(|(app, user_id, id)| (app as i32, user_id, id.cast_unsigned())));
    }
    Ok(found)
}

/// Which of the receivers (app, user) have messages that no device got.
pub async fn waiting(pool: &Pool, dialect: Dialect, users: &[(i32, i64)]) -> Result<Vec<(i32, i64)>, Error> {
    let mut found = Vec::new();
    for chunk in users.chunks(ROWS_MAX) {
        let query = sqlx::query_as(AssertSqlSafe(select_waiting(dialect, chunk.len())));
        let query = chunk.iter().fold(query, |query, (app, id)| query.bind(i64::from(*app)).bind(*id));
        let rows: Vec<(i64, i64)> = query.fetch_all(pool).await?;
        found.extend(rows.into_iter().map(|(app, user_id)| (app as i32, user_id)));
    }
    Ok(found)
}

/// A message's place in a hand-over: those that were set aside come last, and the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    /// How often it was set aside.
    pub tries: i64,
    /// Its row.
    pub id: i64,
}

impl Turn {
    /// Before all messages.
    pub const FIRST: Turn = Turn { tries: 0, id: 0 };
}

/// A row as a hand-over reads it.
struct NextRow {
    id: i64,
    message_id: i64,
    sender: i64,
    biz_code: i32,
    client_msg_id: String,
    data: Vec<u8>,
    tries: i64,
}

from_row!(NextRow { id, message_id, sender, biz_code, client_msg_id, data, tries });

/// A receiver's next messages after a turn, for a delivery that was requested at `since_ms`: those that no
/// device got before then.
pub async fn next(
    pool: &Pool,
    (app, user_id): (i32, i64),
    since_ms: i64,
    after: Turn,
    most: u32,
) -> Result<Vec<(Turn, InboxRow)>, Error> {
    let select = format!(
        "SELECT id, message_id, sender, biz_code, client_msg_id, data, tries FROM t_inbox WHERE app = ? AND user_id = ? \
         AND tries >= ? AND (tries > ? OR id > ?) AND (delivered_ms = 0 OR delivered_ms >= ?) ORDER BY tries, id LIMIT {most}"
    );
    let query = sqlx::query_as(AssertSqlSafe(select)).bind(i64::from(app)).bind(user_id);
    let query = query.bind(after.tries).bind(after.tries).bind(after.id).bind(since_ms);
    let found: Vec<NextRow> = query.fetch_all(pool).await?;
    let message = |row: NextRow| {
        let NextRow { id, message_id, sender, biz_code, client_msg_id, data, tries } = row;
        let message_id = message_id.cast_unsigned();
        let message = InboxRow { app, user_id, message_id, sender, biz_code, client_msg_id, data };
        (Turn { tries, id }, message)
    };
    Ok(found.into_iter().map(message).collect())
}

/// Sets messages aside: in later hand-overs they come after those that were set aside less often.
pub async fn set_aside(connection: &mut Connection, ids: &[i64]) -> Result<(), Error> {
    for chunk in ids.chunks(ROWS_MAX) {
        let statement = format!("UPDATE t_inbox SET tries = tries + 1 WHERE id IN ({})", marks(chunk.len()));
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for id in chunk {
            query = query.bind(*id);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// How many messages of a receiver no device got.
pub async fn count(pool: &Pool, app: i32, user_id: i64) -> Result<i64, Error> {
    let select =
        sqlx::query_scalar("SELECT COUNT(*) FROM t_inbox WHERE app = ? AND user_id = ? AND delivered_ms = 0");
    Ok(select.bind(i64::from(app)).bind(user_id).fetch_one(pool).await?)
}

/// Messages that came before `before_ms`.
pub async fn older_than(pool: &Pool, before_ms: i64, most: u32) -> Result<Vec<i64>, Error> {
    let select = format!("SELECT id FROM t_inbox WHERE created_ms < ? LIMIT {most}");
    Ok(sqlx::query_scalar(AssertSqlSafe(select)).bind(before_ms).fetch_all(pool).await?)
}

/// A message to be deleted.
struct Going {
    id: i64,
    app: i32,
    user_id: i64,
    sender: i64,
    bytes: i64,
}

from_row!(Going { id, app, user_id, sender, bytes });

/// Selects the rows to delete and locks them: if two transactions delete a row, only one counts it. A
/// condition on `t_hand_over` waits for a request under way.
fn select_going(dialect: Dialect, condition: &str) -> String {
    format!("SELECT id, app, user_id, sender, bytes FROM t_inbox WHERE {condition}{}", dialect.for_update())
}

/// Removes messages that a device got, unless a delivery to another one is requested: then they stay for
/// that, and are marked. Returns whether some stay.
pub async fn delivered(
    connection: &mut Connection,
    dialect: Dialect,
    to: &Device,
    ids: &[i64],
    now_ms: i64,
) -> Result<bool, Error> {
    let (mut stay, mut going) = (false, Vec::new());
    for chunk in ids.chunks(ROWS_MAX) {
        let marks = marks(chunk.len());
        let condition = format!(
            "id IN ({marks}) AND NOT EXISTS \
             (SELECT 1 FROM t_hand_over WHERE app = ? AND user_id = ? AND device <> ?{})",
            dialect.for_share()
        );
        let select = select_going(dialect, &condition);
        let query = chunk.iter().fold(sqlx::query(AssertSqlSafe(select)), |query, id| query.bind(*id));
        let found = bind(query, to).fetch_all(&mut *connection).await?;
        for row in &found {
            going.push(Going::from_row(row)?);
        }
        if found.len() == chunk.len() {
            continue;
        }
        let update =
            format!("UPDATE t_inbox SET delivered_ms = ? WHERE delivered_ms = 0 AND id IN ({marks})");
        let query = sqlx::query(AssertSqlSafe(update)).bind(now_ms);
        let query = chunk.iter().fold(query, |query, id| query.bind(*id));
        query.execute(&mut *connection).await?;
        stay = true;
    }
    remove(connection, dialect, &going).await?;
    Ok(stay)
}

/// Removes messages that stayed for a receiver's other devices, if no delivery is requested any more.
pub async fn delete_delivered(
    connection: &mut Connection,
    dialect: Dialect,
    app: i32,
    user_id: i64,
) -> Result<(), Error> {
    let condition = format!(
        "app = ? AND user_id = ? AND delivered_ms > 0 AND NOT EXISTS \
         (SELECT 1 FROM t_hand_over WHERE app = ? AND user_id = ?{})",
        dialect.for_share()
    );
    let query = sqlx::query_as(AssertSqlSafe(select_going(dialect, &condition)));
    let query = query.bind(i64::from(app)).bind(user_id).bind(i64::from(app)).bind(user_id);
    let going: Vec<Going> = query.fetch_all(&mut *connection).await?;
    remove(connection, dialect, &going).await
}

/// Removes messages.
pub async fn delete(connection: &mut Connection, dialect: Dialect, ids: &[i64]) -> Result<(), Error> {
    let mut going: Vec<Going> = Vec::new();
    for chunk in ids.chunks(ROWS_MAX) {
        let select = select_going(dialect, &format!("id IN ({})", marks(chunk.len())));
        let query = chunk.iter().fold(sqlx::query_as(AssertSqlSafe(select)), |query, id| query.bind(*id));
        going.extend(query.fetch_all(&mut *connection).await?);
    }
    remove(connection, dialect, &going).await
}

/// Deletes locked rows. As in [`insert`], messages are locked before their totals.
async fn remove(connection: &mut Connection, dialect: Dialect, going: &[Going]) -> Result<(), Error> {
    let mut sums = Totals::new();
    for chunk in going.chunks(ROWS_MAX) {
        let delete = format!("DELETE FROM t_inbox WHERE id IN ({})", marks(chunk.len()));
        let query = chunk.iter().fold(sqlx::query(AssertSqlSafe(delete)), |query, row| query.bind(row.id));
        query.execute(&mut *connection).await?;
        for row in chunk {
            let place = (row.app, row.user_id, row.sender);
            inbox_total::count(&mut sums, place, Share { messages: -1, bytes: -row.bytes });
        }
    }
    inbox_total::add(connection, dialect, &sums).await?;
    inbox_total::delete_empty(connection, dialect, &sums).await
}

/// The longest name that a sender gives a message.
pub const CLIENT_MSG_ID_BYTES_MAX: usize = 64;
