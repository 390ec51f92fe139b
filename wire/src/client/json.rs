//! JSON bodies, as the Java platform's clients write and read them.
//!
//! Lenient towards those clients as fastjson is: fields may be missing or null, numbers may come as strings
//! and the other way round, unknown fields are ignored, and so is the value of a field that the frame does
//! not use. What comes from the server is read by the same rules.

mod scalar;

use std::borrow::Cow;
use std::io;

use base64::Engine;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize, Serializer};

use self::scalar::Scalar;
use super::{
    ALTERNATIVES_MAX, AckIds, Business, ClientFrame, Code, DecodeError, Encoding, FailReason, Message,
    NoticeCode, Outcome, Recovery, SendAck, ServerFrame, TOKEN_BYTES_MAX, Want, put_frame,
};
use crate::{AppId, BizCode, ClientMsgId, MessageId, RoomId, UserId};

/// What `dataEncoding` says when `data` is base64, because the payload is no text.
const BASE64: &str = "base64";
/// What `data` says in the answer to a login.
const LOGGED_IN: &str = "true";

pub(super) fn decode_client(code: Code, body: &[u8]) -> Result<ClientFrame<'_>, DecodeError> {
    match code {
        Code::Login => {
            let token = Body::parse(body)?.token.text()?;
            if token.len() > TOKEN_BYTES_MAX {
                return Err(DecodeError::BadBody);
            }
            Ok(ClientFrame::Login { token })
        }
        Code::Logout => Body::parse_or_empty(body).map(|_| ClientFrame::Logout),
        Code::Business => Body::parse(body).and_then(decode_business).map_err(|_| refusal(body)),
        Code::Heartbeat => Body::parse_or_empty(body).map(|_| ClientFrame::Heartbeat { echo: &[] }),
        Code::Ack => {
            // A number past u64 and the like names no message either.
            let id = Body::parse(body)?.msg_id.integer().unwrap_or_default().unwrap_or_default();
            Ok(ClientFrame::Ack(AckIds::One(MessageId(id))))
        }
        Code::Join => {
            let body = Body::parse(body)?;
            Ok(ClientFrame::Join { room: body.room()?, want: body.want()? })
        }
        Code::Leave => Ok(ClientFrame::Leave { room: Body::parse(body)?.room()? }),
        Code::SendAck | Code::Notice => Err(DecodeError::BadCode),
    }
}

/// Why a business packet's body is refused: an object by its form has a value that is of no use.
fn refusal(body: &[u8]) -> DecodeError {
    match parse_object::<IgnoredAny>(body) {
        Ok(IgnoredAny) => DecodeError::BadContent,
        Err(error) => error,
    }
}

/// See [`ClientFrame::client_msg_id_of_refused`]. What is not the id is skipped without being understood.
pub(super) fn client_msg_id_of_refused(body: &[u8]) -> Cow<'_, str> {
    let named = parse_object::<Named<'_>>(body);
    named.and_then(|named| bounded(named.msg_id.text()?)).unwrap_or_default()
}

/// The code and the body in a text of the Java platform that carries a frame.
pub(super) fn code_and_body_of(text: &[u8]) -> Result<(Code, Cow<'_, str>), DecodeError> {
    let carrier: Carrier<'_> = parse_object(text)?;
    let body = match carrier.body {
        Scalar::Null => Cow::Borrowed(""),
        Scalar::Text(body) => body,
        Scalar::Bool(_) | Scalar::Integer(_) | Scalar::Other => return Err(DecodeError::BadBody),
    };
    Ok((carrier.code.integer()?.and_then(Code::from_i32).ok_or(DecodeError::BadCode)?, body))
}

/// The code in a text that carries a frame.
pub(super) fn code_of(text: &[u8]) -> Result<Code, DecodeError> {
    let coded: Coded<'_> = parse_object(text)?;
    coded.code.integer()?.and_then(Code::from_i32).ok_or(DecodeError::BadCode)
}

pub(super) fn decode_server(code: Code, body: &[u8]) -> Result<ServerFrame<'_>, DecodeError> {
    match code {
        Code::Login => {
            let body = Body::parse(body)?;
            if body.data.text()? != LOGGED_IN {
                return Err(DecodeError::BadBody);
            }
            Ok(ServerFrame::LoggedIn { heartbeat_ms: body.heartbeat_ms.integer()?.unwrap_or_default() })
        }
        Code::Logout => Body::parse_or_empty(body).map(|_| ServerFrame::LoggedOut),
        Code::Business => decode_message(Body::parse(body)?),
        Code::Heartbeat => Body::parse_or_empty(body).map(|_| ServerFrame::Heartbeat { echo: &[] }),
        Code::SendAck => decode_send_ack(Body::parse(body)?),
        Code::Notice => {
            let data = Body::parse(body)?.data.text()?;
            let notice: NoticeData<'_> = parse_object(data.as_bytes())?;
            let code = notice.code.integer()?.and_then(NoticeCode::from_u16).ok_or(DecodeError::BadBody)?;
            let retry_after_ms = notice.retry_after_ms.integer()?.unwrap_or_default();
            let text = Cow::Owned(notice.text.text()?.into_owned());
            let alternatives = notice.alternatives.unwrap_or_default();
            if alternatives.len() > ALTERNATIVES_MAX {
                return Err(DecodeError::BadBody);
            }
            let alternatives = alternatives.into_iter().map(Cow::Owned).collect();
            Ok(ServerFrame::Notice { code, text, retry_after_ms, alternatives })
        }
        Code::Join => {
            let data = Body::parse(body)?.data.text()?;
            let place: Place<'_> = parse_object(data.as_bytes())?;
            let sequence = place.sequence.integer()?.ok_or(DecodeError::BadBody)?;
            let room = place.room()?;
            let recovery = Recovery::from_name(&place.recovery.text()?)?;
            Ok(ServerFrame::Joined { room, sequence, recovery })
        }
        Code::Leave => {
            let data = Body::parse(body)?.data.text()?;
            let place: Place<'_> = parse_object(data.as_bytes())?;
            Ok(ServerFrame::Left { room: place.room()? })
        }
        Code::Ack => Err(DecodeError::BadCode),
    }
}

pub(super) fn encode_client(
    frame: &ClientFrame<'_>,
    encoding: Encoding,
    app: AppId,
    user: UserId,
    out: &mut Vec<u8>,
) {
    let body = BodyOut::of_session(app, user);
    let body = match frame {
        ClientFrame::Login { token } => BodyOut { token: Some(token), ..body },
        ClientFrame::Logout | ClientFrame::Heartbeat { .. } => body,
        ClientFrame::Business(business) => BodyOut {
            biz_code: Some(business.biz_code),
            msg_id: Name::text(&business.client_msg_id),
            target: Some(business.target),
            ..body.with_payload(&business.payload)
        },
        ClientFrame::Ack(ids) => {
            for id in ids.iter() {
                let ack = BodyOut { msg_id: Some(Name::Id(id)), ..BodyOut::of_session(app, user) };
                ack.put(encoding, Code::Ack, out);
            }
            return;
        }
        ClientFrame::Join { room, want } => {
            let (since, last) = match want {
                None => (None, None),
                Some(Want::Since(since)) => (Some(*since), None),
                Some(Want::Last(last)) => (None, Some(*last)),
            };
            BodyOut { target: Some(room.0), since, last, ..body }
        }
        ClientFrame::Leave { room } => BodyOut { target: Some(room.0), ..body },
    };
    body.put(encoding, frame.code(), out);
}

pub(super) fn encode_server(
    frame: &ServerFrame<'_>,
    encoding: Encoding,
    app: AppId,
    user: UserId,
    out: &mut Vec<u8>,
) {
    let body = BodyOut::of_session(app, user);
    let body = match frame {
        ServerFrame::LoggedIn { heartbeat_ms } => BodyOut {
            data: Some(Data::Text(Cow::Borrowed(LOGGED_IN))),
            heartbeat_ms: Some(*heartbeat_ms),
            ..body
        },
        ServerFrame::LoggedOut | ServerFrame::Heartbeat { .. } => body,
        ServerFrame::Deliver(message) => message_out(message),
        ServerFrame::SendAck(ack) => BodyOut {
            msg_id: Some(Name::Text(ack.client_msg_id.as_str())),
            data: Some(Data::object(&SendAckOut::of(ack))),
            ..body
        },
        ServerFrame::Notice { code, text, retry_after_ms, alternatives } => {
            let notice = NoticeOut {
                code: *code as u16,
                name: code.name(),
                text,
                retry_after_ms: *retry_after_ms,
                alternatives,
            };
            BodyOut { data: Some(Data::object(&notice)), ..body }
        }
        ServerFrame::Joined { room, sequence, recovery } => {
            let recovery = recovery.map(Recovery::name);
            let place = PlaceOut { room_id: *room, sequence: Some(*sequence), recovery };
            BodyOut { data: Some(Data::object(&place)), ..body }
        }
        ServerFrame::Left { room } => {
            let place = PlaceOut { room_id: *room, sequence: None, recovery: None };
            BodyOut { data: Some(Data::object(&place)), ..body }
        }
    };
    body.put(encoding, frame.code(), out);
}

fn decode_business(body: Body<'_>) -> Result<ClientFrame<'_>, DecodeError> {
    let target = body.target()?;
    Ok(ClientFrame::Business(Business {
        biz_code: BizCode(body.biz_code.integer()?.unwrap_or_default()),
        target: target.unwrap_or_default(),
        client_msg_id: bounded(body.msg_id.text()?)?,
        payload: payload(body.data, body.data_encoding)?,
    }))
}

fn decode_message(body: Body<'_>) -> Result<ServerFrame<'_>, DecodeError> {
    let room = body.room_id.integer()?.map(RoomId);
    let sequence = if room.is_some() { body.sequence.integer()?.unwrap_or_default() } else { 0 };
    Ok(ServerFrame::Deliver(Cow::Owned(Message {
        id: MessageId(body.msg_id.integer()?.ok_or(DecodeError::BadBody)?),
        app: AppId(body.app_id.integer()?.unwrap_or_default()),
        sender: UserId(body.user_id.integer()?.unwrap_or_default()),
        biz_code: BizCode(body.biz_code.integer()?.unwrap_or_default()),
        room,
        sequence,
        ack_wanted: body.ack.flag()?,
        client_msg_id: own_client_msg_id(body.client_msg_id.text()?)?,
        payload: Bytes::from(payload(body.data, body.data_encoding)?.into_owned()),
    })))
}

/// A backend that keeps a message without a client_msg_id for its receiver gives it one of up to so many
/// bytes.
const GIVEN_NAME_BYTES: usize = 32;
/// The longest body of a delivered message without its client_msg_id and payload, and with a name that it is
/// given. A test holds it against the encoder.
pub(super) const MESSAGE_FIXED_BYTES_MAX: usize = 228 + GIVEN_NAME_BYTES;

/// The longest body of a delivered message with this client_msg_id and payload.
pub(super) fn message_bytes_max(client_msg_id: &[u8], payload: &[u8]) -> usize {
    let id = std::str::from_utf8(client_msg_id).unwrap_or_default();
    let given_name_bytes = if id.is_empty() { GIVEN_NAME_BYTES } else { 0 };
    let body = BodyOut {
        biz_code: Some(BizCode(i32::MIN)),
        msg_id: Some(Name::Id(MessageId(u64::MAX))),
        client_msg_id: Some(id),
        room_id: Some(RoomId(i64::MIN)),
        sequence: Some(u64::MAX),
        ack: true,
        ..BodyOut::of_session(AppId(i32::MIN), UserId(i64::MIN)).with_payload(payload)
    };
    let mut length = Length(given_name_bytes);
    serde_json::to_writer(&mut length, &body).expect("a count takes every write and every key is a string");
    length.0
}

/// Counts what is written to it.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn message_out(message: &Message) -> BodyOut<'_> {
    BodyOut {
        biz_code: Some(message.biz_code),
        msg_id: Some(Name::Id(message.id)),
        client_msg_id: Some(message.client_msg_id.as_str()).filter(|id| !id.is_empty()),
        room_id: message.room,
        sequence: message.room.map(|_| message.sequence),
        ack: message.ack_wanted,
        ..BodyOut::of_session(message.app, message.sender).with_payload(&message.payload)
    }
}

fn decode_send_ack(body: Body<'_>) -> Result<ServerFrame<'_>, DecodeError> {
    let client_msg_id = own_client_msg_id(body.msg_id.text()?)?;
    let data = body.data.text()?;
    let ack: SendAckData<'_> = parse_object(data.as_bytes())?;
    let outcome = match &*ack.outcome.text()? {
        "delivered" => Outcome::Delivered,
        "stored" => Outcome::Stored,
        "sequenced" => Outcome::Sequenced { sequence: ack.sequence.integer()?.ok_or(DecodeError::BadBody)? },
        "answered" => Outcome::Answered,
        "failed" => {
            let name = ack.reason.text()?;
            let reason = FailReason::ALL.into_iter().find(|reason| reason.name() == name);
            Outcome::Failed(reason.ok_or(DecodeError::BadBody)?)
        }
        _ => return Err(DecodeError::BadBody),
    };
    let id = MessageId(ack.message_id.integer()?.unwrap_or_default());
    Ok(ServerFrame::SendAck(SendAck { client_msg_id, id, outcome }))
}

fn payload<'a>(data: Scalar<'a>, encoding: Scalar<'a>) -> Result<Cow<'a, [u8]>, DecodeError> {
    let data = data.text()?;
    match &*encoding.text()? {
        "" => Ok(match data {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        }),
        BASE64 => STANDARD.decode(&*data).map(Cow::Owned).map_err(|_| DecodeError::BadBody),
        _ => Err(DecodeError::BadBody),
    }
}

fn own_client_msg_id(id: Cow<'_, str>) -> Result<ClientMsgId, DecodeError> {
    Ok(ClientMsgId::new(Bytes::from(bounded(id)?.into_owned())))
}

fn bounded(client_msg_id: Cow<'_, str>) -> Result<Cow<'_, str>, DecodeError> {
    if client_msg_id.len() <= ClientMsgId::BYTES_MAX { Ok(client_msg_id) } else { Err(DecodeError::BadBody) }
}

/// Every field of a body, of either direction.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Body<'a> {
    app_id: Scalar<'a>,
    user_id: Scalar<'a>,
    #[serde(borrow)]
    token: Scalar<'a>,
    biz_code: Scalar<'a>,
    msg_id: Scalar<'a>,
    data: Scalar<'a>,
    data_encoding: Scalar<'a>,
    target: Scalar<'a>,
    client_msg_id: Scalar<'a>,
    room_id: Scalar<'a>,
    sequence: Scalar<'a>,
    ack: Scalar<'a>,
    heartbeat_ms: Scalar<'a>,
    since: Scalar<'a>,
    last: Scalar<'a>,
}

impl<'a> Body<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, DecodeError> {
        parse_object(body)
    }

    fn parse_or_empty(body: &'a [u8]) -> Result<Self, DecodeError> {
        if body.is_empty() { Ok(Self::default()) } else { parse_object(body) }
    }

    /// The user or room that the packet is for: `target`, else `objectId` or `roomId` of an object in `data`.
    /// A `data` that does not parse names none: it is the application's.
    fn target(&self) -> Result<Option<i64>, DecodeError> {
        if let Some(target) = self.target.integer()? {
            return Ok(Some(target));
        }
        let Some(place) = self.place() else { return Ok(None) };
        let named = [place.object_id, place.room_id].map(|id| id.integer().ok().flatten());
        Ok(named.into_iter().flatten().find(|id| *id != 0))
    }

    /// The room to join or leave: `target`, else `roomId` of an object in `data`, else `data` itself.
    fn room(&self) -> Result<RoomId, DecodeError> {
        let target = match (self.target.integer()?, self.place()) {
            (Some(target), _) => Some(target),
            (None, Some(place)) => return place.room(),
            (None, None) => self.data.integer()?,
        };
        target.map(RoomId).ok_or(DecodeError::BadBody)
    }

    /// What a join wants of the messages before.
    fn want(&self) -> Result<Option<Want>, DecodeError> {
        match (self.since.integer()?, self.last.integer()?) {
            (None, None) => Ok(None),
            (Some(since), None) => Ok(Some(Want::Since(since))),
            (None, Some(last)) => Ok(Some(Want::Last(last))),
            (Some(_), Some(_)) => Err(DecodeError::BadBody),
        }
    }

    fn place(&self) -> Option<Place<'_>> {
        parse_object(self.data.as_str()?.as_bytes()).ok()
    }
}

/// A text of the Java platform; its magic and its length are not looked at.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Carrier<'a> {
    #[serde(borrow)]
    code: Scalar<'a>,
    #[serde(borrow)]
    body: Scalar<'a>,
}

/// The code of a text of which nothing else is looked at.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Coded<'a> {
    #[serde(borrow)]
    code: Scalar<'a>,
}

/// The name of a packet of which nothing else is looked at.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Named<'a> {
    #[serde(borrow)]
    msg_id: Scalar<'a>,
}

/// What `data` says of where: in a client's packet, and in the answer to join and leave.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Place<'a> {
    object_id: Scalar<'a>,
    #[serde(borrow)]
    room_id: Scalar<'a>,
    sequence: Scalar<'a>,
    recovery: Scalar<'a>,
}

impl Place<'_> {
    fn room(&self) -> Result<RoomId, DecodeError> {
        self.room_id.integer()?.map(RoomId).ok_or(DecodeError::BadBody)
    }
}

/// `data` of a send-ack.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct SendAckData<'a> {
    #[serde(borrow)]
    outcome: Scalar<'a>,
    message_id: Scalar<'a>,
    sequence: Scalar<'a>,
    reason: Scalar<'a>,
}

/// `data` of a notice.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct NoticeData<'a> {
    code: Scalar<'a>,
    #[serde(borrow)]
    text: Scalar<'a>,
    retry_after_ms: Scalar<'a>,
    alternatives: Option<Vec<String>>,
}

/// A derived struct would take an array, too.
fn parse_object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, DecodeError> {
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err(DecodeError::BadBody);
    }
    serde_json::from_slice(text).map_err(|_| DecodeError::BadBody)
}

/// A body to be written: `appId` and `userId` always, the others when there.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct BodyOut<'a> {
    app_id: i32,
    user_id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    biz_code: Option<BizCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    msg_id: Option<Name<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_msg_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_id: Option<RoomId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ack: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    heartbeat_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<u64>,
}

impl<'a> BodyOut<'a> {
    fn of_session(app: AppId, user: UserId) -> Self {
        Self { app_id: app.0, user_id: user.0, ..Self::default() }
    }

    fn with_payload(self, payload: &'a [u8]) -> Self {
        match std::str::from_utf8(payload) {
            Ok(text) => Self { data: Some(Data::Text(Cow::Borrowed(text))), ..self },
            Err(_) => Self { data: Some(Data::Base64(payload)), data_encoding: Some(BASE64), ..self },
        }
    }

    fn put(&self, encoding: Encoding, code: Code, out: &mut Vec<u8>) {
        put_frame(encoding, code, out, |out| {
            serde_json::to_writer(out, self).expect("a Vec takes every write and every key is a string");
        });
    }
}

/// `msgId`: what the client chose, or the server's id in decimal.
enum Name<'a> {
    Text(&'a str),
    Id(MessageId),
}

impl<'a> Name<'a> {
    fn text(id: &'a str) -> Option<Self> {
        (!id.is_empty()).then_some(Self::Text(id))
    }
}

impl Serialize for Name<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Id(id) => serializer.collect_str(&id.0),
        }
    }
}

/// `data`: always a string.
enum Data<'a> {
    Text(Cow<'a, str>),
    Base64(&'a [u8]),
}

impl Data<'_> {
    fn object(object: &impl Serialize) -> Self {
        Self::Text(Cow::Owned(serde_json::to_string(object).expect("every key is a string")))
    }
}

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Base64(bytes) => serializer.collect_str(&Base64Display::new(bytes, &STANDARD)),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SendAckOut {
    outcome: &'static str,
    message_id: Name<'static>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl SendAckOut {
    fn of(ack: &SendAck) -> Self {
        let (sequence, reason) = match ack.outcome {
            Outcome::Delivered | Outcome::Stored | Outcome::Answered => (None, None),
            Outcome::Sequenced { sequence } => (Some(sequence), None),
            Outcome::Failed(reason) => (None, Some(reason.name())),
        };
        Self { outcome: ack.outcome.name(), message_id: Name::Id(ack.id), sequence, reason }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NoticeOut<'a> {
    code: u16,
    name: &'static str,
    text: &'a str,
    retry_after_ms: u32,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    alternatives: &'a [Cow<'a, str>],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlaceOut {
    room_id: RoomId,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery: Option<&'static str>,
}
