//! IM tokens: what a client logs in at a gateway with. The gateway checks them by itself.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use logs::warn;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::login::LoginId;
use crate::app::App;
use crate::error::{Error, ErrorBody};
use crate::http::body::Body;
use crate::http::caller::Caller;

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(make))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Make {
    /// The kind of device; `phone` if it is left out. A user has one session for each kind.
    #[serde(default)]
    device: Device,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Device {
    #[default]
    Phone,
    Tablet,
    Web,
    Desktop,
    Tv,
    Bot,
}

#[derive(Serialize, ToSchema)]
struct Made {
    /// What to log in at the gateway with.
    token: String,
    /// The gateway: `HOST:PORT`.
    address: String,
    /// Where browsers reach it, `ws://HOST:PORT` or `wss://HOST:PORT`; empty if they do not.
    websocket: String,
    /// When the token ends, in ms since the UNIX epoch, and with it the session; until then the client logs
    /// in once more on the live connection, with the next token.
    expires_ms: i64,
    /// The app to log in to.
    app: i32,
    /// The user to log in as.
    user_id: i64,
}

/// A token for the gateway, which is a JSON Web Token signed by HS256, and the gateway's address.
#[utoipa::path(post, path = "/im/token", request_body = Make,
    responses((status = 200, body = Made), (status = 401, body = ErrorBody), (status = 429, body = ErrorBody)))]
async fn make(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(body): Body<Make>,
) -> Result<Json<Made>, Error> {
    let (config, user_id) = (&app.config, caller.user_id);
    if config.im_secret.is_empty() {
        return Err(Error::unavailable("no_im_secret", "the gateways' secret is not set"));
    }
    let count = app.cache.count(&format!("im_tokens:{user_id}"), Duration::from_secs(60)).await;
    // Without the cache nobody counts: a login at the gateway is worth more than the limit.
    if count.is_ok_and(|count| count > i64::from(config.logins_per_minute)) {
        let most = config.logins_per_minute;
        return Err(Error::too_many(format!("want at most {most} tokens in a minute")));
    }
    // Whose session it is that the token is for, as long as that can last. A login that ended before may have
    // left a ban.
    let key = session_key(user_id, body.device);
    if app.cache.take_if(&key, BANNED).await.unwrap_or(false) {
        app.push.kick(config.app, user_id, body.device.name(), Duration::ZERO).await?;
    }
    if let Err(error) = app.cache.set(&key, caller.login.as_str(), ttl(&app)).await {
        warn!(%error, "cannot store which login got an IM token; its session may outlive the login");
    }
    let exp = app.clock.now_ms() / 1_000 + i64::from(config.im_token_ttl_s);
    let claims = Claims { app: config.app, user: user_id, device: body.device, exp };
    Ok(Json(Made {
        token: sign(&config.im_secret, &claims)?,
        address: config.im_address.clone(),
        websocket: config.im_websocket.clone(),
        expires_ms: exp * 1_000,
        app: config.app,
        user_id,
    }))
}

/// Ends the sessions of a login that has ended: those on devices for which it was the last to get a token.
/// Until the next token for the device is made, those that were made before are refused there.
pub async fn end_sessions(app: &App, user_id: i64, login: LoginId) {
    let keys = Device::ALL.map(|device| session_key(user_id, device));
    let logins = app.cache.get_many(&keys).await.unwrap_or_default();
    let own = Device::ALL.into_iter().zip(logins).filter(|(_, of)| of.as_deref() == Some(login.as_str()));
    for (device, _) in own {
        let marked = app.cache.set(&session_key(user_id, device), BANNED, ttl(app)).await;
        let ended = app.push.kick(app.config.app, user_id, device.name(), ttl(app)).await;
        if let Err(error) = marked.and(ended) {
            warn!(%error, "cannot end a session at a gateway after a logout; it lasts until its token expires");
        }
    }
}

/// How long what was made may be used.
fn ttl(app: &App) -> Duration {
    Duration::from_secs(app.config.im_token_ttl_s.into())
}

/// In place of a login: it has ended, and the device is banned.
const BANNED: &str = "banned";

/// Where it is known which login got the last token for a device.
fn session_key(user_id: i64, device: Device) -> String {
    format!("im_session:{user_id}:{}", device.name())
}

impl Device {
    const ALL: [Self; 6] = [Self::Phone, Self::Tablet, Self::Web, Self::Desktop, Self::Tv, Self::Bot];

    fn name(self) -> &'static str {
        match self {
            Self::Phone => "phone",
            Self::Tablet => "tablet",
            Self::Web => "web",
            Self::Desktop => "desktop",
            Self::Tv => "tv",
            Self::Bot => "bot",
        }
    }
}

/// What a gateway reads out of a token.
#[derive(Serialize)]
struct Claims {
    app: i32,
    user: i64,
    device: Device,
    /// In UNIX seconds.
    exp: i64,
}

/// The compact form of RFC 7515.
fn sign(secret: &[u8], claims: &Claims) -> Result<String, Error> {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims)?));
    let hmac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    let signature = URL_SAFE_NO_PAD.encode(hmac.chain_update(&signed).finalize().into_bytes());
    Ok(format!("{signed}.{signature}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with `openssl dgst -sha256 -hmac` over the same text.
    #[test]
    fn a_token_is_signed_as_another_program_signs_it() {
        let claims = Claims { app: 1, user: 10_001, device: Device::Web, exp: 1_800_000_060 };
        let token = sign(b"a secret of the tests", &claims).unwrap();
        assert_eq!(
            token,
            concat!(
                "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
                ".",
                "eyJhcHAiOjEsInVzZXIiOjEwMDAxLCJkZXZpY2UiOiJ3ZWIiLCJleHAiOjE4MDAwMDAwNjB9",
                ".",
                "ihMNNHqD-svXo7L2KDCuq9iV0HDruhVWBBDam7GlA_4"
            )
        );
    }
}
