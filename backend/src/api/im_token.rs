//! IM tokens, by which a client logs in at a gateway. The gateway checks them by itself.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

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
#[schema(as = ImTokenRequest, examples(json!({ "device": "web" })))]
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
#[schema(as = ImToken, examples(json!({ "token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ1c2VyIjoxMDAwMX0.c2lnbmF0dXJl", "address": "127.0.0.1:5346", "websocket": "ws://127.0.0.1:5349", "expires_ms": 1763000042000_i64, "app": 1, "user_id": 10001 })))]
struct Made {
    /// The token for the login at the gateway.
    token: String,
    /// The gateway: `HOST:PORT`.
    address: String,
    /// Where browsers reach it, `ws://HOST:PORT` or `wss://HOST:PORT`; empty if they cannot.
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
#[utoipa::path(post, path = "/im/token", security(("login" = [])), request_body = Make,
    responses((status = 200, body = Made), (status = 429, body = ErrorBody)))]
async fn make(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(body): Body<Make>,
) -> Result<Json<Made>, Error> {
    let (config, user_id) = (&app.store.config, caller.user_id);
    if config.im_secret.is_empty() {
        return Err(Error::unavailable("no_im_secret", "the gateways' secret is not set"));
    }
    let count = app.store.cache.count(&format!("im_tokens:{user_id}"), Duration::from_secs(60)).await;
    // Without the cache nobody counts: a login at the gateway is worth more than the limit.
    if count.is_ok_and(|count| count > i64::from(config.logins_per_minute)) {
        let most = config.logins_per_minute;
        return Err(Error::too_many(format!("want at most {most} tokens in a minute")));
    }
    let now_s = app.store.clock.now_ms() / 1_000;
    let exp = now_s + i64::from(config.im_token_ttl_s);
    let claims = Claims {
        app: config.app,
        user: user_id,
        device: body.device,
        exp,
        iat: now_s,
        sid: caller.login.session(),
        aud: &config.im_audience,
        iss: &config.im_issuer,
    };
    Ok(Json(Made {
        token: sign(&config.im_secret, &claims)?,
        address: config.im_address.clone(),
        websocket: config.im_websocket.clone(),
        expires_ms: exp * 1_000,
        app: config.app,
        user_id,
    }))
}

/// What a gateway reads out of a token.
#[derive(Serialize)]
struct Claims<'a> {
    app: i32,
    user: i64,
    device: Device,
    /// In UNIX seconds.
    exp: i64,
    /// When it was made, in UNIX seconds.
    iat: i64,
    /// The login that it came from: what it is revoked by.
    sid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    aud: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    iss: &'a str,
}

/// The compact form of RFC 7515.
fn sign(secret: &[u8], claims: &Claims<'_>) -> Result<String, Error> {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims)?));
    let hmac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    let signature = URL_SAFE_NO_PAD.encode(hmac.chain_update(&signed).finalize().into_bytes());
    Ok(format!("{signed}.{signature}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's `hmac` over the same text.
    #[test]
    fn a_token_is_signed_as_another_program_signs_it() {
        let claims = Claims {
            app: 1,
            user: 10_001,
            device: Device::Web,
            exp: 1_800_000_060,
            iat: 1_800_000_000,
            sid: "00ff",
            aud: "im",
            iss: "",
        };
        let token = sign(b"a secret of the tests", &claims).unwrap();
        assert_eq!(
            token,
            concat!(
                "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
                ".",
                "eyJhcHAiOjEsInVzZXIiOjEwMDAxLCJkZXZpY2UiOiJ3ZWIiLCJleHAiOjE4MDAwMDAwNjAsImlhdCI6MTgwMDAwMD",
                "AwMCwic2lkIjoiMDBmZiIsImF1ZCI6ImltIn0",
                ".",
                "FKaB64CXBr8EFwCYDbF6YV5V8wEC1jK1PjPvkD96j2c"
            )
        );
    }
}
