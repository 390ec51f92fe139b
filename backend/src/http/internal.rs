//! The company's own services: they send `config.internal_secret` in `Authorization: Bearer`.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::app::App;
use crate::error::Error;

/// A caller that is one of the company's own services. Handlers take it before the body, so that bodies of
/// others are not read.
pub struct Internal;

impl FromRequestParts<Arc<App>> for Internal {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Error> {
        let secret = app.store.config.internal_secret.as_bytes();
        if secret.is_empty() {
            let message = "the internal API is off: backend.internal_secret is not set";
            return Err(Error::new(StatusCode::FORBIDDEN, "internal_api_off", message));
        }
        let given = parts.headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let given = given.and_then(|value| value.strip_prefix(b"Bearer "));
        match given.map(|given| are_same(given, secret)) {
            Some(true) => Ok(Self),
            Some(false) => Err(Error::unauthorized("the internal secret is wrong")),
            None => Err(Error::unauthorized("want the internal secret as Authorization: Bearer")),
        }
    }
}

/// Compares in a time that does not show where the two differ.
pub fn are_same(given: &[u8], secret: &[u8]) -> bool {
    let digest = |bytes: &[u8]| keyed(secret).chain_update(bytes);
    digest(given).verify(&digest(secret).finalize().into_bytes()).is_ok()
}

fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret).expect("HMAC takes a key of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_is_the_secret() {
        assert!(are_same(b"secret", b"secret"));
        for other in [&b""[..], b"s", b"secre", b"secret ", b"Secret", b"secretsecret"] {
            assert!(!are_same(other, b"secret"), "{other:?}");
        }
    }
}
