//! Each frame by itself.

use wire::node::link::{
    BODY_BYTES_MAX, Frame, HANDSHAKE_BYTES_MAX, HEADER_BYTES, Identity, Refusal, Role, VERSION,
};

use crate::samples::{IDENTITY, NOW_NS, encoded, frames};

#[test]
fn every_frame_comes_back_and_has_its_size() {
    for (frame, body_bytes) in frames() {
        let bytes = encoded(&frame);
        assert_eq!(bytes.len(), HEADER_BYTES + body_bytes, "{frame:?}");
        assert_eq!(bytes[..4], (body_bytes as u32).to_be_bytes());
        assert_eq!(Frame::decode(bytes[4], &bytes[HEADER_BYTES..]), Ok(frame));
    }
}

#[test]
fn a_body_too_short_or_too_long_is_refused() {
    for (frame, _) in frames() {
        let mut bytes = encoded(&frame);
        let kind = bytes[4];
        let archive = matches!(frame, Frame::Batch { .. });
        for end in HEADER_BYTES..bytes.len() {
            let cut = Frame::decode(kind, &bytes[HEADER_BYTES..end]);
            // A batch's archive has no length of its own: it is for `decode_batch` to find that it is cut.
            let is_whole = archive && end >= HEADER_BYTES + 8;
            assert_eq!(cut.is_ok(), is_whole, "{frame:?} cut at {end}");
            assert!(is_whole || cut == Err(Refusal::BadFrame));
        }
        bytes.push(0);
        assert_eq!(Frame::decode(kind, &bytes[HEADER_BYTES..]).is_ok(), archive, "{frame:?} and a byte");
    }
}

#[test]
fn the_handshake_fits_its_bound() {
    let handshake = |frame: &Frame<'_>| !matches!(frame, Frame::Batch { .. });
    assert!(
        frames().iter().filter(|(frame, _)| handshake(frame)).all(|(_, len)| *len <= HANDSHAKE_BYTES_MAX)
    );
}

#[test]
fn the_head_of_a_batch_is_that_of_the_whole() {
    let archive = [7; 300];
    let whole = encoded(&Frame::Batch { received: u64::MAX - 1, archive: &archive });
    assert_eq!(Frame::batch_head(u64::MAX - 1, archive.len())[..], whole[..HEADER_BYTES + 8]);
    let head = Frame::batch_head(0, BODY_BYTES_MAX - 8);
    assert_eq!(head[..4], (BODY_BYTES_MAX as u32).to_be_bytes());
}

#[test]
fn what_is_no_frame_is_refused() {
    for kind in (0..=u8::MAX).filter(|kind| !(1..=8).contains(kind)) {
        assert_eq!(Frame::decode(kind, &[]), Err(Refusal::BadFrame));
    }
    let hello = encoded(&frames()[0].0);
    let with = |at: usize, byte: u8| {
        let mut body = hello[HEADER_BYTES..].to_vec();
        body[at] = byte;
        Frame::decode(1, &body).err()
    };
    assert_eq!(with(0, 0), Some(Refusal::BadFrame), "magic");
    assert_eq!(with(5, VERSION as u8 + 1), Some(Refusal::Version));
    assert_eq!([0, 4].map(|role| with(12, role)), [Some(Refusal::Role); 2]);
    assert_eq!(Role::ALL.map(|role| with(12, role as u8)), [None; 3]);
    assert_eq!(Frame::decode(5, &[0]), Err(Refusal::BadFrame), "a reason that nobody knows");
}

/// Another version may have other fields behind: it is told that it is another version all the same.
#[test]
fn another_version_is_told_so_whatever_follows() {
    for (frame, at) in [(&frames()[0].0, 4), (&frames()[1].0, 0)] {
        let bytes = encoded(frame);
        let mut body = bytes[HEADER_BYTES..HEADER_BYTES + at + 2].to_vec();
        body[at + 1] += 1;
        assert_eq!(Frame::decode(bytes[4], &body), Err(Refusal::Version));
        body.extend_from_slice(&[0; 90]);
        assert_eq!(Frame::decode(bytes[4], &body), Err(Refusal::Version));
    }
}

#[test]
fn reasons_have_their_numbers() {
    for (at, reason) in Refusal::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, at + 1);
        assert_eq!(Refusal::from_u8(reason as u8), Some(reason));
    }
    assert_eq!(Refusal::from_u8(0), None);
    assert_eq!(Refusal::from_u8(Refusal::ALL.len() as u8 + 1), None);
}

#[test]
fn a_shard_has_a_node_an_index_and_a_clock() {
    let own = IDENTITY;
    let with = |node: u32, index: u32, shards, incarnation| {
        let identity = Identity { shard: node << 16 | index, shards, incarnation, ..own };
        identity.is_sound(own, NOW_NS)
    };
    assert!(with(1, 0, 1, 5) && with(1023, 31, 32, NOW_NS) && with(4, 0, 32, 0));
    assert!(!with(0, 0, 1, 5) && !with(1024, 0, 1, 5) && !with(0xffff, 0xffff, 1, 5), "no node");
    assert!(
        !with(1, 1, 1, 5) && !with(1, 0, 0, 5) && !with(1, 0, 33, 5) && !with(1, 32, 33, 5),
        "no shard of it"
    );
    assert!(!with(3, 0, 2, 5), "the own node");
    const DAY_NS: u64 = 24 * 60 * 60 * 1_000_000_000;
    assert!(
        with(1, 0, 1, NOW_NS + DAY_NS) && !with(1, 0, 1, NOW_NS + DAY_NS + 1) && !with(1, 0, 1, u64::MAX)
    );
}
