//! Ending the sessions of a user.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::node::{Answer, BAN_MS_MAX, Question};
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
    /// How long the user cannot log in again, in ms, up to a week; 0 lifts a ban.
    ban_ms: Option<u32>,
}

#[derive(Serialize, ToSchema)]
pub struct KickAnswer {
    /// How many sessions are ended.
    kicked: u32,
}

/// Ends the sessions of a user, and keeps it out for a while. Clients get the notice `kicked`. With `ban_ms`,
/// all gateways and routers refuse its logins. They keep the list of bans while they run, and pass it on to
/// those that start later.
#[utoipa::path(post, path = "/v1/kick", request_body = KickBody, responses((status = 200, body = KickAnswer)))]
pub async fn kick(
    State(admin): State<Arc<Admin>>,
    Body(KickBody { app, user, device, ban_ms }): Body<KickBody>,
) -> Result<Json<KickAnswer>, ApiError> {
    if ban_ms.is_some_and(|ban_ms| u64::from(ban_ms) > BAN_MS_MAX) {
        return Err(ApiError::bad_request(format!("ban_ms: want at most {BAN_MS_MAX}, a week")));
    }
    let question = Question::Kick { app: AppId(app), user: UserId(user), device, ban_ms };
    let answers = admin.shards.question(question).await?;
    let kicked = answers.into_iter().map(|answer| match answer {
        Answer::Kicked { sessions } => sessions,
        Answer::Online { .. } | Answer::Told { .. } | Answer::Nodes { .. } | Answer::History { .. } => 0,
    });
    Ok(Json(KickAnswer { kicked: kicked.fold(0, u32::saturating_add) }))
}
