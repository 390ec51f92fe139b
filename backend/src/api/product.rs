//! Products: what coins cost.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::db::Pool;
use crate::error::{Error, ErrorBody};
use crate::http::body::{Body, Path};
use crate::http::internal::Internal;
use crate::http::text;
use crate::orders::unknown_product;
use crate::tables::product::{self, ProductRow};

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(find))
        .routes(routes!(list_all))
        .routes(routes!(put, delete))
}

/// A number of coins, and their price.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({ "id": 1, "name": "100 coins", "price_cents": 990, "coins": 100, "is_on_sale": true })))]
pub struct Product {
    /// The product's id.
    pub id: i64,
    /// For people.
    pub name: String,
    /// What it costs, in cents.
    pub price_cents: i64,
    /// Coins that it buys.
    pub coins: i64,
    /// Whether it can be ordered.
    pub is_on_sale: bool,
}

/// Products in a list.
#[derive(Serialize, ToSchema)]
struct Products {
    /// The cheapest first; at most 1,000.
    products: Vec<Product>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "name": "100 coins", "price_cents": 990, "coins": 100, "is_on_sale": true })))]
struct ProductBody {
    /// For people: 1 to 64 characters.
    name: String,
    /// What it costs, in cents: 1 to 1,000,000,000.
    price_cents: i64,
    /// Coins that it buys: 1 to 1,000,000,000.
    coins: i64,
    /// Whether it can be ordered.
    is_on_sale: bool,
}

/// All products that can be ordered.
#[utoipa::path(get, path = "/products", responses((status = 200, body = Products)))]
async fn list(State(app): State<Arc<App>>) -> Result<Json<Products>, Error> {
    let load = async |db: Pool| {
        let rows = product::all(&db, true, LIST_MAX).await?;
        let products: Vec<Product> = rows.into_iter().map(Product::from).collect();
        Ok((!products.is_empty()).then_some(products))
    };
    let products = app.store.read(LIST_KEY, TTL, load).await?.unwrap_or_default();
    Ok(Json(Products { products }))
}

/// A product that can be ordered.
#[utoipa::path(get, path = "/products/{id}", params(("id" = i64, Path, description = "The product.")),
    responses((status = 200, body = Product), (status = 404, body = ErrorBody)))]
async fn find(State(app): State<Arc<App>>, Path(id): Path<i64>) -> Result<Json<Product>, Error> {
    let load = async |db: Pool| {
        let row = product::get(&db, id).await?;
        Ok(row.filter(|row| row.is_on_sale).map(Product::from))
    };
    app.store.read(&key(id), TTL, load).await?.map(Json).ok_or_else(unknown_product)
}

/// All products of the database, also those that cannot be ordered.
#[utoipa::path(get, path = "/internal/products", responses((status = 200, body = Products)))]
async fn list_all(State(app): State<Arc<App>>, _: Internal) -> Result<Json<Products>, Error> {
    let rows = product::all(app.store.db.primary(), false, LIST_MAX).await?;
    Ok(Json(Products { products: rows.into_iter().map(Product::from).collect() }))
}

/// Makes a product, or changes it. Existing orders stay as they are.
#[utoipa::path(put, path = "/internal/products/{id}", request_body = ProductBody,
    params(("id" = i64, Path, description = "The product: 1 to 9,007,199,254,740,991.")),
    responses((status = 200, body = Product), (status = 400, body = ErrorBody)))]
async fn put(
    State(app): State<Arc<App>>,
    _: Internal,
    Path(id): Path<i64>,
    Body(body): Body<ProductBody>,
) -> Result<Json<Product>, Error> {
    let name = text::line("name", &body.name, NAME_CHARS_MAX)?;
    if name.is_empty() {
        return Err(Error::bad_request(format!("name: want 1 to {NAME_CHARS_MAX} characters")));
    }
    if !(1..=ID_MAX).contains(&id) {
        return Err(Error::bad_request(format!("id: want 1 to {ID_MAX}, not {id}")));
    }
    for (field, amount) in [("price_cents", body.price_cents), ("coins", body.coins)] {
        if !(1..=AMOUNT_MAX).contains(&amount) {
            return Err(Error::bad_request(format!("{field}: want 1 to {AMOUNT_MAX}")));
        }
    }
    let ProductBody { price_cents, coins, is_on_sale, .. } = body;
    let row = ProductRow { id, name, price_cents, coins, is_on_sale };
    app.store
        .write_through(&keys(id), product::put(app.store.db.writer(), app.store.db.dialect(), &row))
        .await?;
    Ok(Json(row.into()))
}

/// Removes a product. Existing orders stay as they are.
#[utoipa::path(delete, path = "/internal/products/{id}", params(("id" = i64, Path, description = "The product.")),
    responses((status = 204), (status = 404, body = ErrorBody)))]
async fn delete(State(app): State<Arc<App>>, _: Internal, Path(id): Path<i64>) -> Result<StatusCode, Error> {
    match app.store.write_through(&keys(id), product::delete(app.store.db.writer(), id)).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(unknown_product()),
    }
}

impl From<ProductRow> for Product {
    fn from(row: ProductRow) -> Self {
        let ProductRow { id, name, price_cents, coins, is_on_sale } = row;
        Self { id, name, price_cents, coins, is_on_sale }
    }
}

fn key(id: i64) -> String {
    format!("product:{id}")
}

fn keys(id: i64) -> [String; 2] {
    [LIST_KEY.into(), key(id)]
}

const LIST_KEY: &str = "products";
/// What JSON's numbers tell apart in every language.
const ID_MAX: i64 = (1 << 53) - 1;
const TTL: Duration = Duration::from_secs(600);
/// Products of one list.
const LIST_MAX: u32 = 1_000;
const NAME_CHARS_MAX: usize = 64;
/// Cents or coins of one product: a billion orders of it fit into a balance.
const AMOUNT_MAX: i64 = 1_000_000_000;
