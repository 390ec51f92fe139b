//! The NATS text protocol: <https://docs.nats.io/reference/reference-protocols/nats-protocol>.

use super::{Dialect, Item, Role};

const SUBJECT: &str = "room.7";

/// A client of nats-server without acknowledgements per command.
#[derive(Debug)]
pub struct Nats;

impl Dialect for Nats {
    fn hello(&self, role: Role, _index: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":false}\r\n");
        if role == Role::Receiver {
            out.extend_from_slice(format!("SUB {SUBJECT} 1\r\n").as_bytes());
        }
        out.extend_from_slice(b"PING\r\n");
    }

    fn publish(&self, _number: u64, payload: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(format!("PUB {SUBJECT} {}\r\n", payload.len()).as_bytes());
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    fn next(&self, input: &[u8]) -> Option<(usize, Item)> {
        let line_bytes = input.windows(2).position(|pair| pair == b"\r\n")?;
        let line = &input[..line_bytes];
        let after = line_bytes + 2;
        if line.starts_with(b"MSG ") {
            let payload_bytes = line.rsplit(|byte| *byte == b' ').next().and_then(decimal)?;
            let total = after + payload_bytes + 2;
            return (input.len() >= total).then_some((total, Item::Delivered));
        }
        let item = match line {
            b"PONG" => Item::Ready,
            b"PING" => Item::Asked(b"PONG\r\n"),
            _ if line.starts_with(b"-ERR") => Item::Refused(String::from_utf8_lossy(line).into_owned()),
            _ => Item::Other,
        };
        Some((after, item))
    }
}

fn decimal(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_complete_only_with_its_payload() {
        let stream = b"MSG room.7 1 3\r\nabc\r\nPING\r\n";
        assert_eq!(Nats.next(&stream[..20]), None);
        assert_eq!(Nats.next(stream), Some((21, Item::Delivered)));
        assert_eq!(Nats.next(&stream[21..]), Some((6, Item::Asked(b"PONG\r\n"))));
    }
}
