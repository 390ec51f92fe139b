//! What a client that joins a room wants to hear again, and what it is told of that.

use rkyv::{Archive, Deserialize as Load, Serialize as Store};

use super::DecodeError;

/// What a client that joins a room wants of the messages before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Archive, Store, Load)]
pub enum Want {
    /// All after this sequence, the last that the client has seen.
    Since(u64),
    /// The last so many messages at most.
    Last(u64),
}

impl Want {
    pub(super) fn from_parts(kind: u8, value: u64) -> Result<Self, DecodeError> {
        match kind {
            1 => Ok(Self::Since(value)),
            2 => Ok(Self::Last(value)),
            _ => Err(DecodeError::BadBody),
        }
    }

    pub(super) const fn parts(self) -> (u8, u64) {
        match self {
            Self::Since(value) => (1, value),
            Self::Last(value) => (2, value),
        }
    }
}

/// Whether a client that wanted messages again gets all of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Recovery {
    /// All that it asked for and that the room said follows.
    Complete = 1,
    /// Some of them are no longer kept; what is kept follows.
    TooOld = 2,
}

impl Recovery {
    /// Every answer.
    pub const ALL: [Recovery; 2] = [Self::Complete, Self::TooOld];

    pub(super) fn from_u8(number: u8) -> Result<Self, DecodeError> {
        let known = Self::ALL.into_iter().find(|known| *known as u8 == number);
        known.ok_or(DecodeError::BadBody)
    }

    pub(super) fn from_name(name: &str) -> Result<Option<Self>, DecodeError> {
        if name.is_empty() {
            return Ok(None);
        }
        let known = Self::ALL.into_iter().find(|known| known.name() == name);
        known.map(Some).ok_or(DecodeError::BadBody)
    }

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::TooOld => "too_old",
        }
    }
}
