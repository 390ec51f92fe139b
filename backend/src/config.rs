//! The configuration of the backend.

use std::net::SocketAddr;

use axum::http::Uri;
use serde::{Deserialize, Serialize};

use crate::urls;

/// Gifts of one transaction: SQLite takes conditions of up to a thousand parts.
const GIFT_BATCH_MAX: u32 = 800;
/// A message of any length fits.
const INBOX_BYTES_MIN: u64 = 1 << 20;
const INBOX_BYTES_MAX: u64 = 1 << 40;

/// All settings. Skipped fields belong to other sections of the binary's configuration, which gateways and
/// bridge share.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the HTTP API is served.
    pub listen: SocketAddr,
    /// Whether it is served by TLS.
    pub tls: bool,
    /// Limits for its callers.
    #[serde(skip)]
    pub http: http_server::Limits,
    /// `sqlite:FILE` or `mysql://USER:PASSWORD@HOST:PORT/NAME`.
    pub database: String,
    /// Replicas of a MySQL `database`, for reads; none: the primary serves them.
    pub replicas: Vec<String>,
    /// `redis://...` for cache and queue; empty: in the process, and a table of the database.
    pub redis: String,
    /// Sentinels, `redis://HOST:26379` of each; none: `redis` is a server. With sentinels, the host in
    /// `redis` is their name for the master.
    pub redis_sentinels: Vec<String>,
    /// What every key in Redis begins with.
    pub prefix: String,
    /// Whom `https://`, `rediss://` and the database trust.
    #[serde(skip)]
    pub roots: trust::Roots,
    /// Where spans go, and which traces are exported.
    #[serde(skip)]
    pub trace: traces::Config,
    /// Connections to the primary, and to each replica.
    pub database_connections_max: u32,
    /// A replica that is further behind than this is not read from, in ms. A user's reads go to the primary
    /// for twice as long after a write.
    pub replica_lag_ms_max: u32,
    /// The app that users belong to.
    pub app: i32,
    /// The country code of phone numbers that are given without one; it stands here without its `+`.
    pub phone_country: String,
    /// Where the bridge takes pushes: `http://HOST:PORT`.
    pub push_url: String,
    /// The bearer token for the bridge's control API; empty: none.
    #[serde(skip)]
    pub push_secret: String,
    /// What the bridge signs its events with; empty refuses all events.
    #[serde(skip)]
    pub bridge_secret: String,
    /// What IM tokens are signed with: the gateways' HS256 secret; empty refuses to make any.
    #[serde(skip)]
    pub im_secret: Vec<u8>,
    /// The `aud` and `iss` of IM tokens, as gateways want them; empty: tokens have none.
    #[serde(skip)]
    pub im_audience: String,
    /// See `im_audience`.
    #[serde(skip)]
    pub im_issuer: String,
    /// The gateway's address that clients get, `HOST:PORT`.
    pub im_address: String,
    /// Where browsers reach gateways, as clients get it: `ws://HOST:PORT` or `wss://HOST:PORT`. Empty:
    /// nowhere.
    pub im_websocket: String,
    /// The bearer token of the company's own services for `/internal/`; empty refuses all.
    pub internal_secret: String,
    /// Streams of events that the bridge fills in Redis, its `bridge.lanes` with `bridge.mode = "redis"`; 0
    /// if it sends them by HTTP.
    #[serde(skip)]
    pub bridge_streams: u32,
    /// How long an IM token is valid, in s. A session ends with it, unless the client renews it.
    pub im_token_ttl_s: u32,
    /// How long a login is valid, in days.
    pub login_ttl_days: u32,
    /// Logins that one phone may try in a minute from one address; also IM tokens of one user in a minute.
    pub logins_per_minute: u32,
    /// Logins that one address may try in a minute, for all phones.
    pub login_tries_per_address_minute: u32,
    /// Login codes that one phone may get in a day at the request of addresses from where it has never logged
    /// in. One address may request half of them.
    pub codes_per_phone_day: u32,
    /// Login codes that one address may request in an hour, for all phones.
    pub codes_per_address_hour: u32,
    /// Login codes that are sent in a minute, to all phones.
    pub codes_per_minute: u32,
    /// The service that sends login codes to phones: `http://HOST:PORT/PATH`; empty: none.
    pub sms_url: String,
    /// The secret that signs requests to it.
    pub sms_secret: String,
    /// The secret that signs requests to the services below.
    pub hook_secret: String,
    /// The service that is asked about messages to rooms: `http://HOST:PORT/PATH`; empty: none.
    pub before_send_url: String,
    /// The business codes that it is asked about. They have a route to `bridge`.
    pub before_send_codes: Vec<i32>,
    /// How members get these messages.
    pub before_send_class: Class,
    /// How long the service may take, in ms.
    pub before_send_timeout_ms: u32,
    /// What happens to messages while it fails.
    pub before_send_failing: Failing,
    /// The service that is asked about logins; empty: none.
    pub login_hook_url: String,
    /// How long the service may take, in ms.
    pub login_hook_timeout_ms: u32,
    /// What happens to logins while it fails.
    pub login_hook_failing: Failing,
    /// The service that gets a notification for each message that waits in an inbox; empty: none.
    pub offline_push_url: String,
    /// The service that gets each paid gift; empty: none.
    pub after_gift_url: String,
    /// How long these two services may take for a batch, in ms.
    pub hook_timeout_ms: u32,
    /// Events that wait for each of them.
    pub hook_events_max: u32,
    /// Users that one user may read by `POST /users/batch` in a minute; 1,000 at a time.
    pub users_read_per_minute: u32,
    /// Changes of its profile that one user may make in a minute.
    pub profile_changes_per_minute: u32,
    /// Gifts one user may send in a second.
    pub gifts_per_second: u32,
    /// Refused gifts of one user in a minute, in each process. Beyond that, gifts are turned away unread, and
    /// the user has to wait.
    pub gift_refusals_per_minute: u32,
    /// Gifts that are committed together at most.
    pub gift_batch_max: u32,
    /// How long a sender waits for the commit of a gift before it is told to ask again, in ms.
    pub gift_wait_ms: u32,
    /// How long after a write the second delete of its cache entry comes, in ms.
    pub second_delete_ms: u32,
    /// Messages that wait for one receiver, without the backend's own.
    pub inbox_messages_max: u32,
    /// Bytes of these.
    pub inbox_bytes_max: u64,
    /// Messages of one sender that wait for receivers, in all.
    pub inbox_sender_messages_max: u32,
    /// Bytes of these.
    pub inbox_sender_bytes_max: u64,
    /// How long an order may stay unpaid, in s.
    pub order_ttl_s: u32,
    /// Orders of one user that may be unpaid.
    pub orders_open_max: u32,
    /// Rooms that one user may open in a day.
    pub rooms_per_day: u32,
    /// Where clients reach this API, for links: `https://HOST`; empty: `http://` and `listen`.
    pub public_url: String,
    /// The payment provider's page, with the placeholders `{order_id}` and `{amount_cents}`; empty: the mock
    /// provider's.
    pub pay_url: String,
    /// The secret that signs the payment provider's callbacks; empty refuses all.
    pub provider_secret: String,
    /// Whether the mock payment provider and the mock SMS sender serve their pages, and login codes are
    /// logged. For demonstrations only.
    pub mock: bool,
}

/// What happens to work whose webhook fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Failing {
    /// It goes on as if the service had allowed it.
    Allow,
    /// It is refused.
    Refuse,
}

/// How receivers get a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// They ack it.
    Reliable,
    /// It is dropped first when a reader is slow.
    Lossy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:5348".parse().expect("a socket address"),
            tls: false,
            http: http_server::Limits::default(),
            database: String::new(),
            replicas: Vec::new(),
            redis: String::new(),
            redis_sentinels: Vec::new(),
            prefix: "sailfish".into(),
            roots: trust::Roots::default(),
            trace: traces::Config::default(),
            database_connections_max: 16,
            replica_lag_ms_max: 2_000,
            app: 1,
            phone_country: "86".into(),
            push_url: "http://127.0.0.1:5347".into(),
            push_secret: String::new(),
            bridge_secret: String::new(),
            im_secret: Vec::new(),
            im_audience: String::new(),
            im_issuer: String::new(),
            im_address: "127.0.0.1:5346".into(),
            im_websocket: String::new(),
            internal_secret: String::new(),
            bridge_streams: 0,
            im_token_ttl_s: 600,
            login_ttl_days: 30,
            logins_per_minute: 10,
            login_tries_per_address_minute: 60,
            codes_per_phone_day: 10,
            codes_per_address_hour: 60,
            codes_per_minute: 600,
            sms_url: String::new(),
            sms_secret: String::new(),
            hook_secret: String::new(),
            before_send_url: String::new(),
            before_send_codes: vec![5555],
            before_send_class: Class::Lossy,
            before_send_timeout_ms: 1_000,
            before_send_failing: Failing::Refuse,
            login_hook_url: String::new(),
            login_hook_timeout_ms: 2_000,
            login_hook_failing: Failing::Allow,
            offline_push_url: String::new(),
            after_gift_url: String::new(),
            hook_timeout_ms: 5_000,
            hook_events_max: 100_000,
            users_read_per_minute: 10_000,
            profile_changes_per_minute: 60,
            gifts_per_second: 50,
            gift_refusals_per_minute: 20,
            gift_batch_max: 512,
            gift_wait_ms: 3_000,
            second_delete_ms: 1_000,
            inbox_messages_max: 1_000,
            inbox_bytes_max: 16 << 20,
            inbox_sender_messages_max: 10_000,
            inbox_sender_bytes_max: 32 << 20,
            order_ttl_s: 1_800,
            orders_open_max: 20,
            rooms_per_day: 50,
            public_url: String::new(),
            pay_url: String::new(),
            provider_secret: String::new(),
            mock: false,
        }
    }
}

impl Config {
    /// Checks what the types do not guarantee. The error begins with the key, as the binary calls it.
    ///
    /// # Errors
    /// One line: the key, its value, what it wants.
    pub fn validate(&self) -> Result<(), String> {
        let database = |url: &str| {
            url.starts_with("sqlite:") || url.starts_with("mysql://") || url.starts_with("mariadb://")
        };
        if !self.database.is_empty() && !database(&self.database) {
            return Err("backend.database: want sqlite:FILE or mysql://USER:PASSWORD@HOST:PORT/NAME".into());
        }
        if !self.replicas.is_empty() && (self.database.starts_with("sqlite") || self.database.is_empty()) {
            return Err("backend.replicas: SQLite has none; want a mysql:// database".into());
        }
        if self.replicas.iter().any(|url| !url.starts_with("mysql://") && !url.starts_with("mariadb://")) {
            return Err("backend.replicas: want mysql://USER:PASSWORD@HOST:PORT/NAME of each".into());
        }
        for (key, urls) in [("database", std::slice::from_ref(&self.database)), ("replicas", &self.replicas)]
        {
            for url in urls.iter().filter(|url| !url.starts_with("sqlite") && !url.is_empty()) {
                urls::with_tls(url, &self.roots).map_err(|wants| format!("backend.{key}: {wants}"))?;
            }
        }
        if !self.redis.is_empty() && !urls::is_redis(&self.redis) {
            return Err(
                "backend.redis: want redis://HOST:PORT or redis://USER:PASSWORD@HOST:PORT/DB, or the same with rediss".into()
            );
        }
        if !self.redis_sentinels.iter().all(|url| urls::is_redis(url)) {
            return Err("backend.redis_sentinels: want redis://HOST:26379 of each, perhaps with USER:PASSWORD@, or rediss".into());
        }
        if !self.redis_sentinels.is_empty() && self.redis.is_empty() {
            return Err(
                "backend.redis: want the name that sentinels have for the master, like redis://mymaster"
                    .into(),
            );
        }
        if !is_server(&self.push_url) {
            return Err(format!(
                "backend.push_url = {:?}: want http://HOST:PORT or https://HOST:PORT",
                self.push_url
            ));
        }
        if self.phone_country.is_empty() || !self.phone_country.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("backend.phone_country = {:?}: want digits, like 86", self.phone_country));
        }
        let is_http = |url: &str| url.starts_with("http://") || url.starts_with("https://");
        if !self.public_url.is_empty() && !is_http(&self.public_url) {
            return Err(format!("backend.public_url = {:?}: want http:// or https://", self.public_url));
        }
        // Fits a QR code.
        let is_of_order = self.pay_url.contains("{order_id}") && self.pay_url.len() <= 1_000;
        if !(self.pay_url.is_empty() || is_http(&self.pay_url) && is_of_order) {
            return Err(format!("backend.pay_url = {:?}: want a URL with {{order_id}} in it", self.pay_url));
        }
        if !self.sms_url.is_empty() && !is_server(&self.sms_url) {
            return Err(format!("backend.sms_url = {:?}: want http://HOST:PORT/PATH or https", self.sms_url));
        }
        if !self.sms_url.is_empty() && self.sms_secret.is_empty() {
            return Err("backend.sms_secret: want the secret that signs requests to backend.sms_url".into());
        }
        self.validate_hooks()?;
        let numbers = [
            ("database_connections_max", self.database_connections_max, 1, 10_000),
            ("replica_lag_ms_max", self.replica_lag_ms_max, 1, 3_600_000),
            ("im_token_ttl_s", self.im_token_ttl_s, 10, 31_536_000),
            ("login_ttl_days", self.login_ttl_days, 1, 3_650),
            ("logins_per_minute", self.logins_per_minute, 1, 1_000_000),
            ("login_tries_per_address_minute", self.login_tries_per_address_minute, 1, 1_000_000),
            ("codes_per_phone_day", self.codes_per_phone_day, 1, 1_440),
            ("codes_per_address_hour", self.codes_per_address_hour, 1, 10_000_000),
            ("codes_per_minute", self.codes_per_minute, 1, 10_000_000),
            ("users_read_per_minute", self.users_read_per_minute, 1_000, 1_000_000_000),
            ("profile_changes_per_minute", self.profile_changes_per_minute, 1, 1_000_000),
            ("gifts_per_second", self.gifts_per_second, 1, 10_000_000),
            ("gift_refusals_per_minute", self.gift_refusals_per_minute, 1, 10_000_000),
            ("gift_batch_max", self.gift_batch_max, 1, GIFT_BATCH_MAX),
            ("gift_wait_ms", self.gift_wait_ms, 1, 25_000),
            ("second_delete_ms", self.second_delete_ms, 1, 3_600_000),
            ("inbox_messages_max", self.inbox_messages_max, 10, 1_000_000),
            ("inbox_sender_messages_max", self.inbox_sender_messages_max, 1, 100_000_000),
            ("before_send_timeout_ms", self.before_send_timeout_ms, 1, 10_000),
            ("login_hook_timeout_ms", self.login_hook_timeout_ms, 1, 10_000),
            ("hook_timeout_ms", self.hook_timeout_ms, 1, 20_000),
            ("hook_events_max", self.hook_events_max, 100, 10_000_000),
            ("order_ttl_s", self.order_ttl_s, 1, 31_536_000),
            ("orders_open_max", self.orders_open_max, 1, 10_000),
            ("rooms_per_day", self.rooms_per_day, 1, 1_000_000),
        ];
        for (key, value, min, max) in numbers {
            if !(min..=max).contains(&value) {
                return Err(format!("backend.{key} = {value}: want a number from {min} to {max}"));
            }
        }
        let bytes = [
            ("inbox_bytes_max", self.inbox_bytes_max),
            ("inbox_sender_bytes_max", self.inbox_sender_bytes_max),
        ];
        for (key, value) in bytes {
            if !(INBOX_BYTES_MIN..=INBOX_BYTES_MAX).contains(&value) {
                return Err(format!(
                    "backend.{key} = {value}: want a number from {INBOX_BYTES_MIN} to {INBOX_BYTES_MAX}"
                ));
            }
        }
        Ok(())
    }
}

impl Config {
    fn validate_hooks(&self) -> Result<(), String> {
        let urls = [
            ("before_send_url", &self.before_send_url),
            ("login_hook_url", &self.login_hook_url),
            ("offline_push_url", &self.offline_push_url),
            ("after_gift_url", &self.after_gift_url),
        ];
        for (key, url) in urls.into_iter().filter(|(_, url)| !url.is_empty()) {
            if !is_server(url) {
                return Err(format!("backend.{key} = {url:?}: want http://HOST:PORT/PATH"));
            }
            if self.hook_secret.is_empty() {
                return Err(format!(
                    "backend.hook_secret: want the secret that signs requests to backend.{key}"
                ));
            }
        }
        match self.before_send_codes.iter().find(|code| OWN_CODES.contains(code)) {
            Some(code) => Err(format!(
                "backend.before_send_codes: {code} is the backend's own; want codes of room messages"
            )),
            None => Ok(()),
        }
    }
}

/// The business codes that the backend handles or sends itself.
const OWN_CODES: [i32; 6] = [5556, 5557, 5558, 5560, 5561, 5562];

/// Whether requests can be sent there, without a name and password.
fn is_server(url: &str) -> bool {
    let is_known = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https"));
    let authority = url.parse::<Uri>().ok().filter(is_known);
    let authority = authority.and_then(|uri| uri.authority().cloned());
    authority.is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'))
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("backend::Config").field("listen", &self.listen).finish_non_exhaustive()
    }
}
