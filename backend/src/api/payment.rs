//! The callbacks of payment providers: see [`payment`].

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use http_server::body::read;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::{Error, ErrorBody};
use crate::http::body::{BODY_BYTES_MAX, Path};
use crate::payment::{self, Answer, Callback};

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(callback))
}

/// Takes a provider's callback. `X-Signature` is the HMAC-SHA-256 of the body, in hexadecimal.
///
/// **Late payments.** An order that has expired can still be paid, when the payer was at the provider's page
/// already. The rule: the money came, so the coins go. The order becomes `paid` with `late`, and the payer is
/// told as always.
///
/// A payment of another amount than the order's is refused (409 `wrong_amount`), as is a second payment of
/// one order (`paid_twice`) and one payment for two orders (`trade_reused`); the order is flagged for people
/// to look at. A failed payment is noted, and the order stays as it is, to be paid by another try. The same
/// callback again gets the first answer.
#[utoipa::path(post, path = "/payment/callback/{provider}", request_body = Callback,
    params(("provider" = String, Path, description = "`default`; `mock` where that is on.")),
    responses((status = 200, body = Answer), (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
async fn callback(
    State(app): State<Arc<App>>,
    Path(provider): Path<String>,
    request: Request,
) -> Result<Json<Answer>, Error> {
    let signature = request.headers().get("x-signature").and_then(|value| value.to_str().ok());
    let signature = signature.unwrap_or_default().to_owned();
    let body = read(request, BODY_BYTES_MAX).await?;
    Ok(Json(payment::take(&app, &provider, &signature, &body).await?))
}
