use ed25519_dalek::{Signer, SigningKey};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use super::*;

const SECRET: &[u8] = b"a secret of the tests";
const NOW: u64 = 1_800_000_000;

fn claims() -> Claims {
    Claims { app: AppId(1), user: UserId(10_001), device: DeviceClass::Web, exp: NOW + 60 }
}

/// What is verified of a token that says no more.
fn plain(claims: Claims) -> Verified {
    Verified { claims, issued_secs: 0, login: 0 }
}

#[test]
fn a_minted_token_is_verified() {
    let token = mint_hs256(SECRET, &claims());
    assert_eq!(TokenKeys::hs256(SECRET).verify(&token, NOW), Ok(plain(claims())));
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
        let refused = keys.verify(&forged, NOW).expect_err("it was not signed");
        let reasons = [TokenError::Malformed, TokenError::UnknownKey, TokenError::Forged];
        assert!(reasons.contains(&refused), "byte {at}: {refused:?}");
    }
}

#[test]
fn another_secret_and_no_algorithm_are_refused() {
    let token = mint_hs256(b"another", &claims());
    assert_eq!(TokenKeys::hs256(SECRET).verify(&token, NOW), Err(TokenError::Forged));
    let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims()).unwrap());
    let none = format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
    assert_eq!(TokenKeys::hs256(SECRET).verify(&none, NOW), Err(TokenError::UnknownKey));
}

#[test]
fn eddsa_is_verified_by_the_public_key() {
    let signing = SigningKey::from_bytes(&[7; 32]);
    let claims_json = serde_json::to_vec(&claims()).unwrap();
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#), URL_SAFE_NO_PAD.encode(claims_json));
    let signature = signing.sign(signed.as_bytes()).to_bytes();
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    let keys = TokenKeys::hs256(SECRET).with_ed25519(signing.verifying_key().as_bytes()).unwrap();
    assert_eq!(keys.verify(&token, NOW), Ok(plain(claims())));
    assert_eq!(TokenKeys::hs256(SECRET).verify(&token, NOW), Err(TokenError::UnknownKey));
}

/// A token with this header and these claims.
fn signed(header: &str, claims: &str) -> Result<Verified, TokenError> {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = Mac::chain_update(keyed(SECRET), &signed).finalize().into_bytes();
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    TokenKeys::hs256(SECRET).verify(&token, NOW)
}

/// With more claims beside the usual ones.
fn claiming(more: &str) -> Result<Verified, TokenError> {
    signed(r#"{"alg":"HS256"}"#, &format!(r#"{{"exp":{},{more}}}"#, NOW + 60))
}

#[test]
fn a_token_without_a_device_is_a_phones() {
    assert_eq!(claiming(r#""app":1,"user":2"#).map(|token| token.claims.device), Ok(DeviceClass::Phone));
}

#[test]
fn a_token_is_not_good_before_its_time() {
    let not_before = |nbf: u64| claiming(&format!(r#""app":1,"user":2,"nbf":{nbf}"#)).err();
    assert_eq!(not_before(0), None);
    assert_eq!(not_before(NOW + NBF_LEEWAY_SECS), None, "clocks differ a little");
    assert_eq!(not_before(NOW + NBF_LEEWAY_SECS + 1), Some(TokenError::NotYet));
    assert_eq!(not_before(u64::MAX), Some(TokenError::NotYet));
    assert_eq!(claiming(r#""app":1,"user":2,"nbf":"soon""#), Err(TokenError::Malformed));
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
        assert_eq!(claiming(nobody), Err(TokenError::Malformed), "{nobody}");
    }
    assert_eq!(claiming(r#""app":2147483647,"user":9223372036854775807"#).err(), None);
}

#[test]
fn what_must_be_understood_and_is_not_refuses_a_token() {
    let claims = format!(r#"{{"app":1,"user":2,"exp":{}}}"#, NOW + 60);
    assert_eq!(signed(r#"{"alg":"HS256","typ":"JWT"}"#, &claims).err(), None);
    let critical = r#"{"alg":"HS256","crit":["b64"],"b64":false}"#;
    assert_eq!(signed(critical, &claims), Err(TokenError::Malformed));
}

/// What signs tokens with a private key.
enum Signing {
    Rs256(RsaKeyPair),
    Es256(EcdsaKeyPair),
}

impl Signing {
    fn rsa() -> Self {
        Self::Rs256(RsaKeyPair::from_pkcs8(include_bytes!("tests/rsa.pk8")).unwrap())
    }

    fn p256() -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self::Es256(EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap())
    }

    fn alg(&self) -> &'static str {
        match self {
            Self::Rs256(_) => "RS256",
            Self::Es256(_) => "ES256",
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rs256(pair) => {
                let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": text(&n), "e": text(&e)})
            }
            Self::Es256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": text(x), "y": text(y)})
            }
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let random = SystemRandom::new();
        let signature = match self {
            Self::Rs256(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            Self::Es256(pair) => pair.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token that names its key.
    fn token(&self, kid: &str, more: Value) -> String {
        let mut claims = json!({"app": 1, "user": 10_001, "device": "web", "exp": NOW + 60});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.sign(&json!({"alg": self.alg(), "kid": kid}), &claims)
    }
}

fn keys_of(keys: &[Value]) -> TokenKeys {
    let jwks = Jwks::read(json!({ "keys": keys }).to_string().as_bytes(), Secrets::Taken).unwrap();
    assert_eq!((jwks.len(), jwks.ignored.as_slice()), (keys.len(), &[][..]));
    TokenKeys::default().with_jwks(&jwks)
}

#[test]
fn rs256_and_es256_are_verified_by_the_keys_of_a_set() {
    let (rsa, p256) = (Signing::rsa(), Signing::p256());
    let keys = keys_of(&[rsa.jwk("a"), p256.jwk("b")]);
    for token in [rsa.token("a", json!({})), p256.token("b", json!({}))] {
        assert_eq!(keys.verify(&token, NOW), Ok(plain(claims())));
        for at in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert!(keys.verify(std::str::from_utf8(&forged).unwrap(), NOW).is_err(), "byte {at}");
        }
    }
    let other = Signing::p256();
    assert_eq!(keys.verify(&other.token("b", json!({})), NOW), Err(TokenError::Forged));
    assert_eq!(keys.verify(&p256.token("c", json!({})), NOW), Err(TokenError::UnknownKey));
    assert_eq!(TokenKeys::default().verify("", NOW), Err(TokenError::NoKeys));
    let awaiting = keys.awaiting();
    assert_eq!(awaiting.verify(&p256.token("c", json!({})), NOW), Err(TokenError::NoKeys), "it may come");
    assert_eq!(awaiting.verify(&other.token("b", json!({})), NOW), Err(TokenError::Forged));
}

/// The examples of RFC 7515, appendices A.2 and A.3.
#[test]
fn signatures_of_others_are_verified() {
    let rsa = json!({"kty": "RSA", "e": "AQAB", "n": concat!(
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR",
        "T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXB",
        "dQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9ia",
        "GNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    )});
    let p256 = json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
    let claims = concat!(
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt",
        "cGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
    );
    let rsa_signature = concat!(
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9",
        "uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB",
        "_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rq",
        "Vt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
    );
    let p256_signature =
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    for (key, header, signature) in
        [(rsa, r#"{"alg":"RS256"}"#, rsa_signature), (p256, r#"{"alg":"ES256"}"#, p256_signature)]
    {
        let header = URL_SAFE_NO_PAD.encode(header);
        let (signed, signature) = (format!("{header}.{claims}"), decode(signature).unwrap());
        let check =
            |signed: &str| keys_of(std::slice::from_ref(&key)).check_signature(&header, signed, &signature);
        assert_eq!(check(&signed), Ok(()));
        assert_eq!(check(&signed[1..]), Err(TokenError::Forged));
    }
}

/// A header that names another algorithm than that of the key does not make it the key's.
#[test]
fn a_token_chooses_no_algorithm_for_a_key() {
    let rsa = Signing::rsa();
    let jwk = rsa.jwk("a");
    let keys = keys_of(&[jwk.clone(), Signing::p256().jwk("b")]);
    // What everybody knows of the key, taken for a secret.
    let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    let claims = json!({"app": 1, "user": 10_001, "exp": NOW + 60}).to_string();
    let by_secret = |header: &str| {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(&claims));
        let signature = Mac::chain_update(keyed(&modulus), &signed).finalize().into_bytes();
        keys.verify(&format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)), NOW)
    };
    for header in [r#"{"alg":"HS256","kid":"a"}"#, r#"{"alg":"HS256"}"#, r#"{"alg":"none"}"#] {
        assert_eq!(by_secret(header), Err(TokenError::UnknownKey), "{header}");
    }
    assert_eq!(by_secret(r#"{"alg":"RS256","kid":"a"}"#), Err(TokenError::Forged));
    for alg in ["RS384", "PS256", "rs256", "ES256", "none", ""] {
        let token =
            rsa.sign(&json!({"alg": alg, "kid": "a"}), &json!({"app": 1, "user": 1, "exp": NOW + 60}));
        assert_eq!(keys.verify(&token, NOW), Err(TokenError::UnknownKey), "{alg}");
    }
}

#[test]
fn keys_are_rotated_by_their_kid() {
    let (old, new) = (Signing::p256(), Signing::p256());
    let both = keys_of(&[old.jwk("1"), new.jwk("2")]);
    for (kid, key) in [("1", &old), ("2", &new)] {
        assert!(both.verify(&key.token(kid, json!({})), NOW).is_ok());
    }
    assert_eq!(both.verify(&old.token("2", json!({})), NOW), Err(TokenError::Forged));
    // Without a kid, a few are tried.
    let unnamed = |key: &Signing| {
        key.sign(&json!({"alg": "ES256"}), &json!({"app": 1, "user": 10_001, "exp": NOW + 60}))
    };
    assert!(both.verify(&unnamed(&old), NOW).is_ok() && both.verify(&unnamed(&new), NOW).is_ok());
    let others = (0..TRIES_MAX).map(|at| Signing::p256().jwk(&format!("x{at}")));
    let many = keys_of(&others.chain([new.jwk("2")]).collect::<Vec<_>>());
    assert_eq!(many.verify(&unnamed(&new), NOW), Err(TokenError::Forged), "past the tries");
    assert!(many.verify(&new.token("2", json!({})), NOW).is_ok());
    // A secret of the configuration has no kid, and is for tokens with any.
    let secret = json!({"kty": "oct", "kid": "s", "k": URL_SAFE_NO_PAD.encode([7; 32])});
    let keys = TokenKeys::hs256(SECRET)
        .with_jwks(&Jwks::read(json!({"keys": [secret]}).to_string().as_bytes(), Secrets::Taken).unwrap());
    assert!(keys.verify(&mint_hs256(SECRET, &claims()), NOW).is_ok());
    assert!(keys.verify(&mint_hs256(&[7; 32], &claims()), NOW).is_ok());
}

#[test]
fn audience_and_issuer_are_looked_at_if_they_are_wanted() {
    let key = Signing::p256();
    let any = keys_of(&[key.jwk("k")]);
    let strict = any.clone().expecting(&["im".into(), "live".into()], &["https://login.example".into()]);
    let told = |claims: Value| {
        (
            any.verify(&key.token("k", claims.clone()), NOW).err(),
            strict.verify(&key.token("k", claims), NOW).err(),
        )
    };
    let issuer = "https://login.example";
    assert_eq!(told(json!({"aud": "im", "iss": issuer})), (None, None));
    assert_eq!(told(json!({"aud": ["web", "live"], "iss": issuer})), (None, None));
    for aud in [json!("web"), json!(["web"]), json!([]), json!(7), json!(null), json!("i"), json!(["im", 7])]
    {
        assert_eq!(told(json!({"aud": aud, "iss": issuer})), (None, Some(TokenError::Audience)), "{aud}");
    }
    assert_eq!(told(json!({"iss": issuer})), (None, Some(TokenError::Audience)));
    for iss in [json!("https://login.example/"), json!(1), json!(null)] {
        assert_eq!(told(json!({"aud": "im", "iss": iss})), (None, Some(TokenError::Issuer)), "{iss}");
    }
}

#[test]
fn a_token_says_when_it_was_made_and_of_which_login() {
    let key = Signing::p256();
    let keys = keys_of(&[key.jwk("k")]);
    let told = |more: Value| {
        let token = keys.verify(&key.token("k", more), NOW).unwrap();
        (token.issued_secs, token.login)
    };
    assert_eq!(told(json!({})), (0, 0));
    assert_eq!(told(json!({"iat": NOW, "sid": "one", "jti": "two"})), (NOW, login_tag("one")));
    assert_eq!(told(json!({"iat": 1_700_000_000.5, "jti": "two"})), (1_700_000_000, login_tag("two")));
    assert_eq!(told(json!({"iat": "soon", "sid": 7, "jti": ["x"]})), (0, 0), "it may be anything");
    assert_ne!(login_tag("one"), login_tag("two"));
    let more = MoreClaims { iat: Some(NOW), aud: Some("im"), iss: Some("us"), sid: Some("one") };
    let minted = mint_hs256_with(SECRET, &claims(), &more);
    let expected = Verified { claims: claims(), issued_secs: NOW, login: login_tag("one") };
    let strict = TokenKeys::hs256(SECRET).expecting(&["im".into()], &["us".into()]);
    assert_eq!(strict.verify(&minted, NOW), Ok(expected));
    assert_eq!(strict.verify(&mint_hs256(SECRET, &claims()), NOW), Err(TokenError::Audience));
}
