//! What is kept for receivers that were not there, and what is refused.

use std::collections::BTreeSet;

use super::share::Shares;
use super::{Inbox, MESSAGES};
use crate::db::insist;
use crate::error::Error;
use crate::event::{Outcome, Undelivered};
use crate::hooks::offline_push;
use crate::tables::inbox::{self, CLIENT_MSG_ID_BYTES_MAX, InboxRow};
use crate::tables::inbox_total::{self, Key};
use crate::tables::presence::{self, Device};
use crate::tables::{hand_over, user};
use crate::users;

/// Keeps messages that did not reach their receivers. `Done` means that the sender may be told so, and that
/// the message stays until it is delivered, for 30 days. Room messages are only counted: receivers that were
/// not there missed them.
pub async fn keep(inbox: &Inbox, messages: &[Undelivered]) -> Result<Vec<Outcome>, Error> {
    let mut outcomes = vec![Outcome::Done; messages.len()];
    let (mut rows, mut at, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for (index, message) in messages.iter().enumerate() {
        match (message.room, row(message)) {
            (Some(_), _) => inbox.metrics.add(MESSAGES, "room", 1),
            (None, Some(row)) => {
                rows.push(row);
                at.push(index);
                told.push(message);
            }
            (None, None) => outcomes[index] = refused(inbox, "bad_message"),
        }
    }
    if rows.is_empty() {
        return Ok(outcomes);
    }
    let receivers: BTreeSet<(i32, i64)> = rows.iter().map(|row| (row.app, row.user_id)).collect();
    let existing = existing(inbox, &Vec::from_iter(receivers)).await?;
    for (index, refusal) in at.into_iter().zip(insist(|| keep_rows(inbox, &rows, &told, &existing)).await?) {
        match refusal {
            Some(reason) => outcomes[index] = refused(inbox, reason),
            None => inbox.metrics.add(MESSAGES, "kept", 1),
        }
    }
    let is_kept = |(message, outcome): &(&Undelivered, &Outcome)| {
        // A receiver that reads too slowly, or does not ack, gets it at its next session.
        **outcome == Outcome::Done
            && message.room.is_none()
            && matches!(message.reason.as_str(), "offline" | "disconnected" | "busy")
    };
    let away = messages.iter().zip(&outcomes).filter(is_kept);
    let away: BTreeSet<(i32, i64)> = away.map(|(message, _)| (message.app, message.user)).collect();
    ask_for_those_who_came(inbox, &Vec::from_iter(away)).await?;
    Ok(outcomes)
}

fn refused(inbox: &Inbox, reason: &str) -> Outcome {
    inbox.metrics.add(MESSAGES, "refused", 1);
    Outcome::Refused(reason.into())
}

/// A message that no client can have sent is not kept: it would block those behind it.
fn row(message: &Undelivered) -> Option<InboxRow> {
    let data = message.data.bytes()?;
    if message.client_msg_id.len() > CLIENT_MSG_ID_BYTES_MAX {
        return None;
    }
    Some(InboxRow {
        app: message.app,
        user_id: message.user,
        message_id: message.message_id,
        sender: message.sender,
        biz_code: message.biz_code,
        client_msg_id: message.client_msg_id.clone(),
        data,
    })
}

/// Keeps messages that fit. Returns why each other one is refused. A message that is kept already stays, and
/// takes no more room.
async fn keep_rows(
    inbox: &Inbox,
    rows: &[InboxRow],
    told: &[&Undelivered],
    existing: &BTreeSet<(i32, i64)>,
) -> Result<Vec<Option<&'static str>>, Error> {
    let dialect = inbox.store.db.dialect();
    let counted: BTreeSet<Key> = rows.iter().flat_map(|row| Key::all_of(row.place())).collect();
    let mut tx = inbox.store.db.begin().await?;
    let mut known = inbox::known(&mut tx, dialect, rows).await?;
    let totals = inbox_total::get(&mut tx, dialect, &counted).await?;
    let mut shares = Shares::new(&inbox.store.config, totals);
    let (mut kept, mut refusals) = (Vec::new(), Vec::with_capacity(rows.len()));
    let mut notifications = Vec::new();
    for (row, told) in rows.iter().zip(told) {
        let refusal = if known.contains(&(row.app, row.user_id, row.message_id)) {
            None
        } else if !existing.contains(&(row.app, row.user_id)) {
            Some("no_such_user")
        } else {
            shares.take(row).err()
        };
        if refusal.is_none() && known.insert((row.app, row.user_id, row.message_id)) {
            kept.push(row.clone());
            notifications.extend(offline_push::notification(row, told));
        }
        refusals.push(refusal);
    }
    inbox::insert(&mut tx, dialect, &kept, inbox.store.clock.now_ms()).await?;
    let Some(hook) = &inbox.offline_push else {
        tx.commit().await?;
        return Ok(refusals);
    };
    let notified = hook.insert(&mut tx, notifications, inbox.store.clock.now_ms()).await?;
    tx.commit().await?;
    hook.committed(notified);
    Ok(refusals)
}

/// Which of the receivers (app, user) exist: those who are registered here, or have had a session. While
/// nobody is registered, and for other apps than the backend's own, users are kept elsewhere, and every user
/// may exist. This always asks the database: strangers could fill a cache of made-up ids.
async fn existing(inbox: &Inbox, receivers: &[(i32, i64)]) -> Result<BTreeSet<(i32, i64)>, Error> {
    let (db, dialect) = (inbox.store.db.primary(), inbox.store.db.dialect());
    let mut existing = presence::seen(db, dialect, receivers).await?;
    let unseen: Vec<(i32, i64)> =
        receivers.iter().filter(|user| !existing.contains(*user)).copied().collect();
    if unseen.is_empty() {
        return Ok(existing);
    }
    let has_users = users::are_there(db).await?;
    let (own, foreign): (Vec<_>, Vec<_>) =
        unseen.into_iter().partition(|(of_app, _)| *of_app == inbox.store.config.app && has_users);
    existing.extend(foreign);
    let ids: Vec<i64> = own.iter().map(|(_, user_id)| *user_id).collect();
    let registered = user::get_many(db, &ids).await?;
    existing.extend(own.into_iter().filter(|(_, user_id)| registered.contains_key(user_id)));
    Ok(existing)
}

/// Receivers may have come while their messages were on the way here. Either they are seen here, after the
/// messages were committed, or they come later, and then [`came`] sees the messages.
async fn ask_for_those_who_came(inbox: &Inbox, away: &[(i32, i64)]) -> Result<(), Error> {
    if away.is_empty() {
        return Ok(());
    }
    let online = presence::online(inbox.store.db.primary(), inbox.store.db.dialect(), away).await?;
    ask(inbox, &online.iter().collect::<Vec<_>>()).await
}

/// Requests inbox deliveries to users' sessions that came. They take as long as clients take to ack, so this
/// only requests them.
pub async fn came(inbox: &Inbox, devices: &BTreeSet<Device>) -> Result<(), Error> {
    let users: BTreeSet<(i32, i64)> = devices.iter().map(|device| (device.app, device.user_id)).collect();
    let waiting =
        inbox::waiting(inbox.store.db.primary(), inbox.store.db.dialect(), &Vec::from_iter(users)).await?;
    let waiting = BTreeSet::from_iter(waiting);
    let devices = devices.iter().filter(|device| waiting.contains(&(device.app, device.user_id)));
    ask(inbox, &devices.collect::<Vec<_>>()).await
}

pub(super) async fn ask(inbox: &Inbox, devices: &[&Device]) -> Result<(), Error> {
    if devices.is_empty() {
        return Ok(());
    }
    let mut tx = inbox.store.db.begin().await?;
    hand_over::ask(&mut tx, inbox.store.db.dialect(), devices, inbox.store.clock.now_ms()).await?;
    tx.commit().await?;
    inbox.look();
    Ok(())
}
