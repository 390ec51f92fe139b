//! The description of the control API, made from the handlers and their types.

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, ContentBuilder, Ref, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::error::ErrorBody;
use super::{Admin, drain, kick, nodes, online, push, revoke, rooms};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sailfish control API",
        description = "Who is online and where, and orders to them. Served on the admin port of every node.",
    ),
    paths(
        online::online,
        online::online_batch,
        online::user,
        kick::kick,
        revoke::revoke,
        push::push_many,
        push::push_user,
        push::push_room,
        push::push_all,
        drain::drain,
        nodes::nodes,
        rooms::messages,
    ),
    components(schemas(ErrorBody)),
    modifiers(&Common),
)]
struct Document;

pub fn router() -> Router<Arc<Admin>> {
    Router::new().route("/openapi.json", get(async || Json(Document::openapi())))
}

/// What holds for every operation: the bearer token, and the errors.
struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let components = document.components.take().unwrap_or_default();
        let components = ComponentsBuilder::from(components).security_scheme("bearer", bearer).build();
        document.components = Some(components);
        for item in document.paths.paths.values_mut() {
            item.get.iter_mut().chain(&mut item.post).for_each(complete);
        }
    }
}

fn complete(operation: &mut Operation) {
    let anyone = SecurityRequirement::default();
    let bearer = SecurityRequirement::new::<_, _, &str>("bearer", []);
    operation.security = Some(vec![anyone, bearer]);
    let takes_something = operation.request_body.is_some() || operation.parameters.is_some();
    let mut errors = vec![
        ("401", "`control.secret` is set, and the request does not bear it."),
        (
            "403",
            "There is no `control.secret`, and the header `Host` has neither an address nor `localhost`.",
        ),
        (
            "503",
            "A shard or a router does not answer, no router is linked, or a router was asked for what gateways do.",
        ),
    ];
    if takes_something {
        errors.push(("400", "The message names what is wrong, and what is wanted."));
    }
    if operation.request_body.is_some() {
        errors.push(("408", "The body did not come in time."));
        errors.push(("413", "Body or payload is too long."));
        errors.push(("415", "The content type is not `application/json`."));
    }
    if operation.operation_id.as_deref() == Some("drain") {
        errors.push(("404", "No such node is linked."));
    }
    for (status, description) in errors {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
        let response = ResponseBuilder::new().description(description).content("application/json", content);
        operation.responses.responses.insert(status.into(), response.build().into());
    }
    for response in operation.responses.responses.values_mut() {
        if let utoipa::openapi::RefOr::T(response) = response
            && response.description.is_empty()
        {
            response.description = "Done.".into(); // the format wants one
        }
    }
}
