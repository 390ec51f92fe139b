//! Tells whether a hello is complete without parsing it: an incomplete one costs its bytes and nothing else.

/// The header of a record, and its longest payload.
const HEADER_BYTES: usize = 5;
const PAYLOAD_BYTES_MAX: usize = (1 << 14) + 2048;
/// The type of a record of the handshake, and of the message in it.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// The type of a message and its length.
const MESSAGE_HEADER_BYTES: usize = 4;

/// How far the records of a hello have been looked at.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Hello {
    /// Where the next record begins.
    at: u16,
    /// Bytes of the message in the records before.
    have: u16,
    /// The message's first bytes, as far as they have come.
    header: [u8; MESSAGE_HEADER_BYTES],
}

/// What has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    /// It is not whole.
    Part,
    Whole,
    /// It is no hello.
    Wrong,
}

impl Hello {
    /// Looks at all bytes that have come so far, fewer than 64 KiB: each record once.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Seen {
        while !self.is_whole() {
            let record = bytes.get(usize::from(self.at)..).unwrap_or_default();
            match *record {
                [kind, ..] if kind != HANDSHAKE => return Seen::Wrong,
                [_, major, ..] if major != 3 => return Seen::Wrong,
                _ => {}
            }
            let Some((header, rest)) = record.split_first_chunk::<HEADER_BYTES>() else { return Seen::Part };
            let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
            if len == 0 || len > PAYLOAD_BYTES_MAX {
                return Seen::Wrong;
            }
            let Some(payload) = rest.get(..len) else { return Seen::Part };
            let have = usize::from(self.have);
            if let Some(missing) = self.header.get_mut(have..) {
                missing.iter_mut().zip(payload).for_each(|(to, from)| *to = *from);
            }
            if self.header[0] != CLIENT_HELLO {
                return Seen::Wrong;
            }
            self.have += len as u16;
            self.at += (HEADER_BYTES + len) as u16;
        }
        Seen::Whole
    }

    fn is_whole(&self) -> bool {
        let [_, high, middle, low] = self.header;
        let message = u32::from_be_bytes([0, high, middle, low]) as usize;
        usize::from(self.have).checked_sub(MESSAGE_HEADER_BYTES).is_some_and(|have| have >= message)
    }
}
