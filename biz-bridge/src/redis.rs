//! Events into a Redis Stream, and all connections to Redis.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, Pipeline, RedisError, RedisResult};
use trust::Roots;

use crate::event::Entry;
use crate::queue::{Answer, Verdict};

/// A client of the server at a URL.
pub fn client(url: &str, roots: &Roots) -> RedisResult<Client> {
    roots.redis_client(url.into_connection_info()?)
}

/// A connection that is opened when it is needed, and dropped when anything fails on it.
pub struct Link {
    client: Client,
    config: AsyncConnectionConfig,
    connection: Option<MultiplexedConnection>,
}

impl Link {
    /// `patience` is the timeout of a reply, `timeout` that of a connect.
    pub fn new(client: Client, timeout: Duration, patience: Duration) -> Self {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(patience));
        Self { client, config, connection: None }
    }

    /// The connection; opens one if there is none.
    pub async fn open(&mut self) -> RedisResult<&mut MultiplexedConnection> {
        if self.connection.is_none() {
            let connection = self.client.get_multiplexed_async_connection_with_config(&self.config).await?;
            self.connection = Some(connection);
        }
        Ok(self.connection.as_mut().expect("it was opened above"))
    }

    pub fn close(&mut self) {
        self.connection = None;
    }

    /// Runs all commands or none.
    pub async fn run(&mut self, pipeline: &Pipeline) -> RedisResult<()> {
        let done = match self.open().await {
            Ok(connection) => pipeline.query_async::<()>(connection).await,
            Err(error) => Err(error),
        };
        if done.is_err() {
            self.close();
        }
        done
    }
}

/// The stream of one lane.
pub struct Stream {
    link: Link,
    key: String,
}

impl Stream {
    pub fn new(client: Client, key: &str, timeout: Duration) -> Self {
        Self { link: Link::new(client, timeout, timeout), key: key.into() }
    }

    /// Appends a batch, whole or not at all, so that no event overtakes another.
    pub async fn send(&mut self, entries: &[Entry]) -> Verdict {
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        for entry in entries {
            pipeline.cmd("XADD").arg(&self.key).arg("*").arg("e").arg(&entry.json).ignore();
        }
        match self.link.run(&pipeline).await {
            Ok(()) => Verdict::Answered(vec![Answer::Ok; entries.len()]),
            Err(error) => Verdict::Failed(describe(&error)),
        }
    }
}

/// The text of an error for logs.
pub fn describe(error: &RedisError) -> String {
    format!("redis: {error}")
}
