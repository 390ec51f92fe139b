//! The stream of a client, or of a server as a client hears it: deframer and both decoders of bodies.

use wire::client::{
    AckIds, Business, ClientFrame, DecodeError, Deframer, Encoding, Frame, NoticeCode, Recovery, ServerFrame,
    Want,
};
use wire::{AppId, BizCode, MessageId, RoomId, UserId};

const APP: AppId = AppId(1);
const USER: UserId = UserId(10_001);
const BODY_BYTES_MAX: usize = 64 << 10;

/// The first byte says where the stream is cut, the rest is the stream.
pub(crate) fn run(bytes: &[u8]) {
    let Some((cut, stream)) = bytes.split_first() else { return };
    let whole = frames(&[stream]);
    let cut = *cut as usize % (stream.len() + 1);
    let (first, second) = stream.split_at(cut);
    assert_eq!(frames(&[first, second]), whole, "frames depend on where the stream is cut");
}

/// Cuts the stream, and decodes each frame in both directions.
fn frames(pieces: &[&[u8]]) -> (Vec<(Encoding, u8)>, Option<DecodeError>) {
    let (mut deframer, mut seen) = (Deframer::default(), Vec::new());
    for piece in pieces {
        let mut piece = *piece;
        loop {
            match deframer.next(&mut piece, BODY_BYTES_MAX) {
                Ok(Some(frame)) => seen.push((frame.encoding, decode(&frame))),
                Ok(None) => break,
                Err(error) => return (seen, Some(error)),
            }
        }
    }
    (seen, None)
}

/// What decodes says the same after another encoding. Which directions decoded.
fn decode(frame: &Frame<'_>) -> u8 {
    let client = ClientFrame::decode(frame).ok();
    if let Some(decoded) = &client {
        let mut again = Vec::new();
        decoded.encode(frame.encoding, APP, USER, &mut again);
        with_first(&again, |again| {
            assert_eq!(ClientFrame::decode(again).as_ref(), Ok(decoded), "a client's frame");
        });
    }
    let server = ServerFrame::decode(frame).ok();
    if let Some(decoded) = &server {
        let mut again = Vec::new();
        decoded.encode(frame.encoding, APP, USER, &mut again);
        with_first(&again, |again| {
            assert_eq!(ServerFrame::decode(again).as_ref(), Ok(decoded), "a server's frame");
        });
    }
    u8::from(client.is_some()) | u8::from(server.is_some()) << 1
}

fn with_first(bytes: &[u8], then: impl FnOnce(&Frame<'_>)) {
    let (mut deframer, mut input) = (Deframer::default(), bytes);
    // An encoded frame may be longer than a limit; that is for who sends it.
    let frame = deframer.next(&mut input, usize::MAX).expect("what is encoded is a frame");
    then(&frame.expect("and whole"));
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let business = Business {
        biz_code: BizCode(5555),
        target: 7,
        client_msg_id: "m-1".into(),
        payload: br#"{"text":"hi \u00e9"}"#.into(),
    };
    let packed = 42u64.to_be_bytes();
    let frames = [
        ClientFrame::Login { token: "a.b.c".into() },
        ClientFrame::Logout,
        ClientFrame::Business(business),
        ClientFrame::Heartbeat { echo: &[] },
        ClientFrame::Ack(AckIds::Packed(&packed)),
        ClientFrame::Ack(AckIds::One(MessageId(42))),
        ClientFrame::Join { room: RoomId(7), want: None },
        ClientFrame::Join { room: RoomId(7), want: Some(Want::Since(9)) },
        ClientFrame::Join { room: RoomId(7), want: Some(Want::Last(20)) },
        ClientFrame::Leave { room: RoomId(7) },
    ];
    let notice = ServerFrame::Notice {
        code: NoticeCode::Draining,
        text: "bye".into(),
        retry_after_ms: 5,
        alternatives: vec!["a:1".into()],
    };
    let joined = |recovery| ServerFrame::Joined { room: RoomId(7), sequence: 9, recovery: Some(recovery) };
    let answers = [
        notice,
        ServerFrame::LoggedIn { heartbeat_ms: 1 },
        ServerFrame::LoggedOut,
        joined(Recovery::Complete),
        joined(Recovery::TooOld),
    ];
    let mut seeds = Vec::new();
    for encoding in [Encoding::Binary, Encoding::Json, Encoding::JsonOld] {
        for frame in &frames {
            let mut seed = vec![3];
            frame.encode(encoding, APP, USER, &mut seed);
            seeds.push(seed);
        }
        for answer in &answers {
            let mut seed = vec![9];
            answer.encode(encoding, APP, USER, &mut seed);
            seeds.push(seed);
        }
    }
    seeds
}
