//! JSON Web Key Sets (RFC 7517): the public keys of token issuers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::VerifyingKey;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Key, Verifier, keyed};

/// The longest set, in bytes.
pub const JWKS_BYTES_MAX: usize = 256 << 10;
/// The most keys of a set, those that are ignored included.
const JWKS_KEYS_MAX: usize = 64;
/// The longest `kid`.
const KID_BYTES_MAX: usize = 256;
/// Bytes of an RSA modulus: 2048 to 4096 bits. A longer one is slow to verify with.
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=512;
/// The longest RSA exponent. It is 65537 nearly always, and a longer one is slow to verify with.
const RSA_EXPONENT_BYTES_MAX: usize = 4;
/// Bytes of an HS256 secret.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=1024;

/// Whether a set may hold secrets (`"kty":"oct"`). One that came over a network may not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Secrets {
    /// They are keys for HS256.
    Taken,
    /// They are ignored.
    Ignored,
}

/// The keys of a set that tokens can be verified with.
#[derive(Clone, Debug)]
pub struct Jwks {
    pub(super) keys: Vec<Key>,
    /// Why each of the others is ignored.
    pub ignored: Vec<String>,
}

impl Jwks {
    /// Reads a set. Keys of other types or for other uses are ignored, as RFC 7517, section 5 requires.
    ///
    /// # Errors
    /// It is no set, it is too long, or it has no usable key.
    pub fn read(text: &[u8], secrets: Secrets) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        if text.len() > JWKS_BYTES_MAX {
            return Err(format!("longer than {JWKS_BYTES_MAX} bytes"));
        }
        let Set { keys: read } =
            serde_json::from_slice(text).map_err(|error| format!("no JSON Web Key Set: {error}"))?;
        if read.len() > JWKS_KEYS_MAX {
            return Err(format!("{} keys; want at most {JWKS_KEYS_MAX}", read.len()));
        }
        let (mut keys, mut ignored) = (Vec::new(), Vec::new());
        for (at, text) in read.into_iter().enumerate() {
            match key(text.get(), secrets) {
                Ok(key) => keys.push(key),
                Err(why) => ignored.push(format!("key {}: {why}", at + 1)),
            }
        }
        if keys.is_empty() {
            let why = ignored.first().map_or_else(|| "it is empty".to_owned(), Clone::clone);
            return Err(format!("no key to verify tokens with; {why}"));
        }
        Ok(Self { keys, ignored })
    }

    /// How many keys can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// The members of RFC 7517 and RFC 7518 that are read.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
}

fn key(text: &str, secrets: Secrets) -> Result<Key, String> {
    let jwk: Jwk = serde_json::from_str(text).map_err(|error| format!("no key: {error}"))?;
    if jwk.kid.as_ref().is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
        return Err(format!("kid: longer than {KID_BYTES_MAX} bytes"));
    }
    if jwk.usage.as_ref().is_some_and(|usage| usage != "sig") {
        return Err("use: it is not for signatures".into());
    }
    if jwk.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
        return Err("key_ops: it is not for verifying".into());
    }
    let verifier = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => rsa(&jwk)?,
        ("EC", Some("P-256")) => p256(&jwk)?,
        ("OKP", Some("Ed25519")) => ed25519(&jwk)?,
        ("oct", _) if secrets == Secrets::Taken => secret(&jwk)?,
        ("oct", _) => return Err("kty: a secret, which is not taken from a URL".into()),
        (kty, crv) => {
            let crv = crv.map(|crv| format!(" on {crv:?}")).unwrap_or_default();
            return Err(format!("kty: {kty:?}{crv} is not known here"));
        }
    };
    // A key is for one algorithm, so that no token chooses another one.
    match &jwk.alg {
        Some(alg) if alg != verifier.alg() => Err(format!("alg: {alg:?}; want {}", verifier.alg())),
        _ => Ok(Key { kid: jwk.kid.map(String::into_boxed_str), verifier }),
    }
}

fn rsa(jwk: &Jwk) -> Result<Verifier, String> {
    let (n, e) = (number("n", &jwk.n)?, number("e", &jwk.e)?);
    if !RSA_MODULUS_BYTES.contains(&n.len()) {
        return Err(format!("n: {} bits; want 2048 to 4096", n.len() * 8));
    }
    let exponent = e.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    if e.len() > RSA_EXPONENT_BYTES_MAX || exponent < 3 || exponent % 2 == 0 {
        return Err("e: want an odd number from 3 to 2^32".into());
    }
    Ok(Verifier::Rs256 { n: n.into(), e: e.into() })
}

fn p256(jwk: &Jwk) -> Result<Verifier, String> {
    // SEC 1, section 2.3.3: a point that is not compressed.
    let mut point = vec![4];
    point.extend(coordinate("x", &jwk.x)?);
    point.extend(coordinate("y", &jwk.y)?);
    Ok(Verifier::Es256(point.into()))
}

fn ed25519(jwk: &Jwk) -> Result<Verifier, String> {
    let key = VerifyingKey::from_bytes(&coordinate("x", &jwk.x)?);
    key.map(|key| Verifier::EdDsa(Box::new(key))).map_err(|_| "x: no point on the curve".into())
}

fn secret(jwk: &Jwk) -> Result<Verifier, String> {
    let secret = bytes("k", &jwk.k)?;
    if !SECRET_BYTES.contains(&secret.len()) {
        let (least, most) = (SECRET_BYTES.start(), SECRET_BYTES.end());
        return Err(format!("k: {} bytes; want {least} to {most}", secret.len()));
    }
    Ok(Verifier::Hs256(Box::new(keyed(&secret))))
}

fn coordinate(name: &str, text: &Option<String>) -> Result<[u8; 32], String> {
    let bytes = bytes(name, text)?;
    let count = bytes.len();
    bytes.try_into().map_err(|_| format!("{name}: {count} bytes; want 32"))
}

/// A number. Some sets put zeros before it, though RFC 7518, section 6.3.1.1 forbids that.
fn number(name: &str, text: &Option<String>) -> Result<Vec<u8>, String> {
    let bytes = bytes(name, text)?;
    Ok(bytes.into_iter().skip_while(|byte| *byte == 0).collect())
}

/// A member in base64url.
fn bytes(name: &str, text: &Option<String>) -> Result<Vec<u8>, String> {
    let text = text.as_deref().ok_or_else(|| format!("{name}: is not there"))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("{name}: no base64url without padding"))
}

#[cfg(test)]
mod tests;
