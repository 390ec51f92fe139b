//! The admin port: health, metrics, and the control API, by HTTP.
//!
//! One file a resource. A caller of this port may do everything, so `auth` is the one place that
//! checks callers.

mod auth;
mod body;
mod console;
mod drain;
mod error;
mod exposition;
mod health;
mod kick;
mod metrics;
mod nodes;
mod online;
mod openapi;
mod push;
mod revoke;
mod rooms;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::middleware::from_fn_with_state;
use axum::{Router, http::Uri};
use gateway::TlsServer;
use tokio::net::TcpListener;

use crate::control::{Shards, Unanswered};
use crate::directory;
use crate::keys::Keys;
use crate::role::Role;
pub use auth::SECRET_UNUSED;
use error::ApiError;
pub use health::owners_known;
pub use rooms::Keeps;

/// What the handlers work with.
pub struct Admin {
    /// The shards of this node.
    pub shards: Arc<Shards>,
    /// What the directory counts, where there is one.
    pub directory: Option<Arc<directory::Stats>>,
    /// Reads rooms' streams in the directory, if they are written.
    pub streams: Option<Arc<directory::Reader>>,
    /// How much rooms keep.
    pub keeps: Keeps,
    /// What the bridge of this process counts, where it has one.
    pub bridge: Option<Arc<biz_bridge::Metrics>>,
    /// The secret that callers must send; empty for none.
    pub secret: String,
    /// What serves the port.
    pub http: Arc<http_server::Server>,
    /// The port of the page for browsers, if this process has one.
    pub page: Option<SocketAddr>,
    /// The keys that tokens are checked with.
    pub keys: Arc<Keys>,
    /// The nodes that were seen.
    pub seen: nodes::SharedSeen,
}

impl Admin {
    /// Fails on a router: it has no clients, and knows no other router.
    fn require_gateway(&self) -> Result<(), ApiError> {
        match self.shards.role() {
            Role::Up | Role::Gateway | Role::Bridge => Ok(()),
            Role::Router => Err(ApiError::unavailable("no_gateway", "this node is a router; ask a gateway")),
        }
    }
}

pub use nodes::watch as watch_nodes;

/// Serves the admin port for as long as the process lives.
pub async fn serve(listener: TcpListener, tls: Option<TlsServer>, admin: Arc<Admin>) {
    admin.http.clone().serve(listener, tls, router(admin), std::future::pending()).await;
}

fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .merge(health::router())
        .merge(online::router())
        .merge(kick::router())
        .merge(revoke::router())
        .merge(push::router())
        .merge(drain::router())
        .merge(nodes::router())
        .merge(rooms::router())
        .merge(openapi::router())
        .merge(console::router())
        .fallback(async |uri: Uri| {
            ApiError::not_found(format!("no such path: {}; see /openapi.json", uri.path()))
        })
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(from_fn_with_state(admin.clone(), auth::guard))
        .with_state(admin)
}

impl From<Unanswered> for ApiError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Shard(id) => {
                Self::unavailable("no_answer", format!("no answer from shard {}", id.index()))
            }
            Unanswered::NoRouter => Self::unavailable("no_router", "no router is linked"),
            Unanswered::Router => Self::unavailable("no_answer", "no answer from a router in time"),
        }
    }
}
