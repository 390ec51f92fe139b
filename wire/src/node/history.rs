//! What rooms said before: how it comes to the members that want it, and to the next owner.

use rkyv::{Archive, Deserialize as Load, Serialize as Store};

use crate::client::Message;
use crate::{AppId, RoomId};

/// The most messages of one part of a room's history.
pub const PART_MESSAGES_MAX: usize = 256;
/// Payload bytes from which a part takes no further message.
pub const PART_BYTES: usize = 32 * 1024;
/// The most messages that an answer may have in all its parts.
pub const HISTORY_MESSAGES_MAX: u32 = 1 << 16;
/// The most payload bytes of these.
pub const HISTORY_BYTES_MAX: usize = 4 << 20;

/// A part of the answer to a [`ToRouter::Recall`](super::ToRouter::Recall). It goes the way of the room's
/// broadcasts, so those that come before it are not newer than `sequence`, and those after it are. All parts
/// of an answer follow each other.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Store, Load)]
pub struct Recalled {
    /// The packed id of the router shard that answers.
    pub router: u32,
    /// The room's app.
    pub app: AppId,
    /// Which room.
    pub room: RoomId,
    /// That of the question.
    pub ask: u32,
    /// The index of the shard that asked; the shard that gets this mails it on.
    pub shard: u16,
    /// The sequence of the room's last message.
    pub sequence: u64,
    /// Of the messages up to this sequence some are no longer kept, or were never known to this owner.
    pub gone: u64,
    /// How many messages all parts have.
    pub total: u32,
    /// How many came in the parts before.
    pub before: u32,
    /// In their order.
    pub messages: Vec<Message>,
}

/// An entry of the stream in which the directory keeps what a room said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A message of the room.
    Message(Message),
    /// Messages up to this sequence may be missing: an owner began, or a message was not kept. It is not so
    /// if the entry before is [`Entry::Whole`], or the one after is [`Entry::NoGap`] of the same sequence.
    Gap(u64),
    /// An owner that began there found all that was said before.
    NoGap(u64),
    /// All that was said up to this sequence has been written.
    Whole(u64),
    /// Messages up to this sequence are missing, whatever stands beside it.
    Lost(u64),
    /// Members knew of messages of other owners up to `seen` when an owner that had begun after `base` had
    /// come to `at`. If nothing in the stream lies from `seen` to `base`, messages up to `base` are missing,
    /// whatever stands beside it.
    Seen {
        /// The sequence of the owner's last message, or its base.
        at: u64,
        /// Where the owner began.
        base: u64,
        /// Ascends with each entry of one owner.
        seen: u64,
    },
}

impl Entry {
    /// Up to which sequence it tells of the room.
    pub fn sequence(&self) -> u64 {
        match self {
            Self::Message(message) => message.sequence,
            Self::Gap(sequence) | Self::NoGap(sequence) | Self::Whole(sequence) | Self::Lost(sequence) => {
                *sequence
            }
            Self::Seen { at, .. } => *at,
        }
    }

    /// What of the same sequence stands first. Of entries [`Entry::Seen`] there, each tells of more than
    /// those before it.
    pub fn rank(&self) -> u64 {
        match self {
            Self::Message(_) => 0,
            Self::Gap(_) => 1,
            Self::Seen { seen, .. } => (*seen).clamp(2, u64::MAX - 3),
            Self::NoGap(_) => u64::MAX - 2,
            Self::Whole(_) => u64::MAX - 1,
            Self::Lost(_) => u64::MAX,
        }
    }

    /// Whether an owner that writes it goes on: if the stream has something above it, another owner does too.
    pub fn goes_on(&self) -> bool {
        match self {
            Self::Message(_) | Self::Gap(_) | Self::Lost(_) => true,
            Self::NoGap(_) | Self::Whole(_) | Self::Seen { .. } => false,
        }
    }
}

/// What the directory keeps of a room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stream {
    /// The room's app.
    pub app: AppId,
    /// Which room.
    pub room: RoomId,
    /// In their order.
    pub entries: Vec<Entry>,
}

/// A part of a room's history on its way from one owner to the next, by a gateway shard: owners have no links
/// to each other. The part with the newest messages goes first, so that what has arrived has no holes.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Store, Load)]
pub struct Kept {
    /// The packed id of the router shard that kept it.
    pub router: u32,
    /// The room's app.
    pub app: AppId,
    /// Which room.
    pub room: RoomId,
    /// The part has all messages after this sequence,
    pub gone: u64,
    /// up to this one.
    pub upto: u64,
    /// It has the newest.
    pub is_first: bool,
    /// Nobody can have said more since: no gateway was lost that may have gone by another owner.
    pub is_sure: bool,
    /// In their order.
    pub messages: Vec<Message>,
}
