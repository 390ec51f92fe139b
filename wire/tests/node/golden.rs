//! The exact bytes: they are the protocol. Nodes of one version must agree, so a change here wants another
//! `VERSION`.

use wire::RoomId;
use wire::node::link::{Frame, Identity, Refusal, Role, VERSION};
use wire::node::{LinkMessage, ToRouter, decode_batch, encode_batch};

use crate::samples::{APP, IDENTITY, NONCE, NOW_NS, PROOF, encoded, messages};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn plain(golden: &str) -> String {
    golden.split_whitespace().collect()
}

#[test]
fn frames_are_these_bytes() {
    assert_eq!(VERSION, 8);
    let nonce = "aa".repeat(16);
    let proof = "bb".repeat(32);
    let router = Identity { shard: 0x0001_0000, shards: 1, role: Role::Router, incarnation: 5 };
    let bridge = Identity { shard: 0x0020_0000, role: Role::Bridge, ..router };
    let golden = [
        (
            Frame::Hello { identity: IDENTITY, nonce: NONCE },
            format!("00000025 01 53464c4b 0008 00030001 0002 01 1122334455667788 {nonce}"),
        ),
        (
            Frame::Challenge { identity: router, nonce: NONCE },
            format!("00000021 02 0008 00010000 0001 02 0000000000000005 {nonce}"),
        ),
        (
            Frame::Challenge { identity: bridge, nonce: NONCE },
            format!("00000021 02 0008 00200000 0001 03 0000000000000005 {nonce}"),
        ),
        (
            Frame::Proof { session: 0, received: 0, proof: PROOF },
            format!("00000030 03 0000000000000000 0000000000000000 {proof}"),
        ),
        (
            Frame::Welcome { session: 9, received: 258, proof: PROOF },
            format!("00000030 04 0000000000000009 0000000000000102 {proof}"),
        ),
        (Frame::Refused { reason: Refusal::Stale }, "00000001 05 07".into()),
        (Frame::Batch { received: 3, archive: &[1, 2] }, "0000000a 06 0000000000000003 0102".into()),
        (Frame::Credit { received: 3 }, "00000008 07 0000000000000003".into()),
        (Frame::Bye, "00000000 08".into()),
    ];
    for (frame, bytes) in golden {
        assert_eq!(hex(&encoded(&frame)), plain(&bytes), "{frame:?}");
    }
    assert_eq!(hex(&Frame::batch_head(3, 2)), plain("0000000a 06 0000000000000003"));
}

/// Archives follow from the types' declarations; this sees that numbers are little-endian and nothing is
/// aligned.
#[test]
fn an_archive_is_these_bytes() {
    let messages = vec![LinkMessage::ToRouter(ToRouter::Leave { app: APP, room: RoomId(0x0102_0304) })];
    let archive = encode_batch(&messages);
    assert_eq!(hex(&archive), plain(LEAVE));
    let mut read = Vec::new();
    decode_batch(&archive, NOW_NS, |message| {
        read.push(message);
        Ok(())
    })
    .unwrap();
    assert_eq!(read, messages);
}

const LEAVE: &str =
    "00 03 07000000 0403020100000000 0000000000000000000000000000000000000000000000000000000000000000
    0000000000000000000000000000000000000000000000000000000000000000 b2ffffff 01000000";

/// FNV-1a of an archive of every message: a changed declaration changes it.
#[test]
fn the_archive_of_every_message_is_fixed() {
    let archive = encode_batch(&messages());
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = archive.iter().fold(0xcbf2_9ce4_8422_2325, step);
    assert_eq!((archive.len(), hash), (14584, 13381469099208743522));
}
