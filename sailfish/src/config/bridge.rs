//! A node's configuration of the backend.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use biz_bridge::{check_redis, check_url};
use serde::{Deserialize, Serialize};

use super::{hidden, within, without_password};

/// Where the backend is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum BridgeMode {
    /// `up` has a backend of its own; other nodes have none.
    Auto,
    /// There is no backend.
    Off,
    /// At [`BridgeConfig::url`].
    Http,
    /// Behind streams at [`BridgeConfig::redis`].
    Redis,
}

impl TryFrom<String> for BridgeMode {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        match name.as_str() {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            "http" => Ok(Self::Http),
            "redis" => Ok(Self::Redis),
            _ => Err("want auto, off, http or redis"),
        }
    }
}

/// The bridge, and where its backend is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeConfig {
    /// Where the backend is.
    pub mode: BridgeMode,
    /// Where the backend takes events: `http://HOST:PORT`, and perhaps a path.
    pub url: String,
    /// The secret that signs requests to the backend; empty: `secret_file`.
    pub secret: String,
    /// A file with it; empty: the one that the first run makes.
    pub secret_file: PathBuf,
    /// Where the streams are: `redis://...`.
    pub redis: String,
    /// The prefix of the name of every stream.
    pub prefix: String,
    /// Batches under way at a time.
    pub lanes: u32,
    /// Events of a batch.
    pub batch_max: u32,
    /// How long a batch may take.
    pub timeout_ms: u32,
    /// The wait after the first failure.
    pub retry_first_ms: u32,
    /// The longest wait after a failure.
    pub retry_max_ms: u32,
    /// Failures in a row after which the bridge sends nothing for a while.
    pub breaker_failures: u32,
    /// How long that pause is.
    pub breaker_pause_ms: u32,
    /// Tries of a push from the stream.
    pub tries_max: u32,
    /// Packets that a shard keeps until the bridge has taken them, and as many events of presence besides.
    pub queue_messages_max: u32,
    /// Bytes of either.
    pub queue_bytes_max: u32,
    /// Packets of one user among these, and as many events of its presence.
    pub queue_user_messages_max: u32,
    /// Bytes of either.
    pub queue_user_bytes_max: u32,
    /// Whom `https://` and `rediss://` trust.
    #[serde(skip)]
    pub roots: trust::Roots,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        Self {
            mode: BridgeMode::Auto,
            url: String::new(),
            secret: String::new(),
            secret_file: PathBuf::new(),
            redis: String::new(),
            prefix: "sailfish".into(),
            lanes: 8,
            batch_max: 256,
            timeout_ms: 5_000,
            retry_first_ms: 100,
            retry_max_ms: 10_000,
            breaker_failures: 5,
            breaker_pause_ms: 2_000,
            tries_max: 10,
            queue_messages_max: 1 << 18,
            queue_bytes_max: 256 << 20,
            queue_user_messages_max: 4_096,
            queue_user_bytes_max: 8 << 20,
            roots: trust::Roots::default(),
        }
    }
}

impl BridgeConfig {
    /// Whether the backend is elsewhere.
    pub fn is_on(&self) -> bool {
        matches!(self.mode, BridgeMode::Http | BridgeMode::Redis)
    }

    /// The same with a backend at `address`.
    pub fn to(&self, address: SocketAddr) -> Self {
        Self { mode: BridgeMode::Http, url: format!("http://{address}"), ..self.clone() }
    }

    /// The configuration without secrets.
    pub(super) fn without_secrets(&self) -> Self {
        Self { secret: String::new(), redis: without_password(&self.redis), ..self.clone() }
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        match self.mode {
            BridgeMode::Auto | BridgeMode::Off => {}
            BridgeMode::Http => check_url(&self.url).map_err(|wish| format!("bridge.url: {wish}"))?,
            BridgeMode::Redis => check_redis(&self.redis).map_err(|wish| format!("bridge.redis: {wish}"))?,
        }
        if !self.secret.is_empty() && !self.secret_file.as_os_str().is_empty() {
            return Err("bridge.secret_file: bridge.secret is set too; want only one of them".into());
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
        let prefix = &self.prefix;
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(is_plain) {
            return Err(format!("bridge.prefix = {prefix:?}: want 1 to 64 letters, digits or _ - . :"));
        }
        within("bridge.lanes", self.lanes, 1, 1_024)?;
        within("bridge.batch_max", self.batch_max, 1, 10_000)?;
        within("bridge.timeout_ms", self.timeout_ms, 1, 600_000)?;
        within("bridge.retry_first_ms", self.retry_first_ms, 1, 600_000)?;
        within("bridge.retry_max_ms", self.retry_max_ms, self.retry_first_ms, 3_600_000)?;
        within("bridge.breaker_failures", self.breaker_failures, 1, 1_000_000)?;
        within("bridge.breaker_pause_ms", self.breaker_pause_ms, 1, 3_600_000)?;
        within("bridge.tries_max", self.tries_max, 1, 1_000_000)?;
        within("bridge.queue_messages_max", self.queue_messages_max, 1, 1 << 24)?;
        // One event of the longest frame must find room.
        within("bridge.queue_bytes_max", self.queue_bytes_max, 2 << 20, 1 << 31)?;
        within("bridge.queue_user_messages_max", self.queue_user_messages_max, 1, 1 << 24)?;
        within("bridge.queue_user_bytes_max", self.queue_user_bytes_max, 2 << 20, 1 << 31)
    }
}

impl fmt::Debug for BridgeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, url, secret_file, prefix, lanes, .. } = self;
        f.debug_struct("BridgeConfig")
            .field("mode", mode)
            .field("url", url)
            .field("secret", &hidden(&self.secret))
            .field("secret_file", secret_file)
            .field("redis", &without_password(&self.redis))
            .field("prefix", prefix)
            .field("lanes", lanes)
            .finish_non_exhaustive()
    }
}
