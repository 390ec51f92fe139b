//! Connections to Redis: to one server, or to the master that Sentinels name.

mod sentinels;

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{Client, Cmd, IntoConnectionInfo, Pipeline, RedisFuture, RedisResult, Value};

use crate::config::Config;
use crate::error::Error;
use sentinels::{Master, Sentinels};

/// How long it may take to connect.
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// Commands that wait to be written at most; more make their callers wait.
const COMMANDS_MAX: usize = 1_024;

/// Where Redis is. One for each process.
#[derive(Clone)]
pub struct Servers(Kind);

#[derive(Clone)]
enum Kind {
    One(Box<Client>),
    Followed(Arc<Sentinels>),
}

impl Servers {
    /// The servers that the operator has set, if it is Redis; nothing is connected yet.
    pub fn open(config: &Config) -> Result<Option<Self>, Error> {
        if config.redis.is_empty() {
            return Ok(None);
        }
        let Config { redis: url, redis_sentinels: sentinels, roots, .. } = config;
        let kind = match sentinels.is_empty() {
            true => url
                .as_str()
                .into_connection_info()
                .and_then(|it| roots.redis_client(it))
                .map(Box::new)
                .map(Kind::One),
            false => Sentinels::open(sentinels, url, roots).map(Kind::Followed),
        };
        Ok(Some(Self(kind.map_err(|error| Error::internal(format!("redis: {error}")))?)))
    }

    /// A connection that many share, and that reconnects by itself. If the server is away, this does not
    /// fail, but each command does at once until it is back: each failed command is the next try.
    pub fn shared(&self, command_time: Duration) -> Result<Redis, Error> {
        let client = match &self.0 {
            Kind::One(client) => Client::clone(client),
            Kind::Followed(sentinels) => {
                let master = Master::new(sentinels.clone(), command_time);
                return Ok(Redis(Shared::Master(Arc::new(master))));
            }
        };
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_pipeline_buffer_size(COMMANDS_MAX)
            .set_response_timeout(Some(command_time))
            .set_connection_timeout(Some(CONNECT_TIME));
        Ok(Redis(Shared::Server(Box::new(ConnectionManager::new_lazy_with_config(client, config)?))))
    }

    /// A connection for one caller, with the era in which it was opened.
    pub async fn own(&self, command_time: Duration) -> RedisResult<(u64, MultiplexedConnection)> {
        let config = sentinels::config(command_time);
        let connection = match &self.0 {
            Kind::One(client) => client.get_multiplexed_async_connection_with_config(&config).await?,
            Kind::Followed(sentinels) => sentinels.connect(&config).await?,
        };
        Ok((self.era(), connection))
    }

    /// Connections of another era lead to a server that is no longer the master.
    pub fn era(&self) -> u64 {
        match &self.0 {
            Kind::One(_) => 0,
            Kind::Followed(sentinels) => sentinels.era(),
        }
    }
}

/// A connection that many share. See [`Servers::shared`].
#[derive(Clone)]
pub struct Redis(Shared);

#[derive(Clone)]
enum Shared {
    Server(Box<ConnectionManager>),
    Master(Arc<Master>),
}

impl ConnectionLike for Redis {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        let master = match &mut self.0 {
            Shared::Server(server) => return server.req_packed_command(cmd),
            Shared::Master(master) => master,
        };
        Box::pin(async move {
            let (number, mut connection) = master.connection().await?;
            let answer = connection.req_packed_command(cmd).await;
            master.look_at(number, answer.as_ref().map(std::slice::from_ref)).await;
            answer
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let master = match &mut self.0 {
            Shared::Server(server) => return server.req_packed_commands(pipeline, offset, count),
            Shared::Master(master) => master,
        };
        Box::pin(async move {
            let (number, mut connection) = master.connection().await?;
            let answers = connection.req_packed_commands(pipeline, offset, count).await;
            master.look_at(number, answers.as_deref()).await;
            answers
        })
    }

    fn get_db(&self) -> i64 {
        match &self.0 {
            Shared::Server(server) => server.get_db(),
            Shared::Master(_) => 0, // nobody asks
        }
    }
}
