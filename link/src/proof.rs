//! Who knows the secret: HMAC-SHA-256 (RFC 2104) over everything that was said, with another label for each
//! side.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wire::node::link::{Frame, NONCE_BYTES, PROOF_BYTES};

/// The key of the cluster.
pub(crate) struct Secret(Hmac<Sha256>);

/// Who proves.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Connector,
    Acceptor,
}

impl Secret {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(Hmac::new_from_slice(bytes).expect("HMAC takes a key of any length"))
    }

    /// The proof of `side` in a handshake that began with these two frames.
    pub(crate) fn proof(
        &self,
        side: Side,
        [hello, challenge]: [&Frame<'_>; 2],
        session: u64,
        received: u64,
    ) -> [u8; PROOF_BYTES] {
        self.mac(side, hello, challenge, session, received).finalize().into_bytes().into()
    }

    /// Whether `proof` is that of `side`. The time it takes does not depend on where they differ.
    pub(crate) fn is_proof(
        &self,
        proof: &[u8; PROOF_BYTES],
        side: Side,
        [hello, challenge]: [&Frame<'_>; 2],
        session: u64,
        received: u64,
    ) -> bool {
        self.mac(side, hello, challenge, session, received).verify_slice(proof).is_ok()
    }

    /// A nonce that nobody can predict without the secret. `seed` is fresh at each start, `count` for each
    /// nonce.
    pub(crate) fn nonce(&self, seed: u64, count: u64) -> [u8; NONCE_BYTES] {
        let mut mac = self.0.clone();
        mac.update(b"sailfish nonce");
        mac.update(&seed.to_be_bytes());
        mac.update(&count.to_be_bytes());
        let bytes: [u8; PROOF_BYTES] = mac.finalize().into_bytes().into();
        *bytes.first_chunk().expect("a nonce is shorter than a proof")
    }

    /// The private half of the key pair of TLS: HKDF-Expand (RFC 5869, section 2.3), with the secret as the
    /// key.
    pub(crate) fn tls_key(&self) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(b"sailfish tls\x01");
        mac.finalize().into_bytes().into()
    }

    fn mac(
        &self,
        side: Side,
        hello: &Frame<'_>,
        challenge: &Frame<'_>,
        session: u64,
        received: u64,
    ) -> Hmac<Sha256> {
        let mut said = match side {
            Side::Connector => b"sailfish connector".to_vec(),
            Side::Acceptor => b"sailfish acceptor".to_vec(),
        };
        hello.encode(&mut said);
        challenge.encode(&mut said);
        said.extend_from_slice(&session.to_be_bytes());
        said.extend_from_slice(&received.to_be_bytes());
        let mut mac = self.0.clone();
        mac.update(&said);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl kdf -kdfopt mode:EXPAND_ONLY .. HKDF` gives the same.
    #[test]
    fn the_key_of_tls_is_derived_from_the_secret() {
        let hex = |secret: &[u8]| -> String {
            Secret::new(secret).tls_key().iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let known = "5ae8e026c845262131cca6110a9a1ec90b30ebe66f25dbaf7ff1697a1a90697a";
        assert_eq!(hex(b"the secret of the cluster"), known);
        assert_ne!(hex(b"another secret"), known);
    }
}
