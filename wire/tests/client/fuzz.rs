//! Mutated captures and plain noise: no panic, no difference between splits, and what decodes encodes back.
//!
//! Deterministic. `WIRE_FUZZ_SEED` and `WIRE_FUZZ_ROUNDS` replay or widen it.

use std::env;

use proptest::prelude::*;
use wire::client::{ClientFrame, Code, Encoding, Frame, ServerFrame};

use crate::samples::{
    APP, ENCODINGS, USER, client_bytes, client_samples, only_frame, server_bytes, server_samples,
};
use crate::stream::deframe;

const SEED: u64 = 0x5346_1001;
const ROUNDS: u64 = 20_000;

/// SplitMix64, so that a seed gives the same bytes everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

fn from_env(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().expect("a decimal u64"))
}

#[test]
fn mutated_captures_neither_panic_nor_depend_on_the_split() {
    let seed = from_env("WIRE_FUZZ_SEED", SEED);
    let rounds = from_env("WIRE_FUZZ_ROUNDS", ROUNDS);
    let frames = sample_frames();
    let mut decoded = 0;
    for round in 0..rounds {
        let round_seed = seed.wrapping_add(round);
        println!(
            "replay: WIRE_FUZZ_SEED={round_seed} WIRE_FUZZ_ROUNDS=1 cargo test -p wire --test client fuzz"
        );
        let mut random = Random(round_seed);
        let mut bytes: Vec<u8> = (0..4).flat_map(|_| random.pick(&frames).clone()).collect();
        for _ in 0..1 + random.below(4) {
            mutate(&mut bytes, &frames, &mut random);
        }
        let whole = deframe([&bytes[..]]);
        assert_eq!(deframe(pieces(&bytes, &mut random)), whole);
        for (encoding, code, body) in &whole.0 {
            decoded += assert_stable(&Frame { encoding: *encoding, code: *code, body });
        }
    }
    assert!(decoded as u64 > rounds, "most mutations leave frames that decode: {decoded}");
}

proptest! {
    #[test]
    fn noise_in_a_body_never_panics(
        encoding in prop::sample::select(&ENCODINGS[..]),
        code in prop::sample::select(&Code::ALL[..]),
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..120),
            // JSON-like noise gets past the first byte.
            r#"\{("(data|msgId|target|token|bizCode|userId|sequence|roomId|ack)":("[^"]{0,9}"|-?[0-9]{1,25}|null|true|\{\}),?){0,6}\}"#
                .prop_map(String::into_bytes),
        ],
    ) {
        assert_stable(&Frame { encoding, code, body: &body });
    }

    #[test]
    fn noise_in_the_stream_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        deframe([&bytes[..]]);
        deframe(bytes.chunks(3));
    }
}

/// Decodes in both directions; what decodes must say the same after another encoding, and a binary body must
/// come back byte by byte. Returns how many directions decoded.
fn assert_stable(frame: &Frame<'_>) -> usize {
    let client = ClientFrame::decode(frame).ok();
    if let Some(decoded) = &client {
        let again = client_bytes(decoded, frame.encoding);
        let again = only_frame(&again);
        assert_eq!(ClientFrame::decode(&again).as_ref(), Ok(decoded));
        assert!(frame.encoding != Encoding::Binary || again == *frame);
    }
    let server = ServerFrame::decode(frame).ok();
    if let Some(decoded) = &server {
        let again = server_bytes(decoded, frame.encoding);
        let again = only_frame(&again);
        assert_eq!(ServerFrame::decode(&again).as_ref(), Ok(decoded));
        assert!(frame.encoding != Encoding::Binary || again == *frame);
    }
    usize::from(client.is_some()) + usize::from(server.is_some())
}

fn sample_frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for encoding in ENCODINGS {
        for sample in client_samples() {
            let mut out = Vec::new();
            sample.frame.encode(encoding, APP, USER, &mut out);
            frames.push(out);
        }
        frames.extend(server_samples().iter().map(|sample| server_bytes(&sample.frame, encoding)));
    }
    frames
}

fn mutate(bytes: &mut Vec<u8>, frames: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len().max(1));
    match random.below(7) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 if !bytes.is_empty() => bytes[at] = *random.pick(&[0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'\\']),
        2 if !bytes.is_empty() => drop(bytes.remove(at)),
        3 => bytes.insert(at, random.next() as u8),
        4 => bytes.truncate(at),
        5 => drop(bytes.splice(at..at, random.pick(frames).iter().copied())),
        6 if bytes.len() >= 4 => {
            let at = at.min(bytes.len() - 4);
            let number = *random.pick(&[0, 1, -1, i32::MAX, i32::MIN, 64, 65_537]);
            bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
        }
        _ => {}
    }
}

fn pieces<'a>(mut bytes: &'a [u8], random: &mut Random) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(1 + random.below(bytes.len().min(40)));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}
