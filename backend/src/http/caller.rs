//! Who calls: the user of the login token in `Authorization: Bearer`, or in the cookie `sailfish_login`.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use crate::app::App;
use crate::error::Error;
use crate::login::{self, LoginId};

/// The cookie that may have the login token.
pub const COOKIE: &str = "sailfish_login";

/// A caller who has logged in.
pub struct Caller {
    /// The user.
    pub user_id: i64,
    /// The login by which the request came.
    pub login: LoginId,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Error> {
        let token = token(&parts.headers).ok_or_else(|| {
            Error::unauthorized(format!("want a login token as Authorization: Bearer, or cookie {COOKIE}"))
        })?;
        let user_id = login::user_of(app, token).await?;
        let user_id = user_id
            .ok_or_else(|| Error::unauthorized("the login token is unknown or has ended; log in again"))?;
        Ok(Self { user_id, login: LoginId::of(token) })
    }
}

/// The login token of a request.
pub fn token(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
    bearer.or_else(|| {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value).next()
    })
}
