//! Who is online, as gateways and routers report.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::Error;
use crate::http::body::Path;
use crate::http::caller::Caller;
use crate::tables::presence;

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(find))
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({ "user_id": 10001, "is_online": true, "devices": ["phone"] })))]
struct Presence {
    /// The user.
    user_id: i64,
    /// Whether any device is online.
    is_online: bool,
    /// The devices that are online.
    devices: Vec<String>,
}

/// Whether a user is online, and on which devices. An unknown user is not.
#[utoipa::path(get, path = "/users/{id}/presence", security(("login" = [])), params(("id" = i64, Path, description = "The user.")),
    responses((status = 200, body = Presence)))]
async fn find(
    State(app): State<Arc<App>>,
    _: Caller,
    Path(user_id): Path<i64>,
) -> Result<Json<Presence>, Error> {
    let known = presence::of_user(app.store.db.replica(), app.store.config.app, user_id).await?;
    let online = known.into_iter().filter(|(_, presence)| presence.is_online());
    let devices: Vec<String> = online.map(|(device, _)| device).collect();
    Ok(Json(Presence { user_id, is_online: !devices.is_empty(), devices }))
}
