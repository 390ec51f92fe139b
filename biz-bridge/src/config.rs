//! The configuration of a bridge.

use std::fmt;
use std::time::Duration;

use hyper::Uri;
use redis::{ConnectionAddr, IntoConnectionInfo};
use trust::Roots;

/// All settings. The names of the keys are those of the section `[bridge]`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where events go.
    pub mode: Mode,
    /// How many batches may be under way at a time. All events of one user go one way.
    pub lanes: usize,
    /// How many events a batch has at most.
    pub batch_max: usize,
    /// How long a batch may take until it counts as failed.
    pub timeout: Duration,
    /// The wait after the first failure; it doubles with each further one.
    pub retry_first: Duration,
    /// The longest wait.
    pub retry_max: Duration,
    /// How many failed batches in a row open the breaker.
    pub breaker_failures: u32,
    /// How long it leaves the backend alone.
    pub breaker_pause: Duration,
    /// How often an entry of the push stream is tried before it is a dead letter.
    pub tries_max: u32,
    /// How long a consumer may be busy with an entry of the push stream before another takes it over. More
    /// than a push takes.
    pub reclaim: Duration,
    /// Whom `https://` and `rediss://` trust.
    pub roots: Roots,
    /// Where the spans of events go, and which traces are exported.
    pub trace: traces::Config,
    /// The name in the push stream's group: the same in every life of this process, another for every other
    /// process.
    pub consumer: String,
}

/// Where events go.
#[derive(Clone)]
pub enum Mode {
    /// To the backend, by POST.
    Http {
        /// `http://HOST:PORT` and perhaps a path; `/bridge/events` is appended.
        url: String,
        /// What requests are signed with.
        secret: Vec<u8>,
    },
    /// To Redis Streams.
    Redis {
        /// `redis://HOST:PORT`.
        url: String,
        /// What the names of all streams begin with.
        prefix: String,
    },
}

/// Hides what may be secret.
impl fmt::Debug for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Http { .. } => "Http",
            Self::Redis { .. } => "Redis",
        })
    }
}

/// A value that is refused. The text does not show it: it may hold a password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The key.
    pub key: &'static str,
    /// What the key wants.
    pub wants: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.key, self.wants)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// The defaults.
    pub fn new(mode: Mode, consumer: String) -> Self {
        Self {
            mode,
            lanes: 8,
            batch_max: 256,
            timeout: Duration::from_secs(5),
            retry_first: Duration::from_millis(100),
            retry_max: Duration::from_secs(10),
            breaker_failures: 5,
            breaker_pause: Duration::from_secs(2),
            tries_max: 10,
            reclaim: Duration::from_secs(60),
            roots: Roots::default(),
            trace: traces::Config::default(),
            consumer,
        }
    }

    /// Checks all values.
    ///
    /// # Errors
    /// The first key with a wrong value.
    pub fn check(&self) -> Result<(), ConfigError> {
        match &self.mode {
            Mode::Http { url, secret } => {
                check_url(url).map_err(|wants| ConfigError { key: "bridge.url", wants })?;
                refuse(secret.is_empty(), "bridge.secret", "want the secret that the backend knows")?;
            }
            Mode::Redis { url, prefix } => {
                check_redis(url).map_err(|wants| ConfigError { key: "bridge.redis", wants })?;
                refuse(prefix.is_empty(), "bridge.prefix", "want what the names of the streams begin with")?;
            }
        }
        refuse(!(1..=1_024).contains(&self.lanes), "bridge.lanes", "want a number from 1 to 1024")?;
        refuse(!(1..=10_000).contains(&self.batch_max), "bridge.batch_max", "want a number from 1 to 10000")?;
        refuse(self.timeout.is_zero(), "bridge.timeout_ms", "want a number from 1")?;
        refuse(self.retry_first.is_zero(), "bridge.retry_first_ms", "want a number from 1")?;
        refuse(
            self.retry_max < self.retry_first,
            "bridge.retry_max_ms",
            "want at least bridge.retry_first_ms",
        )?;
        refuse(self.breaker_failures == 0, "bridge.breaker_failures", "want a number from 1")?;
        refuse(self.tries_max == 0, "bridge.tries_max", "want a number from 1")
    }
}

/// Checks that the value of `bridge.url` names a backend.
///
/// # Errors
/// What the key wants.
pub fn check_url(url: &str) -> Result<(), String> {
    events_uri(url)
        .map(drop)
        .ok_or_else(|| "want http://HOST:PORT or http://HOST:PORT/PATH, or the same with https".to_owned())
}

/// Where events go, given `bridge.url`; `None` if that is no URL of a backend.
pub fn events_uri(url: &str) -> Option<Uri> {
    let uri: Uri = format!("{}/bridge/events", url.trim_end_matches('/')).parse().ok()?;
    let authority = uri.authority()?;
    let is_known = matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none();
    (is_known && !authority.host().is_empty() && !authority.as_str().contains('@')).then_some(uri)
}

/// Checks that the value of `bridge.redis` names a server.
///
/// # Errors
/// What the key wants.
pub fn check_redis(url: &str) -> Result<(), String> {
    let is_known = url.starts_with("redis://") || url.starts_with("rediss://");
    let info = is_known.then(|| url.into_connection_info().ok()).flatten().filter(|info| {
        // A suffix of the URL would switch the check of certificates off.
        !matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. })
    });
    info.map(drop).ok_or_else(|| {
        "want redis://HOST:PORT or redis://USER:PASSWORD@HOST:PORT/DB, or the same with rediss".to_owned()
    })
}

fn refuse(wrong: bool, key: &'static str, wants: &str) -> Result<(), ConfigError> {
    if wrong { Err(ConfigError { key, wants: wants.into() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(url: &str) -> Config {
        Config::new(Mode::Http { url: url.into(), secret: b"s".to_vec() }, "bridge-1".into())
    }

    #[test]
    fn an_error_names_the_key_and_not_the_value() {
        let redis = |url: &str, prefix: &str| {
            Config::new(Mode::Redis { url: url.into(), prefix: prefix.into() }, "bridge-1".into())
        };
        let without_secret =
            Config::new(Mode::Http { url: "http://backend".into(), secret: Vec::new() }, "bridge-1".into());
        let cases = [
            (http("https://u:geheim@backend"), "bridge.url"),
            (http("backend:80"), "bridge.url"),
            (http("http://backend/a?b"), "bridge.url"),
            (http(""), "bridge.url"),
            (without_secret, "bridge.secret"),
            (redis("redis:/geheim", "p"), "bridge.redis"),
            (redis("http://127.0.0.1", "p"), "bridge.redis"),
            (redis("rediss://127.0.0.1#insecure", "p"), "bridge.redis"),
            (redis("redis://127.0.0.1", ""), "bridge.prefix"),
            (Config { lanes: 0, ..http("http://backend") }, "bridge.lanes"),
            (Config { batch_max: 0, ..http("http://backend") }, "bridge.batch_max"),
            (Config { retry_max: Duration::from_millis(1), ..http("http://backend") }, "bridge.retry_max_ms"),
            (Config { breaker_failures: 0, ..http("http://backend") }, "bridge.breaker_failures"),
            (Config { tries_max: 0, ..http("http://backend") }, "bridge.tries_max"),
        ];
        for (config, key) in cases {
            let error = config.check().unwrap_err();
            assert_eq!(error.key, key);
            assert!(!format!("{error} {config:?}").contains("geheim"));
        }
        for good in [
            http("http://backend:8080/a/"),
            http("http://[::1]:80"),
            redis("redis://:pw@h:1/2", "p"),
            http("https://backend/a"),
            redis("rediss://h", "p"),
        ] {
            assert_eq!(good.check(), Ok(()));
        }
    }

    #[test]
    fn the_path_is_appended() {
        let uri = |url| events_uri(url).map(|uri| uri.to_string());
        assert_eq!(uri("http://b:1").as_deref(), Some("http://b:1/bridge/events"));
        assert_eq!(uri("http://b/im/").as_deref(), Some("http://b/im/bridge/events"));
        assert_eq!(uri("https://b").as_deref(), Some("https://b/bridge/events"));
        for wrong in ["b", "http://", "http://u:p@b", "http://b?x=1", "http://b c", "ftp://b", "/b"] {
            assert_eq!(uri(wrong), None, "{wrong}");
        }
    }
}
