//! The keys that tokens are checked with: those of the configuration, and those of a JSON Web Key Set, which
//! change while the node runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use gateway::{Jwks, Secrets, TokenKeys};
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::config::{Config, ConfigError, ed25519_public_key};
use crate::file_watch::{self, FileWatch};
use crate::secret::{self, Secret};

/// What shards are to check tokens with.
pub struct Keys {
    /// Those of the configuration.
    fixed: TokenKeys,
    source: Source,
    now: Mutex<TokenKeys>,
    /// There are keys, or nobody needs any.
    there: Notify,
    /// The set is to be read again.
    again: Notify,
}

/// Of which node the keys are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// Of one that has a backend too.
    Up,
    /// Of one that has clients.
    Clients,
    /// Of one that has none.
    Links,
}

/// The shards that check tokens.
pub trait Shards: Send + Sync {
    /// Use these keys from here on; whether all of them do.
    fn take(&self, keys: TokenKeys) -> impl Future<Output = bool> + Send;
}

/// Where a JSON Web Key Set comes from.
enum Source {
    None,
    File(PathBuf),
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
                // The backend of `up`, and its `chat`, sign with the secret that the first run makes. Others
                // take it only where nothing else is said.
                let has_secret = whose == Whose::Up || token.has_secret() || !token.has_jwks();
                let secret = has_secret.then(|| Secret::find(token)).transpose()?;
                let fixed = fixed(secret.as_ref(), config)?;
                let source = match token.jwks_file.as_os_str().is_empty() {
                    true => Source::None,
                    false => Source::File(token.jwks_file.clone()),
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
        };
        let keys = Self { fixed, source, now: Mutex::new(now), there: Notify::new(), again: Notify::new() };
        if whose == Whose::Links || !keys.now().is_empty() {
            keys.there.notify_one();
        }
        Ok((secret, Arc::new(keys)))
    }

    /// Those that are known.
    pub fn now(&self) -> TokenKeys {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until there are keys; at once, where nobody needs any. Once.
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
        // A shard that is too busy for a second is told again at the next look.
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

/// Reads a set. Secrets in it are taken if only its owner and group may read the file.
fn read(path: &Path) -> Result<Jwks, String> {
    let name = path.display();
    let (text, secrets) = match secret::read_private(path) {
        Ok(text) => (text, Secrets::Taken),
        Err(_) => (std::fs::read(path).map_err(|error| format!("{name}: {error}"))?, Secrets::Ignored),
    };
    Jwks::read(&text, secrets).map_err(|why| format!("{name}: {why}"))
}

/// Says what a set has.
fn tell(set: &Jwks, of: &dyn std::fmt::Display) {
    info!(keys = set.len(), of = %of, "token keys were read");
    for why in &set.ignored {
        warn!(of = %of, "a token key is ignored: {why}");
    }
}
