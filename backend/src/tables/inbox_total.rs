//! `t_inbox_total`: how many messages are in inboxes, and the bytes of their payloads. They change in the
//! transactions that change `t_inbox`, so keeping a message counts no rows: that would take the longer the
//! more messages a sender or a receiver has.
//!
//! There is a row for each sender in each inbox, and two sums of user messages: of all senders in an inbox,
//! and of a sender in all inboxes. Rows are locked in the order of their keys, after the messages. A row that
//! counts nothing is deleted.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::AssertSqlSafe;

use crate::db::KeyType::Number;
use crate::db::{Connection, Dialect, padded, rows};
use crate::error::Error;

/// Rows of one statement.
const ROWS_MAX: usize = 128;

/// Stands for all receivers, or for all users who send. No user has this id.
const ALL: i64 = -i64::MAX;

/// The sender of the backend's own messages.
pub const BACKEND: i64 = 0;

/// Makes the table and fills it from the existing messages. A step that was cut short begins with an empty
/// table.
pub fn create(dialect: Dialect) -> Vec<String> {
    let end = dialect.table_end();
    let fill = |user_id: &str, sender: &str, condition: &str| {
        format!(
            "INSERT INTO t_inbox_total (app, user_id, sender, messages, bytes) \
             SELECT app, {user_id}, {sender}, COUNT(*), SUM(bytes) FROM t_inbox {condition}"
        )
    };
    let (all, users) = (ALL.to_string(), format!("WHERE sender <> {BACKEND}"));
    vec![
        format!(
            "CREATE TABLE IF NOT EXISTS t_inbox_total (app BIGINT NOT NULL, user_id BIGINT NOT NULL, sender BIGINT NOT NULL, \
             messages BIGINT NOT NULL, bytes BIGINT NOT NULL, PRIMARY KEY (app, user_id, sender){end}"
        ),
        "DELETE FROM t_inbox_total".into(),
        fill("user_id", "sender", "GROUP BY app, user_id, sender"),
        fill("user_id", &all, &format!("{users} GROUP BY app, user_id")),
        fill(&all, "sender", &format!("{users} GROUP BY app, sender")),
    ]
}

/// A number of messages, and the bytes of their payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub messages: i64,
    pub bytes: i64,
}

/// What a row counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    app: i32,
    user_id: i64,
    sender: i64,
}

/// Some rows.
pub type Totals = BTreeMap<Key, Share>;

impl Key {
    /// The row of a sender in an inbox.
    pub fn of_pair((app, user_id, sender): (i32, i64, i64)) -> Self {
        Self { app, user_id, sender }
    }

    /// The row of all users in an inbox.
    pub fn of_inbox((app, user_id, _): (i32, i64, i64)) -> Self {
        Self { app, user_id, sender: ALL }
    }

    /// The row of a sender in all inboxes.
    pub fn of_sender((app, _, sender): (i32, i64, i64)) -> Self {
        Self { app, user_id: ALL, sender }
    }

    /// The rows in which a message counts. The backend's messages to all inboxes have no row: nobody needs
    /// the sum, and all would wait for it.
    pub fn all_of(place: (i32, i64, i64)) -> impl Iterator<Item = Self> {
        let of_user = (place.2 != BACKEND).then(|| [Self::of_inbox(place), Self::of_sender(place)]);
        std::iter::once(Self::of_pair(place)).chain(of_user.into_iter().flatten())
    }
}

/// Adds messages of a place, which are an app, a receiver and a sender.
pub fn count(sums: &mut Totals, place: (i32, i64, i64), share: Share) {
    for key in Key::all_of(place) {
        let sum = sums.entry(key).or_default();
        *sum = Share { messages: sum.messages + share.messages, bytes: sum.bytes + share.bytes };
    }
}

fn select(dialect: Dialect, count: usize) -> String {
    format!(
        "SELECT app, user_id, sender, messages, bytes FROM t_inbox_total WHERE (app, user_id, sender) IN ({})",
        dialect.tuples(count, &[Number; 3])
    )
}

fn delete(dialect: Dialect, count: usize) -> String {
    format!(
        "DELETE FROM t_inbox_total WHERE messages <= 0 AND (app, user_id, sender) IN ({})",
        dialect.tuples(count, &[Number; 3])
    )
}

/// Statements for a number of tuples.
#[cfg(test)]
pub const OF_TUPLES: &[fn(Dialect, usize) -> String] = &[select, delete];

/// These rows. One that is not there counts nothing.
pub async fn get(
    connection: &mut Connection,
    dialect: Dialect,
    keys: &BTreeSet<Key>,
) -> Result<Totals, Error> {
    let mut found = Totals::new();
    for chunk in Vec::from_iter(keys.iter().copied()).chunks(ROWS_MAX) {
        let chunk = padded(chunk);
        let mut query = sqlx::query_as(AssertSqlSafe(select(dialect, chunk.len())));
        for key in &chunk {
            query = query.bind(i64::from(key.app)).bind(key.user_id).bind(key.sender);
        }
        let rows: Vec<(i64, i64, i64, i64, i64)> = query.fetch_all(&mut *connection).await?;
        for (app, user_id, sender, messages, bytes) in rows {
            found.insert(Key { app: app as i32, user_id, sender }, Share { messages, bytes });
        }
    }
    Ok(found)
}

/// Adds to rows.
pub async fn add(connection: &mut Connection, dialect: Dialect, sums: &Totals) -> Result<(), Error> {
    let update = dialect.on_conflict_add("app, user_id, sender", &["messages", "bytes"]);
    for chunk in Vec::from_iter(sums).chunks(ROWS_MAX) {
        let statement = format!(
            "INSERT INTO t_inbox_total (app, user_id, sender, messages, bytes) VALUES {}{update}",
            rows(chunk.len(), 5)
        );
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for (key, sum) in chunk {
            query = query.bind(i64::from(key.app)).bind(key.user_id).bind(key.sender);
            query = query.bind(sum.messages).bind(sum.bytes);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Deletes those of these rows that count nothing any more.
pub async fn delete_empty(connection: &mut Connection, dialect: Dialect, sums: &Totals) -> Result<(), Error> {
    for chunk in Vec::from_iter(sums.keys().copied()).chunks(ROWS_MAX) {
        let chunk = padded(chunk);
        let mut query = sqlx::query(AssertSqlSafe(delete(dialect, chunk.len())));
        for key in &chunk {
            query = query.bind(i64::from(key.app)).bind(key.user_id).bind(key.sender);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}
