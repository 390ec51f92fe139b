//! The wallet: a user's coins, what came and went, grants, and the audit of all.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::{Error, ErrorBody};
use crate::http::body::{Body, Query};
use crate::http::caller::Caller;
use crate::http::internal::Internal;
use crate::tables::account;
use crate::wallet::{self, Grant};

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(balance))
        .routes(routes!(ledger))
        .routes(routes!(grant))
        .routes(routes!(grant_many))
        .routes(routes!(audit))
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({ "user_id": 10001, "balance": 90 })))]
struct Balance {
    /// The user.
    user_id: i64,
    /// In coins.
    balance: i64,
}

/// The caller's balance, as the database has it.
#[utoipa::path(get, path = "/wallet", security(("login" = [])), responses((status = 200, body = Balance)))]
async fn balance(State(app): State<Arc<App>>, caller: Caller) -> Result<Json<Balance>, Error> {
    let user_id = caller.user_id;
    let balance = account::balance(app.store.db.primary(), user_id).await?.unwrap_or(0);
    Ok(Json(Balance { user_id, balance }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    before: Option<i64>,
    limit: Option<u32>,
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({ "entries": [{ "id": 5, "amount": -10, "kind": "gift", "reference": "my first gift", "at_ms": 1763000042123_i64 }] })))]
struct Ledger {
    /// The latest first.
    entries: Vec<LedgerEntry>,
}

#[derive(Serialize, ToSchema)]
struct LedgerEntry {
    /// Higher for what came later.
    id: i64,
    /// In coins; negative for a debit.
    amount: i64,
    /// `gift`, `recharge` or `grant`.
    kind: String,
    /// The gift's id, the order's or the grant's.
    reference: String,
    /// In ms since the UNIX epoch.
    at_ms: i64,
}

/// The changes of the caller's balance, the latest first. For the next page, pass the last id of this one as
/// `before`.
#[utoipa::path(get, path = "/wallet/ledger", security(("login" = [])),
    params(("before" = Option<i64>, Query, description = "The last id of the page before."), ("limit" = Option<u32>, Query, description = "1 to 100, 20 by default.")),
    responses((status = 200, body = Ledger), (status = 400, body = ErrorBody)))]
async fn ledger(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(Page { before, limit }): Query<Page>,
) -> Result<Json<Ledger>, Error> {
    let limit = limit.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Error::bad_request(format!("limit: want 1 to {PAGE_MAX}, not {limit}")));
    }
    let rows =
        account::page(app.store.db.primary(), caller.user_id, before.unwrap_or(i64::MAX), limit).await?;
    let entry = |row: account::LedgerRow| LedgerEntry {
        id: row.id,
        amount: row.amount,
        kind: row.kind,
        reference: String::from_utf8_lossy(&row.reference).into_owned(),
        at_ms: row.at_ms,
    };
    Ok(Json(Ledger { entries: rows.into_iter().map(entry).collect() }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "grants": [{ "user_id": 10001, "amount": 100, "id": "welcome" }] })))]
struct Grants {
    /// Up to 500.
    grants: Vec<Grant>,
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({ "granted": 1 })))]
struct Granted {
    /// Grants that were made by this call; the others had been made before.
    granted: usize,
}

/// Gives a user coins, once for each `id`.
#[utoipa::path(post, path = "/internal/wallet/grant", request_body = Grant, responses(
    (status = 200, body = Granted), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn grant(
    State(app): State<Arc<App>>,
    _internal: Internal,
    Body(body): Body<Grant>,
) -> Result<Json<Granted>, Error> {
    Ok(Json(Granted { granted: wallet::give(&app.store, vec![body]).await? }))
}

/// Gives many users coins: all of them, or none.
#[utoipa::path(post, path = "/internal/wallet/grants", request_body = Grants, responses(
    (status = 200, body = Granted), (status = 400, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn grant_many(
    State(app): State<Arc<App>>,
    _internal: Internal,
    Body(body): Body<Grants, GRANTS_BYTES_MAX>,
) -> Result<Json<Granted>, Error> {
    let count = body.grants.len();
    if count > GRANTS_MAX {
        return Err(Error::bad_request(format!("grants: want at most {GRANTS_MAX}, not {count}")));
    }
    Ok(Json(Granted { granted: wallet::give(&app.store, body.grants).await? }))
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({ "ledger": 90, "balances": 90, "differing": 0, "gifts_committed": 1 })))]
struct Audit {
    /// The sum of all ledger rows, in coins.
    ledger: i64,
    /// The sum of all balances. It is the same.
    balances: i64,
    /// Accounts whose balance is not the sum of their rows. There are none.
    differing: i64,
    /// Gifts that were ever committed.
    gifts_committed: i64,
}

/// Whether the ledger balances. This reads all of it.
#[utoipa::path(get, path = "/internal/audit", responses((status = 200, body = Audit)))]
async fn audit(State(app): State<Arc<App>>, _internal: Internal) -> Result<Json<Audit>, Error> {
    let books = account::audit(app.store.db.primary(), app.store.db.dialect()).await?;
    let account::Audit { ledger, balances, differing, gifts_committed } = books;
    Ok(Json(Audit { ledger, balances, differing, gifts_committed }))
}

const PAGE: u32 = 20;
const PAGE_MAX: u32 = 100;
const GRANTS_MAX: usize = 500;
/// The longest body of many grants.
const GRANTS_BYTES_MAX: usize = 512 << 10;
