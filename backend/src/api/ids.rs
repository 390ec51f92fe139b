//! Ids for the company's own services.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::{Error, ErrorBody};
use crate::http::body::Body;
use crate::http::internal::Internal;
use crate::ids::Order;

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(take))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = IdsRequest, examples(json!({ "name": "user", "count": 3, "ordered": true })))]
struct Take {
    /// What the ids are for: 1 to 64 of a to z, 0 to 9 and _. Each name has ids of its own.
    name: String,
    /// How many: 1 to 1000.
    count: u32,
    /// Whether each is above all that this process gave before (the default), or they come by chance.
    ordered: Option<bool>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Ids, examples(json!({ "ids": [10001, 10002, 10003] })))]
struct Taken {
    /// Ids that nobody else has.
    ids: Vec<i64>,
}

/// Gives ids that nobody else gets. There may be gaps.
#[utoipa::path(post, path = "/internal/ids", request_body = Take,
    responses((status = 200, body = Taken), (status = 400, body = ErrorBody)))]
async fn take(
    State(app): State<Arc<App>>,
    _: Internal,
    Body(body): Body<Take>,
) -> Result<Json<Taken>, Error> {
    let order = match body.ordered.unwrap_or(true) {
        true => Order::Ascending,
        false => Order::Shuffled,
    };
    Ok(Json(Taken { ids: app.ids.take(&body.name, order, body.count).await? }))
}
