//! Where a caller is.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use http_server::Peer;

use crate::app::App;
use crate::error::Error;

/// The address that limits of a caller are counted for: as the trusted proxy there says, if it comes through one. Of IPv6 it is the
/// /64, which one customer of a provider has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address(IpAddr);

impl FromRequestParts<Arc<App>> for Address {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _app: &Arc<App>) -> Result<Self, Error> {
        let peer = parts.extensions.get::<Peer>().map(Peer::share);
        peer.map(Self).ok_or_else(|| Error::internal("the server does not say where a request comes from"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
