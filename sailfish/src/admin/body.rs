//! JSON bodies, read within a limit and a time.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::BODY_BYTES_MAX;
use super::error::ApiError;

/// How long a body may take to come.
const BODY_TIME: Duration = Duration::from_secs(10);

/// A request's JSON body.
///
/// Its content type must say so, of an empty object too: browsers let pages of other sites send every other type without asking,
/// and a port on loopback that asks for no secret would take their orders.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::no_json());
        }
        let read = tokio::time::timeout(BODY_TIME, Bytes::from_request(request, state)).await;
        let bytes =
            read.map_err(|_| ApiError::too_slow())?.map_err(|rejection| match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => {
                    ApiError::too_large(format!("want a body of at most {BODY_BYTES_MAX} bytes"))
                }
                _ => ApiError::bad_request(rejection.body_text()),
            })?;
        parse(&bytes).map(Self).map_err(ApiError::bad_request)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
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
