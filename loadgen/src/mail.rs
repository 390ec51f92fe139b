//! What a fleet and whoever runs it tell each other. The same words go through a mailbox and, as JSON lines, through pipes.

use serde::{Deserialize, Serialize};

use crate::Tally;

/// A word to or from a fleet. Times are nanoseconds since the UNIX epoch, on the run's one clock.
///
/// The talk of a run: `Begin`, then `Progress` until `Settled`; `Start`, then `Progress` until `Sent`; `Expect`, then
/// `Done`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mail {
    /// To the fleet: connect and log in, from this time on.
    Begin {
        /// When.
        at_ns: u64,
    },
    /// To the fleet: operation 0 is at this time.
    Start {
        /// When.
        at_ns: u64,
    },
    /// To the fleet: all fleets are done sending, and this is how far each room has come.
    Expect {
        /// Every room with a message in it.
        rooms: Vec<RoomEnd>,
    },
    /// From the fleet: how far it is.
    Progress(Progress),
    /// From the fleet: every client is ready or has failed.
    Settled(Progress),
    /// From the fleet: everything is sent, and answered or given up.
    Sent {
        /// The last message of each room, as far as this fleet knows.
        rooms: Vec<RoomEnd>,
    },
    /// From the fleet: its last word.
    Done(Box<Tally>),
}

/// How far a room has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoomEnd {
    /// The room, as counted from the first one.
    pub room: u32,
    /// The sequence of its last message.
    pub sequence: u64,
}

/// How far a fleet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Clients logged in, and in their room.
    pub ready: u32,
    /// Clients given up.
    pub failed: u32,
    /// Operations sent.
    pub sent: u64,
    /// Operations done: answers or deliveries.
    pub done: u64,
}
