//! What a message carries so that its receiver can tell where it comes from and how long it took.

use shard::Instant;

/// Bytes of a stamp at the head of a payload, in hexadecimal so that JSON bodies take it as it is:
/// `run: u32 | client: u32 | sequence: u32 | intended: u64`. The highest bit of `intended` marks a repeat: as
/// a time in ns since the UNIX epoch it is 0 until the year 2262.
pub const STAMP_BYTES: usize = 40;

const REPEAT: u64 = 1 << 63;

/// Bytes of the client message id: run and sequence in hexadecimal.
pub(crate) const ID_BYTES: usize = 16;

/// Who sent a message, as its which, and when it should have been sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    /// Which run.
    pub(crate) run: u32,
    /// The sender, as counted over the whole run.
    pub(crate) client: u32,
    /// Counts the sender's messages, from 1.
    pub(crate) sequence: u32,
    /// When it was due.
    pub(crate) intended: Instant,
    /// The sender may have sent it before.
    pub(crate) repeat: bool,
}

impl Stamp {
    /// Writes the stamp over the head of `payload`.
    pub(crate) fn write(self, payload: &mut [u8]) {
        put_hex(u64::from(self.run), &mut payload[..8]);
        put_hex(u64::from(self.client), &mut payload[8..16]);
        put_hex(u64::from(self.sequence), &mut payload[16..24]);
        let mark = if self.repeat { REPEAT } else { 0 };
        put_hex(self.intended.unix_nanos() & !REPEAT | mark, &mut payload[24..STAMP_BYTES]);
    }

    /// The stamp at the head of `payload`, if there is one.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let head = payload.first_chunk::<STAMP_BYTES>()?;
        let intended = hex(&head[24..])?;
        Some(Self {
            run: u32::try_from(hex(&head[..8])?).ok()?,
            client: u32::try_from(hex(&head[8..16])?).ok()?,
            sequence: u32::try_from(hex(&head[16..24])?).ok()?,
            intended: Instant::from_unix_nanos(intended & !REPEAT),
            repeat: intended & REPEAT != 0,
        })
    }
}

/// The name a sender gives its message: the same whenever it repeats it.
pub(crate) fn client_msg_id(run: u32, sequence: u32) -> [u8; ID_BYTES] {
    let mut id = [0; ID_BYTES];
    put_hex(u64::from(run) << 32 | u64::from(sequence), &mut id);
    id
}

/// The sequence that a client message id of this run names.
pub(crate) fn sequence_of(run: u32, id: &[u8]) -> Option<u32> {
    let packed = (id.len() == ID_BYTES).then(|| hex(id)).flatten()?;
    (packed >> 32 == u64::from(run)).then_some(packed as u32)
}

fn put_hex(value: u64, out: &mut [u8]) {
    let digits = out.len();
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = b"0123456789abcdef"[(value >> (4 * (digits - 1 - i)) & 15) as usize];
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value: u64, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_reads_as_it_was_written() {
        let stamp = Stamp {
            run: 0xdead_beef,
            client: 7,
            sequence: u32::MAX,
            intended: Instant::from_unix_nanos(1_790_000_000_123_456_789),
            repeat: false,
        };
        let mut payload = [b'x'; 60];
        for stamp in [stamp, Stamp { repeat: true, ..stamp }] {
            stamp.write(&mut payload);
            assert_eq!(Stamp::read(&payload), Some(stamp));
        }
        assert_eq!(Stamp::read(&payload[..STAMP_BYTES - 1]), None);
        payload[3] = b'x';
        assert_eq!(Stamp::read(&payload), None);
    }

    #[test]
    fn an_id_names_its_sequence_in_its_run_only() {
        let id = client_msg_id(0xffff_0000, 42);
        assert_eq!(sequence_of(0xffff_0000, &id), Some(42));
        assert_eq!(sequence_of(1, &id), None);
        assert_eq!(sequence_of(0xffff_0000, &id[1..]), None);
    }
}
