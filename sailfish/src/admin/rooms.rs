//! The last messages of rooms.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use router::Keep;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::client::Message;
use wire::node::{Answer, Question};
use wire::{AppId, BizCode, EPOCH_UNIX_MS, RoomId};

use super::Admin;
use super::error::ApiError;

/// How many messages a query gets by default, and at most.
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
    /// The server's id of it, a decimal string: it may be larger than a number in JavaScript can be.
    message_id: String,
    /// Its place in the room's order.
    sequence: u64,
    sender: i64,
    biz_code: i32,
    /// Whether members are to ack it.
    ack: bool,
    /// The sender's id of it.
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
/// The router that owns the room answers. If it has fewer, because an owner before it died, the stream of the
/// room in the directory has the others. `router.history_messages` and similar keys say how many are kept,
/// and for how long.
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
            messages.extend(some);
        }
    }
    if messages.len() < last as usize
        && let Some(streams) = &admin.streams
        && let Some(written) = streams.messages(AppId(app), RoomId(room)).await
    {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        messages = admin.keeps.join(messages, written, last as usize, now_ms as u64);
    }
    let messages = messages.into_iter().map(RoomMessage::from).collect();
    Ok(Json(MessagesAnswer { app, room, messages }))
}

/// How much of a business code a room keeps.
#[derive(Clone, Debug)]
pub struct Keeps {
    own: BTreeMap<BizCode, Keep>,
    other: Keep,
}

impl Keeps {
    /// From the bounds of the codes that have their own, and those of all others.
    pub fn new((own, other): (Vec<(BizCode, Keep)>, Keep)) -> Self {
        Self { own: own.into_iter().collect(), other }
    }

    /// The last messages of a room, merged from its owner's and its stream's, in order. A stream is trimmed
    /// for all codes together, so it may have more of one code than the room keeps.
    fn join(&self, owned: Vec<Message>, written: Vec<Message>, last: usize, now_ms: u64) -> Vec<Message> {
        let mut all: BTreeMap<u64, Message> =
            written.into_iter().map(|message| (message.sequence, message)).collect();
        let is_owned: BTreeSet<u64> = owned.iter().map(|message| message.sequence).collect();
        all.extend(owned.into_iter().map(|message| (message.sequence, message)));
        let mut counts = BTreeMap::<BizCode, u32>::new();
        let mut kept = |message: &Message| {
            let Keep { messages, ms, .. } = *self.own.get(&message.biz_code).unwrap_or(&self.other);
            let count = counts.entry(message.biz_code).or_default();
            *count += 1;
            let until_ms = EPOCH_UNIX_MS.saturating_add(message.id.0 >> 23).saturating_add(ms.into());
            is_owned.contains(&message.sequence) || *count <= messages && now_ms < until_ms
        };
        let mut messages: Vec<Message> =
            all.into_values().rev().filter(|message| kept(message)).take(last).collect();
        messages.reverse();
        messages
    }
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

#[cfg(test)]
mod tests {
    use wire::{ClientMsgId, MessageId, UserId};

    use super::*;

    fn message(sequence: u64, code: i32, ms: u64) -> Message {
        Message {
            id: MessageId(ms << 23),
            app: AppId(1),
            sender: UserId(2),
            biz_code: BizCode(code),
            room: Some(RoomId(7)),
            sequence,
            ack_wanted: false,
            client_msg_id: ClientMsgId::default(),
            payload: Default::default(),
        }
    }

    #[test]
    fn a_stream_gives_what_its_room_keeps_and_the_owner_does_not_have() {
        let keep = |messages, ms| Keep { messages, bytes: 1_000, ms };
        let own = vec![(BizCode(1), keep(2, 1_000)), (BizCode(3), keep(0, 0))];
        let keeps = Keeps::new((own, keep(5, 2_000)));
        let now_ms = EPOCH_UNIX_MS + 5_000;
        // Of code 1 three, of which a room keeps two; of code 2 one that is too old; of code 3 none is kept.
        let written =
            [(1, 2, 2_999), (2, 1, 4_500), (3, 2, 3_500), (4, 1, 4_500), (5, 3, 4_999), (6, 1, 4_500)];
        let written: Vec<_> = written.map(|(sequence, code, ms)| message(sequence, code, ms)).into();
        let sequences = |owned: &[Message], last| -> Vec<u64> {
            let all = keeps.join(owned.to_vec(), written.clone(), last, now_ms);
            all.iter().map(|message| message.sequence).collect()
        };
        assert_eq!(sequences(&[], 10), [3, 4, 6]);
        assert_eq!(sequences(&[], 2), [4, 6]);
        // What the owner has is kept, and counts.
        assert_eq!(sequences(&[message(6, 1, 4_500), message(7, 1, 4_900)], 10), [3, 6, 7]);
        assert_eq!(sequences(&[message(1, 2, 2_999)], 10), [1, 3, 4, 6]);
    }
}
