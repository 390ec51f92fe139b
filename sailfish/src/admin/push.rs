//! Messages from operators and backends.

use std::sync::Arc;
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
use wire::client::Outcome;
use wire::node::{Class, Target};
use wire::{AppId, BizCode, ClientMsgId, DeviceClass, RoomId, UserId};

use super::Admin;
use super::body::Body;
use super::error::ApiError;
use crate::control::{Fate, Pushed};

/// How long a caller waits for the outcome by default, in ms.
const WAIT_MS_DEFAULT: u32 = 1_000;
/// How long it may wait at most, in ms.
const WAIT_MS_MAX: u32 = 30_000;
/// The longest body: a payload of the longest frame as base64, or as text that is partly escaped.
const BODY_BYTES_MAX: usize = 2 << 20;
/// Messages that one request may have.
const PUSHES_MAX: usize = 1_000;

pub fn router() -> Router<Arc<Admin>> {
    Router::new()
        .route("/v1/push", post(push_many))
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
pub struct ManyBody {
    /// Up to 1,000.
    pushes: Vec<OnePush>,
    /// How long to wait for the outcomes, in all: 1000 by default, 30000 at most.
    wait_ms: Option<u32>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OnePush {
    app: i32,
    /// To the sessions of this user; this or `room`.
    user: Option<i64>,
    /// To the members of this room.
    room: Option<i64>,
    biz_code: i32,
    #[serde(default)]
    class: ClassName,
    /// A push that repeats an earlier one's gets that one's outcome and is delivered once; up to 64 bytes.
    client_msg_id: Option<String>,
    /// The payload as text; this or `data_base64`.
    data: Option<String>,
    data_base64: Option<String>,
    /// Whom receivers see as its sender: 0 by default.
    #[serde(default)]
    sender: i64,
    /// It comes from an inbox: it is delivered though the original under the same `sender` and
    /// `client_msg_id` is remembered, and when it fails it is not handed over as undelivered.
    #[serde(default)]
    stored: bool,
    /// With `stored`: for the session on this class of device alone, which has its own outcome.
    #[schema(value_type = Option<String>, example = "phone")]
    device: Option<DeviceClass>,
}

#[derive(Serialize, ToSchema)]
pub struct ManyAnswer {
    /// In the order of the pushes.
    results: Vec<PushAnswer>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AllBody {
    app: i32,
    biz_code: i32,
    /// By which a client knows a push that repeats an earlier one: both are delivered; up to 64 bytes.
    client_msg_id: Option<String>,
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
    /// `delivered`: a session has acked it. `stored`: it was handed over to the backend, which keeps it.
    /// `sequenced`: it is on its way to the room. `failed`: see `reason`. `sent`: it is lossy, and nothing
    /// more is known. `pending`: not known within `wait_ms`. `unavailable`: nobody took it.
    outcome: &'static str,
    /// Of a failure: `offline`, `unacked`, `disconnected`, `overflow`, `busy`; `not_member` when nobody is in
    /// the room.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// The message's sequence in its room.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
}

#[derive(Serialize, ToSchema)]
pub struct PushAllAnswer {
    /// Gateway shards that got it.
    shards: u32,
}

/// Sends a message to every session of a user. Its sender is user 0.
#[utoipa::path(post, path = "/v1/push/user", request_body = UserBody, responses((status = 200, body = PushAnswer)))]
pub async fn push_user(
    State(admin): State<Arc<Admin>>,
    Body(body): Body<UserBody, BODY_BYTES_MAX>,
) -> Result<Json<PushAnswer>, ApiError> {
    let UserBody { app, user, biz_code, class, client_msg_id, data, data_base64, wait_ms } = body;
    let text = Text { client_msg_id, data, data_base64 };
    let push = push(&admin, app, biz_code, class, text)?;
    send(&admin, Target::User(UserId(user)), push, wait_ms).await
}

/// Sends a message to the members of a room. Its sender is user 0.
#[utoipa::path(post, path = "/v1/push/room", request_body = RoomBody, responses((status = 200, body = PushAnswer)))]
pub async fn push_room(
    State(admin): State<Arc<Admin>>,
    Body(body): Body<RoomBody, BODY_BYTES_MAX>,
) -> Result<Json<PushAnswer>, ApiError> {
    let RoomBody { app, room, biz_code, class, client_msg_id, data, data_base64, wait_ms } = body;
    let text = Text { client_msg_id, data, data_base64 };
    let push = push(&admin, app, biz_code, class, text)?;
    send(&admin, Target::Room(RoomId(room)), push, wait_ms).await
}

/// Sends up to 1,000 messages, to users and rooms. Those to one target go in order. One malformed message
/// makes all of them fail.
#[utoipa::path(post, path = "/v1/push", request_body = ManyBody, responses((status = 200, body = ManyAnswer)))]
pub async fn push_many(
    State(admin): State<Arc<Admin>>,
    Body(ManyBody { pushes, wait_ms }): Body<ManyBody, BODY_BYTES_MAX>,
) -> Result<Json<ManyAnswer>, ApiError> {
    let patience = patience(wait_ms)?;
    if pushes.len() > PUSHES_MAX {
        let line = format!("pushes: {} of them; want at most {PUSHES_MAX}", pushes.len());
        return Err(ApiError::bad_request(line));
    }
    let targeted = |(at, push): (usize, OnePush)| {
        push.targeted(&admin).map_err(|error| error.within(&format!("pushes[{at}]")))
    };
    let pushes = pushes.into_iter().enumerate().map(targeted).collect::<Result<Vec<_>, _>>()?;
    admin.require_gateway()?;
    let pushed = admin.shards.push_all(pushes, patience).await;
    // If nobody took the push, that is an error.
    if let Some(Err(unanswered)) = pushed.first()
        && pushed.iter().all(Result::is_err)
    {
        return Err((*unanswered).into());
    }
    let results = pushed.into_iter().map(|pushed| pushed.map_or(PushAnswer::UNAVAILABLE, PushAnswer::from));
    Ok(Json(ManyAnswer { results: results.collect() }))
}

impl OnePush {
    fn targeted(self, admin: &Admin) -> Result<(Target, Push), ApiError> {
        let Self {
            app,
            user,
            room,
            biz_code,
            class,
            client_msg_id,
            data,
            data_base64,
            sender,
            stored,
            device,
        } = self;
        let target = match (user, room) {
            (Some(user), None) => Target::User(UserId(user)),
            (None, Some(room)) => Target::Room(RoomId(room)),
            (None, None) => return Err(ApiError::bad_request("user: want user or room")),
            (Some(_), Some(_)) => {
                return Err(ApiError::bad_request("room: user is set too; want only one"));
            }
        };
        if stored && (room.is_some() || matches!(class, ClassName::Lossy)) {
            return Err(ApiError::bad_request("stored: want it for reliable messages to a user only"));
        }
        if device.is_some() && !stored {
            return Err(ApiError::bad_request("device: want it with stored only"));
        }
        let push = push(admin, app, biz_code, class, Text { client_msg_id, data, data_base64 })?;
        Ok((target, Push { sender: UserId(sender), stored, device, ..push }))
    }
}

/// Sends a lossy message to every session of an app. Its sender is user 0.
#[utoipa::path(post, path = "/v1/push/all", request_body = AllBody, responses((status = 200, body = PushAllAnswer)))]
pub async fn push_all(
    State(admin): State<Arc<Admin>>,
    Body(AllBody { app, biz_code, client_msg_id, data, data_base64 }): Body<AllBody, BODY_BYTES_MAX>,
) -> Result<Json<PushAllAnswer>, ApiError> {
    let text = Text { client_msg_id, data, data_base64 };
    let push = push(&admin, app, biz_code, ClassName::Lossy, text)?;
    admin.require_gateway()?;
    Ok(Json(PushAllAnswer { shards: admin.shards.push_to_all(push).await? }))
}

async fn send(
    admin: &Admin,
    target: Target,
    push: Push,
    wait_ms: Option<u32>,
) -> Result<Json<PushAnswer>, ApiError> {
    let patience = patience(wait_ms)?;
    admin.require_gateway()?;
    let pushed = admin.shards.push(target, push, patience).await?;
    Ok(Json(PushAnswer::from(pushed)))
}

fn patience(wait_ms: Option<u32>) -> Result<Duration, ApiError> {
    let wait_ms = wait_ms.unwrap_or(WAIT_MS_DEFAULT);
    if wait_ms > WAIT_MS_MAX {
        return Err(ApiError::bad_request(format!(
            "wait_ms = {wait_ms}: want a number from 0 to {WAIT_MS_MAX}"
        )));
    }
    Ok(Duration::from_millis(wait_ms.into()))
}

/// The parts of a push that name it and carry its payload.
struct Text {
    client_msg_id: Option<String>,
    data: Option<String>,
    data_base64: Option<String>,
}

fn push(
    admin: &Admin,
    app: i32,
    biz_code: i32,
    class: ClassName,
    Text { client_msg_id, data, data_base64 }: Text,
) -> Result<Push, ApiError> {
    let client_msg_id = client_msg_id.unwrap_or_default();
    if client_msg_id.len() > ClientMsgId::BYTES_MAX {
        let wish = format!("client_msg_id: want at most {} bytes", ClientMsgId::BYTES_MAX);
        return Err(ApiError::bad_request(wish));
    }
    let client_msg_id = ClientMsgId::new(client_msg_id.into());
    let payload = payload(admin, &client_msg_id, data, data_base64)?;
    Ok(Push {
        app: AppId(app),
        sender: UserId(0),
        biz_code: BizCode(biz_code),
        class: match class {
            ClassName::Reliable => Class::Reliable,
            ClassName::Lossy => Class::Lossy,
        },
        client_msg_id,
        payload,
        stored: false,
        device: None,
    })
}

/// The bytes that receivers get.
fn payload(
    admin: &Admin,
    client_msg_id: &ClientMsgId,
    data: Option<String>,
    data_base64: Option<String>,
) -> Result<Bytes, ApiError> {
    let (field, bytes) = match (data, data_base64) {
        (Some(text), None) => ("data", text.into_bytes()),
        (None, Some(text)) => {
            let wish =
                |error| ApiError::bad_request(format!("data_base64: {error}; want the standard alphabet"));
            ("data_base64", STANDARD.decode(text).map_err(wish)?)
        }
        (None, None) => return Err(ApiError::bad_request("data: want data or data_base64")),
        (Some(_), Some(_)) => {
            return Err(ApiError::bad_request("data_base64: data is set too; want only one"));
        }
    };
    let checked = admin.shards.check_push(client_msg_id, &bytes);
    checked.map_err(|wrong| ApiError::too_large(format!("{field}: {wrong}")))?;
    Ok(bytes.into())
}

impl PushAnswer {
    const UNAVAILABLE: Self = Self { message_id: None, outcome: "unavailable", reason: None, sequence: None };
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
