//! The API, one file a resource: its router, bodies, handlers, and the rules that are its own.

pub mod bridge;
pub mod gift;
pub mod ids;
pub mod im_token;
pub mod inbox;
pub mod login;
pub mod operations;
pub mod room;
pub mod tags;
pub mod users;
pub mod wallet;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// All resources.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .merge(bridge::router())
        .merge(gift::router())
        .merge(ids::router())
        .merge(im_token::router())
        .merge(login::router())
        .merge(operations::router())
        .merge(tags::router())
        .merge(users::router())
        .merge(wallet::router())
}
