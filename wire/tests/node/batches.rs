//! Archives: whole, and broken in every way.

use std::panic::{AssertUnwindSafe, catch_unwind};

use wire::ClientMsgId;
use wire::client::DecodeError;
use wire::node::{NodeMessage, decode_batch, encode_batch};

use crate::samples::{client_msg_id, messages};

fn read(bytes: &[u8]) -> (Vec<NodeMessage>, Result<(), DecodeError>) {
    let mut out = Vec::new();
    let end = decode_batch(bytes, |message| out.push(message));
    (out, end)
}

/// Whatever the bytes: no panic, and no id that only a decoder's care would make sound.
fn check(bytes: &[u8], what: impl Fn() -> String) {
    let (out, _) = catch_unwind(AssertUnwindSafe(|| read(bytes))).unwrap_or_else(|_| panic!("{}", what()));
    for message in &out {
        if let Some(id) = client_msg_id(message) {
            let is_sound =
                id.as_bytes().len() <= ClientMsgId::BYTES_MAX && std::str::from_utf8(id.as_bytes()).is_ok();
            assert!(is_sound, "{}: {message:?}", what());
        }
    }
    assert!(out.len() <= bytes.len(), "{}", what());
}

#[test]
fn every_message_comes_back() {
    for message in messages() {
        let one = vec![message];
        assert_eq!(read(&encode_batch(&one)), (one, Ok(())));
    }
    assert_eq!(read(&encode_batch(&messages())), (messages(), Ok(())));
    assert_eq!(read(&encode_batch(&Vec::new())), (vec![], Ok(())));
}

#[test]
fn an_archive_may_lie_anywhere() {
    let archive = encode_batch(&messages());
    for shift in 0..16 {
        let moved = [&vec![0; shift], &archive[..]].concat();
        assert_eq!(read(&moved[shift..]), (messages(), Ok(())), "{shift}");
    }
}

#[test]
fn a_cut_archive_is_no_more_than_refused() {
    let archive = encode_batch(&messages());
    for end in 0..archive.len() {
        check(&archive[..end], || format!("cut at {end}"));
        check(&archive[end..], || format!("begun at {end}"));
    }
    assert_eq!(read(&[]).1, Err(DecodeError::BadBody));
}

#[test]
fn every_bit_of_every_message_flipped() {
    for message in messages() {
        let archive = encode_batch(&vec![message.clone()]);
        for bit in 0..archive.len() * 8 {
            let mut bytes = archive.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            check(&bytes, || format!("bit {bit} of {message:?}"));
        }
    }
}

#[test]
fn every_byte_of_a_batch_changed() {
    let archive = encode_batch(&messages());
    for at in 0..archive.len() {
        for with in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = archive.to_vec();
            bytes[at] = with;
            check(&bytes, || format!("byte {at} is {with}"));
        }
    }
}

#[test]
fn an_id_that_is_no_text_is_refused() {
    let mut found = 0;
    for message in messages() {
        if client_msg_id(&message).is_none_or(ClientMsgId::is_empty) {
            continue;
        }
        let mut archive = encode_batch(&vec![message.clone()]).to_vec();
        let at = archive.windows(2).position(|two| two == b"m1").unwrap();
        archive[at] = 0xff;
        assert_eq!(read(&archive), (vec![], Err(DecodeError::BadBody)), "{message:?}");
        found += 1;
    }
    assert_eq!(found, 11);
}

proptest::proptest! {
    #[test]
    fn random_bytes_are_harmless(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        check(&bytes, || format!("{bytes:?}"));
    }

    #[test]
    fn many_changes_are_harmless(
        changes in proptest::collection::vec(proptest::prelude::any::<(u16, u8)>(), 1..20),
        cut in 0usize..8,
    ) {
        let mut bytes = encode_batch(&messages()).to_vec();
        for (at, with) in &changes {
            let at = *at as usize % bytes.len();
            bytes[at] = *with;
        }
        bytes.truncate(bytes.len() - cut);
        check(&bytes, || format!("{changes:?}, {cut} bytes less"));
    }
}
