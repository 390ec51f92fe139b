//! Login tokens: JSON Web Tokens (RFC 7519) in the compact form of RFC 7515, signed by HS256, EdDSA
//! (Ed25519), ES256 or RS256.
//!
//! Claims: `app` and `user` (above 0), `device` (a name, default `phone`), `exp` and, if they are there,
//! `nbf` and `iat` (UNIX seconds), and `sid` or `jti`, which name the login that the token came from. `aud`
//! and `iss` are checked if the configuration names some. A shard verifies a token by itself, without any
//! call.
//!
//! A key is for one algorithm. A token's header chooses among the keys by algorithm and `kid`; it never says
//! how a key is used.

mod jwks;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use wire::client::TOKEN_BYTES_MAX;
use wire::{AppId, DeviceClass, UserId};

pub use jwks::{JWKS_BYTES_MAX, Jwks, Secrets};

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

/// The other claims of a token of [`mint_hs256_with`].
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub struct MoreClaims<'a> {
    /// When it was made, in UNIX seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// Whom it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<&'a str>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<&'a str>,
    /// The login that it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<&'a str>,
}

/// A token that was verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verified {
    /// Who the token is for, and until when.
    pub claims: Claims,
    /// When it was made, in UNIX seconds; 0 if unknown.
    pub issued_secs: u64,
    /// [`login_tag`] of the login that it came from; 0 if unknown.
    pub login: u64,
}

/// How far ahead a token's `nbf` may lie: the clocks of signers and verifiers differ.
const NBF_LEEWAY_SECS: u64 = 30;
/// How many keys of its algorithm a token without `kid` is tried with at most: each try costs time, and
/// anybody may ask for it.
const TRIES_MAX: usize = 4;

/// Why a token is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenError {
    /// It is no token, names no user, or needs something that is not known here.
    Malformed,
    /// There is no key for its algorithm and `kid`.
    UnknownKey,
    /// No key that may have signed it has signed it.
    Forged,
    /// It is not valid yet.
    NotYet,
    /// It has expired.
    Expired,
    /// It is for another audience.
    Audience,
    /// It is from an issuer that is not accepted.
    Issuer,
    /// Its user or its login was revoked.
    Revoked,
    /// There is no key yet.
    NoKeys,
}

impl TokenError {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::Malformed,
        Self::UnknownKey,
        Self::Forged,
        Self::NotYet,
        Self::Expired,
        Self::Audience,
        Self::Issuer,
        Self::Revoked,
        Self::NoKeys,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::Forged => "forged",
            Self::NotYet => "not_yet",
            Self::Expired => "expired",
            Self::Audience => "audience",
            Self::Issuer => "issuer",
            Self::Revoked => "revoked",
            Self::NoKeys => "no_keys",
        }
    }
}

/// The keys that tokens are checked with, and which audiences and issuers they must name. Clones share the
/// keys.
#[derive(Clone, Debug, Default)]
pub struct TokenKeys {
    keys: Arc<[Key]>,
    /// A token must be for one of these; empty: for any.
    audiences: Arc<[String]>,
    /// A token must be from one of these; empty: from any.
    issuers: Arc<[String]>,
    /// Whether more keys are to come.
    awaits: bool,
}

/// A key, and the tokens it is for.
#[derive(Clone, Debug)]
struct Key {
    /// None: tokens with any `kid`, and with none.
    kid: Option<Box<str>>,
    verifier: Verifier,
}

#[derive(Clone)]
enum Verifier {
    /// Keyed once; cloned for each token.
    Hs256(Box<Hmac<Sha256>>),
    EdDsa(Box<VerifyingKey>),
    /// A point that is not compressed.
    Es256(Box<[u8]>),
    Rs256 {
        n: Box<[u8]>,
        e: Box<[u8]>,
    },
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.alg())
    }
}

impl Verifier {
    /// The only `alg` that it is for (RFC 7518, section 3.1; RFC 8037).
    const fn alg(&self) -> &'static str {
        match self {
            Self::Hs256(_) => "HS256",
            Self::EdDsa(_) => "EdDSA",
            Self::Es256(_) => "ES256",
            Self::Rs256 { .. } => "RS256",
        }
    }

    fn has_signed(&self, signed: &str, signature: &[u8]) -> bool {
        match self {
            Self::Hs256(keyed) => {
                Mac::chain_update(Hmac::clone(keyed), signed).verify_slice(signature).is_ok()
            }
            Self::EdDsa(key) => Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(signed.as_bytes(), &signature).is_ok()),
            Self::Es256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(signed.as_bytes(), signature)
                .is_ok(),
            Self::Rs256 { n, e } => RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), signature)
                .is_ok(),
        }
    }
}

impl TokenKeys {
    /// Keys for tokens signed by HS256 with `secret`.
    pub fn hs256(secret: &[u8]) -> Self {
        Self::default().with(Key { kid: None, verifier: Verifier::Hs256(Box::new(keyed(secret))) })
    }

    /// Accepts tokens signed by EdDSA with this public key too. Fails when the bytes are no point on the
    /// curve.
    pub fn with_ed25519(self, public_key: &[u8; 32]) -> Result<Self, TokenError> {
        let key = VerifyingKey::from_bytes(public_key).map_err(|_| TokenError::Malformed)?;
        Ok(self.with(Key { kid: None, verifier: Verifier::EdDsa(Box::new(key)) }))
    }

    /// Accepts tokens signed with the keys of a set too.
    pub fn with_jwks(mut self, jwks: &Jwks) -> Self {
        self.keys = self.keys.iter().chain(&jwks.keys).cloned().collect();
        self
    }

    /// Accepts only tokens for one of `audiences`, from one of `issuers`; an empty list accepts any.
    pub fn expecting(mut self, audiences: &[String], issuers: &[String]) -> Self {
        (self.audiences, self.issuers) = (audiences.into(), issuers.into());
        self
    }

    /// Says that more keys are to come: a token of an unknown key may be good, so its client is to come back.
    pub fn awaiting(mut self) -> Self {
        self.awaits = true;
        self
    }

    fn with(mut self, key: Key) -> Self {
        self.keys = self.keys.iter().cloned().chain([key]).collect();
        self
    }

    /// Whether there is no key: nobody can log in.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whose token it is, if its signature and its times are right at `now_unix_secs`.
    pub fn verify(&self, token: &str, now_unix_secs: u64) -> Result<Verified, TokenError> {
        if self.is_empty() {
            return Err(TokenError::NoKeys);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        self.check_signature(header, signed, &decode(signature)?)?;
        let claims = decode(claims)?;
        let said: Signed<'_> = serde_json::from_slice(&claims).map_err(|_| TokenError::Malformed)?;
        let Signed { app, user, device, exp, nbf, .. } = said;
        // 0 stands for nobody, and for the backend as a sender.
        if app.0 <= 0 || user.0 <= 0 {
            return Err(TokenError::Malformed);
        }
        if !is_among(&self.audiences, said.aud) {
            return Err(TokenError::Audience);
        }
        if !is_among(&self.issuers, said.iss) {
            return Err(TokenError::Issuer);
        }
        if nbf > now_unix_secs.saturating_add(NBF_LEEWAY_SECS) {
            return Err(TokenError::NotYet);
        }
        if exp <= now_unix_secs {
            return Err(TokenError::Expired);
        }
        let login = text(said.sid).or_else(|| text(said.jti));
        let issued = said.iat.and_then(|iat| serde_json::from_str::<f64>(iat.get()).ok());
        Ok(Verified {
            claims: Claims { app, user, device, exp },
            issued_secs: issued.unwrap_or_default() as u64,
            login: login.as_deref().map_or(0, login_tag),
        })
    }

    fn check_signature(&self, header: &str, signed: &str, signature: &[u8]) -> Result<(), TokenError> {
        let header = decode(header)?;
        let Header { alg, kid, crit } = serde_json::from_slice(&header).map_err(|_| TokenError::Malformed)?;
        // RFC 7515, section 4.1.11: refuse a token with a `crit` that we do not understand.
        if crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let kid = text(kid);
        let is_meant = |key: &&Key| {
            let is_named = match (&key.kid, &kid) {
                (Some(own), Some(kid)) => **own == **kid,
                _ => true,
            };
            is_named && key.verifier.alg() == alg
        };
        let mut meant = self.keys.iter().filter(is_meant).take(TRIES_MAX).peekable();
        if meant.peek().is_none() {
            return Err(if self.awaits { TokenError::NoKeys } else { TokenError::UnknownKey });
        }
        match meant.any(|key| key.verifier.has_signed(signed, signature)) {
            true => Ok(()),
            false => Err(TokenError::Forged),
        }
    }
}

/// The tag by which a login can be revoked. Two logins of one user never get the same tag by chance.
pub fn login_tag(login: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = Sha256::digest(login).0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1)
}

/// A token for `claims`, signed by HS256 with `secret`.
pub fn mint_hs256(secret: &[u8], claims: &Claims) -> String {
    mint_hs256_with(secret, claims, &MoreClaims::default())
}

/// The same with more claims.
pub fn mint_hs256_with(secret: &[u8], claims: &Claims, more: &MoreClaims<'_>) -> String {
    #[derive(Serialize)]
    struct All<'a> {
        #[serde(flatten)]
        claims: &'a Claims,
        #[serde(flatten)]
        more: &'a MoreClaims<'a>,
    }
    let mut token = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = serde_json::to_vec(&All { claims, more }).expect("claims are plain numbers and names");
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut token);
    let signature = Mac::chain_update(keyed(secret), &token).finalize().into_bytes();
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    token
}

#[derive(Deserialize)]
struct Header<'a> {
    alg: &'a str,
    #[serde(borrow)]
    kid: Option<&'a RawValue>,
    crit: Option<IgnoredAny>,
}

/// The parts of a token that are read. Other members may be anything.
#[derive(Deserialize)]
struct Signed<'a> {
    app: AppId,
    user: UserId,
    #[serde(default = "phone")]
    device: DeviceClass,
    exp: u64,
    /// The start of its validity, in UNIX seconds.
    #[serde(default)]
    nbf: u64,
    #[serde(borrow)]
    iat: Option<&'a RawValue>,
    aud: Option<&'a RawValue>,
    iss: Option<&'a RawValue>,
    sid: Option<&'a RawValue>,
    jti: Option<&'a RawValue>,
}

/// Whether a claim (a text, or an array of texts) names one of `wanted`; true if `wanted` is empty.
fn is_among(wanted: &[String], said: Option<&RawValue>) -> bool {
    if wanted.is_empty() {
        return true;
    }
    let all = said.and_then(|said| serde_json::from_str::<Vec<String>>(said.get()).ok());
    let all = all.or_else(|| text(said).map(|one| vec![one])).unwrap_or_default();
    all.iter().any(|one| wanted.contains(one))
}

fn text(said: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(said?.get()).ok()
}

fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret).expect("HMAC takes a key of any length")
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)
}

fn phone() -> DeviceClass {
    DeviceClass::Phone
}

#[cfg(test)]
mod tests;
