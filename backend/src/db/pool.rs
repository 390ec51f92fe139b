//! Pools of connections, and when a connection goes back to its pool.
//!
//! A connection goes back only if nothing is left open on it. If a statement was abandoned half-way, its
//! answer is still to come, and the next user would take it for its own; after a full disk, a read-only
//! server or a damaged file, the connection may believe in a transaction that is gone. Such a connection is
//! closed, and the pool opens another one.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use logs::{error, info, warn};
use sqlx::any::{AnyQueryResult, AnyRow};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyPool, Database, Either, Execute, Executor, SqlStr};

use crate::error::Error;

/// How long the end of a transaction and the check of its connection may take, before the connection is
/// closed instead.
const RELEASE_TIME: Duration = Duration::from_secs(2);
/// How long a failed write counts against the database, unless a later one succeeds.
const FAILED_TIME: Duration = Duration::from_secs(5);

/// A pool of connections.
#[derive(Clone, Debug)]
pub struct Pool {
    inner: AnyPool,
    counts: Arc<Counts>,
    /// Set for the pool whose statements write.
    writes: Option<Arc<Writes>>,
}

/// The counters of a pool.
#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicUsize,
    closed: AtomicU64,
    is_ending: AtomicBool,
}

/// The state of a pool at the moment.
pub struct PoolCounts {
    /// Connections at work.
    pub used: usize,
    /// Connections that wait for work.
    pub idle: usize,
    /// Callers that wait for a connection.
    pub waiting: usize,
    /// Connections that were closed since the start because something was left open on them.
    pub closed: u64,
}

/// Whether the database takes writes.
#[derive(Debug, Default)]
pub struct Writes(Mutex<Option<(Instant, Error)>>);

impl Writes {
    /// The error of a write that failed within the last seconds, unless one has succeeded since.
    pub fn failure(&self) -> Option<Error> {
        let failed = self.lock().clone();
        failed.filter(|(at, _)| at.elapsed() < FAILED_TIME).map(|(_, error)| error)
    }

    fn failed(&self, error: Error) {
        error!(%error, "the database does not accept writes");
        *self.lock() = Some((Instant::now(), error));
    }

    fn succeeded(&self) {
        if self.lock().take().is_some() {
            info!("the database accepts writes again");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Error)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    pub(super) fn new(inner: AnyPool) -> Self {
        Self { inner, counts: Arc::default(), writes: None }
    }

    /// The same connections, for statements that write.
    pub fn writer(&self, writes: Arc<Writes>) -> Self {
        Self { writes: Some(writes), ..self.clone() }
    }

    /// A connection for one caller.
    pub async fn acquire(&self) -> Result<Connection, sqlx::Error> {
        let _waiting = Waiting::begin(&self.counts);
        let acquired = self.inner.acquire().await.inspect_err(|error| self.failed(error))?;
        Ok(Connection {
            inner: Some(acquired),
            pool: self.clone(),
            is_whole: true,
            is_in_transaction: false,
            ends_with_user: false,
        })
    }

    /// The state of the pool.
    pub fn counts(&self) -> PoolCounts {
        let (all, idle) = (self.inner.size() as usize, self.inner.num_idle());
        PoolCounts {
            used: all.saturating_sub(idle),
            idle,
            waiting: self.counts.waiting.load(Ordering::Relaxed),
            closed: self.counts.closed.load(Ordering::Relaxed),
        }
    }

    /// From here on, abandoned statements belong to workers that were stopped, and are not logged.
    pub fn ends(&self) {
        self.counts.is_ending.store(true, Ordering::Relaxed);
    }

    /// Ends all connections.
    pub async fn close(&self) {
        self.inner.close().await;
    }

    fn failed(&self, error: &sqlx::Error) {
        if matches!(error, sqlx::Error::PoolClosed) {
            return; // this process ends
        }
        if let (Some(writes), true) = (&self.writes, Error::is_of_database(error)) {
            writes.failed(Error::of_database(error));
        }
    }

    fn wrote(&self) {
        if let Some(writes) = &self.writes {
            writes.succeeded();
        }
    }

    fn closes(&self, why: &str) {
        self.counts.closed.fetch_add(1, Ordering::Relaxed);
        if !self.counts.is_ending.load(Ordering::Relaxed) {
            warn!(why, "closed a connection to the database");
        }
    }
}

/// Counts a caller for as long as it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(counts: &'a Counts) -> Self {
        counts.waiting.fetch_add(1, Ordering::Relaxed);
        Self(&counts.waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection, until it is dropped.
#[derive(Debug)]
pub struct Connection {
    /// `None` once it is on its way back.
    inner: Option<PoolConnection<Any>>,
    pool: Pool,
    /// Whether no statement is under way or was abandoned, and none has failed in a way that leaves doubts.
    is_whole: bool,
    is_in_transaction: bool,
    /// Whether it has locks of its user, or the like.
    ends_with_user: bool,
}

impl Connection {
    /// The name of the database.
    pub fn backend_name(&self) -> &str {
        self.inner.as_ref().map_or("", |inner| inner.backend_name())
    }

    /// Closes it when it is dropped, since it has locks or the like.
    pub fn close_on_drop(&mut self) {
        self.ends_with_user = true;
    }

    pub(super) async fn begin(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        self.execute(statement).await?;
        self.is_in_transaction = true;
        Ok(())
    }

    pub(super) async fn end(&mut self, statement: &'static str) -> Result<(), sqlx::Error> {
        self.execute(statement).await?;
        self.is_in_transaction = false;
        Ok(())
    }

    pub(super) fn wrote(&self) {
        self.pool.wrote();
    }

    fn inner(&mut self) -> &mut PoolConnection<Any> {
        self.inner.as_mut().expect("it is taken when this is dropped only")
    }

    /// A statement has ended.
    fn ended<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        self.is_whole = match &result {
            Ok(_) => true,
            Err(error @ sqlx::Error::Database(_)) => !Error::is_of_database(error),
            Err(_) => false,
        };
        if let Err(error) = &result {
            self.pool.failed(error);
        }
        result
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(mut inner) = self.inner.take() else { return };
        if self.ends_with_user {
            inner.close_on_drop();
            return;
        }
        if !self.is_whole {
            self.pool.closes("a statement on it was given up half-way, or its database is in trouble");
            inner.close_on_drop();
            return;
        }
        let (pool, is_in_transaction) = (self.pool.clone(), self.is_in_transaction);
        tokio::spawn(async move {
            // The pool pings the server, and waits for the answer without a limit of its own.
            let release = async {
                if is_in_transaction {
                    (&mut *inner).execute("ROLLBACK").await.map_err(|error| error.to_string())?;
                }
                inner.return_to_pool().await;
                Ok(())
            };
            let why = match tokio::time::timeout(RELEASE_TIME, release).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(_) => "it did not answer in time".to_owned(),
            };
            pool.closes(&why);
            inner.close_on_drop(); // unless the pool has dropped it already
        });
    }
}

type Rows<'e> = BoxStream<'e, Result<Either<AnyQueryResult, AnyRow>, sqlx::Error>>;
type Statement = <Any as Database>::Statement;
type TypeInfo = <Any as Database>::TypeInfo;

impl<'c> Executor<'c> for &'c mut Connection {
    type Database = Any;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> Rows<'e>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        let all = async move {
            self.is_whole = false;
            let all: Result<Vec<_>, _> = self.inner().fetch_many(query).try_collect().await;
            self.ended(all).map(|all| stream::iter(all).map(Ok))
        };
        Box::pin(stream::once(all).try_flatten())
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<AnyRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        Box::pin(async move {
            self.is_whole = false;
            let row = self.inner().fetch_optional(query).await;
            self.ended(row)
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [TypeInfo],
    ) -> BoxFuture<'e, Result<Statement, sqlx::Error>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            self.is_whole = false;
            let statement = self.inner().prepare_with(sql, parameters).await;
            self.ended(statement)
        })
    }
}

/// A statement by itself, on any connection.
impl<'p> Executor<'p> for &'p Pool {
    type Database = Any;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> Rows<'e>
    where
        'p: 'e,
        E: 'q + Execute<'q, Any>,
    {
        let all = async move {
            let mut connection = self.acquire().await?;
            let all: Vec<_> = connection.fetch_many(query).try_collect().await?;
            self.wrote();
            Ok::<_, sqlx::Error>(stream::iter(all).map(Ok))
        };
        Box::pin(stream::once(all).try_flatten())
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<AnyRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Any>,
    {
        Box::pin(async move { self.acquire().await?.fetch_optional(query).await })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [TypeInfo],
    ) -> BoxFuture<'e, Result<Statement, sqlx::Error>>
    where
        'p: 'e,
    {
        Box::pin(async move { self.acquire().await?.prepare_with(sql, parameters).await })
    }
}
