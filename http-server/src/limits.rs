//! What callers of one HTTP port may take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use edge::Network;

/// What callers of one HTTP port may take, in all and from one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Open connections.
    pub connections_max: u32,
    /// Open connections from one address.
    pub address_connections_max: u32,
    /// How long the header of a request may take, from the connect or from its first byte.
    pub header_timeout_ms: u32,
    /// How long a connection may stay open between two requests.
    pub idle_timeout_ms: u32,
    /// How long the body of a request may take.
    pub body_timeout_ms: u32,
    /// How long an answer may take to leave.
    pub answer_timeout_ms: u32,
    /// Bytes of bodies that are in memory.
    pub bodies_bytes_max: u32,
    /// The same of requests from one address.
    pub address_bodies_bytes_max: u32,
    /// Requests that are worked on at a time; see [`Class`](crate::Class).
    pub requests_max: u32,
    /// Requests of one address that are worked on at once.
    pub address_requests_max: u32,
    /// Requests from one address that may be refused in a second, sustained; ten times that at once.
    pub address_refusals_per_second: u32,
    /// Proxies whose `X-Forwarded-For` says whose requests they pass on.
    pub trusted_proxies: Vec<Network>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            address_connections_max: 256,
            header_timeout_ms: 10_000,
            idle_timeout_ms: 30_000,
            body_timeout_ms: 10_000,
            answer_timeout_ms: 30_000,
            bodies_bytes_max: 64 << 20,
            address_bodies_bytes_max: 16 << 20,
            requests_max: 256,
            address_requests_max: 16,
            address_refusals_per_second: 50,
            trusted_proxies: Vec::new(),
        }
    }
}

impl Limits {
    /// The same with at most this many connections. One address may have half of them, if it may have that
    /// many.
    pub fn with_connections_max(&self, connections_max: u32) -> Self {
        let connections_max = self.connections_max.min(connections_max);
        let address_connections_max = self.address_connections_max.min(connections_max.div_ceil(2));
        Self { connections_max, address_connections_max, ..self.clone() }
    }

    /// Checks what the types do not say. The error begins with the key.
    ///
    /// # Errors
    /// One line: the key, its value, and what it wants.
    pub fn validate(&self) -> Result<(), String> {
        let numbers = [
            ("connections_max", self.connections_max, 1, 1 << 20),
            ("address_connections_max", self.address_connections_max, 1, self.connections_max),
            ("header_timeout_ms", self.header_timeout_ms, 1, 3_600_000),
            ("idle_timeout_ms", self.idle_timeout_ms, 1, 3_600_000),
            ("body_timeout_ms", self.body_timeout_ms, 1, 3_600_000),
            ("answer_timeout_ms", self.answer_timeout_ms, 1, 3_600_000),
            ("bodies_bytes_max", self.bodies_bytes_max, BODY_BYTES_MAX, u32::MAX),
            (
                "address_bodies_bytes_max",
                self.address_bodies_bytes_max,
                BODY_BYTES_MAX,
                self.bodies_bytes_max,
            ),
            ("requests_max", self.requests_max, 1, 1 << 20),
            ("address_requests_max", self.address_requests_max, 1, self.requests_max),
            ("address_refusals_per_second", self.address_refusals_per_second, 1, 1_000_000),
        ];
        for (key, value, min, max) in numbers {
            if !(min..=max).contains(&value) {
                return Err(format!("http.{key} = {value}: want a number from {min} to {max}"));
            }
        }
        Ok(())
    }

    pub(crate) fn header_timeout(&self) -> Duration {
        Duration::from_millis(self.header_timeout_ms.into())
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms.into())
    }

    pub(crate) fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms.into())
    }

    pub(crate) fn answer_timeout(&self) -> Duration {
        Duration::from_millis(self.answer_timeout_ms.into())
    }
}

/// The longest body of any route; less would leave that route without use.
const BODY_BYTES_MAX: u32 = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_half_of_few_connections() {
        let limits = Limits::default();
        assert_eq!(limits.with_connections_max(5_000), limits);
        let few = limits.with_connections_max(75);
        assert_eq!((few.connections_max, few.address_connections_max), (75, 38));
        assert_eq!(few.validate(), Ok(()));
    }

    #[test]
    fn a_share_is_no_more_than_the_whole() {
        let refused = |limits: Limits| limits.validate().unwrap_err();
        let limits = Limits { address_connections_max: 2_000, ..Limits::default() };
        assert_eq!(refused(limits), "http.address_connections_max = 2000: want a number from 1 to 1024");
        let limits = Limits { bodies_bytes_max: 1, ..Limits::default() };
        assert!(refused(limits).starts_with("http.bodies_bytes_max = 1: want a number from 2097152"));
        assert_eq!(Limits::default().validate(), Ok(()));
    }
}
