//! The offline inbox: what did not reach its receiver, until it does. [`crate::inbox`] hands it over.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::Error;
use crate::http::caller::Caller;
use crate::tables::inbox;

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(count))
}

#[derive(Serialize, ToSchema)]
#[schema(as = InboxCount, examples(json!({ "count": 3 })))]
struct Count {
    /// Messages that wait for the caller's next session, for 30 days at most.
    count: i64,
}

/// How many messages wait for the caller.
#[utoipa::path(get, path = "/inbox/count", security(("login" = [])), responses((status = 200, body = Count)))]
async fn count(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<Count>, Error> {
    let count = inbox::count(app.store.db.primary(), app.store.config.app, caller.user_id).await?;
    Ok(Json(Count { count }))
}
