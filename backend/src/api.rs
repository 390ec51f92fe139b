//! The API, one file a resource: its router, bodies, handlers, and the rules that are its own.

pub mod bridge;
pub mod gift;
pub mod ids;
pub mod im_token;
pub mod inbox;
pub mod login;
pub mod mock_pay;
pub mod operations;
pub mod order;
pub mod payment;
pub mod presence;
pub mod product;
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
        .merge(inbox::router())
        .merge(login::router())
        .merge(mock_pay::router())
        .merge(operations::router())
        .merge(order::router())
        .merge(payment::router())
        .merge(presence::router())
        .merge(product::router())
        .merge(room::router())
        .merge(tags::router())
        .merge(users::router())
        .merge(wallet::router())
}
