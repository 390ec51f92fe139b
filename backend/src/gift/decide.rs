//! Which gifts of a batch are paid, by what a transaction has read. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::message;
use super::types::{Answer, Contents, Gift, GiftRequest, Identity, Order, Reason};
use crate::outbox::Message;
use crate::tables::account::Entry;

/// The facts that the transaction has read, and protects from changes.
pub struct Facts {
    /// The gifts that were decided before.
    pub known: BTreeMap<Identity, Order>,
    /// The balances of senders who have an account.
    pub balances: BTreeMap<i64, i64>,
    /// The gifts that exist.
    pub catalogue: BTreeMap<i64, Gift>,
    /// The rooms that exist.
    pub rooms: BTreeMap<i64, RoomState>,
    /// The senders in their rooms, as far as gateways have not seen them there.
    pub members: BTreeSet<(i64, i64)>,
    /// The receivers that exist.
    pub receivers: BTreeSet<i64>,
}

/// The facts about a room that a gift depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomState {
    pub is_open: bool,
    pub owner_id: i64,
}

/// What the transaction writes, and what senders get after it.
#[derive(Debug, Default)]
pub struct Decisions {
    /// The debit of each sender.
    pub debits: BTreeMap<i64, i64>,
    /// One for each gift that is paid.
    pub entries: Vec<Entry>,
    /// Each gift that was not decided before.
    pub orders: Vec<(Identity, Order)>,
    /// What clients see of these, and of refused repeats.
    pub messages: Vec<Message>,
    /// Gifts that were decided before.
    pub repeats: Vec<(Identity, Order)>,
}

/// Decides gifts in their order.
pub fn decide(app: i32, requests: &[GiftRequest], facts: Facts) -> Decisions {
    let Facts { mut known, mut balances, catalogue, rooms, members, receivers } = facts;
    let may_go = |request: &GiftRequest| -> Result<(), Reason> {
        let GiftRequest { identity: Identity { sender_id, .. }, contents, is_in_room, .. } = request;
        let Contents { room_id, receiver_id, .. } = *contents;
        let room = rooms.get(&room_id).ok_or(Reason::NoSuchRoom)?;
        match *is_in_room || room.owner_id == *sender_id || members.contains(&(room_id, *sender_id)) {
            _ if !room.is_open => Err(Reason::RoomClosed),
            false => Err(Reason::NotMember),
            true if !receivers.contains(&receiver_id) => Err(Reason::NoSuchReceiver),
            true => Ok(()),
        }
    };
    let mut decisions = Decisions::default();
    for request in requests {
        let GiftRequest { identity, contents, .. } = request;
        if let Some(order) = known.get(identity) {
            // Sent once more, under the same id: it is not known here whether the first message arrived.
            if let Answer::Refused(reason) = order.answer_for(contents) {
                decisions.messages.push(message::failed(app, identity, contents, reason));
            }
            decisions.repeats.push((identity.clone(), order.clone()));
            continue;
        }
        let charged =
            may_go(request).and_then(|()| charge(request, catalogue.get(&contents.gift_id), &mut balances));
        let answer = match charged {
            Ok(total) => {
                *decisions.debits.entry(identity.sender_id).or_default() += total;
                decisions.entries.push(Entry {
                    user_id: identity.sender_id,
                    amount: -total,
                    kind: "gift",
                    reference: identity.key.clone().into_bytes(),
                });
                decisions.messages.push(message::shown(app, identity, contents, total));
                Answer::Committed { total }
            }
            Err(reason) => {
                decisions.messages.push(message::failed(app, identity, contents, reason));
                Answer::Refused(reason)
            }
        };
        let order = Order { contents: *contents, answer };
        known.insert(identity.clone(), order.clone());
        decisions.orders.push((identity.clone(), order));
    }
    decisions
}

/// Deducts the gift's total from the sender's balance and returns it.
fn charge(
    request: &GiftRequest,
    gift: Option<&Gift>,
    balances: &mut BTreeMap<i64, i64>,
) -> Result<i64, Reason> {
    let gift = gift.ok_or(Reason::NoSuchGift)?;
    gift.check(request.price)?;
    let total = gift.price.checked_mul(request.contents.count).ok_or(Reason::BadRequest)?;
    let balance = balances.get_mut(&request.identity.sender_id).ok_or(Reason::InsufficientBalance)?;
    *balance = balance.checked_sub(total).filter(|left| *left >= 0).ok_or(Reason::InsufficientBalance)?;
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENTS: Contents = Contents { gift_id: 1, room_id: 7, receiver_id: 3, count: 2, code: 5556 };

    fn request(sender_id: i64, key: &str, price: i64) -> GiftRequest {
        let identity = Identity { sender_id, key: key.into() };
        GiftRequest { identity, contents: CONTENTS, price: Some(price), is_in_room: true, trace: None }
    }

    fn facts(balances: &[(i64, i64)]) -> Facts {
        let gift = Gift { id: 1, name: "rose".into(), icon: String::new(), price: 10, is_on_sale: true };
        let off = Gift { id: 2, is_on_sale: false, ..gift.clone() };
        Facts {
            known: BTreeMap::new(),
            balances: balances.iter().copied().collect(),
            catalogue: [(1, gift), (2, off)].into(),
            rooms: [
                (7, RoomState { is_open: true, owner_id: 70 }),
                (8, RoomState { is_open: false, owner_id: 80 }),
            ]
            .into(),
            members: [(7, 5)].into(),
            receivers: [3].into(),
        }
    }

    fn answers(decisions: &Decisions) -> Vec<Answer> {
        decisions.orders.iter().map(|(_, order)| order.answer).collect()
    }

    #[test]
    fn money_goes_to_those_who_come_first_and_never_below_zero() {
        let requests: Vec<_> = ["a", "b", "c"].map(|key| request(9, key, 10)).into();
        let decisions = decide(1, &requests, facts(&[(9, 45)]));
        let (paid, short) = (Answer::Committed { total: 20 }, Answer::Refused(Reason::InsufficientBalance));
        assert_eq!(answers(&decisions), [paid, paid, short]);
        assert_eq!(decisions.debits, [(9, 40)].into());
        assert_eq!(decisions.entries.iter().map(|entry| entry.amount).sum::<i64>(), -40);
        let codes: Vec<_> = decisions.messages.iter().map(|message| message.biz_code).collect();
        assert_eq!(codes, [5556, 5556, 5557]);
        assert_eq!(answers(&decide(1, &requests[..1], facts(&[]))), [short], "no account, no coins");
    }

    #[test]
    fn a_repeat_is_debited_once_within_a_batch_and_after_it() {
        let requests = [request(9, "a", 10), request(9, "a", 10)];
        let decisions = decide(1, &requests, facts(&[(9, 100)]));
        assert_eq!((decisions.debits[&9], decisions.orders.len(), decisions.repeats.len()), (20, 1, 1));
        assert_eq!(decisions.repeats[0], decisions.orders[0]);
        let known: BTreeMap<_, _> = decisions.orders.into_iter().collect();
        let again = decide(1, &requests, Facts { known: known.clone(), ..facts(&[(9, 80)]) });
        assert!(again.debits.is_empty() && again.messages.is_empty() && again.repeats.len() == 2);
        // Its sender is told that the name has another gift.
        let other = GiftRequest { contents: Contents { count: 3, ..CONTENTS }, ..request(9, "a", 10) };
        let other = decide(1, &[other], Facts { known, ..facts(&[(9, 80)]) });
        assert!(other.debits.is_empty() && other.orders.is_empty());
        let told: Vec<_> = other.messages.iter().map(|message| message.biz_code).collect();
        assert_eq!(told, [5557]);
        assert!(
            other.messages[0].payload.contains(r#""reason":"id_reused""#),
            "{}",
            other.messages[0].payload
        );
    }

    #[test]
    fn who_names_no_price_pays_the_catalogues() {
        let requests = [GiftRequest { price: None, ..request(9, "a", 0) }, request(9, "b", 9)];
        let decisions = decide(1, &requests, facts(&[(9, 100)]));
        assert_eq!(
            answers(&decisions),
            [Answer::Committed { total: 20 }, Answer::Refused(Reason::PriceChanged)]
        );
    }

    #[test]
    fn nothing_is_paid_for_who_or_what_is_not_there() {
        let to = |receiver_id, room_id, sender_id, is_in_room| {
            let contents = Contents { receiver_id, room_id, ..CONTENTS };
            let key = format!("{receiver_id} {room_id} {is_in_room}");
            GiftRequest { contents, is_in_room, ..request(sender_id, &key, 10) }
        };
        let requests = [
            to(4, 7, 9, true),
            to(3, 9, 9, true),
            to(3, 8, 9, true),
            to(3, 7, 9, false),
            to(3, 7, 5, false),
            to(3, 7, 70, false), // the room's owner
        ];
        let decisions = decide(1, &requests, facts(&[(5, 100), (9, 100), (70, 100)]));
        let refused = [Reason::NoSuchReceiver, Reason::NoSuchRoom, Reason::RoomClosed, Reason::NotMember];
        let paid = [Answer::Committed { total: 20 }; 2];
        let wanted: Vec<_> = refused.map(Answer::Refused).into_iter().chain(paid).collect();
        assert_eq!(answers(&decisions), wanted);
        assert_eq!(decisions.debits, [(5, 20), (70, 20)].into());
    }

    #[test]
    fn what_is_no_longer_so_is_refused() {
        let with = |gift_id| Contents { gift_id, ..CONTENTS };
        let requests = [
            request(9, "a", 11),
            GiftRequest { contents: with(2), ..request(9, "b", 10) },
            GiftRequest { contents: with(3), ..request(9, "c", 10) },
        ];
        let decisions = decide(1, &requests, facts(&[(9, 100)]));
        let reasons = [Reason::PriceChanged, Reason::NotOnSale, Reason::NoSuchGift];
        assert_eq!(answers(&decisions), reasons.map(Answer::Refused));
        assert!(decisions.debits.is_empty() && decisions.entries.is_empty());
    }
}
