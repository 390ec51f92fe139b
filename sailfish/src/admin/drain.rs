//! Drains a node.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::node::{Answer, Question};

use super::Admin;
use super::body::Body;
use super::error::ApiError;

pub fn router() -> Router<Arc<Admin>> {
    Router::new().route("/v1/drain", post(drain))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainBody {
    /// Its number; without one, the node that is asked.
    node: Option<u16>,
}

#[derive(Serialize, ToSchema)]
pub struct DrainAnswer {
    draining: bool,
    /// The node that drains.
    node: u16,
}

/// Drains a node, as SIGTERM does: the one that is asked, or one that it or a router is linked with.
#[utoipa::path(post, path = "/v1/drain", request_body = DrainBody, responses((status = 200, body = DrainAnswer)))]
pub async fn drain(
    State(admin): State<Arc<Admin>>,
    Body(DrainBody { node }): Body<DrainBody>,
) -> Result<Json<DrainAnswer>, ApiError> {
    let own = admin.shards.node();
    let node = node.unwrap_or(own);
    if node == own {
        admin.shards.ask_for_drain();
        return Ok(Json(DrainAnswer { draining: true, node }));
    }
    let answers = admin.shards.question(Question::Drain { node }).await?;
    if answers.iter().any(|answer| matches!(answer, Answer::Told { shards: 1.. })) {
        Ok(Json(DrainAnswer { draining: true, node }))
    } else {
        Err(ApiError::not_found(format!("node: no node {node} is linked; see /v1/nodes")))
    }
}
