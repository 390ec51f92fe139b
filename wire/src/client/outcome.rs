//! The end of a message.
#![allow(missing_docs, reason = "the derived archive has fields of its own; everything here is documented")]

use rkyv::{Archive, Deserialize as Load, Serialize as Store};

use super::FailReason;

/// The end of a message, as its sender is told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Archive, Store, Load)]
pub enum Outcome {
    /// The receiver's client acked it.
    Delivered,
    /// The backend keeps it for the receiver.
    Stored,
    /// It has this place in the room's order.
    Sequenced {
        /// The room sequence.
        sequence: u64,
    },
    /// The backend took the business packet.
    Answered,
    /// It will not arrive, and why.
    Failed(FailReason),
}

impl Outcome {
    /// The name in metrics and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Stored => "stored",
            Self::Sequenced { .. } => "sequenced",
            Self::Answered => "answered",
            Self::Failed(_) => "failed",
        }
    }
}
