//! What a fleet and whoever runs it tell each other. The same words go through a mailbox and, as JSON lines,
//! through pipes.

use serde::{Deserialize, Serialize};

use crate::Tally;
use crate::places::Places;

/// What a fleet is told. Times are nanoseconds since the UNIX epoch, on the run's one clock.
///
/// The talk of a run, with the fleet's [`Word`]s: `Begin`, then `Progress` until `Settled`; `Start`, then
/// `Progress` until `Sent`, with a `Stop` in between if the plan has no end; `Expect`, then `Done`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mail {
    /// Connect and log in, from this time on.
    Begin {
        /// When.
        at_ns: u64,
    },
    /// Operation 0 is at this time.
    Start {
        /// When.
        at_ns: u64,
    },
    /// No operation is due from this time on. Only for a plan without an end of its own.
    Stop {
        /// When.
        at_ns: u64,
    },
    /// All fleets are done sending, and this is what they said of their rooms in `Sent`.
    Expect {
        /// One for each fleet and room.
        rooms: Vec<RoomEnd>,
    },
}

/// What a fleet says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// How far it is.
    Progress(Progress),
    /// Every client is ready or has failed.
    Settled(Progress),
    /// Everything is sent, and answered or given up.
    Sent {
        /// Every room to which this fleet sent something.
        rooms: Vec<RoomEnd>,
    },
    /// Its last word.
    Done(Box<Tally>),
}

/// What a fleet's publishers were told of a room's messages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RoomEnd {
    /// The room, as counted from the first one.
    pub room: u32,
    /// The places that messages got.
    pub sequenced: Places,
    /// Those of messages that were sent more than once.
    pub repeated: Vec<Repeated>,
}

/// A message that was sent more than once, at the place that its publisher was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Repeated {
    /// Its place in the room.
    pub sequence: u64,
    /// Its publisher, as counted over the whole run.
    pub publisher: u32,
    /// The publisher's number for it.
    pub number: u32,
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
