//! What it costs to verify a login token, by algorithm.

use std::hint::black_box;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{Criterion, criterion_group, criterion_main};
use gateway::{Jwks, Secrets, TokenKeys};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};

const NOW_SECS: u64 = 1_800_000_000;

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token of that algorithm, and the set with its key.
fn signed(alg: &str) -> (String, String) {
    let random = SystemRandom::new();
    let header = text(format!(r#"{{"alg":"{alg}","kid":"k"}}"#).as_bytes());
    let claims =
        format!(r#"{{"app":1,"user":10001,"device":"web","exp":{},"iat":1,"sid":"s"}}"#, NOW_SECS + 60);
    let signed = format!("{header}.{}", text(claims.as_bytes()));
    let (signature, key) = match alg {
        "HS256" => {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[7; 32]);
            let signature = ring::hmac::sign(&key, signed.as_bytes()).as_ref().to_vec();
            (signature, format!(r#""kty":"oct","k":"{}""#, text(&[7; 32])))
        }
        "EdDSA" => {
            let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("any seed is good");
            let x = text(pair.public_key().as_ref());
            (
                pair.sign(signed.as_bytes()).as_ref().to_vec(),
                format!(r#""kty":"OKP","crv":"Ed25519","x":"{x}""#),
            )
        }
        "ES256" => {
            let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("there is randomness");
            let pair =
                EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).expect("it was just made");
            let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
            let key = format!(r#""kty":"EC","crv":"P-256","x":"{}","y":"{}""#, text(x), text(y));
            (pair.sign(&random, signed.as_bytes()).expect("there is randomness").as_ref().to_vec(), key)
        }
        _ => {
            let pkcs8 = include_bytes!("../../gateway/src/token/tests/rsa.pk8");
            let pair = RsaKeyPair::from_pkcs8(pkcs8).expect("the tests use it too");
            let mut signature = vec![0; pair.public().modulus_len()];
            pair.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).expect("there is room");
            let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(pair.public());
            (signature, format!(r#""kty":"RSA","n":"{}","e":"{}""#, text(&n), text(&e)))
        }
    };
    (format!("{signed}.{}", text(&signature)), format!(r#"{{"keys":[{{"kid":"k",{key}}}]}}"#))
}

fn verify(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("token/verify");
    for alg in ["HS256", "EdDSA", "ES256", "RS256"] {
        let (token, set) = signed(alg);
        let jwks = Jwks::read(set.as_bytes(), Secrets::Taken).expect("a set of one key");
        let keys = TokenKeys::default().with_jwks(&jwks);
        assert!(keys.verify(&token, NOW_SECS).is_ok(), "{alg}");
        group.bench_function(alg, |bencher| bencher.iter(|| keys.verify(black_box(&token), NOW_SECS)));
    }
    group.finish();
}

criterion_group!(benches, verify);
criterion_main!(benches);
