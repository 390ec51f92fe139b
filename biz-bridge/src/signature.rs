//! The proof for the backend that a request comes from a bridge.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// HMAC-SHA-256 (RFC 2104) of `timestamp "." body` under the secret, in lower-case hexadecimal; the timestamp
/// is in decimal.
pub fn sign(secret: &[u8], timestamp_ms: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(timestamp_ms.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    let bytes = mac.finalize().into_bytes();
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(HEX[usize::from(digit)]))
        .collect()
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf '%s' '1763000000123.{"events":[]}' | openssl dgst -sha256 -hmac 'it is secret'`
    #[test]
    fn it_is_what_openssl_computes() {
        assert_eq!(
            sign(b"it is secret", 1_763_000_000_123, br#"{"events":[]}"#),
            "2c1c8c0e5a4baf9fdad472a2b547dba17e8e5870b6d0c50a4098825baafad930"
        );
    }

    #[test]
    fn every_part_counts() {
        let signature = sign(b"secret", 12, b"3");
        for other in [
            sign(b"secreT", 12, b"3"),
            sign(b"secret", 13, b"3"),
            sign(b"secret", 12, b"4"),
            sign(b"secret", 1, b"2.3"),
        ] {
            assert_ne!(other, signature);
        }
    }
}
