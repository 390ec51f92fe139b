//! The API, one file a resource: its router, bodies, handlers, and the rules that are its own.

pub mod bridge;
mod document;
pub mod gift;
pub mod ids;
pub mod im_token;
pub mod inbox;
pub mod login;
pub mod mock_pay;
pub mod operations;
pub mod order;
pub mod payment;
pub mod presence;
pub mod product;
pub mod room;
pub mod tags;
pub mod users;
pub mod wallet;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::error::ErrorBody;
use crate::http::caller::COOKIE;

/// All resources, and their document.
pub fn router() -> OpenApiRouter<Arc<App>> {
    let empty = OpenApiRouter::with_openapi(document::head::<ErrorBody>(COOKIE));
    resources()
        .into_iter()
        .fold(empty, |all, (tag, description, resource)| document::add(all, tag, description, resource))
}

/// Each resource, with its tag in the document and what the tag stands for.
fn resources() -> [(&'static str, &'static str, OpenApiRouter<Arc<App>>); 16] {
    [
        ("login", "Log in by phone and code, and log out.", login::router()),
        ("im_token", "Tokens for the gateway.", im_token::router()),
        ("users", "Profiles of users.", users::router()),
        ("presence", "Who is online.", presence::router()),
        ("rooms", "Live rooms and their members.", room::router()),
        ("gifts", "The catalogue of gifts, and sending one.", gift::router()),
        ("wallet", "Coins of users, and the ledger.", wallet::router()),
        ("products", "What coins cost.", product::router()),
        ("orders", "Orders of coins.", order::router()),
        ("payment", "What payment providers report.", payment::router()),
        ("mock_pay", "A payment provider for demonstrations.", mock_pay::router()),
        ("inbox", "Messages that wait for their receiver.", inbox::router()),
        ("tags", "Tags of users.", tags::router()),
        ("ids", "Ids that nobody else gets.", ids::router()),
        ("bridge", "Events of gateways, which a bridge posts.", bridge::router()),
        ("operations", "Health and metrics, for operators.", operations::router()),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::resources;

    #[test]
    fn no_two_types_have_one_name_in_the_document() {
        let mut known = BTreeMap::new();
        for (tag, _, mut resource) in resources() {
            for (name, schema) in resource.to_openapi().components.unwrap_or_default().schemas {
                let json = serde_json::to_string(&schema).unwrap();
                let (first, before) = known.entry(name.clone()).or_insert_with(|| (tag, json.clone()));
                assert_eq!(*before, json, "{name} is one type in {first} and another in {tag}");
            }
        }
        assert!(known.len() > 30, "{} types", known.len());
    }
}
