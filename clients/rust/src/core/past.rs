//! Joins that ask for a room's past, and their answers.

use serde_json::{Value, json};
use wire::client::{Code, DecodeError, Encoding, Frame, ServerFrame};
use wire::{AppId, RoomId, UserId};

use crate::event::{Past, Recovery};

/// A frame of the server.
pub(super) enum Heard<'a> {
    Joined { room: RoomId, sequence: u64, recovery: Option<Recovery> },
    Other(ServerFrame<'a>),
}

/// Decodes a frame of the server.
pub(super) fn decode<'a>(frame: &Frame<'a>) -> Result<Heard<'a>, DecodeError> {
    if frame.code != Code::Join {
        return ServerFrame::decode(frame).map(Heard::Other);
    }
    match frame.encoding {
        Encoding::Binary => decode_binary(frame.body),
        Encoding::Json | Encoding::JsonOld => decode_json(frame.body),
    }
}

fn decode_binary<'a>(body: &[u8]) -> Result<Heard<'a>, DecodeError> {
    let (room, rest) = body.split_first_chunk().ok_or(DecodeError::BadBody)?;
    let (sequence, rest) = rest.split_first_chunk().ok_or(DecodeError::BadBody)?;
    let recovery = match rest {
        [] => None,
        [1] => Some(Recovery::Complete),
        [2] => Some(Recovery::TooOld),
        _ => return Err(DecodeError::BadBody),
    };
    let (room, sequence) = (RoomId(i64::from_be_bytes(*room)), u64::from_be_bytes(*sequence));
    Ok(Heard::Joined { room, sequence, recovery })
}

fn decode_json<'a>(body: &[u8]) -> Result<Heard<'a>, DecodeError> {
    let body: Value = serde_json::from_slice(body).map_err(|_| DecodeError::BadBody)?;
    let data: Value = serde_json::from_str(body["data"].as_str().ok_or(DecodeError::BadBody)?)
        .map_err(|_| DecodeError::BadBody)?;
    let room = data["roomId"].as_i64().ok_or(DecodeError::BadBody)?;
    let sequence = data["sequence"].as_u64().ok_or(DecodeError::BadBody)?;
    let recovery = match data["recovery"].as_str() {
        None => None,
        Some("complete") => Some(Recovery::Complete),
        Some("too_old") => Some(Recovery::TooOld),
        Some(_) => return Err(DecodeError::BadBody),
    };
    Ok(Heard::Joined { room: RoomId(room), sequence, recovery })
}

/// Appends a join.
pub(super) fn put_join(
    room: RoomId,
    past: Past,
    encoding: Encoding,
    (app, user): (AppId, UserId),
    out: &mut Vec<u8>,
) {
    let body = match encoding {
        Encoding::Binary => {
            let (want, value) = match past {
                Past::None => (None, None),
                Past::Since(sequence) => (Some(1), Some(sequence)),
                Past::Last(messages) => (Some(2), Some(messages)),
            };
            let mut body = room.0.to_be_bytes().to_vec();
            body.extend(want);
            body.extend(value.into_iter().flat_map(u64::to_be_bytes));
            body
        }
        Encoding::Json | Encoding::JsonOld => {
            let mut body = json!({"appId": app.0, "userId": user.0, "target": room.0});
            match past {
                Past::None => {}
                Past::Since(sequence) => body["since"] = sequence.into(),
                Past::Last(messages) => body["last"] = messages.into(),
            }
            body.to_string().into_bytes()
        }
    };
    out.extend_from_slice(&encoding.magic().to_be_bytes());
    out.extend_from_slice(&(Code::Join as i32).to_be_bytes());
    out.extend_from_slice(&(body.len() as i32).to_be_bytes());
    out.extend_from_slice(&body);
}
