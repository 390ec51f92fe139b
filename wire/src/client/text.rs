//! Frames as text: a JSON body with the frame's code as one more field, for transports that carry whole
//! messages.

use super::{DecodeError, Encoding, Frame, HEADER_BYTES, json};

/// Bytes that the code adds to a body.
pub const TEXT_CODE_BYTES: usize = r#""code":1001,"#.len();

/// The frame that a text is: a JSON object with the field `code`. Its body is the whole text, as a body
/// ignores fields that it does not know.
///
/// # Errors
/// `BadBody` when it is no JSON object or has two codes; `BadCode` when it has no code that is known.
pub fn frame_of_text(text: &[u8]) -> Result<Frame<'_>, DecodeError> {
    Ok(Frame { encoding: Encoding::Json, code: json::code_of(text)?, body: text })
}

/// Takes the first frame off whole frames that the server wrote with JSON bodies: its code and body. `None`
/// at the end.
pub fn next_of_frames<'a>(frames: &mut &'a [u8]) -> Option<(i32, &'a [u8])> {
    let (header, rest) = frames.split_first_chunk::<HEADER_BYTES>()?;
    let [_, _, c0, c1, c2, c3, l0, l1, l2, l3] = *header;
    let body_bytes = usize::try_from(i32::from_be_bytes([l0, l1, l2, l3])).ok()?;
    let (body, rest) = rest.split_at_checked(body_bytes)?;
    *frames = rest;
    Some((i32::from_be_bytes([c0, c1, c2, c3]), body))
}

/// The length of the text of a server's frame with that body.
pub fn text_bytes(body: &[u8]) -> usize {
    body.len() + TEXT_CODE_BYTES
}

/// Writes a server's frame as text. Its codes have four digits and its bodies are JSON objects with a field,
/// so the text has [`text_bytes`].
pub fn put_text(code: i32, body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"code\":");
    out.extend_from_slice(code.to_string().as_bytes());
    out.push(b',');
    out.extend_from_slice(body.strip_prefix(b"{").unwrap_or(body));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{ClientFrame, Code, NoticeCode, ServerFrame};
    use crate::{AppId, RoomId, UserId};

    #[test]
    fn a_text_is_a_body_with_a_code() {
        let text = br#"{"code":1010,"target":7}"#;
        let frame = frame_of_text(text).unwrap();
        assert_eq!((frame.code, frame.encoding), (Code::Join, Encoding::Json));
        assert_eq!(ClientFrame::decode(&frame), Ok(ClientFrame::Join { room: RoomId(7), want: None }));
        let frame = frame_of_text(br#" {"data":{"code":7},"x":[1], "code":"1004"} "#).unwrap();
        assert_eq!(frame.code, Code::Heartbeat);
    }

    #[test]
    fn a_text_without_a_code_is_refused() {
        for text in ["{}", r#"{"code":null}"#, r#"{"code":7}"#, r#"{"code":-1}"#] {
            assert_eq!(frame_of_text(text.as_bytes()), Err(DecodeError::BadCode), "{text}");
        }
        for text in ["", "7", "[]", r#"{"code":[]}"#, r#"{"code":1001,"code":1001}"#, r#"{"code":1001"#] {
            assert_eq!(frame_of_text(text.as_bytes()), Err(DecodeError::BadBody), "{text}");
        }
        assert_eq!(frame_of_text(br#"{"code":4294968297}"#), Err(DecodeError::BadBody));
    }

    #[test]
    fn what_the_server_says_is_a_text_for_each_frame() {
        let said = [
            ServerFrame::LoggedIn { heartbeat_ms: 30_000 },
            ServerFrame::Left { room: RoomId(7) },
            ServerFrame::Notice {
                code: NoticeCode::Busy,
                text: "later".into(),
                retry_after_ms: 0,
                alternatives: Vec::new(),
            },
        ];
        let mut frames = Vec::new();
        said.iter().for_each(|frame| frame.encode(Encoding::Json, AppId(1), UserId(10_001), &mut frames));
        let mut rest = &frames[..];
        let mut texts = Vec::new();
        while let Some((code, body)) = next_of_frames(&mut rest) {
            let mut text = Vec::new();
            put_text(code, body, &mut text);
            assert_eq!(text.len(), text_bytes(body));
            let read = Frame { encoding: Encoding::Json, code: Code::from_i32(code).unwrap(), body: &text };
            assert_eq!(ServerFrame::decode(&read).as_ref(), Ok(&said[texts.len()]));
            texts.push(String::from_utf8(text).unwrap());
        }
        assert_eq!(texts[0], r#"{"code":1001,"appId":1,"userId":10001,"data":"true","heartbeatMs":30000}"#);
        assert_eq!((texts.len(), rest.len()), (3, 0));
    }
}
