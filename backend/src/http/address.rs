//! Where a caller is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use http_server::Peer;

use crate::app::App;
use crate::error::Error;

/// The address against which a caller's requests count: as a trusted proxy reports it, if the caller comes
/// through one. For IPv6 it is the /64, which one customer of a provider has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address(IpAddr);

impl Address {
    /// Its network as a text: the /24 or the /48, in which one tenant of a provider can have many addresses.
    pub fn network(&self) -> String {
        match self.0 {
            IpAddr::V4(address) => format!("{}/24", Ipv4Addr::from_bits(address.to_bits() & !0xff)),
            IpAddr::V6(address) => format!("{}/48", Ipv6Addr::from_bits(address.to_bits() & (!0 << 80))),
        }
    }
}

impl FromRequestParts<Arc<App>> for Address {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _app: &Arc<App>) -> Result<Self, Error> {
        let peer = parts.extensions.get::<Peer>().map(Peer::share);
        peer.map(Self)
            .ok_or_else(|| Error::internal("the HTTP server did not pass on the address of the caller"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_a_network() {
        let network = |text: &str| Address(text.parse().unwrap()).network();
        assert_eq!(network("198.51.100.77"), "198.51.100.0/24");
        assert_eq!(network("2001:db8:1:2::"), "2001:db8:1::/48");
        assert_eq!(network("2001:db8:1:3::"), network("2001:db8:1:2::"));
    }
}
