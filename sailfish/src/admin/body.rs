//! JSON bodies, read within a limit and a time.

use axum::extract::{FromRequest, Request};
use http_server::body::{BodyError, read};
use http_server::site::is_json;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// The longest body of a route without another limit: 1,000 users as JSON.
const BODY_BYTES_MAX: usize = 64 << 10;

/// A request's JSON body, of at most `BYTES_MAX` bytes.
///
/// Its content type must say so, also for an empty object: browsers let pages of other sites send every other
/// type without asking, and a loopback port without a secret would take their orders.
pub struct Body<T, const BYTES_MAX: usize = BODY_BYTES_MAX>(pub T);

impl<S: Send + Sync, T: DeserializeOwned, const BYTES_MAX: usize> FromRequest<S> for Body<T, BYTES_MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::no_json());
        }
        let bytes = read(request, BYTES_MAX).await.map_err(|error| match error {
            BodyError::TooLong(_) => ApiError::too_large(error),
            BodyError::TooSlow => ApiError::too_slow(),
            BodyError::Busy => ApiError::unavailable("busy", error),
            BodyError::Broken(_) => ApiError::bad_request(error),
        })?;
        parse(&bytes).map(Self).map_err(ApiError::bad_request)
    }
}

/// Parses a body; the error begins with the field.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        match path.as_str() {
            "." => error.inner().to_string(),
            path => format!("{path}: {}", error.inner()),
        }
    })?;
    json.end().map_err(|error| error.to_string())?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        user: i64,
    }

    #[test]
    fn an_error_names_the_field() {
        let refused = |text: &str| parse::<Sample>(text.as_bytes()).unwrap_err();
        assert_eq!(parse(b" {\"user\":-5} "), Ok(Sample { user: -5 }));
        for (text, part) in [
            ("{\"user\":\"5\"}", "user: invalid type: string \"5\", expected i64"),
            ("{}", "missing field `user`"),
            ("{\"user\":5,\"uzer\":5}", "unknown field `uzer`"),
            ("{\"user\":5} x", "trailing characters"),
            ("", "EOF"),
            ("5", "expected struct Sample"),
        ] {
            assert!(refused(text).contains(part), "{text} gave {}", refused(text));
        }
    }
}
