//! MQTT 3.1.1 at QoS 0: <https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html>.

use super::{Dialect, Item, Role};

const TOPIC: &[u8] = b"room/7";
/// What the publisher subscribes to, so that a SUBACK tells of every connection that it is ready.
const TOPIC_UNUSED: &[u8] = b"none";

/// A client of an MQTT broker.
#[derive(Debug)]
pub struct Mqtt;

impl Dialect for Mqtt {
    fn hello(&self, role: Role, index: usize, out: &mut Vec<u8>) {
        let client = format!("bench-{index}");
        let mut body = vec![0, 4];
        body.extend_from_slice(b"MQTT");
        // Protocol level 4, clean session, no keep-alive.
        body.extend_from_slice(&[4, 2, 0, 0]);
        string(client.as_bytes(), &mut body);
        packet(0x10, &body, out);
        let mut body = vec![0, 1];
        string(if role == Role::Receiver { TOPIC } else { TOPIC_UNUSED }, &mut body);
        body.push(0);
        packet(0x82, &body, out);
    }

    fn publish(&self, _number: u64, payload: &[u8], out: &mut Vec<u8>) {
        let mut body = Vec::new();
        string(TOPIC, &mut body);
        body.extend_from_slice(payload);
        packet(0x30, &body, out);
    }

    fn next(&self, input: &[u8]) -> Option<(usize, Item)> {
        let (header_bytes, body_bytes) = lengths(input)?;
        let total = header_bytes + body_bytes;
        if input.len() < total {
            return None;
        }
        let item = match input[0] >> 4 {
            3 => Item::Delivered,
            9 => Item::Ready,
            2 if input.get(header_bytes + 1) != Some(&0) => Item::Refused("CONNACK with an error".into()),
            _ => Item::Other,
        };
        Some((total, item))
    }
}

/// The sizes of the fixed header and of what follows it; the length has seven bits a byte, low ones first.
fn lengths(input: &[u8]) -> Option<(usize, usize)> {
    let mut body_bytes = 0;
    for (at, byte) in input.iter().enumerate().skip(1).take(4) {
        body_bytes |= usize::from(byte & 0x7f) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            return Some((at + 1, body_bytes));
        }
    }
    None
}

fn packet(kind: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    let mut left = body.len();
    while left > 0x7f {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
    out.extend_from_slice(body);
}

fn string(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_publish_reads_back() {
        let mut out = Vec::new();
        Mqtt.publish(0, &[7; 200], &mut out);
        assert_eq!(&out[..3], [0x30, 208 & 0x7f | 0x80, 1]);
        assert_eq!(Mqtt.next(&out[..out.len() - 1]), None);
        assert_eq!(Mqtt.next(&out), Some((out.len(), Item::Delivered)));
    }
}
