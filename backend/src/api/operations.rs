//! What operators and their tools ask: whether the process lives, whether it can serve, and its metrics. Not
//! for clients: a proxy in front of the API passes none of them on.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::Error;
use crate::metrics;
use crate::migrations::is_migrated;

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz)).routes(routes!(page))
}

/// Whether the process lives: an answer means yes.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = String)))]
async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether requests can be served: the database takes writes, and its tables are up to date.
#[utoipa::path(
    get, path = "/readyz",
    responses((status = 200, body = String), (status = 503, description = "not at the moment"))
)]
async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, Error> {
    let migrated = tokio::time::timeout(READY_TIME, is_migrated(&app.store.db)).await;
    match migrated {
        Ok(Ok(true)) => app.store.db.check_writes(&app.store.clock).await.map(|()| "ok\n"),
        Ok(Ok(false)) => Err(Error::unavailable("not_migrated", "the database's tables are not up to date")),
        Ok(Err(error)) => Err(Error::unavailable("database_unavailable", error)),
        Err(_) => Err(Error::unavailable("database_unavailable", "the database does not answer in time")),
    }
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String)))]
async fn page(State(app): State<Arc<App>>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, metrics::page::text(&app).await)
}

/// How long the database may take to answer.
const READY_TIME: Duration = Duration::from_secs(6);
