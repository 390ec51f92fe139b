//! The deframer: any split and any merge give the same frames, early refusals, bounded memory.

use proptest::prelude::*;
use wire::client::{ClientFrame, Code, DecodeError, Deframer, Encoding, HEADER_BYTES, MAGIC_BINARY};

use crate::samples::{BODY_BYTES_MAX, capture, client_bytes, client_samples};

/// Code, body and encoding of a frame, owned.
pub type Owned = (Encoding, Code, Vec<u8>);

/// Feeds the parts in order; what came out, and the error that ended it.
pub fn deframe<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Owned>, Option<DecodeError>) {
    let mut deframer = Deframer::default();
    let mut frames = Vec::new();
    for mut part in parts {
        loop {
            match deframer.next(&mut part, BODY_BYTES_MAX) {
                Ok(Some(frame)) => frames.push((frame.encoding, frame.code, frame.body.to_vec())),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(part.is_empty(), "None means that the input is used up");
    }
    (frames, None)
}

/// Cuts a capture by its headers alone.
fn frames_of(mut capture: &[u8]) -> Vec<Owned> {
    let mut frames = Vec::new();
    while !capture.is_empty() {
        let magic = u16::from_be_bytes([capture[0], capture[1]]);
        let code = i32::from_be_bytes(capture[2..6].try_into().unwrap());
        let len = i32::from_be_bytes(capture[6..10].try_into().unwrap()) as usize;
        let body = capture[10..10 + len].to_vec();
        frames.push((Encoding::from_magic(magic).unwrap(), Code::from_i32(code).unwrap(), body));
        capture = &capture[10 + len..];
    }
    frames
}

fn header(magic: u16, code: i32, len: i32) -> Vec<u8> {
    [&magic.to_be_bytes()[..], &code.to_be_bytes(), &len.to_be_bytes()].concat()
}

#[test]
fn every_split_point_gives_the_same_frames() {
    let capture = capture();
    let expected = (frames_of(&capture), None);
    assert!(expected.0.len() > 100, "a long capture");
    assert_eq!(deframe([&capture[..]]), expected, "merged");
    for split in 0..=capture.len() {
        assert_eq!(deframe([&capture[..split], &capture[split..]]), expected, "split at {split}");
    }
}

#[test]
fn every_pair_of_split_points_gives_the_same_frames() {
    let frames = client_samples();
    let mut capture = Vec::new();
    for sample in &frames[..4] {
        capture.extend(client_bytes(&sample.frame, Encoding::Binary));
        capture.extend(client_bytes(&sample.frame, Encoding::Json));
    }
    let expected = (frames_of(&capture), None);
    for first in 0..=capture.len() {
        for second in first..=capture.len() {
            let parts = [&capture[..first], &capture[first..second], &capture[second..]];
            assert_eq!(deframe(parts), expected, "split at {first} and {second}");
        }
    }
}

#[test]
fn pieces_of_every_size_give_the_same_frames() {
    let capture = capture();
    let expected = (frames_of(&capture), None);
    for size in 1..=64 {
        assert_eq!(deframe(capture.chunks(size)), expected, "pieces of {size}");
    }
}

proptest! {
    #[test]
    fn any_split_of_any_bytes_gives_the_same(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        magic in prop::sample::select(vec![0x5346_u16, 18677, 18673, 0x5347]),
        splits in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut bytes = [&header(magic, 1003, 20)[..], &bytes].concat();
        bytes.extend(header(magic, 1004, 0));
        let mut splits: Vec<usize> = splits.iter().map(|split| split.index(bytes.len())).collect();
        splits.extend([0, bytes.len()]);
        splits.sort_unstable();
        let parts = splits.windows(2).map(|range| &bytes[range[0]..range[1]]);
        prop_assert_eq!(deframe(parts), deframe([&bytes[..]]));
    }
}

#[test]
fn a_header_is_refused_as_soon_as_the_bad_field_is_there() {
    let cases = [
        (header(0x5347, 9, -1), 2, DecodeError::BadMagic),
        (header(MAGIC_BINARY, 1008, -1), 6, DecodeError::BadCode),
        (header(MAGIC_BINARY, 1003, -1), 10, DecodeError::BadLength),
        (header(MAGIC_BINARY, 1003, i32::MIN), 10, DecodeError::BadLength),
        (header(MAGIC_BINARY, 1003, i32::MAX), 10, DecodeError::BadLength),
        (header(MAGIC_BINARY, 1003, BODY_BYTES_MAX as i32 + 1), 10, DecodeError::BadLength),
    ];
    for (header, enough, error) in cases {
        assert_eq!(deframe([&header[..enough - 1]]), (Vec::new(), None), "{header:?}");
        assert_eq!(deframe([&header[..enough]]), (Vec::new(), Some(error)), "{header:?}");
        assert_eq!(deframe(header.chunks(1)), (Vec::new(), Some(error)), "{header:?}");
        let body_follows = [&header[..], &[0; 100]].concat();
        assert_eq!(deframe([&body_follows[..]]), (Vec::new(), Some(error)), "{header:?}");
    }
}

#[test]
fn the_longest_body_is_taken() {
    let frame = [header(MAGIC_BINARY, 1003, BODY_BYTES_MAX as i32), vec![7; BODY_BYTES_MAX]].concat();
    let (frames, error) = deframe(frame.chunks(1000));
    assert_eq!((frames.len(), error), (1, None));
    assert_eq!(frames[0].2, vec![7; BODY_BYTES_MAX]);
}

#[test]
fn frames_before_a_bad_one_come_out() {
    let good = client_bytes(&ClientFrame::Logout, Encoding::Binary);
    let bytes = [&good[..], &good, b"GET / HTTP/1.1\r\n"].concat();
    for split in 0..bytes.len() {
        let (frames, error) = deframe([&bytes[..split], &bytes[split..]]);
        assert_eq!((frames.len(), error), (2, Some(DecodeError::BadMagic)), "split at {split}");
    }
}

#[test]
fn whole_frames_are_borrowed_from_the_input() {
    let capture = capture();
    let mut input = &capture[..];
    let mut deframer = Deframer::default();
    let range = capture.as_ptr_range();
    while let Some(frame) = deframer.next(&mut input, BODY_BYTES_MAX).unwrap() {
        assert!(frame.body.is_empty() || range.contains(&frame.body.as_ptr()), "copied");
        assert_eq!(deframer.partial_bytes(), 0);
    }
}

#[test]
fn a_frame_boundary_holds_no_heap() {
    assert_eq!(size_of::<Deframer>(), 8);
    let capture = capture();
    let mut deframer = Deframer::default();
    let mut fed = 0;
    let boundaries: Vec<usize> = frames_of(&capture)
        .iter()
        .scan(0, |end, (_, _, body)| {
            *end += HEADER_BYTES + body.len();
            Some(*end)
        })
        .collect();
    for mut part in capture.chunks(1) {
        while deframer.next(&mut part, BODY_BYTES_MAX).unwrap().is_some() {}
        fed += 1;
        let inside = !boundaries.contains(&fed);
        assert_eq!(deframer.has_partial(), inside, "after {fed} bytes");
        assert_eq!(deframer.partial_bytes() > 0, inside, "after {fed} bytes");
    }
}

#[test]
fn the_buffer_follows_what_arrived_not_what_is_claimed() {
    let len = BODY_BYTES_MAX;
    let frame = [header(MAGIC_BINARY, 1003, len as i32), vec![7; len]].concat();
    let fixed = 64;

    let mut deframer = Deframer::default();
    assert_eq!(deframer.next(&mut &frame[..20], BODY_BYTES_MAX), Ok(None));
    assert!(deframer.partial_bytes() <= fixed + 10, "{} bytes for 20", deframer.partial_bytes());

    for piece in [1, 7, 1000, 40_000] {
        let mut deframer = Deframer::default();
        let mut arrived = 0;
        for mut part in frame.chunks(piece) {
            arrived += part.len();
            let whole = deframer.next(&mut part, BODY_BYTES_MAX).unwrap().is_some();
            assert_eq!(whole, arrived == frame.len());
            let bound = fixed + len.min(2 * arrived);
            assert!(deframer.partial_bytes() <= bound, "{} after {arrived}", deframer.partial_bytes());
        }
        assert_eq!(deframer.next(&mut &[][..], BODY_BYTES_MAX), Ok(None));
        assert_eq!(deframer.partial_bytes(), 0, "freed");
    }
}

#[test]
fn the_code_of_a_frame_is_known_before_the_frame_is_whole() {
    let heartbeat = client_bytes(&ClientFrame::Heartbeat { echo: b"now" }, Encoding::Binary);
    let code = |len: usize| Some(Code::Heartbeat).filter(|_| len >= 6);
    for len in 0..HEADER_BYTES {
        let mut deframer = Deframer::default();
        assert_eq!(deframer.code(&heartbeat[..len]), code(len));
        assert_eq!(deframer.next(&mut &heartbeat[..len], BODY_BYTES_MAX), Ok(None));
        assert_eq!(deframer.code(&[]), code(len));
    }
}
