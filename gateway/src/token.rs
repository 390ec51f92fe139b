//! Login tokens: JSON Web Tokens (RFC 7519) in the compact form of RFC 7515, signed by HS256 or EdDSA
//! (Ed25519).
//!
//! Claims: `app` and `user` (above 0), `device` (a name, default `phone`), `exp` and, if it is there, `nbf`
//! (UNIX seconds). A shard verifies a token by itself: no call to anybody.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use wire::client::TOKEN_BYTES_MAX;
use wire::{AppId, DeviceClass, UserId};

/// Who a session is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Claims {
    /// The tenant.
    pub app: AppId,
    /// The user.
    pub user: UserId,
    /// The kind of device.
    pub device: DeviceClass,
    /// When the token ends, in UNIX seconds.
    pub exp: u64,
}

/// How far a token's `nbf` may lie ahead: the clocks of those who sign and those who verify are not one.
const NBF_LEEWAY_SECS: u64 = 30;

/// Why a token is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenError {
    /// Malformed, forged, signed by an algorithm or key that is not ours, of no user, or not good yet.
    Invalid,
    /// It was good once.
    Expired,
}

/// The keys that tokens are checked with.
#[derive(Clone)]
pub struct TokenKeys {
    /// Keyed once; cloned per token.
    hmac: Option<Hmac<Sha256>>,
    ed25519: Option<VerifyingKey>,
}

impl TokenKeys {
    /// Keys for tokens signed by HS256 with `secret`.
    pub fn hs256(secret: &[u8]) -> Self {
        Self { hmac: Some(keyed(secret)), ed25519: None }
    }

    /// Accepts tokens signed by EdDSA with this public key too. Fails when the bytes are no point on the
    /// curve.
    pub fn with_ed25519(mut self, public_key: &[u8; 32]) -> Result<Self, TokenError> {
        self.ed25519 = Some(VerifyingKey::from_bytes(public_key).map_err(|_| TokenError::Invalid)?);
        Ok(self)
    }

    /// Who the token speaks of, if its signature and its times hold at `now_unix_secs`.
    pub fn verify(&self, token: &str, now_unix_secs: u64) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Invalid)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Invalid)?;
        let signature = decode(signature)?;
        let header = decode(header)?;
        let header: Header<'_> = serde_json::from_slice(&header).map_err(|_| TokenError::Invalid)?;
        // RFC 7515, section 4.1.11: what must be understood and is not refuses the token.
        if header.crit.is_some() {
            return Err(TokenError::Invalid);
        }
        match (header.alg, &self.hmac, &self.ed25519) {
            ("HS256", Some(keyed), _) => {
                keyed
                    .clone()
                    .chain_update(signed)
                    .verify_slice(&signature)
                    .map_err(|_| TokenError::Invalid)?;
            }
            ("EdDSA", _, Some(key)) => {
                let signature = Signature::from_slice(&signature).map_err(|_| TokenError::Invalid)?;
                key.verify_strict(signed.as_bytes(), &signature).map_err(|_| TokenError::Invalid)?;
            }
            _ => return Err(TokenError::Invalid),
        }
        let Signed { app, user, device, exp, nbf } =
            serde_json::from_slice(&decode(claims)?).map_err(|_| TokenError::Invalid)?;
        // 0 stands for nobody, and for the backend as a sender.
        if app.0 <= 0 || user.0 <= 0 || nbf > now_unix_secs.saturating_add(NBF_LEEWAY_SECS) {
            return Err(TokenError::Invalid);
        }
        if exp <= now_unix_secs {
            return Err(TokenError::Expired);
        }
        Ok(Claims { app, user, device, exp })
    }
}

/// A token for `claims`, signed by HS256 with `secret`.
pub fn mint_hs256(secret: &[u8], claims: &Claims) -> String {
    let mut token = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = serde_json::to_vec(claims).expect("claims are plain numbers and names");
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut token);
    let signature = keyed(secret).chain_update(&token).finalize().into_bytes();
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    token
}

#[derive(Deserialize)]
struct Header<'a> {
    alg: &'a str,
    crit: Option<IgnoredAny>,
}

/// What a token says, as it is read.
#[derive(Deserialize)]
struct Signed {
    app: AppId,
    user: UserId,
    #[serde(default = "phone")]
    device: DeviceClass,
    exp: u64,
    /// Before when it is not good, in UNIX seconds.
    #[serde(default)]
    nbf: u64,
}

fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret).expect("HMAC takes a key of any length")
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Invalid)
}

fn phone() -> DeviceClass {
    DeviceClass::Phone
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};

    use super::*;

    const SECRET: &[u8] = b"a secret of the tests";
    const NOW: u64 = 1_800_000_000;

    fn claims() -> Claims {
        Claims { app: AppId(1), user: UserId(10_001), device: DeviceClass::Web, exp: NOW + 60 }
    }

    #[test]
    fn a_minted_token_is_verified() {
        let token = mint_hs256(SECRET, &claims());
        assert_eq!(TokenKeys::hs256(SECRET).verify(&token, NOW), Ok(claims()));
    }

    #[test]
    fn it_ends_at_its_expiry() {
        let token = mint_hs256(SECRET, &claims());
        assert_eq!(TokenKeys::hs256(SECRET).verify(&token, NOW + 60), Err(TokenError::Expired));
    }

    #[test]
    fn any_changed_byte_is_a_forgery() {
        let keys = TokenKeys::hs256(SECRET);
        let token = mint_hs256(SECRET, &claims());
        for at in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(keys.verify(&forged, NOW), Err(TokenError::Invalid), "byte {at}");
        }
    }

    #[test]
    fn another_secret_and_no_algorithm_are_refused() {
        let token = mint_hs256(b"another", &claims());
        assert_eq!(TokenKeys::hs256(SECRET).verify(&token, NOW), Err(TokenError::Invalid));
        let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims()).unwrap());
        let none = format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
        assert_eq!(TokenKeys::hs256(SECRET).verify(&none, NOW), Err(TokenError::Invalid));
    }

    #[test]
    fn eddsa_is_verified_by_the_public_key() {
        let signing = SigningKey::from_bytes(&[7; 32]);
        let claims_json = serde_json::to_vec(&claims()).unwrap();
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#),
            URL_SAFE_NO_PAD.encode(claims_json)
        );
        let signature = signing.sign(signed.as_bytes()).to_bytes();
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        let keys = TokenKeys::hs256(SECRET).with_ed25519(signing.verifying_key().as_bytes()).unwrap();
        assert_eq!(keys.verify(&token, NOW), Ok(claims()));
        assert_eq!(TokenKeys::hs256(SECRET).verify(&token, NOW), Err(TokenError::Invalid));
    }

    /// A token with this header and these claims.
    fn signed(header: &str, claims: &str) -> Result<Claims, TokenError> {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = keyed(SECRET).chain_update(&signed).finalize().into_bytes();
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        TokenKeys::hs256(SECRET).verify(&token, NOW)
    }

    /// With more claims beside the usual ones.
    fn claiming(more: &str) -> Result<Claims, TokenError> {
        signed(r#"{"alg":"HS256"}"#, &format!(r#"{{"exp":{},{more}}}"#, NOW + 60))
    }

    #[test]
    fn a_token_without_a_device_is_a_phones() {
        assert_eq!(claiming(r#""app":1,"user":2"#).map(|claims| claims.device), Ok(DeviceClass::Phone));
    }

    #[test]
    fn a_token_is_not_good_before_its_time() {
        let not_before = |nbf: u64| claiming(&format!(r#""app":1,"user":2,"nbf":{nbf}"#)).err();
        assert_eq!(not_before(0), None);
        assert_eq!(not_before(NOW + NBF_LEEWAY_SECS), None, "clocks differ a little");
        assert_eq!(not_before(NOW + NBF_LEEWAY_SECS + 1), Some(TokenError::Invalid));
        assert_eq!(not_before(u64::MAX), Some(TokenError::Invalid));
        assert_eq!(claiming(r#""app":1,"user":2,"nbf":"soon""#), Err(TokenError::Invalid));
    }

    #[test]
    fn a_token_is_of_a_user() {
        for nobody in [
            r#""app":1,"user":0"#,
            r#""app":1,"user":-1"#,
            r#""app":1"#,
            r#""app":0,"user":1"#,
            r#""app":-1,"user":1"#,
            r#""app":2147483648,"user":1"#,
            r#""app":1,"user":9223372036854775808"#,
            r#""app":1,"user":1,"device":"toaster""#,
            r#""app":1,"user":1,"user":2"#,
        ] {
            assert_eq!(claiming(nobody), Err(TokenError::Invalid), "{nobody}");
        }
        assert_eq!(claiming(r#""app":2147483647,"user":9223372036854775807"#).err(), None);
    }

    #[test]
    fn what_must_be_understood_and_is_not_refuses_a_token() {
        let claims = format!(r#"{{"app":1,"user":2,"exp":{}}}"#, NOW + 60);
        assert_eq!(signed(r#"{"alg":"HS256","typ":"JWT"}"#, &claims).err(), None);
        let critical = r#"{"alg":"HS256","crit":["b64"],"b64":false}"#;
        assert_eq!(signed(critical, &claims), Err(TokenError::Invalid));
    }
}
