use rustls::crypto::CipherSuiteCommon;
use rustls::{SupportedCipherSuite, Tls13CipherSuite};
use shard::SendBatch;

use super::super::Tls;
use super::*;
use crate::Refusal;

const PRIVATE: [u8; 32] = [7; 32];

/// Both ends of a connection, and the bytes between them.
struct Pair {
    ends: [Tls; 2],
    /// Sealed bytes that have yet to arrive, by who wrote them.
    wire: [Vec<u8>; 2],
    heard: [Vec<u8>; 2],
    ended: [Result<bool, Refusal>; 2],
    /// Bytes of the wire so far, by who wrote them.
    carried: [usize; 2],
    piece: usize,
}

impl Pair {
    fn new(connecting: &SharedKey, accepting: &SharedKey, piece: usize) -> Self {
        let mut hello = Vec::new();
        let ends = [Tls::connect(connecting, &mut hello).unwrap(), Tls::accept(accepting)];
        let wire = [hello, Vec::new()];
        let heard = [Vec::new(), Vec::new()];
        Self { ends, wire, heard, ended: [Ok(false), Ok(false)], carried: [0, 0], piece }
    }

    fn one(piece: usize) -> Self {
        Self::new(&SharedKey::new(&PRIVATE), &SharedKey::new(&PRIVATE), piece)
    }

    /// Carries bytes both ways until there are none.
    fn run(&mut self) {
        let mut incoming = Vec::new();
        while let Some(from) = self.wire.iter().position(|bytes| !bytes.is_empty()) {
            let (bytes, to) = (std::mem::take(&mut self.wire[from]), 1 - from);
            self.carried[from] += bytes.len();
            let Self { ends, wire, heard, ended, .. } = self;
            for piece in bytes.chunks(self.piece) {
                if ended[to].is_err() {
                    break;
                }
                let took = ends[to].received(piece, &mut incoming, &mut wire[to], &mut 0, &mut |plain| {
                    heard[to].extend_from_slice(plain);
                    true
                });
                ended[to] = ended[to].and_then(|before| took.map(|has_ended| before || has_ended));
            }
        }
    }

    fn say(&mut self, from: usize, parts: &[&[u8]]) {
        let mut batch = SendBatch::new();
        parts.iter().for_each(|part| batch.share(part.to_vec().into()));
        let mut piece = Vec::new();
        self.ends[from].seal_batch(&mut batch, &mut piece, &mut self.wire[from]);
        assert!(piece.is_empty() && self.wire[from].is_empty());
        batch.segments().for_each(|segment| self.wire[from].extend_from_slice(segment));
    }
}

#[test]
fn bytes_pass_both_ways_however_they_are_split() {
    for piece in [1, 7, 100, 20_000, usize::MAX] {
        let mut pair = Pair::one(piece);
        pair.run();
        assert!(pair.ends.iter().all(Tls::is_open));
        let large: Vec<u8> = (0..100_000u32).map(|at| at as u8).collect();
        for from in [0, 1] {
            pair.say(from, &[b"head", &large, b"", b"between", &large[..16_384], &large[..2_000]]);
            pair.run();
            let said = [b"head", &large[..], b"between", &large[..16_384], &large[..2_000]].concat();
            assert_eq!(pair.heard[1 - from], said);
        }
        assert_eq!(pair.ended, [Ok(false), Ok(false)]);
        let (first, rest) = pair.ends.split_first_mut().unwrap();
        first.end(&mut pair.wire[0]);
        assert!(!first.is_open() && rest[0].is_open());
        pair.run();
        assert_eq!(pair.ended, [Ok(false), Ok(true)]);
    }
}

#[test]
fn a_handshake_has_always_as_many_bytes() {
    let carried = || {
        let mut pair = Pair::one(usize::MAX);
        pair.run();
        pair.say(0, &[b"hello"]);
        pair.run();
        pair.carried
    };
    assert_eq!(carried(), carried());
}

#[test]
fn an_end_with_another_key_is_refused_and_both_know_why() {
    let other = SharedKey::new(&[8; 32]);
    let key = SharedKey::new(&PRIVATE);
    for (connecting, accepting) in [(&key, &other), (&other, &key)] {
        let mut pair = Pair::new(connecting, accepting, 50);
        pair.run();
        assert_eq!(pair.ended, [Err(Refusal::TlsClient), Err(Refusal::TlsClient)]);
        assert!(!pair.ends.iter().any(Tls::is_open));
        assert_eq!(pair.heard, [[], [0; 0]]);
    }
}

/// Says that the other key is its own, and has no right to it.
#[test]
fn an_end_that_shows_the_key_and_cannot_sign_with_it_is_refused() {
    let thief = |is_client: bool| {
        let (own, other) = (SharedKey::new(&[8; 32]), SharedKey::new(&PRIVATE));
        let signing =
            ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from([&PKCS8_HEAD[..], &[8; 32]].concat()));
        let public =
            ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from([&PKCS8_HEAD[..], &PRIVATE].concat()));
        let public = public.unwrap().public_key().unwrap().to_vec();
        let shown = Arc::new(CertifiedKey::new(vec![CertificateDer::from(public)], signing.unwrap()));
        let mut thief = SharedKey { server: own.server, client: other.client, host: other.host };
        if is_client {
            let mut client = ClientConfig::clone(&thief.client);
            client.client_auth_cert_resolver = Arc::new(AlwaysResolvesClientRawPublicKeys::new(shown));
            thief.client = Arc::new(client);
        } else {
            let mut server = ServerConfig::clone(&thief.server);
            server.cert_resolver = Arc::new(AlwaysResolvesServerRawPublicKeys::new(shown));
            thief.server = Arc::new(server);
        }
        thief
    };
    let key = SharedKey::new(&PRIVATE);
    let mut pair = Pair::new(&thief(true), &key, usize::MAX);
    pair.run();
    assert!(pair.ended[1].is_err() && !pair.ends[1].is_open());
    let mut pair = Pair::new(&key, &thief(false), usize::MAX);
    pair.run();
    assert!(pair.ended[0].is_err() && !pair.ends[0].is_open());
}

#[test]
fn an_end_without_a_key_is_refused() {
    let key = SharedKey::new(&PRIVATE);
    let mut client = ClientConfig::clone(&key.client);
    client.client_auth_cert_resolver =
        Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(CertifiedKey::new(
            vec![],
            ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from([&PKCS8_HEAD[..], &PRIVATE].concat()))
                .unwrap(),
        ))));
    let nobody = SharedKey { client: Arc::new(client), ..key.clone() };
    let mut pair = Pair::new(&nobody, &key, usize::MAX);
    pair.run();
    assert_eq!(pair.ended[1], Err(Refusal::TlsClient));
}

#[test]
fn a_record_that_was_changed_on_its_way_ends_the_connection() {
    for from in [0, 1] {
        let mut pair = Pair::one(usize::MAX);
        pair.run();
        pair.say(from, &[b"pay 1 coin"]);
        *pair.wire[from].last_mut().unwrap() ^= 1;
        pair.run();
        assert_eq!(pair.ended[1 - from], Err(Refusal::TlsRecord));
        assert!(pair.heard[1 - from].is_empty() && !pair.ends[1 - from].is_open());
    }
}

#[test]
fn nonsense_ends_the_connection_at_either_end() {
    let nonsense: [&[u8]; 4] = [b"\0\0\0\x01\x05", b"GET / HTTP/1.1\r\n", &[22, 3, 3, 0, 0], &[0xff; 300]];
    for bytes in nonsense {
        for to in [0, 1] {
            let mut pair = Pair::one(usize::MAX);
            pair.wire = [Vec::new(), Vec::new()];
            pair.wire[1 - to] = bytes.to_vec();
            pair.run();
            assert_eq!(pair.ended[to], Err(Refusal::TlsHandshake), "{bytes:?}");
        }
    }
}

#[test]
fn keys_are_renewed_before_they_are_used_up() {
    let mut provider = ring::default_provider();
    let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 else { panic!("a suite of TLS 1.3") };
    let common = CipherSuiteCommon { confidentiality_limit: 5, ..suite.common };
    let suite: &'static Tls13CipherSuite = Box::leak(Box::new(Tls13CipherSuite { common, ..*suite }));
    provider.cipher_suites = vec![SupportedCipherSuite::Tls13(suite)];
    provider.kx_groups = vec![X25519];
    let key = SharedKey::with(&PRIVATE, provider).unwrap();
    let mut pair = Pair::new(&key, &key, usize::MAX);
    pair.run();
    let large = vec![3; 100_000];
    for round in 1..=50 {
        for from in [0, 1] {
            pair.say(from, &[b"x", &large]);
            pair.run();
            assert_eq!(pair.heard[1 - from].len(), round * 100_001);
        }
    }
    assert_eq!(pair.ended, [Ok(false), Ok(false)]);
}
