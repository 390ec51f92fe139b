//! Who is online, and where.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use shard::ShardId;
use utoipa::ToSchema;
use wire::node::{Presence, Seat};
use wire::{AppId, UserId};

use super::Admin;
use super::body::Body;
use super::error::ApiError;

/// Users that one query may name.
const USERS_MAX: usize = 1_000;

pub fn router() -> Router<Arc<Admin>> {
    Router::new()
        .route("/online", get(online))
        .route("/v1/online", post(online_batch))
        .route("/v1/users/{app}/{user}", get(user))
}

#[derive(Deserialize)]
pub struct OnlineQuery {
    app: i32,
    user: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OnlineBody {
    app: i32,
    /// Up to 1,000.
    users: Vec<i64>,
}

#[derive(Serialize, ToSchema)]
pub struct OnlineAnswer {
    app: i32,
    /// Ascending, each once.
    users: Vec<UserAnswer>,
    /// Whether a user without a session is surely offline. False while gateways have yet to tell routers of
    /// all their sessions: after a start, and when routers come and go.
    settled: bool,
}

#[derive(Serialize, ToSchema)]
pub struct UserAnswer {
    user: i64,
    online: bool,
    /// The device classes of the sessions.
    devices: Vec<&'static str>,
    sessions: Vec<Session>,
}

/// A live session.
#[derive(Serialize, ToSchema)]
pub struct Session {
    device: &'static str,
    /// The gateway.
    node: u16,
    /// The shard of that gateway.
    shard: u16,
    /// When it logged in, in ms since the UNIX epoch.
    login_ms: u64,
}

/// Which of these users are online, and where.
///
/// The routers that own them answer. A router that is asked itself knows only its own users, and reports all
/// others as offline.
#[utoipa::path(
    get,
    path = "/online",
    params(
        ("app" = i32, Query),
        ("user" = String, Query, description = "One or several, separated by commas; up to 1,000.", example = "10001,10002"),
    ),
    responses((status = 200, body = OnlineAnswer)),
)]
pub async fn online(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<OnlineQuery>, QueryRejection>,
) -> Result<Json<OnlineAnswer>, ApiError> {
    let wanted = || ApiError::bad_request("want /online?app=1&user=10001,10002");
    let Query(OnlineQuery { app, user }) = query.map_err(|_| wanted())?;
    let users: Result<Vec<i64>, _> = user.split(',').map(|user| user.trim().parse()).collect();
    ask(&admin, app, users.map_err(|_| wanted())?).await.map(Json)
}

/// The same for many users.
#[utoipa::path(post, path = "/v1/online", request_body = OnlineBody, responses((status = 200, body = OnlineAnswer)))]
pub async fn online_batch(
    State(admin): State<Arc<Admin>>,
    Body(OnlineBody { app, users }): Body<OnlineBody>,
) -> Result<Json<OnlineAnswer>, ApiError> {
    ask(&admin, app, users).await.map(Json)
}

/// Where one user is. An unknown user is offline.
#[utoipa::path(
    get,
    path = "/v1/users/{app}/{user}",
    params(("app" = i32, Path), ("user" = i64, Path)),
    responses((status = 200, body = UserAnswer)),
)]
pub async fn user(
    State(admin): State<Arc<Admin>>,
    path: Result<Path<(i32, i64)>, PathRejection>,
) -> Result<Json<UserAnswer>, ApiError> {
    let Path((app, user)) =
        path.map_err(|_| ApiError::bad_request("want /v1/users/APP/USER, both whole numbers"))?;
    let answer = ask(&admin, app, vec![user]).await?;
    let missing = || ApiError::unavailable("no_answer", "the user's router did not answer");
    answer.users.into_iter().next().map(Json).ok_or_else(missing)
}

async fn ask(admin: &Admin, app: i32, mut users: Vec<i64>) -> Result<OnlineAnswer, ApiError> {
    if users.is_empty() || users.len() > USERS_MAX {
        return Err(ApiError::bad_request(format!("users: want 1 to {USERS_MAX} users in one query")));
    }
    users.sort_unstable();
    users.dedup();
    let users = users.into_iter().map(UserId).collect();
    let (mut found, settled) = admin.shards.online(AppId(app), users).await?;
    found.sort_unstable_by_key(|presence| presence.user);
    Ok(OnlineAnswer { app, users: found.into_iter().map(UserAnswer::from).collect(), settled })
}

impl From<Presence> for UserAnswer {
    fn from(Presence { user, mut seats }: Presence) -> Self {
        seats.sort_unstable_by_key(|seat| seat.device);
        Self {
            user: user.0,
            online: !seats.is_empty(),
            devices: seats.iter().map(|seat| seat.device.name()).collect(),
            sessions: seats.iter().map(Session::from).collect(),
        }
    }
}

impl From<&Seat> for Session {
    fn from(Seat { device, shard, login }: &Seat) -> Self {
        let shard = ShardId::from_u32(*shard);
        // A login's stamp is when it was, in ns, or close by.
        Self {
            device: device.name(),
            node: shard.node(),
            shard: shard.index(),
            login_ms: login.0 / 1_000_000,
        }
    }
}
