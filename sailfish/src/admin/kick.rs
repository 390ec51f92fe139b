//! Ending the sessions of a user.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::node::{Answer, Question};
use wire::{AppId, DeviceClass, UserId};

use super::Admin;
use super::body::Body;
use super::error::ApiError;

pub fn router() -> Router<Arc<Admin>> {
    Router::new().route("/v1/kick", post(kick))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KickBody {
    app: i32,
    user: i64,
    /// On this class of device only: phone, tablet, web, desktop, tv or bot.
    #[schema(value_type = Option<String>, example = "phone")]
    device: Option<DeviceClass>,
}

#[derive(Serialize, ToSchema)]
pub struct KickAnswer {
    /// Sessions that were told to go.
    kicked: u32,
}

/// Ends the sessions of a user. Clients get the notice `kicked`.
#[utoipa::path(post, path = "/v1/kick", request_body = KickBody, responses((status = 200, body = KickAnswer)))]
pub async fn kick(
    State(admin): State<Arc<Admin>>,
    Body(KickBody { app, user, device }): Body<KickBody>,
) -> Result<Json<KickAnswer>, ApiError> {
    let question = Question::Kick { app: AppId(app), user: UserId(user), device };
    let answers = admin.shards.question(question).await?;
    let kicked = answers.into_iter().map(|answer| match answer {
        Answer::Kicked { sessions } => sessions,
        Answer::Online { .. } | Answer::Told { .. } | Answer::Nodes { .. } => 0,
    });
    Ok(Json(KickAnswer { kicked: kicked.fold(0, u32::saturating_add) }))
}
