//! What one fleet is to do.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use wire::client::Encoding;
use wire::{AppId, BizCode, RoomId, UserId};

/// The kinds of load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// Heartbeats only, at the period the server tells.
    Idle,
    /// Heartbeats with an echo, at a rate.
    Echo,
    /// Pairs of users, 2k with 2k+1, that write to each other: reliable, acked.
    Chat,
    /// Rooms with a few publishers and many members.
    Room,
    /// Rooms whose members all send gifts, and all see them.
    Gift,
    /// Everybody connects and logs in; then all are reset and come back at once.
    Storm,
}

impl Scenario {
    /// The name on the command line and in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Echo => "echo",
            Self::Chat => "chat",
            Self::Room => "room",
            Self::Gift => "gift",
            Self::Storm => "storm",
        }
    }

    /// Whether every client joins a room.
    pub(crate) const fn has_rooms(self) -> bool {
        matches!(self, Self::Room | Self::Gift)
    }
}

/// The source addresses of a fleet's connections, so that neither ports nor the server's cap per address run
/// out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sources {
    /// The address of the first `per_address` clients; the next ones follow it.
    pub first: Ipv4Addr,
    /// Clients that share one.
    pub per_address: u32,
}

impl Sources {
    /// The address for the `index`-th client of the fleet.
    pub fn address(self, index: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(self.first.to_bits() + index / self.per_address))
    }
}

/// What one fleet is to do: its share of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// What kind of load.
    pub scenario: Scenario,
    /// The gateways, at least one; see [`Plan::first_target`].
    pub targets: Vec<SocketAddr>,
    /// Where connections come from; `None` leaves it to the system.
    pub sources: Option<Sources>,
    /// Names the run: tells its messages from those of another.
    pub run: u32,
    /// The app of all users.
    pub app: AppId,
    /// The user of the run's client 0; client `i` is `first_user + i`.
    pub first_user: i64,
    /// This fleet's first client, as counted over the whole run. Even, so that pairs stay together.
    pub first_client: u32,
    /// How many clients this fleet has.
    pub clients: u32,
    /// Bodies in JSON, as the Java platform's clients write them.
    pub json: bool,
    /// What is given, as the backend knows it.
    pub gift: i64,
    /// Who gets all gifts; `None`: the next member of the room.
    pub receiver: Option<i64>,
    /// The business code of messages.
    pub biz_code: BizCode,
    /// Bytes of a message's payload, at least [`STAMP_BYTES`](crate::STAMP_BYTES).
    pub payload_bytes: u32,
    /// This fleet's operations a second.
    pub rate: f64,
    /// How much later than the run's start this fleet's first operation is, so that fleets interleave.
    pub phase_ns: u64,
    /// Operations before this are sent, and checked, but not measured.
    pub warmup_ns: u64,
    /// The measured time; `None` until [`Mail::Stop`](crate::Mail::Stop).
    pub measure_ns: Option<u64>,
    /// Where the measured time is split into parts, each with its own latency, ascending, in ns from its
    /// start.
    pub split_ns: Vec<u64>,
    /// How long everybody stays after the reset of all, once all are back (storm).
    pub stay_ns: u64,
    /// How long a client waits for a send-ack before it sends a message again on the same connection; 0 for
    /// ever.
    pub repeat_ns: u64,
    /// A message that is refused as `busy` is sent again a little later; without this, and without repeats,
    /// it has failed.
    pub retry_busy: bool,
    /// The heartbeat period; `None` for the one the server tells at login.
    pub heartbeat_ms: Option<u32>,
    /// New connections a second; `None` for as fast as they succeed.
    pub connect_rate: Option<f64>,
    /// Connections that may be on their way to a login at once.
    pub connect_window: u32,
    /// Rooms of the run: client `i` is in room `first_room + i % rooms`.
    pub rooms: u32,
    /// The first room.
    pub first_room: i64,
    /// Publishers in each room: its first members.
    pub publishers: u32,
    /// How long to wait, after the last operation, for what is still on its way.
    pub drain_ns: u64,
}

impl Plan {
    /// The target where a client, as counted over the whole run, begins. Neighbours begin at different ones,
    /// the partners of a pair too, and each room has members at all of them. One after another is tried when
    /// a connection fails or ends.
    pub fn first_target(&self, client: u32) -> u16 {
        let rooms = if self.scenario.has_rooms() { self.rooms.max(1) } else { 1 };
        let turn = u64::from(client / rooms) + u64::from(client % rooms);
        (turn % self.targets.len() as u64) as u16
    }

    /// The user of a client, as counted over the whole run.
    pub(crate) fn user(&self, client: u32) -> UserId {
        UserId(self.first_user + i64::from(client))
    }

    /// The client of a user, if the run has it.
    pub(crate) fn client_of(&self, user: UserId) -> Option<u32> {
        u32::try_from(user.0.checked_sub(self.first_user)?).ok()
    }

    /// The room of a client, as counted from the first room.
    pub(crate) fn room_index(&self, client: u32) -> u32 {
        client % self.rooms.max(1)
    }

    pub(crate) fn room(&self, room_index: u32) -> RoomId {
        RoomId(self.first_room + i64::from(room_index))
    }

    pub(crate) fn encoding(&self) -> Encoding {
        if self.json { Encoding::Json } else { Encoding::Binary }
    }

    /// How many of this fleet's clients send: all, or the publishers among them. They are its first ones.
    pub fn senders(&self) -> u32 {
        match self.scenario {
            Scenario::Idle | Scenario::Storm => 0,
            Scenario::Echo | Scenario::Chat | Scenario::Gift => self.clients,
            Scenario::Room => {
                let publishers = self.rooms.saturating_mul(self.publishers);
                publishers.saturating_sub(self.first_client).min(self.clients)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_addresses_follow_each_other() {
        let sources = Sources { first: Ipv4Addr::new(127, 1, 0, 254), per_address: 1000 };
        assert_eq!(sources.address(999), IpAddr::V4(Ipv4Addr::new(127, 1, 0, 254)));
        assert_eq!(sources.address(2000), IpAddr::V4(Ipv4Addr::new(127, 1, 1, 0)));
    }
}
