//! Frames as text, as the Java platform's WebSocket clients have them: an object of a frame's header fields,
//! with the JSON body in a field. The client's body is a string; the server's is an array of bytes.

use std::borrow::Cow;

use super::{Code, DecodeError, json};

/// The magic that the server's texts name.
const MAGIC: u16 = 18_677;

/// The code and the body of the frame that a client's text is.
///
/// # Errors
/// `BadBody` when it is no JSON object, has a field twice or a body that is no string; `BadCode` when it has
/// no code that is known.
pub fn frame_of_java(text: &[u8]) -> Result<(Code, Cow<'_, str>), DecodeError> {
    json::code_and_body_of(text)
}

/// Writes a server's frame as text. What is not ASCII in the body is escaped first (RFC 8259, section 7), so
/// that its bytes are the same whether a client takes them for signed, for unsigned or for characters.
pub fn put_java(code: i32, body: &[u8], out: &mut Vec<u8>) {
    let body = ascii(&String::from_utf8_lossy(body));
    out.extend_from_slice(
        format!("{{\"magic\":{MAGIC},\"code\":{code},\"len\":{},\"body\":[", body.len()).as_bytes(),
    );
    for (at, byte) in body.bytes().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(byte.to_string().as_bytes());
    }
    out.extend_from_slice(b"]}");
}

/// The same JSON in ASCII. Outside its strings there is nothing else.
fn ascii(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_a_client_has_its_body_in_a_string() {
        let text = br#"{"magic":18672,"code":1003,"len":9,"body":"{\"bizCode\":5555}"}"#;
        assert_eq!(frame_of_java(text), Ok((Code::Business, r#"{"bizCode":5555}"#.into())));
        // Neither the magic nor the length is looked at, and a heartbeat needs no body.
        for text in [r#"{"code":"1004"}"#, r#"{"body":null,"code":1004,"magic":"x","len":[]}"#] {
            assert_eq!(frame_of_java(text.as_bytes()), Ok((Code::Heartbeat, "".into())), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_frame_is_refused() {
        for text in [
            "",
            "[]",
            r#"{"code":1004,"body":{}}"#,
            r#"{"code":1004,"body":[123,125]}"#,
            r#"{"code":1004,"code":1004}"#,
        ] {
            assert_eq!(frame_of_java(text.as_bytes()), Err(DecodeError::BadBody), "{text}");
        }
        for text in ["{}", r#"{"body":"{}"}"#, r#"{"code":7,"body":"{}"}"#] {
            assert_eq!(frame_of_java(text.as_bytes()), Err(DecodeError::BadCode), "{text}");
        }
    }

    #[test]
    fn a_text_of_the_server_has_its_body_in_bytes() {
        let mut text = Vec::new();
        put_java(1004, b"{}", &mut text);
        assert_eq!(text, br#"{"magic":18677,"code":1004,"len":2,"body":[123,125]}"#);
    }

    #[test]
    fn what_is_not_ascii_is_escaped() {
        let body = "{\"data\":\"\u{e9}\u{4e2d}\u{1f381}\"}";
        let escaped = r#"{"data":"\u00e9\u4e2d\ud83c\udf81"}"#;
        let mut text = Vec::new();
        put_java(1003, body.as_bytes(), &mut text);
        let list = escaped.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(",");
        let len = escaped.len();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            format!(r#"{{"magic":18677,"code":1003,"len":{len},"body":[{list}]}}"#)
        );
        let values = [body, escaped].map(|json| serde_json::from_str::<serde_json::Value>(json).unwrap());
        assert_eq!(values[0], values[1]);
    }
}
