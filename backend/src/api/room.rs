//! Live rooms: who has opened which, and who is in it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::db::Pool;
use crate::error::{Error, ErrorBody};
use crate::http::body::{Body, Path, Query};
use crate::http::caller::Caller;
use crate::http::internal::Internal;
use crate::http::text;
use crate::rooms::{self, LIST_KEY, key, unknown};
use crate::tables::room::{self, RoomRow};
use crate::tables::room_member;

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list, open))
        .routes(routes!(find))
        .routes(routes!(close))
        .routes(routes!(members))
        .routes(routes!(open_many))
}

/// A live room. Its id is the one that clients join at the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({ "id": 7, "owner_id": 10001, "title": "Fishing with Li Lei", "is_open": true, "opened_ms": 1763000042123_i64 })))]
struct Room {
    /// The room's id. Later rooms have higher ids.
    id: i64,
    /// The user who opened it.
    owner_id: i64,
    /// For people.
    title: String,
    /// Whether it is in the list.
    is_open: bool,
    /// When it was opened, in ms since 1970.
    opened_ms: i64,
    /// When it was closed.
    closed_ms: Option<i64>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "title": "Fishing with Li Lei" })))]
struct OpenBody {
    /// For people: 1 to 64 characters.
    title: String,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct RoomsPage {
    /// `next_after` of the page before; none: the first page.
    after: Option<i64>,
    /// Rooms of a page: 20 unless given, 100 at most.
    limit: Option<u32>,
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({ "rooms": [{ "id": 7, "owner_id": 10001, "title": "Fishing with Li Lei", "is_open": true, "opened_ms": 1763000042123_i64 }], "next_after": 7 })))]
struct Rooms {
    /// The latest first. However many open and close between two pages, none comes twice.
    rooms: Vec<Room>,
    /// Where the next page begins; none: this is the last one.
    next_after: Option<i64>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct MembersPage {
    /// `next_after` of the page before; none: the first page.
    after: Option<i64>,
    /// Users of a page: 100 unless given, 1,000 at most.
    limit: Option<u32>,
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({ "user_ids": [10001, 10002] })))]
struct Members {
    /// Users who are in the room on any device, ascending, each once.
    user_ids: Vec<i64>,
    /// Where the next page begins; none: this is the last one.
    next_after: Option<i64>,
}

/// Open rooms, page by page.
#[utoipa::path(get, path = "/rooms", params(RoomsPage),
    responses((status = 200, body = Rooms), (status = 400, body = ErrorBody)))]
async fn list(State(app): State<Arc<App>>, Query(page): Query<RoomsPage>) -> Result<Json<Rooms>, Error> {
    let limit = limit(page.limit, ROOMS_DEFAULT, ROOMS_MAX)?;
    let load = async |db: Pool, before: i64, most: u32| {
        let rows = room::open(&db, before, most).await?;
        Ok::<_, Error>(rows.into_iter().map(Room::from).collect::<Vec<_>>())
    };
    let mut rooms = match page.after {
        Some(after) => load(app.store.db.replica().clone(), after, limit).await?,
        None => {
            // Only the first page is what everybody asks for.
            let first = async |db: Pool| {
                let rooms = load(db, i64::MAX, ROOMS_MAX).await?;
                Ok((!rooms.is_empty()).then_some(rooms))
            };
            app.store.read(LIST_KEY, LIST_TTL, first).await?.unwrap_or_default()
        }
    };
    rooms.truncate(limit as usize);
    let next_after = rooms.last().filter(|_| rooms.len() == limit as usize).map(|room| room.id);
    Ok(Json(Rooms { rooms, next_after }))
}

/// Opens a room of the caller's own. A user has one open room; to open it again under the same title is no
/// error.
#[utoipa::path(post, path = "/rooms", security(("login" = [])), request_body = OpenBody,
    responses((status = 200, body = Room), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody),
    (status = 429, body = ErrorBody)))]
async fn open(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(body): Body<OpenBody>,
) -> Result<Json<Room>, Error> {
    let title = text::line("title", &body.title, TITLE_CHARS_MAX)?;
    if title.is_empty() {
        return Err(Error::bad_request(format!("title: want 1 to {TITLE_CHARS_MAX} characters")));
    }
    Ok(Json(rooms::open(&app.store, caller.user_id, &title).await?.into()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "owner_ids": [10001, 10002], "title": "Fishing" })))]
struct OpenMany {
    /// The owners: 1 to 500, each once.
    owner_ids: Vec<i64>,
    /// For people: 1 to 64 characters.
    title: String,
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({ "room_ids": [7, 8] })))]
struct OpenedMany {
    /// In the order of their owners.
    room_ids: Vec<i64>,
}

/// Opens a room for each of many users. One who has an open room keeps it.
#[utoipa::path(post, path = "/internal/rooms", request_body = OpenMany,
    responses((status = 200, body = OpenedMany), (status = 400, body = ErrorBody)))]
async fn open_many(
    State(app): State<Arc<App>>,
    _: Internal,
    Body(OpenMany { owner_ids, title }): Body<OpenMany>,
) -> Result<Json<OpenedMany>, Error> {
    let title = text::line("title", &title, TITLE_CHARS_MAX)?;
    if title.is_empty() {
        return Err(Error::bad_request(format!("title: want 1 to {TITLE_CHARS_MAX} characters")));
    }
    let distinct: BTreeSet<i64> = owner_ids.iter().copied().filter(|id| *id > 0).collect();
    if !(1..=OPENED_MAX).contains(&owner_ids.len()) || distinct.len() != owner_ids.len() {
        return Err(Error::bad_request(format!(
            "owner_ids: want 1 to {OPENED_MAX} positive numbers, each once"
        )));
    }
    Ok(Json(OpenedMany { room_ids: rooms::open_many(&app.store, &owner_ids, &title).await? }))
}

/// Closes the caller's room: it leaves the list, and never opens again. Closing it again changes nothing.
/// Members at the gateway stay until they leave.
#[utoipa::path(post, path = "/rooms/{id}/close", security(("login" = [])), params(("id" = i64, Path, description = "The room.")), responses(
    (status = 200, body = Room), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn close(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<i64>,
) -> Result<Json<Room>, Error> {
    Ok(Json(rooms::close(&app.store, caller.user_id, id).await?.into()))
}

/// A room, open or closed.
#[utoipa::path(get, path = "/rooms/{id}", params(("id" = i64, Path, description = "The room.")),
    responses((status = 200, body = Room), (status = 404, body = ErrorBody)))]
async fn find(State(app): State<Arc<App>>, Path(id): Path<i64>) -> Result<Json<Room>, Error> {
    Ok(Json(cached(&app, id).await?))
}

/// Who is in a room, page by page.
#[utoipa::path(get, path = "/rooms/{id}/members", params(("id" = i64, Path, description = "The room."), MembersPage),
    responses((status = 200, body = Members), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn members(
    State(app): State<Arc<App>>,
    Path(id): Path<i64>,
    Query(page): Query<MembersPage>,
) -> Result<Json<Members>, Error> {
    let limit = limit(page.limit, MEMBERS_DEFAULT, MEMBERS_MAX)?;
    cached(&app, id).await?;
    let after = page.after.unwrap_or(i64::MIN);
    let user_ids = room_member::users(app.store.db.replica(), app.store.config.app, id, after, limit).await?;
    let next_after = user_ids.last().copied().filter(|_| user_ids.len() == limit as usize);
    Ok(Json(Members { user_ids, next_after }))
}

async fn cached(app: &App, id: i64) -> Result<Room, Error> {
    let load = async |db: Pool| Ok(room::get(&db, id).await?.map(Room::from));
    app.store.read(&key(id), ROOM_TTL, load).await?.ok_or_else(unknown)
}

fn limit(given: Option<u32>, default: u32, most: u32) -> Result<u32, Error> {
    let limit = given.unwrap_or(default);
    match (1..=most).contains(&limit) {
        true => Ok(limit),
        false => Err(Error::bad_request(format!("limit: want 1 to {most}"))),
    }
}

impl From<RoomRow> for Room {
    fn from(row: RoomRow) -> Self {
        let RoomRow { id, owner_id, title, is_open, opened_ms, closed_ms } = row;
        Self { id, owner_id, title, is_open, opened_ms, closed_ms }
    }
}

const LIST_TTL: Duration = Duration::from_secs(30);
const ROOM_TTL: Duration = Duration::from_secs(300);
const TITLE_CHARS_MAX: usize = 64;
const ROOMS_DEFAULT: u32 = 20;
const ROOMS_MAX: u32 = 100;
/// Rooms that are opened at once.
const OPENED_MAX: usize = 500;
const MEMBERS_DEFAULT: u32 = 100;
const MEMBERS_MAX: u32 = 1_000;
