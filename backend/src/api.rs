//! The API, one file a resource: its router, bodies, handlers, and the rules that are its own.

pub mod bridge;
pub mod gift;
pub mod inbox;
pub mod login;
pub mod operations;
pub mod room;
pub mod wallet;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// All resources.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .merge(bridge::router())
        .merge(gift::router())
        .merge(operations::router())
        .merge(wallet::router())
}
