//! Login tokens: as they come, and with header and claims of any kind that are signed rightly.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gateway::{Claims, Jwks, Secrets, TokenKeys, mint_hs256};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wire::{AppId, DeviceClass, UserId};

const SECRET: &[u8] = b"a secret of the fuzz targets";
const NOW_SECS: u64 = 1_767_225_600;

/// The first byte says whether the rest is a whole token, header and claims apart by a zero byte, or a key
/// set.
pub(crate) fn run(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    if kind & 2 != 0 {
        if let Ok(set) = Jwks::read(rest, Secrets::Taken) {
            let keys = TokenKeys::default().with_jwks(&set);
            for alg in ["HS256", "EdDSA", "ES256", "RS256"] {
                let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}"}}"#));
                let refused = keys.verify(&format!("{header}.e30.AAAA"), NOW_SECS);
                assert!(refused.is_err(), "four bytes are no signature: {refused:?}");
            }
        }
        return;
    }
    let keys = TokenKeys::hs256(SECRET).with_ed25519(&[7; 32]).unwrap_or_else(|_| TokenKeys::hs256(SECRET));
    if kind & 1 == 0 {
        if let Ok(token) = std::str::from_utf8(rest) {
            let _ = keys.verify(token, NOW_SECS);
        }
        return;
    }
    let mut parts = rest.splitn(2, |byte| *byte == 0);
    let (header, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("HMAC takes a key of any length");
    mac.update(signed.as_bytes());
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));
    if let Ok(verified) = keys.verify(&token, NOW_SECS) {
        assert!(verified.claims.exp > NOW_SECS, "an expired token logs in: {verified:?}");
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let claims = Claims { app: AppId(1), user: UserId(7), device: DeviceClass::Web, exp: NOW_SECS + 60 };
    let token = mint_hs256(SECRET, &claims);
    let whole = [&[0], token.as_bytes()].concat();
    let parts: Vec<Vec<u8>> =
        token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).expect("a token is base64")).collect();
    let signed = [&[1][..], &parts[0], &[0], &parts[1]].concat();
    let eddsa = [&[1][..], br#"{"alg":"EdDSA"}"#, &[0], &parts[1]].concat();
    let point = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    let modulus = URL_SAFE_NO_PAD.encode([0x81; 256]);
    let set = format!(
        r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"{point}","y":"{point}"}},{{"kty":"RSA","n":"{modulus}","e":"AQAB"}},{{"kty":"OKP","crv":"Ed25519","x":"{point}"}},{{"kty":"oct","k":"{point}"}}]}}"#
    );
    let set = [&[2], set.as_bytes()].concat();
    vec![whole, signed, eddsa, set, b"\0a.b.c".to_vec()]
}
