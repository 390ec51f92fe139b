use std::io::{Read, Write};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

const ROOT: &[u8] = include_bytes!("../../tests/pem/ca.pem");
/// 2030.
const NOW_SECS: u64 = 1_900_000_000;

fn pem(name: &str) -> CertificatePem {
    let (chain, key): (&[u8], &[u8]) = match name {
        "one" => (include_bytes!("../../tests/pem/one.pem"), include_bytes!("../../tests/pem/one.key")),
        _ => (include_bytes!("../../tests/pem/two.pem"), include_bytes!("../../tests/pem/two.key")),
    };
    let (chain_name, key_name) = (format!("{name}.pem"), format!("{name}.key"));
    CertificatePem { chain: chain.to_vec(), chain_name, key: key.to_vec(), key_name }
}

fn server(names: &[&str]) -> TlsServer {
    let pems: Vec<_> = names.iter().map(|name| pem(name)).collect();
    TlsServer::new(&pems, None, NOW_SECS).unwrap()
}

fn client_config(versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ROOT).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(versions).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A client and the server's end, with the bytes between them in pieces of a size.
struct Pair {
    client: ClientConnection,
    tls: Tls,
    heard: Vec<u8>,
    said: Vec<u8>,
    ended: Result<bool, Refusal>,
    piece: usize,
}

impl Pair {
    fn new(server: &TlsServer, config: &Arc<ClientConfig>, host: &str, piece: usize) -> Self {
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let client = ClientConnection::new(config.clone(), name).unwrap();
        Self { client, tls: Tls::new(server), heard: Vec::new(), said: Vec::new(), ended: Ok(false), piece }
    }

    /// Carries bytes both ways until there are none.
    fn run(&mut self) -> Result<(), Error> {
        let mut incoming = Vec::new();
        loop {
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).unwrap();
            }
            if bytes.is_empty() || self.ended.is_err() {
                return Ok(());
            }
            let mut out = Vec::new();
            for piece in bytes.chunks(self.piece) {
                let heard = &mut self.heard;
                self.ended = self.tls.received(piece, &mut incoming, &mut out, &mut 0, &mut |plain| {
                    heard.extend_from_slice(plain);
                    true
                });
                if self.ended.is_err() {
                    break;
                }
            }
            self.answer(&out)?;
        }
    }

    fn answer(&mut self, mut out: &[u8]) -> Result<(), Error> {
        while !out.is_empty() {
            self.client.read_tls(&mut out).unwrap();
            self.client.process_new_packets()?;
            let _ = self.client.reader().read_to_end(&mut self.said); // there is no more yet
        }
        Ok(())
    }

    fn client_hears(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.said)
    }
}

const VERSIONS: [&rustls::SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

#[test]
fn both_versions_pass_bytes_both_ways_however_they_are_split() {
    let server = server(&["one"]);
    for version in VERSIONS {
        for piece in [1, 7, 100, usize::MAX] {
            let mut pair = Pair::new(&server, &client_config(&[version]), "one.example", piece);
            pair.client.writer().write_all(b"hello").unwrap();
            pair.run().unwrap();
            assert_eq!((&pair.heard[..], pair.tls.is_open()), (&b"hello"[..], true));
            let long = vec![7; 40_000];
            let mut out = Vec::new();
            assert!(pair.tls.seal(&long, &mut out));
            for piece in out.chunks(pair.piece) {
                pair.answer(piece).unwrap();
            }
            assert_eq!(pair.client_hears(), long);
            assert_eq!(pair.tls.rest.capacity(), 0, "nothing is held between records");
        }
    }
}

#[test]
fn each_host_gets_its_certificate_and_others_the_first() {
    let server = server(&["one", "two"]);
    let config = client_config(&VERSIONS);
    for (host, is_right) in
        [("one.example", true), ("Two.Example", true), ("chat.two.example", true), ("three.example", false)]
    {
        let mut pair = Pair::new(&server, &config, host, usize::MAX);
        assert_eq!(pair.run().is_ok(), is_right, "{host}");
    }
    server.replace(&[pem("one")], None, NOW_SECS).unwrap();
    // With another configuration, which has no session that could be resumed.
    let config = client_config(&VERSIONS);
    assert!(Pair::new(&server, &config, "two.example", usize::MAX).run().is_err(), "it is replaced");
}

#[test]
fn a_second_connection_resumes_the_session() {
    let server = server(&["one"]);
    for version in VERSIONS {
        let config = client_config(&[version]);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut pair = Pair::new(&server, &config, "one.example", usize::MAX);
            pair.client.writer().write_all(b"hi").unwrap();
            pair.run().unwrap();
            let mut out = Vec::new();
            pair.tls.seal(b"and a ticket", &mut out);
            pair.answer(&out).unwrap();
            assert_eq!(pair.client.handshake_kind(), Some(kind));
        }
    }
}

#[test]
fn both_ends_say_that_they_end() {
    let server = server(&["one"]);
    let mut pair = Pair::new(&server, &client_config(&VERSIONS), "one.example", usize::MAX);
    pair.client.writer().write_all(b"hi").unwrap();
    pair.run().unwrap();
    pair.client.send_close_notify();
    pair.run().unwrap();
    assert_eq!(pair.ended, Ok(true));
    let mut out = Vec::new();
    pair.tls.end(&mut out);
    assert!(!out.is_empty());
    let mut again = Vec::new();
    pair.tls.end(&mut again);
    assert!(again.is_empty(), "said once");
    pair.answer(&out).unwrap();
    assert_eq!(pair.client.reader().read(&mut [0; 8]).unwrap(), 0, "a clean end");
}

#[test]
fn what_is_no_handshake_gets_an_alert() {
    let server = server(&["one"]);
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"SF\0\0\x03\xe9\0\0\0\0",
        b"\x16SF\0\0\0\0\0",
        &[22, 3, 1, 0xff, 0xff],
        &[22, 3, 1, 0, 1, 1, 23], // more than a piece of a hello, and less than a record
    ] {
        let (mut tls, mut out) = (Tls::new(&server), Vec::new());
        let outcome =
            tls.received(bytes, &mut Vec::new(), &mut out, &mut 0, &mut |_| panic!("nothing is read"));
        assert_eq!(outcome, Err(Refusal::TlsHandshake), "{bytes:x?}");
        assert_eq!((out[0], out[5], out.len()), (21, 2, 7), "a fatal alert: {out:x?}");
        assert!(!tls.is_in_handshake());
        let mut more = Vec::new();
        assert_eq!(
            tls.received(bytes, &mut Vec::new(), &mut more, &mut 0, &mut |_| panic!("it is over")),
            Ok(false)
        );
        assert!(!tls.seal(b"a notice", &mut more) && more.is_empty());
    }
}

/// An error after a piece of a message that is not whole: the alert must not look for what is gone.
#[test]
fn a_wrong_record_within_a_message_is_refused() {
    let server = server(&["one"]);
    let begun = [22, 3, 3, 0, 8, 1, 0, 1, 0, 3, 3, 0, 0];
    let wrong: [&[u8]; 4] =
        [&[23, 3, 3, 0, 1, 0], &[99, 3, 3, 0, 1, 0], &[21, 3, 3, 0, 2, 2, 40], &[22, 3, 3, 0xff, 0xff]];
    for record in wrong {
        for split in 0..=record.len() {
            let (mut tls, mut out, mut incoming) = (Tls::new(&server), Vec::new(), Vec::new());
            let first = [&begun, &record[..split]].concat();
            let outcome = tls.received(&first, &mut incoming, &mut out, &mut 0, &mut |_| true);
            let outcome = outcome
                .and_then(|_| tls.received(&record[split..], &mut incoming, &mut out, &mut 0, &mut |_| true));
            assert_eq!(outcome, Err(Refusal::TlsHandshake), "{record:x?} split at {split}");
        }
    }
}

#[test]
fn a_handshake_and_a_record_are_bounded() {
    let server = server(&["one"]);
    let (mut tls, mut out, mut incoming) = (Tls::new(&server), Vec::new(), Vec::new());
    // A handshake message of 2^16 - 1 bytes, in records of 1 KiB.
    let mut outcome = Ok(false);
    for part in 0..64 {
        let mut record = vec![22, 3, 3, 4, 0];
        record.resize(5 + 1024, 0);
        if part == 0 {
            record[5..9].copy_from_slice(&[1, 0, 255, 255]);
        }
        outcome = outcome.and_then(|_| tls.received(&record, &mut incoming, &mut out, &mut 0, &mut |_| true));
        assert!(tls.rest.capacity() <= HANDSHAKE_BYTES_MAX);
    }
    assert_eq!(outcome, Err(Refusal::TlsHandshake));
    let mut pair = Pair::new(&server, &client_config(&VERSIONS), "one.example", usize::MAX);
    pair.client.writer().write_all(b"hi").unwrap();
    pair.run().unwrap();
    let mut record = vec![23, 3, 3, 0x48, 1];
    record.resize(5 + 0x4801, 0);
    let outcome = pair.tls.received(&record, &mut incoming, &mut out, &mut 0, &mut |_| true);
    assert_eq!(outcome, Err(Refusal::TlsRecord));
}

/// What a client sends with the end of its handshake does not count as handshake.
#[test]
fn much_may_come_with_the_end_of_a_handshake() {
    let server = server(&["one"]);
    for version in VERSIONS {
        let mut pair = Pair::new(&server, &client_config(&[version]), "one.example", usize::MAX);
        pair.client.set_buffer_limit(None);
        pair.client.writer().write_all(&[7; 60_000]).unwrap();
        pair.run().unwrap();
        assert_eq!((pair.ended, pair.heard.len()), (Ok(false), 60_000));
    }
}

#[test]
fn a_byte_that_was_changed_ends_it_with_an_alert() {
    let server = server(&["one"]);
    for version in VERSIONS {
        let mut pair = Pair::new(&server, &client_config(&[version]), "one.example", usize::MAX);
        pair.client.writer().write_all(b"hi").unwrap();
        pair.run().unwrap();
        pair.client.writer().write_all(b"and more").unwrap();
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        pair.client.write_tls(&mut bytes).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        let outcome =
            pair.tls.received(&bytes, &mut Vec::new(), &mut out, &mut 0, &mut |_| panic!("it is wrong"));
        assert_eq!(outcome, Err(Refusal::TlsRecord));
        assert!(matches!(pair.answer(&out), Err(Error::AlertReceived(_))));
    }
}

/// A connection that is to end reads nothing more, and yet says why.
#[test]
fn a_deaf_connection_can_still_say_why() {
    let server = server(&["one"]);
    let mut pair = Pair::new(&server, &client_config(&VERSIONS), "one.example", usize::MAX);
    pair.client.writer().write_all(b"hi").unwrap();
    pair.run().unwrap();
    let (mut bytes, mut out) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        pair.client.writer().write_all(b"and more").unwrap();
        pair.client.write_tls(&mut bytes).unwrap();
    }
    let (first, rest) = bytes.split_at(bytes.len() - 3);
    let mut heard = 0;
    for bytes in [first, rest] {
        let outcome = pair.tls.received(bytes, &mut Vec::new(), &mut out, &mut 0, &mut |_| {
            heard += 1;
            false
        });
        assert_eq!(outcome, Ok(false));
    }
    assert_eq!(heard, 1);
    assert!(pair.tls.seal(b"why", &mut out));
    pair.tls.end(&mut out);
    pair.answer(&out).unwrap();
    assert_eq!(pair.client_hears(), b"why");
}

#[test]
fn certificates_that_are_none_are_refused_by_file_and_reason() {
    let wrong = |now_secs: u64, change: fn(&mut CertificatePem)| {
        let mut one = pem("one");
        change(&mut one);
        TlsServer::new(&[pem("two"), one], None, now_secs).unwrap_err()
    };
    assert_eq!(TlsServer::new(&[], None, NOW_SECS).unwrap_err(), "no certificate");
    assert_eq!(wrong(NOW_SECS, |one| one.chain.clear()), "one.pem: no certificate in PEM");
    let line = wrong(NOW_SECS, |one| one.key.clear());
    assert!(line.starts_with("one.key: no private key in PEM"), "{line}");
    let line = wrong(NOW_SECS, |one| one.key = pem("two").key);
    assert_eq!(line, "one.key: not the key of the certificate in one.pem");
    let line = wrong(NOW_SECS, |one| one.chain = include_bytes!("../../tests/pem/expired.pem").to_vec());
    assert!(
        line.starts_with("one.pem: a certificate that expired ") && line.ends_with(" days ago"),
        "{line}"
    );
    let line = wrong(0, |_| ());
    assert!(line.starts_with("two.pem: a certificate that is not valid yet"), "{line}");
    let line = wrong(NOW_SECS, |one| one.chain.extend(*include_bytes!("../../tests/pem/expired.pem")));
    assert!(line.starts_with("one.pem: a certificate that expired "), "of the chain, too: {line}");
    let line = wrong(NOW_SECS, |one| {
        one.chain = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec()
    });
    assert!(line.starts_with("one.pem: no certificate: "), "{line}");
}

/// What is refused leaves what was there.
#[test]
fn certificates_that_are_wrong_replace_nothing() {
    let server = server(&["one"]);
    let mut two = pem("two");
    two.key.clear();
    assert!(server.replace(&[two], None, NOW_SECS).is_err());
    Pair::new(&server, &client_config(&VERSIONS), "one.example", usize::MAX).run().unwrap();
}

/// What is not whole costs its bytes and no more.
#[test]
fn a_hello_is_read_when_it_is_whole() {
    let server = server(&["one"]);
    let mut pair = Pair::new(&server, &client_config(&VERSIONS), "one.example", usize::MAX);
    let (mut hello, mut out, mut incoming) = (Vec::new(), Vec::new(), Vec::new());
    while pair.client.wants_write() {
        pair.client.write_tls(&mut hello).unwrap();
    }
    // The same message in records of 1 byte, too.
    let message = &hello[5..];
    let small: Vec<u8> = message.iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect();
    for (bytes, piece) in [(&hello, 1), (&hello, 100), (&small, 6), (&small, 7)] {
        let mut tls = Tls::new(&server);
        let (rest, last) = bytes.split_at(bytes.len() - 1);
        for piece in rest.chunks(piece) {
            tls.received(piece, &mut incoming, &mut out, &mut 0, &mut |_| true).unwrap();
            assert!(tls.connection.is_none() && !tls.is_in_handshake() && out.is_empty());
            assert!(tls.hello_bytes() >= tls.rest.len() && tls.rest.capacity() <= 2 * rest.len());
        }
        tls.received(last, &mut incoming, &mut out, &mut 0, &mut |_| true).unwrap();
        assert!(tls.is_in_handshake() && tls.hello_bytes() == 0 && !out.is_empty(), "pieces of {piece}");
        out.clear();
    }
}

/// A hello for which a turn has no time left is kept, within the limits of a handshake, and answered later.
#[test]
fn a_hello_waits_for_a_turn() {
    let server = server(&["one"]);
    let mut pair = Pair::new(&server, &client_config(&VERSIONS), "one.example", usize::MAX);
    let (mut hello, mut out, mut incoming) = (Vec::new(), Vec::new(), Vec::new());
    while pair.client.wants_write() {
        pair.client.write_tls(&mut hello).unwrap();
    }
    let mut hellos = HELLOS_PER_TURN;
    for piece in hello.chunks(50) {
        let outcome = pair.tls.received(piece, &mut incoming, &mut out, &mut hellos, &mut |_| true);
        assert_eq!((outcome, out.len()), (Ok(false), 0));
    }
    assert!(pair.tls.is_waiting());
    hellos -= 1;
    pair.tls.received(&[], &mut incoming, &mut out, &mut hellos, &mut |_| true).unwrap();
    assert_eq!((hellos, pair.tls.is_waiting()), (HELLOS_PER_TURN, false));
    pair.answer(&out).unwrap();
    pair.client.writer().write_all(b"hello").unwrap();
    pair.run().unwrap();
    assert_eq!(pair.heard, b"hello");

    let mut tls = Tls::new(&server);
    let many = vec![HANDSHAKE; HANDSHAKE_BYTES_MAX];
    assert_eq!(tls.received(&many, &mut incoming, &mut out, &mut hellos, &mut |_| true), Ok(false));
    let outcome = tls.received(&[0], &mut incoming, &mut out, &mut hellos, &mut |_| true);
    assert_eq!((outcome, tls.is_waiting()), (Err(Refusal::TlsHandshake), false));
}

fn authorities(name: &str, is_required: bool) -> AuthoritiesPem {
    let certificates: &[u8] = if name == "ca" { ROOT } else { include_bytes!("../../tests/pem/two.pem") };
    AuthoritiesPem { certificates: certificates.to_vec(), name: format!("{name}.pem"), is_required }
}

/// The configuration of a client that has a certificate.
fn certified_client(version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut config = Arc::unwrap_or_clone(client_config(&[version]));
    let CertificatePem { chain, key, .. } = pem("one");
    let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>().unwrap();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(&key).unwrap();
    let key = rustls::sign::CertifiedKey::from_der(chain, key, &ring::default_provider()).unwrap();
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(key));
    Arc::new(config)
}

#[test]
fn a_client_may_have_or_must_have_a_certificate_of_an_authority() {
    let outcome = |server: &TlsServer, config: &Arc<ClientConfig>| {
        let mut pair = Pair::new(server, config, "two.example", usize::MAX);
        pair.client.writer().write_all(b"hi").unwrap();
        let told = pair.run();
        if pair.ended.is_ok() {
            told.unwrap();
            assert_eq!(pair.heard, b"hi");
        }
        pair.ended.err()
    };
    for version in VERSIONS {
        for is_required in [true, false] {
            let server =
                TlsServer::new(&[pem("two")], Some(&authorities("ca", is_required)), NOW_SECS).unwrap();
            let (bare, certified) = (client_config(&[version]), certified_client(version));
            assert_eq!(outcome(&server, &bare), is_required.then_some(Refusal::TlsClient));
            assert_eq!([outcome(&server, &certified), outcome(&server, &certified)], [None, None]);
            let others = authorities("two", is_required);
            server.replace(&[pem("two")], Some(&others), NOW_SECS).unwrap();
            let again = certified_client(version); // without the tickets of the one before
            assert_eq!(outcome(&server, &again), Some(Refusal::TlsClient), "it is of another authority");
        }
    }
    let mut none = authorities("ca", true);
    none.certificates.clear();
    let why = TlsServer::new(&[pem("two")], Some(&none), NOW_SECS).unwrap_err();
    assert_eq!(why, "ca.pem: no certificate in PEM");
}
