//! Whether the node is well, and its metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http_server::process::Process;
use node::ShardMetrics;

use super::{Admin, metrics};
use crate::control::Shards;
use crate::role::Role;

/// How long a start waits for shards that do not know each other yet.
const OWNERS_WAIT: Duration = Duration::from_secs(2);
/// How often they are asked meanwhile.
const OWNERS_LOOK: Duration = Duration::from_millis(5);

pub fn router() -> Router<Arc<Admin>> {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
}

/// The list of paths. A browser is redirected to the page for viewers: this port is for operators, who may do
/// everything.
async fn index(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if let (Some(page), true) = (admin.page, text(header::ACCEPT).contains("text/html")) {
        let asked: Option<Uri> = text(header::HOST).parse().ok();
        let host = asked.as_ref().and_then(Uri::host).filter(|_| page.ip().is_unspecified());
        let host = host.map_or_else(|| page.to_string(), |host| format!("{host}:{}", page.port()));
        return Redirect::temporary(&format!("http://{host}/")).into_response();
    }
    "sailfish: /console, /metrics, /healthz, /readyz, /online?app=1&user=10001,10002, and the control API: /openapi.json\n"
        .into_response()
}

async fn metrics_text(State(admin): State<Arc<Admin>>) -> Response {
    let cores = admin.shards.metrics().await;
    let text = metrics::text(&admin, &cores, Process::read());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Whether every shard takes its mail and answers.
async fn healthz(State(admin): State<Arc<Admin>>) -> (StatusCode, String) {
    let answers = admin.shards.metrics().await;
    let silent: Vec<String> = admin
        .shards
        .ids()
        .iter()
        .zip(&answers)
        .filter(|(_, answer)| answer.is_none())
        .map(|(id, _)| id.index().to_string())
        .collect();
    match silent.as_slice() {
        [] => (StatusCode::OK, "ok\n".into()),
        _ => (StatusCode::SERVICE_UNAVAILABLE, format!("no answer from shard {}\n", silent.join(", "))),
    }
}

/// Whether clients may be sent here: not while the node drains, and not while no router owns their users.
async fn readyz(State(admin): State<Arc<Admin>>) -> (StatusCode, &'static str) {
    if admin.shards.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    let has_clients = matches!(admin.shards.role(), Role::Up | Role::Gateway);
    if has_clients && admin.keys.now().is_empty() {
        return (StatusCode::SERVICE_UNAVAILABLE, "no key to check tokens with\n");
    }
    if admin.shards.role() == Role::Router || has_owners(&admin.shards).await {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no router is linked\n")
    }
}

/// Whether each shard knows a router for its users.
async fn has_owners(shards: &Arc<Shards>) -> bool {
    let of_shard = |shard: &Option<Box<ShardMetrics>>| {
        shard.as_ref().and_then(|shard| shard.gateway.as_ref()).is_some_and(|gateway| gateway.owners > 0)
    };
    shards.metrics().await.iter().all(of_shard)
}

/// Returns once each shard knows a router for its users, or after [`OWNERS_WAIT`].
pub async fn owners_known(shards: &Arc<Shards>) {
    let known = async {
        while !has_owners(shards).await {
            tokio::time::sleep(OWNERS_LOOK).await;
        }
    };
    // Past that time it serves all the same, and `/readyz` says what it lacks.
    let _ = tokio::time::timeout(OWNERS_WAIT, known).await;
}
