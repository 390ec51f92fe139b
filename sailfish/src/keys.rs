//! The keys that tokens are checked with: those of the configuration, and those of a JSON Web Key Set, which
//! change while the node runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::http::{StatusCode, Uri};
use gateway::{JWKS_BYTES_MAX, Jwks, Secrets, TokenKeys};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{error, info, warn};
use trust::{HttpClient, Kept};

use crate::config::{Config, ConfigError, ed25519_public_key};
use crate::file_watch::{self, FileWatch};
use crate::secret::{self, Secret};

/// How long a fetch may take.
const FETCH_TIME: Duration = Duration::from_secs(10);
/// The pause after the first fetch that fails; it doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How often tokens of unknown keys are looked for, and how soon after a fetch they cause the next one.
const LOOK: Duration = Duration::from_secs(1);
const UNKNOWN_PAUSE: Duration = Duration::from_secs(10);

/// The keys that shards check tokens with.
pub struct Keys {
    /// Those of the configuration.
    fixed: TokenKeys,
    source: Source,
    now: Mutex<TokenKeys>,
    /// Notifies that there are keys, or that none are needed.
    there: Notify,
    /// Notifies that the set must be read again.
    again: Notify,
}

/// The kind of node that needs the keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// A node with clients and a backend.
    Up,
    /// A node with clients.
    Clients,
    /// A node without clients.
    Links,
}

/// The shards that check tokens.
pub trait Shards: Send + Sync {
    /// Has all shards use these keys from here on. Returns whether all do.
    fn take(&self, keys: TokenKeys) -> impl Future<Output = bool> + Send;

    /// How many tokens had an unknown key so far.
    fn unknown_keys(&self) -> impl Future<Output = u64> + Send;
}

/// Where a JSON Web Key Set comes from.
enum Source {
    None,
    File(PathBuf),
    Url(Box<Remote>),
}

/// A set that is fetched.
struct Remote {
    url: Uri,
    client: HttpClient,
    refresh: Duration,
}

impl Keys {
    /// The keys at the start of a node, and the secret among them, if there is one. Nodes without clients
    /// have none.
    ///
    /// # Errors
    /// One line with the key of the configuration, the file, and what is wrong.
    pub fn of(whose: Whose, config: &Config) -> anyhow::Result<(Option<Secret>, Arc<Self>)> {
        let token = &config.token;
        let none = (None, TokenKeys::default(), Source::None);
        let (secret, fixed, source) = match whose == Whose::Links {
            true => none,
            false => {
                // The backend of `up`, and its `chat`, sign with the secret that the first run makes. Other
                // nodes use it only if nothing else is configured.
                let has_secret = whose == Whose::Up || token.has_secret() || !token.has_jwks();
                let secret = has_secret.then(|| Secret::find(token)).transpose()?;
                let fixed = fixed(secret.as_ref(), config)?;
                let source = match (token.jwks_file.as_os_str().is_empty(), token.jwks_url.as_str()) {
                    (true, "") => Source::None,
                    (true, url) => Source::Url(Box::new(Remote::new(url, config)?)),
                    (false, _) => Source::File(token.jwks_file.clone()),
                };
                (secret, fixed, source)
            }
        };
        let now = match &source {
            Source::None => fixed.clone(),
            Source::File(path) => {
                let set = read(path).map_err(|why| ConfigError(format!("token.jwks_file: {why}")))?;
                tell(&set, &path.display());
                fixed.clone().with_jwks(&set)
            }
            Source::Url(_) => fixed.clone().awaiting(),
        };
        let keys = Self { fixed, source, now: Mutex::new(now), there: Notify::new(), again: Notify::new() };
        if whose == Whose::Links || !keys.now().is_empty() {
            keys.there.notify_one();
        }
        Ok((secret, Arc::new(keys)))
    }

    /// The keys that are known now.
    pub fn now(&self) -> TokenKeys {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until there are keys; returns at once if none are needed. Call it once.
    pub async fn are_there(&self) {
        self.there.notified().await;
    }

    /// Reads the set again.
    pub fn look_again(&self) {
        self.again.notify_one();
    }

    async fn set(&self, set: &Jwks, shards: &impl Shards) {
        let keys = self.fixed.clone().with_jwks(set);
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = keys.clone();
        // A shard that is too busy for a second gets them at the next look.
        while !shards.take(keys.clone()).await {
            warn!("a shard does not answer; it gets the new token keys later");
        }
        self.there.notify_one();
    }
}

/// Gives the shards the keys of the set when they change, for as long as the node lives.
pub async fn follow(keys: Arc<Keys>, shards: impl Shards) {
    match &keys.source {
        Source::None => {}
        Source::File(path) => follow_file(&keys, path, &shards).await,
        Source::Url(remote) => follow_url(&keys, remote, &shards).await,
    }
}

/// Fetches the set now and then. If that fails, the known keys stay; without any, the tries come faster.
async fn follow_url(keys: &Keys, remote: &Remote, shards: &impl Shards) {
    let (mut last, mut pause, mut unknown) = (Vec::new(), RETRY_FIRST, 0);
    loop {
        let wait = match remote.fetch().await {
            Ok((text, set)) => {
                if text != last {
                    keys.set(&set, shards).await;
                    tell(&set, &remote.url);
                    last = text;
                }
                pause = RETRY_FIRST;
                remote.refresh
            }
            Err(why) if keys.now().is_empty() => {
                error!(
                    "token.jwks_url: no key to check tokens with, so the node is not ready: {}: {why}",
                    remote.url
                );
                pause = (pause * 2).min(RETRY_MAX);
                pause
            }
            Err(why) => {
                warn!("token.jwks_url: the keys before stay: {}: {why}", remote.url);
                pause = (pause * 2).min(RETRY_MAX);
                pause
            }
        };
        // A token may name a key that the set has only now.
        let due = Instant::now() + wait;
        let soonest = Instant::now() + wait.min(UNKNOWN_PAUSE);
        while Instant::now() < due {
            tokio::select! {
                biased; // an order before a look
                () = keys.again.notified() => break,
                () = tokio::time::sleep(LOOK.min(due.saturating_duration_since(Instant::now()))) => {}
            }
            let seen = shards.unknown_keys().await;
            if seen > unknown && Instant::now() >= soonest {
                unknown = seen;
                break;
            }
        }
    }
}

impl Remote {
    fn new(url: &str, config: &Config) -> anyhow::Result<Self> {
        let kept = Kept { count: 1, time: Duration::from_secs(1) };
        let client = config.tls.trusted.http_client(url, FETCH_TIME, kept);
        let client = client.map_err(|why| ConfigError(format!("token.jwks_url: {why}")))?;
        let url = url.parse().context("the config was validated")?;
        Ok(Self { url, client, refresh: Duration::from_secs(config.token.jwks_refresh_s.into()) })
    }

    /// The text of the set, and its keys.
    async fn fetch(&self) -> Result<(Vec<u8>, Jwks), String> {
        let text = tokio::time::timeout(FETCH_TIME, self.text()).await;
        let text = text.unwrap_or_else(|_| Err(format!("no answer within {} s", FETCH_TIME.as_secs())))?;
        let set = Jwks::read(&text, Secrets::Ignored)?;
        Ok((text, set))
    }

    async fn text(&self) -> Result<Vec<u8>, String> {
        let answer = trust::get(&self.client, self.url.clone()).await?;
        if answer.status() != StatusCode::OK {
            return Err(format!("status {}", answer.status()));
        }
        let text = axum::body::to_bytes(axum::body::Body::new(answer.into_body()), JWKS_BYTES_MAX).await;
        text.map(|text| text.to_vec())
            .map_err(|error| format!("the answer broke off: {}", trust::chain(&error)))
    }
}

async fn follow_file(keys: &Keys, path: &Path, shards: &impl Shards) {
    let mut watch = FileWatch::new(vec![path.to_owned()]);
    let mut looks = tokio::time::interval(file_watch::LOOK);
    loop {
        tokio::select! {
            biased; // an order before a look
            () = keys.again.notified() => watch = FileWatch::new(vec![path.to_owned()]),
            _ = looks.tick() => if !watch.have_changed() {
                continue;
            }
        }
        match read(path) {
            Ok(set) => {
                keys.set(&set, shards).await;
                tell(&set, &path.display());
            }
            Err(why) => error!("token.jwks_file: the keys before stay: {why}"),
        }
    }
}

/// The keys of the configuration.
fn fixed(secret: Option<&Secret>, config: &Config) -> anyhow::Result<TokenKeys> {
    let token = &config.token;
    let keys = secret.map(|secret| TokenKeys::hs256(&secret.bytes)).unwrap_or_default();
    let keys = keys.expecting(&token.audiences, &token.issuers);
    if token.ed25519_public_key.is_empty() {
        return Ok(keys);
    }
    let public_key = ed25519_public_key(&token.ed25519_public_key).context("the config was validated")?;
    keys.with_ed25519(&public_key)
        .map_err(|_| anyhow::anyhow!("token.ed25519_public_key: these digits are no Ed25519 public key"))
}

/// Reads a set. Secrets in it count only if no one but its owner and group may read the file.
fn read(path: &Path) -> Result<Jwks, String> {
    let name = path.display();
    let (text, secrets) = match secret::read_private(path) {
        Ok(text) => (text, Secrets::Taken),
        Err(_) => (crate::read::read(path).map_err(|error| format!("{name}: {error}"))?, Secrets::Ignored),
    };
    Jwks::read(&text, secrets).map_err(|why| format!("{name}: {why}"))
}

/// Logs the contents of a set.
fn tell(set: &Jwks, of: &dyn std::fmt::Display) {
    info!(keys = set.len(), of = %of, "token keys were read");
    for why in &set.ignored {
        warn!(of = %of, "a token key is ignored: {why}");
    }
}
