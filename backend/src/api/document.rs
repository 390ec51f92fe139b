//! The OpenAPI document, made from the handlers and their types. This file adds what holds for many
//! operations: tags, operation ids, security schemes, and the errors that each operation can give. A
//! handler's `utoipa::path` names what is its own.

use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, HeaderBuilder, ObjectBuilder, OpenApi as Document, Ref, RefOr,
    Response, ResponseBuilder, Type,
};
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;

/// The part of the document that is not made from handlers.
#[derive(OpenApi)]
#[openapi(info(
    title = "Sailfish backend",
    description = "Users, rooms, gifts, wallet and payments. An error has the body `ErrorBody`: `code` is for programs, and \
        `request_id` finds the request in the server's log. To try the API here: log in by `POST /login/code` and \
        `POST /login`, press Authorize, and paste the token at `login`. For paths under `/internal`, paste the server's \
        `backend.internal_secret` at `internal`. Authorize with one of the two at a time, since both are the same header.",
    license(name = "Apache-2.0", identifier = "Apache-2.0"),
))]
struct Head;

/// The document before any resource is added. `E` is the body of errors; the cookie is the one that may have
/// the login token.
pub fn head<E: ToSchema>(login_cookie: &str) -> Document {
    let mut document = Head::openapi();
    document.components = Some(
        ComponentsBuilder::new()
            .schema(ERROR_BODY, E::schema())
            .security_scheme("login", bearer("The login token of a user, from `POST /login`."))
            .security_scheme("login_cookie", cookie(login_cookie))
            .security_scheme(
                "internal",
                bearer("`backend.internal_secret`, for the operator's own services."),
            )
            .security_scheme("bridge", signature("X-Sailfish-Signature", BRIDGE))
            .security_scheme("provider", signature("X-Signature", PROVIDER))
            .build(),
    );
    document
}

/// Adds a resource to the API: its operations get the tag, and ids that begin with it.
pub fn add<S: Clone + Send + Sync + 'static>(
    mut all: OpenApiRouter<S>,
    tag: &str,
    description: &str,
    mut resource: OpenApiRouter<S>,
) -> OpenApiRouter<S> {
    for (path, item) in &mut resource.get_openapi_mut().paths.paths {
        for operation in operations(item) {
            let function = operation.operation_id.take().unwrap_or_default();
            operation.operation_id = Some(format!("{tag}_{function}"));
            operation.tags = Some(vec![tag.to_owned()]);
            complete(path, operation);
        }
    }
    let tag = TagBuilder::new().name(tag).description(Some(description)).build();
    all.get_openapi_mut().tags.get_or_insert_default().push(tag);
    all.merge(resource)
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten()
}

/// Adds who may call, and the errors that follow from what the operation takes.
fn complete(path: &str, operation: &mut Operation) {
    let scheme = scheme_of(path, operation);
    operation.security = Some(match scheme {
        None => Vec::new(), // everybody may
        Some("login") => ["login", "login_cookie"].map(requirement).into(),
        Some(scheme) => vec![requirement(scheme)],
    });
    let has_body = operation.request_body.is_some();
    let has_input = has_body || operation.parameters.is_some();
    let is_service = path == "/healthz" || path == "/metrics";
    let errors = [
        (has_input, "400"),
        (scheme.is_some(), "401"),
        (scheme == Some("internal"), "403"),
        (has_body, "408"),
        (has_body, "413"),
        (has_body, "415"),
        (!is_service, "429"),
        (!is_service, "503"),
    ];
    let responses = &mut operation.responses.responses;
    for (_, status) in errors.into_iter().filter(|(applies, _)| *applies) {
        responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(error()));
    }
    for (status, response) in responses {
        if let RefOr::T(response) = response {
            describe(status, response);
        }
    }
}

/// Gives a response the description of its status, unless it has one of its own, and the header that tells
/// when to try again.
fn describe(status: &str, response: &mut Response) {
    if response.description.is_empty() {
        response.description = description_of(status).to_owned();
    }
    if matches!(status, "429" | "503") {
        let seconds = ObjectBuilder::new().schema_type(Type::Integer);
        let header = HeaderBuilder::new()
            .schema(Some(seconds))
            .description(Some("Seconds to wait, if that is known."));
        response.headers.insert("Retry-After".to_owned(), RefOr::T(header.build()));
    }
}

fn description_of(status: &str) -> &'static str {
    match status {
        "200" => "It is done.",
        "204" => "It is done; there is no body.",
        "400" => "`message` names the field that is wrong, and says what is wanted.",
        "401" => "The caller is unknown: token, secret or signature is missing, wrong or has expired.",
        "403" => "The caller is known and may not do this, or the operator has not switched it on.",
        "404" => "There is no such thing, or the caller may not see it.",
        "408" => "The body did not come in time.",
        "409" => "It conflicts with stored data; `code` says how.",
        "413" => "The body is too long.",
        "415" => "The content type is not `application/json`.",
        "429" => "Too many requests of this caller, or from its address.",
        "503" => "A service that this request needs is not available. Send the same request again later.",
        _ => "",
    }
}

/// Which security scheme guards an operation. Handlers name `login` themselves; a path says the rest.
fn scheme_of(path: &str, operation: &Operation) -> Option<&'static str> {
    match path {
        _ if path.starts_with("/internal/") => Some("internal"),
        _ if path.starts_with("/bridge/") => Some("bridge"),
        _ if path.starts_with("/payment/callback/") => Some("provider"),
        _ => operation.security.as_ref().map(|_| "login"),
    }
}

fn requirement(scheme: &str) -> SecurityRequirement {
    SecurityRequirement::new::<_, _, &str>(scheme, [])
}

fn error() -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(ERROR_BODY))).build();
    ResponseBuilder::new().content("application/json", content).build()
}

fn bearer(description: &str) -> SecurityScheme {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description));
    SecurityScheme::Http(bearer.build())
}

fn cookie(name: &str) -> SecurityScheme {
    let description = "The login token, as `POST /login` sets it in browsers.";
    SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(name, description)))
}

fn signature(header: &str, description: &str) -> SecurityScheme {
    SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(header, description)))
}

/// The name of the body of errors.
const ERROR_BODY: &str = "ErrorBody";
const BRIDGE: &str = "HMAC-SHA-256 of the header `X-Sailfish-Timestamp` (ms since 1970, of the last five minutes), a dot and \
    the body, in hexadecimal. The key is the secret that bridge and backend share.";
const PROVIDER: &str = "HMAC-SHA-256 of the body, in hexadecimal. The key is `backend.provider_secret`.";
