//! The page with a live room, which `web/` builds: an example of an app for the API, and a way to try a
//! server.

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::app::App;

/// The files of the page. They are in the binary, so there is nothing to install beside it.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("../../web/dist/index.html")),
    ("/room.js", "text/javascript; charset=utf-8", include_str!("../../web/dist/room.js")),
    ("/room.css", "text/css; charset=utf-8", include_str!("../../web/dist/room.css")),
    ("/favicon.svg", "image/svg+xml", include_str!("../../web/dist/favicon.svg")),
];

/// Only scripts from this port run, whatever text gets into the page. The gateway, to which it connects by
/// WebSocket, may be anywhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The routes.
pub fn router() -> Router<Arc<App>> {
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
        // A page of an earlier version does not fit the API of this one.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}
