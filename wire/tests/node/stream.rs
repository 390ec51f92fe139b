//! The deframer.

use wire::node::link::{BODY_BYTES_MAX, Deframer, HANDSHAKE_BYTES_MAX, HEADER_BYTES, Refusal};

use crate::samples::{encoded, frames};

type Cut = Vec<(u8, Vec<u8>)>;

fn all_bytes() -> Vec<u8> {
    frames().iter().flat_map(|(frame, _)| encoded(frame)).collect()
}

fn feed(deframer: &mut Deframer, bytes: &[u8], most: usize, out: &mut Cut) -> Result<(), Refusal> {
    deframer.feed(bytes, most, |kind, body| {
        out.push((kind, body.to_vec()));
        Ok(most)
    })
}

fn cut(pieces: &[&[u8]]) -> Cut {
    let (mut deframer, mut out) = (Deframer::default(), Vec::new());
    for piece in pieces {
        feed(&mut deframer, piece, BODY_BYTES_MAX, &mut out).unwrap();
    }
    out
}

#[test]
fn every_pair_of_split_points_gives_the_same_frames() {
    let bytes = all_bytes();
    let whole = cut(&[&bytes]);
    assert_eq!(whole.len(), frames().len());
    for ((frame, _), (kind, body)) in frames().iter().zip(&whole) {
        assert_eq!(encoded(frame)[HEADER_BYTES..], body[..]);
        assert_eq!(encoded(frame)[4], *kind);
    }
    for first in 0..=bytes.len() {
        for second in first..=bytes.len().min(first + 60) {
            let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
            assert_eq!(cut(&pieces), whole, "{first} {second}");
        }
    }
    for size in 1..9 {
        assert_eq!(cut(&bytes.chunks(size).collect::<Vec<_>>()), whole, "pieces of {size}");
    }
}

#[test]
fn a_long_body_is_refused_as_soon_as_its_length_is_there() {
    let most = HANDSHAKE_BYTES_MAX;
    let header = (most as u32 + 1).to_be_bytes();
    for split in 0..4 {
        let (mut deframer, mut out) = (Deframer::default(), Vec::new());
        assert_eq!(feed(&mut deframer, &header[..split], most, &mut out), Ok(()));
        assert_eq!(feed(&mut deframer, &header[split..], most, &mut out), Err(Refusal::TooLong), "{split}");
        assert!(out.is_empty());
    }
    let longest = [&(most as u32).to_be_bytes()[..], &[6], &vec![1; most]].concat();
    let mut out = Vec::new();
    assert_eq!(feed(&mut Deframer::default(), &longest, most, &mut out), Ok(()));
    assert_eq!(out, [(6, vec![1; most])]);
    assert_eq!(feed(&mut Deframer::default(), &[0xff; 4], BODY_BYTES_MAX, &mut out), Err(Refusal::TooLong));
}

#[test]
fn each_frame_says_how_long_the_next_may_be() {
    let long = [&300u32.to_be_bytes()[..], &[6], &[0; 300]].concat();
    let bytes = [&[0, 0, 0, 0, 8][..], &long, &long].concat();
    for size in 1..bytes.len() {
        let (mut deframer, mut limits, mut seen) = (Deframer::default(), [300, 299].into_iter(), 0);
        let mut most = 128;
        let mut end = Ok(());
        for piece in bytes.chunks(size) {
            end = end.and_then(|()| {
                deframer.feed(piece, most, |_, _| {
                    seen += 1;
                    most = limits.next().unwrap();
                    Ok(most)
                })
            });
        }
        assert_eq!((end, seen), (Err(Refusal::TooLong), 2), "pieces of {size}");
    }
}

#[test]
fn frames_before_an_end_come_out_and_none_after() {
    let bytes = all_bytes();
    for stop in 1..frames().len() {
        let mut seen = 0;
        let end = Deframer::default().feed(&bytes, BODY_BYTES_MAX, |_, _| {
            seen += 1;
            if seen == stop { Err(Refusal::BadBatch) } else { Ok(BODY_BYTES_MAX) }
        });
        assert_eq!((end, seen), (Err(Refusal::BadBatch), stop));
    }
}
