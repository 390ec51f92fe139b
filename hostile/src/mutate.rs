//! Mutations by seed, for where no coverage guides.

use shard::Prng;

/// Values at which parsers and arithmetic go wrong.
const BYTES: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'[', b'\\', b'-', b'9', b','];
const NUMBERS: [u64; 6] = [0, 1, u32::MAX as u64, i64::MAX as u64, 1 << 63, u64::MAX];

/// Changes bytes a little, with pieces of another input among them.
pub fn mutate(bytes: &mut Vec<u8>, other: &[u8], prng: &mut Prng) {
    for _ in 0..=prng.below(4) {
        let at = prng.below(bytes.len() as u64 + 1) as usize;
        let has_one = at < bytes.len();
        match prng.below(7) {
            0 if has_one => bytes[at] ^= 1 << prng.below(8),
            1 if has_one => bytes[at] = BYTES[prng.below(BYTES.len() as u64) as usize],
            2 if has_one => drop(bytes.remove(at)),
            3 => bytes.insert(at, prng.next_u64() as u8),
            4 if at + 8 <= bytes.len() => {
                let number = NUMBERS[prng.below(NUMBERS.len() as u64) as usize];
                bytes[at..at + 8].copy_from_slice(&number.to_be_bytes());
            }
            5 if !other.is_empty() => {
                let from = prng.below(other.len() as u64) as usize;
                let piece = other[from..].iter().copied().take(1 + prng.below(64) as usize);
                bytes.splice(at..at, piece);
            }
            _ => {
                let until = (at + prng.below(32) as usize).min(bytes.len());
                bytes.drain(at..until);
            }
        }
    }
}
