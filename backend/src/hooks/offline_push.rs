//! `offline_push`: a message waits in the inbox of a user who was not there. The service may wake the user's
//! phone.

use serde::Serialize;

use crate::event::{Data, Undelivered};
use crate::tables::hook_event::NewEvent;
use crate::tables::inbox::InboxRow;
use crate::trace;

#[derive(Serialize)]
struct Notification<'a> {
    /// The same for the same message and receiver.
    id: String,
    app: i32,
    user: i64,
    reason: &'a str,
    sender: i64,
    biz_code: i32,
    message_id: String,
    client_msg_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    /// Absent if it is longer than [`PREVIEW_BYTES_MAX`].
    #[serde(flatten)]
    data: Option<Data>,
}

/// The event for the service about a message that was kept. `None` if the receiver was there, and read too
/// slowly.
pub fn notification(row: &InboxRow, told: &Undelivered) -> Option<NewEvent> {
    let reason = told.reason.as_str();
    if !matches!(reason, "offline" | "disconnected" | "unacked") {
        return None;
    }
    let notification = Notification {
        id: format!("{}-{}", row.user_id, row.message_id),
        app: row.app,
        user: row.user_id,
        reason,
        sender: row.sender,
        biz_code: row.biz_code,
        message_id: row.message_id.to_string(),
        client_msg_id: &row.client_msg_id,
        traceparent: told.traceparent.as_deref().filter(|it| trace::parse(Some(it)).is_some()),
        data: (row.data.len() <= PREVIEW_BYTES_MAX).then(|| Data::of(row.data.clone())),
    };
    let payload = serde_json::to_string(&notification).expect("strings and numbers are JSON");
    // The sender fills the queue, so the sender's share is used.
    Some(NewEvent { user_id: row.sender, payload })
}

/// Phones show no more of a message than this.
const PREVIEW_BYTES_MAX: usize = 4 << 10;
