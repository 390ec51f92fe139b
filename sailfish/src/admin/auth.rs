//! Who may use the port: callers that know `control.secret`; without one, programs of this machine.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_server::site;

use super::Admin;
use super::error::ApiError;

/// The paths for load balancers, Prometheus, and a browser that opens the console. They name no user and
/// change nothing.
pub const PUBLIC: [&str; 7] =
    ["/", "/metrics", "/healthz", "/readyz", "/console", "/console.js", "/console.css"];

/// In an answer: the request had a secret, and none is wanted here.
pub const SECRET_UNUSED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-sailfish-secret"), HeaderValue::from_static("unused"));

/// Lets a request through, or refuses it before any of it is read.
pub async fn guard(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let is_secret_unused = admin.secret.is_empty() && request.headers().contains_key(header::AUTHORIZATION);
    let refusal = match (PUBLIC.contains(&request.uri().path()), admin.secret.as_bytes()) {
        (true, _) => None,
        (false, b"") if !is_by_address(request.headers()) => Some(ApiError::forbidden()),
        (false, b"") => (!site::is_own(request.method(), request.headers())).then(ApiError::no_json),
        (false, secret) => (!bears(request.headers(), secret)).then(ApiError::unauthorized),
    };
    let mut response = match refusal {
        None => next.run(request).await,
        Some(refusal) if refusal.is_no_json() => {
            let (method, uri) = (request.method().clone(), request.uri().clone());
            wrong_method(method, uri, next).await.unwrap_or_else(|| refusal.into_response())
        }
        Some(refusal) => refusal.into_response(),
    };
    if is_secret_unused {
        let (name, value) = SECRET_UNUSED;
        response.headers_mut().insert(name, value);
    }
    response
}

/// The response if the path does not exist or does not take the method: this comes before checks of the body.
/// It asks the path with a method that none takes, so nothing is done.
async fn wrong_method(method: Method, uri: Uri, next: Next) -> Option<Response> {
    let mut asked = Request::new(Body::empty());
    (*asked.method_mut(), *asked.uri_mut()) = (Method::OPTIONS, uri);
    let answer = next.run(asked).await;
    let allowed = answer.headers().get(header::ALLOW).and_then(|methods| methods.to_str().ok());
    let takes_it =
        allowed.is_some_and(|methods| methods.split(',').any(|taken| taken.trim() == method.as_str()));
    (!takes_it).then_some(answer)
}

/// Whether the port was called by its address. A web page whose name resolves to loopback makes its reader's
/// browser call by that name.
fn is_by_address(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true }; // no browser
    let Ok(uri) = Uri::try_from(host.as_bytes()) else { return false };
    let name = uri.host().unwrap_or_default();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

fn bears(headers: &HeaderMap, secret: &[u8]) -> bool {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return false };
    let Some((scheme, token)) = value.as_bytes().split_at_checked("Bearer ".len()) else { return false };
    scheme.eq_ignore_ascii_case(b"Bearer ") && is_same(token, secret)
}

/// Takes the same time wherever the two differ, so that nobody can guess the secret byte by byte. Its length
/// is no secret.
fn is_same(given: &[u8], wanted: &[u8]) -> bool {
    let differs = |sum, (a, b): (&u8, &u8)| std::hint::black_box(sum | (a ^ b));
    given.len() == wanted.len() && given.iter().zip(wanted).fold(0, differs) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_another_site_is_no_address() {
        let is_by_address = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            is_by_address(&headers)
        };
        for host in ["127.0.0.1:5347", "127.0.0.1", "[::1]:5347", "localhost:5347", "LOCALHOST"] {
            assert!(is_by_address(host), "{host}");
        }
        for host in ["evil.example:5347", "127.0.0.1.evil.example", "localhost.evil.example", "", "a b"] {
            assert!(!is_by_address(host), "{host}");
        }
        assert!(super::is_by_address(&HeaderMap::new()));
    }

    #[test]
    fn only_the_whole_secret_is_the_secret() {
        let bears = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            bears(&headers, b"hush")
        };
        assert!(bears("Bearer hush") && bears("bearer hush"));
        for wrong in ["hush", "Bearer", "Bearer ", "Bearer hus", "Bearer hush ", "Bearer husk", "Basic hush"]
        {
            assert!(!bears(wrong), "{wrong}");
        }
        assert!(!super::bears(&HeaderMap::new(), b"hush"));
    }
}
