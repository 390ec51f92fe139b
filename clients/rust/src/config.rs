//! What an application chooses, and the defaults.

use std::time::Duration;

use wire::client::Encoding;
use wire::{AppId, UserId};

/// What an application chooses. [`Config::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server: `host:port` for TCP. With the feature `layers` also `tls://host:port`,
    /// `ws://host:port/path` and `wss://host:port/path`.
    pub address: String,
    /// Whose word the client takes for it that a server by TLS is the host of the address (default: the
    /// system's).
    pub trust: Trust,
    /// How bodies are encoded (default: binary).
    pub encoding: Encoding,
    /// The app and the user that JSON bodies name; the server goes by the token alone.
    pub app: AppId,
    /// See `app`.
    pub user: UserId,
    /// Messages without a send-ack that are kept (default: 1,000). A server takes 2,000 frames at once by
    /// default.
    pub store_messages_max: usize,
    /// Bytes of their payloads that are kept (default: 4 MiB).
    pub store_bytes_max: usize,
    /// The longest payload that is sent (default: 60 KiB). The server refuses longer frames than 64 KiB by
    /// default.
    pub payload_bytes_max: usize,
    /// How long a message waits for its send-ack before it is sent again on the same connection (default: 65
    /// s: the tries of the server, and the backend's time).
    pub repeat_after: Duration,
    /// How long a message that failed as `busy`, or a room without a place, waits for its next try; doubled
    /// each time up to 30 times as much (default: 1 s).
    pub busy_after: Duration,
    /// The wait before the first reconnect; doubled each time up to 20 times as much (default: 250 ms).
    pub backoff: Duration,
    /// How long a connect with its login may take (default: 10 s).
    pub login_time: Duration,
    /// Messages that are remembered to tell a repeat (default: 4,096).
    pub remembered_max: usize,
}

/// Whose word a client takes for it that a server is the host of the address.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Trust {
    /// The authorities that the system trusts.
    #[default]
    System,
    /// The authorities whose certificates these are, in PEM.
    Roots(Vec<u8>),
    /// Anybody's, for tests: whoever stands between may read and change everything.
    Anybody,
}

impl Config {
    /// The defaults, for a server at that address.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            trust: Trust::System,
            encoding: Encoding::Binary,
            app: AppId(1),
            user: UserId(0),
            store_messages_max: 1_000,
            store_bytes_max: 4 << 20,
            payload_bytes_max: 60 << 10,
            repeat_after: Duration::from_secs(65),
            busy_after: Duration::from_secs(1),
            backoff: Duration::from_millis(250),
            login_time: Duration::from_secs(10),
            remembered_max: 4_096,
        }
    }
}
