//! Bodies of HTTP requests and answers between bridge, backend and payment providers, and the events in them.

use biz_bridge::Item;
use wire::node::{Handed, LinkMessage};

use crate::input::Input;
use crate::said::Said;

/// The first byte says which body it is. Events that a link brings are JSON that the backend reads.
pub(crate) fn run(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    match kind % 7 {
        0 => drop(backend::fuzz::events(body)),
        1 => drop(backend::fuzz::gift(body)),
        2 => drop(backend::fuzz::callback(body)),
        3 => drop(backend::fuzz::push_outcome(body)),
        4 => drop(biz_bridge::fuzz::push(body)),
        5 => drop(biz_bridge::fuzz::answer(&items(&[0, 0, 0]), body)),
        _ => {
            let events = items(body).iter().map(biz_bridge::fuzz::event).collect::<Vec<_>>();
            let body = [&br#"{"events":["#[..], &events.join(&b','), b"]}"].concat();
            assert_eq!(backend::fuzz::events(&body), events.len(), "{}", String::from_utf8_lossy(&body));
        }
    }
    let text = String::from_utf8_lossy(body);
    let (timestamp, signature) = text.split_once('\n').unwrap_or((&text, ""));
    backend::fuzz::signature(timestamp, signature, body);
}

/// Events of any kind.
fn items(bytes: &[u8]) -> Vec<Item> {
    let (mut input, mut said) = (Input::new(bytes), Said::default());
    let mut items = Vec::new();
    while !input.is_empty() && items.len() < 8 {
        if let LinkMessage::Handed(handed) = said.message(&mut input) {
            let Handed { seq, event } = *handed;
            items.push(Item { shard: input.number() as u32, incarnation: input.number(), seq, event });
        }
    }
    items
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let bodies: [(u8, &str); 10] = [
        (0, r#"{"events":[{"id":"1-2-3","type":"online","app":1,"user":7,"device":"web","login":"5"}]}"#),
        (
            0,
            r#"{"events":[{"id":"1-2-4","type":"join","app":1,"user":7,"device":"web","login":"5","room":7}]}"#,
        ),
        (
            0,
            r#"{"events":[{"id":"1-2-5","type":"request","app":1,"user":7,"device":"web","room":7,"biz_code":5560,"client_msg_id":"m","data":"{}"}]}"#,
        ),
        (
            0,
            r#"{"events":[{"id":"1-2-6","type":"undelivered","app":1,"user":7,"reason":"offline","message_id":"9","sender":0,"biz_code":1,"room":null,"sequence":null,"client_msg_id":"","data":""}]}"#,
        ),
        (1, r#"{"giftId":1,"receiverId":2,"count":3,"price":4,"roomId":7}"#),
        (
            2,
            r#"{"order_id":"o","trade_no":"t","amount_cents":100,"status":"paid","timestamp_ms":1767225600000}"#,
        ),
        (3, r#"{"message_id":"1","outcome":"failed","reason":"offline","sequence":4}"#),
        (
            4,
            r#"{"app":1,"user":7,"biz_code":5557,"class":"lossy","client_msg_id":"a","data_base64":"/wA=","sender":9}"#,
        ),
        (5, r#"{"results":[{"id":"0-0-0","status":"refused","reason":"no"}]}"#),
        (2, "1767225600000\n00ff"),
    ];
    let mut seeds: Vec<Vec<u8>> =
        bodies.iter().map(|(kind, body)| [&[*kind], body.as_bytes()].concat()).collect();
    seeds.extend((22..28u8).map(|kind| vec![6, kind, 0, 0, 0, 0, 1, 2, 3]));
    seeds
}
