//! JSON bodies and queries, whose errors name the field.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use http_server::body::read;
use http_server::site::is_json;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// The longest body of a route without another limit.
pub const BODY_BYTES_MAX: usize = 16 << 10;

/// A request's JSON body: an object of at most `BYTES_MAX` bytes.
pub struct Body<T, const BYTES_MAX: usize = BODY_BYTES_MAX>(pub T);

impl<S: Send + Sync, T: DeserializeOwned, const BYTES_MAX: usize> FromRequest<S> for Body<T, BYTES_MAX> {
    type Rejection = Error;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Error> {
        if !is_json(request.headers()) {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Error::new(status, "unsupported_media_type", "want Content-Type: application/json"));
        }
        let bytes = read(request, BYTES_MAX).await?;
        // serde would accept an array as a struct, by the order of its fields; nobody must depend on that.
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(Error::bad_request("want a JSON object"));
        }
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut json).map_err(Error::bad_request)?;
        json.end().map_err(Error::bad_request)?;
        Ok(Self(value))
    }
}

/// A request's query.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|rejection| Error::bad_request(rejection.body_text()))
    }
}

/// A part of a request's path.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value))
            .map_err(|rejection| Error::bad_request(rejection.body_text()))
    }
}
