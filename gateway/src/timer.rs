//! What the timers of a gateway are for.

/// What a timer is for, packed into the wheel's 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timer {
    /// The login deadline or the idle timer of a connection.
    Session { conn_index: u32 },
    /// The ack timer of a flight.
    Ack { conn_index: u32, flight: u32 },
    /// The end of a room's interval.
    Room { index: u32 },
    /// The end of a drain.
    Drain,
    /// The next step of an announcement.
    Announce,
    /// The owner of a room has not answered what its members want of it.
    Recall { index: u32 },
}

impl Timer {
    const ACK: u64 = 1 << 63;
    const DRAIN: u64 = 1 << 62;
    const ROOM: u64 = 1 << 61;
    const ANNOUNCE: u64 = 1 << 60;
    const RECALL: u64 = 1 << 59;

    pub(crate) fn pack(self) -> u64 {
        match self {
            Self::Session { conn_index } => u64::from(conn_index),
            Self::Ack { conn_index, flight } => Self::ACK | u64::from(conn_index) << 32 | u64::from(flight),
            Self::Room { index } => Self::ROOM | u64::from(index),
            Self::Drain => Self::DRAIN,
            Self::Announce => Self::ANNOUNCE,
            Self::Recall { index } => Self::RECALL | u64::from(index),
        }
    }

    pub(crate) fn unpack(packed: u64) -> Self {
        if packed & Self::ACK != 0 {
            let conn_index = ((packed & !Self::ACK) >> 32) as u32;
            return Self::Ack { conn_index, flight: packed as u32 };
        }
        if packed == Self::DRAIN {
            return Self::Drain;
        }
        if packed == Self::ANNOUNCE {
            return Self::Announce;
        }
        if packed & Self::ROOM != 0 {
            return Self::Room { index: packed as u32 };
        }
        if packed & Self::RECALL != 0 {
            return Self::Recall { index: packed as u32 };
        }
        Self::Session { conn_index: packed as u32 }
    }
}
