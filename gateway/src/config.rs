//! What an operator may set of the gateway core, with bounds.

use std::net::Ipv6Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wire::BizCode;
use wire::client::ALTERNATIVES_MAX;
use wire::node::Class;

use edge::Rules;

use crate::limits;

/// All settings. Every key has a default; [`Config::validate`] names the key that is out of bounds.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How a silent client is found.
    pub heartbeat: Heartbeat,
    /// How messages are delivered.
    pub delivery: Delivery,
    /// What one connection, address or shard may take.
    pub limits: Limits,
    /// How a node drains.
    pub drain: Drain,
    /// Where each business code goes; a code that is absent is refused.
    pub routes: Routes,
    /// Rules for the layers between sockets and frames.
    pub edge: Rules,
}

/// How a silent client is found: it is offline after `period_ms + grace_ms` without a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Heartbeat {
    /// How often clients are to send a heartbeat.
    pub period_ms: u32,
    /// How much longer a client may be silent.
    pub grace_ms: u32,
}

/// How messages are delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// How long the first try waits for its ack; each further try waits twice as long.
    pub ack_timeout_ms: u32,
    /// How often a message is written before it is handed over as undelivered.
    pub tries: u8,
    /// How many messages of one connection may be written and not yet acked.
    pub window: u16,
    /// The least time between two writes of a room's lossy messages; messages that come sooner wait for its
    /// end and leave together. 0: every message leaves at once.
    pub room_interval_ms: u32,
}

/// What one connection, address or shard may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The longest body of a frame.
    pub frame_bytes_max: u32,
    /// Connections of one shard.
    pub connections_max: u32,
    /// Connections of one shard from one address.
    pub address_connections_max: u32,
    /// How long a connection may stay without a login.
    pub login_deadline_ms: u32,
    /// Frames that one connection may send per second, sustained.
    pub frames_per_second: u32,
    /// Frames that one connection may send at once.
    pub frames_burst: u32,
    /// Rooms that one session may be in.
    pub rooms_max: u16,
    /// Reliable messages that may wait for one connection, those in flight included. No less than owners let
    /// wait for one receiver plus what some rooms send at once; otherwise clients that read are overrun.
    pub reliable_messages_max: u32,
    /// Bytes of reliable messages that may wait for one connection, those in flight included; each counts for
    /// 96 bytes beside its frame.
    pub reliable_bytes_max: u32,
    /// Bytes of lossy messages that may wait for one connection; the oldest are dropped.
    pub lossy_bytes_max: u32,
    /// Bytes that may wait for all connections of one shard.
    pub outbox_bytes_max: u64,
    /// Messages of one shard's connections that may wait for their owners' answers. As many pushes may wait
    /// besides.
    pub submitted_max: u32,
    /// Bytes of these messages.
    pub submitted_bytes_max: u64,
    /// Messages of one user that may wait for their owners' answers.
    pub submitted_user_max: u32,
    /// Bytes of these messages.
    pub submitted_user_bytes_max: u32,
}

/// How a node drains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// Clients are told to come back after a random time up to this, so that they do not all come at once.
    pub spread_ms: u32,
    /// How long connections with unacked messages are kept.
    pub deadline_ms: u32,
    /// Nodes that clients are sent to instead: `host:port` as clients reach them.
    pub alternatives: Vec<String>,
}

/// Where a business code goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Destination {
    /// To the sessions of one user.
    User,
    /// To the members of one room.
    Room,
    /// To the backend.
    Bridge,
}

/// One row of the route table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Which business code.
    pub biz_code: BizCode,
    /// Where it goes.
    pub to: Destination,
    /// How it is delivered.
    #[serde(with = "class_name")]
    pub class: Class,
    /// How many of its messages a room keeps for members who were away; default: `router.history_messages`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_messages: Option<u32>,
    /// Bytes of these; default: `router.history_bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_bytes: Option<u32>,
    /// How long they are kept; default: `router.history_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_ms: Option<u32>,
}

impl Route {
    /// A route without bounds of its own for what rooms keep.
    pub const fn new(biz_code: BizCode, to: Destination, class: Class) -> Self {
        Self { biz_code, to, class, history_messages: None, history_bytes: None, history_ms: None }
    }

    fn validate_history(&self) -> Result<(), String> {
        let most = [
            ("history_messages", self.history_messages, limits::HISTORY_MESSAGES_CEILING),
            ("history_bytes", self.history_bytes, limits::HISTORY_BYTES_CEILING),
            ("history_ms", self.history_ms, limits::HISTORY_MS_CEILING),
        ];
        for (key, value, most) in most {
            let key = format!("routes: {key} of business code {}", self.biz_code.0);
            within(&key, value.unwrap_or_default(), 0, most)?;
        }
        Ok(())
    }
}

/// Codes that only the backend sends to clients: a gift to show (also in a PK) or that failed, bought coins.
/// A client may send them to the backend only.
pub const BACKEND_CODES: [BizCode; 5] =
    [BizCode(5556), BizCode(5557), BizCode(5558), BizCode(5561), BizCode(5562)];

/// The route table, sorted by business code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Route>", into = "Vec<Route>")]
pub struct Routes(Vec<Route>);

impl Routes {
    /// The route of a business code.
    pub fn get(&self, biz_code: BizCode) -> Option<Route> {
        self.0.binary_search_by_key(&biz_code, |route| route.biz_code).ok().map(|at| self.0[at])
    }

    /// Every route, by business code.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter()
    }

    fn validate(&self) -> Result<(), String> {
        if let Some(pair) = self.0.windows(2).find(|pair| pair[0].biz_code == pair[1].biz_code) {
            return Err(format!(
                "routes: business code {} stands twice; give it one route",
                pair[0].biz_code.0
            ));
        }
        self.0.iter().try_for_each(Route::validate_history)?;
        let is_forged =
            |route: &&Route| route.to != Destination::Bridge && BACKEND_CODES.contains(&route.biz_code);
        match self.0.iter().find(is_forged) {
            Some(Route { biz_code, .. }) => Err(format!(
                "routes: business code {} is the backend's: clients would take what another client says for the \
                 backend's word; want to = \"bridge\", or no route",
                biz_code.0
            )),
            None => Ok(()),
        }
    }
}

impl From<Vec<Route>> for Routes {
    fn from(mut routes: Vec<Route>) -> Self {
        routes.sort_by_key(|route| route.biz_code);
        Self(routes)
    }
}

impl From<Routes> for Vec<Route> {
    fn from(routes: Routes) -> Self {
        routes.0
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { period_ms: 30_000, grace_ms: 30_000 }
    }
}

impl Heartbeat {
    /// How often a client is to say something.
    pub fn period(&self) -> Duration {
        Duration::from_millis(u64::from(self.period_ms))
    }

    /// How long a connection may be silent.
    pub fn silence_max(&self) -> Duration {
        Duration::from_millis(u64::from(self.period_ms) + u64::from(self.grace_ms))
    }
}

impl Default for Delivery {
    fn default() -> Self {
        Self { ack_timeout_ms: 5_000, tries: 3, window: 64, room_interval_ms: 40 }
    }
}

impl Delivery {
    /// How long one message may stay in flight: all its tries.
    pub fn flight_time_max(&self) -> Duration {
        (1..=self.tries).map(|tries| self.ack_timeout(tries)).sum()
    }

    /// How long try number `tries` (from 1) waits for its ack.
    pub fn ack_timeout(&self, tries: u8) -> Duration {
        Duration::from_millis(u64::from(self.ack_timeout_ms) << (tries.clamp(1, limits::TRIES_CEILING) - 1))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 64 * 1024,
            connections_max: 1_000_000,
            address_connections_max: 4_096,
            login_deadline_ms: 10_000,
            frames_per_second: 1_000,
            frames_burst: 2_000,
            rooms_max: 16,
            reliable_messages_max: 18_432,
            reliable_bytes_max: 16 * 1024 * 1024,
            lossy_bytes_max: 128 * 1024,
            outbox_bytes_max: 256 * 1024 * 1024,
            submitted_max: 1 << 16,
            submitted_bytes_max: 64 * 1024 * 1024,
            submitted_user_max: 4_096,
            submitted_user_bytes_max: 4 * 1024 * 1024,
        }
    }
}

impl Limits {
    /// How long a connection may take to log in.
    pub(crate) fn login_deadline(&self) -> Duration {
        Duration::from_millis(u64::from(self.login_deadline_ms))
    }

    /// Bytes of answers that may wait for one connection: answers to all that it may send at once, and to all
    /// for which its user may wait. One turn may bring all of them.
    pub(crate) fn answers_bytes_max(&self) -> usize {
        (self.frames_burst as usize + self.submitted_user_max as usize) * limits::ANSWER_BYTES_MAX
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { spread_ms: 10_000, deadline_ms: 10_000, alternatives: Vec::new() }
    }
}

impl Default for Routes {
    fn default() -> Self {
        let route = |biz_code, to, class| Route::new(BizCode(biz_code), to, class);
        Routes::from(vec![
            route(5555, Destination::Room, Class::Lossy),
            route(5558, Destination::Bridge, Class::Reliable),
            route(5559, Destination::Room, Class::Lossy),
            route(5560, Destination::Bridge, Class::Reliable),
            route(6001, Destination::User, Class::Reliable),
            route(6002, Destination::User, Class::Lossy),
        ])
    }
}

impl Config {
    /// Checks every bound; the error names the key, its value and what it wants.
    pub fn validate(&self) -> Result<(), String> {
        let Config { heartbeat, delivery, limits, drain, routes, edge } = self;
        within("heartbeat.period_ms", heartbeat.period_ms, 100, 3_600_000)?;
        within("heartbeat.grace_ms", heartbeat.grace_ms, 0, 3_600_000)?;
        within("delivery.ack_timeout_ms", delivery.ack_timeout_ms, 10, 600_000)?;
        within("delivery.tries", delivery.tries, 1, limits::TRIES_CEILING)?;
        within("delivery.window", delivery.window, 1, limits::WINDOW_CEILING)?;
        within("delivery.room_interval_ms", delivery.room_interval_ms, 0, 1_000)?;
        within(
            "limits.frame_bytes_max",
            limits.frame_bytes_max,
            limits::FRAME_BYTES_FLOOR,
            limits::FRAME_BYTES_CEILING,
        )?;
        within("limits.connections_max", limits.connections_max, 1, limits::CONNECTIONS_CEILING)?;
        within(
            "limits.address_connections_max",
            limits.address_connections_max,
            1,
            limits::CONNECTIONS_CEILING,
        )?;
        within("limits.login_deadline_ms", limits.login_deadline_ms, 100, 600_000)?;
        within("limits.frames_per_second", limits.frames_per_second, 1, 1_000_000)?;
        within("limits.frames_burst", limits.frames_burst, 1, 1_000_000)?;
        within("limits.rooms_max", limits.rooms_max, 1, limits::ROOMS_CEILING)?;
        within(
            "limits.reliable_messages_max",
            limits.reliable_messages_max,
            u32::from(delivery.window),
            1 << 20,
        )?;
        within("limits.reliable_bytes_max", limits.reliable_bytes_max, limits.frame_bytes_max, 1 << 30)?;
        within("limits.lossy_bytes_max", limits.lossy_bytes_max, limits.frame_bytes_max, 1 << 30)?;
        within(
            "limits.outbox_bytes_max",
            limits.outbox_bytes_max,
            u64::from(limits.reliable_bytes_max) + u64::from(limits.lossy_bytes_max),
            1 << 40,
        )?;
        within("limits.submitted_max", limits.submitted_max, 1, 1 << 24)?;
        let frame = u64::from(limits.frame_bytes_max);
        within("limits.submitted_bytes_max", limits.submitted_bytes_max, frame, 1 << 40)?;
        within("limits.submitted_user_max", limits.submitted_user_max, 1, 1 << 24)?;
        let user_bytes_max = limits.submitted_user_bytes_max;
        within("limits.submitted_user_bytes_max", user_bytes_max, limits.frame_bytes_max, 1 << 31)?;
        within("drain.spread_ms", drain.spread_ms, 0, 3_600_000)?;
        within("drain.deadline_ms", drain.deadline_ms, 0, 3_600_000)?;
        alternatives("drain.alternatives", &drain.alternatives, limits.frame_bytes_max)?;
        edge.validate()?;
        routes.validate()
    }
}

fn within<T: PartialOrd + std::fmt::Display>(key: &str, value: T, min: T, max: T) -> Result<(), String> {
    if value < min || value > max {
        return Err(format!("{key} = {value}: want a number from {min} to {max}"));
    }
    Ok(())
}

fn alternatives(key: &str, alternatives: &[String], frame_bytes_max: u32) -> Result<(), String> {
    if alternatives.len() > ALTERNATIVES_MAX {
        return Err(format!("{key}: {} of them; want at most {ALTERNATIVES_MAX}", alternatives.len()));
    }
    if let Some(wrong) = alternatives.iter().find(|alternative| !is_host_and_port(alternative)) {
        return Err(format!("{key}: {wrong:?}: want a host and a port, like \"im2.example.com:5346\""));
    }
    // Each stands in quotes that are escaped, after a comma.
    let bytes = alternatives.iter().map(|alternative| alternative.len() + 5).sum::<usize>();
    let most = (frame_bytes_max - limits::FRAME_BYTES_FLOOR) as usize;
    if bytes > most {
        return Err(format!(
            "{key}: {bytes} bytes in a notice, beside which limits.frame_bytes_max leaves {most}"
        ));
    }
    Ok(())
}

/// A name, an IPv4 address or an IPv6 address in brackets, then a port that can be connected to.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_host = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => {
            (1..=limits::HOST_BYTES_MAX).contains(&host.len())
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        }
    };
    is_host
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// [`Class`] by its name, as it stands in a config.
mod class_name {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use wire::node::Class;

    pub fn serialize<S: Serializer>(class: &Class, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match class {
            Class::Reliable => "reliable",
            Class::Lossy => "lossy",
        })
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Class, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "reliable" => Ok(Class::Reliable),
            "lossy" => Ok(Class::Lossy),
            other => Err(D::Error::unknown_variant(other, &["reliable", "lossy"])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_bounds() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn an_error_names_the_key_and_what_it_wants() {
        let mut config = Config::default();
        config.delivery.tries = 0;
        assert_eq!(config.validate(), Err("delivery.tries = 0: want a number from 1 to 8".into()));
    }

    #[test]
    fn a_code_has_one_route() {
        let twice = Routes::default().get(BizCode(5555)).unwrap();
        let config = Config { routes: vec![twice, twice].into(), ..Config::default() };
        assert!(config.validate().unwrap_err().contains("5555"));
    }

    #[test]
    fn a_client_cannot_be_let_say_what_is_the_backends() {
        for biz_code in BACKEND_CODES {
            let config = |to| {
                let route = Route::new(biz_code, to, Class::Reliable);
                Config { routes: vec![route].into(), ..Config::default() }.validate()
            };
            for to in [Destination::User, Destination::Room] {
                let line = config(to).unwrap_err();
                assert!(line.starts_with(&format!("routes: business code {} is the backend's", biz_code.0)));
            }
            assert_eq!(config(Destination::Bridge), Ok(()));
        }
    }

    #[test]
    fn alternatives_are_hosts_with_ports() {
        let check = |text: &str| {
            let drain = Drain { alternatives: vec![text.into()], ..Drain::default() };
            Config { drain, ..Config::default() }.validate()
        };
        for right in ["127.0.0.1:5346", "im-2.example.com:1", "[::1]:65535", "host:80"] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "host",
            ":80",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "::1:80",
            "a b:80",
            "a:80\nb:80",
            "[x]:80",
        ] {
            let line = check(wrong).expect_err(wrong);
            assert!(line.starts_with("drain.alternatives: ") && line.contains("host and a port"), "{line}");
        }
        let many = Drain { alternatives: vec!["a:1".into(); ALTERNATIVES_MAX + 1], ..Drain::default() };
        assert!(Config { drain: many, ..Config::default() }.validate().unwrap_err().contains("at most 16"));
    }

    #[test]
    fn alternatives_fit_a_frame() {
        let long = format!("{}:65535", "a".repeat(limits::HOST_BYTES_MAX));
        let bytes = ALTERNATIVES_MAX * (long.len() + 5);
        let drain = Drain { alternatives: vec![long; ALTERNATIVES_MAX], ..Drain::default() };
        let mut config = Config { drain, ..Config::default() };
        config.limits.frame_bytes_max = limits::FRAME_BYTES_FLOOR + bytes as u32;
        assert_eq!(config.validate(), Ok(()));
        config.limits.frame_bytes_max -= 1;
        assert!(config.validate().unwrap_err().starts_with("drain.alternatives: "));
    }

    #[test]
    fn each_try_waits_twice_as_long() {
        let delivery = Delivery::default();
        assert_eq!([1, 2, 3].map(|tries| delivery.ack_timeout(tries).as_secs()), [5, 10, 20]);
    }
}
