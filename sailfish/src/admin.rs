//! The admin port: health, metrics and the online query, by HTTP.

mod exposition;
mod metrics;
mod process;

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use node::ShardMetrics;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use wire::{AppId, UserId};

use crate::control::{Shards, Unanswered};
use crate::serve::Role;

/// Users that one online query may name.
const ONLINE_USERS_MAX: usize = 1_000;

/// Serves the admin port for as long as the process lives.
pub async fn serve(listener: TcpListener, shards: Arc<Shards>) {
    let app = Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/online", get(online))
        .with_state(shards);
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!("the admin port failed: {error}");
    }
}

async fn index() -> &'static str {
    "sailfish: /metrics, /healthz, /readyz, /online?app=1&user=10001,10002\n"
}

async fn metrics_text(State(shards): State<Arc<Shards>>) -> Response {
    let cores = shards.metrics().await;
    let text = metrics::text(&shards, &cores, process::Process::read());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// Whether every shard takes its mail and answers.
async fn healthz(State(shards): State<Arc<Shards>>) -> (StatusCode, String) {
    let answers = shards.metrics().await;
    let silent: Vec<String> = shards
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

/// Whether clients are to be sent here: not while the node goes, and not while no router owns their users.
async fn readyz(State(shards): State<Arc<Shards>>) -> (StatusCode, &'static str) {
    if shards.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n");
    }
    if shards.role() == Role::Router {
        return (StatusCode::OK, "ready\n");
    }
    let metrics = shards.metrics().await;
    let has_owners = |shard: &Option<Box<ShardMetrics>>| {
        shard.as_ref().and_then(|shard| shard.gateway.as_ref()).is_some_and(|gateway| gateway.owners > 0)
    };
    if metrics.iter().all(has_owners) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no router is linked\n")
    }
}

#[derive(Deserialize)]
struct OnlineQuery {
    app: i32,
    /// One or several, separated by commas.
    user: String,
}

#[derive(Serialize)]
struct OnlineAnswer {
    app: i32,
    users: Vec<OnlineUser>,
}

#[derive(Serialize)]
struct OnlineUser {
    user: i64,
    online: bool,
    devices: Vec<&'static str>,
}

async fn online(
    State(shards): State<Arc<Shards>>,
    query: Result<Query<OnlineQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    const WANTED: &str = "want /online?app=1&user=10001,10002\n";
    let Ok(Query(OnlineQuery { app, user })) = query else {
        return (StatusCode::BAD_REQUEST, WANTED).into_response();
    };
    let users: Result<Vec<UserId>, _> = user.split(',').map(|user| user.trim().parse().map(UserId)).collect();
    let Ok(mut users) = users else {
        return (StatusCode::BAD_REQUEST, WANTED).into_response();
    };
    users.sort_unstable();
    users.dedup();
    if users.len() > ONLINE_USERS_MAX {
        let line = format!("want at most {ONLINE_USERS_MAX} users in one query\n");
        return (StatusCode::BAD_REQUEST, line).into_response();
    }
    match shards.online(AppId(app), users).await {
        Ok(mut found) => {
            found.sort_unstable_by_key(|presence| presence.user);
            let users = found.into_iter().map(|presence| OnlineUser {
                user: presence.user.0,
                online: !presence.seats.is_empty(),
                devices: presence.seats.into_iter().map(|seat| seat.device.name()).collect(),
            });
            Json(OnlineAnswer { app, users: users.collect() }).into_response()
        }
        Err(unanswered) => (StatusCode::SERVICE_UNAVAILABLE, why(unanswered)).into_response(),
    }
}

fn why(unanswered: Unanswered) -> String {
    match unanswered {
        Unanswered::Shard(id) => format!("no answer from shard {}\n", id.index()),
        Unanswered::NoRouter => "no router is linked\n".into(),
        Unanswered::Router => "no answer from a router in time\n".into(),
    }
}
