//! Refuses tokens of a user that are otherwise valid.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use gateway::login_tag;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::node::{Answer, Question, REVOCATION_SECS_MAX, Revocation};
use wire::{AppId, UserId};

use super::Admin;
use super::body::Body;
use super::error::ApiError;

pub fn router() -> Router<Arc<Admin>> {
    Router::new().route("/v1/revoke", post(revoke))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeBody {
    app: i32,
    user: i64,
    /// Only tokens that came from this login: those whose `sid` it is, or whose `jti` if they have no `sid`.
    /// Left out: all tokens of the user that were made before now.
    login: Option<String>,
    /// Tokens that were made before this, in seconds since the UNIX epoch, by their `iat`; a token without
    /// `iat` is older than all. Left out: now. It is not looked at with `login`.
    before_s: Option<u64>,
    /// For how long, in s: as long as such tokens are valid, up to a week.
    ttl_s: u64,
}

#[derive(Serialize, ToSchema)]
pub struct RevokeAnswer {
    /// Gateway shards that got it.
    shards: u32,
}

/// Refuses tokens of a user, or of one of its logins, at all gateways, and ends the sessions that have them
/// with the notice `token_invalid`. Routers and gateways keep the list while they run, and pass it on to
/// those that start later.
#[utoipa::path(post, path = "/v1/revoke", request_body = RevokeBody, responses((status = 200, body = RevokeAnswer)))]
pub async fn revoke(
    State(admin): State<Arc<Admin>>,
    Body(body): Body<RevokeBody>,
) -> Result<Json<RevokeAnswer>, ApiError> {
    admin.require_gateway()?;
    let RevokeBody { app, user, login, before_s, ttl_s } = body;
    if !(1..=REVOCATION_SECS_MAX).contains(&ttl_s) {
        return Err(ApiError::bad_request(format!("ttl_s: want 1 to {REVOCATION_SECS_MAX}, a week")));
    }
    let now_secs = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let revocation = Revocation {
        app: AppId(app),
        user: UserId(user),
        login: login.as_deref().map_or(0, login_tag),
        before_secs: login.map_or(before_s.unwrap_or(now_secs), |_| u64::MAX),
        until_secs: now_secs + ttl_s,
    };
    let answers = admin.shards.question(Question::Revoke { revocations: vec![revocation] }).await?;
    let told = answers.into_iter().map(|answer| match answer {
        Answer::Told { shards } => shards,
        Answer::Online { .. } | Answer::Kicked { .. } | Answer::Nodes { .. } | Answer::History { .. } => 0,
    });
    // Each router tells all.
    Ok(Json(RevokeAnswer { shards: told.max().unwrap_or_default() }))
}
