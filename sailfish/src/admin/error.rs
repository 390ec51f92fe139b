//! The one form of errors: a status, and `{"code","message"}`.

use std::fmt::Display;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Why a request was refused, or failed.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

/// The body of every error.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody<'a> {
    /// For programs.
    code: &'a str,
    /// For people: what is wrong, and what is wanted.
    message: &'a str,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Display) -> Self {
        Self { status, code, message: message.to_string() }
    }

    /// The caller's mistake: `message` names it.
    pub fn bad_request(message: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// The caller must send the secret.
    pub fn unauthorized() -> Self {
        let message = "want the header Authorization: Bearer with the value of control.secret";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// It may come from a web page.
    pub fn forbidden() -> Self {
        let message = "without control.secret, call this port by its address or as localhost";
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The path takes other methods.
    pub fn method_not_allowed() -> Self {
        let message = "this path takes another method; the header Allow says which";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    /// The body did not come in time.
    pub fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the body did not come in time")
    }

    /// Body or payload is over a limit: `message` names it.
    pub fn too_large(message: impl Display) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// A body of another type.
    pub fn no_json() -> Self {
        let message = "want the header Content-Type: application/json, and a JSON object as body";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    /// Whether it is [`Self::no_json`].
    pub fn is_no_json(&self) -> bool {
        self.status == StatusCode::UNSUPPORTED_MEDIA_TYPE
    }

    /// Something that the response needs is missing: `message` names it.
    pub fn unavailable(code: &'static str, message: impl Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// The same of a part of the body.
    pub fn within(self, part: &str) -> Self {
        Self { message: format!("{part}.{}", self.message), ..self }
    }

    /// What is missing, or wrong.
    pub fn into_message(self) -> String {
        self.message
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody { code: self.code, message: &self.message };
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
