//! Randomness of the operating system.

/// Random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    bytes
}

/// Random bytes as hexadecimal digits, two for each byte.
pub fn hex<const N: usize>() -> String {
    crate::hex::text(&bytes::<N>())
}

/// A number below `bound`, which is not 0. The bias of the remainder is below 2^-32 for bounds below 2^32.
pub fn below(bound: u64) -> u64 {
    u64::from_ne_bytes(bytes()) % bound
}
