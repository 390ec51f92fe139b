//! Who sends a request.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;

use crate::port::Port;
use crate::turns::Turn;
use edge::{Network, share_of};

/// Who sends a request; an extension of every request that a [`Server`](crate::Server) passes on.
#[derive(Clone)]
pub struct Peer {
    address: IpAddr,
    pub(crate) port: Arc<Port>,
    /// If requests of its class are counted.
    pub(crate) turn: Option<Arc<Turn>>,
}

impl Peer {
    pub(crate) fn new(address: IpAddr, port: Arc<Port>, turn: Option<Arc<Turn>>) -> Self {
        Self { address, port, turn }
    }

    /// The caller's address: of the connection or, if that is a trusted proxy's, as the proxy says.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// What the caller shares its limits by: the address, or the network of an IPv6 address.
    pub fn share(&self) -> IpAddr {
        share_of(self.address)
    }
}

/// The address of a caller. Each proxy appends to `X-Forwarded-For` whom it was asked by, so the last address
/// of no trusted proxy is the caller's; what stands before it may be invented.
pub(crate) fn caller(connected: IpAddr, headers: &HeaderMap, proxies: &[Network]) -> IpAddr {
    let is_proxy = |address: IpAddr| proxies.iter().any(|proxy| proxy.contains(address));
    let mut caller = connected.to_canonical();
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    let mut forwarded = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    while is_proxy(caller) {
        let Some(Ok(before)) = forwarded.next().map(|text| text.trim().parse::<IpAddr>()) else { break };
        caller = before.to_canonical();
    }
    caller
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_say_who_calls() {
        let proxies = ["127.0.0.1".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        let caller = |connected: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            caller(connected.parse().unwrap(), &headers, &proxies).to_string()
        };
        assert_eq!(caller("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(caller("127.0.0.1", &["9.9.9.9"]), "9.9.9.9");
        assert_eq!(
            caller("127.0.0.1", &["8.8.8.8, 9.9.9.9"]),
            "9.9.9.9",
            "the first was invented by the caller"
        );
        assert_eq!(caller("127.0.0.1", &["8.8.8.8", "9.9.9.9, 10.1.1.1"]), "9.9.9.9");
        assert_eq!(caller("127.0.0.1", &["9.9.9.9", "nonsense"]), "127.0.0.1");
        assert_eq!(caller("127.0.0.1", &["10.1.1.1"]), "10.1.1.1");
        assert_eq!(caller("7.7.7.7", &["9.9.9.9"]), "7.7.7.7", "not trusted");
        assert_eq!(caller("::ffff:127.0.0.1", &["2001:db8::1"]), "2001:db8::1");
    }
}
