//! The contents of an entry of the push stream.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use wire::node::Class;
use wire::{AppId, BizCode, ClientMsgId, RoomId, UserId};

use super::reader::Raw;
use super::{Push, PushTarget};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    app: i32,
    user: Option<i64>,
    room: Option<i64>,
    biz_code: i32,
    class: Option<ClassName>,
    client_msg_id: Option<String>,
    data: Option<String>,
    data_base64: Option<String>,
    #[serde(default)]
    sender: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ClassName {
    Reliable,
    Lossy,
}

/// Reads an entry; an error names what is wrong.
pub fn parse(raw: &Raw) -> Result<Push, String> {
    let body: Body = serde_json::from_slice(&raw.bytes).map_err(|error| format!("field p: {error}"))?;
    let target = match (body.user, body.room) {
        (Some(user), None) => PushTarget::User(UserId(user)),
        (None, Some(room)) => PushTarget::Room(RoomId(room)),
        (None, None) => PushTarget::All,
        (Some(_), Some(_)) => return Err("want user or room, not both".into()),
    };
    let class = match (body.class, target) {
        (Some(ClassName::Reliable), PushTarget::All) => return Err("class: to all it is lossy".into()),
        (Some(ClassName::Lossy), _) | (None, PushTarget::All) => Class::Lossy,
        (Some(ClassName::Reliable) | None, _) => Class::Reliable,
    };
    let payload = match (body.data, body.data_base64) {
        (Some(text), None) => text.into(),
        (None, Some(base64)) => {
            Bytes::from(STANDARD.decode(base64).map_err(|error| format!("data_base64: {error}"))?)
        }
        _ => return Err("want either data or data_base64".into()),
    };
    // An entry that is pushed again needs an id, and has one in the stream.
    let client_msg_id =
        body.client_msg_id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("push-{}", raw.id));
    if client_msg_id.len() > ClientMsgId::BYTES_MAX {
        return Err(format!("client_msg_id: want at most {} bytes", ClientMsgId::BYTES_MAX));
    }
    Ok(Push {
        app: AppId(body.app),
        target,
        biz_code: BizCode(body.biz_code),
        class,
        client_msg_id: ClientMsgId::new(client_msg_id.into()),
        sender: UserId(body.sender),
        payload,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Push, String> {
        parse(&Raw { id: "17-0".into(), bytes: text.as_bytes().to_vec(), tries: 1, is_gone: false })
    }

    #[test]
    fn every_target_and_class() {
        let push = read(r#"{"app":1,"user":-5,"biz_code":5557,"client_msg_id":"a","data":"hi","sender":9}"#)
            .unwrap();
        let mut wanted = Push {
            app: AppId(1),
            target: PushTarget::User(UserId(-5)),
            biz_code: BizCode(5557),
            class: Class::Reliable,
            client_msg_id: ClientMsgId::new("a".into()),
            sender: UserId(9),
            payload: "hi".into(),
        };
        assert_eq!(push, wanted);
        wanted.target = PushTarget::Room(RoomId(7));
        wanted.class = Class::Lossy;
        wanted.client_msg_id = ClientMsgId::new("push-17-0".into());
        wanted.sender = UserId(0);
        wanted.payload = Bytes::from_static(&[0xff, 0]);
        assert_eq!(
            read(r#"{"app":1,"room":7,"biz_code":5557,"class":"lossy","data_base64":"/wA="}"#),
            Ok(wanted.clone())
        );
        wanted.target = PushTarget::All;
        wanted.payload = Bytes::new();
        assert_eq!(read(r#"{"app":1,"biz_code":5557,"client_msg_id":"","data":""}"#), Ok(wanted));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let long =
            format!(r#"{{"app":1,"user":1,"biz_code":1,"data":"","client_msg_id":"{}"}}"#, "x".repeat(65));
        for (text, part) in [
            ("", "EOF"),
            ("[]", "invalid"),
            (r#"{"app":1,"user":1,"biz_code":1,"data":"","stored":true}"#, "stored"),
            (r#"{"app":1,"user":1,"data":""}"#, "biz_code"),
            (r#"{"app":1,"user":"1","biz_code":1,"data":""}"#, "invalid type"),
            (r#"{"app":1,"user":1,"room":1,"biz_code":1,"data":""}"#, "user or room"),
            (r#"{"app":1,"biz_code":1,"class":"reliable","data":""}"#, "lossy"),
            (r#"{"app":1,"user":1,"biz_code":1,"class":"fast","data":""}"#, "fast"),
            (r#"{"app":1,"user":1,"biz_code":1}"#, "data"),
            (r#"{"app":1,"user":1,"biz_code":1,"data":"","data_base64":""}"#, "either"),
            (r#"{"app":1,"user":1,"biz_code":1,"data_base64":"?"}"#, "data_base64"),
            (long.as_str(), "64"),
        ] {
            let wrong = read(text).unwrap_err();
            assert!(wrong.contains(part), "{text}: {wrong}");
        }
    }
}
