//! Login by phone and code; login tokens.
//!
//! A code lives in the cache, under the hash of its phone: without a cache nobody can log in, while those who have may go on. A
//! token is known to the database by its SHA-256 only.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::users;
use crate::app::App;
use crate::error::{Error, ErrorBody};
use crate::http::body::{Body, Path};
use crate::http::caller::{COOKIE, token};
use crate::phone::Phone;
use crate::tables::login_token::{self, Login};
use crate::{random, sms};

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(send_code))
        .routes(routes!(mock_sms))
        .routes(routes!(log_in))
        .routes(routes!(log_out))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SendCode {
    /// With its country code after `+` or `00`, or without for the operator's own country.
    phone: String,
}

#[derive(Serialize, ToSchema)]
struct CodeSent {
    /// When the code ends, in ms since the UNIX epoch.
    expires_ms: i64,
}

/// Sends a login code to a phone, once a minute at most. The code is good for 60 s, for one login, and for 5 tries.
#[utoipa::path(post, path = "/login/code", request_body = SendCode,
    responses((status = 200, body = CodeSent), (status = 400, body = ErrorBody), (status = 429, body = ErrorBody)))]
async fn send_code(State(app): State<Arc<App>>, Body(body): Body<SendCode>) -> Result<Json<CodeSent>, Error> {
    let phone = Phone::parse(&body.phone, &app.config.phone_country)?;
    let keys = Keys::of(&phone);
    if app.cache.count(&keys.sends, CODE_TIME).await? > 1 {
        return Err(Error::too_many("phone: a code was sent within this minute; use it, or wait"));
    }
    let code = Code {
        digits: format!("{:06}", random::below(1_000_000)),
        ends_ms: app.clock.now_ms() + CODE_TIME.as_millis() as i64,
    };
    app.cache.set(&keys.code, &code.text(), CODE_TIME).await?;
    sms::send_code(&phone, &code.digits);
    Ok(Json(CodeSent { expires_ms: code.ends_ms }))
}

#[derive(Serialize, ToSchema)]
struct MockSms {
    /// The last code that was sent and not used.
    code: String,
}

/// What the mock sender has sent to a phone. It is there with `backend.mock` only.
#[utoipa::path(get, path = "/mock/sms/{phone}", params(("phone" = String, Path, description = "To whom.")),
    responses((status = 200, body = MockSms), (status = 404, body = ErrorBody)))]
async fn mock_sms(State(app): State<Arc<App>>, Path(phone): Path<String>) -> Result<Json<MockSms>, Error> {
    if !app.config.mock {
        return Err(Error::not_found("backend.mock is off"));
    }
    let phone = Phone::parse(&phone, &app.config.phone_country)?;
    let code = Code::get(&app, &Keys::of(&phone)).await?;
    let code = code.ok_or_else(|| Error::not_found("no code waits for this phone"))?;
    Ok(Json(MockSms { code: code.digits }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LogIn {
    /// As the code was asked for.
    phone: String,
    /// The six digits that were sent to it.
    code: String,
}

#[derive(Serialize, ToSchema)]
struct LoggedIn {
    /// Who.
    user_id: i64,
    /// For `Authorization: Bearer`. It is in the answer's cookie too.
    token: String,
    /// When the token ends, in ms since the UNIX epoch.
    expires_ms: i64,
    /// Whether this login made the user.
    is_new: bool,
}

/// Logs in. The first login of a phone makes its user.
#[utoipa::path(post, path = "/login", request_body = LogIn,
    responses((status = 200, body = LoggedIn), (status = 401, body = ErrorBody), (status = 429, body = ErrorBody)))]
async fn log_in(State(app): State<Arc<App>>, Body(body): Body<LogIn>) -> Result<impl IntoResponse, Error> {
    let phone = Phone::parse(&body.phone, &app.config.phone_country)?;
    if body.code.len() != 6 || !body.code.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::bad_request("code: want six digits"));
    }
    let keys = Keys::of(&phone);
    let most = app.config.logins_per_minute;
    if app.cache.count(&keys.logins, Duration::from_secs(60)).await? > i64::from(most) {
        return Err(Error::too_many(format!("phone: want at most {most} logins in a minute")));
    }
    let code = check_code(&app, &keys, &body.code).await?;
    let (user_id, is_new) = users::find_or_register(&app, &phone).await?;
    // Last, so that a database that is away does not cost the code.
    if !app.cache.take_if(&keys.code, &code.text()).await? {
        return Err(wrong_code());
    }
    let (token, expires_ms) = begin(&app, user_id).await?;
    let cookie = cookie(&token, i64::from(app.config.login_ttl_days) * DAY_MS / 1_000)?;
    Ok(([(header::SET_COOKIE, cookie)], Json(LoggedIn { user_id, token, expires_ms, is_new })))
}

#[derive(Serialize, ToSchema)]
struct LoggedOut {}

/// Ends the login whose token the request has. Sessions at gateways go on until they end.
#[utoipa::path(post, path = "/logout", responses((status = 200, body = LoggedOut), (status = 401, body = ErrorBody)))]
async fn log_out(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<impl IntoResponse, Error> {
    let token = token(&headers).ok_or_else(|| Error::unauthorized("want the login token to end"))?;
    if is_token(token) {
        end(&app, &[hash(token).to_vec()]).await?;
    }
    Ok(([(header::SET_COOKIE, cookie("", 0)?)], Json(LoggedOut {})))
}

/// The user of a login token.
pub async fn user_of(app: &App, token: &str) -> Result<Option<i64>, Error> {
    if !is_token(token) {
        return Ok(None);
    }
    let hash = hash(token);
    // From the primary: a replica may not know yet who has just logged in.
    let load = || login_token::get(app.db.primary(), &hash);
    let login: Option<Login> = app.cache.read(&cache_key(&hash), CACHE_TTL, load).await?;
    Ok(login.filter(|login| login.expires_ms > app.clock.now_ms()).map(|login| login.user_id))
}

/// Begins a login, and ends the oldest of a user who has too many.
async fn begin(app: &App, user_id: i64) -> Result<(String, i64), Error> {
    let token = random::hex::<32>();
    let expires_ms = app.clock.now_ms() + i64::from(app.config.login_ttl_days) * DAY_MS;
    login_token::insert(app.db.writer(), &hash(&token), Login { user_id, expires_ms }).await?;
    let older = login_token::older(app.db.primary(), user_id, LOGINS_MAX).await?;
    if !older.is_empty() {
        end(app, &older).await?;
    }
    Ok((token, expires_ms))
}

async fn end(app: &App, hashes: &[Vec<u8>]) -> Result<(), Error> {
    let keys: Vec<String> = hashes.iter().map(|hash| cache_key(hash)).collect();
    app.write_through(&keys, login_token::delete(app.db.writer(), hashes)).await
}

/// The code that a phone was sent, if `digits` are it.
async fn check_code(app: &App, keys: &Keys, digits: &str) -> Result<Code, Error> {
    let code = Code::get(app, keys).await?.ok_or_else(wrong_code)?;
    // Counted before it is compared, so that tries at once are no more than tries one by one.
    let tries = app.cache.count(&keys.tries(&code), CODE_TIME).await?;
    match tries <= TRIES_MAX && code.digits == digits {
        true => Ok(code),
        false => Err(wrong_code()),
    }
}

/// The same whatever was wrong: it tells a guesser nothing.
fn wrong_code() -> Error {
    let message = "code: it is wrong, used, older than a minute, or was tried too often; ask for another";
    Error::new(axum::http::StatusCode::UNAUTHORIZED, "wrong_code", message)
}

/// A code that was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Code {
    digits: String,
    ends_ms: i64,
}

impl Code {
    /// How it stands in the cache.
    fn text(&self) -> String {
        format!("{}:{}", self.digits, self.ends_ms)
    }

    async fn get(app: &App, keys: &Keys) -> Result<Option<Self>, Error> {
        let text = app.cache.get(&keys.code).await?;
        let code = text.as_deref().and_then(|text| text.split_once(':')).and_then(|(digits, ends_ms)| {
            Some(Self { digits: digits.to_owned(), ends_ms: ends_ms.parse().ok()? })
        });
        Ok(code.filter(|code| code.ends_ms > app.clock.now_ms()))
    }
}

/// Where the cache has what is known of a phone.
struct Keys {
    code: String,
    sends: String,
    logins: String,
}

impl Keys {
    fn of(phone: &Phone) -> Self {
        let hash = hex(&phone.hash());
        Self {
            code: format!("login_code:{hash}"),
            sends: format!("login_code_sends:{hash}"),
            logins: format!("logins:{hash}"),
        }
    }

    /// Each code has tries of its own.
    fn tries(&self, code: &Code) -> String {
        format!("{}:tries:{}", self.code, code.ends_ms)
    }
}

fn cookie(token: &str, age_s: i64) -> Result<HeaderValue, Error> {
    let text = format!("{COOKIE}={token}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Lax");
    HeaderValue::try_from(text).map_err(Error::internal)
}

fn is_token(token: &str) -> bool {
    token.len() == TOKEN_BYTES && token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cache_key(hash: &[u8]) -> String {
    format!("login:{}", hex(hash))
}

/// How long a code is good, and how long a phone waits for the next one.
const CODE_TIME: Duration = Duration::from_secs(60);
/// How often one code is tried.
const TRIES_MAX: i64 = 5;
/// Hexadecimal digits of a login token.
const TOKEN_BYTES: usize = 64;
/// Logins that a user has at once, on all devices.
const LOGINS_MAX: u32 = 20;
/// How long a login is cached.
const CACHE_TTL: Duration = Duration::from_secs(600);
const DAY_MS: i64 = 86_400_000;
