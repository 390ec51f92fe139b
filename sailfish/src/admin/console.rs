//! The page for operators, which `web/` builds. Its files contain nothing about this node, so anybody may
//! read them; all that it shows and orders goes through the control API.

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Admin;

/// The files: path, type and text.
const FILES: [(&str, &str, &str); 3] = [
    ("/console", "text/html; charset=utf-8", include_str!("../../../web/dist/console.html")),
    ("/console.js", "text/javascript; charset=utf-8", include_str!("../../../web/dist/console.js")),
    ("/console.css", "text/css; charset=utf-8", include_str!("../../../web/dist/console.css")),
];

/// The page runs only scripts of this port, and connects only to it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

pub fn router() -> Router<Arc<Admin>> {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, text)| {
        router.route(path, get(async move || file(kind, text)))
    })
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::super::auth::PUBLIC;
    use super::*;

    #[test]
    fn a_browser_that_knows_no_secret_yet_gets_the_page() {
        assert!(FILES.iter().all(|(path, ..)| PUBLIC.contains(path)));
    }
}
