//! Users: people with a phone. Their first login makes one.

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
use crate::error::{Error, ErrorBody};
use crate::http::body::{Body, Path};
use crate::http::caller::Caller;
use crate::http::internal::Internal;
use crate::http::text;
use crate::tables::user::{Change, UserRow};
use crate::tables::{user, user_phone};
use crate::users::{self, CACHE_TTL, cache_key, find, unknown};

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(me, change))
        .routes(routes!(one))
        .routes(routes!(batch))
        .routes(routes!(make))
}

/// A user, as everybody may see it.
#[derive(Serialize, ToSchema)]
struct User {
    /// The user's id.
    id: i64,
    /// 1 to 32 characters.
    name: String,
    /// The URL of a picture, or empty.
    avatar: String,
    sex: Sex,
    /// Up to 32 characters.
    city: String,
    /// Up to 200 characters.
    bio: String,
    /// When the user came, in ms since the UNIX epoch.
    created_ms: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Sex {
    Unknown,
    Male,
    Female,
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        let sex = match row.sex {
            1 => Sex::Male,
            2 => Sex::Female,
            _ => Sex::Unknown,
        };
        let UserRow { id, name, avatar, city, bio, created_ms, .. } = row;
        Self { id, name, avatar, sex, city, bio, created_ms }
    }
}

/// One user. The profile is public; the phone is not part of it.
#[utoipa::path(get, path = "/users/{id}", params(("id" = i64, Path, description = "The user.")),
    responses((status = 200, body = User), (status = 404, body = ErrorBody)))]
async fn one(State(app): State<Arc<App>>, Path(id): Path<i64>) -> Result<Json<User>, Error> {
    Ok(Json(find(&app.store, id).await?.ok_or_else(unknown)?.into()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserIds, examples(json!({ "ids": [10001, 10002] })))]
struct Batch {
    /// Up to 1000 ids.
    ids: Vec<i64>,
}

#[derive(Serialize, ToSchema)]
struct Users {
    /// The users that exist, ascending by id.
    users: Vec<User>,
}

/// Many users at once. Each requested id counts, whether that user exists or not.
#[utoipa::path(post, path = "/users/batch", security(("login" = [])), request_body = Batch, responses((status = 200, body = Users),
    (status = 400, body = ErrorBody), (status = 429, body = ErrorBody)))]
async fn batch(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(body): Body<Batch, BATCH_BYTES_MAX>,
) -> Result<Json<Users>, Error> {
    if body.ids.len() > BATCH_MAX {
        let count = body.ids.len();
        return Err(Error::bad_request(format!("ids: want at most {BATCH_MAX}, not {count}")));
    }
    let ids: Vec<i64> = body.ids.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    if ids.is_empty() {
        return Ok(Json(Users { users: Vec::new() }));
    }
    let key = format!("users_read:{}", caller.user_id);
    limit(&app, &key, ids.len() as u32, app.store.config.users_read_per_minute, "users").await?;
    let keys: Vec<String> = ids.iter().map(|id| cache_key(*id)).collect();
    let load = |missing: Vec<usize>| {
        let ids: Vec<i64> = missing.into_iter().map(|index| ids[index]).collect();
        let app = &app;
        async move {
            // From the primary: a replica's row could be older than the delete that a write of any of these
            // users has done.
            let mut found = user::get_many(app.store.db.primary(), &ids).await?;
            Ok(ids.iter().map(|id| found.remove(id)).collect())
        }
    };
    let found: Vec<Option<UserRow>> = app.store.cache.read_many(&keys, CACHE_TTL, load).await?;
    Ok(Json(Users { users: found.into_iter().flatten().map(User::from).collect() }))
}

/// The caller, as only the caller may see it.
#[derive(Serialize, ToSchema)]
struct Me {
    #[serde(flatten)]
    user: User,
    /// The last four digits of the phone. The rest of it is not kept, but as SHA-256.
    phone_last_digits: String,
}

/// The caller, as the database has it: a cache may be behind what the caller has just changed.
#[utoipa::path(get, path = "/users/me", security(("login" = [])), responses((status = 200, body = Me)))]
async fn me(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<Me>, Error> {
    let reader = app.store.reader(&cache_key(caller.user_id)).await;
    let user = user::get(reader, caller.user_id).await?.ok_or_else(unknown)?.into();
    let phone_last_digits = user_phone::last_digits(reader, caller.user_id).await?.unwrap_or_default();
    Ok(Json(Me { user, phone_last_digits }))
}

/// What to change. What is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "name": "Li Lei", "city": "Hangzhou" })))]
struct Profile {
    /// 1 to 32 characters.
    name: Option<String>,
    /// The `http` or `https` URL of a picture, up to 255 bytes; empty for none.
    avatar: Option<String>,
    sex: Option<Sex>,
    /// Up to 32 characters.
    city: Option<String>,
    /// Up to 200 characters.
    bio: Option<String>,
}

impl Profile {
    fn check(self) -> Result<Change, Error> {
        let line = |field: &str, text: Option<String>, chars_max| {
            text.map(|text| text::line(field, &text, chars_max)).transpose()
        };
        let change = Change {
            name: line("name", self.name, NAME_CHARS_MAX)?,
            avatar: self.avatar.map(check_avatar).transpose()?,
            sex: self.sex.map(|sex| sex as i64),
            city: line("city", self.city, CITY_CHARS_MAX)?,
            bio: line("bio", self.bio, BIO_CHARS_MAX)?,
        };
        if change.name.as_ref().is_some_and(String::is_empty) {
            return Err(Error::bad_request(format!("name: want 1 to {NAME_CHARS_MAX} characters")));
        }
        Ok(change)
    }
}

/// Pages show it as it is, so no other scheme than the web's is taken.
fn check_avatar(url: String) -> Result<String, Error> {
    let is_web = url.starts_with("https://") || url.starts_with("http://");
    let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'<>\\`".contains(&byte));
    match url.is_empty() || is_web && is_plain && url.len() <= AVATAR_BYTES_MAX {
        true => Ok(url),
        false => {
            let message = format!("avatar: want an http or https URL of at most {AVATAR_BYTES_MAX} bytes");
            Err(Error::bad_request(message))
        }
    }
}

/// Changes the caller's profile; answers what it is then.
#[utoipa::path(put, path = "/users/me", security(("login" = [])), request_body = Profile,
    responses((status = 200, body = User), (status = 400, body = ErrorBody), (status = 429, body = ErrorBody)))]
async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(body): Body<Profile>,
) -> Result<Json<User>, Error> {
    let (id, change) = (caller.user_id, body.check()?);
    let most = app.store.config.profile_changes_per_minute;
    limit(&app, &format!("profile_changes:{id}"), 1, most, "changes").await?;
    let keys = [cache_key(id)];
    let is_there = app
        .store
        .write_through(&keys, async { user::update(app.store.db.writer(), id, &change).await })
        .await?;
    if !is_there {
        return Err(unknown());
    }
    Ok(Json(user::get(app.store.db.primary(), id).await?.ok_or_else(unknown)?.into()))
}

/// Counts `by` more of `what` for the minute; 429 if those are too many. A cache that is away limits nobody.
async fn limit(app: &App, key: &str, by: u32, most: u32, what: &str) -> Result<(), Error> {
    match app.store.cache.count_many(key, by, Duration::from_secs(60)).await {
        Ok(count) if count > i64::from(most) => {
            Err(Error::too_many(format!("want at most {most} {what} in a minute")))
        }
        _ => Ok(()),
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "count": 2 })))]
struct MakeUsers {
    /// How many: 1 to 500.
    count: u32,
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({ "user_ids": [10001, 10002] })))]
struct MadeUsers {
    /// Ascending.
    user_ids: Vec<i64>,
}

/// Makes users who have no phone, and so cannot log in here: for robots, tests, and users who log in
/// elsewhere.
#[utoipa::path(post, path = "/internal/users", request_body = MakeUsers,
    responses((status = 200, body = MadeUsers), (status = 400, body = ErrorBody)))]
async fn make(
    State(app): State<Arc<App>>,
    _: Internal,
    Body(MakeUsers { count }): Body<MakeUsers>,
) -> Result<Json<MadeUsers>, Error> {
    if !(1..=MADE_MAX).contains(&count) {
        return Err(Error::bad_request(format!("count: want 1 to {MADE_MAX}, not {count}")));
    }
    Ok(Json(MadeUsers { user_ids: users::make(&app.store, &app.ids, count).await? }))
}

/// Users of one batch.
const BATCH_MAX: usize = 1_000;
/// Users that are made at once.
const MADE_MAX: u32 = 500;
/// The longest body of a batch: its ids have up to 20 digits.
const BATCH_BYTES_MAX: usize = 32 << 10;
const NAME_CHARS_MAX: usize = 32;
const CITY_CHARS_MAX: usize = 32;
const BIO_CHARS_MAX: usize = 200;
const AVATAR_BYTES_MAX: usize = 255;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_avatar_is_a_picture_on_the_web() {
        for url in ["", "https://example.org/a.png?x=1&y=2#z", "http://example.org/%E6%9D%8E"] {
            assert_eq!(check_avatar(url.into()).unwrap(), url);
        }
        let long = format!("https://{}", "a".repeat(AVATAR_BYTES_MAX));
        for url in [
            "javascript:alert(1)",
            "data:text/html,x",
            "https://a b",
            "https://a\"onload=",
            "//a",
            "https://é",
            &long,
        ] {
            assert!(check_avatar(url.into()).is_err(), "{url}");
        }
    }
}
