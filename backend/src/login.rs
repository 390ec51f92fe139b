//! Logins: the tokens by which users call the API. The database knows only a token's SHA-256.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::app::App;
use crate::error::Error;
use crate::tables::login_token::{self, Login};
use crate::{hex, random, revocations};

/// Names a login: the hash of its token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoginId(String);

impl LoginId {
    /// The id of this token's login.
    pub fn of(token: &str) -> Self {
        Self::of_hash(&hash(token))
    }

    fn of_hash(hash: &[u8]) -> Self {
        Self(hex::text(hash))
    }

    /// The name of this login in IM tokens. It reveals neither the hash nor the token.
    pub fn session(&self) -> &str {
        self.0.get(..SESSION_BYTES).unwrap_or_default()
    }
}

/// The user of a login token.
pub async fn user_of(app: &App, token: &str) -> Result<Option<i64>, Error> {
    if !is_token(token) {
        return Ok(None);
    }
    let hash = hash(token);
    // From the primary: a replica may not know a fresh login yet.
    let load = || login_token::get(app.store.db.primary(), &hash);
    let login: Option<Login> = app.store.cache.read(&cache_key(&hash), CACHE_TTL, load).await?;
    Ok(login.filter(|login| login.expires_ms > app.store.clock.now_ms()).map(|login| login.user_id))
}

/// Begins a login, and ends the oldest one of a user who has too many, with the IM tokens that came from it.
/// Returns its token, and when it ends, in ms since the UNIX epoch.
pub async fn begin(app: &App, user_id: i64) -> Result<(String, i64), Error> {
    let token = random::hex::<32>();
    let expires_ms = app.store.clock.now_ms() + i64::from(app.store.config.login_ttl_days) * DAY_MS;
    login_token::insert(app.store.db.writer(), &hash(&token), Login { user_id, expires_ms }).await?;
    let older = login_token::older(app.store.db.primary(), user_id, LOGINS_MAX).await?;
    for hash in &older {
        let login = LoginId::of_hash(hash).session().to_owned();
        revocations::add(&app.store, user_id, Some(login)).await?;
    }
    if !older.is_empty() {
        delete(app, &older).await?;
    }
    Ok((token, expires_ms))
}

async fn delete(app: &App, hashes: &[Vec<u8>]) -> Result<(), Error> {
    let keys: Vec<String> = hashes.iter().map(|hash| cache_key(hash)).collect();
    app.store.write_through(&keys, login_token::delete(app.store.db.writer(), hashes)).await
}

/// Ends the login of a token, if there is one. Gateways then refuse the IM tokens that it got, and end their
/// sessions: the revocation is queued before the login ends, so it comes even if this process ends in
/// between.
pub async fn end(app: &App, token: &str) -> Result<(), Error> {
    let Some(user_id) = user_of(app, token).await? else { return Ok(()) };
    revocations::add(&app.store, user_id, Some(LoginId::of(token).session().to_owned())).await?;
    delete(app, &[hash(token).to_vec()]).await
}

/// Ends all logins of a user, and has gateways refuse all IM tokens of the user and end their sessions.
///
/// # Errors
/// 503: perhaps not all have ended, or no token is revoked; it may be called again.
pub async fn end_all(app: &App, user_id: i64) -> Result<(), Error> {
    loop {
        let some = login_token::older(app.store.db.primary(), user_id, 0).await?;
        if some.is_empty() {
            break;
        }
        delete(app, &some).await?;
    }
    // Last, since it revokes tokens that were made before.
    revocations::add(&app.store, user_id, None).await
}

fn is_token(token: &str) -> bool {
    token.len() == TOKEN_BYTES && token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn cache_key(hash: &[u8]) -> String {
    format!("login:{}", hex::text(hash))
}

/// Hexadecimal digits of a login's name in IM tokens.
const SESSION_BYTES: usize = 32;
/// Hexadecimal digits of a login token.
const TOKEN_BYTES: usize = 64;
/// Logins that a user has at once, on all devices.
const LOGINS_MAX: u32 = 20;
/// How long a login is cached.
const CACHE_TTL: Duration = Duration::from_secs(600);
const DAY_MS: i64 = 86_400_000;
