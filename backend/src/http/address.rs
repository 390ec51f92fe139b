//! Where a caller is.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::request::Parts;

use crate::app::App;
use crate::error::Error;
use crate::network::Network;

/// The address that limits of a caller are counted for. Of IPv6 it is the /64, which one customer of a provider has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address(IpAddr);

impl FromRequestParts<Arc<App>> for Address {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Error> {
        let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() else {
            return Err(Error::internal("the server does not say where a request comes from"));
        };
        Ok(Self::of(peer.ip(), &parts.headers, &app.config.trusted_proxies))
    }
}

impl Address {
    /// The peer, or what the trusted proxy there says of its own peer in `X-Forwarded-For`, to which each proxy appends. What stands
    /// before the last address that is no trusted proxy may be made up.
    fn of(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> Self {
        let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
        let mut client = peer.to_canonical();
        let named = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let named: Vec<&str> = named.flat_map(|value| value.split(',')).collect();
        for name in named.iter().rev() {
            let Some(address) = name.trim().parse::<IpAddr>().ok().filter(|_| is_trusted(client)) else {
                break;
            };
            client = address.to_canonical();
        }
        Self(match client {
            IpAddr::V4(_) => client,
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        })
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

    fn of(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let trusted: Vec<Network> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        Address::of(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        assert_eq!(of("192.0.2.1", &["198.51.100.1"], &[]), "192.0.2.1");
        assert_eq!(of("192.0.2.1", &["198.51.100.1"], &["10.0.0.0/8"]), "192.0.2.1");
        assert_eq!(of("10.0.0.1", &["198.51.100.1"], &["10.0.0.0/8"]), "198.51.100.1");
        assert_eq!(of("::ffff:10.0.0.1", &["198.51.100.1"], &["10.0.0.0/8"]), "198.51.100.1");
    }

    #[test]
    fn what_a_client_says_of_itself_is_not_believed() {
        let trusted = ["10.0.0.0/8"];
        assert_eq!(of("10.0.0.1", &["1.1.1.1, 198.51.100.1"], &trusted), "198.51.100.1");
        assert_eq!(of("10.0.0.1", &["1.1.1.1", "198.51.100.1, 10.0.0.2"], &trusted), "198.51.100.1");
        assert_eq!(of("10.0.0.1", &["198.51.100.1, nonsense"], &trusted), "10.0.0.1");
        assert_eq!(of("10.0.0.1", &[], &trusted), "10.0.0.1");
    }

    #[test]
    fn of_ipv6_the_customers_network_counts() {
        assert_eq!(of("2001:db8:1:2:3:4:5:6", &[], &[]), "2001:db8:1:2::");
        assert_eq!(of("::ffff:192.0.2.1", &[], &[]), "192.0.2.1");
    }
}
