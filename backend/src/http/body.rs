//! JSON bodies and queries, whose errors name the field.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::BODY_BYTES_MAX;
use crate::error::Error;

/// A request's JSON body, an object.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_json =
            kind.is_some_and(|kind| kind.split(';').next().unwrap_or_default().trim() == "application/json");
        if !is_json {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Error::new(status, "unsupported_media_type", "want Content-Type: application/json"));
        }
        let bytes = read(request, state).await?;
        // To serde an array is a struct too, by the order of its fields; nobody is to depend on that.
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(Error::bad_request("want a JSON object"));
        }
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut json).map_err(Error::bad_request)?;
        json.end().map_err(Error::bad_request)?;
        Ok(Self(value))
    }
}

/// The bytes of a body, within the limit.
pub async fn read<S: Send + Sync>(request: Request, _state: &S) -> Result<Bytes, Error> {
    let mut body = request.into_body();
    let (mut bytes, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Error::bad_request)?.into_data() else { continue };
        length += data.len();
        if length <= BODY_BYTES_MAX {
            bytes.extend_from_slice(&data);
        } else if length > DRAINED_BYTES_MAX {
            break;
        }
    }
    match length <= BODY_BYTES_MAX {
        true => Ok(bytes.into()),
        false => {
            let message = format!("want a body of at most {BODY_BYTES_MAX} bytes");
            Err(Error::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message))
        }
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

/// How much of a body that is too long is taken and thrown away. A caller whose body is cut off sees a broken connection, and not
/// the answer that says why.
const DRAINED_BYTES_MAX: usize = 16 << 20;
