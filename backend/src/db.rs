//! The database: MySQL (or a server with its protocol) with replicas, or SQLite. The SQL is in
//! [`crate::tables`], that of migrations in [`crate::migrations`], that of replicas in a module here.
//!
//! sqlx's `Any` driver speaks to both, so each statement exists once. Keys that must be compared byte by byte
//! are BLOB columns, times are BIGINT milliseconds since the UNIX epoch, and the differences between the two
//! are in [`Dialect`].

mod pool;
mod private;
mod prompt;
mod replicas;

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, ConnectOptions, Executor};

use crate::clock::Clock;
use crate::config::Config;
use crate::error::Error;
use crate::random;
use crate::urls::with_tls;
use pool::Writes;
pub use pool::{Connection, Pool, PoolCounts};
use prompt::Prompt;
use replicas::Replicas;

/// How long a query may wait for a connection.
const ACQUIRE_TIME: Duration = Duration::from_secs(5);
/// How long the primary may take to answer a ping or to take a write, and how long that result counts.
const PING_TIME: Duration = Duration::from_secs(1);
/// From how long on a statement counts as slow.
const SLOW_TIME: Duration = Duration::from_secs(1);
/// How often a transaction is tried.
const TURNS_MAX: u64 = 8;
/// How long SQLite waits for another writer, in ms.
const BUSY_MS: u32 = 10_000;
/// Connections that read an SQLite file. Each has a cache of the file's pages, a thread, and the allocator's
/// memory for it; the pool uses them in turn.
const SQLITE_READERS_MAX: u32 = 4;

/// Which database it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// Embedded.
    Sqlite,
    /// MySQL or MariaDB.
    MySql,
}

/// The type of a key's column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyType {
    /// BIGINT.
    Number,
    /// As [`Dialect::key`] returns it.
    Bytes,
}

/// A transaction that may write. Dropping it before the commit rolls it back.
pub struct Tx(Connection);

/// Pools of connections.
pub struct Db {
    dialect: Dialect,
    primary: Pool,
    /// The same connections, for statements that write.
    writer: Pool,
    writes: Arc<Writes>,
    /// SQLite only: further connections that read, since only one may write.
    readers: Option<Pool>,
    replicas: Replicas,
    /// When the primary was last seen to answer a ping, and to take a write.
    seen_up: Mutex<Option<Instant>>,
    seen_to_write: Mutex<Option<Instant>>,
    /// MySQL only: the sockets that pass connections on.
    prompts: Vec<Prompt>,
}

impl Db {
    /// Connects as needed. If the server is away, this does not fail, but each query does until it is back.
    pub async fn open(config: &Config) -> Result<Self, Error> {
        sqlx::any::install_default_drivers();
        let dialect = match config.database.split(':').next() {
            Some("sqlite") => Dialect::Sqlite,
            Some("mysql" | "mariadb") => Dialect::MySql,
            _ => {
                return Err(Error::internal(
                    "database: want sqlite:FILE or mysql://USER:PASSWORD@HOST:PORT/NAME",
                ));
            }
        };
        let most = config.database_connections_max;
        let mut prompts = Vec::new();
        let (primary, readers) = match dialect {
            Dialect::MySql => (prompt_pool(&config.database, config, &mut prompts)?, None),
            Dialect::Sqlite => {
                private::shut_others_out(&config.database)?;
                let url = format!("{}?mode=rwc", config.database);
                // The first connection makes the file and its WAL, which readers need.
                let primary = pool(dialect, &url, 1)?;
                drop(primary.acquire().await?);
                (primary, Some(pool(dialect, &url, most.min(SQLITE_READERS_MAX))?))
            }
        };
        let replicas = config.replicas.iter().map(|url| prompt_pool(url, config, &mut prompts));
        let replicas = Replicas::new(replicas.collect::<Result<_, _>>()?);
        let writes = Arc::<Writes>::default();
        Ok(Self {
            dialect,
            writer: primary.writer(writes.clone()),
            primary,
            writes,
            readers,
            replicas,
            seen_up: Mutex::default(),
            seen_to_write: Mutex::default(),
            prompts,
        })
    }

    /// Which database it is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The pool of the primary, which has everything that was ever committed.
    pub fn primary(&self) -> &Pool {
        self.readers.as_ref().unwrap_or(&self.primary)
    }

    /// A pool that may be a little behind: of a replica, or of the primary if no replica is good.
    pub fn replica(&self) -> &Pool {
        self.replicas.pick().unwrap_or_else(|| self.primary())
    }

    /// Each pool by its name.
    pub fn pools(&self) -> Vec<(&'static str, PoolCounts)> {
        let readers = self.readers.iter().map(|pool| ("readers", pool));
        let pools = std::iter::once(("primary", &self.primary)).chain(readers);
        pools.map(|(name, pool)| (name, pool.counts())).collect()
    }

    /// Whether the primary answers, or has answered within the last second, and has refused no write lately.
    pub async fn is_up(&self) -> bool {
        let ping = async { sqlx::query("SELECT 1").fetch_one(self.primary()).await.map(drop) };
        self.writes.failure().is_none() && within_a_second(&self.seen_up, ping).await.is_ok()
    }

    /// Whether the primary takes writes: none has failed within the last seconds, and one that is tried here,
    /// once a second at most, succeeds.
    ///
    /// # Errors
    /// 503, with the database's own words.
    pub async fn check_writes(&self, clock: &Clock) -> Result<(), Error> {
        if let Some(error) = self.writes.failure() {
            return Err(error);
        }
        let write = sqlx::query("UPDATE t_heartbeat SET at_ms = ? WHERE id = 1").bind(clock.now_ms());
        within_a_second(&self.seen_to_write, async { write.execute(self.writer()).await.map(drop) }).await
    }

    /// From now on, a connection is closed if its server does not answer a statement within `time`. Call it
    /// after the migrations, which may take as long as they need.
    pub fn limit_answers(&self, time: Duration) {
        self.prompts.iter().for_each(|prompt| prompt.limit(time));
    }

    /// How many replicas are read from.
    pub fn good_replicas(&self) -> usize {
        self.replicas.lags_ms().filter(|(is_good, _)| *is_good).count()
    }

    /// For a statement that writes and is a transaction by itself.
    pub fn writer(&self) -> &Pool {
        &self.writer
    }

    /// A transaction that writes.
    pub async fn begin(&self) -> Result<Tx, Error> {
        Tx::begin(&self.writer, self.dialect).await
    }

    /// For each replica: whether it is read from, and how far behind it is; `None` if it does not answer.
    pub fn replica_lags_ms(&self) -> Vec<(bool, Option<i64>)> {
        self.replicas.lags_ms().collect()
    }

    /// Watches how far replicas are behind, until dropped.
    pub(crate) async fn watch_replicas(&self, lag_ms_max: u32, clock: &Clock) {
        self.replicas.watch(&self.primary, lag_ms_max, clock).await;
    }

    /// Notes that the process ends: see [`Pool::ends`].
    pub fn ends(&self) {
        self.primary.ends();
        self.readers.iter().for_each(Pool::ends);
    }

    /// Ends all connections.
    pub async fn close(&self) {
        self.primary.close().await;
        if let Some(readers) = &self.readers {
            readers.close().await;
        }
        self.replicas.close().await;
    }
}

impl Tx {
    /// A transaction on a connection of a pool.
    pub async fn begin(writer: &Pool, dialect: Dialect) -> Result<Self, Error> {
        let mut connection = writer.acquire().await?;
        connection
            .begin(match dialect {
                // A deferred transaction would fail as soon as it writes after another one did.
                Dialect::Sqlite => "BEGIN IMMEDIATE",
                Dialect::MySql => "BEGIN",
            })
            .await?;
        Ok(Self(connection))
    }

    /// Commits. After an unknown error, the writes may be there, unless the database rolled them back.
    pub async fn commit(mut self) -> Result<(), Error> {
        self.0.end("COMMIT").await?;
        self.0.wrote();
        Ok(())
    }

    /// Undoes what it wrote, and waits for that.
    pub async fn rollback(mut self) -> Result<(), Error> {
        Ok(self.0.end("ROLLBACK").await?)
    }
}

impl Deref for Tx {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

/// Whether `ask` succeeds within a second, or has done so within the last one.
async fn within_a_second(
    seen: &Mutex<Option<Instant>>,
    ask: impl Future<Output = Result<(), sqlx::Error>>,
) -> Result<(), Error> {
    let known = || seen.lock().unwrap_or_else(PoisonError::into_inner);
    if known().is_some_and(|seen| seen.elapsed() < PING_TIME) {
        return Ok(());
    }
    let asked = tokio::time::timeout(PING_TIME, ask).await;
    *known() = matches!(asked, Ok(Ok(()))).then(Instant::now);
    match asked {
        Ok(asked) => Ok(asked?),
        Err(_) => Err(Error::unavailable("database_unavailable", "the database does not answer in time")),
    }
}

/// The pool of a MySQL server.
fn prompt_pool(url: &str, config: &Config, prompts: &mut Vec<Prompt>) -> Result<Pool, Error> {
    let url = with_tls(url, &config.roots).map_err(Error::internal)?;
    let (url, prompt) = Prompt::open(&url)?;
    prompts.extend(prompt);
    pool(Dialect::MySql, &url, config.database_connections_max)
}

fn pool(dialect: Dialect, url: &str, connections_max: u32) -> Result<Pool, Error> {
    let options: AnyConnectOptions = url.parse()?;
    // Callers and a slow server cause many such lines, each with a whole statement.
    let options = match "debug".parse() {
        Ok(level) => options.log_slow_statements(level, SLOW_TIME),
        Err(_) => options.disable_statement_logging(),
    };
    let pool = AnyPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIME)
        // Not logged: many callers at once would fill the log, and a metric counts those that wait.
        .acquire_slow_threshold(ACQUIRE_TIME)
        .after_connect(move |connection, _| Box::pin(async move { set_up(connection, dialect).await }));
    Ok(Pool::new(pool.connect_lazy_with(options)))
}

/// `synchronous = FULL` makes a commit survive a loss of power, as InnoDB's default does. InnoDB's default
/// isolation would lock the gaps between rows, where takers and pushers of jobs deadlock far more often.
async fn set_up(connection: &mut AnyConnection, dialect: Dialect) -> Result<(), sqlx::Error> {
    match dialect {
        Dialect::MySql => {
            let isolation = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
            connection.execute(isolation).await.map(|_| ())
        }
        Dialect::Sqlite => {
            let pragmas = format!(
                "PRAGMA busy_timeout = {BUSY_MS}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -32768"
            );
            connection.execute(sqlx::AssertSqlSafe(pragmas)).await.map(|_| ())
        }
    }
}

impl Dialect {
    /// The type of a key that is compared byte by byte, of up to `bytes` bytes.
    pub fn key(self, bytes: u32) -> String {
        match self {
            Self::Sqlite => "BLOB".into(),
            Self::MySql => format!("VARBINARY({bytes})"),
        }
    }

    /// The type of texts of any length below 16 MiB.
    pub fn long_text(self) -> &'static str {
        match self {
            Self::Sqlite => "TEXT",
            Self::MySql => "MEDIUMTEXT",
        }
    }

    /// The column that numbers its rows, as primary key.
    pub fn serial(self) -> &'static str {
        match self {
            Self::Sqlite => "INTEGER PRIMARY KEY AUTOINCREMENT",
            Self::MySql => "BIGINT PRIMARY KEY AUTO_INCREMENT",
        }
    }

    /// What a `CREATE TABLE` ends with.
    pub fn table_end(self) -> &'static str {
        match self {
            Self::Sqlite => ")",
            Self::MySql => ") ENGINE = InnoDB DEFAULT CHARSET = utf8mb4",
        }
    }

    /// The beginning of an `INSERT` that keeps existing rows.
    pub fn insert_ignore(self) -> &'static str {
        match self {
            Self::Sqlite => "INSERT OR IGNORE INTO",
            Self::MySql => "INSERT IGNORE INTO",
        }
    }

    /// The end of an `INSERT` that overwrites `columns` where `key` exists.
    pub fn on_conflict_update(self, key: &str, columns: &[&str]) -> String {
        let (head, of): (String, fn(&str) -> String) = match self {
            Self::Sqlite => (format!(" ON CONFLICT({key}) DO UPDATE SET "), |column| {
                format!("{column} = excluded.{column}")
            }),
            Self::MySql => {
                (" ON DUPLICATE KEY UPDATE ".into(), |column| format!("{column} = VALUES({column})"))
            }
        };
        head + &columns.iter().map(|column| of(column)).collect::<Vec<_>>().join(", ")
    }

    /// The end of an `INSERT` that raises `columns` to the greater value where `key` exists.
    pub fn on_conflict_greatest(self, key: &str, columns: &[&str]) -> String {
        let of = |column: &&str| match self {
            Self::Sqlite => format!("{column} = MAX({column}, excluded.{column})"),
            Self::MySql => format!("{column} = GREATEST({column}, VALUES({column}))"),
        };
        self.on_conflict_set(key, &columns.iter().map(of).collect::<Vec<_>>().join(", "))
    }

    /// The end of an `INSERT` that adds its values to `columns` where `key` exists.
    pub fn on_conflict_add(self, key: &str, columns: &[&str]) -> String {
        let of = |column: &&str| match self {
            Self::Sqlite => format!("{column} = {column} + excluded.{column}"),
            Self::MySql => format!("{column} = {column} + VALUES({column})"),
        };
        self.on_conflict_set(key, &columns.iter().map(of).collect::<Vec<_>>().join(", "))
    }

    /// The end of an `INSERT` that changes the existing row of `key`.
    pub fn on_conflict_set(self, key: &str, assignments: &str) -> String {
        match self {
            Self::Sqlite => format!(" ON CONFLICT({key}) DO UPDATE SET {assignments}"),
            Self::MySql => format!(" ON DUPLICATE KEY UPDATE {assignments}"),
        }
    }

    /// `count` tuples of placeholders for columns of these types, for `(...) IN (...)`. SQLite uses an index
    /// only if the types are those of its columns, and values in `VALUES` have none.
    pub fn tuples(self, count: usize, types: &[KeyType]) -> String {
        let rows = rows(count, types.len());
        let name = |of: &KeyType| match of {
            KeyType::Number => "BIGINT",
            KeyType::Bytes => "BLOB",
        };
        let cast = |(index, of)| format!("CAST(column{} AS {})", index + 1, name(of));
        match self {
            Self::Sqlite => {
                let casts: Vec<String> = types.iter().enumerate().map(cast).collect();
                format!("SELECT {} FROM (VALUES {rows})", casts.join(", "))
            }
            Self::MySql => rows,
        }
    }

    /// The end of a `SELECT` whose rows are to be locked. SQLite's writer has the whole database.
    pub fn for_update(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::MySql => " FOR UPDATE",
        }
    }

    /// The end of a `SELECT` whose rows nobody may change before the transaction ends; others may read and
    /// keep them too.
    pub fn for_share(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::MySql => " LOCK IN SHARE MODE",
        }
    }

    /// A sum as a 64-bit integer; 0 for no rows.
    pub fn sum(self, expression: &str) -> String {
        match self {
            Self::Sqlite => format!("COALESCE(SUM({expression}), 0)"),
            Self::MySql => format!("CAST(COALESCE(SUM({expression}), 0) AS SIGNED)"),
        }
    }
}

/// Repeats a transaction a few times while the database is busy: it has rolled the transaction back, as it
/// does to one of two that wait for each other.
pub async fn insist<T, F>(transaction: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    for turn in 1..TURNS_MAX {
        match transaction().await {
            Err(error) if error.code == "database_busy" => {
                tokio::time::sleep(Duration::from_millis(random::below(10 * turn))).await;
            }
            done => return done,
        }
    }
    transaction().await
}

/// `count` groups of `columns` placeholders each: `(?, ?), (?, ?)`.
pub fn rows(count: usize, columns: usize) -> String {
    let row = format!("({})", marks(columns));
    vec![row; count].join(", ")
}

/// `count` placeholders: `?, ?, ?`.
pub fn marks(count: usize) -> String {
    vec!["?"; count].join(", ")
}

/// As many values as the next power of two, by repeating the last: for `IN (..)`, so that few statements
/// differ and each connection keeps them prepared.
pub fn padded<T: Clone>(values: &[T]) -> Vec<T> {
    let mut padded = values.to_vec();
    if let Some(last) = values.last() {
        padded.resize(values.len().next_power_of_two(), last.clone());
    }
    padded
}
