//! What rooms said last.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::client::Message;
use wire::node::{Answer, Question};
use wire::{AppId, RoomId};

use super::Admin;
use super::error::ApiError;

/// Messages that are answered when the query does not say how many, and at most.
const LAST_DEFAULT: u32 = 20;
const LAST_MAX: u32 = 1_000;

pub fn router() -> Router<Arc<Admin>> {
    Router::new().route("/v1/rooms/{app}/{room}/messages", get(messages))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessagesQuery {
    last: Option<u32>,
}

#[derive(Serialize, ToSchema)]
pub struct MessagesAnswer {
    app: i32,
    room: i64,
    /// In the room's order.
    messages: Vec<RoomMessage>,
}

/// A message as members got it.
#[derive(Serialize, ToSchema)]
pub struct RoomMessage {
    /// The server's name for it, a decimal string: it may be larger than a number in JavaScript can be.
    message_id: String,
    /// Its place in the room's order.
    sequence: u64,
    sender: i64,
    biz_code: i32,
    /// Whether members are to ack it.
    ack: bool,
    /// The sender's name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_msg_id: Option<String>,
    /// The payload, if it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    /// The payload, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

/// The last messages that are kept of a room.
///
/// Asked of the router that owns the room. How many are kept, and for how long, say `router.history_messages`
/// and its like.
#[utoipa::path(
    get,
    path = "/v1/rooms/{app}/{room}/messages",
    params(
        ("app" = i32, Path),
        ("room" = i64, Path),
        ("last" = Option<u32>, Query, description = "How many at most: 20 if it is not said, up to 1,000."),
    ),
    responses((status = 200, body = MessagesAnswer)),
)]
pub async fn messages(
    State(admin): State<Arc<Admin>>,
    path: Result<Path<(i32, i64)>, PathRejection>,
    query: Result<Query<MessagesQuery>, QueryRejection>,
) -> Result<Json<MessagesAnswer>, ApiError> {
    let wanted = || ApiError::bad_request("want /v1/rooms/APP/ROOM/messages?last=20, all whole numbers");
    let Path((app, room)) = path.map_err(|_| wanted())?;
    let Query(MessagesQuery { last }) = query.map_err(|_| wanted())?;
    let last = last.unwrap_or(LAST_DEFAULT);
    if last > LAST_MAX {
        return Err(ApiError::bad_request(format!("last: want at most {LAST_MAX}")));
    }
    let question = Question::History { app: AppId(app), room: RoomId(room), last };
    let mut messages = Vec::new();
    for answer in admin.shards.question(question).await? {
        if let Answer::History { messages: some } = answer {
            messages.extend(some.into_iter().map(RoomMessage::from));
        }
    }
    Ok(Json(MessagesAnswer { app, room, messages }))
}

impl From<Message> for RoomMessage {
    fn from(message: Message) -> Self {
        let text = std::str::from_utf8(&message.payload).ok();
        Self {
            message_id: message.id.0.to_string(),
            sequence: message.sequence,
            sender: message.sender.0,
            biz_code: message.biz_code.0,
            ack: message.ack_wanted,
            client_msg_id: Some(message.client_msg_id.as_str().to_owned()).filter(|id| !id.is_empty()),
            data: text.map(str::to_owned),
            data_base64: text.is_none().then(|| STANDARD.encode(&message.payload)),
        }
    }
}
