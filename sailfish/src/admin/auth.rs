//! Who may use the port: whoever knows `control.secret`, where there is one.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Admin;
use super::error::ApiError;

/// What load balancers and Prometheus ask for. It names no user and changes nothing.
const PUBLIC: [&str; 4] = ["/", "/metrics", "/healthz", "/readyz"];

/// Lets a request through, or refuses it before anything of it is read.
pub async fn guard(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let is_open = admin.secret.is_empty() || PUBLIC.contains(&request.uri().path());
    if is_open || bears(request.headers(), admin.secret.as_bytes()) {
        next.run(request).await
    } else {
        ApiError::unauthorized().into_response()
    }
}

fn bears(headers: &HeaderMap, secret: &[u8]) -> bool {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return false };
    let Some((scheme, token)) = value.as_bytes().split_at_checked("Bearer ".len()) else { return false };
    scheme.eq_ignore_ascii_case(b"Bearer ") && is_same(token, secret)
}

/// Takes the same time wherever the two differ, so that no secret is guessed byte by byte. Its length is no secret.
fn is_same(given: &[u8], wanted: &[u8]) -> bool {
    let differs = |sum, (a, b): (&u8, &u8)| std::hint::black_box(sum | (a ^ b));
    given.len() == wanted.len() && given.iter().zip(wanted).fold(0, differs) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

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
