//! The offline inbox: what did not reach its receiver, until it does. [`crate::inbox`] hands it over.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use logs::warn;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::Error;
use crate::event::Undelivered;
use crate::http::caller::Caller;
use crate::inbox::MESSAGES;
use crate::tables::inbox::{self, CLIENT_MSG_ID_BYTES_MAX, InboxRow};
use crate::tables::{hand_over, presence};

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(count))
}

#[derive(Serialize, ToSchema)]
struct Count {
    /// Messages that wait for the caller's next session: 1,000 at most, for 30 days at most.
    count: i64,
}

/// How many messages wait for the caller.
#[utoipa::path(get, path = "/inbox/count", responses((status = 200, body = Count)))]
async fn count(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<Count>, Error> {
    let count = inbox::count(app.db.primary(), app.config.app, caller.user_id).await?;
    Ok(Json(Count { count }))
}

/// Keeps messages that did not reach their receivers; when this answers, their senders may be told so. Room messages are counted
/// only: who was not there missed them.
pub async fn keep(app: &App, messages: &[&Undelivered]) -> Result<(), Error> {
    let (to_rooms, to_users): (Vec<&Undelivered>, Vec<_>) =
        messages.iter().partition(|message| message.room.is_some());
    let rows: Vec<InboxRow> = to_users.iter().filter_map(|message| row(app, message)).collect();
    if !rows.is_empty() {
        let dropped = keep_rows(app, &rows).await?;
        // Who reads too slowly, or does not ack, gets it when it comes anew.
        let away = to_users
            .iter()
            .filter(|message| matches!(message.reason.as_str(), "offline" | "disconnected" | "busy"));
        let away: BTreeSet<(i32, i64)> = away.map(|message| (message.app, message.user)).collect();
        ask_for_those_who_came(app, &away.into_iter().collect::<Vec<_>>()).await?;
        app.metrics.add(MESSAGES, "dropped", dropped as u64);
        app.metrics.add(MESSAGES, "kept", rows.len() as u64);
    }
    app.metrics.add(MESSAGES, "room", to_rooms.len() as u64);
    Ok(())
}

/// What no client may have sent is not kept, or it would be in the way of what follows.
fn row(app: &App, message: &Undelivered) -> Option<InboxRow> {
    let data = message.data.bytes();
    if data.is_none() || message.client_msg_id.len() > CLIENT_MSG_ID_BYTES_MAX {
        warn!(user = message.user, message = message.message_id, "a malformed message is not kept");
        app.metrics.add(MESSAGES, "refused", 1);
        return None;
    }
    Some(InboxRow {
        app: message.app,
        user_id: message.user,
        message_id: message.message_id,
        sender: message.sender,
        biz_code: message.biz_code,
        client_msg_id: message.client_msg_id.clone(),
        data: data?,
    })
}

/// How many messages were dropped for these.
async fn keep_rows(app: &App, rows: &[InboxRow]) -> Result<usize, Error> {
    let dialect = app.db.dialect();
    let receivers: BTreeSet<(i32, i64)> = rows.iter().map(|row| (row.app, row.user_id)).collect();
    let receivers: Vec<(i32, i64)> = receivers.into_iter().collect();
    let mut tx = app.db.begin().await?;
    inbox::insert(&mut tx, dialect, rows, app.clock.now_ms()).await?;
    let mut dropped = 0;
    for (of_app, user_id, count) in inbox::fuller_than(&mut tx, dialect, &receivers, MESSAGES_MAX).await? {
        let surplus = count - MESSAGES_MAX;
        inbox::drop_oldest(&mut tx, (of_app, user_id), surplus).await?;
        warn!(app = of_app, user_id, surplus, "a full inbox: the oldest messages are dropped");
        dropped += surplus as usize;
    }
    tx.commit().await?;
    Ok(dropped)
}

/// Receivers may have come while their messages were on the way here. Either they are seen here, after the messages were committed, or
/// they come later, and then [`came`] sees the messages.
async fn ask_for_those_who_came(app: &App, away: &[(i32, i64)]) -> Result<(), Error> {
    let came = match away.is_empty() {
        true => return Ok(()),
        false => presence::online(app.db.primary(), app.db.dialect(), away).await?,
    };
    ask(app, &came).await
}

/// Has what waits for users who came handed over. That takes as long as they take to ack, so it is only asked for here.
pub async fn came(app: &App, users: BTreeSet<(i32, i64)>) -> Result<(), Error> {
    let waiting = inbox::waiting(app.db.primary(), app.db.dialect(), &Vec::from_iter(users)).await?;
    ask(app, &waiting).await
}

async fn ask(app: &App, users: &[(i32, i64)]) -> Result<(), Error> {
    if users.is_empty() {
        return Ok(());
    }
    let mut tx = app.db.begin().await?;
    hand_over::ask(&mut tx, app.db.dialect(), users).await?;
    tx.commit().await?;
    app.inbox.look();
    Ok(())
}

/// Messages of one receiver; the oldest make room.
const MESSAGES_MAX: i64 = 1_000;
