//! What every request goes through: its id, limits, the shape of errors.

pub mod address;
pub mod body;
pub mod caller;
pub mod class;
pub mod internal;
pub mod text;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use traces::{Context, Kind, Span};
use tracing::debug;
use utoipa_swagger_ui::SwaggerUi;

use crate::app::App;
use crate::error::Error;
use crate::{api, pages, random, request_id, trace};

/// How long a request may take.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// A caller's own id of a request, or a generated one; the response has it too.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The trace that a caller continues.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Routes without spans; the first one stands for unknown paths.
const UNTRACED: [&str; 4] = ["", "/healthz", "/readyz", "/metrics"];
/// Routes whose callers sign their requests, so that a foreign page cannot forge them.
const SIGNED: [&str; 2] = ["/bridge/events", "/payment/callback/{provider}"];

/// The whole API, with its description at `/openapi.json` and a page to browse it at `/docs`.
pub fn router(app: Arc<App>) -> Router {
    let (router, document) = api::router().split_for_parts();
    router
        .merge(pages::router())
        .merge(SwaggerUi::new("/docs").url("/openapi.json", document))
        .fallback(|| async { Error::not_found("no such path; /docs lists all paths") })
        .method_not_allowed_fallback(|| async {
            Error::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this path takes another method; the header Allow says which",
            )
        })
        .layer(middleware::from_fn(of_this_site))
        .layer(middleware::from_fn_with_state(app.clone(), with_request_id))
        .with_state(app)
}

/// Gives the request an id, and a time to be done in; counts it, and logs it at DEBUG.
async fn with_request_id(
    State(app): State<Arc<App>>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    let method = request.method().clone();
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_plain = |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    let id = given.filter(is_plain).map_or_else(random::hex::<8>, str::to_owned);
    let path = path.as_ref().map_or("", MatchedPath::as_str);
    let place = of_trace(&app, path, &request);
    let work = request_id::scope(id.clone(), answer(request, next));
    let say = |span, response: &Response| describe(span, &method, path, response.status());
    let mut response = trace::step(&app.store.traces, Kind::Server, place, work, say).await;
    let status = response.status().as_u16();
    let took = start.elapsed();
    app.metrics.request(method_name(&method), path, status, took);
    debug!(request_id = id, %method, path, status, took_us = took.as_micros() as u64, "request");
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The span of a request. Health checks and metrics belong to no trace.
fn of_trace(app: &App, path: &str, request: &Request) -> (Context, Option<u64>) {
    let given = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let (context, parent) = trace::of_request(given, app.store.config.trace.sampling());
    let is_work = !UNTRACED.contains(&path);
    (Context { is_sampled: context.is_sampled && is_work, ..context }, parent)
}

/// Names as in <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>.
fn describe(span: Span, method: &Method, path: &str, status: StatusCode) -> Span {
    let method = method_name(method).to_owned();
    let span = span
        .named(format!("{method} {path}"))
        .with("http.request.method", method)
        .with("http.route", path.to_owned())
        .with("http.response.status_code", i64::from(status.as_u16()));
    match status.is_server_error() {
        true => span.failed(status.to_string()),
        false => span,
    }
}

async fn answer(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(REQUEST_TIME, next.run(request)).await;
    answered.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", REQUEST_TIME.as_secs());
        Error::unavailable("timeout", message).into_response()
    })
}

/// Refuses a request that a page of another site may have sent by its reader's browser, with the cookie.
async fn of_this_site(path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let is_signed = path.is_some_and(|path| SIGNED.contains(&path.as_str()));
    if is_signed || http_server::site::is_own(request.method(), request.headers()) {
        return next.run(request).await;
    }
    let message = "want Content-Type: application/json, a login token as Authorization: Bearer, or Sec-Fetch-Site: same-origin";
    Error::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message).into_response()
}

/// Its name if it is a usual one: callers must not be able to invent labels.
fn method_name(method: &Method) -> &str {
    match *method {
        Method::GET
        | Method::POST
        | Method::PUT
        | Method::DELETE
        | Method::PATCH
        | Method::HEAD
        | Method::OPTIONS => method.as_str(),
        _ => "other",
    }
}
