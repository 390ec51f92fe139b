//! The bytes of links: frames and batches alone, and a handshake with a peer that does not know the secret,
//! from both ends.

use link::{Config, Effect, Links, Setup, TlsMode};
use shard::{ConnId, SendBatch};
use wire::node::link::{BODY_BYTES_MAX, Deframer, Frame, Identity, NONCE_BYTES, PROOF_BYTES, Role};
use wire::node::{LinkMessage, decode_batch, encode_batch};

use crate::input::{Input, NOW};
use crate::said::Said;

const CONN: ConnId = ConnId { index: 0, generation: 1 };

/// The first byte says how the stream is cut, the rest is the stream. What decodes is sound, and comes back.
pub(crate) fn run_frames(bytes: &[u8]) {
    let Some((size, stream)) = bytes.split_first() else { return };
    let mut deframer = Deframer::default();
    for piece in stream.chunks(*size as usize + 1) {
        let fed = deframer.feed(piece, BODY_BYTES_MAX, |kind, body| {
            let frame = Frame::decode(kind, body)?;
            let mut again = Vec::new();
            frame.encode(&mut again);
            assert_eq!(again[5..], *body, "{frame:?}");
            if let Frame::Batch { archive, .. } = frame {
                let mut taken = Vec::new();
                let end = decode_batch(archive, NOW.unix_nanos(), |message| {
                    taken.push(message);
                    Ok(())
                });
                let mut again = Vec::new();
                let take = |message| {
                    again.push(message);
                    Ok(())
                };
                assert_eq!(decode_batch(&encode_batch(&taken), NOW.unix_nanos(), take), Ok(()));
                assert_eq!(again, taken);
                end?;
            }
            Ok(BODY_BYTES_MAX)
        });
        if fed.is_err() {
            return;
        }
    }
}

pub(crate) fn seeds_of_frames() -> Vec<Vec<u8>> {
    let batch = |said: LinkMessage| {
        let archive = encode_batch(&vec![said]);
        let mut seed = vec![40];
        Frame::Batch { received: 1, archive: &archive }.encode(&mut seed);
        seed
    };
    // Each kind of message, with its first choices.
    (0..Said::KINDS).map(|kind| batch(Said::default().message(&mut Input::new(&[kind])))).collect()
}

/// The first byte says the role, at which end it stands and what it wants of TLS, the second how the bytes
/// are cut, the rest is what the other end says.
pub(crate) fn run_handshake(bytes: &[u8]) {
    let [kind, size, stream @ ..] = bytes else { return };
    let role = Role::ALL[*kind as usize % 3];
    let identity = Identity { shard: 0x2_0000, shards: 2, role, incarnation: NOW.unix_nanos() };
    let (secret, config) = (b"a secret that nobody else knows".to_vec(), Config::default());
    let tls = [TlsMode::Off, TlsMode::Optional, TlsMode::Required][usize::from(kind >> 4 & 3).min(2)];
    let mut links = Links::new(NOW, Setup { identity, secret, tls, seed: 1, config });
    if kind & 0x80 == 0 {
        links.accepted(NOW, CONN, [127, 0, 0, 1].into());
    } else {
        links.set_nodes(&[([127, 0, 0, 1], 7000).into()], &[]);
        links.timeout(NOW);
        let Some(Effect::Connect { token, .. }) = links.poll_effect() else { return };
        links.connected(NOW, CONN, token);
    }
    for piece in stream.chunks(*size as usize + 1) {
        links.received(NOW, CONN, piece);
        links.check_invariants();
        while links.poll_effect().is_some() {}
        let mut batch = SendBatch::new();
        links.poll_transmit(NOW, CONN, &mut batch);
        if !batch.is_empty() {
            links.sent(CONN);
        }
    }
    assert_eq!(links.poll_news(), None, "nobody is let in without the secret");
}

pub(crate) fn seeds_of_handshake() -> Vec<Vec<u8>> {
    let identity = Identity { shard: 0x1_0000, shards: 1, role: Role::Gateway, incarnation: 5 };
    let (nonce, proof) = ([1; NONCE_BYTES], [2; PROOF_BYTES]);
    let router = Identity { role: Role::Router, ..identity };
    let hello = [Frame::Hello { identity, nonce }, Frame::Proof { session: 0, received: 0, proof }];
    let challenge =
        [Frame::Challenge { identity: router, nonce }, Frame::Welcome { session: 1, received: 0, proof }];
    let [tls_hello, tls_answer] = seeds_of_tls();
    let seed = |first: u8, frames: &[Frame<'_>]| {
        let mut seed = vec![first, 200];
        frames.iter().for_each(|frame| frame.encode(&mut seed));
        seed
    };
    vec![
        seed(1, &hello),
        seed(2, &hello),
        seed(0x80, &challenge),
        seed(0x82, &challenge),
        seed(1, &[Frame::Bye]),
        [&[1, 200][..], &tls_hello].concat(),
        [&[0x22, 20][..], &tls_hello].concat(),
        [&[0x90, 200][..], &tls_answer].concat(),
        vec![0x90, 200, 21, 3, 3, 0, 2, 2, 40],
    ]
}

/// What a gateway that wants TLS says first, and what a router answers.
fn seeds_of_tls() -> [Vec<u8>; 2] {
    let mut ends = [(Role::Gateway, 0x1_0000), (Role::Router, 0x2_0000)].map(|(role, shard)| {
        let identity = Identity { shard, shards: 1, role, incarnation: NOW.unix_nanos() };
        let (secret, config) = (b"a secret that nobody else knows".to_vec(), Config::default());
        Links::new(NOW, Setup { identity, secret, tls: TlsMode::Required, seed: 1, config })
    });
    let [gateway, router] = &mut ends;
    gateway.set_nodes(&[([127, 0, 0, 1], 7000).into()], &[]);
    gateway.timeout(NOW);
    if let Some(Effect::Connect { token, .. }) = gateway.poll_effect() {
        gateway.connected(NOW, CONN, token);
    }
    let said = |links: &mut Links| {
        let mut batch = SendBatch::new();
        links.poll_transmit(NOW, CONN, &mut batch);
        batch.segments().flatten().copied().collect::<Vec<u8>>()
    };
    let hello = said(gateway);
    router.accepted(NOW, CONN, [127, 0, 0, 1].into());
    router.received(NOW, CONN, &hello);
    [hello, said(router)]
}
