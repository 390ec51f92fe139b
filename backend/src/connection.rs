//! Connections to Redis.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, IntoConnectionInfo};
use trust::Roots;

use crate::error::Error;

/// How long it may take to connect.
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// Commands that wait to be written at most; more make their callers wait.
const COMMANDS_MAX: usize = 1_024;

/// A client of the server at a URL.
pub fn client(url: &str, roots: &Roots) -> Result<Client, Error> {
    let client = url.into_connection_info().and_then(|server| roots.redis_client(server));
    client.map_err(|error| Error::internal(format!("redis: {error}")))
}

/// One that comes back by itself. A server that is away is no error here, but for each command until it is
/// back, and at once: each failed command is the next try.
pub fn to_redis(url: &str, roots: &Roots, command_time: Duration) -> Result<ConnectionManager, Error> {
    let client = client(url, roots)?;
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(0)
        .set_pipeline_buffer_size(COMMANDS_MAX)
        .set_response_timeout(Some(command_time))
        .set_connection_timeout(Some(CONNECT_TIME));
    Ok(ConnectionManager::new_lazy_with_config(client, config)?)
}
