//! Messages from operators and backends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gateway::Push;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::client::{Message, Outcome};
use wire::node::{Answer, Class, Question, Target};
use wire::{AppId, BizCode, ClientMsgId, MessageId, RoomId, UserId};

use super::Admin;
use super::body::Body;
use super::error::ApiError;
use crate::control::{Fate, Pushed};

/// How long a caller waits for the outcome when it does not say, in ms.
const WAIT_MS_DEFAULT: u32 = 1_000;
/// How long it may wait at most, in ms.
const WAIT_MS_MAX: u32 = 30_000;

pub fn router() -> Router<Arc<Admin>> {
    Router::new()
        .route("/v1/push/user", post(push_user))
        .route("/v1/push/room", post(push_room))
        .route("/v1/push/all", post(push_all))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserBody {
    app: i32,
    user: i64,
    biz_code: i32,
    #[serde(default)]
    class: ClassName,
    /// A push that repeats an earlier one's gets that one's outcome and is delivered once; up to 64 bytes.
    client_msg_id: Option<String>,
    /// The payload as text; this or `data_base64`.
    data: Option<String>,
    data_base64: Option<String>,
    /// How long to wait for the outcome: 1000 by default, 30000 at most.
    wait_ms: Option<u32>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoomBody {
    app: i32,
    room: i64,
    biz_code: i32,
    #[serde(default)]
    class: ClassName,
    /// A push that repeats an earlier one's gets that one's outcome and is delivered once; up to 64 bytes.
    client_msg_id: Option<String>,
    /// The payload as text; this or `data_base64`.
    data: Option<String>,
    data_base64: Option<String>,
    /// How long to wait for the outcome: 1000 by default, 30000 at most.
    wait_ms: Option<u32>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AllBody {
    app: i32,
    biz_code: i32,
    /// The payload as text; this or `data_base64`.
    data: Option<String>,
    data_base64: Option<String>,
}

/// How a message is delivered.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClassName {
    #[default]
    Reliable,
    Lossy,
}

#[derive(Serialize, ToSchema)]
pub struct PushAnswer {
    /// As clients see it; none for a message that was not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    /// `delivered`: a session has acked it. `sequenced`: it is on its way to the room. `failed`: see `reason`. `sent`: it is
    /// lossy, and nothing more is known. `pending`: not known within `wait_ms`.
    outcome: &'static str,
    /// Of a failure: `offline`, `unacked`, `disconnected`, `overflow`, `busy`; `not_member` when nobody is in the room.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// The message's place in its room.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
}

#[derive(Serialize, ToSchema)]
pub struct PushAllAnswer {
    /// Gateway shards that were told.
    shards: u32,
}

/// Sends a message to every session of a user. Its sender is user 0.
#[utoipa::path(post, path = "/v1/push/user", request_body = UserBody, responses((status = 200, body = PushAnswer)))]
pub async fn push_user(
    State(admin): State<Arc<Admin>>,
    Body(body): Body<UserBody>,
) -> Result<Json<PushAnswer>, ApiError> {
    let UserBody { app, user, biz_code, class, client_msg_id, data, data_base64, wait_ms } = body;
    let push = push(&admin, app, biz_code, class, client_msg_id, (data, data_base64))?;
    send(&admin, Target::User(UserId(user)), push, wait_ms).await
}

/// Sends a message to the members of a room. Its sender is user 0.
#[utoipa::path(post, path = "/v1/push/room", request_body = RoomBody, responses((status = 200, body = PushAnswer)))]
pub async fn push_room(
    State(admin): State<Arc<Admin>>,
    Body(body): Body<RoomBody>,
) -> Result<Json<PushAnswer>, ApiError> {
    let RoomBody { app, room, biz_code, class, client_msg_id, data, data_base64, wait_ms } = body;
    let push = push(&admin, app, biz_code, class, client_msg_id, (data, data_base64))?;
    send(&admin, Target::Room(RoomId(room)), push, wait_ms).await
}

/// Sends a lossy message to every session of an app. Its sender is user 0.
#[utoipa::path(post, path = "/v1/push/all", request_body = AllBody, responses((status = 200, body = PushAllAnswer)))]
pub async fn push_all(
    State(admin): State<Arc<Admin>>,
    Body(AllBody { app, biz_code, data, data_base64 }): Body<AllBody>,
) -> Result<Json<PushAllAnswer>, ApiError> {
    let payload = payload(&admin, data, data_base64)?;
    admin.require_gateway()?;
    let message = Message {
        id: MessageId(0), // the shard that sends it gives it one
        app: AppId(app),
        sender: UserId(0),
        biz_code: BizCode(biz_code),
        room: None,
        sequence: 0,
        ack_wanted: false,
        client_msg_id: ClientMsgId::default(),
        payload,
    };
    let answers = admin.shards.question(Question::PushAll { message }).await?;
    let shards = answers.into_iter().map(|answer| match answer {
        Answer::Told { shards } => shards,
        Answer::Online { .. } | Answer::Kicked { .. } | Answer::Nodes { .. } => 0,
    });
    Ok(Json(PushAllAnswer { shards: shards.sum() }))
}

async fn send(
    admin: &Admin,
    target: Target,
    push: Push,
    wait_ms: Option<u32>,
) -> Result<Json<PushAnswer>, ApiError> {
    let wait_ms = wait_ms.unwrap_or(WAIT_MS_DEFAULT);
    if wait_ms > WAIT_MS_MAX {
        return Err(ApiError::bad_request(format!(
            "wait_ms = {wait_ms}: want a number from 0 to {WAIT_MS_MAX}"
        )));
    }
    admin.require_gateway()?;
    let pushed = admin.shards.push(target, push, Duration::from_millis(wait_ms.into())).await?;
    Ok(Json(PushAnswer::from(pushed)))
}

fn push(
    admin: &Admin,
    app: i32,
    biz_code: i32,
    class: ClassName,
    client_msg_id: Option<String>,
    (data, data_base64): (Option<String>, Option<String>),
) -> Result<Push, ApiError> {
    let client_msg_id = client_msg_id.unwrap_or_default();
    if client_msg_id.len() > ClientMsgId::BYTES_MAX {
        let wish = format!("client_msg_id: want at most {} bytes", ClientMsgId::BYTES_MAX);
        return Err(ApiError::bad_request(wish));
    }
    Ok(Push {
        app: AppId(app),
        biz_code: BizCode(biz_code),
        class: match class {
            ClassName::Reliable => Class::Reliable,
            ClassName::Lossy => Class::Lossy,
        },
        client_msg_id: ClientMsgId::new(client_msg_id.into()),
        payload: payload(admin, data, data_base64)?,
    })
}

/// The bytes that receivers get.
fn payload(admin: &Admin, data: Option<String>, data_base64: Option<String>) -> Result<Bytes, ApiError> {
    let (field, bytes) = match (data, data_base64) {
        (Some(text), None) => ("data", text.into_bytes()),
        (None, Some(text)) => {
            let wish =
                |error| ApiError::bad_request(format!("data_base64: {error}; want the standard alphabet"));
            ("data_base64", STANDARD.decode(text).map_err(wish)?)
        }
        (None, None) => return Err(ApiError::bad_request("data: want it, or data_base64")),
        (Some(_), Some(_)) => {
            return Err(ApiError::bad_request("data_base64: data is there too; want only one"));
        }
    };
    let bytes_max = admin.payload_bytes_max.load(Ordering::Relaxed);
    if bytes.len() > bytes_max as usize {
        let line = format!("{field}: {} bytes; limits.frame_bytes_max is {bytes_max}", bytes.len());
        return Err(ApiError::too_large(line));
    }
    Ok(bytes.into())
}

impl From<Pushed> for PushAnswer {
    fn from(Pushed { id, fate }: Pushed) -> Self {
        let (outcome, reason, sequence) = match fate {
            Fate::Sent => ("sent", None, None),
            Fate::Pending => ("pending", None, None),
            Fate::Known(Outcome::Delivered) => ("delivered", None, None),
            Fate::Known(Outcome::Stored) => ("stored", None, None),
            Fate::Known(Outcome::Answered) => ("answered", None, None),
            Fate::Known(Outcome::Sequenced { sequence }) => ("sequenced", None, Some(sequence)),
            Fate::Known(Outcome::Failed(reason)) => ("failed", Some(reason.name()), None),
        };
        Self { message_id: (id != 0).then(|| id.to_string()), outcome, reason, sequence }
    }
}
