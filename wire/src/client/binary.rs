//! Binary bodies: big-endian fixed fields, then the payload. Lengths are exact.

use std::borrow::Cow;

use bytes::Bytes;

use super::reader::Reader;
use super::{
    ACK_IDS_MAX, ALTERNATIVES_MAX, AckIds, Business, ClientFrame, Code, DecodeError, Encoding, FailReason,
    HEARTBEAT_ECHO_BYTES_MAX, Message, NoticeCode, Outcome, Recovery, SendAck, ServerFrame, TOKEN_BYTES_MAX,
    Want, put_frame,
};
use crate::{AppId, BizCode, ClientMsgId, MessageId, RoomId, UserId};

/// Bit of a delivered message's flags: the receiver is to ack it.
const FLAG_ACK_WANTED: u8 = 1;
/// Bit of a delivered message's flags: room and sequence follow the sender.
const FLAG_ROOM: u8 = 2;

pub(super) fn decode_client(code: Code, body: &[u8]) -> Result<ClientFrame<'_>, DecodeError> {
    let mut reader = Reader::new(body);
    let frame = match code {
        Code::Login => ClientFrame::Login { token: Cow::Borrowed(token(reader.rest())?) },
        Code::Logout => ClientFrame::Logout,
        Code::Business => ClientFrame::Business(Business {
            biz_code: BizCode(reader.i32()?),
            target: reader.i64()?,
            client_msg_id: Cow::Borrowed(sent_client_msg_id(&mut reader)?),
            payload: Cow::Borrowed(reader.rest()),
        }),
        Code::Heartbeat => ClientFrame::Heartbeat { echo: echo(reader.rest())? },
        Code::Ack => ClientFrame::Ack(AckIds::Packed(ack_ids(reader.rest())?)),
        Code::Join => ClientFrame::Join { room: RoomId(reader.i64()?), want: want(&mut reader)? },
        Code::Leave => ClientFrame::Leave { room: RoomId(reader.i64()?) },
        Code::SendAck | Code::Notice => return Err(DecodeError::BadCode),
    };
    reader.finish()?;
    Ok(frame)
}

pub(super) fn decode_server(code: Code, body: &[u8]) -> Result<ServerFrame<'_>, DecodeError> {
    let mut reader = Reader::new(body);
    let frame = match code {
        Code::Login => ServerFrame::LoggedIn { heartbeat_ms: reader.u32()? },
        Code::Logout => ServerFrame::LoggedOut,
        Code::Business => ServerFrame::Deliver(Cow::Owned(decode_message(&mut reader)?)),
        Code::Heartbeat => ServerFrame::Heartbeat { echo: echo(reader.rest())? },
        Code::SendAck => ServerFrame::SendAck(decode_send_ack(&mut reader)?),
        Code::Notice => decode_notice(&mut reader)?,
        Code::Join => {
            let (room, sequence) = (RoomId(reader.i64()?), reader.u64()?);
            let recovery = if reader.is_empty() { None } else { Some(Recovery::from_u8(reader.u8()?)?) };
            ServerFrame::Joined { room, sequence, recovery }
        }
        Code::Leave => ServerFrame::Left { room: RoomId(reader.i64()?) },
        Code::Ack => return Err(DecodeError::BadCode),
    };
    reader.finish()?;
    Ok(frame)
}

pub(super) fn encode_client(frame: &ClientFrame<'_>, out: &mut Vec<u8>) {
    put_frame(Encoding::Binary, frame.code(), out, |out| match frame {
        ClientFrame::Login { token } => out.extend_from_slice(token.as_bytes()),
        ClientFrame::Logout => {}
        ClientFrame::Business(business) => {
            out.extend_from_slice(&business.biz_code.0.to_be_bytes());
            out.extend_from_slice(&business.target.to_be_bytes());
            put_client_msg_id(business.client_msg_id.as_bytes(), out);
            out.extend_from_slice(&business.payload);
        }
        ClientFrame::Heartbeat { echo } => out.extend_from_slice(echo),
        ClientFrame::Ack(ids) => ids.iter().for_each(|id| out.extend_from_slice(&id.0.to_be_bytes())),
        ClientFrame::Join { room, want } => {
            out.extend_from_slice(&room.0.to_be_bytes());
            if let Some((kind, value)) = want.map(Want::parts) {
                out.push(kind);
                out.extend_from_slice(&value.to_be_bytes());
            }
        }
        ClientFrame::Leave { room } => out.extend_from_slice(&room.0.to_be_bytes()),
    });
}

pub(super) fn encode_server(frame: &ServerFrame<'_>, out: &mut Vec<u8>) {
    put_frame(Encoding::Binary, frame.code(), out, |out| match frame {
        ServerFrame::LoggedIn { heartbeat_ms } => out.extend_from_slice(&heartbeat_ms.to_be_bytes()),
        ServerFrame::LoggedOut => {}
        ServerFrame::Deliver(message) => encode_message(message, out),
        ServerFrame::Heartbeat { echo } => out.extend_from_slice(echo),
        ServerFrame::SendAck(ack) => encode_send_ack(ack, out),
        ServerFrame::Notice { code, text, retry_after_ms, alternatives } => {
            out.extend_from_slice(&(*code as u16).to_be_bytes());
            out.extend_from_slice(&retry_after_ms.to_be_bytes());
            put_lines(text, alternatives, out);
        }
        ServerFrame::Joined { room, sequence, recovery } => {
            out.extend_from_slice(&room.0.to_be_bytes());
            out.extend_from_slice(&sequence.to_be_bytes());
            out.extend(recovery.map(|recovery| recovery as u8));
        }
        ServerFrame::Left { room } => out.extend_from_slice(&room.0.to_be_bytes()),
    });
}

/// What a join wants of the messages before; nothing when its body ends with the room.
fn want(reader: &mut Reader<'_>) -> Result<Option<Want>, DecodeError> {
    if reader.is_empty() {
        return Ok(None);
    }
    Want::from_parts(reader.u8()?, reader.u64()?).map(Some)
}

fn decode_notice<'a>(reader: &mut Reader<'a>) -> Result<ServerFrame<'a>, DecodeError> {
    let code = NoticeCode::from_u16(reader.u16()?).ok_or(DecodeError::BadBody)?;
    let retry_after_ms = reader.u32()?;
    let mut lines = utf8(reader.rest())?.split('\n');
    let text = Cow::Borrowed(lines.next().unwrap_or_default());
    if lines.clone().count() > ALTERNATIVES_MAX {
        return Err(DecodeError::BadBody);
    }
    Ok(ServerFrame::Notice { code, text, retry_after_ms, alternatives: lines.map(Cow::Borrowed).collect() })
}

fn put_lines(text: &str, alternatives: &[Cow<'_, str>], out: &mut Vec<u8>) {
    assert!(!text.contains('\n'), "whoever made the notice kept its text to one line");
    out.extend_from_slice(text.as_bytes());
    for alternative in alternatives {
        assert!(!alternative.contains('\n'), "whoever made the notice kept an alternative to one line");
        out.push(b'\n');
        out.extend_from_slice(alternative.as_bytes());
    }
}

/// The app is the session's and not on the wire: it decodes as 0.
fn decode_message(reader: &mut Reader<'_>) -> Result<Message, DecodeError> {
    let flags = reader.u8()?;
    if flags & !(FLAG_ACK_WANTED | FLAG_ROOM) != 0 {
        return Err(DecodeError::BadBody);
    }
    let biz_code = BizCode(reader.i32()?);
    let id = MessageId(reader.u64()?);
    let sender = UserId(reader.i64()?);
    let (room, sequence) =
        if flags & FLAG_ROOM != 0 { (Some(RoomId(reader.i64()?)), reader.u64()?) } else { (None, 0) };
    Ok(Message {
        id,
        app: AppId(0),
        sender,
        biz_code,
        room,
        sequence,
        ack_wanted: flags & FLAG_ACK_WANTED != 0,
        client_msg_id: own_client_msg_id(client_msg_id(reader)?),
        payload: Bytes::copy_from_slice(reader.rest()),
    })
}

fn encode_message(message: &Message, out: &mut Vec<u8>) {
    let room_flag = if message.room.is_some() { FLAG_ROOM } else { 0 };
    let ack_flag = if message.ack_wanted { FLAG_ACK_WANTED } else { 0 };
    // The fixed fields with room and sequence, and the id's length.
    out.reserve(38 + message.client_msg_id.as_bytes().len() + message.payload.len());
    out.push(room_flag | ack_flag);
    out.extend_from_slice(&message.biz_code.0.to_be_bytes());
    out.extend_from_slice(&message.id.0.to_be_bytes());
    out.extend_from_slice(&message.sender.0.to_be_bytes());
    if let Some(room) = message.room {
        out.extend_from_slice(&room.0.to_be_bytes());
        out.extend_from_slice(&message.sequence.to_be_bytes());
    }
    put_client_msg_id(message.client_msg_id.as_bytes(), out);
    out.extend_from_slice(&message.payload);
}

fn decode_send_ack(reader: &mut Reader<'_>) -> Result<SendAck, DecodeError> {
    let outcome = (reader.u8()?, reader.u64()?);
    let outcome = match outcome {
        (1, 0) => Outcome::Delivered,
        (2, 0) => Outcome::Stored,
        (3, sequence) => Outcome::Sequenced { sequence },
        (4, 0) => Outcome::Answered,
        (5, reason) => {
            let reason = u16::try_from(reason).ok().and_then(FailReason::from_u16);
            Outcome::Failed(reason.ok_or(DecodeError::BadBody)?)
        }
        _ => return Err(DecodeError::BadBody),
    };
    let id = MessageId(reader.u64()?);
    Ok(SendAck { client_msg_id: own_client_msg_id(client_msg_id(reader)?), id, outcome })
}

fn encode_send_ack(ack: &SendAck, out: &mut Vec<u8>) {
    let (outcome, detail) = match ack.outcome {
        Outcome::Delivered => (1_u8, 0),
        Outcome::Stored => (2, 0),
        Outcome::Sequenced { sequence } => (3, sequence),
        Outcome::Answered => (4, 0),
        Outcome::Failed(reason) => (5, u64::from(reason as u16)),
    };
    out.push(outcome);
    out.extend_from_slice(&detail.to_be_bytes());
    out.extend_from_slice(&ack.id.0.to_be_bytes());
    put_client_msg_id(ack.client_msg_id.as_bytes(), out);
}

fn token(bytes: &[u8]) -> Result<&str, DecodeError> {
    if bytes.len() > TOKEN_BYTES_MAX {
        return Err(DecodeError::BadBody);
    }
    utf8(bytes)
}

fn echo(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    if bytes.len() <= HEARTBEAT_ECHO_BYTES_MAX { Ok(bytes) } else { Err(DecodeError::BadBody) }
}

fn ack_ids(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let whole = bytes.len().is_multiple_of(8);
    if whole && (1..=ACK_IDS_MAX).contains(&(bytes.len() / 8)) {
        Ok(bytes)
    } else {
        Err(DecodeError::BadBody)
    }
}

/// `len: u8`, then that many bytes of UTF-8.
fn client_msg_id<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let len = usize::from(reader.u8()?);
    if len > ClientMsgId::BYTES_MAX {
        return Err(DecodeError::BadBody);
    }
    utf8(reader.bytes(len)?)
}

/// The same of a client's packet: one that is there and of no use is the packet's content, not its form.
fn sent_client_msg_id<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let len = usize::from(reader.u8()?);
    let id = reader.bytes(len)?;
    if len > ClientMsgId::BYTES_MAX {
        return Err(DecodeError::BadContent);
    }
    std::str::from_utf8(id).map_err(|_| DecodeError::BadContent)
}

fn own_client_msg_id(id: &str) -> ClientMsgId {
    ClientMsgId::new(Bytes::copy_from_slice(id.as_bytes()))
}

fn put_client_msg_id(id: &[u8], out: &mut Vec<u8>) {
    assert!(id.len() <= ClientMsgId::BYTES_MAX, "whoever made the frame bounds the id");
    out.push(id.len() as u8);
    out.extend_from_slice(id);
}

fn utf8(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::BadBody)
}
