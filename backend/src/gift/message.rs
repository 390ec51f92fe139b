//! The messages to clients about gifts.

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::types::{Contents, FAILED, Identity, Reason};
use crate::hex;
use crate::outbox::{Message, Target};

/// The message to the members of a room.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Effect<'a> {
    /// The sender's id for it.
    id: &'a str,
    sender_id: i64,
    receiver_id: i64,
    room_id: i64,
    gift_id: i64,
    count: i64,
    total: i64,
}

/// The message to the sender of a gift that failed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure<'a> {
    id: &'a str,
    receiver_id: i64,
    room_id: i64,
    gift_id: i64,
    count: i64,
    reason: &'static str,
    /// Whether the same id is refused for good.
    r#final: bool,
}

/// Shows a gift to its room.
pub fn shown(app: i32, identity: &Identity, contents: &Contents, total: i64) -> Message {
    let Contents { gift_id, room_id, receiver_id, count, code } = *contents;
    let (id, sender_id) = (identity.key.as_str(), identity.sender_id);
    let effect = Effect { id, sender_id, receiver_id, room_id, gift_id, count, total };
    Message {
        key: key("gift", identity, ""),
        app,
        target: Target::Room(room_id),
        biz_code: code,
        payload: json(&effect),
    }
}

/// Informs a sender that its gift failed.
pub fn failed(app: i32, identity: &Identity, contents: &Contents, reason: Reason) -> Message {
    let Contents { gift_id, room_id, receiver_id, count, .. } = *contents;
    let (id, reason_name, r#final) = (identity.key.as_str(), reason.name(), reason.is_final());
    let failure = Failure { id, receiver_id, room_id, gift_id, count, reason: reason_name, r#final };
    Message {
        key: key("gift-failed", identity, reason.name()),
        app,
        target: Target::User(identity.sender_id),
        biz_code: FAILED,
        payload: json(&failure),
    }
}

/// Informs a sender that its packet is no gift.
pub fn not_understood(app: i32, identity: Identity) -> Message {
    let none = Contents { gift_id: 0, room_id: 0, receiver_id: 0, count: 0, code: FAILED };
    failed(app, &identity, &none, Reason::BadRequest)
}

/// The key of a message: the same for the same gift, wherever and however often it is made. It is shorter
/// than [`crate::gift::KEY_BYTES_MAX`], and unique to the sender.
fn key(kind: &str, identity: &Identity, more: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(identity.sender_id.to_be_bytes());
    hash.update(more.as_bytes());
    hash.update([0]);
    hash.update(identity.key.as_bytes());
    format!("{kind}-{}", hex::text(&hash.finalize()[..16]))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and numbers are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(sender_id: i64, key: &str) -> Identity {
        Identity { sender_id, key: key.into() }
    }

    #[test]
    fn a_message_has_a_key_of_its_own_that_fits() {
        let contents = Contents { gift_id: 1, room_id: 7, receiver_id: 3, count: 2, code: 5556 };
        let keys = [
            shown(1, &identity(1, "a"), &contents, 20).key,
            shown(1, &identity(2, "a"), &contents, 20).key,
            shown(1, &identity(1, "b"), &contents, 20).key,
            failed(1, &identity(1, "a"), &contents, Reason::IdReused).key,
            failed(1, &identity(1, "a"), &contents, Reason::PriceChanged).key,
        ];
        assert!(keys.iter().all(|key| key.len() <= 64));
        assert!((0..keys.len()).all(|at| !keys[..at].contains(&keys[at])), "{keys:?}");
        assert_eq!(shown(1, &identity(1, "a"), &contents, 20).key, keys[0]);
    }

    #[test]
    fn payloads_are_what_clients_read() {
        let contents = Contents { gift_id: 1, room_id: 7, receiver_id: 3, count: 2, code: 5558 };
        let message = shown(1, &identity(9, "x\"y"), &contents, 20);
        let payload =
            r#"{"id":"x\"y","senderId":9,"receiverId":3,"roomId":7,"giftId":1,"count":2,"total":20}"#;
        assert_eq!((message.biz_code, message.payload.as_str()), (5558, payload));
        let message = failed(1, &identity(9, "k"), &contents, Reason::PriceChanged);
        let payload = r#"{"id":"k","receiverId":3,"roomId":7,"giftId":1,"count":2,"reason":"price_changed","final":true}"#;
        assert_eq!((message.biz_code, message.payload.as_str()), (5557, payload));
    }
}
