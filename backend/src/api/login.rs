//! Login by phone and code.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::{Error, ErrorBody};
use crate::hooks::Login as LoginAsked;
use crate::http::address::Address;
use crate::http::body::{Body, Path};
use crate::http::caller::{COOKIE, token};
use crate::http::internal::Internal;
use crate::login_code::{Asker, wrong_code};
use crate::phone::Phone;
use crate::{login, users};

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(send_code))
        .routes(routes!(mock_sms))
        .routes(routes!(log_in))
        .routes(routes!(log_out))
        .routes(routes!(log_out_user))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "phone": "+86 138 0000 4711" })))]
struct SendCode {
    /// With its country code after `+` or `00`, or without for the operator's own country.
    phone: String,
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({ "expires_ms": 1763000042123_i64 })))]
struct CodeSent {
    /// When the code ends, in ms since the UNIX epoch.
    expires_ms: i64,
}

/// Sends a login code to a phone, once a minute at most. The code is good for 60 s, for one login, and for 5
/// tries from one address. 429 says in `Retry-After` when to ask again. 503 `no_sender`: the operator has
/// configured no sender of codes; 503 `sms_unavailable`: the code was not sent, and does not count against
/// the phone.
#[utoipa::path(post, path = "/login/code", request_body = SendCode,
    responses((status = 200, body = CodeSent), (status = 400, body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 503, body = ErrorBody)))]
async fn send_code(
    State(app): State<Arc<App>>,
    address: Address,
    Body(body): Body<SendCode, BODY_BYTES_MAX>,
) -> Result<Json<CodeSent>, Error> {
    let phone = Phone::parse(&body.phone, &app.store.config.phone_country)?;
    let expires_ms = Asker::new(phone, address).send_code(&app).await?;
    Ok(Json(CodeSent { expires_ms }))
}

#[derive(Serialize, ToSchema)]
struct MockSms {
    /// The last code that was sent and not used.
    code: String,
}

/// The code that the mock sender has sent to a phone; only with `backend.mock`.
#[utoipa::path(get, path = "/mock/sms/{phone}", params(("phone" = String, Path, description = "The phone number.")),
    responses((status = 200, body = MockSms), (status = 404, body = ErrorBody)))]
async fn mock_sms(
    State(app): State<Arc<App>>,
    address: Address,
    Path(phone): Path<String>,
) -> Result<Json<MockSms>, Error> {
    if !app.store.config.mock {
        return Err(Error::not_found("backend.mock is off"));
    }
    let phone = Phone::parse(&phone, &app.store.config.phone_country)?;
    let code = Asker::new(phone, address).code(&app).await?;
    let code = code.ok_or_else(|| Error::not_found("no code waits for this phone"))?;
    Ok(Json(MockSms { code: code.digits }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "phone": "+86 138 0000 4711", "code": "123456" })))]
struct LogIn {
    /// The same as in the request for the code.
    phone: String,
    /// The six digits that were sent to it.
    code: String,
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({ "user_id": 10001, "token": "5f0c9a1e7b3d42685f0c9a1e7b3d42685f0c9a1e7b3d42685f0c9a1e7b3d4268", "expires_ms": 1765592042123_i64, "is_new": true })))]
struct LoggedIn {
    /// The user.
    user_id: i64,
    /// For `Authorization: Bearer`. It is in the answer's cookie too.
    token: String,
    /// When the token ends, in ms since the UNIX epoch.
    expires_ms: i64,
    /// Whether this login made the user.
    is_new: bool,
}

/// Logs in. The first login of a phone makes its user. Wrong digits count against the address that they come
/// from: after the fifth it waits 15 s, and twice as long after each further one.
#[utoipa::path(post, path = "/login", request_body = LogIn,
    responses((status = 200, body = LoggedIn), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 429, body = ErrorBody)))]
async fn log_in(
    State(app): State<Arc<App>>,
    address: Address,
    Body(body): Body<LogIn, BODY_BYTES_MAX>,
) -> Result<impl IntoResponse, Error> {
    let phone = Phone::parse(&body.phone, &app.store.config.phone_country)?;
    if body.code.len() != 6 || !body.code.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::bad_request("code: want six digits"));
    }
    let asker = Asker::new(phone, address);
    let code = asker.check(&app, &body.code).await?;
    let (user_id, is_new) = users::find_or_register(&app.store, &app.ids, asker.phone()).await?;
    if let Some(hook) = &app.hooks.login {
        let (phone, address) = (asker.phone().number(), asker.address());
        hook.ask(&LoginAsked { app: app.store.config.app, user: user_id, phone, address, is_new }).await?;
    }
    // Last, so that a database that is away does not cost the code.
    if !asker.use_up(&app, &code).await? {
        return Err(wrong_code());
    }
    let (token, expires_ms) = login::begin(&app, user_id).await?;
    let cookie = cookie(&app, &token, i64::from(app.store.config.login_ttl_days) * DAY_MS / 1_000)?;
    Ok(([(header::SET_COOKIE, cookie)], Json(LoggedIn { user_id, token, expires_ms, is_new })))
}

#[derive(Serialize, ToSchema)]
struct LoggedOut {}

/// Ends the login whose token the request has. Gateways refuse the IM tokens that it got, and end the
/// sessions that have them: at once, or as soon as they can be told.
#[utoipa::path(post, path = "/logout", security(("login" = [])), responses((status = 200, body = LoggedOut)))]
async fn log_out(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<impl IntoResponse, Error> {
    let token = token(&headers).ok_or_else(|| Error::unauthorized("want the login token to end"))?;
    login::end(&app, token).await?;
    Ok(([(header::SET_COOKIE, cookie(&app, "", 0)?)], Json(LoggedOut {})))
}

/// Ends all logins of a user, and has gateways refuse all IM tokens that it got and end its sessions, at
/// once, or as soon as they can be told: for a phone that was lost, or a password that was changed elsewhere.
/// It may be called again after a 503.
#[utoipa::path(post, path = "/internal/users/{id}/logout", params(("id" = i64, Path, description = "The user.")),
    responses((status = 200, body = LoggedOut), (status = 401, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn log_out_user(
    State(app): State<Arc<App>>,
    _: Internal,
    Path(user_id): Path<i64>,
) -> Result<Json<LoggedOut>, Error> {
    login::end_all(&app, user_id).await?;
    Ok(Json(LoggedOut {}))
}

/// Browsers send it over TLS only, unless the API is of this machine alone.
fn cookie(app: &App, token: &str, age_s: i64) -> Result<HeaderValue, Error> {
    let is_local =
        app.store.config.listen.ip().is_loopback() && !app.store.config.public_url.starts_with("https://");
    let secure = if is_local { "" } else { "; Secure" };
    let text = format!("{COOKIE}={token}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(text).map_err(Error::internal)
}

/// The longest body: a phone and a code.
const BODY_BYTES_MAX: usize = 1 << 10;
const DAY_MS: i64 = 86_400_000;
