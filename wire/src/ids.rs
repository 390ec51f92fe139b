//! Public ids.

use bytes::Bytes;
use rkyv::{Archive, Deserialize as Load, Serialize as Store};
use serde::{Deserialize, Serialize};

/// A tenant: users and rooms of different apps never meet.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, Archive, Store, Load,
)]
#[serde(transparent)]
pub struct AppId(pub i32);

/// A user within an app.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, Archive, Store, Load,
)]
#[serde(transparent)]
pub struct UserId(pub i64);

/// A room within an app.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, Archive, Store, Load,
)]
#[serde(transparent)]
pub struct RoomId(pub i64);

/// 2024-01-01T00:00:00Z in ms since the UNIX epoch: where message ids and room sequences begin to count.
pub const EPOCH_UNIX_MS: u64 = 1_704_067_200_000;

/// A message as the server names it: unique in the cluster, the same on every retry, roughly ordered by time.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, Archive, Store, Load,
)]
#[serde(transparent)]
pub struct MessageId(pub u64);

/// What a business packet is about; the route table says where it goes.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, Archive, Store, Load,
)]
#[serde(transparent)]
pub struct BizCode(pub i32);

/// A message as its sender names it: up to [`ClientMsgId::BYTES_MAX`] bytes of UTF-8; empty when the sender
/// gave none.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Archive, Store, Load)]
pub struct ClientMsgId(Bytes);

impl ClientMsgId {
    /// The longest id in bytes.
    pub const BYTES_MAX: usize = 64;

    /// Takes over bytes that a decoder found to be short enough UTF-8.
    pub fn new(bytes: Bytes) -> Self {
        assert!(bytes.len() <= Self::BYTES_MAX, "the decoder bounds a client message id");
        Self(bytes)
    }

    /// The same of bytes that nobody has looked at; `None` if they are too long, or no UTF-8.
    pub fn parse(bytes: Bytes) -> Option<Self> {
        Some(Self(bytes)).filter(Self::is_sound)
    }

    /// Whether it is what [`ClientMsgId::new`] takes; one that came over a link may not be.
    pub(crate) fn is_sound(&self) -> bool {
        self.0.len() <= Self::BYTES_MAX && std::str::from_utf8(&self.0).is_ok()
    }

    /// The id's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The id as text; empty when the bytes are not UTF-8, which no decoder lets through.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Whether the sender gave no id: no dedupe and no send-ack then.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The kind of device of a session. A user has at most one live session per class.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, Archive, Store, Load,
)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum DeviceClass {
    /// A phone; what a token without a device means.
    Phone = 1,
    /// A tablet.
    Tablet = 2,
    /// A browser.
    Web = 3,
    /// A desktop program.
    Desktop = 4,
    /// A TV or set-top box.
    Tv = 5,
    /// A program without a person in front of it.
    Bot = 6,
}

impl DeviceClass {
    /// Every class.
    pub const ALL: [DeviceClass; 6] =
        [Self::Phone, Self::Tablet, Self::Web, Self::Desktop, Self::Tv, Self::Bot];

    /// The class of that name, in lower case, as it stands in a token.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// The name in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Phone => "phone",
            Self::Tablet => "tablet",
            Self::Web => "web",
            Self::Desktop => "desktop",
            Self::Tv => "tv",
            Self::Bot => "bot",
        }
    }
}
