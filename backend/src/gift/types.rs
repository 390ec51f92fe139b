//! A gift: its identity, its contents, its sender's answer, and its kind in the catalogue.

use serde::{Deserialize, Serialize};
use traces::Context;
use utoipa::ToSchema;

/// The identity of a gift, within its sender, compared byte by byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The user that sends it and pays.
    pub sender_id: i64,
    /// The sender's id for it, of 1 to 64 bytes.
    pub key: String,
}

/// The contents of a gift. The same identity with other contents is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Of the catalogue.
    pub gift_id: i64,
    /// Where it is shown.
    pub room_id: i64,
    /// Whom it is for.
    pub receiver_id: i64,
    /// How many pieces.
    pub count: i64,
    /// The business code under which it is shown: 5556, or 5558 in a PK.
    pub code: i32,
}

/// A gift that a sender wants to send; also as it is in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiftRequest {
    /// Its name.
    pub identity: Identity,
    /// What it is.
    pub contents: Contents,
    /// The price of one piece that the sender saw, if given. Otherwise the gift costs what the catalogue says
    /// when it is committed.
    pub price: Option<i64>,
    /// Whether the gateway has seen the sender in the room. Otherwise the table of members decides.
    #[serde(default = "yes")]
    pub is_in_room: bool,
    /// The span that it belongs to, if its trace is exported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Context>,
}

/// The default for gifts in the queue from a version that asked only gateways.
fn yes() -> bool {
    true
}

/// The sender's final answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is paid and will be shown.
    Committed {
        /// What it cost, in coins.
        total: i64,
    },
    /// It is not paid, and will not be.
    Refused(Reason),
}

/// Why a gift was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The sender has not enough coins.
    InsufficientBalance,
    /// It costs something else than the sender saw.
    PriceChanged,
    /// The catalogue has no such gift.
    NoSuchGift,
    /// It cannot be had at the moment.
    NotOnSale,
    /// There is no such receiver.
    NoSuchReceiver,
    /// There is no such room.
    NoSuchRoom,
    /// The room is closed.
    RoomClosed,
    /// The sender is not in the room.
    NotMember,
    /// Another gift has this id.
    IdReused,
    /// The sender sent too many, or too many that were refused. The only reason that is not final.
    RateLimited,
    /// A field is malformed.
    BadRequest,
}

/// A gift that was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What it is.
    pub contents: Contents,
    /// What its sender was answered.
    pub answer: Answer,
}

/// A gift of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(examples(json!({ "id": 1, "name": "Rose", "icon": "🌹", "price": 10, "is_on_sale": true })))]
pub struct Gift {
    /// Names it for good.
    pub id: i64,
    /// For people.
    pub name: String,
    /// Where its picture is; may be empty.
    pub icon: String,
    /// Of one piece, in coins.
    pub price: i64,
    /// Whether it can be sent.
    pub is_on_sale: bool,
}

impl Contents {
    /// The code under which a request's gift is shown.
    pub(crate) fn code_of_request(biz_code: i32) -> i32 {
        if biz_code == PK { PK } else { SHOWN }
    }
}

impl Order {
    /// The answer to a request that has this order's identity and `contents`.
    pub fn answer_for(&self, contents: &Contents) -> Answer {
        match self.contents == *contents {
            true => self.answer,
            false => Answer::Refused(Reason::IdReused),
        }
    }
}

impl Gift {
    /// Checks that it is on sale at that price.
    pub(crate) fn check(&self, seen: Option<i64>) -> Result<(), Reason> {
        match seen.is_none_or(|seen| seen == self.price) {
            _ if !self.is_on_sale => Err(Reason::NotOnSale),
            false => Err(Reason::PriceChanged),
            true => Ok(()),
        }
    }
}

impl Reason {
    const ALL: [Self; 11] = [
        Self::InsufficientBalance,
        Self::PriceChanged,
        Self::NoSuchGift,
        Self::NotOnSale,
        Self::NoSuchReceiver,
        Self::NoSuchRoom,
        Self::RoomClosed,
        Self::NotMember,
        Self::IdReused,
        Self::RateLimited,
        Self::BadRequest,
    ];

    /// Its name for clients and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::InsufficientBalance => "insufficient_balance",
            Self::PriceChanged => "price_changed",
            Self::NoSuchGift => "no_such_gift",
            Self::NotOnSale => "not_on_sale",
            Self::NoSuchReceiver => "no_such_receiver",
            Self::NoSuchRoom => "no_such_room",
            Self::RoomClosed => "room_closed",
            Self::NotMember => "not_member",
            Self::IdReused => "id_reused",
            Self::RateLimited => "rate_limited",
            Self::BadRequest => "bad_request",
        }
    }

    /// What it means, for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::InsufficientBalance => "there are not enough coins in the wallet",
            Self::PriceChanged => "price: the gift costs something else; read the catalogue again",
            Self::NoSuchGift => "gift_id: there is no such gift",
            Self::NotOnSale => "gift_id: the gift cannot be had at the moment",
            Self::IdReused => "id: another gift was sent under it; the answer that it got stands",
            Self::NoSuchReceiver => "receiver_id: there is no such user",
            Self::NoSuchRoom => "room_id: there is no such room",
            Self::RoomClosed => "room_id: the room is closed",
            Self::NotMember => "room_id: the sender is not in the room",
            Self::RateLimited => {
                "too many gifts, or too many that were refused; wait, and send the same again"
            }
            Self::BadRequest => "a field is malformed",
        }
    }

    /// Whether the reason is one that the cache does not know.
    pub fn is_of_place(self) -> bool {
        matches!(self, Self::NoSuchReceiver | Self::NoSuchRoom | Self::RoomClosed | Self::NotMember)
    }

    /// Whether a repeat under the same identity gets the same answer.
    pub fn is_final(self) -> bool {
        self != Self::RateLimited
    }

    /// The one with this name.
    pub fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|reason| reason.name() == name).unwrap_or(Self::BadRequest)
    }
}

/// Bytes of a key.
pub const KEY_BYTES_MAX: usize = 64;
/// Pieces of one gift.
pub const COUNT_MAX: i64 = 9_999;
/// The price of one piece, in coins: small enough that no sum of a batch overflows.
pub const PRICE_MAX: i64 = 1_000_000_000;
/// The business code of a gift that is shown.
pub const SHOWN: i32 = 5556;
/// The business code of a gift that failed.
pub const FAILED: i32 = 5557;
/// The business code of a gift in a PK: of the request, and of what is shown.
pub const PK: i32 = 5558;
/// The business code of a request.
pub const SEND: i32 = 5560;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_names_of_their_own() {
        for reason in Reason::ALL {
            assert_eq!(Reason::named(reason.name()), reason);
            assert!(reason.name().len() <= 32, "t_gift_order.answer has no more");
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{}\"", reason.name()));
        }
    }

    #[test]
    fn the_sum_of_a_batch_does_not_overflow() {
        assert!(PRICE_MAX.checked_mul(COUNT_MAX).and_then(|total| total.checked_mul(100_000)).is_some());
    }
}
