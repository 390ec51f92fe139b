//! The wallet: a user's coins.

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
use crate::tables::account;

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(balance))
}

#[derive(Serialize, ToSchema)]
struct Balance {
    /// Whose.
    user_id: i64,
    /// In coins.
    balance: i64,
}

/// The caller's balance, as the database has it.
#[utoipa::path(get, path = "/wallet", responses((status = 200, body = Balance)))]
async fn balance(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<Balance>, Error> {
    let user_id = caller.user_id;
    let balance = account::balance(app.db.primary(), user_id).await?.unwrap_or(0);
    Ok(Json(Balance { user_id, balance }))
}
