//! A payment provider for demonstrations: a page with two buttons. It is there only if the configuration asks
//! for it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Html;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::{Error, ErrorBody};
use crate::http::body::{Path, Query};
use crate::orders;
use crate::payment::{self, Callback, MOCK, Outcome};
use crate::tables::pay_order::{self, OrderRow, Status};

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(page, pay))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Choice {
    /// `paid` unless given; or `failed`.
    outcome: Option<Outcome>,
}

/// The page on which an order is paid.
#[utoipa::path(get, path = "/mock/pay/{order_id}", params(("order_id" = String, Path, description = "The order.")),
    responses((status = 200, content_type = "text/html"), (status = 404, body = ErrorBody)))]
async fn page(State(app): State<Arc<App>>, Path(order_id): Path<String>) -> Result<Html<String>, Error> {
    Ok(shown(&find(&app, &order_id).await?))
}

/// Pays an order, or fails to: signs a callback as a provider does, and sends it where callbacks are taken.
#[utoipa::path(post, path = "/mock/pay/{order_id}", params(("order_id" = String, Path, description = "The order."), Choice),
    responses((status = 200, content_type = "text/html"), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn pay(
    State(app): State<Arc<App>>,
    Path(order_id): Path<String>,
    Query(choice): Query<Choice>,
) -> Result<Html<String>, Error> {
    let order = find(&app, &order_id).await?;
    let status = choice.outcome.unwrap_or(Outcome::Paid);
    let body = serde_json::to_vec(&Callback {
        trade_no: format!("mock-{}", order.id),
        amount_cents: order.amount_cents,
        status,
        timestamp_ms: app.store.clock.now_ms(),
        order_id: order.id,
    })?;
    let signature = payment::sign(app.store.config.provider_secret.as_bytes(), &body);
    payment::take(&app, MOCK, &signature, &body).await?;
    Ok(shown(&find(&app, &order_id).await?))
}

async fn find(app: &App, order_id: &str) -> Result<OrderRow, Error> {
    if !app.store.config.mock {
        return Err(Error::not_found("the mock payment provider is off"));
    }
    pay_order::get(app.store.db.primary(), order_id).await?.ok_or_else(orders::unknown)
}

/// Nothing in it is a text that people wrote: the id is made of digits.
fn shown(order: &OrderRow) -> Html<String> {
    let (price, cents) = (order.amount_cents / 100, order.amount_cents % 100);
    let form = match order.status {
        Status::Paid => String::new(),
        Status::Waiting | Status::Paying | Status::Expired => format!(
            "<form method=\"post\" action=\"/mock/pay/{id}\"><button>Pay {price}.{cents:02}</button></form>\
             <form method=\"post\" action=\"/mock/pay/{id}?outcome=failed\"><button>Fail to pay</button></form>",
            id = order.id
        ),
    };
    Html(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Mock payment</title>\
         <h1>{coins} coins for {price}.{cents:02}</h1><p>Order {id}: {status}</p>{form}</html>",
        coins = order.coins,
        id = order.id,
        status = order.status.name()
    ))
}
