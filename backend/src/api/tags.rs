//! Tags of users, which the company's own services set: each is one bit of one of three columns.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::{Error, ErrorBody};
use crate::http::body::{Body, Path, Query};
use crate::http::internal::Internal;
use crate::tables::user_tag::{self, Column, Tags};
use crate::users;

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(set)).routes(routes!(cancel)).routes(routes!(contains))
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "column": "tag_info_01", "bit": 4 })))]
struct Tag {
    /// Which column.
    column: Column,
    /// A number with a single bit: a power of two, or -2^63.
    bit: i64,
}

impl Tag {
    fn check(self) -> Result<Self, Error> {
        match self.bit.count_ones() {
            1 => Ok(self),
            _ => Err(Error::bad_request("bit: want a number with a single bit: 1, 2, 4, ... or -2^63")),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = TagChanged)]
struct Changed {
    /// Whether this call changed it. Of several calls at once, one does.
    changed: bool,
}

/// Sets a tag, unless it is set.
#[utoipa::path(post, path = "/internal/users/{id}/tags/set", request_body = Tag,
    params(("id" = i64, Path, description = "The user.")),
    responses((status = 200, body = Changed), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn set(
    State(app): State<Arc<App>>,
    _: Internal,
    Path(id): Path<i64>,
    Body(tag): Body<Tag>,
) -> Result<Json<Changed>, Error> {
    change(&app, id, tag, true).await
}

/// Cancels a tag, if it is set.
#[utoipa::path(post, path = "/internal/users/{id}/tags/cancel", request_body = Tag,
    params(("id" = i64, Path, description = "The user.")),
    responses((status = 200, body = Changed), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn cancel(
    State(app): State<Arc<App>>,
    _: Internal,
    Path(id): Path<i64>,
    Body(tag): Body<Tag>,
) -> Result<Json<Changed>, Error> {
    change(&app, id, tag, false).await
}

async fn change(app: &App, id: i64, tag: Tag, wanted: bool) -> Result<Json<Changed>, Error> {
    let Tag { column, bit } = tag.check()?;
    users::find(&app.store, id).await?.ok_or_else(users::unknown)?;
    let before = user_tag::get(app.store.db.primary(), id).await?.unwrap_or_default();
    if before.has(column, bit) == wanted {
        return Ok(Json(Changed { changed: false })); // the common repeat costs no write
    }
    let write = async {
        let (writer, dialect) = (app.store.db.writer(), app.store.db.dialect());
        let is_changed = match wanted {
            true => user_tag::set(writer, dialect, id, column, bit).await?,
            false => user_tag::cancel(writer, id, column, bit).await?,
        };
        // As an error, since the cache is left alone then.
        is_changed.then_some(()).ok_or_else(|| Error::conflict(UNCHANGED, "somebody was faster"))
    };
    match app.store.write_through(&[cache_key(id)], write).await {
        Ok(()) => Ok(Json(Changed { changed: true })),
        Err(error) if error.code == UNCHANGED => Ok(Json(Changed { changed: false })),
        Err(error) => Err(error),
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = TagContains)]
struct Contains {
    /// Whether the user has the tag. An unknown user has none.
    contains: bool,
}

/// Whether a user has a tag, from the cache if it is there.
#[utoipa::path(get, path = "/internal/users/{id}/tags/contains",
    params(("id" = i64, Path, description = "The user."),
        ("column" = Column, Query, description = "Which column."),
        ("bit" = i64, Query, description = "A number with a single bit.")),
    responses((status = 200, body = Contains), (status = 400, body = ErrorBody)))]
async fn contains(
    State(app): State<Arc<App>>,
    _: Internal,
    Path(id): Path<i64>,
    Query(tag): Query<Tag>,
) -> Result<Json<Contains>, Error> {
    let Tag { column, bit } = tag.check()?;
    let load = async |db| user_tag::get(&db, id).await;
    let tags: Option<Tags> = app.store.read(&cache_key(id), CACHE_TTL, load).await?;
    Ok(Json(Contains { contains: tags.unwrap_or_default().has(column, bit) }))
}

fn cache_key(id: i64) -> String {
    format!("user_tag:{id}")
}

/// The code by which a write says that it changed nothing; no caller sees it.
const UNCHANGED: &str = "unchanged";
/// How long a user's tags are cached.
const CACHE_TTL: Duration = Duration::from_secs(1_800);
