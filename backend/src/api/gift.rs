//! Gifts: the catalogue, and sending one by HTTP.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::{Error, ErrorBody};
use crate::gift::{Answer, Contents, Gift, GiftRequest, Identity, PRICE_MAX, SHOWN};
use crate::http::body::{Body, Path, Query};
use crate::http::caller::Caller;
use crate::http::internal::Internal;
use crate::tables::gift;
use crate::trace;

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(send))
        .routes(routes!(internal_list, create))
        .routes(routes!(put, delete))
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({ "gifts": [{ "id": 1, "name": "Rose", "icon": "🌹", "price": 10, "is_on_sale": true }] })))]
struct Gifts {
    /// The cheapest first.
    gifts: Vec<Gift>,
}

/// All gifts that can be sent.
#[utoipa::path(get, path = "/gifts", responses((status = 200, body = Gifts)))]
async fn list(State(app): State<Arc<App>>) -> Result<Json<Gifts>, Error> {
    Ok(Json(Gifts { gifts: app.gifts.catalogue.on_sale().await? }))
}

/// One gift, whether it can be sent or not.
#[utoipa::path(get, path = "/gifts/{id}", params(("id" = i64, Path, description = "The gift.")),
    responses((status = 200, body = Gift), (status = 404, body = ErrorBody)))]
async fn get(State(app): State<Arc<App>>, Path(id): Path<i64>) -> Result<Json<Gift>, Error> {
    app.gifts.catalogue.find(id).await?.map(Json).ok_or_else(|| Error::not_found("there is no such gift"))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GiftSend, examples(json!({ "id": "my first gift", "gift_id": 1, "room_id": 7, "receiver_id": 10001, "count": 1, "price": 10 })))]
struct Send {
    /// The caller's id for it, of 1 to 64 bytes: all requests under one id get the first answer.
    id: String,
    /// Of the catalogue. This and the next two fields may be spelled as packets do: `giftId`, `roomId`,
    /// `receiverId`.
    #[serde(alias = "giftId")]
    gift_id: i64,
    /// Where it is shown.
    #[serde(alias = "roomId")]
    room_id: i64,
    /// Whom it is for.
    #[serde(alias = "receiverId")]
    receiver_id: i64,
    /// How many pieces, 1 to 9,999.
    count: i64,
    /// The price of a piece that the caller saw. If it is another one, the gift is refused. Without it, the
    /// gift costs what the catalogue says when it is paid.
    price: Option<i64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = GiftSent, examples(json!({ "id": "my first gift", "total": 10 })))]
struct Sent {
    /// The caller's id for it.
    id: String,
    /// What it cost, in coins.
    total: i64,
}

/// Sends a gift. 200 means that it is paid and shown to its room. 409 means that it is not, and never will be
/// under this id: `code` is `insufficient_balance`, `price_changed`, `no_such_gift`, `not_on_sale`,
/// `no_such_receiver`, `no_such_room`, `room_closed`, `not_member` or `id_reused`. The caller is in a room
/// that it has opened, and in those that a session of it has joined. 429 and 503 promise nothing: send the
/// same again, under the same id.
#[utoipa::path(post, path = "/gift/send", security(("login" = [])), request_body = Send, responses(
    (status = 200, body = Sent), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody),
    (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn send(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(body): Body<Send, SEND_BYTES_MAX>,
) -> Result<Json<Sent>, Error> {
    let Send { id, gift_id, room_id, receiver_id, count, price } = body;
    let identity = Identity { sender_id: caller.user_id, key: id.clone() };
    let contents = Contents { gift_id, room_id, receiver_id, count, code: SHOWN };
    let request = GiftRequest { identity, contents, price, is_in_room: false, trace: trace::current() };
    match app.gifts.send(&request).await? {
        Answer::Committed { total } => Ok(Json(Sent { id, total })),
        Answer::Refused(reason) => Err(Error::new(StatusCode::CONFLICT, reason.name(), reason.text())),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    after: i64,
    limit: Option<u32>,
}

/// All gifts, by their ids.
#[utoipa::path(get, path = "/internal/gifts",
    params(("after" = Option<i64>, Query, description = "The last id of the page before."), ("limit" = Option<u32>, Query, description = "1 to 100.")),
    responses((status = 200, body = Gifts)))]
async fn internal_list(
    State(app): State<Arc<App>>,
    _internal: Internal,
    Query(Page { after, limit }): Query<Page>,
) -> Result<Json<Gifts>, Error> {
    let limit = limit.unwrap_or(PAGE_MAX);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Error::bad_request(format!("limit: want 1 to {PAGE_MAX}, not {limit}")));
    }
    Ok(Json(Gifts { gifts: gift::page(app.store.db.primary(), after, limit).await? }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "name": "Rose", "icon": "🌹", "price": 10, "is_on_sale": true })))]
struct GiftBody {
    /// 1 to 64 characters.
    name: String,
    /// Where its picture is, up to 512 characters.
    #[serde(default)]
    icon: String,
    /// Of one piece, in coins: 1 to 1,000,000,000.
    price: i64,
    /// Whether it can be sent.
    is_on_sale: bool,
}

impl GiftBody {
    fn gift(self, id: i64) -> Result<Gift, Error> {
        let Self { name, icon, price, is_on_sale } = self;
        let name = line("name", &name, NAME_CHARS_MAX)?;
        if name.is_empty() {
            return Err(Error::bad_request("name: want at least one character"));
        }
        let icon = line("icon", &icon, ICON_CHARS_MAX)?;
        if !(1..=PRICE_MAX).contains(&price) {
            return Err(Error::bad_request(format!("price: want 1 to {PRICE_MAX}, not {price}")));
        }
        Ok(Gift { id, name, icon, price, is_on_sale })
    }
}

/// Adds a gift, which gets an id.
#[utoipa::path(post, path = "/internal/gifts", request_body = GiftBody,
    responses((status = 200, body = Gift), (status = 400, body = ErrorBody)))]
async fn create(
    State(app): State<Arc<App>>,
    _internal: Internal,
    Body(body): Body<GiftBody>,
) -> Result<Json<Gift>, Error> {
    let mut gift = body.gift(0)?;
    gift.id = app.gifts.catalogue.add(&gift).await?;
    Ok(Json(gift))
}

/// Puts a gift under its id, whether there was one or not.
#[utoipa::path(put, path = "/internal/gifts/{id}", params(("id" = i64, Path, description = "The gift.")), request_body = GiftBody,
    responses((status = 200, body = Gift), (status = 400, body = ErrorBody)))]
async fn put(
    State(app): State<Arc<App>>,
    _internal: Internal,
    Path(id): Path<i64>,
    Body(body): Body<GiftBody>,
) -> Result<Json<Gift>, Error> {
    // An id of the caller's choice moves the numbers that the database gives, which must not run out.
    if !(1..=ID_MAX).contains(&id) && gift::get(app.store.db.primary(), id).await?.is_none() {
        return Err(Error::bad_request(format!("id: want 1 to {ID_MAX}, or an existing gift, not {id}")));
    }
    let gift = body.gift(id)?;
    app.gifts.catalogue.put(&gift).await?;
    Ok(Json(gift))
}

/// Removes a gift from the catalogue. Gifts that were sent stay.
#[utoipa::path(delete, path = "/internal/gifts/{id}", params(("id" = i64, Path, description = "The gift.")),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn delete(
    State(app): State<Arc<App>>,
    _internal: Internal,
    Path(id): Path<i64>,
) -> Result<StatusCode, Error> {
    match app.gifts.catalogue.remove(id).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Error::not_found("there is no such gift")),
    }
}

/// A text without white space around it.
fn line(field: &str, text: &str, chars_max: usize) -> Result<String, Error> {
    let text = text.trim();
    let chars = text.chars().count();
    if chars > chars_max {
        return Err(Error::bad_request(format!("{field}: want at most {chars_max} characters, not {chars}")));
    }
    match text.chars().any(char::is_control) {
        true => Err(Error::bad_request(format!("{field}: want no control characters"))),
        false => Ok(text.to_owned()),
    }
}

/// The highest id that a caller chooses.
const ID_MAX: i64 = 1_000_000_000;
/// The longest body of a gift that is sent.
const SEND_BYTES_MAX: usize = 4 << 10;
const PAGE_MAX: u32 = 100;
const NAME_CHARS_MAX: usize = 64;
const ICON_CHARS_MAX: usize = 512;
