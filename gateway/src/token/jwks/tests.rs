//! Sets of keys that are none, and keys that are not for this.

use serde_json::{Value, json};

use super::*;

const POINT: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";

fn p256() -> Value {
    json!({"kty": "EC", "crv": "P-256", "x": POINT, "y": POINT})
}

fn read(keys: Value) -> Result<Jwks, String> {
    Jwks::read(json!({ "keys": keys }).to_string().as_bytes(), Secrets::Ignored)
}

/// Why a key beside a good one is ignored.
fn ignored(key: Value) -> String {
    let jwks = read(json!([p256(), key])).unwrap();
    assert_eq!(jwks.len(), 1);
    let [why] = jwks.ignored.as_slice() else { panic!("{:?}", jwks.ignored) };
    why.strip_prefix("key 2: ").unwrap().to_owned()
}

/// A good key with a member that is another one.
fn but(name: &str, value: Value) -> Value {
    let mut key = p256();
    key[name] = value;
    key
}

#[test]
fn keys_that_are_not_for_this_are_ignored_with_the_reason() {
    let modulus = |bytes: usize| URL_SAFE_NO_PAD.encode(vec![0x81; bytes]);
    let rsa = |bytes: usize, e: &str| json!({"kty": "RSA", "n": modulus(bytes), "e": e});
    for (key, why) in [
        (json!({"kty": "EC", "crv": "P-384", "x": "", "y": ""}), "kty: \"EC\" on \"P-384\" is not known"),
        (json!({"kty": "AKP"}), "kty: \"AKP\" is not known"),
        (json!({"kid": "x"}), "no key: missing field `kty`"),
        (json!("x"), "no key: "),
        (but("use", json!("enc")), "use: "),
        (but("key_ops", json!(["sign"])), "key_ops: "),
        (but("alg", json!("ES384")), "alg: \"ES384\"; want ES256"),
        (but("alg", json!("HS256")), "alg: \"HS256\"; want ES256"),
        (but("x", json!("AQAB")), "x: 3 bytes; want 32"),
        (but("y", json!("+/==")), "y: no base64url"),
        (but("y", json!(null)), "y: is not there"),
        (but("kid", json!("k".repeat(257))), "kid: longer"),
        (rsa(128, "AQAB"), "n: 1024 bits; want 2048 to 4096"),
        (rsa(1024, "AQAB"), "n: 8192 bits; want 2048 to 4096"),
        (rsa(256, "AQ"), "e: want an odd number"),
        (rsa(256, "AQAA"), "e: want an odd number"),
        (rsa(256, "AQAAAAE"), "e: want an odd number"),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode([2; 32])}), "x: no point"),
        (json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode([1; 32])}), "kty: a secret"),
    ] {
        let said = ignored(key.clone());
        assert!(said.starts_with(why), "{key}: {said}");
    }
    let set =
        |secret: &[u8]| json!({"keys": [{"kty": "oct", "k": URL_SAFE_NO_PAD.encode(secret)}]}).to_string();
    assert_eq!(Jwks::read(set(&[1; 16]).as_bytes(), Secrets::Taken).unwrap().len(), 1);
    let short = Jwks::read(set(&[1; 15]).as_bytes(), Secrets::Taken).unwrap_err();
    assert_eq!(short, "no key to verify tokens with; key 1: k: 15 bytes; want 16 to 1024");
}

#[test]
fn a_set_without_a_usable_key_is_refused() {
    assert_eq!(read(json!([])).unwrap_err(), "no key to verify tokens with; it is empty");
    assert!(read(json!([{"kty": "AKP"}])).unwrap_err().contains("key 1: kty: \"AKP\""));
    assert!(read(json!(vec![p256(); JWKS_KEYS_MAX])).is_ok());
    assert_eq!(read(json!(vec![p256(); JWKS_KEYS_MAX + 1])).unwrap_err(), "65 keys; want at most 64");
    for text in ["", "{}", "[]", "<html>", r#"{"keys":{}}"#] {
        let said = Jwks::read(text.as_bytes(), Secrets::Ignored).unwrap_err();
        assert!(said.starts_with("no JSON Web Key Set: "), "{text}: {said}");
    }
    let long = format!("{}{}", json!({"keys": [p256()]}), " ".repeat(JWKS_BYTES_MAX));
    assert_eq!(Jwks::read(long.as_bytes(), Secrets::Ignored).unwrap_err(), "longer than 262144 bytes");
}
